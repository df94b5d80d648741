package cell

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"time"

	wasm "github.com/tetratelabs/wazero/api"
)

// maxSubscriptions is many times what a guest with three files can wait for.
const maxSubscriptions = 1024

// The layout of what poll_oneoff reads and writes.
const (
	subscriptionBytes = 48
	kindAt            = 8 // after 8 bytes of the guest's own
	fileAt            = 16
	timeoutAt         = 24
	flagsAt           = 40

	pollEventBytes = 32
	errnoAt        = 8
	eventKindAt    = 10
)

// What a guest may wait for.
const (
	pollClock = 0
	pollRead  = 1
	pollWrite = 2
)

// poll is a call of poll_oneoff(in, out, count, result).
type poll struct{ in, out, count, result uint32 }

// run waits for the first of the subscriptions, or for the end of the invocation, and returns an
// error number. Files are always ready. Of the clock there are relative times only.
func (p poll) run(ctx context.Context, mem wasm.Memory) uint64 {
	if p.count == 0 || p.count > maxSubscriptions {
		return wasiInvalid
	}
	subscriptions, readable := mem.Read(p.in, p.count*subscriptionBytes)
	events, writable := mem.Read(p.out, p.count*pollEventBytes)
	if !readable || !writable || !mem.WriteUint32Le(p.result, 0) {
		return wasiFault
	}
	subscriptions = bytes.Clone(subscriptions) // the guest may have the events written over them
	first := time.Duration(math.MaxInt64)
	for i := range p.count {
		wait, errno := waitFor(subscriptions[i*subscriptionBytes:])
		if errno != wasiSuccess {
			return errno
		}
		first = min(first, wait)
	}
	sleep(ctx, first)
	happened := uint32(0)
	for i := range p.count {
		subscription := subscriptions[i*subscriptionBytes:]
		if wait, _ := waitFor(subscription); wait > first {
			continue
		}
		event := events[happened*pollEventBytes:][:pollEventBytes]
		clear(event)
		copy(event, subscription[:kindAt])
		event[eventKindAt] = subscription[kindAt]
		if subscription[kindAt] != pollClock && binary.LittleEndian.Uint32(subscription[fileAt:]) > maxStandardFile {
			event[errnoAt] = wasiBadFile
		}
		happened++
	}
	mem.WriteUint32Le(p.result, happened)
	return wasiSuccess
}

// waitFor returns in how long it happens what is subscribed to.
func waitFor(subscription []byte) (time.Duration, uint64) {
	switch subscription[kindAt] {
	case pollRead, pollWrite:
		return 0, wasiSuccess
	case pollClock:
		switch binary.LittleEndian.Uint16(subscription[flagsAt:]) {
		case 0:
			return time.Duration(min(binary.LittleEndian.Uint64(subscription[timeoutAt:]), math.MaxInt64)), wasiSuccess
		case 1: // an absolute time
			return 0, wasiNotSupported
		}
	}
	return 0, wasiInvalid
}

// sleep returns after so long, or when the invocation is over.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
