package snapshot_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"sallyport/internal/cell/snapshot"
)

const (
	page = 64 << 10 // of WebAssembly, in bytes
	hard = 4 << 10  // of the hardware, in bytes
	// small memories are copied whole with CopyOnWrite, and large ones are mapped.
	small, large = 5 * page, 4<<20 + 3*page
)

var methods = []snapshot.Method{snapshot.Tracked, snapshot.CopyOnWrite, snapshot.Copy}

// open returns an allocator with this method, or skips the test where a system call that it needs
// fails. A method that was tried out and does not work is a failure.
func open(t testing.TB, method snapshot.Method) *snapshot.Allocator {
	t.Helper()
	a, err := snapshot.Open(method)
	if _, refused := errors.AsType[syscall.Errno](err); refused || errors.Is(err, snapshot.ErrUnsupported) {
		t.Skipf("NOT TESTED: this machine cannot reset memory with the method %s: %v", method, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 { // Close is idempotent
			if err := a.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		}
	})
	return a
}

// every runs a test with each method.
func every(t *testing.T, test func(t *testing.T, a *snapshot.Allocator)) {
	t.Parallel()
	for _, method := range methods {
		t.Run(method.String(), func(t *testing.T) {
			t.Parallel()
			test(t, open(t, method))
		})
	}
}

// grown returns a memory of a size.
func grown(t testing.TB, a *snapshot.Allocator, size, limit int) *snapshot.Memory {
	t.Helper()
	m := a.New(int64(limit))
	if b := m.Allocate(uint64(size), uint64(limit)).Reallocate(uint64(size)); len(b) != size {
		t.Fatalf("Reallocate(%d) = %d bytes", size, len(b))
	}
	t.Cleanup(m.Release)
	return m
}

// content returns bytes of which about a part is not zero, in runs of all lengths.
func content(rnd *rand.Rand, size int, part float64) []byte {
	b := make([]byte, size)
	for at := 0; at < size; {
		n := min(1+rnd.IntN(1<<rnd.IntN(18)), size-at)
		if rnd.Float64() < part {
			random(rnd, b[at:at+n])
		}
		at += n
	}
	return b
}

func random(rnd *rand.Rand, b []byte) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], rnd.Uint64())
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
}

func take(t testing.TB, b []byte, base *snapshot.Image) *snapshot.Image {
	t.Helper()
	im, err := snapshot.Take(b, base)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func fill(t testing.TB, m *snapshot.Memory, im *snapshot.Image, want []byte) {
	t.Helper()
	if err := m.Fill(im); err != nil {
		t.Fatal(err)
	}
	same(t, m, want, "Fill")
}

// reset resets m, which must then be want.
func reset(t testing.TB, m *snapshot.Memory, want []byte, after string) int {
	t.Helper()
	pages, err := m.Reset()
	if err != nil {
		t.Fatalf("Reset after %s: %v", after, err)
	}
	same(t, m, want, after)
	return pages
}

func same(t testing.TB, m *snapshot.Memory, want []byte, after string) {
	t.Helper()
	got := m.Bytes()
	if bytes.Equal(got, want) {
		return
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("after %s: byte %d (page %d, %d in it) is %d; want %d", after, i, i/hard, i%hard, got[i], want[i])
		}
	}
	t.Fatalf("after %s: the memory has %d bytes; want %d", after, len(got), len(want))
}

