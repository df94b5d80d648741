// Package dispatch hands accepted events to functions: at least once, each on its own, and accounts
// for every one.
//
// A reader takes each batch of the event log once, in order, and makes a delivery of every event for
// every subscription that matches. Deliveries wait in a lane per function, so a slow or failing
// function holds up nobody else; a Budget, shared by all namespaces, says which lane is next. What a delivery came to is kept in a journal, packed and sealed
// like the event log, and only as far as it is not plain: a batch whose deliveries were all done at
// the first attempt is one short entry.
//
// The floor is the batch below which nothing is left to do but what the journal names: parked
// deliveries (waiting for a retry, for their lane, or for a pause to end) and dead letters. After a
// crash the reader starts at the floor, so a delivery may be made again, but none is lost and none
// is counted twice: accepted = done + dead + pending, in events, at every moment.
//
// Callers: server (New, Run), httpapi (Await, Way, Balance, dead letters).
package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/deploy"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/redact"
	"sallyport/internal/store"
)

// Log is the event log that is read; eventlog.Log is one.
type Log interface {
	Next(ctx context.Context, after uint64) (*eventlog.Batch, error)
	Batch(ctx context.Context, seq uint64) (*eventlog.Batch, error)
	SetTrimFloor(batch uint64)
}

// Journal is where the state of deliveries is kept; eventlog.Journal is one.
type Journal interface {
	Append(ctx context.Context, recs [][]byte) (seq uint64, err error)
	Read(ctx context.Context, from uint64, fn func(seq uint64, recs [][]byte) error) error
	Trim(ctx context.Context, before uint64) error
}

// Bucket is a sealed key-value space; store.Bucket is one.
type Bucket interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]store.Entry, error)
}

// Emitter publishes what functions return; ingress.Intake is one.
type Emitter interface {
	Emit(ctx context.Context, em ingress.Emission) ([]string, error)
}

// LineWriter takes what functions log; funclog.Logs is one.
type LineWriter interface{ Append(line api.LogLine) }

// Config says what a Dispatcher works with.
type Config struct {
	Namespace   ident.Namespace
	Log         Log
	Journal     Journal
	Snapshots   Bucket
	DeadLetters Bucket
	Emitter     Emitter
	Lines       LineWriter
	// State returns what is active in the namespace.
	State func() *deploy.State
	// CanDeliver, when set, returns why events of a type are not delivered to a function.
	CanDeliver func(t ident.EventType, f ident.FunctionName) error
	// Full, when set, reports whether the namespace stores more than it may. What functions emit is never refused for that; deliveries to those
	// that may emit wait until it is over. It is called with no lock held.
	Full func() bool
	// Redactor, when set, returns what takes the secrets of a function out of everything that it says; nil for none.
	Redactor func(ctx context.Context, f *deploy.Function) (*redact.Set, error)
	// Workers is how many invocations run at the same time; 0 takes 16 for each processor.
	Workers int
	// Budget shares the processors with other namespaces; nil makes one for this alone.
	Budget *Budget
	// Past is what earlier runs knew of the functions; nil is nothing.
	Past   map[ident.FunctionName]Past
	Logger *slog.Logger
	// Attempted, when set, is told of each attempt: "done", "retry" or "dead", and how long it took.
	Attempted func(outcome string, took time.Duration)
	// Used, when set, is told what each invocation took.
	Used func(Use)
	// Moved, when set, is called after events were read and after each attempt, when Way and State tell of it. It MUST NOT block.
	Moved func()
}

// Use is what one invocation took, and whose it was.
type Use struct {
	Function  ident.FunctionName
	Revision  int
	Principal ident.PrincipalID // that published the event
	Outcome   string            // "done", "retry" or "dead"
	At        time.Time
	Usage     cell.Usage
}

