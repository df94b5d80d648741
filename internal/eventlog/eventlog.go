// Package eventlog keeps the accepted events of a namespace: durable, sealed, in order, readable by
// position, by id, by type and by time.
//
// Appends are committed in groups. Whatever is waiting when the previous write has finished becomes
// the next batch: one message of one stream, one fsync, one acknowledgement to every producer in
// it. There is no timer, so a lone producer waits for nothing but the disk. Each record is sealed
// by itself, in the goroutine that appends it; a batch carries a seal over its header and the
// records' tags, bound to the stream and to the sequence it is written at, so that a batch or a
// record that was changed, moved, swapped or dropped inside a batch does not open.
//
// The index files beside the log (who wrote what when, for the duplicate window, Find and List) are
// derived: sealed, and rebuilt from the log when they are missing or do not open.
//
// Invariants: an append is all or nothing; nothing is acknowledged before it is on disk; positions
// rise; a batch is never trimmed while the floor says that a delivery of it is not settled.
//
// It does not authenticate, validate or deliver. Callers: ingress (Append), dispatch (Next, At,
// SetTrimFloor, Journal), httpapi (Find, List, At), server (Open, Close).
package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sallyport/internal/event"
	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// Limits of the log. A batch closes at the first of the two; a single append may be larger than
// targetBatchBytes and is then a batch of its own.
const (
	targetBatchBytes = 1 << 20  // the size beyond which packing no longer pays (DESIGN.md 3.1)
	maxAppendBytes   = 7 << 20  // fits one message of the store with its header
	maxQueuedBytes   = 64 << 20 // waiting appends; past it producers are told to come again
	tailBytes        = 16 << 20 // recent events kept in memory for dispatch
	overloadPause    = time.Second
)

// ErrTrimmed is returned for a position whose batch retention has removed.
var ErrTrimmed = errors.New("batch is no longer in the event log")

// Config says how a log keeps its events.
type Config struct {
	// DuplicateWindow is how long a (source, id) is remembered after its acceptance.
	DuplicateWindow time.Duration
	// DuplicateEntries bounds how many are remembered, so memory is bounded too (about 60 bytes each).
	DuplicateEntries int
	// RetainAge and RetainBytes bound what is kept; zero keeps everything.
	RetainAge   time.Duration
	RetainBytes int64
	// IndexDir holds the derived index files; it is created when missing.
	IndexDir string
	// Logger gets what an operator should know; nil discards.
	Logger *slog.Logger
	// Committed, when set, is told the size of each batch after its commit.
	Committed func(events, bytes int, took time.Duration)
}

// DefaultConfig returns the defaults; IndexDir is still to be set.
func DefaultConfig() Config {
	return Config{DuplicateWindow: 24 * time.Hour, DuplicateEntries: 1 << 20}
}

// Validate reports every fault of c.
func (c *Config) Validate() error {
	var errs []error
	if c.DuplicateWindow <= 0 {
		errs = append(errs, errors.New("duplicate window must be positive"))
	}
	if c.DuplicateEntries < 1 {
		errs = append(errs, errors.New("duplicate entries must be at least 1"))
	}
	if c.RetainAge < 0 || c.RetainBytes < 0 {
		errs = append(errs, errors.New("retention must not be negative"))
	}
	if c.IndexDir == "" {
		errs = append(errs, errors.New("index directory must be set"))
	}
	return errors.Join(errs...)
}

// Appended says where an appended record is. Duplicate means that its (source, id) was accepted
// before: nothing was stored, and Position is that of the first acceptance.
type Appended struct {
	Position  ident.Position
	Duplicate bool
}

// Log is the event log of one namespace. Its methods may be called concurrently.
type Log struct {
	ns     ident.Namespace
	cfg    Config
	log    *slog.Logger
	stream *store.Stream
	sealer *keyring.Sealer
	book   codebook
	packer *packer
	dups   *duplicates
	index  *index
	tail   *tail

	mu       sync.Mutex
	counted  uint64 // events ever accepted
	floor    uint64 // batches from here on must stay; 0 until dispatch has said
	stop     context.CancelFunc
	written  sync.WaitGroup // the writer
	wg       sync.WaitGroup // everything else in the background
	closeErr error
	closing  sync.Once
}

