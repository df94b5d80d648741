package cell

import (
	"context"
	"sync"
	"time"

	wasm "github.com/tetratelabs/wazero/api"
)

// call is the context in which an invocation's guest runs. It ends at the deadline, when its caller's
// context does, when the processor time is used up, or when the invocation is given up, and then it stops the guest. It
// is one value without a timer of its own, because it is made for every event, and it does not ask its caller's
// context for values, because wazero asks for some at every call.
type call struct {
	inv      *invocation
	caller   context.Context //nolint:containedctx // a call is a context, and this is the one it is derived from
	deadline time.Time
	watch    *watch

	// Guarded by watch.mu.
	before, after *call
	watched       bool
	due           time.Time // when to look at it
	cpuDue        time.Time // when it can have used up its processor time; zero when there is no such limit

	// mu is locked after watch.mu, never before; and before that of the call that the caller's context may be.
	mu     sync.Mutex
	err    error
	cause  error
	done   chan struct{}      // made when somebody asks for it
	stop   wasm.MutableGlobal // of the instance that serves the call, or nil
	unlink func() bool        // from the caller's context; nil while that is not watched
}

var _ context.Context = (*call)(nil)

// begin makes c the context of inv, at a moment that is now. Its end MUST be called.
func (c *call) begin(caller context.Context, inv *invocation, w *watch, now time.Time) {
	c.inv, c.caller, c.watch, c.deadline = inv, caller, w, inv.deadline
	if inv.limitedCPU() {
		c.cpuDue = now.Add(inv.limits.CPU)
	}
	c.due = c.next(now.Add(lookAfter))
	if caller.Err() != nil {
		c.cancelLike(caller)
	}
	w.add(c, now)
}

// next returns the earliest moment, at most at, when something is to be done. c.watch.mu is held, or nobody knows c.
func (c *call) next(at time.Time) time.Time {
	if c.deadline.Before(at) {
		at = c.deadline
	}
	if !c.cpuDue.IsZero() && c.cpuDue.Before(at) {
		at = c.cpuDue
	}
	return at
}

// look does what is due, and reports whether there will be more. c.watch.mu is held.
func (c *call) look(now time.Time) bool {
	if !now.Before(c.deadline) {
		c.cancel(context.DeadlineExceeded, context.DeadlineExceeded)
		return false
	}
	if !c.cpuDue.IsZero() && !now.Before(c.cpuDue) {
		left := c.inv.limits.CPU - c.inv.cpu.elapsed()
		if left <= 0 {
			c.cancel(errCPU, errCPU)
			return false
		}
		c.cpuDue = now.Add(left) // it cannot be used up sooner
	}
	c.due = c.next(c.deadline)
	return true
}

// link has the call end with its caller's context from now on, unless it has ended. c.watch.mu MUST NOT be held: the
// caller's context may be a call too, which is then waited for.
func (c *call) link() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unlink == nil && c.err == nil {
		c.unlink = context.AfterFunc(c.caller, func() { c.cancelLike(c.caller) })
	}
}

func (c *call) cancelLike(caller context.Context) { c.cancel(caller.Err(), context.Cause(caller)) }

// cancel ends the call, unless it has ended, and stops its guest at the next loop or call.
func (c *call) cancel(err, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err, c.cause = err, cause
	if c.done != nil {
		close(c.done)
	}
	if c.stop != nil {
		c.stop.Set(1)
	}
}

// end releases what the call holds.
func (c *call) end() {
	c.watch.remove(c)
	c.cancel(context.Canceled, context.Canceled)
	c.mu.Lock()
	unlink := c.unlink // nobody sets it any more
	c.mu.Unlock()
	if unlink != nil {
		unlink()
	}
}

// arm has the guest with this stop flag stopped when the call ends.
func (c *call) arm(stop wasm.MutableGlobal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = stop
	if c.err != nil {
		stop.Set(1)
	}
}

// disarm undoes arm. It reports whether the guest was stopped.
func (c *call) disarm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = nil
	return c.err != nil
}

// ended returns why the call has ended, or nil.
func (c *call) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// Deadline implements context.Context.
func (c *call) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context. Who waits for the end learns of the caller's at once.
func (c *call) Done() <-chan struct{} {
	c.link()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

// Err implements context.Context.
func (c *call) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

type invocationKey struct{}

// Value implements context.Context.
func (c *call) Value(key any) any {
	if _, ok := key.(invocationKey); ok {
		return c.inv
	}
	return nil
}
