package js_test

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"sallyport/internal/cell/js"
)

// host is a Host that keeps the last result.
type host struct {
	result []byte
	lines  int
	random byte
}

func (h *host) Log(uint32, []byte) { h.lines++ }
func (h *host) Result(text []byte) { h.result = append(h.result[:0], text...) }
func (h *host) Attempt() int       { return 1 }
func (h *host) Deadline() int64    { return time.Now().Add(time.Second).UnixMilli() }
func (h *host) Grants() []js.Grant { return nil }
func (h *host) Waits() bool        { return false }
func (h *host) Use(string, string, []byte, []byte) uint32 {
	return 0
}

func (h *host) Answer(context.Context, time.Duration) (js.Answer, bool) {
	return js.Answer{}, false
}

func (h *host) Random(p []byte) {
	for i := range p {
		h.random++
		p[i] = h.random
	}
}

// compiled has QuickJS be compiled once for all tests.
var compiled = wazero.NewCompilationCache()

// engine is QuickJS in one instance, compiled without the limits that cell adds.
type engine struct {
	mod wasm.Module
	vm  *js.VM
	ctx context.Context
}

func newEngine(t testing.TB, h js.Host) *engine {
	t.Helper()
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled))
	t.Cleanup(func() { _ = r.Close(context.WithoutCancel(ctx)) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	if err := js.InstantiateHost(ctx, r); err != nil {
		t.Fatal(err)
	}
	config := wazero.NewModuleConfig().WithStartFunctions().WithSysNanotime().WithSysWalltime()
	mod, err := r.InstantiateWithConfig(ctx, js.Code(), config)
	if err != nil {
		t.Fatal(err)
	}
	vm := js.NewVM(mod, h)
	return &engine{mod: mod, vm: vm, ctx: vm.Context(ctx)}
}

func (e *engine) memory() []byte {
	p, _ := e.mod.Memory().Read(0, e.mod.Memory().Size())
	return p
}

// scripts are those that are measured: they stand for a handler that does next to nothing, one that works
// on data, and one that waits for promises.
var scripts = []struct{ name, source, event string }{
	{"trivial", `export default (event) => ({ n: event.data.n + 1, id: event.id })`, `{"id":"e-1","type":"t","source":"/s","specversion":"1.0","data":{"n":41}}`},
	{"items", `export default (event) => ({ items: event.data.items.map((item) => ({ ...item, total: item.price * item.quantity })) })`,
		`{"id":"e-1","type":"t","source":"/s","specversion":"1.0","data":{"items":[` + items(100) + `]}}`},
	{"awaits", `const step = async (n) => n + 1
		export default async (event) => { let n = event.data.n; for (let i = 0; i < 10; i++) n = await step(n); return { n } }`, `{"id":"e-1","type":"t","source":"/s","specversion":"1.0","data":{"n":1}}`},
}

func items(n int) string {
	one := `{"sku":"book-17","name":"A book about näyttely","price":1990,"quantity":3,"tags":["a","b","c"]}`
	return string(bytes.TrimSuffix(bytes.Repeat([]byte(one+","), n), []byte(",")))
}

// BenchmarkHandle measures what the VM takes for one event: without the instance's reset, which is the
// caller's, and here a copy of all memory.
func BenchmarkHandle(b *testing.B) {
	for _, script := range scripts {
		b.Run(script.name, func(b *testing.B) {
			h := &host{}
			e := newEngine(b, h)
			state, err := e.vm.Boot(e.ctx, "f.js", []byte(script.source))
			if err != nil {
				b.Fatal(err)
			}
			image := bytes.Clone(e.memory())
			event := []byte(script.event)
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				copy(e.memory(), image)
				clear(e.memory()[len(image):])
				began := time.Now()
				e.vm.Resume(state)
				if err := e.vm.Handle(e.ctx, event); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
			b.ReportMetric(float64(took[len(took)/10]), "p10-ns")
		})
	}
}
