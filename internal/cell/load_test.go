package cell_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	ok := []function{handler(0, opConst, 0)}
	for _, tt := range []struct {
		name string
		spec cell.Spec
		kind problem.Kind
		code string
		text string
	}{
		{"unknown kind", cell.Spec{Name: "x", Kind: "native"}, problem.Invalid, "cell.module_kind_unknown", "native"},
		{"empty", wasm("x.wasm", nil), problem.Unprocessable, "cell.module_invalid", "x.wasm"},
		{"text", wasm("x.wasm", []byte("hello")), problem.Unprocessable, "cell.module_invalid", "header"},
		{"component", wasm("x.wasm", []byte("\x00asm\x0d\x00\x01\x00")), problem.Unprocessable, "cell.module_invalid", "header"},
		{"cut off", wasm("x.wasm", echo()[:60]), problem.Unprocessable, "cell.module_invalid", ""},
		{"function without a type", wasm("x.wasm", badFunctionType()), problem.Unprocessable, "cell.module_invalid", ""},
		{"imported memory", wasm("x.wasm", []byte("\x00asm\x01\x00\x00\x00\x02\x08\x01\x01e\x01m\x02\x00\x01")), problem.Unprocessable, "cell.module_invalid", "imports"},
		{"no entry", wasm("x.wasm", assembly{}.bytes()), problem.Unprocessable, "cell.no_entry", "sallyport_handle"},
		{"reactor built as a program", wasm("x.wasm", assembly{functions: []function{ok[0], {export: "_start", code: nil}}}.bytes()), problem.Unprocessable, "cell.not_a_reactor", "built as a program"},
		{"other entry", wasm("x.wasm", assembly{functions: []function{{export: "sallyport_handle", code: nil}}}.bytes()), problem.Unprocessable, "cell.entry_signature", "() -> ()"},
		{"command with a result", wasm("x.wasm", assembly{functions: []function{{export: "_start", results: []byte{i32}, code: []byte{opConst, 0}}}}.bytes()), problem.Unprocessable, "cell.entry_signature", "_start"},
		{"memory at the start", wasm("x.wasm", assembly{functions: ok, pages: 2000}.bytes()), problem.Unprocessable, "cell.memory_limit_too_small", "131072000"},
		{"large table", wasm("x.wasm", assembly{functions: ok, table: vec(slices.Concat([]byte{0x70, 0}, uleb(1<<20)))}.bytes()), problem.Unprocessable, "cell.module_invalid", "elements"},
		{"endless start function", wasm("x.wasm", assembly{functions: []function{ok[0], {code: []byte{opLoop, blockVoid, opBr, 0, opEnd}}}, start: 1}.bytes()), problem.Unprocessable, "cell.initialization_failed", "ran longer than"},
		{"initialisation that traps", wasm("x.wasm", assembly{functions: []function{ok[0], {export: "_initialize", code: []byte{opUnreachable}}}}.bytes()), problem.Unprocessable, "cell.initialization_failed", "unreachable"},
		{"initialisation with a result", wasm("x.wasm", assembly{functions: []function{ok[0], {export: "_initialize", results: []byte{i32}, code: []byte{opConst, 0}}}}.bytes()), problem.Unprocessable, "cell.entry_signature", "_initialize"},
		{"too large", wasm("x.wasm", make([]byte, cell.MaxModuleBytes+1)), problem.Unprocessable, "cell.module_too_large", ""},
		{"script too large", js(strings.Repeat(" ", cell.MaxScriptBytes+1)), problem.Unprocessable, "cell.module_too_large", ""},
		{"script in Latin-1", js("// \xe9"), problem.Unprocessable, "cell.script_invalid", "UTF-8"},
		{"no default export", js(`export const handle = 1`), problem.Unprocessable, "cell.script_no_handler", "default export"},
		{"default export of a value", js(`export default 7`), problem.Unprocessable, "cell.script_no_handler", "default export"},
		{"empty script", js(``), problem.Unprocessable, "cell.script_no_handler", ""},
		{"syntax error", js("export default () => {\n  return (1\n}"), problem.Unprocessable, "cell.script_invalid", "SyntaxError"},
		{"throws at the top", js(`throw new Error("not today")`), problem.Unprocessable, "cell.script_invalid", "not today"},
		{"rejects at the top", js(`Promise.reject(new Error("lost")); export default () => 1`), problem.Unprocessable, "cell.script_invalid", "lost"},
		{"import", js(`import fs from "fs"; export default () => 1`), problem.Unprocessable, "cell.script_invalid", "fs"},
		{"never settles", js(`await new Promise(() => {}); export default () => 1`), problem.Unprocessable, "cell.script_invalid", "never settle"},
		{"memory bomb at the top", js(`const all = []; for (;;) all.push(new Uint8Array(1 << 20)); export default () => 1`), problem.Unprocessable, "cell.memory_limit_too_small", "64"},
		{"recursion at the top", js(`const f = () => f() + 1; f(); export default f`), problem.Unprocessable, "cell.script_invalid", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := testEngine(t).Load(t.Context(), tt.spec, cell.DefaultLimits())
			p := wantProblem(t, err, tt.kind, tt.code)
			wantText(t, p.Public, tt.text)
		})
	}
}