// Open opens the log of ns, creating it when it is new, and recovers its index. Close it.
func Open(ctx context.Context, eng *store.Engine, keys *keyring.Keyring, ns ident.Namespace, cfg Config) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open event log %q: %w", ns, err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	sealer, err := keys.Sealer(ctx, ns, "events")
	if err != nil {
		return nil, fmt.Errorf("open event log %q: %w", ns, err)
	}
	stream, err := eng.Stream(ctx, store.StreamConfig{Name: "events-" + string(ns)})
	if err != nil {
		return nil, fmt.Errorf("open event log %q: %w", ns, err)
	}
	l := &Log{
		ns: ns, cfg: cfg, log: cfg.Logger.With("namespace", string(ns)),
		stream: stream, sealer: sealer, book: newCodebook(string(ns), "events", sealer),
		dups: newDuplicates(cfg.DuplicateWindow, cfg.DuplicateEntries),
		tail: newTail(tailBytes),
	}
	l.index = newIndex(cfg.IndexDir, string(ns), sealer, l.log)
	state, err := l.recover(ctx)
	if err != nil {
		return nil, fmt.Errorf("recover event log %q: %w", ns, err)
	}
	l.tail.start(state.Last)
	l.packer = newPacker(stream, l.book, state.Last, l.counted, l.log)
	l.packer.admit, l.packer.committed, l.packer.observe = l.admit, l.committed, cfg.Committed
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.written.Go(func() { l.packer.run(run) })
	l.wg.Go(func() { l.retain(run) })
	return l, nil
}

// Close commits what is waiting, writes the index and releases the log. Appends that come later
// fail; blocked calls of Next return. Close is idempotent.
func (l *Log) Close() error {
	l.closing.Do(func() {
		l.packer.close()
		l.tail.close()
		l.written.Wait()
		l.stop()
		l.wg.Wait()
		l.closeErr = l.index.flush(l.tail.end())
	})
	return l.closeErr
}

// Append stores recs, in order and all or none, and returns after they are on disk. A record whose
// (source, id) is in the duplicate window with the same content is not stored again; one with
// other content fails the whole call with eventlog.conflict. The log takes recs over: it changes them and
// keeps them, so the caller may read their attributes and MUST NOT change them; their data is copied.
//
// When ctx ends first, the outcome is open: the records may have been stored, and appending them
// again is answered as a duplicate.
func (l *Log) Append(ctx context.Context, recs []event.Record) ([]Appended, error) {
	switch {
	case len(recs) == 0:
		return nil, nil
	case len(recs) > ident.MaxBatchEvents:
		return nil, problem.New(problem.TooLarge, "eventlog.too_many_events",
			"%d events in one request, at most %d can be stored together", len(recs), ident.MaxBatchEvents)
	}
	r, err := l.seal(recs)
	if err != nil {
		return nil, err
	}
	if err := l.packer.submit(ctx, r); err != nil {
		return nil, l.explain(err)
	}
	out := make([]Appended, len(r.items))
	for i := range r.items {
		out[i] = r.items[i].result
	}
	l.packer.release(r)
	return out, nil
}

// seal encodes and seals recs into a request. The plain text has a buffer of its own, because the
// tail keeps it for dispatch.
func (l *Log) seal(recs []event.Record) (*request, error) {
	size := 0
	for i := range recs {
		size += len(recs[i].Data) + recordOverhead
	}
	if size > maxAppendBytes {
		return nil, problem.New(problem.TooLarge, "eventlog.append_too_large",
			"the events of one request are %d bytes together, at most %d can be stored at once", size, maxAppendBytes)
	}
	r := l.packer.request()
	r.sealed = slices.Grow(r.sealed, size)
	r.items = slices.Grow(r.items, len(recs))
	plain := make([]byte, 0, size)
	for i := range recs {
		start := len(plain)
		plain = event.AppendRecord(plain, &recs[i])
		text := plain[start:len(plain):len(plain)]
		if err := l.book.sealFrame(r, text); err != nil {
			return nil, fmt.Errorf("seal event: %w", err)
		}
		r.items = append(r.items, item{entry: l.describe(&recs[i])})
		recs[i].Data = text[len(text)-len(recs[i].Data):] // the data ends a record's stored form
	}
	r.recs = recs
	return r, nil
}

