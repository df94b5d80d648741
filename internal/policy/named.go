package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"sallyport/internal/ident"
)

// EventTypesNamed returns the event types, and the beginnings "order.*" and ends "*.created" of some, that decisions in a namespace may
// differ by: those that its policies and perimeters and those of the server name. It may be more, for every text in a policy
// that could be one counts.
func (s *Set) EventTypesNamed(ns ident.Namespace) []string {
	found := map[string]bool{}
	note := func(name string) {
		name = strings.TrimPrefix(name, string(ns)+"/")
		whole := strings.Replace(name, "*", "x", 1) // some name that begins or ends so
		if inner := strings.Trim(name, "*"); strings.Contains(inner, "*") {
			return
		}
		if _, err := ident.ParseEventType(whole); err == nil {
			found[name] = true
		}
	}
	for c := range s.all() {
		if c.ns != "" && c.ns != ns {
			continue // built in, or of another namespace
		}
		l := lexer{text: []byte(c.text)}
		for {
			t, fault, ok := l.next()
			if !ok || fault != "" {
				break
			}
			if t.kind != tokenText {
				continue
			}
			if text, err := strconv.Unquote(c.text[t.offset:t.end]); err == nil {
				note(text)
			}
		}
	}
	for _, of := range []ident.Namespace{"", ns} {
		f := s.borders[of]
		if f == nil {
			continue
		}
		for _, b := range f.all {
			for _, t := range b.info.EventTypes {
				note(t)
			}
			for _, way := range b.bridges {
				for _, e := range slices.Concat(way.info.From, way.info.To) {
					if t, ok := strings.CutPrefix(e, "event_type:"); ok {
						note(t)
					}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}
