package cell

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"sallyport/internal/cell/harden"
	"sallyport/internal/cell/js"
	"sallyport/internal/cell/snapshot"
	"sallyport/internal/problem"
)

// bootTimeout is the least time that what no event influences gets when a module is loaded: it runs
// once, on a machine that may be compiling, so a short timeout for events must not make it fail.
const bootTimeout = 5 * time.Second

// bootCPU is the same of the processor time.
const bootCPU = time.Second

// template is what every instance of a function is when an event comes to it: the memory and the
// mutable globals of an instance that was made ready, taken before there was an event.
type template struct {
	image   *snapshot.Image
	globals []uint64
	// initialized is true when the guest's own initialisation is in it. It is not when the guest drew
	// random numbers there and cannot draw new ones for each event: then it is run for each.
	initialized bool
	script      js.State
}

// take returns the template of in as it is now. A base, which may be nil, is an image whose bytes are
// shared with it.
func (in *instance) take(base *snapshot.Image, initialized bool) (*template, error) {
	image, err := in.memory.Take(base)
	if err != nil {
		return nil, err
	}
	t := &template{image: image, initialized: initialized}
	for _, g := range in.globals {
		t.globals = append(t.globals, g.Get())
	}
	return t, nil
}

// prepare has take run what no event influences and set the template, and explain its error.
func (f *Function) prepare(ctx context.Context, take func(context.Context, *invocation) error,
	explain func(caller context.Context, inv *invocation, err error) error,
) error {
	return f.prepareWithin(ctx, 0, take, explain)
}

// prepareWithin is prepare with the most processor time that it may take on trial, 0 for no trial.
func (f *Function) prepareWithin(ctx context.Context, trial time.Duration, take func(context.Context, *invocation) error,
	explain func(caller context.Context, inv *invocation, err error) error,
) error {
	limits := f.limits
	limits.Timeout = max(limits.Timeout, bootTimeout)
	if limits.CPU > 0 { // there is a limit
		limits.CPU = max(limits.CPU, bootCPU)
	}
	if trial = min(trial, limits.Timeout); trial > 0 && (limits.CPU == 0 || trial < limits.CPU) {
		limits.CPU = trial
	} else {
		trial = 0
	}
	now := time.Now()
	inv := &invocation{limits: limits, deadline: now.Add(limits.Timeout)}
	inv.begin(ctx, &f.engine.watch, now)
	defer inv.call.end()
	inv.cpu.start()
	defer inv.cpu.stop()
	if err := take(inv.call, inv); err != nil {
		if trial > 0 && errors.Is(inv.call.ended(), errCPU) {
			return problem.New(problem.Timeout, "cell.initialization_failed", "%s is not ready after %s of processor time, which it had on trial", f.name, trial)
		}
		return explain(ctx, inv, err)
	}
	return nil
}

// initialize makes an instance of a module ready and takes the template of it. A module whose state
// is not in its memory and numbers in globals alone gets none: each of its instances is made anew.
func (f *Function) initialize(ctx context.Context, inv *invocation) error {
	key := f.engine.cacheKey("template", f.module.digest[:], fmt.Append(nil, f.limits.Memory))
	if f.module.report.Portable() {
		if f.template = f.recall(key, nil); f.template != nil {
			return nil
		}
	}
	if err := f.takeTemplate(ctx, inv); err != nil {
		return err
	}
	f.engine.remember(key, f.template)
	return nil
}

func (f *Function) takeTemplate(ctx context.Context, inv *invocation) error {
	in, err := f.instantiate(ctx, inv, nil)
	if err != nil {
		return err
	}
	defer func() { inv.release(ctx, in, f.template) }()
	if err := in.initialize(ctx); err != nil {
		return err
	}
	if !f.module.report.Portable() {
		return nil
	}
	if !in.streams.random.drawn || in.session.reseeds(ctx) {
		f.template, err = in.take(nil, true)
		return err
	}
	// Two events must not begin with the same random state, so it cannot be in the template.
	raw, err := f.instantiate(ctx, inv, nil)
	if err != nil {
		return err
	}
	defer raw.close(ctx)
	f.template, err = raw.take(nil, false)
	return err
}

// explainInitialize returns the problem of a module that could not be made ready.
func (f *Function) explainInitialize(caller context.Context, inv *invocation, err error) error {
	const code = "cell.initialization_failed"
	switch {
	case caller.Err() != nil:
		return problem.New(problem.Unavailable, codeCanceled, "loading %s was abandoned", f.name).WithCause(context.Cause(caller))
	case errors.Is(inv.call.ended(), errCPU):
		return problem.New(problem.Unprocessable, code, "the initialisation of %s used more processor time than %s", f.name, inv.limits.CPU).
			WithHint("raise limits.cpu in app.toml, or move what takes long into the handler")
	case inv.call.ended() != nil:
		return problem.New(problem.Unprocessable, code, "the initialisation of %s ran longer than %s", f.name, inv.limits.Timeout).
			WithHint("move what takes long into the handler")
	case inv.refused:
		return problem.New(problem.Unprocessable, "cell.memory_limit_too_small", "the initialisation of %s needs more memory than its limit of %d bytes", f.name, f.limits.Memory).
			WithHint("raise memory in app.toml").WithCause(err)
	}
	reason := explainTrap(err)
	if said, ok := errors.AsType[*problem.Error](exited(inv, err)); ok {
		reason = said
	}
	return problem.New(problem.Unprocessable, code, "%s cannot be initialised: %s", f.name, reason.Public).WithCause(err)
}

