package dispatch_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/dispatch"
	"sallyport/internal/ident"
)

// machine runs what a budget starts, in the virtual time of a bubble: an attempt of a lane takes what
// its work says.
type machine struct {
	budget *dispatch.Budget

	mu     sync.Mutex
	spaces []*space
}

type space struct {
	*dispatch.Lanes
	work []work
	cpu  []time.Duration // used, by lane
	runs []int           // under way, by lane
	most []int
	done []int
	ever bool // there is always more to do
}

// work is what an attempt does.
type work struct {
	cpu, waits time.Duration
	emits      int // events
}

func newMachine(processors int) *machine { return &machine{budget: dispatch.NewBudget(processors)} }

func (m *machine) space(workers int, ever bool, lanes ...work) *space {
	s := &space{
		Lanes: dispatch.NewLanes(m.budget, len(lanes), workers, 4), work: lanes, ever: ever,
		cpu: make([]time.Duration, len(lanes)), runs: make([]int, len(lanes)), most: make([]int, len(lanes)), done: make([]int, len(lanes)),
	}
	s.Begun = func(lane int, t dispatch.Ticket) {
		m.mu.Lock()
		s.runs[lane]++
		s.most[lane] = max(s.most[lane], s.runs[lane])
		w := s.work[lane]
		m.mu.Unlock()
		time.AfterFunc(w.cpu+w.waits, func() {
			m.mu.Lock()
			s.runs[lane]--
			s.cpu[lane] += w.cpu
			s.done[lane]++
			m.mu.Unlock()
			if s.ever {
				s.Add(lane)
			}
			m.budget.DoneEmitting(t, w.cpu, w.cpu+w.waits, w.emits)
			m.budget.Fill()
		})
	}
	m.spaces = append(m.spaces, s)
	return s
}

// fill gives every lane so many deliveries and starts them.
func (m *machine) fill(n int) {
	for _, s := range m.spaces {
		for lane := range s.work {
			for range n {
				s.Add(lane)
			}
		}
	}
	m.budget.Fill()
}

// end lets what is under way end and starts nothing more.
func (m *machine) end() {
	for _, s := range m.spaces {
		s.Leave()
	}
	time.Sleep(time.Hour)
}

func (s *space) total() (sum time.Duration) {
	for _, c := range s.cpu {
		sum += c
	}
	return sum
}

func wantEqual(t *testing.T, what string, a, b time.Duration) {
	t.Helper()
	if r := float64(a) / float64(b); r < 0.9 || r > 1.1 {
		t.Errorf("%s: processor time %s and %s; want them equal within a tenth", what, a, b)
	}
}

func TestBudgetShares(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	for _, processors := range []int{1, 4} {
		for _, tt := range []struct {
			name string
			a, b work
		}{
			{"quick", work{cpu: ms}, work{cpu: 15 * ms}},
			{"equal", work{cpu: ms}, work{cpu: ms}},
			{"slow", work{cpu: 30 * ms}, work{cpu: 400 * ms}},
			{"half waiting", work{cpu: 2 * ms, waits: 2 * ms}, work{cpu: 16 * ms}},
		} {
			t.Run(fmt.Sprint(tt.name, " on ", processors), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					m := newMachine(processors)
					// Two hogs of each kind for each processor, so that there is never room for all.
					var lanes []work
					for range 2 * processors {
						lanes = append(lanes, tt.a, tt.b)
					}
					s := m.space(16*processors, true, lanes...)
					m.fill(20)
					time.Sleep(200 * (tt.a.cpu + tt.b.cpu))
					m.mu.Lock()
					var a, b time.Duration
					for i := range lanes {
						if i%2 == 0 {
							a += s.cpu[i]
						} else {
							b += s.cpu[i]
						}
					}
					m.mu.Unlock()
					wantEqual(t, "functions", a, b)
					m.end()
				})
			})
		}
	}
}

// Ten functions in one namespace get no more than one in another.
// TestBudgetChargesEmitted: what the server does for the events that a function emits is the function's, as if it had done it itself. Without that,
// an attempt that emits and waits for the disk takes nothing, and as many run at once as there are workers.
func TestBudgetChargesEmitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(1)
		const emits = 100
		stores := emits * dispatch.EmitCharge
		s := m.space(16, true, work{cpu: 20*time.Microsecond + stores}, work{cpu: 20 * time.Microsecond, waits: stores, emits: emits})
		m.fill(20)
		time.Sleep(time.Minute)
		computed, emitted := s.done[0], s.done[1]
		m.end()
		if r := float64(emitted) / float64(computed); r < 0.9 || r > 1.1 {
			t.Errorf("%d attempts that compute and %d that have the server do as much; want as many within a tenth", computed, emitted)
		}
	})
}

func TestBudgetSharesBetweenNamespaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(2)
		one := work{cpu: 3 * time.Millisecond}
		many := m.space(32, true, one, one, one, one, one, one, one, one, one, one)
		alone := m.space(32, true, one)
		m.fill(50)
		time.Sleep(5 * time.Second)
		m.mu.Lock()
		wantEqual(t, "namespaces", many.total(), alone.total())
		for i := range many.cpu {
			wantEqual(t, fmt.Sprint("function ", i), many.cpu[i], many.total()/10)
		}
		m.mu.Unlock()
		m.end()
	})
}

// What was idle starts next, and cannot have saved credit: after its turn the others have theirs.
func TestBudgetIdleStartsNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(2)
		ms := work{cpu: time.Millisecond}
		hog := m.space(32, true, ms, ms, ms, ms)
		late := m.space(32, true, ms)
		for lane := range hog.work {
			for range 20 {
				hog.Add(lane)
			}
		}
		m.budget.Fill()
		time.Sleep(3*time.Second + time.Microsecond)
		late.Add(0)
		m.budget.Fill()
		time.Sleep(2 * time.Millisecond)
		m.mu.Lock()
		if late.done[0] != 1 {
			t.Errorf("an idle function's first event is done %d times after the time of two attempts; want 1", late.done[0])
		}
		before := hog.total()
		m.mu.Unlock()
		for range 20 {
			late.Add(0)
		}
		m.budget.Fill()
		time.Sleep(time.Second)
		m.mu.Lock()
		wantEqual(t, "after a while of idling", hog.total()-before, late.total())
		m.mu.Unlock()
		m.end()
	})
}

// A function that waits has many attempts in flight, one that computes as many as there are
// processors, and one that is slow half of that. Estimates follow when a function changes.
func TestBudgetAdapts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ms := time.Millisecond
		m := newMachine(4)
		s := m.space(64, true, work{waits: time.Second}, work{cpu: 5 * ms}, work{cpu: 100 * ms})
		most := func() [3]int {
			m.mu.Lock()
			clear(s.most)
			m.mu.Unlock()
			time.Sleep(10 * time.Second)
			m.mu.Lock()
			defer m.mu.Unlock()
			return [3]int(s.most)
		}
		m.fill(100)
		time.Sleep(10 * time.Second)
		got := most()
		if got[0] < 24 || got[0] > 48 {
			t.Errorf("attempts at once of a function that waits: %d; want about half of 64 workers", got[0])
		}
		if got[1] != 4 || got[2] != 2 {
			t.Errorf("attempts at once of one that computes and one that is slow: %d and %d; want 4 and 2", got[1], got[2])
		}
		m.mu.Lock()
		s.work[0], s.work[2] = s.work[2], s.work[0]
		m.mu.Unlock()
		time.Sleep(20 * time.Second)
		got = most()
		if got[0] != 2 || got[2] < 24 {
			t.Errorf("after they changed places: %d and %d at once; want 2 and about 32", got[0], got[2])
		}
		m.end()
	})
}

// A function that was quick and now waits keeps nobody from a processor for long.
func TestBudgetLapses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(1)
		s := m.space(16, false, work{waits: time.Hour / 2}, work{waits: time.Hour / 2}, work{cpu: time.Millisecond})
		s.Add(0)
		s.Add(1)
		m.budget.Fill()
		s.Add(2)
		m.budget.Fill()
		time.Sleep(50 * time.Millisecond)
		m.mu.Lock()
		if s.done[2] != 1 {
			t.Errorf("a quick function is done %d times beside two that wait; want 1", s.done[2])
		}
		m.mu.Unlock()
		m.end()
	})
}

// Every delivery that is added starts exactly once, whatever comes in between, and the budget is
// empty in the end.
func TestBudgetStartsEachOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				m := newMachine(1 + random.IntN(4))
				for range 1 + random.IntN(5) {
					var lanes []work
					for range 1 + random.IntN(20) {
						lanes = append(lanes, work{cpu: time.Duration(random.IntN(40)) * time.Millisecond, waits: time.Duration(random.IntN(2)*random.IntN(1000)) * time.Millisecond})
					}
					m.space(1+random.IntN(16), false, lanes...)
				}
				added := map[*space][]int{}
				for _, s := range m.spaces {
					added[s] = make([]int, len(s.work))
				}
				for range 500 {
					s := m.spaces[random.IntN(len(m.spaces))]
					lane := random.IntN(len(s.work))
					added[s][lane]++
					s.Add(lane)
					m.budget.Fill()
					if random.IntN(10) == 0 {
						time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
					}
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				m.mu.Lock()
				defer m.mu.Unlock()
				for i, s := range m.spaces {
					for lane, want := range added[s] {
						if s.done[lane] != want {
							t.Errorf("namespace %d lane %d: %d done; want %d", i, lane, s.done[lane], want)
						}
					}
					if n := s.Running(); n != 0 {
						t.Errorf("namespace %d: %d running; want 0", i, n)
					}
				}
			})
		})
	}
}

