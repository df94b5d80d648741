package harden_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"

	"sallyport/internal/cell/harden"
	"sallyport/internal/cell/js"
)

func module(sections ...[]byte) []byte {
	return slices.Concat(append([][]byte{[]byte("\x00asm\x01\x00\x00\x00")}, sections...)...)
}

func sec(id byte, body ...byte) []byte {
	return slices.Concat(binary.AppendUvarint([]byte{id}, uint64(len(body))), body)
}

// program is a module whose function "f", of no parameters and an i32 result, has these locals (in
// the form of the binary) and this code. It has a memory of a page, a table and a global.
func program(locals, code []byte) []byte {
	body := slices.Concat(locals, code, []byte{0x0b})
	return module(
		sec(1, 2, 0x60, 0, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7f),
		sec(3, 2, 0, 1),
		sec(4, 1, 0x70, 0, 4),
		sec(5, 1, 0, 1),
		sec(6, 1, 0x7f, 1, 0x41, 7, 0x0b),
		sec(7, 2, 1, 'f', 0, 0, 1, 'g', 0, 1),
		sec(9, 1, 0, 0x41, 0, 0x0b, 2, 0, 1),
		sec(12, 1),
		sec(10, slices.Concat([]byte{2}, binary.AppendUvarint(nil, uint64(len(body))), body,
			// g(n) = n < 1 ? 1 : g(n-1) + g(n-1)
			[]byte{28},
			[]byte{0, 0x20, 0, 0x41, 1, 0x48, 0x04, 0x7f, 0x41, 1, 0x05, 0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x6a, 0x0b, 0x0b})...),
		sec(11, 1, 1, 4, 'd', 'a', 't', 'a'),
	)
}

var (
	none    = []byte{0}
	twoI32  = []byte{1, 2, 0x7f}
	oneV128 = []byte{1, 1, 0x7b}
)

// countdown runs a loop n times (at most 2^27), with code in it.
func countdown(n int32, code ...byte) []byte {
	number := append([]byte{0x41}, byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)|0x80, byte(n>>21)&0x3f)
	return slices.Concat(number, []byte{0x21, 0, 0x03, 0x40}, code, []byte{0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b})
}

func TestModuleComputesTheSame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		locals, code []byte
		want         uint32
	}{
		{"constant", none, []byte{0x41, 42}, 42},
		{"loop", twoI32, slices.Concat(countdown(100_000, 0x20, 1, 0x41, 3, 0x6a, 0x21, 1), []byte{0x20, 1}), 300_000},
		{"recursion", none, []byte{0x41, 10, 0x10, 1}, 1024},
		{"call_indirect", none, []byte{0x41, 3, 0x41, 1, 0x11, 1, 0}, 8},
		{"global", none, []byte{0x23, 0, 0x41, 1, 0x6a, 0x24, 0, 0x23, 0}, 8},
		{"blocks and br_table", none, []byte{0x02, 0x40, 0x02, 0x40, 0x41, 1, 0x0e, 1, 0, 1, 0x0b, 0x41, 5, 0x0f, 0x0b, 0x41, 6}, 6},
		{"loop with a parameter", none, []byte{0x41, 9, 0x03, 1, 0x41, 1, 0x6b, 0x0b}, 8},
		{"typed select", none, []byte{0x41, 1, 0x41, 2, 0x41, 0, 0x1c, 1, 0x7f}, 2},
		{"references", none, []byte{0xd2, 0, 0xd1, 0xd0, 0x70, 0xd1, 0x6a}, 1},
		{"64 bits and floats", none, []byte{0x42, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0xa7, 0x1a, 0x43, 0, 0, 0x80, 0x3f, 0xa8, 0x44, 0, 0, 0, 0, 0, 0, 0, 0x40, 0xaa, 0x6a}, 3},
		{"loads and stores", none, []byte{0x41, 4, 0x41, 9, 0x36, 2, 4, 0x41, 8, 0x28, 2, 0}, 9},
		{"memory size and growth", none, []byte{0x41, 1, 0x40, 0, 0x3f, 0, 0x6a}, 3},
		{"memory.fill", none, []byte{0x41, 0, 0x41, 7, 0x41, 0x80, 0x02, 0xfc, 11, 0, 0x41, 0xff, 0x01, 0x2d, 0, 0}, 7},
		{"memory.copy", none, []byte{0x41, 0, 0x41, 7, 0x3a, 0, 0, 0x41, 8, 0x41, 0, 0x41, 1, 0xfc, 10, 0, 0, 0x41, 8, 0x2d, 0, 0}, 7},
		{"memory.init", none, []byte{0x41, 0, 0x41, 1, 0x41, 2, 0xfc, 8, 0, 0, 0xfc, 9, 0, 0x41, 0, 0x2d, 0, 0}, 'a'},
		{"tables", none, []byte{0xd0, 0x70, 0x41, 2, 0xfc, 15, 0, 0x1a, 0x41, 4, 0x41, 0, 0x41, 2, 0xfc, 14, 0, 0, 0x41, 1, 0x25, 0, 0x1a, 0x41, 3, 0x41, 5, 0x11, 1, 0, 0xfc, 16, 0, 0x6a}, 14},
		{"table.fill", none, []byte{0x41, 0, 0xd0, 0x70, 0x41, 2, 0xfc, 17, 0, 0x41, 0, 0x25, 0, 0xd1}, 1},
		{"saturating conversion", none, []byte{0x43, 0, 0, 0xc0, 0x7f, 0xfc, 0}, 0},
		{"vectors", oneV128, slices.Concat([]byte{0xfd, 12}, bytes.Repeat([]byte{1}, 16), []byte{0x21, 0, 0x20, 0, 0x20, 0, 0xfd, 13}, bytes.Repeat([]byte{3}, 16), []byte{0x20, 0, 0xfd, 0x6e, 0xfd, 22, 15}), 2},
		{"long stretch", none, slices.Concat([]byte{0x41, 0}, bytes.Repeat([]byte{0x41, 1, 0x6a}, 5000)), 5000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			plain := program(tt.locals, tt.code)
			hardened, _, err := harden.Module(plain)
			if err != nil {
				t.Fatal(err)
			}
			for name, code := range map[string][]byte{"plain": plain, "hardened": hardened} {
				got, err := instantiate(t, code).ExportedFunction("f").Call(t.Context())
				if err != nil || uint32(got[0]) != tt.want {
					t.Errorf("%s: f = %v, %v; want %d", name, got, err, tt.want)
				}
			}
		})
	}
}

