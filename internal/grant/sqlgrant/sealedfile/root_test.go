package sealedfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sallyport/internal/grant/sqlgrant/sealedfile"
)

// state is a file as it was at a moment.
type state struct {
	content []byte
	root    sealedfile.Root
}

// states returns a file after each of its commits, with moves to a new file and closings on the way.
func states(t *testing.T, path string) []state {
	t.Helper()
	f := open(t, path)
	var all []state
	keep := func() {
		content, err := os.ReadFile(path)
		must(t, err)
		all = append(all, state{content, f.Root()})
	}
	keep()
	for version := range 120 {
		for i := range 40 { // outdated content grows fast, so the file moves
			write(t, f, i, version)
		}
		must(t, f.Commit())
		if version%30 < 2 || version > 116 {
			keep()
		}
		if version%30 == 29 {
			must(t, f.Close())
			keep()
			f = open(t, path)
		}
	}
	must(t, f.Close())
	return all
}

// TestOlderCopy: a file that is put back as it was at an earlier moment, whole, does not open after the Root of a later one, and is not changed by
// that; one that has come further than the Root, as after a kill, opens.
func TestOlderCopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	all := states(t, path)
	moved := false
	for i, s := range all {
		moved = moved || i > 0 && len(s.content) < len(all[i-1].content)
		if i > 0 && s.root.Seq <= all[i-1].root.Seq {
			t.Fatalf("state %d has number %d after %d", i, s.root.Seq, all[i-1].root.Seq)
		}
		for j, known := range all {
			must(t, os.WriteFile(path, s.content, 0o600))
			f, err := sealedfile.OpenAfter(path, "shop/orders", newSealer(t), known.root)
			if older := i < j; older != errors.Is(err, sealedfile.ErrRolledBack) || !older && err != nil {
				t.Fatalf("the file of moment %d after the root of %d: %v", i, j, err)
			}
			if err == nil {
				must(t, f.Close())
			} else if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, s.content) {
				t.Fatalf("a file that is too old was changed (%v)", err)
			}
		}
	}
	if !moved {
		t.Error("no pages moved to a new file: the test tests less than it says")
	}
	must(t, os.Remove(path))
	if _, err := sealedfile.OpenAfter(path, "shop/orders", newSealer(t), all[0].root); !errors.Is(err, sealedfile.ErrRolledBack) {
		t.Errorf("a file that is gone: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is gone was made anew (%v)", err)
	}
}

// TestRootSurvivesCut: wherever a crash cuts the writing of a commit, the file opens after every Root that was told before: no kill and no power cut
// looks like an older copy.
func TestRootSurvivesCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	f := open(t, path)
	random := rand.New(rand.NewPCG(7, 8))
	known := f.Root()
	for round := range 60 {
		before, err := os.ReadFile(path)
		must(t, err)
		known = f.Root()
		for range 1 + random.IntN(30) {
			write(t, f, random.IntN(64), round)
		}
		must(t, f.Commit())
		after, err := os.ReadFile(path)
		must(t, err)
		if !bytes.HasPrefix(after, before) {
			continue // it moved, which a rename does at once
		}
		for range 12 {
			cut := after[:len(before)+random.IntN(len(after)-len(before)+1)]
			copied := filepath.Join(dir, fmt.Sprint("cut", round))
			must(t, os.WriteFile(copied, cut, 0o600))
			g, err := sealedfile.OpenAfter(copied, "shop/orders", newSealer(t), known)
			if err != nil {
				t.Fatalf("round %d, cut to %d of %d bytes: %v", round, len(cut), len(after), err)
			}
			again := g.Root()
			write(t, g, 1, -1)
			must(t, g.Commit())
			must(t, g.Close())
			if g, err = sealedfile.OpenAfter(copied, "shop/orders", newSealer(t), again); err != nil {
				t.Fatalf("round %d, opened once more: %v", round, err)
			}
			must(t, g.Close())
			must(t, os.Remove(copied))
		}
	}
	must(t, f.Close())
}

// TestOutrun: once an older file goes on, on purpose, what was newer than it is the older one.
func TestOutrun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	f := open(t, path)
	write(t, f, 0, 1)
	must(t, f.Commit())
	must(t, f.Close())
	old, err := os.ReadFile(path)
	must(t, err)
	f = open(t, path)
	for version := range 50 {
		write(t, f, 0, 10+version)
		must(t, f.Commit())
	}
	known := f.Root()
	must(t, f.Close())
	newer, err := os.ReadFile(path)
	must(t, err)

	must(t, os.WriteFile(path, old, 0o600))
	f = open(t, path)
	must(t, f.Outrun(known))
	accepted := f.Root()
	must(t, f.Close())
	f, err = sealedfile.OpenAfter(path, "shop/orders", newSealer(t), accepted)
	must(t, err)
	if got, err := f.Read(0); err != nil || !bytes.Equal(got, page(0, 1)) {
		t.Errorf("Read = %.30q, %v; want what was put back", got, err)
	}
	write(t, f, 0, 2)
	must(t, f.Commit())
	must(t, f.Close())
	if accepted.Seq <= known.Seq {
		t.Errorf("accepted as %d, and %d was known", accepted.Seq, known.Seq)
	}
	must(t, os.WriteFile(path, newer, 0o600))
	if _, err := sealedfile.OpenAfter(path, "shop/orders", newSealer(t), accepted); !errors.Is(err, sealedfile.ErrRolledBack) {
		t.Errorf("the newer file after that: %v; want ErrRolledBack", err)
	}
	// Two files that went apart from one another differ, though their numbers are the same.
	must(t, os.WriteFile(path, old, 0o600))
	f = open(t, path)
	write(t, f, 0, 99)
	must(t, f.Commit())
	other := f.Root()
	must(t, f.Close())
	must(t, os.WriteFile(path, newer, 0o600))
	if _, err := sealedfile.OpenAfter(path, "shop/orders", newSealer(t), other); !errors.Is(err, sealedfile.ErrRolledBack) {
		t.Errorf("another file with the same number: %v; want ErrRolledBack", err)
	}
}
