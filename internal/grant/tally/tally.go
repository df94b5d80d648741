// Package tally counts what functions keep on the disk: bytes by namespace and, in it, by what holds them, such as a bucket or a database. It reads nothing itself.
// What an earlier process left is measured once, at the first need; from then on whoever changes something says so. Callers: kvgrant, sqlgrant.
package tally

import (
	"sync"

	"sallyport/internal/ident"
)

// Tally counts bytes. The zero Tally is empty, and safe for concurrent use.
type Tally struct {
	measuring sync.Mutex // one measurement at a time

	mu     sync.Mutex
	spaces map[ident.Namespace]*space
}

type space struct {
	measured bool
	total    int64
	parts    map[string]int64
}

// space returns what is counted of a namespace. t.mu is held.
func (t *Tally) space(ns ident.Namespace) *space {
	s := t.spaces[ns]
	if s == nil {
		if t.spaces == nil {
			t.spaces = map[ident.Namespace]*space{}
		}
		s = &space{parts: map[string]int64{}}
		t.spaces[ns] = s
	}
	return s
}

// Of returns the bytes of a namespace.
func (t *Tally) Of(ns ident.Namespace) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.spaces[ns]; s != nil {
		return s.total
	}
	return 0
}

// Set says what a part of a namespace has.
func (t *Tally) Set(ns ident.Namespace, part string, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.space(ns)
	s.total += bytes - s.parts[part]
	s.parts[part] = bytes
}

// Add says by how much a part of a namespace grew, or shrank.
func (t *Tally) Add(ns ident.Namespace, part string, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.space(ns)
	s.total += bytes
	s.parts[part] += bytes
}

// Has reports whether a part was set.
func (t *Tally) Has(ns ident.Namespace, part string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.spaces[ns]
	if s == nil {
		return false
	}
	_, ok := s.parts[part]
	return ok
}

// Measure has f set every part that a namespace has and that is not set yet, unless that was done. The caller MUST NOT hold anything that f may wait for.
func (t *Tally) Measure(ns ident.Namespace, f func() error) error {
	if t.isMeasured(ns) {
		return nil
	}
	t.measuring.Lock()
	defer t.measuring.Unlock()
	if t.isMeasured(ns) {
		return nil
	}
	if err := f(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.space(ns).measured = true
	return nil
}

func (t *Tally) isMeasured(ns ident.Namespace) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.spaces[ns]
	return s != nil && s.measured
}

// Forget drops what is known of a namespace that was removed.
func (t *Tally) Forget(ns ident.Namespace) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.spaces, ns)
}
