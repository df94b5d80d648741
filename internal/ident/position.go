package ident

import "strconv"

// Position is the sequence number of an event in the event log of its namespace. It rises with
// every event and is never used twice, but is not dense: the upper bits are the number of the
// batch the event was committed in, the lower PositionIndexBits its place in that batch. So a
// position alone finds its event with one read, without an index.
//
// Positions stay below 2^53, so a JSON reader that keeps numbers as doubles reads them exactly.
type Position uint64

// PositionIndexBits is the width of the place in a batch: a batch holds at most 1,024 events.
const PositionIndexBits = 10

// MaxBatchEvents is the most events one batch can hold.
const MaxBatchEvents = 1 << PositionIndexBits

// NewPosition returns the position of the event at index (0 to MaxBatchEvents-1) of batch.
func NewPosition(batch uint64, index int) Position {
	return Position(batch<<PositionIndexBits | uint64(index)&(MaxBatchEvents-1))
}

// Batch returns the number of the batch the event was committed in; numbers start at 1.
func (p Position) Batch() uint64 { return uint64(p) >> PositionIndexBits }

// Index returns the place of the event in its batch, from 0.
func (p Position) Index() int { return int(p & (MaxBatchEvents - 1)) }

// String returns the position in decimal.
func (p Position) String() string { return strconv.FormatUint(uint64(p), 10) }
