package cell_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

func script(source string) cell.Spec {
	return cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(source)}
}

// decode parses a reply, of which names may be written in small letters.
func decode(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// checks is the beginning of a script that finds what does not hold: one function of the web platform after
// the other, each with what it must give.
const checks = `
const wrong = []
const same = (name, got, want) => { got = JSON.stringify(got); want = JSON.stringify(want); if (got !== want) wrong.push(name + ": " + got + "; want " + want) }
const throws = (name, want, f) => { let got = "nothing"; try { f() } catch (e) { got = e.name } same(name, got, want) }
const rejects = async (name, want, f) => { let got = "nothing"; try { await f() } catch (e) { got = e.name } same(name, got, want) }
`

// TestScriptWeb runs the checks of each part of the web platform that a script has.
func TestScriptWeb(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"text encoder": `
			const e = new TextEncoder()
			same("encode", [...e.encode("aé€🦊")], [97, 195, 169, 226, 130, 172, 240, 159, 166, 138])
			same("lone surrogate", [...e.encode("\ud800")], [239, 191, 189])
			same("nothing", e.encode().length, 0)
			same("zero", [...e.encode("\0a")], [0, 97])
			same("encoding", e.encoding, "utf-8")
			const into = (text, size) => { const b = new Uint8Array(size); const r = e.encodeInto(text, b); return [r.read, r.written, b.toHex()] }
			same("into", into("aé", 3), [2, 3, "61c3a9"])
			same("into, cut", into("aé", 2), [1, 1, "6100"])
			same("into, pair", into("🦊x", 5), [3, 5, "f09fa68a78"])
			same("into, cut pair", into("🦊", 3), [0, 0, "000000"])
			same("into, lone", into("\ud800", 3), [1, 3, "efbfbd"])
			throws("into what", "TypeError", () => e.encodeInto("a", []))
			same("long", e.encode("ä".repeat(3e5)).length, 6e5)`,
		"text decoder": `
			const bytes = (...b) => new Uint8Array(b)
			const d = (label, options) => new TextDecoder(label, options)
			same("utf-8", d().decode(bytes(97, 195, 169, 0, 240, 159, 166, 138)), "aé\0🦊")
			same("replaced", d().decode(bytes(97, 226, 130, 98)), "a\ufffdb")
			throws("fatal", "TypeError", () => d("utf-8", { fatal: true }).decode(bytes(255)))
			throws("fatal, cut", "TypeError", () => d("utf-8", { fatal: true }).decode(bytes(226, 130)))
			same("mark", d().decode(bytes(239, 187, 191, 97)), "a")
			same("mark kept", d("utf8", { ignoreBOM: true }).decode(bytes(239, 187, 191, 97)), "\ufeffa")
			const s = d()
			same("stream", [s.decode(bytes(239, 187), { stream: true }), s.decode(bytes(191, 226), { stream: true }), s.decode(bytes(130, 172), { stream: true }), s.decode(bytes(240, 159), { stream: true }), s.decode()], ["", "", "€", "", "\ufffd"])
			same("stream again", s.decode(bytes(239, 187, 191, 98)), "b")
			const u = d("utf-16")
			same("utf-16 stream", [u.decode(bytes(97), { stream: true }), u.decode(bytes(0, 62), { stream: true }), u.decode(bytes(216, 138), { stream: true }), u.decode(bytes(221))], ["", "a", "", "🦊"])
			same("utf-16be", d("utf-16be").decode(bytes(0, 97, 216, 62, 221, 138)), "a🦊")
			same("latin1", d("LATIN1 ").decode(bytes(128, 233)), "€é")
			same("names", [d("ascii").encoding, d("ucs-2").encoding, d("unicode-1-1-utf-8").encoding], ["windows-1252", "utf-16le", "utf-8"])
			throws("unknown", "RangeError", () => d("shift_jis"))
			same("views", [d().decode(new DataView(bytes(1, 97, 98).buffer, 1, 1)), d().decode(bytes(97).buffer), d().decode(new Uint16Array([0x6261]))], ["a", "a", "ab"])
			throws("no bytes", "TypeError", () => d().decode("a"))
			const long = "a€".repeat(6e5)
			same("long", d().decode(new TextEncoder().encode(long)) === long, true)
			const half = new TextEncoder().encode("x" + "€".repeat(5e5))
			same("long and malformed", [...new Set(d().decode(half.subarray(0, half.length - 1)))].join(""), "x€\ufffd")`,
		"url": `
			const u = new URL("../x?q=1&q=2#f", "https://us%20er:pw@EXAMPLE.com:8443/a/b/c")
			same("href", u.href, "https://us%20er:pw@example.com:8443/a/x?q=1&q=2#f")
			same("parts", [u.protocol, u.username, u.password, u.host, u.hostname, u.port, u.pathname, u.search, u.hash, u.origin], ["https:", "us%20er", "pw", "example.com:8443", "example.com", "8443", "/a/x", "?q=1&q=2", "#f", "https://example.com:8443"])
			same("string", ["" + u, JSON.stringify({ u })], [u.href, JSON.stringify({ u: u.href })])
			u.port = "443"; u.pathname = "ä b"; u.hash = ""; u.username = ""; u.password = ""; u.host = "bücher.example"
			same("set", u.href, "https://xn--bcher-kva.example/%C3%A4%20b?q=1&q=2")
			const p = u.searchParams
			same("params", [p.get("q"), p.getAll("q"), p.has("q", "3"), p.get("none"), p.size], ["1", ["1", "2"], false, null, 2])
			p.append("a b", "&=ä+"); p.delete("q", "1")
			same("linked", u.search, "?q=2&a+b=%26%3D%C3%A4%2B")
			same("same object", u.searchParams === p, true)
			u.search = "x=%zz&y=%ff"
			same("renewed", [...p], [["x", "%zz"], ["y", "\ufffd"]])
			p.delete("x"); p.delete("y")
			same("emptied", u.href, "https://xn--bcher-kva.example/%C3%A4%20b")
			u.href = "data:text/plain,a"
			same("opaque", [u.origin, u.pathname, u.host], ["null", "text/plain,a", ""])
			same("blob", new URL("blob:https://h/x").origin, "https://h")
			same("ipv4, ipv6", [new URL("http://0x7f.1").host, new URL("http://[::1:0:0]/").host], ["127.0.0.1", "[::1:0:0]"])
			throws("relative", "TypeError", () => new URL("/a"))
			throws("empty base", "TypeError", () => new URL("/a", ""))
			throws("none", "TypeError", () => new URL())
			throws("set href", "TypeError", () => { u.href = "::" })
			throws("too long", "TypeError", () => new URL("http://h/" + "a".repeat(1e6)))
			same("static", [URL.canParse("x"), URL.canParse("x", "http://h"), URL.parse("//"), URL.parse("b", "http://h/a").href], [false, true, null, "http://h/b"])
			same("brand", Object.prototype.toString.call(u), "[object URL]")
			throws("other this", "TypeError", () => Object.getOwnPropertyDescriptor(URL.prototype, "href").get.call({}))`,
		"url search params": `
			const s = (init) => new URLSearchParams(init).toString()
			same("from text", s("?a=1&b=%20+&&c&=d"), "a=1&b=++&c=&=d")
			same("from object", s({ a: 1, b: undefined }), "a=1&b=undefined")
			same("from pairs", s([["a", 1], ["a", 2]]), "a=1&a=2")
			same("from another", s(new URLSearchParams("a=1")), "a=1")
			same("from map", s(new Map([["a", "b"]])), "a=b")
			throws("from bad pairs", "TypeError", () => s([["a"]]))
			same("escapes", s({ "*-._ !'()~€": "\ud800" }), "*-._+%21%27%28%29%7E%E2%82%AC=%EF%BF%BD")
			const p = new URLSearchParams("c=3&a=1&b=2&a=0")
			p.sort(); same("sorted", "" + p, "a=1&a=0&b=2&c=3")
			p.set("a", "9"); same("set", "" + p, "a=9&b=2&c=3")
			p.set("d", "4"); same("set new", p.get("d"), "4")
			const seen = []; p.forEach((v, k, self) => seen.push(k + v + (self === p))); same("for each", seen, ["a9true", "b2true", "c3true", "d4true"])
			same("iterators", [[...p.keys()].join(""), [...p.values()].join(""), p[Symbol.iterator] === p.entries], ["abcd", "9234", true])
			const left = []; for (const [k] of p) { left.push(k); p.delete("b") } same("changed while iterated over", left, ["a", "c", "d"])
			throws("too few arguments", "TypeError", () => p.append("a"))`,
		"structured clone": `
			const c = structuredClone
			const o = { n: 1, s: "x", u: undefined, b: 1n, d: new Date(5), r: /x/gi, list: [1, , 3], m: new Map([[{ k: 1 }, new Set([1])]]), bool: Object(false), str: Object("s") }
			o.self = o; o.again = o.d
			const k = c(o)
			same("values", [k.n, k.s, "u" in k, k.b === 1n, k.d.getTime(), k.d !== o.d, String(k.r), 1 in k.list, k.list.length], [1, "x", true, true, 5, true, "/x/gi", false, 3])
			same("graph", [k.self === k, k.again === k.d], [true, true])
			same("map", [[...k.m.keys()][0].k, [...[...k.m.values()][0]]], [1, [1]])
			same("boxed", [typeof k.bool, k.bool.valueOf(), k.str.valueOf()], ["object", false, "s"])
			const e = c(new RangeError("m", { cause: { x: 1 } }))
			same("error", [e instanceof RangeError, e.message, e.name, e.cause, typeof e.stack], [true, "m", "RangeError", { x: 1 }, "string"])
			class Mine extends Error { name = "Mine" }
			same("own error", [c(new Mine("m")).constructor === Error, c(new Mine("m")).message], [true, "m"])
			const x = c(new DOMException("m", "AbortError")); same("exception", [x.name, x.message, x.code, x instanceof DOMException], ["AbortError", "m", 20, true])
			const buffer = new ArrayBuffer(8), views = c([new Uint8Array(buffer, 2, 3), new Float64Array(buffer), new DataView(buffer, 1)])
			same("views", [views[0].length, views[0].byteOffset, views[1].length, views[2].byteOffset, views[0].buffer === views[1].buffer, views[0].buffer === buffer], [3, 2, 1, 1, true, false])
			const growing = c(new Uint8Array(new ArrayBuffer(2, { maxByteLength: 8 }))); growing.buffer.resize(4); same("growing", growing.length, 4)
			const moved = c(buffer, { transfer: [buffer] }); same("transferred", [moved.byteLength, buffer.byteLength, buffer.detached], [8, 0, true])
			same("class", c(new (class { a = 1; get b() { return 2 } })), { a: 1 })
			same("getters", c({ get a() { return 3 } }), { a: 3 })
			same("null prototype", c({ __proto__: null, a: 1 }), { a: 1 })
			same("own __proto__", Object.keys(c(JSON.parse('{"__proto__":1}'))), ["__proto__"])
			const liar = { [Symbol.toStringTag]: "Map", size: 3, a: 1 }; same("pretender", c(liar), { size: 3, a: 1 })
			const fails = (name, f) => { throws(name, "DataCloneError", () => c(f())) }
			fails("function", () => () => {}); fails("in an object", () => ({ f() {} })); fails("symbol", () => Symbol("s")); fails("boxed symbol", () => Object(Symbol()))
			fails("weak", () => new WeakMap()); fails("promise", () => Promise.resolve()); fails("proxy", () => new Proxy({}, {})); fails("generator", () => (function* () {})()); fails("detached", () => buffer)
			fails("weak reference", () => new WeakRef({}))
			throws("getter throws", "RangeError", () => c({ get a() { throw new RangeError() } }))
			throws("twice", "DataCloneError", () => { const b = new ArrayBuffer(1); c(1, { transfer: [b, b] }) })
			throws("no value", "TypeError", () => c())`,
		"abort": `
			const a = new AbortController(), seen = []
			a.signal.onabort = (e) => seen.push("on " + e.type)
			a.signal.addEventListener("abort", { handleEvent: (e) => seen.push(e.target === a.signal) })
			a.signal.addEventListener("abort", () => seen.push("never"), { signal: AbortSignal.abort() })
			const any = AbortSignal.any([new AbortController().signal, a.signal])
			a.abort("why"); a.abort("again")
			same("events", [seen, a.signal.aborted, a.signal.reason, any.aborted, any.reason], [["on abort", true], true, "why", true, "why"])
			throws("throwIfAborted", "AbortError", () => AbortSignal.abort().throwIfAborted())
			throws("constructor", "TypeError", () => new AbortSignal())
			const t = AbortSignal.timeout(1); await new Promise((done) => t.addEventListener("abort", done)); same("timeout", t.reason.name, "TimeoutError")`,
		"events": `
			const t = new EventTarget(), seen = [], on = (e) => seen.push(e.type + e.eventPhase)
			t.addEventListener("x", on); t.addEventListener("x", on); t.addEventListener("x", () => seen.push("once"), { once: true })
			t.addEventListener("x", (e) => { e.preventDefault(); e.stopImmediatePropagation() }); t.addEventListener("x", () => seen.push("stopped"))
			const e = new CustomEvent("x", { cancelable: true, detail: { a: 1 } })
			same("dispatch", [t.dispatchEvent(e), e.defaultPrevented, e.detail, e.eventPhase, e.currentTarget, e.target === t], [false, true, { a: 1 }, 0, null, true])
			t.removeEventListener("x", on); t.dispatchEvent(new Event("x"))
			same("seen", seen, ["x2", "once"])
			throws("no event", "TypeError", () => t.dispatchEvent({}))
			class Mine extends EventTarget {}; same("extended", new Mine().dispatchEvent(new Event("y")), true)`,
		"crypto": `
			const hex = async (name, text) => new Uint8Array(await crypto.subtle.digest(name, new TextEncoder().encode(text))).toHex()
			same("sha-1", await hex("SHA-1", "abc"), "a9993e364706816aba3e25717850c26c9cd0d89d")
			same("sha-256", await hex({ name: "sha-256" }, "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
			same("sha-384", await hex("SHA-384", "abc"), "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7")
			same("sha-512", (await hex("SHA-512", "")).slice(0, 16), "cf83e1357eefb8bd")
			same("part", await crypto.subtle.digest("SHA-256", new Uint8Array([120, 97, 98, 99]).subarray(1)).then((b) => new Uint8Array(b).toHex().slice(0, 8)), "ba7816bf")
			await rejects("unknown", "NotSupportedError", () => crypto.subtle.digest("MD5", new Uint8Array()))
			await rejects("no data", "TypeError", () => crypto.subtle.digest("SHA-1", "text"))
			const r = crypto.getRandomValues(new BigUint64Array(4)); same("random", r.some((n) => n !== 0n), true)
			const part = new Uint8Array(8); crypto.getRandomValues(part.subarray(4)); same("subarray", part.subarray(0, 4).toHex(), "00000000")
			throws("floats", "TypeMismatchError", () => crypto.getRandomValues(new Float32Array(1)))
			throws("view", "TypeMismatchError", () => crypto.getRandomValues(new DataView(new ArrayBuffer(1))))
			throws("too many", "QuotaExceededError", () => crypto.getRandomValues(new Uint8Array(65537)))
			same("most", crypto.getRandomValues(new Uint8Array(65536)).some((n) => n), true)`,
		"small things": `
			same("base64", [atob(btoa("\xff\0a")), btoa("")], ["\xff\0a", ""])
			throws("btoa", "InvalidCharacterError", () => btoa("€"))
			throws("atob", "InvalidCharacterError", () => atob("*"))
			same("self", self === globalThis, true)
			const order = []; queueMicrotask(() => order.push(2)); order.push(1); await null; same("microtask", order, [1, 2])
			await rejects("fetch", "GrantError", () => fetch("https://example.com")); await rejects("fetch of nothing", "TypeError", () => fetch("/relative"))
			same("Headers", [...new Headers([["B", " 1 "], ["a", 2], ["b", "3"]])], [["a", "2"], ["b", "1, 3"]]); throws("a name", "TypeError", () => new Headers({ "a b": "c" }))
			const h = new Headers({ a: "b" }); h.set("A", "c"); h.append("a", "d"); h.delete("x"); same("headers", [h.get("a"), h.has("A"), h.get("x"), Object.prototype.toString.call(h)], ["c, d", true, null, "[object Headers]"])
			const r2 = new Response("é"), r3 = Response.json({ a: 1 }, { status: 201 }); same("Response", [r2.status, r2.ok, await r2.clone().text(), r2.bodyUsed, r2.headers.get("content-type"), r3.status, (await r3.json()).a, r3.bodyUsed], [200, true, "é", false, "text/plain;charset=UTF-8", 201, 1, true])
			await rejects("read twice", "TypeError", () => r3.text()); throws("status", "RangeError", () => new Response("", { status: 99 })); throws("no body", "TypeError", () => new Response("x", { status: 204 }))
			const q = new Request(new URL("http://a.example/b#c")); same("Request", [q.method, q.url, q.signal.aborted, q.signal === q.signal, q.body, q.bodyUsed, await q.text(), Object.keys(q).length, Object.prototype.toString.call(q)], ["GET", "http://a.example/b#c", false, true, null, false, "", 0, "[object Request]"])
			const q2 = new Request("http://a.example/", { method: "PUT", body: "{}" }), q3 = new Request(q2, { headers: { a: "b" } }); same("Request of a Request", [q2.bodyUsed, q3.method, q3.headers.get("a"), await q3.json()], [true, "PUT", "b", {}])
			throws("a body of GET", "TypeError", () => new Request("http://a.example/", { body: "x" })); throws("no URL", "TypeError", () => new Request("/x")); throws("credentials", "TypeError", () => new Request("http://u@a.example/")); throws("a method", "TypeError", () => new Request("http://a.example/", { method: "a b" }))
			throws("used", "TypeError", () => q2.clone()); throws("another's", "TypeError", () => Object.getOwnPropertyDescriptor(Request.prototype, "url").get.call(r2)); await rejects("no body of its own", "TypeError", () => Response.prototype.text.call({}))
			same("cookies", [...new Headers([["set-cookie", "a"], ["set-cookie", "b"], ["c", "d"]])], [["c", "d"], ["set-cookie", "a"], ["set-cookie", "b"]])
			same("bytes", [await new Response("\ufeffx").text(), await new Response(new Uint8Array([0xff])).text(), await new Response("\ufeff[1]").json(), await new Response(null).text(), (await new Response().arrayBuffer()).byteLength], ["x", "\ufffd", [1], "", 0]); await rejects("no JSON", "SyntaxError", () => new Response("{").json())
			same("clock", [performance.now() < 5000, Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 1000], [true, true])
			same("time zone", [new Date(0).getTimezoneOffset(), new Date(0).toString().includes("GMT+0000")], [0, true])
			same("not enumerable", Object.keys(globalThis), [])`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := loadScript(t, "export default async () => {"+checks+body+"\n; return { wrong } }")
			if got := reply(t, f, `1`); got != `{"wrong":[]}` {
				t.Errorf("%s", strings.ReplaceAll(got, `","`, "\n"))
			}
		})
	}
}

