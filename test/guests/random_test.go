package guests_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// drawn is what testdata/random replies with.
type drawn struct {
	AtStart, Own               uint64
	Rand, RandV2, Hash, Crypto uint64
	Order, NewOrder, Chosen    string
	Handled                    int
}

// TestGoRandomIsNew: a Go program that is restored from one image of its memory draws other numbers
// for each event once it was asked for that, and the same ones when it was not, so that this test can
// fail.
func TestGoRandomIsNew(t *testing.T) {
	t.Parallel()
	path := goModule(t, "./test/guests/testdata/random", "c-shared")
	g := start(t, path)
	if status := g.call(t, "sallyport_reseed"); status != 0 {
		t.Fatalf("sallyport_reseed = %d after initialisation; want 0", status)
	}
	if g.result.Len() > 0 || g.lines > 0 {
		t.Errorf("a rehearsal wrote %d log lines and the result %s; want nothing", g.lines, g.result.Bytes())
	}
	fresh := g.events(t)
	// Without the call, the program does not know that there will be a restore.
	frozen := start(t, path).events(t)
	for _, d := range fresh {
		if d.AtStart != fresh[0].AtStart || d.Handled != 2 {
			t.Errorf("drawn at initialisation: %d and %d; events handled: %d, want the rehearsal and this one", d.AtStart, fresh[0].AtStart, d.Handled)
		}
	}
	for _, tt := range []struct {
		name string
		of   func(d drawn) any
	}{
		{"math/rand", func(d drawn) any { return d.Rand }},
		{"math/rand/v2", func(d drawn) any { return d.RandV2 }},
		{"hash/maphash", func(d drawn) any { return d.Hash }},
		{"a generator of the program's own", func(d drawn) any { return d.Own }},
		{"the order of a map", func(d drawn) any { return d.Order }},
		{"the order of a new map", func(d drawn) any { return d.NewOrder }},
		{"select", func(d drawn) any { return d.Chosen }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if n := distinct(frozen, tt.of); n != 1 {
				t.Errorf("without sallyport_reseed, %d values in %d events; want 1, or this test shows nothing", n, len(frozen))
			}
			// The order of a map of 26 has few beginnings, so two of eight may be equal.
			if n := distinct(fresh, tt.of); n < len(fresh)/2 {
				t.Errorf("%d values in %d events; want them to differ", n, len(fresh))
			}
			if n := distinct(fresh, tt.of); fmt.Sprintf("%T", tt.of(drawn{})) == "uint64" && n != len(fresh) {
				t.Errorf("%d numbers in %d events; want no number twice", n, len(fresh))
			}
		})
	}
	if n := distinct(frozen, func(d drawn) any { return d.Crypto }); n != len(frozen) {
		t.Errorf("crypto/rand: %d values in %d events", n, len(frozen))
	}
}

// events restores the instance to what it is now for each of some events, and returns what they drew.
func (g *bare) events(t *testing.T) (all []drawn) {
	t.Helper()
	image := g.image(t)
	for range 8 {
		g.restore(t, image)
		all = append(all, g.draw(t))
	}
	return all
}

func distinct(all []drawn, of func(d drawn) any) int {
	seen := map[any]bool{}
	for _, d := range all {
		seen[of(d)] = true
	}
	return len(seen)
}

// bare is a reactor in wazero alone: what any host that restores memory has.
type bare struct {
	wasm.Module
	result  bytes.Buffer
	lines   int
	globals int
}

const bareEvent = `{"specversion":"1.0","id":"e-1","source":"/test","type":"test.happened","data":1}`

