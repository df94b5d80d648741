package cell_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/api"
	"sallyport/internal/cell"
)

// WebAssembly's types, and the instructions the tests' modules are written in.
const (
	i32 = 0x7f
	i64 = 0x7e

	kindFunction = 0
	kindTable    = 1
	kindMemory   = 2
	kindGlobal   = 3

	opUnreachable = 0x00
	opLoop        = 0x03
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opCall        = 0x10
	opDrop        = 0x1a
	opLocalGet    = 0x20
	opLocalSet    = 0x21
	opGlobalGet   = 0x23
	opGlobalSet   = 0x24
	opTableGet    = 0x25
	opTableSet    = 0x26
	opLoad        = 0x28
	opLoad64      = 0x29
	opLoad8       = 0x2d
	opStore       = 0x36
	opStore8      = 0x3a
	opMemorySize  = 0x3f
	opMemoryGrow  = 0x40
	opConst       = 0x41
	opConst64     = 0x42
	opEqz         = 0x45
	opNe          = 0x47
	opLess        = 0x49 // unsigned
	opAdd         = 0x6a
	opSub         = 0x6b
	opDivide      = 0x6d
	opShl         = 0x74
	opRefNull     = 0xd0
	opRefIsNull   = 0xd1
	opRefFunc     = 0xd2
	opBulk        = 0xfc
	opVector      = 0xfd
	funcRef       = 0x70
	externRef     = 0x6f
	blockVoid     = 0x40
	blockI32      = 0x7f
)

// assembly is a module in the making. Its functions are numbered after its imports.
type assembly struct {
	imports   []imported
	functions []function
	pages     int // of memory, exported; none when 0
	maxPages  int
	hidden    bool // the memory is not exported
	start     int  // the function that runs at instantiation, if positive
	table     []byte
	exports   [][]byte        // besides those of the functions and the memory
	sections  map[byte][]byte // the bodies of global, element, data count and data sections
}

type imported struct {
	module, name    string
	params, results []byte
}

type function struct {
	export          string
	params, results []byte
	locals          int // of type i32
	code            []byte
}

// host imports a function of the module "sallyport".
func host(name string, params, results int) imported {
	return imported{"sallyport", name, slices.Repeat([]byte{i32}, params), slices.Repeat([]byte{i32}, results)}
}

// handler is sallyport_handle with this code, which leaves its status.
func handler(locals int, code ...byte) function {
	return function{export: "sallyport_handle", results: []byte{i32}, locals: locals, code: code}
}

func vec(items ...[]byte) []byte {
	return slices.Concat(append([][]byte{uleb(len(items))}, items...)...)
}

func uleb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func name(s string) []byte { return slices.Concat(uleb(len(s)), []byte(s)) }

func section(id byte, body []byte) []byte { return slices.Concat([]byte{id}, uleb(len(body)), body) }

// bytes returns the binary of the module.
func (a assembly) bytes() []byte {
	var types, imports, functions, exports, bodies [][]byte
	typeOf := func(params, results []byte) []byte {
		types = append(types, slices.Concat([]byte{0x60}, uleb(len(params)), params, uleb(len(results)), results))
		return uleb(len(types) - 1)
	}
	for _, i := range a.imports {
		imports = append(imports, slices.Concat(name(i.module), name(i.name), []byte{0}, typeOf(i.params, i.results)))
	}
	for n, f := range a.functions {
		functions = append(functions, typeOf(f.params, f.results))
		if f.export != "" {
			exports = append(exports, slices.Concat(name(f.export), []byte{0}, uleb(len(a.imports)+n)))
		}
		locals := vec()
		if f.locals > 0 {
			locals = vec(slices.Concat(uleb(f.locals), []byte{i32}))
		}
		body := slices.Concat(locals, f.code, []byte{opEnd})
		bodies = append(bodies, slices.Concat(uleb(len(body)), body))
	}
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = append(out, section(1, vec(types...))...)
	out = append(out, section(2, vec(imports...))...)
	out = append(out, section(3, vec(functions...))...)
	if a.table != nil {
		out = append(out, section(4, a.table)...)
	}
	if a.pages > 0 {
		memory := slices.Concat([]byte{0}, uleb(a.pages))
		if a.maxPages > 0 {
			memory = slices.Concat([]byte{1}, uleb(a.pages), uleb(a.maxPages))
		}
		out = append(out, section(5, vec(memory))...)
		if !a.hidden {
			exports = append(exports, export("memory", kindMemory, 0))
		}
	}
	out = append(out, a.section(6)...)
	out = append(out, section(7, vec(append(exports, a.exports...)...))...)
	if a.start > 0 {
		out = append(out, section(8, uleb(a.start))...)
	}
	out = append(append(out, a.section(9)...), a.section(12)...)
	out = append(out, section(10, vec(bodies...))...)
	return append(out, a.section(11)...)
}

// section returns one of the sections that are given as they are.
func (a assembly) section(id byte) []byte {
	if a.sections[id] == nil {
		return nil
	}
	return section(id, a.sections[id])
}

func export(as string, kind byte, index int) []byte {
	return slices.Concat(name(as), []byte{kind}, uleb(index))
}

// code returns instructions: a byte for each int, and the bytes of each slice.
func code(parts ...any) (out []byte) {
	for _, part := range parts {
		switch p := part.(type) {
		case int:
			out = append(out, byte(p))
		case []byte:
			out = append(out, p...)
		default:
			panic(fmt.Sprintf("BUG: a %T is no code", part))
		}
	}
	return out
}

// number is i32.const n.
func number(n int32) []byte {
	out := []byte{opConst}
	for ; n < -0x40 || n > 0x3f; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n)&0x7f)
}

// wasi imports a function of WASI preview 1. Its type is written "iI:i", where I has 64 bits.
func wasi(name, form string) imported {
	types := func(letters string) (out []byte) {
		for _, c := range letters {
			out = append(out, map[rune]byte{'i': i32, 'I': i64}[c])
		}
		return out
	}
	params, results, _ := strings.Cut(form, ":")
	return imported{"wasi_snapshot_preview1", name, types(params), types(results)}
}

// echo is a module whose result is its event, byte for byte.
func echo() []byte {
	return assembly{
		imports: []imported{host("event_size", 0, 1), host("event_read", 2, 1), host("result_write", 2, 1)},
		functions: []function{handler(0,
			opConst, 0, opCall, 0, opCall, 1, opDrop,
			opConst, 0, opCall, 0, opCall, 2, opDrop,
			opConst, 0)},
		pages: 4,
	}.bytes()
}

func wasm(name string, code []byte) cell.Spec {
	return cell.Spec{Name: name, Kind: api.ModuleWasm, Code: code}
}

// built returns the Go program in testdata as a module. Go's build cache makes it cheap.
func built(t testing.TB, program string) cell.Spec {
	t.Helper()
	code, err := programs[program]()
	if err != nil {
		t.Fatal(err)
	}
	return wasm(program+".wasm", code)
}

var programs = map[string]func() ([]byte, error){
	"reactor": sync.OnceValues(func() ([]byte, error) { return build("reactor", "-buildmode=c-shared") }),
	"command": sync.OnceValues(func() ([]byte, error) { return build("command", "-buildmode=exe") }),
}

func build(program, mode string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "cell-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "out.wasm")
	cmd := exec.Command("go", "build", mode, "-o", out, "./testdata/"+program)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=-buildvcs=false")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", program, err, text)
	}
	return os.ReadFile(out)
}