// hostileValues are values that an API may be given and that do whatever a script can do while it looks at them.
const hostileValues = `
const bomb = () => { throw new RangeError("bomb") }
const detached = () => { const b = new ArrayBuffer(16); const v = new Uint8Array(b); structuredClone(0, { transfer: [b] }); return v }
const shrunk = () => { const b = new ArrayBuffer(16, { maxByteLength: 32 }); const v = new Uint8Array(b, 8); b.resize(4); return v }
const hostileValues = [
	undefined, null, NaN, -1, 2 ** 53, 1n, Symbol("s"), "", "\ud800", "x".repeat(3e5), {}, [], [[]], () => {}, bomb, class {},
	new Proxy({}, { get: bomb }), new Proxy({}, { ownKeys: bomb, getPrototypeOf: bomb }), new Proxy([], { get: bomb }), new Proxy(new Uint8Array(4), {}), Proxy.revocable({}, {}).proxy,
	{ toString: bomb }, { valueOf: bomb, toString: null }, { [Symbol.toPrimitive]: bomb }, { [Symbol.iterator]: bomb }, { [Symbol.iterator]: () => ({ next: bomb }) },
	{ get type() { throw 1 }, get length() { throw 1 }, get name() { throw 1 }, get stream() { throw 1 }, get transfer() { throw 1 }, get signal() { throw 1 }, get once() { throw 1 } },
	{ length: 2 ** 32 }, { then: bomb }, { get then() { throw 1 } },
	detached(), detached().buffer, shrunk(), new Uint8Array(0), new Uint8Array(5).subarray(5), new DataView(new ArrayBuffer(0)), new SharedArrayBuffer(8), new Uint8Array(new SharedArrayBuffer(8)),
	new Float64Array(3), new BigInt64Array(1), new Array(1000), new Map([[NaN, NaN]]), new Set([bomb]), new Date(NaN), /x/, new Error("e"), Object.create(null), Object.create(URL.prototype), Object.create(AbortSignal.prototype),
	new Promise(() => {}), new WeakMap(), globalThis, (function () { return arguments })(1),
]
const apis = {
	TextEncoder: (a, b) => new TextEncoder().encode(a), into: (a, b) => new TextEncoder().encodeInto(a, b), TextDecoder: (a, b) => new TextDecoder(a, b), decode: (a, b) => new TextDecoder("utf-8", b).decode(a, b), utf16: (a) => new TextDecoder("utf-16le").decode(a),
	URL: (a, b) => new URL(a, b), base: (a) => new URL("x", a), parse: (a, b) => URL.parse(a, b), canParse: (a, b) => URL.canParse(a, b), setters: (a) => { const u = new URL("http://h"); for (const k of Object.keys(URL.prototype)) { try { u[k] = a } catch {} } return u.href },
	params: (a) => new URLSearchParams(a), append: (a, b) => { const u = new URL("http://h"); u.searchParams.append(a, b); u.searchParams.set(a, b); return u.href }, each: (a) => new URLSearchParams("a=b").forEach(a),
	structuredClone: (a, b) => structuredClone(a, b), transfer: (a) => structuredClone(1, { transfer: a }), transferOne: (a) => structuredClone(1, { transfer: [a] }),
	random: (a) => crypto.getRandomValues(a), digest: (a, b) => crypto.subtle.digest(a, b).catch(() => {}), digestOf: (a) => crypto.subtle.digest("SHA-256", a).catch(() => {}),
	event: (a, b) => new CustomEvent(a, b), dispatch: (a) => new EventTarget().dispatchEvent(a), listen: (a, b) => { const t = new EventTarget(); t.addEventListener(a, b, a); t.addEventListener("x", a, b); t.removeEventListener(a, b, b) },
	any: (a) => AbortSignal.any(a), anyOne: (a) => AbortSignal.any([a]), timeout: (a) => AbortSignal.timeout(a), abort: (a) => { const c = new AbortController(); c.signal.onabort = a; AbortSignal.abort(a) },
	atob: (a) => atob(a), btoa: (a) => btoa(a), console: (a, b) => { console.log(a, b); console.log("%s %d %i %f %o %O %c", a, b, a, b, a, b); console.table(a); console.dir(a); console.count(a); console.time(a); console.timeEnd(b); console.assert(a, b); console.group(a); console.groupEnd() },
	setTimeout: (a, b) => clearTimeout(setTimeout(a, b)), microtask: (a) => { if (typeof a !== "function") queueMicrotask(a) }, fetch: (a, b) => fetch(a, b), log: (a) => ctx.log(a), Fail: (a, b) => new ctx.Fail(a, b),
}
`

