// Package cell is the sandbox a function runs in: WebAssembly, new memory for every event.
//
// An Engine compiles modules, each once however many functions share it, and Load turns a module
// into a Function. Function.Invoke handles one event in an instance that holds nothing of any other
// event: a new one, or one that was made again what it was before its first event. Three kinds of module run: a script (JavaScript in QuickJS, which is itself a
// WebAssembly module), a reactor (exports sallyport_handle) and a WASI command (event on stdin,
// result on stdout). design/abi.md is the contract between guest and host.
//
// What holds, whatever the guest does:
//
//   - Fresh: no byte written by one invocation can be read by another.
//   - Confined: a guest has a clock, random numbers, its event, its log and its result. It has no
//     files, environment, arguments, network or other process.
//   - Interruptible: it is stopped at its deadline, its memory never passes its limit, and every
//     byte and line it hands over is counted. It cannot crash the host.
//   - Every failure is a *problem.Error with a code that tells its class apart.
//
// The package does not decide who may invoke, does not retry, and does not queue: it bounds one
// invocation, and dispatch bounds how many run at once. It is the only package that imports
// wazero. Callers: deploy (Load), dispatch (Invoke).
package cell

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"sallyport/api"
	"sallyport/internal/cell/js"
	"sallyport/internal/cell/snapshot"
	"sallyport/internal/problem"
)

// Bounds of what Load accepts, in bytes.
const (
	// MaxModuleBytes fits a large Go program; compiling one costs about 0.3 s and 6 MiB a megabyte.
	MaxModuleBytes = 32 << 20
	// MaxScriptBytes fits a bundle with many dependencies; each event evaluates it anew.
	MaxScriptBytes = 4 << 20
	// MaxSourceMapBytes fits the source map of the largest script with its sources inside.
	MaxSourceMapBytes = 16 << 20
)

// features are what modules may use. Compilers emit tail calls and extended constant expressions
// today. What else wazero has is not for code that nobody vouches for (see package harden).
const features = wasm.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// Config configures an Engine.
type Config struct {
	// CompileWorkers is how many goroutines compile QuickJS, and other modules when Expendable is set.
	CompileWorkers int
	// Expendable says that the process may end when the compiler fails on a module: a panic of one of
	// several goroutines cannot be caught. Without it, modules that nobody vouches for are compiled by one.
	Expendable bool
	// Reset is how the memory of an instance is reset; the zero value takes the best that works.
	Reset snapshot.Method
	// IdleAfter is how long an instance waits for the next event of its function until it is closed.
	IdleAfter time.Duration
	// IdleBytes is how much memory the instances that wait may hold together.
	IdleBytes int64
	// Cache keeps compiled code and templates for the next run; nil for nothing.
	Cache Cache
	// Scratch is a folder that code of the Cache passes through. It MUST be the engine's own: what is
	// in it is removed, and what is written to it is executed.
	Scratch string
}

// Default returns the configuration that suits a server: QuickJS is compiled on every processor.
func Default() Config {
	return Config{CompileWorkers: runtime.GOMAXPROCS(0), IdleAfter: time.Minute, IdleBytes: 256 << 20}
}

// Validate reports every fault of c.
func (c Config) Validate() error {
	var errs []error
	if c.CompileWorkers < 1 {
		errs = append(errs, fmt.Errorf("compile workers is %d, want at least 1", c.CompileWorkers))
	}
	if c.IdleAfter <= 0 {
		errs = append(errs, fmt.Errorf("idle after is %s, want more than 0", c.IdleAfter))
	}
	if c.IdleBytes < 0 {
		errs = append(errs, fmt.Errorf("idle bytes is %d, want at least 0", c.IdleBytes))
	}
	if c.Cache != nil && c.Scratch == "" {
		errs = append(errs, errors.New("there is a cache and no scratch folder"))
	}
	return errors.Join(errs...)
}

// Engine compiles modules and runs functions. It is safe for concurrent use. Close it when no
// Invoke is running any more.
type Engine struct {
	cfg     Config
	runtime wazero.Runtime
	// imports holds what a module may import, by "module.name".
	imports  map[string]signature
	memories *snapshot.Allocator
	idle     idle
	watch    watch
	plain    plainReaders
	tidier   Tidier
	code     *codeCache // nil without a Cache
	program  string     // identifies this program in the keys of the Cache

	mu      sync.Mutex
	modules map[digest]*module
	scripts *module // QuickJS, once a script was loaded: kept, so that it is compiled once
	closed  bool

	basing sync.Mutex
	base   *scriptBase // nil until a script is loaded
}

