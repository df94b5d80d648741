package harden

import "fmt"

// The instructions that are written or treated apart.
const (
	opUnreachable        = 0x00
	opBlock              = 0x02
	opLoop               = 0x03
	opIf                 = 0x04
	opElse               = 0x05
	opEnd                = 0x0b
	opBranch             = 0x0c
	opBranchIf           = 0x0d
	opBranchTable        = 0x0e
	opReturn             = 0x0f
	opCall               = 0x10
	opCallIndirect       = 0x11
	opReturnCall         = 0x12
	opReturnCallIndirect = 0x13
	opDrop               = 0x1a
	opSelect             = 0x1b
	opSelectTyped        = 0x1c
	opLocalGet           = 0x20
	opLocalSet           = 0x21
	opLocalTee           = 0x22
	opGlobalGet          = 0x23
	opGlobalSet          = 0x24
	opTableGet           = 0x25
	opTableSet           = 0x26
	opLoad               = 0x28 // the first of the loads
	opStore              = 0x3e // the last of the stores
	opMemorySize         = 0x3f
	opMemoryGrow         = 0x40
	opConst              = 0x41 // of type i32, and then
	opConstI64           = 0x42
	opConstF32           = 0x43
	opConstF64           = 0x44
	opLessSigned         = 0x48
	opSubtract           = 0x6b
	opShiftRight         = 0x76
	opRefNull            = 0xd0
	opRefIsNull          = 0xd1
	opRefFunc            = 0xd2
	opMisc               = 0xfc
	opVector             = 0xfd
	blockVoid            = 0x40
	vectorConst          = 12
)

// change is a set of instructions that change what lies outside memory and globals.
type change uint8

const (
	changeTableSet change = 1 << iota
	changeTableInit
	changeTableCopy
	changeTableGrow
	changeTableFill
	changeElemDrop
	changeDataDrop
)

