package eventlog

import (
	"sync"
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
// by whole generations, so forgetting costs nothing per entry.
type duplicates struct {
	window time.Duration
	most   int

	mu   sync.Mutex
	gens []*generation // oldest first
}

type generation struct {
	born, newest time.Time
	m            map[key]known
}

func newDuplicates(window time.Duration, entries int) *duplicates {
	return &duplicates{window: window, most: max(1, entries/(generations-1))}
}

// get returns what is known of k.
func (d *duplicates) get(k key) (known, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.gens) - 1; i >= 0; i-- {
		if v, ok := d.gens[i].m[k]; ok {
			return v, true
		}
	}
	return known{}, false
}

// put remembers k, accepted at now; calls come in the order of acceptance.
func (d *duplicates) put(k key, v known, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.gens)
	if n == 0 || len(d.gens[n-1].m) >= d.most || now.Sub(d.gens[n-1].born) >= d.window/(generations-1) {
		for len(d.gens) > 0 && (len(d.gens) >= generations || now.Sub(d.gens[0].newest) >= d.window) {
			d.gens[0] = nil
			d.gens = d.gens[1:]
		}
		d.gens = append(d.gens, &generation{born: now, m: make(map[key]known)})
		n = len(d.gens)
	}
	g := d.gens[n-1]
	g.m[k], g.newest = v, now
}
