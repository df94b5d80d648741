package harden_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	wasm "github.com/tetratelabs/wazero/api"

	"sallyport/internal/cell/harden"
)

// checkReport compares a report with what wazero says of the hardened module.
func checkReport(tb testing.TB, report harden.Report, compiled wazero.CompiledModule) {
	tb.Helper()
	imports := compiled.ImportedFunctions()
	if len(imports) != len(report.Imports) {
		tb.Fatalf("imports = %v; want %d", report.Imports, len(imports))
	}
	for i, def := range imports {
		from, name, _ := def.Import()
		got := report.Imports[i]
		if got.Module != from || got.Name != name ||
			!slices.Equal(encoded(got.Params), def.ParamTypes()) || !slices.Equal(encoded(got.Results), def.ResultTypes()) {
			tb.Errorf("import %d = %v; want %s %s", i, got, from, name)
		}
	}
	for name, mem := range compiled.ExportedMemories() {
		if most, given := mem.Max(); mem.Min() != report.Memory.Min || given && most != report.Memory.Max {
			tb.Errorf("memory %s = %+v; want %d to %d", name, report.Memory, mem.Min(), most)
		}
	}
	if _, ok := compiled.ExportedFunctions()[harden.StartExport]; ok != report.Start {
		tb.Errorf("start = %t; want %t", report.Start, ok)
	}
}

func encoded(types []harden.ValueType) []wasm.ValueType {
	out := make([]wasm.ValueType, len(types))
	for i, t := range types {
		out[i] = wasm.ValueType(t)
	}
	return out
}

// checkGlobals checks that every mutable global of a report is there to be read and set.
func checkGlobals(tb testing.TB, report harden.Report, m wasm.Module) {
	tb.Helper()
	for _, g := range report.Globals {
		global, ok := m.ExportedGlobal(g.Name).(wasm.MutableGlobal)
		if !ok || global.Type() != wasm.ValueType(g.Type) {
			tb.Errorf("global %s is not there as a mutable %s", g.Name, g.Type)
			continue
		}
		if g.Restorable() {
			global.Set(global.Get())
		}
	}
}

// bare is a module with these globals and one function of this code. It has a memory, two tables,
// an element segment and a data segment, both active and one passive.
func bare(globals, code []byte) []byte {
	body := slices.Concat([]byte{0}, code, []byte{0x0b})
	return module(
		sec(1, 2, 0x60, 0, 0, 0x60, 2, 0x7f, 0x7e, 1, 0x7d),
		sec(2, 2, 3, 'e', 'n', 'v', 1, 'a', 0, 1, 3, 'e', 'n', 'v', 1, 'b', 0, 0),
		sec(3, 1, 0),
		sec(4, 2, 0x70, 0, 4, 0x6f, 1, 2, 3),
		sec(5, 1, 1, 1, 9),
		sec(6, globals...),
		sec(9, 2, 0, 0x41, 0, 0x0b, 1, 2, 1, 0, 1, 2),
		sec(12, 2),
		sec(10, vec(slices.Concat(uleb(len(body)), body))...),
		sec(11, 2, 0, 0x41, 0, 0x0b, 1, 'x', 1, 1, 'y'),
	)
}