// Limits of a dispatcher. A parked delivery takes about 150 bytes of memory.
const (
	liveBatches   = 256  // read, and not below the floor yet
	lanePrefetch  = 1024 // deliveries of a lane that keep their event in memory
	parkAfter     = time.Second
	parkEvery     = 250 * time.Millisecond
	fullFor       = time.Second            // a namespace that is full for so long is worth a line in the log
	journalEvery  = 100 * time.Millisecond // entries wait this long for company: an fsync takes the disk from producers
	maxOutbox     = 1 << 17                // entries; past it the reader waits for the journal
	stopGrace     = 4 * time.Second        // for attempts under way
	writeGrace    = 2 * time.Second        // for the journal
	snapshotEvery = 1 << 15                // entries, of which one that tells of many counts as so many:
	entryBytes    = 64                     // so long is one, about
	maxErrorBytes = 1 << 10
	keptTries     = 10 // of one delivery: the first and the latest
)

// Dispatcher delivers the events of one namespace. Its methods may be called concurrently.
type Dispatcher struct {
	cfg  Config
	log  *slog.Logger
	part *member // of the budget

	mu     sync.Mutex
	live   []*batch // from the floor on, in order
	next   uint64   // the batch the reader wants
	floor  uint64
	done   int64 // events below the floor that are done
	ahead  int64 // events at or above the floor that are done
	closed int64 // events that ended dead and whose dead letters were discarded
	open   map[ident.Position]*openEvent
	parked map[deliveryKey]*delivery
	// pending counts parked by subscription.
	pending map[ident.SubscriptionName]int64
	dead    map[deliveryKey]struct{}
	// gone are the events of discarded dead letters that are not in closed yet: something of them is
	// pending or dead, or they are at or above the floor.
	gone map[ident.Position]struct{}
	// settled are the deliveries at or above the floor that the journal names as done or dead, by batch.
	settled map[uint64]map[deliveryKey]struct{}
	routes  map[route]*route
	lanes   map[ident.FunctionName]*lane
	retries retryHeap
	stopped bool
	past    history
	replies replies
	waiters map[ident.Position][]chan struct{}

	outbox  outbox
	index   []indexMark // where the ways of batches are in the journal
	entries int         // since the last snapshot
	room    chan struct{}
	timer   chan struct{}
	full    atomic.Bool // what Full last said
	batches batchCache
	attempt sync.WaitGroup
	letters sync.RWMutex // held to write one and settle its delivery; held alone to remove one
}

// route is where a delivery goes: a subscription and its function, or a function alone.
type route struct {
	sub ident.SubscriptionName
	fn  ident.FunctionName
}

// deliveryKey identifies a delivery: there is one for an event and a subscription.
type deliveryKey struct {
	pos ident.Position
	sub ident.SubscriptionName
}

// openEvent counts what is left of an event that has parked deliveries or dead letters.
type openEvent struct{ pending, dead int32 }

// batch is a batch of the log at or above the floor.
type batch struct {
	seq      uint64
	read     time.Time
	events   int
	left     []int32 // live deliveries of each event; nil when there are none at all
	pending  int     // live deliveries of all events
	finished int64   // events done, counted in ahead
	ways     []way
	queue    []*delivery // live deliveries, to park those that take long
}

// delivery is the handing of one event to one function. A live one belongs to its batch; a parked
// one is in the journal by itself.
type delivery struct {
	pos    ident.Position
	route  *route
	batch  *batch        // nil when parked
	rec    *event.Record // nil: to be read again
	tries  []try
	made   int   // attempts
	next   int64 // Unix nanoseconds; when the next attempt is due
	failed error // why it cannot be attempted: its condition failed
	state  deliveryState
	final  bool    // attempted once only
	dead   bool    // settled as such
	heavy  bool    // the attempt under way is of a heavy function
	ticket *ticket // of the attempt under way
}

type deliveryState uint8

const (
	queued deliveryState = iota
	underway
	waiting // for its retry
	paused
)

func (d *delivery) key() deliveryKey { return deliveryKey{d.pos, d.route.sub} }

// lane holds the deliveries of one function.
type lane struct {
	queue  fifo
	direct fifo // those that a caller waits for
	ahead  int  // so many of direct went before queue, one after the other
	live   int  // of both, with their events in memory
	turn   *turn
}

