package dispatch

import (
	"encoding/binary"
	"fmt"

	"sallyport/internal/ident"
)

// Most of a backlog is plain: a delivery is parked before it was ever attempted, and done at its first attempt. Of
// such deliveries many share one entry, one after the other, in 3 and some 10 bytes each, where an entry of its own
// would have 70 and 170. Everything else has an entry of its own (parkedText).
const (
	entryParkPlain   = 'p' // deliveries of one route are pending by themselves, none of them attempted
	entrySettlePlain = 's' // deliveries of one route that were pending by themselves were done at their first attempt

	// maxPacked bounds an entry, so that an append to the journal stays near the size that it is to have.
	maxPacked = 16 << 10

	flagFailed = 1 << 0 // the condition could not be evaluated
	flagFinal  = 1 << 1 // attempted once only
)

// packed is an entry in the outbox that further deliveries may be added to. There are such entries of one kind at a time, and nothing
// else comes after them: so what is added to any of them is told in the order in which it was, but for deliveries that
// have nothing to do with each other.
type packed struct {
	at    int // in what waits
	kind  byte
	flags byte
	route *route
	pos   ident.Position // of the delivery before
	base  int64          // Unix nanoseconds, in a settle entry
}

// maxOpen bounds the entries that are looked through for the one to add to.
const maxOpen = 16

// isPlain reports whether a delivery that is to be parked is one that an entry of many can tell of.
func isPlain(del *delivery) bool { return del.made == 0 && del.next == 0 && len(del.tries) == 0 }

// addPark adds a delivery that is pending by itself from now on.
func (o *outbox) addPark(del *delivery) {
	if !isPlain(del) {
		o.add(encode(entryPark, describe(del)))
		return
	}
	var flags byte
	if del.failed != nil {
		flags |= flagFailed
	}
	if del.final {
		flags |= flagFinal
	}
	o.mu.Lock()
	o.extend(entryParkPlain, flags, del.route, del.pos, 0)
	o.mu.Unlock()
	o.wake()
}

// addSettled adds a delivery that was parked, and is done by its first attempt.
func (o *outbox) addSettled(pos ident.Position, r *route, t *try) {
	o.mu.Lock()
	at, base := o.extend(entrySettlePlain, 0, r, pos, t.Started)
	before := len(o.waiting[at])
	o.waiting[at] = appendTry(o.waiting[at], base, t)
	o.bytes += len(o.waiting[at]) - before
	o.mu.Unlock()
	o.wake()
}

// extend adds a delivery to an entry of its sort that waits, or begins one, and returns where it is, and its base. o.mu is held.
func (o *outbox) extend(kind, flags byte, r *route, pos ident.Position, started int64) (at int, base int64) {
	p := o.openFor(kind, flags, r)
	if p == nil {
		if len(o.open) > 0 && o.open[0].kind != kind || len(o.open) == maxOpen {
			o.open = o.open[:0]
		}
		b := append(make([]byte, 0, 512), kind, flags)
		b = appendString(b, string(r.sub))
		b = appendString(b, string(r.fn))
		if kind == entrySettlePlain {
			b = binary.AppendVarint(b, started)
		}
		o.open = append(o.open, packed{at: len(o.waiting), kind: kind, flags: flags, route: r, base: started})
		o.waiting = append(o.waiting, b)
		o.added++
		o.bytes += len(b)
		p = &o.open[len(o.open)-1]
	}
	before := len(o.waiting[p.at])
	o.waiting[p.at] = binary.AppendVarint(o.waiting[p.at], int64(pos-p.pos))
	o.bytes += len(o.waiting[p.at]) - before
	p.pos = pos
	return p.at, p.base
}

// openFor returns the open entry of this sort, if there is one with room.
func (o *outbox) openFor(kind, flags byte, r *route) *packed {
	for i := range o.open {
		p := &o.open[i]
		if p.kind == kind && p.flags == flags && p.route == r {
			if len(o.waiting[p.at]) < maxPacked {
				return p
			}
			o.open = append(o.open[:i], o.open[i+1:]...)
			return nil
		}
	}
	return nil
}

// appendTry appends what there is to tell of a first attempt that did not fail, to the microsecond.
func appendTry(b []byte, base int64, t *try) []byte {
	b = binary.AppendVarint(b, (t.Started-base)/1e3)
	b = binary.AppendVarint(b, (t.Finished-t.Started)/1e3)
	b = binary.AppendUvarint(b, uint64(t.Revision))
	return binary.AppendUvarint(b, uint64(t.Emitted))
}

// try takes off what appendTry appended.
func (p *parser) try(base int64) try {
	t := try{Number: 1, Started: base + p.varint()*1e3}
	t.Finished = t.Started + p.varint()*1e3
	t.Revision, t.Emitted = int(p.uvarint()), int(p.uvarint())
	return t
}

// parsePacked calls each for every delivery that an entry of many tells of, in order.
func parsePacked(entry []byte, each func(*parkedText)) error {
	if len(entry) < 2 {
		return errEntry
	}
	kind, flags := entry[0], entry[1]
	p := parser{b: entry[2:]}
	if flags&^(flagFailed|flagFinal) != 0 || kind == entrySettlePlain && flags != 0 {
		return fmt.Errorf("%w: flags %#x", errEntry, flags)
	}
	sub, fn := ident.SubscriptionName(p.text()), ident.FunctionName(p.text())
	var base int64
	if kind == entrySettlePlain {
		base = p.varint()
	}
	if p.bad || len(p.b) == 0 {
		return errEntry // there is never one of nothing
	}
	var pos ident.Position
	for len(p.b) > 0 {
		pos += ident.Position(p.varint())
		t := parkedText{Pos: pos, Sub: sub, Fn: fn, Failed: flags&flagFailed != 0, Final: flags&flagFinal != 0}
		if kind == entrySettlePlain {
			t.Tries, t.Made = []try{p.try(base)}, 1
		}
		if p.bad {
			return errEntry
		}
		each(&t)
	}
	return nil
}
