package eventlog

import (
	"context"
	"sync"

	"sallyport/internal/event"
)

// Batch is one committed batch as a reader gets it.
type Batch struct {
	Seq     uint64
	Records []event.Record
}

// tail keeps the latest batches in clear in memory, so that dispatch opens no seal for an event
// that has just been accepted, and wakes readers who wait for the next one.
type tail struct {
	mu     sync.Mutex
	most   int // bytes
	bytes  int
	kept   []tailBatch // consecutive, oldest first
	last   uint64
	closed bool
	grown  chan struct{} // closed and replaced when a batch arrives
}

type tailBatch struct {
	seq   uint64
	bytes int
	recs  []event.Record
}

func newTail(most int) *tail { return &tail{most: most, grown: make(chan struct{})} }

func (t *tail) start(last uint64) { t.last = last }

func (t *tail) end() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

func (t *tail) push(seq uint64, recs []event.Record, size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, tailBatch{seq: seq, bytes: size, recs: recs})
	t.bytes += size
	drop := 0
	for t.bytes > t.most && drop < len(t.kept)-1 {
		t.bytes -= t.kept[drop].bytes
		drop++
	}
	if drop > 0 {
		n := copy(t.kept, t.kept[drop:])
		clear(t.kept[n:])
		t.kept = t.kept[:n]
	}
	t.last = seq
	close(t.grown)
	t.grown = make(chan struct{})
}

func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		close(t.grown)
	}
}

// wait blocks until the log has a batch after the given one. It returns the next
// batch when they are still in memory, else ok is false and the reader turns to the store.
func (t *tail) wait(ctx context.Context, after uint64) (b tailBatch, ok bool, err error) {
	for {
		t.mu.Lock()
		last, closed, grown := t.last, t.closed, t.grown
		if last > after && len(t.kept) > 0 && t.kept[0].seq <= after+1 {
			b = t.kept[after+1-t.kept[0].seq]
			t.mu.Unlock()
			return b, true, nil
		}
		t.mu.Unlock()
		switch {
		case closed:
			return tailBatch{}, false, errClosed
		case last > after:
			return tailBatch{}, false, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return tailBatch{}, false, ctx.Err()
		}
	}
}
