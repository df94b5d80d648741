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
		space, err := m.allocator.take(int(m.limit))
		if err != nil {
			m.refused = true
			return nil
		}
		m.space = space
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
	m.allocator.give(m.space, int(m.size), !m.spoiled)
	m.space = nil
}

// stop ends resetting.
func (m *Memory) stop() {
	if m.reset != nil {
		m.spoiled = !m.reset.end() || m.spoiled
	}
	m.image, m.reset = nil, nil
}
