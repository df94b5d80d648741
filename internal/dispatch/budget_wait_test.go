package dispatch_test

import (
	"testing"
	"testing/synctest"

	"sallyport/internal/dispatch"
)

// TestWaitingTakesNoPlace: a delivery that waits for something outside keeps nobody from starting, up to a bound; and when all have ended, nothing
// is counted, whether or not they said that they go on.
func TestWaitingTakesNoPlace(t *testing.T) {
	t.Parallel()
	for _, past := range []dispatch.Past{{}, {CPU: 1, Wall: 1}, {CPU: 1e9, Wall: 1e9}, {CPU: 1, Wall: 1e9}} {
		synctest.Test(t, func(t *testing.T) { waitingTakesNoPlace(t, past) }) // where time stands still, the budget's timer starts nothing meanwhile
	}
}

func waitingTakesNoPlace(t *testing.T, past dispatch.Past) {
	b := dispatch.NewBudget(1)
	const workers = 2
	lanes := dispatch.NewLanes(b, 1, workers, workers)
	if past != (dispatch.Past{}) {
		lanes.Recall(0, past)
	}
	var begun []dispatch.Ticket // by this goroutine alone: what begin returns is nothing to run
	waits := true
	lanes.Begun = func(_ int, tk dispatch.Ticket) { begun = append(begun, tk) }
	for range dispatch.MostWaiting + 100 {
		lanes.Add(0)
	}
	b.Fill()
	for at := 0; at < len(begun); at++ {
		if at > 0 && at%7 == 0 { // goes on, and waits again
			b.Wait(begun[at-1], false)
			b.Wait(begun[at-1], true)
		}
		b.Wait(begun[at], waits)
		b.Wait(begun[at], waits) // said twice, it counts once
	}
	if n := len(begun); n <= dispatch.MostWaiting || n > dispatch.MostWaiting+workers {
		t.Errorf("of deliveries that all wait, %d began; want some more than %d", n, dispatch.MostWaiting)
	}
	for at := 0; at < len(begun); at++ {
		if at%2 == 0 {
			b.Wait(begun[at], false)
		}
		b.Done(begun[at], 1, 1)
		b.Wait(begun[at], true) // it is over: this says nothing
		b.Fill()
	}
	if n := len(begun); n != dispatch.MostWaiting+100 {
		t.Errorf("%d deliveries began, want all %d", n, dispatch.MostWaiting+100)
	}
	if lanes.Running() != 0 || !b.Idle() {
		t.Errorf("all have ended, and %d are counted as under way", lanes.Running())
	}
}
