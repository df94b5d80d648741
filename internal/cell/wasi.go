package cell

import (
	"context"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// Error numbers of WASI preview 1.
const (
	wasiSuccess      = 0
	wasiBadFile      = 8
	wasiFault        = 21
	wasiInvalid      = 28
	wasiNotSupported = 58
)

// maxStandardFile is the highest file descriptor of a cell: standard input, output and error.
const maxStandardFile = 2

// instantiateWASI provides WASI preview 1, in which no call changes anything that outlives the
// invocation but the guest's memory: that is what is put back after an event. Those of wazero that
// would change the table of files, or close the instance, are replaced; so are poll_oneoff, whose
// work and memory grow with what the guest says, and fd_filestat_set_times, on which wazero 1.12
// panics.
func instantiateWASI(ctx context.Context, runtime wazero.Runtime) error {
	const i32, i64 = wasm.ValueTypeI32, wasm.ValueTypeI64
	builder := runtime.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(builder)
	for _, fn := range []struct {
		name    string
		call    func(stack []uint64)
		params  int
		results []wasm.ValueType
	}{
		{"fd_close", standardFileOnly, 1, []wasm.ValueType{i32}},
		{"fd_fdstat_set_flags", standardFileOnly, 2, []wasm.ValueType{i32}},
		{"fd_renumber", notSupported, 2, []wasm.ValueType{i32}},
		{"proc_exit", exit, 1, nil},
	} {
		builder.NewFunctionBuilder().WithGoFunction(wasm.GoFunc(func(_ context.Context, stack []uint64) { fn.call(stack) }),
			[]wasm.ValueType{i32, i32}[:fn.params], fn.results).Export(fn.name)
	}
	builder.NewFunctionBuilder().WithGoFunction(wasm.GoFunc(func(_ context.Context, stack []uint64) { notSupported(stack) }),
		[]wasm.ValueType{i32, i64, i64, i32}, []wasm.ValueType{i32}).Export("fd_filestat_set_times")
	builder.NewFunctionBuilder().WithGoModuleFunction(wasm.GoModuleFunc(func(ctx context.Context, mod wasm.Module, stack []uint64) {
		p := poll{in: uint32(stack[0]), out: uint32(stack[1]), count: uint32(stack[2]), result: uint32(stack[3])}
		stack[0] = p.run(ctx, mod.Memory())
	}), []wasm.ValueType{i32, i32, i32, i32}, []wasm.ValueType{i32}).Export("poll_oneoff")
	_, err := builder.Instantiate(ctx)
	return err
}

// standardFileOnly is fd_close and fd_fdstat_set_flags: they succeed on what there is, and do
// nothing.
func standardFileOnly(stack []uint64) {
	if uint32(stack[0]) > maxStandardFile {
		stack[0] = wasiBadFile
		return
	}
	stack[0] = wasiSuccess
}

func notSupported(stack []uint64) { stack[0] = wasiNotSupported }

// exit is proc_exit. wazero's own would close the instance too.
func exit(stack []uint64) { panic(sys.NewExitError(uint32(stack[0]))) }
