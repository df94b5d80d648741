package eventlog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport/internal/event"
	"sallyport/internal/store"
)

// plainCipher stands in for a sealer: it appends a checksum of text and additional data.
type plainCipher struct{}

func (plainCipher) Seal(dst, text, aad []byte) ([]byte, error) {
	dst = append(dst, text...)
	return append(dst, plainTag(text, aad)...), nil
}

func (plainCipher) Open(dst, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < tagSize {
		return nil, errDamaged
	}
	text := sealed[:len(sealed)-tagSize]
	if plainTag(text, aad) != string(sealed[len(text):]) {
		return nil, errDamaged
	}
	return append(dst, text...), nil
}

func plainTag(text, aad []byte) string {
	return fmt.Sprintf("%08x%08x", checksum(string(text)), checksum(string(aad)))
}

// TestStream is what a packer writes to.
type TestStream interface {
	Publish(ctx context.Context, payload []byte, expectLast uint64) (uint64, error)
	Get(ctx context.Context, seq uint64) ([]byte, time.Time, error)
	State(ctx context.Context) (store.State, error)
}

// TestPacker is a packer over a stream of the test's own.
type TestPacker struct {
	Committed []string // "seq:text"
	p         *packer
	wg        sync.WaitGroup
}

func NewTestPacker(s TestStream) *TestPacker {
	t := &TestPacker{p: newPacker(s, newCodebook("ns", "test", plainCipher{}), 0, 0, slog.New(slog.DiscardHandler))}
	t.p.committed = func(seq, _ uint64, reqs []*request) {
		for _, r := range reqs {
			t.Committed = append(t.Committed, fmt.Sprintf("%d:%s", seq, r.recs[0].Data))
		}
	}
	t.wg.Go(func() { t.p.run(context.Background()) })
	return t
}

func (t *TestPacker) Append(ctx context.Context, text string) error {
	r := t.p.request()
	if err := t.p.book.sealFrame(r, []byte(text)); err != nil {
		return err
	}
	r.items = append(r.items, item{})
	r.recs = []event.Record{{Event: event.Event{Data: []byte(text)}}}
	return t.p.submit(ctx, r)
}

// Open returns the first text of a batch.
func (t *TestPacker) Open(seq uint64, batch []byte) (string, error) {
	frames, _, err := t.p.book.openBatch(seq, batch)
	if err != nil || len(frames) == 0 {
		return "", fmt.Errorf("%d frames: %w", len(frames), err)
	}
	text, err := t.p.book.openFrame(nil, frames[0])
	return string(text), err
}

func (t *TestPacker) Close() {
	t.p.close()
	t.wg.Wait()
}

// TestTable is a keyTable of numbers; its keys are chosen freely, which nobody outside can do.
type TestTable struct{ t *keyTable[int] }

func NewTestTable(bits int) TestTable { return TestTable{newKeyTable[int](bits)} }

// Set sets the value of a key, Get returns it.
func (t TestTable) Set(hi, lo uint64, v int) {
	k := key{hi, lo}
	if had := t.t.get(k); had != nil {
		*had = v
		return
	}
	t.t.add(k, v)
}

func (t TestTable) Get(hi, lo uint64) (v int, ok bool) {
	if had := t.t.get(key{hi, lo}); had != nil {
		return *had, true
	}
	return 0, false
}

func (t TestTable) Len() int { return t.t.len() }

func (t TestTable) Reset() { t.t.reset() }

// TestWindow is a duplicate window.
type TestWindow struct{ d *duplicates }

func NewTestWindow(window time.Duration, entries int) TestWindow {
	return TestWindow{newDuplicates(window, entries)}
}

func (w TestWindow) Put(n uint64, now time.Time) {
	w.d.put(key{hi: n, lo: n}, known{digest: n}, now)
}

func (w TestWindow) Knows(n uint64) bool {
	v := w.d.get(key{hi: n, lo: n})
	return v != nil && v.digest == n
}

// TestEvent is what admission looks at: who an event says it is, and what it holds.
type TestEvent struct{ Key, Content uint64 }

// AdmitTogether has appends admitted to one batch of a log that has accepted known, and returns how many
// events of them are to be written, and the fate of each append.
func AdmitTogether(known []TestEvent, appends ...[]TestEvent) (written int, refused []bool) {
	w := NewTestWindow(time.Hour, 100)
	now := time.Unix(1_000_000, 0)
	for _, e := range known {
		w.Put(e.Key, now)
	}
	p := newPacker(nil, codebook{}, 0, 0, slog.New(slog.DiscardHandler))
	p.admit = (&Log{dups: w.d}).admit
	var reqs []*request
	for _, evs := range appends {
		r := p.request()
		for _, e := range evs {
			r.items = append(r.items, item{entry: entry{key: key{e.Key, e.Key}, digest: e.Content}})
			r.frames = append(r.frames, frame{})
		}
		reqs = append(reqs, r)
	}
	all := append([]*request(nil), reqs...)
	_, written = p.admitAll(reqs)
	for _, r := range all {
		refused = append(refused, len(r.done) > 0)
	}
	return written, refused
}
