package dispatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/ident"
)

// An entry of the journal begins with its kind. Entries are written in the order of what they tell,
// but for deliveries that have nothing to do with each other, so any prefix of the journal is a state that could have been.
const (
	entryChunk   = 'C' // number of the append, to tell one that was written twice
	entryWay     = 'W' // a batch has nothing live any more
	entryPark    = 'P' // a delivery is pending by itself, as told
	entrySettle  = 'S' // a delivery is done or dead
	entryRedrive = 'R' // a dead letter is a pending delivery again
	entryDiscard = 'X' // a dead letter is gone
	// And entryParkPlain and entrySettlePlain, each of which tells of many.
)

// parkedText is the stored form of a parked delivery; of the others it has what they need.
type parkedText struct {
	Pos    ident.Position         `json:"p"`
	Sub    ident.SubscriptionName `json:"s,omitempty"`
	Fn     ident.FunctionName     `json:"f,omitempty"`
	Tries  []try                  `json:"t,omitempty"`
	Made   int                    `json:"a,omitempty"`
	Next   int64                  `json:"x,omitempty"`
	Failed bool                   `json:"w,omitempty"` // its condition could not be evaluated
	Final  bool                   `json:"o,omitempty"`
	Dead   bool                   `json:"d,omitempty"`
}

func encode(kind byte, t *parkedText) []byte {
	text, err := json.Marshal(t)
	if err != nil {
		panic("BUG: journal entry cannot be encoded: " + err.Error())
	}
	return append([]byte{kind}, text...)
}

func describe(del *delivery) *parkedText {
	return &parkedText{
		Pos: del.pos, Sub: del.route.sub, Fn: del.route.fn, Tries: del.tries, Made: del.made,
		Next: del.next, Failed: del.failed != nil, Final: del.final,
	}
}

func (d *Dispatcher) settleEntry(del *delivery, dead bool) []byte {
	t := describe(del)
	t.Dead = dead
	return encode(entrySettle, t)
}

// outbox holds entries on their way to the journal, in order.
type outbox struct {
	mu      sync.Mutex
	waiting [][]byte
	open    []packed // those of waiting that may be added to
	bytes   int      // of waiting
	added   uint64   // entries ever added, and those known to be on disk
	written uint64
	closed  bool
	more    chan struct{}
	stored  chan struct{} // closed and replaced when entries are on disk
	hurry   chan struct{} // somebody waits for that
}

func (o *outbox) init() {
	o.more, o.stored, o.hurry = make(chan struct{}, 1), make(chan struct{}), make(chan struct{}, 1)
}

func (o *outbox) add(entry []byte) {
	o.mu.Lock()
	o.waiting = append(o.waiting, entry)
	o.added++
	o.bytes += len(entry)
	o.open = o.open[:0]
	o.mu.Unlock()
	o.wake()
}

func (o *outbox) wake() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// size returns how many entries wait; one that tells of many deliveries counts as so many.
func (o *outbox) size() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting) + o.bytes/entryBytes
}

func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.wake()
}

// take returns what is waiting, at most about a megabyte of it.
func (o *outbox) take() (entries [][]byte, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size, n := 0, 0
	for n < len(o.waiting) && size < 1<<20 {
		size += len(o.waiting[n])
		n++
	}
	entries = o.waiting[:n:n]
	o.bytes -= size
	o.open = o.open[:0] // what the writer has is written as it is
	if o.waiting = o.waiting[n:]; len(o.waiting) == 0 {
		o.waiting = nil
	}
	return entries, o.closed
}

// onDisk notes that n more entries are durable.
func (o *outbox) onDisk(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.written += uint64(n)
	close(o.stored)
	o.stored = make(chan struct{})
}

