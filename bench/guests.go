package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/api"
)

// benchScript does in JavaScript what bench/guest does in Go.
const benchScript = `export default (event) => {
	const { id, customer, currency, items } = event.data
	return { id, customer, currency, total: items.reduce((sum, i) => sum + i.quantity * i.price, 0), lines: items.length }
}
`

// endlessScript never returns.
const endlessScript = "export default () => { for (;;) {} }"

// envelope is an event as a cell gets it, with the data of every event of this program.
func envelope() []byte {
	return fmt.Appendf(nil, `{"specversion":"1.0","id":"e-1","source":"/bench","type":"bench.event","datacontenttype":"application/json","data":%s}`, eventBody())
}

// endlessEvent has bench/guest loop for ever.
const endlessEvent = `{"specversion":"1.0","id":"e-1","source":"/bench","type":"bench.endless","datacontenttype":"application/json","data":1}`

// pricedEvent is an event of which the examples in C, Rust and AssemblyScript make something.
const pricedEvent = `{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.created","datacontenttype":"application/json",` +
	`"data":{"id":"o-1","lines":[{"sku":"book-1","quantity":1,"cents":999},{"sku":"pen-7","quantity":2,"cents":500}]}}`

// buildGuest compiles bench/guest to the folder of the run, and returns the file.
func buildGuest(ctx context.Context, o options, stderr io.Writer) (string, error) {
	guest := filepath.Join(o.dir, "guest.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-buildmode=c-shared", "-o", guest, "./bench/guest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	build.Stderr = stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build the guest: %w", err)
	}
	return guest, nil
}

// variantMark is what bench/guest has in its data, for the sake of variant.
const variantMark = "bench-variant-"

// variant returns a module that does what code does and is another all the same: a text in its data is another.
// A custom section would not do, because hardening drops it and what is left would be compiled once.
func variant(code []byte, n int) ([]byte, error) {
	const digits = 8
	from := []byte(variantMark + strings.Repeat("0", digits))
	if !bytes.Contains(code, from) {
		return nil, fmt.Errorf("the guest does not hold %q", from)
	}
	return bytes.ReplaceAll(code, from, fmt.Appendf(nil, "%s%0*d", variantMark, digits, n)), nil
}

// goModules returns so many different modules of the Go guest, numbered from first, which is at least 1.
func goModules(ctx context.Context, o options, stderr io.Writer, first, count int) ([]api.Module, error) {
	file, err := buildGuest(ctx, o, stderr)
	if err != nil {
		return nil, err
	}
	code, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []api.Module
	for i := range count {
		code, err := variant(code, first+i)
		if err != nil {
			return nil, err
		}
		out = append(out, api.Module{Kind: api.ModuleWasm, Code: code})
	}
	return out, nil
}

// trivialModule is the smallest reactor there is: it exports its memory and a handler that returns
// 0 at once. What is measured with it is the platform alone.
func trivialModule() []byte {
	return slices.Concat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		[]byte("\x01\x05\x01\x60\x00\x01\x7f"), // type 0: () -> i32
		[]byte("\x03\x02\x01\x00"),             // function 0 has type 0
		[]byte("\x05\x03\x01\x00\x01"),         // memory of one page
		[]byte("\x07\x1d\x02\x06memory\x02\x00\x10sallyport_handle\x00\x00"),
		[]byte("\x0a\x06\x01\x04\x00\x41\x00\x0b"), // i32.const 0
	)
}

const trivialScript = "export default () => undefined;\n"
