package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// show writes an answer: v as JSON, or text's lines.
func (a *app) show(v any, text func(w io.Writer)) error {
	if a.output == formText {
		buf := bufio.NewWriter(a.env.Stdout)
		text(buf)
		return buf.Flush()
	}
	opts := []json.Options{json.Deterministic(true)}
	if a.output == formJSON {
		opts = append(opts, jsontext.WithIndent("  "))
	}
	return a.writeJSON(v, opts...)
}

// writeJSON writes one JSON value and a line break.
func (a *app) writeJSON(v any, opts ...json.Options) error {
	out, err := json.Marshal(v, opts...)
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	_, err = a.env.Stdout.Write(append(out, '\n'))
	return err
}

// showEach is show for items: one line for each in ndjson, the whole value in json.
func showEach[T any](a *app, whole any, items []T, text func(w io.Writer)) error {
	if a.output != formNDJSON {
		return a.show(whole, text)
	}
	for i := range items {
		if err := a.writeJSON(&items[i], json.Deterministic(true)); err != nil {
			return err
		}
	}
	return nil
}

// table says how a list of T is printed.
type table[T any] struct {
	noun   string // what a list without items has none of
	header []string
	row    func(*T) []string
	id     func(*T) string
}

// showList writes a list: as one JSON value, as one line for each item, as a table, or its ids.
func showList[T any](a *app, whole any, items []T, t table[T]) error {
	if len(items) == 0 && a.output == formText {
		a.say("no %s", t.noun)
		return nil
	}
	return showEach(a, whole, items, func(w io.Writer) {
		if a.quiet {
			for i := range items {
				fmt.Fprintln(w, clean(t.id(&items[i])))
			}
			return
		}
		rows := [][]string{t.header}
		for i := range items {
			rows = append(rows, t.row(&items[i]))
		}
		columns(w, rows)
	})
}

// columns prints rows as aligned, cleaned columns, without spaces at the ends of lines.
func columns(w io.Writer, rows [][]string) {
	var text strings.Builder
	tw := tabwriter.NewWriter(&text, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = clean(cell)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	_ = tw.Flush() // into memory
	for line := range strings.Lines(text.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// fields prints names and values, one line each; a value that is empty is left out.
func fields(w io.Writer, pairs ...string) {
	var rows [][]string
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			rows = append(rows, pairs[i:i+2])
		}
	}
	columns(w, rows)
}

// say writes talk to stderr.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.env.Stderr, format+"\n", args...)
	}
}

// more says how to get the next page.
func (a *app) more(cursor string) {
	if cursor != "" && a.output == formText {
		a.say("more with --cursor %s", clean(cursor))
	}
}

// size prints a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%dGiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%dMiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprintf("%dB", n)
}

// stamp prints a time, clock only its time of day with milliseconds; both in UTC. No time is "".
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
