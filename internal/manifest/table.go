package manifest

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/problem"
)

// table reads the keys of one table. A key that was not asked for by the time done is called is unknown;
// a value that is not as it should be is a fault, and reads as if it were not there.
type table struct {
	d        *document
	n        *node
	known    []string
	required []need
	misspelt []string // known keys that unknown ones are likely meant to be
}

// need is a key that a table must have, and what to say when it has not.
type need struct{ key, detail string }

func (d *document) table(n *node) *table { return &table{d: d, n: n} }

// lookUp returns the value of a key, or nil; the key is known from then on.
func (t *table) lookUp(key string, want kind, words string) *node {
	t.known = append(t.known, key)
	n := t.n.members[key]
	if n == nil {
		return nil
	}
	if n.kind != want {
		t.d.fault(n.value, "want %s, not %s", words, n.kind)
		return nil
	}
	return n
}

// need says that a key must be there.
func (t *table) need(key, format string, args ...any) {
	t.required = append(t.required, need{key, fmt.Sprintf(format, args...)})
}

// fault notes what is wrong with the value of a key, or with the table that lacks it.
func (t *table) fault(key, format string, args ...any) {
	at := t.n.key
	if n := t.n.members[key]; n != nil {
		at = n.value
	}
	t.d.fault(at, format, args...)
}

// has reports whether the key is there, whatever its value.
func (t *table) has(key string) bool { return t.n.members[key] != nil }

// done notes unknown keys, and required keys that are missing and not misspelt.
func (t *table) done() {
	for _, key := range t.n.order {
		if !slices.Contains(t.known, key) {
			t.unknown(key)
		}
	}
	for _, r := range t.required {
		if t.n.members[r.key] == nil && !slices.Contains(t.misspelt, r.key) {
			t.d.fault(t.n.key, "%s", r.detail)
		}
	}
}

func (t *table) unknown(key string) {
	at, near := t.n.members[key].key, ""
	if !t.d.full() {
		near = problem.Nearest(key, slices.Values(t.known))
	}
	if near == "" {
		t.d.fault(at, "unknown key %q; known here: %s", clip(key), strings.Join(t.known, ", "))
		return
	}
	t.misspelt = append(t.misspelt, near)
	t.d.fault(at, "unknown key %q; did you mean %q?", clip(key), near)
}

// text reads a text. An empty one is a fault: it is more likely forgotten than meant, and in a filter
// it would select everything.
func (t *table) text(key string) string { return t.textOf(key, "a text in quotes") }

func (t *table) textOf(key, words string) string {
	n := t.lookUp(key, kindText, words)
	if n == nil {
		return ""
	}
	if n.text == "" {
		t.d.fault(n.value, "empty; give it a value, or leave the key out")
	}
	return n.text
}

// oneOf reads one of the allowed texts into to.
func (t *table) oneOf(key string, to *string, allowed ...string) {
	s := t.text(key)
	switch {
	case s == "":
	case slices.Contains(allowed, s):
		*to = s
	default:
		detail := "want one of " + strings.Join(allowed, ", ")
		if near := problem.Nearest(s, slices.Values(allowed)); near != "" {
			detail += fmt.Sprintf("; did you mean %q?", near)
		}
		t.fault(key, "%s", detail)
	}
}

// texts reads a list of texts.
func (t *table) texts(key string, most int) []*node {
	n := t.lookUp(key, kindList, "a list of texts")
	if n == nil {
		return nil
	}
	if len(n.items) > most {
		t.d.fault(n.value, "%d of them, at most %d are allowed", len(n.items), most)
		return nil
	}
	var texts []*node
	for _, item := range n.items {
		if item.kind != kindText {
			t.d.fault(item.value, "want a text in quotes, not %s", item.kind)
			continue
		}
		texts = append(texts, item)
	}
	return texts
}

// integer reads a number of least to most into to.
func (t *table) integer(key string, to *int, least, most int) {
	n := t.lookUp(key, kindInteger, "an integer")
	if n == nil {
		return
	}
	v, err := strconv.ParseInt(n.text, 0, 64) // TOML's prefixes and underscores are those of Go
	if err != nil || v < int64(least) || v > int64(most) {
		t.d.fault(n.value, "want %d to %d", least, most)
		return
	}
	*to = int(v)
}

// duration reads a time span into to, and reports whether there was a valid one.
func (t *table) duration(key string, to *time.Duration, least, most time.Duration) bool {
	s := t.textOf(key, `a duration in quotes, such as "2s"`)
	if s == "" {
		return false
	}
	switch v, err := parseDuration(s); {
	case err != nil:
		t.fault(key, `not a duration; want one such as "500ms", "2s", "5m" or "7d"`)
	case v < least || v > most:
		t.fault(key, "want %s to %s", formatDuration(least), formatDuration(most))
	default:
		*to = v
		return true
	}
	return false
}

// size reads a number of bytes into to.
func (t *table) size(key string, to *int64, least, most int64) {
	s := t.textOf(key, `a size in quotes, such as "32MiB"`)
	if s == "" {
		return
	}
	switch v, err := parseSize(s); {
	case err != nil:
		t.fault(key, `not a size; want one such as "32MiB" (units B, KiB, MiB, GiB, TiB)`)
	case v < least || v > most:
		t.fault(key, "want %s to %s", formatSize(least), formatSize(most))
	default:
		*to = v
	}
}

// table reads a table in this one. One that is not there reads as one without keys.
func (t *table) table(key string) *table {
	if n := t.lookUp(key, kindTable, "a table"); n != nil {
		return t.d.table(n)
	}
	return t.d.table(&node{key: t.n.key, value: t.n.value})
}

// tables reads a table of tables with names that the user chooses, at most that many.
func (t *table) tables(key string, most int) iter.Seq2[string, *table] {
	all := t.lookUp(key, kindTable, "a table of tables")
	return func(yield func(string, *table) bool) {
		if all == nil {
			return
		}
		if len(all.order) > most {
			t.d.fault(all.key, "%d of them, at most %d are allowed in one app", len(all.order), most)
			return
		}
		for _, name := range all.order {
			n := all.members[name]
			if n.kind != kindTable {
				t.d.fault(n.value, "want a table, not %s", n.kind)
				continue
			}
			if !yield(name, t.d.table(n)) {
				return
			}
		}
	}
}

// each reads a list of tables, written as [[key]] or in brackets, at most that many.
func (t *table) each(key string, most int) []*table {
	t.known = append(t.known, key)
	n := t.n.members[key]
	switch {
	case n == nil:
		return nil
	case n.kind != kindTables && n.kind != kindList:
		t.d.fault(n.value, "want a list of tables, [[%s]], not %s", key, n.kind)
		return nil
	case len(n.items) > most:
		t.d.fault(n.value, "%d of them, at most %d are allowed", len(n.items), most)
		return nil
	}
	var out []*table
	for _, item := range n.items {
		if item.kind != kindTable {
			t.d.fault(item.value, "want a table, not %s", item.kind)
			continue
		}
		out = append(out, t.d.table(item))
	}
	return out
}

// truth reads true or false into to.
func (t *table) truth(key string, to *bool) {
	if n := t.lookUp(key, kindBool, "true or false"); n != nil {
		*to = n.text == "true"
	}
}
