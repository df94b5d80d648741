package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/client"
)

// measureEndToEnd is (c): accepted, stored, matched, run in a fresh cell, and its outcome recorded.
func measureEndToEnd(ctx context.Context, o options, r *report, stderr io.Writer) error {
	kinds := []struct {
		name, source string
		module       api.Module
	}{
		{"trivial WebAssembly function", "f.wasm", api.Module{Kind: api.ModuleWasm, Code: trivialModule()}},
		{"trivial JavaScript function", "f.js", api.Module{Kind: api.ModuleScript, Code: []byte(trivialScript)}},
	}
	for _, k := range kinds {
		if err := endToEnd(ctx, o, r, k.name, k.source, k.module); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
	}
	return nil
}

func endToEnd(ctx context.Context, o options, r *report, name, source string, module api.Module) (err error) {
	s, err := startSallyport(ctx, o, filepath.Join(o.dir, "c-"+source))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := s.apply(ctx, source, module)
	if err != nil {
		return err
	}
	t, err := s.events()
	if err != nil {
		return err
	}
	var full []sample
	for round := range o.rounds + 1 {
		got, err := acceptAndSettle(ctx, s, c, load{target: t, clients: o.clients, duration: o.duration, request: singles(fmt.Sprint("c", round)), want: 202})
		if err != nil {
			return err
		}
		if round > 0 {
			full = append(full, got)
		}
	}
	w := r.add("(c) accept → done", name, full)
	half := load{target: t, clients: o.clients, duration: o.duration, rate: w.Rate / 2, request: singles("h"), want: 202}
	got, err := acceptAndSettle(ctx, s, c, half)
	if err != nil {
		return err
	}
	if got.P50, got.P99, err = outcomeLatency(ctx, c, got.Events); err != nil {
		return err
	}
	r.add("(c) at half load", name+" (accepted → outcome)", []sample{got})
	return nil
}

// apply subscribes one function to the events of the load, and returns a client.
func (s *sallyport) apply(ctx context.Context, source string, module api.Module) (*client.Client, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	_, err = c.Apply(ctx, &api.Bundle{
		Manifest: "name = \"bench\"\n[functions.f]\nsource = \"" + source + "\"\n" +
			"[subscriptions.all]\nfunction = \"f\"\nfilter = { type = \"bench.event\" }\n",
		Modules: map[string]api.Module{"f": module},
	}, false)
	return c, err
}

// acceptAndSettle runs the load and waits until every event of it is done; the time and the CPU
// until then count.
func acceptAndSettle(ctx context.Context, s *sallyport, c *client.Client, l load) (sample, error) {
	before, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	got, err := l.run(ctx, s.process)
	if err != nil {
		return sample{}, err
	}
	const poll = 20 * time.Millisecond
	if err := settle(ctx, c, poll); err != nil {
		return sample{}, err
	}
	after, err := s.cpu()
	got.CPU, got.Wall = after-before, time.Since(began)
	return got, err
}

// outcomeLatency reads, for a sample of the last events, the time from acceptance to the end of the
// attempt, as the server recorded it.
func outcomeLatency(ctx context.Context, c *client.Client, events int) (p50, p99 time.Duration, err error) {
	const sampled = 300
	var took []time.Duration
	for i := range sampled {
		id := fmt.Sprintf("h-%d", 1+(events-1)*i/sampled)
		e, err := c.Event(ctx, id, client.EventOptions{Source: "/bench"})
		if err != nil {
			return 0, 0, err
		}
		if len(e.Deliveries) != 1 || len(e.Deliveries[0].Attempts) != 1 {
			return 0, 0, fmt.Errorf("event %s has no single attempt on record", id)
		}
		took = append(took, e.Deliveries[0].Attempts[0].Finished.Sub(e.AcceptedAt))
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], nil
}
