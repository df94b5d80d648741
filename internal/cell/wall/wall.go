// Package wall is the second wall around functions: it runs cells in worker processes, so that whoever
// breaks out of the sandbox engine stands in a process that has no keys, no files, no network, no
// privileges, and a list of the system calls that it may make.
//
// An Engine has the methods of a cell.Engine, and so has a Function. A worker is this same program,
// started anew with nothing but one end of a socket pair; package confine takes the rest from it. Frames
// on the socket (frame.go) are packed: what waits is written at once (packer.go). The server's side
// takes every byte from a worker for hostile (link.go, messages.go): what is too long, out of place or
// malformed ends the worker.
//
// When a worker ends, by whatever cause, the invocations that ran in it run again, each alone in another
// worker. One that ends this one too is the cause: it fails with cell.worker_lost, which is a failed
// attempt, and its function runs alone from then on. All others lose time only.
//
// Modules are compiled by processes that do nothing else, each for one module (compiler.go), so that compiled code can be
// kept: a worker that runs functions could be made to hand out what later workers would execute.
//
// The package decides nothing about functions, retries nothing that a function did, and does not say
// whether a wall may be missing. Callers: server (New, Main), deploy (Load), dispatch (Invoke).
package wall

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall/confine"
	"sallyport/internal/problem"
)

// codeLost is the code of an invocation that ended its worker.
const codeLost = "cell.worker_lost"

// forgiveAfter is how many invocations a function that ended a worker has to finish alone, until it
// runs beside others again: a worker can end for a cause outside of it.
const forgiveAfter = 100

const (
	// lanesPerProcessor is how many invocations dispatch has running. Each lane is a socket pair, and at
	// times a thread of the worker.
	lanesPerProcessor = 16
	// MaxLanes bounds the lanes.
	MaxLanes = 128
)

const (
	// places is how many threads of a worker may run Go at the same time, for each processor. Native code of a
	// guest holds such a place until its fuel runs out; dispatch has no more of them compute than there are
	// processors, or a few more, so that with twice as many places one is free for whoever comes, and the kernel shares the rest.
	places = 2
	// maxHeavyLanes is more than how many heavy invocations dispatch has running, on up to 32 processors.
	maxHeavyLanes = 16
	// heavyYields is by how many steps heavy invocations, and those that run alone, stand behind all else. With 5, they have
	// a quarter of a processor that one other thread wants to have, so that they do not starve or miss their timeouts.
	heavyYields = 5
)

// trialTime is how long a new module may compute before its first event beside all others: many times what one takes that prepares itself, and
// about as long as a quick function may hold a processor without anybody noticing.
const trialTime = 100 * time.Millisecond

// seatsAlone is how many invocations can run alone at the same time. Each has a process, which ends
// when it was not needed for a while.
const seatsAlone = 4

// Config says how workers are started.
type Config struct {
	// Program and Args, its own name first, start a worker: a program that calls Main with the file
	// that Inherited returns.
	Program string
	Args    []string
	// Lanes is how many invocations have a socket to themselves. It is the last argument of the worker.
	Lanes int
	// Cache keeps what compiler processes make for the next worker, and for the next run; nil for nothing, then
	// each worker compiles for itself. See cell.Cache.
	Cache cell.Cache
	// Grace is how long the answer to an invocation may take beyond the function's timeout. It is to be
	// long enough for a machine that is busy with compiling: a worker that takes longer is stuck, and ended.
	Grace time.Duration
	// Memory is how much memory a worker may hold, in bytes, all of it counted: compiled code, the memories of guests,
	// their native stacks, which are outside of their limits, and the runtime. One that holds more is ended. 0 is
	// without bound.
	Memory int64
	Logger *slog.Logger
}

// Default returns the configuration that starts this very program with args, as it was started
// itself: its file may have been replaced since.
func Default(args ...string) Config {
	return Config{
		Program: ownProgram, Args: append([]string{os.Args[0]}, args...), Lanes: min(lanesPerProcessor*runtime.GOMAXPROCS(0), MaxLanes), Grace: 15 * time.Second,
		Memory: defaultMemory(),
	}
}

// Validate reports every fault of c.
func (c Config) Validate() error {
	if c.Program == "" || len(c.Args) == 0 {
		return errors.New("there is no program to start, or no name for it")
	}
	if c.Lanes < 0 || c.Lanes > MaxLanes {
		return fmt.Errorf("lanes is %d, want 0 to %d", c.Lanes, MaxLanes)
	}
	if c.Grace <= 0 {
		return fmt.Errorf("grace is %s, want more than 0", c.Grace)
	}
	if c.Memory < 0 {
		return fmt.Errorf("memory is %d bytes, want at least 0", c.Memory)
	}
	return nil
}

