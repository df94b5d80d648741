package main

import (
	"fmt"
	"io"
	"os"
	"slices"
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
	Ratio    float64       `json:"ratio,omitempty"`
	Note     string        `json:"note,omitempty"`
	Samples  []sample      `json:"samples,omitempty"`
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
func (r *report) compare(measure, what string, ratio float64, note string) {
	r.Rows = append(r.Rows, row{Measure: measure, Server: what, Ratio: ratio, Note: note})
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
	fmt.Fprintln(t, "MEASURE\tSERVER\tCPU/EVENT\tEVENTS/S\tP50\tP99\tRATIO\tNOTE")
	for _, x := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Measure, x.Server,
			blankZero(float64(x.CPUEvent), x.CPUEvent.Round(10*time.Nanosecond).String()),
			blankZero(x.Rate, fmt.Sprintf("%.0f", x.Rate)),
			blankZero(float64(x.P50), x.P50.Round(time.Microsecond).String()),
			blankZero(float64(x.P99), x.P99.Round(time.Microsecond).String()),
			blankZero(x.Ratio, fmt.Sprintf("%.2f", x.Ratio)), x.Note)
	}
	return t.Flush()
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
