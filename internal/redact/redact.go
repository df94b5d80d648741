// Package redact takes known secret values, and the forms that they commonly take, out of texts: out of what functions log
// and answer, and out of what the world outside answers to them.
//
// A Set knows each value as it is, in base64 (of both alphabets, at every alignment, so within a longer encoded text too), in
// hex, URL-encoded, and escaped for JSON and HTML; of an address such as that of a database its password too; of a value of several
// lines, such as a private key, each long line by itself. What is found is replaced by [redacted].
//
// It is the last of several walls and no proof: a function that wants to give a value away can write it backwards. Values
// shorter than MinLength are not looked for, since they would be found in ordinary words.
//
// It works with a hash of the first MinLength bytes of each form and a comparison, not with an automaton: a private key of
// 4 KiB would need one of 100,000 states. A text costs one multiplication for each byte of it; a nil Set costs nothing. The
// package is pure. Callers: secret (makes Sets), dispatch and the doors of grants (use them).
package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"html"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MinLength is how long a value must be to be looked for, in bytes.
	MinLength = 6
	// Mask replaces what was found.
	Mask = "[redacted]"

	// head is how much of a form must be there for a find; what follows of it is taken with it. It bounds what a text that
	// nearly holds a value can cost.
	head = 64
	// minLine is how long a line of a value must be to be looked for by itself.
	minLine = 16
	// maxLines bounds the lines of one value that are.
	maxLines = 256
	// maxNested is how often a value is escaped for JSON, one in the other: a function's reply may hold a text that is JSON with a text in it.
	maxNested = 3
)

// Set is what is looked for. It is immutable and safe for concurrent use; the nil Set looks for nothing.
type Set struct {
	least  int // bytes of a value, or of a part of one, that is looked for
	byHash map[uint64][][]byte
	filter [filterWords]uint64 // a bit for each hash: most places end here
}

// The filter has 2^filterBits bits.
const (
	filterBits  = 16
	filterWords = 1 << (filterBits - 6)
)

// New returns the Set of values, nil when none is long enough.
func New(values ...[]byte) *Set { return AtLeast(MinLength, values...) }

// AtLeast is New without values, and parts of values, that have fewer bytes than least.
func AtLeast(least int, values ...[]byte) *Set {
	s := &Set{least: max(least, MinLength), byHash: map[uint64][][]byte{}}
	for _, v := range values {
		s.addValue(v)
	}
	if len(s.byHash) == 0 {
		return nil
	}
	for _, list := range s.byHash {
		slices.SortFunc(list, func(a, b []byte) int { return len(b) - len(a) })
	}
	return s
}

// String keeps the values out of logs.
func (s *Set) String() string { return Mask }

// GoString is String.
func (s *Set) GoString() string { return Mask }

func (s *Set) addValue(v []byte) {
	trimmed := bytes.TrimSpace(v) // as it is used: files end in a line break
	for _, part := range [][]byte{v, trimmed, passwordOf(trimmed)} {
		if len(part) >= s.least {
			s.addForms(part)
		}
	}
	lines := bytes.Split(trimmed, []byte("\n"))
	for _, line := range lines[:min(len(lines), maxLines)] {
		if line = bytes.TrimSpace(line); len(lines) > 1 && len(line) >= max(minLine, s.least) {
			s.addForms(line)
		}
	}
}

// passwordOf returns the password in an address such as postgres://user:password@host/database: a database is told that alone, and may
// repeat it.
func passwordOf(v []byte) []byte {
	if !bytes.Contains(v, []byte("://")) {
		return nil
	}
	u, err := url.Parse(string(v))
	if err != nil {
		return nil
	}
	password, _ := u.User.Password()
	return []byte(password)
}

func (s *Set) addForms(v []byte) {
	s.add(v)
	for shift := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			s.add(aligned(enc, v, shift))
		}
	}
	lower := hex.EncodeToString(v)
	s.add([]byte(lower))
	s.add([]byte(strings.ToUpper(lower)))
	for _, escaped := range []string{url.QueryEscape(string(v)), url.PathEscape(string(v)), escape(v, ""), escape(v, "-_.!~*'()")} {
		s.add([]byte(escaped))
		s.add([]byte(lowerEscapes(escaped)))
	}
	for _, r := range []*strings.Replacer{ofNothing, ofHTML, ofSlashes, ofBoth} {
		s.addNested(escapeJSON(v, r))
	}
	s.add([]byte(html.EscapeString(string(v)))) // as on a page that says what is wrong
	for _, text := range asText(v) {
		s.addForms(text)
		for _, r := range []*strings.Replacer{ofUnknown, ofUnknown2} {
			s.addNested(escapeJSON(text, r))
		}
	}
}

