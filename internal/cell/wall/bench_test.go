package wall_test

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/testkit"
)

// invoker is a function, in this process or in a worker.
type invoker interface {
	Invoke(ctx context.Context, in cell.Input) (cell.Result, cell.Usage, error)
}

// trivial does as little as a function can.
func trivial() cell.Spec {
	return cell.Spec{Name: "trivial.js", Kind: api.ModuleScript, Code: []byte(`export default () => 1`)}
}

// cpuOf returns the processor time of a process so far.
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	const scheduler = 2 // see CPUCLOCK_SCHED in clock_getres(2)
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduler, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// BenchmarkHandOver compares functions in this process with functions in a worker, in one run: what a
// worker costs is the difference. "cpu-µs/op" is the processor time of all processes.
func BenchmarkHandOver(b *testing.B) {
	ctx := context.Background()
	direct, err := cell.New(ctx, cell.Default())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = direct.Close(ctx) }()
	near, err := direct.Load(ctx, trivial(), cell.DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	engine, err := wall.New(ctx, wall.Config{Program: testkit.Binary(b), Args: []string{"sallyport", "cell-worker"}, Lanes: lanes(b), Grace: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = engine.Close(ctx) }()
	far, err := engine.Load(ctx, trivial(), cell.DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	worker := engine.State().PID
	event := make([]byte, 0, 1024)
	event = append(event, `{"specversion":"1.0","id":"1","source":"/b","type":"b.b","datacontenttype":"application/json","data":"`...)
	for len(event) < cap(event)-2 {
		event = append(event, 'x')
	}
	event = append(event, `"}`...)
	for _, c := range []struct {
		name    string
		at      int
		fn      invoker
		workers []int
	}{
		{"in-process/1", 1, near, nil},
		{"wall/1", 1, far, []int{worker}},
		{"in-process/8", 8, near, nil},
		{"wall/8", 8, far, []int{worker}},
	} {
		b.Run(c.name, func(b *testing.B) {
			measure(b, c.fn, c.at, append([]int{os.Getpid()}, c.workers...), event)
		})
	}
}

// lanes is how many lanes the benchmark uses; SALLYPORT_LANES asks for another number.
func lanes(b *testing.B) int {
	b.Helper()
	text := os.Getenv("SALLYPORT_LANES")
	if text == "" {
		return wall.Default().Lanes
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// measure invokes fn from so many goroutines at a time.
func measure(b *testing.B, fn invoker, at int, pids []int, event []byte) {
	run := func(n int64) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range at {
			wg.Go(func() {
				for next.Add(1) <= n {
					if _, _, err := fn.Invoke(context.Background(), cell.Input{Event: event, EventID: "1", Attempt: 1}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	run(200) // so that instances are there
	before := make([]time.Duration, len(pids))
	for i, pid := range pids {
		before[i] = cpuOf(b, pid)
	}
	b.ResetTimer()
	run(int64(b.N))
	b.StopTimer()
	var spent time.Duration
	for i, pid := range pids {
		own := cpuOf(b, pid) - before[i]
		if spent += own; i > 0 {
			b.ReportMetric(float64(own.Nanoseconds())/1e3/float64(b.N), "worker-µs/op")
		}
	}
	b.ReportMetric(float64(spent.Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
}
