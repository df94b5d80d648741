package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/client"
)

const (
	// heavyScript computes for about a fifth of a second and never waits.
	heavyScript = "export default () => { let s = 0; for (let i = 0; i < 4e5; i++) s = (s + i * 7) % 1000003; return s; };\n"
	lightScript = "export default () => 1;\n"
	fairEvery   = 5 * time.Millisecond
	// heavyEvents keep the heavy function busy for longer than all rounds last.
	heavyEvents = 5000
	fairBar     = 1.3
)

// measureFair is what a function that computes does to its neighbours, on all processors: the latency of a
// trivial function that is called every few milliseconds, and of accepting an event, while the other is
// paused and while it has more to do than it can. The heavy function's own pace is beside it: it is not to starve.
func measureFair(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	s, err := startUnpinned(ctx, o, filepath.Join(o.dir, "fair"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	f, err := newFair(ctx, s)
	if err != nil {
		return err
	}
	defer f.client.Close()
	var alone, beside fairSamples
	for round := range o.rounds + 1 {
		var one, two fairSamples
		if err := f.pause(ctx, true); err != nil {
			return err
		}
		if err := one.take(ctx, o, s, f, fmt.Sprint("alone", round)); err != nil {
			return err
		}
		if err := f.pause(ctx, false); err != nil {
			return err
		}
		if err := two.take(ctx, o, s, f, fmt.Sprint("beside", round)); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "  round %d: light p99 %s and %s, accept p99 %s and %s, heavy %v a second\n", round,
			one.light[0].P99, two.light[0].P99, one.accept[0].P99, two.accept[0].P99, two.heavy[0])
		if round > 0 { // the first round warms up, and the server learns who is heavy
			alone.append(one)
			beside.append(two)
		}
	}
	r.add("(fair) called every 5 ms", "trivial function, alone", alone.light)
	r.add("(fair)", "the same beside a heavy one", beside.light)
	r.add("(fair)", "accepting, alone", alone.accept)
	r.add("(fair)", "accepting, beside a heavy one", beside.accept)
	r.compare("(fair)", "p99, function, beside : alone", pairRatio(alone.light, beside.light, p99), fmt.Sprintf("bar ≤ %.1f", fairBar))
	r.compare("(fair)", "p50, function, beside : alone", pairRatio(alone.light, beside.light, p50), "")
	r.compare("(fair)", "p99, accepting, beside : alone", pairRatio(alone.accept, beside.accept, p99), "")
	r.compare("(fair)", "the heavy one", 0, fmt.Sprintf("%.1f events a second", median(beside.heavy)))
	return nil
}

func p50(s sample) float64 { return float64(s.P50) }
func p99(s sample) float64 { return float64(s.P99) }

// startUnpinned starts the server on all processors: what is measured is how they are shared.
func startUnpinned(ctx context.Context, o options, dir string) (*sallyport, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	readyFile := filepath.Join(dir, "ready.json")
	p := &process{}
	p.cmd = exec.CommandContext(ctx, o.binary, "server", "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data"), "--ready-file", readyFile)
	p.cmd.Stderr = &p.log
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: this thread ends with what it may
		var all unix.CPUSet
		for cpu := range runtime.NumCPU() {
			all.Set(cpu)
		}
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			started <- fmt.Errorf("unpin the server: %w", err)
			return
		}
		started <- p.cmd.Start()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	ready, err := awaitFile(ctx, readyFile)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the server did not become ready: %w\n%s", err, p.log.String()), p.stop())
	}
	s := &sallyport{process: p}
	return s, json.Unmarshal(ready, &s.ready)
}

// fair is the app under measurement, with events that wait for the heavy function.
type fair struct {
	client         *client.Client
	events, invoke *target
}

