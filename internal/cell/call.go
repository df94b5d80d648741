package cell

import (
	"context"
	"sync"
	"time"

	wasm "github.com/tetratelabs/wazero/api"
)

// call is the context in which an invocation's guest runs. It ends at the deadline, when its caller's
// context does, or when the invocation is given up, and then it stops the guest. It is one value with
// one timer, because it is made for every event, and it does not ask its caller's context for values,
// because wazero asks for some at every call.
type call struct {
	inv      *invocation
	deadline time.Time
	unlink   func() bool // from the caller's context
	timer    *time.Timer

	mu    sync.Mutex
	err   error
	cause error
	done  chan struct{}      // made when somebody asks for it
	stop  wasm.MutableGlobal // of the instance that serves the call, or nil
}

var _ context.Context = (*call)(nil)

// newCall returns the context of inv. Its end MUST be called.
func newCall(caller context.Context, inv *invocation) *call {
	c := &inv.ownCall
	c.inv, c.deadline = inv, inv.deadline
	c.timer = time.AfterFunc(time.Until(inv.deadline), func() { c.cancel(context.DeadlineExceeded, context.DeadlineExceeded) })
	c.unlink = context.AfterFunc(caller, func() { c.cancel(caller.Err(), context.Cause(caller)) })
	return c
}

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
	c.timer.Stop()
	c.unlink()
	c.cancel(context.Canceled, context.Canceled)
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

// Done implements context.Context.
func (c *call) Done() <-chan struct{} {
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
