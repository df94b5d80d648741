package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sallyport/api"
	"sallyport/client"
)

// measureWall is the cost of the second wall: the same events, accepted and handled by a trivial
// function, in a server whose functions run in a worker process, and in one whose functions run in its own.
// What counts is the difference of the CPU time of all processes.
func measureWall(ctx context.Context, o options, r *report, _ io.Writer) (err error) {
	on, err := startWalled(ctx, o, "wall", "on")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, on.stop()) }()
	off, err := startWalled(ctx, o, "wall", "off")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, off.stop()) }()
	servers := []*sallyport{on, off}
	clients := make([]*client.Client, len(servers))
	got := make([][]sample, len(servers))
	for i, s := range servers {
		if clients[i], err = s.apply(ctx, "f.js", api.Module{Kind: api.ModuleScript, Code: []byte(trivialScript)}); err != nil {
			return err
		}
		defer clients[i].Close()
	}
	for round := range o.rounds + 1 {
		for i, s := range servers {
			t, err := s.events()
			if err != nil {
				return err
			}
			one, err := acceptAndSettle(ctx, s, clients[i], load{
				target: t, clients: o.clients, duration: o.duration, request: singles(fmt.Sprint("w", round)), want: 202,
			})
			if err != nil {
				return err
			}
			if round > 0 { // the first round warms up
				got[i] = append(got[i], one)
			}
		}
	}
	walled := r.add("(wall) accept → done", "trivial JavaScript function, in a worker", got[0])
	direct := r.add("(wall)", "the same in the server's process", got[1])
	r.figure("(wall)", "CPU of the second wall, an event", float64(walled.CPUEvent-direct.CPUEvent)/1e3, "µs", atMost(25), "")
	return nil
}
