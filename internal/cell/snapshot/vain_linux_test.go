package snapshot_test

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/internal/cell/snapshot"
)

// TestInVain: pages that every event writes and leaves as they were are not protected again and again, which would be a
// fault for every page that it writes; and pages of a burst, also of one right after they were protected, are.
func TestInVain(t *testing.T) {
	runtime.LockOSThread() // its faults are counted
	defer runtime.UnlockOSThread()
	rnd := rand.New(rand.NewPCG(16, 16))
	want := content(rnd, small, 1)
	m := grown(t, open(t, snapshot.Tracked), small, small)
	fill(t, m, take(t, want, nil), want)
	pages := scattered(rnd, small, small/hard)
	changed, vain, rest := pages[:12], pages[12:20], pages[20:]
	events := func(n int, vain []int) (faults int64) {
		var before, after unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
			t.Fatal(err)
		}
		for range n {
			touch(m.Bytes(), changed)
			for _, p := range vain {
				m.Bytes()[p*hard]++
				m.Bytes()[p*hard]--
			}
			if _, err := m.Reset(); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
			t.Fatal(err)
		}
		return after.Minflt - before.Minflt
	}
	const n = 5000
	events(n, vain)
	if got := events(n, vain); got > n/10 {
		t.Errorf("%d events of habit met %d faults; want at most one in ten", n, got)
	}
	for range 3 { // somewhere among them pages are protected
		for range 300 {
			events(1, rest)
			events(10, vain)
		}
	}
	events(n, vain)
	if got := events(1, rest); got < int64(len(rest)) {
		t.Errorf("long after a burst, %d of its %d pages are protected again; want all", got, len(rest))
	}
}