// TestScriptHostileInput calls every API with everything that is hostileValues: each call returns or throws, and the
// next one finds everything as it was.
func TestScriptHostileInput(t *testing.T) {
	t.Parallel()
	limits := cell.DefaultLimits()
	limits.Memory, limits.Timeout = 256<<20, time.Minute
	f := load(t, script("let ctx;"+hostileValues+`
		export default async (event, c) => {
			ctx = c
			let calls = 0, thrown = 0
			for (const [name, api] of Object.entries(apis)) {
				if (name === "event" && event.data === "none") continue
				for (const a of hostileValues) for (const b of [undefined, a, hostileValues[20], {}, new Uint8Array(4)]) {
					calls++
					try { await api(a, b) } catch (e) { thrown++ }
				}
			}
			return { calls: calls > 5000, thrown: thrown > 1000, still: new URL("http://h/ä").href + new TextDecoder().decode(new TextEncoder().encode("ä")) }
		}`), limits)
	result, _, err := f.Invoke(t.Context(), cell.Input{Event: event(`1`)})
	if want := `{"calls":true,"thrown":true,"still":"http://h/%C3%A4ä"}`; err != nil || string(result.Reply) != want {
		t.Errorf("reply = %s, %v; want %s", result.Reply, err, want)
	}
}

