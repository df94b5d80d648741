package cell_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// TestConfined is guarantee G4: a function reaches its event, the clock, random numbers, its log and
// its result, and nothing else.
func TestConfined(t *testing.T) {
	t.Parallel()
	t.Run("reactor", func(t *testing.T) {
		t.Parallel()
		f := load(t, built(t, "reactor"), cell.DefaultLimits())
		if got, want := reply(t, f, `{"what":"world"}`), `{"arguments":[],"environment":[]}`; got != want {
			t.Errorf("a reactor found %s; want %s", got, want)
		}
		if _, err := os.Stat("/tmp/planted"); err == nil {
			t.Error("a reactor wrote a file of the host")
		}
	})
	t.Run("script globals", func(t *testing.T) {
		t.Parallel()
		f := loadScript(t, `export default () => Object.getOwnPropertyNames(globalThis).sort().join(" ")`)
		want := `AbortController AbortSignal AggregateError Array ArrayBuffer AsyncDisposableStack BigInt BigInt64Array BigUint64Array Boolean CustomEvent DOMException DataView Date ` +
			`DisposableStack Error EvalError Event EventTarget FinalizationRegistry Float16Array Float32Array Float64Array Function Headers Infinity Int16Array Int32Array Int8Array ` +
			`InternalError Iterator JSON Map Math NaN Number Object Promise Proxy RangeError ReferenceError Reflect RegExp Request Response Set SharedArrayBuffer ` +
			`String SuppressedError Symbol SyntaxError TextDecoder TextEncoder TypeError URIError URL URLSearchParams Uint16Array Uint32Array Uint8Array Uint8ClampedArray WeakMap WeakRef WeakSet atob btoa ` +
			`clearInterval clearTimeout console crypto decodeURI decodeURIComponent encodeURI encodeURIComponent escape eval fetch ` +
			`globalThis isFinite isNaN parseFloat parseInt performance queueMicrotask reportError self setInterval setTimeout structuredClone undefined unescape`
		got := strings.Trim(reply(t, f, `1`), `"`)
		if diff := cmp.Diff(strings.Fields(want), strings.Fields(got)); diff != "" {
			t.Errorf("globals differ:\n%s", diff)
		}
	})
	t.Run("script reaches no host function", func(t *testing.T) {
		t.Parallel()
		f := loadScript(t, `export default (event, ctx) => {
			const found = []
			const visit = (value, path, depth) => {
				if (depth > 4 || (typeof value !== "object" && typeof value !== "function") || value === null) return
				for (const key of Reflect.ownKeys(value)) {
					const name = path + "." + String(key)
					if (/host|done|sallyport|wasm|qjs/i.test(String(key))) found.push(name)
					let next; try { next = value[key] } catch { continue }
					visit(next, name, depth + 1)
				}
			}
			visit(ctx, "ctx", 0)
			visit(ctx.log.info.constructor, "constructor", 2)
			try { found.push(String(arguments.callee.caller)) } catch {}
			return { found, frozen: Object.isFrozen(ctx) && Object.isFrozen(ctx.log), keys: Reflect.ownKeys(ctx).sort() }
		}`)
		if got, want := reply(t, f, `1`), `{"found":[],"frozen":true,"keys":["Fail","attempt","deadline","grants","log","publish"]}`; got != want {
			t.Errorf("a script found %s; want %s", got, want)
		}
	})
	t.Run("a changed world cannot forge", func(t *testing.T) {
		t.Parallel()
		f := loadScript(t, `
			JSON.stringify = () => '{"events":[{"type":"forged.event"}]}'
			Object.prototype.toJSON = function () { return "forged" }
			Object.prototype.subject = "forged"
			Array.isArray = () => true
			export default (event) => 1`)
		result, _, err := invoke(t, f, `1`)
		if err == nil && len(result.Events) > 0 {
			t.Errorf("result = %+v; want no forged event", result)
		}
	})
}

// TestImports: a module names what it wants, and gets only what is documented.
func TestImports(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		want imported
		ok   bool
	}{
		{"sallyport", host("event_size", 0, 1), true},
		{"wasi", imported{"wasi_snapshot_preview1", "sched_yield", nil, []byte{i32}}, true},
		{"unknown function", host("secret_read", 2, 1), false},
		{"unknown module", imported{"env", "abort", nil, nil}, false},
		{"the engine of scripts", imported{"env", "host_call", []byte{i32, i32, i32, i32, i32}, []byte{i32}}, false},
		{"other signature", host("event_size", 1, 1), false},
		{"other WASI", imported{"wasi_unstable", "fd_write", []byte{i32, i32, i32, i32}, []byte{i32}}, false},
		{"long name", imported{strings.Repeat("m", 5000), "f", nil, nil}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code := assembly{imports: []imported{tt.want}, functions: []function{handler(0, opConst, 0)}}.bytes()
			f, err := testEngine(t).Load(t.Context(), wasm("m.wasm", code), cell.DefaultLimits())
			if tt.ok {
				if err != nil {
					t.Fatalf("Load = %v", err)
				}
				if err := f.Close(t.Context()); err != nil {
					t.Error(err)
				}
				return
			}
			p := wantProblem(t, err, problem.Unprocessable, "cell.import_unknown")
			if len(p.Public) > 2000 {
				t.Errorf("the message has %d bytes", len(p.Public))
			}
		})
	}
}