// addNested adds what is escaped for JSON, and escaped again.
func (s *Set) addNested(text []byte) {
	for range maxNested {
		s.add(text)
		text = escapeJSON(text, ofNothing)
	}
}

// asText returns what a value that is no text is when it is taken for one: with U+FFFD for what is not UTF-8, for each byte of it, for each part of a character,
// or for all that is together. The rest of it can be read, so it is hidden, unless it is too little to be told from another's.
func asText(v []byte) (texts [][]byte) {
	if utf8.Valid(v) {
		return nil
	}
	eachByte, eachPart, known := []byte(nil), []byte(nil), 0
	for i := 0; i < len(v); {
		r, n := utf8.DecodeRune(v[i:])
		if r != utf8.RuneError || n > 1 {
			known += n
		} else {
			n = partOf(v[i:])
		}
		eachPart = utf8.AppendRune(eachPart, r)
		i += n
	}
	for _, r := range string(v) {
		eachByte = utf8.AppendRune(eachByte, r)
	}
	if known < MinLength {
		return nil
	}
	for _, text := range [][]byte{eachByte, eachPart, bytes.ToValidUTF8(v, []byte("\uFFFD"))} {
		if !slices.ContainsFunc(texts, func(t []byte) bool { return bytes.Equal(t, text) }) {
			texts = append(texts, text)
		}
	}
	return texts
}

// partOf returns how many bytes b begins with that are the beginning of one character and not all of it, at least 1: what decoders of browsers and
// of JavaScript replace by one U+FFFD.
func partOf(b []byte) int {
	n := 1
	for n < min(len(b), utf8.UTFMax) && !utf8.FullRune(b[:n]) {
		n++
	}
	// The last byte that was taken made it wrong, unless the text ends here.
	if n > 1 && utf8.FullRune(b[:n]) {
		n--
	}
	return n
}

// aligned returns the characters of the encoding of shift bytes and v that v alone determines.
func aligned(enc *base64.Encoding, v []byte, shift int) []byte {
	text := enc.AppendEncode(nil, append(make([]byte, shift, shift+len(v)), v...))
	first := (shift*8 + 5) / 6
	return text[first : (shift+len(v))*8/6]
}

// escape is percent-encoding of everything but letters, digits and what is kept: of "-_.!~*'()" by encodeURIComponent.
func escape(v []byte, kept string) string {
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, 3*len(v))
	for _, c := range v {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(kept, c) >= 0:
			out = append(out, c)
		default:
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(out)
}

// lowerEscapes writes the digits of percent-encoding in lower case.
func lowerEscapes(s string) string {
	out := []byte(s)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i+1:i+3], bytes.ToLower(out[i+1:i+3]))
			i += 2
		}
	}
	return string(out)
}

// What encoders of JSON escape besides what they have to.
var (
	ofNothing = strings.NewReplacer()
	ofHTML    = strings.NewReplacer(asHTML...)
	ofSlashes = strings.NewReplacer("/", `\/`)
	ofBoth    = strings.NewReplacer(slices.Concat(asHTML, []string{"/", `\/`})...)
	// encoding/json of Go writes what is no text so, with and without the escapes for HTML.
	ofUnknown  = strings.NewReplacer("\uFFFD", `\ufffd`)
	ofUnknown2 = strings.NewReplacer(slices.Concat(asHTML, []string{"\uFFFD", `\ufffd`})...)

	asHTML = []string{"<", `\u003c`, ">", `\u003e`, "&", `\u0026`, "\u2028", `\u2028`, "\u2029", `\u2029`}
)

func escapeJSON(v []byte, more *strings.Replacer) []byte {
	quoted, err := jsontext.AppendQuote(nil, v)
	if err != nil {
		return nil
	}
	return []byte(more.Replace(string(quoted[1 : len(quoted)-1])))
}

func (s *Set) add(form []byte) {
	if len(form) < MinLength {
		return
	}
	h := hash(form)
	list := s.byHash[h]
	for _, known := range list {
		if bytes.Equal(known, form) {
			return
		}
	}
	s.byHash[h] = append(list, bytes.Clone(form))
	s.filter[h>>6] |= 1 << (h & 63)
}

// hash is of the first MinLength bytes of b.
func hash(b []byte) uint64 {
	x := uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint16(b[4:]))<<32
	return x * 0x9e3779b97f4a7c15 >> (64 - filterBits)
}

