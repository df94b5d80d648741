package js

import (
	"context"
	"encoding/binary"
	"strings"

	"sallyport/internal/cell/js/web"
)

// hostURL is url(part, value, base, cuts): the URL that value is, or, when it is for a part, that base is
// with this part; undefined when there is none. An empty base is none. The parts have the
// numbers of web.Part. Where they are in the result goes into cuts, a Uint8Array of 32-bit numbers.
func hostURL(ctx context.Context, vm *VM, args arguments) (value, error) {
	text, err := vm.shortText(ctx, args.at(1))
	if err != nil {
		return 0, err
	}
	base, err := vm.shortText(ctx, args.at(2))
	if err != nil {
		return 0, err
	}
	u, ok := web.Resolve(web.Part(args.integer(0)), text, base)
	if !ok {
		return vm.state.undefined, nil
	}
	href, cuts := u.Serialise()
	_, out, err := vm.bytes(ctx, args.at(3))
	if err != nil {
		return 0, err
	}
	for i, cut := range cuts {
		if 4*i+4 <= len(out) {
			binary.LittleEndian.PutUint32(out[4*i:], uint32(cut))
		}
	}
	return vm.newString(ctx, []byte(href))
}

// shortText returns a string of which web.Resolve refuses what is cut off here.
func (vm *VM) shortText(ctx context.Context, v value) (string, error) {
	var short string
	err := vm.text(ctx, v, func(_ uint32, text []byte) error {
		short = strings.ToValidUTF8(string(text[:min(len(text), web.MaxURL+1)]), "")
		return nil
	})
	return short, err
}
