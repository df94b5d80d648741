package cell_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// short is the timeout of functions that use it up. soon is what tells an end from none: generous,
// because the tests share two processors with compilations under the race detector, and far below
// forever, which is what a guest that is not stopped takes.
const (
	short   = 100 * time.Millisecond
	soon    = time.Minute
	forever = 5 * time.Minute
)

func limitsWith(timeout time.Duration) cell.Limits {
	limits := cell.DefaultLimits()
	limits.Timeout = timeout
	limits.Memory = 16 << 20
	return limits
}

// limitsFor returns limits that make the wanted failure the first: a timeout comes soon, and comes
// late where something else is to end the invocation.
func limitsFor(code string) cell.Limits {
	if code == "cell.timeout" || code == "" {
		return limitsWith(short)
	}
	return limitsWith(soon)
}

// TestInterruptible is guarantee G5: no guest holds a processor past its deadline, nor memory past
// its limit, nor crashes the host.
func TestInterruptible(t *testing.T) {
	t.Parallel()
	handle := func(body string) string { return "export default async (event, ctx) => {" + body + "}" }
	for _, tt := range []struct{ name, source, code string }{
		{"endless loop", handle(`for (;;) {}`), "cell.timeout"},
		{"endless microtasks", handle(`const spin = () => Promise.resolve().then(spin); await spin()`), "cell.timeout"},
		{"endless await", handle(`for (;;) await null`), "cell.timeout"},
		{"endless timers", handle(`await new Promise(() => setInterval(() => {}, 1))`), "cell.timeout"},
		{"long timer", handle(`await new Promise((done) => setTimeout(done, 1e9))`), "cell.timeout"},
		{"endless generator", handle(`function* all() { for (;;) yield 1 } for (const x of all()) {}`), "cell.timeout"},
		{"exponential recursion", handle(`const f = (n) => n < 1 ? 1 : f(n - 1) + f(n - 2); f(60)`), "cell.timeout"},
		{"caught loop", handle(`for (;;) { try { for (;;) {} } catch {} finally { for (;;) {} } }`), "cell.timeout"},
		{"regular expression bomb", handle(`/^(a+)+$/.test("a".repeat(40) + "!")`), "cell.timeout"},
		{"logging loop", handle(`for (;;) ctx.log("x")`), "cell.timeout"},
		{"random loop", handle(`for (;;) crypto.getRandomValues(new Uint8Array(65536))`), "cell.timeout"},
		{"sorting bomb", handle(`[..."ab"].sort(() => { for (;;) {} })`), "cell.timeout"},
		{"getter in the reply", handle(`return { get x() { for (;;) {} } }`), "cell.timeout"},
		{"toJSON in the reply", handle(`return { toJSON() { for (;;) {} } }`), "cell.timeout"},
		{"getter in the error", handle(`throw { get message() { for (;;) {} } }`), "cell.timeout"},
		{"endless array", handle(`return new Proxy([], { get: (t, k) => k === "length" ? 2 ** 53 - 1 : { type: "a.b" } })`), ""},
		{"big number", handle(`let n = 3n; for (;;) n = n * n`), ""},
		{"memory bomb", handle(`const all = []; for (;;) all.push(new Array(10000).fill(7))`), "cell.memory"},
		{"string bomb", handle(`let s = "x"; for (;;) s += s`), ""},
		{"buffer bomb", handle(`const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1))`), "cell.memory"},
		{"join bomb", handle(`return [].concat(...new Array(1000).fill(new Array(100000).fill("xxxxxxxxxxxxxxxx"))).join()`), ""},
		{"recursion", handle(`const f = () => f() + 1; f()`), ""},
		{"recursion in getters", handle(`const o = { get x() { return this.x } }; o.x`), ""},
		{"deep JSON", handle(`JSON.parse("[".repeat(1e6))`), ""},
		{"deep reply", handle(`let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return { a }`), ""},
		{"deep pattern", handle(`new RegExp("(".repeat(1e5) + ")".repeat(1e5))`), ""},
		{"deep program", handle(`eval("(".repeat(1e5))`), ""},
		{"deep comparison", handle(`let a = 1; for (let i = 0; i < 1e4; i++) a = Object.create(a === 1 ? null : a); a.x`), "none"},
		{"caught exhaustion", handle(`try { const all = []; for (;;) all.push(new Uint8Array(1 << 20)) } catch {} return "alive"`), "none"},
		{"huge reply", handle(`return "x".repeat(2 << 20)`), "cell.output_too_large"},
		{"many events", handle(`for (let i = 0; i < 1000; i++) ctx.publish("a.b")`), "cell.bad_result"},
		{"blocking wait", handle(`new Int32Array(new SharedArrayBuffer(4)); return 1`), "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(tt.source)}, limitsFor(tt.code))
			within(t, soon, func() {
				_, _, err := invoke(t, f, `1`)
				switch {
				case tt.code == "none":
					if err != nil {
						t.Errorf("Invoke = %v", err)
					}
				case err == nil:
					t.Error("Invoke = nil; want a failure")
				case tt.code == "":
					wantKnown(t, err)
				default:
					wantProblem(t, err, problem.FunctionFailed, tt.code)
				}
			})
		})
	}
}

