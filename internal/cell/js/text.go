package js

import (
	"context"
	"unicode/utf8"

	"sallyport/internal/cell/js/web"
)

// maxDecode is how many bytes are decoded at once, some milliseconds' worth: the prelude cuts what is longer.
const maxDecode = 1 << 20

// hostDecode is decode(encoding, bytes, fatal), the encoding by the number of web.Encoding: the text of a Uint8Array, in which what is malformed is
// replaced; with fatal, undefined when something is. It needs no memory but the guest's.
func hostDecode(ctx context.Context, vm *VM, args arguments) (value, error) {
	from, fatal := web.Encoding(args.integer(0)), args.integer(2) != 0
	ptr, src, err := vm.bytes(ctx, args.at(1))
	if err != nil {
		return 0, err
	}
	if len(src) > maxDecode {
		return 0, errTooLong
	}
	if from == web.UTF8 && utf8.Valid(src) {
		v, err := vm.call(ctx, fnNewString, uint64(vm.state.context), uint64(ptr), uint64(len(src)))
		return value(v), err
	}
	size, malformed := web.Transcode(nil, src, from)
	if malformed && fatal {
		return vm.state.undefined, nil
	}
	to, err := vm.allocate(ctx, uint64(size)+1)
	if err != nil {
		return 0, err
	}
	// The allocation may have moved the memory.
	src, ok := vm.memory.Read(ptr, uint32(len(src)))
	dst, fits := vm.memory.Read(to, uint32(size))
	if !ok || !fits {
		return 0, ErrOutOfMemory
	}
	web.Transcode(dst, src, from)
	v, err := vm.call(ctx, fnNewString, uint64(vm.state.context), uint64(to), uint64(size))
	if err != nil {
		return 0, err
	}
	_, err = vm.call(ctx, fnFree, uint64(to))
	return value(v), err
}