// TestScriptReplacedBuiltins: whatever a script replaces, the host gets nothing that it does not take.
func TestScriptReplacedBuiltins(t *testing.T) {
	t.Parallel()
	f := load(t, script(`export default async (event, ctx) => {
		new Function(event.data)()
		const run = (f) => { try { return f() } catch (e) { return e } }
		run(() => console.log("a", { b: 1 })); run(() => new URL("https://example.com/ä?x=1").searchParams.append("a", "b")); run(() => new TextDecoder().decode(new TextEncoder().encode("ä")))
		run(() => structuredClone(new Map([[1, [2]]]))); run(() => crypto.randomUUID()); run(() => crypto.getRandomValues(new Uint8Array(4))); run(() => new AbortController().abort())
		run(() => ctx.publish("a.b", { n: 1 })); run(() => ctx.deadline)
		await (async () => {})()
		throw new Error("end")
	}`), limitsWith(time.Second))
	for _, name := range []string{
		"String.prototype.toWellFormed", "String.prototype.replaceAll", "String.prototype.slice", "Array.prototype.map", "Array.prototype.join", "Array.prototype.push", "Array.prototype.filter",
		"Map.prototype.get", "Map.prototype.set", "Object.defineProperty", "Object.keys", "JSON.stringify", "JSON.parse", "Function.prototype.call", "Uint8Array.prototype.subarray",
		"Promise.prototype.then", "Promise.resolve", "globalThis.Uint8Array", "globalThis.DOMException", "globalThis.String", "Object.prototype.toJSON", "Error.prepareStackTrace",
	} {
		for what, replacement := range map[string]string{
			"too much":     `() => new Uint8Array(2 << 20)`,
			"an object":    `() => ({ toString() { console.log("nested"); new TextEncoder().encode("nested"); return "x" } })`,
			"an exception": `() => { throw new Error("replaced") }`,
			"the engine's": `(...a) => { structuredClone({ a: 1 }); new URL("https://example.com/?a=b").searchParams.get("a"); return a[0] }`,
			"no function":  `1`,
		} {
			code, err := json.Marshal(name + " = " + replacement)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = f.Invoke(t.Context(), cell.Input{Event: event(string(code))})
			switch p := problem.From(err); p.Code {
			case "cell.function_failed", "cell.never_settles", "cell.bad_result", "cell.timeout", "cell.memory":
			default:
				t.Errorf("with %s replaced by %s it ended as %v", name, what, err)
			}
		}
	}
}

