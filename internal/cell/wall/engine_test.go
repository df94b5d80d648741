package wall_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/problem"
)

// patience is longer than any answer takes.
const patience = time.Hour

func fakes(t *testing.T, lanes int, grace time.Duration, play func(n int, f wall.Fake)) *wall.Engine {
	t.Helper()
	e, err := wall.NewWithFakes(t.Context(), lanes, grace, slog.New(slog.DiscardHandler), play)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// sandbox is the engine that the honest workers of all tests share.
var sandbox = sync.OnceValues(func() (*cell.Engine, error) { return cell.New(context.Background(), cell.Default()) })

// honest plays a worker that does what it is told.
func honest(t *testing.T) func(int, wall.Fake) {
	t.Helper()
	e, err := sandbox()
	if err != nil {
		t.Fatal(err)
	}
	return func(_ int, f wall.Fake) {
		if err := f.Greet(); err != nil {
			return
		}
		_ = f.Serve(context.Background(), e) // its end is the server's doing
	}
}

func script(code string) cell.Spec {
	return cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(code)}
}

func load(t *testing.T, e *wall.Engine, spec cell.Spec, limits cell.Limits) *wall.Function {
	t.Helper()
	f, err := e.Load(t.Context(), spec, limits)
	if err != nil {
		t.Fatalf("Load = %v", err)
	}
	return f
}

func event(data string) cell.Input {
	return cell.Input{
		Event:   fmt.Appendf(nil, `{"specversion":"1.0","id":"e","source":"/t","type":"t.t","data":%s}`, data),
		EventID: "e", Attempt: 1,
	}
}

// until waits for a fact that comes by itself.
func until(t *testing.T, what string, fact func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("the test ended before %s", what)
		}
	}
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

