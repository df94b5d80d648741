package guest

import (
	"encoding/binary"
	"math/rand/v2"
)

// Go's runtime draws every random number that a program does not seed itself (math/rand, the seeds
// and the iteration order of maps, hash/maphash, the order of select) from a state in the memory of
// the program, which a snapshot of that memory holds too. There is no call that seeds it anew, and no
// name by which it can be reached. But it is in memory that this program may write, and it can be
// recognised: the number drawn last is in it, beside a cursor. So it is searched, and used only after
// it has been seen to do what it must: to predict the next number, and, given a key, to go on as
// math/rand/v2's ChaCha8 does with that key. Where that fails, as it may with a later version of Go,
// the host is told that this program cannot seed itself anew, and initialises it for each event.
//
// One number stays: the key of the runtime's hash function, which the maps that initialisation made
// were filled with. Each map that is made later has a seed of its own beside it, and so has maphash.

// generator is the random state of the runtime, in words of memory: internal/chacha8rand.State and,
// after it, the state of the runtime's cheaper generator.
type generator []uint64

// The words of a generator, as of Go 1.26.
const (
	blockWords  = 32 // numbers of the current block
	seedWord    = 32 // the key, 4 words
	cursorWord  = 36 // lower half: how many of the block are drawn; upper half: how many may be
	counterWord = 37 // lower half: which block of this key it is
	cheapWord   = 38 // xorshift64+, in two halves
	words       = 39

	keyWords     = 4
	shortBlock   = blockWords - keyWords // the last block of a key ends in the next key
	lastCounter  = 12
	counterSteps = 4
)

// findGenerator finds the generator that draw draws from in memory, and proves that it is the one.
func findGenerator(memory []uint64, draw func() uint64) (generator, bool) {
	drawn := draw()
	for at, word := range memory {
		if word != drawn {
			continue
		}
		for index := range min(blockWords, at+1) {
			if base := at - index; base+words <= len(memory) {
				if g := generator(memory[base : base+words : base+words]); g.drew(index) && g.obeys(draw) {
					return g, true
				}
			}
		}
	}
	return nil, false
}

// drew reports whether g may be a state whose number drawn last is the one of this index.
func (g generator) drew(index int) bool {
	drawn, most, counter := uint32(g[cursorWord]), uint32(g[cursorWord]>>32), uint32(g[counterWord])
	return int(drawn) == index+1 && drawn <= most && counter <= lastCounter && counter%counterSteps == 0 &&
		(most == blockWords && counter != lastCounter || most == shortBlock && counter == lastCounter)
}

// obeys reports whether draw draws from g: it first looks, and then changes g, which it leaves as it
// was when draw does not care.
func (g generator) obeys(draw func() uint64) bool {
	if drawn, most := uint32(g[cursorWord]), uint32(g[cursorWord]>>32); drawn < most && g[drawn] != draw() {
		return false
	}
	saved := [words]uint64(g)
	key := [keyWords]uint64{0x0706050403020100, 0x0f0e0d0c0b0a0908, 0x1716151413121110, 0x1f1e1d1c1b1a1918}
	g.rekey(key)
	var bytes [8 * keyWords]byte
	for i, k := range key {
		binary.LittleEndian.PutUint64(bytes[8*i:], k)
	}
	want := rand.NewChaCha8(bytes)
	for range 2 * blockWords {
		if draw() != want.Uint64() {
			copy(g, saved[:])
			return false
		}
	}
	return true
}

// rekey has every number from now on drawn with this key: the block is used up and was the last of
// its key, so that the next draw takes the key from the end of the block, as it does every 16 blocks.
func (g generator) rekey(key [keyWords]uint64) {
	clear(g[:cursorWord])
	copy(g[shortBlock:], key[:])
	g[cursorWord] = shortBlock<<32 | shortBlock
	g[counterWord] = lastCounter
}

// hasCheap reports whether the cheaper generator is where it is looked for: choose, which draws from
// it a few times, must have moved it by that many steps.
func (g generator) hasCheap(choose func()) bool {
	const most = 16
	state := g[cheapWord]
	choose()
	for range most {
		state = cheapStep(state)
		if state == g[cheapWord] {
			return true
		}
	}
	return false
}

// cheapStep is one step of the runtime's xorshift64+.
func cheapStep(state uint64) uint64 {
	s1, s0 := uint32(state), uint32(state>>32)
	s1 ^= s1 << 17
	s1 = s1 ^ s0 ^ s1>>7 ^ s0>>16
	return uint64(s1)<<32 | uint64(s0)
}
