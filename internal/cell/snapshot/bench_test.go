package snapshot_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sallyport/internal/cell/snapshot"
)

// guest is the size of the memory of a Go guest that parses JSON, in bytes.
const guest = 53 * page

// touch writes a byte to each of these pages.
func touch(m []byte, pages []int) {
	for _, p := range pages {
		m[p*hard+p%hard]++
	}
}

// scattered returns n different pages of a memory of this size, in the order that an event may write them in.
func scattered(rnd *rand.Rand, size, n int) []int { return rnd.Perm(size / hard)[:n] }

// BenchmarkReset is an event that writes the same pages each time, and the reset after it. "none" is the event alone.
func BenchmarkReset(b *testing.B) {
	for _, size := range []int{guest, 1024 * page} {
		for _, n := range []int{8, 31, 200} {
			rnd := rand.New(rand.NewPCG(3, 3))
			want := make([]byte, size)
			random(rnd, want[:guest-5*page])
			im := take(b, want, nil)
			pages := scattered(rnd, guest, n)
			name := fmt.Sprintf("%.1fMiB/%dpages", float64(size)/(1<<20), n)
			b.Run(name+"/none", func(b *testing.B) {
				m := make([]byte, size)
				touch(m, pages)
				for b.Loop() {
					touch(m, pages)
				}
			})
			for _, method := range methods {
				b.Run(name+"/"+method.String(), func(b *testing.B) {
					m := grown(b, open(b, method), size, size)
					if err := m.Fill(im); err != nil {
						b.Fatal(err)
					}
					restored := 0
					for b.Loop() {
						touch(m.Bytes(), pages)
						n, err := m.Reset()
						if err != nil {
							b.Fatal(err)
						}
						restored += n
					}
					b.ReportMetric(float64(restored)/float64(b.N), "pages/op")
				})
			}
		}
	}
}

// BenchmarkResetChanging is the same with an event that writes 31 pages of its own and 10 others each time.
func BenchmarkResetChanging(b *testing.B) {
	rnd := rand.New(rand.NewPCG(4, 4))
	want := make([]byte, guest)
	random(rnd, want)
	im := take(b, want, nil)
	always := scattered(rnd, guest, 31)
	m := grown(b, open(b, snapshot.Tracked), guest, guest)
	fill(b, m, im, want)
	var sometimes [10]int
	restored := 0
	for b.Loop() {
		for i := range sometimes {
			sometimes[i] = rnd.IntN(guest / hard)
		}
		touch(m.Bytes(), always)
		touch(m.Bytes(), sometimes[:])
		n, err := m.Reset()
		if err != nil {
			b.Fatal(err)
		}
		restored += n
	}
	b.ReportMetric(float64(restored)/float64(b.N), "pages/op")
}

// BenchmarkTake takes an image of a memory.
func BenchmarkTake(b *testing.B) {
	want := content(rand.New(rand.NewPCG(5, 5)), guest, .9)
	base := take(b, want, nil)
	other := append([]byte(nil), want...)
	for at := 0; at < guest; at += 40 * hard {
		other[at]++
	}
	for _, tt := range []struct {
		name string
		base *snapshot.Image
	}{{"whole", nil}, {"difference", base}} {
		b.Run(tt.name, func(b *testing.B) {
			var im *snapshot.Image
			for b.Loop() {
				im = take(b, other, tt.base)
			}
			b.ReportMetric(float64(im.Bytes()), "image-B")
		})
	}
}

// BenchmarkFill makes a new memory equal to an image. "again" is a reservation that was used before.
func BenchmarkFill(b *testing.B) {
	rnd := rand.New(rand.NewPCG(6, 6))
	for _, size := range []int{guest, 1024 * page} {
		want := make([]byte, size)
		random(rnd, want[:guest-5*page])
		im := take(b, want, nil)
		for _, method := range methods {
			for _, used := range []bool{false, true} {
				name := fmt.Sprintf("%.1fMiB/%s/new", float64(size)/(1<<20), method)
				if used {
					name = fmt.Sprintf("%.1fMiB/%s/again", float64(size)/(1<<20), method)
				}
				b.Run(name, func(b *testing.B) {
					a := open(b, method)
					var held []*snapshot.Memory
					for b.Loop() {
						m := a.New(int64(size))
						m.Allocate(0, uint64(size)).Reallocate(uint64(size))
						if err := m.Fill(im); err != nil {
							b.Fatal(err)
						}
						if used {
							m.Release()
							continue
						}
						if held = append(held, m); len(held) == 64 {
							b.StopTimer()
							for _, m := range held {
								m.Release()
							}
							held = held[:0]
							if err := a.Close(); err != nil {
								b.Fatal(err)
							}
							a = open(b, method)
							b.StartTimer()
						}
					}
				})
			}
		}
	}
}

// BenchmarkResetInVain is the same with an event that writes 31 pages, and 8 others that are in the end what they were.
func BenchmarkResetInVain(b *testing.B) {
	rnd := rand.New(rand.NewPCG(15, 15))
	want := make([]byte, guest)
	random(rnd, want)
	im := take(b, want, nil)
	pages := scattered(rnd, guest, 39)
	m := grown(b, open(b, snapshot.Tracked), guest, guest)
	fill(b, m, im, want)
	for b.Loop() {
		touch(m.Bytes(), pages[:31])
		for _, p := range pages[31:] {
			m.Bytes()[p*hard]++
			m.Bytes()[p*hard]--
		}
		if _, err := m.Reset(); err != nil {
			b.Fatal(err)
		}
	}
}