// names returns the names of the instructions in the set.
func (c change) names() []string {
	var names []string
	for i, name := range [...]string{"table.set", "table.init", "table.copy", "table.grow", "table.fill", "elem.drop", "data.drop"} {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// immediates reads what follows an opcode, and reports whether the instruction's last operand is a
// length of bytes or elements that it works on. The caller looks at in.failed.
func (m *module) immediates(in *reader, op byte) (bulk bool, err error) {
	switch {
	case op >= opLocalGet && op <= opLocalTee:
		in.u32()
	case op >= 0x45 && op <= 0xc4: // numeric
	case op >= opLoad && op <= opStore:
		err = m.address(in)
	case op == opConst:
		in.signed(32)
	case op == opConstI64:
		in.signed(64)
	case op == opConstF32:
		in.take(4)
	case op == opConstF64:
		in.take(8)
	case op <= 0x01, op == opElse, op == opEnd, op == opReturn, op == opDrop, op == opSelect, op == opRefIsNull:
		// nothing follows
	case op >= opBlock && op <= opIf:
		err = m.blockType(in)
	case op == opBranch, op == opBranchIf, op == opCall, op == opReturnCall, op == opTableGet:
		in.u32()
	case op == opGlobalGet, op == opGlobalSet:
		if index := in.u32(); uint64(index) >= uint64(len(m.globals)) && !in.failed {
			err = fmt.Errorf("%w: it names global %d of %d", ErrMalformed, index, len(m.globals))
		}
	case op == opBranchTable:
		err = m.branchTable(in)
	case op == opCallIndirect, op == opReturnCallIndirect:
		in.u32()
		in.u32()
	case op == opTableSet:
		in.u32()
		m.changes |= changeTableSet
	case op == opMemorySize, op == opMemoryGrow:
		err = m.memoryIndex(in)
	case op == opSelectTyped:
		err = selectType(in)
	case op == opRefFunc:
		if index := in.u32(); m.start.exists && index == m.start.index && !m.start.declared {
			err = fmt.Errorf("%w: it takes a reference to function %d, which is not declared", ErrMalformed, index)
		}
	case op == opRefNull:
		err = nullType(in.byte())
	case op == opMisc:
		bulk, err = m.misc(in)
	case op == opVector:
		err = m.vector(in)
	default:
		err = unknownInstruction(op)
	}
	if in.failed {
		return false, nil
	}
	return bulk, err
}

// unknownInstruction says to which proposal an opcode belongs.
func unknownInstruction(op byte) error {
	switch op {
	case 0x06, 0x07, 0x09, 0x18, 0x19: // try, catch, rethrow, delegate, catch_all
		return unsupported(legacyCatch)
	case 0x08, 0x0a, 0x1f: // throw, throw_ref, try_table
		return unsupported(exceptions)
	case 0x14, 0x15, 0xd4, 0xd5, 0xd6: // call_ref, return_call_ref, ref.as_non_null, br_on_null, br_on_non_null
		return unsupported(typedFunctions)
	case 0xd3, 0xfb: // ref.eq; the prefix of the others
		return unsupported(garbage)
	case 0xfe: // a prefix
		return unsupported("atomic instructions (threads)")
	}
	return fmt.Errorf("%w: unknown instruction %#x", ErrMalformed, op)
}

// address reads the alignment and the offset of a load or store.
func (m *module) address(in *reader) error {
	if alignment := in.u32(); alignment >= 32 && !in.failed {
		if alignment&0x40 != 0 {
			return unsupported(multiMemory)
		}
		return fmt.Errorf("%w: an alignment of 2^%d", ErrMalformed, alignment)
	}
	in.u32()
	return m.needMemory()
}

// memoryIndex reads the number of a memory, which can only be 0, and in one byte.
func (m *module) memoryIndex(in *reader) error {
	if in.byte() != 0 {
		return unsupported(multiMemory)
	}
	return m.needMemory()
}

// blockType reads the type of a block: nothing, one value, or the number of a type.
func (m *module) blockType(in *reader) error {
	if len(in.rest) > 0 && in.rest[0]&0xc0 == 0x40 { // a negative number in one byte
		if b := in.byte(); b != blockVoid {
			return checkValueType(b)
		}
		return nil
	}
	if index := in.signed(33); (index < 0 || index >= int64(len(m.types))) && !in.failed {
		return fmt.Errorf("%w: a block has type %d of %d", ErrMalformed, index, len(m.types))
	}
	return nil
}

func (m *module) branchTable(in *reader) error {
	count := in.u32()
	if uint64(count) > uint64(len(in.rest)) {
		in.fail()
		return nil
	}
	m.cost.targets += int64(count)
	if m.cost.targets > MaxBranchTargets {
		return fmt.Errorf("%w: its br_tables have %d targets or more, the limit is %d", ErrUnsupported, m.cost.targets, MaxBranchTargets)
	}
	for range count {
		in.u32()
	}
	in.u32()
	return nil
}

// selectType reads the types of a select: one, and its count in one byte.
func selectType(in *reader) error {
	if count := in.byte(); count != 1 && !in.failed {
		return fmt.Errorf("%w: a select of %d types", ErrMalformed, count)
	}
	return checkValueType(in.byte())
}

// nullType refuses what is no type of a null reference.
func nullType(b byte) error {
	if b < 0x40 || b >= 0x80 { // the number of a type
		return unsupported(typedFunctions)
	}
	return checkReferenceType(b)
}

// misc reads an instruction of the prefix 0xfc.
func (m *module) misc(in *reader) (bulk bool, err error) {
	switch op := in.u32(); op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // conversions
	case 8: // memory.init
		in.u32()
		m.namesData = true
		return true, m.memoryIndex(in)
	case 9: // data.drop
		in.u32()
		m.namesData = true
		m.changes |= changeDataDrop
	case 10: // memory.copy
		if err := m.memoryIndex(in); err != nil {
			return true, err
		}
		return true, m.memoryIndex(in)
	case 11: // memory.fill
		return true, m.memoryIndex(in)
	case 12: // table.init
		in.u32()
		in.u32()
		m.changes |= changeTableInit
		return true, nil
	case 13: // elem.drop
		in.u32()
		m.changes |= changeElemDrop
	case 14: // table.copy
		in.u32()
		in.u32()
		m.changes |= changeTableCopy
		return true, nil
	case 15: // table.grow
		in.u32()
		m.changes |= changeTableGrow
		return true, nil
	case 16: // table.size
		in.u32()
	case 17: // table.fill
		in.u32()
		m.changes |= changeTableFill
		return true, nil
	case 19, 20, 21, 22: // add128, sub128, mul_wide
		return false, unsupported(wideArithmetic)
	default:
		return false, fmt.Errorf("%w: unknown instruction 0xfc %#x", ErrMalformed, op)
	}
	return false, nil
}

// vector reads an instruction of the prefix 0xfd. The number of the instruction MUST be encoded as
// short as it can be: wazero reads one byte of it, and takes the second for a nop.
func (m *module) vector(in *reader) error {
	at := in.rest
	op := in.u32()
	if in.failed {
		return nil
	}
	if size := len(at) - len(in.rest); size > 1 && (op < 0x80 || op <= 0xff && size > 2) {
		return fmt.Errorf("%w: the vector instruction %#x is encoded in %d bytes", ErrMalformed, op, size)
	}
	switch {
	case op <= 11, op == 92, op == 93: // loads and stores
		return m.address(in)
	case op == vectorConst, op == 13: // i8x16.shuffle
		in.take(16)
	case op >= 21 && op <= 34: // lanes
		in.byte()
	case op >= 84 && op <= 91: // loads and stores of a lane
		err := m.address(in)
		in.byte()
		return err
	case op >= 0x100 && op <= 0x12f:
		return unsupported(relaxedVectors)
	case op > 0xff || !isVector(byte(op)):
		return fmt.Errorf("%w: unknown instruction 0xfd %#x", ErrMalformed, op)
	}
	return nil
}

// isVector reports whether there is an instruction of that number.
func isVector(op byte) bool {
	switch op {
	case 0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee:
		return false
	}
	return true
}