// release closes an instance that was made to be looked at. If a template came of it, its memory is the first that
// an event finds ready.
func (inv *invocation) release(ctx context.Context, in *instance, t *template) {
	inv.refused = in.memory.Refused()
	if t != nil && in.memory.Size() == t.image.Size() && in.memory.Fill(t.image) == nil {
		in.retire(ctx)
		return
	}
	in.close(ctx)
}

// instantiate returns an instance of which nothing has run: as it begins, or on its way to become what it is in a
// template, if there is one.
func (f *Function) instantiate(ctx context.Context, inv *invocation, t *template) (*instance, error) {
	in := &instance{function: f}
	if t == nil {
		in.memory = f.engine.memories.New(f.limits.Memory)
	} else {
		in.memory = f.engine.memories.Of(f.limits.Memory, t.image)
	}
	mod, err := f.engine.runtime.InstantiateModule(
		experimental.WithMemoryAllocator(ctx, in.memory), f.module.code, in.streams.config())
	if err != nil {
		in.memory.Release()
		return nil, err
	}
	in.Module = mod
	for _, g := range f.module.report.Globals {
		global, ok := mod.ExportedGlobal(g.Name).(wasm.MutableGlobal)
		if !ok {
			panic("BUG: a hardened module does not export its mutable globals")
		}
		in.globals = append(in.globals, global)
	}
	stop, ok := mod.ExportedGlobal(harden.StopExport).(wasm.MutableGlobal)
	if !ok {
		panic("BUG: an instance of a module that was not hardened")
	}
	in.stop = stop
	in.bind(inv)
	in.session = f.guest.attach(in)
	if t == nil {
		if err := in.writeData(); err != nil {
			in.close(ctx)
			return nil, err
		}
	}
	return in, nil
}

// writeData writes the data of the module to the memory of an instance of which nothing has run.
func (in *instance) writeData() error {
	memory := in.memory.Bytes()
	for i, d := range in.function.module.data {
		if uint64(d.At)+uint64(len(d.Bytes)) > uint64(len(memory)) {
			return fmt.Errorf("data[%d]: out of bounds memory access", i)
		}
		copy(memory[d.At:], d.Bytes)
	}
	return nil
}

// wake returns an instance that an event can come to: from the template, if there is one.
func (f *Function) wake(ctx context.Context, inv *invocation) (*instance, error) {
	in, err := f.instantiate(ctx, inv, f.template)
	if err != nil {
		return nil, err
	}
	if err := in.become(ctx, f.template); err != nil {
		in.close(ctx)
		return nil, err
	}
	return in, nil
}

// become makes a new instance equal to the template; without one, it is initialised.
func (in *instance) become(ctx context.Context, t *template) error {
	if t == nil {
		return in.initialize(ctx)
	}
	if missing := t.image.Size() - in.memory.Size(); missing > 0 {
		if _, ok := in.Memory().Grow(uint32(missing / pageBytes)); !ok {
			return errNoRoom
		}
	}
	if err := in.memory.Fill(t.image); err != nil {
		return err
	}
	in.restoreGlobals(t)
	return nil
}

// errNoRoom is the error of an instance that cannot grow to the size of its template.
var errNoRoom = errors.New("the memory of a new instance cannot grow to what it was")

func (in *instance) restoreGlobals(t *template) {
	for i, g := range in.globals {
		g.Set(t.globals[i])
	}
}

// reset makes the instance what it was before its event. It reports whether it could: if not, the
// instance holds traces of the event and must be closed.
func (in *instance) reset() bool {
	t := in.function.template
	if t == nil {
		return false
	}
	if in.memory.Refused() {
		return false
	}
	if _, err := in.memory.Reset(); err != nil {
		return false // it has grown: nothing is wrong with that, it only cannot be undone
	}
	in.restoreGlobals(t)
	return true
}

// moduleConfig is everything a guest has of the world: its event on stdin, its output, the time,
// and random numbers. wazero adds nothing of its own.
func (s *streams) config() wazero.ModuleConfig {
	return wazero.NewModuleConfig().
		WithName(""). // anonymous, so that instances do not collide
		WithStartFunctions().
		WithStdin(&s.stdin).
		WithStdout(&s.stdout).
		WithStderr(&s.stderr).
		WithSysWalltime().
		WithSysNanotime().
		WithRandSource(&s.random)
}
