package cell_test

import (
	"strings"
)

// watched begins every script of the pack: an event that finds the world other than it was when the
// script was loaded fails with "dirty". What it compares is the identity of everything that can be
// reached from the global object by names, its prototypes included.
const watched = `
const { is, getPrototypeOf, isExtensible } = Object, { ownKeys, getOwnPropertyDescriptor } = Reflect
const world = () => {
	const found = [], seen = new Set()
	const visit = (o) => {
		if ((typeof o !== "object" && typeof o !== "function") || o === null || seen.has(o)) return
		seen.add(o)
		const proto = getPrototypeOf(o)
		found.push(proto, isExtensible(o))
		for (const k of ownKeys(o)) {
			const d = getOwnPropertyDescriptor(o, k)
			found.push(k, d.value, d.get, d.set, d.writable, d.configurable)
			visit(d.value)
		}
		visit(proto)
	}
	for (const o of [globalThis, function* () {}, async () => {}, async function* () {}, [].values(), new Map().values(), new Set().values(), ""[Symbol.iterator](), "a".matchAll(/a/g)]) {
		visit(o === globalThis ? o : getPrototypeOf(o))
	}
	return found
}
const clean = world()
let kept = null
const look = () => {
	if (kept !== null) throw new Error("dirty: kept")
	kept = 1
	const now = world()
	for (let i = 0; i < now.length; i++) if (!is(now[i], clean[i])) throw new Error("dirty: " + String(now[i - 1]) + " " + String(now[i]))
	if (now.length !== clean.length) throw new Error("dirty: less")
}
`

// attack is an entry whose handler looks at the world and then does this.
func attack(name string, at stage, code, body string) hostile {
	return hostile{name, js(watched + "export default async function (event, ctx) { look();\n" + body + "\n}"), at, code, ""}
}

// pairs makes entries of pairs of a name and a body.
func pairs(family string, at stage, code string, list ...string) (all []hostile) {
	for i := 0; i+1 < len(list); i += 2 {
		all = append(all, attack(family+"/"+list[i], at, code, list[i+1]))
	}
	return all
}

