package js

import "encoding/binary"

// StateBytes is the length of an encoded State.
const StateBytes = 4*len32 + 8*len64

// How many numbers of each size a State has.
const (
	len32 = 5 + 7
	len64 = 7
)

// words returns the numbers of s.
func (s *State) words() (small [len32]*uint32, large [len64]*value) {
	return [len32]*uint32{
			&s.context, &s.scratch, &s.buffer, &s.eventName, &s.timed,
			&s.tags.undefined, &s.tags.null, &s.tags.boolean, &s.tags.exception, &s.tags.integer, &s.tags.text, &s.tags.rope,
		}, [len64]*value{
			&s.undefined, &s.use, &s.handle, &s.timer, &s.describe, &s.refused, &s.respond,
		}
}

// Append appends the encoding of s to b: its numbers, little-endian.
func (s *State) Append(b []byte) []byte {
	small, large := s.words()
	for _, n := range small {
		b = binary.LittleEndian.AppendUint32(b, *n)
	}
	for _, n := range large {
		b = binary.LittleEndian.AppendUint64(b, uint64(*n))
	}
	return b
}

// ParseState returns the State that was encoded as b. A State is used with the memory it belongs to only,
// and the numbers in it are addresses there: with any other it does harm to nobody but the script.
func ParseState(b [StateBytes]byte) (s State) {
	small, large := s.words()
	for i, n := range small {
		*n = binary.LittleEndian.Uint32(b[4*i:])
	}
	for i, n := range large {
		*n = value(binary.LittleEndian.Uint64(b[4*len32+8*i:]))
	}
	return s
}