func instantiate(t testing.TB, code []byte) wasm.Module {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfig().WithCoreFeatures(features))
	t.Cleanup(func() { r.Close(context.Background()) })
	m, err := r.Instantiate(t.Context(), code)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// dispatching is a dispatch with two places, its local the first one: the code at the first, inside a block,
// at the second, inside the loop, and the default label of the br_table.
func dispatching(first, second []byte, label byte) []byte {
	return slices.Concat([]byte{0x03, 0x40, 0x02, 0x40, 0x02, 0x40, 0x20, 0, 0x0e, 1, 0, label, 0x0b}, first, []byte{0x0b}, second, []byte{0x0b, 0x41, 0})
}

func TestModuleStops(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		locals, code []byte
	}{
		{"loop", none, []byte{0x03, 0x40, 0x0c, 0, 0x0b, 0x41, 0}},
		{"loop in a block", none, []byte{0x02, 0x40, 0x03, 0x40, 0x23, 0, 0x0d, 0, 0x0b, 0x0b, 0x41, 0}},
		{"loop after a call", none, []byte{0x41, 1, 0x10, 1, 0x1a, 0x03, 0x40, 0x0c, 0, 0x0b, 0x41, 0}},
		{"loop with a call", none, []byte{0x03, 0x40, 0x41, 1, 0x10, 1, 0x1a, 0x0c, 0, 0x0b, 0x41, 0}},
		{"nested loops", none, []byte{0x03, 0x40, 0x03, 0x40, 0x0c, 1, 0x0b, 0x0b, 0x41, 0}},
		{"branching recursion", none, []byte{0x41, 50, 0x10, 1}},
		{"loop of fills", none, []byte{0x03, 0x40, 0x41, 0, 0x41, 0, 0x41, 0x80, 0x80, 4, 0xfc, 11, 0, 0x0c, 0, 0x0b, 0x41, 0}},
		{"long loop body", none, slices.Concat([]byte{0x03, 0x40}, bytes.Repeat([]byte{0x23, 0, 0x41, 1, 0x6a, 0x24, 0}, 20_000), []byte{0x0c, 0, 0x0b, 0x41, 0})},
		{"tail call", none, []byte{0x12, 0}},
		{"tail call by table", none, []byte{0x41, 0, 0x13, 0, 0}},
		{"tail call with a call", none, []byte{0x41, 1, 0x10, 1, 0x1a, 0x12, 0}},
		{"dispatch, backward", twoI32, dispatching([]byte{0x41, 1, 0x21, 0, 0x0c, 1}, []byte{0x41, 0, 0x21, 0, 0x0c, 0}, 1)},
		{"dispatch, to the same place", twoI32, dispatching(nil, []byte{0x41, 1, 0x21, 0, 0x0c, 0}, 1)},
		{"dispatch, to the same place by default", twoI32, dispatching(nil, []byte{0x41, 0x7f, 0x21, 0, 0x0c, 0}, 1)},
		{"dispatch, in another block at the depth of the place", twoI32, dispatching([]byte{0x02, 0x40, 0x41, 0, 0x21, 0, 0x0c, 2, 0x0b}, nil, 1)},
		{"dispatch, to the head", twoI32, dispatching([]byte{0x41, 7, 0x21, 0, 0x0c, 1}, nil, 2)},
		{"dispatch, by another local", twoI32, dispatching([]byte{0x41, 1, 0x21, 1, 0x0c, 1}, nil, 1)},
		{"dispatch, by a number that is not known", twoI32, dispatching([]byte{0x23, 0, 0x41, 7, 0x6b, 0x21, 0, 0x0c, 1}, nil, 1)},
		{"dispatch, without a number", twoI32, dispatching([]byte{0x0c, 1}, nil, 1)},
		{"dispatch, on a condition", twoI32, dispatching([]byte{0x41, 1, 0x0d, 1}, nil, 1)},
		{"dispatch, by a table", twoI32, dispatching([]byte{0x41, 0, 0x0e, 1, 1, 0}, nil, 1)},
		{"dispatch, in an inner loop", twoI32, dispatching([]byte{0x03, 0x40, 0x0c, 0, 0x0b}, nil, 1)},
		{"its own stop", none, []byte{0x03, 0x40, 0x41, 0, 0x24, 0, 0x0c, 0, 0x0b, 0x41, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			stops(t, program(tt.locals, tt.code))
		})
	}
}

