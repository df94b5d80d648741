package cell_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// granted are the grants of the functions of these tests.
var granted = []cell.GrantSpec{
	{Name: "other", Kind: "invoke", Request: 1 << 10, Reply: 1 << 20}, {Name: "store", Kind: "kv", Request: 1 << 10, Reply: 40 << 20},
	{Name: "db", Kind: "sql", Request: 1 << 10, Reply: 1 << 20},
	{Name: "api", Kind: "http", About: "GET POST https://api.example.org:443/v1/{kind}/pre-{id}.json", Request: 1 << 10, Reply: 1 << 20},
	{Name: "files", Kind: "http", About: "GET http://127.0.0.1:8080/files/{path...}", Request: 1 << 10, Reply: 1 << 20},
}

// loadGranted loads a script that has them.
func loadGranted(t *testing.T, limits cell.Limits, code string) *cell.Function {
	t.Helper()
	engine := testEngine(t)
	fn, err := engine.Load(t.Context(), cell.Spec{Name: "fn.js", Kind: api.ModuleScript, Code: []byte(code), Grants: granted}, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fn.Close(context.Background()) })
	return fn
}

// echoUse answers with what it was asked.
func echoUse(_ context.Context, u cell.GrantUse) cell.GrantAnswer {
	return cell.GrantAnswer{JSON: []byte(`{"grant":"` + u.Grant + `","op":"` + u.Op + `","request":` + string(u.Request) + `}`), Body: u.Body}
}

// stored answers as a kv grant does: each key is its own value, but for some.
func stored(_ context.Context, u cell.GrantUse) cell.GrantAnswer {
	key := strings.TrimSuffix(strings.TrimPrefix(string(u.Request), `{"key":`), `}`)
	switch key {
	case `"none"`:
		return cell.GrantAnswer{JSON: []byte("null")}
	case `"bytes"`:
		return cell.GrantAnswer{JSON: []byte(`{"version":7}`), Body: []byte{1, 2}}
	case `"no bytes"`:
		return cell.GrantAnswer{JSON: []byte(`{"version":7}`)}
	case `"fail"`:
		return cell.FailedUse(problem.New(problem.Unavailable, "grant.test", "it is busy"))
	}
	return cell.GrantAnswer{JSON: []byte(`{"value":` + key + `,"version":7}`)}
}

