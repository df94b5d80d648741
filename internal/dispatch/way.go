package dispatch

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/problem"
)

// errWhenFailed stands for the error of a condition that an earlier run could not evaluate.
var errWhenFailed = problem.New(problem.Unprocessable, "filter.when_failed",
	"the subscription's condition could not be evaluated for this event")

// way is a delivery that was done at its first attempt.
type way struct {
	index int
	route *route
	try   try
}

// ways are those of one batch, as the journal has them.
type ways struct {
	seq    uint64
	events int
	list   []way
}

// wayEntry is the journal's entry of a batch that has nothing live any more: 2 + 6 to 10 bytes for
// each delivery, and the names of the routes once.
func wayEntry(bt *batch) []byte {
	b := binary.AppendUvarint([]byte{entryWay}, bt.seq)
	b = binary.AppendUvarint(b, uint64(bt.events))
	b = binary.AppendUvarint(b, uint64(len(bt.ways)))
	if len(bt.ways) == 0 {
		return b
	}
	base := bt.read.UnixNano()
	b = binary.AppendVarint(b, base)
	routes := map[*route]int{}
	for i := range bt.ways {
		w := &bt.ways[i]
		b = binary.AppendUvarint(b, uint64(w.index))
		n, seen := routes[w.route]
		if !seen {
			n = len(routes)
			routes[w.route] = n
		}
		b = binary.AppendUvarint(b, uint64(n))
		if !seen {
			b = appendString(b, string(w.route.sub))
			b = appendString(b, string(w.route.fn))
		}
		b = appendTry(b, base, &w.try)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseWays parses the entry that wayEntry makes.
func parseWays(entry []byte) (ways, error) {
	p := parser{b: entry[1:]}
	w := ways{seq: p.uvarint(), events: int(min(p.uvarint(), ident.MaxBatchEvents))}
	n := p.uvarint()
	if n == 0 || p.bad {
		return w, p.err()
	}
	base := p.varint()
	var routes []*route
	for range min(n, uint64(len(entry))) {
		one := way{index: int(p.uvarint() % ident.MaxBatchEvents)}
		switch r := p.uvarint(); {
		case r < uint64(len(routes)):
			one.route = routes[r]
		case r == uint64(len(routes)):
			one.route = &route{sub: ident.SubscriptionName(p.text()), fn: ident.FunctionName(p.text())}
			routes = append(routes, one.route)
		default:
			return w, errEntry
		}
		if one.try = p.try(base); p.bad {
			return w, errEntry
		}
		w.list = append(w.list, one)
	}
	return w, p.err()
}

// parser takes numbers and texts off b; what does not fit sets bad.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) err() error {
	if p.bad || len(p.b) > 0 {
		return errEntry
	}
	return nil
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	return take(p, v, n)
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.b)
	return take(p, v, n)
}

func take[T int64 | uint64](p *parser, v T, n int) T {
	if n <= 0 {
		p.bad, p.b = true, nil
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) text() string {
	n := p.uvarint()
	if n > uint64(len(p.b)) {
		p.bad, p.b = true, nil
		return ""
	}
	s := string(p.b[:n])
	p.b = p.b[n:]
	return s
}

// Limits of what is remembered, so that a question about a recent event reads no journal.
const (
	pastBatches = 256
	pastSettled = 4096
	keptReplies = 1024
	maxWayReads = 2048 // batches of the journal read for one old event
	errStopSoon = stopReading("enough")
	maxWayEmits = 1000
)

type stopReading string

func (s stopReading) Error() string { return string(s) }

// history remembers how recent deliveries went. d.mu guards it.
type history struct {
	batches    [pastBatches]*batch
	turn       int
	ends       map[deliveryKey]*delivery
	endOrder   []deliveryKey
	chunk      uint64 // of the last append to the journal
	journal    uint64 // the last batch of the journal
	generation uint64 // of the last snapshot
}

func (h *history) add(bt *batch) {
	bt.queue = nil
	h.batches[h.turn%pastBatches] = bt
	h.turn++
}

// settled keeps a delivery that has ended. Nothing changes it any more.
func (h *history) settled(del *delivery, dead bool) {
	if h.ends == nil {
		h.ends = map[deliveryKey]*delivery{}
	}
	k := del.key()
	if h.ends[k] == nil {
		if len(h.endOrder) >= pastSettled {
			delete(h.ends, h.endOrder[0])
			h.endOrder = h.endOrder[1:]
		}
		h.endOrder = append(h.endOrder, k)
	}
	del.rec, del.batch, del.dead = nil, nil, dead
	h.ends[k] = del
}

// State returns where the event at pos stands. Events that were not read yet are pending.
func (d *Dispatcher) State(pos ident.Position) api.EventState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stateOf(pos)
}

