package cell_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"sallyport/internal/cell"
)

// forEver is code that does not end, as a status.
var forEver = code(opLoop, blockVoid, opBr, 0, opEnd, number(0))

// subscribe is code that makes the first 64 bytes of memory a subscription of poll_oneoff: one to
// the clock, relative, in 2^40 nanoseconds or more.
var subscribe = code(number(29), number(1), opStore8, 0, 0)

// manyVectors is code that fills memory with n pairs of the address 0 and this length.
func manyVectors(n, length int32) []byte {
	const at = 0
	return code(opLoop, blockVoid,
		opLocalGet, at, number(length), opStore, 2, 4,
		opLocalGet, at, number(8), opAdd, 0x22 /* local.tee */, at, number(8*n), opNe, opBrIf, 0,
		opEnd)
}

// TestHostCallsEnd has guests wait for host functions with more to do than there is time for: the
// guest cannot be stopped meanwhile, so the host function has to end by itself.
func TestHostCallsEnd(t *testing.T) {
	t.Parallel()
	const pages, most = 128, 128 << 16
	write := func(file int32) []byte {
		return code(manyVectors(1<<19, most), number(file), number(0), number(1<<19), number(16), opCall, 0, opDrop, forEver)
	}
	for _, tt := range []struct {
		name string
		of   imported
		code []byte
	}{
		{"fd_write to stdout", wasi("fd_write", "iiii:i"), write(1)},
		{"fd_write to stderr", wasi("fd_write", "iiii:i"), write(2)},
		{"random_get", wasi("random_get", "ii:i"), code(opLoop, blockVoid, number(0), number(most), opCall, 0, opDrop, opBr, 0, opEnd, number(0))},
		{"poll_oneoff", wasi("poll_oneoff", "iiii:i"), code(subscribe, number(0), number(1024), number(1), number(4096), opCall, 0, opDrop, forEver)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			module := assembly{imports: []imported{tt.of}, functions: []function{handler(1, tt.code...)}, pages: pages}
			f := load(t, wasm("wait.wasm", module.bytes()), limitsWith(short))
			within(t, soon, func() { failure(t, f, `1`, "cell.timeout") })
		})
	}
}

// subscription is one of poll_oneoff, with a kind, a file or clock, a time and flags.
func subscription(kind byte, of uint32, timeout uint64, flags byte) []byte {
	s := make([]byte, 48)
	s[8], s[40] = kind, flags
	binary.LittleEndian.PutUint32(s[16:], of)
	binary.LittleEndian.PutUint64(s[24:], timeout)
	return s
}

// TestPoll: the exit code of the guest is a hundred times the error number, plus how many events there
// were.
func TestPoll(t *testing.T) {
	t.Parallel()
	const clock, read, write = 0, 1, 2
	never := subscription(clock, 1, math.MaxUint64, 0)
	for _, tt := range []struct {
		name          string
		in            []byte
		count         int32
		out, result   int32
		errno, events int
	}{
		{"none", never, 0, 8192, 4096, 28, 0},
		{"too many", never, 1025, 60000, 4096, 28, 0},
		{"a count that overflows", never, 1 << 28, 8192, 4096, 28, 0},
		{"time", subscription(clock, 1, 1, 0), 1, 8192, 4096, 0, 1},
		{"the first of two times", slices.Concat(subscription(clock, 1, 1, 0), never), 2, 8192, 4096, 0, 1},
		{"absolute time", subscription(clock, 0, 1, 1), 1, 8192, 4096, 58, 0},
		{"unknown flags", subscription(clock, 0, 1, 2), 1, 8192, 4096, 28, 0},
		{"unknown kind", subscription(3, 0, 1, 0), 1, 8192, 4096, 28, 0},
		{"a file and a time", slices.Concat(never, subscription(read, 0, 0, 0)), 2, 8192, 4096, 0, 1},
		{"files", slices.Concat(subscription(write, 1, 0, 0), subscription(read, 99, 0, 0)), 2, 8192, 4096, 0, 2},
		{"events over the subscriptions", slices.Concat(subscription(write, 1, 0, 0), subscription(read, 0, 0, 0)), 2, 0, 4096, 0, 2},
		{"events outside", never, 1, 65535, 4096, 21, 0},
		{"result outside", never, 1, 8192, 65534, 21, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, wasm("poll.wasm", assembly{
				imports: []imported{wasi("poll_oneoff", "iiii:i"), host("event_read", 2, 1), wasi("proc_exit", "i")},
				functions: []function{handler(0, code(
					number(0), number(4096), opCall, 1, opDrop,
					number(0), number(tt.out), number(tt.count), number(tt.result), opCall, 0, number(100), 0x6c, /* i32.mul */
					number(4096), opLoad, 2, 0, opAdd, opCall, 2, number(0))...)},
				pages: 1}.bytes()), limitsWith(soon))
			_, _, err := f.Invoke(t.Context(), cell.Input{Event: tt.in})
			wantText(t, wantProblem(t, err, problemFailed, "cell.function_failed").Public, fmt.Sprintf("code %d", 100*tt.errno+tt.events))
		})
	}
}
