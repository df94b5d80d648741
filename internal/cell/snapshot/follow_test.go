package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"sallyport/internal/cell/snapshot"
)

// TestHotSet goes through phases in which other pages are hot: pages that every event writes go cold
// and are written once more later, and pages that nobody wrote become hot.
func TestHotSet(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		rnd := rand.New(rand.NewPCG(7, 7))
		want := content(rnd, small, .7)
		m := grown(t, a, small, small)
		fill(t, m, take(t, want, nil), want)
		for phase := range 12 {
			hot := scattered(rnd, small, 1+rnd.IntN(20))
			for i := range 250 {
				touch(m.Bytes(), hot)
				what := ""
				switch {
				case rnd.IntN(50) == 0: // a burst
					random(rnd, m.Bytes())
					what = "and all others "
				case rnd.IntN(3) == 0:
					what = dirty(rnd, m.Bytes())
				}
				reset(t, m, want, fmt.Sprintf("%d hot pages %s, phase %d, event %d", len(hot), what, phase, i))
			}
		}
	})
}

// TestOnlyWhatWasWritten: the tracked method restores the pages that were written and no others,
// also when the one before wrote others.
func TestOnlyWhatWasWritten(t *testing.T) {
	t.Parallel()
	if os.Getpagesize() != hard {
		t.Skip("NOT TESTED: the pages of this machine have another size")
	}
	a := open(t, snapshot.Tracked)
	rnd := rand.New(rand.NewPCG(8, 8))
	for _, size := range []int{small, large} {
		for _, part := range []float64{0, .05, 1} {
			want := content(rnd, size, part)
			m := grown(t, a, size, size)
			fill(t, m, take(t, want, nil), want)
			for n := range 70 {
				touch(m.Bytes(), scattered(rnd, size, n))
				if got := reset(t, m, want, "touching pages"); got != n {
					t.Fatalf("memory of %d bytes: Reset = %d pages; want %d", size, got, n)
				}
			}
		}
	}
}

// TestManyParts has the kernel find about as many parts as there is room for, and the last page.
func TestManyParts(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		for _, room := range []int{64, 128, 512} {
			for parts := room - 2; parts < room+2; parts++ {
				size := (2*parts*hard + page) / page * page
				want := content(rand.New(rand.NewPCG(14, 14)), size, .5)
				m := grown(t, a, size, size)
				fill(t, m, take(t, want, nil), want)
				touched := []int{size/hard - 1}
				for i := range parts {
					touched = append(touched, 2*i)
				}
				touch(m.Bytes(), touched)
				reset(t, m, want, fmt.Sprintf("touching %d parts", len(touched)))
				m.Release()
			}
		}
	})
}

// TestGrown: a memory that has grown is not reset, nor is it after that.
func TestGrown(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		want := content(rand.New(rand.NewPCG(9, 9)), small, 1)
		im := take(t, want, nil)
		m := grown(t, a, small, small+page)
		if _, err := m.Reset(); !errors.Is(err, snapshot.ErrNotFilled) {
			t.Errorf("Reset before Fill = %v; want ErrNotFilled", err)
		}
		fill(t, m, im, want)
		at := &m.Bytes()[0]
		b := m.Reallocate(small + page)
		if len(b) != small+page || &b[0] != at || !isZero(b[small:]) || m.Size() != small+page {
			t.Error("growing moved the memory, or gave it bytes that are not zero")
		}
		b[small] = 1
		if _, err := m.Reset(); !errors.Is(err, snapshot.ErrGrown) {
			t.Errorf("Reset = %v; want ErrGrown", err)
		}
		if _, err := m.Reset(); err == nil {
			t.Error("Reset after a failure = nil; want an error")
		}
		if err := m.Fill(im); !errors.Is(err, snapshot.ErrSize) {
			t.Errorf("Fill with a smaller image = %v; want ErrSize", err)
		}
		larger, err := m.Take(im)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, m, larger, bytes.Clone(b)) // after which it can be reset again
		b[0]++
		b[small]++
		if _, err := m.Reset(); err != nil {
			t.Errorf("Reset after another Fill = %v", err)
		}
	})
}

