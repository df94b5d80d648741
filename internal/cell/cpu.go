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
	shared bool          // others ask too; set before start
	used   time.Duration // before the thread that it runs on now
	thread threadClock   // the zero value while it does not run
}

// start binds the goroutine to its thread and measures from now on.
func (c *cpuClock) start() {
	runtime.LockOSThread()
	c.mu.Lock()
	c.thread = startThreadClock(c.shared)
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

// elapsed returns the processor time so far. Any goroutine may ask when the clock is shared.
func (c *cpuClock) elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used + c.thread.elapsed()
}

// limitedCPU reports whether the processor time has a limit that the timeout does not keep.
func (inv *invocation) limitedCPU() bool {
	return inv.limits.CPU != 0 && inv.limits.CPU < inv.limits.Timeout
}
