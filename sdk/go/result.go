package guest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
)

// result is what becomes of an event: a failure, or a reply and events. The reply and the data of
// events are JSON already.
type result struct {
	reply   json.RawMessage
	events  []Emitted
	failure *wireError
}

type wireError struct {
	Message           string  `json:"message"`
	Stack             string  `json:"stack,omitempty"`
	Retry             *bool   `json:"retry,omitempty"`
	RetryAfterSeconds float64 `json:"retry_after_seconds,omitempty"`
}

func failed(err error) *wireError {
	w := &wireError{Message: err.Error()}
	if f, ok := errors.AsType[*failure](err); ok {
		if f.final {
			w.Retry = new(bool)
		}
		w.RetryAfterSeconds = f.wait.Seconds()
	} else if g, ok := errors.AsType[*GrantError](err); ok {
		w.Retry, w.RetryAfterSeconds = &g.Retry, g.RetryAfter
	}
	return w
}

// encode returns the result as the JSON of design/abi.md.
func (r *result) encode() []byte {
	if r.failure != nil {
		text, _ := json.Marshal(r.failure) // strings and finite numbers always encode
		return append(append([]byte(`{"error":`), text...), '}')
	}
	size := 32 + len(r.reply)
	for i := range r.events {
		e := &r.events[i]
		size += 128 + len(e.Subject) + len(e.Data) + base64.StdEncoding.EncodedLen(len(e.DataBase64))
	}
	b := append(make([]byte, 0, size), '{')
	if r.reply != nil {
		b = append(append(b, `"reply":`...), r.reply...)
	}
	if len(r.events) > 0 {
		if r.reply != nil {
			b = append(b, ',')
		}
		b = append(b, `"events":[`...)
		for i := range r.events {
			b = append(r.events[i].append(b), ',')
		}
		b[len(b)-1] = ']'
	}
	return append(b, '}')
}

func (e *Emitted) append(b []byte) []byte {
	b = appendString(append(b, `{"type":`...), e.Type)
	for _, a := range [...]struct{ member, value string }{
		{`,"id":`, e.ID}, {`,"subject":`, e.Subject}, {`,"datacontenttype":`, e.DataContentType},
	} {
		if a.value != "" {
			b = appendString(append(b, a.member...), a.value)
		}
	}
	if len(e.Data) > 0 {
		b = append(append(b, `,"data":`...), e.Data...)
	}
	if len(e.DataBase64) > 0 {
		b = append(base64.StdEncoding.AppendEncode(append(b, `,"data_base64":"`...), e.DataBase64), '"')
	}
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, _ := json.Marshal(s) // strings always encode
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