// durable waits until everything added so far is on disk.
func (o *outbox) durable(ctx context.Context) error {
	o.mu.Lock()
	want := o.added
	o.mu.Unlock()
	select {
	case o.hurry <- struct{}{}:
	default:
	}
	for {
		o.mu.Lock()
		written, stored := o.written, o.stored
		o.mu.Unlock()
		if written >= want {
			return nil
		}
		select {
		case <-stored:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writeJournal appends what the outbox holds, until it is closed and empty or ctx ends. An append
// that fails is made again: entries are numbered, so one that was written after all counts once.
func (d *Dispatcher) writeJournal(ctx context.Context) {
	for {
		entries, closed := d.outbox.take()
		if len(entries) == 0 {
			if closed {
				return
			}
			select {
			case <-d.outbox.more:
			case <-ctx.Done():
				return
			}
			d.outbox.gather(ctx)
			continue
		}
		d.mu.Lock()
		d.past.chunk++
		chunk := d.past.chunk
		d.mu.Unlock()
		head := binary.AppendUvarint([]byte{entryChunk}, chunk)
		for {
			seq, err := d.cfg.Journal.Append(ctx, append([][]byte{head}, entries...))
			if err == nil {
				d.written(ctx, seq, entries)
				break
			}
			if ctx.Err() != nil {
				return
			}
			d.log.Warn("write journal of deliveries; trying again", "error", err)
			pause(ctx, time.Second)
		}
	}
}

// gather waits for more entries, which go to disk together, unless somebody waits for those there are.
func (o *outbox) gather(ctx context.Context) {
	o.mu.Lock()
	closed := o.closed
	o.mu.Unlock()
	if closed {
		return
	}
	timer := time.NewTimer(journalEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-o.hurry:
	case <-ctx.Done():
	}
}

// pause waits for t or for ctx to end.
func pause(ctx context.Context, t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// written notes that entries are on disk in batch seq of the journal.
func (d *Dispatcher) written(ctx context.Context, seq uint64, entries [][]byte) {
	d.mu.Lock()
	d.mark(seq, entries)
	d.past.journal = seq
	for _, e := range entries {
		d.entries += 1 + len(e)/entryBytes
	}
	due := d.entries >= snapshotEvery
	d.mu.Unlock()
	d.outbox.onDisk(len(entries))
	select {
	case d.room <- struct{}{}:
	default:
	}
	if due && d.outbox.size() == 0 {
		if err := d.snapshot(ctx); err != nil {
			d.log.Warn("write snapshot of deliveries", "error", err)
		}
	}
}

// indexMark says that the way of a batch, and of those after it, is at or after a place in the
// journal.
type indexMark struct{ Batch, Journal uint64 }

// marksEvery thins the marks: a look-up reads this many batches of the journal at most to find one.
const marksEvery = 64

func (d *Dispatcher) mark(seq uint64, entries [][]byte) {
	if n := len(d.index); n > 0 && seq < d.index[n-1].Journal+marksEvery {
		return
	}
	for _, e := range entries {
		if e[0] == entryWay {
			if b, n := binary.Uvarint(e[1:]); n > 0 {
				d.index = append(d.index, indexMark{b, seq})
			}
			return
		}
	}
}

// recover brings the dispatcher to the state that its snapshot and its journal tell.
func (d *Dispatcher) recover(ctx context.Context) error {
	from, err := d.restore(ctx)
	if err != nil {
		return err
	}
	err = d.cfg.Journal.Read(ctx, from+1, func(seq uint64, recs [][]byte) error {
		d.past.journal = seq
		skip := false
		for _, rec := range recs {
			if len(rec) > 0 && rec[0] == entryChunk {
				n, _ := binary.Uvarint(rec[1:])
				skip = n <= d.past.chunk
				d.past.chunk = max(d.past.chunk, n)
				continue
			}
			if skip {
				continue
			}
			if err := d.replay(rec); err != nil {
				return fmt.Errorf("journal batch %d: %w", seq, err)
			}
		}
		d.mark(seq, recs)
		return nil
	})
	if err != nil {
		return err
	}
	for _, del := range d.inOrder(func(del *delivery) bool { return del.next <= 0 }) {
		d.enqueue(d.lane(del.route.fn), del)
	}
	for _, del := range d.parked {
		if del.next > 0 {
			del.state = waiting
			d.retries.push(del)
		}
	}
	d.cfg.Log.SetTrimFloor(d.oldest())
	return nil
}

var errEntry = errors.New("entry is malformed")

// replay applies one entry.
func (d *Dispatcher) replay(rec []byte) error {
	if len(rec) == 0 {
		return errEntry
	}
	switch rec[0] {
	case entryWay:
		return d.replayWay(rec)
	case entryParkPlain:
		return parsePacked(rec, d.replayPark)
	case entrySettlePlain:
		return parsePacked(rec, d.replaySettle)
	}
	var t parkedText
	if err := json.Unmarshal(rec[1:], &t); err != nil {
		return fmt.Errorf("%w: %w", errEntry, err)
	}
	key := deliveryKey{t.Pos, t.Sub}
	switch rec[0] {
	case entryPark:
		d.replayPark(&t)
	case entrySettle:
		d.replaySettle(&t)
	case entryRedrive:
		delete(d.dead, key)
		ev := plus(d.open[t.Pos], 1)
		ev.dead--
		d.open[t.Pos] = ev
		d.setParked(d.revive(&t))
	case entryDiscard:
		d.discard(key)
	default:
		return fmt.Errorf("%w: kind %q", errEntry, rec[0])
	}
	return nil
}

func (d *Dispatcher) replayPark(t *parkedText) {
	del := d.revive(t)
	if d.parked[del.key()] == nil {
		d.open[t.Pos] = plus(d.open[t.Pos], 1)
	}
	d.setParked(del)
}

func (d *Dispatcher) replaySettle(t *parkedText) {
	del := d.revive(t)
	key := del.key()
	if !d.unpark(key) {
		d.open[t.Pos] = plus(d.open[t.Pos], 1)
	}
	if t.Pos.Batch() >= d.floor {
		d.setSettled(key)
	}
	if t.Dead {
		d.dead[key] = struct{}{}
	}
	d.past.settled(del, t.Dead)
	d.close(t.Pos, t.Dead)
}

func (d *Dispatcher) replayWay(rec []byte) error {
	w, err := parseWays(rec)
	if err != nil {
		return err
	}
	if w.seq < d.floor {
		return nil
	}
	d.floor, d.next = w.seq+1, w.seq+1
	for i := range w.events {
		pos := ident.NewPosition(w.seq, i)
		if _, gone := d.gone[pos]; !gone && d.open[pos] == nil {
			d.done++
		}
	}
	d.passed(w.seq, w.events)
	return nil
}

func (d *Dispatcher) revive(t *parkedText) *delivery {
	del := &delivery{
		pos: t.Pos, route: d.intern(route{t.Sub, t.Fn}), tries: t.Tries, made: t.Made, next: t.Next, final: t.Final,
	}
	if t.Failed {
		del.failed = errWhenFailed
	}
	return del
}