// stops has f of a module be stopped.
func stops(t *testing.T, code []byte) {
	t.Helper()
	hardened, _, err := harden.Module(code)
	if err != nil {
		t.Fatal(err)
	}
	m := instantiate(t, hardened)
	stop := m.ExportedGlobal(harden.StopExport).(wasm.MutableGlobal)
	timer := time.AfterFunc(20*time.Millisecond, func() { stop.Set(1) })
	defer timer.Stop()
	started := time.Now()
	if _, err := m.ExportedFunction("f").Call(t.Context()); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("f = %v; want to be stopped", err)
	}
	if took := time.Since(started); took > time.Minute {
		t.Errorf("it took %s to stop", took)
	}
}

// TestModuleStopsCircles: functions that call each other in a circle, none of which others can call without naming it.
func TestModuleStopsCircles(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string][][2]byte{
		"one":               {{1, 1}},
		"two":               {{2, 2}, {1, 1}},
		"three, two ways":   {{2, 3}, {3, 1}, {1, 2}},
		"entered elsewhere": {{2, 2}, {3, 3}, {2, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			types, bodies := []byte{0}, [][]byte{{0, 0x41, 50, 0x10, 1, 0x0b}}
			for _, c := range calls { // h(n) = n < 1 ? 1 : c0(n-1) + c1(n-1)
				types = append(types, 1)
				bodies = append(bodies, []byte{0, 0x20, 0, 0x41, 1, 0x48, 0x04, 0x7f, 0x41, 1, 0x05, 0x20, 0, 0x41, 1, 0x6b, 0x10, c[0], 0x20, 0, 0x41, 1, 0x6b, 0x10, c[1], 0x6a, 0x0b, 0x0b})
			}
			for i, body := range bodies {
				bodies[i] = slices.Concat(uleb(len(body)), body)
			}
			stops(t, module(sec(1, 2, 0x60, 0, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7f), sec(3, append([]byte{byte(len(types))}, types...)...),
				sec(7, 1, 1, 'f', 0, 0), sec(10, vec(bodies...)...)))
		})
	}
}

// TestModuleChargesLeaves: functions that have no check of their own are paid for by those that call
// them.
func TestModuleChargesLeaves(t *testing.T) {
	t.Parallel()
	const times, least = 4096, 4096 * 64 / 1024
	for name, call := range map[string][]byte{"direct": {0x10, 3}, "by table": {0x41, 0, 0x11, 1, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hardened, report, err := harden.Module(calls(none, slices.Concat([]byte{0x41, 0}, bytes.Repeat(call, times))))
			if err != nil {
				t.Fatal(err)
			}
			m := instantiate(t, hardened)
			fuel := m.ExportedGlobal(report.Globals[0].Name).(wasm.MutableGlobal)
			fuel.Set(1 << 20)
			if _, err := m.ExportedFunction("f").Call(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := 1<<20 - int(fuel.Get()); took < least {
				t.Errorf("%d calls took %d units of fuel; want %d or more", times, took, least)
			}
		})
	}
}

