package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/cell"
)

// startWalled starts a server with this setting of the second wall, and more lines of [cells].
func startWalled(ctx context.Context, o options, name, wall string, cells ...string) (*sallyport, error) {
	return startWalledOn(ctx, o, oneCPU, name, wall, cells...)
}

func startWalledOn(ctx context.Context, o options, cpus, name, wall string, cells ...string) (*sallyport, error) {
	dir := filepath.Join(o.dir, name+"-wall-"+wall)
	file := dir + ".toml"
	text := fmt.Sprintf("[cells]\nsecond_wall = %q\n", wall)
	for _, line := range cells {
		text += line + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return startSallyportOn(ctx, o, cpus, dir, "--config", file)
}

// measureKept is how much of a core reaches the handler: the events a second of CPU that a server
// dispatches to a JavaScript function and settles, as a share of how often the bare function can be called
// in that second. It is counted while a backlog is worked off, so that intake is not in it.
func measureKept(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	const measure = "(kept) dispatch + JavaScript, JSON"
	walls := []string{"off", "on"}
	servers := make([]*sallyport, len(walls))
	clients := make([]*client.Client, len(walls))
	for i, wall := range walls {
		if servers[i], err = startWalled(ctx, o, "kept", wall); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, servers[i].stop()) }()
		if clients[i], err = servers[i].apply(ctx, "f.js", api.Module{Kind: api.ModuleScript, Code: []byte(benchScript)}); err != nil {
			return err
		}
		defer clients[i].Close()
	}
	var bare []sample
	live, resumed := make([][]sample, len(walls)), make([][]sample, len(walls))
	for round := range o.rounds + 1 {
		var one sample
		if err := rolePinned(ctx, &one, "barecalls", o.duration.String()); err != nil {
			return err
		}
		if round > 0 { // the first round warms up
			bare = append(bare, one)
		}
		for i, s := range servers {
			for _, paused := range []bool{false, true} {
				got, err := workOff(ctx, o, s, clients[i], fmt.Sprint("k", round, paused), paused)
				if err != nil {
					return fmt.Errorf("second wall %s, paused %t: %w", walls[i], paused, err)
				}
				fmt.Fprintf(stderr, "  second wall %s, paused %t: %d events, %s of CPU each\n", walls[i], paused, got.Events, got.perEvent())
				switch {
				case round == 0:
				case paused:
					resumed[i] = append(resumed[i], got)
				default:
					live[i] = append(live[i], got)
				}
			}
		}
	}
	r.add(measure, "bare wazero, calls of one instance for all", bare)
	for i, wall := range walls {
		r.add(measure, "sallyport, dispatch to done, second wall "+wall, live[i])
		r.add(measure, "the same, of a subscription that was paused, second wall "+wall, resumed[i])
	}
	bars := []bar{atLeast(0.60), {}}
	for i, wall := range walls {
		r.compare(measure, "share of a bare call, second wall "+wall, pairRatio(live[i], bare, cpuPerEvent), bars[i], "CPU")
	}
	return nil
}

// workOff accepts more events than can be handled meanwhile, or pauses the subscription for that, and measures how the
// rest is dispatched and settled.
func workOff(ctx context.Context, o options, s *sallyport, c *client.Client, run string, paused bool) (sample, error) {
	const (
		size  = 100
		least = 3000 // events, or the CPU time of them is known too badly
	)
	if paused {
		if _, err := c.SetPaused(ctx, "all", true); err != nil {
			return sample{}, err
		}
	}
	t, err := s.events()
	if err != nil {
		return sample{}, err
	}
	// A server that is as fast as this machine can send leaves little at first.
	const tries = 10
	var left int
	var before time.Duration
	for try := range tries {
		l := load{target: t, clients: o.clients, duration: max(o.duration/4, 600*time.Millisecond), request: batches(fmt.Sprint(run, "-", try), size), want: 202}
		if _, err := l.run(ctx, s.process); err != nil {
			return sample{}, err
		}
		if left, before, err = pending(ctx, s, c); err != nil || left >= least {
			break
		}
	}
	if err == nil && left < least {
		err = fmt.Errorf("%d events are left to be handled, want at least %d", left, least)
	}
	if err != nil {
		return sample{}, err
	}
	stopProfile := profileDuring(ctx, o, s, true)
	defer stopProfile()
	began := time.Now()
	if paused {
		if _, err := c.SetPaused(ctx, "all", false); err != nil {
			return sample{}, err
		}
	}
	const poll = 50 * time.Millisecond
	if err := settle(ctx, c, poll); err != nil {
		return sample{}, err
	}
	after, err := s.cpu()
	return sample{Events: left, CPU: after - before, Wall: time.Since(began)}, err
}

// pending returns how many events are pending, and the CPU time that the server had used when they were counted.
func pending(ctx context.Context, s *sallyport, c *client.Client) (int, time.Duration, error) {
	asked, err := s.cpu()
	if err != nil {
		return 0, 0, err
	}
	status, err := c.Status(ctx)
	if err != nil {
		return 0, 0, err
	}
	answered, err := s.cpu()
	return int(status.Namespaces[0].Pending), (asked + answered) / 2, err
}

// settle waits until no event is pending. A dead letter is an error.
func settle(ctx context.Context, c *client.Client, poll time.Duration) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		status, err := c.Status(ctx)
		if err != nil {
			return err
		}
		n := status.Namespaces[0]
		if n.Dead > 0 {
			return fmt.Errorf("%d events are dead letters", n.Dead)
		}
		if n.Pending == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// runBareCalls calls the script in QuickJS alone for so long. Making a new instance now and then does not count.
func runBareCalls(ctx context.Context, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("usage: bench barecalls DURATION")
	}
	duration, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	bare, err := bareScript(ctx, guestUnderTest{spec: cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(benchScript)}, event: envelope()}, nothing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.close(ctx)) }()
	var s sample
	for s.Wall < duration {
		if err := bare.renew(ctx); err != nil {
			return err
		}
		cpu, began := ownCPU(), time.Now()
		for range scriptEvents {
			if err := bare.call(ctx); err != nil {
				return err
			}
		}
		s.Events, s.CPU, s.Wall = s.Events+scriptEvents, s.CPU+ownCPU()-cpu, s.Wall+time.Since(began)
	}
	return json.MarshalWrite(os.Stdout, s, nanoseconds())
}

// invokeFor invokes f from peerClients goroutines for so long; the CPU time of this process and of those it started counts.
func invokeFor(ctx context.Context, f invoker, duration time.Duration) (sample, error) {
	self := tree(os.Getpid())
	before, err := self.cpu()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	event := envelope()
	var events atomic.Int64
	errs := make([]error, peerClients)
	var wg sync.WaitGroup
	for i := range peerClients {
		wg.Go(func() {
			for n := 0; time.Since(began) < duration; n++ {
				if _, _, errs[i] = f.Invoke(ctx, cell.Input{Event: event, EventID: strconv.Itoa(n), Attempt: 1}); errs[i] != nil {
					return
				}
				events.Add(1)
			}
		})
	}
	wg.Wait()
	wall := time.Since(began)
	after, err := self.cpu()
	return sample{Events: int(events.Load()), CPU: after - before, Wall: wall}, errors.Join(append(errs, err)...)
}