func (d *Dispatcher) stateOf(pos ident.Position) api.EventState {
	seq := pos.Batch()
	if seq >= d.floor {
		bt := d.liveBatch(seq)
		if bt == nil || bt.leftOf(pos) > 0 {
			return api.StatePending
		}
	}
	switch ev := d.open[pos]; {
	case ev == nil:
		return api.StateDone
	case ev.pending > 0:
		return api.StatePending
	}
	return api.StateDead
}

// Way returns where the event at pos stands and the deliveries of it, as far as they are known:
// those of recent events from memory, those of older ones from the journal.
func (d *Dispatcher) Way(ctx context.Context, pos ident.Position) (api.EventState, []api.Delivery, error) {
	found := map[ident.SubscriptionName]api.Delivery{}
	d.mu.Lock()
	state := d.stateOf(pos)
	known := d.recall(pos, found)
	from, last := d.journalOf(pos.Batch())
	d.mu.Unlock()
	if !known && last > 0 {
		if err := d.readWay(ctx, pos, from, found); err != nil {
			return state, nil, err
		}
	}
	d.mu.Lock()
	for r := range d.routes {
		if del := d.parked[deliveryKey{pos, r.sub}]; del != nil {
			found[r.sub] = d.describe(del, api.StatePending)
		}
	}
	d.mu.Unlock()
	out := make([]api.Delivery, 0, len(found))
	for _, one := range found {
		out = append(out, one)
	}
	sortDeliveries(out)
	return state, out, nil
}

// recall gathers what memory knows of an event's deliveries, and reports whether that is all.
func (d *Dispatcher) recall(pos ident.Position, found map[ident.SubscriptionName]api.Delivery) bool {
	known := false
	look := func(bt *batch) {
		if bt == nil || bt.seq != pos.Batch() {
			return
		}
		known = true
		for i := range bt.ways {
			if w := &bt.ways[i]; w.index == pos.Index() {
				found[w.route.sub] = d.describe(&delivery{pos: pos, route: w.route, tries: []try{w.try}}, api.StateDone)
			}
		}
		for _, del := range bt.queue {
			if del.pos == pos && del.batch == bt {
				found[del.route.sub] = d.describe(del, api.StatePending)
			}
		}
	}
	for _, bt := range d.past.batches {
		look(bt)
	}
	look(d.liveBatch(pos.Batch()))
	for _, key := range d.past.endOrder {
		if key.pos == pos {
			del := d.past.ends[key]
			state := api.StateDone
			if del.dead {
				state = api.StateDead
			}
			found[key.sub] = d.describe(del, state)
		}
	}
	return known
}

// journalOf returns where in the journal to begin to look for a batch.
func (d *Dispatcher) journalOf(seq uint64) (from, last uint64) {
	n := 0
	for n < len(d.index) && d.index[n].Batch <= seq {
		n++
	}
	// A delivery may be settled a while before its batch is: so some marks further back.
	if n -= 3; n < 0 {
		return 1, d.past.journal
	}
	return d.index[n].Journal, d.past.journal
}

// readWay looks an old event up in the journal.
func (d *Dispatcher) readWay(ctx context.Context, pos ident.Position, from uint64, found map[ident.SubscriptionName]api.Delivery) error {
	err := d.cfg.Journal.Read(ctx, from, func(seq uint64, recs [][]byte) error {
		for _, rec := range recs {
			if len(rec) == 0 {
				continue
			}
			switch rec[0] {
			case entryWay:
				w, err := parseWays(rec)
				if err != nil {
					return err
				}
				if w.seq != pos.Batch() {
					continue
				}
				for i := range w.list {
					if one := &w.list[i]; one.index == pos.Index() {
						found[one.route.sub] = d.describe(&delivery{pos: pos, route: one.route, tries: []try{one.try}}, api.StateDone)
					}
				}
			case entrySettle:
				var t parkedText
				if err := json.Unmarshal(rec[1:], &t); err == nil && t.Pos == pos {
					d.found(&t, found)
				}
			case entrySettlePlain:
				err := parsePacked(rec, func(t *parkedText) {
					if t.Pos == pos {
						d.found(t, found)
					}
				})
				if err != nil {
					return err
				}
			}
		}
		if seq > from+maxWayReads {
			return errStopSoon
		}
		return ctx.Err()
	})
	if errors.Is(err, errStopSoon) {
		return nil
	}
	return err
}

// found adds a settled delivery to those that were found.
func (d *Dispatcher) found(t *parkedText, found map[ident.SubscriptionName]api.Delivery) {
	state := api.StateDone
	if t.Dead {
		state = api.StateDead
	}
	found[t.Sub] = d.describe(&delivery{pos: t.Pos, route: &route{t.Sub, t.Fn}, tries: t.Tries}, state)
}

