package dispatch

import (
	"container/heap"
	"runtime"
	"sync"
	"time"
)

// What a function is like, as far as its past tells.
const (
	// slowAttempt is the processor time of an attempt from which on a function counts as slow. Slow ones
	// have half of the processors at most, so that quick ones find one free. An attempt of a quick
	// function that takes longer than this no longer keeps others from a processor: it may well wait.
	slowAttempt = 20 * time.Millisecond
	// waiterShare is the part of its time on a processor below which an attempt counts as waiting. With
	// the usual 16 workers for each processor, waiting attempts alone cannot fill the processors.
	waiterShare = 1.0 / 16
	// mediumAttempt is the processor time of an attempt from which on a function is heavy, if heavy ones have a place of their own. It
	// is what a quick one may wait for another: several times what most take, and little for who waits for an answer.
	mediumAttempt = 2 * time.Millisecond
	// heavyAfter is how many long attempts in a row make a function heavy.
	heavyAfter = 2
	// mostCredit is how far behind the others' processor time one's own counts. Heavy functions may get less than others for as
	// long as there is work; who comes anew, and has no credit, is not to wait until all of that is made up for.
	mostCredit = time.Second
	// mostWaiting is how many attempts may wait for something outside without a place of their own. Each holds an instance, whose memory
	// is about half a megabyte for a small script: with more of them, a server would run out of memory before its processors.
	mostWaiting = 1024
	// leastCharge is what an attempt costs its function at least: handing over takes time too.
	leastCharge = 10 * time.Microsecond
	// emitCharge is what the server takes to check, seal and store an event that a function emits, about: what a batch costs an event
	// (`bench -only b`). Without it, a function that emits and then waits for the disk would seem to take nothing.
	emitCharge = 12 * time.Microsecond
)

// pace is how a function uses a processor. Turns wait apart by pace, so that the next one that may
// start is always at the head of a heap.
type pace uint8

const (
	waits pace = iota // mostly waits, takes no processor worth counting
	quick
	medium // quick otherwise: where there is another place for those that keep quick ones waiting
	slow
	paces
)

// Budget shares the processors of a machine between the functions of all namespaces. Whoever has
// used the least processor time starts next: first among namespaces, then among the functions of
// one. Who was idle comes with no more credit than the others have now.
//
// Attempts that compute take as much of the processors as their function's past says; ones that wait
// take none, and are bounded by the workers of their namespace. Every start takes O(log n) of the
// namespaces and of the functions that have something to do; idle ones cost nothing but memory.
//
// Functions that are heavy are marked as such when they start, for whoever has a place for them. One of which nothing is
// known is taken for heavy too while others of that kind have been on a processor for long.
//
// A Budget has no goroutine that stays: those that add work call fill, without any dispatcher's lock,
// and so does a timer when an attempt takes long while others wait. Who has ended an attempt goes on with the next. Its own lock
// may be taken while a dispatcher's is held, never the other way.
type Budget struct {
	mu         sync.Mutex
	processors float64
	long       time.Duration // from which on an attempt keeps others waiting: mediumAttempt or slowAttempt
	most       [paces]int    // attempts at the same time, of those that are counted
	running    [paces]int    // attempts
	used       float64       // by quick attempts
	waiting    int           // attempts that wait for something outside
	late       int           // attempts of functions of which nothing was known that take long
	recent     tickets       // of quick attempts, by when they began
	timer      *time.Timer
	clock      time.Duration // virtual time: that of the namespace that started last
	queues     [paces]members
}

// NewBudget returns a budget of so many processors; 0 takes those that the Go runtime uses.
func NewBudget(processors int) *Budget { return newBudget(processors, slowAttempt) }

// NewApartBudget returns a budget for a machine where heavy functions have a place of their own, which leaves
// the processors to all others when they need them.
func NewApartBudget(processors int) *Budget { return newBudget(processors, mediumAttempt) }

func newBudget(processors int, long time.Duration) *Budget {
	if processors <= 0 {
		processors = runtime.GOMAXPROCS(0)
	}
	b := &Budget{processors: float64(processors), long: long}
	b.most[medium], b.most[slow] = processors, max(1, processors/2)
	for p := range b.queues {
		b.queues[p].pace = pace(p)
	}
	return b
}

// member is a namespace's part in a budget.
type member struct {
	budget  *Budget
	workers int
	window  int                  // attempts of a quick function at the same time
	begin   func(*ticket) func() // returns what makes a delivery of the ticket's lane; or cancels the ticket, and returns nil
	open    bool
	running int
	used    time.Duration // virtual time
	clock   time.Duration // that of the lane that started last
	queues  [paces]turns
	held    []*turn // wait until less of their own, or more of the workers, is free
	at      [paces]int
}