func newFair(ctx context.Context, s *sallyport) (*fair, error) {
	c, err := client.New(client.Config{Server: s.ready.URL, CAFile: s.ready.CAFile, TokenFile: s.ready.TokenFile, Namespace: "default"})
	if err != nil {
		return nil, err
	}
	f := &fair{client: c}
	const app = `name = "fair"
[functions.light]
source = "light.js"
[functions.heavy]
source = "heavy.js"
[subscriptions.heavy]
function = "heavy"
filter = { type = "bench.heavy" }
`
	_, err = c.Apply(ctx, &api.Bundle{Manifest: app, Modules: map[string]api.Module{
		"light": {Kind: api.ModuleScript, Code: []byte(lightScript)}, "heavy": {Kind: api.ModuleScript, Code: []byte(heavyScript)},
	}}, false)
	if err != nil {
		return nil, err
	}
	if f.events, err = s.events(); err != nil {
		return nil, err
	}
	invoke := *f.events
	invoke.path = "/v1/namespaces/default/functions/light/invoke"
	f.invoke = &invoke
	return f, f.fill(ctx)
}

// fill publishes what keeps the heavy function busy.
func (f *fair) fill(ctx context.Context) error {
	const size = 500
	for n := 0; n < heavyEvents; n += size {
		var b bytes.Buffer
		for i := range size {
			fmt.Fprintf(&b, `,{"specversion":"1.0","type":"bench.heavy","source":"/bench","id":"heavy-%d"}`, n+i)
		}
		b.WriteByte(']')
		b.Bytes()[0] = '['
		if _, err := f.client.Publish(ctx, b.Bytes(), true); err != nil {
			return fmt.Errorf("publish events for the heavy function: %w", err)
		}
	}
	return nil
}

// pause pauses or resumes the heavy function, and waits until that is so: until nothing of it is done any
// more, or something is.
func (f *fair) pause(ctx context.Context, paused bool) error {
	if _, err := f.client.SetPaused(ctx, "heavy", paused); err != nil {
		return err
	}
	before, err := f.done(ctx)
	if err != nil {
		return err
	}
	const look = 500 * time.Millisecond
	for tick := time.NewTicker(look); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now, err := f.done(ctx)
		if err != nil {
			return err
		}
		if (now == before) == paused {
			return nil
		}
		before = now
	}
}

func (f *fair) done(ctx context.Context) (int64, error) {
	s, err := f.client.Status(ctx)
	if err != nil {
		return 0, err
	}
	return s.Namespaces[0].Done, nil
}

// fairSamples are those of both latencies, and how many heavy events were done a second.
type fairSamples struct {
	light, accept []sample
	heavy         []float64
}

func (a *fairSamples) append(b fairSamples) {
	a.light, a.accept, a.heavy = append(a.light, b.light...), append(a.accept, b.accept...), append(a.heavy, b.heavy...)
}

// take calls the trivial function and has an event accepted, every few milliseconds, one at a time.
func (a *fairSamples) take(ctx context.Context, o options, s *sallyport, f *fair, name string) error {
	before, err := f.done(ctx)
	if err != nil {
		return err
	}
	var (
		both          sync.WaitGroup
		light, accept sample
		errs          [2]error
	)
	rate := float64(time.Second / fairEvery)
	both.Go(func() {
		light, errs[0] = load{target: f.invoke, clients: 1, duration: o.duration, rate: rate, request: calls, want: 200}.run(ctx, s.process)
	})
	both.Go(func() {
		accept, errs[1] = load{target: f.events, clients: 1, duration: o.duration, rate: rate, request: singles(name), want: 202}.run(ctx, s.process)
	})
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if n := light.Failed + accept.Failed; n > 0 {
		return fmt.Errorf("%d requests failed", n)
	}
	status, err := f.client.Status(ctx)
	if err != nil {
		return err
	}
	n := status.Namespaces[0]
	if n.Dead > 0 || n.Pending == 0 {
		return fmt.Errorf("%d events are dead and %d pending: the heavy function is to have work until the end", n.Dead, n.Pending)
	}
	a.light, a.accept = append(a.light, light), append(a.accept, accept)
	a.heavy = append(a.heavy, max(0, float64(n.Done-before-int64(light.Events+accept.Events))/light.Wall.Seconds()))
	return nil
}

// calls makes calls of the trivial function.
func calls(int64) (string, []byte, int) { return "Content-Type: application/json\r\n", []byte("1"), 1 }