func scriptBombs() (all []hostile) {
	all = append(all, pairs("bombs", atInvoke, "cell.timeout",
		"regular expression", `/^(a+)+$/.test("a".repeat(50) + "!")`,
		"regular expression with alternatives", `/^(a|a)*$/.test("a".repeat(50) + "!")`,
		"regular expression with a look behind", `/(?<=(a+)+)b/.test("a".repeat(5000) + "c"); for (;;) {}`,
		"regular expression with back references", `/(.*)(.*)(.*)(.*)(.*)(.*)\1\2\3\4\5\6$/.test("ab".repeat(300) + "!")`,
		"replacement", `for (let s = "a"; ;) s = s.replace(/a/g, "aa").slice(0, 100000)`,
		"sticky expression", `const r = /(x*)*y/y; for (;;) { r.lastIndex = 0; r.test("x".repeat(40)) }`,
		"JSON without end", `for (;;) JSON.parse(JSON.stringify(Array(1000).fill({ a: [1] })))`,
		"reviver", `JSON.parse("[1]", () => { for (;;) {} })`,
		"replacer", `JSON.stringify([1], () => { for (;;) {} })`,
		"microtasks", `const f = () => queueMicrotask(f); f(); await new Promise(() => {})`,
		"promises", `for (;;) await Promise.all(Array(100).fill(Promise.resolve()))`,
		"thenable that returns itself", `const t = { then(done) { done({ then: t.then }) } }; await t`,
		"timers", `setInterval(() => setTimeout(() => {}), 1); await new Promise(() => {})`,
		"a timer in 24 days", `await new Promise((done) => setTimeout(done, 2 ** 40))`,
		"generator", `function* g() { for (;;) yield* [1] } for (const x of g()) {}`,
		"async generator", `async function* g() { for (;;) yield 1 } for await (const x of g()) {}`,
		"iterator that does not end", `for (const x of { [Symbol.iterator]: () => ({ next: () => ({ done: false }), return: () => { for (;;) {} } }) }) {}`,
		"destructuring", `const o = { get a() { for (;;) {} } }; const { a } = o`,
		"proxy", `const p = new Proxy({}, { get: (t, k, r) => r[k] ?? 1, has: () => { for (;;) {} } }); "x" in p`,
		"getter in the reply", `return { get x() { for (;;) {} } }`,
		"toJSON in the reply", `return { toJSON() { for (;;) {} } }`,
		"ownKeys in the reply", `return new Proxy({}, { ownKeys: () => { for (;;) {} } })`,
		"then in the reply", `return { get then() { for (;;) {} } }`,
		"length of the reply", `return new Proxy([], { get: () => { for (;;) {} } })`,
		"getter in the error", `throw { get message() { for (;;) {} } }`,
		"stack of the error", `throw { get stack() { for (;;) {} } }`,
		"text of a line", `console.log({ toString() { for (;;) {} }, toJSON() { for (;;) {} } })`,
		"a primitive of the published type", `try { ctx.publish({ [Symbol.toPrimitive]() { for (;;) {} } }) } catch {} for (;;) {}`,
		"getter in the options", `ctx.publish("a.b", 1, { get subject() { for (;;) {} } })`,
		"finally", `for (;;) try { return 1 } finally { continue }`,
		"eval", `eval("for (;;) {}")`,
		"constructor of functions", `new Function("for (;;) {}")()`,
		"sort", `Array.from({ length: 1e5 }, (_, i) => -i).sort(() => { for (;;) {} })`,
		"powers of big integers", `for (let n = 3n; ;) n = (n * n) % (2n ** 4000n)`,
		"labels and switches", `a: for (;;) { b: for (;;) { switch (1) { default: continue a } } }`,
		"logging", `for (;;) { const s = "x".repeat(1000); s.at(1) }`,
		"tagged templates", "const f = (s) => { for (;;) {} }; f`x`",
		"with a class whose static block runs on", `class A { static { for (;;) {} } }`,
		"comparison", `const o = { [Symbol.toPrimitive]() { for (;;) {} } }; o < 1`,
		"garbage without end", `for (;;) { const a = {}; a.a = { a } }`,
		"weak references", `const r = new FinalizationRegistry(() => {}); for (;;) r.register({}, 1)`,
		"dates", `for (;;) new Date(Math.random() * 1e15).toISOString()`,
		"sleeping in pieces", `for (;;) await new Promise((done) => setTimeout(done, 1))`,
	)...)
	all = append(all, pairs("bombs of memory", atInvoke, "",
		"strings", `let s = "x"; for (;;) s += s`,
		"padding", `"x".padEnd(2 ** 30 - 100)`,
		"repeat", `return "x".repeat(2 ** 29)`,
		"flat", `return [].concat(...Array(1000).fill(Array(100000).fill("xxxx"))).join()`,
		"array", `const a = []; for (;;) a.push(Array(10000).fill(7))`,
		"sparse array that is filled", `Array(2 ** 32 - 1).fill(1)`,
		"typed array", `const a = []; for (;;) a.push(new Float64Array(1 << 17).fill(1))`,
		"typed array of 2 GiB", `new Uint8Array(2 ** 31)`,
		"array buffer that is resized", `const b = new ArrayBuffer(1, { maxByteLength: 2 ** 31 }); b.resize(2 ** 31)`,
		"closures", `let f = () => 1; for (;;) { const g = f; f = () => g() + 1 }`,
		"map", `const m = new Map(); for (let i = 0; ; i++) m.set(i, { i })`,
		"symbols", `const a = []; for (let i = 0; ; i++) a.push(Symbol.for("s" + i))`,
		"properties", `const o = {}; for (let i = 0; ; i++) o["p" + i] = i`,
		"big integer", `let n = 3n; for (;;) n *= n`,
		"promises that wait", `const a = []; for (;;) a.push(new Promise(() => {}).then(() => 1))`,
		"timers that wait", `for (;;) setTimeout(() => {}, 1e6, "x".repeat(10000))`,
		"published events", `const s = "x".repeat(10000); for (;;) ctx.publish("a.b", { s: s + Math.random() })`,
		"arguments", `Math.max(...Array(1e7).fill(1))`,
		"JSON that is wide", `return JSON.parse("[" + "0,".repeat(1e7) + "0]")`,
		"JSON of one long string", `return JSON.parse('"' + "\\u0000".repeat(4e6) + '"')`,
		"JSON indented", `return JSON.stringify(Array(1e6).fill([[]]), null, 10)`,
		"replacement", `return "a".repeat(1e5).replace(/a/g, "$'")`,
		"split", `return "a".repeat(8e6).split("")`,
		"an error with a long message", `throw new Error("x".repeat(5e6))`,
		"a rejection with a long message", `Promise.reject(new Error("x".repeat(3e6))); await null; return 1`,
		"a rejection for each event loop", `for (let i = 0; i < 1e4; i++) Promise.reject(new Error("x" + i)); return 1`,
		"recursion", `const f = () => f() + 1; f()`,
		"recursion with spread", `const f = (...a) => f(...a, 1); f()`,
		"recursion in a getter", `const o = { get x() { return this.x } }; o.x`,
		"recursion in a proxy", `const p = new Proxy({}, { get: (t, k, r) => r[k] }); p.x`,
		"recursion in toString", `const o = { toString: () => "" + o }; "" + o`,
		"recursion in JSON", `const o = { toJSON: () => JSON.stringify(o) }; return o`,
		"recursion in sort", `const f = () => [2, 1].sort(f); f()`,
		"recursion in replace", `const f = () => "a".replace(/a/, f); f()`,
		"recursion in eval", `const f = () => eval("f()"); f()`,
		"recursion in a constructor", `class A { constructor() { new A() } } new A()`,
		"recursion in a bound function", `let f = () => 1; for (let i = 0; i < 1e6; i++) f = f.bind(null); f()`,
		"JSON that is deep", `JSON.parse("[".repeat(1e6))`,
		"a reply that is deep", `let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return { a }`,
		"a pattern that is deep", `new RegExp("(".repeat(1e5) + ")".repeat(1e5))`,
		"a pattern with a huge count", `new RegExp("((a{1,65535}){1,65535}){1,65535}").test("a".repeat(1e6)); for (;;) {}`,
		"a program that is deep", `eval("(".repeat(1e5))`,
		"a program that is long", `eval("x=1;".repeat(3e6))`,
		"a program with many variables", `new Function(Array.from({ length: 1e5 }, (_, i) => "let v" + i).join(";"))(); for (;;) {}`,
		"prototypes in a chain", `let a = {}; for (let i = 0; i < 1e6; i++) a = Object.create(a); for (;;) a.x`,
		"proxies of proxies", `let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); p.x; throw new Error("no overflow")`,
	)...)
	return all
}