func TestInterruptibleModules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		module assembly
		code   string
	}{
		{"endless loop", assembly{functions: []function{handler(0, opLoop, blockVoid, opBr, 0, opEnd, opConst, 0)}}, "cell.timeout"},
		{"recursion", assembly{functions: []function{handler(0, opCall, 0)}}, "cell.stack_overflow"},
		{"tail call", assembly{functions: []function{handler(0, 0x12, 0)}}, "cell.timeout"},
		{"branching recursion", assembly{functions: []function{handler(0, opConst, 40, opCall, 1, opConst, 0), {params: []byte{i32}, code: slices.Concat(
			[]byte{opLocalGet, 0, opIf, blockVoid, opLocalGet, 0, opConst, 1, 0x6b, opCall, 1, opLocalGet, 0, opConst, 1, 0x6b, opCall, 1, opEnd})}}}, "cell.timeout"},
		{"unreachable", assembly{functions: []function{handler(0, opUnreachable)}}, "cell.trap"},
		{"out of bounds", assembly{functions: []function{handler(0, opConst, 0x7f, opLoad8, 0, 0)}, pages: 1}, "cell.trap"},
		{"pointer outside", assembly{imports: []imported{host("result_write", 2, 1)}, functions: []function{handler(0, opConst, 0x7f, opConst, 1, opCall, 0, opDrop, opConst, 0)}, pages: 1}, "cell.bad_pointer"},
		{"length outside", assembly{imports: []imported{host("log", 3, 0)}, functions: []function{handler(0, opConst, 0, opConst, 1, opConst, 0x7f, opCall, 0, opConst, 0)}, pages: 1}, "cell.bad_pointer"},
		{"no memory", assembly{imports: []imported{host("event_read", 2, 1)}, functions: []function{handler(0, opConst, 0, opConst, 9, opCall, 0, opDrop, opConst, 0)}}, "cell.bad_pointer"},
		{"status", assembly{functions: []function{handler(0, opConst, 1)}}, "cell.function_failed"},
		{"memory bomb", assembly{functions: []function{handler(0, opLoop, blockVoid, opConst, 16, opMemoryGrow, 0, opConst, 0x7f, opNe, opBrIf, 0, opEnd, opUnreachable)}, pages: 1}, "cell.memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, wasm("m.wasm", tt.module.bytes()), limitsFor(tt.code))
			within(t, soon, func() {
				_, _, err := invoke(t, f, `1`)
				switch {
				case err == nil:
					t.Error("Invoke = nil; want a failure")
				case tt.code == "":
					wantKnown(t, err)
				default:
					wantProblem(t, err, problem.FunctionFailed, tt.code)
				}
			})
		})
	}
	t.Run("sleep", func(t *testing.T) {
		t.Parallel()
		f := load(t, built(t, "reactor"), limitsWith(short))
		within(t, soon, func() { failure(t, f, `{"what":"sleep"}`, "cell.timeout") })
	})
	t.Run("grow", func(t *testing.T) {
		t.Parallel()
		limits := cell.DefaultLimits()
		limits.Memory = 16 << 20
		f := load(t, built(t, "reactor"), limits)
		within(t, soon, func() { failure(t, f, `{"what":"grow"}`, "cell.memory") })
	})
}