func TestModuleExportsStart(t *testing.T) {
	t.Parallel()
	code := module(sec(1, 1, 0x60, 0, 0), sec(3, 1, 0), sec(8, 0), sec(10, 1, 3, 0, 0x00, 0x0b)) // a start function that traps
	hardened, _, err := harden.Module(code)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := instantiate(t, hardened).ExportedFunction(harden.StartExport).Call(t.Context()); err == nil {
		t.Error("the start function was not exported")
	}
}

func TestModuleBoundsTables(t *testing.T) {
	t.Parallel()
	// Grows the table by 2^18, which was possible.
	code := program(none, []byte{0xd0, 0x70, 0x41, 0x80, 0x80, 0x10, 0xfc, 15, 0})
	hardened, _, err := harden.Module(code)
	if err != nil {
		t.Fatal(err)
	}
	got, err := instantiate(t, hardened).ExportedFunction("f").Call(t.Context())
	if err != nil || int32(got[0]) != -1 {
		t.Errorf("table.grow = %v, %v; want -1", got, err)
	}
}

// FuzzModule: what was not valid does not become valid, what was valid stays so, and the report says
// what wazero says.
func FuzzModule(f *testing.F) {
	f.Add(program(none, []byte{0x41, 10, 0x10, 1}))
	f.Add(program(twoI32, slices.Concat(countdown(10, 0x20, 1, 0x41, 3, 0x6a, 0x21, 1), []byte{0x20, 1})))
	f.Add(program(none, []byte{0x41, 0, 0x41, 7, 0x41, 0x80, 0x02, 0xfc, 11, 0, 0x41, 0xff, 0x01, 0x2d, 0, 0}))
	f.Add(program(oneV128, slices.Concat([]byte{0xfd, 12}, bytes.Repeat([]byte{1}, 16), []byte{0x21, 0, 0x41, 1, 0xfd, 0x8c, 1, 0x41, 0})))
	f.Add(module(sec(1, 1, 0x60, 0, 0), sec(2, 1, 1, 'a', 1, 'b', 0, 0), sec(3, 1, 0), sec(8, 1), sec(10, 1, 4, 0, 0x12, 1, 0x0b)))
	f.Add(module(sec(1, 1, 0x60, 0, 0), sec(3, 1, 0), sec(6, 1, 0x70, 1, 0xd2, 0, 0x0b), sec(8, 0), sec(10, 1, 5, 0, 0xd2, 0, 0x1a, 0x0b)))
	f.Add(js.Code()[:2000])
	runtime := wazero.NewRuntimeWithConfig(f.Context(), wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features))
	compile := func(t *testing.T, code []byte) (m wazero.CompiledModule) {
		defer func() {
			if recover() != nil { // wazero panics on some invalid modules
				m = nil
			}
		}()
		m, err := runtime.CompileModule(t.Context(), code)
		if err != nil {
			return nil
		}
		return m
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		before := bytes.Clone(code)
		hardened, report, err := harden.Module(code)
		if !bytes.Equal(before, code) {
			t.Fatal("Module changed its input")
		}
		if err != nil {
			if !errors.Is(err, harden.ErrMalformed) && !errors.Is(err, harden.ErrUnsupported) {
				t.Errorf("Module = %v, which is neither of its errors", err)
			}
			return
		}
		before = withoutCustom(code)
		plain, now := compile(t, before), compile(t, hardened)
		if (plain != nil) != (now != nil) {
			t.Fatalf("Module(%x) = %x: one is valid, the other is not", before, hardened)
		}
		if now == nil {
			return
		}
		checkReport(t, report, now)
		checkExports(t, report, plain, now)
		for _, m := range []wazero.CompiledModule{plain, now} {
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// checkExports checks that a hardened module exports what it did and, of functions, no more than the
// start function.
func checkExports(t *testing.T, report harden.Report, plain, hardened wazero.CompiledModule) {
	want, got := plain.ExportedFunctions(), hardened.ExportedFunctions()
	added := 0
	if report.Start {
		added = 1
	}
	if len(got) != len(want)+added {
		t.Errorf("it exports %d functions; want %d and %d", len(got), len(want), added)
	}
	for name, def := range want {
		if g := got[name]; g == nil || g.Index() != def.Index() {
			t.Errorf("it exports %s as %v; want %v", name, g, def)
		}
	}
	for name, def := range plain.ExportedMemories() {
		if g := hardened.ExportedMemories()[name]; g == nil || g.Min() != def.Min() {
			t.Errorf("it exports memory %s as %v; want %v", name, g, def)
		}
	}
}

// withoutCustom removes the custom sections of a module whose sections are well formed.
func withoutCustom(code []byte) []byte {
	out := bytes.Clone(code[:8])
	for rest := code[8:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		end := 1 + n + int(size)
		if rest[0] != 0 {
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return out
}
