package harden_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	wasm "github.com/tetratelabs/wazero/api"

	"sallyport/internal/cell/harden"
	"sallyport/internal/cell/js"
)

// BenchmarkModule hardens a Go program of 3.6 MB, and QuickJS.
func BenchmarkModule(b *testing.B) {
	for name, code := range map[string][]byte{"go": goProgram(b), "quickjs": js.Code()} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(code)))
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				hardened, _, err := harden.Module(code)
				if err != nil {
					b.Fatal(err)
				}
				size = len(hardened)
			}
			b.ReportMetric(float64(size)/float64(len(code)), "size-ratio")
		})
	}
}

func goProgram(b *testing.B) []byte {
	b.Helper()
	out := filepath.Join(b.TempDir(), "out.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", out, "../testdata/reactor")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=-buildvcs=false")
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, text)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return code
}

// BenchmarkChecks compares hardened code with the same code as it is, called in turn. The loops and
// functions are as short as they can be, so this is the most that the checks can cost.
func BenchmarkChecks(b *testing.B) {
	for _, tt := range []struct {
		name         string
		locals, code []byte
	}{
		{"empty loop", twoI32, slices.Concat(countdown(100_000), []byte{0x20, 1})},
		{"loop of loads and stores", twoI32, slices.Concat(countdown(100_000,
			0x20, 0, 0x41, 0xfc, 0xff, 0, 0x71, 0x22, 1, // i = n & 16380
			0x20, 1, 0x28, 2, 0, 0x20, 0, 0x6a, 0x36, 2, 0, // m[i] += n
			0x20, 0, 0x41, 0xf8, 0xff, 0, 0x71, 0x22, 1,
			0x20, 1, 0x28, 2, 0, 0x20, 0, 0x73, 0x36, 2, 0), []byte{0x20, 1})},
		{"recursion", none, []byte{0x41, 14, 0x10, 1}},
		{"loop of calls", twoI32, slices.Concat(countdown(50_000, 0x41, 1, 0x10, 1, 0x21, 1), []byte{0x20, 1})},
		{"tail calls", none, []byte{0x41, 0xa0, 0x8d, 6, 0x10, 2}},
		{"loop of calls of a leaf", twoI32, slices.Concat(countdown(50_000, 0x20, 1, 0x10, 3, 0x21, 1), []byte{0x20, 1})},
	} {
		b.Run(tt.name, func(b *testing.B) {
			plain := calls(tt.locals, tt.code)
			hardened, _, err := harden.Module(plain)
			if err != nil {
				b.Fatal(err)
			}
			p, h := instantiate(b, plain).ExportedFunction("f"), instantiate(b, hardened).ExportedFunction("f")
			var took [2]time.Duration
			for b.Loop() {
				for i, f := range []wasm.Function{p, h} {
					at := time.Now()
					if _, err := f.Call(b.Context()); err != nil {
						b.Fatal(err)
					}
					took[i] += time.Since(at)
				}
			}
			b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "hardened/plain")
		})
	}
}

// calls is program with two functions more: h(n) = n < 1 ? 0 : h(n-1), as a tail call, and a leaf
// l(n) = (n ^ 7) + 3, which is in a table too.
func calls(locals, code []byte) []byte {
	bodies := [][]byte{
		slices.Concat(locals, code, []byte{0x0b}),
		{0, 0x20, 0, 0x41, 1, 0x48, 0x04, 0x7f, 0x41, 1, 0x05, 0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x6a, 0x0b, 0x0b},
		{0, 0x20, 0, 0x41, 1, 0x48, 0x04, 0x40, 0x41, 0, 0x0f, 0x0b, 0x20, 0, 0x41, 1, 0x6b, 0x12, 2, 0x0b},
		{0, 0x20, 0, 0x41, 7, 0x73, 0x41, 3, 0x6a, 0x0b},
	}
	for i, body := range bodies {
		bodies[i] = slices.Concat(uleb(len(body)), body)
	}
	return module(sec(1, 2, 0x60, 0, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7f), sec(3, 4, 0, 1, 1, 1), sec(4, 1, 0x70, 0, 1), sec(5, 1, 0, 1),
		sec(7, 1, 1, 'f', 0, 0), sec(9, 1, 0, 0x41, 0, 0x0b, 1, 3), sec(10, vec(bodies...)...))
}
