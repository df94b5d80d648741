package cell_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/cell"
	"sallyport/internal/cell/snapshot"
)

// cold invokes f and reports whether an instance was made for it.
func cold(t *testing.T, f *cell.Function, data string) bool {
	t.Helper()
	_, usage, _ := f.Invoke(t.Context(), cell.Input{Event: event(data)}) // it may fail: that is what is varied
	return usage.Cold
}

// TestWarm: an instance serves the next event too, unless what happened to it cannot be undone.
func TestWarm(t *testing.T) {
	t.Parallel()
	script := js(`const kept = []; export default async (e, ctx) => {
		if (e.data === "throw") throw new Error("x")
		if (e.data === "fail") throw new ctx.Fail("x", { retry: false })
		if (e.data === "spin") for (;;) {}
		if (e.data === "grow") { const all = []; for (let i = 0; i < 8; i++) all.push(new Uint8Array(1 << 20).fill(1)) }
		if (e.data === "too much") { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)) }
		if (e.data === "long") return "x".repeat(2 << 20)
		kept.push(e.data)
		return kept.length
	}`)
	for _, tt := range []struct {
		data string
		cold bool // the event after it
	}{
		{`"plain"`, false},
		{`"throw"`, false},
		{`"fail"`, false},
		{`"spin"`, true},
		{`"grow"`, true},
		{`"too much"`, true},
		{`"long"`, true},
	} {
		t.Run(strings.Trim(tt.data, `"`), func(t *testing.T) {
			t.Parallel()
			f := load(t, script, limitsWith(10*short))
			if !cold(t, f, `1`) {
				t.Error("the first event found an instance that waits")
			}
			if cold(t, f, tt.data) {
				t.Error("the second event needed a new instance")
			}
			if got := cold(t, f, `1`); got != tt.cold {
				t.Errorf("after %s the next event's instance is cold: %v; want %v", tt.data, got, tt.cold)
			}
			if got := reply(t, f, `1`); got != "1" {
				t.Errorf("reply = %s; want 1: the function remembers", got)
			}
		})
	}
}

// TestIdle: instances that wait are closed after a time, and when they hold too much together.
func TestIdle(t *testing.T) {
	t.Parallel()
	waiting := func(t *testing.T, change func(*cell.Config)) (e *cell.Engine, f *cell.Function) {
		t.Helper()
		cfg := cell.Default()
		change(&cfg)
		e, err := cell.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(context.Background()); err != nil {
				t.Errorf("Close = %v", err)
			}
		})
		f, err = e.Load(t.Context(), wasm("echo.wasm", echo()), cell.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
		return e, f
	}
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		e, f := waiting(t, func(*cell.Config) {})
		if e.Idle() != 1 {
			t.Errorf("%d instances wait; want 1", e.Idle())
		}
		if err := f.Close(t.Context()); err != nil || e.Idle() != 0 {
			t.Errorf("Close = %v, %d instances wait; want 0", err, e.Idle())
		}
	})
	t.Run("too many bytes", func(t *testing.T) {
		t.Parallel()
		if e, _ := waiting(t, func(c *cell.Config) { c.IdleBytes = 1 }); e.Idle() != 0 {
			t.Errorf("%d instances wait; want 0", e.Idle())
		}
	})
	t.Run("too long", func(t *testing.T) {
		t.Parallel()
		e, _ := waiting(t, func(c *cell.Config) { c.IdleAfter = time.Millisecond })
		deadline := time.Now().Add(soon)
		for e.Idle() > 0 {
			if time.Now().After(deadline) {
				t.Fatalf("%d instances still wait; want 0", e.Idle())
			}
			<-time.After(time.Millisecond)
		}
	})
}

// spy keeps the marker of its event wherever a script can keep something, logs and publishes it, and
// replies with those of other events that it finds. A marker that ends in "!" is thrown.
const spy = `
	const top = {}, cache = new Map(), later = [], weak = new WeakMap(), pattern = /mark-(.*)/g
	class Static { static kept = null; #own = null; own(v) { const was = this.#own; this.#own = v; return was } }
	const closure = (() => { let kept = null; return (v) => { const was = kept; kept = v; return was } })()
	const object = new Static(), symbol = Symbol.for("kept"), counter = (function* () { for (let kept = null; ;) kept = yield kept })()
	const places = [top, Static, globalThis, Object.prototype, Array.prototype, Function.prototype, Promise.prototype, Error.prototype, JSON, Math, Reflect, console,
		Map.prototype, Object.getPrototypeOf(function* () {}), Object.getPrototypeOf([].values()), Object.getPrototypeOf(async () => {})]
	let kept = null, settle = null, promise = new Promise((done) => { settle = done })
	export default async (e, ctx) => {
		const mark = e.data, seen = []
		const see = (v) => { if (v !== null && v !== undefined && v !== mark) seen.push(String(v)) }
		see(kept); see(later[0]); see(cache.get(1)); see(weak.get(top)); see(closure(mark)); see(object.own(mark)); see(counter.next(mark).value); see(counter.next(mark).value)
		see(Array.prototype[7]); see(pattern.lastIndex || null); see(ctx.Fail.kept); see(ctx.publish.kept); see(Error.stackTraceLimit === mark ? 1 : null)
		for (const place of places) { if (Object.hasOwn(place, "kept")) see(place.kept); if (Object.hasOwn(place, symbol)) see(place[symbol]) }
		promise.then((v) => later.push(v))
		kept = Static.kept = ctx.Fail.kept = ctx.publish.kept = mark
		for (let n = 0; n < 3; n++) { const place = places[Math.floor(Math.random() * places.length)]; place.kept = place[symbol] = mark }
		Array.prototype[7] = mark
		delete Array.prototype[7]
		cache.set(1, mark); weak.set(top, mark); pattern.exec(mark)
		setTimeout(() => later.push(mark), 0)
		settle(mark)
		await null
		for (const v of later) see(v)
		ctx.log(mark)
		ctx.publish("spy.seen", mark)
		if (mark.endsWith("!")) throw new Error(mark)
		return { seen }
	}`

