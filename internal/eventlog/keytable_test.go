package eventlog_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"sallyport/internal/eventlog"
)

// TestKeyTable holds a table to a map: with keys of a digest, and with keys that share the part and the
// print, so that only comparing them whole tells them apart.
func TestKeyTable(t *testing.T) {
	t.Parallel()
	type pair struct{ hi, lo uint64 }
	for name, draw := range map[string]func(r *rand.Rand) pair{
		"random":      func(r *rand.Rand) pair { return pair{r.Uint64(), r.Uint64()} },
		"few":         func(r *rand.Rand) pair { return pair{r.Uint64N(64), r.Uint64N(64)} },
		"same print":  func(r *rand.Rand) pair { return pair{r.Uint64N(2000) << 32, 7} },
		"neighbours":  func(r *rand.Rand) pair { return pair{1<<32 - 1 - r.Uint64N(40), r.Uint64N(100) << 8} },
		"same halves": func(r *rand.Rand) pair { return pair{5, r.Uint64N(2000) << 8} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			for _, bits := range []int{0, 8} {
				table := eventlog.NewTestTable(bits)
				for range 2 { // the second time after a reset
					want := map[pair]int{}
					for i := range 5000 {
						k := draw(r)
						got, ok := table.Get(k.hi, k.lo)
						if v, has := want[k]; got != v || ok != has {
							t.Fatalf("Get(%v) = %d, %v; want %d, %v", k, got, ok, v, has)
						}
						table.Set(k.hi, k.lo, i)
						want[k] = i
					}
					for k, v := range want {
						if got, ok := table.Get(k.hi, k.lo); !ok || got != v {
							t.Errorf("Get(%v) = %d, %v; want %d", k, got, ok, v)
						}
					}
					if table.Len() != len(want) {
						t.Errorf("Len() = %d, want %d", table.Len(), len(want))
					}
					table.Reset()
				}
			}
		})
	}
}

// TestWindow: a key is known for the window, is forgotten half a window later at the latest, and never
// more are known than may be and half as many again.
func TestWindow(t *testing.T) {
	t.Parallel()
	const window, most = time.Hour, 1000
	w := eventlog.NewTestWindow(window, most)
	start := time.Unix(1_000_000, 0)
	const step = 10 * time.Second // 360 in a window
	for n := range uint64(2000) {
		now := start.Add(time.Duration(n) * step)
		w.Put(n+1, now)
		if n >= 359 && !w.Knows(n+1-359) {
			t.Fatalf("after %d steps a key of the window is forgotten", n)
		}
		if n >= 541 && w.Knows(n+1-541) {
			t.Fatalf("after %d steps a key of one and a half windows ago is known", n)
		}
	}
	full := eventlog.NewTestWindow(window, most)
	for n := range uint64(10 * most) {
		full.Put(n+1, start)
	}
	known := 0
	for n := range uint64(10 * most) {
		if full.Knows(n + 1) {
			known++
		}
	}
	if known < most || known > most+most/2 {
		t.Errorf("%d keys are known, want %d to %d", known, most, most+most/2)
	}
}

func BenchmarkWindow(b *testing.B) {
	w := eventlog.NewTestWindow(time.Hour, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	now := time.Unix(1_000_000, 0)
	for b.Loop() {
		n := r.Uint64()
		if !w.Knows(n) {
			w.Put(n, now)
		}
	}
}
