package js

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
)

// preludeName is what stack traces call the prelude; Frames leaves it out.
const preludeName = "sallyport:prelude"

// maxRandom is the most random bytes of one call, as for crypto.getRandomValues.
const maxRandom = 64 << 10

// hashChunk is how many bytes are hashed between two looks at the clock, about a millisecond's worth.
const hashChunk = 512 << 10

// InstantiateHost provides what QuickJS imports besides WASI. Each function finds its VM in the
// context of the call.
func InstantiateHost(ctx context.Context, runtime wazero.Runtime) error {
	const i32 = wasm.ValueTypeI32
	builder := runtime.NewHostModuleBuilder("env")
	for _, fn := range []struct {
		name    string
		call    func(ctx context.Context, vm *VM, stack []uint64)
		params  int
		results int
	}{
		{"host_call", hostCalls(), 5, 1},
		{"host_promise_rejection", hostPromiseRejection, 3, 0},
		// No interrupts (the instance is stopped from outside), no other modules, and UTC.
		{"host_interrupt", hostNothing, 0, 1},
		{"host_module_normalize", hostNothing, 2, 1},
		{"host_module_load", hostNothing, 2, 1},
		{"host_get_timezone_offset", hostNothing, 2, 1},
	} {
		builder.NewFunctionBuilder().WithGoModuleFunction(wasm.GoModuleFunc(func(ctx context.Context, _ wasm.Module, stack []uint64) {
			vm, ok := ctx.Value(vmKey{}).(*VM)
			if !ok {
				panic("BUG: the JavaScript engine runs outside a VM")
			}
			fn.call(ctx, vm, stack)
		}), slices.Repeat([]wasm.ValueType{i32}, fn.params), slices.Repeat([]wasm.ValueType{i32}, fn.results)).Export(fn.name)
	}
	_, err := builder.Instantiate(ctx)
	return err
}

func hostNothing(_ context.Context, _ *VM, stack []uint64) {
	if len(stack) > 0 {
		stack[0] = 0
	}
}

// hostFunction is a function of the prelude's `host`. QuickJS calls it by its key, which is one byte
// because it makes a string of it every time.
type hostFunction struct {
	key  byte
	name string
	call func(ctx context.Context, vm *VM, args arguments) (value, error)
}

// hostFunctionTable lists the functions the prelude gets. They have no authority: what is more than
// arithmetic on their arguments goes through the Host.
//
// Only the prelude calls them, with integers, Uint8Arrays, and strings, mostly of well-formed Unicode. But what it
// passes may have come from a method that the script has replaced, so nothing is relied on.
func hostFunctionTable() []hostFunction {
	return []hostFunction{
		{'a', "attempt", hostAttempt},
		{'c', "classOf", hostClassOf},
		{'d', "done", hostDone},
		{'e', "encode", hostEncode},
		{'f', "fetch", hostFetch},
		{'g', "grants", hostGrants},
		{'h', "digest", hostDigest},
		{'i', "header", hostHeader},
		{'j', "json", hostJSON},
		{'k', "get", hostGet},
		{'l', "log", hostLog},
		{'m', "timed", hostTimed},
		{'p', "elapsed", hostElapsed},
		{'q', "query", hostQuery},
		{'r', "random", hostRandom},
		{'t', "deadline", hostDeadline},
		{'u', "url", hostURL},
		{'v', "text", hostText},
		{'w', "use", hostUse},
		{'x', "decode", hostDecode},
	}
}

// Sources of the two values that the prelude's parts get.
const (
	emptyObject = "({ __proto__: null })"
	setProperty = "((object, name, value) => { object[name] = value })"
)

// hostFunctions returns the object that has them.
func (vm *VM) hostFunctions(ctx context.Context) (value, error) {
	object, err := vm.evaluateChecked(ctx, preludeName, []byte(emptyObject), evalScript)
	if err != nil {
		return 0, err
	}
	set, err := vm.evaluateChecked(ctx, preludeName, []byte(setProperty), evalScript)
	if err != nil {
		return 0, err
	}
	for _, f := range hostFunctionTable() {
		key, err := vm.place(ctx, []byte{f.key})
		if err != nil {
			return 0, err
		}
		box, err := vm.address(ctx, fnNewHostFunction, uint64(key), 1, 0)
		if err != nil {
			return 0, err
		}
		fn, err := vm.unbox(box)
		if err != nil {
			return 0, err
		}
		name, err := vm.newString(ctx, []byte(f.name))
		if err != nil {
			return 0, err
		}
		if _, err := vm.apply(ctx, set, object, name, fn); err != nil {
			return 0, err
		}
	}
	return object, nil
}

// arguments are those of a host call, in the guest's memory.
type arguments struct {
	vm          *VM
	count, argv uint32
}

// at returns an argument, or undefined.
func (a arguments) at(index uint32) value {
	if index < a.count {
		if box, ok := a.vm.memory.ReadUint32Le(a.argv + 4*index); ok {
			if v, err := a.vm.unbox(box); err == nil {
				return v
			}
		}
	}
	return a.vm.state.undefined
}

// integer returns an argument that is one.
func (a arguments) integer(index uint32) int32 { return int32(a.at(index)) }

// hostCalls returns host_call(name, name_length, this, argc, argv) value. The 0 that is returned for an error
// is an exception to QuickJS.
func hostCalls() func(ctx context.Context, vm *VM, stack []uint64) {
	var calls [256]func(ctx context.Context, vm *VM, args arguments) (value, error)
	for _, f := range hostFunctionTable() {
		calls[f.key] = f.call
	}
	return func(ctx context.Context, vm *VM, stack []uint64) {
		key, ok := vm.memory.ReadByte(uint32(stack[0]))
		args := arguments{vm: vm, count: uint32(stack[3]), argv: uint32(stack[4])}
		stack[0] = 0
		if !ok || calls[key] == nil {
			return
		}
		result, err := calls[key](ctx, vm, args)
		var box uint32
		if err == nil && result.tag() != vm.state.tags.exception {
			box, err = vm.box(ctx, result)
		}
		if err != nil {
			vm.throw(ctx, err)
			return
		}
		stack[0] = uint64(box)
	}
}

