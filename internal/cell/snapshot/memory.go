package snapshot

import (
	"fmt"

	"github.com/tetratelabs/wazero/experimental"
)

// Memory is the linear memory of one instance, and the allocator that wazero gets it from. It
// refuses to grow past its limit; the guest sees memory.grow return -1 and may carry on.
//
// The whole limit is reserved as address space at once, so that growing moves and copies nothing;
// the kernel gives pages, always zero, as they are touched.
type Memory struct {
	allocator *Allocator
	limit     uint64
	space     []byte // the reservation; nil before the first growth and after Release
	size      uint64
	refused   bool

	image   *Image // nil unless the memory can be reset
	reset   resetter
	spoiled bool // the reservation cannot be used for another memory

	// expected is what the memory is to be filled from, as far as is known. kept resets to it, where the reservation
	// has been that already, and is nil after Fill.
	expected *Image
	kept     resetter
}

var (
	_ experimental.MemoryAllocator = (*Memory)(nil)
	_ experimental.LinearMemory    = (*Memory)(nil)
)

// Allocate implements experimental.MemoryAllocator. A module has at most one memory.
func (m *Memory) Allocate(_, most uint64) experimental.LinearMemory {
	m.limit = min(m.limit, most)
	return m
}

// Reallocate implements experimental.LinearMemory. It returns nil to refuse.
func (m *Memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused = true
		return nil
	}
	if m.limit == 0 {
		return []byte{} // a module without a memory, which cannot grow either
	}
	if m.space == nil {
		s, err := m.allocator.take(int(m.limit), m.expected)
		if err != nil {
			m.refused = true
			return nil
		}
		m.space, m.kept = s.space, s.reset
	}
	m.size = max(m.size, size)
	return m.space[:size:size]
}

// Free implements experimental.LinearMemory. It does nothing: wazero calls it as soon as a call into
// the module sees that it is closed, and when that call came from a host function, the guest below
// it still runs for a moment, in this memory. Release gives the memory back.
func (m *Memory) Free() {}

// Bytes returns the memory as it is now; it is valid until the next growth or Release.
func (m *Memory) Bytes() []byte { return m.space[:m.size] }

// Size returns the size of the memory in bytes. It stays what it was after Release.
func (m *Memory) Size() int64 { return int64(m.size) }

// Refused reports whether the guest asked for more than the limit.
func (m *Memory) Refused() bool { return m.refused }

// Take returns an image of the memory as its difference to base, which may be nil.
func (m *Memory) Take(base *Image) (*Image, error) { return Take(m.Bytes(), base) }

// Fill makes the memory equal to im, and has Reset do so from now on. The memory must have grown to
// the size of im. Whatever was in it is gone.
func (m *Memory) Fill(im *Image) error {
	m.stop()
	if int(m.size) != im.size {
		return fmt.Errorf("fill memory of %d bytes from an image of %d: %w", m.size, im.size, ErrSize)
	}
	if m.refill(im) {
		return nil
	}
	var fill engine = copying{} // what suits an empty memory
	if m.size > 0 {
		fill = m.allocator.engine
	}
	reset, err := fill.fill(m.space[:m.size:m.size], im)
	if err != nil {
		return fmt.Errorf("fill memory: %w", err)
	}
	m.image, m.reset = im, reset
	return nil
}

// refill makes the memory equal to im when the reservation has been that before.
func (m *Memory) refill(im *Image) bool {
	kept := m.kept
	if kept == nil {
		return false
	}
	m.kept = nil
	if m.expected == im {
		if _, err := kept.reset(); err == nil {
			m.image, m.reset = im, kept
			return true
		}
	}
	m.spoiled = !kept.end() || m.spoiled
	return false
}

// Reset makes the memory equal to the image it was filled from, and returns how many pages it wrote
// for that (0 with CopyOnWrite, where the kernel does not say). After an error the memory holds
// traces of the event: the instance MUST be discarded, and Reset keeps failing.
func (m *Memory) Reset() (pages int, err error) {
	switch {
	case m.image == nil:
		err = ErrNotFilled
	case int(m.size) != m.image.size:
		err = ErrGrown
	default:
		pages, err = m.reset.reset()
	}
	if err != nil {
		m.image = nil
		return 0, fmt.Errorf("reset memory: %w", err)
	}
	return pages, nil
}

// Release gives the memory back. No call into the instance may be running. It is idempotent.
func (m *Memory) Release() {
	if m.space == nil {
		return
	}
	m.stop()
	used := int(m.size)
	if m.kept != nil { // it was never filled
		used = max(used, m.expected.size)
		m.spoiled = !m.kept.end() || m.spoiled
		m.kept = nil
	}
	m.allocator.give(m.space, used, !m.spoiled)
	m.space = nil
}

// Retire gives the memory back as Release does, but keeps it as its image for the next memory of that, where it is
// known to be: what was written since the last Reset is restored once more. It is for memories whose instance ended
// well.
func (m *Memory) Retire() {
	if m.space == nil || m.image == nil || m.spoiled || m.image.size == 0 || m.image.size > maxSpareUse {
		m.Release()
		return
	}
	if _, err := m.Reset(); err != nil {
		m.Release()
		return
	}
	m.allocator.keep(spare{m.space, m.image, m.reset})
	m.space, m.image, m.reset = nil, nil, nil
}

// stop ends resetting.
func (m *Memory) stop() {
	if m.reset != nil {
		m.spoiled = !m.reset.end() || m.spoiled
	}
	m.image, m.reset = nil, nil
}