// dirty writes to m in one of the ways that events do, and returns which.
func dirty(rnd *rand.Rand, m []byte) string {
	at := func(n int) int { return rnd.IntN(len(m) - n + 1) }
	switch rnd.IntN(11) {
	case 10: // more parts than one scan has room for
		for i := 0; i < len(m); i += 2 * hard {
			m[i]++
		}
		m[len(m)-1]++
		return "every other page"
	case 0:
		return "nothing"
	case 1:
		i := at(1)
		m[i]++
		return fmt.Sprintf("one byte at %d", i)
	case 2: // on both sides of a border
		i := (1 + rnd.IntN(len(m)/hard-1)) * hard
		m[i-1], m[i] = m[i-1]+1, m[i]+1
		return fmt.Sprintf("the border at %d", i)
	case 3: // the first and the last bytes
		m[0]++
		m[len(m)-1]++
		return "both ends"
	case 4: // the same bytes
		n := 1 + rnd.IntN(3*hard)
		i := at(n)
		copy(m[i:], bytes.Clone(m[i:i+n]))
		return fmt.Sprintf("%d bytes at %d as they were", n, i)
	case 5: // zeros
		n := 1 + rnd.IntN(3*hard)
		i := at(n)
		clear(m[i : i+n])
		return fmt.Sprintf("%d zeros at %d", n, i)
	case 6: // everywhere
		random(rnd, m)
		return "everything"
	case 7: // many places
		n := 1 + rnd.IntN(200)
		for range n {
			m[at(1)] ^= byte(1 + rnd.IntN(255))
		}
		return fmt.Sprintf("%d places", n)
	case 8: // whole pages
		n := 1 + rnd.IntN(8)
		i := rnd.IntN(len(m)/hard-n) * hard
		random(rnd, m[i:i+n*hard])
		return fmt.Sprintf("%d whole pages at %d", n, i)
	}
	n := 1 + rnd.IntN(1<<(1+rnd.IntN(17)))
	i := at(n)
	random(rnd, m[i:i+n])
	return fmt.Sprintf("%d bytes at %d", n, i)
}

// TestReset is the invariant: after a reset, the memory equals the image byte for byte.
func TestReset(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		for _, tt := range []struct {
			name   string
			size   int
			part   float64 // of the content that is not zero
			based  bool
			rounds int
		}{
			{"full", small, 1, false, 400},
			{"half", small, .5, false, 400},
			{"empty", small, 0, false, 400},
			{"with a base", small, .5, true, 400},
			{"large", large, .5, false, 60},
			{"large and sparse", large, .02, false, 60},
			{"large and empty", large, 0, false, 60},
			{"large with a base", large, .5, true, 60},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(1, uint64(tt.size)))
				want := content(rnd, tt.size, tt.part)
				var base *snapshot.Image
				if tt.based {
					base = take(t, content(rnd, tt.size-page, tt.part), nil)
				}
				m := grown(t, a, tt.size, tt.size+page)
				dirty(rnd, m.Bytes())
				fill(t, m, take(t, want, base), want)
				for i := range tt.rounds {
					what := ""
					for range 1 + rnd.IntN(3) {
						what += dirty(rnd, m.Bytes()) + ", "
					}
					if rnd.IntN(4) == 0 {
						_ = isZero(m.Bytes()) // reads
					}
					reset(t, m, want, fmt.Sprintf("%s round %d", what, i))
				}
			})
		}
	})
}

// isZero compares each byte with the one before.
func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// TestManyMemories uses many memories at once, whose reservations are used again and again: each
// must begin empty and be itself.
func TestManyMemories(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(2, uint64(worker)))
				for range 8 {
					size := small
					if rnd.IntN(4) == 0 {
						size = large
					}
					want := content(rnd, size, rnd.Float64())
					im := take(t, want, nil)
					m := a.New(large)
					b := m.Allocate(0, large).Reallocate(uint64(size))
					if !isZero(b) {
						t.Error("a new memory is not empty")
						return
					}
					if err := m.Fill(im); err != nil {
						t.Error(err)
						return
					}
					for range 10 {
						what := dirty(rnd, b)
						if _, err := m.Reset(); err != nil {
							t.Error(err)
							return
						}
						if !bytes.Equal(b, want) {
							t.Errorf("worker %d: memory differs after %s", worker, what)
						}
					}
					dirty(rnd, b)
					m.Release()
					m.Release()
				}
			})
		}
		wg.Wait()
	})
}