// turn is a lane's place among the others of its namespace.
type turn struct {
	member  *member
	lane    *lane
	waiting int
	running int
	used    time.Duration // virtual time
	at      int           // in its queue; -1 when it is in none
	held    bool

	known bool // an attempt has ended
	pace  pace
	long  int           // attempts in a row that took a processor for longer than the budget's long
	heavy bool          // hysteresis on cpu: it is to run where it keeps nobody from a processor
	cpu   time.Duration // of an attempt: rises at once, and falls slowly
	share float64       // of an attempt's time that is on a processor
}

// Past is what an earlier run knew of a function: what its attempts took in the mean.
type Past struct{ CPU, Wall time.Duration }

// recall takes a past for an attempt that has ended: before the turn waits for anything.
func (t *turn) recall(p Past) {
	t.heavy = p.CPU > t.member.budget.long
	t.learn(p.CPU, p.CPU, p.Wall)
}

// ticket is the right to start one delivery of a lane. It is given back with done or cancel.
type ticket struct {
	turn   *turn
	pace   pace
	charge time.Duration
	share  float64 // of the budget's used; 0 when it takes none, or no longer
	began  time.Time
	heavy  bool // to be run where it keeps nobody from a processor
	first  bool // nothing was known of the function
	late   bool // first, and counted in the budget's late
	waits  bool // for something outside, so that it takes no place and no processor
	ended  bool
}

// tickets is a queue of tickets.
type tickets struct {
	list []*ticket
	head int
}

func (q *tickets) push(tk *ticket) { q.list = append(q.list, tk) }

// first returns the oldest ticket that was not given back, or nil. It drops those before it.
func (q *tickets) first() *ticket {
	for ; q.head < len(q.list); q.head++ {
		if tk := q.list[q.head]; !tk.ended && tk.share > 0 {
			return tk
		}
		q.list[q.head] = nil
	}
	q.list, q.head = q.list[:0], 0
	return nil
}