func TestGrantFromScript(t *testing.T) {
	t.Parallel()
	meet := make(chan struct{})
	for _, test := range []struct {
		name, handler, want string
		use                 func(context.Context, cell.GrantUse) cell.GrantAnswer
	}{
		{"call", `const r = await ctx.grants.store.call("get", { key: "k" }, new Uint8Array([1, 2])); return [r.value, [...r.body]].toString() + JSON.stringify(r.value)`,
			`"[object Object],1,2{\"grant\":\"store\",\"op\":\"get\",\"request\":{\"key\":\"k\"}}"`, echoUse},
		{"kinds", `return Object.keys(ctx.grants).map((n) => n + ":" + ctx.grants[n].kind).join()`, `"api:http,db:sql,files:http,other:invoke,store:kv"`, echoUse},
		{"kv get", `const g = ctx.grants.store; return [await g.get("é"), await g.get("\ud800").catch((e) => e.code), await g.get(1), (await g.entry("k")).version].join()`, `"é,grant.request_invalid,1,7"`, stored},
		{"kv get of nothing", `return { a: await ctx.grants.store.get("none"), b: await ctx.grants.store.entry("none") }`, `{"a":null,"b":null}`, stored},
		{"kv get of no bytes", `const v = await ctx.grants.store.get("no bytes"); return [v instanceof Uint8Array, v.length].join()`, `"true,0"`, stored},
		{"kv get of bytes", `const v = await ctx.grants.store.get("bytes"); return [v instanceof Uint8Array, ...v].join()`, `"true,1,2"`, stored},
		{"kv get that fails", `return await ctx.grants.store.get("fail").catch((e) => e.code)`, `"grant.test"`, stored},
		{"kv gets at once", `const g = ctx.grants.store; return (await Promise.all([g.get("a"), g.call("get", { key: "b" }), g.get("c")])).map((v) => v.value?.value ?? v).join()`, `"a,b,c"`, stored},
		{"kv get is a promise", `const order = []; const got = ctx.grants.store.get("a").then(() => order.push(2)); order.push(1); await got; return order.join()`, `"1,2"`, stored},
		{"invoke", `return await ctx.grants.other.invoke({ a: 1 })`, `{"grant":"other","op":"invoke","request":{"data":{"a":1}}}`, echoUse},
		{"unknown member", `return ctx.grants.nothing === undefined`, `true`, echoUse},
		{"error", `try { await ctx.grants.store.call("get") } catch (e) { return [e.name, e.code, e.message, e.retry].join("|") }`,
			`"GrantError|grant.test|it is busy|true"`, func(context.Context, cell.GrantUse) cell.GrantAnswer {
				return cell.FailedUse(problem.New(problem.Unavailable, "grant.test", "it is busy"))
			}},
		{"error that nothing catches", `await ctx.grants.store.call("get")`, "", func(context.Context, cell.GrantUse) cell.GrantAnswer {
			return cell.FailedUse(problem.New(problem.Unavailable, "grant.test", "it is busy"))
		}},
		// The two uses wait for each other: one after the other, they would never end.
		{"at once", `const g = ctx.grants.store; return (await Promise.all([g.call("a"), g.call("b")])).map((r) => r.value).join()`, `"a,b"`,
			func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
				select {
				case meet <- struct{}{}:
				case <-meet:
				case <-ctx.Done():
				}
				return cell.GrantAnswer{JSON: []byte(`"` + u.Op + `"`)}
			}},
		{"timers fire meanwhile", `return await Promise.race([ctx.grants.store.call("a"), new Promise((r) => setTimeout(r, 1, "timer"))])`, `"timer"`,
			func(ctx context.Context, _ cell.GrantUse) cell.GrantAnswer {
				<-ctx.Done()
				return cell.GrantAnswer{}
			}},
		{"too large", `try { await ctx.grants.store.call("put", { v: "x".repeat(2000) }) } catch (e) { return e.code }`, `"grant.request_too_large"`, echoUse},
		{"as many as may be", `let codes = {}; await Promise.all(Array.from({ length: 100 }, () => ctx.grants.store.call("a").catch((e) => { codes[e.code] = (codes[e.code] ?? 0) + 1 }))); return codes`,
			`{"grant.too_many_uses":36}`, echoUse},
		{"parameters", `const g = ctx.grants.db, q = async (...v) => JSON.stringify((await g.find(...v)).request.params); return [await q("a\"\n", 1, -2, true, null, undefined), await q(), await q(0.5, -0, 1e21, NaN), await q(10n, new Date(0), { a: 1 }), await q(new Uint8Array([1])), await q("\ud800").catch((e) => e.code), g.find === g.find, g.then, g.kind].join("|")`,
			`"[\"a\\\"\\n\",1,-2,true,null,null]|[]|[0.5,0,1e+21,null]|[\"10\",\"1970-01-01T00:00:00.000Z\",{\"a\":1}]|[{\"$bytes\":\"AQ==\"}]|grant.request_invalid|true||sql"`, echoUse},
		{"uses that throw", `const g = ctx.grants, loop = {}; loop.loop = loop; return [await g.store.call("a", loop).catch((e) => e.name), await g.store.call("a", { toJSON() { throw new RangeError() } }).catch((e) => e.name), await g.store.set("k", 1n).catch((e) => e.name),
			await g.store.get({ toJSON() { throw new RangeError() } }).catch((e) => e.name), await g.store.call("a", {}, 7).catch((e) => e.name), await g.store.call("a", () => 1).catch((e) => e.code), await g.db.find({ toJSON() { throw new RangeError() } }).catch((e) => e.name)].join()`,
			`"TypeError,RangeError,TypeError,RangeError,TypeError,grant.request_invalid,RangeError"`, echoUse},
		{"an answer that is no JSON", `return await ctx.grants.store.call("a").catch((e) => e.name)`, `"SyntaxError"`, func(context.Context, cell.GrantUse) cell.GrantAnswer {
			return cell.GrantAnswer{JSON: []byte(`{"a"`)}
		}},
		{"uses within a use", `Object.defineProperty(Object.prototype, "then", { configurable: true, get() { delete Object.prototype.then; globalThis.inner = ctx.grants.store.get("b"); return undefined } }); await ctx.grants.store.call("a"); return await inner`, `null`, func(context.Context, cell.GrantUse) cell.GrantAnswer {
			return cell.GrantAnswer{JSON: []byte(`{"value":null}`)}
		}},
		{"large answers, one after the other", `let codes = {}; await Promise.all(Array.from({ length: 2 }, () => ctx.grants.store.call("a").catch((e) => { codes[e.code] = (codes[e.code] ?? 0) + 1 }))); return codes`,
			`{}`, func(context.Context, cell.GrantUse) cell.GrantAnswer {
				return cell.GrantAnswer{Body: make([]byte, 20<<20)}
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			limits := cell.DefaultLimits()
			limits.Timeout, limits.Memory = time.Minute, 256<<20
			fn := loadGranted(t, limits, `export default async (event, ctx) => {`+test.handler+`}`)
			for range 2 { // fresh, and in the instance of the first
				result, _, err := fn.Invoke(t.Context(), cell.Input{Event: []byte(`{}`), Use: test.use})
				if test.want == "" {
					if f, ok := cell.Failed(err); !ok || !strings.Contains(f.Message, "GrantError: it is busy") {
						t.Fatalf("Invoke() = %v, want a GrantError", err)
					}
					continue
				}
				if err != nil || string(result.Reply) != test.want {
					t.Fatalf("Invoke() = %s, %v; want %s", result.Reply, err, test.want)
				}
			}
		})
	}
}