// throw leaves the exception of an error for QuickJS to find. What ends the instance needs none.
func (vm *VM) throw(ctx context.Context, err error) {
	switch {
	case errors.Is(err, ErrOutOfMemory):
		_, _ = vm.call(ctx, fnThrowOutOfMemory, uint64(vm.state.context)) // or there is a trap, which says more
	case errors.Is(err, errNoString), errors.Is(err, errTooLong):
		if message, err := vm.newString(ctx, []byte(err.Error())); err == nil {
			_, _ = vm.call(ctx, fnThrow, uint64(vm.state.context), uint64(message))
		}
	}
}

func hostLog(ctx context.Context, vm *VM, args arguments) (value, error) {
	level := uint32(args.integer(0))
	return vm.state.undefined, vm.text(ctx, args.at(1), func(_ uint32, line []byte) error {
		vm.host.Log(level, line)
		return nil
	})
}

// hostRandom fills a Uint8Array.
func hostRandom(ctx context.Context, vm *VM, args arguments) (value, error) {
	_, p, err := vm.bytes(ctx, args.at(0))
	if err != nil {
		return 0, err
	}
	vm.host.Random(p[:min(len(p), maxRandom)])
	return vm.state.undefined, nil
}

func hostDone(ctx context.Context, vm *VM, args arguments) (value, error) {
	return vm.state.undefined, vm.result(ctx, args.at(0))
}

func hostAttempt(_ context.Context, vm *VM, _ arguments) (value, error) {
	return vm.integer(int32(vm.host.Attempt())), nil
}

// hostDeadline returns a decimal number, which has more digits than an integer of a script may have.
func hostDeadline(ctx context.Context, vm *VM, _ arguments) (value, error) {
	return vm.newString(ctx, strconv.AppendInt(nil, vm.host.Deadline(), 10))
}

// hostTimed says that there are timers.
func hostTimed(_ context.Context, vm *VM, _ arguments) (value, error) {
	vm.state.timed = 1
	return vm.state.undefined, nil
}

// hostElapsed returns how many microseconds passed since the event, or the loading, began.
func hostElapsed(_ context.Context, vm *VM, _ arguments) (value, error) {
	return vm.integer(int32(min(time.Since(vm.began).Microseconds(), math.MaxInt32))), nil
}

// hostClassOf returns a number that all objects of one built-in class have, and no others.
func hostClassOf(ctx context.Context, vm *VM, args arguments) (value, error) {
	class, err := vm.call(ctx, fnClass, uint64(args.at(0)))
	return vm.integer(int32(class)), err
}

// hostEncode returns a string as a Uint8Array of UTF-8.
func hostEncode(ctx context.Context, vm *VM, args arguments) (value, error) {
	var array value
	err := vm.text(ctx, args.at(0), func(ptr uint32, text []byte) error {
		v, err := vm.call(ctx, fnNewBytes, uint64(vm.state.context), uint64(ptr), uint64(len(text)))
		array = value(v)
		return err
	})
	return array, err
}

// hostDigest is digest(bits, data, result): the SHA-1 for 160 bits, or the SHA-2 of that length, of one
// Uint8Array into another one. It returns how many bytes it wrote.
func hostDigest(ctx context.Context, vm *VM, args arguments) (value, error) {
	var h hash.Hash
	switch args.integer(0) {
	case 160:
		h = sha1.New()
	case 256:
		h = sha256.New()
	case 384:
		h = sha512.New384()
	case 512:
		h = sha512.New()
	default:
		return vm.integer(0), nil
	}
	_, data, err := vm.bytes(ctx, args.at(1))
	if err != nil {
		return 0, err
	}
	for chunk := range slices.Chunk(data, hashChunk) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		_, _ = h.Write(chunk) // never fails
	}
	_, result, err := vm.bytes(ctx, args.at(2))
	if err != nil {
		return 0, err
	}
	return vm.integer(int32(copy(result, h.Sum(nil)))), nil
}

// hostPromiseRejection is host_promise_rejection(promise, reason, is_handled): a promise without a
// handler was rejected, or got its handler after all. Both values are the host's to free.
func hostPromiseRejection(ctx context.Context, vm *VM, stack []uint64) {
	promiseBox, reasonBox, handled := uint32(stack[0]), uint32(stack[1]), uint32(stack[2]) != 0
	promise, err := vm.unbox(promiseBox)
	if err != nil {
		return // no memory is left, and the script is told so elsewhere
	}
	reason, err := vm.unbox(reasonBox)
	if err != nil {
		return
	}
	identity := uint32(promise) // its address
	if !handled && len(vm.rejections) < maxRejections {
		// Neither value is freed: the promise must keep its address while it is remembered.
		vm.rejections = append(vm.rejections, rejection{identity, reason})
		return
	}
	if handled {
		vm.rejections = slices.DeleteFunc(vm.rejections, func(r rejection) bool { return r.promise == identity })
	}
	for _, box := range []uint32{promiseBox, reasonBox} {
		if _, err := vm.call(ctx, fnFreeBox, uint64(box)); err != nil {
			return // the instance is being stopped
		}
	}
}

// integer returns n as a value of the script.
func (vm *VM) integer(n int32) value {
	return value(vm.state.tags.integer)<<32 | value(uint32(n))
}
