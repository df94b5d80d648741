package eventlog

import (
	"time"

	"sallyport/internal/ident"
)

// key is the keyed digest of an event's identity (source, id), so that nobody outside can choose two
// that collide.
type key struct{ hi, lo uint64 }

// known is what the duplicate window remembers of an accepted event.
type known struct {
	position ident.Position
	digest   uint64 // of the content
}

// generations is how many steps the window slides in: an entry is kept for the window and at most
// 1/(generations-1) of it longer.
const generations = 3

// duplicates remembers the keys of recent events for a time, within a number of entries. It slides
// by whole generations, so forgetting costs nothing per entry. It belongs to the packer's writer, which
// alone asks and tells it; before that runs, to the recovery.
type duplicates struct {
	window time.Duration
	most   int
	gens   []*generation // oldest first
}

type generation struct {
	born, newest time.Time
	known        *keyTable[known]
}

// generationBits is into how many parts a generation's table is split, as a power of two: a part of the
// default 2^19 entries grows to 2^11, and growing it takes microseconds.
const generationBits = 8

func newDuplicates(window time.Duration, entries int) *duplicates {
	return &duplicates{window: window, most: min(max(1, entries/(generations-1)), maxTableEntries)}
}

// get returns what is known of k, or nil. What it points to is valid until the next put.
func (d *duplicates) get(k key) *known {
	for i := len(d.gens) - 1; i >= 0; i-- {
		if v := d.gens[i].known.get(k); v != nil {
			return v
		}
	}
	return nil
}

// put remembers k, accepted at now; calls come in the order of acceptance.
func (d *duplicates) put(k key, v known, now time.Time) {
	g := d.current(now)
	g.newest = now
	if had := g.known.get(k); had != nil {
		*had = v // accepted again after it was forgotten
		return
	}
	g.known.add(k, v)
}

// current returns the generation that takes what is accepted now.
func (d *duplicates) current(now time.Time) *generation {
	if n := len(d.gens); n > 0 {
		if g := d.gens[n-1]; g.known.len() < d.most && now.Sub(g.born) < d.window/(generations-1) {
			return g
		}
	}
	for len(d.gens) > 0 && (len(d.gens) >= generations || now.Sub(d.gens[0].newest) >= d.window) {
		d.gens[0] = nil
		d.gens = d.gens[1:]
	}
	g := &generation{born: now, known: newKeyTable[known](generationBits)}
	d.gens = append(d.gens, g)
	return g
}
