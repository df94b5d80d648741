package wall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/cell/wall/confine"
	"sallyport/internal/problem"
)

const (
	// helloWait is how long a worker may take to start: it tries out the machine first.
	helloWait = 60 * time.Second
	// endWait is how long a worker may take to end once its socket is closed.
	endWait = 2 * time.Second
	// A worker that ends within shortLife of its start is followed by the next only after a pause, which
	// doubles each time.
	shortLife = 10 * time.Second
	// idleWait is how long a worker that is not always needed is kept.
	idleWait                = time.Minute
	firstPause, longestWait = 100 * time.Millisecond, 30 * time.Second
)

// errIdle is why a worker ended that was not needed.
var errIdle = errors.New("it was not needed")

var errClosed = problem.New(problem.Unavailable, "cell.closed", "the function engine is closed")

// seat is the place of a worker: one at a time, followed by another when it ends.
type seat struct {
	name  string
	eager bool // another is started at once, not when it is needed
	start func() (*process, error)
	code  *compiler // nil when workers compile for themselves
	log   *slog.Logger
	grace time.Duration
	// memory is how much a worker may hold, in bytes; 0 is without bound.
	memory int64
	life   context.Context
	// settled, unless it is nil, is called in the background with each worker that is ready.
	settled func(*link)
	// turn is held by whoever starts a worker.
	turn       chan struct{}
	background sync.WaitGroup
	restarts   atomic.Int64

	mu     sync.Mutex
	link   *link
	pid    int
	hello  hello
	walls  []confine.Wall
	least  []confine.Wall // that every worker is to have
	deaths int            // in a row, each soon after its start
	closed bool
	users  int
	idle   *time.Timer // ends the worker; nil while it was never used
}

func newSeat(life context.Context, name string, eager bool, start func() (*process, error), code *compiler, cfg Config) *seat {
	return &seat{name: name, eager: eager, start: start, code: code, log: cfg.Logger.With("worker", name), grace: cfg.Grace, memory: cfg.Memory, life: life, turn: make(chan struct{}, 1)}
}

// with calls do with a worker that lives. When the worker was gone before do could ask it anything, it is
// called again with the next.
func (s *seat) with(ctx context.Context, do func(*link) error) error {
	for {
		l, err := s.get(ctx)
		if err != nil {
			return err
		}
		if err := do(l); !errors.Is(err, errUnsent) {
			return err
		}
	}
}

// current returns the worker there is, or nil.
func (s *seat) current() (*link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.link != nil && s.link.cause() == nil {
		return s.link, nil
	}
	return nil, nil
}

// get returns a worker, waiting for one if need be, as long as ctx lasts: a machine that cannot start
// one is to be mended, and no event is to be lost because of it.
func (s *seat) get(ctx context.Context) (*link, error) {
	for {
		if l, err := s.current(); l != nil || err != nil {
			return l, err
		}
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, canceled(ctx)
		case <-s.life.Done():
			return nil, errClosed
		}
		err := s.replace(ctx)
		<-s.turn
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, canceled(ctx)
		case s.life.Err() != nil:
			return nil, errClosed
		default:
			s.log.ErrorContext(ctx, "start a worker; it is tried again", "error", err)
		}
	}
}

// replace starts a worker unless there is one. The turn is held.
func (s *seat) replace(ctx context.Context) error {
	if l, err := s.current(); l != nil || err != nil {
		return err
	}
	s.mu.Lock()
	pause := time.Duration(0)
	if s.deaths > 0 {
		pause = min(firstPause<<min(s.deaths-1, 16), longestWait)
	}
	s.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.life.Done():
		return errClosed
	}
	return s.open(ctx)
}

