package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sallyport/internal/problem"
)

// Engine is the embedded store. It is safe for concurrent use.
type Engine struct {
	dir      string
	minFree  int64
	patience time.Duration // writeLimit; tests of other things wait longer on a busy machine
	log      *slog.Logger
	lock     *os.File

	mu      sync.Mutex
	link    *link         // nil while the server is down
	up      chan struct{} // closed when link is set; a new one while it is not
	frozen  bool          // a stream refuses writes until the server is restarted
	closed  bool
	buckets map[string]*bucketIndex

	reading chan struct{} // holds a value for each read under way
	suspect chan struct{} // a write stalled; capacity 1
	done    chan struct{} // closed by Close
	ended   sync.WaitGroup
}

const (
	// spaceTick is how often a frozen engine looks whether there is space again.
	spaceTick = 50 * time.Millisecond
	// restartPause is the least time between two restarts: after one that did not help, something
	// else than a full disk is wrong.
	restartPause = 2 * time.Second
)

// Open starts the engine: it recovers what Dir holds. A supervisor goroutine that restarts a frozen
// server ends with Close. The problems are store.in_use, store.unusable and, on the first start, store.full.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = DefaultMinFree
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		dir: cfg.Dir, minFree: cfg.MinFree, log: cfg.Logger, lock: lock, patience: writeLimit,
		up: make(chan struct{}), buckets: map[string]*bucketIndex{},
		reading: make(chan struct{}, maxReads), suspect: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l, err := start(e.dir, e.log, e.raise)
	if err != nil {
		return nil, errors.Join(unusable(cfg.Dir, err), unlockDir(lock))
	}
	e.setLink(l)
	e.ended.Go(e.supervise)
	if err := e.openState(ctx); err != nil {
		if !isOwn(err) {
			err = unusable(cfg.Dir, err)
		}
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Close stops the engine and returns when everything is on disk and its goroutine has ended.
// Operations under way fail with ErrClosed or ErrStalled. It is idempotent.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	close(e.done)
	e.ended.Wait()
	if l := e.takeLink(); l != nil {
		l.stop()
	}
	return unlockDir(e.lock)
}

// Health returns nil when appends are accepted, else ErrStorageFull, ErrStalled or ErrClosed.
func (e *Engine) Health() error {
	e.mu.Lock()
	closed, stalled := e.closed, e.frozen || e.link == nil
	e.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if err := e.space(e.minFree); err != nil {
		return err
	}
	if stalled {
		return ErrStalled
	}
	return nil
}

// Free returns how many bytes of the file system can still be written, the reserve included.
func (e *Engine) Free() (int64, error) { return freeBytes(e.dir) }

// Room returns ErrStorageFull when free space is below the reserve. It is for those who keep files beside the Engine's.
func (e *Engine) Room() error { return e.space(e.minFree) }

// space returns ErrStorageFull when less than reserve is free. It costs a microsecond.
func (e *Engine) space(reserve int64) error {
	free, err := freeBytes(e.dir)
	if err != nil {
		return stalled(err)
	}
	if free < reserve {
		return ErrStorageFull
	}
	return nil
}

// stalled returns ErrStalled with a cause for the log.
func stalled(cause error) error { return fmt.Errorf("%w: %w", ErrStalled, cause) }

// await returns the link to the running server. It waits while the server is being restarted.
func (e *Engine) await(ctx context.Context) (*link, error) {
	for {
		e.mu.Lock()
		l, up, closed := e.link, e.up, e.closed
		e.mu.Unlock()
		switch {
		case closed:
			return nil, ErrClosed
		case l != nil:
			return l, nil
		}
		select {
		case <-up:
		case <-e.done:
		case <-ctx.Done():
			return nil, stalled(context.Cause(ctx))
		}
	}
}

func (e *Engine) setLink(l *link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.link, e.frozen = l, false
	close(e.up)
}

// takeLink takes the link away from everybody.
func (e *Engine) takeLink() *link {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.link
	if l != nil {
		e.link, e.up = nil, make(chan struct{})
	}
	return l
}

