package harden

// flow is where in a function the reading is: which blocks are open. It finds the branches back to a loop
// that cannot be a part of an endless run.
//
// The Go compiler makes each function one loop around a br_table, in which every jump, also one forward,
// sets a local to the number of a place and branches to the head. A check there would be one for every
// condition. Such a loop, which is called a dispatch here, has a check at each branch back instead,
// except where it can be seen that the br_table goes on at a place behind the branch: every run
// around a loop, as it ends where it began, has a branch that is not of that kind.
type flow struct {
	open  []frame
	count uint32 // of all blocks so far
	// before are the two instructions before the next one, the last at the end.
	before [2]simple
}

// frame is a block that is open.
type frame struct {
	number   uint32
	dispatch *dispatch // of a loop that is one
}

// dispatch is the head of a loop that does nothing but open blocks and branch by a local, like this:
//
//	loop block … block local.get L br_table
type dispatch struct {
	local  uint32
	blocks uint32   // how many blocks its head opens
	places []uint32 // the labels of br_table, the default at the end
}

// simple is an instruction with one number.
type simple struct {
	op    byte
	value int64
}

func newFlow() flow { return flow{open: []frame{{}}} }

// dispatchAt returns the dispatch that a loop is, or nil. The code is what follows the instruction.
func dispatchAt(code, instruction []byte) *dispatch {
	if len(instruction) != 2 || instruction[1] != blockVoid {
		return nil
	}
	in := reader{rest: code}
	d := &dispatch{}
	for len(in.rest) >= 2 && in.rest[0] == opBlock && in.rest[1] == blockVoid {
		in.rest = in.rest[2:]
		d.blocks++
	}
	if in.byte() != opLocalGet {
		return nil
	}
	d.local = in.u32()
	if in.byte() != opBranchTable {
		return nil
	}
	count := in.u32()
	if in.failed || count > MaxBranchTargets || uint64(count) > uint64(len(in.rest)) {
		return nil
	}
	for range count + 1 {
		d.places = append(d.places, in.u32())
	}
	if in.failed {
		return nil
	}
	return d
}

// follow takes an instruction; the code is what follows it.
func (f *flow) follow(op byte, instruction, code []byte) {
	f.before[0], f.before[1] = f.before[1], simple{op: op}
	in := reader{rest: instruction[1:]}
	switch op {
	case opBlock, opIf:
		f.count++
		f.open = append(f.open, frame{number: f.count})
	case opLoop:
		f.count++
		f.open = append(f.open, frame{f.count, dispatchAt(code, instruction)})
	case opEnd:
		f.open = f.open[:len(f.open)-1]
	case opConst:
		f.before[1].value = in.signed(32)
	case opLocalSet:
		f.before[1].value = int64(in.u32())
	}
}

// mayReturn reports whether an instruction may branch back to a dispatch, and thereby to a place before it.
func (f *flow) mayReturn(op byte, instruction []byte) bool {
	in := reader{rest: instruction[1:]}
	switch op {
	case opBranch:
		label := in.u32()
		return f.dispatch(label) != nil && !f.goesOn(label)
	case opBranchIf:
		return f.dispatch(in.u32()) != nil
	case opBranchTable:
		for range in.u32() + 1 {
			if f.dispatch(in.u32()) != nil {
				return true
			}
		}
	}
	return false
}

// at returns the place in f.open of the block that a label names, from a place on.
func (f *flow) at(from int, label uint32) (int, bool) {
	at := int64(from) - int64(label)
	return int(at), at >= 0
}

// dispatch returns the dispatch that a label names, or nil.
func (f *flow) dispatch(label uint32) *dispatch {
	if at, ok := f.at(len(f.open)-1, label); ok {
		return f.open[at].dispatch
	}
	return nil
}

// goesOn reports whether a branch to a dispatch goes on behind the branch: it does if it is known which
// place it selects, which is the end of a block, and this block is still open.
func (f *flow) goesOn(label uint32) bool {
	number, local := f.before[0], f.before[1]
	loop, ok := f.at(len(f.open)-1, label)
	if !ok || number.op != opConst || local.op != opLocalSet {
		return false
	}
	d := f.open[loop].dispatch
	if d == nil || local.value != int64(d.local) {
		return false
	}
	place := d.places[min(uint64(uint32(number.value)), uint64(len(d.places)-1))]
	if place >= d.blocks { // the loop, or what is around it
		return false
	}
	block := loop + int(d.blocks-place)
	return block < len(f.open) && f.open[block].number == f.open[loop].number+d.blocks-place
}
