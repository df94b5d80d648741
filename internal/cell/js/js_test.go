package js_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero"

	"sallyport/internal/cell/js"
	"sallyport/internal/sourcemap"
)

// TestDigest holds the binary to the one whose origin is recorded.
func TestDigest(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256(js.Code())
	digest := hex.EncodeToString(sum[:])
	for file, want := range map[string]string{"quickjs.wasm.sha256": digest + "  quickjs.wasm\n", "ORIGIN.md": "`" + digest + "`"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("quickjs.wasm has the digest %s, which is not in %s", digest, file)
		}
	}
}

var update = flag.Bool("update", false, "write prelude.bin anew")

// TestPrelude holds the compiled prelude to its sources. With -update it writes it.
func TestPrelude(t *testing.T) {
	t.Parallel()
	got, err := js.CompilePrelude(t.Context(), newEngine(t, nil).mod)
	if err != nil {
		t.Fatal(err)
	}
	const file = "prelude.bin"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what its sources are compiled to: run go test ./internal/cell/js -run TestPrelude -update", file)
	}
}

// TestEngineState holds what an image of memory relies on: between two calls, QuickJS keeps its
// state in linear memory only. It has one mutable global, its stack pointer, which every call
// leaves as it was, and a table that nothing changes.
func TestEngineState(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled))
	defer r.Close(ctx)
	code, err := r.CompileModule(ctx, js.Code())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(code.ExportedMemories()); n != 1 {
		t.Errorf("it has %d memories; want 1", n)
	}
	globals := section(t, js.Code(), 6)
	// The stack begins at 1 MiB, and the data behind it, so that all below is the stack's.
	if !strings.HasPrefix(string(globals), "\x01\x7f\x01\x41\x80\x80\xc0\x00\x0b") {
		t.Errorf("its globals are %x; want the stack to begin at 1 MiB", globals)
	}
	if mutable := strings.Count(string(globals), "\x7f\x01\x41"); mutable != 1 { // i32, mutable, i32.const
		t.Errorf("it has %d mutable globals; want the stack pointer only", mutable)
	}
}

// section returns a section of a module.
func section(t *testing.T, code []byte, id byte) []byte {
	t.Helper()
	for rest := code[8:]; len(rest) > 0; {
		size, shift, i := 0, 0, 1
		for ; ; i++ {
			size |= int(rest[i]&0x7f) << shift
			shift += 7
			if rest[i] < 0x80 {
				break
			}
		}
		if rest[0] == id {
			return rest[i+1 : i+1+size]
		}
		rest = rest[i+1+size:]
	}
	t.Fatalf("there is no section %d", id)
	return nil
}

func TestFrames(t *testing.T) {
	t.Parallel()
	m, err := sourcemap.Parse([]byte(`{"version":3,"sourceRoot":"src/","sources":["a.ts",null],"sourcesContent":["one\r\n  two\nthree"],"mappings":"AAAA;AACA,EAAC;;ACAA"}`))
	if err != nil {
		t.Fatal(err)
	}
	stack := strings.Join([]string{
		"    at event:1:1", // in a text that Response.json was given
		"    at <input>:1:1",
		"    at inner (f.js:2:4)",
		"    at map (native)",
		"    at <anonymous> (f.js:1:1)",
		"    at run (sallyport:prelude:7:7)",
		"    at f.js:9",
		"    at f.js:4:1",
		"nonsense (((",
		"    at o (<eval>:1:1)",
	}, "\n")
	got := js.Frames(stack, "f.js", m)
	want := []js.Frame{
		{Function: "inner", Place: sourcemap.Place{File: "src/a.ts", Line: 2, Column: 2, Source: "  two"}},
		{Function: "<anonymous>", Place: sourcemap.Place{File: "src/a.ts", Line: 1, Column: 1, Source: "one"}},
		{Place: sourcemap.Place{File: "f.js", Line: 9, Column: 1}},
		{Place: sourcemap.Place{File: "f.js", Line: 4, Column: 1}},
		{Function: "o", Place: sourcemap.Place{File: "<eval>", Line: 1, Column: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames differ:\n%s", diff)
	}
	if got, want := got[0].String()+", "+got[1].String(), "at inner (src/a.ts:2:2), at src/a.ts:1:1"; got != want {
		t.Errorf("String = %s; want %s", got, want)
	}
	if n := len(js.Frames(strings.Repeat("    at f (f.js:1:1)\n", 1000), "f.js", nil)); n != 16 {
		t.Errorf("a deep stack has %d frames; want 16", n)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(`{"version":3,"sources":["a.ts"],"sourcesContent":["x"],"mappings":"AAAA;AACA,EAAC"}`), "    at f (f.js:1:1)\n    at f.js:2:9")
	f.Fuzz(func(t *testing.T, text []byte, stack string) {
		m, err := sourcemap.Parse(text)
		if err != nil {
			m = nil
		}
		for _, frame := range js.Frames(stack, "f.js", m) {
			if frame.Line < 0 || frame.Column < 0 {
				t.Errorf("frame %+v is nowhere", frame)
			}
		}
	})
}