// TestGrantWaitIsInterrupted: a use that never answers ends with the invocation.
func TestGrantWaitIsInterrupted(t *testing.T) {
	t.Parallel()
	limits := cell.DefaultLimits()
	limits.Timeout = 100 * time.Millisecond
	fn := loadGranted(t, limits, `export default async (event, ctx) => ctx.grants.store.call("get")`)
	never := make(chan struct{})
	defer close(never)
	hang := func(context.Context, cell.GrantUse) cell.GrantAnswer {
		<-never
		return cell.GrantAnswer{}
	}
	_, usage, err := fn.Invoke(t.Context(), cell.Input{Event: []byte(`{}`), Use: hang})
	if code := problem.From(err).Code; code != "cell.timeout" {
		t.Errorf("Invoke() = %v, want cell.timeout", err)
	}
	if usage.CPU > usage.Duration/2 {
		t.Errorf("the wait of %s counted as %s of processor time", usage.Duration, usage.CPU)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	begun := func(context.Context, cell.GrantUse) cell.GrantAnswer {
		cancel()
		<-over // an answer would come too late
		return cell.GrantAnswer{}
	}
	defer close(over)
	if _, _, err = fn.Invoke(ctx, cell.Input{Event: []byte(`{}`), Use: begun}); problem.From(err).Code != "cell.canceled" {
		t.Errorf("Invoke() = %v, want cell.canceled", err)
	}
}

// TestGrantsAreNotThereWhileLoading: a script that uses a grant at its top level would use it once for all events.
func TestGrantsAreNotThereWhileLoading(t *testing.T) {
	t.Parallel()
	fn := loadGranted(t, cell.DefaultLimits(), `let kept; export default async (event, ctx) => { kept ??= ctx.grants; return kept === ctx.grants }`)
	result, _, err := fn.Invoke(t.Context(), cell.Input{Event: []byte(`{}`), Use: echoUse})
	if err != nil || string(result.Reply) != "true" {
		t.Errorf("Invoke() = %s, %v", result.Reply, err)
	}
}

// TestFetch: fetch finds the grant that covers a URL, and makes a Response of what comes of it.
func TestFetch(t *testing.T) {
	t.Parallel()
	served := func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
		if strings.Contains(string(u.Request), "slow") {
			<-ctx.Done()
		}
		if strings.Contains(string(u.Request), "refused") {
			return cell.FailedUse(problem.New(problem.Denied, "fetch.value_refused", "no"))
		}
		return cell.GrantAnswer{JSON: []byte(`{"status":201,"headers":[["x-use","` + u.Grant + " " + u.Op + `"],["x-two","a"],["x-two","b"]],"url":"https://end.example/"}`), Body: append(append([]byte(nil), u.Request...), u.Body...)}
	}
	for _, test := range []struct{ name, handler, want string }{
		{"URL", `const r = await fetch("HTTPS://API.example.org/v1/a b/pre-x%2fy.json?q=1#f", { headers: { Accept: "text/plain" } }); return { r: [r.status, r.ok, r.redirected, r.url, r.headers.get("X-Use"), r.headers.get("x-two"), await r.json()] }`,
			`{"r":[201,true,true,"https://end.example/","api fetch","a, b",{"url":"https://api.example.org/v1/a%20b/pre-x%2fy.json?q=1","method":"GET","headers":[["accept","text/plain"]]}]}`},
		{"body", `const r = await fetch(new URL("https://api.example.org/v1/a/pre-x.json"), { method: "post", body: new URLSearchParams({ a: "b c" }) }); return await r.text()`,
			`"{\"url\":\"https://api.example.org/v1/a/pre-x.json\",\"method\":\"POST\",\"headers\":[[\"content-type\",\"application/x-www-form-urlencoded;charset=UTF-8\"]]}a=b+c"`},
		{"bytes", `const r = await ctx.grants.api.fetch({ method: "POST", values: { kind: "a", id: 1 }, query: { q: [1, "2"] }, headers: { "content-type": "x/y" }, body: new Uint8Array([65, 66]) }); return { r: [r.redirected, await r.text()] }`,
			`{"r":[false,"{\"values\":{\"kind\":\"a\",\"id\":1},\"query\":{\"q\":[1,\"2\"]},\"method\":\"POST\",\"headers\":[[\"content-type\",\"x/y\"]]}AB"]}`},
		{"rest", `return (await fetch("http://127.0.0.1:8080/files/a/b/c")).headers.get("x-use")`, `"files fetch"`},
		{"not covered", `const codes = []; for (const [u, m] of [["https://api.example.org/v1/a/x.json"], ["https://api.example.org/v1/a/pre-.json"], ["https://api.example.org/v1/a/pre-x.json/"], ["https://api.example.org/v1/a/pre-x.json", "PUT"],
			["https://api.example.org:8443/v1/a/pre-x.json"], ["http://api.example.org/v1/a/pre-x.json"], ["https://api.example.org.evil/v1/a/pre-x.json"], ["http://127.0.0.1:8080/files/"], ["http://127.0.0.1/files/a"], ["file:///etc/passwd"]])
			await fetch(u, { method: m }).then(() => codes.push(u), (e) => codes.push(e.code === "fetch.not_covered" && e.name === "GrantError" && e.message.includes("http = "))); return codes.every((c) => c === true) || codes`, `true`},
		{"credentials", `try { await fetch("https://u:p@api.example.org/v1/a/pre-x.json") } catch (e) { return e.name }`, `"TypeError"`},
		{"refused", `try { await ctx.grants.api.fetch({ values: { id: "refused" } }) } catch (e) { return { r: [e.code, e.retry] } }`, `{"r":["fetch.value_refused",false]}`},
		{"aborted", `const c = new AbortController(); const p = fetch("http://127.0.0.1:8080/files/slow", { signal: c.signal }); c.abort(); try { await p } catch (e) { return e.name }`, `"AbortError"`},
		{"Request", `const q = new Request("https://api.example.org/v1/a/pre-x.json#f", { method: "post", body: "é", headers: [["X-A", "1"]] }); const r = await fetch(q.clone()); const again = await fetch(q, { method: "GET" }).catch((e) => e.name);
			return { r: [q.method, q.bodyUsed, await r.text(), again, await q.text(), q.bodyUsed, await fetch(q).catch((e) => e.name)] }`,
			`{"r":["POST",false,"{\"url\":\"https://api.example.org/v1/a/pre-x.json\",\"method\":\"POST\",\"headers\":[[\"content-type\",\"text/plain;charset=UTF-8\"],[\"x-a\",\"1\"]]}é","TypeError","é",true,"TypeError"]}`},
		{"Request that is sent", `const q = new Request("https://api.example.org/v1/a/pre-x.json", { method: "POST", body: new Uint8Array([65]), headers: { a: "b" } }); const r = await fetch(q, { headers: { c: "d" } }); return { r: [await r.text(), q.bodyUsed] }`,
			`{"r":["{\"url\":\"https://api.example.org/v1/a/pre-x.json\",\"method\":\"POST\",\"headers\":[[\"c\",\"d\"]]}A",true]}`},
		{"Request that is aborted", `const c = new AbortController(), q = new Request("http://127.0.0.1:8080/files/slow", { signal: c.signal }); const p = fetch(q); c.abort(); return await p.catch((e) => e.name)`, `"AbortError"`},
		{"headers", `const h = new Headers({ b: "2" }); h.append("A", "1"); h.append("B", "3"); const sent = async (headers) => JSON.parse((await (await fetch("http://127.0.0.1:8080/files/a", { headers })).text())).headers.join(" ");
			return [await sent(h), await sent([["x", 1]]), await sent(new Map([["m", true]])), await sent({ n: 7, N: "8" }), await sent({ t: " \n 9 " }), await sent(new Headers(h)), await sent()].join("|")`,
			`"a,1 b,2, 3|x,1|m,true|n,7, 8|t,9|a,1 b,2, 3|"`},
		{"hostile headers", `const bad = [{ a: "b\nx-evil: 1" }, { a: "b\nx\nc" }, { a: "b\r\nc" }, { "a\nb": "c" }, { "a b": "c" }, { "": "c" }, { "é": "c" }, [["a"]], [["a", "b", "c"]], [1], 7, "a", { a: undefined }, { a: Symbol() },
				{ get a() { throw new TypeError("no") } }, new Proxy({}, { ownKeys() { throw new TypeError("no") } }), new Proxy({ a: "b" }, { get(o, k) { if (k === "a") throw new TypeError("no") } })];
			const names = []; for (const headers of bad) names.push(await fetch("http://127.0.0.1:8080/files/a", { headers }).then(() => "sent", (e) => e.name)); return names.every((n) => n === "TypeError") || names`, `true`},
		{"hostile bodies", `const text = async (body) => (await (await fetch("https://api.example.org/v1/a/pre-x.json", { method: "POST", body })).text()).split("}")[1];
			const gone = new Uint8Array(3); gone.buffer.transfer(); return [await text("a\ud800b"), await text({ toString: () => "s" }), await text(new DataView(new ArrayBuffer(1))) === "\0", await text(gone).catch((e) => e.name), await text({ toString() { throw new RangeError() } }).catch((e) => e.name), await text(Symbol()).catch((e) => e.name)].join()`,
			`"a�b,s,true,TypeError,RangeError,TypeError"`},
		{"replaced prototypes", `const evil = () => { throw new Error("replaced") }; const ps = [Array.prototype, String.prototype, Promise.prototype, RegExp.prototype, Map.prototype, URL.prototype, Uint8Array.prototype, Headers.prototype];
				const ks = ["push", "split", "slice", "then", "test", "exec", "trim", "toLowerCase", "toUpperCase", "replace", "concat", "get", "set", "has", "append", "entries", "map", "filter", "indexOf", Symbol.iterator];
				for (let i = 0; i < ps.length; i++) for (let j = 0; j < ks.length; j++) if (ks[j] in ps[i]) ps[i][ks[j]] = evil;
			JSON.parse = JSON.stringify = Object.entries = Object.keys = globalThis.URL = globalThis.Headers = globalThis.Response = globalThis.Promise = evil; Object.prototype.toJSON = undefined;
			const r = await fetch("https://api.example.org/v1/a/pre-x.json", { method: "POST", headers: { a: "b" }, body: "c" }); return [r.status, (await r.text()).length > 10].join()`, `"201,true"`},
		{"a then on the prototype", `Object.defineProperty(Object.prototype, "then", { configurable: true, get() { if (!(this instanceof Promise)) globalThis.looked = (globalThis.looked ?? 0) + 1; return undefined } });
			const r = await fetch("http://127.0.0.1:8080/files/a"); const j = await r.json(); delete Object.prototype.then; return [j.method, looked > 0].join()`, `"GET,true"`},
		{"many, one after the other", `let n = 0; for (let i = 0; i < 3000; i++) n += (await (await fetch("http://127.0.0.1:8080/files/a", { headers: { a: "b" } })).text()).length; return n > 0`, `true`},
		{"many headers", `const headers = []; for (let i = 0; i < 300; i++) headers.push(["a" + i, "b"]); const few = headers.slice(0, 200); return [(await (await fetch("http://127.0.0.1:8080/files/a", { headers: few.slice(0, 40) })).text()).length > 99, await fetch("http://127.0.0.1:8080/files/a", { headers }).catch((e) => e.name + e.message.includes("more headers")),
			await fetch("http://127.0.0.1:8080/files/a", { headers: few }).catch((e) => e.code)].join()`, `"true,TypeErrortrue,grant.request_too_large"`},
		{"a parser's exception calls the script", `let n = 0; Error.prepareStackTrace = () => { if (n++ < 5) new Response("{").json().catch(() => {}); return "" }; const names = [await new Response("{").json().catch((e) => e.name), await fetch("http://127.0.0.1:8080/files/a").then((r) => r.json()).then((j) => j.method)]; return names.join() + n`, `"SyntaxError,GET1"`},
		{"nothing is sent", `return [await fetch().catch((e) => e.name), await fetch(null).catch((e) => e.name), await fetch(Symbol()).catch((e) => e.name), await fetch({ toString() { throw new RangeError() } }).catch((e) => e.name),
			await ctx.grants.api.fetch({ get values() { throw new RangeError() } }).catch((e) => e.name), await ctx.grants.api.fetch({ values: { a: 1n } }).catch((e) => e.name), await fetch("http://127.0.0.1:8080/files/a", { signal: {} }).catch((e) => e.name),
			await fetch("http://127.0.0.1:8080/files/a", { signal: AbortSignal.abort() }).catch((e) => e.name)].join()`, `"TypeError,TypeError,TypeError,RangeError,RangeError,TypeError,TypeError,AbortError"`},
		{"Response", `const r = await fetch("http://127.0.0.1:8080/files/a"), c = r.clone(); const b = await c.bytes(); let stream; try { r.body } catch (e) { stream = e.message }
			return { r: [r.type, r.statusText, b instanceof Uint8Array, (await r.arrayBuffer()).byteLength === b.length, r.bodyUsed, await r.json().catch((e) => e.name), stream.includes("text()"), [...r.headers.keys()].join(), Object.keys(r).length] }`,
			`{"r":["basic","",true,true,true,"TypeError",true,"x-two,x-use",0]}`},
		{"times out", `try { await fetch("http://127.0.0.1:8080/files/slow", { signal: AbortSignal.timeout(1) }) } catch (e) { return e.name }`, `"TimeoutError"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			limits := cell.DefaultLimits()
			limits.Timeout = time.Minute
			fn := loadGranted(t, limits, `export default async (event, ctx) => {`+test.handler+`}`)
			for range 2 {
				result, _, err := fn.Invoke(t.Context(), cell.Input{Event: []byte(`{}`), Use: served})
				if err != nil || string(result.Reply) != test.want {
					t.Fatalf("Invoke() = %s, %v; want %s", result.Reply, err, test.want)
				}
			}
		})
	}
}

// TestGrantFromModule: a module uses grants by the calls of design/abi.md, and one that takes no answers is ended.
func TestGrantFromModule(t *testing.T) {
	t.Parallel()
	limits := cell.DefaultLimits()
	limits.Timeout = time.Minute
	spec := built(t, "reactor")
	spec.Grants = granted
	f := load(t, spec, limits)
	use := func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
		if u.Op == "fail" {
			return cell.FailedUse(problem.New(problem.Unavailable, "grant.test", "it is busy"))
		}
		return echoUse(ctx, u)
	}
	in := func(what string) cell.Input {
		return cell.Input{Event: []byte(`{"id":"e","source":"/s","type":"t","data":{"What":"` + what + `"}}`), Use: use}
	}
	want := `["{\"grant\":\"store\",\"op\":\"a\",\"request\":{\"n\":1}}","body","{\"grant\":\"store\",\"op\":\"b\",\"request\":{}}",` +
		`"grant.test true","grant.not_granted false","grant.request_invalid false"]`
	for range 2 {
		r, _, err := f.Invoke(t.Context(), in("grants"))
		if err != nil || string(r.Reply) != want {
			t.Errorf("Invoke = %s, %v; want %s", r.Reply, err, want)
		}
	}
	if _, _, err := f.Invoke(t.Context(), in("hoard")); problem.From(err).Code != "cell.uses_unread" {
		t.Errorf("Invoke = %v, want cell.uses_unread", err)
	}
}