func TestReport(t *testing.T) {
	t.Parallel()
	code := bare([]byte{2, 0x7f, 0, 0x41, 1, 0x0b, 0x7c, 1, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b}, nil)
	_, got, err := harden.Module(code)
	if err != nil {
		t.Fatal(err)
	}
	want := harden.Report{
		Imports: []harden.Import{
			{Module: "env", Name: "a", Params: []harden.ValueType{harden.I32, harden.I64}, Results: []harden.ValueType{harden.F32}},
			{Module: "env", Name: "b", Params: []harden.ValueType{}, Results: []harden.ValueType{}},
		},
		Memory: harden.Memory{Min: 1, Max: 9},
		Tables: []harden.Table{
			{Type: harden.FuncRef, Min: 4, Max: harden.MaxTableElements},
			{Type: harden.ExternRef, Min: 2, Max: 3},
		},
		Globals: []harden.Global{
			{Name: "sallyport:global:1", Index: 1, Type: harden.F64},
			{Name: "sallyport:global:2", Index: 2, Type: harden.I32}, // fuel
			{Name: "sallyport:global:4", Index: 4, Type: harden.I32}, // scratch
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("report = %+v; want %+v", got, want)
	}
}

func TestReportResettable(t *testing.T) {
	t.Parallel()
	noGlobals := []byte{0}
	table := func(op ...byte) []byte { return op }
	three := []byte{0x41, 0, 0x41, 0, 0x41, 0}
	for _, tt := range []struct {
		name          string
		globals, code []byte
		obstacle      string
		portable      bool
	}{
		{"nothing", noGlobals, nil, "", true},
		{"numbers", []byte{2, 0x7e, 1, 0x42, 0, 0x0b, 0x7d, 1, 0x43, 0, 0, 0, 0, 0x0b}, nil, "", true},
		{"constant vector", slices.Concat([]byte{1, 0x7b, 0, 0xfd, 12}, make([]byte, 16), []byte{0x0b}), nil, "", true},
		{"vector", slices.Concat([]byte{1, 0x7b, 1, 0xfd, 12}, make([]byte, 16), []byte{0x0b}), nil, "global 0 is a mutable v128", false},
		{"function", []byte{1, 0x70, 1, 0xd0, 0x70, 0x0b}, nil, "", false},
		{"reference of the host", []byte{1, 0x6f, 1, 0xd0, 0x6f, 0x0b}, nil, "", false},
		{"memory operations", noGlobals, slices.Concat(three, []byte{0xfc, 8, 1, 0}, three, []byte{0xfc, 11, 0}, three, []byte{0xfc, 10, 0, 0}), "", true},
		{"table.get", noGlobals, []byte{0x41, 0, 0x25, 0, 0x1a}, "", true},
		{"table.set", noGlobals, table(0x41, 0, 0xd0, 0x70, 0x26, 0), "table.set", false},
		{"table.init", noGlobals, slices.Concat(three, []byte{0xfc, 12, 1, 0}), "table.init", false},
		{"elem.drop", noGlobals, []byte{0xfc, 13, 0}, "elem.drop", false},
		{"table.copy", noGlobals, slices.Concat(three, []byte{0xfc, 14, 0, 0}), "table.copy", false},
		{"table.grow", noGlobals, []byte{0xd0, 0x70, 0x41, 0, 0xfc, 15, 0, 0x1a}, "table.grow", false},
		{"table.size", noGlobals, []byte{0xfc, 16, 0, 0x1a}, "", true},
		{"table.fill", noGlobals, []byte{0x41, 0, 0xd0, 0x70, 0x41, 0, 0xfc, 17, 0}, "table.fill", false},
		{"data.drop", noGlobals, []byte{0xfc, 9, 0}, "data.drop", false},
		{"several", noGlobals, []byte{0xfc, 9, 0, 0xfc, 13, 0, 0x41, 0, 0xd0, 0x70, 0x26, 0}, "table.set, elem.drop, data.drop", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hardened, report, err := harden.Module(bare(tt.globals, tt.code))
			if err != nil {
				t.Fatal(err)
			}
			compileOnly(t, hardened)
			if got := report.Obstacle(); !strings.Contains(got, tt.obstacle) || (got == "") != (tt.obstacle == "") {
				t.Errorf("obstacle = %q; want …%s…", got, tt.obstacle)
			}
			if report.Resettable() != (tt.obstacle == "") || report.Portable() != tt.portable {
				t.Errorf("resettable, portable = %t, %t; want %t, %t", report.Resettable(), report.Portable(), tt.obstacle == "", tt.portable)
			}
		})
	}
}

// compileOnly checks that a module is valid.
func compileOnly(t *testing.T, code []byte) {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfig().WithCoreFeatures(features))
	defer r.Close(t.Context())
	if _, err := r.CompileModule(t.Context(), code); err != nil {
		t.Error(err)
	}
}

