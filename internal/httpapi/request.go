package httpapi

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

func badRequest(format string, args ...any) error {
	return problem.New(problem.Invalid, "httpapi.bad_request", format, args...)
}

// clip keeps what a caller sent from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// query holds the parameters of a request: each known to the route, and there once.
type query map[string]string

// parseQuery parses a query whose parameters are all in known.
func parseQuery(raw string, known []string) (query, error) {
	if raw == "" {
		return nil, nil
	}
	if len(raw) > maxQueryBytes {
		return nil, badRequest("the query is longer than %d bytes", maxQueryBytes)
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badRequest("the query is malformed")
	}
	q := query{}
	for name, list := range values {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, badRequest("this path takes no query parameters")
		case !slices.Contains(known, name):
			return nil, badRequest("this path has no query parameter %q; it has %s", clip(name), strings.Join(known, ", "))
		case len(list) != 1:
			return nil, badRequest("the query parameter %s is there more than once", name)
		}
		q[name] = list[0]
	}
	return q, nil
}

// flag reads true or false; without the parameter it is false.
func (q query) flag(name string) (bool, error) {
	switch q[name] {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, badRequest("%s must be true or false", name)
}

// wait reads how long a request may wait for an outcome.
func (q query) wait() (time.Duration, error) {
	text := q["wait"]
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxWait {
		return 0, badRequest("wait must be a duration of at most %s, such as 10s", maxWait)
	}
	return d, nil
}

// limit reads the size of a page.
func (q query) limit() (int, error) {
	text := q["limit"]
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxListLimit {
		return 0, badRequest("limit must be 1 to %d", maxListLimit)
	}
	return n, nil
}

// time reads a time (RFC 3339) or a duration before now, such as 10m.
func (q query) time(name string) (time.Time, error) {
	text := q[name]
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, badRequest("%s must be a time (RFC 3339) or a duration such as 10m", name)
	}
	return at, nil
}

// defaultPeriod is how far a period goes back that names no beginning.
const defaultPeriod = 24 * time.Hour

// period reads since and until: the last day when they are absent.
func (q query) period() (since, until time.Time, err error) {
	if since, err = q.time("since"); err != nil {
		return since, until, err
	}
	if until, err = q.time("until"); err != nil {
		return since, until, err
	}
	if since.IsZero() {
		since = time.Now().Add(-defaultPeriod)
	}
	if until.IsZero() {
		until = time.Now()
	}
	if until.Before(since) {
		return since, until, badRequest("until is before since")
	}
	return since, until, nil
}

// cursorDigits is the width of a cursor's checksum: that of a 32-bit number in decimal.
const cursorDigits = 10

// makeCursor returns the cursor of the page that begins before pos, in a list asked for with q. It
// carries a checksum over the list's parameters, so that a cursor of another list is refused and not
// misread. It needs no authentication: whoever has one may no more than without.
func makeCursor(ns ident.Namespace, q query, pos ident.Position) string {
	return fmt.Sprintf("%d%0*d", pos, cursorDigits, cursorSum(ns, q, pos))
}

// readCursor reads the cursor of q, 0 for none.
func readCursor(ns ident.Namespace, q query) (ident.Position, error) {
	text := q["cursor"]
	if text == "" {
		return 0, nil
	}
	refused := badRequest("the cursor is not one that this list returned")
	split := len(text) - cursorDigits
	if split < 1 {
		return 0, refused
	}
	n, err := strconv.ParseUint(text[:split], 10, 64)
	if err != nil || n == 0 || makeCursor(ns, q, ident.Position(n)) != text {
		return 0, refused
	}
	return ident.Position(n), nil
}

func cursorSum(ns ident.Namespace, q query, pos ident.Position) uint32 {
	h := crc32.NewIEEE()
	fmt.Fprintf(h, "%q %d", ns, pos)
	for _, name := range []string{"type", "source", "state", "since", "until"} {
		fmt.Fprintf(h, " %q", q[name])
	}
	return h.Sum32()
}