// do runs op with the running server, again when the server was restarted meanwhile: op MUST be
// harmless to repeat. Without a deadline of its own, ctx gets controlLimit.
func (e *Engine) do(ctx context.Context, op func(ctx context.Context, l *link) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, controlLimit)
		defer cancel()
	}
	for {
		l, err := e.await(ctx)
		if err != nil {
			return err
		}
		err = op(ctx, l)
		if err == nil || !l.conn.IsClosed() {
			return e.translate(err)
		}
		if ctx.Err() != nil {
			return stalled(err)
		}
		if err := e.awaitOther(ctx, l); err != nil {
			return err
		}
	}
}

// read is do for an operation whose answer may be large: only so many are under way at a time.
func (e *Engine) read(ctx context.Context, op func(ctx context.Context, l *link) error) error {
	select {
	case e.reading <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-e.reading }()
	return e.do(ctx, op)
}

// awaitOther waits for a closed link to be taken away; if the connection ended by itself, it makes the
// supervisor do that.
func (e *Engine) awaitOther(ctx context.Context, old *link) error {
	tick := time.NewTicker(spaceTick)
	defer tick.Stop()
	for {
		e.mu.Lock()
		same, closed := e.link == old, e.closed
		e.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case !same:
			return nil
		}
		e.raise()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return stalled(context.Cause(ctx))
		}
	}
}

// translate turns what the NATS client says into the errors of this package.
func (e *Engine) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case isOwn(err):
		return err
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, jetstream.ErrNoStreamResponse):
		e.raise()
		if full := e.space(e.minFree); full != nil {
			return full
		}
		return stalled(err)
	}
	return err
}

func isOwn(err error) bool {
	if _, ok := errors.AsType[*problem.Error](err); ok {
		return true
	}
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) || errors.Is(err, ErrConflict) || errors.Is(err, ErrTooLarge)
}

// raise makes the supervisor look at the server.
func (e *Engine) raise() {
	select {
	case e.suspect <- struct{}{}:
	default: // it is about to look
	}
}

// supervise looks at the server whenever an operation stalled or the server reported an error, and
// restarts it when it is frozen.
func (e *Engine) supervise() {
	var restarted time.Time
	for {
		select {
		case <-e.done:
			return
		case <-e.suspect:
		}
		for e.isFrozen() {
			if !e.awaitSpace() || !e.pause(time.Until(restarted.Add(restartPause))) {
				return
			}
			e.restart()
			restarted = time.Now()
		}
	}
}

// isFrozen says whether the server must be restarted before anything can be written.
func (e *Engine) isFrozen() bool {
	e.mu.Lock()
	l, known := e.link, e.frozen
	e.mu.Unlock()
	if l == nil {
		return true
	}
	cause := l.frozen()
	if cause == nil {
		return false
	}
	e.mu.Lock()
	e.frozen = true
	e.mu.Unlock()
	if !known {
		e.log.LogAttrs(context.Background(), slog.LevelError, "a write failed; the store restarts when there is space", slog.Any("cause", cause))
	}
	return true
}

// awaitSpace returns true when the reserve is free and a file can be written, false when the engine is
// closed meanwhile. Until then the frozen server goes on serving reads.
func (e *Engine) awaitSpace() bool {
	for e.space(e.minFree) != nil || tryWrite(e.dir) != nil {
		if !e.pause(spaceTick) {
			return false
		}
	}
	return true
}

// pause returns false when the engine is closed meanwhile.
func (e *Engine) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-e.done:
		return false
	case <-timer.C:
		return true
	}
}

// restart replaces the embedded server by a new one on the same files.
func (e *Engine) restart() {
	began := time.Now()
	if l := e.takeLink(); l != nil {
		l.stop()
	}
	l, err := start(e.dir, e.log, e.raise)
	if err != nil {
		e.log.LogAttrs(context.Background(), slog.LevelError, "the store could not be restarted", slog.Any("cause", err))
		return
	}
	e.setLink(l)
	e.log.LogAttrs(context.Background(), slog.LevelInfo, "the store was restarted", slog.Duration("took", time.Since(began)))
}
