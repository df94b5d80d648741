package snapshot

// Bounds of what is kept for the next memory.
const (
	// maxSpareUse is how much of a reservation a memory may have used for it to be kept, in bytes:
	// clearing more costs more than the kernel's zero pages do.
	maxSpareUse = 4 << 20
	// maxSpares is how many reservations are kept: as many as run at once on a small machine.
	maxSpares = 8
)

// spare is a reservation that is kept for the next memory, because most of the time a new instance takes is the
// kernel's, for a thousand zero pages. It is all zero, or, when it has an image, that was the last thing which it
// was made equal to, and what was written since is what reset restores: then the next memory of this image need
// not be filled at all.
type spare struct {
	space []byte
	image *Image
	reset resetter
}

// take returns a spare reservation of n bytes or a new one. It is zero but when it has the image that is asked for,
// which may be nil.
func (a *Allocator) take(n int, im *Image) (spare, error) {
	if s, ok := a.takeSpare(n, im); ok {
		if s.image == im {
			return s, nil
		}
		if s.empty() {
			return spare{space: s.space}, nil
		}
	}
	space, err := reserve(n)
	if err != nil {
		return spare{}, err
	}
	if err := a.engine.prepare(space); err != nil {
		unreserve(space)
		return spare{}, err
	}
	return spare{space: space}, nil
}

// empty makes s, which has an image unless it is zero already, zero. When that cannot be, s is given back to the
// system, and empty reports false.
func (s spare) empty() bool {
	if s.image == nil {
		return true
	}
	if !s.reset.end() {
		unreserve(s.space)
		return false
	}
	clear(s.space[:s.image.size])
	return true
}

// takeSpare takes out the spare reservation that suits best: one that has the image, one that is zero, or else the one that
// waits for its image for longest.
func (a *Allocator) takeSpare(n int, im *Image) (out spare, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	best := -1
	for i := len(a.spare) - 1; i >= 0; i-- {
		s := a.spare[i]
		switch {
		case len(s.space) != n:
		case s.image == im:
			return a.takeOut(i), true
		case best < 0, a.spare[best].image != nil:
			best = i
		}
	}
	if best < 0 {
		return spare{}, false
	}
	return a.takeOut(best), true
}

// takeOut takes out the spare reservation at i. a.mu is held.
func (a *Allocator) takeOut(i int) spare {
	s := a.spare[i]
	last := len(a.spare) - 1
	copy(a.spare[i:], a.spare[i+1:])
	a.spare[last] = spare{}
	a.spare = a.spare[:last]
	return s
}

// give takes a reservation back of which the first used bytes may have been written.
func (a *Allocator) give(space []byte, used int, reusable bool) {
	if !reusable || used > maxSpareUse {
		unreserve(space)
		return
	}
	clear(space[:used])
	a.keep(spare{space: space})
}

// keep keeps s for the next memory, and gives back to the system what is one too many.
func (a *Allocator) keep(s spare) {
	a.mu.Lock()
	spilled := s
	if !a.closed {
		spilled = spare{}
		a.spare = append(a.spare, s)
		if len(a.spare) > maxSpares {
			spilled = a.takeOut(0)
		}
	}
	a.mu.Unlock()
	spilled.free()
}

// free gives s, which may be nothing, back to the system.
func (s spare) free() {
	if s.reset != nil {
		s.reset.end()
	}
	if s.space != nil {
		unreserve(s.space)
	}
}

// Forget has nothing wait for im any more, of which no memory is made from now on.
func (a *Allocator) Forget(im *Image) {
	var of []spare
	a.mu.Lock()
	for i := len(a.spare) - 1; i >= 0; i-- {
		if im != nil && a.spare[i].image == im {
			of = append(of, a.takeOut(i))
		}
	}
	a.mu.Unlock()
	for _, s := range of {
		if s.empty() {
			a.keep(spare{space: s.space})
		}
	}
}
