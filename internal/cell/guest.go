package cell

import (
	"context"
	"errors"
	"strings"

	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"sallyport/internal/problem"
)

// guest is how one kind of module is driven.
type guest interface {
	// prepare directs the invocation's streams, before there is an instance.
	prepare(inv *invocation)
	// attach returns what drives a new instance.
	attach(in *instance) session
}

// session drives one instance.
type session interface {
	// initialize does whatever no event influences.
	initialize(ctx context.Context) error
	// reseeds reports whether the guest says that it draws its random state anew for each event.
	reseeds(ctx context.Context) bool
	// handle has the guest handle the event of inv; the result is in inv.result.
	handle(ctx context.Context, inv *invocation) error
}

// reactor drives a module that exports sallyport_handle.
type reactor struct{}

func (reactor) prepare(*invocation) {}

func (reactor) attach(in *instance) session {
	return &reactorSession{
		start: in.ExportedFunction(exportInitialize), entry: in.ExportedFunction(exportHandle), random: in.ExportedFunction(exportReseed),
	}
}

type reactorSession struct{ start, entry, random wasm.Function }

func (s *reactorSession) initialize(ctx context.Context) error {
	if s.start == nil {
		return nil
	}
	_, err := s.start.Call(ctx)
	return err
}

func (s *reactorSession) reseeds(ctx context.Context) bool {
	if s.random == nil {
		return false
	}
	status, err := callStatus(ctx, s.random)
	return err == nil && status == 0
}

func (s *reactorSession) handle(ctx context.Context, inv *invocation) error {
	status, err := callStatus(ctx, s.entry)
	if err != nil {
		return exited(inv, err)
	}
	if status != 0 {
		return failureOf(inv.result.bytes)
	}
	return nil
}

// callStatus calls a function of no parameters that returns an i32.
func callStatus(ctx context.Context, fn wasm.Function) (int32, error) {
	var stack [1]uint64
	err := fn.CallWithStack(ctx, stack[:])
	return wasm.DecodeI32(stack[0]), err
}

// command drives a WASI command. Its initialisation is a part of its one call.
type command struct{}

func (command) prepare(inv *invocation) { inv.stdout = &inv.result }

func (command) attach(in *instance) session { return commandSession{in.ExportedFunction(exportStart)} }

type commandSession struct{ entry wasm.Function }

func (commandSession) initialize(context.Context) error { return nil }

func (commandSession) reseeds(context.Context) bool { return false }

func (s commandSession) handle(ctx context.Context, inv *invocation) error {
	_, err := s.entry.Call(ctx)
	return exited(inv, err)
}

// exited maps the end of a guest that called proc_exit: code 0 is success, any other a failure
// whose message is the last line on stderr.
func exited(inv *invocation, err error) error {
	exit, ok := errors.AsType[*sys.ExitError](err)
	if !ok {
		return err
	}
	switch exit.ExitCode() {
	case 0:
		return nil
	case sys.ExitCodeContextCanceled, sys.ExitCodeDeadlineExceeded:
		return err
	}
	inv.flush()
	message := inv.lastErrorLine
	if message == "" {
		return problem.New(problem.FunctionFailed, codeFailed, "the function exited with code %d", exit.ExitCode())
	}
	return failed(&Failure{Message: message})
}

// explainTrap is the problem of a guest that trapped. wazero keeps its trap values in an internal
// package, so the one class that is told apart is told by its text.
func explainTrap(err error) *problem.Error {
	text := firstLine(err.Error())
	text = strings.TrimPrefix(text, "wasm error: ")
	if strings.Contains(text, "stack overflow") {
		return problem.New(problem.FunctionFailed, "cell.stack_overflow", "the function recursed too deeply").WithCause(err)
	}
	return problem.New(problem.FunctionFailed, "cell.trap", "the function trapped: %s", text).WithCause(err)
}
