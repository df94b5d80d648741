package js

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	wasm "github.com/tetratelabs/wazero/api"

	"sallyport/internal/cell/js/web"
)

// Errors of a script that are not exceptions.
var (
	// ErrNoHandler is returned by Load when the script's default export is not a function.
	ErrNoHandler = errors.New("the script has no function as its default export")
	// ErrNeverSettles is returned when a promise waits for something that cannot happen any more.
	ErrNeverSettles = errors.New("a promise is waited for that can never settle")
	// ErrOutOfMemory is returned when QuickJS has no memory for what the host puts into it.
	ErrOutOfMemory = errors.New("the script's memory is used up")
)

const (
	// gcThreshold is how many bytes a script allocates before QuickJS looks for garbage cycles for
	// the first time. Most events need less, and their memory is dropped as a whole.
	gcThreshold = 4 << 20
	// stackBytes is how much of the module's stack of 1 MiB a script may use: QuickJS needs some of
	// the rest to report the overflow.
	stackBytes = 512 << 10
	// stackTop is where the module's stack begins, which grows down to 0.
	stackTop = 1 << 20
	// bufferBytes is the size of a buffer, reserved once, that spares most events an allocation.
	bufferBytes = 16 << 10
	// maxException is the longest description of what was thrown: a message and a stack of 16,384 UTF-16 units,
	// each of at most six bytes in JSON, and the rest.
	maxException = 256 << 10
	// maxRejections bounds how many unhandled rejections are remembered; one is reported.
	maxRejections = 64
	// maxStack is how many numbers a call into QuickJS takes.
	maxStack = 6
)

// Evaluation modes of qjs_eval.
const (
	evalScript = 0
	evalModule = 1
)

// States of qjs_promise_state.
const (
	promisePending  = 0
	promiseRejected = 2
)

// State is where in the instance's memory Boot left what Handle needs. It belongs to that memory and
// its copies.
type State struct {
	context, scratch, buffer, eventName uint32
	tags                                tags
	undefined                           value
	timed                               uint32 // 1 when there may be timers
	use, handle, timer, describe        value  // functions of the prelude
	refused, respond                    value
}

// VM is QuickJS in one instance. It is not safe for concurrent use.
//
// A VM serves one event after the other as long as the instance's memory is put back in between, and Resume is
// called.
type VM struct {
	mod    wasm.Module
	memory wasm.Memory
	host   Host
	state  State

	functions  functions
	running    uint64 // which exports are, one bit each
	stack      [maxStack]uint64
	began      time.Time
	done       bool
	rejections []rejection

	grants  []Grant        // those of the function, once they were asked for
	covered []web.Template // of these
	begun   map[uint32]begun
}

// rejection is a promise that was rejected, by its identity, and why.
type rejection struct {
	promise uint32
	reason  value
}

// NewVM returns a VM in an instance that was just made. The context of every call of the VM MUST
// come from vm.Context.
func NewVM(mod wasm.Module, host Host) *VM {
	return &VM{mod: mod, memory: mod.Memory(), host: host, begun: map[uint32]begun{}}
}

type vmKey struct{}

// Context returns ctx with the VM in it, for the host functions to find.
func (vm *VM) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, vmKey{}, vm)
}

// Resume makes vm begin where Boot, Prepare or Load left, in an instance whose memory and globals are what they
// were then: a copy in another instance, or the same instance, put back after an event. What the VM knows of
// an event is forgotten; the handles of QuickJS's functions are kept.
func (vm *VM) Resume(state State) {
	vm.state, vm.done, vm.running = state, false, 0
	vm.rejections = vm.rejections[:0]
	clear(vm.begun)
}

// Boot is Prepare and Load.
func (vm *VM) Boot(ctx context.Context, name string, script []byte) (State, error) {
	if _, err := vm.Prepare(ctx); err != nil {
		return vm.state, err
	}
	return vm.Load(ctx, name, script)
}

// Prepare initialises QuickJS and evaluates the prelude. What is in the memory after that is the same for
// every script.
func (vm *VM) Prepare(ctx context.Context) (State, error) {
	err := vm.initialise(ctx)
	if err == nil {
		err = vm.install(ctx)
	}
	if err == nil {
		_, err = vm.call(ctx, fnRunGC)
	}
	vm.wipe()
	return vm.state, err
}

