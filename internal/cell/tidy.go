package cell

import (
	"runtime/debug"
	"sync"
	"time"
)

// tidyAfter is how long no function has to be loaded or closed until memory is given back: long enough that a
// deployment of many, or events that take turns in waking functions, are followed by one collection and not by
// many.
const tidyAfter = 5 * time.Second

// Tidier gives memory back to the machine once loading has come to rest. To load a module takes many times the memory
// that it is to hold, and the compiled code of one that was closed is unmapped by a finalizer; but an idle
// process allocates nothing, so Go's collector has no reason to run and would leave all of it for minutes. The zero
// value is ready. It is safe for concurrent use.
type Tidier struct {
	mu     sync.Mutex
	timer  *time.Timer
	closed bool
	runs   sync.WaitGroup
}

// Touch notes that something was loaded or closed.
func (t *Tidier) Touch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if t.timer != nil && t.timer.Stop() {
		t.runs.Done()
	}
	t.runs.Add(1)
	t.timer = time.AfterFunc(tidyAfter, func() {
		defer t.runs.Done()
		debug.FreeOSMemory()
	})
}

// Close ends it, and waits for what it does. It is idempotent.
func (t *Tidier) Close() {
	t.mu.Lock()
	t.closed = true
	if t.timer != nil && t.timer.Stop() {
		t.runs.Done()
	}
	t.timer = nil
	t.mu.Unlock()
	t.runs.Wait()
}
