package double

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxDiffs bounds how many differences are named: more is no help.
const maxDiffs = 20

func itoa(n int) string { return strconv.Itoa(n) }

// Diff compares JSON values, and returns a line for each difference. With exact, members that want does not name are differences too;
// lists have to be of one length in either case. Numbers are compared by their values.
func Diff(want, got jsontext.Value, exact bool) []string {
	d := differ{exact: exact}
	d.value("", want, got)
	if len(d.lines) > maxDiffs {
		d.lines = append(d.lines[:maxDiffs:maxDiffs], fmt.Sprintf("… and %d more", len(d.lines)-maxDiffs))
	}
	return d.lines
}

type differ struct {
	exact bool
	lines []string
}

func (d *differ) differ(at, format string, args ...any) {
	if at == "" {
		at = "/"
	}
	d.lines = append(d.lines, at+": "+fmt.Sprintf(format, args...))
}

func (d *differ) value(at string, want, got jsontext.Value) {
	if len(got) == 0 {
		d.differ(at, "want %s, got nothing", Short(want))
		return
	}
	switch want.Kind() {
	case '{':
		if d.same(at, want, got) {
			d.object(at, want, got)
		}
	case '[':
		if d.same(at, want, got) {
			d.list(at, want, got)
		}
	default:
		if !equal(want, got) {
			d.differ(at, "want %s, got %s", Short(want), Short(got))
		}
	}
}

// same reports whether both are of one kind.
func (d *differ) same(at string, want, got jsontext.Value) bool {
	if want.Kind() == got.Kind() {
		return true
	}
	d.differ(at, "want %s, got %s", Short(want), Short(got))
	return false
}

func (d *differ) object(at string, want, got jsontext.Value) {
	var w, g map[string]jsontext.Value
	if json.Unmarshal(want, &w) != nil || json.Unmarshal(got, &g) != nil {
		d.differ(at, "one of them is not valid JSON")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(w)) {
		if v, ok := g[key]; ok {
			d.value(at+"/"+key, w[key], v)
		} else {
			d.differ(at+"/"+key, "want %s, got nothing", Short(w[key]))
		}
	}
	if !d.exact {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(g)) {
		if _, ok := w[key]; !ok {
			d.differ(at+"/"+key, "want nothing, got %s", Short(g[key]))
		}
	}
}

func (d *differ) list(at string, want, got jsontext.Value) {
	var w, g []jsontext.Value
	if json.Unmarshal(want, &w) != nil || json.Unmarshal(got, &g) != nil {
		d.differ(at, "one of them is not valid JSON")
		return
	}
	if len(w) != len(g) {
		d.differ(at, "want %d items, got %d: %s", len(w), len(g), Short(got))
		return
	}
	for i := range w {
		d.value(at+"/"+itoa(i), w[i], g[i])
	}
}

// equal reports whether two values that are no objects and no lists are one.
func equal(a, b jsontext.Value) bool {
	if a.Kind() != b.Kind() {
		return false
	}
	switch a.Kind() {
	case '0':
		if string(a) == string(b) {
			return true
		}
		x, errX := strconv.ParseFloat(string(a), 64)
		y, errY := strconv.ParseFloat(string(b), 64)
		_, exactX := strconv.ParseInt(string(a), 10, 64)
		_, exactY := strconv.ParseInt(string(b), 10, 64)
		// Two integers of 64 bits are the same when their texts are: a float would make some of them one.
		return errX == nil && errY == nil && x == y && (exactX != nil || exactY != nil)
	case '"':
		var x, y string
		return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && x == y
	}
	return true // of null, true and false the kind is the value
}

// Short returns a value as one line of bounded length.
func Short(v jsontext.Value) string {
	const most = 200
	c := v.Clone()
	if err := c.Compact(); err != nil {
		return "what is no JSON"
	}
	if len(c) > most {
		return string([]rune(string(c[:most]))) + "…"
	}
	return string(c)
}