// badFunctionType is a module on which wazero 1.12 panics: one function calls another, whose type
// does not exist.
func badFunctionType() []byte {
	return []byte("\x00asm\x01\x00\x00\x00\x01\x05\x01\x60\x00\x01\x7f\x03\x03\x02\x00\x30\x0a\x0b\x02\x04\x00\x10\x01\x0b\x04\x00\x41\x00\x0b")
}

func js(source string) cell.Spec {
	return cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(source)}
}

func TestLoadNamesTheLine(t *testing.T) {
	t.Parallel()
	_, err := testEngine(t).Load(t.Context(), js("const a = 1\nconst b = a.b.c\nexport default () => b"), cell.DefaultLimits())
	p := wantProblem(t, err, problem.Unprocessable, "cell.script_invalid")
	if len(p.Faults) != 1 || p.Faults[0].File != "f.js" || p.Faults[0].Line != 2 {
		t.Errorf("faults = %+v; want f.js, line 2", p.Faults)
	}
}

func TestLoadIsInterruptible(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	within(t, soon, func() {
		_, err := testEngine(t).Load(ctx, js(`for (;;) {}; export default () => 1`), cell.DefaultLimits())
		wantProblem(t, err, problem.Unavailable, "cell.canceled")
	})
}

// TestModulesAreShared: functions of one module share its code, and the last one frees it.
func TestModulesAreShared(t *testing.T) {
	t.Parallel()
	e, err := cell.New(t.Context(), cell.Default())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				f, err := e.Load(t.Context(), wasm("echo.wasm", echo()), cell.DefaultLimits())
				if err != nil {
					t.Errorf("Load = %v", err)
					return
				}
				if _, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(`{"reply":1}`)}); err != nil {
					t.Errorf("Invoke = %v", err)
				}
				for range 2 { // Close is idempotent
					if err := f.Close(t.Context()); err != nil {
						t.Errorf("Close = %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	for range 2 {
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	_, err = e.Load(t.Context(), wasm("echo.wasm", echo()), cell.DefaultLimits())
	wantProblem(t, err, problem.Unavailable, "cell.closed")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if _, err := cell.New(t.Context(), cell.Config{}); err == nil {
		t.Error("New with the zero Config = nil; want an error")
	}
}

// FuzzLoad gives modules to the loader, and runs those that load.
func FuzzLoad(f *testing.F) {
	f.Add(echo())
	f.Add(scanner(1))
	f.Add(assembly{functions: []function{handler(0, opLoop, blockVoid, opBr, 0, opEnd, opConst, 0)}}.bytes())
	f.Add(assembly{functions: []function{handler(0, opCall, 0)}, table: vec([]byte{0x70, 1, 1, 2})}.bytes())
	f.Add(badFunctionType())
	limits := limitsWith(short / 10)
	f.Fuzz(func(t *testing.T, code []byte) {
		fn, err := testEngine(t).Load(t.Context(), wasm("m.wasm", code), limits)
		if err != nil {
			if p := problem.From(err); p.Kind != problem.Unprocessable {
				t.Errorf("Load = %v of kind %d; want a refusal", err, p.Kind)
			}
			return
		}
		if _, _, err := fn.Invoke(t.Context(), cell.Input{Event: []byte(`{}`)}); err != nil {
			wantKnown(t, err)
		}
		if err := fn.Close(t.Context()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
}
