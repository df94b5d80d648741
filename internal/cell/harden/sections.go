package harden

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// signature is the type of a function: the encoded types of its values.
type signature struct{ params, results []byte }

// A feature that is not supported, as a sentence names it.
const (
	exceptions     = "exceptions"
	garbage        = "garbage-collected types"
	typedFunctions = "typed function references"
	threads        = "shared memory (threads)"
	wide           = "64-bit memory or tables"
	pageSizes      = "custom page sizes"
	multiMemory    = "more than one memory"
	relaxedVectors = "relaxed vector instructions"
	wideArithmetic = "wide arithmetic"
	legacyCatch    = "legacy exceptions"
)

func unsupported(feature string) error {
	return fmt.Errorf("%w: it uses %s", ErrUnsupported, feature)
}

// checkValueType refuses what is no type of a value.
func checkValueType(b byte) error {
	switch ValueType(b) {
	case I32, I64, F32, F64, V128, FuncRef, ExternRef:
		return nil
	}
	switch {
	case b == 0x69 || b == 0x74: // exnref, nullexnref
		return unsupported(exceptions)
	case b == 0x63 || b == 0x64: // ref null ht, ref ht
		return unsupported(typedFunctions)
	case b == 0x77 || b == 0x78, b >= 0x6a && b <= 0x73: // i16, i8; the abstract heap types
		return unsupported(garbage)
	}
	return fmt.Errorf("%w: %#x is no type of a value", ErrMalformed, b)
}

// checkReferenceType refuses what is no type of a reference.
func checkReferenceType(b byte) error {
	switch ValueType(b) {
	case FuncRef, ExternRef:
		return nil
	case I32, I64, F32, F64, V128:
		return fmt.Errorf("%w: %s is no type of a reference", ErrMalformed, ValueType(b))
	}
	return checkValueType(b)
}

func (m *module) readTypes(body []byte) error {
	return entries(body, "types", MaxTypes, func(in *reader) error {
		switch form := in.byte(); {
		case form >= 0x4d && form <= 0x50, form == 0x5e, form == 0x5f: // rec, sub, array, struct
			return unsupported(garbage)
		case form == 0x5d: // a continuation
			return unsupported("stack switching")
		case form != 0x60 && !in.failed:
			return fmt.Errorf("%w: %#x is no form of a type", ErrMalformed, form)
		}
		params, err := valueTypes(in, "parameters")
		if err != nil {
			return err
		}
		results, err := valueTypes(in, "results")
		if err != nil {
			return err
		}
		m.types = append(m.types, signature{params, results})
		return nil
	})
}

func valueTypes(in *reader, what string) ([]byte, error) {
	count := in.u32()
	types := in.take(count)
	if count > MaxParams && !in.failed {
		return nil, fmt.Errorf("%w: a function has %d %s, the limit is %d", ErrUnsupported, count, what, MaxParams)
	}
	for _, b := range types {
		if err := checkValueType(b); err != nil {
			return nil, err
		}
	}
	return types, nil
}

// readImports refuses imports that are not functions: there are none to be had, and what is
// imported would shift the numbers of what is added.
func (m *module) readImports(body []byte) error {
	return entries(body, "imports", MaxImports, func(in *reader) error {
		from, err := shortName(in)
		if err != nil {
			return err
		}
		name, err := shortName(in)
		if err != nil {
			return err
		}
		kind := in.byte()
		switch {
		case in.failed:
			return nil
		case kind >= 1 && kind <= 3:
			what := [...]string{1: "table", 2: "memory", 3: "global"}[kind]
			return fmt.Errorf("%w: it imports the %s %.60q, and the host has none to give", ErrUnsupported, what, from+"."+name)
		case kind == 4:
			return unsupported(exceptions)
		case kind != 0:
			return fmt.Errorf("%w: %#x is no kind of an import", ErrMalformed, kind)
		}
		t, err := m.functionType(in)
		if err != nil || in.failed {
			return err
		}
		m.report.Imports = append(m.report.Imports, Import{from, name, asTypes(t.params), asTypes(t.results)})
		return nil
	})
}

