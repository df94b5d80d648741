package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"sallyport/internal/cell/harden"
	"sallyport/internal/cell/js"
	"sallyport/internal/cell/snapshot"
)

// part is how much of a cell a guest on wazero alone has: the cost of a cell is taken apart with it.
type part int

const (
	nothing  part = iota // neither interruptible nor reset
	checks               // hardened
	resetToo             // hardened, and reset after each event
)

// bareGuest is a guest on wazero, called by nothing but this program.
type bareGuest struct {
	call  func(context.Context) error
	fresh func(context.Context) error
	// renew makes ready for the next call, outside of what is measured; may be nil.
	renew func(context.Context) error
	close func(context.Context) error
}

// instance is one instance of a guest, with as much of a cell as was asked for.
type instance struct {
	wasm.Module
	memory  *snapshot.Memory // nil unless it is reset
	globals []wasm.MutableGlobal
	were    []uint64
}

// bareModule is a compiled guest.
type bareModule struct {
	part     part
	runtime  wazero.Runtime
	code     wazero.CompiledModule
	report   harden.Report
	memories *snapshot.Allocator
}

func newBareModule(ctx context.Context, p part, code []byte, host func(context.Context, wazero.Runtime) error) (m *bareModule, err error) {
	m = &bareModule{part: p, runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
		return nil, err
	}
	if err := host(ctx, m.runtime); err != nil {
		return nil, err
	}
	if p >= checks {
		if code, m.report, err = harden.Module(code); err != nil {
			return nil, err
		}
	}
	if p >= resetToo {
		if m.memories, err = snapshot.Open(snapshot.Best); err != nil {
			return nil, err
		}
	}
	m.code, err = m.runtime.CompileModule(ctx, code)
	return m, err
}

func (m *bareModule) close(ctx context.Context) error {
	err := m.runtime.Close(ctx)
	if m.memories != nil {
		err = errors.Join(err, m.memories.Close())
	}
	return err
}

// mostMemory is more than any guest of this program takes.
const mostMemory = 64 << 20

func (m *bareModule) instantiate(ctx context.Context, start ...string) (*instance, error) {
	in := &instance{}
	if m.memories != nil {
		in.memory = m.memories.New(mostMemory)
		ctx = experimental.WithMemoryAllocator(ctx, in.memory)
	}
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions(start...).WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader)
	var err error
	if in.Module, err = m.runtime.InstantiateModule(ctx, m.code, config); err != nil {
		return nil, err
	}
	for _, g := range m.report.Globals {
		global, ok := in.ExportedGlobal(g.Name).(wasm.MutableGlobal)
		if !ok {
			return nil, errors.New("a hardened module does not export its mutable globals")
		}
		in.globals = append(in.globals, global)
	}
	return in, nil
}

// keep has reset make the instance what it is now.
func (in *instance) keep() error {
	if in.memory == nil {
		return nil
	}
	for _, g := range in.globals {
		in.were = append(in.were, g.Get())
	}
	image, err := in.memory.Take(nil)
	if err != nil {
		return err
	}
	return in.memory.Fill(image)
}

func (in *instance) reset() error {
	if in.memory == nil {
		return nil
	}
	for i, g := range in.globals {
		g.Set(in.were[i])
	}
	_, err := in.memory.Reset()
	return err
}

// Close also gives the memory back.
func (in *instance) Close(ctx context.Context) error {
	err := in.Module.Close(ctx)
	if in.memory != nil {
		in.memory.Release()
	}
	return err
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

// bareReactor calls a module as wazero runs it by itself, with no more of a cell than p.
func bareReactor(ctx context.Context, g guestUnderTest, p part) (*bareGuest, error) {
	host := &hostCalls{event: g.event}
	m, err := newBareModule(ctx, p, g.spec.Code, host.instantiate)
	if err != nil {
		return nil, err
	}
	instantiate := func(ctx context.Context) (*instance, wasm.Function, error) {
		in, err := m.instantiate(ctx, "_initialize")
		if err != nil {
			return nil, nil, err
		}
		if reseed := in.ExportedFunction("sallyport_reseed"); reseed != nil && p >= resetToo {
			if _, err := reseed.Call(ctx); err != nil { // it rehearses
				return nil, nil, err
			}
		}
		return in, in.ExportedFunction("sallyport_handle"), in.keep()
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
		one    *instance
		shared wasm.Function
		was    []byte
		left   int
	)
	renew := func(ctx context.Context) (err error) {
		if one != nil && left > 0 {
			return nil
		}
		left = g.lasts
		if one != nil && g.lasts == 1 {
			return rewrite(one.Memory(), was)
		}
		if one != nil {
			err = one.Close(ctx)
		}
		if err == nil {
			one, shared, err = instantiate(ctx)
		}
		if err != nil || g.lasts == 0 {
			return err
		}
		memory, _ := one.Memory().Read(0, one.Memory().Size())
		was = slices.Clone(memory)
		return rewrite(one.Memory(), was) // so that its pages are there
	}
	b := &bareGuest{close: m.close}
	if g.lasts > 0 && p < resetToo {
		b.renew = renew
	}
	b.call = func(ctx context.Context) error {
		left--
		if err := call(ctx, shared); err != nil {
			return err
		}
		return one.reset()
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
func (*scriptOutput) Grants() []js.Grant   { return nil }
func (*scriptOutput) Waits() bool          { return false }

// Use begins nothing: the guests of this benchmark have no grants.
func (*scriptOutput) Use(string, string, []byte, []byte) uint32 { return 0 }

// Answer has none.
func (*scriptOutput) Answer(context.Context, time.Duration) (js.Answer, bool) {
	return js.Answer{}, false
}

// bareScript calls a script in QuickJS as wazero runs it by itself, with no more of a cell than p.
func bareScript(ctx context.Context, g guestUnderTest, p part) (*bareGuest, error) {
	m, err := newBareModule(ctx, p, js.Code(), js.InstantiateHost)
	if err != nil {
		return nil, err
	}
	host := &scriptOutput{}
	boot := func(ctx context.Context) (*js.VM, js.State, *instance, error) {
		mod, err := m.instantiate(ctx)
		if err != nil {
			return nil, js.State{}, nil, err
		}
		vm := js.NewVM(mod, host)
		state, err := vm.Boot(vm.Context(ctx), g.spec.Name, g.spec.Code)
		return vm, state, mod, errors.Join(err, mod.keep())
	}
	var (
		vm    *js.VM
		state js.State
		mod   *instance
		left  int
	)
	b := &bareGuest{close: m.close, renew: func(ctx context.Context) (err error) {
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
		if p < resetToo {
			left--
		}
		vm.Resume(state)
		if err := vm.Handle(vm.Context(ctx), g.event); err != nil {
			return err
		}
		return mod.reset()
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
