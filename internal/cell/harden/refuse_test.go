package harden_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/cell/harden"
)

func uleb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func vec(items ...[]byte) []byte {
	return slices.Concat(append([][]byte{uleb(len(items))}, items...)...)
}

func repeated(count int, item ...byte) []byte {
	return append(uleb(count), bytes.Repeat(item, count)...)
}

// function is a module whose one function, without parameters or results, has these locals and
// this code. It has a memory.
func function(locals, code []byte) []byte {
	body := slices.Concat(locals, code, []byte{0x0b})
	return module(sec(1, 1, 0x60, 0, 0), sec(3, 1, 0), sec(5, 1, 0, 1), sec(10, vec(slices.Concat(uleb(len(body)), body))...))
}

// typed is a module with one type.
func typed(params, results []byte) []byte {
	return module(sec(1, slices.Concat([]byte{1, 0x60}, params, results)...))
}

func TestModuleRefuses(t *testing.T) {
	t.Parallel()
	long := slices.Concat(uleb(harden.MaxNameBytes+1), bytes.Repeat([]byte("n"), harden.MaxNameBytes+1))
	oneFunction := slices.Concat(sec(1, 1, 0x60, 0, 0), sec(3, 1, 0))
	aType := sec(1, 1, 0x60, 0, 0)
	for _, tt := range []struct {
		name string
		code []byte
		want error
		text string
	}{
		// Its frame.
		{"empty", nil, harden.ErrMalformed, "header"},
		{"other version", []byte("\x00asm\x02\x00\x00\x00"), harden.ErrMalformed, "header"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), harden.ErrMalformed, "header"},
		{"section cut off", module([]byte{1, 5, 0}), harden.ErrMalformed, "section 1 is cut off"},
		{"section size", module([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), harden.ErrMalformed, "cut off"},
		{"section size of 33 bits", module([]byte{1, 0x81, 0x80, 0x80, 0x80, 0x10, 0}), harden.ErrMalformed, "cut off"},
		{"unknown section", module(sec(14)), harden.ErrMalformed, "unknown"},
		{"section twice", module(sec(3, 0), sec(3, 0)), harden.ErrMalformed, "out of order"},
		{"section out of order", module(sec(10, 0), sec(3, 0)), harden.ErrMalformed, "out of order"},
		{"custom section without a name", module(sec(0)), harden.ErrMalformed, "custom section"},
		{"custom section not in UTF-8", module(sec(0, 1, 0xff)), harden.ErrMalformed, "custom section"},

		// Counts that are larger than what follows them.
		{"types", module(sec(1, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "4294967295 types, in 0 bytes"},
		{"imports", module(sec(2, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "imports"},
		{"functions", module(sec(3, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "functions"},
		{"tables", module(sec(4, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "tables"},
		{"globals", module(sec(6, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "globals"},
		{"exports", module(sec(7, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "exports"},
		{"element segments", module(sec(9, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "element segments"},
		{"data segments", module(sec(11, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "data segments"},
		{"bodies", module(sec(10, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "code for 4294967295"},
		{"elements", module(sec(9, 1, 1, 0, 0xff, 0xff, 0x03)), harden.ErrMalformed, "cut off"},
		{"data", module(sec(11, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f)), harden.ErrMalformed, "cut off"},
		{"parameters", typed([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, nil), harden.ErrMalformed, "cut off"},
		{"entries left over", module(sec(1, 0, 0)), harden.ErrMalformed, "does not end"},
		{"number of six bytes", module(sec(1, 0x80, 0x80, 0x80, 0x80, 0x80, 0)), harden.ErrMalformed, "does not end"},

		// Bombs.
		{"many types", module(sec(1, repeated(harden.MaxTypes+1, 0x60, 0, 0)...)), harden.ErrUnsupported, "65537 types, the limit is 65536"},
		{"many parameters", typed(repeated(harden.MaxParams+1, 0x7f), []byte{0}), harden.ErrUnsupported, "1001 parameters, the limit is 1000"},
		{"many results", typed([]byte{0}, repeated(harden.MaxParams+1, 0x7f)), harden.ErrUnsupported, "1001 results, the limit is 1000"},
		{"many imports", module(aType, sec(2, repeated(harden.MaxImports+1, 1, 'a', 1, 'b', 0, 0)...)), harden.ErrUnsupported, "1001 imports, the limit is 1000"},
		{"many functions", module(aType, sec(3, repeated(harden.MaxFunctions+1, 0)...)), harden.ErrUnsupported, "functions, the limit is 262144"},
		{"many tables", module(sec(4, repeated(harden.MaxTables+1, 0x70, 0, 0)...)), harden.ErrUnsupported, "17 tables, the limit is 16"},
		{"large table", module(sec(4, 1, 0x70, 0, 0x80, 0x80, 0x80, 0x08)), harden.ErrUnsupported, "16777216 elements, the limit is 262144"},
		{"many globals", module(sec(6, repeated(harden.MaxGlobals+1, 0x7f, 0, 0x41, 0, 0x0b)...)), harden.ErrUnsupported, "16385 globals, the limit is 16384"},
		{"many exports", module(oneFunction, sec(7, repeated(harden.MaxExports+1, 1, 'x', 0, 0)...)), harden.ErrUnsupported, "16385 exports, the limit is 16384"},
		{"many element segments", module(sec(9, repeated(harden.MaxSegments+1, 1, 0, 0)...)), harden.ErrUnsupported, "100001 element segments, the limit is 100000"},
		{"many elements", module(sec(9, slices.Concat([]byte{1, 1, 0}, repeated(harden.MaxSegmentElements+1, 0))...)), harden.ErrUnsupported, "1048577 elements or more, the limit is 1048576"},
		{"many data segments", module(sec(11, repeated(harden.MaxSegments+1, 1, 0)...)), harden.ErrUnsupported, "100001 data segments, the limit is 100000"},
		{"long name of an export", module(oneFunction, sec(7, vec(slices.Concat(long, []byte{0, 0}))...)), harden.ErrUnsupported, "8193 bytes long, the limit is 8192"},
		{"long name of an import", module(aType, sec(2, vec(slices.Concat(long, []byte{1, 'x', 0, 0}))...)), harden.ErrUnsupported, "8193 bytes long, the limit is 8192"},
		{"many locals", function([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x7f}, nil), harden.ErrUnsupported, "4294967295 locals or more, the limit is 50000"},
		{"many groups of locals", function(repeated(13, 0xa0, 0x1f, 0x7f), nil), harden.ErrUnsupported, "locals or more, the limit is 50000"},
		{"many targets", function(none, slices.Concat([]byte{0x41, 0, 0x0e}, repeated(harden.MaxBranchTargets+1, 0), []byte{0})), harden.ErrUnsupported, "65537 targets or more, the limit is 65536"},
		{"many targets in many tables", function(none, bytes.Repeat(slices.Concat([]byte{0x41, 0, 0x0e}, repeated(10_000, 0), []byte{0}), 7)), harden.ErrUnsupported, "70000 targets or more, the limit is 65536"},
		{"deep blocks", function(none, nested(harden.MaxDepth, 0x02, 0x40)), harden.ErrUnsupported, "nest deeper than the limit of 16384"},
		{"deep loops", function(none, nested(8000, 0x03, 0x40)), harden.ErrUnsupported, "branch too much"},
		{"long function", function(none, bytes.Repeat([]byte{0x01}, harden.MaxFunctionBytes)), harden.ErrUnsupported, "bytes long, the limit is 524288"},
		{"locals at loops", function([]byte{1, 0x88, 0x27, 0x7f}, nested(1000, 0x03, 0x40)), harden.ErrUnsupported, "limit of the product is 4194304"},
		{"many branches", function(none, bytes.Repeat([]byte{0x41, 0, 0x0d, 0}, 50_000)), harden.ErrUnsupported, "branch too much"},

		// Other proposals.
		{"garbage-collected types", module(sec(1, 1, 0x5f, 0)), harden.ErrUnsupported, "garbage-collected types"},
		{"recursive types", module(sec(1, 1, 0x4e, 1, 0x60, 0, 0)), harden.ErrUnsupported, "garbage-collected types"},
		{"anyref", typed([]byte{1, 0x6e}, []byte{0}), harden.ErrUnsupported, "garbage-collected types"},
		{"garbage-collected instruction", program(none, []byte{0xfb, 0, 0}), harden.ErrUnsupported, "garbage-collected types"},
		{"typed reference", typed([]byte{1, 0x64, 0}, []byte{0}), harden.ErrUnsupported, "typed function references"},
		{"typed reference as a local", function([]byte{1, 1, 0x63, 0}, nil), harden.ErrUnsupported, "typed function references"},
		{"typed reference as a block's type", function(none, []byte{0x02, 0x63, 0, 0x0b}), harden.ErrUnsupported, "typed function references"},
		{"null of a type", program(none, []byte{0xd0, 0}), harden.ErrUnsupported, "typed function references"},
		{"table with a value", module(sec(4, 1, 0x40, 0, 0x70, 0, 1, 0xd0, 0x70, 0x0b)), harden.ErrUnsupported, "typed function references"},
		{"call_ref", program(none, []byte{0x14, 0}), harden.ErrUnsupported, "typed function references"},
		{"tag section", module(sec(13, 0)), harden.ErrUnsupported, "exceptions"},
		{"imported tag", module(aType, sec(2, 1, 1, 'a', 1, 'b', 4, 0, 0)), harden.ErrUnsupported, "exceptions"},
		{"exported tag", module(sec(7, 1, 1, 'x', 4, 0)), harden.ErrUnsupported, "exceptions"},
		{"throw", program(none, []byte{0x08, 0}), harden.ErrUnsupported, "exceptions"},
		{"try_table", program(none, []byte{0x1f, 0x40, 0, 0x0b}), harden.ErrUnsupported, "exceptions"},
		{"legacy try", program(none, []byte{0x06, 0x40, 0x0b}), harden.ErrUnsupported, "legacy exceptions"},
		{"exnref", typed([]byte{1, 0x69}, []byte{0}), harden.ErrUnsupported, "exceptions"},
		{"shared memory", module(sec(5, 1, 3, 1, 2)), harden.ErrUnsupported, "shared memory (threads)"},
		{"shared memory without a maximum", module(sec(5, 1, 2, 1)), harden.ErrUnsupported, "shared memory (threads)"},
		{"atomic instruction", program(none, []byte{0xfe, 0, 2, 0}), harden.ErrUnsupported, "atomic instructions (threads)"},
		{"64-bit memory", module(sec(5, 1, 4, 1)), harden.ErrUnsupported, "64-bit memory"},
		{"64-bit table", module(sec(4, 1, 0x70, 5, 1, 2)), harden.ErrUnsupported, "64-bit memory or tables"},
		{"custom page size", module(sec(5, 1, 8, 1, 0)), harden.ErrUnsupported, "custom page sizes"},
		{"two memories", module(sec(5, 2, 0, 1, 0, 1)), harden.ErrUnsupported, "more than one memory"},
		{"memory index of a load", program(none, []byte{0x41, 0, 0x28, 0x42, 1, 0}), harden.ErrUnsupported, "more than one memory"},
		{"memory index of memory.size", program(none, []byte{0x3f, 1}), harden.ErrUnsupported, "more than one memory"},
		{"memory index of data", module(sec(5, 1, 0, 1), sec(11, 1, 2, 1, 0x41, 0, 0x0b, 0)), harden.ErrUnsupported, "more than one memory"},
		{"relaxed vectors", program(none, []byte{0xfd, 0x80, 0x02}), harden.ErrUnsupported, "relaxed vector instructions"},
		{"wide arithmetic", program(none, []byte{0xfc, 19}), harden.ErrUnsupported, "wide arithmetic"},
		{"stack switching", module(sec(1, 1, 0x5d, 0)), harden.ErrUnsupported, "stack switching"},
		{"imports a table", module(sec(2, 1, 1, 'a', 1, 'b', 1, 0x70, 0, 1)), harden.ErrUnsupported, `imports the table "a.b"`},
		{"imports a memory", module(sec(2, 1, 1, 'a', 1, 'b', 2, 0, 1)), harden.ErrUnsupported, `imports the memory "a.b"`},
		{"imports a global", module(sec(2, 1, 1, 'a', 1, 'b', 3, 0x7f, 1)), harden.ErrUnsupported, `imports the global "a.b"`},

		// What is added, and its names.
		{"reads the fuel", program(none, []byte{0x23, 1}), harden.ErrMalformed, "global 1 of 1"},
		{"fills the fuel", program(none, []byte{0x41, 0, 0x24, 1, 0x41, 0}), harden.ErrMalformed, "global 1 of 1"},
		{"clears the stop", program(none, []byte{0x41, 0, 0x24, 2, 0x41, 0}), harden.ErrMalformed, "global 2 of 1"},
		{"exports the fuel", module(sec(7, 1, 1, 'x', 3, 0)), harden.ErrMalformed, "global 0 of 0"},
		{"begins with the fuel", module(sec(6, 1, 0x7f, 0, 0x23, 1, 0x0b)), harden.ErrMalformed, "global 1 of 0"},
		{"data at the fuel", module(sec(5, 1, 0, 1), sec(11, 1, 0, 0x23, 0, 0x0b, 0)), harden.ErrMalformed, "global 0 of 0"},
		{"exports the stop", module(oneFunction, sec(7, vec(slices.Concat([]byte{14}, []byte("sallyport:stop"), []byte{0, 0}))...)), harden.ErrUnsupported, `exports "sallyport:stop"`},
		{"exports a global's name", module(oneFunction, sec(7, vec(slices.Concat([]byte{18}, []byte("sallyport:global:0"), []byte{0, 0}))...)), harden.ErrUnsupported, `"sallyport:" are the host's`},
		{"exports a name twice", module(oneFunction, sec(7, 2, 1, 'x', 0, 0, 1, 'x', 0, 0)), harden.ErrMalformed, `"x" twice`},
		{"uses a memory it has not", module(oneFunction, sec(10, 1, 5, 0, 0x3f, 0, 0x1a, 0x0b)), harden.ErrMalformed, "no memory"},
		{"exports a memory it has not", module(sec(7, 1, 1, 'x', 2, 0)), harden.ErrMalformed, "no memory"},
		{"data for a memory it has not", module(sec(11, 1, 0, 0x41, 0, 0x0b, 0)), harden.ErrMalformed, "no memory"},
		{"start with a parameter", module(sec(1, 1, 0x60, 1, 0x7f, 0), sec(3, 1, 0), sec(8, 0), sec(10, 1, 2, 0, 0x0b)), harden.ErrMalformed, "start function"},
		{"start of nothing", module(sec(8, 0)), harden.ErrMalformed, "function 0 of 0"},
		{"start cut off", module(sec(8)), harden.ErrMalformed, "start section"},
		{"reference to the start function", module(oneFunction, sec(8, 0), sec(10, 1, 5, 0, 0xd2, 0, 0x1a, 0x0b)), harden.ErrMalformed, "not declared"},

		// Bytes that wazero reads as other instructions than they are.
		{"vector constant in two bytes", program(none, slices.Concat([]byte{0xfd, 0x8c, 0}, make([]byte, 16))), harden.ErrMalformed, "encoded in 2 bytes"},
		{"vector instruction in three bytes", program(none, []byte{0xfd, 0x80, 0x81, 0}), harden.ErrMalformed, "encoded in 3 bytes"},
		{"block type in two bytes", program(none, []byte{0x02, 0xc0, 0x7f, 0x0b}), harden.ErrMalformed, "block has type -64"},
		{"memory index in two bytes", program(none, []byte{0x3f, 0x80, 0}), harden.ErrUnsupported, "more than one memory"},
		{"select of two types", program(none, []byte{0x1c, 2, 0x7f, 0x7f}), harden.ErrMalformed, "select of 2 types"},
		{"code after the end", program(none, []byte{0x0b, 0x41, 0}), harden.ErrMalformed, "code follows its end"},
		{"code without an end", module(oneFunction, sec(10, 1, 2, 0, 0x01)), harden.ErrMalformed, "cut off"},

		// The rest.
		{"function cut off", module(oneFunction, sec(10, 1, 9, 0)), harden.ErrMalformed, "cut off"},
		{"locals cut off", module(oneFunction, sec(10, 1, 2, 1, 2)), harden.ErrMalformed, "locals are cut off"},
		{"function without a type", module(sec(3, 1, 0), sec(10, 1, 2, 0, 0x0b)), harden.ErrMalformed, "type 0 of 0"},
		{"import without a type", module(sec(2, 1, 1, 'a', 1, 'b', 0, 0)), harden.ErrMalformed, "type 0 of 0"},
		{"import cut off", module(sec(2, 1, 1, 'a')), harden.ErrMalformed, "imports"},
		{"import not in UTF-8", module(aType, sec(2, 1, 1, 0xff, 1, 'b', 0, 0)), harden.ErrMalformed, "imports"},
		{"unknown import", module(sec(2, 1, 1, 'a', 1, 'b', 5, 0)), harden.ErrMalformed, "kind of an import"},
		{"unknown export", module(sec(7, 1, 1, 'x', 5, 0)), harden.ErrMalformed, "kind of an export"},
		{"export cut off", module(sec(7, 2, 1, 'x', 0, 0)), harden.ErrMalformed, "exports"},
		{"functions without code", module(oneFunction), harden.ErrMalformed, "no code"},
		{"too much code", module(oneFunction, sec(10, 2, 2, 0, 0x0b, 2, 0, 0x0b)), harden.ErrMalformed, "1 functions, and code for 2"},
		{"code left over", module(oneFunction, sec(10, 1, 2, 0, 0x0b, 0)), harden.ErrMalformed, "does not end"},
		{"constant cut off", module(oneFunction, sec(10, 1, 4, 0, 0x44, 0, 0)), harden.ErrMalformed, "cut off"},
		{"constant of 33 bits", program(none, []byte{0x41, 0x80, 0x80, 0x80, 0x80, 0x10}), harden.ErrMalformed, "cut off"},
		{"endless number", program(none, []byte{0x41, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80}), harden.ErrMalformed, "cut off"},
		{"unknown instruction", program(none, []byte{0xf0}), harden.ErrMalformed, "unknown instruction 0xf0"},
		{"unknown 0xfc", program(none, []byte{0xfc, 99}), harden.ErrMalformed, "unknown instruction 0xfc"},
		{"unknown 0xfd", program(none, []byte{0xfd, 0x9a, 1}), harden.ErrMalformed, "unknown instruction 0xfd"},
		{"unknown block", program(none, []byte{0x02, 9, 0x0b}), harden.ErrMalformed, "block has type 9 of 2"},
		{"unknown value", typed([]byte{1, 0x12}, []byte{0}), harden.ErrMalformed, "0x12 is no type"},
		{"unknown type", module(sec(1, 1, 0x20)), harden.ErrMalformed, "form of a type"},
		{"alignment", program(none, []byte{0x41, 0, 0x28, 33, 0}), harden.ErrMalformed, "alignment"},
		{"table of numbers", module(sec(4, 1, 0x7f, 0, 1)), harden.ErrMalformed, "i32 is no type of a reference"},
		{"table flags", module(sec(4, 1, 0x70, 0x10, 2)), harden.ErrMalformed, "unknown flags"},
		{"table of less than nothing", module(sec(4, 1, 0x70, 1, 2, 1)), harden.ErrMalformed, "from 2 to 1"},
		{"table cut off", module(sec(4, 1, 0x70)), harden.ErrMalformed, "tables"},
		{"memory of more than 4 GiB", module(sec(5, 1, 0, 0x81, 0x80, 0x04)), harden.ErrMalformed, "from 65537"},
		{"mutability", module(sec(6, 1, 0x7f, 2, 0x41, 0, 0x0b)), harden.ErrMalformed, "mutability"},
		{"global without a value", module(sec(6, 1, 0x7f, 0, 0x41, 0)), harden.ErrMalformed, "globals"},
		{"call as a constant", module(sec(6, 1, 0x7f, 0, 0x10, 0, 0x0b)), harden.ErrMalformed, "constant expression"},
		{"vector sum as a constant", module(sec(6, 1, 0x7b, 0, 0xfd, 14, 0x0b)), harden.ErrMalformed, "constant expression"},
		{"flags of elements", module(sec(9, 1, 8)), harden.ErrMalformed, "unknown flags"},
		{"kind of elements", module(sec(9, 1, 1, 1, 0)), harden.ErrMalformed, "kind of an element"},
		{"flags of data", module(sec(11, 1, 3)), harden.ErrMalformed, "unknown flags"},
		{"data count", module(sec(12)), harden.ErrMalformed, "data count"},
	} {
		_, _, err := harden.Module(tt.code)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: Module = %v; want %v: …%s…", tt.name, err, tt.want, tt.text)
		}
	}
}

// nested is code of n blocks in each other.
func nested(n int, begin ...byte) []byte {
	return slices.Concat(bytes.Repeat(begin, n), bytes.Repeat([]byte{0x0b}, n))
}

// TestModuleAcceptsTheLimits: what is not over a limit is accepted, and compiles. (Not at the limits
// that bound its time.)
func TestModuleAcceptsTheLimits(t *testing.T) {
	t.Parallel()
	for name, code := range map[string][]byte{
		"parameters": typed(repeated(harden.MaxParams, 0x7f), repeated(harden.MaxParams, 0x7e)),
		"locals":     function(slices.Concat([]byte{1}, uleb(harden.MaxLocals), []byte{0x7f}), nil),
		"globals":    module(sec(6, repeated(harden.MaxGlobals, 0x7f, 1, 0x41, 0, 0x0b)...)),
		"name":       module(sec(1, 1, 0x60, 0, 0), sec(3, 1, 0), sec(7, vec(slices.Concat(uleb(harden.MaxNameBytes), bytes.Repeat([]byte("n"), harden.MaxNameBytes), []byte{0, 0}))...), sec(10, 1, 2, 0, 0x0b)),
		"depth":      function(none, nested(500, 0x03, 0x40)),
		"targets":    function(none, slices.Concat([]byte{0x41, 0, 0x0e}, repeated(harden.MaxBranchTargets/32, 0), []byte{0})),
		"tables":     module(sec(4, repeated(harden.MaxTables, slices.Concat([]byte{0x70, 0}, uleb(harden.MaxTableElements))...)...)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hardened, report, err := harden.Module(code)
			if err != nil {
				t.Fatal(err)
			}
			checkGlobals(t, report, instantiate(t, hardened))
		})
	}
}

// ExampleModule shows what a refusal looks like.
func ExampleModule() {
	_, _, err := harden.Module(module(sec(5, 1, 3, 1, 2)))
	fmt.Println(err)
	// Output: unsupported module: it uses shared memory (threads), in entry 0 of its memories
}
