package event

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/problem"
)

// CheckJSON accepts b if it is exactly one JSON text (RFC 8259, with the stricter reading of RFC
// 7493: valid UTF-8, no lone surrogate, no object key twice) within lim. The fault it reports
// carries the JSON pointer of its place, never the value there.
//
// It is a scanner of its own because every accepted event passes it: one pass that makes no tokens
// costs a fifth of jsontext's. FuzzCheckJSON holds it to jsontext's verdict.
//
// Source: RFC 8259, RFC 7493, RFC 6901.
func CheckJSON(b []byte, lim Limits) error {
	c := checker{b: b, lim: lim}
	return c.end(c.value(c.space(0)))
}

// checker is one pass over a JSON text. Its methods take the index they begin at and return the
// index behind what they accepted, or -1 with bad set; the callers then add to the path on their way
// out, so a text without fault pays nothing for the pointer.
//
// It holds its parts by value and nothing that points into it, so that it stays on the stack.
type checker struct {
	b     []byte
	lim   Limits
	depth int
	keys  keyStack
	bad   failure
}

// failure is why a pass ended, and where.
type failure struct {
	code, detail string
	at           int
	path         []string // pointer segments, innermost first
	err          error    // of a visitor; it stands for the rest
}

// end ends the pass at i: nothing but space may follow.
func (c *checker) end(i int) error {
	if i < 0 {
		return c.problem()
	}
	if i = c.space(i); i == len(c.b) {
		return nil
	}
	c.malformed(i, "more than one JSON value")
	return c.problem()
}

func (c *checker) malformed(at int, detail string) int {
	c.bad.code, c.bad.detail, c.bad.at = "event.json_malformed", detail, min(at, len(c.b))
	return -1
}

func (c *checker) over(at, most int, what, unit string) int {
	c.bad.code, c.bad.at = "event.json_limit", at
	c.bad.detail = what + " than " + strconv.Itoa(most) + unit
	return -1
}

// unexpected is the fault of a text that has something else, or nothing, at i.
func (c *checker) unexpected(i int, want string) int {
	if i >= len(c.b) {
		return c.malformed(i, "ends before it is complete")
	}
	return c.malformed(i, want)
}

// reject ends the pass with an error of the caller's own.
func (c *checker) reject(err error) int {
	c.bad.err = err
	return -1
}

func (c *checker) problem() error {
	f := &c.bad
	if f.err != nil {
		return f.err
	}
	var p strings.Builder
	for i := len(f.path) - 1; i >= 0; i-- {
		p.WriteString(f.path[i])
	}
	at := problem.Fault{Pointer: p.String(), Detail: f.detail}
	switch f.code {
	case "event.json_limit":
		return problem.New(problem.Invalid, "event.json_limit", "the JSON is over a limit: %s", f.detail).WithFaults(at)
	case "event.json_duplicate_key":
		return problem.New(problem.Invalid, "event.json_duplicate_key", "an object in the JSON has the same key twice").
			WithHint("send each key once: two parsers would read two different events").WithFaults(at)
	}
	return problem.New(problem.Invalid, "event.json_malformed", "the JSON is malformed at byte %d: %s", f.at, f.detail).
		WithFaults(at)
}

