package cell_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sallyport/internal/cell"
)

// BenchmarkInvoke is an event in an instance that has served others, for each of the small guests and a script: what
// it costs beyond the guest's own work is the cell's. bench/ compares it with the same guest alone.
func BenchmarkInvoke(b *testing.B) {
	const order = `{"id":"o-1","lines":[{"sku":"book-1","quantity":1,"cents":999},{"sku":"pen-7","quantity":2,"cents":500}]}`
	specs := map[string]cell.Spec{
		"nothing":    wasm("f.wasm", assembly{functions: []function{handler(0, opConst, 0)}, pages: 1}.bytes()),
		"javascript": js(`export default (event) => ({ id: event.data.id, lines: event.data.lines.map((l) => ({ ...l, total: l.quantity * l.cents })) })`),
	}
	for _, example := range []string{"c", "rust", "assemblyscript"} {
		code, err := os.ReadFile(filepath.Join("..", "..", "examples", example, "price.wasm"))
		if err != nil {
			b.Fatal(err)
		}
		specs[example] = wasm("price.wasm", code)
	}
	for name, spec := range specs {
		b.Run(name, func(b *testing.B) {
			f := load(b, spec, cell.DefaultLimits())
			in := cell.Input{Event: fmt.Appendf(nil, `{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.created","data":%s}`, order), EventID: "e-1", Attempt: 1}
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				if _, _, err := f.Invoke(b.Context(), in); err != nil {
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
