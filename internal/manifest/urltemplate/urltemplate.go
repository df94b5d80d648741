// Package urltemplate reads the URL templates of http grants, puts values into them, and finds out whether a URL is one
// that a template can make. It is pure.
//
// What holds for every value, whoever made it: it ends up in the place that the template has for it and nowhere else. It cannot end
// its path segment or add one (unless the template says {name...}), become "." or "..", begin a query or a fragment, or touch
// scheme, host and port; not even when a server behind decodes the path more often than it should.
//
// A URL that matches is not sent: it is taken apart into values, and what is sent is made of these, so that two parsers
// that read one URL differently gain nothing. Callers: manifest, grant/httpgrant.
package urltemplate

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/internal/ident"
)

// Limits.
const (
	MaxTemplate = 2048 // bytes of a template
	MaxURL      = 8192 // bytes of a URL, and of a path that is made
	MaxValue    = 2048 // bytes of one value
	maxSegments = 64
	maxName     = 63
	// maxDecodings is how often a value is decoded to see what somebody behind could make of it.
	maxDecodings = 3
)

// Errors that callers tell apart.
var (
	// ErrValue is wrapped by the error of a value that may not stand where the template has it.
	ErrValue = errors.New("value is not allowed")
	// ErrNoMatch is wrapped by the error of a URL that the template does not make.
	ErrNoMatch = errors.New("the template does not make this URL")
)

// Template is a URL template.
type Template struct {
	// Scheme is http or https; Host has no brackets, and Port is always there.
	Scheme, Host, Port string
	segments           []segment
	// Names are the names of the values in their order.
	Names []string
}

// segment is one part of the path: a literal, or a value with something fixed around it.
type segment struct {
	before, name, after string
	rest                bool // the value may be several segments
}

// Origin returns the template's origin without a default port: what a Host header says, with the scheme before it.
func (t *Template) Origin() string { return t.Scheme + "://" + t.Authority() }

// Authority returns host and port as in a URL: without a default port.
func (t *Template) Authority() string {
	host := t.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.Port == defaultPort(t.Scheme) {
		return host
	}
	return host + ":" + t.Port
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// Parse reads a template such as https://api.example.org/v1/charges/{id}. The error's text says what is wrong, for who wrote it.
func Parse(text string) (*Template, error) {
	if len(text) > MaxTemplate {
		return nil, fmt.Errorf("the URL is %d bytes, at most %d are allowed", len(text), MaxTemplate)
	}
	t := &Template{}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "https" && scheme != "http" {
		return nil, errors.New("want a URL that begins with https://, or with http:// for a private address")
	}
	t.Scheme = scheme
	authority, path, _ := strings.Cut(rest, "/")
	if err := t.parseAuthority(authority); err != nil {
		return nil, err
	}
	if strings.ContainsAny(path, "?#") {
		return nil, errors.New("the URL ends with its path; a fixed query goes into the key query")
	}
	if err := t.parsePath(path); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Template) parseAuthority(authority string) error {
	if strings.Contains(authority, "@") {
		return errors.New("a URL holds no credentials; they go into the key auth, as references to secrets")
	}
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host, port = authority[:i], authority[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return fmt.Errorf("%q is no port", port)
		}
	}
	if port == "" {
		port = defaultPort(t.Scheme)
	}
	host, err := ident.ParseHost(host)
	if err != nil {
		return err
	}
	t.Host, t.Port = host, port
	return nil
}

func (t *Template) parsePath(path string) error {
	parts := strings.Split(path, "/")
	if len(parts) > maxSegments {
		return fmt.Errorf("the path has %d segments, at most %d are allowed", len(parts), maxSegments)
	}
	for i, part := range parts {
		last := i == len(parts)-1
		if part == "" && !last {
			return errors.New("the path has an empty segment")
		}
		s, err := parseSegment(part)
		if err != nil {
			return err
		}
		if s.rest && !last {
			return fmt.Errorf("{%s...} stands for the rest of the path, and so at its end", s.name)
		}
		if s.name != "" {
			if slices.Contains(t.Names, s.name) {
				return fmt.Errorf("{%s} is there twice", s.name)
			}
			t.Names = append(t.Names, s.name)
		}
		t.segments = append(t.segments, s)
	}
	return nil
}

