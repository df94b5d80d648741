package event

import (
	"bytes"
	"hash/maphash"
)

// smallObject is up to how many keys of an object are compared one by one; beyond it a set of hashes
// is cheaper, and a hostile object would make the comparisons quadratic.
const smallObject = 32

// key is an object key, without its quotes and escapes, and a digest that differs for most keys
// that differ.
type key struct {
	name   []byte
	digest uint64
}

// keyStack has the keys of the objects that are open, outermost first. The first are in the stack
// itself, so that few events need any memory for them.
type keyStack struct {
	n    int
	near [smallObject]key
	far  []key
}

// open returns the keys of the object that begins at first.
func (s *keyStack) open(first int) (near, far []key) {
	near = s.near[min(first, len(s.near)):min(s.n, len(s.near))]
	if s.n > len(s.near) {
		far = s.far[max(0, first-len(s.near)) : s.n-len(s.near)]
	}
	return near, far
}

// add adds a key to those of the object that begins at first; false means it is there already. seen
// begins empty with the object and is used once that is not small.
func (s *keyStack) add(first int, name []byte, seen *keySet) bool {
	near, far := s.open(first)
	if s.n-first == smallObject {
		seen.addAll(near)
		seen.addAll(far)
	}
	digest := digest(name)
	if seen.n == 0 || seen.add(name) {
		if contains(near, name, digest) || contains(far, name, digest) {
			return false
		}
	}
	if s.n < len(s.near) {
		s.near[s.n] = key{name, digest}
	} else {
		s.far = append(s.far[:s.n-len(s.near)], key{name, digest})
	}
	s.n++
	return true
}

func contains(keys []key, name []byte, digest uint64) bool {
	for i := range keys {
		if keys[i].digest == digest && bytes.Equal(keys[i].name, name) {
			return true
		}
	}
	return false
}

// keySet tells whether a key may be there already, without being wrong when it says no: it holds
// hashes, by open addressing. They are seeded, so that nobody can choose keys that meet.
type keySet struct {
	seed  maphash.Seed
	slots []uint64 // a power of two of them, 0 is free
	n     int
}

func (k *keySet) addAll(keys []key) {
	for i := range keys {
		k.add(keys[i].name)
	}
}

// add adds a name and reports whether its hash was there.
func (k *keySet) add(name []byte) bool {
	if k.slots == nil {
		k.seed, k.slots = maphash.MakeSeed(), make([]uint64, 8*smallObject)
	}
	if 2*k.n >= len(k.slots) {
		old := k.slots
		k.slots, k.n = make([]uint64, 4*len(old)), 0
		for _, h := range old {
			if h != 0 {
				k.insert(h)
			}
		}
	}
	return k.insert(max(1, maphash.Bytes(k.seed, name)))
}

func (k *keySet) insert(h uint64) bool {
	mask := uint64(len(k.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch k.slots[i] {
		case h:
			return true
		case 0:
			k.slots[i] = h
			k.n++
			return false
		}
	}
}