// Engine runs functions in workers. It is safe for concurrent use.
type Engine struct {
	main *seat
	// heavy is the seat of the worker of what computes for long.
	heavy *seat
	// alone are the seats of workers in which one invocation runs at a time. turns has one entry for each in
	// which none does, and free holds those, the last used last: it is likely to have a worker.
	alone []*seat
	turns chan struct{}
	mu    sync.Mutex
	free  []*seat
	next  atomic.Uint64
	// pinned are the functions that have instances wait for them: a new worker loads them before an event comes.
	pinned map[uint64]*Function
	tidier cell.Tidier
	log    *slog.Logger
	stop   context.CancelFunc
}

// State is what an engine tells of itself.
type State struct {
	// PID is that of the worker, 0 while there is none.
	PID int
	// HeavyPID is that of the worker of heavy functions, 0 while none is needed.
	HeavyPID int
	Walls    []confine.Wall
	// Restarts counts the workers that ended without being told to.
	Restarts int64
	// Reset is how the memories of guests are reset, and ResetWhy why it is not done better.
	Reset, ResetWhy string
}

// Missing returns the walls that do not stand.
func (s State) Missing() []confine.Wall {
	var out []confine.Wall
	for _, w := range s.Walls {
		if !w.Stands {
			out = append(out, w)
		}
	}
	return out
}

// ErrCgo is why a program that was built with cgo starts no worker of itself: to set the capabilities of all threads, libcap then reads
// /proc for them, which a worker's namespaces do not have, and aborts.
var ErrCgo = errors.New("this program was built with cgo, and such a program cannot be confined")

// ownProgram is the program that runs.
const ownProgram = "/proc/self/exe"

// New starts a worker and returns the engine that runs functions in it.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure workers: %w", err)
	}
	if builtWithCgo && cfg.Program == ownProgram {
		return nil, ErrCgo
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return build(ctx, cfg, func(r room) (*process, error) { return start(cfg, r, cfg.Logger) })
}

func build(ctx context.Context, cfg Config, start func(room) (*process, error)) (*Engine, error) {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	e := &Engine{turns: make(chan struct{}, seatsAlone), log: cfg.Logger, stop: stop, pinned: map[uint64]*Function{}}
	var code *compiler
	if cfg.Cache != nil {
		// Nobody's event waits behind a compiler, unless it needs what that makes.
		aside := room{processors: runtime.GOMAXPROCS(0), yields: heavyYields}
		code = newCompiler(cfg.Cache, func() (*process, error) { return start(aside) }, cfg.Logger)
	}
	processors := places * runtime.GOMAXPROCS(0)
	at := func(name string, r room) *seat {
		return newSeat(life, name, name == "main", func() (*process, error) { return start(r) }, code, cfg)
	}
	e.main = at("main", room{lanes: cfg.Lanes, processors: processors})
	e.main.settled = func(l *link) { e.repin(life, l) }
	e.heavy = at("heavy", room{lanes: min(cfg.Lanes, maxHeavyLanes), processors: processors, yields: heavyYields})
	if code != nil {
		code.weaker = e.heavy.weaker
	}
	for range seatsAlone {
		s := at("alone", room{lanes: min(cfg.Lanes, 1), processors: processors, yields: heavyYields})
		e.alone = append(e.alone, s)
		e.giveBack(s)
	}
	if err := e.main.open(ctx); err != nil {
		stop()
		return nil, err
	}
	walls := e.main.state().Walls
	for _, s := range append([]*seat{e.main, e.heavy}, e.alone...) {
		s.insist(walls)
	}
	return e, nil
}

// State returns how the engine is.
func (e *Engine) State() State {
	s, heavy := e.main.state(), e.heavy.state()
	s.HeavyPID = heavy.PID
	s.Restarts += heavy.Restarts
	for _, a := range e.alone {
		s.Restarts += a.restarts.Load()
	}
	return s
}

// Close ends the workers. It is idempotent. No Invoke may be running any more.
func (e *Engine) Close(context.Context) error {
	e.stop()
	e.tidier.Close()
	e.main.close()
	e.heavy.close()
	for _, s := range e.alone {
		s.close()
	}
	return nil
}

