package wall_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
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
