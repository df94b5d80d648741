package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/internal/problem"
)

// Limits of a manifest. A server parses what a developer sends, so each is checked before it costs.
const (
	// MaxBytes bounds a manifest's text: a thousand functions fit.
	MaxBytes = 1 << 20
	maxNodes = 100_000 // keys and values; a thousand functions have about ten thousand
	maxDepth = 16      // tables and lists in each other; the deepest setting is at 5
	// maxMembers bounds the keys of one table: the decoder compares each with all before it.
	maxMembers = 2000
	// maxFaults bounds how many faults one answer names; more is no help.
	maxFaults = 50
)

// codeInvalid is the code of this package's problems.
const codeInvalid = "manifest.invalid"

// place is where something stands in the text, in bytes.
type place struct {
	offset, length int
}

// document is a manifest's text, and what was found wrong with it.
type document struct {
	file   string
	text   []byte
	root   *node
	faults []problem.Fault
	more   int // faults that were not kept
	// hidden are the places of texts that no fault shows, the last one first; of a text that was not read whole they are not known.
	hidden []place
	unread bool
}

// open parses the text into a tree. It returns nil and the problem when there is nothing that further
// checks could look at.
func open(file string, text []byte) (*document, error) {
	d := &document{file: file, text: text}
	switch i := invalidUTF8(text); {
	case len(text) > MaxBytes:
		d.text = nil
		d.fault(place{}, "the file is %d bytes, at most %d are allowed", len(text), MaxBytes)
	case i >= 0:
		d.fault(place{offset: i, length: 1}, "not valid UTF-8")
	case bytes.HasPrefix(text, []byte("\ufeff")):
		d.fault(place{}, "the file begins with a byte order mark; save it as UTF-8 without one")
	default:
		d.parse()
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return d, nil
}

// invalidUTF8 returns the place of the first byte that is not UTF-8, or -1.
func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// fault notes what is wrong at a place.
func (d *document) fault(at place, format string, args ...any) {
	if d.full() {
		d.more++
		return
	}
	f := d.mark(at)
	f.Detail = fmt.Sprintf(format, args...)
	d.faults = append(d.faults, f)
}

// full reports whether further faults are only counted; looking for suggestions is then wasted.
func (d *document) full() bool { return len(d.faults) >= maxFaults }

// mark returns the line and the characters of a place.
func (d *document) mark(at place) problem.Fault {
	f := problem.Mark(d.file, d.text, at.offset, at.length)
	return d.masked(f, bytes.LastIndexByte(d.text[:min(at.offset, len(d.text))], '\n')+1)
}

// inText returns the place of a fault in a text of the manifest. A text with escapes does not stand in
// the file as it is read, so it is marked as a whole.
func (d *document) inText(n *node, f problem.Fault) place {
	raw := string(d.text[n.value.offset : n.value.offset+n.value.length])
	from := strings.Index(raw, n.text)
	if from < 0 || f.Line < 1 || f.Column < 1 {
		return n.value
	}
	at := 0
	for range f.Line - 1 {
		at += strings.IndexByte(n.text[at:], '\n') + 1
	}
	for range f.Column - 1 {
		_, size := utf8.DecodeRuneInString(n.text[at:])
		at += size
	}
	length := len(n.text) - at
	if f.Length > 0 {
		length = max(f.Length, wordLength(n.text[at:]))
	}
	return place{offset: n.value.offset + from + at, length: length}
}

// wordLength returns how many bytes of s are one word: parsers say where a fault begins, not where it
// ends.
func wordLength(s string) int {
	end := strings.IndexFunc(s, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if end < 0 {
		return len(s)
	}
	return end
}

// err returns the problem of all faults in the order of the text, or nil.
func (d *document) err() error {
	if len(d.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(d.faults, func(a, b problem.Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	what := "has a fault"
	switch n := len(d.faults); {
	case d.more > 0:
		what = fmt.Sprintf("has %d faults, of which these are %d", n+d.more, n)
	case n > 1:
		what = fmt.Sprintf("has %d faults", n)
	}
	return problem.New(problem.Invalid, codeInvalid, "%s %s", d.file, what).WithFaults(d.faults...)
}

// FaultIn is FaultAt for a statement of SQL: the fault begins at a byte of it. Of a table that is a named statement
// the statement in it is meant.
func FaultIn(file string, text []byte, detail, statement string, offset int, key ...string) problem.Fault {
	d, err := open(file, text)
	if err != nil {
		return problem.Fault{File: file, Detail: detail}
	}
	n := d.root.nearest(key)
	if of := n.members["statement"]; of != nil {
		n = of
	}
	at := n.value
	if from := strings.Index(string(d.text[at.offset:at.offset+at.length]), statement); from >= 0 && offset >= 0 && offset < len(statement) {
		at = place{offset: at.offset + from + offset, length: max(wordLength(statement[offset:]), 1)} // with escapes it does not stand there as it is read
	}
	f := d.mark(at)
	f.Detail = detail
	return f
}

// FaultAt returns a fault that points at the value of a key, such as "functions", "price", "source", or at
// the nearest table around it. It is for what only others can find, such as a source that is not there.
func FaultAt(file string, text []byte, detail string, key ...string) problem.Fault {
	d, err := open(file, text)
	if err != nil {
		return problem.Fault{File: file, Detail: detail}
	}
	f := d.mark(d.root.nearest(key).value)
	f.Detail = detail
	return f
}

// nearest returns what is at a key below n, or the nearest around it. A key of a list is the number of an item, from 0.
func (n *node) nearest(key []string) *node {
	for _, k := range key {
		child := n.members[k]
		if i, err := strconv.Atoi(k); child == nil && err == nil && i >= 0 && i < len(n.items) {
			child = n.items[i]
		}
		if child == nil {
			break
		}
		n = child
	}
	return n
}