// open starts a worker and waits until it has said what it is.
func (s *seat) open(ctx context.Context) error {
	p, err := s.start()
	if err != nil {
		s.mu.Lock()
		s.deaths++
		s.mu.Unlock()
		return err
	}
	stop := context.AfterFunc(ctx, p.kill)
	patience := time.AfterFunc(helloWait, p.kill)
	from := newReader(p.conn, readBuffer)
	h, err := readHello(from)
	patience.Stop()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	walls := append(h.Walls, apart(confine.Namespaces(), h.Namespaces))
	if err == nil {
		err = s.weaker(walls)
	}
	if err != nil {
		s.mu.Lock()
		s.deaths++
		s.mu.Unlock()
		p.kill()
		<-p.exited
		p.talk.Wait()
		return errors.Join(fmt.Errorf("a worker ended before it was ready (%s): %w", p.how, err), p.conn.Close())
	}
	s.settle(p, h, walls, from)
	return nil
}

// insist has the seat take only workers around which all of these walls stand that do now. The operator knows of
// the first worker's walls; one that is started later may get fewer of the kernel.
func (s *seat) insist(walls []confine.Wall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.least = walls
}

// weaker says which wall is missing that the seat insists on.
func (s *seat) weaker(walls []confine.Wall) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.least {
		if w.Stands && !slices.ContainsFunc(walls, func(o confine.Wall) bool { return o.Name == w.Name && o.Stands }) {
			return fmt.Errorf("it is without the wall %q, which the first worker had", w.Name)
		}
	}
	return nil
}

// settle makes p the seat's worker.
func (s *seat) settle(p *process, h hello, walls []confine.Wall, from reader) {
	l := newLink(p.conn, p.lanes, s.grace, p.kill)
	if h.Code {
		l.code = s.code
	}
	l.pins, l.memory, l.resident = s.eager, s.memory, p.resident
	s.mu.Lock()
	s.link, s.pid, s.hello = l, p.pid, h
	s.walls = walls
	closed := s.closed
	s.mu.Unlock()
	if closed { // close came while the worker started, and did not see it
		l.fail(errClosed)
	}
	s.log.Debug("a worker is ready", "pid", p.pid)
	s.background.Go(func() {
		s.ended(p, l, l.run(from))
	})
	if s.settled != nil && !closed {
		s.background.Go(func() { s.settled(l) })
	}
}

// ended notes the end of a worker, and sees to the next. Somebody may have seen to that already: then
// the seat has another link by now.
func (s *seat) ended(p *process, l *link, cause error) {
	select {
	case <-p.exited:
	case <-time.After(endWait):
		p.kill()
		<-p.exited
	}
	p.talk.Wait()
	s.mu.Lock()
	if s.link == l {
		s.link, s.pid = nil, 0
	}
	if time.Since(l.began) < shortLife {
		s.deaths++
	} else {
		s.deaths = 0
	}
	closed := s.closed
	s.mu.Unlock()
	if closed || errors.Is(cause, errIdle) {
		return
	}
	s.restarts.Add(1)
	s.log.Error("a worker process was lost; what ran in it runs again", "pid", p.pid, "how", p.how, "error", cause)
	if s.eager {
		_, _ = s.get(s.life) // it logs why not
	}
}

// take notes that the seat of a worker that is not always needed is in use, and rest that it is no longer:
// when nobody uses it, the worker is ended unless it is needed again soon.
func (s *seat) take() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	if s.idle != nil {
		s.idle.Stop()
	}
}

func (s *seat) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	switch {
	case s.closed || s.users > 0:
	case s.idle == nil:
		s.idle = time.AfterFunc(idleWait, s.retire)
	default:
		s.idle.Reset(idleWait)
	}
}

func (s *seat) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil && s.users == 0 {
		s.link.fail(errIdle)
	}
}

func (s *seat) drop(function uint64) {
	if l, _ := s.current(); l != nil { // a worker that is gone has forgotten it
		l.drop(function)
	}
}

func (s *seat) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{PID: s.pid, Walls: s.walls, Restarts: s.restarts.Load(), Reset: s.hello.Reset, ResetWhy: s.hello.ResetWhy}
}

// close ends the worker and waits until it has ended.
func (s *seat) close() {
	s.mu.Lock()
	s.closed = true
	l := s.link
	if s.idle != nil {
		s.idle.Stop()
	}
	s.mu.Unlock()
	if l != nil {
		l.fail(errClosed)
	}
	s.background.Wait()
}
