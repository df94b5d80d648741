package sealedfile_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sallyport/internal/grant/sqlgrant/sealedfile"
)

// sealer is AES-GCM with random nonces, like the keyring's.
type sealer struct{ aead cipher.AEAD }

func newSealer(t testing.TB) sealer {
	t.Helper()
	block, err := aes.NewCipher(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return sealer{aead}
}

func (s sealer) Seal(dst, plain, aad []byte) ([]byte, error) {
	return s.aead.Seal(dst, nil, plain, aad), nil
}

func (s sealer) Open(dst, sealed, aad []byte) ([]byte, error) {
	return s.aead.Open(dst, nil, sealed, aad)
}

func open(t testing.TB, path string) *sealedfile.File {
	t.Helper()
	f, err := sealedfile.Open(path, "shop/orders", newSealer(t))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return f
}

// page is recognisable content.
func page(number, version int) []byte {
	text := fmt.Appendf(nil, "page %d version %d in clear. ", number, version)
	return bytes.Repeat(text, sealedfile.PageSize/len(text)+1)[:sealedfile.PageSize]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, f *sealedfile.File, number, version int) {
	t.Helper()
	must(t, f.Write(int64(number), page(number, version)))
}

func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	f := open(t, path)
	for i := range 10 {
		write(t, f, i, 1)
	}
	must(t, f.Commit())
	write(t, f, 3, 2)
	must(t, f.Commit())
	write(t, f, 4, 9) // never committed
	must(t, f.Close())

	raw, err := os.ReadFile(path)
	must(t, err)
	if bytes.Contains(raw, []byte("in clear")) {
		t.Error("the file has content in clear")
	}
	f = open(t, path)
	for i := range 10 {
		want := page(i, 1)
		if i == 3 {
			want = page(i, 2)
		}
		if got, err := f.Read(int64(i)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Read(%d) = %.30q, %v; want %.30q", i, got, err, want)
		}
	}
	if _, err := f.Read(10); !errors.Is(err, io.EOF) {
		t.Errorf("Read beyond the end = %v", err)
	}
	must(t, f.Close())
	if _, err := sealedfile.Open(path, "shop/other", newSealer(t)); !errors.Is(err, sealedfile.ErrDamaged) {
		t.Errorf("Open under another name = %v; want ErrDamaged", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(after, raw) {
		t.Errorf("a file that did not open was changed (%v)", err)
	}
}

// A page that was cut off and comes back is zeros, before and after a restart.
func TestTruncate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	f := open(t, path)
	for i := range 6 {
		write(t, f, i, 1)
	}
	must(t, f.Commit())
	must(t, f.Truncate(2))
	write(t, f, 4, 2)
	zeros := make([]byte, sealedfile.PageSize)
	check := func() {
		t.Helper()
		for i, want := range [][]byte{page(0, 1), page(1, 1), zeros, zeros, page(4, 2)} {
			if got, err := f.Read(int64(i)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("Read(%d) = %.30q, %v; want %.30q", i, got, err, want)
			}
		}
		if f.Pages() != 5 {
			t.Errorf("Pages() = %d; want 5", f.Pages())
		}
	}
	check()
	must(t, f.Commit())
	check()
	must(t, f.Close())
	f = open(t, path)
	check()
	must(t, f.Close())
}

// Wherever a crash cuts the last commit, the one before it is what the file holds.
func TestCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	f := open(t, path)
	write(t, f, 0, 1)
	write(t, f, 1, 1)
	must(t, f.Commit())
	first, err := os.ReadFile(path)
	must(t, err)
	write(t, f, 0, 2)
	write(t, f, 1, 2)
	must(t, f.Commit())
	whole, err := os.ReadFile(path) // as a crash leaves it: not closed
	must(t, err)
	must(t, f.Close())

	random := rand.New(rand.NewPCG(1, 2))
	for round := range 400 {
		cut := bytes.Clone(whole)
		switch at := len(first) + random.IntN(len(whole)-len(first)); round % 3 {
		case 0:
			cut = cut[:at]
		case 1: // the length is there and the rest is not
			clear(cut[at:])
		case 2: // sectors reached the disk out of order
			clear(cut[len(first) : len(first)+random.IntN(at-len(first)+1)+1])
		}
		copied := filepath.Join(dir, fmt.Sprint("cut", round))
		must(t, os.WriteFile(copied, cut, 0o600))
		f := open(t, copied)
		for i := range 2 {
			if got, err := f.Read(int64(i)); err != nil || !bytes.Equal(got, page(i, 1)) {
				t.Fatalf("round %d: Read(%d) = %.30q, %v; want the first version", round, i, got, err)
			}
		}
		write(t, f, 1, 3)
		must(t, f.Commit())
		must(t, f.Close())
		f = open(t, copied)
		if got, err := f.Read(1); err != nil || !bytes.Equal(got, page(1, 3)) {
			t.Fatalf("round %d: after another commit: %.30q, %v", round, got, err)
		}
		must(t, f.Close())
		must(t, os.Remove(copied))
	}
}