// wipe clears the part of the stack that is not in use, which between two calls is all of it. What calls left
// there means nothing, and would be kept with every image of the memory.
func (vm *VM) wipe() {
	stack, ok := vm.memory.Read(0, stackTop)
	if !ok {
		return // a memory that small has no image
	}
	for page := range slices.Chunk(stack, 4<<10) {
		if slices.ContainsFunc(page, func(b byte) bool { return b != 0 }) {
			clear(page)
		}
	}
}

// Load evaluates a script, which is an ES module, after Prepare or in a copy of the memory then, and
// returns the state to resume with. The name is what stack traces call the script.
func (vm *VM) Load(ctx context.Context, name string, script []byte) (State, error) {
	err := vm.load(ctx, name, script)
	if err == nil {
		_, err = vm.call(ctx, fnRunGC)
	}
	vm.wipe()
	return vm.state, err
}

func (vm *VM) initialise(ctx context.Context) error {
	if _, err := vm.call(ctx, fnInitialize); err != nil {
		return err
	}
	status, err := vm.call(ctx, fnInit)
	if err != nil {
		return err
	}
	if uint32(status) != 0 {
		return ErrOutOfMemory
	}
	for _, set := range []struct {
		what  export
		value uint64
	}{{fnMaxStackSize, stackBytes}, {fnGCThreshold, gcThreshold}, {fnTrackRejections, 1}} {
		if _, err := vm.call(ctx, set.what, set.value); err != nil {
			return err
		}
	}
	for _, allocate := range []struct {
		to   *uint32
		size uint64
	}{{&vm.state.scratch, scratchBytes}, {&vm.state.buffer, bufferBytes}} {
		if *allocate.to, err = vm.allocate(ctx, allocate.size); err != nil {
			return err
		}
	}
	if vm.state.context, err = vm.address(ctx, fnContext); err != nil {
		return err
	}
	if vm.state.eventName, err = vm.place(ctx, []byte(textName)); err != nil {
		return err
	}
	return vm.sample(ctx)
}

// sample learns how QuickJS tells kinds of values apart.
func (vm *VM) sample(ctx context.Context) error {
	for _, kind := range []struct {
		source string
		tag    *uint32
	}{
		{"undefined", &vm.state.tags.undefined},
		{"null", &vm.state.tags.null},
		{"true", &vm.state.tags.boolean},
		{"7", &vm.state.tags.integer},
		{"'text'", &vm.state.tags.text},
		{"'a'.repeat(9000) + 'b'.repeat(9000)", &vm.state.tags.rope},
		{"throw 0", &vm.state.tags.exception},
	} {
		box, err := vm.evaluate(ctx, preludeName, []byte(kind.source), evalScript)
		if err != nil {
			return err
		}
		v, err := vm.unbox(box)
		if err != nil {
			return err
		}
		*kind.tag = v.tag()
		if kind.tag == &vm.state.tags.undefined {
			vm.state.undefined = v
		}
	}
	_, err := vm.call(ctx, fnException, uint64(vm.state.context))
	return err
}

// install evaluates the prelude: a list of functions, of which each is called with the host's functions
// and an object that they share. The last one returns the functions that are called from here.
func (vm *VM) install(ctx context.Context) error {
	host, err := vm.hostFunctions(ctx)
	if err != nil {
		return err
	}
	world, err := vm.evaluateChecked(ctx, preludeName, []byte(emptyObject), evalScript)
	if err != nil {
		return err
	}
	parts, err := vm.evaluatePrelude(ctx)
	if err != nil {
		return err
	}
	entries := vm.state.undefined
	for i := range preludeParts() {
		part, err := vm.element(ctx, parts, i)
		if err != nil {
			return err
		}
		if entries, err = vm.apply(ctx, part, host, world); err != nil {
			return err
		}
	}
	for i, to := range []*value{&vm.state.use, &vm.state.handle, &vm.state.timer, &vm.state.describe, &vm.state.refused, &vm.state.respond} {
		if *to, err = vm.element(ctx, entries, i); err != nil {
			return err
		}
	}
	return nil
}

