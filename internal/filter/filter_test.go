package filter_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/event"
	"sallyport/internal/filter"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

func pattern(t testing.TB, s string) filter.Pattern {
	t.Helper()
	p, err := filter.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPattern(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern string
		yes, no string // separated by spaces; "_" is the empty string
	}{
		{"", "_ a", ""},
		{"*", "_ a", ""},
		{"a.b", "a.b", "_ a a.b.c A.B"},
		{"a.*", "a. a.b a.b.c", "_ a b.a."},
		{"*.b", ".b a.b", "_ b .b."},
	} {
		p := pattern(t, tc.pattern)
		for want, list := range map[bool]string{true: tc.yes, false: tc.no} {
			for _, s := range strings.Fields(list) {
				if s == "_" {
					s = ""
				}
				if p.Match(s) != want {
					t.Errorf("pattern %q matches %q: %v, want %v", tc.pattern, s, !want, want)
				}
			}
		}
		if again := pattern(t, p.String()); again != p {
			t.Errorf("pattern %q is written as %q, which is another", tc.pattern, p.String())
		}
	}
	for _, bad := range []string{"a*b", "*a*", "**", "a**", strings.Repeat("x", filter.MaxPatternBytes+1)} {
		if _, err := filter.ParsePattern(bad); err == nil {
			t.Errorf("pattern %.20q is accepted", bad)
		}
	}
}

// TestIndex compares the index with asking every filter.
func TestIndex(t *testing.T) {
	t.Parallel()
	var entries []filter.Entry[int]
	patterns := []string{"", "*", "a", "a.*", "a.b", "a.b.*", "*.c", "*c", "b.*"}
	for i, typ := range patterns {
		for j, source := range []string{"", "/s*", "/x"} {
			entries = append(entries, filter.Entry[int]{
				Filter: filter.Filter{Type: pattern(t, typ), Source: pattern(t, source)}, Value: i*10 + j,
			})
		}
	}
	x := filter.NewIndex(entries)
	for _, typ := range []string{"a", "a.b", "a.b.c", "c", "b.c", "zzz", "a.", "abc"} {
		for _, source := range []string{"/s", "/x", "/y"} {
			e := &event.Event{Type: ident.EventType(typ), Source: source}
			var got, want []int
			x.Match(e, func(v int) { got = append(got, v) })
			for _, en := range entries {
				if en.Filter.Match(e) {
					want = append(want, en.Value)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("Match(%s from %s) = %v, want %v", typ, source, got, want)
			}
		}
	}
}

func sample() *event.Event {
	return &event.Event{
		ID: "1", Source: "/s", Type: "order", Subject: "o-1", Time: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		Extensions: []event.Attribute{{Name: "region", Value: "eu"}},
		Data:       []byte(`{"total":12.5,"count":3,"tags":["a","b"],"big":9007199254740993}`), DataKind: event.DataJSON,
	}
}

func TestWhen(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`event.data.total > 10`:                          "true",
		`event.data.total > 10.0 && event.type == "x"`:   "false",
		`event.data.count == 3`:                          "true",
		`"b" in event.data.tags`:                         "true",
		`event.region == "eu" && event.subject != ""`:    "true",
		`event.time > timestamp("2026-01-01T00:00:00Z")`: "true",
		`has(event.data.missing) && event.data.missing`:  "false",
		`event.data.missing > 1`:                         "filter.when_failed",
		`event.data.total`:                               "filter.when_failed",
		`event.data.tags.all(a, event.data.tags.all(b, event.data.tags.all(c, event.data.tags.all(d, event.data.tags.exists(e, e == "a")))))`: "true",
	} {
		w, err := filter.CompileWhen(text)
		if err != nil {
			t.Errorf("CompileWhen(%s): %v", text, err)
			continue
		}
		ok, err := w.Match(sample())
		got := fmt.Sprint(ok)
		if err != nil {
			got = problem.From(err).Code
		}
		if got != want || w.String() != text {
			t.Errorf("%s = %s (%v), want %s", text, got, err, want)
		}
	}
}

func TestWhenRefuses(t *testing.T) {
	t.Parallel()
	for text, column := range map[string]int{
		`event.data.total >`:     19,
		`evnt.data.total > 1`:    1,
		`1 + 1`:                  1,
		`event.data.total > 1 )`: 22,
		`nosuch(event)`:          7,
		strings.Repeat("x", filter.MaxWhenBytes+1): 0,
	} {
		_, err := filter.CompileWhen(text)
		p := problem.From(err)
		if p.Code != "filter.when_invalid" {
			t.Errorf("CompileWhen(%.40s) = %v, want filter.when_invalid", text, err)
			continue
		}
		if column > 0 && (len(p.Faults) == 0 || p.Faults[0].Column != column) {
			t.Errorf("CompileWhen(%.40s): faults %+v, want column %d", text, p.Faults, column)
		}
	}
}

// TestWhenRefusesInPlainWords: nobody has to know the grammar of CEL to read what is wrong.
func TestWhenRefusesInPlainWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`event.data.total >`:     "the condition ends too early",
		`event.data.total > > 1`: "> is not expected here",
		`event.data.total > 1 )`: ") is not expected here",
		`(event.data.total > 1`:  "')' is missing",
		`event.type = "x"`:       "= is no operator; == compares",
		`event.type == "x`:       "the text does not end",
		`@`:                      "@ is not expected here",
		`foo == 1`:               "undeclared reference to 'foo'",
	} {
		_, err := filter.CompileWhen(text)
		faults := problem.From(err).Faults
		if len(faults) == 0 || !strings.HasPrefix(faults[0].Detail, want) {
			t.Errorf("CompileWhen(%s): faults %+v, want first %q", text, faults, want)
		}
	}
}

// TestWhenIsBounded: a condition that costs much for some event is given up, it does not run on.
func TestWhenIsBounded(t *testing.T) {
	t.Parallel()
	w, err := filter.CompileWhen(`event.data.all(a, event.data.all(b, event.data.all(c, a + b + c >= 0)))`)
	if err != nil {
		t.Fatal(err)
	}
	e := &event.Event{Data: []byte("[" + strings.Repeat("1,", 2000) + "1]"), DataKind: event.DataJSON}
	if _, err := w.Match(e); problem.From(err).Code != "filter.when_failed" {
		t.Errorf("8 billion steps: %v, want filter.when_failed", err)
	}
}

func FuzzCompileWhen(f *testing.F) {
	for _, s := range []string{`event.data.total > 10`, `has(event.x)`, `[1,2].map(x, x*2)`, `"a" + `, "\x00", `event`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := filter.CompileWhen(text)
		if err != nil {
			return
		}
		// Whatever it is, it answers or says that it cannot.
		_, _ = w.Match(sample())
	})
}

func FuzzParsePattern(f *testing.F) {
	f.Add("a.*", "a.b")
	f.Add("*x", "yx")
	f.Fuzz(func(t *testing.T, text, s string) {
		p, err := filter.ParsePattern(text)
		if err != nil {
			return
		}
		again, err := filter.ParsePattern(p.String())
		if err != nil || again.Match(s) != p.Match(s) {
			t.Errorf("pattern %q written as %q is another (%v)", text, p.String(), err)
		}
	})
}

func BenchmarkIndexMatch(b *testing.B) {
	var entries []filter.Entry[int]
	for i := range 1000 {
		entries = append(entries, filter.Entry[int]{Filter: filter.Filter{Type: pattern(b, fmt.Sprint("type.", i))}, Value: i})
	}
	x := filter.NewIndex(entries)
	e := sample()
	e.Type = "type.500"
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		x.Match(e, func(int) { n++ })
	}
}
