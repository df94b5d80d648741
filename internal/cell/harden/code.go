package harden

import (
	"encoding/binary"
	"fmt"
)

// Fuel, in units of roughly a few instructions.
const (
	// fullFuel is what the guest does between two moments outside native code: some 50 µs, which
	// no garbage collection minds, and against which the cost of leaving is nothing.
	fullFuel = 1 << 14
	// stretch is how many instructions without a loop or call one unit may cover.
	stretch = 1 << 10
	// localsPerUnit and bulkShift weigh what takes longer than an instruction: setting locals to
	// zero, and operations on 2^bulkShift bytes or elements.
	localsPerUnit = 32
	bulkShift     = 8
)

// code hardens every function of a code section.
func (m *module) code(body []byte) ([]byte, error) {
	in := reader{rest: body}
	own := m.functions[len(m.report.Imports):]
	if count := in.u32(); in.failed || uint64(count) != uint64(len(own)) {
		return nil, fmt.Errorf("%w: it has %d functions, and code for %d", ErrMalformed, len(own), count)
	}
	m.prepareCheck()
	m.plan(in, len(own))
	out := binary.AppendUvarint(make([]byte, 0, len(body)+len(body)/2), uint64(len(own)))
	var hardened []byte
	for i, t := range own {
		fn := reader{rest: in.take(in.u32())}
		if in.failed {
			return nil, fmt.Errorf("%w: the code of function %d is cut off", ErrMalformed, i)
		}
		var err error
		if hardened, err = m.function(hardened[:0], &fn, len(m.types[t].params), m.light[i] > 0); err != nil {
			return nil, fmt.Errorf("%w, in function %d", err, i)
		}
		out = binary.AppendUvarint(out, uint64(len(hardened)))
		out = append(out, hardened...)
	}
	if len(in.rest) > 0 {
		return nil, fmt.Errorf("%w: the code section does not end where it says", ErrMalformed)
	}
	return out, nil
}

// function appends a function's locals and code, hardened.
func (m *module) function(out []byte, in *reader, params int, light bool) ([]byte, error) {
	if len(in.rest) > MaxFunctionBytes {
		return nil, fmt.Errorf("%w: it is %d bytes long, the limit is %d", ErrUnsupported, len(in.rest), MaxFunctionBytes)
	}
	start := in.rest
	locals, err := locals(in, params)
	if err != nil {
		return nil, err
	}
	out = append(out, start[:len(start)-len(in.rest)]...)
	if !light {
		out = m.appendCheck(out, 1+locals/localsPerUnit)
	}
	m.cost = cost{locals: locals, blocks: checkBlocks, depth: 1} // the function itself is a block
	m.flow = newFlow()
	since := 0
	for m.cost.depth > 0 {
		if since++; since >= stretch {
			out = m.appendCheck(out, 1)
			since = 0
		}
		at := in.rest
		op := in.byte()
		bulk, err := m.immediates(in, op)
		if err != nil {
			return nil, err
		}
		if in.failed {
			return nil, fmt.Errorf("%w: an instruction is cut off or not encoded as it must be", ErrMalformed)
		}
		instruction := at[:len(at)-len(in.rest)]
		switch {
		case bulk:
			out = m.appendBulk(out, instruction)
		case op == opLoop && dispatchAt(in.rest, instruction) == nil:
			out = m.appendHead(out, instruction)
			since = 0
		default:
			if m.flow.mayReturn(op, instruction) {
				out = m.appendCheck(out, 1)
				m.cost.blocks += checkBlocks
			}
			out = append(out, instruction...)
		}
		m.flow.follow(op, instruction, in.rest)
		since += m.weight(op, instruction)
		if err := m.cost.count(op, bulk); err != nil {
			return nil, err
		}
	}
	if len(in.rest) > 0 {
		return nil, fmt.Errorf("%w: code follows its end", ErrMalformed)
	}
	return out, m.spend()
}

