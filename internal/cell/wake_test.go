package cell_test

import (
	"context"
	"testing"

	"sallyport/internal/cell"
)

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
