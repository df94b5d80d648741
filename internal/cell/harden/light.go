package harden

// A light function has no check at its entry: its callers count it as so many instructions. Which
// functions are light follows from the calls between them. What runs between two checks is bounded,
// because
//
//   - a light function calls no light function that calls it in turn, so that no recursion is without
//     a check: the calls are followed in depth, and a function that is met in its own is not light;
//   - whom an indirect call calls is not known, so that no function with one is light;
//   - what a light function does until it returns or meets a check is at most so many instructions,
//     those of the light functions it calls included. A loop in it has a check of its own.
const (
	// lightMost is the most instructions of a light function.
	lightMost = stretch / 2
	// namedMost is the most of one that others can call without naming it: every indirect call counts
	// as much.
	namedMost = 64
	// hostWeight is how many instructions a call of the host, and memory.grow, count as.
	hostWeight = 64
)

// outline is what of a function matters to its being light.
type outline struct {
	weight  int64    // -1: it is not light, whatever it calls
	calls   []uint32 // its own functions that it calls
	state   outlineState
	entered bool // by a function that it calls
}

type outlineState uint8

const (
	untouched outlineState = iota
	underWay
	decided
)

// plan finds the light functions of a code section: m.light is how many instructions each of its own
// functions counts as for a caller, and 0 for one that has a check.
func (m *module) plan(in reader, count int) {
	m.light = make([]int64, count)
	if m.named == nil {
		m.named = make([]bool, count)
	}
	outlines := make([]outline, count)
	for i := range outlines {
		body := reader{rest: in.take(in.u32())}
		outlines[i] = m.outline(&body)
	}
	for i := range outlines {
		m.decide(outlines, uint32(i))
	}
}

// outline reads the body of a function. One that is malformed is not light: what is wrong with it is said
// when it is rewritten.
func (m *module) outline(in *reader) outline {
	none := outline{weight: -1}
	total, err := locals(in, 0)
	if err != nil {
		return none
	}
	o := outline{weight: 1 + total}
	m.cost = cost{}
	for len(in.rest) > 0 {
		at := in.rest
		op := in.byte()
		if _, err := m.immediates(in, op); err != nil || in.failed {
			return none
		}
		o.weight++
		switch op {
		case opCallIndirect, opReturnCallIndirect:
			return none
		case opMemoryGrow:
			o.weight += hostWeight
		case opCall, opReturnCall:
			if own, ok := m.ownFunction(at[1:]); ok {
				o.calls = append(o.calls, own)
			} else {
				o.weight += hostWeight
			}
		}
		if o.weight > lightMost {
			return none
		}
	}
	return o
}

// ownFunction reads the function that a call names, as one of the module's own.
func (m *module) ownFunction(immediate []byte) (uint32, bool) {
	in := reader{rest: immediate}
	own := int64(in.u32()) - int64(len(m.report.Imports))
	if in.failed || own < 0 || own >= int64(len(m.light)) {
		return 0, false
	}
	return uint32(own), true
}

// decide decides whether a function is light, after those it calls.
func (m *module) decide(outlines []outline, i uint32) {
	o := &outlines[i]
	if o.state == decided {
		return
	}
	o.state = underWay
	for _, callee := range o.calls {
		switch outlines[callee].state {
		case untouched:
			m.decide(outlines, callee)
		case underWay:
			outlines[callee].entered = true
		case decided:
		}
		if o.weight >= 0 {
			o.weight += m.light[callee]
		}
	}
	o.state = decided
	most := int64(lightMost)
	if m.named[i] {
		most = namedMost
	}
	if !o.entered && o.weight >= 0 && o.weight <= most {
		m.light[i] = o.weight
	}
}

// weight returns as how many instructions an instruction counts besides itself.
func (m *module) weight(op byte, instruction []byte) int {
	switch op {
	case opCallIndirect, opReturnCallIndirect: // of any function
		return namedMost
	case opCall, opReturnCall:
		if own, ok := m.ownFunction(instruction[1:]); ok {
			if m.light[own] == 0 {
				return 0
			}
			return int(max(namedMost, m.light[own]))
		}
		return hostWeight
	}
	return 0
}
