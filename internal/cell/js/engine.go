package js

import (
	"context"
	"errors"
	"fmt"

	wasm "github.com/tetratelabs/wazero/api"
)

// export is a function that QuickJS exports.
type export uint8

const (
	fnInitialize export = iota
	fnInit
	fnContext
	fnMaxStackSize
	fnGCThreshold
	fnTrackRejections
	fnRunGC
	fnEval
	fnCompile
	fnEvalCompiled
	fnNewHostFunction
	fnPromiseState
	fnPromiseResult
	fnRunJob
	fnFreeBox
	fnFreeValue
	fnMalloc
	fnFree
	fnCall
	fnParseJSON
	fnException
	fnElement
	fnNewAtom
	fnFreeAtom
	fnProperty
	fnNewPromise
	fnNewSettledPromise
	fnNewString
	fnText
	fnFreeText
	fnBytes
	fnNewBytes
	fnClass
	fnThrow
	fnThrowOutOfMemory
	exports // how many
)

// One bit of VM.running is for each.
var _ [64 - exports]struct{}

// name returns the name of the export. Those with qjs_ are quickjs-wasi's: a value of the script is an
// address there, of eight bytes that hold it. The others are QuickJS's own C interface, in which a
// value is a number of 64 bits.
func (e export) name() string {
	return [exports]string{
		fnInitialize:        "_initialize",
		fnInit:              "qjs_init",
		fnContext:           "qjs_get_context_ptr",
		fnMaxStackSize:      "qjs_set_max_stack_size",
		fnGCThreshold:       "qjs_set_gc_threshold",
		fnTrackRejections:   "qjs_set_promise_rejection_handler",
		fnRunGC:             "qjs_run_gc",
		fnEval:              "qjs_eval",
		fnCompile:           "qjs_compile",
		fnEvalCompiled:      "qjs_eval_bytecode",
		fnNewHostFunction:   "qjs_new_host_function",
		fnPromiseState:      "qjs_promise_state",
		fnPromiseResult:     "qjs_promise_result",
		fnRunJob:            "qjs_execute_pending_job",
		fnFreeBox:           "qjs_free_value",
		fnFreeValue:         "JS_FreeValue",
		fnMalloc:            "wasm_malloc",
		fnFree:              "wasm_free",
		fnCall:              "JS_Call",
		fnParseJSON:         "JS_ParseJSON",
		fnException:         "JS_GetException",
		fnElement:           "JS_GetPropertyUint32",
		fnNewAtom:           "JS_ValueToAtom",
		fnFreeAtom:          "JS_FreeAtom",
		fnProperty:          "JS_GetProperty",
		fnNewPromise:        "JS_NewPromiseCapability",
		fnNewSettledPromise: "JS_NewSettledPromise",
		fnNewString:         "JS_NewStringLen",
		fnText:              "JS_ToCStringLen2",
		fnFreeText:          "JS_FreeCString",
		fnBytes:             "JS_GetUint8Array",
		fnNewBytes:          "JS_NewUint8ArrayCopy",
		fnClass:             "JS_GetClassID",
		fnThrow:             "JS_Throw",
		fnThrowOutOfMemory:  "JS_ThrowOutOfMemory",
	}[e]
}

// value is a value of the script, as QuickJS has it: the upper half is its tag, or the value is a
// floating-point number.
type value uint64

func (v value) tag() uint32 { return uint32(v >> 32) }

// tags are the tags of some kinds of values, taken from samples rather than from QuickJS's sources. The
// lower half of an integer is its value.
type tags struct{ undefined, null, boolean, exception, integer, text, rope uint32 }

// The scratch area: arguments of a call, then the length of a string or an array that is read, then the two functions that settle a promise.
const (
	maxArguments = 4
	lengthAt     = 8 * maxArguments
	functionsAt  = lengthAt + 8
	scratchBytes = functionsAt + 2*8
	boxBytes     = 8
	// noLength is the length where QuickJS has written none.
	noLength = 1<<32 - 1
)

// What a host function got that is not what the prelude passes.
var (
	errNoString = errors.New("a string is wanted")
	errNoBytes  = errors.New("a Uint8Array is wanted")
	errTooLong  = errors.New("the array is too long")
)

// call calls an export. All results are numbers; of an i32, the upper half says nothing.
//
// Host functions call exports while one is running, and the arguments of both are in vm.stack: wazero has
// read the outer call's before, and writes its result after. The same export MUST NOT be called while it
// runs: its handle has one stack.
func (vm *VM) call(ctx context.Context, e export, args ...uint64) (uint64, error) {
	fn := vm.functions[e]
	if fn == nil {
		if fn = vm.mod.ExportedFunction(e.name()); fn == nil {
			return 0, fmt.Errorf("BUG: the JavaScript engine has no %q", e.name())
		}
		vm.functions[e] = fn
	}
	if vm.running&(1<<e) != 0 {
		return 0, fmt.Errorf("BUG: %q is called while it runs", e.name())
	}
	vm.running |= 1 << e
	copy(vm.stack[:], args)
	err := fn.CallWithStack(ctx, vm.stack[:max(1, len(args))])
	vm.running &^= 1 << e
	if err != nil {
		return 0, err
	}
	return vm.stack[0], nil
}

// address calls an export that returns an address, which is never 0.
func (vm *VM) address(ctx context.Context, e export, args ...uint64) (uint32, error) {
	ptr, err := vm.call(ctx, e, args...)
	if err != nil {
		return 0, err
	}
	if uint32(ptr) == 0 {
		return 0, ErrOutOfMemory
	}
	return uint32(ptr), nil
}

func (vm *VM) allocate(ctx context.Context, size uint64) (uint32, error) {
	return vm.address(ctx, fnMalloc, size)
}

