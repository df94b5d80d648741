// Package expiring is what buckets of kv and of blob have in common: an index in memory of what is stored under which name, in the order of the
// names, whose entries may end at a time. It is pure, and not safe for concurrent use. Callers: kvgrant, blobgrant.
package expiring

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Entry is what an Index has under a name.
type Entry interface {
	// Over reports whether its time is over.
	Over(now time.Time) bool
}

// Index has entries by name. The zero Index is empty.
type Index[E Entry] struct {
	entries map[string]E
	names   []string // in order
}

// New returns the index of entries.
func New[E Entry](entries map[string]E) Index[E] {
	return Index[E]{entries: entries, names: slices.Sorted(maps.Keys(entries))}
}

// Len returns how many entries there are, those whose time is over among them.
func (x *Index[E]) Len() int { return len(x.entries) }

// Get returns the entry of a name, or the zero E. Its time may be over.
func (x *Index[E]) Get(name string) E { return x.entries[name] }

// All returns the entries, in no order.
func (x *Index[E]) All() map[string]E { return x.entries }

// Put puts an entry in the place of the one that is there.
func (x *Index[E]) Put(name string, e E) {
	if x.entries == nil {
		x.entries = map[string]E{}
	}
	x.entries[name] = e
	if i, ok := slices.BinarySearch(x.names, name); !ok {
		x.names = slices.Insert(x.names, i, name)
	}
}

// Delete takes the entry of a name out.
func (x *Index[E]) Delete(name string) {
	delete(x.entries, name)
	if i, ok := slices.BinarySearch(x.names, name); ok {
		x.names = slices.Delete(x.names, i, i+1)
	}
}

// Over returns names of entries whose time is over, at most that many.
func (x *Index[E]) Over(now time.Time, most int) (names []string) {
	for name, e := range x.entries {
		if e.Over(now) {
			if names = append(names, name); len(names) == most {
				break
			}
		}
	}
	return names
}

// List returns the entries whose names begin with prefix and come after a name, at most limit, and whether there are more. Those whose
// time is over are not among them.
func (x *Index[E]) List(prefix, after string, limit int, now time.Time) (list []E, more bool) {
	first, found := slices.BinarySearch(x.names, max(prefix, after))
	if found && after >= prefix && after != "" {
		first++
	}
	for _, name := range x.names[first:] {
		if !strings.HasPrefix(name, prefix) {
			break
		}
		e := x.entries[name]
		if e.Over(now) {
			continue
		}
		if len(list) == limit {
			return list, true
		}
		list = append(list, e)
	}
	return list, false
}
