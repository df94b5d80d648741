package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"sallyport/internal/event"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

var errClosed = errors.New("event log is closed")

// stream is what the packer needs of a store.Stream.
type stream interface {
	Publish(ctx context.Context, payload []byte, expectLast uint64) (uint64, error)
	Get(ctx context.Context, seq uint64) ([]byte, time.Time, error)
	State(ctx context.Context) (store.State, error)
}

// request is one append on its way to disk. The packer's writer alone touches it between submit and
// the send on done.
type request struct {
	sealed []byte
	frames []frame
	items  []item
	recs   []event.Record // for the tail, with data of its own
	seq    uint64
	done   chan error
}

// drop leaves frame i out of the batch.
func (r *request) drop(i int) { r.frames[i].dropped = true }

func (r *request) reset() {
	clear(r.items) // lets go of other requests
	r.sealed, r.frames, r.items, r.recs, r.seq = r.sealed[:0], r.frames[:0], r.items[:0], nil, 0
}

// maxPooledBytes keeps one large append from pinning its buffer in the pool.
const maxPooledBytes = 1 << 20

// packer commits appends in groups: one writer, one write at a time, and everything that is waiting
// when a write ends goes into the next one.
type packer struct {
	stream stream
	book   codebook
	log    *slog.Logger
	pool   sync.Pool
	// admit, when set, may drop frames of a request or refuse it; committed is told of each batch.
	admit     func(*request, *pendingKeys) error
	committed func(seq, total uint64, reqs []*request)
	observe   func(events, bytes int, took time.Duration)

	mu     sync.Mutex
	queue  []*request
	queued int // bytes
	closed bool
	wake   chan struct{}

	// The rest belongs to the writer.
	last, total uint64
	payload     []byte
	aad         []byte
	pending     pendingKeys
	// open is the batch whose write failed with its outcome unknown; nothing is written before
	// the stream has told what became of it.
	open *openBatch
}

type openBatch struct {
	payload []byte
	total   uint64
	reqs    []*request
}

func newPacker(s stream, book codebook, last, total uint64, log *slog.Logger) *packer {
	p := &packer{stream: s, book: book, last: last, total: total, log: log, wake: make(chan struct{}, 1)}
	p.pool.New = func() any { return &request{done: make(chan error, 1)} }
	return p
}

func (p *packer) request() *request { return p.pool.Get().(*request) }

// release returns r for reuse. Only the one who received from r.done may call it.
func (p *packer) release(r *request) {
	if cap(r.sealed) <= maxPooledBytes {
		r.reset()
		p.pool.Put(r)
	}
}

// submit queues r and waits until it is on disk or refused. When ctx ends first, r stays the
// writer's.
func (p *packer) submit(ctx context.Context, r *request) error {
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return errClosed
	case p.queued+len(r.sealed) > maxQueuedBytes:
		p.mu.Unlock()
		return problem.New(problem.Exhausted, "eventlog.overloaded", "more events are arriving than the disk takes").
			WithHint("send again after the time in Retry-After").WithRetryAfter(overloadPause)
	}
	p.queue = append(p.queue, r)
	p.queued += len(r.sealed)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close refuses new requests; run returns after those already queued are written.
