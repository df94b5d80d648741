package wall_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/problem"
)

// specs are the grants of these tests.
func specs() []cell.GrantSpec {
	return []cell.GrantSpec{{Name: "store", Kind: "kv", Request: 256, Reply: 2 << 20}, {Name: "web", Kind: "other", Request: 256, Reply: 2 << 20}}
}

// TestGrantsAcrossTheWall: a function in a worker uses its grants as one in this process does, with a lane and without.
func TestGrantsAcrossTheWall(t *testing.T) {
	t.Parallel()
	spec := script(`export default async (event, ctx) => {
		const { store, web } = ctx.grants;
		switch (event.data.do) {
		case "each": { let s = ""; for (let i = 0; i < 5; i++) s += (await store.call("get", { i })).value.i; return s; }
		case "meet": return (await Promise.all([web.call("a"), web.call("b"), store.call("c", { n: event.data.n })])).map((r) => JSON.stringify(r.value)).join();
		case "large": return (await web.call("large", {})).body.length;
		case "too large": return await web.call("larger", {}).catch((e) => e.code);
		case "fail": return await store.call("fail").catch((e) => [e.code, e.message, e.retry, e.retryAfter].join("|"));
		case "race": return await Promise.race([web.call("hang"), new Promise((r) => setTimeout(r, 1, "timer"))]);
		case "bytes": { const of = async (body) => (await store.call("bytes", {}, body)).value; return [await of(), await of(new Uint8Array(0)), await of(new Uint8Array(2))].join(); }
		case "leave": web.call("hang"); return "left";
		case "hang": await web.call("hang");
		}
	}`)
	spec.Grants = specs()
	for _, lanes := range []int{0, 2} {
		t.Run(fmt.Sprint(lanes, " lanes"), func(t *testing.T) {
			t.Parallel()
			e := fakes(t, lanes, patience, honest(t))
			limits := cell.DefaultLimits()
			limits.Timeout = time.Minute
			f := load(t, e, spec, limits)
			var all sync.WaitGroup
			for n := range 6 {
				all.Go(func() { useGrants(t, f, n) })
			}
			all.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			in := event(`{"do":"hang"}`)
			in.Use = func(ctx context.Context, _ cell.GrantUse) cell.GrantAnswer {
				cancel()
				<-ctx.Done()
				return cell.FailedUse(problem.New(problem.Timeout, "grant.test", "late"))
			}
			// It may hear of the end of its use before it is stopped.
			if _, _, err := f.Invoke(ctx, in); code(err) != "cell.canceled" && code(err) != "cell.function_failed" {
				t.Errorf("Invoke of a caller who is gone = %v, want cell.canceled", err)
			}
			limits.Timeout = 20 * time.Millisecond
			late := load(t, e, spec, limits)
			in.Use = func(ctx context.Context, _ cell.GrantUse) cell.GrantAnswer {
				<-ctx.Done()
				return cell.FailedUse(problem.New(problem.Timeout, "grant.test", "late"))
			}
			for range 50 {
				if _, _, err := late.Invoke(t.Context(), in); code(err) != "cell.timeout" {
					t.Errorf("Invoke of what waits for longer than it may = %v, want cell.timeout", err)
				}
			}
			if r := e.State().Restarts; r != 0 {
				t.Errorf("%d workers were lost", r)
			}
		})
	}
}

