package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/client"
)

// idleFunctions is how many functions have nothing to do, all different. Some are Go modules (-idle-go).
const (
	idleFunctions = 10_000
	idleScripts   = 990 // an app
	idleGo        = 5   // an app; one request carries their modules
)

// idleDiffer says how the functions differ.
const idleDiffer = "scripts differ in a number, Go modules in 8 digits of their data: each has a digest of its own and is compiled and kept by itself"

// idleMemory is what loaded functions may hold in this measure. It is the same for the server with one.
const idleMemory = `memory = "64MiB"`

// idleRest is how long nothing happens before the memory is read: idle is what is measured.
const idleRest = 10 * time.Second

// measureIdle is what ten thousand deployed functions cost that have nothing to do: memory above that of
// the same server when it was empty, and what they add to an event of the one function that is not idle, beside
// a server that has no other.
func measureIdle(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	crowded, err := startWalled(ctx, o, "idle", "on", idleMemory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, crowded.stop()) }()
	empty, err := restingMemory(ctx, crowded)
	if err != nil {
		return err
	}
	c, err := crowded.apply(ctx, "f.js", api.Module{Kind: api.ModuleScript, Code: []byte(trivialScript)})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := deployIdle(ctx, o, c, stderr); err != nil {
		return err
	}
	full, err := restingMemory(ctx, crowded)
	if err != nil {
		return err
	}
	measure := fmt.Sprintf("(idle) %d scripts, %d Go modules", idleFunctions-o.idleGo, o.idleGo)
	r.figure(measure, "memory above the empty server", mib(full-empty), "MiB", atMost(150),
		fmt.Sprintf("resident %.1f and %.1f MiB; 64 MiB of it are allowed for loaded functions; %s", mib(full), mib(empty), idleDiffer))
	alone, err := startWalled(ctx, o, "idle-alone", "on", idleMemory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.stop()) }()
	d, err := alone.apply(ctx, "f.js", api.Module{Kind: api.ModuleScript, Code: []byte(trivialScript)})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := compareInvocations(ctx, r, measure, d, c); err != nil {
		return err
	}
	return compareEvents(ctx, o, r, measure, []*sallyport{alone, crowded}, []*client.Client{d, c})
}

// restingMemory is the resident memory of a server after some rest.
func restingMemory(ctx context.Context, s *sallyport) (int64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(idleRest): // the rest is what is measured
	}
	return s.resident()
}

// deployIdle deploys all functions that nothing is sent to.
func deployIdle(ctx context.Context, o options, c *client.Client, stderr io.Writer) error {
	var list []api.Module
	for k := range idleFunctions - o.idleGo {
		list = append(list, api.Module{Kind: api.ModuleScript, Code: fmt.Appendf(nil,
			"const rates = new Map([[\"a\", %d], [\"b\", 2]]);\nexport default (event) => ({ rate: rates.get(event.data) });\n", k)})
	}
	if err := deployApps(ctx, c, "script", list, idleScripts, stderr); err != nil {
		return err
	}
	list, err := goModules(ctx, o, stderr, 1, o.idleGo)
	if err != nil {
		return err
	}
	return deployApps(ctx, c, "go", list, idleGo, stderr)
}

// deployApps deploys each module as a function, so many an app.
func deployApps(ctx context.Context, c *client.Client, name string, list []api.Module, each int, stderr io.Writer) error {
	deployed := 0
	for some := range slices.Chunk(list, each) {
		modules := map[string]api.Module{}
		for i, m := range some {
			modules[fmt.Sprintf("%s-%d", name, deployed+i)] = m
		}
		if _, err := c.Apply(ctx, appOf(fmt.Sprintf("%s-%d", name, deployed), modules), false); err != nil {
			return err
		}
		deployed += len(some)
		fmt.Fprintf(stderr, "  deployed %d functions (%s)\n", deployed, name)
	}
	return nil
}

// compareInvocations invokes the one function on both servers in turn.
func compareInvocations(ctx context.Context, r *report, measure string, alone, among *client.Client) error {
	const count = 2000
	var took [2][]time.Duration
	for range count {
		for i, c := range []*client.Client{alone, among} {
			one, err := timed(func() error {
				_, err := c.Invoke(ctx, "f", []byte("1"), "application/json")
				return err
			})
			if err != nil {
				return err
			}
			took[i] = append(took[i], one)
		}
	}
	a := r.times(measure, "an invocation, no other function deployed", took[0], "").P50
	b := r.times(measure, "an invocation, among them", took[1], "").P50
	r.compare(measure, "p50 of an invocation, among them : alone", float64(b)/float64(a), atMost(1.05), fmt.Sprintf("%d each, in turn", count))
	return nil
}

// compareEvents sends events to both servers in turn, and compares the CPU time of one until it is done.
func compareEvents(ctx context.Context, o options, r *report, measure string, servers []*sallyport, clients []*client.Client) error {
	var got [2][]sample
	// Short turns: what disturbs the machine is to disturb both.
	for round := range 2*o.rounds + 1 {
		for i, s := range servers {
			t, err := s.events()
			if err != nil {
				return err
			}
			l := load{target: t, clients: o.clients, duration: o.duration / 2, request: singles(fmt.Sprint("i", round)), want: 202}
			one, err := acceptAndSettle(ctx, s, clients[i], l)
			if err != nil {
				return err
			}
			if round > 0 { // the first round warms up
				got[i] = append(got[i], one)
			}
		}
	}
	r.add(measure, "accept → done, no other function deployed", got[0])
	r.add(measure, "accept → done, among them", got[1])
	r.compare(measure, "CPU of an event, among them : alone", pairRatio(got[0], got[1], cpuPerEvent), atMost(1.05), fmt.Sprintf("%d rounds in turn", 2*o.rounds))
	return nil
}
