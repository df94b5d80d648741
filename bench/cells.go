package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/js"
)

// benchScript does in JavaScript what bench/guest does in Go.
const benchScript = `export default (event) => {
	const { id, customer, currency, items } = event.data
	return { id, customer, currency, total: items.reduce((sum, i) => sum + i.quantity * i.price, 0), lines: items.length }
}
`

// measureCells is the cost of a sandbox for each event: a call into an instance that is shared by all
// events, never stopped and never reset (what nobody should run), beside the same guest in a cell,
// and beside a new instance for each event. All three run in one process, in turn.
func measureCells(ctx context.Context, o options, r *report, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	guest := filepath.Join(o.dir, "guest.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-buildmode=c-shared", "-o", guest, "./bench/guest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	build.Stderr = stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the guest: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "pinned", strconv.Itoa(serverCPU), self, "cells", guest, o.duration.String())
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	var rows []row
	if err := json.Unmarshal(out, &rows, nanoseconds()); err != nil {
		return fmt.Errorf("read what was measured: %w", err)
	}
	r.Rows = append(r.Rows, rows...)
	return nil
}

// guestUnderTest is one guest, and how it is called bare.
type guestUnderTest struct {
	name  string
	spec  cell.Spec
	event []byte
	bar   string
	bare  func(context.Context, guestUnderTest) (*bareGuest, error)
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
	event := fmt.Appendf(nil, `{"specversion":"1.0","id":"e-1","source":"/bench","type":"bench.event","datacontenttype":"application/json","data":%s}`, eventBody())
	var rows []row
	for _, g := range []guestUnderTest{
		{"smallest module", cell.Spec{Name: "f.wasm", Kind: api.ModuleWasm, Code: trivialModule()}, []byte(`{}`), "bar ≤ 5 µs over bare", bareReactor},
		{"Go module, JSON", cell.Spec{Name: "guest.wasm", Kind: api.ModuleWasm, Code: module}, event, "bar ≤ 1.15", bareReactor},
		{"JavaScript, JSON", cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(benchScript)}, event, "bar ≤ 1.10", bareScript},
	} {
		got, err := compareCells(ctx, g, duration)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		rows = append(rows, got...)
	}
	// Who stops a guest is another thread, and a server has more than one processor for that.
	if err := pinSelf(serverCPU, loadCPU); err != nil {
		return err
	}
	runtime.GOMAXPROCS(2) // it was counted while there was one
	killed, err := measureKills(ctx)
	if err != nil {
		return err
	}
	return json.MarshalWrite(os.Stdout, append(rows, killed...), nanoseconds())
}

// endlessModule is trivialModule with a handler that never returns.
func endlessModule() []byte {
	const body = "\x03\x40\x0c\x00\x0b" // loop br 0 end
	code := trivialModule()
	at := bytes.LastIndex(code, []byte("\x0a\x06\x01\x04\x00"))
	return append(code[:at:at], []byte("\x0a\x0b\x01\x09\x00"+body+"\x41\x00\x0b")...)
}

// measureKills is how long after its deadline a function that never ends is gone.
func measureKills(ctx context.Context) (rows []row, err error) {
	engine, err := cell.New(ctx, cell.Default())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.Close(ctx)) }()
	limits := cell.DefaultLimits()
	limits.Timeout = 20 * time.Millisecond
	const kills = 100
	for name, spec := range map[string]cell.Spec{
		"module":     {Name: "f.wasm", Kind: api.ModuleWasm, Code: endlessModule()},
		"JavaScript": {Name: "f.js", Kind: api.ModuleScript, Code: []byte("export default () => { for (;;) {} }")},
	} {
		f, err := engine.Load(ctx, spec, limits)
		if err != nil {
			return nil, err
		}
		var late []time.Duration
		for range kills {
			_, use, err := f.Invoke(ctx, cell.Input{Event: []byte(`{"data":1}`)})
			if err == nil {
				return nil, errors.New("an endless loop ended")
			}
			late = append(late, use.Duration-limits.Timeout)
		}
		slices.Sort(late)
		rows = append(rows, row{
			Measure: "(cell) endless loop, " + name, Server: "time from the deadline to its end",
			P50: late[kills/2], P99: late[kills*99/100], Note: "bar ≤ 10 ms",
		})
	}
	return rows, nil
}

// compareCells measures one guest in its three forms, each for so long.
func compareCells(ctx context.Context, g guestUnderTest, duration time.Duration) ([]row, error) {
	engine, err := cell.New(ctx, cell.Default())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.Close(ctx)) }()
	f, err := engine.Load(ctx, g.spec, cell.DefaultLimits())
	if err != nil {
		return nil, err
	}
	bare, err := g.bare(ctx, g)
	if err != nil {
		return nil, err
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
	for range turns {
		for i, form := range forms {
			for began := time.Now(); time.Since(began) < duration/turns; {
				if bare.renew != nil {
					if err := bare.renew(ctx); err != nil {
						return nil, err
					}
				}
				start := time.Now()
				if err := form.call(); err != nil {
					return nil, fmt.Errorf("%s: %w", form.name, err)
				}
				took[i] = append(took[i], time.Since(start))
			}
		}
	}
	var rows []row
	for i, form := range forms {
		slices.Sort(took[i])
		rows = append(rows, row{
			Measure: "(cell) " + g.name, Server: form.name, Rate: float64(len(took[i])) / duration.Seconds(),
			P50: took[i][len(took[i])/2], P99: took[i][len(took[i])*99/100],
		})
	}
	rows = append(rows, row{
		Measure: "(cell) " + g.name, Server: "p50, cell : bare", Ratio: float64(rows[1].P50) / float64(rows[0].P50),
		Note: fmt.Sprintf("%s; %.1f µs more", g.bar, float64(rows[1].P50-rows[0].P50)/1e3),
	})
	return rows, err
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
	_, shared, err := instantiate(ctx)
	if err != nil {
		return nil, err
	}
	return &bareGuest{
		runtime: runtime,
		call:    func(ctx context.Context) error { return call(ctx, shared) },
		fresh: func(ctx context.Context) error {
			mod, handle, err := instantiate(ctx)
			if err != nil {
				return err
			}
			return errors.Join(call(ctx, handle), mod.Close(ctx))
		},
	}, nil
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