// useGrants has a function use its grants in several ways. What it gets is of its own invocation, the n-th.
func useGrants(t *testing.T, f *wall.Function, n int) {
	meet := make(chan struct{})
	var balance, waits atomic.Int64
	for do, want := range map[string]string{
		"each": `"01234"`, "meet": fmt.Sprintf(`"1,1,{\"n\":%d}"`, n), "large": `1048576`, "too large": `"grant.reply_too_large"`,
		"fail": `"grant.test|it is busy|true|2"`, "race": `"timer"`, "leave": `"left"`,
		"bytes": `"none,0,2"`, // no bytes are not the same as empty ones
	} {
		in := event(fmt.Sprintf(`{"do":%q,"n":%d}`, do, n))
		in.Waits = func(waiting bool) {
			if waiting {
				waits.Add(1)
				balance.Add(1)
			} else {
				balance.Add(-1)
			}
		}
		in.Use = func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
			switch u.Op {
			case "a", "b": // each waits for the other
				select {
				case meet <- struct{}{}:
				case <-meet:
				case <-ctx.Done():
				}
				return cell.GrantAnswer{JSON: []byte(`1`)}
			case "large":
				return cell.GrantAnswer{JSON: []byte(`null`), Body: make([]byte, 1<<20)}
			case "larger":
				return cell.GrantAnswer{JSON: []byte(`null`), Body: make([]byte, 3<<20)}
			case "bytes":
				if u.Body == nil {
					return cell.GrantAnswer{JSON: []byte(`"none"`)}
				}
				return cell.GrantAnswer{JSON: fmt.Append(nil, len(u.Body))}
			case "fail":
				return cell.FailedUse(problem.New(problem.Unavailable, "grant.test", "it is busy").WithRetryAfter(2 * time.Second))
			case "hang":
				<-ctx.Done()
				return cell.FailedUse(problem.New(problem.Timeout, "grant.test", "late"))
			}
			return cell.GrantAnswer{JSON: u.Request}
		}
		r, _, err := f.Invoke(t.Context(), in)
		if err != nil || string(r.Reply) != want {
			t.Errorf("%s: Invoke = %s, %v; want %s", do, r.Reply, err, want)
		}
	}
	if balance.Load() != 0 || waits.Load() == 0 {
		t.Errorf("the function began to wait %d times, and %d of them have no end", waits.Load(), balance.Load())
	}
}

// TestHostileUses: a worker uses nothing but grants of the invocations that run in it, within their bounds. What it asks for
// beyond them ends it.
func TestHostileUses(t *testing.T) {
	t.Parallel()
	use := func(number uint32, u cell.GrantUse) []byte { return wall.UseBody(number, u) }
	ok := cell.GrantUse{Grant: "store", Op: "get", Request: []byte(`{}`)}
	frame := func(id uint64, bodies ...[]byte) []byte {
		var b []byte
		for _, body := range bodies {
			b = append(b, wall.Frame(wall.KindUse, id, body)...)
		}
		return b
	}
	many := func(n int) (bodies [][]byte) {
		for i := range n {
			bodies = append(bodies, use(uint32(i+1), cell.GrantUse{Grant: "web", Op: "hang", Request: []byte(`{}`)}))
		}
		return bodies
	}
	for name, say := range map[string]func(id uint64) []byte{
		"another invocation": func(id uint64) []byte { return frame(id+1000, use(1, ok)) },
		"another grant": func(id uint64) []byte {
			return frame(id, use(1, cell.GrantUse{Grant: "secret", Op: "get", Request: []byte(`{}`)}))
		},
		"no grant": func(id uint64) []byte { return frame(id, use(1, cell.GrantUse{Op: "get", Request: []byte(`{}`)})) },
		"no JSON": func(id uint64) []byte {
			return frame(id, use(1, cell.GrantUse{Grant: "store", Op: "get", Request: []byte(`{`)}))
		},
		"no object": func(id uint64) []byte {
			return frame(id, use(1, cell.GrantUse{Grant: "store", Op: "get", Request: []byte(`[]`)}))
		},
		"a request too long": func(id uint64) []byte {
			return frame(id, use(1, cell.GrantUse{Grant: "store", Op: "get", Request: []byte(`{"a":"` + strings.Repeat("x", 300) + `"}`)}))
		},
		"a frame too long": func(id uint64) []byte {
			return frame(id, use(1, cell.GrantUse{Grant: "store", Op: "get", Request: []byte(`{}`), Body: make([]byte, 64<<10)}))
		},
		"a number twice":    func(id uint64) []byte { return frame(id, many(1)[0], many(1)[0]) },
		"no number":         func(id uint64) []byte { return frame(id, use(0, ok)) },
		"too many at once":  func(id uint64) []byte { return frame(id, many(cell.MaxUses+1)...) },
		"something is left": func(id uint64) []byte { return frame(id, append(use(1, ok), 0)) },
		"waits, how":        func(id uint64) []byte { return wall.Frame(wall.KindWaits, id, nil) },
		"an answer":         func(id uint64) []byte { return wall.Frame(wall.KindAnswer, id, wall.AnswerBody(1, cell.GrantAnswer{})) },
	} {
		for _, lanes := range []int{0, 1} {
			t.Run(fmt.Sprint(name, ", ", lanes, " lanes"), func(t *testing.T) {
				t.Parallel()
				attack(t, lanes, specs(), say, true)
			})
		}
	}
	for _, lanes := range []int{0, 1} {
		t.Run(fmt.Sprint("a function without grants, ", lanes, " lanes"), func(t *testing.T) {
			t.Parallel()
			attack(t, lanes, nil, func(id uint64) []byte { return frame(id, use(1, ok)) }, false)
		})
	}
}