func scriptTricks() (all []hostile) {
	all = append(all, pairs("tricks", nowhere, "",
		"timers after the result", `setTimeout(() => { globalThis.late = 1; ctx.publish("late.event") }, 0); return 1`,
		"a result and then another", `Promise.resolve().then(() => ctx.publish("late.event")); return 1`,
		"thenable that calls twice", `return { then(done, fail) { done(1); done(2); fail(new Error("x")) } }`,
		"thenable that throws after it called", `return { then(done) { done(1); throw new Error("x") } }`,
		"generator abandoned", `function* g() { try { yield 1; yield 2 } finally { globalThis.x = 1 } } for (const x of g()) break; const h = g(); h.next(); return 1`,
		"async generator abandoned", `async function* g() { for (;;) yield 1 } const h = g(); await h.next(); h.next(); return 1`,
		"finalization", `globalThis.r = new FinalizationRegistry((v) => { globalThis.found = v }); r.register({}, "secret"); return 1`,
		"weak reference", `globalThis.w = new WeakRef({ secret: event.data }); return 1`,
		"shared memory", `const a = new Int32Array(new SharedArrayBuffer(4)); a[0] = 1; return a[0]`,
		"negative zero", `return { n: -0 }`,
		"nothing", `return undefined`,
		"null", `return null`,
		"not a number", `return [NaN, Infinity].map(String).join()`,
		"numbers that JSON has not", `return { a: NaN, b: -Infinity, c: undefined, d: () => 1, e: Symbol() }`,
		"a date that is none", `return { d: new Date(NaN) }`,
		"an object without a prototype", `return Object.assign(Object.create(null), { a: 1 })`,
		"caught overflow", `try { (function f() { f() })() } catch {} return "alive"`,
		"caught exhaustion", `try { const a = []; for (;;) a.push(new Uint8Array(1 << 20)) } catch {} return "alive"`,
		"nothing is imported dynamically", `for (const name of ["fs", "node:os", "./x.js", "data:text/javascript,1", "https://example.com/x.js", "sallyport:prelude", "", "env", "f.js/../g.js"]) {
			try { await import(name); return name } catch {} } return "none"`,
		"no way to the host", `return ["process", "require", "module", "Deno", "Bun", "WebAssembly", "XMLHttpRequest", "host", "std", "os", "bjson", "scriptArgs", "print", "gc"].filter((k) => k in globalThis)`,
		"fetch fetches nothing", `try { await fetch("http://127.0.0.1/"); return "fetched" } catch (e) { return e.message.length > 0 }`,
		"no callers", `try { return String(arguments.callee.caller) } catch (e) { return e.name }`,
		"the constructor of functions finds only globals", `return Function("return typeof host + typeof event + typeof ctx + typeof kept")()`,
		"locale and formats", `return [1e21.toLocaleString(), "i".localeCompare("I") !== 0, "\u0130".toLowerCase().length].join()`,
		"stack traces prepared", `Error.prepareStackTrace = (e, frames) => String(frames); Error.stackTraceLimit = Infinity; return typeof new Error("x").stack`,
		"ctx is frozen", `try { ctx.publish = 1; ctx.log.info = 1 } catch {} try { Object.defineProperty(ctx, "x", { value: 1 }) } catch {} return Object.keys(ctx).length`,
		"log levels", `for (const l of ["debug", "info", "warn", "error"]) ctx.log[l]("\u0000\u001b[2J\u202e\ud800", { get a() { throw 1 } }, 1n, Symbol("s"), Object.create(null)); return 1`,
		"log of 10 MB", `for (let i = 0; i < 10; i++) console.log("x".repeat(1 << 20)); return 1`,
		"random numbers in all lengths", `for (const n of [0, 1, 65536]) crypto.getRandomValues(new Uint8Array(n)); try { crypto.getRandomValues(new Uint8Array(65537)); return 0 } catch { return 1 }`,
		"timers with odd values", `for (const d of [NaN, -1, -Infinity, "x", null, undefined, {}, 0.1]) setTimeout(() => {}, d); clearTimeout(); clearTimeout({}); clearTimeout(-1); return 1`,
		"the event changed", `event.data = "changed"; event.type = null; Object.freeze(event); return 1`,
		"global object frozen", `Object.freeze(globalThis); return 1`,
		"global object sealed off", `Object.setPrototypeOf(globalThis, null); return 1`,
		"symbols registered", `const s = Symbol.for("kept"); const before = globalThis[s]; globalThis[s] = event.data; return before ?? null`,
		"state of regular expressions", `/(secret)/.exec("secret"); return 1`,
		"array that has holes", `const a = [,]; a.length = 1; return { a }`,
	)...)
	all = append(all, pairs("tricks", anywhere, "",
		"blocking wait", `Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000); return 1`,
		"asynchronous wait", `await Atomics.waitAsync?.(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10).value; return 1`,
		"global object emptied", `for (const k of Reflect.ownKeys(globalThis)) delete globalThis[k]; return 1`,
		"every property of every builtin emptied", `for (const o of [Object, Array, Promise, JSON, Reflect, Map, Object.prototype, Array.prototype, Promise.prototype, Function.prototype]) for (const k of Reflect.ownKeys(o)) try { delete o[k] } catch {} return 1`,
	)...)
	return all
}