func asTypes(encoded []byte) []ValueType {
	types := make([]ValueType, len(encoded))
	for i, b := range encoded {
		types[i] = ValueType(b)
	}
	return types
}

func (m *module) readFunctions(body []byte) error {
	return entries(body, "functions", MaxFunctions, func(in *reader) error {
		_, err := m.functionType(in)
		return err
	})
}

// functionType reads the type of the next function.
func (m *module) functionType(in *reader) (signature, error) {
	t := in.u32()
	switch {
	case in.failed:
		return signature{}, nil
	case uint64(t) >= uint64(len(m.types)):
		return signature{}, fmt.Errorf("%w: type %d of %d", ErrMalformed, t, len(m.types))
	}
	m.functions = append(m.functions, t)
	return m.types[t], nil
}

// boundTables gives every table a maximum.
func (m *module) boundTables(s *section) error {
	var out []byte
	err := entries(s.body, "tables", MaxTables, func(in *reader) error {
		element := in.byte()
		if element == 0x40 && !in.failed { // a table with a value to begin with
			return unsupported(typedFunctions)
		}
		if err := checkReferenceType(element); err != nil && !in.failed {
			return err
		}
		least, most, err := limits(in, "table", 1<<32-1)
		if err != nil || in.failed {
			return err
		}
		if least > MaxTableElements {
			return fmt.Errorf("%w: a table has %d elements, the limit is %d", ErrUnsupported, least, MaxTableElements)
		}
		most = min(most, MaxTableElements)
		m.report.Tables = append(m.report.Tables, Table{ValueType(element), least, most})
		out = append(out, element, 1)
		out = binary.AppendUvarint(out, uint64(least))
		out = binary.AppendUvarint(out, uint64(most))
		return nil
	})
	s.body = append(binary.AppendUvarint(nil, uint64(len(m.report.Tables))), out...)
	return err
}

// limits reads the limits of a table or memory, whose sizes are at most ceiling.
func limits(in *reader, what string, ceiling uint32) (least, most uint32, err error) {
	switch flags := in.byte(); {
	case flags > 0x0f && !in.failed:
		return 0, 0, fmt.Errorf("%w: a %s has the unknown flags %#x", ErrMalformed, what, flags)
	case flags&8 != 0:
		return 0, 0, unsupported(pageSizes)
	case flags&4 != 0:
		return 0, 0, unsupported(wide)
	case flags&2 != 0:
		return 0, 0, unsupported(threads)
	case flags&1 != 0:
		least, most = in.u32(), in.u32()
	default:
		least, most = in.u32(), ceiling
	}
	if !in.failed && (least > most || most > ceiling) {
		return 0, 0, fmt.Errorf("%w: a %s has from %d to %d entries", ErrMalformed, what, least, most)
	}
	return least, most, nil
}

// maxPages is how many pages 32 bits address.
const maxPages = 1 << 16

// addMemory gives a module without a memory one of no size.
func (m *module) addMemory(s *section) error {
	count := 0
	err := entries(s.body, "memories", 1<<32-1, func(in *reader) (err error) {
		if count++; count > 1 {
			return unsupported(multiMemory)
		}
		m.hasMemory = true
		m.report.Memory.Min, m.report.Memory.Max, err = limits(in, "memory", maxPages)
		return err
	})
	if err == nil && !m.hasMemory {
		s.body = []byte{1, 1, 0, 0}
	}
	return err
}

// needMemory is an error if the module has no memory of its own: the one it gets is not for it.
func (m *module) needMemory() error {
	if !m.hasMemory {
		return fmt.Errorf("%w: it has no memory, and uses one", ErrMalformed)
	}
	return nil
}

