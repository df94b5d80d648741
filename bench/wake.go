package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/cell"
)

// wakes is how often a function is woken; the 99th percentile wants some hundreds.
const wakes = 400

// measureWake is what the first event of a function costs that has no instance: with its code in memory, and with its
// code on the disk only.
func measureWake(ctx context.Context, o options, r *report, stderr io.Writer) error {
	guest, err := buildGuest(ctx, o, stderr)
	if err != nil {
		return err
	}
	var rows []row
	if err := rolePinned(ctx, &rows, "wakes", guest); err != nil {
		return err
	}
	r.Rows = append(r.Rows, rows...)
	return withGoModules(ctx, o, r, stderr, onDisk, measureOnDisk)
}

// measureDeploy is how long the first deployment of a Go module takes, and measureRestart what the first event waits for
// after a restart.
func measureDeploy(ctx context.Context, o options, r *report, stderr io.Writer) error {
	return withGoModules(ctx, o, r, stderr, o.rounds, deployInTurn)
}

func measureRestart(ctx context.Context, o options, r *report, stderr io.Writer) error {
	return withGoModules(ctx, o, r, stderr, 1, restartInTurn)
}

// withGoModules takes a measure with so many modules, without the second wall and with it.
func withGoModules(ctx context.Context, o options, r *report, stderr io.Writer, count int,
	take func(ctx context.Context, o options, r *report, wall string, modules []api.Module) error,
) error {
	modules, err := goModules(ctx, o, stderr, 1, count)
	if err != nil {
		return err
	}
	for _, wall := range []string{"off", "on"} {
		fmt.Fprintf(stderr, "  second wall %s\n", wall)
		if err := take(ctx, o, r, wall, modules); err != nil {
			return fmt.Errorf("second wall %s: %w", wall, err)
		}
	}
	return nil
}

// runWakes is the process that wakes functions whose code is in its memory: an engine that keeps no
// instance, beside one that does. It has both run in turn.
func runWakes(ctx context.Context, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("usage: bench wakes GUEST.wasm")
	}
	module, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	r := &report{}
	for _, g := range []struct {
		name string
		spec cell.Spec
		bar  float64 // ms
	}{
		{"JavaScript", cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(benchScript)}, 1},
		{"Go", cell.Spec{Name: "guest.wasm", Kind: api.ModuleWasm, Code: module}, 3},
	} {
		warm, cold, err := wakeInTurn(ctx, g.spec)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		measure := "(wake) " + g.name + ", code in memory"
		r.times(measure, "an event of an instance that waits", warm, "")
		r.times(measure, "an event that wakes", cold, fmt.Sprintf("%d wakes", len(cold))).p99Within(g.bar)
	}
	return json.MarshalWrite(os.Stdout, r.Rows, nanoseconds())
}

// wakeInTurn returns the times of events of an instance that waits, and of events that wake.
func wakeInTurn(ctx context.Context, spec cell.Spec) (warm, cold []time.Duration, err error) {
	var functions [2]*cell.Function
	for i := range functions {
		cfg := cell.Default()
		if i == 1 {
			cfg.IdleBytes = 0 // what has served an event is closed at once
		}
		engine, err := cell.New(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, engine.Close(ctx)) }()
		if functions[i], err = engine.Load(ctx, spec, cell.DefaultLimits()); err != nil {
			return nil, nil, err
		}
	}
	event := envelope()
	took := [2][]time.Duration{}
	const warmUp = 10
	for n := range warmUp + wakes {
		for i, f := range functions {
			began := time.Now()
			_, use, err := f.Invoke(ctx, cell.Input{Event: event, EventID: "e-1", Attempt: 1})
			elapsed := time.Since(began)
			if err != nil {
				return nil, nil, err
			}
			if n < warmUp {
				continue
			}
			if wanted := i == 1; use.Cold != wanted {
				return nil, nil, fmt.Errorf("invocation %d woke: %t, want %t", n, use.Cold, wanted)
			}
			took[i] = append(took[i], elapsed)
		}
	}
	return took[0], took[1], nil
}

// connect returns a client of the server.
func (s *sallyport) connect() (*client.Client, error) {
	return client.New(client.Config{Server: s.ready.URL, CAFile: s.ready.CAFile, TokenFile: s.ready.TokenFile, Namespace: "default"})
}

// timed returns how long do took.
func timed(do func() error) (time.Duration, error) {
	began := time.Now()
	err := do()
	return time.Since(began), err
}

// invokeOrder invokes a function with the data of every event of this program.
func invokeOrder(ctx context.Context, c *client.Client, name string) (time.Duration, error) {
	return timed(func() error {
		_, err := c.Invoke(ctx, name, eventBody(), "application/json")
		return err
	})
}

