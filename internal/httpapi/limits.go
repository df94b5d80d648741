package httpapi

import (
	"context"
	"sync"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Limits of requests that are not events.
const (
	maxBundleBytes = 96 << 20 // an app with its modules, base64
	maxSmallBody   = 64 << 10 // every other JSON body
	maxListLimit   = 1000     // items of one page
	defaultLimit   = 100
	maxQueryBytes  = 8 << 10
	maxWait        = time.Minute // of a long poll

	// maxInvocation is how long an invocation is waited for: the longest a function may run, five
	// minutes, and a minute in the queue.
	maxInvocation = 6 * time.Minute
	// maxWaiting bounds long polls, invocations and followers at the same time: each holds a
	// connection and a goroutine, some tens of KiB.
	maxWaiting = 1000
	// maxApplying bounds the apps being deployed at the same time: each may take several times
	// maxBundleBytes of memory.
	maxApplying = 3
	// maxApplyingEach bounds those of one namespace: what a module does before its first event may take minutes, and another namespace
	// still deploys.
	maxApplyingEach = 2
	// maxMemory bounds the memory of all bodies of events being read or stored, in bytes.
	maxMemory = 256 << 20
	// maxPooledBody keeps one large request from pinning its buffer.
	maxPooledBody = 1 << 20

	// writeTime is how long a client may take to read one answer, or one line of a stream.
	writeTime = 30 * time.Second
	// recheckEvery is how often a stream, or a request that waits, looks whether its token and the policies still let it: a
	// change takes effect within a second on what is under way too.
	recheckEvery = 500 * time.Millisecond
	retryPause   = time.Second
	// stoppingPause is longer: the server has to come back first.
	stoppingPause = 5 * time.Second
)

// places are those of requests that take much: so many in all, and fewer of one namespace.
type places struct {
	mu  sync.Mutex
	all int
	by  map[ident.Namespace]int
}

// take takes a place, and returns what gives it back.
func (p *places) take(ns ident.Namespace) (giveBack func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= maxApplying || p.by[ns] >= maxApplyingEach {
		return nil, overloaded()
	}
	if p.by == nil {
		p.by = map[ident.Namespace]int{}
	}
	p.all++
	p.by[ns]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.by[ns]--; p.by[ns] == 0 {
			delete(p.by, ns)
		}
	}, nil
}

// taken returns how many places are taken.
func (p *places) taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

func overloaded() error {
	return problem.New(problem.Exhausted, "httpapi.overloaded", "the server is answering as many requests as it may").
		WithHint("send again after the time in Retry-After").WithRetryAfter(retryPause)
}

func tooManyWaiting() error {
	return problem.New(problem.Exhausted, "httpapi.too_many_waiting", "as many requests are waiting as may").
		WithHint("ask without waiting, or later").WithRetryAfter(retryPause)
}

func stopping() error {
	return problem.New(problem.Unavailable, "httpapi.stopping", "the server is stopping and takes nothing more").
		WithHint("send again after the time in Retry-After").WithRetryAfter(stoppingPause)
}

// waits are the requests that wait for something to happen. They can be ended all at once, or those of a namespace.
type waits struct {
	mu      sync.Mutex
	cancels map[int]waiting
	next    int
	ended   bool
	closed  map[ident.Namespace]bool
}

type waiting struct {
	ns     ident.Namespace
	cancel context.CancelFunc
}

// add returns a context that ends with ctx, after d if that is positive, or when the server drains or ns does.
func (w *waits) add(ctx context.Context, ns ident.Namespace, d time.Duration) (_ context.Context, release func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.cancels) >= maxWaiting {
		return nil, nil, tooManyWaiting()
	}
	var cancel context.CancelFunc
	if d > 0 {
		ctx, cancel = context.WithTimeout(ctx, d)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	if w.ended || w.closed[ns] {
		cancel()
	}
	id := w.next
	w.next++
	w.cancels[id] = waiting{ns, cancel}
	return ctx, func() {
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.cancels, id)
	}, nil
}

func (w *waits) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for _, one := range w.cancels {
		one.cancel()
	}
}

// close ends those of ns, until reopen.
func (w *waits) close(ns ident.Namespace) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed[ns] = true
	for _, one := range w.cancels {
		if one.ns == ns {
			one.cancel()
		}
	}
}

func (w *waits) reopen(ns ident.Namespace) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.closed, ns)
}

// wait counts a request as one that waits, and no longer as one being answered; release turns it
// back. The context ends with the request, after d if that is positive, or when the server or the namespace drains.
func (a *API) wait(c *call, d time.Duration) (_ context.Context, release func(), err error) {
	ctx, done, err := a.waits.add(c.r.Context(), c.ns, d)
	if err != nil {
		return nil, nil, err
	}
	a.active.Add(-1)
	return ctx, func() {
		a.active.Add(1)
		done()
	}, nil
}

// inside counts the requests that are in each namespace.
type inside struct {
	mu       sync.Mutex
	requests map[ident.Namespace]int
	left     chan struct{} // closed when a request leaves, if somebody waits for it
}

func (x *inside) enter(ns ident.Namespace) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.requests[ns]++
}

func (x *inside) leave(ns ident.Namespace) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.requests[ns]--; x.requests[ns] == 0 {
		delete(x.requests, ns)
	}
	if x.left != nil {
		close(x.left)
		x.left = nil
	}
}

// empty returns when no request is in ns.
func (x *inside) empty(ctx context.Context, ns ident.Namespace) error {
	for {
		x.mu.Lock()
		n := x.requests[ns]
		if x.left == nil {
			x.left = make(chan struct{})
		}
		left := x.left
		x.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-left:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reserve takes n bytes of the memory for bodies, if there are that many.
func (a *API) reserve(n int64) bool {
	if a.memory.Add(n) > maxMemory {
		a.memory.Add(-n)
		return false
	}
	return true
}