// addGlobals appends the globals, all mutable i32 and 0.
func (m *module) addGlobals(s *section) error {
	var mutable []uint32
	err := entries(s.body, "globals", MaxGlobals, func(in *reader) error {
		kind, mutability := in.byte(), in.byte()
		if in.failed {
			return nil
		}
		if err := checkValueType(kind); err != nil {
			return err
		}
		if err := m.constant(in); err != nil { // may name those before it
			return err
		}
		switch mutability {
		case 0:
		case 1:
			mutable = append(mutable, uint32(len(m.globals)))
		default:
			return fmt.Errorf("%w: %#x is no mutability", ErrMalformed, mutability)
		}
		m.globals = append(m.globals, ValueType(kind))
		return nil
	})
	if err != nil {
		return err
	}
	for _, i := range mutable {
		m.reserve(i, m.globals[i])
	}
	in := reader{rest: s.body}
	in.u32()
	body := binary.AppendUvarint(nil, uint64(len(m.globals))+addedGlobals)
	body = append(body, in.rest...)
	for i := range uint32(addedGlobals) {
		body = append(body, byte(I32), 1, opConst, 0, opEnd)
		if i != globalStop {
			m.reserve(uint32(len(m.globals))+i, I32)
		}
	}
	s.body = body
	return nil
}

// reserve notes that a global is exported under its reserved name.
func (m *module) reserve(index uint32, t ValueType) {
	name := GlobalPrefix + strconv.FormatUint(uint64(index), 10)
	m.report.Globals = append(m.report.Globals, Global{name, index, t})
}

// addExports appends the exports, and refuses others of what is added.
func (m *module) addExports(s *section) error {
	names := map[string]bool{}
	err := entries(s.body, "exports", MaxExports, func(in *reader) error {
		name, err := shortName(in)
		if err != nil {
			return err
		}
		kind, index := in.byte(), in.u32()
		switch {
		case in.failed:
			return nil
		case isReserved(name):
			return fmt.Errorf("%w: it exports %.60q, and names that begin with %q are the host's", ErrUnsupported, name, ReservedPrefix)
		case names[name]:
			return fmt.Errorf("%w: it exports %.60q twice", ErrMalformed, name)
		}
		names[name] = true
		return m.checkExport(kind, index)
	})
	if err != nil {
		return err
	}
	added := appendExport(nil, StopExport, 3, uint32(len(m.globals))+globalStop)
	count := len(names) + 1
	for _, g := range m.report.Globals {
		added = appendExport(added, g.Name, 3, g.Index)
		count++
	}
	if m.start.exists {
		if err := m.checkStart(); err != nil {
			return err
		}
		added = appendExport(added, StartExport, 0, m.start.index)
		count++
		m.report.Start = true
	}
	in := reader{rest: s.body}
	in.u32()
	s.body = append(append(binary.AppendUvarint(nil, uint64(count)), in.rest...), added...)
	return nil
}

func (m *module) checkExport(kind byte, index uint32) error {
	of := 0
	switch kind {
	case 0:
		of = len(m.functions)
		m.declare(index)
	case 1:
		of = len(m.report.Tables)
	case 2:
		if err := m.needMemory(); err != nil {
			return err
		}
		of = 1
	case 3:
		of = len(m.globals)
	case 4:
		return unsupported(exceptions)
	default:
		return fmt.Errorf("%w: %#x is no kind of an export", ErrMalformed, kind)
	}
	if uint64(index) >= uint64(of) {
		what := [...]string{"function", "table", "memory", "global"}[kind]
		return fmt.Errorf("%w: it exports %s %d of %d", ErrMalformed, what, index, of)
	}
	return nil
}

// start is the start function. The compiler sees it as an export, and an export may be named by
// ref.func: whether the module itself declared it so is for this package to know.
type start struct {
	exists, malformed bool
	index             uint32
	declared          bool
}

// readStart reads the start section, which the compiler never sees.
func (m *module) readStart() {
	if i, ok := m.find(sectionStart); ok {
		in := reader{rest: m.sections[i].body}
		m.start = start{exists: true, index: in.u32()}
		m.start.malformed = in.failed || len(in.rest) > 0
	}
}

