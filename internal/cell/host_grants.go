package cell

import (
	"math"
	"time"

	wasm "github.com/tetratelabs/wazero/api"
)

// Parts of an answer, and what grant_status says of a use.
const (
	answerJSON = 0
	answerBody = 1

	useUnknown = -1
	usePending = 0
	useDone    = 1
	useFailed  = 2
)

// hostGrantStart is grant_start(grant, len, op, len, request, len, body, len) i32: it begins a use of a grant and returns its
// number, which is more than 0. What may not be done is told by its answer.
func hostGrantStart(inv *invocation, mem wasm.Memory, stack []uint64) int64 {
	var parts [4][]byte
	for i := range parts {
		ptr, length := uint32(stack[2*i]), uint32(stack[2*i+1])
		var ok bool
		if parts[i], ok = read(mem, ptr, length); !ok {
			return badPointer(inv, "grant_start", ptr, length)
		}
	}
	number := inv.uses.start(GrantUse{Grant: string(clipBytes(parts[0])), Op: string(clipBytes(parts[1])), Request: parts[2], Body: parts[3]})
	if number == 0 {
		return refused
	}
	return int64(number)
}

// clipBytes keeps a hostile name from being copied whole: what is longer than any name is none.
func clipBytes(b []byte) []byte { return b[:min(len(b), MaxGrantText+1)] }

// hostGrantWait is grant_wait(number, milliseconds) i32: it waits for the answer to one use, or to any when the number is 0, for as long as
// is said, or for as long as the invocation lasts when that is negative. It returns the number of a use that has its answer, or 0.
func hostGrantWait(inv *invocation, _ wasm.Memory, stack []uint64) int64 {
	wait := time.Duration(-1)
	if ms := int64(stack[1]); ms >= 0 {
		wait = time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	}
	return int64(inv.uses.await(inv.call, uint32(stack[0]), wait))
}

// hostGrantStatus is grant_status(number) i32: 0 there is no answer yet, 1 it is done, 2 it failed, -1 there is no such use.
func hostGrantStatus(inv *invocation, _ wasm.Memory, stack []uint64) int64 {
	b := inv.uses.begun[uint32(stack[0])]
	switch {
	case b == nil || b.dropped:
		return useUnknown
	case b.answer == nil:
		return usePending
	case b.answer.Failed:
		return useFailed
	}
	return useDone
}

// hostGrantSize is grant_size(number, part) i32: how long the JSON (0) or the bytes (1) of an answer are, or -1.
func hostGrantSize(inv *invocation, _ wasm.Memory, stack []uint64) int64 {
	part, ok := answerPart(inv, uint32(stack[0]), uint32(stack[1]))
	if !ok {
		return useUnknown
	}
	return int64(len(part))
}

// hostGrantRead is grant_read(number, part, offset, ptr, len) i32: it copies from a part of an answer, and returns how many bytes, or -1.
func hostGrantRead(inv *invocation, mem wasm.Memory, stack []uint64) int64 {
	part, ok := answerPart(inv, uint32(stack[0]), uint32(stack[1]))
	if !ok {
		return useUnknown
	}
	offset, ptr, length := uint32(stack[2]), uint32(stack[3]), uint32(stack[4])
	part = part[min(uint64(offset), uint64(len(part))):]
	part = part[:min(uint64(length), uint64(len(part)))]
	if len(part) > 0 && (mem == nil || !mem.Write(ptr, part)) {
		return badPointer(inv, "grant_read", ptr, length)
	}
	return int64(len(part))
}

func answerPart(inv *invocation, number, part uint32) ([]byte, bool) {
	a := inv.uses.answer(number)
	switch {
	case a == nil:
		return nil, false
	case part == answerJSON:
		return a.JSON, true
	case part == answerBody:
		return a.Body, true
	}
	return nil, false
}

// hostGrantEnd is grant_end(number): it forgets a use and its answer.
func hostGrantEnd(inv *invocation, _ wasm.Memory, stack []uint64) int64 {
	inv.uses.end(uint32(stack[0]))
	return 0
}