// One changed byte of a closed file is found, when the file is opened or when what it is part of is read.
func TestFlip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	f := open(t, path)
	for version := range 3 {
		write(t, f, version, version)
		must(t, f.Commit())
	}
	must(t, f.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	random := rand.New(rand.NewPCG(3, 4))
	closing := len(whole) - 150 // the batch that says that the file was closed holds nothing
	for round := range 400 {
		flipped := bytes.Clone(whole)
		at := random.IntN(closing)
		flipped[at] ^= byte(1 << random.IntN(8))
		copied := filepath.Join(dir, fmt.Sprint("flip", round))
		must(t, os.WriteFile(copied, flipped, 0o600))
		f, err := sealedfile.Open(copied, "shop/orders", newSealer(t))
		for i := 0; err == nil && i < 3; i++ {
			var got []byte
			if got, err = f.Read(int64(i)); err == nil && !bytes.Equal(got, page(i, i)) {
				t.Fatalf("byte %d: page %d is wrong, and nobody said so", at, i)
			}
		}
		if !errors.Is(err, sealedfile.ErrDamaged) {
			t.Fatalf("byte %d of %d flipped: %v; want ErrDamaged", at, len(whole), err)
		}
		must(t, os.Remove(copied))
	}
}

// Random work against a model, with new files made on the way, and reopened now and then as after a crash.
func TestModel(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	random := rand.New(rand.NewPCG(5, 6))
	f := open(t, path)
	committed, current := map[int]int{}, map[int]int{}
	copied := func(m map[int]int) map[int]int {
		c := map[int]int{}
		for k, v := range m {
			c[k] = v
		}
		return c
	}
	var largest int64
	for step := range 3000 {
		switch n := random.IntN(20); {
		case n < 15:
			number := random.IntN(64)
			write(t, f, number, step)
			current[number] = step
		case n < 19:
			must(t, f.Commit())
			committed = copied(current)
		default:
			// The first handle is left as a dead process leaves it.
			f = open(t, path)
			current = copied(committed)
		}
		stat, err := os.Stat(path)
		must(t, err)
		largest = max(largest, stat.Size())
	}
	must(t, f.Commit())
	must(t, f.Close())
	f = open(t, path)
	for number, version := range current {
		if got, err := f.Read(int64(number)); err != nil || !bytes.Equal(got, page(number, version)) {
			t.Errorf("Read(%d) = %.30q, %v; want version %d", number, got, err, version)
		}
	}
	must(t, f.Close())
	if largest > 8<<20 {
		t.Errorf("64 pages took up to %d bytes: outdated content was not dropped", largest)
	}
}

// TestMeasure: the size of a file is known without opening it, also of one that a crash cut short; one that does not open is an error.
func TestMeasure(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	measure := func(want int64) {
		t.Helper()
		if pages, err := sealedfile.Measure(path, "shop/orders", newSealer(t)); err != nil || pages != want {
			t.Errorf("Measure = %d, %v; want %d", pages, err, want)
		}
	}
	f := open(t, path)
	measure(0)
	for i := range 10 {
		write(t, f, i, 1)
	}
	must(t, f.Commit())
	measure(10)
	must(t, f.Truncate(4))
	must(t, f.Commit())
	measure(4)
	before, err := os.Stat(path)
	must(t, err)
	write(t, f, 20, 1)
	must(t, f.Commit())
	measure(21)
	if f.Committed() != 21 || f.Pending() {
		t.Errorf("Committed() = %d, Pending() = %v", f.Committed(), f.Pending())
	}
	must(t, os.Truncate(path, before.Size()+100))
	measure(4)
	if _, err := sealedfile.Measure(path, "shop/others", newSealer(t)); !errors.Is(err, sealedfile.ErrDamaged) {
		t.Errorf("Measure of another's file = %v", err)
	}
}
