package httpgrant

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/manifest/urltemplate"
	"sallyport/internal/problem"
)

type identNamespace = ident.Namespace

// Limits of what a function supplies, beside those of the template and of the grant.
const (
	maxPairs  = 100     // of a query, and of headers
	maxText   = 8 << 10 // bytes of one value
	maxQuery  = 8 << 10 // bytes of the whole query as it is sent
	maxMethod = 16      // bytes
)

// request is what a function asks for: by values of the template, or by a URL that the template makes.
type request struct {
	Method  string `json:"method"`
	URL     string `json:"url"`
	Values  values `json:"values"`
	Query   pairs  `json:"query"`
	Headers pairs  `json:"headers"`
}

// values are those of the template, by their names.
type values map[string]string

// UnmarshalJSONFrom reads values.
func (v *values) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch tok, err := dec.ReadToken(); {
	case err != nil:
		return err
	case tok.Kind() == jsontext.KindNull:
		return nil
	case tok.Kind() != jsontext.KindBeginObject:
		return errors.New("want an object")
	}
	*v = values{}
	for dec.PeekKind() != jsontext.KindEndObject {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		text, value := name.String(), scalar("")
		if err := value.UnmarshalJSONFrom(dec); err != nil {
			return err
		}
		(*v)[text] = string(value)
	}
	_, err := dec.ReadToken()
	return err
}

// scalar is a text, or a number or truth value as its text.
type scalar string

// UnmarshalJSONFrom reads a scalar.
func (s *scalar) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	tok, err := dec.ReadToken()
	if err != nil {
		return err
	}
	switch tok.Kind() {
	case '"', '0', 't', 'f':
		*s = scalar(tok.String())
		return nil
	}
	return errors.New("want a text, a number or a truth value")
}

// pair is a name with a value.
type pair struct{ name, value string }

// pairs are read from an object, {"name": "value"} or {"name": ["value", "value"]}, or from a list of lists, [["name", "value"]].
type pairs []pair

// UnmarshalJSONFrom reads pairs.
func (p *pairs) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '[':
		var list [][]scalar
		if err := json.UnmarshalDecode(dec, &list); err != nil {
			return err
		}
		for _, l := range list {
			if len(l) != 2 {
				return errors.New("want a name and a value")
			}
			*p = append(*p, pair{string(l[0]), string(l[1])})
		}
		return nil
	case '{':
		return p.object(dec)
	}
	return errors.New("want an object or a list")
}

func (p *pairs) object(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		text := name.String()
		several := make([]scalar, 1)
		if dec.PeekKind() == '[' {
			err = json.UnmarshalDecode(dec, &several)
		} else {
			err = several[0].UnmarshalJSONFrom(dec)
		}
		if err != nil {
			return err
		}
		for _, v := range several {
			*p = append(*p, pair{text, string(v)})
		}
	}
	_, err := dec.ReadToken()
	return err
}

// plan is a request without its credential.
type plan struct {
	method        string
	path, rawPath string
	query         string // as it is sent
	url           string // the whole, for the function
	headers       http.Header
	body          []byte
}

func invalid(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "fetch.request_invalid", format, args...)
}

// plan checks what a function asks for, and makes a request of it.
func (d *Door) plan(call *grant.Call) (*plan, error) {
	var r request
	if err := json.Unmarshal(call.Request, &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, invalid("grant %q: the request is not of the form {method, url or values, query, headers}", d.name).WithCause(err)
	}
	p := &plan{method: strings.ToUpper(r.Method), body: call.Body}
	if p.method == "" {
		p.method = http.MethodGet
		if len(d.grant.Methods) == 1 {
			p.method = d.grant.Methods[0]
		}
	}
	if len(p.method) > maxMethod || !slices.Contains(d.grant.Methods, p.method) {
		return nil, problem.New(problem.Denied, "fetch.method_refused", "grant %q has the methods %s, and not %q", d.name, strings.Join(d.grant.Methods, ", "), clip(p.method)).
			WithHint("add the method to the grant in app.toml")
	}
	if len(p.body) > 0 && (p.method == http.MethodGet || p.method == http.MethodHead) {
		return nil, invalid("grant %q: a %s request has no body", d.name, p.method)
	}
	var err error
	if p.headers, err = d.headers(r.Headers); err != nil {
		return nil, err
	}
	if r.URL != "" {
		return p, d.byURL(p, &r)
	}
	return p, d.target(p, r.Values, r.Query, false)
}

