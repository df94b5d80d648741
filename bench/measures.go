package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
)

// sallyport is the product under measurement.
type sallyport struct {
	*process
	ready api.Ready
}

// startSallyport starts a server on the server's processor.
func startSallyport(ctx context.Context, o options, dir string, extra ...string) (*sallyport, error) {
	return startSallyportOn(ctx, o, oneCPU, dir, extra...)
}

func startSallyportOn(ctx context.Context, o options, cpus, dir string, extra ...string) (*sallyport, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	readyFile := filepath.Join(dir, "ready.json")
	if err := os.Remove(readyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	command := []string{
		o.binary, "server", "--listen", "127.0.0.1:0", "--debug-socket", filepath.Join(dir, "data", "debug.sock"),
		"--data-dir", filepath.Join(dir, "data"), "--ready-file", readyFile,
	}
	p, err := start(ctx, cpus, readyFile, append(command, extra...)...)
	if err != nil {
		return nil, err
	}
	s := &sallyport{process: p}
	return s, json.Unmarshal(p.process().ready, &s.ready)
}

func (p *process) process() *process { return p }

func (s *sallyport) events() (*target, error) {
	return newTarget(s.ready.URL, s.ready.CAFile, s.ready.TokenFile, "/v1/namespaces/default/events")
}

func startBare(ctx context.Context, o options) (*process, *target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(o.dir, "bare-")
	if err != nil {
		return nil, nil, err
	}
	p, err := start(ctx, oneCPU, "", self, "bare", dir)
	if err != nil {
		return nil, nil, err
	}
	t, err := newTarget(string(p.ready[:len(p.ready)-1]), filepath.Join(dir, "ca.crt"), "", "/")
	return p, t, err
}

// jetStream runs the raw JetStream baseline once.
func jetStream(ctx context.Context, o options, pack, publishers int) (sample, error) {
	self, err := os.Executable()
	if err != nil {
		return sample{}, err
	}
	dir, err := os.MkdirTemp(o.dir, "jetstream-")
	if err != nil {
		return sample{}, err
	}
	cmd := exec.CommandContext(ctx, self, "pinned", strconv.Itoa(serverCPU), self, "jetstream", "-dir", dir,
		"-pack", strconv.Itoa(pack), "-publishers", strconv.Itoa(publishers), "-duration", o.duration.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return sample{}, err
	}
	var s sample
	_, err = fmt.Sscan(string(out), &s.Events, (*int64)(&s.CPU), (*int64)(&s.Wall), (*int64)(&s.P50), (*int64)(&s.P99))
	return s, errors.Join(err, os.RemoveAll(dir))
}

// measureSingles is (a): durable accept of single 1-KiB events over keep-alive connections, beside
// a bare TLS server and beside raw JetStream with sync_always, one message an event.
func measureSingles(ctx context.Context, o options, r *report, _ io.Writer) (err error) {
	s, err := startSallyport(ctx, o, filepath.Join(o.dir, "a"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	ours, err := s.events()
	if err != nil {
		return err
	}
	bare, bareTarget, err := startBare(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	var a, b, c []sample
	for round := range o.rounds + 1 {
		l := load{target: ours, clients: o.clients, duration: o.duration, request: singles(fmt.Sprint("a", round)), want: 202}
		stopProfile := profileDuring(ctx, o, s, round == o.rounds)
		mine, err := l.run(ctx, s.process)
		stopProfile()
		if err != nil {
			return err
		}
		l.target = bareTarget
		base, err := l.run(ctx, bare)
		if err != nil {
			return err
		}
		if round == 0 {
			continue // warm-up
		}
		raw, err := jetStream(ctx, o, 1, o.clients)
		if err != nil {
			return err
		}
		a, b, c = append(a, mine), append(b, base), append(c, raw)
	}
	r.add("(a) accept, singles", "sallyport", a)
	r.add("(a)", "bare net/http TLS, 202, nothing stored", b)
	r.add("(a)", "raw JetStream sync_always", c)
	r.compare("(a)", "CPU, sallyport : bare", pairRatio(a, b, cpuPerEvent), atLeast(0.40), "")
	r.compare("(a)", "rate, sallyport : raw JetStream", pairRatio(a, c, wallPerEvent), atLeast(6), "")
	r.compare("(a)", "CPU, sallyport : raw JetStream", pairRatio(a, c, cpuPerEvent), bar{}, "")
	return nil
}

// measureBatches is (b): durable accept in batches of 100, beside raw JetStream messages of 100
// packed events.
func measureBatches(ctx context.Context, o options, r *report, _ io.Writer) (err error) {
	const size = 100
	s, err := startSallyport(ctx, o, filepath.Join(o.dir, "b"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	ours, err := s.events()
	if err != nil {
		return err
	}
	var a, b []sample
	for round := range o.rounds + 1 {
		l := load{target: ours, clients: o.clients, duration: o.duration, request: batches(fmt.Sprint("b", round), size), want: 202}
		stopProfile := profileDuring(ctx, o, s, round == o.rounds)
		mine, err := l.run(ctx, s.process)
		stopProfile()
		if err != nil {
			return err
		}
		base, err := jetStream(ctx, o, size, o.clients)
		if err != nil {
			return err
		}
		if round > 0 { // the first round warms up
			a, b = append(a, mine), append(b, base)
		}
	}
	r.add("(b) accept, batches of 100", "sallyport", a)
	r.add("(b)", "raw JetStream, 100 packed", b)
	r.compare("(b)", "CPU, sallyport : raw packed", pairRatio(a, b, cpuPerEvent), atLeast(0.50), "")
	return nil
}

// measureMemory is (d): resident memory of a server that has just started, and under load.
func measureMemory(ctx context.Context, o options, r *report, _ io.Writer) (err error) {
	s, err := startSallyport(ctx, o, filepath.Join(o.dir, "d"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	const settle = 2 * time.Second // idle means nothing has happened for a while
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	idle, err := s.resident()
	if err != nil {
		return err
	}
	r.figure("(d) memory", "idle", mib(idle), "MiB", atMost(80), "resident")
	t, err := s.events()
	if err != nil {
		return err
	}
	l := load{target: t, clients: o.clients, duration: o.duration, request: singles("d"), want: 202}
	if _, err := l.run(ctx, s.process); err != nil {
		return err
	}
	loaded, err := s.resident()
	r.figure("(d)", "right after load", mib(loaded), "MiB", bar{}, "resident")
	return err
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// measureStart is the time from exec to the ready file, with an empty store and with stored events.
func measureStart(ctx context.Context, o options, r *report, stderr io.Writer) error {
	dir := filepath.Join(o.dir, "start")
	var empty []float64
	for i := range o.rounds {
		s, err := startSallyport(ctx, o, filepath.Join(o.dir, fmt.Sprint("empty", i)))
		if err != nil {
			return err
		}
		empty = append(empty, s.took.Seconds())
		if err := s.stop(); err != nil {
			return err
		}
	}
	r.figure("start to ready", "empty store", 1e3*median(empty), "ms", atMost(500), "")
	s, err := startSallyport(ctx, o, dir)
	if err != nil {
		return err
	}
	t, err := s.events()
	if err != nil {
		return errors.Join(err, s.stop())
	}
	stored := 0
	const step = 2 * time.Second
	for round := 0; stored < o.stored; round++ {
		l := load{target: t, clients: 16, duration: step, request: batches(fmt.Sprint("s", round), 100), want: 202}
		got, err := l.run(ctx, s.process)
		if err != nil {
			return errors.Join(err, s.stop())
		}
		stored += got.Events
		fmt.Fprintf(stderr, "  stored %d events\n", stored)
	}
	if err := s.stop(); err != nil {
		return err
	}
	for _, kill := range []bool{false, true} {
		var took []float64
		for range o.rounds {
			s, err := startSallyport(ctx, o, dir)
			if err != nil {
				return err
			}
			took = append(took, s.took.Seconds())
			if kill {
				err = errors.Join(s.cmd.Process.Kill(), ignoreExit(s.cmd.Wait()))
			} else {
				err = s.stop()
			}
			if err != nil {
				return err
			}
		}
		what := fmt.Sprintf("%d events stored, stopped cleanly", stored)
		if kill {
			what = fmt.Sprintf("%d events stored, killed", stored)
		}
		r.figure("start to ready", what, 1e3*median(took), "ms", atMost(2000), "")
	}
	return nil
}

// ignoreExit drops the exit status of a process that was killed on purpose.
func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}
