package main

import (
	"context"
	_ "embed" // endless.wasm
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/problem"
)

// measureCells is the cost of a sandbox for each event: a call into an instance that is shared by all
// events, never stopped and never reset (what nobody should run), beside the same guest in a cell,
// and beside a new instance for each event. All three run in one process, in turn.
func measureCells(ctx context.Context, o options, r *report, stderr io.Writer) error {
	guest, err := buildGuest(ctx, o, stderr)
	if err != nil {
		return err
	}
	var rows []row
	if err := rolePinned(ctx, &rows, "cells", guest, o.duration.String()); err != nil {
		return err
	}
	r.Rows = append(r.Rows, rows...)
	rows = nil
	if err := rolePinned(ctx, &rows, "kills", o.binary, guest); err != nil {
		return err
	}
	r.Rows = append(r.Rows, rows...)
	return nil
}

// guestUnderTest is one guest, how it is called bare, and what a cell may add to that: a share of it, or time.
type guestUnderTest struct {
	name  string
	spec  cell.Spec
	event []byte
	bare  func(context.Context, guestUnderTest, part) (*bareGuest, error)
	ratio bar
	more  bar // µs
	// lasts is how many events an instance can handle that is never reset, 0 for any number: it is made anew in
	// time, outside of what is measured.
	lasts int
}

// guestsUnderTest are the guests of this measure. The small ones are the examples as they are committed.
func guestsUnderTest(module []byte) ([]guestUnderTest, error) {
	guests := []guestUnderTest{
		{"smallest module", cell.Spec{Name: "f.wasm", Kind: api.ModuleWasm, Code: trivialModule()}, []byte(`{}`), bareReactor, bar{}, atMost(5), 0},
		{"Go module, JSON", cell.Spec{Name: "guest.wasm", Kind: api.ModuleWasm, Code: module}, envelope(), bareReactor, atMost(1.15), bar{}, 0},
		{"JavaScript, JSON", cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(benchScript)}, envelope(), bareScript, atMost(1.10), bar{}, 0},
	}
	for _, small := range []struct {
		name, folder string
		lasts        int // C's has one result, AssemblyScript's never frees memory
	}{{"C", "c", 1}, {"AssemblyScript", "assemblyscript", 20}, {"Rust", "rust", 0}} {
		code, err := os.ReadFile(filepath.Join("examples", small.folder, "price.wasm"))
		if err != nil {
			return nil, err
		}
		guests = append(guests, guestUnderTest{
			small.name + " example, JSON", cell.Spec{Name: "price.wasm", Kind: api.ModuleWasm, Code: code}, []byte(pricedEvent), bareReactor, bar{}, atMost(5), small.lasts,
		})
	}
	return guests, nil
}

// runCells is the process that measureCells starts. By hand, it can be told to measure one guest only.
func runCells(ctx context.Context, args []string) error {
	only := len(args) == 3
	if len(args) != 2 && !only {
		return errors.New("usage: bench cells GUEST.wasm DURATION [NAME]")
	}
	module, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	duration, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	guests, err := guestsUnderTest(module)
	if err != nil {
		return err
	}
	r := &report{}
	for _, g := range guests {
		if only && g.name != args[2] {
			continue
		}
		if err := compareCells(ctx, r, g, duration); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	if only {
		return r.print(os.Stdout)
	}
	return json.MarshalWrite(os.Stdout, r.Rows, nanoseconds())
}

// endlessC is bench/endless/endless.c, compiled.
//
//go:embed endless/endless.wasm
var endlessC []byte

// runKills is the process that measures kills, in itself and behind the second wall.
func runKills(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("usage: bench kills SALLYPORT GUEST.wasm")
	}
	module, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	// Who stops a guest is another thread, and a server has more than one processor for that.
	if err := pinSelf(serverCPU, loadCPU); err != nil {
		return err
	}
	runtime.GOMAXPROCS(2) // it was counted while there was one
	direct, err := cell.New(ctx, cell.Default())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close(ctx)) }()
	cfg := wall.Default("cell-worker")
	cfg.Program = args[0]
	walled, err := wall.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, walled.Close(ctx)) }()
	r := &report{}
	near := func(ctx context.Context, spec cell.Spec, limits cell.Limits) (endlessFunction, error) {
		return direct.Load(ctx, spec, limits)
	}
	far := func(ctx context.Context, spec cell.Spec, limits cell.Limits) (endlessFunction, error) {
		return walled.Load(ctx, spec, limits)
	}
	if err := errors.Join(measureKills(ctx, r, "", near, module), measureKills(ctx, r, ", second wall on", far, module)); err != nil {
		return err
	}
	return json.MarshalWrite(os.Stdout, r.Rows, nanoseconds())
}

// endlessFunction is a function that never ends, in this process or in a worker.
type endlessFunction interface {
	invoker
	Close(ctx context.Context) error
}