// byURL takes the URL apart that a function asks for.
func (d *Door) byURL(p *plan, r *request) error {
	if len(r.Values) > 0 || len(r.Query) > 0 {
		return invalid("grant %q: the request has a URL and values or a query beside it", d.name)
	}
	values, query, err := d.template.Match(r.URL)
	if err != nil {
		return problem.New(problem.Denied, "fetch.not_covered", "grant %q does not cover this URL: %v", d.name, err).
			WithHint("a function reaches what its grants name; the grant's URL is %s", d.grant.URL)
	}
	pairs, err := splitQuery(query)
	if err != nil {
		return invalid("grant %q: the query of the URL %v", d.name, err)
	}
	return d.target(p, values, pairs, true)
}

// splitQuery takes a query apart that stands in a URL.
func splitQuery(query string) (pairs, error) {
	if query == "" {
		return nil, nil
	}
	var out pairs
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		if len(out) >= maxPairs {
			return nil, fmt.Errorf("has more than %d parts", maxPairs)
		}
		name, value, _ := strings.Cut(part, "=")
		name, errName := url.QueryUnescape(name)
		value, errValue := url.QueryUnescape(value)
		if errName != nil || errValue != nil {
			return nil, errors.New("has a % that begins no escape")
		}
		out = append(out, pair{name, value})
	}
	return out, nil
}

// target puts path, query and URL into a plan. A part of the query that the grant fixes may be repeated by a URL, as it is.
func (d *Door) target(p *plan, values map[string]string, query pairs, inURL bool) error {
	var err error
	if p.path, p.rawPath, err = d.template.Expand(values); err != nil {
		if !errors.Is(err, urltemplate.ErrValue) {
			return err
		}
		return problem.New(problem.Invalid, "fetch.value_refused", "grant %q: %v", d.name, err).
			WithHint("a value stands for one part of the path; {name...} in the grant's URL takes several")
	}
	if len(query) > maxPairs {
		return invalid("grant %q: the query has %d parts, at most %d are allowed", d.name, len(query), maxPairs)
	}
	var b strings.Builder
	for _, name := range d.fixedQuery {
		addQuery(&b, name, d.grant.Query[name])
	}
	for _, q := range query {
		switch {
		case inURL && d.isFixed(q):
		case !d.mayQuery(q.name):
			return problem.New(problem.Denied, "fetch.query_refused", "grant %q does not let the function put %q into the query", d.name, clip(q.name)).
				WithHint(`name it in the grant: allow_query = [%q]`, clip(q.name))
		case len(q.value) > maxText:
			return invalid("grant %q: %q in the query has %d bytes, at most %d are allowed", d.name, clip(q.name), len(q.value), maxText)
		default:
			addQuery(&b, q.name, q.value)
		}
	}
	if b.Len() > maxQuery {
		return invalid("grant %q: the query has %d bytes, at most %d are allowed", d.name, b.Len(), maxQuery)
	}
	p.query = b.String()
	p.url = d.origin + p.rawPath
	if p.query != "" {
		p.url += "?" + p.query
	}
	return nil
}

func addQuery(b *strings.Builder, name, value string) {
	if b.Len() > 0 {
		b.WriteByte('&')
	}
	// A plus is a space to some and a plus to others; an escape is a space to all.
	b.WriteString(strings.ReplaceAll(url.QueryEscape(name), "+", "%20"))
	b.WriteByte('=')
	b.WriteString(strings.ReplaceAll(url.QueryEscape(value), "+", "%20"))
}

