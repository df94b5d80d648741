package cell

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadClock is the processor time of one thread, from a moment on.
type threadClock struct {
	id    int32 // of the clock; 0 is none
	begun time.Duration
}

// startThreadClock measures the calling thread. Others can ask a shared clock too; to make one costs another
// system call.
func startThreadClock(shared bool) threadClock {
	c := threadClock{id: unix.CLOCK_THREAD_CPUTIME_ID}
	if shared {
		// The clock of a thread by its number: see CPUCLOCK_PERTHREAD in clock_getres(2).
		const perThread, scheduler = 4, 2
		c.id = int32(^unix.Gettid())<<3 | perThread | scheduler
	}
	c.begun = c.now()
	return c
}

func (c threadClock) now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(c.id, &t); err != nil {
		return c.begun // the thread is gone, and with it what it did
	}
	return time.Duration(t.Nano())
}

func (c threadClock) elapsed() time.Duration {
	if c.id == 0 {
		return 0
	}
	return c.now() - c.begun
}