// locals reads the locals of a function, and returns how many there are with the parameters.
func locals(in *reader, params int) (int64, error) {
	total := int64(params)
	for groups := in.u32(); groups > 0 && !in.failed; groups-- {
		total += int64(in.u32())
		kind := in.byte()
		if in.failed {
			break
		}
		if err := checkValueType(kind); err != nil {
			return 0, err
		}
		if total > MaxLocals {
			return 0, fmt.Errorf("%w: it has %d locals or more, the limit is %d", ErrUnsupported, total, MaxLocals)
		}
	}
	if in.failed {
		return 0, fmt.Errorf("%w: its locals are cut off", ErrMalformed)
	}
	return total, nil
}

// check is the code that takes fuel, in parts: it is written many times.
type check struct {
	before []byte // what comes before the units, and
	after  []byte // what comes after them, in a loop to which it may go back
	charge []byte // what takes the fuel of a bulk operation, whose length is on the stack
	refill []byte
}

// prepareCheck makes the code that takes units of fuel, and leaves native code when there is none:
//
//	again: fuel -= units
//	if fuel < 0 { fuel = full; memory.grow(0); if stop { unreachable }; goto again }
//
// The second line is refill. It goes back instead of on, so that what follows has one predecessor: where
// the rare way met the common one, the compiler would have to load again and to move what the call in
// the rare one may have changed, each time. The optimiser may take the value of stop from before memory.grow, but
// never from before the head of the innermost loop or the entry of the function, so that no endless
// run can miss it.
func (m *module) prepareCheck() {
	c := &m.check
	c.refill = m.appendGlobal(nil, opGlobalGet, globalFuel)
	c.refill = append(c.refill, opConst, 0, opLessSigned, opIf, blockVoid)
	c.refill = m.appendGlobal(appendConst(c.refill, fullFuel), opGlobalSet, globalFuel)
	c.refill = append(c.refill, opConst, 0, opMemoryGrow, 0, opDrop)
	c.refill = m.appendGlobal(c.refill, opGlobalGet, globalStop)
	c.refill = append(c.refill, opIf, blockVoid, opUnreachable, opEnd, opBranch, 1, opEnd)

	c.before = m.appendGlobal(nil, opGlobalGet, globalFuel)
	c.after = m.appendGlobal([]byte{opSubtract}, opGlobalSet, globalFuel)
	c.after = append(c.after, c.refill...)

	c.charge = m.appendGlobal(nil, opGlobalSet, globalScratch)
	c.charge = m.appendGlobal(c.charge, opGlobalGet, globalFuel)
	c.charge = m.appendGlobal(c.charge, opGlobalGet, globalScratch)
	c.charge = append(appendConst(c.charge, bulkShift), opShiftRight, opSubtract)
	c.charge = m.appendGlobal(c.charge, opGlobalSet, globalFuel)
	c.charge = m.appendGlobal(c.charge, opGlobalGet, globalScratch)
}

// appendCheck appends a check, in a loop of its own.
func (m *module) appendCheck(out []byte, units int64) []byte {
	return append(m.appendTake(append(out, opLoop, blockVoid), units), opEnd)
}

// appendHead appends the instruction that begins a loop, and a check. What goes back to the head of a loop
// that takes values has to have them, so that the check in such a one goes back to a loop of its own.
func (m *module) appendHead(out, instruction []byte) []byte {
	out = append(out, instruction...)
	if len(instruction) == 2 && instruction[1] == blockVoid {
		return m.appendTake(out, 1)
	}
	return m.appendCheck(out, 1)
}

func (m *module) appendTake(out []byte, units int64) []byte {
	out = append(out, m.check.before...)
	return append(appendConst(out, units), m.check.after...)
}

// appendBulk appends an instruction that works on as many bytes or elements as its last operand
// says, and takes fuel for them.
func (m *module) appendBulk(out, instruction []byte) []byte {
	out = append(out, m.check.charge...)
	out = append(out, instruction...)
	out = append(out, opLoop, blockVoid)
	return append(append(out, m.check.refill...), opEnd)
}

func (m *module) appendGlobal(out []byte, op byte, added uint32) []byte {
	return binary.AppendUvarint(append(out, op), uint64(len(m.globals))+uint64(added))
}

// appendConst appends i32.const v, of a v that is not negative.
func appendConst(out []byte, v int64) []byte {
	out = append(out, opConst)
	for ; v >= 0x40; v >>= 7 { // a sixth bit that is set would be a sign
		out = append(out, byte(v)|0x80)
	}
	return append(out, byte(v))
}
