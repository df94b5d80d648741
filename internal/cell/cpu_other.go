//go:build !linux

package cell

import "time"

// threadClock is wall time, where there is no clock for a thread.
type threadClock struct{ begun time.Time }

func startThreadClock(bool) threadClock { return threadClock{time.Now()} }

func (c threadClock) elapsed() time.Duration {
	if c.begun.IsZero() {
		return 0
	}
	return time.Since(c.begun)
}
