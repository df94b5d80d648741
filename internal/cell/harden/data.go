package harden

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// maxGap is how many zero bytes are written to spare a segment. Linkers end a segment at every few
// zeros, and a Go program has thousands; the engine takes as long for each as for copying some kilobytes.
const maxGap = 256

// segment is an active data segment at a constant place.
type segment struct {
	at   uint32
	data []byte
}

func (s segment) end() uint64 { return uint64(s.at) + uint64(len(s.data)) }

// joinData joins the data segments that follow each other in memory. It does nothing unless all segments
// are active and none writes where another one does, so that their order means nothing, and the code
// does not name any. The number of segments, which is for such code, is then dropped; if it is wrong, that
// is for the compiler to see.
func (m *module) joinData(s *section) {
	segments, ok := simpleSegments(s.body)
	_, counted := m.find(sectionDataCount)
	if !ok || m.namesData || counted && int(m.dataCount) != len(segments) {
		return
	}
	var out []byte
	count := uint64(0)
	spare := uint64(len(s.body)) // zeros that may be added: the section at most doubles
	for len(segments) > 0 {
		n := 1
		for ; n < len(segments); n++ {
			gap := uint64(segments[n].at) - segments[n-1].end()
			if gap > min(maxGap, spare) {
				break
			}
			spare -= gap
		}
		out = appendSegment(out, segments[:n])
		segments = segments[n:]
		count++
	}
	s.body = append(binary.AppendUvarint(nil, count), out...)
	m.joined = true
}

// simpleSegments reads a data section that was checked, and returns its segments in the order of their
// places. It reports whether all are active, at constant places, and apart.
func simpleSegments(body []byte) ([]segment, bool) {
	in := reader{rest: body}
	segments := make([]segment, 0, in.u32())
	for len(in.rest) > 0 {
		if in.u32() != 0 || in.byte() != opConst {
			return nil, false
		}
		at := uint32(in.signed(32))
		if in.byte() != opEnd {
			return nil, false
		}
		segments = append(segments, segment{at, in.take(in.u32())})
	}
	slices.SortFunc(segments, func(a, b segment) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(segments); i++ {
		if uint64(segments[i].at) < segments[i-1].end() {
			return nil, false
		}
	}
	return segments, !in.failed
}

// appendSegment appends one segment that writes what segments write, and zeros between them.
func appendSegment(out []byte, segments []segment) []byte {
	first, last := segments[0], segments[len(segments)-1]
	out = append(out, 0, opConst)
	out = appendSigned(out, int32(first.at))
	out = append(out, opEnd)
	out = binary.AppendUvarint(out, last.end()-uint64(first.at))
	at := uint64(first.at)
	for _, s := range segments {
		out = append(out, make([]byte, uint64(s.at)-at)...)
		out = append(out, s.data...)
		at = s.end()
	}
	return out
}

// appendSigned appends a signed LEB128 number.
func appendSigned[T int32 | int64](out []byte, v T) []byte {
	for v < -64 || v > 63 {
		out = append(out, byte(v&0x7f)|0x80)
		v >>= 7
	}
	return append(out, byte(v&0x7f))
}