// at returns how many bytes at the beginning of b are a value, 0 for none.
func (s *Set) at(b []byte) (n int) {
	h := hash(b)
	if s.filter[h>>6]&(1<<(h&63)) == 0 {
		return 0
	}
	for _, form := range s.byHash[h] {
		if m := min(len(form), head); len(b) >= m && bytes.Equal(b[:m], form[:m]) {
			n = max(n, common(b, form))
		}
	}
	return n
}

func common(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// find returns the first place at or after from where a value is, and its length; -1 when there is none.
func (s *Set) find(b []byte, from int) (at, n int) {
	for i := from; i+MinLength <= len(b); i++ {
		if h := hash(b[i : i+MinLength]); s.filter[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		if n := s.at(b[i:]); n > 0 {
			return i, n
		}
	}
	return -1, 0
}

// Found reports whether a value is in b.
func (s *Set) Found(b []byte) bool {
	if s == nil {
		return false
	}
	at, _ := s.find(b, 0)
	return at >= 0
}

// Bytes returns b without the values; it is b itself when there is none in it.
func (s *Set) Bytes(b []byte) []byte {
	if s == nil {
		return b
	}
	at, n := s.find(b, 0)
	if at < 0 {
		return b
	}
	out, rest := make([]byte, 0, len(b)), 0
	for at >= 0 {
		out = append(append(out, b[rest:at]...), Mask...)
		rest = at + n
		at, n = s.find(b, rest)
	}
	return append(out, b[rest:]...)
}

// Text is Bytes for a string.
func (s *Set) Text(text string) string {
	if s == nil || !s.Found([]byte(text)) {
		return text
	}
	return string(s.Bytes([]byte(text)))
}

// Cut is Text for a text whose end may have been cut off: of a value that begins there and is not whole, what is there goes too.
func (s *Set) Cut(text string) string {
	if s == nil {
		return text
	}
	text = s.Text(text)
	body := strings.TrimSuffix(strings.TrimSuffix(text, "…"), "\uFFFD") // what stands where it was cut
	b := []byte(body)
	for i := max(0, len(b)-head); i+MinLength <= len(b); i++ { // of what is longer, the head is enough for Text
		if s.begins(b[i:], s.byHash[hash(b[i:])]) {
			return body[:i] + Mask + text[len(body):]
		}
	}
	return text
}

// JSON is Bytes for a JSON value: what comes out is one too. A value that is a number is replaced by the mask as a whole text.
func (s *Set) JSON(v []byte) []byte {
	out := s.Bytes(v)
	if s == nil || len(out) == len(v) && bytes.Equal(out, v) || jsontext.Value(out).IsValid() {
		return out
	}
	return []byte(`"` + Mask + `"`)
}

// Writer writes to another writer without the values, wherever they are cut. Close it: the end of what was written may be
// the beginning of a value, and is held back until then.
type Writer struct {
	set  *Set
	to   io.Writer
	held []byte
}

// Writer returns a Writer to w.
func (s *Set) Writer(w io.Writer) *Writer { return &Writer{set: s, to: w} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if w.set == nil {
		return w.to.Write(p)
	}
	w.held = append(w.held, p...)
	if err := w.pass(w.set.open(w.held)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes what was held back; it does not close what it writes to.
func (w *Writer) Close() error { return w.pass(len(w.held)) }

// pass writes the first n bytes that are held.
func (w *Writer) pass(n int) error {
	if n == 0 {
		return nil
	}
	_, err := w.to.Write(w.set.Bytes(w.held[:n]))
	w.held = append(w.held[:0], w.held[n:]...)
	return err
}

// open returns where the first value begins that b may hold the beginning of only: len(b) when there is none.
func (s *Set) open(b []byte) int {
	for i := 0; i < len(b); i++ {
		rest := b[i:]
		if len(rest) >= MinLength {
			if s.begins(rest, s.byHash[hash(rest)]) {
				return i
			}
			if n := s.at(rest); n > 0 {
				i += n - 1 // whole, whatever follows
			}
			continue
		}
		for _, list := range s.byHash {
			if s.begins(rest, list) {
				return i
			}
		}
	}
	return len(b)
}

// begins reports whether a form of the list begins with all of b and goes on.
func (s *Set) begins(b []byte, list [][]byte) bool {
	for _, form := range list {
		if len(form) > len(b) && bytes.Equal(form[:len(b)], b) {
			return true
		}
	}
	return false
}
