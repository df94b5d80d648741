package cell_test

import (
	"context"
	"fmt"
	"testing"

	"sallyport/internal/cell"
)

// TestWokenIsFresh: an event that wakes its function finds nothing of those before it, whose memory it is given, also when
// functions take turns, one of them fails, and some are closed and loaded again.
func TestWokenIsFresh(t *testing.T) {
	t.Parallel()
	cfg := cell.Default()
	cfg.IdleBytes = 0
	e, err := cell.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	limits := cell.DefaultLimits()
	limits.Memory = 16 << 20
	const count = `globalThis.seen = (globalThis.seen ?? 0) + 1; const pad = new Uint8Array(%d).fill(seen);`
	var functions []*cell.Function
	var specs []cell.Spec
	for i := range 3 {
		specs = append(specs, js(fmt.Sprintf("let loads = 0; export default (e) => { loads++; "+count+" if (e.data > 0) throw new Error('no'); return `${loads} ${seen} %d`; }", 1000<<(4*i), i)))
	}
	for _, spec := range specs {
		f, err := e.Load(t.Context(), spec, limits)
		if err != nil {
			t.Fatal(err)
		}
		functions = append(functions, f)
	}
	for n := range 120 {
		i := n * n % 7 % len(functions)
		fails := n % 5 / 4
		result, usage, err := functions[i].Invoke(t.Context(), cell.Input{Event: event(fmt.Sprint(fails)), EventID: "e", Attempt: 1})
		if (err != nil) != (fails == 1) {
			t.Fatalf("invocation %d: %v", n, err)
		}
		if want := fmt.Sprintf(`"1 1 %d"`, i); err == nil && string(result.Reply) != want || !usage.Cold {
			t.Fatalf("invocation %d: reply = %s, cold %t; want %s of an instance that woke", n, result.Reply, usage.Cold, want)
		}
		if n%20 == 19 {
			if err := functions[i].Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if functions[i], err = e.Load(t.Context(), specs[i], limits); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range functions {
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkWake is an event whose function has no instance that waits: one is made from the template.
func BenchmarkWake(b *testing.B) {
	cfg := cell.Default()
	cfg.IdleBytes = 0
	e, err := cell.New(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	for name, spec := range map[string]cell.Spec{
		"script": js(`export default (e) => e.data`), "module": wasm("echo.wasm", echo()), "go": built(b, "reactor"),
	} {
		b.Run(name, func(b *testing.B) {
			f, err := e.Load(b.Context(), spec, cell.DefaultLimits())
			if err != nil {
				b.Fatal(err)
			}
			in := cell.Input{Event: event(`{"what":"world"}`)}
			if name == "module" {
				in.Event = []byte(`{}`)
			}
			for b.Loop() {
				if _, usage, err := f.Invoke(b.Context(), in); err != nil || !usage.Cold {
					b.Fatalf("cold: %v, %v", usage.Cold, err)
				}
			}
			if err := f.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
}