// admit resolves the duplicates of r; the packer calls it for one request after the other, so that
// it sees the effect of all earlier ones.
func (l *Log) admit(r *request, pending *pendingKeys) error {
	for i := range r.items {
		it := &r.items[i]
		if prior := l.dups.get(it.key); prior != nil {
			if prior.digest != it.digest {
				pending.remove(r)
				return conflict(i, len(r.items))
			}
			it.result = Appended{Position: prior.position, Duplicate: true}
			r.drop(i)
			continue
		}
		first, seen := pending.add(it.key, r, i)
		if !seen {
			continue
		}
		if first.digest() != it.digest {
			pending.remove(r)
			return conflict(i, len(r.items))
		}
		it.first, it.result.Duplicate = first, true
		r.drop(i)
	}
	return nil
}

func conflict(i, n int) error {
	p := problem.New(problem.Conflict, "eventlog.conflict",
		"an event with this source and id was accepted before with other content").
		WithHint("give every event an id of its own; resend an event only as it was")
	if n > 1 {
		p = p.WithFaults(problem.Fault{Pointer: fmt.Sprintf("/%d", i), Detail: "same source and id as an earlier event, other content"})
	}
	return p
}

// committed is told of each batch on disk, in order, before its producers are.
func (l *Log) committed(seq, total uint64, reqs []*request) {
	now := time.Now()
	recs, size := l.number(seq, reqs)
	for _, r := range reqs {
		for i := range r.items {
			it := &r.items[i]
			if !r.frames[i].dropped {
				l.dups.put(it.key, known{position: it.position, digest: it.digest}, now)
			} else if it.first.r != nil {
				it.result.Position = it.first.r.items[it.first.i].result.Position
			}
		}
	}
	l.index.add(reqs)
	l.mu.Lock()
	l.counted = total
	l.mu.Unlock()
	if len(recs) > 0 {
		l.tail.push(seq, recs, size)
	}
	l.index.offer()
}

// number gives the records of a batch their positions and returns them, and about how much memory they
// take.
func (l *Log) number(seq uint64, reqs []*request) (recs []event.Record, size int) {
	most := 0
	for _, r := range reqs {
		most += len(r.recs)
	}
	recs = make([]event.Record, 0, most)
	for _, r := range reqs {
		for i := range r.recs {
			if r.frames[i].dropped {
				continue
			}
			position := ident.NewPosition(seq, len(recs))
			r.items[i].position, r.items[i].result.Position = position, position
			recs = append(recs, r.recs[i])
			recs[len(recs)-1].Position = position
			size += len(r.recs[i].Data) + recordOverhead
		}
	}
	return recs, size
}

// Stats is a moment's view of a log.
type Stats struct {
	Accepted    uint64 // events ever accepted
	First, Last uint64 // batches kept; Last is 0 in an empty log
	Bytes       int64
}

// Stats returns the log's counters.
func (l *Log) Stats(ctx context.Context) (Stats, error) {
	st, err := l.stream.State(ctx)
	if err != nil {
		return Stats{}, l.explain(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Accepted: l.counted, First: st.First, Last: st.Last, Bytes: st.Bytes}, nil
}

// End returns the position before which every accepted event stands.
func (l *Log) End() ident.Position { return ident.NewPosition(l.tail.end()+1, 0) }

// explain turns an error of the store into what a producer should read.
func (l *Log) explain(err error) error { return explain(err) }

func explain(err error) error {
	if _, ok := errors.AsType[*problem.Error](err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Timeout, "eventlog.outcome_open",
			"the request ended before the event was known to be stored").
			WithHint("send the same event again: it is stored once").WithCause(err)
	case errors.Is(err, store.ErrStorageFull):
		return problem.New(problem.StorageFull, "eventlog.storage_full",
			"the server's disk is full, the event was not stored").
			WithHint("free space in the data directory; the server resumes by itself").
			WithRetryAfter(5 * time.Second).WithCause(err)
	case errors.Is(err, errClosed):
		return problem.New(problem.Unavailable, "eventlog.closed", "the server is stopping, the event was not stored").
			WithRetryAfter(overloadPause).WithCause(err)
	}
	return problem.New(problem.Unavailable, "eventlog.unavailable", "the event log cannot be written or read at the moment").
		WithHint("see `sallyport status`; send the same event again: it is stored once").
		WithRetryAfter(overloadPause).WithCause(err)
}

// Accepted returns how many events were ever accepted.
func (l *Log) Accepted() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counted
}
