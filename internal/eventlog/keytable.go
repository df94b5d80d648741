package eventlog

// keyTable maps keys to values of one kind, in memory that holds no pointers but the values' own. A key
// is a keyed digest: its bits are as good as a hash of it, which a Go map would compute again, and
// nobody outside can choose keys that meet.
//
// A slot has 32 bits of the key beside the number of its entry, so that looking for a key that is not
// there reads one line of memory and no entry. Slots are kept in parts that grow by themselves, and
// entries in chunks, so that growing never holds up the writer for long.
type keyTable[V any] struct {
	parts  []slots // a power of two of them
	chunks [][]keyEntry[V]
	n      int
}

type keyEntry[V any] struct {
	key   key
	value V
}

// slots is an open-addressing table: 32 bits of a key above the number of its entry, counted from 1; 0 is
// free.
type slots struct {
	of   []uint64 // a power of two of them
	used int
}

const (
	chunkEntries = 1 << 10
	minSlots     = 16
	// maxTableEntries is below what the 32 bits of a number in a slot can count, and an int everywhere.
	maxTableEntries = 1<<31 - 1
)

// newKeyTable returns a table in 1<<bits parts.
func newKeyTable[V any](bits int) *keyTable[V] {
	return &keyTable[V]{parts: make([]slots, 1<<bits)}
}

func (t *keyTable[V]) len() int { return t.n }

func (t *keyTable[V]) part(k key) *slots { return &t.parts[int(k.lo)&(len(t.parts)-1)] }

func (t *keyTable[V]) entry(number uint32) *keyEntry[V] {
	return &t.chunks[(number-1)/chunkEntries][(number-1)%chunkEntries]
}

// get returns the value of k, or nil. It may be changed in place until the next reset.
func (t *keyTable[V]) get(k key) *V {
	s := t.part(k)
	if s.used == 0 {
		return nil
	}
	mask := uint32(len(s.of) - 1)
	for i := keyPrint(k) & mask; ; i = (i + 1) & mask {
		slot := s.of[i]
		if slot == 0 {
			return nil
		}
		if uint32(slot>>32) == keyPrint(k) {
			if e := t.entry(uint32(slot)); e.key == k {
				return &e.value
			}
		}
	}
}

// add adds k, which get does not find, with its value.
func (t *keyTable[V]) add(k key, v V) {
	if t.n%chunkEntries == 0 && t.n/chunkEntries == len(t.chunks) {
		t.chunks = append(t.chunks, make([]keyEntry[V], chunkEntries))
	}
	t.n++
	number := uint32(t.n)
	*t.entry(number) = keyEntry[V]{k, v}
	t.part(k).insert(keyPrint(k), number)
}

// reset forgets everything and keeps the memory.
func (t *keyTable[V]) reset() {
	for number := range uint32(t.n) {
		*t.entry(number + 1) = keyEntry[V]{} // lets go of what a value points to
	}
	for i := range t.parts {
		clear(t.parts[i].of)
		t.parts[i].used = 0
	}
	t.n = 0
}

// keyPrint is the part of a key that a slot holds.
func keyPrint(k key) uint32 { return uint32(k.hi) }

func (s *slots) insert(print, number uint32) {
	if 2*s.used >= len(s.of) {
		old := s.of
		s.of = make([]uint64, max(minSlots, 2*len(old)))
		for _, slot := range old {
			if slot != 0 {
				s.place(slot)
			}
		}
	}
	s.place(uint64(print)<<32 | uint64(number))
	s.used++
}

func (s *slots) place(slot uint64) {
	mask := uint32(len(s.of) - 1)
	i := uint32(slot>>32) & mask
	for s.of[i] != 0 {
		i = (i + 1) & mask
	}
	s.of[i] = slot
}