// shrink keeps the queue no longer than twice what is in it.
func (q *tickets) shrink() {
	if q.head > 64 && q.head*2 > len(q.list) {
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
}

// join adds a namespace with nothing to do. Nothing of it starts before it is opened.
func (b *Budget) join(workers, window int) *member {
	m := &member{budget: b, workers: workers, window: window}
	for p := range m.at {
		m.at[p] = -1
	}
	return m
}

// start lets deliveries of the namespace start, through begin.
func (m *member) start(begin func(*ticket) func()) {
	m.budget.mu.Lock()
	defer m.budget.mu.Unlock()
	m.begin, m.open = begin, true
	m.used = max(m.used, m.budget.clock)
	m.place()
}

// leave has nothing more of the namespace start. Tickets that are out are still given back.
func (m *member) leave() {
	m.budget.mu.Lock()
	defer m.budget.mu.Unlock()
	m.open = false
	m.place()
}

func (m *member) turn(ln *lane) *turn {
	return &turn{member: m, lane: ln, at: -1, pace: quick, share: 1}
}

// add says that one more delivery waits in the lane.
func (t *turn) add() {
	b := t.member.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	t.waiting++
	if t.at >= 0 || t.held {
		return
	}
	if t.waiting == 1 && t.running == 0 {
		t.used = max(t.used, t.member.clock)
		if t.member.running == 0 && !t.member.queued() {
			t.member.used = max(t.member.used, b.clock)
		}
	}
	t.place()
	t.member.place()
}

// fill starts deliveries while there is something to start and room for it. No lock may be held.
func (b *Budget) fill() {
	if run := b.fillRest(); run != nil {
		go b.work(run)
	}
}

// work makes a delivery and then, in the same goroutine, whatever may start now that it has ended: a new
// goroutine for each would wake a thread that finds nothing to do.
func (b *Budget) work(run func()) {
	for run != nil {
		run()
		run = b.fillRest()
	}
}

// fillRest is fill, but for the last delivery: it returns what makes that, or nil.
func (b *Budget) fillRest() (last func()) {
	for {
		b.mu.Lock()
		tk := b.pick(time.Now())
		b.mu.Unlock()
		if tk == nil {
			return last
		}
		run := tk.turn.member.begin(tk)
		if run == nil {
			continue
		}
		if last != nil {
			go b.work(last)
		}
		last = run
	}
}

// pick takes the next turn, or returns nil. b.mu is held.
func (b *Budget) pick(now time.Time) *ticket {
	b.lapse(now)
	for {
		m, p := b.next()
		if m == nil {
			b.lookAgain(now)
			return nil
		}
		t := m.queues[p].list[0]
		if p == waits && t.running >= m.workers-m.running {
			t.unplace() // so that others find a worker, however many wait: k such leave one part of k+1
			t.held = true
			m.held = append(m.held, t)
			m.place()
			continue
		}
		tk := &ticket{
			turn: t, pace: p, charge: max(t.cpu, leastCharge), began: now, first: !t.known,
			heavy: t.heavy || !t.known && b.late >= b.most[slow],
		}
		m.used, t.used = max(m.used, b.clock-mostCredit), max(t.used, m.clock-mostCredit)
		b.clock, m.clock = max(b.clock, m.used), max(m.clock, t.used)
		t.waiting--
		t.running++
		m.running++
		switch p {
		case quick:
			tk.share = t.share
			b.used += tk.share
			b.recent.push(tk)
		case medium, slow:
			b.running[p]++
		}
		t.used += tk.charge
		m.used += tk.charge
		t.place()
		m.place()
		return tk
	}
}

// lapse has quick attempts that take long no longer keep others from a processor.
func (b *Budget) lapse(now time.Time) {
	for tk := b.recent.first(); tk != nil && now.Sub(tk.began) >= b.long; tk = b.recent.first() {
		b.giveUp(tk)
		if tk.late = tk.first && !tk.heavy; tk.late {
			b.late++
		}
	}
	b.recent.shrink()
}

// giveUp takes the share of a ticket off what is used.
func (b *Budget) giveUp(tk *ticket) {
	b.used -= tk.share
	tk.share = 0
	if b.used < waiterShare/2 {
		b.used = 0 // what is left of adding and subtracting
	}
}

// lookAgain has fill called when the oldest quick attempt has taken long, if something waits for it.
func (b *Budget) lookAgain(now time.Time) {
	tk := b.recent.first()
	if tk == nil || len(b.queues[quick].list) == 0 {
		return
	}
	in := b.long - now.Sub(tk.began)
	if b.timer == nil {
		b.timer = time.AfterFunc(in, b.fill)
	} else {
		b.timer.Reset(in)
	}
}

// next returns the namespace whose turn it is, and the pace of what it may start.
func (b *Budget) next() (*member, pace) {
	var first *member
	var of pace
	for p := range paces {
		if p == quick && b.used >= b.processors || p >= medium && b.running[p] >= b.most[p] || len(b.queues[p].list) == 0 {
			continue
		}
		m := b.queues[p].list[0]
		switch {
		case first == nil || m.used < first.used:
			first, of = m, p
		case m == first && m.queues[p].list[0].used < m.queues[of].list[0].used:
			of = p
		}
	}
	return first, of
}

// done ends an attempt that took cpu of processor time in its sandbox, lasted for lasted, and emitted so many events.
func (b *Budget) done(tk *ticket, cpu, lasted time.Duration, emitted int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := cpu + time.Duration(emitted)*emitCharge
	tk.turn.learn(cpu, all, lasted)
	b.giveBack(tk, max(all, leastCharge))
}

// cancel gives back a ticket whose delivery was not attempted. Nothing is learned from it.
func (b *Budget) cancel(tk *ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.giveBack(tk, 0)
}

func (b *Budget) giveBack(tk *ticket, cost time.Duration) {
	t, m := tk.turn, tk.turn.member
	tk.ended = true
	if tk.late {
		b.late--
	}
	if tk.waits {
		b.waiting--
	} else {
		b.leave(tk)
	}
	t.used += cost - tk.charge
	m.used += cost - tk.charge
	m.release()
	t.place()
	m.place()
}

// leave takes an attempt off those that compute.
func (b *Budget) leave(tk *ticket) {
	switch tk.pace {
	case quick:
		b.giveUp(tk)
	case medium, slow:
		b.running[tk.pace]--
	}
	tk.turn.running--
	tk.turn.member.running--
}

// wait says that an attempt begins to wait for something outside, or that it goes on. While it waits it takes no place: others start. When it
// goes on it has its place again at once, though that is one more than there are; no other starts until there are fewer. No
// lock may be held that begin takes.
func (b *Budget) wait(tk *ticket, waits bool) {
	b.mu.Lock()
	changed := !tk.ended && tk.waits != waits && (!waits || b.waiting < mostWaiting)
	if changed {
		t, m := tk.turn, tk.turn.member
		tk.waits = waits
		if waits {
			b.waiting++
			b.leave(tk)
			m.release()
		} else {
			b.waiting--
			t.running++
			m.running++
			if tk.pace >= medium {
				b.running[tk.pace]++
			} // a quick one counts no longer: it has waited
		}
		t.place()
		m.place()
	}
	b.mu.Unlock()
	if changed && waits {
		b.fill()
	}
}

// learn folds an attempt into what is known of the function: it took cpu in its sandbox, and all with what the server did because of it. Only the first makes a
// function heavy: the other is not done where heavy ones run.
func (t *turn) learn(cpu, all, lasted time.Duration) {
	share := min(1, max(waiterShare/2, float64(all)/float64(max(lasted, 1))))
	if !t.known {
		t.known, t.cpu, t.share = true, all, share
	} else {
		t.cpu = max(all, t.cpu+(all-t.cpu)/8)
		t.share += (share - t.share) / 4
	}
	t.weigh(cpu)
	was := t.pace
	switch {
	case t.share < waiterShare:
		t.pace = waits
	case t.heavy && t.cpu > slowAttempt:
		t.pace = slow
	case t.heavy && t.member.budget.long < slowAttempt:
		t.pace = medium
	default:
		t.pace = quick
	}
	if t.pace != was && t.at >= 0 {
		heap.Remove(&t.member.queues[was], t.at)
	}
}

// weigh says whether the function is heavy, after an attempt that took cpu. One long attempt makes nobody heavy: it may have
// made an instance, which it would have to make again elsewhere. A few short ones make nobody light.
func (t *turn) weigh(cpu time.Duration) {
	long := t.member.budget.long
	if cpu <= long {
		t.long = 0
	} else if t.long++; t.long >= heavyAfter {
		t.heavy = true
	}
	if t.cpu < long/2 {
		t.heavy = false
	}
}

// release puts back the held turns that may start now. There are fewer than workers: each has an
// attempt running.
func (m *member) release() {
	kept := m.held[:0]
	for _, t := range m.held {
		if t.pace == waits && t.running >= m.workers-m.running {
			kept = append(kept, t)
			continue
		}
		t.held = false
		t.place()
	}
	clear(m.held[len(kept):])
	m.held = kept
}

// limit returns how many attempts of the lane may run at the same time. Of a function that nothing
// is known of, half as many do as of a quick one.
func (t *turn) limit() int {
	switch {
	case !t.known:
		return max(1, t.member.window/2)
	case t.pace >= medium:
		return t.member.budget.most[t.pace]
	case t.pace == quick:
		return t.member.window
	}
	return t.member.workers
}

// place puts the turn where it belongs after a change: in its queue, or out of it.
func (t *turn) place() {
	q := &t.member.queues[t.pace]
	switch wanted := t.waiting > 0 && t.running < t.limit() && !t.held; {
	case !wanted:
		t.unplace()
	case t.at >= 0:
		heap.Fix(q, t.at)
	default:
		heap.Push(q, t)
	}
}

func (t *turn) unplace() {
	if t.at >= 0 {
		heap.Remove(&t.member.queues[t.pace], t.at)
	}
}

// place puts the namespace where it belongs after a change.
func (m *member) place() {
	for p := range m.queues {
		q := &m.budget.queues[p]
		switch wanted := m.open && m.running < m.workers && len(m.queues[p].list) > 0; {
		case !wanted && m.at[p] >= 0:
			heap.Remove(q, m.at[p])
		case wanted && m.at[p] >= 0:
			heap.Fix(q, m.at[p])
		case wanted:
			heap.Push(q, m)
		}
	}
}

// queued reports whether the namespace waits for its turn.
func (m *member) queued() bool {
	for _, at := range m.at {
		if at >= 0 {
			return true
		}
	}
	return false
}

// turns is a heap of the turns of one pace, the least used first.
type turns struct{ list []*turn }

func (q *turns) Len() int           { return len(q.list) }
func (q *turns) Less(i, j int) bool { return q.list[i].used < q.list[j].used }

func (q *turns) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].at, q.list[j].at = i, j
}

func (q *turns) Push(x any) {
	t := x.(*turn)
	t.at = len(q.list)
	q.list = append(q.list, t)
}

func (q *turns) Pop() any {
	last := len(q.list) - 1
	t := q.list[last]
	q.list[last] = nil
	q.list = q.list[:last]
	t.at = -1
	return t
}

// members is a heap of the namespaces that have turns of one pace, the least used first.
type members struct {
	pace pace
	list []*member
}

func (q *members) Len() int           { return len(q.list) }
func (q *members) Less(i, j int) bool { return q.list[i].used < q.list[j].used }

func (q *members) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].at[q.pace], q.list[j].at[q.pace] = i, j
}

func (q *members) Push(x any) {
	m := x.(*member)
	m.at[q.pace] = len(q.list)
	q.list = append(q.list, m)
}

func (q *members) Pop() any {
	last := len(q.list) - 1
	m := q.list[last]
	q.list[last] = nil
	q.list = q.list[:last]
	m.at[q.pace] = -1
	return m
}