// directAhead is how many callers are served before one event of the same function.
const directAhead = 4

// pop returns the delivery that is next, or nil: a caller waits and an event does not, but callers
// in any number do not stop the events.
func (ln *lane) pop() *delivery {
	if ln.ahead < directAhead {
		if del := ln.direct.pop(); del != nil {
			ln.ahead++
			return del
		}
	}
	ln.ahead = 0
	if del := ln.queue.pop(); del != nil {
		return del
	}
	return ln.direct.pop()
}

// New returns a dispatcher in the state its journal tells. Run makes it work.
func New(ctx context.Context, cfg Config) (*Dispatcher, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Workers == 0 {
		cfg.Workers = 16 * runtime.GOMAXPROCS(0)
	}
	if cfg.Budget == nil {
		cfg.Budget = NewBudget(0)
	}
	d := &Dispatcher{
		cfg: cfg, log: cfg.Logger.With("namespace", string(cfg.Namespace)),
		part:  cfg.Budget.join(cfg.Workers, 2*runtime.GOMAXPROCS(0)),
		floor: 1, next: 1,
		open: map[ident.Position]*openEvent{}, parked: map[deliveryKey]*delivery{}, pending: map[ident.SubscriptionName]int64{},
		dead: map[deliveryKey]struct{}{}, settled: map[uint64]map[deliveryKey]struct{}{}, gone: map[ident.Position]struct{}{},
		routes: map[route]*route{}, lanes: map[ident.FunctionName]*lane{},
		waiters: map[ident.Position][]chan struct{}{},
		room:    make(chan struct{}, 1), timer: make(chan struct{}, 1),
	}
	d.outbox.init()
	d.batches.log = cfg.Log
	if err := d.recover(ctx); err != nil {
		return nil, fmt.Errorf("recover deliveries of %q: %w", cfg.Namespace, err)
	}
	return d, nil
}

// Run delivers until ctx ends. Then it starts nothing more, gives attempts that are under way up to
// five seconds, writes what they came to, and returns. What was not finished is delivered again
// after the next start.
func (d *Dispatcher) Run(ctx context.Context) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	write, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriting()
	d.measureFull()

	var background, writer sync.WaitGroup
	var readErr error
	background.Go(func() { readErr = d.read(ctx) })
	background.Go(func() { d.keepTime(ctx) })
	writer.Go(func() { d.writeJournal(write) })
	d.part.start(func(tk *ticket) func() { return d.begin(work, tk) })
	d.cfg.Budget.fill()

	<-ctx.Done()
	background.Wait()
	d.mu.Lock()
	d.stopped = true
	d.mu.Unlock()
	d.part.leave()
	finished := make(chan struct{})
	go func() { d.attempt.Wait(); close(finished) }()
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-finished:
	case <-grace.C:
		stopWork() // ends the invocations; they count as not made
		<-finished
	}
	d.mu.Lock()
	d.parkSlow(time.Now(), 0) // so that no batch is read again for what is left of it
	d.mu.Unlock()
	d.outbox.close()
	grace.Reset(writeGrace)
	written := make(chan struct{})
	go func() { writer.Wait(); close(written) }()
	select {
	case <-written:
	case <-grace.C:
		stopWriting() // the disk does not take it: what it held is made again
		<-written
	}
	if err := d.snapshot(write); err != nil {
		d.log.Warn("write snapshot of deliveries; the next start reads more of the journal", "error", err)
	}
	return readErr
}

// read takes batches off the log until ctx ends.
func (d *Dispatcher) read(ctx context.Context) error {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		next, full := d.wanted(time.Now())
		if full {
			again.Reset(slowAttempt)
			select {
			case <-d.room:
			case <-again.C:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		b, err := d.cfg.Log.Next(ctx, next-1)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			// A damaged batch must not be passed over in silence: delivery stands still and says so.
			d.log.Error("read event log; deliveries stand still until it can be read", "after", next-1, "error", err)
			select {
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
				return nil
			}
		}
		d.mu.Lock()
		d.admit(b)
		d.advance()
		d.mu.Unlock()
		d.moved()
		d.cfg.Budget.fill()
	}
}