// describe returns a delivery as the API shows it.
func (d *Dispatcher) describe(del *delivery, state api.EventState) api.Delivery {
	out := api.Delivery{Subscription: string(del.route.sub), Function: string(del.route.fn), State: state}
	for _, t := range del.tries {
		a := api.Attempt{
			Number: t.Number, Started: time.Unix(0, t.Started).UTC(), Finished: time.Unix(0, t.Finished).UTC(),
			Code: t.Code, Error: t.Error,
		}
		for i := range min(t.Emitted, maxWayEmits) {
			a.Emitted = append(a.Emitted, ingress.EmittedID(d.cfg.Namespace, del.route.fn, del.route.sub, del.pos, i))
		}
		out.Attempts = append(out.Attempts, a)
		out.Revision = t.Revision
	}
	if state == api.StatePending && del.next > 0 {
		at := time.Unix(0, del.next).UTC()
		out.NextAttempt = &at
	}
	return out
}

func sortDeliveries(list []api.Delivery) {
	for i := 1; i < len(list); i++ {
		for j := i; j > 0 && list[j].Subscription < list[j-1].Subscription; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

// Reply is what a direct invocation came to: a value or a problem.
type Reply struct {
	Value   []byte // JSON; empty when the function replied nothing
	Problem *problem.Error
}

// replies remembers the latest replies.
type replies struct {
	m     map[ident.Position]Reply
	order []ident.Position
}

func (r *replies) add(pos ident.Position, reply Reply) {
	if r.m == nil {
		r.m = map[ident.Position]Reply{}
	}
	if len(r.order) >= keptReplies {
		delete(r.m, r.order[0])
		r.order = r.order[1:]
	}
	r.m[pos] = reply
	r.order = append(r.order, pos)
}

// Await waits until the event at pos has nothing pending, or ctx ends. Reply is set for a recent
// direct invocation.
func (d *Dispatcher) Await(ctx context.Context, pos ident.Position) (api.EventState, *Reply, error) {
	for {
		d.mu.Lock()
		state := d.stateOf(pos)
		if state != api.StatePending {
			var reply *Reply
			if r, ok := d.replies.m[pos]; ok {
				reply = &r
			}
			d.mu.Unlock()
			return state, reply, nil
		}
		c := make(chan struct{})
		d.waiters[pos] = append(d.waiters[pos], c)
		d.mu.Unlock()
		select {
		case <-c:
		case <-ctx.Done():
			d.forget(pos, c)
			return api.StatePending, nil, ctx.Err()
		}
	}
}

func (d *Dispatcher) forget(pos ident.Position, c chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.waiters[pos]
	for i := range list {
		if list[i] == c {
			d.waiters[pos] = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(d.waiters[pos]) == 0 {
		delete(d.waiters, pos)
	}
}

// Balance counts events: accepted = Done + Dead + pending.
type Balance struct {
	Done, Dead  int64
	DeadLetters int64
}

// Balance returns how many events are done and dead; all others that were accepted are pending. It takes as long as there are
// dead letters, and not as long as the backlog is.
func (d *Dispatcher) Balance() Balance {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := Balance{Done: d.done + d.ahead, Dead: d.closed, DeadLetters: int64(len(d.dead))}
	several := map[ident.Position]struct{}{} // events with more letters than one, that are counted
	for key := range d.dead {
		ev := d.open[key.pos]
		if _, counted := several[key.pos]; counted || ev == nil || ev.pending > 0 || !d.isRead(key.pos) {
			continue
		}
		if b.Dead++; ev.dead > 1 {
			several[key.pos] = struct{}{}
		}
	}
	for pos := range d.gone {
		if d.open[pos] == nil && d.isRead(pos) {
			b.Dead++
		}
	}
	return b
}

// isRead reports whether the deliveries of an event were made, and none of them is live any more.
func (d *Dispatcher) isRead(pos ident.Position) bool {
	return pos.Batch() < d.next && d.liveBatch(pos.Batch()).leftOf(pos) == 0
}

// Counts are the deliveries of one subscription that are pending by themselves, and its dead letters.
type Counts struct{ Pending, Dead int64 }

// Counts returns the counters of each subscription that has any.
func (d *Dispatcher) Counts() map[ident.SubscriptionName]Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[ident.SubscriptionName]Counts{}
	for sub, n := range d.pending {
		out[sub] = Counts{Pending: n}
	}
	for _, bt := range d.live {
		for _, del := range bt.queue {
			if del.batch == bt && bt.left[del.pos.Index()] > 0 {
				c := out[del.route.sub]
				c.Pending++
				out[del.route.sub] = c
			}
		}
	}
	for key := range d.dead {
		c := out[key.sub]
		c.Dead++
		out[key.sub] = c
	}
	return out
}