func parseSegment(part string) (segment, error) {
	before, rest, ok := strings.Cut(part, "{")
	s := segment{before: before}
	if ok {
		name, after, closed := strings.Cut(rest, "}")
		if !closed || strings.Contains(after, "{") {
			return s, fmt.Errorf("want one value at most in a segment of the path, such as {id}, not %q", part)
		}
		s.name, s.rest = strings.CutSuffix(name, "...")
		s.after = after
		if !validName(s.name) {
			return s, fmt.Errorf("%q is no name for a value: letters, digits and _, beginning with a letter", s.name)
		}
		if s.rest && (before != "" || after != "") {
			return s, fmt.Errorf("{%s...} stands alone in its segment", s.name)
		}
	}
	for _, c := range []byte(s.before + s.after) {
		if !literal(c) {
			return s, fmt.Errorf("the path has the character %q; want letters, digits and any of -._~!$&'()*+,;=:@", c)
		}
	}
	if s.name == "" && (before == "." || before == "..") {
		return s, fmt.Errorf("the path has the segment %q", before)
	}
	return s, nil
}

func validName(s string) bool {
	if s == "" || len(s) > maxName || s[0] >= '0' && s[0] <= '9' || s[0] == '_' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// unreserved are the characters that mean nothing anywhere in a URL (RFC 3986).
func unreserved(c byte) bool { return alphanumeric(c) || strings.IndexByte("-._~", c) >= 0 }

// literal are those that may stand in a path as they are.
func literal(c byte) bool { return unreserved(c) || strings.IndexByte("!$&'()*+,;=:@", c) >= 0 }

// Expand puts values into the path. It returns the path as it is meant and as it goes on the wire. Each name needs a
// value, and no other value is taken.
func (t *Template) Expand(values map[string]string) (path, raw string, err error) {
	if len(values) != len(t.Names) {
		for name := range values {
			if !slices.Contains(t.Names, name) {
				return "", "", fmt.Errorf("%w: %s is not in the template", ErrValue, clip(name))
			}
		}
	}
	var plain, wire strings.Builder
	for _, s := range t.segments {
		plain.WriteByte('/')
		wire.WriteByte('/')
		plain.WriteString(s.before)
		wire.WriteString(s.before)
		if s.name != "" {
			v, ok := values[s.name]
			if !ok {
				return "", "", fmt.Errorf("%w: %s is missing", ErrValue, s.name)
			}
			if err := s.check(v); err != nil {
				return "", "", fmt.Errorf("%w: %s %w", ErrValue, s.name, err)
			}
			plain.WriteString(v)
			escape(&wire, v, s.rest)
		}
		plain.WriteString(s.after)
		wire.WriteString(s.after)
	}
	if wire.Len() > MaxURL {
		return "", "", fmt.Errorf("%w: the path is %d bytes, at most %d are allowed", ErrValue, wire.Len(), MaxURL)
	}
	return plain.String(), wire.String(), nil
}

// escape writes a value with all escaped that is not unreserved, and slashes kept when it may have some.
func escape(b *strings.Builder, v string, slashes bool) {
	const digits = "0123456789ABCDEF"
	for _, c := range []byte(v) {
		if unreserved(c) || slashes && c == '/' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
}

// check says whether a value may stand in this segment.
func (s segment) check(v string) error {
	if len(v) > MaxValue {
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(v), MaxValue)
	}
	if !utf8.ValidString(v) {
		return errors.New("is not UTF-8")
	}
	if !s.rest {
		return checkPart(v, s.before, s.after)
	}
	parts := strings.Split(v, "/")
	if len(parts) > maxSegments {
		return fmt.Errorf("has %d segments, at most %d are allowed", len(parts), maxSegments)
	}
	for _, part := range parts {
		if err := checkPart(part, "", ""); err != nil {
			return err
		}
	}
	return nil
}

// checkPart checks what becomes one segment, as it is and as it would be for those who decode it again.
func checkPart(v, before, after string) error {
	if v == "" {
		return errors.New("is empty, or has an empty segment")
	}
	for range maxDecodings {
		switch {
		case strings.ContainsAny(v, `/\`):
			return errors.New("has a slash or a backslash, and stands for one segment of the path")
		case strings.ContainsFunc(v, unicode.IsControl):
			return errors.New("has a control character")
		case dots(v), dots(before + v + after):
			return errors.New("is a dot segment")
		}
		decoded, changed := decode(v)
		if !changed {
			return nil
		}
		v = decoded
	}
	return fmt.Errorf("is escaped more than %d times", maxDecodings-1)
}

// dots reports whether a segment is "." or "..", with or without parameters, which some servers cut off before they look.
func dots(segment string) bool {
	name, _, _ := strings.Cut(segment, ";")
	return name == "." || name == ".."
}

// decode undoes percent-escapes, and reports whether there were any. What is no escape stays.
func decode(s string) (string, bool) {
	if !strings.Contains(s, "%") {
		return s, false
	}
	var b strings.Builder
	changed := false
	for i := 0; i < len(s); i++ {
		if c, ok := unhex(s, i); ok {
			b.WriteByte(c)
			i += 2
			changed = true
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String(), changed
}

// unhex returns the byte that the escape at i stands for.
func unhex(s string, i int) (byte, bool) {
	if s[i] != '%' || i+2 >= len(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
	return byte(n), err == nil
}

// Match takes a URL apart that the template can make: into its values, and its query as it stands. A fragment is left out.
func (t *Template) Match(url string) (values map[string]string, query string, err error) {
	if len(url) > MaxURL {
		return nil, "", fmt.Errorf("%w: it is longer than %d bytes", ErrNoMatch, MaxURL)
	}
	for _, c := range []byte(url) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\\\"<>^`{|}", c) >= 0 {
			return nil, "", fmt.Errorf("%w: it has the character %q", ErrNoMatch, c)
		}
	}
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok || !strings.EqualFold(scheme, t.Scheme) {
		return nil, "", fmt.Errorf("%w: the scheme is another one", ErrNoMatch)
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, _ = strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if strings.Contains(authority, "@") {
		return nil, "", fmt.Errorf("%w: it has credentials", ErrNoMatch)
	}
	if authority = strings.ToLower(authority); authority != t.Authority() && authority != t.withPort() {
		return nil, "", fmt.Errorf("%w: the host or the port is another one", ErrNoMatch)
	}
	values, err = t.matchPath(path)
	return values, query, err
}

// withPort is Authority with the port, whatever it is.
func (t *Template) withPort() string {
	if strings.Contains(t.Host, ":") {
		return "[" + t.Host + "]:" + t.Port
	}
	return t.Host + ":" + t.Port
}

func (t *Template) matchPath(path string) (map[string]string, error) {
	parts := strings.Split(path, "/")
	if len(parts) > maxSegments {
		return nil, fmt.Errorf("%w: it has too many segments", ErrNoMatch)
	}
	values := make(map[string]string, len(t.Names))
	for i, s := range t.segments {
		if s.rest {
			rest, err := unescaped(strings.Join(parts[min(i, len(parts)):], "/"), true)
			if err != nil {
				return nil, err
			}
			values[s.name] = rest
			parts = parts[:min(i, len(parts))]
			continue
		}
		if i >= len(parts) {
			return nil, fmt.Errorf("%w: the path is shorter", ErrNoMatch)
		}
		part, err := unescaped(parts[i], false)
		if err != nil {
			return nil, err
		}
		inner, begins := strings.CutPrefix(part, s.before)
		inner, ends := strings.CutSuffix(inner, s.after)
		if !begins || !ends || s.name == "" && inner != "" {
			return nil, fmt.Errorf("%w: the path is another one", ErrNoMatch)
		}
		if s.name != "" {
			values[s.name] = inner
		}
	}
	if last := t.segments[len(t.segments)-1]; !last.rest && len(parts) > len(t.segments) {
		return nil, fmt.Errorf("%w: the path is longer", ErrNoMatch)
	}
	for _, s := range t.segments {
		if s.name == "" {
			continue
		}
		if err := s.check(values[s.name]); err != nil {
			return nil, fmt.Errorf("%w: %s %w", ErrNoMatch, s.name, err)
		}
	}
	return values, nil
}

// unescaped decodes a segment, or several between slashes. Escapes MUST be whole; an escaped slash is none between segments, and
// since nobody can tell how it is read behind, it is refused.
func unescaped(s string, several bool) (string, error) {
	for i := range len(s) {
		c, ok := unhex(s, i)
		if s[i] == '%' && !ok {
			return "", fmt.Errorf("%w: it has a %% that begins no escape", ErrNoMatch)
		}
		if ok && several && c == '/' {
			return "", fmt.Errorf("%w: it has an escaped slash", ErrNoMatch)
		}
	}
	out, _ := decode(s)
	return out, nil
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	if len(s) > maxName {
		return strings.ToValidUTF8(s[:maxName], "") + "…"
	}
	return s
}
