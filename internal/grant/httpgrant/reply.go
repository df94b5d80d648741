package httpgrant

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

// reply is what a function gets beside the body.
type reply struct {
	Status  int         `json:"status"`
	Headers [][2]string `json:"headers"`
	URL     string      `json:"url"`
}

// keptBack are headers of an answer that are between the host and the service: how it was sent, and cookies, which would let a
// function carry a session on.
var keptBack = []string{
	"Connection", "Content-Length", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Set-Cookie", "Set-Cookie2", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// reply makes the function's reply of an answer, without anything of the credential that came back in it.
func (d *Door) reply(p *plan, answer *outbound.Answer, m *material) (grant.Reply, error) {
	out := reply{Status: answer.Status, Headers: make([][2]string, 0, len(answer.Header)), URL: p.url}
	for name, values := range answer.Header {
		if slices.Contains(keptBack, name) {
			continue
		}
		for _, v := range values {
			out.Headers = append(out.Headers, [2]string{m.clean(text(strings.ToLower(name))), m.clean(text(v))})
		}
	}
	slices.SortFunc(out.Headers, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	head, err := json.Marshal(out)
	if err != nil {
		return grant.Reply{}, err
	}
	body := m.cleanBytes(answer.Body)
	if int64(len(head)+len(body)) > d.limits.Reply {
		return grant.Reply{}, d.failure(outbound.ErrTooLarge, m)
	}
	return grant.Reply{JSON: head, Body: body}, nil
}

// text returns a header's bytes as a text: as UTF-8 if they are, and byte by byte otherwise, as the Fetch Standard does.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// clean takes the credential out of a text.
func (m *material) clean(s string) string {
	if len(m.once) > 0 {
		for _, v := range m.once {
			s = strings.ReplaceAll(s, v, redact.Mask)
		}
	}
	return m.set.Text(s)
}

func (m *material) cleanBytes(b []byte) []byte {
	for _, v := range m.once {
		if bytes.Contains(b, []byte(v)) {
			b = bytes.ReplaceAll(b, []byte(v), []byte(redact.Mask))
		}
	}
	return m.set.Bytes(b)
}

// failure makes the problem of an exchange that did not come to an answer. What the service sent is in no sentence, and the
// cause, which is for the log, is without the credential.
func (d *Door) failure(err error, m *material) *problem.Error {
	cause := err
	if m != nil {
		cause = errors.New(m.clean(err.Error()))
	}
	p := d.classify(err)
	return p.WithCause(cause)
}

func (d *Door) classify(err error) *problem.Error {
	where := d.authority
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem.New(problem.Timeout, "fetch.timeout", "grant %q: %s did not answer in time", d.name, where).
			WithHint("the grant's limits.timeout is %s, and the function's own timeout holds besides", d.limits.Timeout)
	case errors.Is(err, outbound.ErrAddress):
		return problem.New(problem.Denied, "fetch.address_refused", "grant %q: %s leads to an address that the grant does not name", d.name, where).
			WithHint(`loopback, private and other special addresses are reached only when the grant names them: private = ["10.1.2.3"]`)
	case errors.Is(err, outbound.ErrName):
		return problem.New(problem.Unavailable, "fetch.name_unknown", "grant %q: %s has no address", d.name, where)
	case errors.Is(err, outbound.ErrProxy):
		return problem.New(problem.Unavailable, "fetch.proxy_refused", "grant %q: the proxy does not let the request through to %s", d.name, where)
	case errors.Is(err, outbound.ErrCertificate):
		return problem.New(problem.FunctionFailed, "fetch.certificate_refused", "grant %q: no TLS connection to %s that can be trusted", d.name, where).
			WithHint("the server's certificate must be for its name and from a CA that is known; ca in the grant names another one")
	case errors.Is(err, outbound.ErrConnect):
		return problem.New(problem.Unavailable, "fetch.unreachable", "grant %q: cannot connect to %s", d.name, where)
	case errors.Is(err, outbound.ErrTooLarge):
		return problem.New(problem.TooLarge, "fetch.answer_too_large", "grant %q: the answer of %s is larger than %d bytes", d.name, where, d.limits.Reply).
			WithHint("limits.reply in the grant is how large an answer may be, decompressed and with its headers")
	case errors.Is(err, outbound.ErrEncoding):
		return problem.New(problem.Unsupported, "fetch.answer_encoding", "grant %q: the answer of %s is in an encoding other than gzip", d.name, where)
	}
	return problem.New(problem.Unavailable, "fetch.answer_broken", "grant %q: the answer of %s is broken off, or is no HTTP", d.name, where)
}
