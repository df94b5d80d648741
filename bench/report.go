package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// sample is one measurement of one server.
type sample struct {
	Events int           `json:"events"`
	CPU    time.Duration `json:"cpu_ns"`
	Wall   time.Duration `json:"wall_ns"`
	P50    time.Duration `json:"p50_ns"`
	P99    time.Duration `json:"p99_ns"`
	Failed int           `json:"failed"`
}

func (s sample) perEvent() time.Duration { return s.CPU / time.Duration(max(1, s.Events)) }
func (s sample) rate() float64           { return float64(s.Events) / s.Wall.Seconds() }

// row is one line of the table: a measure of one server, and how it stands to its baseline.
type row struct {
	Measure  string        `json:"measure"`
	Server   string        `json:"server"`
	CPUEvent time.Duration `json:"cpu_per_event_ns"`
	Rate     float64       `json:"events_per_second"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	// Value is the figure of the row, a ratio when it has no unit; Bar is the line it has to keep.
	Value   float64  `json:"value,omitempty"`
	Unit    string   `json:"unit,omitempty"`
	Bar     string   `json:"bar,omitempty"`
	Met     *bool    `json:"met,omitempty"`
	Missing bool     `json:"missing,omitempty"` // it was not measured; Note says why
	Note    string   `json:"note,omitempty"`
	Samples []sample `json:"samples,omitempty"`
}

// bar is the line that a figure has to keep: so much at most, or at least. The zero bar is none.
type bar struct {
	limit float64
	least bool
}

func atMost(limit float64) bar  { return bar{limit: limit} }
func atLeast(limit float64) bar { return bar{limit: limit, least: true} }

// judge enters the bar of w, and whether its value keeps it.
func (w *row) judge(b bar) {
	if b.limit == 0 {
		return
	}
	sign, met := "≤", w.Value <= b.limit
	if b.least {
		sign, met = "≥", w.Value >= b.limit
	}
	w.Bar, w.Met = sign+" "+figure(b.limit, w.Unit), &met
}

// figure writes a value with the digits that matter.
func figure(v float64, unit string) string {
	digits := 2
	if unit != "" {
		digits = 1
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if unit == "" {
		return text
	}
	return strings.TrimSuffix(text, ".0") + " " + unit
}

// report collects the rows of a run.
type report struct {
	Rows []row `json:"rows"`
}

// add enters the median of samples under a name and returns its CPU time per event.
func (r *report) add(measure, server string, samples []sample) row {
	each := func(f func(sample) float64) float64 {
		v := make([]float64, len(samples))
		for i, s := range samples {
			v[i] = f(s)
		}
		return median(v)
	}
	w := row{
		Measure: measure, Server: server, Samples: samples,
		CPUEvent: time.Duration(each(func(s sample) float64 { return float64(s.perEvent()) })),
		Rate:     each(sample.rate),
		P50:      time.Duration(each(func(s sample) float64 { return float64(s.P50) })),
		P99:      time.Duration(each(func(s sample) float64 { return float64(s.P99) })),
	}
	r.Rows = append(r.Rows, w)
	return w
}

// compare adds a line that only holds a ratio, the median of the pairs, and what it is of.
func (r *report) compare(measure, what string, ratio float64, b bar, note string) {
	r.figure(measure, what, ratio, "", b, note)
}

// figure adds a line that only holds one figure.
func (r *report) figure(measure, what string, value float64, unit string, b bar, note string) {
	w := row{Measure: measure, Server: what, Value: value, Unit: unit, Note: note}
	w.judge(b)
	r.Rows = append(r.Rows, w)
}

// missing adds a line that says loudly what was not measured, and why.
func (r *report) missing(measure, what, why string) {
	r.Rows = append(r.Rows, row{Measure: measure, Server: what, Missing: true, Note: "NOT MEASURED: " + why})
}

// times adds a line with the median and the 99th percentile of times, and returns it to be judged.
func (r *report) times(measure, what string, took []time.Duration, note string) *row {
	p50, p99 := percentiles(took)
	r.Rows = append(r.Rows, row{Measure: measure, Server: what, P50: p50, P99: p99, Note: note})
	return &r.Rows[len(r.Rows)-1]
}

// p99Within enters a bar for the 99th percentile of w, in milliseconds.
func (w *row) p99Within(ms float64) {
	w.Value, w.Unit = w.P99.Seconds()*1e3, "ms"
	w.judge(atMost(ms))
}

func percentiles(took []time.Duration) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	took = slices.Sorted(slices.Values(took))
	return took[len(took)/2], took[len(took)*99/100]
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// pairRatio is the median over the rounds of base's CPU time per event divided by ours.
func pairRatio(ours, base []sample, of func(sample) float64) float64 {
	var v []float64
	for i := range min(len(ours), len(base)) {
		v = append(v, of(base[i])/of(ours[i]))
	}
	return median(v)
}

func cpuPerEvent(s sample) float64  { return float64(s.perEvent()) }
func wallPerEvent(s sample) float64 { return 1 / s.rate() }

func (r *report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEASURE\tSERVER\tCPU/EVENT\tEVENTS/S\tP50\tP99\tFIGURE\tBAR\tNOTE")
	for _, x := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Measure, x.Server,
			blankZero(float64(x.CPUEvent), x.CPUEvent.Round(10*time.Nanosecond).String()),
			blankZero(x.Rate, fmt.Sprintf("%.0f", x.Rate)),
			blankZero(float64(x.P50), x.P50.Round(time.Microsecond).String()),
			blankZero(float64(x.P99), x.P99.Round(time.Microsecond).String()),
			blankZero(x.Value, figure(x.Value, x.Unit)), x.verdict(), x.Note)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, r.summary())
	return err
}

// verdict is the bar of a row and whether it was met.
func (w row) verdict() string {
	switch {
	case w.Met == nil:
		return ""
	case *w.Met:
		return w.Bar + " met"
	}
	return w.Bar + " MISSED"
}

// summary counts the bars, and names what missed its own or was not measured.
func (r *report) summary() string {
	var b strings.Builder
	met, missed, missing := 0, 0, 0
	for _, x := range r.Rows {
		switch {
		case x.Missing:
			missing++
			fmt.Fprintf(&b, "\n  not measured: %s, %s", x.Measure, x.Server)
		case x.Met != nil && *x.Met:
			met++
		case x.Met != nil:
			missed++
			fmt.Fprintf(&b, "\n  missed: %s, %s: %s, bar %s", x.Measure, x.Server, figure(x.Value, x.Unit), x.Bar)
		}
	}
	return fmt.Sprintf("%d bars met, %d missed, %d rows not measured", met, missed, missing) + b.String()
}

func blankZero(v float64, s string) string {
	if v == 0 {
		return ""
	}
	return s
}

// nanoseconds has durations written and read as whole numbers.
func nanoseconds() json.Options {
	return json.JoinOptions(
		json.WithMarshalers(json.MarshalToFunc(func(e *jsontext.Encoder, d time.Duration) error {
			return e.WriteToken(jsontext.Int(int64(d)))
		})),
		json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, to *time.Duration) error {
			return json.UnmarshalDecode(d, (*int64)(to))
		})))
}

func (r *report) writeJSON(path string) error {
	b, err := json.Marshal(r, jsontext.WithIndent("  "), nanoseconds())
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}
