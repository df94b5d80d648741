package cell

import (
	"context"
	"errors"
	"io"
	"time"

	"sallyport/internal/problem"
)

// invocation is the handling of one event: what goes in, what has come out so far, and the first
// thing that went wrong. Only the goroutine of Invoke touches it; host functions run on it too.
type invocation struct {
	input    Input
	limits   Limits
	started  time.Time
	deadline time.Time
	call     *call // which is ownCall, made with the invocation
	ownCall  call

	stdout, stderr io.Writer
	lines          [2]lineWriter // that stdout and stderr are, unless they are something else
	lastErrorLine  string

	result output
	logs   logLines
	uses   uses
	usage  Usage
	cpu    cpuClock
	calls  int // of host functions
	// refused is true when the guest asked for more memory than its limit.
	refused bool
	fault   *problem.Error
}

// invocationOf returns the invocation a host function is called in.
func invocationOf(ctx context.Context) *invocation {
	inv, ok := ctx.Value(invocationKey{}).(*invocation)
	if !ok {
		panic("BUG: host function called outside an invocation")
	}
	return inv
}

// abort ends the invocation with p, unless it has ended already: the guest is stopped at its next
// loop or call, and whatever it does until then does not count.
func (inv *invocation) abort(p *problem.Error) {
	if inv.fault == nil {
		inv.fault = p
		inv.call.cancel(context.Canceled, p)
	}
}

// called counts one call of a host function. It reports whether it may be made.
func (inv *invocation) called() bool {
	inv.calls++
	if inv.calls <= inv.limits.HostCalls {
		return true
	}
	inv.abort(problem.New(problem.FunctionFailed, "cell.too_many_host_calls",
		"the function called the host more often than its limit of %d times", inv.limits.HostCalls).
		WithHint("raise limits.host_calls in app.toml, or log and draw less"))
	return false
}

// Invoke handles one event in an instance that holds nothing of another one. An error is a
// *problem.Error: kind FunctionFailed when the function is to blame (see Failed for what it said),
// Unavailable with code cell.canceled when ctx was cancelled first. Usage is valid in every case.
func (f *Function) Invoke(ctx context.Context, in Input) (Result, Usage, error) {
	started := time.Now()
	inv := &invocation{input: in, limits: f.limits, started: started, deadline: started.Add(f.limits.Timeout)}
	inv.begin(ctx, &f.engine.watch, started)
	defer inv.call.end()
	inv.grant(f.grants)
	inv.cpu.start()
	defer inv.cpu.stop()
	result, err := f.run(inv.call, inv)
	if err != nil {
		result, err = Result{}, f.explain(ctx, inv, err)
	}
	inv.usage.Duration, inv.usage.CPU = time.Since(started), inv.cpu.stop()
	inv.usage.BytesIn, inv.usage.BytesOut = int64(len(in.Event)), int64(len(inv.result.bytes)+inv.logs.bytes)
	return result, inv.usage, err
}

// begin makes the invocation's call, whose end MUST be called.
func (inv *invocation) begin(ctx context.Context, w *watch, now time.Time) {
	inv.result = output{inv: inv, limit: inv.limits.Output}
	inv.logs = logLines{to: inv.input.Log, left: inv.limits.LogBytes}
	inv.lines = [2]lineWriter{{lines: &inv.logs, level: LevelInfo}, {lines: &inv.logs, level: LevelInfo, last: &inv.lastErrorLine}}
	inv.stdout, inv.stderr = &inv.lines[0], &inv.lines[1]
	inv.cpu.shared = inv.limitedCPU()
	inv.call = &inv.ownCall
	inv.call.begin(ctx, inv, w, now)
}

// grant gives the invocation the grants of its function.
func (inv *invocation) grant(specs []GrantSpec) {
	inv.uses = uses{inv: inv, specs: specs, via: inv.input.Grants}
	if use, call := inv.input.Use, inv.call; inv.uses.via == nil && use != nil && len(specs) > 0 {
		inv.uses.via = Beside(func(u GrantUse) GrantAnswer { return use(call, u) })
	}
}

// run is the way of one event through a guest.
func (f *Function) run(ctx context.Context, inv *invocation) (Result, error) {
	f.guest.prepare(inv)
	in, err := f.acquire(ctx, inv)
	if err != nil {
		return Result{}, err
	}
	err = in.serve(ctx, inv)
	inv.flush()
	inv.usage.MemoryPeak = in.memory.Size()
	inv.refused = in.memory.Refused()
	if !f.settle(ctx, in, inv.started, err) {
		f.refill(ctx)
	}
	if err == nil && inv.fault != nil {
		err = inv.fault
	}
	if err != nil {
		return Result{}, err
	}
	return f.engine.parseResult(inv.result.bytes, inv.limits)
}

// acquire returns an instance for inv: one that waits, or a new one.
func (f *Function) acquire(ctx context.Context, inv *invocation) (*instance, error) {
	if in := f.engine.idle.take(f); in != nil {
		in.bind(inv)
		return in, nil
	}
	inv.usage.Cold = true
	return f.wake(ctx, inv)
}

// settle gives the instance back, as it was before the event that began then, or closes it, and reports which. One
// that trapped or was stopped is closed: what of it is outside its memory is then nobody's to know.
func (f *Function) settle(ctx context.Context, in *instance, began time.Time, err error) (kept bool) {
	now := time.Now()
	if stopped := in.release(); !stopped && !trapped(err) && in.reset() {
		if now.Sub(began) > stackAfter {
			in.session = f.guest.attach(in)
		}
		f.engine.idle.give(ctx, in, now)
		return true
	}
	in.close(ctx)
	return false
}

// stackAfter is how long an event may take that leaves the instance its native stacks. They are outside
// the memory of the guest: a deep recursion makes one as large as 100 MiB, and wazero never makes it
// smaller. In this time it can fill one or two, and a new one costs a microsecond.
const stackAfter = 250 * time.Microsecond

// trapped reports whether the call into the guest did not come back by itself. What the guest said
// of its failure, or exited with, is a problem of its own by then.
func trapped(err error) bool {
	if err == nil {
		return false
	}
	_, said := errors.AsType[*problem.Error](err)
	return !said
}

// flush logs what the guest wrote after its last line feed.
func (inv *invocation) flush() {
	for _, w := range []io.Writer{inv.stdout, inv.stderr} {
		if lines, ok := w.(*lineWriter); ok {
			lines.flush()
		}
	}
}

// explain turns whatever ended the invocation into its problem. The order matters: the cause of
// the end comes before what the guest made of it.
func (f *Function) explain(caller context.Context, inv *invocation, err error) error {
	switch {
	case inv.fault != nil:
		return inv.fault
	case caller.Err() != nil && !errors.Is(caller.Err(), context.DeadlineExceeded):
		return problem.New(problem.Unavailable, codeCanceled, "the invocation was abandoned").WithCause(context.Cause(caller))
	case errors.Is(inv.call.ended(), errCPU):
		return problem.New(problem.FunctionFailed, "cell.cpu", "the function used more processor time than its limit of %s", f.limits.CPU).
			WithHint("raise limits.cpu in app.toml, or do less for each event")
	case inv.call.ended() != nil:
		return problem.New(problem.FunctionFailed, "cell.timeout", "the function ran longer than its timeout of %s", f.limits.Timeout)
	case inv.refused || errors.Is(err, errNoRoom):
		return problem.New(problem.FunctionFailed, codeMemory, "the function asked for more memory than its limit of %d bytes", f.limits.Memory).
			WithHint("raise memory in app.toml").WithCause(err)
	}
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return f.locate(p)
	}
	return explainTrap(err)
}