// TestScriptLimitsOfTheWeb: what these APIs take is counted as everything else is.
func TestScriptLimitsOfTheWeb(t *testing.T) {
	t.Parallel()
	small := cell.DefaultLimits()
	small.Memory, small.Timeout = 16<<20, time.Minute
	for _, tt := range []struct{ name, source, code string }{
		{"clone", `const big = new Uint8Array(9 << 20); export default () => structuredClone(big).length`, "cell.memory"},
		{"encode", `export default () => new TextEncoder().encode("é".repeat(6 << 20)).length`, "cell.memory"},
		{"decode", `export default () => new TextDecoder("latin1").decode(new Uint8Array(5 << 20).fill(0x80)).length`, "cell.memory"},
		{"digest for ever", `const a = new Uint8Array(1 << 20); export default async () => { for (;;) await crypto.subtle.digest("SHA-512", a) }`, "cell.timeout"},
		{"parse for ever", `const a = "http://h/" + "a/".repeat(30000); export default () => { for (;;) new URL(a) }`, "cell.timeout"},
		{"events for ever", `export default () => { const t = new EventTarget(); t.addEventListener("x", () => t.dispatchEvent(new Event("x"))); t.dispatchEvent(new Event("x")) }`, "cell.function_failed"},
		{"a list without end", `export default () => new URLSearchParams(new Array(2 ** 32 - 1))`, "cell.function_failed"},
		{"signals without end", `export default () => AbortSignal.any(new Array(2 ** 32 - 1))`, "cell.memory"},
		{"timers for ever", `export default () => new Promise(() => setInterval(() => {}, 0))`, "cell.timeout"},
		{"deep clone", `export default () => { let a = {}; for (let i = 0; i < 1e5; i++) a = { a }; structuredClone(a) }`, "cell.function_failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limits := small
			if tt.code == "cell.timeout" {
				limits.Timeout = short
			}
			f := load(t, script(tt.source), limits)
			_, _, err := f.Invoke(t.Context(), cell.Input{Event: event(`1`)})
			if p := problem.From(err); p.Code != tt.code {
				t.Errorf("it ended as %v; want %s", err, tt.code)
			}
		})
	}
}