// polluters change the world so as to change what the host's part of the script does, in the same
// event and after it: they may spoil their own result, and nothing else.
func polluters() (all []hostile) {
	add := func(name, body string) {
		all = append(all, attack("pollutes/"+name, anywhere, "", body+"\n; ctx.log('line', { a: 1 }); ctx.publish('a.b', { c: [1] }); setTimeout(() => {}, 0); crypto.randomUUID(); return { mine: event.data }"))
	}
	for _, of := range []string{"Object", "Array", "Promise", "Function", "JSON", "Reflect", "Map", "String", "Error", "Uint8Array", "Math", "Symbol", "Iterator", "RegExp", "Date", "console", "crypto", "performance"} {
		add(of, `for (const k of Reflect.ownKeys(`+of+`)) try { `+of+`[k] = function () { return { forged: 1 } } } catch {}`)
		if strings.ToUpper(of[:1]) == of[:1] && of != "JSON" && of != "Reflect" && of != "Math" {
			add(of+".prototype", `for (const k of Reflect.ownKeys(`+of+`.prototype)) try { Object.defineProperty(`+of+`.prototype, k, { value() { return { forged: 1 } } }) } catch {}`)
			add(of+".prototype that throws", `for (const k of Reflect.ownKeys(`+of+`.prototype)) try { Object.defineProperty(`+of+`.prototype, k, { get() { throw new Error("forged") } }) } catch {}`)
		}
	}
	for _, key := range []string{"toJSON", "then", "type", "data", "subject", "reply", "events", "error", "message", "retry", "value", "done", "next", "get", "set", "default", "length", "0", "due", "callback", "id", "cause", "__proto__"} {
		add("Object.prototype."+key, `Object.prototype["`+key+`"] = function () { return { forged: 1 } }`)
		add("a getter Object.prototype."+key, `Object.defineProperty(Object.prototype, "`+key+`", { get() { throw new Error("forged") }, set() { throw new Error("forged") }, configurable: true })`)
	}
	add("iterators", `const p = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())); Object.getPrototypeOf([][Symbol.iterator]()).next = () => ({ done: true }); p[Symbol.iterator] = null`)
	add("species", `Object.defineProperty(Array, Symbol.species, { value: function () { return { forged: 1 } } }); Object.defineProperty(Promise, Symbol.species, { value: function (f) { f(() => {}, () => {}); return {} } })`)
	add("then of promises", `Promise.prototype.then = function (a) { a({ forged: 1 }) }; Promise.resolve = (v) => ({ then() { return { catch() {} } } })`)
	add("array index setters", `Object.defineProperty(Array.prototype, "0", { set(v) { globalThis.stolen = v }, get() { return { type: "forged.event" } }, configurable: true })`)
	add("has instance", `Object.defineProperty(Error, Symbol.hasInstance, { value: () => true }); Object.defineProperty(DataView, Symbol.hasInstance, { value: () => { throw new Error("forged") } })`)
	add("is view", `ArrayBuffer.isView = () => true; crypto.getRandomValues({ byteLength: { valueOf() { return crypto.randomUUID(), 4 } }, buffer: new ArrayBuffer(4) })`)
	add("matching", `RegExp.prototype[Symbol.replace] = RegExp.prototype.exec = () => { throw new Error("forged") }`)
	return all
}

