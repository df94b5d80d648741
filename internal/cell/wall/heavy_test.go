package wall_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/problem"
)

func heavy(data string) cell.Input {
	in := event(data)
	in.Heavy = true
	return in
}

func invoke(t *testing.T, f *wall.Function, in cell.Input, want string) {
	t.Helper()
	if r, _, err := f.Invoke(t.Context(), in); err != nil || string(r.Reply) != want {
		t.Errorf("Invoke = %s, %v; want %s", r.Reply, err, want)
	}
}

// numbered answers with the number of the worker.
func numbered(n int) server {
	return server{func(_ wall.Reader, write func([]byte), id uint64, _ []byte) { write(done(id, string(rune('0'+n)))) }}
}

// TestHeavy: heavy invocations run in a worker of their own, which is there while it is needed, and others do not.
func TestHeavy(t *testing.T) {
	t.Parallel()
	e := fakes(t, 1, patience, func(n int, f wall.Fake) { numbered(n).play(f) })
	f := load(t, e, script(""), cell.DefaultLimits())
	invoke(t, f, event("1"), "0")
	if pid := e.State().HeavyPID; pid != 0 {
		t.Errorf("the worker of heavy functions is %d before there is one; want none", pid)
	}
	for range 3 {
		invoke(t, f, heavy("1"), "1")
		invoke(t, f, event("1"), "0")
	}
	s := e.State()
	if s.HeavyPID == 0 || s.HeavyPID == s.PID {
		t.Errorf("the worker of heavy functions is %d, that of others %d; want two", s.HeavyPID, s.PID)
	}
	e.Retire()
	until(t, "the worker of heavy functions is gone", func() bool { return e.State().HeavyPID == 0 })
	invoke(t, f, heavy("1"), "2")
	if n := e.State().Restarts; n != 0 {
		t.Errorf("%d workers were lost; want none: one was not needed", n)
	}
}

// TestHeavyInUse: the worker of heavy functions is not ended while one of several invocations runs in it.
func TestHeavyInUse(t *testing.T) {
	t.Parallel()
	begun, answer := make(chan struct{}), make(chan struct{})
	e := fakes(t, 2, patience, func(n int, f wall.Fake) {
		s := numbered(n)
		if n == 1 {
			s.invoke = func(_ wall.Reader, write func([]byte), id uint64, body []byte) {
				if _, in, err := wall.DecodeInvoke(body); err != nil || in.EventID == "slow" {
					close(begun)
					<-answer
				}
				write(done(id, "1"))
			}
		}
		s.play(f)
	})
	f := load(t, e, script(""), cell.DefaultLimits())
	var all sync.WaitGroup
	all.Go(func() {
		in := heavy("1")
		in.EventID = "slow"
		invoke(t, f, in, "1")
	})
	<-begun
	invoke(t, f, heavy("1"), "1")
	e.Retire()
	close(answer)
	all.Wait()
	invoke(t, f, heavy("1"), "1")
}

// TestHeavyLost: what ran in a lost worker of heavy functions runs again, alone, and the next has another worker.
func TestHeavyLost(t *testing.T) {
	t.Parallel()
	e := fakes(t, 1, patience, func(n int, f wall.Fake) {
		s := numbered(n)
		if n == 1 {
			s.invoke = func(wall.Reader, func([]byte), uint64, []byte) {
				_ = f.Conn.Close()
				for _, l := range f.Lanes {
					_ = l.Close()
				}
			}
		}
		s.play(f)
	})
	f := load(t, e, script(""), cell.DefaultLimits())
	invoke(t, f, heavy("1"), "2")
	until(t, "the loss of a worker", func() bool { return e.State().Restarts == 1 })
	invoke(t, f, heavy("1"), "3")
	invoke(t, f, event("1"), "0")
}

// TestWeakerWorker: no worker is used around which a wall is missing that stood around the first.
func TestWeakerWorker(t *testing.T) {
	t.Parallel()
	var weak atomic.Int64
	e := fakes(t, 1, patience, func(n int, f wall.Fake) {
		if f.GreetWith(n != 1) != nil {
			return
		}
		s := numbered(n)
		if n == 1 {
			s.invoke = func(_ wall.Reader, _ func([]byte), _ uint64, _ []byte) { weak.Add(1) }
		}
		s.serve(f)
	})
	f := load(t, e, script(""), cell.DefaultLimits())
	invoke(t, f, heavy("1"), "2")
	if weak.Load() > 0 {
		t.Error("a worker without a wall was given an event")
	}
}

// TestInitialisationOnTrial: what computes for long before its first event does so in the worker of heavy functions, and is refused there when it
// never ends. What takes little is loaded in the worker of all, and no other is started.
func TestInitialisationOnTrial(t *testing.T) {
	t.Parallel()
	var started atomic.Int64
	play := honest(t)
	e := fakes(t, 2, patience, func(n int, f wall.Fake) {
		started.Add(1)
		play(n, f)
	})
	load(t, e, script(`const all = []; for (let i = 0; i < 1000; i++) all.push(i); export default () => all.length`), cell.DefaultLimits())
	if n := started.Load(); n != 1 {
		t.Errorf("%d workers run, want one", n)
	}
	limits := cell.DefaultLimits()
	limits.Timeout = time.Second // what comes before the first event has somewhat more
	var bombs sync.WaitGroup
	for name, spec := range map[string]cell.Spec{
		"script": script(`for (;;) {}`),
		"module": {Name: "m.wasm", Kind: api.ModuleWasm, Code: []byte("\x00asm\x01\x00\x00\x00\x01\x08\x02\x60\x00\x01\x7f\x60\x00\x00\x03\x03\x02\x00\x01\x05\x03\x01\x00\x01" +
			"\x07\x1d\x02\x06memory\x02\x00\x10sallyport_handle\x00\x00\x08\x01\x01\x0a\x0e\x02\x04\x00\x41\x00\x0b\x07\x00\x03\x40\x0c\x00\x0b\x0b")},
	} {
		bombs.Go(func() {
			if _, err := e.Load(t.Context(), spec, limits); problem.From(err).Kind != problem.Unprocessable {
				t.Errorf("Load(%s) = %v, want a refusal", name, err)
			}
		})
	}
	bombs.Wait()
	if n := started.Load(); n != 2 {
		t.Errorf("%d workers were started, want that of heavy functions too", n)
	}
	slow := script(`const end = Date.now() + 1000; while (Date.now() < end) {} export default () => "ready"`)
	f := load(t, e, slow, cell.DefaultLimits())
	if r, _, err := f.Invoke(t.Context(), event(`1`)); err != nil || string(r.Reply) != `"ready"` {
		t.Errorf("Invoke = %s, %v", r.Reply, err)
	}
}
