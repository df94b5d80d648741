package snapshot_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"sallyport/internal/cell/snapshot"
)

// What writer does when it has written.
const (
	thenReturn = iota
	thenTrap
	thenGrow
)

// writer is a module with a memory of 5 to 6 pages and one function,
//
//	run(at, step, n, then i32)
//
// which writes n at the place at, at+step and so on, counting n down to 0, and then returns, traps or
// grows its memory. With n = 0 it writes 2^32 times.
var writer = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x08\x01\x60\x04\x7f\x7f\x7f\x7f\x00" + // type (i32 i32 i32 i32) -> ()
	"\x03\x02\x01\x00" + // a function of this type
	"\x05\x04\x01\x01\x05\x06" + // a memory of 5 to 6 pages
	"\x07\x10\x02\x03run\x00\x00\x06memory\x02\x00" +
	"\x0a\x34\x01\x32\x00" +
	"\x03\x40" + // loop
	"\x20\x00\x20\x02\x36\x00\x00" + // store n at the place
	"\x20\x00\x20\x01\x6a\x21\x00" + // at += step
	"\x20\x02\x41\x01\x6b\x22\x02" + // n -= 1
	"\x0d\x00\x0b" + // while it is not 0
	"\x20\x03\x41\x01\x46\x04\x40\x00\x0b" + // then 1: unreachable
	"\x20\x03\x41\x02\x46\x04\x40\x41\x01\x40\x00\x1a\x0b" + // then 2: memory.grow 1
	"\x0b")

// instance is an instance of writer with its memory.
type instance struct {
	wasm.Module
	memory *snapshot.Memory
	want   []byte
	image  *snapshot.Image
}

func instantiate(t testing.TB, runtime wazero.Runtime, code wazero.CompiledModule, a *snapshot.Allocator) *instance {
	t.Helper()
	in := &instance{memory: a.New(6 * page)}
	mod, err := runtime.InstantiateModule(experimental.WithMemoryAllocator(t.Context(), in.memory), code, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	in.Module = mod
	in.want = content(rand.New(rand.NewPCG(30, 30)), small, .5)
	in.image = take(t, in.want, nil)
	fill(t, in.memory, in.image, in.want)
	return in
}

func (in *instance) close(t testing.TB) {
	t.Helper()
	if err := in.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	in.memory.Release()
}

// TestGuests has compiled code and the host write, with all the ways that a call can end.
func TestGuests(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		runtime := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
		code, err := runtime.CompileModule(t.Context(), writer)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := runtime.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		for worker := range 3 {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(31, uint64(worker)))
				for range 8 {
					in := instantiate(t, runtime, code, a)
					for range 60 {
						reset(t, in.memory, in.want, in.event(t, rnd))
					}
					in.last(t, rnd)
					in.close(t)
				}
			})
		}
	})
}

// event is one event that leaves the memory as large as it is. It returns what happened.
func (in *instance) event(t testing.TB, rnd *rand.Rand) string {
	t.Helper()
	at, step, n := rnd.Uint32N(small), rnd.Uint32N(1<<rnd.IntN(14)), 1+rnd.Uint32N(300)
	then := rnd.Uint32N(2)
	part := make([]byte, 1+rnd.IntN(2*hard))
	random(rnd, part)
	if !in.Memory().Write(rnd.Uint32N(small-2*hard-1), part) || !in.Memory().WriteUint64Le(rnd.Uint32N(small-8), rnd.Uint64()) {
		t.Fatal("the host cannot write")
	}
	_, err := in.ExportedFunction("run").Call(t.Context(), uint64(at), uint64(step), uint64(n), uint64(then))
	if outside := uint64(at)+uint64(step)*uint64(n-1)+4 > small; (err != nil) != (outside || then == thenTrap) {
		t.Fatalf("run(%d, %d, %d, %d) = %v", at, step, n, then, err)
	}
	return fmt.Sprintf("%d writes of a guest from %d by %d, which ended with %v", n, at, step, err)
}

// last is an event that ends the instance: it grows, or is stopped at a deadline.
func (in *instance) last(t testing.TB, rnd *rand.Rand) {
	t.Helper()
	run := in.ExportedFunction("run")
	if rnd.IntN(2) == 0 {
		if _, err := run.Call(t.Context(), 0, 5, 100, thenGrow); err != nil {
			t.Fatal(err)
		}
		if _, err := in.memory.Reset(); err == nil {
			t.Error("Reset of an instance that has grown = nil; want an error")
		}
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
	defer cancel()
	if _, err := run.Call(ctx, uint64(rnd.Uint32N(small-4)), 0, 0, thenReturn); err == nil {
		t.Error("a guest that never ends was not stopped")
	}
	reset(t, in.memory, in.want, "a deadline")
}

// TestReleasedInstances: the reservation of one instance becomes that of the next, with no byte of it.
func TestReleasedInstances(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		runtime := wazero.NewRuntime(t.Context())
		defer runtime.Close(context.Background())
		code, err := runtime.CompileModule(t.Context(), writer)
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(32, 32))
		for i := range 30 {
			memory := a.New(6 * page)
			mod, err := runtime.InstantiateModule(experimental.WithMemoryAllocator(t.Context(), memory), code, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := mod.Memory().Grow(1); !ok {
				t.Fatal("the memory does not grow")
			}
			if !isZero(memory.Bytes()) {
				t.Fatalf("instance %d begins with bytes of the one before", i)
			}
			if i%2 == 0 {
				want := content(rnd, 6*page, 1)
				fill(t, memory, take(t, want, nil), want)
			}
			dirty(rnd, memory.Bytes())
			if i%3 == 0 && i%2 == 0 {
				if _, err := memory.Reset(); err != nil {
					t.Fatal(err)
				}
			}
			if err := mod.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			memory.Release()
		}
	})
}