// TestStoppedInHostCalls stops scripts at every moment of calls between guest and host: what the
// guest then still runs must find its memory, and nobody else's.
func TestStoppedInHostCalls(t *testing.T) {
	t.Parallel()
	loud := load(t, cell.Spec{Name: "loud.js", Kind: api.ModuleScript, Code: []byte(
		`export default (e, ctx) => { for (;;) { ctx.log("x".repeat(100)); crypto.randomUUID(); Promise.reject(1); ctx.attempt } }`)}, limitsWith(short))
	quiet := load(t, cell.Spec{Name: "quiet.js", Kind: api.ModuleScript, Code: []byte(
		`export default (e) => { const all = []; for (let i = 0; i < 1000; i++) all.push("v" + i); return all.join() }`)}, limitsWith(10*time.Second))
	want := reply(t, quiet, `1`)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := range 30 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%7)*time.Millisecond/2)
				_, _, err := loud.Invoke(ctx, cell.Input{Event: event(`1`)})
				cancel()
				wantProblem(t, err, problem.FunctionFailed, "cell.timeout")
			}
		})
	}
	for range 60 {
		if got := reply(t, quiet, `1`); got != want {
			t.Errorf("reply = %.100s; want %.100s", got, want)
		}
	}
	wg.Wait()
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `export default (e, ctx) => { ctx.log("started"); for (;;) {} }`)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{}, 1)
	go func() {
		<-started
		cancel()
	}()
	within(t, soon, func() {
		_, _, err := f.Invoke(ctx, cell.Input{Event: event(`1`), Log: func(string, string) { started <- struct{}{} }})
		wantProblem(t, err, problem.Unavailable, "cell.canceled")
	})
	_, _, err := f.Invoke(ctx, cell.Input{Event: event(`1`)})
	wantProblem(t, err, problem.Unavailable, "cell.canceled")
}

// TestNothingLeaks is not parallel: it counts goroutines.
func TestNothingLeaks(t *testing.T) {
	f := load(t, cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(`export default async (e) => {
		if (e.data === 0) for (;;) await null
		if (e.data === 1) throw new Error("x")
		if (e.data === 2) { const all = []; for (;;) all.push(new Uint8Array(1 << 20)) }
		if (e.data === 3) { const g = () => g(); g() }
	}`)}, limitsWith(20*time.Millisecond))
	before := runtime.NumGoroutine()
	for i := range 40 {
		_, _, err := f.Invoke(t.Context(), cell.Input{Event: event(string(rune('0' + i%4)))})
		if err == nil {
			t.Error("Invoke = nil; want a failure")
		}
	}
	deadline := time.Now().Add(soon)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left of 40 invocations, before there were %d", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `export default () => { new Uint8Array(8 << 20).fill(1) }`)
	_, usage, err := f.Invoke(t.Context(), cell.Input{Event: event(`1`)})
	if err != nil || usage.MemoryPeak < 8<<20 || usage.MemoryPeak > f.Limits().Memory {
		t.Errorf("usage = %+v, %v; want a peak of 8 MiB and some", usage, err)
	}
}

func TestLimitsAreChecked(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*cell.Limits){
		"zero":     func(l *cell.Limits) { *l = cell.Limits{} },
		"memory":   func(l *cell.Limits) { l.Memory = cell.MaxMemory + 1 },
		"timeout":  func(l *cell.Limits) { l.Timeout = 0 },
		"output":   func(l *cell.Limits) { l.Output = -1 },
		"negative": func(l *cell.Limits) { l.LogBytes = -1 },
		"events":   func(l *cell.Limits) { l.Events = 1 << 20 },
		"cpu":      func(l *cell.Limits) { l.CPU = -1 },
		"calls":    func(l *cell.Limits) { l.HostCalls = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits := cell.DefaultLimits()
			change(&limits)
			_, err := testEngine(t).Load(t.Context(), wasm("echo.wasm", echo()), limits)
			p := wantProblem(t, err, problem.Invalid, "cell.limit_out_of_range")
			if strings.Contains(p.Public, "\n") && name != "zero" {
				t.Errorf("message = %q; want one fault", p.Public)
			}
		})
	}
}

