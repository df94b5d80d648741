package wall_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/testkit"
)

// residentMiB returns how much memory a process holds.
func residentMiB(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20)
}

// BenchmarkWaiting has 1,000 invocations wait for a grant at the same time: "MiB" is what the worker and this process, which stands for the
// server, hold more then, and "idle-cpu-%" the processor time of both in a second, as a part of one processor.
func BenchmarkWaiting(b *testing.B) {
	const at = 1000
	ctx := context.Background()
	engine, err := wall.New(ctx, wall.Config{Program: testkit.Binary(b), Args: []string{"sallyport", "cell-worker"}, Lanes: wall.Default().Lanes, Grace: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = engine.Close(ctx) }()
	spec := cell.Spec{Name: "waits.js", Kind: "script", Code: []byte(`export default async (event, ctx) => (await ctx.grants.web.call("get")).value`), Grants: specs()}
	limits := cell.DefaultLimits()
	limits.Timeout = time.Minute
	fn, err := engine.Load(ctx, spec, limits)
	if err != nil {
		b.Fatal(err)
	}
	pids := []int{os.Getpid(), engine.State().PID}
	for b.Loop() {
		var before, after float64
		var spent time.Duration
		for _, pid := range pids {
			before += residentMiB(b, pid)
		}
		var begun, all sync.WaitGroup
		begun.Add(at)
		release := make(chan struct{})
		for range at {
			all.Go(func() {
				in := cell.Input{Event: []byte(`{"specversion":"1.0","id":"1","source":"/b","type":"b.b"}`), EventID: "1", Attempt: 1}
				in.Use = func(context.Context, cell.GrantUse) cell.GrantAnswer {
					begun.Done()
					<-release
					return cell.GrantAnswer{JSON: []byte(`1`)}
				}
				if r, _, err := fn.Invoke(ctx, in); err != nil || string(r.Reply) != "1" {
					b.Errorf("Invoke = %s, %v", r.Reply, err)
				}
			})
		}
		begun.Wait()
		for _, pid := range pids {
			after += residentMiB(b, pid)
			spent -= cpuOf(b, pid)
		}
		time.Sleep(time.Second) // what is measured is that nothing is done in it
		for _, pid := range pids {
			spent += cpuOf(b, pid)
		}
		close(release)
		all.Wait()
		b.ReportMetric(after-before, "MiB")
		b.ReportMetric(100*spent.Seconds(), "idle-cpu-%")
	}
	runtime.KeepAlive(fn)
}

// BenchmarkUse is the way of one use of a grant from a script to the server and back, of a kind that is made at once and of one that gets a goroutine:
// the difference between many uses in an invocation and none.
func BenchmarkUse(b *testing.B) {
	ctx := context.Background()
	engine, err := wall.New(ctx, wall.Config{Program: testkit.Binary(b), Args: []string{"sallyport", "cell-worker"}, Lanes: wall.Default().Lanes, Grace: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = engine.Close(ctx) }()
	direct, err := cell.New(ctx, cell.Default())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = direct.Close(ctx) }()
	const each = 1000
	for _, grant := range []string{"store", "web"} {
		spec := cell.Spec{Name: "uses.js", Kind: "script", Grants: specs(), Code: fmt.Appendf(nil,
			`export default async (event, ctx) => { for (let i = 0; i < %d; i++) await ctx.grants.%s.call("get", { key: "k" }); }`, each, grant)}
		limits := cell.DefaultLimits()
		limits.Timeout = time.Minute
		far, err := engine.Load(ctx, spec, limits)
		if err != nil {
			b.Fatal(err)
		}
		near, err := direct.Load(ctx, spec, limits)
		if err != nil {
			b.Fatal(err)
		}
		for name, fn := range map[string]invoker{"wall": far, "in-process": near} {
			b.Run(grant+"/"+name, func(b *testing.B) {
				in := cell.Input{Event: []byte(`{}`), EventID: "1", Attempt: 1, Use: func(context.Context, cell.GrantUse) cell.GrantAnswer {
					return cell.GrantAnswer{JSON: []byte(`"value"`)}
				}}
				for b.Loop() {
					if _, _, err := fn.Invoke(ctx, in); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/each, "µs/use")
			})
		}
	}
}
