package httpapi

import (
	"context"
	"sync"
	"time"

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
	maxApplying = 2
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

// waits are the requests that wait for something to happen. They can be ended all at once.
type waits struct {
	mu      sync.Mutex
	cancels map[int]context.CancelFunc
	next    int
	ended   bool
}

// add returns a context that ends with ctx, after d if that is positive, or when the server drains.
func (w *waits) add(ctx context.Context, d time.Duration) (_ context.Context, release func(), err error) {
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
	if w.ended {
		cancel()
	}
	id := w.next
	w.next++
	w.cancels[id] = cancel
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
	for _, cancel := range w.cancels {
		cancel()
	}
}

// wait counts a request as one that waits, and no longer as one being answered; release turns it
// back. The context ends with the request, after d if that is positive, or when the server drains.
func (a *API) wait(c *call, d time.Duration) (_ context.Context, release func(), err error) {
	ctx, done, err := a.waits.add(c.r.Context(), d)
	if err != nil {
		return nil, nil, err
	}
	a.active.Add(-1)
	return ctx, func() {
		a.active.Add(1)
		done()
	}, nil
}

// reserve takes n bytes of the memory for bodies, if there are that many.
func (a *API) reserve(n int64) bool {
	if a.memory.Add(n) > maxMemory {
		a.memory.Add(-n)
		return false
	}
	return true
}