// deployInTurn is how long it takes until a Go module is deployed that the server never saw, on a server
// that has compiled nothing yet, beside the same once more under another name.
func deployInTurn(ctx context.Context, o options, r *report, wall string, modules []api.Module) error {
	var first, again []time.Duration
	for round := range o.rounds {
		if err := deployOnce(ctx, o, wall, modules[round], round, &first, &again); err != nil {
			return err
		}
	}
	measure := "(deploy) Go module of 3 MB, 2 processors, second wall " + wall
	r.times(measure, "the same module under another name", again, "")
	w := r.times(measure, "first time, server just started", first, fmt.Sprintf("median of %d, quickest %.2f s, %d bytes", o.rounds, slices.Min(first).Seconds(), len(modules[0].Code)))
	w.Value, w.Unit = w.P50.Seconds(), "s"
	w.judge(atMost(2))
	return nil
}

func deployOnce(ctx context.Context, o options, wall string, module api.Module, round int, first, again *[]time.Duration) (err error) {
	s, err := startWalledOn(ctx, o, bothCPUs, fmt.Sprint("deploy", round), wall)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	for i, to := range []*[]time.Duration{first, again} {
		took, err := timed(func() error {
			_, err := c.Apply(ctx, appOf(fmt.Sprint("app", i), map[string]api.Module{fmt.Sprint("f", i): module}), false)
			return err
		})
		if err != nil {
			return err
		}
		*to = append(*to, took)
	}
	return nil
}

// appOf is an app of functions without subscriptions.
func appOf(name string, modules map[string]api.Module) *api.Bundle {
	manifest := fmt.Sprintf("name = %q\n[functions]\n", name)
	for f, m := range modules {
		suffix := ".wasm"
		if m.Kind == api.ModuleScript {
			suffix = ".js"
		}
		manifest += fmt.Sprintf("%s.source = %q\n", f, f+suffix)
	}
	return &api.Bundle{Manifest: manifest, Modules: modules}
}

// restartInTurn is the first event of a function after the server was started again, from the moment in
// which it was ready, beside the second.
func restartInTurn(ctx context.Context, o options, r *report, wall string, modules []api.Module) error {
	kinds := []struct {
		name   string
		module api.Module
	}{{"Go", modules[0]}, {"JavaScript", api.Module{Kind: api.ModuleScript, Code: []byte(benchScript)}}}
	for _, kind := range kinds {
		name := "restart-" + kind.name
		var first, second []time.Duration
		for round := range o.rounds + 1 {
			if err := restartOnce(ctx, o, name, wall, kind.module, round == 0, &first, &second); err != nil {
				return err
			}
		}
		measure := "(restart) " + kind.name + ", second wall " + wall
		r.times(measure, "second event", second, "")
		w := r.times(measure, "first event, from ready on", first, fmt.Sprintf("median of %d", o.rounds))
		w.Value, w.Unit = w.P50.Seconds()*1e3, "ms"
		w.judge(atMost(100))
	}
	return nil
}

// restartOnce starts the server. The first time it deploys and stops; then it measures.
func restartOnce(ctx context.Context, o options, name, wall string, module api.Module, deploy bool, first, second *[]time.Duration) (err error) {
	s, err := startWalled(ctx, o, name, wall)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if deploy {
		if _, err := c.Apply(ctx, appOf("app", map[string]api.Module{"f": module}), false); err != nil {
			return err
		}
		_, err = invokeOrder(ctx, c, "f")
		return err
	}
	for _, to := range []*[]time.Duration{first, second} {
		took, err := invokeOrder(ctx, c, "f")
		if err != nil {
			return err
		}
		*to = append(*to, took)
	}
	return nil
}

// onDisk is how many Go functions take turns in measureOnDisk: their code does not fit into the memory that
// the server has for it, so each event finds the code of its function on the disk only.
const onDisk = 4

// diskTime bounds measureOnDisk: a server that has to compile again takes seconds for each wake.
const diskTime = 20 * time.Second

// measureOnDisk is an event of a Go function whose code was thrown out of the memory.
func measureOnDisk(ctx context.Context, o options, r *report, wall string, modules []api.Module) (err error) {
	s, err := startWalled(ctx, o, "on-disk", wall, `memory = "16MiB"`) // less than one of them
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range onDisk {
		if _, err := c.Apply(ctx, appOf(fmt.Sprint("app", i), map[string]api.Module{fmt.Sprint("f", i): modules[i]}), false); err != nil {
			return err
		}
	}
	var warm, woken []time.Duration
	before, err := s.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	for n := 0; n < wakes && time.Since(began) < diskTime; n++ {
		for _, to := range []*[]time.Duration{&woken, &warm} {
			took, err := invokeOrder(ctx, c, fmt.Sprint("f", n%onDisk))
			if err != nil {
				return err
			}
			*to = append(*to, took)
		}
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	measure := "(wake) Go, code on the disk, second wall " + wall
	r.times(measure, "the event after it, over HTTPS", warm, "")
	w := r.times(measure, "an event that wakes, over HTTPS", woken,
		fmt.Sprintf("%d wakes, quickest %s; CPU with the event after it", len(woken), slices.Min(woken).Round(100*time.Microsecond)))
	w.CPUEvent = (after - before) / time.Duration(len(woken))
	w.p99Within(50)
	return nil
}