func (m *module) checkStart() error {
	switch {
	case m.start.malformed:
		return fmt.Errorf("%w: the start section does not end where it says", ErrMalformed)
	case uint64(m.start.index) >= uint64(len(m.functions)):
		return fmt.Errorf("%w: it starts with function %d of %d", ErrMalformed, m.start.index, len(m.functions))
	}
	if t := m.types[m.functions[m.start.index]]; len(t.params)+len(t.results) > 0 {
		return fmt.Errorf("%w: its start function has parameters or results", ErrMalformed)
	}
	return nil
}

// declare notes that a function is named outside the code.
func (m *module) declare(function uint32) {
	if m.start.exists && function == m.start.index {
		m.start.declared = true
	}
	if m.named == nil {
		m.named = make([]bool, len(m.functions)-len(m.report.Imports))
	}
	if own := int64(function) - int64(len(m.report.Imports)); own >= 0 && own < int64(len(m.named)) {
		m.named[own] = true
	}
}

func appendExport(out []byte, name string, kind byte, index uint32) []byte {
	out = binary.AppendUvarint(out, uint64(len(name)))
	out = append(append(out, name...), kind)
	return binary.AppendUvarint(out, uint64(index))
}

// readElements reads the element segments. The flags of one say: 1 that it is not active, 2 that it
// names its table (if active) or is only declared (if not), 4 that its elements are expressions.
func (m *module) readElements(body []byte) error {
	total := uint64(0)
	return entries(body, "element segments", MaxSegments, func(in *reader) error {
		flags := in.u32()
		if flags > 7 {
			return fmt.Errorf("%w: an element segment has the unknown flags %#x", ErrMalformed, flags)
		}
		if flags&1 == 0 {
			if flags&2 != 0 {
				in.u32() // a table
			}
			if err := m.constant(in); err != nil {
				return err
			}
		}
		if flags&3 != 0 {
			if err := elementKind(in, flags); err != nil {
				return err
			}
		}
		count := in.u32()
		if total += uint64(count); total > MaxSegmentElements && !in.failed {
			return fmt.Errorf("%w: its element segments have %d elements or more, the limit is %d", ErrUnsupported, total, MaxSegmentElements)
		}
		for ; count > 0 && !in.failed; count-- {
			if flags&4 == 0 {
				m.declare(in.u32())
			} else if err := m.constant(in); err != nil {
				return err
			}
		}
		return nil
	})
}

// elementKind reads what the elements of a segment are.
func elementKind(in *reader, flags uint32) error {
	kind := in.byte()
	switch {
	case in.failed:
		return nil
	case flags&4 != 0:
		return checkReferenceType(kind)
	case kind != 0:
		return fmt.Errorf("%w: %#x is no kind of an element", ErrMalformed, kind)
	}
	return nil
}

// readData reads the data segments.
func (m *module) readData(body []byte) error {
	return entries(body, "data segments", MaxSegments, func(in *reader) error {
		flags := in.u32()
		switch {
		case in.failed:
			return nil
		case flags > 2:
			return fmt.Errorf("%w: a data segment has the unknown flags %#x", ErrMalformed, flags)
		case flags == 2:
			if index := in.u32(); index != 0 && !in.failed {
				return unsupported(multiMemory)
			}
		}
		if flags != 1 {
			if err := m.needMemory(); err != nil {
				return err
			}
			if err := m.constant(in); err != nil {
				return err
			}
		}
		in.take(in.u32())
		return nil
	})
}

// constant reads a constant expression.
func (m *module) constant(in *reader) error {
	for !in.failed {
		switch op := in.byte(); op {
		case opEnd:
			return nil
		case opRefFunc:
			m.declare(in.u32())
		case opConst, opConstI64, opConstF32, opConstF64, opGlobalGet, opRefNull, opVector,
			0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // additions, subtractions, multiplications
			at := in.rest
			if _, err := m.immediates(in, op); err != nil {
				return err
			}
			if op == opVector && !in.failed && at[0] != vectorConst {
				return fmt.Errorf("%w: a constant expression has the vector instruction %#x", ErrMalformed, at[0])
			}
		default:
			if in.failed {
				break
			}
			return fmt.Errorf("%w: a constant expression has the instruction %#x", ErrMalformed, op)
		}
	}
	return nil // the caller sees in.failed
}
