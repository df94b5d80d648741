// Package filter matches events to subscriptions: patterns on type, source and subject, an index
// over many of them, and CEL conditions on the whole event.
//
// It is pure and does no I/O; an Index and a When are immutable and safe for concurrent use.
// Callers: manifest (ParsePattern), deploy (NewIndex, CompileWhen).
package filter

import (
	"errors"
	"slices"
	"strings"

	"sallyport/internal/event"
	"sallyport/internal/ident"
)

// MaxPatternBytes bounds a pattern: longer than any attribute it could match.
const MaxPatternBytes = 2 << 10

// ErrPattern says that a pattern is malformed.
var ErrPattern = errors.New("a pattern is exact, \"prefix*\" or \"*suffix\"")

// Pattern is a predicate on one attribute: exact, a prefix, a suffix, or anything. The zero Pattern
// is anything.
type Pattern struct {
	text string
	form form
}

type form uint8

const (
	formAny form = iota
	formExact
	formPrefix
	formSuffix
)

// ParsePattern parses "exact", "prefix*", "*suffix", "*" (present at all is not asked) or "".
func ParsePattern(s string) (Pattern, error) {
	stars := strings.Count(s, "*")
	switch {
	case len(s) > MaxPatternBytes || stars > 1:
		return Pattern{}, ErrPattern
	case s == "" || s == "*":
		return Pattern{}, nil
	case stars == 0:
		return Pattern{text: s, form: formExact}, nil
	case strings.HasSuffix(s, "*"):
		return Pattern{text: s[:len(s)-1], form: formPrefix}, nil
	case s[0] == '*':
		return Pattern{text: s[1:], form: formSuffix}, nil
	}
	return Pattern{}, ErrPattern
}

// Match reports whether the pattern accepts s.
func (p Pattern) Match(s string) bool {
	switch p.form {
	case formExact:
		return s == p.text
	case formPrefix:
		return strings.HasPrefix(s, p.text)
	case formSuffix:
		return strings.HasSuffix(s, p.text)
	case formAny:
	}
	return true
}

// String returns the pattern as it was written; "" for anything.
func (p Pattern) String() string {
	switch p.form {
	case formPrefix:
		return p.text + "*"
	case formSuffix:
		return "*" + p.text
	case formAny, formExact:
	}
	return p.text
}

// Filter is a predicate on the attributes of an event.
type Filter struct{ Type, Source, Subject Pattern }

// Match reports whether all patterns accept the event.
func (f Filter) Match(e *event.Event) bool {
	return f.Type.Match(string(e.Type)) && f.rest(e)
}

func (f Filter) rest(e *event.Event) bool {
	return f.Source.Match(e.Source) && f.Subject.Match(e.Subject)
}

// Entry is a value with the filter that selects it.
type Entry[T any] struct {
	Filter Filter
	Value  T
}

// Index finds the entries whose filters match an event, without asking each.
type Index[T any] struct {
	exact    map[ident.EventType][]Entry[T]
	prefixes map[string][]Entry[T]
	lengths  []int // of the prefixes, each once, ascending
	others   []Entry[T]
}

// NewIndex returns an index of entries; those of one type pattern are visited in their order.
func NewIndex[T any](entries []Entry[T]) *Index[T] {
	x := &Index[T]{exact: map[ident.EventType][]Entry[T]{}, prefixes: map[string][]Entry[T]{}}
	for _, e := range entries {
		switch p := e.Filter.Type; p.form {
		case formExact:
			x.exact[ident.EventType(p.text)] = append(x.exact[ident.EventType(p.text)], e)
		case formPrefix:
			x.prefixes[p.text] = append(x.prefixes[p.text], e)
			x.lengths = append(x.lengths, len(p.text))
		case formAny, formSuffix:
			x.others = append(x.others, e)
		}
	}
	slices.Sort(x.lengths)
	x.lengths = slices.Compact(x.lengths)
	return x
}

// Match calls visit for the value of each entry whose filter matches e.
func (x *Index[T]) Match(e *event.Event, visit func(T)) {
	some := func(entries []Entry[T]) {
		for i := range entries {
			if entries[i].Filter.rest(e) {
				visit(entries[i].Value)
			}
		}
	}
	some(x.exact[e.Type])
	for _, n := range x.lengths {
		if n > len(e.Type) {
			break
		}
		some(x.prefixes[string(e.Type[:n])])
	}
	for i := range x.others {
		if x.others[i].Filter.Match(e) {
			visit(x.others[i].Value)
		}
	}
}