// Load has a worker validate and compile a module; see cell.Engine.
func (e *Engine) Load(ctx context.Context, spec cell.Spec, limits cell.Limits) (*Function, error) {
	if err := boundSpec(spec); err != nil {
		return nil, err
	}
	defer e.tidier.Touch()
	f := newFunction(e, spec, limits)
	defer f.fresh.Store(nil)
	e.pin(f, limits.MinInstances > 0)
	f.onTrial.Store(true)
	err := e.main.with(ctx, func(l *link) error { return f.learn(ctx, l) })
	f.onTrial.Store(false)
	if err != nil && problem.From(err).Kind == problem.Timeout {
		err = e.prove(ctx, f)
	}
	if _, lost := errors.AsType[*lostError](err); lost {
		err = e.aside(ctx, func(l *link) error { return f.learn(ctx, l) })
	}
	if err != nil {
		return nil, f.forget(explain(err, spec.Name))
	}
	return f, nil
}

// prove loads a function that computes for long before its first event where it keeps nobody from a processor, which may find that it never
// ends, and then where all are.
func (e *Engine) prove(ctx context.Context, f *Function) error {
	defer e.heavy.drop(f.id)
	if err := e.beside(ctx, true, func(l *link) error { return f.learn(ctx, l) }); err != nil {
		return err
	}
	return e.main.with(ctx, func(l *link) error { return f.learn(ctx, l) })
}

func newFunction(e *Engine, spec cell.Spec, limits cell.Limits) *Function {
	f := &Function{id: e.next.Add(1), engine: e, spec: spec, limits: limits}
	if spec.Kind != api.ModuleWasm {
		return f
	}
	if spec.Digest == [sha256.Size]byte{} {
		f.spec.Digest = sha256.Sum256(spec.Code)
	}
	if spec.Read != nil && spec.Code != nil {
		f.fresh.Store(&spec.Code)
		f.spec.Code = nil
	}
	return f
}

// atHand returns what there is of the function without reading, and whether that is all.
func (f *Function) atHand() (spec cell.Spec, whole bool) {
	spec = f.spec
	if fresh := f.fresh.Load(); fresh != nil {
		spec.Code = *fresh
	}
	return spec, spec.Code != nil || spec.Read == nil
}

// whole returns the function with its code.
func (f *Function) whole(ctx context.Context) (cell.Spec, error) {
	spec, whole := f.atHand()
	if whole {
		return spec, nil
	}
	code, err := spec.Read(ctx)
	if err != nil {
		return cell.Spec{}, fmt.Errorf("read %s: %w", spec.Name, err)
	}
	spec.Code = code
	return spec, boundSpec(spec)
}

// pin notes whether f has instances that wait for it in every worker that runs many functions.
func (e *Engine) pin(f *Function, pinned bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if pinned {
		e.pinned[f.id] = f
	} else {
		delete(e.pinned, f.id)
	}
}

// pinnedFunction returns the pinned function of this id, or nil.
func (e *Engine) pinnedFunction(id uint64) *Function {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pinned[id]
}

// repin has a new worker load the functions that have instances wait for them.
func (e *Engine) repin(ctx context.Context, l *link) {
	e.mu.Lock()
	ids := slices.Sorted(maps.Keys(e.pinned))
	e.mu.Unlock()
	for _, id := range ids {
		f := e.pinnedFunction(id)
		if f == nil {
			continue // it was closed meanwhile
		}
		if _, err := l.ensure(ctx, f); l.cause() != nil {
			return // the next worker does it
		} else if err != nil {
			e.log.WarnContext(ctx, "a function has no instances that wait; its next event loads it", "module", f.spec.Name, "error", err)
		}
		if e.pinnedFunction(id) == nil {
			l.tell(kindDrop, id) // it was told before, when it had not loaded it yet
		}
	}
}

// boundSpec refuses what would not fit into a frame; the worker has closer limits of its own.
func boundSpec(spec cell.Spec) error {
	if len(spec.Code) > cell.MaxModuleBytes || len(spec.SourceMap) > cell.MaxSourceMapBytes || len(spec.Name) > maxName {
		return problem.New(problem.Unprocessable, "cell.module_too_large", "the module is %d bytes long, its source map %d; the limits are %d and %d",
			len(spec.Code), len(spec.SourceMap), cell.MaxModuleBytes, cell.MaxSourceMapBytes)
	}
	return nil
}

// beside calls do with the worker of all functions, or of all that are heavy.
func (e *Engine) beside(ctx context.Context, heavy bool, do func(*link) error) error {
	if !heavy {
		return e.main.with(ctx, do)
	}
	e.heavy.take()
	defer e.heavy.rest()
	return e.heavy.with(ctx, do)
}