// attack has a worker say something in place of an answer, and sees that it is lost, and used no grant but "hang" of "web".
func attack(t *testing.T, lanes int, specs []cell.GrantSpec, say func(id uint64) []byte, hang bool) {
	t.Helper()
	e := fakes(t, lanes, patience, func(n int, f wall.Fake) {
		if n > 0 {
			obedient().play(f)
			return
		}
		server{func(_ wall.Reader, write func([]byte), id uint64, _ []byte) { write(say(id)) }}.play(f)
	})
	spec := script("")
	spec.Grants = specs
	f := load(t, e, spec, cell.DefaultLimits())
	in := event("1")
	in.Use = func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
		if !hang || u.Grant != "web" || u.Op != "hang" {
			if u.Op != "get" || u.Grant != "store" || string(u.Request) != "{}" {
				t.Errorf("it used %+v", u)
			}
		}
		<-ctx.Done()
		return cell.GrantAnswer{}
	}
	if r, _, err := f.Invoke(t.Context(), in); err != nil || string(r.Reply) != `"ok"` {
		t.Errorf("Invoke = %s, %v; want the answer of another worker", r.Reply, err)
	}
	until(t, "the loss of the worker", func() bool { return e.State().Restarts > 0 })
}

// TestUsesEndWithTheInvocation: what a worker began is over when it says that the invocation is, and what is answered later reaches nobody.
func TestUsesEndWithTheInvocation(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{0, 1} {
		e := fakes(t, lanes, patience, func(_ int, f wall.Fake) {
			server{func(_ wall.Reader, write func([]byte), id uint64, _ []byte) {
				u := wall.UseBody(1, cell.GrantUse{Grant: "web", Op: "hang", Request: []byte(`{}`)})
				write(append(wall.Frame(wall.KindUse, id, u), done(id, `"ok"`)...))
			}}.play(f)
		})
		spec := script("")
		spec.Grants = specs()
		f := load(t, e, spec, cell.DefaultLimits())
		ended := make(chan struct{}, 10)
		for range 10 {
			in := event("1")
			in.Use = func(ctx context.Context, _ cell.GrantUse) cell.GrantAnswer {
				<-ctx.Done()
				ended <- struct{}{}
				return cell.GrantAnswer{JSON: []byte(`"late"`)}
			}
			if r, _, err := f.Invoke(t.Context(), in); err != nil || string(r.Reply) != `"ok"` {
				t.Fatalf("Invoke = %s, %v", r.Reply, err)
			}
		}
		for range 10 {
			<-ended
		}
		if r := e.State().Restarts; r != 0 {
			t.Errorf("%d workers were lost", r)
		}
	}
}

// TestLostWhileUsing: a worker ends while its invocation waits for nothing but a use, which the reader of the lane makes itself: the use is abandoned at
// once, and the event is handled again elsewhere.
func TestLostWhileUsing(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{0, 1, 2} {
		e := fakes(t, lanes, patience, func(n int, f wall.Fake) {
			if n > 0 {
				obedient().play(f)
				return
			}
			server{func(_ wall.Reader, write func([]byte), id uint64, _ []byte) {
				u := wall.UseBody(1, cell.GrantUse{Grant: "web", Op: "hang", Request: []byte(`{}`)})
				u[0] = wall.UseWaits | wall.UseOnly
				write(wall.Frame(wall.KindUse, id, u))
			}}.play(f)
		})
		spec := script("")
		spec.Grants = specs()
		limits := cell.DefaultLimits()
		limits.Timeout = time.Hour
		f := load(t, e, spec, limits)
		in := event("1")
		in.Use = func(ctx context.Context, _ cell.GrantUse) cell.GrantAnswer {
			e.Lose()
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
				t.Error("the use was not abandoned")
			}
			return cell.GrantAnswer{}
		}
		if r, _, err := f.Invoke(t.Context(), in); err != nil || string(r.Reply) != `"ok"` {
			t.Errorf("Invoke = %s, %v; want the answer of another worker", r.Reply, err)
		}
	}
}

