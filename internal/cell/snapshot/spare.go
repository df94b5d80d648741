package snapshot

// Bounds of what is kept for the next memory.
const (
	// maxSpareUse is how much of a reservation a memory may have used for it to be kept, in bytes:
	// clearing more costs more than the kernel's zero pages do.
	maxSpareUse = 4 << 20
	// maxSpares is how many reservations are kept: as many as run at once on a small machine.
	maxSpares = 8
)

// take returns n zero bytes. A few reservations are kept, because most of the time a new instance
// takes is the kernel's, for a thousand zero pages. What is kept has been cleared, every byte that
// the memory before could have written.
func (a *Allocator) take(n int) ([]byte, error) {
	if space := a.takeSpare(n); space != nil {
		return space, nil
	}
	space, err := reserve(n)
	if err != nil {
		return nil, err
	}
	if err := a.engine.prepare(space); err != nil {
		unreserve(space)
		return nil, err
	}
	return space, nil
}

func (a *Allocator) takeSpare(n int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.spare) - 1; i >= 0; i-- {
		if space := a.spare[i]; len(space) == n {
			last := len(a.spare) - 1
			a.spare[i], a.spare[last] = a.spare[last], nil
			a.spare = a.spare[:last]
			return space
		}
	}
	return nil
}

// give takes a reservation back of which the first used bytes may have been written.
func (a *Allocator) give(space []byte, used int, reusable bool) {
	if !reusable || used > maxSpareUse {
		unreserve(space)
		return
	}
	clear(space[:used])
	if spilled := a.keep(space); spilled != nil {
		unreserve(spilled)
	}
}

// keep keeps space, and returns what is to be unreserved for it.
func (a *Allocator) keep(space []byte) (spilled []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return space
	}
	a.spare = append(a.spare, space)
	if len(a.spare) > maxSpares {
		spilled = a.spare[0]
		a.spare = append(a.spare[:0], a.spare[1:]...)
	}
	return spilled
}
