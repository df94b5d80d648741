package harden_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"

	"sallyport/internal/cell/harden"
	"sallyport/internal/cell/js"
)

// TestSkeleton: a skeleton is a valid module with the imports, exports and definitions of its module, and does
// nothing but trap.
func TestSkeleton(t *testing.T) {
	t.Parallel()
	for name, code := range map[string][]byte{
		"a program": program(none, []byte{0x41, 1}), "another": program(none, []byte{0x41, 2}), "QuickJS": js.Code(), "nothing": module(),
	} {
		hardened, _, err := harden.Module(code)
		if err != nil {
			t.Fatal(err)
		}
		skeleton, err := harden.Skeleton(hardened)
		if err != nil {
			t.Fatalf("%s: Skeleton = %v", name, err)
		}
		r := wazero.NewRuntime(t.Context())
		whole, err := r.CompileModule(t.Context(), hardened)
		if err != nil {
			t.Fatal(err)
		}
		bare, err := r.CompileModule(t.Context(), skeleton)
		if err != nil {
			t.Fatalf("%s: the skeleton does not compile: %v", name, err)
		}
		if got, want := shape(bare), shape(whole); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the skeleton is %v, want %v", name, got, want)
		}
		if name == "a program" {
			in, err := r.InstantiateModule(t.Context(), bare, wazero.NewModuleConfig())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.ExportedFunction("f").Call(t.Context()); err == nil {
				t.Error("a function of the skeleton did not trap")
			}
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// shape is what a host sees of a module.
func shape(m wazero.CompiledModule) map[string]string {
	out := map[string]string{}
	put := func(prefix, name string, f wasm.FunctionDefinition) {
		out[prefix+name] = wasm.ValueTypeName(0) + string(f.ParamTypes()) + ">" + string(f.ResultTypes())
	}
	for name, f := range m.ExportedFunctions() {
		put("export ", name, f)
	}
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		put("import "+module+".", name, f)
	}
	for name, memory := range m.ExportedMemories() {
		most, _ := memory.Max()
		out["memory "+name] = string(rune(memory.Min())) + ">" + string(rune(most))
	}
	return out
}

// TestSkeletonsDiffer: modules that differ in their code alone do not have the same skeleton, or one would run the code
// of the other.
func TestSkeletonsDiffer(t *testing.T) {
	t.Parallel()
	var skeletons [][]byte
	for _, n := range []byte{1, 2} {
		hardened, _, err := harden.Module(program(none, []byte{0x41, n}))
		if err != nil {
			t.Fatal(err)
		}
		s, err := harden.Skeleton(hardened)
		if err != nil {
			t.Fatal(err)
		}
		skeletons = append(skeletons, s)
	}
	if bytes.Equal(skeletons[0], skeletons[1]) {
		t.Error("two modules have the same skeleton")
	}
}

// FuzzSkeleton: what is no module is refused, not a crash.
func FuzzSkeleton(f *testing.F) {
	f.Add(program(none, []byte{0x41, 1}))
	f.Add(module(sec(10, 0xff, 0xff, 0xff, 0xff, 0x0f)))
	f.Fuzz(func(t *testing.T, code []byte) {
		if s, err := harden.Skeleton(code); err == nil && len(s) > 5*len(code)+64 {
			t.Errorf("a skeleton of %d bytes is %d bytes long", len(code), len(s))
		}
	})
}
