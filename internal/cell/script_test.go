package cell_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

func TestScriptReplies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, source, data, want string }{
		{"value", `export default (event) => event.data.n + 1`, `{"n":41}`, `42`},
		{"object", `export default function handle(e) { return { id: e.id, source: e.source, type: e.type, none: e.subject } }`, `1`, `{"id":"e-1","source":"/test","type":"test.happened"}`},
		{"nothing", `export default () => {}`, `1`, ``},
		{"null", `export default () => null`, `1`, `null`},
		{"async", `export default async (e) => { await null; return e.data }`, `"å∫ç 🦊"`, `"å∫ç 🦊"`},
		{"thenable", `export default () => ({ then(done) { done(7) } })`, `1`, `7`},
		{"top-level await", `const n = await Promise.resolve(3); export default () => n`, `1`, `3`},
		{"timer", `export default () => new Promise((done) => setTimeout(done, 5, "later"))`, `1`, `"later"`},
		{"timers in order", `const wait = (ms, v) => new Promise((done) => setTimeout(() => { seen.push(v); done() }, ms)); const seen = [];
			export default async () => { await Promise.all([wait(9, "b"), wait(1, "a")]); return { seen } }`, `1`, `{"seen":["a","b"]}`},
		{"interval", `export default () => new Promise((done) => { let n = 0; const id = setInterval(() => { if (++n === 3) { clearInterval(id); done(n) } }, 1) })`, `1`, `3`},
		{"cleared timer", `export default () => new Promise((done) => { clearTimeout(setTimeout(done, 0, "wrong")); setTimeout(done, 1, "right") })`, `1`, `"right"`},
		{"microtask", `export default () => new Promise((done) => queueMicrotask(() => done(1)))`, `1`, `1`},
		{"context", `export default (e, ctx) => ({ attempt: ctx.attempt, future: ctx.deadline > Date.now() })`, `1`, `{"attempt":1,"future":true}`},
		{"escapes", `export default (e) => e.data`, `"\u0000\"\\\ud83e\udd8a"`, `"\u0000\"\\🦊"`},
		{"own __proto__", `export default (e) => ({ own: Object.hasOwn(e.data, "__proto__"), inherited: e.data.x, all: ({}).x })`, `{"__proto__":{"x":1}}`, `{"own":true}`},
		{"random", `export default () => { const n = Math.random(); return n >= 0 && n < 1 && n !== Math.random() }`, `1`, `true`},
		{"uuid", `export default () => /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID())`, `1`, `true`},
		{"random bytes", `export default () => crypto.getRandomValues(new Uint32Array(4)).some((n) => n !== 0)`, `1`, `true`},
		{"clock", `export default () => ({ now: Math.abs(Date.now() - ` + "new Date().getTime()" + `) < 1000, utc: new Date().getTimezoneOffset(), ran: performance.now() < 5000 })`, `1`, `{"now":true,"utc":0,"ran":true}`},
		{"large data", `export default (e) => e.data.length`, `"` + strings.Repeat("x", 300<<10) + `"`, `307200`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := reply(t, loadScript(t, tt.source), tt.data); got != tt.want {
				t.Errorf("reply = %s; want %s", got, tt.want)
			}
		})
	}
}

func TestScriptClockIsReal(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `const loaded = Date.now(); export default () => Date.now() - loaded`)
	time.Sleep(20 * time.Millisecond) // the clock is what is tested
	if got := reply(t, f, `1`); got == "0" || strings.HasPrefix(got, "-") {
		t.Errorf("the clock stood still since the script was loaded: %s", got)
	}
}

