package cell

import (
	"sync"
	"time"
)

// lookAfter is how long a call runs until its caller's context is watched, unless somebody waits for the call's end.
// Most calls are over by then, and to be told of a context's end costs as much as some of them do. A caller that
// gives up a call sooner gets its answer this much later.
const lookAfter = 10 * time.Millisecond

// watch ends the calls of an engine when they are due. One timer serves all of them, set for the first that is: two
// timers for every call, which hardly ever fire, would cost more than the smallest functions do. The zero value is
// ready.
type watch struct {
	mu    sync.Mutex
	first *call       // of those that run, in no order
	at    time.Time   // when the timer fires; zero when it is not set
	timer *time.Timer // nil before the first call
	runs  sync.WaitGroup
}

// add begins to watch c, at a moment that is now.
func (w *watch) add(c *call, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first != nil {
		w.first.before = c
	}
	c.after, w.first, c.watched = w.first, c, true
	w.fireAt(c.due, now)
}

// remove ends that. It is idempotent.
func (w *watch) remove(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.watched {
		return
	}
	if c.before != nil {
		c.before.after = c.after
	} else {
		w.first = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	}
	c.before, c.after, c.watched = nil, nil, false
}

// fireAt has the timer fire no later than at. w.mu is held.
func (w *watch) fireAt(at, now time.Time) {
	if !w.at.IsZero() && !at.Before(w.at) {
		return
	}
	w.at = at
	switch {
	case w.timer == nil:
		w.runs.Add(1)
		w.timer = time.AfterFunc(at.Sub(now), w.run)
	case !w.timer.Reset(at.Sub(now)): // it has fired: that run ends for itself
		w.runs.Add(1)
	}
}

// run looks at every call that is due, and sets the timer for the next one.
func (w *watch) run() {
	defer w.runs.Done()
	for _, c := range w.look(time.Now()) {
		c.link()
	}
}

// look is run at a moment that is now. It returns the calls whose callers are to be watched.
func (w *watch) look(now time.Time) (long []*call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = time.Time{}
	var next time.Time
	for c := w.first; c != nil; c = c.after {
		if !now.Before(c.due) {
			if !c.look(now) {
				continue
			}
			long = append(long, c)
		}
		if next.IsZero() || c.due.Before(next) {
			next = c.due
		}
	}
	if !next.IsZero() {
		w.fireAt(next, now)
	}
	return long
}

// close waits until nothing is watched any more. No call may run.
func (w *watch) close() {
	w.mu.Lock()
	if w.timer != nil && w.timer.Stop() {
		w.runs.Done()
	}
	w.at = time.Time{}
	w.mu.Unlock()
	w.runs.Wait()
}
