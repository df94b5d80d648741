package cell

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"sallyport/internal/cell/harden"
	"sallyport/internal/problem"
)

// pageBytes is the size of a WebAssembly page.
const pageBytes = 64 << 10

// module is compiled code, shared by every function with the same bytes.
type module struct {
	digest digest
	refs   int // guarded by Engine.mu
	once   sync.Once
	code   wazero.CompiledModule
	report harden.Report
	err    error
}

// acquire returns the compiled form of code, compiling it when no other function has; callers that
// come meanwhile wait for that one compilation. Each acquire needs a release.
func (e *Engine) acquire(ctx context.Context, code []byte, workers int) (*module, error) {
	sum := sha256.Sum256(code)
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, problem.New(problem.Unavailable, "cell.closed", "the function engine is closed")
	}
	m := e.modules[sum]
	if m == nil {
		m = &module{digest: sum}
		e.modules[sum] = m
	}
	m.refs++
	e.mu.Unlock()

	// A caller that gives up must not spoil the module for those who wait with it.
	m.once.Do(func() { m.code, m.report, m.err = e.compile(context.WithoutCancel(ctx), code, workers) })
	if m.err != nil {
		return nil, errors.Join(m.err, e.release(ctx, m))
	}
	return m, nil
}

// keepForScripts has the engine itself hold m, which a script has acquired.
func (e *Engine) keepForScripts(m *module) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.scripts == nil && !e.closed {
		e.scripts = m
		m.refs++
	}
}

// release gives back one acquire; the last one frees the code.
func (e *Engine) release(ctx context.Context, m *module) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	m.refs--
	if m.refs > 0 || e.closed {
		return nil
	}
	delete(e.modules, m.digest)
	if m.code == nil {
		return nil
	}
	return m.code.Close(ctx)
}

// errPanicked is wrapped by the error of a module on which wazero panicked.
var errPanicked = errors.New("the compiler gave up")

// compile hardens and compiles code. Some invalid modules make wazero panic (1.12: a function whose
// type does not exist, FuzzLoad has it); that is an error of the module. A panic on a goroutine of
// wazero's own could not be caught, so only code that is known may be compiled by more than one.
func (e *Engine) compile(ctx context.Context, code []byte, workers int) (compiled wazero.CompiledModule, report harden.Report, err error) {
	defer func() {
		if v := recover(); v != nil {
			compiled, err = nil, fmt.Errorf("%w: %v", errPanicked, v)
		}
	}()
	compile := func(module []byte) (wazero.CompiledModule, error) {
		return e.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, workers), module)
	}
	if e.code != nil {
		return e.code.compile(ctx, e.cacheKey("code", code), code, compile)
	}
	hardened, report, err := harden.Module(code)
	if err != nil {
		return nil, harden.Report{}, err
	}
	compiled, err = compile(hardened)
	return compiled, report, err
}

// loadWasm loads a WebAssembly binary.
func (e *Engine) loadWasm(ctx context.Context, spec Spec, limits Limits) (*Function, error) {
	if err := checkModuleSize(spec); err != nil {
		return nil, err
	}
	m, err := e.acquire(ctx, spec.Code, e.moduleWorkers())
	if err != nil {
		return nil, refusedModule(spec.Name, err)
	}
	f := &Function{name: spec.Name, module: m, limits: limits, grants: spec.Grants, engine: e, held: codeFactor * int64(len(spec.Code))}
	if err = f.inspect(m.code); err == nil {
		err = f.prepare(ctx, f.initialize, f.explainInitialize)
	}
	if err == nil {
		err = f.pin(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(ctx))
	}
	return f, nil
}

// refusedModule is the problem of a module that does not compile. The sentence is the parser's: it
// speaks of the module only.
func refusedModule(name string, err error) error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	return problem.New(problem.Unprocessable, "cell.module_invalid", "%s is not a WebAssembly module this server runs: %s", name, firstLine(err.Error())).
		WithHint("build for wasm32-wasip1 without threads, exceptions, 64-bit memory or components").WithCause(err)
}