// TestScriptPollution: what one event does to prototypes and globals, the next does not see.
func TestScriptPollution(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `let kept = "clean"; const list = [], params = new URLSearchParams("a=1")
		export default async (event, ctx) => {
			const found = [({}).polluted, [].polluted, (() => {}).polluted, globalThis.polluted, kept, list.length, "" + params, typeof Array.prototype.map, JSON.stringify({ a: 1 }), typeof URL, new URL("http://h").href,
				crypto.polluted, performance.polluted, console.polluted, Symbol.for("p").description, new Date(0).toISOString === polluted]
			Object.prototype.polluted = Array.prototype.polluted = Function.prototype.polluted = globalThis.polluted = kept = event.data
			list.push(1); params.append("b", "2"); console.polluted = performance.polluted = 1
			delete Array.prototype.map; JSON.stringify = () => "x"; globalThis.URL = null
			Date.prototype.toISOString = polluted; Promise.prototype.then = function () { throw 1 }; Date.now = () => 0; Math.random = () => 0
			setTimeout(() => {}, 1e6); new AbortController().signal.addEventListener("abort", polluted)
			return { found }
		}; function polluted() {}`)
	want := ""
	for i := range 20 {
		got := reply(t, f, fmt.Sprintf(`"event %d"`, i))
		if i == 0 {
			want = got
		}
		if got != want || strings.Contains(got, "event") {
			t.Fatalf("event %d found %s; the first one %s", i, got, want)
		}
	}
}