func (vm *VM) element(ctx context.Context, array value, index int) (value, error) {
	v, err := vm.call(ctx, fnElement, uint64(vm.state.context), uint64(array), uint64(index))
	return value(v), err
}

// evaluatePrelude returns the list that the prelude is.
func (vm *VM) evaluatePrelude(ctx context.Context) (value, error) {
	ptr, err := vm.place(ctx, prelude)
	if err != nil {
		return 0, err
	}
	box, err := vm.address(ctx, fnEvalCompiled, uint64(ptr), uint64(len(prelude)))
	if err != nil {
		return 0, err
	}
	if _, err := vm.call(ctx, fnFree, uint64(ptr)); err != nil {
		return 0, err
	}
	v, err := vm.unbox(box)
	if err != nil {
		return 0, err
	}
	return vm.checked(ctx, v)
}

// load evaluates the script and hands its exports to the prelude.
func (vm *VM) load(ctx context.Context, name string, script []byte) error {
	vm.began = time.Now()
	promise, err := vm.evaluate(ctx, name, script, evalModule)
	if err != nil {
		return err
	}
	v, err := vm.unbox(promise)
	if err != nil {
		return err
	}
	if _, err := vm.checked(ctx, v); err != nil {
		return err
	}
	for {
		if err := vm.drain(ctx); err != nil {
			return err
		}
		state, err := vm.call(ctx, fnPromiseState, uint64(promise))
		if err != nil {
			return err
		}
		if uint32(state) != promisePending {
			return vm.loaded(ctx, promise, uint32(state) == promiseRejected)
		}
		if err := vm.wait(ctx); err != nil {
			return err
		}
	}
}

// loaded takes the result of a script's evaluation.
func (vm *VM) loaded(ctx context.Context, promise uint32, rejected bool) error {
	box, err := vm.address(ctx, fnPromiseResult, uint64(promise))
	if err != nil {
		return err
	}
	result, err := vm.unbox(box)
	if err != nil {
		return err
	}
	if rejected {
		return vm.describe(ctx, result)
	}
	if err := vm.unhandled(ctx); err != nil {
		return err
	}
	usable, err := vm.apply(ctx, vm.state.use, result)
	if err != nil {
		return err
	}
	if uint32(usable) == 0 {
		return ErrNoHandler
	}
	return nil
}

// Handle has the script handle one event, given as JSON, and returns when its result went to the
// Host and nothing is left to do but timers. An error is an *Exception, one of this package's, or
// what ended the instance.
func (vm *VM) Handle(ctx context.Context, event []byte) error {
	vm.began = time.Now()
	argument, err := vm.parse(ctx, event)
	if err != nil {
		return err
	}
	if argument, err = vm.checked(ctx, argument); err != nil {
		return err
	}
	result, err := vm.apply(ctx, vm.state.handle, argument)
	if err != nil {
		return err
	}
	if result.tag() != vm.state.tags.undefined { // a handler that did not return a promise
		if err := vm.result(ctx, result); err != nil {
			return err
		}
	}
	for {
		if err := vm.drain(ctx); err != nil {
			return err
		}
		if vm.done {
			return vm.unhandled(ctx)
		}
		if err := vm.wait(ctx); err != nil {
			return err
		}
	}
}

// result takes the result of the event; the first one counts.
func (vm *VM) result(ctx context.Context, text value) error {
	if vm.done {
		return nil
	}
	vm.done = true
	return vm.text(ctx, text, func(_ uint32, text []byte) error {
		vm.host.Result(text)
		return nil
	})
}

// drain runs the jobs of settled promises until there are none.
func (vm *VM) drain(ctx context.Context) error {
	for {
		status, err := vm.call(ctx, fnRunJob)
		switch {
		case err != nil:
			return err
		case int32(status) < 0:
			return vm.exception(ctx)
		case int32(status) == 0:
			return nil
		}
	}
}

