package grant

import "sync"

// maxIdleRunners is how many goroutines wait for the next use. Each keeps a stack of some 32 KiB.
const maxIdleRunners = 64

// Runners are goroutines in which uses go through their doors, kept for the next ones: a new goroutine begins with a small stack, and to grow it
// on the way through a door costs as much as the rest of the seam. A nil *Runners starts one for each use. It is safe for concurrent use.
type Runners struct {
	mu     sync.Mutex
	idle   []chan func() // the last that was used last
	closed bool
	all    sync.WaitGroup
}

// start has a goroutine run use, which MUST NOT panic.
func (r *Runners) start(use func()) {
	if r == nil {
		go use()
		return
	}
	r.mu.Lock()
	if n := len(r.idle); n > 0 {
		next := r.idle[n-1]
		r.idle = r.idle[:n-1]
		r.mu.Unlock()
		next <- use
		return
	}
	r.mu.Unlock()
	r.all.Go(func() { r.serve(use) })
}

// serve runs a use, and those that come after it.
func (r *Runners) serve(use func()) {
	more := make(chan func(), 1)
	for ok := true; ok; use, ok = <-more {
		use()
		use = nil // what it holds is not kept while nothing is to be done
		if !r.rest(more) {
			return
		}
	}
}

// rest reports whether there may be a next use; it comes, or the end does.
func (r *Runners) rest(more chan func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.idle) >= maxIdleRunners {
		return false
	}
	r.idle = append(r.idle, more)
	return true
}

// Close ends the goroutines and waits for them. The Sets that use them MUST be closed before. It is idempotent.
func (r *Runners) Close() {
	r.mu.Lock()
	r.closed = true
	for _, more := range r.idle {
		close(more)
	}
	r.idle = nil
	r.mu.Unlock()
	r.all.Wait()
}
