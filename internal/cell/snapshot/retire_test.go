package snapshot_test

import (
	"math/rand/v2"
	"testing"

	"sallyport/internal/cell/snapshot"
)

// TestRetire makes memories of several images in turn, writes to them, and ends them in every way there is: each is its
// image after Fill, whatever was where it lies, and one that nobody fills begins as zeros.
func TestRetire(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		rnd := rand.New(rand.NewPCG(7, 8))
		const limit = 8 * page
		var contents [][]byte
		var images []*snapshot.Image
		for i := range 4 {
			contents = append(contents, content(rnd, (2+i)*page, 0.5))
			images = append(images, take(t, contents[i], nil))
		}
		for range 400 {
			i, expected := rnd.IntN(len(images)), rnd.IntN(len(images))
			if rnd.IntN(4) > 0 {
				expected = i
			}
			m := a.Of(limit, images[expected])
			if rnd.IntN(4) == 0 {
				m = a.New(limit)
				b := m.Allocate(0, limit).Reallocate(uint64(len(contents[i])))
				same(t, m, make([]byte, len(b)), "New")
			} else if m.Allocate(0, limit).Reallocate(page) == nil {
				t.Fatal("a memory did not grow to a page")
			}
			if rnd.IntN(4) == 0 { // what wazero writes to an instance as it begins
				random(rnd, m.Bytes()[rnd.IntN(page/2):page/2])
			}
			if rnd.IntN(8) == 0 {
				m.Release() // it was never filled
				continue
			}
			m.Reallocate(uint64(len(contents[i])))
			fill(t, m, images[i], contents[i])
			for range rnd.IntN(3) {
				after := dirty(rnd, m.Bytes())
				reset(t, m, contents[i], after)
			}
			dirty(rnd, m.Bytes())
			switch rnd.IntN(6) {
			case 0:
				m.Release()
			case 1:
				m.Reallocate(limit) // it has grown, and is nobody's image any more
				random(rnd, m.Bytes()[limit-page:])
				m.Retire()
			default:
				m.Retire()
			}
			m.Retire() // idempotent
			if rnd.IntN(20) == 0 {
				a.Forget(images[rnd.IntN(len(images))])
			}
		}
	})
}

// TestRetiredIsReady: a memory of the image that another one had is not filled again, and has nothing of what was written.
func TestRetiredIsReady(t *testing.T) {
	every(t, func(t *testing.T, a *snapshot.Allocator) {
		rnd := rand.New(rand.NewPCG(9, 10))
		want := content(rnd, small, 0.5)
		want[0] = 1
		im := take(t, want, nil)
		of := func() *snapshot.Memory {
			m := a.Of(small, im)
			m.Allocate(0, small).Reallocate(small)
			t.Cleanup(m.Release)
			return m
		}
		m := of()
		fill(t, m, im, want)
		clear(m.Bytes())
		m.Retire()
		same(t, of(), want, "Retire")
		m = of()
		same(t, m, make([]byte, small), "another has it")
		fill(t, m, im, want)
		m.Retire()
		a.Forget(im)
		same(t, of(), make([]byte, small), "Forget")
	})
}

// BenchmarkRetire is a memory that is made of its image, written to, and retired, beside one that is released.
func BenchmarkRetire(b *testing.B) {
	a := open(b, snapshot.Tracked)
	const size = 3300 << 10 / page * page
	im := take(b, content(rand.New(rand.NewPCG(1, 2)), size, 0.8), nil)
	for name, end := range map[string]func(*snapshot.Memory){"release": (*snapshot.Memory).Release, "retire": (*snapshot.Memory).Retire} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				m := a.Of(size, im)
				m.Allocate(0, size).Reallocate(size)
				if err := m.Fill(im); err != nil {
					b.Fatal(err)
				}
				for at := 0; at < 31*hard; at += hard {
					m.Bytes()[at]++
				}
				if _, err := m.Reset(); err != nil {
					b.Fatal(err)
				}
				end(m)
			}
		})
	}
}