// inspect refuses a module that cannot run here, and finds how it is entered.
func (f *Function) inspect(code wazero.CompiledModule) error {
	if err := f.engine.checkImports(f.name, code); err != nil {
		return err
	}
	if err := f.fits(); err != nil {
		return err
	}
	exports := code.ExportedFunctions()
	switch {
	case exports[exportHandle] != nil:
		f.kind, f.guest = KindReactor, reactor{}
		return f.checkReactor(exports)
	case exports[exportStart] != nil:
		f.kind, f.guest = KindCommand, command{}
		return checkEntry(f.name, exports[exportStart], signature{})
	}
	return problem.New(problem.Unprocessable, "cell.no_entry", "%s exports neither %s nor %s, so nothing can be called", f.name, exportHandle, exportStart).
		WithHint("build a reactor that exports %s, or a WASI command", exportHandle)
}

// fits refuses a module whose memory and tables are over the limit before it has run.
func (f *Function) fits() error {
	report := f.module.report
	if least := int64(report.Memory.Min)*pageBytes + tableBytes(report); least > f.limits.Memory {
		return tooLittleMemory(f.name, least, f.limits.Memory)
	}
	return nil
}

// tableBytes is what the tables of an instance take as it begins.
func tableBytes(r harden.Report) (bytes int64) {
	const element = 8
	for _, t := range r.Tables {
		bytes += int64(t.Min) * element
	}
	return bytes
}

// checkReactor refuses a reactor whose entries have other types than those of design/abi.md.
func (f *Function) checkReactor(exports map[string]wasm.FunctionDefinition) error {
	status := signature{results: []wasm.ValueType{wasm.ValueTypeI32}}
	for name, want := range map[string]signature{exportHandle: status, exportReseed: status, exportInitialize: {}} {
		if exports[name] == nil {
			continue
		}
		if err := checkEntry(f.name, exports[name], want); err != nil {
			return err
		}
	}
	return nil
}

func tooLittleMemory(name string, least, limit int64) error {
	return problem.New(problem.Unprocessable, "cell.memory_limit_too_small", "%s needs %d bytes of memory to start, its limit is %d", name, least, limit).
		WithHint("raise memory in app.toml to %dMiB or more", (least+1<<20-1)>>20)
}

func checkEntry(name string, def wasm.FunctionDefinition, want signature) error {
	if got := signatureOf(def); !got.equal(want) {
		return problem.New(problem.Unprocessable, "cell.entry_signature", "%s exports %s as %s, want %s", name, def.ExportNames()[0], got, want)
	}
	return nil
}

// maxListedImports keeps a hostile module from filling a message.
const maxListedImports = 10

// checkImports refuses a module that wants anything the host does not provide.
func (e *Engine) checkImports(name string, code wazero.CompiledModule) error {
	var unknown []string
	for _, def := range code.ImportedFunctions() {
		from, fn, _ := def.Import()
		want, known := e.imports[from+"."+fn]
		switch got := signatureOf(def); {
		case !known:
			unknown = append(unknown, clip(from+"."+fn))
		case !got.equal(want):
			unknown = append(unknown, fmt.Sprintf("%s.%s as %s instead of %s", from, fn, got, want))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	if more := len(unknown) - maxListedImports; more > 0 {
		unknown = append(unknown[:maxListedImports], fmt.Sprintf("and %d more", more))
	}
	return problem.New(problem.Unprocessable, "cell.import_unknown", "%s imports what this server does not provide: %s", name, strings.Join(unknown, ", ")).
		WithHint("a function may import the module %q and WASI preview 1", hostModule)
}

// signature is the type of a function.
type signature struct{ params, results []wasm.ValueType }

func signatureOf(def wasm.FunctionDefinition) signature {
	return signature{def.ParamTypes(), def.ResultTypes()}
}

func (s signature) equal(t signature) bool {
	return slices.Equal(s.params, t.params) && slices.Equal(s.results, t.results)
}

// String returns the signature as "(i32, i32) -> (i32)".
func (s signature) String() string {
	return "(" + typeNames(s.params) + ") -> (" + typeNames(s.results) + ")"
}

func typeNames(types []wasm.ValueType) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = wasm.ValueTypeName(t)
	}
	return strings.Join(names, ", ")
}
