package wall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

const (
	// loadGrace is how long a worker may compile a module.
	loadGrace  = 5 * time.Minute
	watchEvery = time.Second
)

// lostError says that the worker ended before it had answered.
type lostError struct{ cause error }

func (e *lostError) Error() string { return "the worker process was lost: " + e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }

// errUnsent says that the worker had ended before it was asked.
var errUnsent = errors.New("the worker had ended before")

// link is the server's end of one worker. Every byte that comes from there is taken for hostile.
type link struct {
	conn io.ReadWriteCloser
	out  *packer
	// grace is how long an answer may take beyond what the function may.
	grace time.Duration
	// kill ends the process at once.
	kill func()
	// code compiles modules for the worker; nil when it compiles them itself.
	code *compiler
	// scripts is held while the first script is loaded, and has a word in it once the worker has what all
	// scripts share.
	scripts chan bool
	// dead is closed once nothing is answered any more; err says why, and does not change then.
	dead  chan struct{}
	began time.Time
	// pins says that functions have their least instances in this worker.
	pins bool
	// memory is how much the worker may hold, in bytes, 0 is without bound; resident says how much it does, and may be nil.
	memory   int64
	resident func() (int64, error)

	mu        sync.Mutex
	err       error
	calls     map[uint64]*call
	functions map[uint64]*loading
	next      uint64
	lanes     []*lane
	// free and freePolled are the lanes in which nothing runs.
	free, freePolled lanes
}

// call is what a worker was asked and has not answered.
type call struct {
	id      uint64
	limits  cell.Limits
	load    bool // a function, not an invocation
	overdue time.Time
	// news tells that lines or an answer have come; it holds one word at most.
	news chan struct{}

	mu     sync.Mutex
	lines  []line
	left   int // bytes of log that may still come
	answer *frame
	// desk takes what an invocation wants of grants; nil when it has none.
	desk *desk
}

type line struct{ level, message string }

// loading is a function that was sent to the worker, once.
type loading struct {
	done chan struct{}
	loaded
	err error
}

// loaded is what a worker says of a function.
type loaded struct {
	kind     string
	resident int64
}

func newLink(conn io.ReadWriteCloser, lanes []*os.File, grace time.Duration, kill func()) *link {
	l := &link{
		conn: conn, out: newPacker(conn), grace: grace, kill: kill, dead: make(chan struct{}), began: time.Now(),
		calls: map[uint64]*call{}, functions: map[uint64]*loading{}, scripts: make(chan bool, 1),
	}
	l.scripts <- false
	for i, c := range lanes {
		ln := newLane(c, polled(i))
		l.lanes = append(l.lanes, ln)
		l.leaveLane(ln)
	}
	return l
}

// run reads what the worker says until it ends, and returns why. Everything that waits for it is told.
func (l *link) run(from reader) error {
	watched := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { l.watch(watched) })
	var err error
	for err == nil {
		var f frame
		if f, err = from.next(l.most); err == nil {
			err = l.take(f)
		}
	}
	l.fail(err)
	close(watched)
	watching.Wait()
	return l.cause()
}

// fail ends the link: the first cause counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	close(l.dead)
	l.kill()
	_ = l.conn.Close() // the process is gone
	for _, ln := range l.lanes {
		_ = ln.conn.Close() // as above
		ln.asked.Load().abandon()
	}
}

func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// watch fails the link when an answer is overdue, or the worker holds too much memory.
func (l *link) watch(done <-chan struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-tick.C:
			if l.late(now) {
				l.fail(errors.New("it did not answer in time"))
			}
			if err := l.overweight(); err != nil {
				l.fail(err)
			}
		}
	}
}

// overweight returns what is wrong with the memory of the worker. One whose memory cannot be read has ended, or
// is about to: that is noticed elsewhere.
func (l *link) overweight() error {
	if l.memory == 0 || l.resident == nil {
		return nil
	}
	if bytes, err := l.resident(); err == nil && bytes > l.memory {
		return fmt.Errorf("it held %d bytes of memory, and may hold %d: see worker_memory in [cells] of server.toml", bytes, l.memory)
	}
	return nil
}

func (l *link) late(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		if now.After(c.overdue) {
			return true
		}
	}
	for _, ln := range l.lanes {
		if at := ln.overdue.Load(); at != 0 && now.UnixNano() > at {
			return true
		}
	}
	return false
}

// most says how long a frame from the worker may be. Nothing may come that was not asked for.
func (l *link) most(k kind, id uint64) (int, error) {
	l.mu.Lock()
	c := l.calls[id]
	l.mu.Unlock()
	if c == nil {
		return 0, broken("a frame of kind %d is about %d, which is not running", k, id)
	}
	switch {
	case c.load && k == kindLoaded:
		return maxLoaded, nil
	case c.load && k == kindRefused, !c.load && k == kindFailed:
		return maxFailure, nil
	case !c.load && k == kindLog:
		return 1 + maxLine, nil
	case !c.load && k == kindDone:
		return doneBytes(c.limits), nil
	case !c.load && (k == kindUse || k == kindWaits):
		return c.desk.most(k)
	}
	return 0, broken("a frame of kind %d is no answer to what was asked", k)
}

