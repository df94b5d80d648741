package snapshot_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"sallyport/internal/cell/snapshot"
)

// pages counts the pages of m that are protected, and those that exist.
func pages(t *testing.T, m []byte) (protected, exist int) {
	t.Helper()
	file, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	entries := make([]byte, len(m)/hard*8)
	if _, err := file.ReadAt(entries, int64(uintptr(unsafe.Pointer(&m[0])))/hard*8); err != nil {
		t.Fatal(err)
	}
	const writeProtected, present = 1 << 57, 1 << 63
	for ; len(entries) > 0; entries = entries[8:] {
		entry := binary.LittleEndian.Uint64(entries)
		if entry&writeProtected != 0 {
			protected++
		}
		if entry&present != 0 {
			exist++
		}
	}
	return protected, exist
}

// TestHotSetIsLeftAlone: what is written by every event is not protected, and what was written once is
// protected again, and given back when the image has nothing of it.
func TestHotSetIsLeftAlone(t *testing.T) {
	t.Parallel()
	if os.Getpagesize() != hard {
		t.Skip("NOT TESTED: the pages of this machine have another size")
	}
	a := open(t, snapshot.Tracked)
	for _, size := range []int{small, large} {
		rnd := rand.New(rand.NewPCG(40, 40))
		want := make([]byte, size)
		random(rnd, want[:4*page])
		m := grown(t, a, size, size)
		if err := m.Fill(take(t, want, nil)); err != nil {
			t.Fatal(err)
		}
		all, held := size/hard, 4*page/hard
		if size == large {
			all = held // the others do not exist
		}
		if protected, exist := pages(t, m.Bytes()); protected != all || exist != held {
			t.Fatalf("after Fill %d pages are protected and %d exist; want %d and %d", protected, exist, all, held)
		}
		hot := scattered(rnd, 4*page, 10)
		event := func() {
			touch(m.Bytes(), hot)
			if _, err := m.Reset(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2000 {
			event()
		}
		if protected, exist := pages(t, m.Bytes()); protected != all-len(hot) || exist != held {
			t.Fatalf("with %d hot pages, %d are protected and %d exist; want %d and %d", len(hot), protected, exist, all-len(hot), held)
		}
		for i := range m.Bytes() {
			m.Bytes()[i]++
		}
		for range 2000 {
			event()
		}
		if size == small {
			held = all // in a small memory, they are kept
		}
		if protected, exist := pages(t, m.Bytes()); protected != all-len(hot) || exist != held {
			t.Fatalf("after a burst, %d are protected and %d exist; want %d and %d", protected, exist, all-len(hot), held)
		}
	}
}