func (p *packer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run writes batches until close and an empty queue, or until ctx ends.
func (p *packer) run(ctx context.Context) {
	for {
		// Producers that are ready to run get to submit first: their appends join this batch instead
		// of waiting for the next. When there are none, this costs nothing.
		runtime.Gosched()
		reqs, closed := p.take()
		if len(reqs) > 0 {
			p.write(ctx, reqs)
			continue
		}
		if closed {
			return
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
			p.close()
			p.refuse(errClosed)
			return
		}
	}
}

// refuse fails everything that is queued.
func (p *packer) refuse(err error) {
	p.mu.Lock()
	reqs := p.queue
	p.queue, p.queued = nil, 0
	p.mu.Unlock()
	for _, r := range reqs {
		r.done <- err
	}
}

// take removes from the queue what fits one batch.
func (p *packer) take() (reqs []*request, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	size, frames, n := 0, 0, 0
	for _, r := range p.queue {
		if n > 0 && (size+len(r.sealed) > targetBatchBytes || frames+len(r.frames) > ident.MaxBatchEvents) {
			break
		}
		size += len(r.sealed)
		frames += len(r.frames)
		n++
	}
	reqs = append(reqs, p.queue[:n]...)
	rest := copy(p.queue, p.queue[n:])
	clear(p.queue[rest:])
	p.queue = p.queue[:rest]
	p.queued -= size
	return reqs, p.closed
}

// write commits reqs as one batch and tells each how it went.
func (p *packer) write(ctx context.Context, reqs []*request) {
	if err := p.settleOpen(ctx); err != nil {
		for _, r := range reqs {
			r.done <- err
		}
		return
	}
	started := time.Now()
	reqs, events := p.admitAll(reqs)
	if len(reqs) == 0 {
		return
	}
	total := p.total + uint64(events)
	var err error
	if events > 0 {
		err = p.publish(ctx, total, reqs)
	}
	if err == nil {
		p.commit(total, reqs)
		if p.observe != nil && events > 0 {
			p.observe(events, len(p.payload), time.Since(started))
		}
	}
	for _, r := range reqs {
		r.done <- err
	}
}

// admitAll asks admit about each request and returns those to write, with their number of events.
func (p *packer) admitAll(reqs []*request) (kept []*request, events int) {
	p.pending.clear()
	kept = reqs[:0]
	for _, r := range reqs {
		if p.admit != nil {
			if err := p.admit(r, &p.pending); err != nil {
				r.done <- err
				continue
			}
		}
		for _, f := range r.frames {
			if !f.dropped {
				events++
			}
		}
		kept = append(kept, r)
	}
	return kept, events
}

func (p *packer) commit(total uint64, reqs []*request) {
	p.total = total
	for _, r := range reqs {
		r.seq = p.last
	}
	if p.committed != nil {
		p.committed(p.last, total, reqs)
	}
}

// publish writes the batch at the next sequence. The stream refuses it when anything else was
// written there, so a write that failed may be looked at and repeated without ever storing twice.
func (p *packer) publish(ctx context.Context, total uint64, reqs []*request) error {
	payload, aad, err := p.book.appendBatch(p.payload[:0], p.aad, p.last+1, total, reqs)
	if err != nil {
		return fmt.Errorf("seal batch: %w", err)
	}
	p.payload, p.aad = payload, aad
	seq, err := p.stream.Publish(ctx, payload, p.last)
	if err == nil {
		if seq != p.last+1 {
			return fmt.Errorf("BUG: batch was written at %d, expected %d", seq, p.last+1)
		}
		p.last = seq
		return nil
	}
	p.open = &openBatch{payload: payload, total: total, reqs: reqs}
	written, lookErr := p.lookUp(ctx)
	switch {
	case lookErr != nil:
		p.payload = nil // the open batch keeps it
		return errors.Join(err, lookErr)
	case written:
		return nil
	}
	return err
}

// settleOpen finds out what became of an earlier batch whose outcome is open. Its producers were
// told that they do not know; if it is on disk after all, it is part of the log.
func (p *packer) settleOpen(ctx context.Context) error {
	open := p.open
	if open == nil {
		return nil
	}
	written, err := p.lookUp(ctx)
	if err == nil && written {
		p.commit(open.total, open.reqs)
		p.log.Info("a batch whose write had failed is on disk", "batch", p.last)
	}
	return err
}

// lookUp asks the stream whether the open batch was written.
func (p *packer) lookUp(ctx context.Context) (written bool, err error) {
	st, err := p.stream.State(ctx)
	if err != nil {
		return false, err
	}
	switch st.Last {
	case p.last:
		p.open = nil
		return false, nil
	case p.last + 1:
		got, _, err := p.stream.Get(ctx, st.Last)
		if err != nil {
			return false, err
		}
		if bytes.Equal(got, p.open.payload) {
			p.last, p.open = st.Last, nil
			return true, nil
		}
	}
	return false, fmt.Errorf("the stream ends at %d with a batch that this server did not write after %d", st.Last, p.last)
}

// pendingKeys are the keys of the batch being formed.
type pendingKeys struct{ t *keyTable[ref] }

// ref names one record of a request.
type ref struct {
	r *request
	i int
}

func (f ref) digest() uint64 { return f.r.items[f.i].digest }

func (p *pendingKeys) clear() {
	if p.t == nil {
		p.t = newKeyTable[ref](0)
	}
	p.t.reset()
}

// add notes that record i of r has key k, or returns who had it first.
func (p *pendingKeys) add(k key, r *request, i int) (first ref, seen bool) {
	had := p.t.get(k)
	switch {
	case had == nil:
		p.t.add(k, ref{r, i})
	case had.r == nil: // a refused request had it
		*had = ref{r, i}
	default:
		return *had, true
	}
	return ref{}, false
}

// remove forgets the keys of a refused request.
func (p *pendingKeys) remove(r *request) {
	for i := range r.items {
		if had := p.t.get(r.items[i].key); had != nil && had.r == r {
			*had = ref{}
		}
	}
}