// wanted returns the batch that is to be read next, and whether there is no room for it yet. A few slow deliveries are enough to fill the
// room with batches that are done but for them: they leave it then, or whatever comes would wait for them, whoever it is for.
func (d *Dispatcher) wanted(now time.Time) (next uint64, full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.outbox.size() >= maxOutbox {
		return d.next, true
	}
	if len(d.live) >= liveBatches {
		d.parkSlow(now, slowAttempt)
	}
	return d.next, len(d.live) >= liveBatches
}

func (d *Dispatcher) moved() {
	if d.cfg.Moved != nil {
		d.cfg.Moved()
	}
}

// admit makes the deliveries of a batch. d.mu is held.
func (d *Dispatcher) admit(b *eventlog.Batch) {
	state := d.cfg.State()
	bt := &batch{seq: b.Seq, read: time.Now(), events: len(b.Records)}
	d.live = append(d.live, bt)
	d.next = b.Seq + 1
	for i := range b.Records {
		rec := &b.Records[i]
		add := func(r route, final bool, err error) {
			d.addLive(bt, rec, i, r, final, err)
		}
		switch {
		case rec.Target != "":
			add(route{fn: rec.Target}, true, nil)
		default:
			state.Match(rec, func(s *deploy.Subscription, err error) {
				if rec.OnlySubscription == "" || rec.OnlySubscription == s.Name {
					add(route{sub: s.Name, fn: s.Function.Name}, false, err)
				}
			})
		}
		d.conclude(rec.Position)
	}
}

// addLive queues one delivery of a batch, unless an earlier run has parked or settled it.
func (d *Dispatcher) addLive(bt *batch, rec *event.Record, i int, r route, final bool, failed error) {
	key := deliveryKey{rec.Position, r.sub}
	if _, ok := d.settled[rec.Position.Batch()][key]; ok || d.parked[key] != nil {
		return
	}
	if bt.left == nil {
		bt.left = make([]int32, bt.events)
	}
	del := &delivery{pos: rec.Position, route: d.intern(r), batch: bt, rec: rec, failed: failed, final: final}
	bt.left[i]++
	bt.pending++
	bt.queue = append(bt.queue, del)
	ln := d.lane(r.fn)
	if ln.live >= lanePrefetch {
		d.park(del)
	}
	d.enqueue(ln, del)
}

func (d *Dispatcher) intern(r route) *route {
	p := d.routes[r]
	if p == nil {
		p = &r
		d.routes[r] = p
	}
	return p
}

func (d *Dispatcher) lane(fn ident.FunctionName) *lane {
	ln := d.lanes[fn]
	if ln == nil {
		ln = &lane{}
		ln.turn = d.part.turn(ln)
		if past, ok := d.cfg.Past[fn]; ok {
			ln.turn.recall(past)
		}
		d.lanes[fn] = ln
	}
	return ln
}

func (d *Dispatcher) enqueue(ln *lane, del *delivery) {
	del.state = queued
	if del.batch != nil {
		ln.live++
	}
	if del.route.sub == "" {
		ln.direct.push(del)
	} else {
		ln.queue.push(del)
	}
	ln.turn.add()
}

// park makes a live delivery one that the journal knows by itself, so that its batch need not wait
// for it.
func (d *Dispatcher) park(del *delivery) {
	bt := del.batch
	if bt == nil {
		return
	}
	if del.state == queued && del.rec != nil {
		del.rec = nil // read again when its turn comes
	}
	del.batch = nil
	d.setParked(del)
	ev := d.open[del.pos]
	if ev == nil {
		ev = &openEvent{}
		d.open[del.pos] = ev
	}
	ev.pending++
	bt.left[del.pos.Index()]--
	bt.pending--
	d.outbox.addPark(del)
}

