package cell

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// maxAttributeBytes bounds the id, subject and content type of an emitted event.
const maxAttributeBytes = 1 << 10

// maxRetryAfter bounds the wait a function may ask for; the subscription's own maximum is below.
const maxRetryAfter = 24 * time.Hour

// wireResult is the JSON a guest hands over.
type wireResult struct {
	Reply  jsontext.Value `json:"reply"`
	Events wireEvents     `json:"events"`
	Error  *wireError     `json:"error"`
}

// wireEvents are the first events of a result, and how many there are. Those past MaxEvents are not
// kept: an event takes 2 bytes of a result, and a hundred times as many here.
type wireEvents struct {
	list  []wireEvent
	count int
}

// errNoList is the error of events that are something else.
var errNoList = errors.New("events must be an array")

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (w *wireEvents) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	switch kind := in.PeekKind(); kind {
	case jsontext.KindNull:
		return in.SkipValue()
	case jsontext.KindBeginArray:
	default:
		if kind == jsontext.KindInvalid {
			return in.SkipValue() // says what is wrong
		}
		return errNoList
	}
	if _, err := in.ReadToken(); err != nil {
		return err
	}
	for in.PeekKind() != jsontext.KindEndArray {
		if w.count++; w.count > MaxEvents {
			if err := in.SkipValue(); err != nil {
				return err
			}
			continue
		}
		var event wireEvent
		if err := json.UnmarshalDecode(in, &event, json.RejectUnknownMembers(true)); err != nil {
			return err
		}
		w.list = append(w.list, event)
	}
	_, err := in.ReadToken()
	return err
}

type wireEvent struct {
	Type            string         `json:"type"`
	ID              string         `json:"id"`
	Subject         string         `json:"subject"`
	Data            jsontext.Value `json:"data"`
	DataBase64      []byte         `json:"data_base64"`
	DataContentType string         `json:"datacontenttype"`
}

type wireError struct {
	Message           string  `json:"message"`
	Stack             string  `json:"stack"`
	Retry             *bool   `json:"retry"`
	RetryAfterSeconds float64 `json:"retry_after_seconds"`
}

// parseResult parses what a guest handed over. The caller has bounded its length. Parts of the text are in the
// result.
func (e *Engine) parseResult(text []byte, limits Limits) (Result, error) {
	wire, plain := e.plain.read(text)
	if !plain {
		var err error
		if wire, err = decodeResult(text); err != nil {
			return Result{}, err
		}
	}
	if wire.Error != nil {
		return Result{}, failed(wire.Error.failure())
	}
	if wire.Events.count > limits.Events {
		return Result{}, badResult("it has %d events, the limit is %d", wire.Events.count, limits.Events)
	}
	result := Result{Reply: wire.Reply}
	for i := range wire.Events.list {
		emitted, err := wire.Events.list[i].emitted(i)
		if err != nil {
			return Result{}, err
		}
		result.Events = append(result.Events, emitted)
	}
	return result, nil
}

func decodeResult(text []byte) (wireResult, error) {
	var wire wireResult
	if len(bytes.TrimSpace(text)) == 0 {
		return wire, nil
	}
	if err := json.Unmarshal(text, &wire, json.RejectUnknownMembers(true)); err != nil {
		if failure := repairedError(text); failure != nil {
			return wireResult{Error: failure}, nil
		}
		return wireResult{}, badResult("%s", firstLine(err.Error()))
	}
	return wire, nil
}

// repairedError returns the error in a result whose strings are not all Unicode, as one surrogate is not; nil
// when it has none. A function that says it must not be tried again is believed, however it words that.
func repairedError(text []byte) *wireError {
	var wire struct {
		Error *wireError `json:"error"`
	}
	if err := json.Unmarshal(text, &wire, json.RejectUnknownMembers(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil
	}
	return wire.Error
}

// failureOf returns the problem in the result of a guest that reported failure.
func failureOf(text []byte) error {
	wire, err := decodeResult(text)
	if err != nil {
		return err
	}
	if wire.Error == nil {
		return failed(&Failure{Message: "the function failed without a message"})
	}
	return failed(wire.Error.failure())
}

func (w *wireError) failure() *Failure {
	f := &Failure{Message: w.Message, Stack: bounded(w.Stack, maxMessageBytes), Final: w.Retry != nil && !*w.Retry}
	if f.Message == "" {
		f.Message = "the function failed without a message"
	}
	if s := w.RetryAfterSeconds; s > 0 && !math.IsInf(s, 0) {
		f.RetryAfter = time.Duration(min(s, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	return f
}

func (w *wireEvent) emitted(index int) (Emitted, error) {
	kind, err := ident.ParseEventType(w.Type)
	if err != nil {
		return Emitted{}, badResult("event %d: %v", index, err)
	}
	for _, a := range []struct{ name, value string }{{"id", w.ID}, {"subject", w.Subject}, {"datacontenttype", w.DataContentType}} {
		if len(a.value) > maxAttributeBytes || strings.ContainsFunc(a.value, isControl) {
			return Emitted{}, badResult("event %d: %s is longer than %d bytes or holds a control character", index, a.name, maxAttributeBytes)
		}
	}
	if len(w.Data) > 0 && w.DataBase64 != nil {
		return Emitted{}, badResult("event %d has both data and data_base64", index)
	}
	return Emitted{Type: kind, ID: w.ID, Subject: w.Subject, Data: w.Data, DataContentType: w.DataContentType, DataBase64: w.DataBase64}, nil
}

func isControl(r rune) bool { return r < 0x20 || 0x7f <= r && r < 0xa0 }

func badResult(format string, args ...any) error {
	p := problem.New(problem.FunctionFailed, "cell.bad_result", format, args...)
	p.Public = "the function's result cannot be used: " + p.Public
	return p
}

// bounded cuts s to at most n bytes of valid UTF-8.
func bounded(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