// A namespace that leaves with lanes that wait starts nothing more, and the others go on.
func TestBudgetLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(2)
		ms := work{cpu: time.Millisecond}
		gone, stays := m.space(32, false, ms, ms), m.space(32, false, ms)
		m.fill(100)
		time.Sleep(10*time.Millisecond + time.Microsecond)
		gone.Leave()
		m.mu.Lock()
		before := gone.done[0] + gone.done[1] + gone.runs[0] + gone.runs[1]
		m.mu.Unlock()
		time.Sleep(time.Hour)
		m.mu.Lock()
		defer m.mu.Unlock()
		if n := gone.done[0] + gone.done[1]; n != before {
			t.Errorf("%d attempts of a namespace that left; want the %d that had begun", n, before)
		}
		if stays.done[0] != 100 {
			t.Errorf("%d attempts of the other namespace; want 100", stays.done[0])
		}
	})
}

// Random events for functions that fail, wait and are paused: each is settled once for each
// subscription.
func TestEachSettlesOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		var all []ident.Position
		for range 50 {
			var data []string
			for range 1 + random.IntN(20) {
				data = append(data, fmt.Sprintf(`{"a":{"takes":%d,"fails":%d},"b":{"takes":%d}}`,
					random.IntN(2)*random.IntN(int(3*time.Second)), random.IntN(3), random.IntN(int(50*time.Millisecond))))
			}
			all = append(all, w.accept(data...)...)
			time.Sleep(time.Duration(random.IntN(int(200 * time.Millisecond))))
		}
		time.Sleep(30 * time.Minute)
		w.wantBalance(int64(len(all)), 0, 0)
		for _, pos := range all {
			if n := w.attemptsAt(pos, "b"); n != 1 {
				t.Errorf("attempts of b at %s = %d; want 1", pos, n)
			}
		}
	})
}

// A heavy function that gets less than quick ones does not keep a new one waiting for what it did not get.
func TestBudgetCredit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ms := time.Millisecond
		m := newMachine(2)
		m.space(32, true, work{cpu: ms}, work{cpu: ms}, work{cpu: ms}, work{cpu: ms})
		m.space(32, true, work{cpu: 100 * ms})
		m.fill(20)
		time.Sleep(10 * time.Minute)
		late := m.space(32, true, work{cpu: 100 * ms})
		for range 20 {
			late.Add(0)
		}
		m.budget.Fill()
		time.Sleep(10 * time.Second)
		m.mu.Lock()
		before, hog := late.cpu[0], m.spaces[1].cpu[0]
		if before == 0 {
			t.Error("nothing of a new function was done in ten seconds")
		}
		m.mu.Unlock()
		time.Sleep(20 * time.Second)
		m.mu.Lock()
		wantEqual(t, "old and new", m.spaces[1].cpu[0]-hog, late.cpu[0]-before)
		m.mu.Unlock()
		m.end()
	})
}

// BenchmarkBudgetOne starts and ends one attempt of the only function there is, which is what most events cost.
func BenchmarkBudgetOne(b *testing.B) {
	budget := dispatch.NewApartBudget(2)
	var last dispatch.Ticket
	l := dispatch.NewLanes(budget, 1, 32, 4)
	l.Begun = func(_ int, t dispatch.Ticket) { last = t }
	b.ReportAllocs()
	for b.Loop() {
		l.Add(0)
		budget.Fill()
		budget.Done(last, 20*time.Microsecond, 100*time.Microsecond)
		budget.Fill()
	}
}

// BenchmarkBudget starts and ends one attempt with 10,000 lanes of 1,000 namespaces waiting.
func BenchmarkBudget(b *testing.B) {
	budget := dispatch.NewBudget(2)
	type begun struct {
		space, lane int
		t           dispatch.Ticket
	}
	var last []begun
	var spaces []*dispatch.Lanes
	for i := range 1000 {
		l := dispatch.NewLanes(budget, 10, 32, 4)
		l.Begun = func(lane int, t dispatch.Ticket) { last = append(last, begun{i, lane, t}) }
		spaces = append(spaces, l)
		for lane := range 10 {
			l.Add(lane)
			l.Add(lane)
		}
	}
	budget.Fill()
	b.ReportAllocs()
	for b.Loop() {
		next := last[0]
		last = append(last[:0], last[1:]...)
		spaces[next.space].Add(next.lane)
		budget.Done(next.t, 100*time.Microsecond, 120*time.Microsecond)
		budget.Fill()
	}
}

