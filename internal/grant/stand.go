package grant

import (
	"bytes"
	"context"
	"encoding/base64"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/problem"
)

// Stand answers in place of what is behind the doors: `function test` and `dev --capture` have one, a server has none. It stands
// behind everything that can refuse a use, so a rehearsed use is decided, limited and counted like any other.
type Stand interface {
	// Takes reports whether uses of the caller's grant are rehearsed. Those of others go through their doors.
	Takes(c *Caller) bool
	// Answer answers a use that was planned and not made. carryOut says that it is to be made after all; an error is the function's.
	Answer(ctx context.Context, call *Call, p Planned) (reply Reply, carryOut bool, err error)
}

// Planned is a use up to where something would leave.
type Planned struct {
	// Sent is what would be sent, as a JSON object that people read and write: without any credential.
	Sent jsontext.Value
	// Effect reports whether the use would change, send or reveal something.
	Effect bool
	// Neutral is the reply of the use as if it had been made, when there is one that nobody has to make up; nil otherwise.
	Neutral *Reply
}

// Rehearser is a Door that can serve a use up to where something would leave, with everything that refuses it on the way. A
// door that is none is not gone through while somebody stands in for it.
type Rehearser interface {
	// Rehearse is Do with the answers of a Stand. carryOut says that Do is to be called after all.
	Rehearse(ctx context.Context, call *Call, s Stand) (reply Reply, carryOut bool, err error)
}

// rehearse has a use answered by the Stand.
func rehearse(ctx context.Context, door Door, call *Call, s Stand) (Reply, bool, error) {
	if r, ok := door.(Rehearser); ok {
		return r.Rehearse(ctx, call, s)
	}
	return s.Answer(ctx, call, Planned{Sent: WithBody(call.Request, call.Body), Effect: true})
}

// base64Key is the one member of an object that stands for bytes which are no text.
const base64Key = "base64"

// WithBody returns a JSON object with bytes as its member "body": as the JSON that they are, or as a text, or as {"base64": …}.
func WithBody(object jsontext.Value, body []byte) jsontext.Value {
	if len(body) == 0 {
		return object
	}
	value := jsontext.Value(bytes.TrimSpace(body))
	switch {
	case value.IsValid() && (value.Kind() == '{' || value.Kind() == '['):
	case utf8.Valid(body):
		value, _ = jsontext.AppendQuote(nil, body) // it is valid
	default:
		value, _ = json.Marshal(map[string]string{base64Key: base64.StdEncoding.EncodeToString(body)}) // texts only
	}
	end := bytes.LastIndexByte(object, '}')
	if end < 0 {
		return object
	}
	out := bytes.TrimRight(object[:end:end], " \t\r\n")
	if out[len(out)-1] != '{' {
		out = append(out, ',')
	}
	out = append(append(out, `"body":`...), value...)
	return append(out, '}')
}

// BodyOf is the way back: it returns the bytes that a member "body" stands for.
func BodyOf(value jsontext.Value) ([]byte, error) {
	switch value.Kind() {
	case '"':
		var s string
		err := json.Unmarshal(value, &s)
		return []byte(s), err
	case '{':
		var o map[string]jsontext.Value
		if err := json.Unmarshal(value, &o); err != nil {
			return nil, err
		}
		if encoded, ok := o[base64Key]; ok && len(o) == 1 {
			var b []byte
			err := json.Unmarshal(encoded, &b)
			return b, err
		}
	}
	return bytes.Clone(value), nil
}

// NotOfForm is the problem of a stand-in's answer that no real door could give.
func NotOfForm(grant, want string, cause error) error {
	return problem.New(problem.Unprocessable, "grant.stand_in_invalid", "the answer that stands in for the grant %q is not of the form %s", grant, want).
		WithHint("correct the answer under uses in the test or in the file of fixtures").WithCause(cause)
}

// Typed returns a stand-in's answer in the form of T, or the problem that it is not of it. want says the form in words.
func Typed[T any](call *Call, reply Reply, err error, want string) (Reply, error) {
	if err != nil {
		return Reply{}, err
	}
	var v T
	if err := json.Unmarshal(reply.JSON, &v, json.RejectUnknownMembers(true)); err != nil {
		return Reply{}, NotOfForm(call.Caller.Grant, want, err)
	}
	if reply.JSON, err = json.Marshal(&v, json.Deterministic(true)); err != nil {
		return Reply{}, NotOfForm(call.Caller.Grant, want, err)
	}
	return reply, nil
}
