package cell_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sallyport/internal/cell"
)

// hostFunctions is everything that a module may import.
func hostFunctions() (all []imported) {
	all = append(all, host("event_size", 0, 1), host("event_read", 2, 1), host("attempt", 0, 1), imported{"sallyport", "deadline", nil, []byte{i64}},
		host("log", 3, 0), host("result_write", 2, 1),
		host("grant_start", 8, 1), imported{"sallyport", "grant_wait", []byte{i32, i64}, []byte{i32}}, host("grant_status", 1, 1), host("grant_size", 2, 1),
		host("grant_read", 5, 1), host("grant_end", 1, 0))
	for name, form := range map[string]string{
		"args_get": "ii:i", "args_sizes_get": "ii:i", "environ_get": "ii:i", "environ_sizes_get": "ii:i",
		"clock_res_get": "ii:i", "clock_time_get": "iIi:i", "fd_advise": "iIIi:i", "fd_allocate": "iII:i", "fd_close": "i:i", "fd_datasync": "i:i",
		"fd_fdstat_get": "ii:i", "fd_fdstat_set_flags": "ii:i", "fd_fdstat_set_rights": "iII:i", "fd_filestat_get": "ii:i",
		"fd_filestat_set_size": "iI:i", "fd_filestat_set_times": "iIIi:i", "fd_pread": "iiiIi:i", "fd_prestat_get": "ii:i",
		"fd_prestat_dir_name": "iii:i", "fd_pwrite": "iiiIi:i", "fd_read": "iiii:i", "fd_readdir": "iiiIi:i", "fd_renumber": "ii:i",
		"fd_seek": "iIii:i", "fd_sync": "i:i", "fd_tell": "ii:i", "fd_write": "iiii:i", "path_create_directory": "iii:i",
		"path_filestat_get": "iiiii:i", "path_filestat_set_times": "iiiiIIi:i", "path_link": "iiiiiii:i", "path_open": "iiiiiIIii:i",
		"path_readlink": "iiiiii:i", "path_remove_directory": "iii:i", "path_rename": "iiiiii:i", "path_symlink": "iiiii:i",
		"path_unlink_file": "iii:i", "poll_oneoff": "iiii:i", "proc_exit": "i:", "proc_raise": "i:i", "sched_yield": ":i",
		"random_get": "ii:i", "sock_accept": "iii:i", "sock_recv": "iiiiii:i", "sock_send": "iiiii:i", "sock_shutdown": "ii:i",
	} {
		all = append(all, wasi(name, form))
	}
	return all
}

// callerPages is the memory of a caller, and argumentsAt where the arguments begin in its event.
const callerPages = 1

// caller is a module that calls a host function with the arguments at the beginning of its event,
// each of 8 bytes. It first divides by zero if a byte of its memory is not zero, or if a file that
// it has is gone: an event before it has left a trace. The event remains at address 0.
func caller(of imported) []byte {
	const at = 0
	var arguments []byte
	for i, t := range of.params {
		op := opLoad64
		if t == i32 {
			op = opLoad
		}
		arguments = append(arguments, code(number(int32(8*i)), op, 0, 0)...)
	}
	arguments = append(arguments, opCall, 0)
	for range of.results {
		arguments = append(arguments, opDrop)
	}
	divide := code(number(1), number(0), opDivide, opDrop)
	return assembly{
		imports: []imported{of, host("event_read", 2, 1), wasi("fd_fdstat_get", "ii:i")},
		functions: []function{handler(1, code(
			opLoop, blockVoid,
			opLocalGet, at, opLoad64, 3, 0, 0x50 /* i64.eqz */, opEqz, opIf, blockVoid, divide, opEnd,
			opLocalGet, at, number(8), opAdd, 0x22, at, number(callerPages<<16), opNe, opBrIf, 0, opEnd,
			number(0), number(0), opCall, 2, opIf, blockVoid, divide, opEnd,
			number(2), number(0), opCall, 2, opIf, blockVoid, divide, opEnd,
			number(0), number(callerPages<<16), opCall, 1, opDrop, arguments, number(0))...)},
		pages: callerPages,
	}.bytes()
}

// boundaries are what goes wrong in arithmetic with addresses, lengths, counts and descriptors.
var boundaries = []uint64{
	0, 1, 2, 3, 4, 7, 8, 16, 48, 64, 255, 256, 4096, 65528, 65532, 65535, 65536, 65537, 1 << 20,
	1 << 26, 1 << 27, 1 << 28, 1<<28 + 1, 1 << 29, 89478486, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 8, 1<<32 - 1,
	1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1,
}

// TestHostFunctions calls every host function with boundary values, and with memory full of
// boundary values for it to find there: the host never fails, and the next event finds nothing.
func TestHostFunctions(t *testing.T) {
	t.Parallel()
	e := testEngine(t)
	beside := neighbours(t, here(e))
	t.Run("calls", func(t *testing.T) {
		for _, of := range hostFunctions() {
			t.Run(of.module+"."+of.name, func(t *testing.T) {
				t.Parallel()
				limits := limitsWith(short)
				limits.Memory = 1 << 20
				spec := wasm("caller.wasm", caller(of))
				spec.Grants = granted
				f := load(t, spec, limits)
				random := rand.New(rand.NewPCG(1, uint64(len(of.name))))
				for range 150 {
					in := hostileInput(random, len(of.params))
					_, _, err := f.Invoke(t.Context(), cell.Input{Event: in, Log: func(string, string) {}, Use: echoUse})
					if err == nil {
						continue
					}
					wantKnown(t, err)
					wantNoPanic(t, err)
					if strings.Contains(err.Error(), "divide by zero") {
						t.Fatalf("an event found a trace of the one before it")
					}
					if t.Failed() {
						t.Fatalf("arguments: %s", describe(in, len(of.params)))
					}
				}
			})
		}
	})
	beside.check(t)
	beside.close(t)
}

// hostileInput returns an event of some arguments and other numbers after them.
func hostileInput(random *rand.Rand, arguments int) (in []byte) {
	words := arguments + random.IntN(100)
	for range words {
		v := boundaries[random.IntN(len(boundaries))]
		switch random.IntN(4) {
		case 0: // as two numbers of 32 bits, which the host takes for an address and a length
			v = v<<32 | boundaries[random.IntN(len(boundaries))]&(1<<32-1)
		case 1:
			v = uint64(random.IntN(4))
		}
		in = binary.LittleEndian.AppendUint64(in, v)
	}
	return in
}

func describe(in []byte, arguments int) string {
	var words []string
	for i := range arguments {
		words = append(words, fmt.Sprintf("%#x", binary.LittleEndian.Uint64(in[8*i:])))
	}
	return strings.Join(words, " ")
}
