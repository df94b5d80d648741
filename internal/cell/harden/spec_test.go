package harden_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"sallyport/internal/cell/harden"
)

// features are what the cell enables.
const features = wasm.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// suite is a folder of scripts in wazero's module.
type suite struct {
	features wasm.CoreFeatures // that its modules are written for
	modules  int               // that there are
}

// suites are all of them. The scripts of v1 are nearly all in v2 again: they run in the interpreter,
// and the others are compiled.
var suites = map[string]suite{
	"v1":                        {wasm.CoreFeaturesV1, 2527},
	"v2":                        {wasm.CoreFeaturesV2, 4581},
	"tail-call":                 {wasm.CoreFeaturesV2 | experimental.CoreFeaturesTailCall, 30},
	"extended-const":            {wasm.CoreFeaturesV2 | experimental.CoreFeaturesExtendedConst, 54},
	"exception-handling":        {wasm.CoreFeaturesV2 | experimental.CoreFeaturesExceptionHandling | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesTypedFunctionReferences, 30},
	"threads":                   {wasm.CoreFeaturesV2 | experimental.CoreFeaturesThreads, 53},
	"typed-function-references": {wasm.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesTypedFunctionReferences, 558},
}

// tally counts what the scripts had.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

func (t *tally) want(tb testing.TB, what string, least int) {
	tb.Helper()
	if t.counts[what] < least {
		tb.Errorf("%s: %d; want %d or more", what, t.counts[what], least)
	}
}

// TestSpecification runs the scripts of the WebAssembly specification that wazero's module holds,
// on each of their modules as it is and hardened. What is valid stays valid and computes the same;
// what is not valid does not become so; what is refused although it is valid is refused for what it
// uses.
func TestSpecification(t *testing.T) {
	t.Parallel()
	root := specificationDir(t)
	host, err := os.ReadFile(filepath.Join(root, "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	counts := &tally{counts: map[string]int{}}
	t.Run("suites", func(t *testing.T) {
		for name, suite := range suites {
			dir := filepath.Join(root, name, "testdata")
			scripts, modules := glob(t, dir, "*.json"), glob(t, dir, "*.wasm")
			if len(modules) != suite.modules {
				t.Errorf("%s has %d modules; want %d", name, len(modules), suite.modules)
			}
			used := map[string]bool{}
			for _, file := range scripts {
				s := readScript(t, file)
				for _, c := range s.Commands {
					used[c.Filename] = true
				}
				t.Run(name+"/"+strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
					t.Parallel()
					newWorld(t, host, dir, suite.features, name == "v1", counts).run(s)
				})
			}
			for _, file := range modules {
				if !used[filepath.Base(file)] {
					t.Errorf("no script has %s", file)
				}
			}
		}
	})
	for _, what := range slices.Sorted(maps.Keys(counts.counts)) {
		t.Logf("%6d %s", counts.counts[what], what)
	}
	counts.want(t, "modules: valid, hardened", 2321)
	counts.want(t, "modules: invalid, refused", 4900)
	counts.want(t, "modules: refused: imports", 300)
	const later = "modules: invalid in the suite, valid with the features of the cell"
	if counts.counts[later] > 8 { // of v1, such as functions of several results
		t.Errorf("%s: %d; want 8 at most", later, counts.counts[later])
	}
	counts.want(t, "calls: compared", 64_000)
	counts.want(t, "calls: compared traps", 2800)
	counts.want(t, "calls: that overflow the stack", 15)
}

// specificationDir returns where wazero's module has the scripts.
func specificationDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s in %s: %d files, %v", pattern, dir, len(files), err)
	}
	return files
}

// script is a script of the specification, as JSON.
type script struct{ Commands []command }

type command struct {
	Type, Name, Filename, As string
	Line                     int
	Action                   struct {
		Type, Module, Field string
		Args                []value
	}
}

type value struct {
	Type  string
	Lanes string `json:"lane_type"`
	Value any
}

