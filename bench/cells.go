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
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/js"
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
	return nil
}

// guestUnderTest is one guest, how it is called bare, and what a cell may add to that: a share of it, or time.
type guestUnderTest struct {
	name  string
	spec  cell.Spec
	event []byte
	bare  func(context.Context, guestUnderTest) (*bareGuest, error)
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

// runCells is the process that measureCells starts.
func runCells(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: bench cells GUEST.wasm DURATION")
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
		if err := compareCells(ctx, r, g, duration); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	// Who stops a guest is another thread, and a server has more than one processor for that.
	if err := pinSelf(serverCPU, loadCPU); err != nil {
		return err
	}
	runtime.GOMAXPROCS(2) // it was counted while there was one
	if err := measureKills(ctx, r, module); err != nil {
		return err
	}
	return json.MarshalWrite(os.Stdout, r.Rows, nanoseconds())
}

// endlessC is bench/endless/endless.c, compiled.
//
//go:embed endless/endless.wasm
var endlessC []byte

// measureKills is how long after its deadline a function that never ends is gone.
func measureKills(ctx context.Context, r *report, module []byte) (err error) {
	engine, err := cell.New(ctx, cell.Default())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close(ctx)) }()
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
		f, err := engine.Load(ctx, g.spec, limits)
		if err != nil {
			return err
		}
		var late, native []time.Duration
		for range kills {
			native = append(native, stopNative(limits.Timeout))
			_, use, err := f.Invoke(ctx, cell.Input{Event: []byte(g.event), EventID: "e-1", Attempt: 1})
			if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != "cell.timeout" {
				return fmt.Errorf("%s: an endless loop ended with %w", g.name, err)
			}
			late = append(late, use.Duration-limits.Timeout)
		}
		note := fmt.Sprintf("%d kills, timeout %s", kills, limits.Timeout)
		r.times("(cell) endless loop, "+g.name, "a loop of this program itself that a timer ends, in turn", native, "what the machine adds")
		r.times("(cell) endless loop, "+g.name, "time from the deadline to its end", late, note).p99Within(10)
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
	bare, err := g.bare(ctx, g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.runtime.Close(ctx)) }()
	forms := []struct {
		name string
		call func() error
	}{
		{"bare wazero, one instance for all", func() error { return bare.call(ctx) }},
		{"cell: reset, interruptible, measured", func() error {
			_, _, err := f.Invoke(ctx, cell.Input{Event: g.event, EventID: "e-1", Attempt: 1})
			return err
		}},
		{"bare wazero, new instance an event", func() error { return bare.fresh(ctx) }},
	}
	took := make([][]time.Duration, len(forms))
	const turns = 20
	var ratios, more []float64 // of the medians of each turn: what disturbs the machine disturbs a turn as a whole
	for range turns {
		from := [...]int{len(took[0]), len(took[1])}
		for i, form := range forms {
			for began := time.Now(); time.Since(began) < duration/turns; {
				if bare.renew != nil {
					if err := bare.renew(ctx); err != nil {
						return err
					}
				}
				start := time.Now()
				if err := form.call(); err != nil {
					return fmt.Errorf("%s: %w", form.name, err)
				}
				took[i] = append(took[i], time.Since(start))
			}
		}
		base, _ := percentiles(took[0][from[0]:])
		ours, _ := percentiles(took[1][from[1]:])
		ratios, more = append(ratios, float64(ours)/float64(base)), append(more, float64(ours-base)/1e3)
	}
	measure := "(cell) " + g.name
	for i, form := range forms {
		r.times(measure, form.name, took[i], "").Rate = float64(len(took[i])) / duration.Seconds()
	}
	note := fmt.Sprintf("median of %d turns", turns)
	r.compare(measure, "p50, cell : bare", median(ratios), g.ratio, note)
	r.figure(measure, "p50, cell more than bare", median(more), "µs", g.more, note)
	return nil
}