// place puts bytes, with a zero after them, into memory that stays theirs.
func (vm *VM) place(ctx context.Context, p []byte) (uint32, error) {
	ptr, err := vm.allocate(ctx, uint64(len(p))+1)
	if err != nil {
		return 0, err
	}
	return ptr, vm.write(ptr, p)
}

// write writes bytes and a zero after them.
func (vm *VM) write(ptr uint32, p []byte) error {
	if !vm.memory.Write(ptr, p) || !vm.memory.WriteByte(ptr+uint32(len(p)), 0) {
		return ErrOutOfMemory
	}
	return nil
}

// placed has use take bytes, with a zero after them, that are in the guest's memory until it returns. Most
// fit into a buffer that is reserved once.
func (vm *VM) placed(ctx context.Context, p []byte, use func(ptr uint32) (value, error)) (value, error) {
	if len(p) < bufferBytes {
		if err := vm.write(vm.state.buffer, p); err != nil {
			return 0, err
		}
		return use(vm.state.buffer)
	}
	ptr, err := vm.place(ctx, p)
	if err != nil {
		return 0, err
	}
	v, err := use(ptr)
	if err != nil {
		return 0, err
	}
	_, err = vm.call(ctx, fnFree, uint64(ptr))
	return v, err
}

// newString returns p as a string of the script. It MUST be valid UTF-8.
func (vm *VM) newString(ctx context.Context, p []byte) (value, error) {
	return vm.placed(ctx, p, func(ptr uint32) (value, error) {
		v, err := vm.call(ctx, fnNewString, uint64(vm.state.context), uint64(ptr), uint64(len(p)))
		return value(v), err
	})
}

// text has use read the text of a string in UTF-8, in the guest's memory. Any other value is refused: to
// make a string of it could run the script.
func (vm *VM) text(ctx context.Context, v value, use func(ptr uint32, text []byte) error) error {
	if tag := v.tag(); tag != vm.state.tags.text && tag != vm.state.tags.rope {
		return errNoString
	}
	ptr, err := vm.address(ctx, fnText, uint64(vm.state.context), uint64(vm.state.scratch+lengthAt), uint64(v), 0)
	if err != nil {
		return err
	}
	text, err := vm.sized(ptr)
	if err != nil {
		return err
	}
	if err := use(ptr, text); err != nil {
		return err
	}
	_, err = vm.call(ctx, fnFreeText, uint64(vm.state.context), uint64(ptr))
	return err
}

// bytes returns the bytes of a Uint8Array, in the guest's memory: nothing for one that is detached.
func (vm *VM) bytes(ctx context.Context, v value) (ptr uint32, p []byte, err error) {
	if !vm.memory.WriteUint32Le(vm.state.scratch+lengthAt, noLength) {
		return 0, nil, ErrOutOfMemory
	}
	at, err := vm.call(ctx, fnBytes, uint64(vm.state.context), uint64(vm.state.scratch+lengthAt), uint64(v))
	if err != nil {
		return 0, nil, err
	}
	if uint32(at) == 0 {
		if length, ok := vm.memory.ReadUint32Le(vm.state.scratch + lengthAt); !ok || length == noLength {
			return 0, nil, errNoBytes // QuickJS has thrown a TypeError
		}
		return 0, nil, nil
	}
	p, err = vm.sized(uint32(at))
	return uint32(at), p, err
}

// sized returns the bytes at ptr, as many as QuickJS has just put into the scratch area.
func (vm *VM) sized(ptr uint32) ([]byte, error) {
	length, ok := vm.memory.ReadUint32Le(vm.state.scratch + lengthAt)
	if !ok {
		return nil, ErrOutOfMemory
	}
	p, ok := vm.memory.Read(ptr, length)
	if !ok {
		return nil, ErrOutOfMemory
	}
	return p, nil
}

// unbox reads the value at an address that QuickJS gave.
func (vm *VM) unbox(ptr uint32) (value, error) {
	v, ok := vm.memory.ReadUint64Le(ptr)
	if !ok || ptr == 0 {
		return 0, ErrOutOfMemory
	}
	return value(v), nil
}

// box puts a value into memory that QuickJS frees.
func (vm *VM) box(ctx context.Context, v value) (uint32, error) {
	ptr, err := vm.allocate(ctx, boxBytes)
	if err != nil {
		return 0, err
	}
	if !vm.memory.WriteUint64Le(ptr, uint64(v)) {
		return 0, ErrOutOfMemory
	}
	return ptr, nil
}

// apply calls a function of the script and returns its value; what it throws is an *Exception.
func (vm *VM) apply(ctx context.Context, fn value, args ...value) (value, error) {
	v, err := vm.try(ctx, fn, args...)
	if err != nil {
		return 0, err
	}
	return vm.checked(ctx, v)
}

// try is apply without a look at what was thrown.
func (vm *VM) try(ctx context.Context, fn value, args ...value) (value, error) {
	if len(args) > maxArguments {
		return 0, fmt.Errorf("BUG: call with %d arguments", len(args))
	}
	for i, arg := range args {
		if !vm.memory.WriteUint64Le(vm.state.scratch+uint32(8*i), uint64(arg)) {
			return 0, ErrOutOfMemory
		}
	}
	v, err := vm.call(ctx, fnCall, uint64(vm.state.context), uint64(fn), uint64(vm.state.undefined), uint64(len(args)), uint64(vm.state.scratch))
	return value(v), err
}

func (vm *VM) checked(ctx context.Context, v value) (value, error) {
	if v.tag() != vm.state.tags.exception {
		return v, nil
	}
	return 0, vm.exception(ctx)
}

// functions are the exports that were called so far.
type functions [exports]wasm.Function