func hostileReplies() (all []hostile) {
	all = append(all, pairs("replies", atInvoke, "",
		"function", `return () => 1`,
		"symbol", `return Symbol("x")`,
		"big integer", `return 1n`,
		"big integer inside", `return { n: [1n] }`,
		"circular", `const a = {}; a.a = a; return a`,
		"circular array", `const a = []; a.push(a); return { a }`,
		"throws in toJSON", `return { toJSON() { throw new Error("mine") } }`,
		"throws in a getter", `return { get a() { throw new Error("mine") } }`,
		"throws in then", `return { get then() { throw new Error("mine") } }`,
		"throws in length", `return new Proxy([], { get() { throw new Error("mine") } })`,
		"revoked proxy", `const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy`,
		"event without a type", `return [{}]`,
		"event that is null", `return [null]`,
		"event that is a number", `return [7]`,
		"type that is no text", `return [{ type: 7 }]`,
		"type of another form", `return [{ type: "A B" }]`,
		"type with a line feed", `ctx.publish("a.b\n")`,
		"type with a NUL", `ctx.publish("a\u0000.b")`,
		"type of one surrogate", `ctx.publish("\ud800.b")`,
		"type of other letters", `ctx.publish("\u0430.b")`,
		"type of the other direction", `ctx.publish("a.\u202eb")`,
		"empty type", `ctx.publish("")`,
		"long type", `ctx.publish("a." + "b".repeat(10000))`,
		"subject with a control character", `ctx.publish("a.b", 1, { subject: "a\u0007b" })`,
		"long subject", `ctx.publish("a.b", 1, { subject: "s".repeat(5000) })`,
		"subject that is an object", `ctx.publish("a.b", 1, { subject: { a: 1 } })`,
		"id that is a number", `ctx.publish("a.b", 1, { id: 7 })`,
		"id with a line feed", `ctx.publish("a.b", 1, { id: "a\r\nb" })`,
		"content type with a line feed", `ctx.publish("a.b", 1, { datacontenttype: "text/plain\r\nx: y" })`,
		"data that is circular", `const a = {}; a.a = a; ctx.publish("a.b", a)`,
		"101 events", `for (let i = 0; i < 101; i++) ctx.publish("a.b")`,
		"array without end", `return new Proxy([], { get: (t, k) => k === "length" ? 2 ** 53 - 1 : { type: "a.b" } })`,
		"array of 2^32-1", `const a = []; a.length = 2 ** 32 - 1; return a`,
		"too long", `return "x".repeat(2 << 20)`,
		"too long by escapes", `return "\u0001".repeat(300000)`,
		"never settles", `await new Promise(() => {})`,
		"thenable that never calls", `return { then() {} }`,
		"rejected and not handled", `Promise.reject(new Error("mine")); return 1`,
	)...)
	return append(all, pairs("replies", anywhere, "",
		"one surrogate", `return "\ud800"`,
		"one surrogate in an error", `throw new Error("\ud800")`,
		"keys of surrogates", `return { "\ud800": 1, "\udfff": 2 }`,
		"keys that are the same when repaired", `return { "\ud800": 1, "\ud801": 2, "\ufffd": 3 }`,
		"the key __proto__", `return JSON.parse('{"__proto__":{"a":1},"constructor":{"prototype":1}}')`,
		"huge number", `return JSON.parse("1" + "0".repeat(400))`,
		"typed array", `return new Uint8Array(1000)`,
		"array buffer published", `ctx.publish("a.b", new ArrayBuffer(1000))`,
		"detached buffer published", `const b = new ArrayBuffer(8); const v = new Uint8Array(b); b.transfer(); ctx.publish("a.b", v)`,
		"shrunk buffer published", `const b = new ArrayBuffer(8, { maxByteLength: 64 }); const v = new Uint8Array(b, 4); b.resize(2); ctx.publish("a.b", v)`,
		"view that lies", `class L extends Uint8Array { get byteLength() { return 1e9 } get byteOffset() { return -1 } get buffer() { return new ArrayBuffer(2) } } ctx.publish("a.b", new L(4))`,
		"random numbers for a view that lies", `class L extends Uint8Array { get byteLength() { return -1e9 } } crypto.getRandomValues(new L(4)); return 1`,
		"nested 9,000 deep", `return JSON.parse("[".repeat(4000) + "]".repeat(4000)).concat({})[0]`,
	)...)
}