func TestScriptBinaryData(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `export default (event, ctx) => {
		if (!(event.data instanceof Uint8Array) || "data_base64" in event) throw new Error("not bytes")
		ctx.publish("test.bytes", event.data.subarray(1), { subject: "s", datacontenttype: "image/png", id: "i" })
		ctx.publish("test.buffer", new Uint8Array([9]).buffer)
	}`)
	result, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(`{"id":"1","type":"t","source":"s","data_base64":"AQID"}`)})
	if err != nil {
		t.Fatal(err)
	}
	want := []cell.Emitted{
		{Type: "test.bytes", ID: "i", Subject: "s", DataContentType: "image/png", DataBase64: []byte{2, 3}},
		{Type: "test.buffer", DataBase64: []byte{9}},
	}
	if diff := cmp.Diff(want, result.Events); diff != "" {
		t.Errorf("events differ:\n%s", diff)
	}
}

func TestScriptPublishes(t *testing.T) {
	t.Parallel()
	want := []cell.Emitted{{Type: "a.b", Data: []byte(`{"n":1}`)}, {Type: "c.d", Subject: "s"}}
	for name, source := range map[string]string{
		"returned":  `export default () => [{ type: "a.b", data: { n: 1 } }, { type: "c.d", subject: "s" }]`,
		"published": `export default async (e, ctx) => { ctx.publish("a.b", { n: 1 }); await 0; ctx.publish("c.d", undefined, { subject: "s" }) }`,
		"both":      `export default (e, ctx) => { ctx.publish("a.b", { n: 1 }); return [{ type: "c.d", subject: "s" }] }`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result, _, err := invoke(t, loadScript(t, source), `1`)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(cell.Result{Events: want}, result); diff != "" {
				t.Errorf("result differs:\n%s", diff)
			}
		})
	}
	result, _, err := invoke(t, loadScript(t, `export default (e, ctx) => { ctx.publish("a.b", 1); return "both" }`), `1`)
	if err != nil || string(result.Reply) != `"both"` || len(result.Events) != 1 {
		t.Errorf("result = %+v, %v; want a reply and an event", result, err)
	}
}

func TestScriptLogs(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `export default (event, ctx) => {
		ctx.log("plain", 1, { a: [1] }, null, undefined)
		ctx.log.debug("d"); ctx.log.info("i"); ctx.log.warn("w"); ctx.log.error("e")
		console.log("cl"); console.warn("cw")
		const loop = {}; loop.loop = loop
		console.log(loop, Symbol("s"), 1n, { toJSON() { throw 1 } })
		console.error(new TypeError("broken"))
	}`)
	_, log, err := invoke(t, f, `1`)
	if err != nil {
		t.Fatal(err)
	}
	want := lines{`info plain 1 {"a":[1]} null undefined`, "debug d", "info i", "warn w", "error e", "info cl", "warn cw"}
	if diff := cmp.Diff(want, log[:len(want)]); diff != "" {
		t.Errorf("log differs:\n%s", diff)
	}
	wantText(t, log[7], "[a value without a text] Symbol(s) 1 [a value without a text]")
	wantText(t, log[8], "error TypeError: broken")
}

func TestScriptFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, source, code, message string
		final                       bool
		wait                        time.Duration
	}{
		{"error", `export default () => { throw new Error("no stock") }`, "cell.function_failed", "no stock", false, 0},
		{"type error", `export default () => null.x`, "cell.function_failed", "TypeError: cannot read property 'x' of null", false, 0},
		{"rejected", `export default async () => { await 0; throw new Error("late") }`, "cell.function_failed", "late", false, 0},
		{"string", `export default () => { throw "text" }`, "cell.function_failed", "text", false, 0},
		{"undefined", `export default () => { throw undefined }`, "cell.function_failed", "undefined", false, 0},
		{"object", `export default () => { throw { code: 7 } }`, "cell.function_failed", `{"code":7}`, false, 0},
		{"final", `export default (e, ctx) => { throw new ctx.Fail("gone", { retry: false }) }`, "cell.function_failed", "gone", true, 0},
		{"later", `export default (e, ctx) => { throw new ctx.Fail("busy", { retryAfter: 30 }) }`, "cell.function_failed", "busy", false, 30 * time.Second},
		{"properties", `export default () => { throw Object.assign(new Error("gone"), { retry: false }) }`, "cell.function_failed", "gone", true, 0},
		{"hostile getter", `export default () => { throw { get message() { throw 1 } } }`, "cell.function_failed", "without a message", false, 0},
		{"proxy", `export default () => { throw new Proxy({}, { get() { throw 1 } }) }`, "cell.function_failed", "without a message", false, 0},
		{"forgotten promise", `export default () => { Promise.reject(new Error("lost")); return 1 }`, "cell.function_failed", "a promise was rejected and nothing handled it: lost", false, 0},
		{"timer throws", `export default () => new Promise(() => setTimeout(() => { throw new Error("in timer") }, 1))`, "cell.function_failed", "in timer", false, 0},
		{"never settles", `export default () => new Promise(() => {})`, "cell.never_settles", "never settle", false, 0},
		{"bigint reply", `export default () => 1n`, "cell.function_failed", "TypeError", false, 0},
		{"function reply", `export default () => () => 1`, "cell.function_failed", "cannot be a reply", false, 0},
		{"cyclic reply", `export default () => { const a = {}; a.a = a; return a }`, "cell.function_failed", "TypeError", false, 0},
		{"array of values", `export default () => [1, 2]`, "cell.function_failed", "needs a type", false, 0},
		{"lone surrogate", `export default () => "\ud800"`, "cell.bad_result", "", false, 0},
		{"import", `export default () => import("fs")`, "cell.function_failed", "could not load", false, 0},
		{"surrogate in a message", `export default (e, ctx) => { throw new ctx.Fail("no \ud800", { retry: false }) }`, "cell.function_failed", "no \ufffd", true, 0},
		{"surrogate, replaced methods", `String.prototype.toWellFormed = function () { return this }; Object.prototype.toJSON = () => 1
			export default (e, ctx) => { throw new ctx.Fail("no \ud800", { retry: false }) }`, "cell.function_failed", "no \ufffd", true, 0},
		{"surrogates at the bound", `export default (e, ctx) => { throw new ctx.Fail("x" + "🦊".repeat(20000), { retry: false }) }`, "cell.function_failed", "🦊", true, 0},
		{"long message", `export default () => { throw new Error("x".repeat(1e6)) }`, "cell.function_failed", "xxx", false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := failure(t, loadScript(t, tt.source), `1`, tt.code)
			wantText(t, p.Public, tt.message)
			if len(p.Public) > 5000 {
				t.Errorf("the message has %d bytes", len(p.Public))
			}
			if said, ok := cell.Failed(p); ok && (said.Final != tt.final || said.RetryAfter != tt.wait || p.RetryAfter != tt.wait) {
				t.Errorf("failure = %+v; want final %t, retry after %s", said, tt.final, tt.wait)
			}
		})
	}
	handled := loadScript(t, `export default async () => { const p = Promise.reject(1); await 0; await p.catch(() => {}); return "fine" }`)
	if got := reply(t, handled, `1`); got != `"fine"` {
		t.Errorf("a rejection that is handled late = %s; want the reply", got)
	}
}

// TestScriptReplacesMethods: what a script replaces does not change what becomes of its event.
func TestScriptReplacesMethods(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `const wrong = () => { throw new Error("replaced") }
		for (const type of [Array, Object, Function, String, Promise, Uint8Array, Set, Map]) {
			for (const name of Object.getOwnPropertyNames(type.prototype)) {
				if (typeof Object.getOwnPropertyDescriptor(type.prototype, name).value === "function" && name !== "constructor") type.prototype[name] = wrong
			}
		}
		Array.prototype[Symbol.iterator] = wrong
		Object.prototype.toJSON = Array.prototype.toJSON = undefined
		JSON.stringify = Array.isArray = ArrayBuffer.isView = Math.min = wrong
		Uint8Array.fromBase64 = Promise.resolve = wrong
		export default async (event, ctx) => {
			ctx.log("one", 2, "three")
			ctx.publish("a.b", 1)
			ctx.publish("a.c", new Uint8Array(2))
			return "done"
		}`)
	result, log, err := invoke(t, f, `1`)
	if err != nil {
		t.Fatal(err)
	}
	want := cell.Result{Reply: jsontext.Value(`"done"`), Events: []cell.Emitted{{Type: "a.b", Data: jsontext.Value("1")}, {Type: "a.c", DataBase64: []byte{0, 0}}}}
	if diff := cmp.Diff(want, result, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("result differs:\n%s", diff)
	}
	if diff := cmp.Diff(lines{"info one 2 three"}, log); diff != "" {
		t.Errorf("log differs:\n%s", diff)
	}
}