// TestLimit: the memory refuses to pass its limit, and remembers.
func TestLimit(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		m := grown(t, a, small, small)
		if m.Refused() || m.Reallocate(small+page) != nil || !m.Refused() || m.Size() != small {
			t.Errorf("the memory grew past its limit to %d bytes", m.Size())
		}
		m.Free() // a guest may still run in it
		m.Bytes()[0] = 1
		m.Release()
		if m.Size() != small {
			t.Errorf("Size after Release = %d; want %d", m.Size(), small)
		}
		least := a.New(10 * page)
		least.Allocate(0, page) // the module asks for less than the limit
		if least.Reallocate(2*page) != nil {
			t.Error("the memory grew past what its module declares")
		}
	})
}

// TestEmptyMemory: a module without a memory, and one with a memory of no pages.
func TestEmptyMemory(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		im := take(t, nil, nil)
		for _, limit := range []int{0, page} {
			m := grown(t, a, 0, limit)
			fill(t, m, im, nil)
			reset(t, m, nil, "nothing")
			m.Release()
		}
		if err := a.New(0).Fill(im); err != nil {
			t.Errorf("Fill of a memory that no one asked for = %v", err)
		}
	})
}

// TestFillAgain fills a memory from one image after the other.
func TestFillAgain(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		for _, size := range []int{small, large} {
			rnd := rand.New(rand.NewPCG(10, uint64(size)))
			m := grown(t, a, size, size)
			for _, part := range []float64{1, 0, .5, .01, 0, .3} {
				want := content(rnd, size, part)
				fill(t, m, take(t, want, nil), want)
				for range 5 {
					reset(t, m, want, dirty(rnd, m.Bytes()))
				}
				dirty(rnd, m.Bytes())
			}
		}
	})
}

// TestProcesses: starting another process does not end tracking.
func TestProcesses(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		rnd := rand.New(rand.NewPCG(11, 11))
		want := content(rnd, small, .5)
		m := grown(t, a, small, small)
		fill(t, m, take(t, want, nil), want)
		for range 10 {
			before := dirty(rnd, m.Bytes())
			if err := exec.Command("true").Run(); err != nil {
				t.Skipf("NOT TESTED: there is no program to start: %v", err)
			}
			reset(t, m, want, before+", a process, "+dirty(rnd, m.Bytes()))
		}
	})
}

// TestResetAllocatesNothing keeps the collector out of the way of an event.
func TestResetAllocatesNothing(t *testing.T) {
	a := open(t, snapshot.Tracked)
	rnd := rand.New(rand.NewPCG(12, 12))
	want := content(rnd, small, .5)
	m := grown(t, a, small, small)
	fill(t, m, take(t, want, nil), want)
	pages := scattered(rnd, small, 20)
	if n := testing.AllocsPerRun(100, func() {
		touch(m.Bytes(), pages)
		if _, err := m.Reset(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Reset allocates %v times; want 0", n)
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	for _, method := range []snapshot.Method{-1, snapshot.Copy + 1} {
		if _, err := snapshot.Open(method); err == nil {
			t.Errorf("Open(%d) = nil; want an error", method)
		}
	}
	best := open(t, snapshot.Best)
	if best.Method() == snapshot.Best || best.Method().Explain() == "" || best.Method().Explain() == snapshot.Best.Explain() {
		t.Errorf("the best method is %s: %s", best.Method(), best.Method().Explain())
	}
	if (best.Why() == nil) != (best.Method() == snapshot.Tracked) {
		t.Errorf("the best method is %s because of %v", best.Method(), best.Why())
	}
	t.Logf("the best method is %s", best.Method())
}

// FuzzReset does to a memory what the fuzzer says: 6 bytes are where, how much, and what to do.
func FuzzReset(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 1, 0xff, 0xff, 4, 16, 1, 2, 0, 0, 0, 0, 0, 7})
	f.Add([]byte{0, 0x10, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 0x0f, 0, 2, 0, 3})
	f.Fuzz(func(t *testing.T, script []byte) {
		want := content(rand.New(rand.NewPCG(13, uint64(len(script)))), small, .5)
		im := take(t, want, nil)
		for _, method := range methods {
			m := grown(t, open(t, method), small, small)
			fill(t, m, im, want)
			for s := script; len(s) >= 6; s = s[6:] {
				at := (int(s[0]) | int(s[1])<<8 | int(s[2])<<16) % small
				part := m.Bytes()[at:min(at+int(s[3])|int(s[4])<<6, small)]
				if s[5]&7 == 7 {
					reset(t, m, want, fmt.Sprintf("the first %d bytes of the script", len(script)-len(s)))
				}
				for i := range part {
					part[i] = s[5]
				}
			}
			reset(t, m, want, "all of the script")
		}
	})
}
