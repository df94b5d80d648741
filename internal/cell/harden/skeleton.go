package harden

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// skeletonName is that of the section which tells one skeleton from another.
const skeletonName = "sallyport_skeleton"

// Skeleton returns a module that is to its host what a hardened module is, except that every function of it
// does nothing but trap: the same types, imports, tables, memory, globals, exports and segments. A host that has the
// compiled code of the module needs no more than that to run it, and saves itself from reading the code again. Modules that
// differ have skeletons that differ, although they may differ in their code only.
func Skeleton(hardened []byte) ([]byte, error) {
	sections, err := split(hardened)
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), header...)
	for _, s := range sections {
		if s.id == sectionCode {
			if s.body, err = trapping(s.body); err != nil {
				return nil, err
			}
		}
		out = binary.AppendUvarint(append(out, s.id), uint64(len(s.body)))
		out = append(out, s.body...)
	}
	sum := sha256.Sum256(hardened)
	mark := append(append([]byte{byte(len(skeletonName))}, skeletonName...), sum[:]...)
	return append(append(out, sectionCustom, byte(len(mark))), mark...), nil
}

// Data is what the memory of an instance has in it as it begins.
type Data struct {
	// At is where Bytes belong.
	At    uint32
	Bytes []byte
}

// SplitData returns a hardened module without its data, and the data, for a host that makes memories itself: those of
// most instances are copies of another one, in which all of it is. The data stays in the module, and there is none, when the
// module names its segments or computes their places, or they overlap. The encoding is that of ParseData.
func SplitData(hardened []byte) (bare, data []byte, err error) {
	sections, err := split(hardened)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range sections {
		if s.id == sectionDataCount {
			return hardened, nil, nil // the code may name segments
		}
	}
	bare = append(make([]byte, 0, len(hardened)), header...)
	for _, s := range sections {
		if s.id == sectionData && data == nil {
			if _, ok := simpleSegments(s.body); ok {
				data = s.body
				continue
			}
		}
		bare = binary.AppendUvarint(append(bare, s.id), uint64(len(s.body)))
		bare = append(bare, s.body...)
	}
	return bare, data, nil
}

// ParseData parses what SplitData took out of a module, and keeps it. It is safe with bytes from anywhere.
func ParseData(encoded []byte) ([]Data, error) {
	if len(encoded) == 0 {
		return nil, nil
	}
	if in := (reader{rest: encoded}); in.u32() > MaxSegments || in.failed {
		return nil, fmt.Errorf("%w: the data has too many segments", ErrMalformed)
	}
	segments, ok := simpleSegments(encoded)
	if !ok {
		return nil, fmt.Errorf("%w: the data is not in simple segments", ErrMalformed)
	}
	out := make([]Data, len(segments))
	for i, s := range segments {
		out[i] = Data{s.at, s.data}
	}
	return out, nil
}

// trapping returns a code section with as many functions as another.
func trapping(body []byte) ([]byte, error) {
	in := reader{rest: body}
	count := in.u32()
	if in.failed || uint64(count) > uint64(len(in.rest)) {
		return nil, fmt.Errorf("%w: the code section is cut off", ErrMalformed)
	}
	function := []byte{3, 0, opUnreachable, opEnd} // its length, no locals
	out := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen32+len(function)*int(count)), uint64(count))
	for range count {
		out = append(out, function...)
	}
	return out, nil
}
