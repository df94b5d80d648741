package js

import (
	"bytes"
	"context"

	wasm "github.com/tetratelabs/wazero/api"
)

// stripSource is the flag of qjs_compile that leaves out the source text, which QuickJS keeps for
// Function.prototype.toString.
const stripSource = 16

// CompilePrelude compiles the sources of the prelude, in an instance that was just made, into what
// prelude.bin holds.
func CompilePrelude(ctx context.Context, mod wasm.Module) ([]byte, error) {
	vm := NewVM(mod, nil)
	ctx = vm.Context(ctx)
	if err := vm.initialise(ctx); err != nil {
		return nil, err
	}
	var source bytes.Buffer
	for i, part := range preludeParts() {
		text, err := preludeSources.ReadFile("prelude/" + part + ".js")
		if err != nil {
			return nil, err
		}
		source.WriteString("[,"[min(i, 1):][:1])
		source.Write(text)
	}
	source.WriteByte(']')
	at, err := vm.place(ctx, source.Bytes())
	if err != nil {
		return nil, err
	}
	name, err := vm.place(ctx, []byte(preludeName))
	if err != nil {
		return nil, err
	}
	ptr, err := vm.call(ctx, fnCompile, uint64(at), uint64(source.Len()), uint64(name), evalScript, stripSource, uint64(vm.state.scratch+lengthAt))
	if err != nil {
		return nil, err
	}
	if uint32(ptr) == 0 {
		return nil, vm.exception(ctx)
	}
	code, err := vm.sized(uint32(ptr))
	return bytes.Clone(code), err
}
