package snapshot_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sallyport/internal/cell/snapshot"
)

// filled returns the content of an image.
func filled(t testing.TB, im *snapshot.Image) []byte {
	t.Helper()
	m := grown(t, open(t, snapshot.Copy), int(im.Size()), int(im.Size()))
	if err := m.Fill(im); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(m.Bytes())
}

// TestImage: an image is the memory it was taken of, also when it was written and parsed.
func TestImage(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(20, 20))
	for i := range 60 {
		size := rnd.IntN(6) * page
		want := content(rnd, size, float64(i%5)/4)
		var base *snapshot.Image
		if i%3 > 0 { // nearly the same, and smaller or larger
			other := append(bytes.Clone(want), make([]byte, page)...)[:rnd.IntN(size/page+2)*page]
			for range 5 * min(1, len(other)) {
				dirtyPart(rnd, other)
			}
			base = take(t, other, nil)
		}
		im := take(t, want, base)
		clear(want[:min(1, len(want))]) // the image keeps nothing of the memory
		if size > 0 {
			want[0] = filled(t, im)[0]
		}
		if got := filled(t, im); !bytes.Equal(got, want) || im.Size() != int64(size) || im.Base() != base {
			t.Fatalf("image %d is not the memory it was taken of", i)
		}
		encoded := im.Append([]byte("before"))
		parsed, err := snapshot.Parse(encoded[6:], base)
		if err != nil || !bytes.Equal(filled(t, parsed), want) || !bytes.Equal(parsed.Append(nil), encoded[6:]) {
			t.Fatalf("image %d, written and parsed, is another one: %v", i, err)
		}
	}
}

func dirtyPart(rnd *rand.Rand, b []byte) {
	n := 1 + rnd.IntN(min(len(b), 3000))
	at := rnd.IntN(len(b) - n + 1)
	random(rnd, b[at:at+n])
}

// TestImageHoldsWhatDiffers: zero pages and what is equal to the base take no room.
func TestImageHoldsWhatDiffers(t *testing.T) {
	t.Parallel()
	b := make([]byte, 1000*page)
	if got := take(t, b, nil).Bytes(); got > 1<<10 {
		t.Errorf("an empty image of %d bytes takes %d", len(b), got)
	}
	random(rand.New(rand.NewPCG(21, 21)), b[:10*page])
	base := take(t, b, nil)
	if got := base.Bytes(); got < 10*page || got > 10*page+2<<10 {
		t.Errorf("an image of %d bytes takes %d", 10*page, got)
	}
	for i := range 7 {
		b[i*page+page/2]++
	}
	b[len(b)-1]++
	if got := take(t, b, base).Bytes(); got > 8*(64+8)+1<<10 {
		t.Errorf("an image of 8 bytes that differ takes %d", got)
	}
}

func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	if _, err := snapshot.Take(make([]byte, page-1), nil); !errors.Is(err, snapshot.ErrSizeInvalid) {
		t.Errorf("Take of part of a page = %v; want ErrSizeInvalid", err)
	}
	b := make([]byte, page)
	if _, err := snapshot.Take(b, take(t, b, take(t, b, nil))); !errors.Is(err, snapshot.ErrBase) {
		t.Errorf("Take with a base that has a base = %v; want ErrBase", err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	b := make([]byte, 2*page)
	base := take(t, b, nil)
	b[0], b[5000], b[page] = 1, 2, 3 // two runs of 128 and 64 units
	good := take(t, b, nil).Append(nil)
	const size, runs, first = 40, 44, 48
	set := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	if _, err := snapshot.Parse(good, nil); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		b    []byte
		base *snapshot.Image
		want error
	}{
		{"nothing", nil, nil, snapshot.ErrMalformed},
		{"part of the header", good[:47], nil, snapshot.ErrMalformed},
		{"other magic", slices.Concat([]byte("spimage2"), good[8:]), nil, snapshot.ErrMalformed},
		{"a base too many", good, base, snapshot.ErrOtherBase},
		{"the base missing", take(t, b, base).Append(nil), nil, snapshot.ErrOtherBase},
		{"another base", take(t, b, base).Append(nil), take(t, b, nil), snapshot.ErrOtherBase},
		{"a base with a base", good, take(t, b, base), snapshot.ErrBase},
		{"part of a page", set(size, 65), nil, snapshot.ErrSizeInvalid},
		{"more than WebAssembly has", set(size, 1024*65537), nil, snapshot.ErrSizeInvalid},
		{"smaller than its runs", set(size, 1024), nil, snapshot.ErrMalformed},
		{"a run more", set(runs, 3), nil, snapshot.ErrMalformed},
		{"a run less", set(runs, 1), nil, snapshot.ErrMalformed},
		{"many runs", set(runs, 1<<32-1), nil, snapshot.ErrMalformed},
		{"an empty run", set(first+4, 0), nil, snapshot.ErrMalformed},
		{"a long run", set(first+4, 1<<32-1), nil, snapshot.ErrMalformed},
		{"a run in front of the one before", set(first, 1500), nil, snapshot.ErrMalformed},
		{"runs that touch", set(first, 1024-128), nil, snapshot.ErrMalformed},
		{"runs that overlap", set(first+4, 1025), nil, snapshot.ErrMalformed},
		{"a byte missing", good[:len(good)-1], nil, snapshot.ErrMalformed},
		{"a byte more", append(bytes.Clone(good), 0), nil, snapshot.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if im, err := snapshot.Parse(tt.b, tt.base); !errors.Is(err, tt.want) || im != nil {
				t.Errorf("Parse = %v, %v; want %v", im, err, tt.want)
			}
		})
	}
}

// FuzzParse gives bytes to the parser. What it takes, it writes again as it was, and can be read at
// every place.
func FuzzParse(f *testing.F) {
	b := make([]byte, 2*page)
	base, err := snapshot.Take(b, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(base.Append(nil), false)
	b[0], b[5000], b[page] = 1, 2, 3
	for i, base := range []*snapshot.Image{nil, base} {
		im, err := snapshot.Take(b, base)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(im.Append(nil), i == 1)
	}
	f.Fuzz(func(t *testing.T, encoded []byte, based bool) {
		var on *snapshot.Image
		if based {
			on = base
		}
		im, err := snapshot.Parse(encoded, on)
		if err != nil {
			return
		}
		if !bytes.Equal(im.Append(nil), encoded) {
			t.Error("the image is written as other bytes than it was parsed from")
		}
		if im.Bytes() > int64(len(encoded))+1<<10 {
			t.Errorf("%d bytes became an image of %d", len(encoded), im.Bytes())
		}
		if im.Size() > 64*page {
			return
		}
		content := filled(t, im)
		again := take(t, content, on)
		if !bytes.Equal(filled(t, again), content) {
			t.Error("an image taken of the image is another one")
		}
	})
}

func ExampleTake() {
	memory := make([]byte, 64<<10)
	copy(memory, "initialised")
	im, err := snapshot.Take(memory, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(im.Size(), len(im.Append(nil)))
	// Output: 65536 4152
}
