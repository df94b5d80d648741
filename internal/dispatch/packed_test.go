package dispatch_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/dispatch"
	"sallyport/internal/ident"
)

// backlog pauses a subscription, has events wait for it of which some fail, and resumes it.
func backlog(t *testing.T, w *world, batches, size int) []ident.Position {
	t.Helper()
	pause := func(paused bool) {
		t.Helper()
		if _, err := w.deployer.SetPaused(t.Context(), "default", "a", paused); err != nil {
			t.Fatal(err)
		}
		w.d.Changed()
	}
	pause(true)
	var all []ident.Position
	for i := range batches {
		data := slices.Repeat([]string{`{}`}, size)
		data[i%size] = `{"a":{"fails":1}}`
		data[(i+1)%size] = `{"a":{"fails":-1,"final":true}}`
		all = append(all, w.accept(data...)...)
	}
	time.Sleep(time.Minute)
	w.wantBalance(0, 0, int64(batches*size))
	pause(false)
	time.Sleep(time.Minute)
	return all
}

// packedEntries are those of the journal that tell of many deliveries, by kind.
func (w *world) packedEntries() map[byte][][]byte {
	out := map[byte][][]byte{}
	w.set(func() {
		for _, recs := range w.journal {
			for _, rec := range recs {
				if strings.IndexByte(dispatch.PackedKinds, rec[0]) >= 0 {
					out[rec[0]] = append(out[rec[0]], rec)
				}
			}
		}
	})
	return out
}

// A backlog takes few entries of the journal, each delivery of it is told once, and its way is known after a restart.
func TestBacklogIsPacked(t *testing.T) {
	t.Parallel()
	const batches, size = 30, 60
	inWorld(t, jobs, func(t *testing.T, w *world) {
		all := backlog(t, w, batches, size)
		w.wantBalance(batches*(size-1), batches, 0)
		entries := w.packedEntries()
		for _, kind := range []byte(dispatch.PackedKinds) {
			told := map[ident.Position]int{}
			attempts := 0
			for _, e := range entries[kind] {
				positions, n, err := dispatch.ParsePacked(e, "a")
				if err != nil {
					t.Fatalf("ParsePacked(%q) failed: %v", e, err)
				}
				attempts += n
				for _, pos := range positions {
					told[pos]++
				}
			}
			want, wantAttempts := batches*size, 0
			if kind == dispatch.PackedKinds[1] { // done at the first attempt
				want, wantAttempts = batches*(size-2), batches*(size-2)
			}
			if len(told) != want || attempts != wantAttempts {
				t.Errorf("entries of kind %q tell of %d deliveries and %d attempts; want %d and %d", kind, len(told), attempts, want, wantAttempts)
			}
			for pos, n := range told {
				if n != 1 {
					t.Errorf("entries of kind %q tell of the delivery at %s %d times", kind, pos, n)
				}
			}
			if len(entries[kind]) > want/4 {
				t.Errorf("%d deliveries took %d entries of kind %q; want many in one", want, len(entries[kind]), kind)
			}
		}
		before := w.way(all[2])
		if d := cmp.Diff([]string{"done", "a fa done: 1", "b fb done: 1"}, before); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
		w.restart()
		if d := cmp.Diff(before, w.way(all[2])); d != "" {
			t.Errorf("Way() after a restart (-before +after):\n%s", d)
		}
	})
}

// Whatever part of the journal was written before a crash, no event is lost, and none counts twice.
func TestBacklogFromEveryPrefix(t *testing.T) {
	t.Parallel()
	const batches, size = 6, 10
	inWorld(t, jobs, func(t *testing.T, w *world) {
		backlog(t, w, batches, size)
		w.crash()
		var whole [][][]byte
		letters := map[string][]byte{}
		w.set(func() {
			whole = w.journal
			for k, v := range w.buckets["letters"] {
				letters[k] = v
			}
		})
		entries := 0
		for _, recs := range whole {
			entries += len(recs)
		}
		for n := range entries + 1 {
			var part [][][]byte
			left := n
			for _, recs := range whole {
				if left <= 0 {
					break
				}
				part = append(part, recs[:min(left, len(recs))])
				left -= len(recs)
			}
			w.set(func() {
				w.journal = part
				clear(w.buckets["snapshots"])
				clear(w.buckets["letters"])
				for k, v := range letters {
					w.buckets["letters"][k] = v
				}
				clear(w.attempts)
			})
			w.start()
			time.Sleep(time.Minute)
			w.wantBalance(batches*(size-1), batches, 0)
			w.crash()
		}
		w.set(func() { w.journal = whole; clear(w.buckets["snapshots"]) })
		w.start()
	})
}

func FuzzParsePacked(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("p\x00\x01a\x02fa\x80\x10\x02"))
	f.Add([]byte("s\x00\x01a\x02fa\x00\x80\x10\x02\x04\x01\x00"))
	f.Fuzz(func(t *testing.T, entry []byte) {
		positions, attempts, _ := dispatch.ParsePacked(entry, "a")
		if len(positions) > len(entry) || attempts > len(entry) {
			t.Errorf("an entry of %d bytes tells of %d deliveries and %d attempts", len(entry), len(positions), attempts)
		}
	})
}