// take hands a frame to who waits for it.
func (l *link) take(f frame) error {
	l.mu.Lock()
	c := l.calls[f.id]
	asks := f.kind == kindUse || f.kind == kindWaits
	if f.kind != kindLog && !asks {
		delete(l.calls, f.id)
	}
	l.mu.Unlock()
	if asks {
		return c.desk.take(f, false)
	}
	if err := c.take(f); err != nil {
		return err
	}
	select {
	case c.news <- struct{}{}:
	default: // there is news already
	}
	return nil
}

func (c *call) take(f frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.kind != kindLog {
		c.answer = &f
		return nil
	}
	level, message, err := decodeLog(f.body)
	if err != nil {
		return err
	}
	if c.left -= len(message) + lineCost; c.left < 0 {
		return broken("an invocation logged more than its limit")
	}
	c.lines = append(c.lines, line{level, message})
	return nil
}

// ask sends a question, after compiled code for it, if there is any; c waits for the answer.
func (l *link) ask(c *call, wait time.Duration, code []entry, encode func(b []byte, id uint64) []byte) (id uint64, err error) {
	c.news = make(chan struct{}, 1)
	c.overdue = time.Now().Add(wait)
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return 0, errUnsent
	}
	l.next++
	id = l.next
	c.id = id
	l.calls[id] = c
	l.mu.Unlock()
	var ahead [][]byte
	if len(code) > 0 {
		ahead = entryPieces(kindHand, id, code)
	}
	if err := l.out.sendAfter(ahead, func(b []byte) []byte { return encode(b, id) }); err != nil {
		l.fail(fmt.Errorf("write to the worker: %w", err))
	}
	return id, nil
}

// answer waits for the answer of a call and hands over its log. Once ctx is done, cancel is called, and the
// answer is waited for all the same: it is not long then.
func (l *link) answer(ctx context.Context, c *call, log func(level, message string), cancel func()) (*frame, error) {
	done := ctx.Done()
	for {
		select {
		case <-c.news:
		case <-l.dead:
			if f := c.give(log); f != nil {
				return f, nil
			}
			return nil, &lostError{l.cause()}
		case <-done:
			done = nil
			cancel()
			continue
		}
		if f := c.give(log); f != nil {
			return f, nil
		}
	}
}

// give hands over the lines that have come, and returns the answer if it has.
func (c *call) give(log func(level, message string)) *frame {
	c.mu.Lock()
	lines, answer := c.lines, c.answer
	c.lines = nil
	c.mu.Unlock()
	if log != nil {
		for _, l := range lines {
			log(l.level, l.message)
		}
	}
	return answer
}

// ensure has the worker load f unless it has, and returns what it says of it.
func (l *link) ensure(ctx context.Context, f *Function) (loaded, error) {
	l.mu.Lock()
	ld := l.functions[f.id]
	mine := ld == nil
	if mine {
		ld = &loading{done: make(chan struct{})}
		l.functions[f.id] = ld
	}
	l.mu.Unlock()
	if mine {
		ld.loaded, ld.err = l.load(ctx, f)
		if ld.err != nil {
			l.mu.Lock()
			delete(l.functions, f.id)
			l.mu.Unlock()
		}
		close(ld.done)
		return ld.loaded, ld.err
	}
	select {
	case <-ld.done:
	case <-ctx.Done():
		return loaded{}, canceled(ctx)
	}
	if isCanceled(ld.err) && ctx.Err() == nil {
		return l.ensure(ctx, f) // whoever loaded it went away
	}
	return ld.loaded, ld.err
}

// limitsOf returns the limits with which this worker loads f: one that runs a single invocation keeps no
// instances for others.
func (l *link) limitsOf(f *Function) cell.Limits {
	limits := f.limits
	if !l.pins {
		limits.MinInstances = 0
	}
	return limits
}

// load sends f to the worker, with its compiled code if need be.
func (l *link) load(ctx context.Context, f *Function) (said loaded, err error) {
	switch {
	case l.code == nil:
		return l.loadWhole(ctx, f, nil)
	case f.spec.Kind != api.ModuleScript:
		return l.loadModule(ctx, f)
	}
	var have bool
	select {
	case have = <-l.scripts:
	case <-ctx.Done():
		return loaded{}, canceled(ctx)
	}
	if have {
		l.scripts <- true
		return l.loadWith(ctx, f, f.spec, nil)
	}
	defer func() { l.scripts <- have }()
	entries, err := l.code.entries(ctx, f)
	if err != nil {
		return loaded{}, err
	}
	said, err = l.loadWith(ctx, f, f.spec, entries)
	have = err == nil
	return said, err
}