// TestGreedyUses: a function that begins uses and reads no answer, or reads for ever, is bounded in how many run at a time and in its time, with
// a worker around it, with a lane and without; what it leaves behind ends with its invocation, and the next one is served.
func TestGreedyUses(t *testing.T) {
	t.Parallel()
	spec := script(`export default async (event, ctx) => {
		const { web } = ctx.grants;
		switch (event.data.do) {
		case "leaves": { for (let i = 0; i < 64; i++) web.call("hang").catch(() => {}); return "left"; }
		case "leaves large ones": { for (let i = 0; i < 64; i++) web.call("large").catch(() => {}); return "left"; }
		case "never reads": { for (let i = 0; i < 5000; i++) web.call("hang").catch(() => {}); return "left"; }
		case "reads one of many": { for (let i = 0; i < 60; i++) web.call("hang").catch(() => {}); for (;;) await web.call("echo").catch(() => {}); }
		case "reads for ever": for (;;) await web.call("echo").catch(() => {});
		case "begins for ever": for (;;) web.call("echo").catch(() => {});
		}
		return (await web.call("echo")).value;
	}`)
	spec.Grants = specs()
	for _, lanes := range []int{0, 2} {
		for do, want := range map[string]string{
			"leaves": "", "leaves large ones": "", "never reads": "cell.uses_unread", "reads one of many": "cell.timeout", "reads for ever": "cell.timeout", "begins for ever": "cell.uses_unread",
		} {
			t.Run(fmt.Sprint(do, ", ", lanes, " lanes"), func(t *testing.T) {
				t.Parallel()
				limits := cell.DefaultLimits()
				limits.Timeout = 2 * time.Second
				e := fakes(t, lanes, patience, honest(t))
				f := load(t, e, spec, limits)
				var running, most atomic.Int64
				in := event(fmt.Sprintf(`{"do":%q}`, do))
				in.Use = func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
					n := running.Add(1)
					defer running.Add(-1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					switch u.Op {
					case "hang":
						<-ctx.Done()
					case "large":
						return cell.GrantAnswer{JSON: []byte(`1`), Body: make([]byte, 1<<20)}
					}
					return cell.GrantAnswer{JSON: []byte(`1`)}
				}
				r, _, err := f.Invoke(t.Context(), in)
				if want == "" && (err != nil || string(r.Reply) != `"left"`) || want != "" && code(err) != want {
					t.Errorf("Invoke = %s, %v; want %q", r.Reply, err, want)
				}
				// Uses leave a worker when its guest waits: one that never does may have made none.
				if m := most.Load(); m > cell.MaxUses || want == "cell.timeout" && m == 0 {
					t.Errorf("%d uses ran at a time, want at most %d", m, cell.MaxUses)
				}
				until(t, "the end of what was left behind", func() bool { return running.Load() == 0 })
				next := event(`{}`)
				next.Use = in.Use
				if r, _, err := f.Invoke(t.Context(), next); err != nil || string(r.Reply) != `1` {
					t.Errorf("the next invocation = %s, %v", r.Reply, err)
				}
			})
		}
	}
}

// FuzzUse: whatever a worker sends as a use is decoded to what can be sent again as the same, or refused.
func FuzzUse(f *testing.F) {
	f.Add(wall.UseBody(1, cell.GrantUse{Grant: "store", Op: "get", Request: []byte(`{}`), Body: []byte("b")}))
	f.Add(wall.AnswerBody(1, cell.GrantAnswer{JSON: []byte(`1`), Failed: true}))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, number, u, err := wall.DecodeUse(body); err == nil {
			_, again, u2, err := wall.DecodeUse(wall.UseBody(number, u))
			if err != nil || again != number || !cmp.Equal(u, u2) {
				t.Errorf("a use changed on its way: %d %+v, %d %+v, %v", number, u, again, u2, err)
			}
		}
		if number, a, err := wall.DecodeAnswer(body); err == nil {
			again, a2, err := wall.DecodeAnswer(wall.AnswerBody(number, a))
			if err != nil || again != number || !cmp.Equal(a, a2) {
				t.Errorf("an answer changed on its way: %d %+v, %d %+v, %v", number, a, again, a2, err)
			}
		}
	})
}