// start instantiates and initialises a reactor.
func start(t testing.TB, path string) *bare {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g := &bare{}
	code, g.globals = exportGlobals(t, code)
	ctx := t.Context()
	runtime := wazero.NewRuntime(ctx)
	t.Cleanup(func() { _ = runtime.Close(context.Background()) }) // nothing is left to lose
	wasi_snapshot_preview1.MustInstantiate(ctx, runtime)
	if err := g.provide(ctx, runtime); err != nil {
		t.Fatal(err)
	}
	g.Module, err = runtime.InstantiateWithConfig(ctx, code,
		wazero.NewModuleConfig().WithStartFunctions("_initialize").WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *bare) provide(ctx context.Context, runtime wazero.Runtime) error {
	const i32, i64 = wasm.ValueTypeI32, wasm.ValueTypeI64
	b := runtime.NewHostModuleBuilder("sallyport")
	for _, fn := range []struct {
		name            string
		params, results []wasm.ValueType
		call            func(m wasm.Memory, stack []uint64)
	}{
		{"event_size", nil, []wasm.ValueType{i32}, func(_ wasm.Memory, stack []uint64) { stack[0] = uint64(len(bareEvent)) }},
		{"event_read", []wasm.ValueType{i32, i32}, []wasm.ValueType{i32}, func(m wasm.Memory, stack []uint64) {
			n := min(uint32(stack[1]), uint32(len(bareEvent)))
			m.WriteString(uint32(stack[0]), bareEvent[:n])
			stack[0] = uint64(n)
		}},
		{"result_write", []wasm.ValueType{i32, i32}, []wasm.ValueType{i32}, func(m wasm.Memory, stack []uint64) {
			part, _ := m.Read(uint32(stack[0]), uint32(stack[1]))
			g.result.Write(part)
			stack[0] = stack[1]
		}},
		{"log", []wasm.ValueType{i32, i32, i32}, nil, func(wasm.Memory, []uint64) { g.lines++ }},
		{"attempt", nil, []wasm.ValueType{i32}, func(_ wasm.Memory, stack []uint64) { stack[0] = 1 }},
		{"deadline", nil, []wasm.ValueType{i64}, func(_ wasm.Memory, stack []uint64) { stack[0] = 1 << 41 }},
	} {
		b.NewFunctionBuilder().WithGoModuleFunction(wasm.GoModuleFunc(func(_ context.Context, m wasm.Module, stack []uint64) {
			fn.call(m.Memory(), stack)
		}), fn.params, fn.results).Export(fn.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// call calls an export that returns a status.
func (g *bare) call(t testing.TB, name string) int32 {
	t.Helper()
	results, err := g.ExportedFunction(name).Call(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return wasm.DecodeI32(results[0])
}

func (g *bare) draw(t *testing.T) (d drawn) {
	t.Helper()
	g.result.Reset()
	if status := g.call(t, "sallyport_handle"); status != 0 {
		t.Fatalf("sallyport_handle = %d: %s", status, g.result.Bytes())
	}
	if err := json.Unmarshal(g.result.Bytes(), &struct{ Reply *drawn }{&d}); err != nil {
		t.Fatalf("%v: %s", err, g.result.Bytes())
	}
	return d
}

// image is the memory and the mutable globals of an instance.
type image struct {
	memory  []byte
	globals []uint64
}

func (g *bare) image(t testing.TB) image {
	t.Helper()
	memory, _ := g.Memory().Read(0, g.Memory().Size())
	im := image{memory: bytes.Clone(memory)}
	for i := range g.globals {
		im.globals = append(im.globals, g.global(i).Get())
	}
	return im
}

// restore makes the instance what it was when the image was taken. It does not shrink the memory,
// which a test does not need.
func (g *bare) restore(t testing.TB, im image) {
	t.Helper()
	memory, _ := g.Memory().Read(0, g.Memory().Size())
	clear(memory[copy(memory, im.memory):])
	for i, v := range im.globals {
		if m, ok := g.global(i).(wasm.MutableGlobal); ok {
			m.Set(v)
		}
	}
}

func (g *bare) global(i int) wasm.Global { return g.ExportedGlobal(fmt.Sprint("test:global-", i)) }

// exportGlobals returns the module with all of its globals exported, and how many they are.
func exportGlobals(t testing.TB, code []byte) ([]byte, int) {
	t.Helper()
	const sectionGlobal, sectionExport, kindGlobal = 6, 7, 3
	out, rest := bytes.Clone(code[:8]), code[8:]
	globals := 0
	for len(rest) > 0 {
		id := rest[0]
		size, n := binary.Uvarint(rest[1:])
		body := rest[1+n:][:size]
		rest = rest[1+n+int(size):]
		switch id {
		case sectionGlobal:
			count, _ := binary.Uvarint(body)
			globals = int(count)
		case sectionExport:
			count, n := binary.Uvarint(body)
			body = append(binary.AppendUvarint(nil, count+uint64(globals)), body[n:]...)
			for i := range globals {
				name := fmt.Sprint("test:global-", i)
				body = append(append(binary.AppendUvarint(body, uint64(len(name))), name...), kindGlobal)
				body = binary.AppendUvarint(body, uint64(i))
			}
		}
		out = append(binary.AppendUvarint(append(out, id), uint64(len(body))), body...)
	}
	if globals == 0 {
		t.Fatal("the module has no globals: it was not understood")
	}
	return out, globals
}
