package harden

import "fmt"

// cost is what the compiler spends on a function. Measured with wazero 1.12: its time grows with
// the square of the function's basic blocks (3 to 30 ns each) and with the product of its locals and
// basic blocks (up to 1.6 µs each), its memory with that product and with the function's size.
type cost struct {
	locals  int64
	blocks  int64 // basic blocks, as far as can be seen without types
	targets int64 // of all br_table
	depth   int
}

// The basic blocks that instructions make.
const (
	checkBlocks = 4 // two conditions
	loopBlocks  = 2 + checkBlocks
	ifBlocks    = 3
)

// localsWeight is how much more a local at a basic block may cost than a pair of basic blocks.
const localsWeight = 64

// count adds an instruction.
func (c *cost) count(op byte, bulk bool) error {
	switch op {
	case opBlock:
		c.blocks++
		c.depth++
	case opLoop:
		c.blocks += loopBlocks
		c.depth++
	case opIf:
		c.blocks += ifBlocks
		c.depth++
	case opEnd:
		c.depth--
	case opBranchIf:
		c.blocks++
	}
	if bulk {
		c.blocks += checkBlocks
	}
	if c.depth > MaxDepth {
		return fmt.Errorf("%w: its blocks nest deeper than the limit of %d", ErrUnsupported, MaxDepth)
	}
	return nil
}

// spend adds the cost of a function to that of the module.
func (m *module) spend() error {
	c := m.cost
	merges := c.locals * c.blocks
	m.effort += c.blocks*c.blocks + localsWeight*merges
	switch {
	case merges > MaxMerges:
		return fmt.Errorf("%w: it has %d locals in %d basic blocks, the limit of the product is %d", ErrUnsupported, c.locals, c.blocks, MaxMerges)
	case m.effort > MaxEffort:
		return fmt.Errorf("%w: its functions branch too much to be compiled in reasonable time (%d units, the limit is %d)", ErrUnsupported, m.effort, int64(MaxEffort))
	}
	return nil
}
