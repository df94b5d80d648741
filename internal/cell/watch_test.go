package cell_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// TestWatch has many calls run at once that end each in its own way, for every end shares one timer: none may be
// missed, and none may end another's.
func TestWatch(t *testing.T) {
	t.Parallel()
	endless := js(`export default () => { for (;;) {} }`)
	limits := func(timeout, cpu time.Duration) cell.Limits {
		l := cell.DefaultLimits()
		l.Timeout, l.CPU = timeout, cpu
		return l
	}
	quick := load(t, wasm("f.wasm", assembly{functions: []function{handler(0, opConst, 0)}, pages: 1}.bytes()), cell.DefaultLimits())
	functions := map[string]*cell.Function{
		"cell.timeout":  load(t, endless, limits(15*time.Millisecond, 0)),
		"cell.cpu":      load(t, endless, limits(soon, 5*time.Millisecond)),
		"cell.canceled": load(t, endless, limits(soon, soon/2)),
	}
	var all sync.WaitGroup
	for want, f := range functions {
		for i := range 3 {
			all.Go(func() {
				for n := range 8 {
					// As many are given up before the caller is watched as after that.
					ctx, cancel := context.WithCancelCause(t.Context())
					if want == "cell.canceled" {
						time.AfterFunc(time.Duration(n*i)*2*time.Millisecond, func() { cancel(fmt.Errorf("call %d", n)) })
					}
					_, _, err := f.Invoke(ctx, cell.Input{Event: event(`1`)})
					if p := problem.From(err); err == nil || p.Code != want {
						t.Errorf("Invoke = %v; want %s", err, want)
					}
					cancel(nil)
				}
			})
		}
	}
	for range 3 {
		all.Go(func() {
			for range 2000 {
				if _, _, err := quick.Invoke(t.Context(), cell.Input{Event: event(`1`)}); err != nil {
					t.Errorf("Invoke of what ends by itself = %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestWatchCanceledBefore: a call whose caller has gone stops its guest at once.
func TestWatchCanceledBefore(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `export default () => { for (;;) {} }`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := f.Invoke(ctx, cell.Input{Event: event(`1`)})
	wantProblem(t, err, problem.Unavailable, "cell.canceled")
}

// TestWatchNested: a call whose caller's context is a call itself ends with that one.
func TestWatchNested(t *testing.T) {
	t.Parallel()
	inner := loadScript(t, `export default () => { for (;;) {} }`)
	limits := cell.DefaultLimits()
	limits.Timeout = 4 * short
	spec := js(`export default async (event, ctx) => ctx.grants.store.call("get")`)
	spec.Grants = granted
	outer := load(t, spec, limits) // in the same engine
	ended := make(chan error, 1)
	use := func(ctx context.Context, _ cell.GrantUse) cell.GrantAnswer {
		_, _, err := inner.Invoke(ctx, cell.Input{Event: event(`1`)})
		ended <- err
		return cell.GrantAnswer{}
	}
	_, _, err := outer.Invoke(t.Context(), cell.Input{Event: event(`1`), Use: use})
	if p := problem.From(err); err == nil || p.Code != "cell.timeout" {
		t.Errorf("Invoke of the outer function = %v; want cell.timeout", err)
	}
	select {
	case err := <-ended:
		if p := problem.From(err); err == nil || p.Code != "cell.timeout" && p.Code != "cell.canceled" {
			t.Errorf("Invoke of the inner function = %v; want cell.timeout or cell.canceled", err)
		}
	case <-time.After(soon):
		t.Fatal("the inner function still runs")
	}
}