// TestLimitCPU: a function that computes is stopped at its processor time, one that waits is not.
func TestLimitCPU(t *testing.T) {
	t.Parallel()
	limits := limitsWith(forever)
	limits.CPU = 300 * time.Millisecond
	for name, spec := range map[string]cell.Spec{
		"script":    js(`export default (e) => { if (e.data === "wait") return new Promise((done) => setTimeout(done, 500, "done")); for (;;) {} }`),
		"recursion": js(`const f = (n) => n < 1 ? 1 : f(n - 1) + f(n - 2); export default (e) => { f(60) }`),
		"module":    wasm("spin.wasm", assembly{functions: []function{handler(0, opLoop, blockVoid, opBr, 0, opEnd, opConst, 0)}}.bytes()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := load(t, spec, limits)
			within(t, soon, func() {
				_, usage, err := f.Invoke(t.Context(), cell.Input{Event: event(`1`)})
				p := wantProblem(t, err, problem.FunctionFailed, "cell.cpu")
				wantText(t, p.Public, "300ms")
				if usage.CPU < limits.CPU {
					t.Errorf("it was stopped after %s of processor time, its limit is %s", usage.CPU, limits.CPU)
				}
			})
			if name == "script" {
				if got := reply(t, f, `"wait"`); got != `"done"` {
					t.Errorf("a function that waits replied %s; want done", got)
				}
			}
		})
	}
}

// TestLimitCPUWhileLoading: what no event influences has a limit too, of a second at least.
func TestLimitCPUWhileLoading(t *testing.T) {
	t.Parallel()
	limits := limitsWith(forever)
	limits.CPU = time.Millisecond
	spin := function{code: []byte{opLoop, blockVoid, opBr, 0, opEnd}}
	for name, spec := range map[string]cell.Spec{
		"script": js(`for (;;) {}; export default () => 1`),
		"module": wasm("spin.wasm", assembly{functions: []function{handler(0, opConst, 0), spin}, start: 1}.bytes()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			within(t, soon, func() {
				_, err := testEngine(t).Load(t.Context(), spec, limits)
				wantText(t, problem.From(err).Public, "used more processor time than 1s")
			})
		})
	}
}

func TestLimitHostCalls(t *testing.T) {
	t.Parallel()
	limits := limitsWith(forever)
	limits.HostCalls = 20
	for name, source := range map[string]string{
		"log":     `export default (e, ctx) => { for (let i = 0; i < e.data; i++) ctx.log(i) }`,
		"random":  `export default (e) => { for (let i = 0; i < e.data; i++) crypto.getRandomValues(new Uint8Array(1)) }`,
		"context": `export default (e, ctx) => { for (let i = 0; i < e.data; i++) ctx.attempt }`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := load(t, js(source), limits)
			reply(t, f, `20`)
			_, _, err := invoke(t, f, `21`)
			p := wantProblem(t, err, problem.FunctionFailed, "cell.too_many_host_calls")
			wantText(t, p.Public, "20 times")
			reply(t, f, `20`)
		})
	}
}

// TestCollectorIsNotHeldUp: code that never returns to Go would keep the garbage collector, and with
// it every other goroutine, waiting until the guest ends.
func TestCollectorIsNotHeldUp(t *testing.T) {
	t.Parallel()
	spin := assembly{functions: []function{handler(0, opLoop, blockVoid, opBr, 0, opEnd, opConst, 0)}}
	f := load(t, wasm("spin.wasm", spin.bytes()), limitsWith(forever))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			_, _, err := f.Invoke(ctx, cell.Input{})
			wantProblem(t, err, problem.Unavailable, "cell.canceled")
		})
	}
	within(t, soon, func() {
		for range 3 {
			runtime.GC()
		}
	})
	cancel()
	wg.Wait()
}

// TestLineIsCutWithinACharacter has lines that end within a character where they are cut, and some that hold no text at all: what is logged is text, and
// not longer than a line may be, which between a worker and the server ends the worker.
func TestLineIsCutWithinACharacter(t *testing.T) {
	t.Parallel()
	const most = 8 << 10
	f := loadScript(t, `export default (e, ctx) => { for (const c of ["é", "→", "😀"]) for (let i = 0; i < 4; i++) ctx.log("x".repeat(i) + c.repeat(5000)) }`)
	lines := 0
	_, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(`{"data":1}`), EventID: "1", Attempt: 1, Log: func(_, message string) {
		lines++
		if len(message) > most || !utf8.ValidString(message) {
			t.Errorf("a line has %d bytes, valid: %t", len(message), utf8.ValidString(message))
		}
	}})
	if err != nil || lines < 7 { // the limit of the log ends the rest
		t.Errorf("%d lines, %v", lines, err)
	}
}
