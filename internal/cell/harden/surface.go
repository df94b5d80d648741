package harden

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Surface is what can be told of a module without reading its code as instructions: what it imports, and which texts are in it.
type Surface struct {
	imports []Import
	// data has what the module brings: its data segments, and its custom sections. code has its functions.
	data [][]byte
	code []byte
}

// Look returns the surface of a module. It checks no more of it than it needs: that a module is in order is for Module to say. The Surface refers to code.
func Look(code []byte) (*Surface, error) {
	sections, err := split(code)
	if err != nil {
		return nil, err
	}
	s := &Surface{}
	var m module
	for _, section := range sections {
		switch section.id {
		case sectionType:
			err = m.readTypes(section.body)
		case sectionImport:
			err = m.readImports(section.body)
		case sectionCode:
			s.code = section.body
		case sectionData:
			s.data, err = contents(section.body)
		}
		if err != nil {
			return nil, err
		}
	}
	s.imports = m.report.Imports
	s.data = append(s.data, custom(code)...)
	return s, nil
}

// custom returns the custom sections of a module that split has read.
func custom(code []byte) (bodies [][]byte) {
	for in := (reader{rest: code[len(header):]}); len(in.rest) > 0; {
		if id, body := in.byte(), in.take(in.u32()); id == sectionCustom {
			bodies = append(bodies, body)
		}
	}
	return bodies
}

// contents returns the bytes of data segments. Those that follow each other in memory are one: a linker may have cut a text in two. When their places
// are not all known beforehand, they are the section as it is.
func contents(body []byte) ([][]byte, error) {
	in := reader{rest: body}
	if count := in.u32(); count > MaxSegments || in.failed {
		return nil, fmt.Errorf("%w: it has %d data segments, the limit is %d", ErrUnsupported, count, MaxSegments)
	}
	segments, ok := simpleSegments(body)
	if !ok {
		return [][]byte{body}, nil
	}
	var out [][]byte
	for len(segments) > 0 {
		n := 1
		for n < len(segments) && segments[n-1].end() == uint64(segments[n].at) {
			n++
		}
		joined := segments[0].data
		if n > 1 {
			joined = nil
			for _, s := range segments[:n] {
				joined = append(joined, s.data...)
			}
		}
		out, segments = append(out, joined), segments[n:]
	}
	return out, nil
}

// Imports reports whether the module imports a function.
func (s *Surface) Imports(from, name string) bool {
	for _, i := range s.imports {
		if i.Module == from && i.Name == name {
			return true
		}
	}
	return false
}

// Mentions reports whether a text is in the module: in its data or in a custom section, in UTF-8 or in the UTF-16 of AssemblyScript; or, as compilers write
// short texts into memory, as a constant in its code. It may report true of a text that is only by chance there. What a module puts together
// when it runs is not found.
func (s *Surface) Mentions(text string) bool {
	if text == "" {
		return true
	}
	wide := make([]byte, 0, 2*len(text))
	for i := range len(text) { // of which names consist has one byte
		wide = append(wide, text[i], 0)
	}
	wide = wide[:len(wide)-1] // linkers leave out zeros at the end of a segment
	for _, d := range s.data {
		if bytes.Contains(d, []byte(text)) || bytes.Contains(d, wide) {
			return true
		}
	}
	return bytes.Contains(s.code, []byte(text)) || bytes.Contains(s.code, constant(text))
}

// constant returns the instruction that loads the beginning of a text as a number, as long as numbers are.
func constant(text string) []byte {
	const (
		i32Const = 0x41
		i64Const = 0x42
	)
	b := []byte(text)
	switch {
	case len(b) >= 8:
		return appendSigned([]byte{i64Const}, int64(binary.LittleEndian.Uint64(b)))
	case len(b) >= 4:
		return appendSigned([]byte{i32Const}, int64(int32(binary.LittleEndian.Uint32(b))))
	case len(b) >= 2:
		return appendSigned([]byte{i32Const}, int64(binary.LittleEndian.Uint16(b)))
	}
	return appendSigned([]byte{i32Const}, int64(b[0]))
}
