package cell

import (
	"errors"
	"runtime"
	"sync"
	"time"
)

// errCPU is the cause of the end of an invocation that used up its processor time.
var errCPU = errors.New("the processor time is used up")

// cpuClock measures the processor time of an invocation: that of the thread it runs on, to which its
// goroutine is bound while it does. What a guest does while it waits costs nothing, and binds none.
type cpuClock struct {
	mu     sync.Mutex
	used   time.Duration // before the thread that it runs on now
	thread threadClock   // the zero value while it does not run
}

// start binds the goroutine to its thread and measures from now on.
func (c *cpuClock) start() {
	runtime.LockOSThread()
	c.mu.Lock()
	c.thread = startThreadClock()
	c.mu.Unlock()
}

// stop ends what start began, unless it has ended, and returns the processor time.
func (c *cpuClock) stop() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.thread != (threadClock{}) {
		c.used += c.thread.elapsed()
		c.thread = threadClock{}
		runtime.UnlockOSThread()
	}
	return c.used
}

// elapsed returns the processor time so far. Any goroutine may ask.
func (c *cpuClock) elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used + c.thread.elapsed()
}

// limitCPU has the invocation end when it has used up its processor time; the function returned ends
// the watch.
func (inv *invocation) limitCPU() (stop func()) {
	most := inv.limits.CPU
	if most == 0 || most >= inv.limits.Timeout {
		return func() {}
	}
	var (
		mu    sync.Mutex
		over  bool
		timer *time.Timer
	)
	check := func() {
		mu.Lock()
		defer mu.Unlock()
		left := most - inv.cpu.elapsed()
		switch {
		case over:
		case left > 0:
			timer.Reset(left) // it cannot be used up sooner
		default:
			inv.call.cancel(errCPU, errCPU)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(most, check)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}