// space skips white space.
func (c *checker) space(i int) int {
	b := c.b
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

func (c *checker) value(i int) int {
	if i >= len(c.b) {
		return c.unexpected(i, "")
	}
	switch ch := c.b[i]; {
	case ch == '"':
		end, _ := c.text(i + 1)
		if end < 0 {
			return -1
		}
		if end-i-1 > c.lim.StringBytes {
			return c.over(i, c.lim.StringBytes, "a string longer", " bytes")
		}
		return end + 1
	case ch == '{':
		return c.object(i, nil)
	case ch == '[':
		return c.array(i, nil)
	case ch == '-' || '0' <= ch && ch <= '9':
		return c.number(i)
	case ch == 't':
		return c.literal(i, "true")
	case ch == 'f':
		return c.literal(i, "false")
	case ch == 'n':
		return c.literal(i, "null")
	}
	return c.malformed(i, "want a value")
}

func (c *checker) literal(i int, want string) int {
	have := c.b[i:]
	if len(have) >= len(want) && string(have[:len(want)]) == want {
		return i + len(want)
	}
	return c.malformed(i, "want a value")
}

// array takes an array; element, unless nil, takes each of its elements in value's place.
func (c *checker) array(i int, element func(n, i int) int) int {
	if c.depth++; c.depth > c.lim.Depth {
		return c.over(i, c.lim.Depth, "nested deeper", "")
	}
	b := c.b
	i = c.space(i + 1)
	if i < len(b) && b[i] == ']' {
		c.depth--
		return i + 1
	}
	for n := 0; ; n++ {
		if n >= c.lim.Members {
			return c.over(i, c.lim.Members, "an array of more", " members")
		}
		end := 0
		if element == nil {
			end = c.value(i)
		} else {
			end = element(n, i)
		}
		if end < 0 {
			c.bad.path = append(c.bad.path, "/"+strconv.Itoa(n))
			return -1
		}
		i = c.space(end)
		switch {
		case i < len(b) && b[i] == ',':
			i = c.space(i + 1)
		case i < len(b) && b[i] == ']':
			c.depth--
			return i + 1
		default:
			return c.unexpected(i, "want a comma or ]")
		}
	}
}

// object takes an object; visit, unless nil, is shown each of its members and may end the pass.
func (c *checker) object(i int, visit func(name, value []byte) error) int {
	if c.depth++; c.depth > c.lim.Depth {
		return c.over(i, c.lim.Depth, "nested deeper", "")
	}
	b := c.b
	i = c.space(i + 1)
	if i < len(b) && b[i] == '}' {
		c.depth--
		return i + 1
	}
	first := c.keys.n
	var seen keySet
	for n := 0; ; n++ {
		if n >= c.lim.Members {
			return c.over(i, c.lim.Members, "an object of more", " members")
		}
		name, end := c.name(i)
		if end < 0 {
			return -1
		}
		if !c.keys.add(first, name, &seen) {
			c.bad.code, c.bad.detail, c.bad.at = "event.json_duplicate_key", "this key is there before", i
			return c.in(name, -1)
		}
		if i = c.space(end); i >= len(b) || b[i] != ':' {
			return c.in(name, c.unexpected(i, "want a colon"))
		}
		i = c.space(i + 1)
		if end = c.value(i); end < 0 {
			return c.in(name, -1)
		}
		if visit != nil {
			if err := visit(name, b[i:end:end]); err != nil {
				return c.reject(err)
			}
		}
		i = c.space(end)
		switch {
		case i < len(b) && b[i] == ',':
			i = c.space(i + 1)
		case i < len(b) && b[i] == '}':
			c.depth--
			c.keys.n = first
			return i + 1
		default:
			return c.unexpected(i, "want a comma or }")
		}
	}
}

// in puts a fault into the member name, whose own text may be hostile.
func (c *checker) in(name []byte, fault int) int {
	c.bad.path = append(c.bad.path, pointer(string(name)))
	return fault
}

// name takes an object key and returns it without quotes and escapes.
func (c *checker) name(i int) ([]byte, int) {
	if i >= len(c.b) || c.b[i] != '"' {
		return nil, c.unexpected(i, "want an object key, a string")
	}
	end, escaped := c.text(i + 1)
	if end < 0 {
		return nil, -1
	}
	name := c.b[i+1 : end]
	if len(name) > c.lim.KeyBytes {
		return nil, c.over(i, c.lim.KeyBytes, "a key longer", " bytes")
	}
	if escaped {
		// The text was accepted, so this cannot fail; if it did, a wrong key would be compared.
		plain, err := jsontext.AppendUnquote(nil, c.b[i:end+1])
		if err != nil {
			return nil, c.malformed(i, "a key that cannot be read")
		}
		name = plain
	}
	return name, end + 1
}

// number takes a number (RFC 8259, section 6).
func (c *checker) number(i int) int {
	b, start := c.b, i
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	case i < len(b) && '1' <= b[i] && b[i] <= '9':
		i = digits(b, i)
	default:
		return c.unexpected(i, "want a digit")
	}
	if i < len(b) && b[i] == '.' {
		end := digits(b, i+1)
		if end == i+1 {
			return c.unexpected(end, "want a digit")
		}
		i = end
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		end := digits(b, i)
		if end == i {
			return c.unexpected(end, "want a digit")
		}
		i = end
	}
	if i-start > c.lim.NumberBytes {
		return c.over(start, c.lim.NumberBytes, "a number longer", " characters")
	}
	return i
}

func digits(b []byte, i int) int {
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}

// text takes the inside of a string that begins at i and returns the index of its closing quote,
// and whether it has escapes.
func (c *checker) text(i int) (end int, escaped bool) {
	b, start := c.b, i
	var high uint64 // its top bits tell whether there was anything but ASCII
	for {
		for i+8 <= len(b) {
			w := word(b[i:])
			high |= w
			if stop := special(w); stop != 0 {
				i += firstByte(stop)
				break
			}
			i += 8
		}
		if i >= len(b) {
			return c.malformed(i, "ends before it is complete"), false
		}
		switch ch := b[i]; {
		case ch == '"':
			if high&topBits != 0 && !utf8.Valid(b[start:i]) {
				return c.malformed(start, "a string that is not valid UTF-8"), false
			}
			return i, escaped
		case ch == '\\':
			escaped = true
			if i = c.escape(i); i < 0 {
				return -1, false
			}
		case ch < ' ':
			return c.malformed(i, "a control character in a string; escape it"), false
		default: // one of the last seven bytes, or of a multi-byte character there
			high |= uint64(ch)
			i++
		}
	}
}

// escape takes one escape sequence, or the two of a surrogate pair.
func (c *checker) escape(i int) int {
	b := c.b
	if i+1 >= len(b) {
		return c.unexpected(i+1, "")
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		return c.malformed(i, "an escape that JSON does not have")
	}
	r, ok := hex4(b, i+2)
	if !ok {
		return c.malformed(i, "\\u wants four hexadecimal digits")
	}
	if r < 0xd800 || r > 0xdfff {
		return i + 6
	}
	if low, ok := hex4(b, i+8); ok && r < 0xdc00 && b[i+6] == '\\' && b[i+7] == 'u' && 0xdc00 <= low && low <= 0xdfff {
		return i + 12
	}
	return c.malformed(i, "a surrogate without its other half")
}

// hex4 reads four hexadecimal digits at i.
func hex4(b []byte, i int) (v rune, ok bool) {
	if i+4 > len(b) {
		return 0, false
	}
	for _, ch := range b[i : i+4] {
		switch {
		case '0' <= ch && ch <= '9':
			v = v<<4 | rune(ch-'0')
		case 'a' <= ch|0x20 && ch|0x20 <= 'f':
			v = v<<4 | rune(ch|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}