// aside calls do with a worker in which nothing else runs.
func (e *Engine) aside(ctx context.Context, do func(*link) error) error {
	select {
	case <-e.turns:
	case <-ctx.Done():
		return canceled(ctx)
	}
	e.mu.Lock()
	s := e.free[len(e.free)-1]
	e.free = e.free[:len(e.free)-1]
	e.mu.Unlock()
	s.take()
	defer func() {
		s.rest()
		e.giveBack(s)
	}()
	return s.with(ctx, do)
}

func (e *Engine) giveBack(s *seat) {
	e.mu.Lock()
	e.free = append(e.free, s)
	e.mu.Unlock()
	e.turns <- struct{}{}
}

// explain makes a problem of whatever stands between a caller and a worker.
func explain(err error, name string) error {
	if lost, ok := errors.AsType[*lostError](err); ok {
		return problem.New(problem.Unavailable, codeLost, "%s ended the worker process that it ran in, alone", name).
			WithHint("the server's log says how the process ended").WithCause(lost.cause)
	}
	return err
}

// Function is a function that workers run. It is safe for concurrent use.
type Function struct {
	id     uint64
	engine *Engine
	// spec is kept, to be sent to the worker that comes after the one that has it: without the code when that can be
	// read again.
	spec cell.Spec
	// fresh is code that can be read again and is at hand all the same, while it is loaded first; else nil.
	fresh  atomic.Pointer[[]byte]
	limits cell.Limits
	loaded loaded
	// onTrial is set until it is known that the function takes little before its first event.
	onTrial atomic.Bool
	// suspect is how many more invocations have to end well in a worker of their own.
	suspect atomic.Int32
	once    sync.Once
}

// Kind returns what sort of module it is; see cell.Function.
func (f *Function) Kind() string { return f.loaded.kind }

// Resident returns about how much memory the function takes while nobody uses it, in bytes: in the
// worker, and what is kept here for the next one.
func (f *Function) Resident() int64 {
	return f.loaded.resident + int64(len(f.spec.Code)+len(f.spec.SourceMap))
}

// Limits returns the limits it was loaded with.
func (f *Function) Limits() cell.Limits { return f.limits }

// forget closes a function that could not be loaded, and returns why.
func (f *Function) forget(why error) error {
	f.engine.pin(f, false)
	f.engine.main.drop(f.id)
	return why
}

// Close has the workers forget the function. It is idempotent and MUST NOT be called while an Invoke of
// this function is running.
func (f *Function) Close(context.Context) error {
	f.once.Do(func() {
		f.engine.pin(f, false)
		f.engine.main.drop(f.id)
		f.engine.heavy.drop(f.id)
		for _, s := range f.engine.alone {
			s.drop(f.id)
		}
		f.engine.tidier.Touch()
	})
	return nil
}

// learn loads the function and notes what it is.
func (f *Function) learn(ctx context.Context, l *link) (err error) {
	f.loaded, err = l.ensure(ctx, f)
	return err
}

// Invoke has a worker handle one event; see cell.Function. An invocation that ends a worker in which it
// ran alone is a problem of kind Unavailable with code cell.worker_lost.
func (f *Function) Invoke(ctx context.Context, in cell.Input) (result cell.Result, usage cell.Usage, err error) {
	started := time.Now()
	invoke := func(l *link) (err error) {
		result, usage, err = l.invoke(ctx, f, in)
		return err
	}
	if f.suspect.Load() <= 0 {
		err = f.engine.beside(ctx, in.Heavy, invoke)
		if _, lost := errors.AsType[*lostError](err); !lost {
			return result, usage, f.timed(ctx, err)
		}
		if in.Log != nil {
			in.Log(cell.LevelWarn, "the worker process was lost: the event is handled again")
		}
	}
	err = f.engine.aside(ctx, invoke)
	if _, lost := errors.AsType[*lostError](err); lost {
		f.suspect.Store(forgiveAfter)
		f.engine.log.ErrorContext(ctx, "a function ended the worker process that it ran in alone; from now on it runs alone",
			"module", f.spec.Name, "error", err)
		return cell.Result{}, cell.Usage{Duration: time.Since(started)}, explain(err, f.spec.Name)
	}
	f.suspect.Add(-1)
	return result, usage, f.timed(ctx, err)
}

// timed says of what was abandoned because the caller's time was over that the time was over.
func (f *Function) timed(ctx context.Context, err error) error {
	switch {
	case !isCanceled(err) || ctx.Err() == nil:
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return problem.New(problem.FunctionFailed, "cell.timeout", "the function ran longer than its timeout of %s", f.limits.Timeout)
	}
	return canceled(ctx)
}