// TestScriptRandomness: no number is drawn twice, and what the top level draws is drawn once.
func TestScriptRandomness(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `const top = [Math.random(), crypto.randomUUID(), crypto.getRandomValues(new Uint32Array(4)).join()].join(" ")
		export default () => ({ top, drawn: [Math.random(), Math.random(), crypto.randomUUID(), crypto.getRandomValues(new Uint32Array(4)).join()].map(String) })`)
	seen := map[string]int{}
	top := ""
	for i := range 1000 {
		var got struct {
			Top   string
			Drawn []string
		}
		decode(t, reply(t, f, `1`), &got)
		if top == "" {
			top = got.Top
		}
		if got.Top != top {
			t.Fatalf("the top level drew %s, then %s: it was evaluated twice", top, got.Top)
		}
		for _, number := range got.Drawn {
			if before, ok := seen[number]; ok {
				t.Fatalf("invocations %d and %d drew %s", before, i, number)
			}
			seen[number] = i
		}
	}
	if len(seen) != 4000 {
		t.Errorf("%d numbers were drawn; want 4000", len(seen))
	}
}

// TestScriptClocks: each event has its own time, whatever the image's was.
func TestScriptClocks(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `const top = { now: Date.now(), origin: performance.timeOrigin }; await new Promise((done) => setTimeout(done, 30)); performance.now()
		export default () => ({ top, now: Date.now(), date: new Date().getTime(), origin: performance.timeOrigin, ran: performance.now() })`)
	type clocks struct{ Now, Origin, Date, Ran float64 }
	last := 0.0
	for range 5 {
		before := float64(time.Now().UnixMilli())
		var got struct {
			clocks
			Top clocks
		}
		decode(t, reply(t, f, `1`), &got)
		after := float64(time.Now().UnixMilli())
		if got.Now < before || got.Now > after || got.Date < got.Now || got.Date > after {
			t.Errorf("Date.now is %v, new Date %v; want them from %v to %v", got.Now, got.Date, before, after)
		}
		// The origin is the beginning of the event, so that it is not the image's either.
		if got.Origin < before-1 || got.Origin > after+1 || got.Ran < 0 || got.Ran > after-before+1 {
			t.Errorf("the origin is %v, and %v ms ran; want it from %v to %v", got.Origin, got.Ran, before, after)
		}
		if got.Top.Now >= got.Now || got.Now < last {
			t.Errorf("the clock went from %v over %v to %v", got.Top.Now, last, got.Now)
		}
		last = got.Now
		time.Sleep(2 * time.Millisecond) // the clock is what is tested
	}
}

