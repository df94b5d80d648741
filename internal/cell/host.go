package cell

import (
	"context"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"

	"sallyport/internal/problem"
)

// The names of the ABI; design/abi.md says what each is for.
const (
	hostModule       = "sallyport"
	exportHandle     = "sallyport_handle"
	exportInitialize = "_initialize"
	exportReseed     = "sallyport_reseed"
	exportStart      = "_start"
	exportMemory     = "memory"
)

// refused is what a host function returns when it did not do what it was asked to. The invocation
// is then over: its problem is noted, and the guest is stopped at its next loop or call.
const refused = -1

// instantiateHost provides the module "sallyport". Every function finds its invocation in the
// context of the call, so that one host module serves all instances.
func instantiateHost(ctx context.Context, runtime wazero.Runtime) error {
	const i32, i64 = wasm.ValueTypeI32, wasm.ValueTypeI64
	builder := runtime.NewHostModuleBuilder(hostModule)
	for _, fn := range []struct {
		name            string
		call            func(inv *invocation, mem wasm.Memory, stack []uint64) int64
		params, results []wasm.ValueType
	}{
		{"event_size", hostEventSize, nil, []wasm.ValueType{i32}},
		{"event_read", hostEventRead, []wasm.ValueType{i32, i32}, []wasm.ValueType{i32}},
		{"attempt", hostAttempt, nil, []wasm.ValueType{i32}},
		{"deadline", hostDeadline, nil, []wasm.ValueType{i64}},
		{"log", hostLog, []wasm.ValueType{i32, i32, i32}, nil},
		{"result_write", hostResultWrite, []wasm.ValueType{i32, i32}, []wasm.ValueType{i32}},
		{"grant_start", hostGrantStart, []wasm.ValueType{i32, i32, i32, i32, i32, i32, i32, i32}, []wasm.ValueType{i32}},
		{"grant_wait", hostGrantWait, []wasm.ValueType{i32, i64}, []wasm.ValueType{i32}},
		{"grant_status", hostGrantStatus, []wasm.ValueType{i32}, []wasm.ValueType{i32}},
		{"grant_size", hostGrantSize, []wasm.ValueType{i32, i32}, []wasm.ValueType{i32}},
		{"grant_read", hostGrantRead, []wasm.ValueType{i32, i32, i32, i32, i32}, []wasm.ValueType{i32}},
		{"grant_end", hostGrantEnd, []wasm.ValueType{i32}, nil},
	} {
		builder.NewFunctionBuilder().WithGoModuleFunction(wasm.GoModuleFunc(func(ctx context.Context, mod wasm.Module, stack []uint64) {
			inv, result := invocationOf(ctx), int64(refused)
			if inv.called() {
				result = fn.call(inv, mod.ExportedMemory(exportMemory), stack)
			}
			switch {
			case len(fn.results) == 0:
			case fn.results[0] == i32:
				stack[0] = wasm.EncodeI32(int32(result))
			default:
				stack[0] = wasm.EncodeI64(result)
			}
		}), fn.params, fn.results).Export(fn.name)
	}
	_, err := builder.Instantiate(ctx)
	return err
}

// hostEventSize is event_size() i32: the length of the event in bytes.
func hostEventSize(inv *invocation, _ wasm.Memory, _ []uint64) int64 {
	return int64(len(inv.input.Event))
}

// hostEventRead is event_read(ptr, len) i32: copies the first len bytes of the event into memory, or
// all of it when it is shorter, and returns how many it copied. It may be called again.
func hostEventRead(inv *invocation, mem wasm.Memory, stack []uint64) int64 {
	ptr, length := uint32(stack[0]), uint32(stack[1])
	part := inv.input.Event
	if uint64(length) < uint64(len(part)) {
		part = part[:length]
	}
	if mem == nil || !mem.Write(ptr, part) {
		return badPointer(inv, "event_read", ptr, length)
	}
	return int64(len(part))
}

// hostAttempt is attempt() i32: which try at this delivery this is, from 1.
func hostAttempt(inv *invocation, _ wasm.Memory, _ []uint64) int64 { return int64(inv.input.Attempt) }

// hostDeadline is deadline() i64: when the invocation is stopped, in Unix milliseconds.
func hostDeadline(inv *invocation, _ wasm.Memory, _ []uint64) int64 { return inv.deadline.UnixMilli() }

// hostLog is log(level, ptr, len): adds one line to the function log.
func hostLog(inv *invocation, mem wasm.Memory, stack []uint64) int64 {
	ptr, length := uint32(stack[1]), uint32(stack[2])
	line, ok := read(mem, ptr, length)
	if !ok {
		return badPointer(inv, "log", ptr, length)
	}
	inv.logs.add(levelOf(uint32(stack[0])), line)
	return 0
}

// hostResultWrite is result_write(ptr, len) i32: appends to the result and returns len.
func hostResultWrite(inv *invocation, mem wasm.Memory, stack []uint64) int64 {
	ptr, length := uint32(stack[0]), uint32(stack[1])
	part, ok := read(mem, ptr, length)
	if !ok {
		return badPointer(inv, "result_write", ptr, length)
	}
	if _, err := inv.result.Write(part); err != nil {
		return refused
	}
	return int64(length)
}

func read(mem wasm.Memory, ptr, length uint32) ([]byte, bool) {
	if length == 0 {
		return nil, true
	}
	if mem == nil {
		return nil, false
	}
	return mem.Read(ptr, length)
}

func badPointer(inv *invocation, call string, ptr, length uint32) int64 {
	inv.abort(problem.New(problem.FunctionFailed, "cell.bad_pointer",
		"the function called %s.%s with %d bytes at address %d, which is outside its memory", hostModule, call, length, ptr))
	return refused
}

func levelOf(level uint32) string {
	switch level {
	case 0:
		return LevelDebug
	case 2:
		return LevelWarn
	case 3:
		return LevelError
	}
	return LevelInfo
}