// readJSON reads a body of at most limit bytes into v, strictly.
func readJSON[T any](r *http.Request, limit int64, v *T) error {
	if err := plainBody(r, limit); err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return unreadable(err)
	}
	if int64(len(body)) > limit {
		return bodyTooLarge(limit)
	}
	if err := json.Unmarshal(body, v, json.RejectUnknownMembers(true)); err != nil {
		p := problem.New(problem.Invalid, "httpapi.bad_request", "the body is not what this path takes")
		if at, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			return p.WithFaults(problem.Fault{Pointer: string(at.JSONPointer), Detail: "malformed JSON at byte " + strconv.FormatInt(at.ByteOffset, 10)})
		}
		if at, ok := errors.AsType[*json.SemanticError](err); ok {
			return p.WithFaults(problem.Fault{Pointer: string(at.JSONPointer), Detail: "not a member or a value that is known here"})
		}
		return p
	}
	return nil
}

// plainBody refuses, before it is read, a body that is too large or encoded.
func plainBody(r *http.Request, limit int64) error {
	if r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	for _, v := range r.Header["Content-Encoding"] {
		if !strings.EqualFold(v, "identity") {
			return problem.New(problem.Unsupported, "httpapi.encoded_body", "the body has the Content-Encoding %q", clip(v)).
				WithHint("send the body as it is, without compression")
		}
	}
	return nil
}

func bodyTooLarge(limit int64) error {
	return problem.New(problem.TooLarge, "httpapi.body_too_large", "the body is larger than %d bytes", limit)
}

// unreadable is the problem of a body that ended early or came too slowly.
func unreadable(err error) error {
	return problem.New(problem.Invalid, "httpapi.body_unreadable", "the body could not be read to its end").WithCause(err)
}

// body is the body of a request in a buffer of the pool. release it once; nothing may use its bytes
// after that.
type body struct {
	bytes []byte
	api   *API
	buf   *[]byte
	taken int64
}

// firstRead is what a body of unknown length gets at first, in bytes.
const firstRead = 4 << 10

// body reads the request's body, of at most limit bytes.
func (a *API) body(r *http.Request, limit int) (body, error) {
	if err := plainBody(r, int64(limit)); err != nil {
		return body{}, err
	}
	b := body{api: a, buf: a.bodies.Get().(*[]byte)}
	b.bytes = (*b.buf)[:0]
	size := firstRead
	if r.ContentLength >= 0 {
		size = int(r.ContentLength)
	}
	if err := b.read(r, min(size, limit)+1, limit); err != nil {
		b.release()
		return body{}, err
	}
	return b, nil
}

// read reads to the end into a buffer that has room for size bytes at first, and one byte more than
// limit at last.
func (b *body) read(r *http.Request, size, limit int) error {
	for {
		if !b.grow(size) {
			return overloaded()
		}
		for len(b.bytes) < size {
			n, err := r.Body.Read(b.bytes[len(b.bytes):size])
			b.bytes = b.bytes[:len(b.bytes)+n]
			if len(b.bytes) > limit {
				return bodyTooLarge(int64(limit))
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return unreadable(err)
			}
		}
		size = min(2*size, limit+1)
	}
}

// grow makes room for size bytes, if there is memory for them.
func (b *body) grow(size int) bool {
	if more := int64(size) - b.taken; more > 0 {
		if !b.api.reserve(more) {
			return false
		}
		b.taken += more
	}
	b.bytes = slices.Grow(b.bytes, size-len(b.bytes))
	return true
}

// release gives the buffer back.
func (b *body) release() {
	b.api.memory.Add(-b.taken)
	if cap(b.bytes) <= maxPooledBody {
		*b.buf = b.bytes[:0]
		b.api.bodies.Put(b.buf)
	}
}

// traceparent returns the request's trace context if it is well formed.
//
// Source: W3C Trace Context, section 3.2.2.
func traceparent(r *http.Request) string {
	const (
		length          = 55 // vv-tttttttttttttttttttttttttttttttt-pppppppppppppppp-ff
		trace, parent   = 3, 36
		flags           = 53
		noTrace         = "00000000000000000000000000000000"
		noParent        = "0000000000000000"
		unusableVersion = "ff"
	)
	values := r.Header["Traceparent"]
	if len(values) != 1 || len(values[0]) != length {
		return ""
	}
	v := values[0]
	for i := range length {
		c := v[i]
		hex := '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
		if dash := i == trace-1 || i == parent-1 || i == flags-1; dash != (c == '-') || !dash && !hex {
			return ""
		}
	}
	if v[:2] == unusableVersion || v[trace:parent-1] == noTrace || v[parent:flags-1] == noParent {
		return ""
	}
	return v
}