// setParked puts a delivery among those that are pending by themselves, in the place of an earlier one.
func (d *Dispatcher) setParked(del *delivery) {
	key := del.key()
	if d.parked[key] == nil {
		d.pending[key.sub]++
	}
	d.parked[key] = del
}

// unpark takes a delivery off them, and reports whether it was there.
func (d *Dispatcher) unpark(key deliveryKey) bool {
	if d.parked[key] == nil {
		return false
	}
	delete(d.parked, key)
	if d.pending[key.sub]--; d.pending[key.sub] == 0 {
		delete(d.pending, key.sub)
	}
	return true
}

// wake tells those who wait for an event.
func (d *Dispatcher) wake(pos ident.Position) {
	for _, c := range d.waiters[pos] {
		close(c)
	}
	delete(d.waiters, pos)
}

// advance moves the floor over the batches in which nothing is live any more.
func (d *Dispatcher) advance() {
	n := 0
	for n < len(d.live) && d.live[n].pending == 0 {
		bt := d.live[n]
		d.done += bt.finished
		d.ahead -= bt.finished
		d.floor = bt.seq + 1
		d.passed(bt.seq, bt.events)
		d.outbox.add(wayEntry(bt))
		d.past.add(bt)
		n++
	}
	if n == 0 {
		return
	}
	rest := copy(d.live, d.live[n:])
	clear(d.live[rest:])
	d.live = d.live[:rest]
	select {
	case d.room <- struct{}{}:
	default:
	}
}

// passed notes that the floor is above batch seq: discarded events can be counted for good.
func (d *Dispatcher) passed(seq uint64, events int) {
	delete(d.settled, seq)
	if len(d.gone) == 0 {
		return
	}
	for i := range events {
		pos := ident.NewPosition(seq, i)
		if _, gone := d.gone[pos]; gone && d.open[pos] == nil {
			delete(d.gone, pos)
			d.closed++
		}
	}
}

// leftOf returns how many live deliveries of an event the batch has; bt may be nil.
func (bt *batch) leftOf(pos ident.Position) int32 {
	if bt == nil || bt.left == nil {
		return 0
	}
	return bt.left[pos.Index()]
}

// liveBatch returns the batch with this sequence if it is at or above the floor and read.
func (d *Dispatcher) liveBatch(seq uint64) *batch {
	if len(d.live) == 0 || seq < d.live[0].seq {
		return nil
	}
	// Numbers rise, mostly by one: the batch is at the place that this would give, or before it.
	for i := min(seq-d.live[0].seq, uint64(len(d.live)-1)); ; i-- {
		switch bt := d.live[i]; {
		case bt.seq == seq:
			return bt
		case bt.seq < seq:
			return nil
		}
	}
}

// begin returns what makes an attempt at the next delivery of the ticket's lane, or nil when there is to be none.
func (d *Dispatcher) begin(work context.Context, tk *ticket) func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		d.cfg.Budget.cancel(tk)
		return nil
	}
	ln := tk.turn.lane
	del := ln.pop()
	if del.batch != nil {
		ln.live--
	}
	if d.isPaused(del) || d.isHeld(del) {
		d.park(del)
		del.state = paused
		d.cfg.Budget.cancel(tk)
		return nil
	}
	del.state, del.heavy = underway, tk.heavy
	d.attempt.Add(1)
	return func() {
		defer d.attempt.Done()
		d.deliver(work, tk, del)
	}
}

// isPaused reports whether the delivery's subscription is paused.
func (d *Dispatcher) isPaused(del *delivery) bool {
	sub := d.cfg.State().Subscriptions[del.route.sub]
	return sub != nil && sub.Paused
}

// isHeld reports whether the delivery waits for room in the namespace: whoever waits for the answer of an invocation does not.
func (d *Dispatcher) isHeld(del *delivery) bool {
	if del.route.sub == "" || !d.full.Load() {
		return false
	}
	fn, err := d.cfg.State().Function(del.route.fn)
	return err == nil && fn.Emits()
}