// A function is heavy after two long attempts in a row, until its mean is well below that; a restart knows.
func TestBudgetHeavy(t *testing.T) {
	t.Parallel()
	const l, s = 30 * time.Millisecond, time.Millisecond
	border := 15 * time.Millisecond
	for _, tt := range []struct {
		name string
		past *dispatch.Past
		cpu  []time.Duration
		want string // of each start: h when it was heavy
	}{
		{"short", nil, []time.Duration{s, s, s, s}, "----"},
		{"one long", nil, []time.Duration{l, s, s, s}, "----"},
		{"now and then", nil, []time.Duration{l, s, l, s, l, s}, "------"},
		{"long", nil, []time.Duration{l, l, l, l}, "--hh"},
		{"falls slowly", nil, []time.Duration{l, l, s, s, s, s, s, s, s, s, s, s, s}, "--hhhhhhhhh--"},
		{"stays on the border", nil, []time.Duration{l, l, border, border, border, border, border, border, border, border, border}, "--hhhhhhhhh"},
		{"was never over it", nil, []time.Duration{border, border, border, border}, "----"},
		{"was long", &dispatch.Past{CPU: l, Wall: l}, []time.Duration{l, l}, "hh"},
		{"was short", &dispatch.Past{CPU: s, Wall: s}, []time.Duration{l, l, l}, "--h"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := dispatch.NewBudget(2)
			lanes := dispatch.NewLanes(b, 1, 32, 4)
			if tt.past != nil {
				lanes.Recall(0, *tt.past)
			}
			got := ""
			for _, cpu := range tt.cpu {
				var begun dispatch.Ticket
				lanes.Begun = func(_ int, tk dispatch.Ticket) { begun = tk }
				lanes.Add(0)
				b.Fill()
				if begun.Heavy() {
					got += "h"
				} else {
					got += "-"
				}
				b.Done(begun, cpu, cpu)
			}
			if got != tt.want {
				t.Errorf("starts = %s; want %s", got, tt.want)
			}
		})
	}
}

// While an attempt of an unknown function takes long, other unknown functions are taken for heavy; known ones
// are not, and nobody is when it has ended.
func TestBudgetStrangers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := dispatch.NewBudget(2)
		lanes := dispatch.NewLanes(b, 5, 32, 4)
		lanes.Recall(4, dispatch.Past{CPU: time.Millisecond, Wall: time.Millisecond})
		start := func(lane int, want bool) (begun dispatch.Ticket) {
			lanes.Begun = func(_ int, tk dispatch.Ticket) { begun = tk }
			lanes.Add(lane)
			b.Fill()
			if begun.Heavy() != want {
				t.Errorf("lane %d is heavy: %t; want %t", lane, begun.Heavy(), want)
			}
			return begun
		}
		first := start(0, false)
		second := start(1, false)
		time.Sleep(50 * time.Millisecond)
		third := start(2, true)
		b.Done(start(4, false), time.Millisecond, time.Millisecond)
		for _, tk := range []dispatch.Ticket{first, second, third} {
			b.Done(tk, 50*time.Millisecond, 50*time.Millisecond)
		}
		b.Done(start(3, false), time.Millisecond, time.Millisecond)
		lanes.Leave()
	})
}

// Where heavy functions have a place of their own, no quick attempt waits for one of theirs, whatever they
// have to do; and one long attempt of a quick function does not have it wait for the next.
func TestBudgetApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ms := time.Millisecond
		m := &machine{budget: dispatch.NewApartBudget(2)}
		hogs := m.space(32, true, work{cpu: 10 * ms}, work{cpu: 10 * ms}, work{cpu: 400 * ms})
		for lane := range hogs.work {
			for range 20 {
				hogs.Add(lane)
			}
		}
		m.budget.Fill()
		time.Sleep(3 * time.Second)
		light := m.space(32, false, work{cpu: ms / 10})
		for n := range 50 {
			m.mu.Lock()
			if light.work[0] = (work{cpu: ms / 10}); n == 20 {
				light.work[0] = work{cpu: 30 * ms}
			}
			takes := light.work[0].cpu
			m.mu.Unlock()
			light.Add(0)
			m.budget.Fill()
			time.Sleep(takes + time.Nanosecond)
			m.mu.Lock()
			if light.done[0] != n+1 {
				t.Errorf("event %d is not done after the time that it takes", n)
			}
			m.mu.Unlock()
			time.Sleep(7 * ms)
		}
		m.mu.Lock()
		if hogs.most[2] > 4 || hogs.done[0] == 0 || hogs.done[2] == 0 {
			t.Errorf("attempts at once of the slowest: %d, and done: %v; want few, and some of each", hogs.most[2], hogs.done)
		}
		clear(hogs.most)
		m.mu.Unlock()
		time.Sleep(5 * time.Second)
		m.mu.Lock()
		if most := [3]int(hogs.most); most != [3]int{2, 2, 1} {
			t.Errorf("attempts at once: %v; want 2 of those that are medium, and 1 of the slow one", most)
		}
		m.mu.Unlock()
		m.end()
	})
}
