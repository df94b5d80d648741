package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/api"
	"sallyport/internal/problem"
)

// fail answers with a problem document. An internal error gets a reference under which the log has
// its cause.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem.From(err)
	if p.Kind == problem.Internal && r.Context().Err() != nil && errors.Is(err, r.Context().Err()) {
		// Most often nobody reads this. It must not look like success to whoever does.
		p = problem.New(problem.Unavailable, "httpapi.interrupted", "the request was interrupted; its outcome is open").
			WithRetryAfter(retryPause)
	}
	doc := a.document(p)
	if p.Kind == problem.Internal {
		doc.Reference = rand.Text()[:12]
		a.deps.Logger.ErrorContext(r.Context(), "request failed", "reference", doc.Reference, "method", clip(r.Method),
			"route", r.Pattern, "error", cause(p))
	}
	if a.deps.Refused != nil {
		a.deps.Refused(p.Code)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	if p.Kind == problem.Unauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="sallyport"`)
	}
	if p.Code == "httpapi.stopping" {
		h.Set("Connection", "close")
	}
	text, err := encode(doc)
	if err != nil {
		a.deps.Logger.ErrorContext(r.Context(), "problem could not be encoded", "code", p.Code, "error", err)
		text = fmt.Appendf(nil, `{"type":"about:blank","title":%q,"status":%d,"code":%q}`, http.StatusText(doc.Status), doc.Status, p.Code)
	}
	send(w, doc.Status, text)
}

// cause returns what the log gets of an internal problem.
func cause(p *problem.Error) error {
	if err := errors.Unwrap(p); err != nil {
		return err
	}
	return p
}

// document returns p as the wire has it.
func (a *API) document(p *problem.Error) *api.Problem {
	doc := &api.Problem{
		Type: "urn:sallyport:problem:" + p.Code, Title: a.titles[p.Code], Status: p.Kind.Status(), Detail: p.Public,
		Code: p.Code, Hint: p.Hint, Policies: p.Policies,
	}
	if doc.Title == "" {
		doc.Title = http.StatusText(doc.Status)
	}
	if p.Code == "httpapi.method_not_allowed" {
		doc.Status = http.StatusMethodNotAllowed
	}
	for _, f := range p.Faults {
		doc.Errors = append(doc.Errors, api.FieldError{
			Pointer: f.Pointer, File: f.File, Line: f.Line, Column: f.Column,
			Source: f.Source, Length: f.Length, Detail: f.Detail,
		})
	}
	return doc
}

// encode returns v as JSON. What a function wrote may not be UTF-8; it is answered with replacement
// characters. Event data keeps its strings as they were written. Equal values have equal texts.
func encode[T any](v *T) ([]byte, error) {
	return json.Marshal(v, jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true), json.Deterministic(true))
}

// answer writes v as JSON.
func answer[T any](c *call, status int, v *T) error {
	text, err := encode(v)
	if err != nil {
		return err
	}
	c.Header()["Content-Type"] = isJSON
	send(c, status, text)
	return nil
}

// shortAnswer is the length up to which net/http finds out a Content-Length by itself. Longer answers
// would go in chunks.
const shortAnswer = 2 << 10

// send writes an answer whole.
func send(w http.ResponseWriter, status int, text []byte) {
	if len(text) >= shortAnswer {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	}
	hurry(w)
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client may be gone; there is nobody to tell
}

// hurry bounds the time that the client may take to read what is written next.
func hurry(w http.ResponseWriter) {
	// A writer without deadlines is one of a test.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	send(w, status, []byte(text))
}

// appendReceipts writes the answer to a publish request. By hand, because it is on the way of every
// event.
func appendReceipts(dst []byte, receipts []api.Receipt) []byte {
	dst = append(dst, `{"receipts":[`...)
	for i := range receipts {
		rc := &receipts[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = appendText(dst, rc.ID)
		dst = append(dst, `,"source":`...)
		dst = appendText(dst, rc.Source)
		dst = append(dst, `,"position":`...)
		dst = strconv.AppendUint(dst, rc.Position, 10)
		if rc.Duplicate {
			dst = append(dst, `,"duplicate":true`...)
		}
		dst = append(dst, '}')
	}
	return append(dst, `]}`...)
}

func appendText(dst []byte, s string) []byte {
	// Ids and sources are valid UTF-8: the parser refuses others.
	out, _ := jsontext.AppendQuote(dst, s)
	return out
}

// panicKind says what a handler panicked with, without repeating what a caller may have sent.
func panicKind(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", v)
}

// ended reports whether a wait that ended with err did so by itself, for its time was up or the server
// drains, and not because the request is over.
func ended(c *call, err error) bool {
	return c.r.Context().Err() == nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
}