// loadModule sends a module to the worker: its compiled form, and the module itself only when it is at hand, or the
// worker cannot do with the other alone.
func (l *link) loadModule(ctx context.Context, f *Function) (loaded, error) {
	entries, err := l.code.entries(ctx, f)
	if err != nil {
		return loaded{}, err
	}
	spec, whole := f.atHand()
	if len(entries) == 0 || whole {
		return l.loadWhole(ctx, f, entries)
	}
	said, err := l.loadWith(ctx, f, spec, entries)
	if _, refused := errors.AsType[*problem.Error](err); refused && !isCanceled(err) {
		return l.loadWhole(ctx, f, entries) // it says itself what is wrong, unless it was that
	}
	return said, err
}

// loadWhole sends f to the worker with all there is of it.
func (l *link) loadWhole(ctx context.Context, f *Function, entries []entry) (loaded, error) {
	spec, err := f.whole(ctx)
	if err != nil {
		return loaded{}, err
	}
	return l.loadWith(ctx, f, spec, entries)
}

// loadWith sends spec, which is of f, to the worker, after the code that it is made of, if there is any.
func (l *link) loadWith(ctx context.Context, f *Function, spec cell.Spec, code []entry) (loaded, error) {
	c := &call{load: true}
	id, err := l.ask(c, loadGrace, code, func(b []byte, id uint64) []byte {
		if f.onTrial.Load() && l.pins {
			spec.Trial = trialTime
		}
		return encodeLoad(b, id, f.id, spec, l.limitsOf(f))
	})
	if err != nil {
		return loaded{}, err
	}
	answer, err := l.answer(ctx, c, nil, func() { l.cancel(id) })
	switch {
	case err != nil:
		return loaded{}, err
	case answer.kind == kindRefused:
		failure, err := decodeRefused(answer.body)
		if err != nil {
			l.fail(err)
			return loaded{}, &lostError{err}
		}
		return loaded{}, failure
	}
	said, err := decodeLoaded(answer.body)
	if err != nil {
		l.fail(err)
		return loaded{}, &lostError{err}
	}
	return said, nil
}

// drop has the worker forget a function.
func (l *link) drop(id uint64) {
	l.mu.Lock()
	_, loaded := l.functions[id]
	delete(l.functions, id)
	dead := l.err != nil
	l.mu.Unlock()
	if loaded && !dead {
		l.tell(kindDrop, id)
	}
}

func (l *link) cancel(id uint64) { l.tell(kindCancel, id) }

func (l *link) tell(k kind, id uint64) {
	if err := l.out.send(func(b []byte) []byte { return encodeEmpty(b, k, id) }); err != nil {
		l.fail(fmt.Errorf("write to the worker: %w", err))
	}
}

// invoke has the worker handle one event. A *lostError or errUnsent says that the worker is to blame.
func (l *link) invoke(ctx context.Context, f *Function, in cell.Input) (cell.Result, cell.Usage, error) {
	if _, err := l.ensure(ctx, f); err != nil {
		return cell.Result{}, cell.Usage{}, err
	}
	var (
		answer *frame
		err    error
	)
	if ln, id := l.takeLane(len(f.spec.Grants) > 0); ln != nil {
		answer, err = l.alongLane(ctx, ln, id, f, in)
	} else {
		answer, err = l.among(ctx, f, in)
	}
	if err != nil {
		return cell.Result{}, cell.Usage{}, err
	}
	var (
		result  cell.Result
		usage   cell.Usage
		failure error
	)
	if answer.kind == kindDone {
		result, usage, err = decodeDone(answer.body, f.limits)
	} else {
		usage, failure, err = decodeFailed(answer.body, f.limits)
	}
	if err != nil {
		l.fail(err)
		return cell.Result{}, cell.Usage{}, &lostError{err}
	}
	usage.BytesIn = int64(len(in.Event))
	return result, usage, failure
}

// codeCanceled is cell's code of what was abandoned.
const codeCanceled = "cell.canceled"

// among has the worker handle one event that goes through the socket that all share.
func (l *link) among(ctx context.Context, f *Function, in cell.Input) (*frame, error) {
	c := &call{limits: f.limits, left: f.limits.LogBytes + lineRoom}
	c.desk = newDesk(ctx, f, &in, func(number uint32, a cell.GrantAnswer) {
		_ = l.out.send(func(b []byte) []byte { return encodeAnswer(b, c.id, number, a) }) // whoever waits for the result meets the error
	})
	defer c.desk.close()
	id, err := l.ask(c, f.limits.Timeout+l.grace, nil, func(b []byte, id uint64) []byte { return encodeInvoke(b, id, f.id, in) })
	if err != nil {
		return nil, err
	}
	return l.answer(ctx, c, in.Log, func() { l.cancel(id) })
}

func canceled(ctx context.Context) error {
	return problem.New(problem.Unavailable, codeCanceled, "the invocation was abandoned").WithCause(context.Cause(ctx))
}

func isCanceled(err error) bool {
	p, ok := errors.AsType[*problem.Error](err)
	return ok && p.Code == codeCanceled
}