type digest = [sha256.Size]byte

// New returns an engine. It compiles nothing yet: QuickJS is compiled when the first script is
// loaded, because a server without scripts should not pay for its 20 MiB.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure cell engine: %w", err)
	}
	memories, err := snapshot.Open(cfg.Reset)
	if err != nil {
		return nil, fmt.Errorf("open cell engine: %w", err)
	}
	e := &Engine{cfg: cfg, memories: memories, modules: map[digest]*module{}, imports: map[string]signature{}}
	e.idle.after, e.idle.most = cfg.IdleAfter, cfg.IdleBytes
	config := wazero.NewRuntimeConfigCompiler().
		WithCoreFeatures(features).
		WithCloseOnContextDone(false). // hardened code stops itself, at a fraction of the cost
		WithDebugInfoEnabled(false)    // hardening drops it
	if cfg.Cache != nil {
		e.program = ProgramID()
		if e.code, err = openCodeCache(cfg.Cache, cfg.Scratch); err != nil {
			return nil, errors.Join(err, memories.Close())
		}
		config = config.WithCompilationCache(e.code.wazero)
	}
	e.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if err := e.provide(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("provide host modules: %w", err), e.free(ctx))
	}
	return e, nil
}

// provide instantiates the host modules and notes what they export.
func (e *Engine) provide(ctx context.Context) error {
	if err := instantiateWASI(ctx, e.runtime); err != nil {
		return err
	}
	if err := instantiateHost(ctx, e.runtime); err != nil {
		return err
	}
	for _, name := range []string{wasi_snapshot_preview1.ModuleName, hostModule} {
		for _, def := range e.runtime.Module(name).ExportedFunctionDefinitions() {
			e.imports[name+"."+def.ExportNames()[0]] = signatureOf(def)
		}
	}
	return js.InstantiateHost(ctx, e.runtime)
}

// ResetMethod returns how the memory of an instance is reset after an event, and why it is not done
// better; nil when it could not be.
func (e *Engine) ResetMethod() (snapshot.Method, error) { return e.memories.Method(), e.memories.Why() }

// Idle returns how many instances wait for an event.
func (e *Engine) Idle() int {
	e.idle.mu.Lock()
	defer e.idle.mu.Unlock()
	return len(e.idle.oldest)
}

// Close frees all compiled code. It is idempotent.
func (e *Engine) Close(ctx context.Context) error {
	e.idle.close(ctx)
	e.tidier.Close()
	e.watch.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	e.modules = nil
	return e.free(ctx)
}

// free gives back what New took.
func (e *Engine) free(ctx context.Context) error {
	err := errors.Join(e.runtime.Close(ctx), e.memories.Close())
	if e.code != nil {
		err = errors.Join(err, e.code.close(ctx))
	}
	return err
}

// Spec is a module to load.
type Spec struct {
	// Name is the file the code came from, such as "price.ts": messages and stacks name it.
	Name string
	Kind api.ModuleKind
	// Code is the module. That of a WebAssembly module may be nil when Digest is set: then Read is asked for it when
	// its compiled form is not kept.
	Code []byte
	// Digest MUST be the SHA-256 of a WebAssembly module; the zero value has it computed from Code.
	Digest [sha256.Size]byte
	// Read returns the code of a WebAssembly module; nil when Code is all there is.
	Read func(context.Context) ([]byte, error)
	// SourceMap maps a script back to its author's files; it may be empty.
	SourceMap []byte
	// Grants are the grants that the function uses while it runs, by their names.
	Grants []GrantSpec
	// Trial is the most processor time that what runs before the first event may take; 0 is as much as the limits allow. Load fails with
	// a problem of kind Timeout when that is not enough: the module may be loaded where it keeps nobody from a processor.
	Trial time.Duration
}

// Load validates and compiles a module and returns it as a function with these limits. For a
// script it evaluates the top level once, in a sandbox and under the function's own limits, to see
// that there is a handler. A refusal is a *problem.Error of kind Unprocessable.
func (e *Engine) Load(ctx context.Context, spec Spec, limits Limits) (*Function, error) {
	if err := limits.Validate(); err != nil {
		return nil, problem.New(problem.Invalid, "cell.limit_out_of_range", "%s: %v", spec.Name, err)
	}
	defer e.tidier.Touch()
	switch spec.Kind {
	case api.ModuleScript:
		return e.loadScript(ctx, spec, limits)
	case api.ModuleWasm:
		return e.loadWasm(ctx, spec, limits)
	}
	return nil, unknownKind(spec)
}