// bareGuest is a guest on wazero alone.
type bareGuest struct {
	runtime wazero.Runtime
	call    func(context.Context) error
	fresh   func(context.Context) error
	// renew makes ready for the next call, outside of what is measured; may be nil.
	renew func(context.Context) error
}

// hostCalls is the least that a guest needs of the module "sallyport".
type hostCalls struct {
	event  []byte
	result []byte
}

func (h *hostCalls) instantiate(ctx context.Context, runtime wazero.Runtime) error {
	const i32, i64 = wasm.ValueTypeI32, wasm.ValueTypeI64
	builder := runtime.NewHostModuleBuilder("sallyport")
	for _, fn := range []struct {
		name            string
		call            func(mem wasm.Memory, stack []uint64)
		params, results []wasm.ValueType
	}{
		{"event_size", func(_ wasm.Memory, stack []uint64) { stack[0] = uint64(len(h.event)) }, nil, []wasm.ValueType{i32}},
		{"event_read", func(mem wasm.Memory, stack []uint64) {
			n := min(uint32(stack[1]), uint32(len(h.event)))
			mem.Write(uint32(stack[0]), h.event[:n])
			stack[0] = uint64(n)
		}, []wasm.ValueType{i32, i32}, []wasm.ValueType{i32}},
		{"attempt", func(_ wasm.Memory, stack []uint64) { stack[0] = 1 }, nil, []wasm.ValueType{i32}},
		{"deadline", func(_ wasm.Memory, stack []uint64) { stack[0] = 0 }, nil, []wasm.ValueType{i64}},
		{"log", func(wasm.Memory, []uint64) {}, []wasm.ValueType{i32, i32, i32}, nil},
		{"result_write", func(mem wasm.Memory, stack []uint64) {
			part, _ := mem.Read(uint32(stack[0]), uint32(stack[1]))
			h.result = append(h.result[:0], part...)
			stack[0] = stack[1]
		}, []wasm.ValueType{i32, i32}, []wasm.ValueType{i32}},
	} {
		builder.NewFunctionBuilder().WithGoModuleFunction(wasm.GoModuleFunc(func(_ context.Context, mod wasm.Module, stack []uint64) {
			fn.call(mod.Memory(), stack)
		}), fn.params, fn.results).Export(fn.name)
	}
	_, err := builder.Instantiate(ctx)
	return err
}

// bareReactor calls a module as wazero runs it by itself: not hardened, never reset.
func bareReactor(ctx context.Context, g guestUnderTest) (*bareGuest, error) {
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	host := &hostCalls{event: g.event}
	_, err := wasi_snapshot_preview1.Instantiate(ctx, runtime)
	if err = errors.Join(err, host.instantiate(ctx, runtime)); err != nil {
		return nil, err
	}
	code, err := runtime.CompileModule(ctx, g.spec.Code)
	if err != nil {
		return nil, err
	}
	instantiate := func(ctx context.Context) (wasm.Module, wasm.Function, error) {
		mod, err := runtime.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").WithSysWalltime().WithSysNanotime())
		if err != nil {
			return nil, nil, err
		}
		return mod, mod.ExportedFunction("sallyport_handle"), nil
	}
	call := func(ctx context.Context, handle wasm.Function) error {
		var stack [1]uint64
		if err := handle.CallWithStack(ctx, stack[:]); err != nil {
			return err
		}
		if int32(stack[0]) != 0 {
			return fmt.Errorf("the guest failed: %s", host.result)
		}
		return nil
	}
	var (
		instance wasm.Module
		shared   wasm.Function
		was      []byte
		left     int
	)
	renew := func(ctx context.Context) (err error) {
		if instance != nil && left > 0 {
			return nil
		}
		left = g.lasts
		if instance != nil && g.lasts == 1 {
			return rewrite(instance.Memory(), was)
		}
		if instance != nil {
			err = instance.Close(ctx)
		}
		if err == nil {
			instance, shared, err = instantiate(ctx)
		}
		if err != nil || g.lasts == 0 {
			return err
		}
		memory, _ := instance.Memory().Read(0, instance.Memory().Size())
		was = slices.Clone(memory)
		return rewrite(instance.Memory(), was) // so that its pages are there
	}
	b := &bareGuest{runtime: runtime}
	if g.lasts > 0 {
		b.renew = renew
	}
	b.call = func(ctx context.Context) error {
		left--
		return call(ctx, shared)
	}
	b.fresh = func(ctx context.Context) error {
		mod, handle, err := instantiate(ctx)
		if err != nil {
			return err
		}
		return errors.Join(call(ctx, handle), mod.Close(ctx))
	}
	return b, renew(ctx)
}