func (d *Door) isFixed(q pair) bool {
	v, ok := d.grant.Query[q.name]
	return ok && v == q.value
}

// mayQuery reports whether a function may put a name into the query: the grant allows it, and no server takes it for one
// that is fixed or the credential's.
func (d *Door) mayQuery(name string) bool {
	if name == "" || !slices.Contains(d.grant.AllowQuery, name) && !slices.Contains(d.grant.AllowQuery, "*") {
		return false
	}
	own := readAs(name)
	for _, fixed := range d.fixedQuery {
		if readAs(fixed) == own {
			return false
		}
	}
	return d.grant.Auth.Query == nil || readAs(d.grant.Auth.Query.Name) != own
}

// readAs is what lax servers make of a name in a query: they fold case, cut off what makes it a list, and take some
// characters for others.
func readAs(name string) string {
	name, _, _ = strings.Cut(strings.Trim(name, " \t\r\n\x00+"), "[")
	name, _, _ = strings.Cut(name, "\x00")
	return strings.Map(func(r rune) rune {
		switch r {
		case '.', ' ', '-', '+':
			return '_'
		}
		return r
	}, strings.ToLower(name))
}

// usualHeaders are those that a function may set without the grant's naming them: they say what it sends and what it takes.
var usualHeaders = []string{
	"accept", "accept-language", "content-language", "content-type", "if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "prefer", "range",
}

// headers checks a function's headers, and adds the fixed ones.
func (d *Door) headers(asked pairs) (http.Header, error) {
	h := make(http.Header, len(asked)+len(d.grant.Headers)+4)
	for name, value := range d.grant.Headers {
		h[http.CanonicalHeaderKey(name)] = []string{value}
	}
	if len(asked) > maxPairs {
		return nil, invalid("grant %q: the request has %d headers, at most %d are allowed", d.name, len(asked), maxPairs)
	}
	for _, a := range asked {
		key := http.CanonicalHeaderKey(a.name)
		switch {
		case !d.mayHeader(a.name):
			return nil, problem.New(problem.Denied, "fetch.header_refused", "grant %q does not let the function set the header %q", d.name, clip(a.name)).
				WithHint("name it in the grant, under allow_headers; what decides where a request goes or who it is from is never a function's to set")
		case h[key] != nil:
			return nil, invalid("grant %q: the header %q is there already", d.name, clip(a.name))
		}
		value := strings.Trim(a.value, " \t")
		if len(value) > maxText || strings.ContainsFunc(value, func(r rune) bool { return (r < ' ' || r > '~') && r != '\t' }) {
			return nil, invalid("grant %q: the header %q has a line break or another character than printable ASCII, or more than %d bytes", d.name, clip(a.name), maxText)
		}
		h[key] = []string{value}
	}
	return h, nil
}

func (d *Door) mayHeader(name string) bool {
	lower := strings.ToLower(name)
	if len(name) > 100 || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || manifest.OwnHeader(lower) {
		return false
	}
	if c := d.grant.Auth.Header; c != nil && strings.EqualFold(c.Name, name) {
		return false
	}
	if c := d.grant.Auth.HMAC; c != nil && strings.EqualFold(c.Header, name) {
		return false
	}
	if d.grant.Auth.AWS != nil && (lower == "x-amz-date" || lower == "x-amz-content-sha256") {
		return false
	}
	return slices.Contains(usualHeaders, lower) || slices.ContainsFunc(d.grant.AllowHeaders, func(a string) bool { return strings.EqualFold(a, name) })
}

func setBody(req *http.Request, body []byte) {
	if len(body) == 0 {
		req.Body = http.NoBody
		return
	}
	req.ContentLength = int64(len(body))
	req.Body = io.NopCloser(bytes.NewReader(body))
	// With it, a request on a connection that the server had just closed is sent again.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

// clip keeps a hostile text from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