// measureKills is how long after its deadline a function that never ends is gone.
func measureKills(ctx context.Context, r *report, where string, load func(context.Context, cell.Spec, cell.Limits) (endlessFunction, error), module []byte) error {
	limits := cell.DefaultLimits()
	limits.Timeout = 20 * time.Millisecond
	const kills = 300
	for _, g := range []struct {
		name, event string
		spec        cell.Spec
	}{
		{"JavaScript", `{"data":1}`, cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(endlessScript)}},
		{"Go", endlessEvent, cell.Spec{Name: "guest.wasm", Kind: api.ModuleWasm, Code: module}},
		{"C", `{"data":1}`, cell.Spec{Name: "endless.wasm", Kind: api.ModuleWasm, Code: endlessC}},
	} {
		f, err := load(ctx, g.spec, limits)
		if err != nil {
			return err
		}
		var late, native []time.Duration
		for range kills {
			native = append(native, stopNative(limits.Timeout))
			began := time.Now()
			_, _, err := f.Invoke(ctx, cell.Input{Event: []byte(g.event), EventID: "e-1", Attempt: 1})
			took := time.Since(began)
			if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != "cell.timeout" {
				return fmt.Errorf("%s: an endless loop ended with %w", g.name, err)
			}
			late = append(late, took-limits.Timeout)
		}
		note := fmt.Sprintf("%d kills, timeout %s", kills, limits.Timeout)
		r.times("(cell) endless loop, "+g.name+where, "a loop of this program itself that a timer ends, in turn", native, "what the machine adds")
		r.times("(cell) endless loop, "+g.name+where, "time from the deadline to its end", late, note).p99Within(10)
		if err := f.Close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stopNative returns how long after the timeout a loop without any sandbox has ended that a timer ends.
func stopNative(timeout time.Duration) time.Duration {
	var stop atomic.Bool
	began := time.Now()
	timer := time.AfterFunc(timeout, func() { stop.Store(true) })
	defer timer.Stop()
	for !stop.Load() {
	}
	return time.Since(began) - timeout
}

// compareCells measures one guest in its three forms, each for so long.
func compareCells(ctx context.Context, r *report, g guestUnderTest, duration time.Duration) (err error) {
	engine, err := cell.New(ctx, cell.Default())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close(ctx)) }()
	f, err := engine.Load(ctx, g.spec, cell.DefaultLimits())
	if err != nil {
		return err
	}
	alone := make([]*bareGuest, resetToo+1)
	for p := range alone {
		if alone[p], err = g.bare(ctx, g, part(p)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, alone[p].close(ctx)) }()
	}
	forms := []form{
		{"bare wazero, one instance for all", alone[nothing], alone[nothing].call},
		{"the same, hardened", alone[checks], alone[checks].call},
		{"the same, hardened and reset", alone[resetToo], alone[resetToo].call},
		{"cell: reset, interruptible, measured", nil, func(ctx context.Context) error {
			_, _, err := f.Invoke(ctx, cell.Input{Event: g.event, EventID: "e-1", Attempt: 1})
			return err
		}},
		{"bare wazero, new instance an event", nil, alone[nothing].fresh},
	}
	took := make([][]time.Duration, len(forms))
	const turns = 20
	var ratios, more []float64 // of the medians of each turn: what disturbs the machine disturbs a turn as a whole
	var least [4]time.Duration // of the medians of the turns, of each form but the last
	for range turns {
		var p50 [4]time.Duration
		for i, form := range forms {
			turn, err := form.run(ctx, duration/turns)
			if err != nil {
				return fmt.Errorf("%s: %w", form.name, err)
			}
			took[i] = append(took[i], turn...)
			if i < len(p50) {
				p50[i], _ = percentiles(turn)
				if least[i] == 0 || p50[i] < least[i] {
					least[i] = p50[i]
				}
			}
		}
		ratios, more = append(ratios, float64(p50[3])/float64(p50[0])), append(more, float64(p50[3]-p50[0])/1e3)
	}
	measure := "(cell) " + g.name
	for i, form := range forms {
		r.times(measure, form.name, took[i], "").Rate = float64(len(took[i])) / duration.Seconds()
	}
	note := fmt.Sprintf("median of %d turns", turns)
	r.compare(measure, "p50, cell : bare", median(ratios), g.ratio, note)
	r.figure(measure, "p50, cell more than bare", median(more), "µs", g.more, note)
	for i, what := range []string{"checks", "reset", "all else that a cell does"} {
		r.figure(measure, "of that, "+what, float64(least[i+1]-least[i])/1e3, "µs", bar{}, fmt.Sprintf("lowest p50 of %d turns", turns))
	}
	return nil
}

// form is one way to have a guest handle events.
type form struct {
	name  string
	guest *bareGuest // that is renewed before each call, or nil
	call  func(context.Context) error
}

// run calls it for so long, and returns how long each call took.
func (f form) run(ctx context.Context, duration time.Duration) (took []time.Duration, err error) {
	for began := time.Now(); time.Since(began) < duration; {
		if f.guest != nil && f.guest.renew != nil {
			if err := f.guest.renew(ctx); err != nil {
				return nil, err
			}
		}
		start := time.Now()
		if err := f.call(ctx); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}
