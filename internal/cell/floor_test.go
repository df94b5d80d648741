package cell_test

import (
	"context"
	"testing"
	"time"

	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// TestMinInstances: so many instances wait after Load, whatever the bounds of those that wait are, and one that
// is closed after its event is replaced.
func TestMinInstances(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		spec cell.Spec
	}{
		{"script", js(`export default (e) => { if (e.data === "spin") for (;;) {}; return 1 }`)},
		{"module", wasm("echo.wasm", echo())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := cell.Default()
			cfg.IdleBytes, cfg.IdleAfter = 0, time.Millisecond
			e, err := cell.New(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := e.Close(context.Background()); err != nil {
					t.Errorf("Close = %v", err)
				}
			})
			plain, err := e.Load(t.Context(), tt.spec, limitsWith(10*short))
			if err != nil {
				t.Fatal(err)
			}
			limits := limitsWith(10 * short)
			limits.MinInstances = 2
			f, err := e.Load(t.Context(), tt.spec, limits)
			if err != nil {
				t.Fatal(err)
			}
			if e.Idle() != 2 {
				t.Errorf("%d instances wait after Load; want 2", e.Idle())
			}
			if f.Resident() <= plain.Resident() {
				t.Errorf("Resident = %d, without instances that wait it is %d; want more", f.Resident(), plain.Resident())
			}
			if !cold(t, plain, `1`) || cold(t, f, `1`) {
				t.Error("want a cold first event of the function without instances, and a warm one of the other")
			}
			// Those of the other function come and go by the bounds; these two must be left.
			deadline := time.Now().Add(soon)
			for e.Idle() != 2 {
				if time.Now().After(deadline) {
					t.Fatalf("%d instances wait; want 2", e.Idle())
				}
				<-time.After(time.Millisecond)
			}
			if tt.name == "script" {
				if cold(t, f, `"spin"`) || e.Idle() != 2 {
					t.Errorf("%d instances wait after one was stopped; want 2", e.Idle())
				}
			}
			if err := f.Close(t.Context()); err != nil {
				t.Errorf("Close = %v", err)
			}
			if !cold(t, plain, `1`) {
				t.Error("an instance waits beyond the bound after the function with a floor is closed")
			}
		})
	}
}

// TestMinInstancesImpossible: a module whose instances serve one event each cannot have any that wait.
func TestMinInstancesImpossible(t *testing.T) {
	t.Parallel()
	limits := cell.DefaultLimits()
	limits.MinInstances = 1
	spec := wasm("table.wasm", assembly{
		table: vec([]byte{funcRef, 1, 2, 100}), exports: [][]byte{export("f", kindFunction, 0)},
		functions: []function{handler(2, code(number(1), opRefFunc, 0, opTableSet, 0, number(0))...)},
	}.bytes())
	_, err := testEngine(t).Load(t.Context(), spec, limits)
	wantProblem(t, err, problem.Unprocessable, "cell.min_instances_impossible")
}