// TestScriptFailsInTheAuthorsFile uses what esbuild makes of testdata/sourcemap/*.ts.
func TestScriptFailsInTheAuthorsFile(t *testing.T) {
	t.Parallel()
	spec := cell.Spec{Name: "price.ts", Kind: api.ModuleScript, Code: read(t, "testdata/sourcemap/price.js"), SourceMap: read(t, "testdata/sourcemap/price.js.map")}
	p := failure(t, load(t, spec, cell.DefaultLimits()), `{"total":-1}`, "cell.function_failed")
	want := []problem.Fault{{File: "lib/check.ts", Line: 7, Column: 5, Length: 41, Source: "    throw new RangeError(`total is ${total}`)", Detail: "RangeError: total is -1"}}
	if diff := cmp.Diff(want, p.Faults); diff != "" {
		t.Errorf("faults differ:\n%s", diff)
	}
	said, _ := cell.Failed(p)
	if diff := cmp.Diff("at check (lib/check.ts:7:38)\nat price (price.ts:9:9)\n", said.Stack); diff != "" {
		t.Errorf("stack differs:\n%s", diff)
	}

	spec.SourceMap = []byte(`{"version":3,"mappings":"!"}`)
	p = failure(t, load(t, spec, cell.DefaultLimits()), `{"total":-1}`, "cell.function_failed")
	if len(p.Faults) != 1 || p.Faults[0].File != "price.ts" {
		t.Errorf("faults with a broken source map = %+v; want the bundle's own line", p.Faults)
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func BenchmarkScript(b *testing.B) {
	item := `{"sku":"book-17","name":"A book about näyttely","price":1990,"quantity":3,"tags":["a","b","c"]}`
	for _, script := range []struct{ name, source, data string }{
		{"trivial", `export default (event) => ({ n: event.data.n + 1, id: event.id })`, `{"n":41}`},
		{"items", `export default (event) => ({ items: event.data.map((item) => ({ ...item, total: item.price * item.quantity })) })`, "[" + strings.TrimSuffix(strings.Repeat(item+",", 100), ",") + "]"},
		{"awaits", `const step = async (n) => n + 1
			export default async (event) => { let n = event.data.n; for (let i = 0; i < 10; i++) n = await step(n); return { n } }`, `{"n":1}`},
	} {
		b.Run(script.name, func(b *testing.B) {
			f := loadScript(b, script.source)
			b.ReportAllocs()
			for b.Loop() {
				reply(b, f, script.data)
			}
		})
	}
}

func BenchmarkScriptOfSomeWork(b *testing.B) {
	f := loadScript(b, `export default () => {
		const items = Array.from({ length: 100 }, (_, id) => ({ id, name: "name" + id, tags: ["a", "b", "c"] }))
		return { items: JSON.parse(JSON.stringify(items)).map((item) => ({ ...item, total: item.id * 2 })) }
	}`)
	b.ReportAllocs()
	for b.Loop() {
		reply(b, f, `1`)
	}
}

func BenchmarkReactor(b *testing.B) {
	f := load(b, wasm("echo.wasm", echo()), cell.DefaultLimits())
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := f.Invoke(b.Context(), cell.Input{Event: []byte(`{"reply":1}`)}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGoReactor(b *testing.B) {
	f := load(b, built(b, "reactor"), cell.DefaultLimits())
	b.ReportAllocs()
	for b.Loop() {
		reply(b, f, `{"what":"reply"}`)
	}
}
