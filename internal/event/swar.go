package event

import (
	"encoding/binary"
	"math/bits"
)

// Eight bytes at a time: each function looks at all bytes of a word at once. A test of a byte sets
// the top bit of that byte in its result; bytes above the first that is set may be set wrongly, so
// only the first counts.
const (
	lowBits = 0x0101010101010101
	topBits = 0x8080808080808080
)

func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// special marks the bytes that end a run of plain characters in a JSON string: the quote, the
// backslash and control characters.
func special(w uint64) uint64 {
	quote, slash := w^(lowBits*'"'), w^(lowBits*'\\')
	return ((w-lowBits*' ')&^w | (quote-lowBits)&^quote | (slash-lowBits)&^slash) & topBits
}

// firstByte returns the index of the first byte that is marked.
func firstByte(marks uint64) int { return bits.TrailingZeros64(marks) / 8 }

// digest returns a number that differs for most names that differ: it saves comparing them, and
// decides nothing.
func digest(name []byte) uint64 {
	n := len(name)
	if n >= 8 {
		return word(name) ^ bits.RotateLeft64(word(name[n-8:]), 29) ^ uint64(n)
	}
	if cap(name) >= 8 {
		// What follows the name in the text is read with it and cut off.
		return word(name[:8])&(1<<(8*n)-1) ^ uint64(n)<<56
	}
	var w uint64
	for i, c := range name {
		w |= uint64(c) << (8 * i)
	}
	return w ^ uint64(n)<<56
}
