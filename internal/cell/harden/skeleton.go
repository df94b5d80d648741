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
