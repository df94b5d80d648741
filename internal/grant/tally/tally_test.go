package tally_test

import (
	"errors"
	"sync"
	"testing"

	"sallyport/internal/grant/tally"
)

func TestTally(t *testing.T) {
	t.Parallel()
	var tl tally.Tally
	if tl.Of("shop") != 0 || tl.Has("shop", "a") {
		t.Error("an empty tally has something")
	}
	tl.Set("shop", "a", 10)
	tl.Set("shop", "b", 5)
	tl.Set("shop", "a", 7)
	tl.Add("shop", "b", -2)
	tl.Set("bank", "a", 100)
	if got := tl.Of("shop"); got != 10 || !tl.Has("shop", "b") || tl.Has("shop", "c") {
		t.Errorf("Of() = %d; want 10", got)
	}
	tl.Forget("shop")
	if tl.Of("shop") != 0 || tl.Of("bank") != 100 || tl.Has("shop", "a") {
		t.Error("Forget forgets something else than the namespace")
	}
}

// TestMeasureOnce: what is there is measured once, by one of those who ask, and again only when it failed or the namespace was forgotten.
func TestMeasureOnce(t *testing.T) {
	t.Parallel()
	var tl tally.Tally
	times, fail := 0, errors.New("disk is gone")
	measure := func() error { times++; return fail }
	if err := tl.Measure("shop", measure); !errors.Is(err, fail) {
		t.Errorf("Measure = %v", err)
	}
	fail = nil
	var running sync.WaitGroup
	for range 10 {
		running.Go(func() {
			if err := tl.Measure("shop", measure); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if times != 2 {
		t.Errorf("measured %d times, want 2: the first failed", times)
	}
	tl.Forget("shop")
	if err := tl.Measure("shop", measure); err != nil || times != 3 {
		t.Errorf("after Forget: measured %d times, %v", times, err)
	}
}
