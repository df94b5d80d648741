// Package sourcemap reads source maps, which lead from places in a bundled script to its author's files. It is pure. Callers:
// bundle (faults in a script), cell (stack traces).
package sourcemap

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
)

// Map leads from places in a bundled script to the author's files: a source map of version 3
// without sections, as bundlers write it.
type Map struct {
	sources  []string
	contents []*string
	mappings string
}

// Place is a place in a file. Line and Column count from 1.
type Place struct {
	File         string
	Line, Column int
	// Source is the line itself, where the map has it.
	Source string
}

var errMappings = errors.New("malformed mappings")

// Parse parses the JSON text of a source map. The caller has bounded its length.
func Parse(text []byte) (*Map, error) {
	var wire struct {
		Version        int       `json:"version"`
		SourceRoot     string    `json:"sourceRoot"`
		Sources        []*string `json:"sources"`
		SourcesContent []*string `json:"sourcesContent"`
		Mappings       string    `json:"mappings"`
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return nil, fmt.Errorf("parse source map: %w", err)
	}
	if wire.Version != 3 {
		return nil, fmt.Errorf("source map has version %d, want 3", wire.Version)
	}
	m := &Map{contents: wire.SourcesContent, mappings: wire.Mappings}
	for _, source := range wire.Sources {
		name := ""
		if source != nil {
			name = wire.SourceRoot + *source
		}
		m.sources = append(m.sources, name)
	}
	// The mappings are read whenever something fails; that they can be is seen here, once.
	if err := m.scan(func(int, segment) bool { return true }); err != nil {
		return nil, err
	}
	return m, nil
}

// segment says that from a column of the script on, the text is from a place in a source. All
// count from 0.
type segment struct{ generated, source, line, column int }

// Resolve replaces each place in the script by the place in the author's file it comes from, in one
// pass over the map. What the map does not know stays as it is.
func (m *Map) Resolve(places []Place) {
	last := 0
	for _, p := range places {
		last = max(last, p.Line)
	}
	type hit struct {
		segment
		ok bool
	}
	found := make([]hit, len(places))
	// The map was scanned when it was parsed, so there is no error.
	_ = m.scan(func(line int, s segment) bool {
		for i, p := range places {
			if p.Line-1 == line && s.generated <= max(p.Column-1, 0) {
				found[i] = hit{s, true}
			}
		}
		return line < last
	})
	for i, s := range found {
		if !s.ok || s.source >= len(m.sources) || m.sources[s.source] == "" {
			continue
		}
		places[i] = Place{File: m.sources[s.source], Line: s.line + 1, Column: s.column + 1, Source: m.line(s.source, s.line)}
	}
}

// line returns a line of a source, or nothing.
func (m *Map) line(source, line int) string {
	if source >= len(m.contents) || m.contents[source] == nil {
		return ""
	}
	rest := *m.contents[source]
	for ; line > 0; line-- {
		_, after, ok := strings.Cut(rest, "\n")
		if !ok {
			return ""
		}
		rest = after
	}
	text, _, _ := strings.Cut(rest, "\n")
	return strings.TrimRight(text, "\r")
}

// scan visits the segments in order, each with its line, until visit returns false.
func (m *Map) scan(visit func(line int, s segment) bool) error {
	line := 0
	var s segment
	for i := 0; i < len(m.mappings); {
		switch m.mappings[i] {
		case ';':
			line++
			s.generated = 0
			i++
			continue
		case ',':
			i++
			continue
		}
		var fields [5]int
		n := 0
		for i < len(m.mappings) && m.mappings[i] != ',' && m.mappings[i] != ';' {
			value, next, ok := vlq(m.mappings, i)
			if !ok || n == len(fields) {
				return fmt.Errorf("%w at byte %d", errMappings, i)
			}
			fields[n], i = value, next
			n++
		}
		s.generated += fields[0]
		s.source += fields[1]
		s.line += fields[2]
		s.column += fields[3]
		if s.generated < 0 || s.source < 0 || s.line < 0 || s.column < 0 {
			return fmt.Errorf("%w before byte %d", errMappings, i)
		}
		if n >= 4 && !visit(line, s) {
			return nil
		}
	}
	return nil
}

// base64Digits are the digits of a VLQ number.
const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// vlq reads the number at i: base 64, five bits a digit, the lowest first, the sign in the lowest bit.
func vlq(text string, i int) (value, next int, ok bool) {
	const maxShift = 30 // a number has 32 bits
	for shift := 0; i < len(text) && shift <= maxShift; shift += 5 {
		digit := strings.IndexByte(base64Digits, text[i])
		if digit < 0 {
			return 0, i, false
		}
		i++
		value |= digit & 31 << shift
		if digit&32 == 0 {
			if value&1 != 0 {
				return -(value >> 1), i, true
			}
			return value >> 1, i, true
		}
	}
	return 0, i, false
}
