package cell

import (
	"context"
	"slices"
	"sync"
	"time"
)

// idle keeps the instances of all functions that wait for an event. An instance that has waited for
// long is closed, and so are those that waited longest when they hold too much memory together: an
// idle function costs nothing.
type idle struct {
	after time.Duration
	most  int64 // bytes, besides floor

	mu     sync.Mutex
	bytes  int64
	floor  int64       // bytes that the instances take which functions have at least
	oldest []*instance // of all functions, in the order in which they began to wait
	closed bool
	timer  *time.Timer // runs trim when the one that waits longest is due; nil while none waits
	trims  sync.WaitGroup
}

// take returns an instance of f that waits, the one that ran last, or nil.
func (p *idle) take(f *Function) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(f.idle) - 1
	if last < 0 {
		return nil
	}
	in := f.idle[last]
	f.idle[last] = nil
	f.idle = f.idle[:last]
	p.forget(in)
	return in
}

// give has in wait for the next event of its function, from a moment on that is now; it is closed when it may not.
func (p *idle) give(ctx context.Context, in *instance, now time.Time) {
	p.mu.Lock()
	f := in.function
	if p.closed || f.closed {
		p.mu.Unlock()
		in.close(ctx)
		return
	}
	in.idleSince = now
	f.idle = append(f.idle, in)
	p.oldest = append(p.oldest, in)
	p.bytes += in.size()
	surplus := p.surplus()
	if p.timer == nil {
		p.trimAfter(p.after)
	}
	p.mu.Unlock()
	retireAll(ctx, surplus)
}

// surplus takes out what is over the bound. p.mu is held.
func (p *idle) surplus() []*instance {
	var out []*instance
	for p.bytes > p.most+p.floor {
		first := p.first()
		if first == nil {
			break
		}
		out = append(out, p.evict(first))
	}
	return out
}

// first returns the instance that waits longest of those that their functions can do without, or nil. p.mu is
// held.
func (p *idle) first() *instance {
	for _, in := range p.oldest {
		if len(in.function.idle) > in.function.limits.MinInstances {
			return in
		}
	}
	return nil
}

// evict takes in out of the instances that wait. p.mu is held.
func (p *idle) evict(in *instance) *instance {
	f := in.function
	f.idle = slices.DeleteFunc(f.idle, func(other *instance) bool { return other == in })
	p.forget(in)
	return in
}

// forget takes in off the list of all. The one that is taken is most often the last. p.mu is held.
func (p *idle) forget(in *instance) {
	p.bytes -= in.size()
	for i := len(p.oldest) - 1; i >= 0; i-- {
		if p.oldest[i] == in {
			p.oldest = slices.Delete(p.oldest, i, i+1)
			return
		}
	}
}

// trimAfter has trim run once. p.mu is held.
func (p *idle) trimAfter(d time.Duration) {
	p.trims.Add(1)
	p.timer = time.AfterFunc(d, func() {
		defer p.trims.Done()
		p.trim()
	})
}

// trim closes what has waited for too long.
func (p *idle) trim() {
	p.mu.Lock()
	var due []*instance
	now := time.Now()
	first := p.first()
	for first != nil && now.Sub(first.idleSince) >= p.after {
		due = append(due, p.evict(first))
		first = p.first()
	}
	p.timer = nil
	if first != nil && !p.closed {
		p.trimAfter(p.after - now.Sub(first.idleSince))
	}
	p.mu.Unlock()
	retireAll(context.Background(), due)
}

// drop closes the instances of f that wait, and from now on those that come back.
func (p *idle) drop(ctx context.Context, f *Function) {
	p.mu.Lock()
	if !f.closed && f.floored {
		p.floor -= f.floorBytes()
	}
	f.closed = true
	var all []*instance
	for len(f.idle) > 0 {
		all = append(all, p.evict(f.idle[len(f.idle)-1]))
	}
	p.mu.Unlock()
	closeAll(ctx, all)
}

// close closes all instances that wait, and from now on those that come back.
func (p *idle) close(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	all := p.oldest
	p.oldest = nil
	for _, in := range all {
		in.function.idle = nil
	}
	p.bytes = 0
	if p.timer != nil && p.timer.Stop() {
		p.trims.Done()
	}
	p.mu.Unlock()
	p.trims.Wait()
	closeAll(ctx, all)
}

func closeAll(ctx context.Context, list []*instance) {
	for _, in := range list {
		in.close(ctx)
	}
}

// retireAll closes instances whose function may wake again.
func retireAll(ctx context.Context, list []*instance) {
	for _, in := range list {
		in.retire(ctx)
	}
}