// rewrite makes a memory again what it was.
func rewrite(memory wasm.Memory, was []byte) error {
	if int(memory.Size()) != len(was) || !memory.Write(0, was) {
		return errors.New("the memory of the bare guest has grown")
	}
	return nil
}

// scriptEvents is how many events one bare instance of QuickJS handles: the values of an event are never
// freed, because a cell puts all of its memory back.
const scriptEvents = 500

// scriptOutput is a js.Host that keeps the result.
type scriptOutput struct{ result []byte }

func (*scriptOutput) Log(uint32, []byte)   {}
func (h *scriptOutput) Result(text []byte) { h.result = append(h.result[:0], text...) }
func (*scriptOutput) Random(p []byte)      { clear(p) }
func (*scriptOutput) Attempt() int         { return 1 }
func (*scriptOutput) Deadline() int64      { return 0 }
func (*scriptOutput) Grants() []byte       { return nil }
func (*scriptOutput) Waits() bool          { return false }

// Use begins nothing: the guests of this benchmark have no grants.
func (*scriptOutput) Use(string, string, []byte, []byte) uint32 { return 0 }

// Answer has none.
func (*scriptOutput) Answer(context.Context, time.Duration) (js.Answer, bool) {
	return js.Answer{}, false
}

// bareScript calls a script in QuickJS as wazero runs it by itself.
func bareScript(ctx context.Context, g guestUnderTest) (*bareGuest, error) {
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	_, err := wasi_snapshot_preview1.Instantiate(ctx, runtime)
	if err = errors.Join(err, js.InstantiateHost(ctx, runtime)); err != nil {
		return nil, err
	}
	code, err := runtime.CompileModule(ctx, js.Code())
	if err != nil {
		return nil, err
	}
	host := &scriptOutput{}
	boot := func(ctx context.Context) (*js.VM, js.State, wasm.Module, error) {
		mod, err := runtime.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName("").WithStartFunctions().WithSysWalltime().WithSysNanotime())
		if err != nil {
			return nil, js.State{}, nil, err
		}
		vm := js.NewVM(mod, host)
		state, err := vm.Boot(vm.Context(ctx), g.spec.Name, g.spec.Code)
		return vm, state, mod, err
	}
	var (
		vm    *js.VM
		state js.State
		mod   wasm.Module
		left  int
	)
	b := &bareGuest{runtime: runtime, renew: func(ctx context.Context) (err error) {
		if left > 0 {
			return nil
		}
		if mod != nil {
			err = mod.Close(ctx)
		}
		left = scriptEvents
		if err == nil {
			vm, state, mod, err = boot(ctx)
		}
		return err
	}}
	b.call = func(ctx context.Context) error {
		left--
		vm.Resume(state)
		return vm.Handle(vm.Context(ctx), g.event)
	}
	b.fresh = func(ctx context.Context) error {
		vm, _, mod, err := boot(ctx)
		if err != nil {
			return err
		}
		return errors.Join(vm.Handle(vm.Context(ctx), g.event), mod.Close(ctx))
	}
	return b, b.renew(ctx)
}
