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
	compiled
	err error
}

// compiled is what becomes of the code of a module.
type compiled struct {
	code   wazero.CompiledModule
	report harden.Report
	// data is what memories begin with. It is not in code: most memories are filled from a template.
	data  []harden.Data
	bytes int64 // of memory that it takes, about
}

// source is the code of a module, which is read when it is needed.
type source struct {
	digest digest
	read   func(context.Context) ([]byte, error)
}

// sourceOf returns the source of code that is at hand.
func sourceOf(code []byte) source {
	return source{sha256.Sum256(code), func(context.Context) ([]byte, error) { return code, nil }}
}

// source returns the code of a WebAssembly module, in the form that may be read later.
func (s Spec) source() source {
	out := sourceOf(s.Code)
	if s.Digest == (digest{}) {
		return out
	}
	out.digest = s.Digest
	if s.Code != nil {
		return out
	}
	out.read = func(ctx context.Context) ([]byte, error) {
		if s.Read == nil {
			return nil, unreadError{errors.New("its code is not at hand")}
		}
		code, err := s.Read(ctx)
		if err != nil {
			return nil, unreadError{err}
		}
		s.Code = code
		return code, checkModuleSize(s)
	}
	return out
}

// unreadError says that the code of a module could not be read, which is not the module's fault.
type unreadError struct{ error }

// acquire returns the compiled form of a module, compiling it when no other function has; callers that
// come meanwhile wait for that one compilation. Each acquire needs a release.
func (e *Engine) acquire(ctx context.Context, src source, workers int) (*module, error) {
	sum := src.digest
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
	m.once.Do(func() { m.compiled, m.err = e.compile(context.WithoutCancel(ctx), src, workers) })
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
func (e *Engine) compile(ctx context.Context, src source, workers int) (out compiled, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = compiled{}, fmt.Errorf("%w: %v", errPanicked, v)
		}
	}()
	compile := func(module []byte) (wazero.CompiledModule, error) {
		return e.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, workers), module)
	}
	if e.code != nil {
		return e.code.compile(ctx, e.cacheKey("code", src.digest[:]), src, compile)
	}
	h, err := hardenSource(ctx, src)
	if err != nil {
		return compiled{}, err
	}
	return compileAll(h, compile)
}

// hardened is a module that was hardened: its code, and the data apart from it, unless that cannot be.
type hardened struct {
	report     harden.Report
	code, data []byte
}

// hardenSource reads and hardens the code of a module.
func hardenSource(ctx context.Context, src source) (h hardened, err error) {
	code, err := src.read(ctx)
	if err != nil {
		return hardened{}, err
	}
	if code, h.report, err = harden.Module(code); err != nil {
		return hardened{}, err
	}
	h.code, h.data, err = harden.SplitData(code)
	return h, err
}

// codeFactor is how much memory compiled code takes whose length is not known, as a multiple of the module: a Go
// module of 3 MB took 18 MB.
const codeFactor = 6

// compileAll compiles a whole module.
func compileAll(h hardened, compile compiler) (compiled, error) {
	data, err := harden.ParseData(h.data)
	if err != nil {
		return compiled{}, err
	}
	code, err := compile(h.code)
	return compiled{code, h.report, data, codeFactor*int64(len(h.code)) + int64(len(h.data))}, err
}

// loadWasm loads a WebAssembly binary.
func (e *Engine) loadWasm(ctx context.Context, spec Spec, limits Limits) (*Function, error) {
	if err := checkModuleSize(spec); err != nil {
		return nil, err
	}
	m, err := e.acquire(ctx, spec.source(), e.moduleWorkers())
	if err != nil {
		return nil, refusedModule(spec.Name, err)
	}
	f := &Function{name: spec.Name, module: m, limits: limits, grants: spec.Grants, engine: e, held: m.bytes}
	if err = f.inspect(m.code); err == nil {
		err = f.prepareWithin(ctx, spec.Trial, f.initialize, f.explainInitialize)
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
	if unread, ok := errors.AsType[unreadError](err); ok {
		return fmt.Errorf("read %s: %w", name, unread.error)
	}
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

// checkReactor refuses a reactor that is begun as a program, or whose entries have other types than those of design/abi.md.
func (f *Function) checkReactor(exports map[string]wasm.FunctionDefinition) error {
	if exports[exportStart] != nil && exports[exportInitialize] == nil {
		// Its language's start would never run, and each event would trap in a runtime that was not begun.
		return problem.New(problem.Unprocessable, "cell.not_a_reactor", "%s exports %s, but was built as a program: it has %s and no %s",
			f.name, exportHandle, exportStart, exportInitialize).
			WithHint("build it as a reactor: Go with -buildmode=c-shared, clang with -mexec-model=reactor, Rust as a cdylib")
	}
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