// TestHonestWorker: a function in a worker behaves as one in this process, with a lane and without.
func TestHonestWorker(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{0, 2} {
		t.Run(fmt.Sprint(lanes, " lanes"), func(t *testing.T) {
			t.Parallel()
			e := fakes(t, lanes, patience, honest(t))
			f := load(t, e, script(`export default async (event, ctx) => {
				if (event.data.fail) throw new Error("told to fail");
				if (event.data.wait) await new Promise(done => setTimeout(done, 60000));
				for (let i = 0; i < 3; i++) ctx.log("line " + i);
				return { n: event.data.n };
			}`), cell.DefaultLimits())
			if f.Kind() != cell.KindJavaScript || f.Limits() != cell.DefaultLimits() || f.Resident() <= 0 {
				t.Errorf("the function is %q, %+v, %d bytes", f.Kind(), f.Limits(), f.Resident())
			}
			var all sync.WaitGroup
			for n := range 20 {
				all.Go(func() {
					in := event(fmt.Sprintf(`{"n":%d}`, n))
					var lines []string
					in.Log = func(level, message string) { lines = append(lines, level+" "+message) }
					r, u, err := f.Invoke(t.Context(), in)
					if err != nil || string(r.Reply) != fmt.Sprintf(`{"n":%d}`, n) {
						t.Errorf("Invoke = %s, %v", r.Reply, err)
					}
					if u.Duration <= 0 || u.MemoryPeak <= 0 || u.BytesIn != int64(len(in.Event)) {
						t.Errorf("usage = %+v", u)
					}
					if got := strings.Join(lines, ","); got != "info line 0,info line 1,info line 2" {
						t.Errorf("log = %s", got)
					}
				})
			}
			all.Wait()
			_, _, err := f.Invoke(t.Context(), event(`{"fail":true}`))
			if said, ok := cell.Failed(err); !ok || said.Message != "told to fail" && said.Message != "Error: told to fail" {
				t.Errorf("Invoke = %v, want what the function said", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, _, err := f.Invoke(ctx, event(`{"wait":true}`)); code(err) != "cell.canceled" {
				t.Errorf("Invoke of a caller who is gone = %v, want cell.canceled", err)
			}
			if _, err := e.Load(t.Context(), script("nonsense ("), cell.DefaultLimits()); code(err) != "cell.script_invalid" {
				t.Errorf("Load of nonsense = %v, want cell.script_invalid", err)
			}
			if _, err := e.Load(t.Context(), script(""), cell.Limits{}); code(err) != "cell.limit_out_of_range" {
				t.Errorf("Load without limits = %v, want cell.limit_out_of_range", err)
			}
			for range 2 {
				if err := f.Close(t.Context()); err != nil {
					t.Errorf("Close = %v", err)
				}
			}
		})
	}
}

// server is the part of a fake worker that a test writes itself: it loads anything, and calls invoke for
// each invocation, on whatever it came.
type server struct {
	invoke func(in wall.Reader, write func([]byte), id uint64, body []byte)
}

func (s server) play(f wall.Fake) {
	if f.Greet() == nil {
		s.serve(f)
	}
}

func (s server) serve(f wall.Fake) {
	var all sync.WaitGroup
	for _, conn := range append(f.Lanes, f.Conn) {
		all.Go(func() {
			in := wall.NewReader(conn)
			write := func(b []byte) { _, _ = conn.Write(b) }
			for {
				k, id, body, err := in.Next()
				if err != nil {
					return
				}
				switch k {
				case wall.KindLoad:
					write(wall.Frame(wall.KindLoaded, id, wall.LoadedBody(cell.KindReactor)))
				case wall.KindInvoke:
					s.invoke(in, write, id, body)
				}
			}
		})
	}
	all.Wait()
}

func done(id uint64, reply string) []byte {
	return wall.Frame(wall.KindDone, id, wall.DoneBody(cell.Usage{}, cell.Result{Reply: []byte(reply)}))
}

// obedient answers every invocation.
func obedient() server {
	return server{func(_ wall.Reader, write func([]byte), id uint64, _ []byte) { write(done(id, `"ok"`)) }}
}

// TestHostileWorker: a worker that breaks the protocol is ended and replaced, and what it was to do is
// done by another.
func TestHostileWorker(t *testing.T) {
	t.Parallel()
	small := cell.DefaultLimits()
	small.Output, small.LogBytes = 64, 64
	for name, answer := range map[string]func(id uint64) []byte{
		"another id":        func(id uint64) []byte { return done(id+1000, `1`) },
		"a result too long": func(id uint64) []byte { return done(id, `"`+strings.Repeat("x", 100_000)+`"`) },
		"a longer reply":    func(id uint64) []byte { return done(id, `"`+strings.Repeat("x", 64)+`"`) },
		"no JSON":           func(id uint64) []byte { return done(id, `{`) },
		"loaded":            func(id uint64) []byte { return wall.Frame(wall.KindLoaded, id, wall.LoadedBody("reactor")) },
		"hello again":       func(uint64) []byte { return wall.Frame(wall.KindHello, 0, []byte(`{}`)) },
		"an unknown kind":   func(id uint64) []byte { return wall.Frame(200, id, nil) },
		"a server's kind":   func(id uint64) []byte { return wall.Frame(wall.KindInvoke, id, nil) },
		"an endless frame":  func(uint64) []byte { return []byte("\xff\xff\xff\xff\x44aaaaaaaa") },
		"a frame too short": func(uint64) []byte { return []byte("\x00\x00\x00\x00\x44aaaaaaaa") },
		"a log without end": func(id uint64) []byte { return flood(id) },
		"a line not UTF-8":  func(id uint64) []byte { return wall.Frame(wall.KindLog, id, []byte{1, 0xff}) },
		"a failure of others": func(id uint64) []byte {
			return wall.Frame(wall.KindFailed, id, wall.FailedBody(cell.Usage{}, problem.New(problem.Denied, "access.denied", "no")))
		},
		"nothing, and it ends": nil,
	} {
		for _, lanes := range []int{0, 1} {
			t.Run(fmt.Sprint(name, ", ", lanes, " lanes"), func(t *testing.T) {
				t.Parallel()
				var served atomic.Int64
				e := fakes(t, lanes, patience, func(n int, f wall.Fake) {
					if n > 0 {
						served.Add(1)
						obedient().play(f)
						return
					}
					server{func(_ wall.Reader, write func([]byte), id uint64, _ []byte) {
						if answer == nil {
							_ = f.Conn.Close()
							for _, l := range f.Lanes {
								_ = l.Close()
							}
							return
						}
						write(answer(id))
					}}.play(f)
				})
				f := load(t, e, script(""), small)
				r, _, err := f.Invoke(t.Context(), event("1"))
				if err != nil || string(r.Reply) != `"ok"` {
					t.Errorf("Invoke = %s, %v; want the answer of another worker", r.Reply, err)
				}
				if served.Load() == 0 {
					t.Error("the worker was not replaced")
				}
			})
		}
	}
}

func flood(id uint64) []byte {
	var b []byte
	for range 100 {
		b = append(b, wall.Frame(wall.KindLog, id, wall.LogBody(cell.LevelInfo, "a line of some length"))...)
	}
	return b
}

// TestTwoAnswers: a second answer to the same question, which nobody waits for, ends the worker too.
func TestTwoAnswers(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{0, 1} {
		e := fakes(t, lanes, patience, func(n int, f wall.Fake) {
			s := obedient()
			if n == 0 {
				s.invoke = func(_ wall.Reader, write func([]byte), id uint64, _ []byte) {
					write(append(done(id, `"ok"`), done(id, `"twice"`)...))
				}
			}
			s.play(f)
		})
		f := load(t, e, script(""), cell.DefaultLimits())
		for range 10 {
			r, _, err := f.Invoke(t.Context(), event("1"))
			if err != nil || string(r.Reply) != `"ok"` {
				t.Fatalf("Invoke = %s, %v", r.Reply, err)
			}
		}
		until(t, "the loss of a worker", func() bool { return e.State().Restarts == 1 })
	}
}

// TestSlowEnd: a worker that is replaced before its process has ended does not take the next one with it.
func TestSlowEnd(t *testing.T) {
	t.Parallel()
	var started atomic.Int64
	replaced, ended := make(chan struct{}), make(chan struct{})
	e := fakes(t, 1, patience, func(n int, f wall.Fake) {
		started.Add(1)
		s := obedient()
		if n == 0 {
			s.invoke = func(wall.Reader, func([]byte), uint64, []byte) {
				_ = f.Conn.Close()
				for _, l := range f.Lanes {
					_ = l.Close()
				}
			}
		}
		s.play(f)
		if n == 0 {
			<-replaced // the process lingers
			close(ended)
		}
	})
	f := load(t, e, script(""), cell.DefaultLimits())
	for range 3 {
		if r, _, err := f.Invoke(t.Context(), event("1")); err != nil || string(r.Reply) != `"ok"` {
			t.Fatalf("Invoke = %s, %v", r.Reply, err)
		}
	}
	close(replaced)
	<-ended
	until(t, "the loss of a worker", func() bool { return e.State().Restarts == 1 })
	before := started.Load()
	if r, _, err := f.Invoke(t.Context(), event("1")); err != nil || string(r.Reply) != `"ok"` {
		t.Fatalf("Invoke = %s, %v", r.Reply, err)
	}
	if now := started.Load(); now != before {
		t.Errorf("%d workers were started, and %d with one more event", before, now)
	}
}

// TestKiller: a function that ends every worker it runs in fails, alone: its neighbours lose no
// invocation, and from then on not even their worker.
func TestKiller(t *testing.T) {
	t.Parallel()
	e := fakes(t, 4, patience, func(_ int, f wall.Fake) {
		server{func(_ wall.Reader, write func([]byte), id uint64, body []byte) {
			if strings.Contains(string(body), "kill") {
				_ = f.Conn.Close()
				for _, l := range f.Lanes {
					_ = l.Close()
				}
				return
			}
			write(done(id, `"ok"`))
		}}.play(f)
	})
	killer, neighbour := load(t, e, script("killer"), cell.DefaultLimits()), load(t, e, script("neighbour"), cell.DefaultLimits())
	var all sync.WaitGroup
	defer all.Wait()
	for range 8 {
		all.Go(func() {
			for range 50 {
				if _, _, err := neighbour.Invoke(t.Context(), event("1")); err != nil {
					t.Errorf("the neighbour's Invoke = %v", err)
				}
			}
		})
	}
	_, _, err := killer.Invoke(t.Context(), event(`"kill"`))
	if p := problem.From(err); p.Code != "cell.worker_lost" || p.Kind != problem.Unavailable {
		t.Errorf("the killer's Invoke = %v, want cell.worker_lost", err)
	}
	until(t, "another worker", func() bool { return e.State().Restarts >= 2 && e.State().PID != 0 })
	main := e.State().PID
	for range 3 {
		if _, _, err := killer.Invoke(t.Context(), event(`"kill"`)); code(err) != "cell.worker_lost" {
			t.Errorf("the killer's Invoke = %v, want cell.worker_lost", err)
		}
	}
	if now := e.State().PID; now != main {
		t.Errorf("the worker of all others is %d, want %d as before: the killer is to run alone", now, main)
	}
	if r, _, err := killer.Invoke(t.Context(), event(`1`)); err != nil || string(r.Reply) != `"ok"` {
		t.Errorf("the killer's Invoke of another event = %s, %v", r.Reply, err)
	}
}

// TestStuckWorker: a worker that does not answer is ended.
func TestStuckWorker(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{0, 1} {
		limits := cell.DefaultLimits()
		limits.Timeout = time.Millisecond
		e := fakes(t, lanes, time.Millisecond, func(n int, f wall.Fake) {
			s := obedient()
			if n == 0 {
				s.invoke = func(wall.Reader, func([]byte), uint64, []byte) {}
			}
			s.play(f)
		})
		f := load(t, e, script(""), limits)
		// The answer of the next worker may be overdue as well, on a machine as busy as this.
		if r, _, err := f.Invoke(t.Context(), event("1")); code(err) != "cell.worker_lost" && string(r.Reply) != `"ok"` {
			t.Errorf("Invoke = %s, %v", r.Reply, err)
		}
		until(t, "the end of the worker", func() bool { return e.State().Restarts > 0 })
	}
}

// TestNoWorker: without a worker there is no engine; hello is checked.
func TestNoWorker(t *testing.T) {
	t.Parallel()
	for name, say := range map[string][]byte{
		"nothing":          nil,
		"nonsense":         []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"not JSON":         wall.Frame(wall.KindHello, 0, []byte(`{`)),
		"an unknown field": wall.Frame(wall.KindHello, 0, []byte(`{"admin":true}`)),
		"too much":         wall.Frame(wall.KindHello, 0, make([]byte, 1<<20)),
		"something else":   wall.Frame(wall.KindLoaded, 0, nil),
	} {
		_, err := wall.NewWithFakes(t.Context(), 1, patience, slog.New(slog.DiscardHandler), func(_ int, f wall.Fake) {
			_, _ = f.Conn.Write(say)
		})
		if err == nil {
			t.Errorf("%s: there is an engine", name)
		}
	}
	if _, err := wall.New(t.Context(), wall.Config{}); err == nil {
		t.Error("New of an empty configuration succeeds")
	}
	if _, err := wall.New(t.Context(), wall.Config{Program: "/nonexistent", Args: []string{"x"}, Grace: patience}); err == nil {
		t.Error("New of a program that is not there succeeds")
	}
}

// TestClosed: a closed engine answers, with the reason.
func TestClosed(t *testing.T) {
	t.Parallel()
	e := fakes(t, 1, patience, func(_ int, f wall.Fake) { obedient().play(f) })
	f := load(t, e, script(""), cell.DefaultLimits())
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Invoke(t.Context(), event("1")); code(err) != "cell.closed" {
		t.Errorf("Invoke = %v, want cell.closed", err)
	}
	if _, err := e.Load(t.Context(), script(""), cell.DefaultLimits()); code(err) != "cell.closed" {
		t.Errorf("Load = %v, want cell.closed", err)
	}
}

// TestLoadKills: a module that ends the worker that compiles it is refused, and no more.
func TestLoadKills(t *testing.T) {
	t.Parallel()
	e := fakes(t, 1, patience, func(_ int, f wall.Fake) {
		if f.Greet() != nil {
			return
		}
		in := wall.NewReader(f.Conn)
		_, _, _, _ = in.Next() // the module, and that was it
	})
	if _, err := e.Load(t.Context(), script(""), cell.DefaultLimits()); code(err) != "cell.worker_lost" {
		t.Errorf("Load = %v, want cell.worker_lost", errors.Unwrap(err))
	}
}

// TestMinInstances: the first event finds an instance, also in the worker that follows one that was lost.
func TestMinInstances(t *testing.T) {
	t.Parallel()
	var engines [2]*cell.Engine
	for i := range engines {
		e, err := cell.New(t.Context(), cell.Default())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		engines[i] = e
	}
	var first atomic.Pointer[os.File]
	e := fakes(t, 1, patience, func(n int, f wall.Fake) {
		if n == 0 {
			first.Store(f.Conn)
		}
		if err := f.Greet(); err != nil || n >= len(engines) {
			return
		}
		_ = f.Serve(context.Background(), engines[n]) // its end is the server's doing
	})
	limits := cell.DefaultLimits()
	limits.MinInstances = 1
	f := load(t, e, script(`export default () => 1`), limits)
	invoke := func() {
		t.Helper()
		if _, u, err := f.Invoke(t.Context(), event("1")); err != nil || u.Cold {
			t.Errorf("Invoke = %v, cold %v; want a warm one", err, u.Cold)
		}
	}
	invoke()
	if err := unix.Shutdown(int(first.Load().Fd()), unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	until(t, "the next worker has an instance", func() bool { return engines[1].Idle() == 1 })
	invoke()
}

// TestWorkerMemory: a worker that holds more memory than it may is ended, and what ran in it runs again.
func TestWorkerMemory(t *testing.T) {
	t.Parallel()
	var greedy atomic.Bool
	play := honest(t)
	e := fakes(t, 1, patience, func(n int, f wall.Fake) {
		if n > 0 {
			play(n, f)
			return
		}
		if err := f.Greet(); err != nil {
			return
		}
		in := wall.NewReader(f.Conn)
		_, id, _, err := in.Next()
		if err != nil {
			return
		}
		if _, err := f.Conn.Write(wall.Frame(wall.KindLoaded, id, wall.LoadedBody(cell.KindJavaScript))); err != nil {
			return
		}
		if _, _, _, err := wall.NewReader(f.Lanes[0]).Next(); err == nil { // an invocation, never answered
			greedy.Store(true)
			f.Memory.Store(wall.FakeMemory + 1)
		}
		_, _, _, _ = in.Next() // until the server ends it
	})
	f := load(t, e, script(`export default () => 7`), cell.DefaultLimits())
	r, _, err := f.Invoke(t.Context(), event("1"))
	if err != nil || string(r.Reply) != "7" || !greedy.Load() {
		t.Errorf("Invoke = %s, %v, and the worker was greedy: %v; want 7 after that", r.Reply, err, greedy.Load())
	}
	until(t, "the loss is counted", func() bool { return e.State().Restarts == 1 })
}