// TestScriptConsole holds what console adds to the levels of ctx.log.
func TestScriptConsole(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `export default () => {
		console.log("%s has %d of %i, %f, %o%%", "a", 4.7, "12px", "1.5", { b: 1 }, "rest"); console.log("%s"); console.log("100%", 1); console.info("%c", "red", "i"); console.debug("d")
		console.group("g"); console.warn("in", 1); console.group(); console.error("deep"); console.groupEnd(); console.groupEnd(); console.groupEnd()
		console.assert(true, "no"); console.assert(false, "yes"); console.count(); console.count(); console.countReset(); console.count("x"); console.timeEnd("none")
		console.dir({ a: 1 }); console.table([1]); console.log(new Map([[1, { a: 2 }]]), new Set(["s"])); console.clear(); console.log("\ud800")
	}`)
	_, log, err := invoke(t, f, `1`)
	if err != nil {
		t.Fatal(err)
	}
	want := lines{
		`info a has 4 of 12, 1.5, {"b":1}% rest`, "info %s", "info 100% 1", "info  i", "debug d", "info g", "warn   in 1", "error     deep",
		"error Assertion failed yes", "info default: 1", "info default: 2", "info x: 1", "warn there is no timer none",
		`info {"a":1}`, "info [1]", `info Map [[1,{"a":2}]] Set ["s"]`, "info \ufffd",
	}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Errorf("log differs:\n%s", diff)
	}
}

// TestScriptCallbacksThatThrow: an exception that nobody can catch fails the attempt.
func TestScriptCallbacksThatThrow(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"listener":     `export default async () => { const t = new EventTarget(); t.addEventListener("x", () => { throw new Error("lost") }); t.dispatchEvent(new Event("x")); await null; return 1 }`,
		"abort":        `export default async () => { const c = new AbortController(); c.signal.onabort = () => { throw new Error("lost") }; c.abort(); return 1 }`,
		"reportError":  `export default () => { reportError(new Error("lost")); return 1 }`,
		"microtask":    `export default () => { queueMicrotask(() => { throw new Error("lost") }); return 1 }`,
		"timer of any": `export default () => new Promise(() => { AbortSignal.timeout(1).onabort = () => { throw new Error("lost") } })`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantText(t, failure(t, loadScript(t, source), `1`, "cell.function_failed").Public, "lost")
		})
	}
}