func hostileErrors() (all []hostile) {
	return append(pairs("errors", atInvoke, "cell.function_failed",
		"nothing", `throw undefined`,
		"null", `throw null`,
		"number", `throw NaN`,
		"symbol", `throw Symbol("s")`,
		"function", `throw () => 1`,
		"object without a prototype", `throw Object.create(null)`,
		"getters that throw", `throw { get message() { throw 1 }, get stack() { throw 2 }, get name() { throw 3 } }`,
		"proxy that throws", `throw new Proxy({}, { get() { throw new Error("x") }, getPrototypeOf() { throw new Error("y") } })`,
		"revoked proxy", `const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); throw proxy`,
		"message of control characters", `throw new Error("\u0000\u001b[2J\u202e\r\n")`,
		"message that is an object", `const e = new Error("x"); e.message = { a: 1 }; throw e`,
		"stack of 2 MB", `const e = new Error("x"); e.stack = "    at f (f.js:1:1)\n".repeat(20000); throw e`,
		"stack of odd numbers", `const e = new Error("x"); e.stack = "    at f (f.js:999999999:999999999)\n    at (f.js:0:0)\n at f.js:-1:-1\n at (((((f.js:1:1)"; throw e`,
		"stack that is an object", `const e = new Error("x"); e.stack = { toString() { throw 1 } }; throw e`,
		"stack deep", `const f = (n) => { if (n === 0) throw new Error("x"); f(n - 1) }; f(500)`,
		"causes in a chain", `let e = new Error("x"); for (let i = 0; i < 1000; i++) e = new Error("x", { cause: e }); throw e`,
		"cause that is itself", `const e = new Error("x"); e.cause = e; throw e`,
		"many errors", `throw new AggregateError(Array(1000).fill(new Error("x")), "many")`,
		"retry after no number", `throw new ctx.Fail("x", { retryAfter: NaN })`,
		"retry after for ever", `throw new ctx.Fail("x", { retryAfter: Infinity })`,
		"retry before now", `throw new ctx.Fail("x", { retryAfter: -1 })`,
		"retry after that is an object", `throw new ctx.Fail("x", { retryAfter: { valueOf() { throw 1 } } })`,
		"the result is that of the host", `throw { message: '","stack":"","retry":false,"x":"' }`,
		"rejected thenable", `return { then(done, fail) { fail({ get message() { throw 1 } }) } }`,
		"syntax error at run time", `eval("(")`,
		"out of range", `new Array(-1)`,
	), pairs("errors", anywhere, "",
		"an error of the engine", `null.x`,
		"getters that run on", `let n = 0; throw { get message() { return n++ < 1000 ? this.message : "x" } }`,
	)...)
}
