package dispatch

import (
	"time"

	"sallyport/internal/ident"
)

// Lanes is a namespace in a budget whose deliveries are what a test says, in the place of a
// Dispatcher.
type Lanes struct {
	member *member
	turns  []*turn
	// Begun is called with the number of the lane when one of its deliveries starts.
	Begun func(lane int, t Ticket)
}

// Ticket is what a started delivery gives back.
type Ticket struct{ tk *ticket }

// NewLanes joins a namespace with n lanes to a budget.
func NewLanes(b *Budget, n, workers, window int) *Lanes {
	l := &Lanes{member: b.join(workers, window)}
	number := map[*turn]int{}
	for i := range n {
		l.turns = append(l.turns, l.member.turn(&lane{}))
		number[l.turns[i]] = i
	}
	l.member.start(func(tk *ticket) func() {
		l.Begun(number[tk.turn], Ticket{tk})
		return nil
	})
	return l
}

// Add has one more delivery wait in a lane.
func (l *Lanes) Add(lane int) { l.turns[lane].add() }

// Leave stops all lanes.
func (l *Lanes) Leave() { l.member.leave() }

// EmitCharge is what an event that a function emits is charged.
const EmitCharge = emitCharge

// Done ends a delivery that emitted nothing.
func (b *Budget) Done(t Ticket, cpu, lasted time.Duration) { b.done(t.tk, cpu, lasted, 0) }

// DoneEmitting ends a delivery.
func (b *Budget) DoneEmitting(t Ticket, cpu, lasted time.Duration, emitted int) {
	b.done(t.tk, cpu, lasted, emitted)
}

// Cancel gives a delivery back as not made.
func (b *Budget) Cancel(t Ticket) { b.cancel(t.tk) }

// Fill starts what may start.
func (b *Budget) Fill() { b.fill() }

// Running returns the attempts that are under way in the namespace.
func (l *Lanes) Running() int {
	l.member.budget.mu.Lock()
	defer l.member.budget.mu.Unlock()
	return l.member.running
}

// Heavy reports whether the delivery is to run where it keeps nobody from a processor.
func (t Ticket) Heavy() bool { return t.tk.heavy }

// Recall has a lane begin with a past.
func (l *Lanes) Recall(lane int, p Past) { l.turns[lane].recall(p) }

// Wait says that a delivery begins to wait for something outside, or goes on.
func (b *Budget) Wait(t Ticket, waits bool) { b.wait(t.tk, waits) }

// MostWaiting is how many deliveries may wait without a place.
const MostWaiting = mostWaiting

// Idle reports whether a budget counts nothing as under way any more.
func (b *Budget) Idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting == 0 && b.used == 0 && b.running == [paces]int{}
}

// PackedKinds are the kinds of journal entries that tell of many deliveries.
const PackedKinds = string(entryParkPlain) + string(entrySettlePlain)

// ParsePacked parses such an entry, and returns the deliveries of a subscription that it tells of, by position, and how
// many attempts they had.
func ParsePacked(entry []byte, sub ident.SubscriptionName) (positions []ident.Position, attempts int, err error) {
	err = parsePacked(entry, func(t *parkedText) {
		if t.Sub != sub {
			return
		}
		positions = append(positions, t.Pos)
		attempts += t.Made
	})
	return positions, attempts, err
}
