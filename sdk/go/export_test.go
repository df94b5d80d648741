package guest

// Run handles an event as the host has it done, and returns the result as it gets it.
func Run(h Handler, event []byte) []byte {
	r := handle(h, &testHost{}, event)
	return r.encode()
}

// FindGenerator is findGenerator.
var FindGenerator = findGenerator

// Rekey is rekey.
func (g generator) Rekey(key [4]uint64) { g.rekey(key) }

// HasCheap is generator.hasCheap.
func HasCheap(memory []uint64, choose func()) bool { return generator(memory).hasCheap(choose) }