// wait runs the timer that is due, or waits until one is or an answer to a use of a grant has come, and hands that over.
func (vm *VM) wait(ctx context.Context) error {
	microseconds := int32(-1)
	if vm.state.timed != 0 {
		timer, err := vm.apply(ctx, vm.state.timer)
		if err != nil {
			return err
		}
		microseconds = int32(timer)
	}
	if microseconds == 0 {
		return ctx.Err()
	}
	if microseconds < 0 {
		vm.state.timed = 0
	}
	wait := time.Duration(-1)
	if microseconds > 0 {
		wait = time.Duration(microseconds) * time.Microsecond
	}
	if vm.host.Waits() {
		if answer, ok := vm.host.Answer(ctx, wait); ok {
			return vm.answered(ctx, answer)
		}
		return ctx.Err()
	}
	if microseconds < 0 {
		return errors.Join(vm.unhandled(ctx), ErrNeverSettles)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// parse returns the value of a JSON text, or an exception.
func (vm *VM) parse(ctx context.Context, text []byte) (value, error) {
	return vm.placed(ctx, text, func(ptr uint32) (value, error) {
		v, err := vm.call(ctx, fnParseJSON, uint64(vm.state.context), uint64(ptr), uint64(len(text)), uint64(vm.state.eventName))
		return value(v), err
	})
}

// newBytes returns p as a Uint8Array of the script.
func (vm *VM) newBytes(ctx context.Context, p []byte) (value, error) {
	return vm.placed(ctx, p, func(ptr uint32) (value, error) {
		v, err := vm.call(ctx, fnNewBytes, uint64(vm.state.context), uint64(ptr), uint64(len(p)))
		return value(v), err
	})
}

// unhandled returns the first rejection nobody handled, as an exception.
func (vm *VM) unhandled(ctx context.Context) error {
	if len(vm.rejections) == 0 {
		return nil
	}
	err := vm.describe(ctx, vm.rejections[0].reason)
	if thrown, ok := errors.AsType[*Exception](err); ok {
		thrown.Rejection = true
	}
	return err
}

// exception returns what was thrown last as an *Exception.
func (vm *VM) exception(ctx context.Context) error {
	thrown, err := vm.call(ctx, fnException, uint64(vm.state.context))
	if err != nil {
		return err
	}
	return vm.describe(ctx, value(thrown))
}

// describe returns a thrown value as an *Exception.
func (vm *VM) describe(ctx context.Context, thrown value) error {
	if vm.state.describe == 0 {
		return vm.preludeFailed(ctx, thrown)
	}
	// Not apply: when describing fails too, that is not to be described.
	v, err := vm.try(ctx, vm.state.describe, thrown)
	if err != nil {
		return err
	}
	if v.tag() == vm.state.tags.exception {
		return ErrOutOfMemory
	}
	e := &Exception{}
	err = vm.text(ctx, v, func(_ uint32, text []byte) error {
		if len(text) <= maxException { // the prelude bounds what is in it
			e.JSON = bytes.Clone(text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e
}

// preludeFailed is the error of a prelude that threw: for want of memory, or because it is wrong.
func (vm *VM) preludeFailed(ctx context.Context, thrown value) error {
	message := "an exception"
	err := vm.text(ctx, thrown, func(_ uint32, text []byte) error {
		message = string(text)
		return nil
	})
	if err != nil && !errors.Is(err, errNoString) {
		return err
	}
	return fmt.Errorf("%w: the prelude threw %s", ErrOutOfMemory, message)
}

// evaluate returns the value of source, or an exception, in a box.
func (vm *VM) evaluate(ctx context.Context, name string, source []byte, mode uint64) (box uint32, err error) {
	sourcePtr, err := vm.place(ctx, source)
	if err != nil {
		return 0, err
	}
	namePtr, err := vm.place(ctx, []byte(name))
	if err != nil {
		return 0, err
	}
	if box, err = vm.address(ctx, fnEval, uint64(sourcePtr), uint64(len(source)), uint64(namePtr), mode); err != nil {
		return 0, err
	}
	_, err = vm.call(ctx, fnFree, uint64(sourcePtr))
	return box, err
}

func (vm *VM) evaluateChecked(ctx context.Context, name string, source []byte, mode uint64) (value, error) {
	box, err := vm.evaluate(ctx, name, source, mode)
	if err != nil {
		return 0, err
	}
	v, err := vm.unbox(box)
	if err != nil {
		return 0, err
	}
	return vm.checked(ctx, v)
}