// measureFull sees whether the namespace stores more than it may. d.mu is not held.
func (d *Dispatcher) measureFull() {
	if d.cfg.Full == nil {
		return
	}
	if full := d.cfg.Full(); d.full.Swap(full) && !full {
		d.Changed()
	}
}

// tellFull logs that deliveries are held, and that they are not any more. What a measure ends at once is not worth a line: what emissions
// take is estimated in between.
func (d *Dispatcher) tellFull(t *fullTold) {
	switch full := d.full.Load(); {
	case !full && t.told:
		d.log.Info("the namespace has room again: deliveries to functions that emit events go on")
		*t = fullTold{}
	case !full:
		*t = fullTold{}
	case t.since.IsZero():
		t.since = time.Now()
	case !t.told && time.Since(t.since) >= fullFor:
		d.log.Warn("the namespace stores as much as its quota stored_bytes allows: deliveries to functions that emit events wait")
		t.told = true
	}
}

// fullTold is since when the namespace is full, and whether that was logged.
type fullTold struct {
	since time.Time
	told  bool
}

// Changed tells the dispatcher that what is active has changed: deliveries that nothing pauses any more go on.
func (d *Dispatcher) Changed() {
	d.mu.Lock()
	for _, del := range d.inOrder(func(del *delivery) bool { return del.state == paused && !d.isPaused(del) && !d.isHeld(del) }) {
		d.enqueue(d.lane(del.route.fn), del)
	}
	d.mu.Unlock()
	d.poke()
}

// inOrder returns the parked deliveries that are wanted, by position. Neighbours are mostly of one batch: in the
// order of the map, each delivery of a long backlog would read and unseal a batch of its own. d.mu is held.
func (d *Dispatcher) inOrder(wanted func(*delivery) bool) []*delivery {
	var out []*delivery
	for _, del := range d.parked {
		if wanted(del) {
			out = append(out, del)
		}
	}
	slices.SortFunc(out, func(a, b *delivery) int { return cmp.Compare(a.pos, b.pos) })
	return out
}

// poke has the time keeper look at once.
func (d *Dispatcher) poke() {
	select {
	case d.timer <- struct{}{}:
	default:
	}
}

// keepTime starts retries when they are due, parks deliveries that take long so that the floor can
// move, and tells the log what must stay.
func (d *Dispatcher) keepTime(ctx context.Context) {
	tick := time.NewTicker(parkEvery)
	defer tick.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	var told fullTold
	for turn := 0; ; {
		d.measureFull()
		d.tellFull(&told)
		d.mu.Lock()
		now := time.Now()
		for next := d.retries.peek(); next != nil && next.next <= now.UnixNano(); next = d.retries.peek() {
			d.enqueue(d.lane(next.route.fn), d.retries.pop())
		}
		if next := d.retries.peek(); next != nil {
			due.Reset(time.Duration(max(0, next.next-now.UnixNano())))
		}
		d.mu.Unlock()
		d.cfg.Budget.fill()
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		case <-d.timer:
		case <-tick.C:
			d.mu.Lock()
			d.parkSlow(now, parkAfter)
			if turn++; turn%(int(30*time.Second/parkEvery)) == 1 {
				d.cfg.Log.SetTrimFloor(d.oldest())
			}
			d.mu.Unlock()
		}
	}
}

// parkSlow parks what is left of batches that were read so long ago.
func (d *Dispatcher) parkSlow(now time.Time, ago time.Duration) {
	for _, bt := range d.live {
		if now.Sub(bt.read) < ago {
			break
		}
		for _, del := range bt.queue {
			if del.batch != bt {
				continue
			}
			if del.state == queued {
				d.lanes[del.route.fn].live--
			}
			d.park(del)
		}
	}
	d.advance()
}

// oldest returns the first batch that a delivery still needs.
func (d *Dispatcher) oldest() uint64 {
	first := d.floor
	for key := range d.parked {
		first = min(first, key.pos.Batch())
	}
	return first
}