func readScript(t *testing.T, file string) script {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s script
	if err := json.Unmarshal(text, &s); err != nil || len(s.Commands) == 0 {
		t.Fatalf("%s: %d commands, %v", file, len(s.Commands), err)
	}
	return s
}

// pair is a module of a script, as it is and hardened; the latter is nil if it was refused.
type pair struct{ plain, hardened wasm.Module }

// world is where one script runs.
type world struct {
	*testing.T
	counts          *tally
	dir             string
	interpret       bool
	plain, hardened wazero.Runtime
	last            pair
	named           map[string]pair
	// refused has the registered names of modules that were refused.
	refused map[string]bool
	// shared is true once a module that was refused imported a table, memory or global of another:
	// what the two do to each other happens on one side only.
	shared bool
}

func newWorld(t *testing.T, host []byte, dir string, of wasm.CoreFeatures, interpret bool, counts *tally) *world {
	w := &world{T: t, counts: counts, dir: dir, interpret: interpret, named: map[string]pair{}, refused: map[string]bool{}}
	for _, r := range []struct {
		runtime  *wazero.Runtime
		features wasm.CoreFeatures
	}{{&w.plain, of}, {&w.hardened, features}} {
		config := wazero.NewRuntimeConfigCompiler()
		if interpret {
			config = wazero.NewRuntimeConfigInterpreter()
		}
		*r.runtime = wazero.NewRuntimeWithConfig(t.Context(), config.WithCoreFeatures(r.features))
		t.Cleanup(func() { (*r.runtime).Close(context.Background()) })
		if _, err := (*r.runtime).Instantiate(t.Context(), host); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) run(s script) {
	for i, c := range s.Commands {
		if strings.HasSuffix(c.Filename, ".wat") {
			w.counts.add("modules: in text, not read")
			continue
		}
		var code []byte
		if c.Filename != "" {
			var err error
			if code, err = fs.ReadFile(os.DirFS(w.dir), c.Filename); err != nil {
				w.Fatal(err)
			}
		}
		switch c.Type {
		case "module":
			as := ""
			if i+1 < len(s.Commands) && s.Commands[i+1].Type == "register" {
				as = s.Commands[i+1].As
			}
			w.module(c, code, as)
		case "register": // with its module
		case "action", "assert_return", "assert_trap", "assert_exhaustion", "assert_exception":
			w.action(c)
		case "assert_invalid", "assert_malformed":
			w.invalid(c, code)
		case "assert_unlinkable", "assert_uninstantiable":
			w.uninstantiable(c, code)
		default:
			w.Fatalf("line %d: unknown command %s", c.Line, c.Type)
		}
	}
}

// module instantiates a valid module.
func (w *world) module(c command, code []byte, as string) {
	var p pair
	var err error
	if p.plain, err = w.plain.InstantiateWithConfig(w.Context(), code, wazero.NewModuleConfig().WithName(as)); err != nil {
		w.Fatalf("line %d: %s: %v", c.Line, c.Filename, err)
	}
	if p.hardened, err = w.harden(code, as); err != nil {
		w.valid(c, code, err)
		w.refused[as] = true
	} else {
		w.counts.add("modules: valid, hardened")
	}
	w.last = p
	if c.Name != "" {
		w.named[c.Name] = p
	}
}

// valid checks that a valid module is refused for a reason.
func (w *world) valid(c command, code []byte, err error) {
	text := err.Error()
	switch {
	case errors.Is(err, harden.ErrUnsupported) && strings.Contains(text, "it imports the "):
		w.counts.add("modules: refused: imports")
		w.shared = w.shared || !strings.Contains(text, `"spectest.`)
	case errors.Is(err, harden.ErrUnsupported) && strings.Contains(text, "it uses "):
		w.counts.add("modules: refused: " + strings.SplitAfter(strings.Split(text, ", in ")[0], ": ")[1])
	case errors.Is(err, harden.ErrUnsupported) && strings.Contains(text, "the limit is"):
		w.counts.add("modules: refused: limit")
		w.Logf("line %d: %s: %v", c.Line, c.Filename, err)
	case strings.HasSuffix(text, "not instantiated") && slices.ContainsFunc(slices.Collect(maps.Keys(w.refused)), func(name string) bool {
		return name != "" && text == fmt.Sprintf("module[%s] not instantiated", name)
	}):
		w.counts.add("modules: refused: it imports from one that is")
	case !w.compiles(code):
		w.counts.add("modules: refused: by the compiler without the features")
		w.Logf("line %d: %s: %v", c.Line, c.Filename, err)
	default:
		w.Errorf("line %d: %s is valid, and refused: %v", c.Line, c.Filename, err)
	}
}

// harden returns an instance of the hardened module.
func (w *world) harden(code []byte, as string) (m wasm.Module, err error) {
	before := bytes.Clone(code)
	hardened, report, err := harden.Module(code)
	if !bytes.Equal(before, code) {
		w.Fatal("Module changed its input")
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if v := recover(); v != nil { // wazero panics on some invalid modules
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	compiled, err := w.hardened.CompileModule(w.Context(), hardened)
	if err != nil {
		return nil, err
	}
	checkReport(w, report, compiled)
	m, err = w.hardened.InstantiateModule(w.Context(), compiled, wazero.NewModuleConfig().WithName(as).WithStartFunctions())
	if err != nil {
		return nil, err
	}
	checkGlobals(w, report, m)
	if start := m.ExportedFunction(harden.StartExport); start != nil {
		_, err = start.Call(w.Context())
	}
	return m, err
}

// compiles reports whether a module is valid with the features of the cell.
func (w *world) compiles(code []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	m, err := w.hardened.CompileModule(w.Context(), code)
	if err == nil {
		err = m.Close(w.Context())
	}
	return err == nil
}

// instantiates reports whether a module is instantiated with the features of the cell.
func (w *world) instantiates(code []byte) bool {
	_, err := w.hardened.InstantiateWithConfig(w.Context(), code, wazero.NewModuleConfig().WithName(""))
	return err == nil
}

// invalid checks that an invalid module is refused.
func (w *world) invalid(c command, code []byte) {
	switch _, err := w.harden(code, ""); {
	case err != nil && strings.HasSuffix(err.Error(), "not instantiated"), err == nil:
		if !w.compiles(code) {
			w.Errorf("line %d: %s is not valid, and was not refused", c.Line, c.Filename)
			return
		}
		w.Logf("line %d: %s is valid by now", c.Line, c.Filename)
		w.counts.add("modules: invalid in the suite, valid with the features of the cell")
	default:
		w.counts.add("modules: invalid, refused")
	}
}

// uninstantiable checks that a module is instantiated as it is if, and only if, it is hardened.
func (w *world) uninstantiable(c command, code []byte) {
	_, want := w.plain.InstantiateWithConfig(w.Context(), code, wazero.NewModuleConfig().WithName(""))
	switch _, got := w.harden(code, ""); {
	case errors.Is(got, harden.ErrUnsupported):
		w.valid(c, code, got)
	case (got == nil) != (want == nil) && (got == nil) != w.instantiates(code):
		w.Errorf("line %d: %s: %v; want %v", c.Line, c.Filename, got, want)
	default:
		w.counts.add("modules: not to be instantiated")
	}
}

// action calls a function, or reads a global, of both.
func (w *world) action(c command) {
	p := w.last
	if c.Action.Module != "" {
		p = w.named[c.Action.Module]
	}
	if c.Action.Type == "get" {
		w.global(c, p)
		return
	}
	var args []uint64
	for _, a := range c.Action.Args {
		args = append(args, a.bits()...)
	}
	switch {
	case c.Type == "assert_exhaustion" && w.interpret: // takes 10 s, and is in v2 again
		w.counts.add("calls: that overflow the stack, not made")
		return
	case c.Type == "assert_exhaustion": // takes long, and the stack is of no one else
		_, err := p.hardened.ExportedFunction(c.Action.Field).Call(w.Context(), args...)
		if !strings.HasSuffix(trap(err), "stack overflow") {
			w.Errorf("line %d: %s: %v; want a stack overflow", c.Line, c.Action.Field, err)
		}
		w.counts.add("calls: that overflow the stack")
		return
	}
	want, wantErr := p.plain.ExportedFunction(c.Action.Field).Call(w.Context(), args...)
	if p.hardened == nil || w.shared {
		w.counts.add("calls: of refused modules, or of what they share")
		return
	}
	fn := p.hardened.ExportedFunction(c.Action.Field)
	got, gotErr := fn.Call(w.Context(), args...)
	if trap(wantErr) != trap(gotErr) || wantErr == nil && !equalResults(fn.Definition().ResultTypes(), want, got) {
		w.Errorf("line %d: %s(%x) = %x, %v; want %x, %v", c.Line, c.Action.Field, args, got, gotErr, want, wantErr)
	}
	w.counts.add("calls: compared")
	if wantErr != nil {
		w.counts.add("calls: compared traps")
	}
}

// global compares a global of both.
func (w *world) global(c command, p pair) {
	if p.hardened == nil || w.shared {
		w.counts.add("globals: of refused modules, or of what they share")
		return
	}
	want, got := p.plain.ExportedGlobal(c.Action.Field), p.hardened.ExportedGlobal(c.Action.Field)
	if want.Get() != got.Get() || want.Type() != got.Type() {
		w.Errorf("line %d: %s = %v; want %v", c.Line, c.Action.Field, got, want)
	}
	w.counts.add("globals: compared")
}

// trap returns an error without its stack.
func trap(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// equalResults compares results bit by bit, but references, which are addresses, and the bits of
// what is not a number, which the specification leaves open.
func equalResults(types []wasm.ValueType, want, got []uint64) bool {
	if len(want) != len(got) {
		return false
	}
	at := 0
	for _, t := range types {
		w, g := want[at], got[at]
		at++
		var equal bool
		switch t {
		case wasm.ValueTypeExternref:
			equal = w == g
		case wasm.ValueTypeI32, wasm.ValueTypeI64:
			equal = w == g
		case wasm.ValueTypeF32:
			equal = equalFloats(uint32(w), uint32(g))
		case wasm.ValueTypeF64:
			equal = w == g || math.IsNaN(math.Float64frombits(w)) && math.IsNaN(math.Float64frombits(g))
		case v128:
			equal = equalVectors(w, g) && equalVectors(want[at], got[at])
			at++
		default: // a function
			equal = (w == 0) == (g == 0)
		}
		if !equal {
			return false
		}
	}
	return true
}

const v128 = wasm.ValueType(0x7b)

func equalFloats(w, g uint32) bool {
	return w == g || math.Float32frombits(w) != math.Float32frombits(w) && math.Float32frombits(g) != math.Float32frombits(g)
}

func equalVectors(w, g uint64) bool {
	return w == g || math.IsNaN(math.Float64frombits(w)) && math.IsNaN(math.Float64frombits(g)) ||
		equalFloats(uint32(w), uint32(g)) && equalFloats(uint32(w>>32), uint32(g>>32))
}

// bits returns a value as arguments of wazero's Call.
func (v value) bits() []uint64 {
	if v.Type != "v128" {
		return []uint64{number(v.Type, v.Value)}
	}
	size := map[string]uint{"i8": 8, "i16": 16, "i32": 32, "f32": 32, "i64": 64, "f64": 64}[v.Lanes]
	var halves [2]uint64
	for i, lane := range v.Value.([]any) {
		at := uint(i) * size
		halves[at/64] |= number(v.Lanes, lane) & (1<<size - 1) << (at % 64)
	}
	return halves[:]
}

func number(kind string, v any) uint64 {
	text, ok := v.(string)
	switch {
	case !ok || text == "null":
		return 0
	case kind == "externref":
		n, _ := strconv.ParseUint(text, 10, 64)
		return n + 1 // 0 is null
	case strings.HasPrefix(text, "-"):
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			panic(err)
		}
		if strings.HasSuffix(kind, "32") {
			return uint64(uint32(n))
		}
		return uint64(n)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