// TestGlobalsAreRestored takes and restores the globals of an instance, as a snapshot does: those
// that are restorable are, and of a vector only one half is.
func TestGlobalsAreRestored(t *testing.T) {
	t.Parallel()
	// f(n) sets every global to something else, and returns what they were, in bits of one number.
	for _, tt := range []struct {
		name           string
		t              harden.ValueType
		initial, other []byte
		same           []byte // compares the global's value with the initial one
	}{
		{"i32", harden.I32, []byte{0x41, 5}, []byte{0x41, 6}, []byte{0x41, 5, 0x46}},
		{"i64", harden.I64, []byte{0x42, 0x7f}, []byte{0x42, 6}, []byte{0x42, 0x7f, 0x51}},
		{"f32", harden.F32, []byte{0x43, 1, 0, 0x80, 0x3f}, []byte{0x43, 0, 0, 0, 0}, []byte{0x43, 1, 0, 0x80, 0x3f, 0x5b}},
		{"f64", harden.F64, []byte{0x44, 1, 0, 0, 0, 0, 0, 0xf0, 0x3f}, []byte{0x44, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{0x44, 1, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x61}},
		{"funcref", harden.FuncRef, []byte{0xd2, 0}, []byte{0xd0, 0x70}, []byte{0xd1, 0x45}},
		{"v128", harden.V128, slices.Concat([]byte{0xfd, 12}, slices.Repeat([]byte{1}, 16)), slices.Concat([]byte{0xfd, 12}, make([]byte, 16)),
			slices.Concat([]byte{0xfd, 12}, slices.Repeat([]byte{1}, 16), []byte{0xfd, 0xd6, 1, 0xfd, 0xc3, 1})}, // i64x2.eq, i64x2.all_true
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := slices.Concat([]byte{0}, tt.other, []byte{0x24, 0, 0x0b})
			same := slices.Concat([]byte{0, 0x23, 0}, tt.same, []byte{0x0b})
			hardened, report, err := harden.Module(module(
				sec(1, 2, 0x60, 0, 0, 0x60, 0, 1, 0x7f),
				sec(3, 2, 0, 1),
				sec(6, vec(slices.Concat([]byte{byte(tt.t), 1}, tt.initial, []byte{0x0b}))...),
				sec(7, 2, 3, 's', 'e', 't', 0, 0, 4, 's', 'a', 'm', 'e', 0, 1),
				sec(10, vec(slices.Concat(uleb(len(set)), set), slices.Concat(uleb(len(same)), same))...),
			))
			if err != nil {
				t.Fatal(err)
			}
			m := instantiate(t, hardened)
			global := m.ExportedGlobal(report.Globals[0].Name).(wasm.MutableGlobal)
			isSame := func() bool {
				got, err := m.ExportedFunction("same").Call(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return got[0] == 1
			}
			if !isSame() {
				t.Fatal("the global does not begin with its value")
			}
			snapshot := global.Get()
			if _, err := m.ExportedFunction("set").Call(t.Context()); err != nil || isSame() {
				t.Fatalf("the global was not changed, %v", err)
			}
			global.Set(snapshot)
			if got := isSame(); got != report.Globals[0].Restorable() {
				t.Errorf("restored = %t; want %t, as the report says", got, report.Globals[0].Restorable())
			}
		})
	}
}

func TestValueTypeString(t *testing.T) {
	t.Parallel()
	for _, v := range []harden.ValueType{harden.I32, harden.I64, harden.F32, harden.F64, harden.V128, harden.FuncRef, harden.ExternRef} {
		if got, want := v.String(), wasm.ValueTypeName(wasm.ValueType(v)); got != want && v != harden.FuncRef && v != harden.V128 {
			t.Errorf("String(%#x) = %s; want %s", byte(v), got, want)
		}
	}
	if got := harden.ValueType(1).String(); got != "type 0x1" {
		t.Errorf("String(1) = %s", got)
	}
}
