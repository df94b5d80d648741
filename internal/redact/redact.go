// Package redact takes secret values out of texts and bytes that leave the host: logs, errors, and what an upstream
// answers. It finds a value as it is and in the forms in which programs write it: base64 (both alphabets, at any
// offset in what was encoded), hex, percent-encoding, and escapes of JSON and HTML. It cannot find a value that
// was cut, reversed, encrypted or encoded twice: it is a net below the rule that values go nowhere they need not.
//
// A Set is a value: it never changes, and is safe for concurrent use. Callers: grant/httpgrant and the secret store.
package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"html"
	"net/url"
	"slices"
	"sort"
	"strings"
)

const (
	// MinLength is the length in bytes of the shortest value that is looked for: shorter ones are in every text.
	MinLength = 4
	// minForm is the same for what a value was turned into. Parts of base64 of short values are too common.
	minForm = 6
	// window is how many bytes decide whether a place is looked at closely.
	window = 4
	// filterBits is the size of that filter as a power of two: 8 KiB of bits.
	filterBits = 16
)

// Mark stands where a value was.
const Mark = "[redacted]"

// Set is a set of values to take out. The zero Set has none.
//
// The forms are sorted, and each knows the longest other one that it begins with. So the longest form at a place is found by
// a binary search and a walk over those links: the time is in proportion to the text, times the logarithm of the
// number of forms, whatever the text and the values are. An automaton (Aho-Corasick) has no logarithm, and for a
// thousand values takes hundreds of megabytes as a table.
type Set struct {
	forms  [][]byte
	shorts []int // of each form: the index of the longest one that it begins with, or -1
	filter []uint64
}

// New returns the set of the values; those shorter than MinLength are left out.
func New(values ...[]byte) *Set {
	s := &Set{}
	for _, v := range values {
		if len(v) >= MinLength {
			s.forms = append(s.forms, forms(v)...)
		}
	}
	if len(s.forms) == 0 {
		return s
	}
	slices.SortFunc(s.forms, bytes.Compare)
	s.forms = slices.CompactFunc(s.forms, bytes.Equal)
	s.shorts = make([]int, len(s.forms))
	s.filter = make([]uint64, 1<<filterBits/64)
	for i, f := range s.forms {
		s.shorts[i] = -1
		for j := i - 1; j >= 0; j = s.shorts[j] {
			if bytes.HasPrefix(f, s.forms[j]) {
				s.shorts[i] = j
				break
			}
		}
		h := hash(f)
		s.filter[h/64] |= 1 << (h % 64)
	}
	return s
}

// Len returns how many forms are looked for.
func (s *Set) Len() int { return len(s.forms) }

// Replace returns b with Mark in the place of every value and form, and how many places there were. Where values overlap,
// all of them go. Without any, it returns b itself.
func (s *Set) Replace(b []byte) ([]byte, int) {
	if s == nil || len(s.forms) == 0 {
		return b, 0
	}
	var out []byte
	from, places := 0, 0
	for i := 0; i+window <= len(b); {
		length := s.at(b[i:])
		if length == 0 {
			i++
			continue
		}
		end := i + length
		for j := i + 1; j < end; j++ {
			end = max(end, j+s.at(b[j:]))
		}
		out = append(append(out, b[from:i]...), Mark...)
		from, i, places = end, end, places+1
	}
	if places == 0 {
		return b, 0
	}
	return append(out, b[from:]...), places
}

// String is Replace for a text.
func (s *Set) String(text string) string {
	if s == nil || len(s.forms) == 0 {
		return text
	}
	out, places := s.Replace([]byte(text))
	if places == 0 {
		return text
	}
	return string(out)
}

// at returns the length of the longest form that b begins with, or 0.
func (s *Set) at(b []byte) int {
	if len(b) < window {
		return 0
	}
	if h := hash(b); s.filter[h/64]&(1<<(h%64)) == 0 {
		return 0
	}
	// Every form that b begins with is a beginning of the last one that is not behind b: what stands between two texts of which
	// one begins with the other begins with it too.
	i := sort.Search(len(s.forms), func(i int) bool { return bytes.Compare(s.forms[i], b) > 0 }) - 1
	for ; i >= 0; i = s.shorts[i] {
		if bytes.HasPrefix(b, s.forms[i]) {
			return len(s.forms[i])
		}
	}
	return 0
}

func hash(b []byte) uint32 {
	return binary.LittleEndian.Uint32(b) * 2654435761 >> (32 - filterBits)
}

// forms returns a value and what it is turned into.
func forms(v []byte) [][]byte {
	out := [][]byte{bytes.Clone(v)}
	text := string(v)
	for _, f := range append(encoded(v), hex.EncodeToString(v), strings.ToUpper(hex.EncodeToString(v)), escapedAll(v, "%%%02x"), escapedAll(v, "%%%02X"),
		url.QueryEscape(text), url.PathEscape(text), lowerEscapes(url.QueryEscape(text)), lowerEscapes(url.PathEscape(text)), strict(v),
		html.EscapeString(text), escapedJSON(text, ""), escapedJSON(text, "<>&"), escapedJSON(text, "/"), escapedJSON(text, "<>&/")) {
		if len(f) >= minForm {
			out = append(out, []byte(f))
		}
	}
	return out
}

// encoded returns what is the same in every base64 that v is somewhere within, for each of the three ways in which it can
// stand to the groups of three bytes.
func encoded(v []byte) []string {
	var out []string
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			padded := append(make([]byte, before), v...)
			text := enc.EncodeToString(padded)
			// The characters that a byte before or behind v has a part in.
			first, last := (before*8+5)/6, len(padded)*8/6
			out = append(out, text[first:last])
		}
		// The value alone, with its last character.
		out = append(out, enc.EncodeToString(v))
	}
	return out
}

// escapedAll escapes every byte.
func escapedAll(v []byte, format string) string {
	var b strings.Builder
	for _, c := range v {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

// strict escapes all but the unreserved characters of RFC 3986.
func strict(v []byte) string {
	return strings.ReplaceAll(url.QueryEscape(string(v)), "+", "%20")
}

// lowerEscapes writes the digits of escapes in lower case.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

// escapedJSON is a value within a JSON text; some writers escape more than they must, what is special in HTML or the slash.
func escapedJSON(text, more string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '/' && strings.IndexByte(more, c) >= 0:
			b.WriteString(`\/`)
		case c < 0x20, strings.IndexByte(more, c) >= 0:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
