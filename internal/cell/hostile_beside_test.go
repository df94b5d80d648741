package cell_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/internal/cell"
)

// bombs are functions each of which uses up something when it is invoked.
func bombs(t testing.TB) (list []*cell.Function) {
	t.Helper()
	limits := limitsWith(short)
	for _, spec := range []cell.Spec{
		js(`export default () => { for (;;) {} }`),
		js(`export default () => { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)) }`),
		js(`export default () => /^(a+)+$/.test("a".repeat(50) + "!")`),
		js(`export default () => JSON.parse("[" + "0,".repeat(1e7) + "0]")`),
		js(`export default () => { const f = () => f() + 1; f() }`),
		js(`export default (e, ctx) => { for (;;) ctx.log("x".repeat(10000)) }`),
		js(`export default () => "x".repeat(2 << 20)`),
		js(`export default async () => { for (;;) await null }`),
		wasm("loop.wasm", assembly{functions: []function{handler(0, forEver...)}}.bytes()),
		wasm("recursion.wasm", assembly{functions: []function{handler(0, opCall, 0)}}.bytes()),
		wasm("deep.wasm", deepening()),
		wasm("fill.wasm", assembly{functions: []function{handler(0, code(opLoop, blockVoid, number(0), number(7), number(200<<16), opBulk, 11, 0, opBr, 0, opEnd, number(0))...)}, pages: 200}.bytes()),
		wasm("grow.wasm", assembly{functions: []function{handler(0, code(opLoop, blockVoid, number(1), opMemoryGrow, 0, number(-1), opNe, opBrIf, 0, opEnd, opUnreachable)...)}, pages: 1}.bytes()),
	} {
		list = append(list, load(t, spec, limits))
	}
	return list
}

// explode runs bombs on as many goroutines until the function returned is called.
func explode(t testing.TB, list []*cell.Function, goroutines int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; ctx.Err() == nil; i++ {
				_, _, _ = list[i%len(list)].Invoke(ctx, cell.Input{Event: event(`1`), Log: func(string, string) {}}) // it fails: that is what it is for
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// TestBesideBombs: whatever runs beside it, a function answers every event, and finds it fresh.
func TestBesideBombs(t *testing.T) {
	t.Parallel()
	list := bombs(t)
	e := testEngine(t)
	beside := neighbours(t, here(e))
	stop := explode(t, list, 2)
	for range 100 {
		beside.check(t)
	}
	stop()
	beside.close(t)
}

// BenchmarkBesideBombs measures how long the events of a function take alone, and while bombs run on
// two goroutines.
func BenchmarkBesideBombs(b *testing.B) {
	list := bombs(b)
	f := loadScript(b, `export default (e) => ({ data: e.data })`)
	for _, goroutines := range []int{0, 2} {
		b.Run(fmt.Sprintf("bombs=%d", goroutines), func(b *testing.B) {
			stop := explode(b, list, goroutines)
			defer stop()
			var took []time.Duration
			for b.Loop() {
				started := time.Now()
				if _, _, err := f.Invoke(b.Context(), cell.Input{Event: event(`1`)}); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(started))
			}
			slices.Sort(took)
			for _, percent := range []int{50, 99} {
				b.ReportMetric(float64(took[len(took)*percent/100].Nanoseconds()), fmt.Sprintf("p%d-ns", percent))
			}
		})
	}
}