// quickSpy looks at fewer places, so that there is time for many events.
const quickSpy = `
	const top = {}
	let kept = null
	export default (e, ctx) => {
		const mark = e.data, seen = []
		for (const v of [kept, top.kept, globalThis.kept, Object.prototype.kept, JSON.kept]) if (typeof v === "string" && v !== mark) seen.push(v)
		kept = top.kept = globalThis.kept = Object.prototype.kept = JSON.kept = mark
		delete Object.prototype.kept // or the event to publish would have it
		ctx.log(mark)
		ctx.publish("spy.seen", mark)
		if (mark.endsWith("!")) throw new Error(mark)
		return { seen }
	}`

// watch is what came of an event of spy, and fails the test when a marker of another is in it.
func watch(f loaded, mark string) error {
	var said []string
	result, _, err := f.Invoke(context.Background(), cell.Input{Event: event(`"` + mark + `"`), Log: func(_, line string) { said = append(said, line) }})
	if failure, ok := cell.Failed(err); ok {
		said, err = append(said, failure.Message), nil
		if !strings.HasSuffix(mark, "!") {
			return fmt.Errorf("it failed with %q", failure.Message)
		}
	} else if err == nil && f.Kind() == cell.KindJavaScript && len(result.Events) != 1 {
		return fmt.Errorf("it has %d events", len(result.Events))
	}
	for _, e := range result.Events {
		said = append(said, strings.Trim(string(e.Data), `"`))
	}
	for _, text := range said {
		if text != mark {
			return fmt.Errorf("it says %q", text)
		}
	}
	if r := string(result.Reply); r != "" && r != `{"seen":[]}` {
		return fmt.Errorf("it replies %s", r)
	}
	return err
}

// TestNeverSeen plants a marker with each event and looks for those of others wherever a script or a
// module can keep something, in all of a module's memory and in what is handed over, with functions
// and workers interleaved.
func TestNeverSeen(t *testing.T) {
	t.Parallel()
	events := 100_000
	if underRace {
		events = 2000
	}
	for _, method := range []snapshot.Method{snapshot.Best, snapshot.CopyOnWrite, snapshot.Copy} {
		t.Run(method.String(), func(t *testing.T) {
			t.Parallel()
			cfg := cell.Default()
			cfg.Reset = method
			e, err := cell.New(t.Context(), cfg)
			if err != nil {
				t.Skipf("this system cannot reset memory by %s: %v", method, err)
			}
			t.Cleanup(func() {
				if err := e.Close(context.Background()); err != nil {
					t.Errorf("Close = %v", err)
				}
			})
			share := events / 100
			if method == snapshot.Best {
				share = events
			}
			neverSeen(t, here(e), share)
		})
	}
}

// neverSeen is TestNeverSeen for functions that load makes, with so many events.
func neverSeen(t *testing.T, load loader, events int) {
	t.Helper()
	specs := []cell.Spec{js(quickSpy), js(quickSpy + "\n"), js(spy), wasm("scanner.wasm", scanner(0)), wasm("scanner.wasm", scanner(2))}
	const scripts = 3
	for _, h := range keepers() {
		specs = append(specs, h.spec)
	}
	limits := cell.DefaultLimits()
	limits.Memory = 8 << 20
	var functions []loaded
	for _, spec := range specs {
		f, err := load(t.Context(), spec, limits)
		if err != nil {
			t.Fatal(err)
		}
		functions = append(functions, f)
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range events / 4 {
				f, mark := functions[(worker+i)%(scripts-1)], fmt.Sprintf("mark-%d-%d", worker, i)
				switch n := (worker + i) % 100; {
				case n >= 90: // a module, of which the second grows and is discarded
					f = functions[scripts+i/10%(len(functions)-scripts)]
				case n%8 == 3:
					f = functions[scripts-1]
				}
				if i%30 == 7 {
					mark += "!"
				}
				if err := watch(f, mark); err != nil {
					t.Errorf("%s: %v", mark, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
