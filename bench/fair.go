package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"sallyport/api"
	"sallyport/client"
)

const (
	lightScript = "export default () => 1;\n"
	// heavyScript computes for about a fifth of a second and never waits, busyScript for a hundredth.
	heavyScript = "export default () => { let s = 0; for (let i = 0; i < 4e5; i++) s = (s + i * 7) % 1000003; return s; };\n"
	busyScript  = "export default () => { let s = 0; for (let i = 0; i < 2e4; i++) s = (s + i * 7) % 1000003; return s; };\n"
	fairEvery   = 5 * time.Millisecond
	// fairWindow is how long each of the three is measured in turn: short, so that what else the machine does
	// meets all three. There are fairWindows of them for each round.
	fairWindow  = time.Second
	fairWindows = 5
	// Events that keep a function busy for longer than all rounds last.
	heavyEvents, busyEvents = 3000, 30000
)

// measureFair is what a function that computes does to its neighbours, on all processors: the latency of a
// trivial function that is called every few milliseconds, and of accepting an event, while nothing else runs, and
// while a function has more to do than it can. Its own pace is beside it: it is not to starve.
func measureFair(ctx context.Context, o options, r *report, _ io.Writer) (err error) {
	s, err := startSallyportOn(ctx, o, bothCPUs, filepath.Join(o.dir, "fair"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	f, err := newFair(ctx, s)
	if err != nil {
		return err
	}
	defer f.client.Close()
	got := map[string]*fairSamples{"": {}, "heavy": {}, "busy": {}}
	for window := range fairWindows * (o.rounds + 1) {
		for _, beside := range []string{"", "heavy", "busy"} {
			one, err := f.take(ctx, s, beside, fmt.Sprint(beside, window))
			if err != nil {
				return err
			}
			if window >= fairWindows { // the first round warms up, and the server learns who is heavy
				got[beside].append(one)
			}
		}
	}
	called := r.add("(fair) called every 5 ms", "trivial function, alone", got[""].light)
	accepted := r.add("(fair)", "accepting, alone", got[""].accept)
	for _, c := range []struct {
		name, what string
		bar        bar
	}{
		{"heavy", "one that computes for 0.2 s", atMost(1.3)}, {"busy", "one that computes for 10 ms", atMost(1.3)},
	} {
		g := got[c.name]
		called2 := r.add("(fair)", "trivial function, beside "+c.what, g.light)
		accepted2 := r.add("(fair)", "accepting, beside "+c.what, g.accept)
		r.compare("(fair)", "p99 of the function : alone", float64(called2.P99)/float64(called.P99), c.bar, "")
		r.compare("(fair)", "p50 of the function : alone", float64(called2.P50)/float64(called.P50), bar{}, "")
		r.compare("(fair)", "p99 of accepting : alone", float64(accepted2.P99)/float64(accepted.P99), bar{}, "")
		r.figure("(fair)", "done by "+c.what, float64(median(g.pace)), "events/s", bar{}, "")
	}
	return nil
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
[functions.busy]
source = "busy.js"
[subscriptions.heavy]
function = "heavy"
filter = { type = "bench.heavy" }
[subscriptions.busy]
function = "busy"
filter = { type = "bench.busy" }
`
	_, err = c.Apply(ctx, &api.Bundle{Manifest: app, Modules: map[string]api.Module{
		"light": {Kind: api.ModuleScript, Code: []byte(lightScript)}, "heavy": {Kind: api.ModuleScript, Code: []byte(heavyScript)},
		"busy": {Kind: api.ModuleScript, Code: []byte(busyScript)},
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
	for name, n := range map[string]int{"heavy": heavyEvents, "busy": busyEvents} {
		if _, err := c.SetPaused(ctx, name, true); err != nil {
			return nil, err
		}
		if err := f.fill(ctx, name, n); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// fill publishes what keeps a function busy.
func (f *fair) fill(ctx context.Context, name string, events int) error {
	const size = 500
	for n := 0; n < events; n += size {
		var b bytes.Buffer
		for i := range size {
			fmt.Fprintf(&b, `,{"specversion":"1.0","type":"bench.%s","source":"/bench","id":"%s-%d"}`, name, name, n+i)
		}
		b.WriteByte(']')
		b.Bytes()[0] = '['
		if _, err := f.client.Publish(ctx, b.Bytes(), true); err != nil {
			return fmt.Errorf("publish events for %s: %w", name, err)
		}
	}
	return nil
}

// settle waits until nothing is done any more, or something is.
func (f *fair) settle(ctx context.Context, busy bool) error {
	const look = 300 * time.Millisecond // a heavy event takes less, unless the machine is very busy
	before, err := f.done(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now, err := f.done(ctx)
		if err != nil {
			return err
		}
		if (now > before) == busy {
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

// fairSamples are those of both latencies, and how many events of the other function were done a second.
type fairSamples struct {
	light, accept []sample
	pace          []float64
}

func (a *fairSamples) append(b fairSamples) {
	a.light, a.accept, a.pace = append(a.light, b.light...), append(a.accept, b.accept...), append(a.pace, b.pace...)
}

// take calls the trivial function and has an event accepted, every few milliseconds, one at a time, while the named
// function has work, or none has.
func (f *fair) take(ctx context.Context, s *sallyport, beside, name string) (one fairSamples, err error) {
	if beside != "" {
		if _, err := f.client.SetPaused(ctx, beside, false); err != nil {
			return one, err
		}
		defer func() {
			_, pauseErr := f.client.SetPaused(ctx, beside, true)
			err = errors.Join(err, pauseErr)
		}()
	}
	if err := f.settle(ctx, beside != ""); err != nil {
		return one, err
	}
	before, err := f.done(ctx)
	if err != nil {
		return one, err
	}
	var (
		both          sync.WaitGroup
		light, accept sample
		errs          [2]error
	)
	l := load{clients: 1, duration: fairWindow, rate: float64(time.Second / fairEvery)}
	both.Go(func() {
		l := l
		l.target, l.request, l.want = f.invoke, calls, 200
		light, errs[0] = l.run(ctx, s.process)
	})
	both.Go(func() {
		l := l
		l.target, l.request, l.want = f.events, singles(name), 202
		accept, errs[1] = l.run(ctx, s.process)
	})
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return one, err
	}
	if n := light.Failed + accept.Failed; n > 0 {
		return one, fmt.Errorf("%d requests failed", n)
	}
	after, err := f.done(ctx)
	if err != nil {
		return one, err
	}
	if beside != "" {
		sub, err := f.client.Subscription(ctx, beside)
		if err != nil {
			return one, err
		}
		if sub.Pending == 0 {
			return one, fmt.Errorf("%s has no work left: nothing ran beside", beside)
		}
	}
	pace := float64(after-before-int64(light.Events+accept.Events)) / light.Wall.Seconds()
	return fairSamples{[]sample{light}, []sample{accept}, []float64{max(0, pace)}}, nil
}

// calls makes calls of the trivial function.
func calls(int64) (string, []byte, int) { return "Content-Type: application/json\r\n", []byte("1"), 1 }
