package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/client"
)

const (
	// besideWindows is how often a neighbour is measured for each round, alone and beside each attack in turn.
	besideWindows = 5
	// attackNice keeps the client of an attack from taking the processor that the load generator measures on.
	attackNice = "10"
	// emptied bounds how long what an attack left in the queues may take until nothing is pending.
	emptied = 2 * time.Minute
)

// measureBeside is what hostile functions do to their neighbour behind the second wall, on all processors: the latency of a
// trivial function that is called every few milliseconds, alone and beside each kind of attack, in turn.
func measureBeside(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	chosen, err := chosenAttacks(o.attacks)
	if err != nil {
		return err
	}
	s, err := startWalledOn(ctx, o, bothCPUs, "beside", "on")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	b := &besides{options: o, server: s, samples: map[string]*besideSamples{}}
	if b.guest, err = buildGuest(ctx, o, stderr); err != nil {
		return err
	}
	if b.client, err = s.connect(); err != nil {
		return err
	}
	defer b.client.Close()
	if b.silent, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.silent.Close()) }()
	go keepSilent(b.silent)
	if err := b.deploy(ctx, chosen); err != nil {
		return err
	}
	if b.light, err = s.events(); err != nil {
		return err
	}
	b.light.path = "/v1/namespaces/default/functions/light/invoke"
	for _, a := range chosen {
		fmt.Fprintf(stderr, "  %s …\n", a.name)
		if err := b.inTurn(ctx, a); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	b.report(r, chosen)
	return b.survived(ctx, r)
}

// keepSilent takes connections, reads what comes and says nothing, until the listener is closed.
func keepSilent(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(io.Discard, conn) // it ends when the other side does
			_ = conn.Close()
		}()
	}
}

// besides is the server under attack, and what was measured of it.
type besides struct {
	options options
	server  *sallyport
	client  *client.Client
	light   *target
	guest   string
	silent  net.Listener
	samples map[string]*besideSamples // by the name of the attack
	rounds  int                       // of attacks, for names that are new
}

// besideSamples are those of one attack, and what became of it.
type besideSamples struct {
	alone, beside []sample
	outcomes      map[string]int
	seconds       float64
}

// inTurn measures the neighbour alone and beside one attack. The first turn warms up, and the server learns who is heavy.
func (b *besides) inTurn(ctx context.Context, a attack) error {
	got := &besideSamples{outcomes: map[string]int{}}
	b.samples[a.name] = got
	for window := range besideWindows*b.options.rounds + 1 {
		alone, err := b.window(ctx)
		if err != nil {
			return fmt.Errorf("alone: %w", err)
		}
		beside, outcomes, took, err := b.attacked(ctx, a)
		if err != nil {
			return err
		}
		if window == 0 {
			continue
		}
		got.alone, got.beside = append(got.alone, alone), append(got.beside, beside)
		got.seconds += took.Seconds()
		for what, n := range outcomes {
			got.outcomes[what] += n
		}
	}
	return nil
}

// window calls the neighbour for a while.
func (b *besides) window(ctx context.Context) (sample, error) {
	l := load{target: b.light, clients: 1, duration: fairWindow, rate: float64(time.Second / fairEvery), request: calls, want: 200}
	one, err := l.run(ctx, b.server.process)
	if err == nil && one.Failed > 0 {
		err = fmt.Errorf("%d calls of the neighbour failed", one.Failed)
	}
	return one, err
}

// attacked is a window beside an attack, which is over when it returns.
func (b *besides) attacked(ctx context.Context, a attack) (one sample, outcomes map[string]int, took time.Duration, err error) {
	began := time.Now()
	b.rounds++
	p, err := b.begin(ctx, a)
	if err != nil {
		return one, nil, 0, err
	}
	one, err = b.window(ctx)
	outcomes, endErr := p.end()
	took = time.Since(began)
	if err := errors.Join(err, endErr); err != nil {
		return one, nil, 0, err
	}
	for what := range outcomes {
		if !slices.ContainsFunc(a.want, func(w string) bool { return strings.HasPrefix(what, w) }) {
			return one, nil, 0, fmt.Errorf("the attack came to %v, want %v only", outcomes, a.want)
		}
	}
	return one, outcomes, took, b.settle(ctx)
}

// settle waits until nothing that an attack published is pending.
func (b *besides) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, emptied)
	defer cancel()
	const look = 50 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		status, err := b.client.Status(ctx)
		if err != nil {
			return err
		}
		if status.Namespaces[0].Pending == 0 { // what failed is dead
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until nothing is pending: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// report enters the rows of all attacks.
func (b *besides) report(r *report, chosen []attack) {
	for _, a := range chosen {
		got := b.samples[a.name]
		measure := "(beside) " + a.name
		var outcomes []string
		for _, what := range slices.Sorted(maps.Keys(got.outcomes)) {
			outcomes = append(outcomes, fmt.Sprintf("%s %.3g/s", what, float64(got.outcomes[what])/got.seconds))
		}
		alone := r.add(measure, "trivial function every 5 ms, alone", got.alone)
		beside := r.add(measure, "beside: "+a.what, got.beside)
		r.compare(measure, "p50 : alone", float64(beside.P50)/float64(alone.P50), bar{}, "")
		r.compare(measure, "p99 : alone", float64(beside.P99)/float64(alone.P99), a.bar(), strings.Join(outcomes, ", "))
	}
}

// bar is that of a neighbour's p99. The flood of calls has none: it is there to compare with.
func (a attack) bar() bar {
	if a.flood {
		return bar{}
	}
	return atMost(1.3)
}

// survived enters whether the server and its workers outlived all attacks.
func (b *besides) survived(ctx context.Context, r *report) error {
	status, err := b.client.Status(ctx)
	if err != nil {
		return err
	}
	if status.Cells == nil {
		return errors.New("the server says nothing of its workers")
	}
	r.figure("(beside)", "worker processes lost in all", float64(status.Cells.Lost), "workers", bar{}, "0 is right")
	if status.Cells.Lost > 0 {
		return fmt.Errorf("%d worker processes were lost\n%s", status.Cells.Lost, b.server.log.String())
	}
	return nil
}

// attackProcess is a client that has a server do what hurts it.
type attackProcess struct {
	cmd  *exec.Cmd
	stop io.Closer
	out  io.Reader
}

// begin starts an attack and waits until it has begun.
func (b *besides) begin(ctx context.Context, a attack) (*attackProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ready := b.server.ready
	p := &attackProcess{}
	p.cmd = exec.CommandContext(ctx, self, "behind", attackNice, self, "attack", a.name, strconv.Itoa(b.rounds), b.guest, ready.URL, ready.CAFile, ready.TokenFile)
	p.cmd.Stderr = os.Stderr
	if p.stop, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if p.out, err = p.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := p.out.Read(make([]byte, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("the attack did not begin: %w", err), p.cmd.Wait())
	}
	return p, nil
}

// end has the attack stop, waits until all of it is over, and returns what came of it.
func (p *attackProcess) end() (outcomes map[string]int, err error) {
	err = p.stop.Close()
	return outcomes, errors.Join(err, json.UnmarshalRead(p.out, &outcomes), p.cmd.Wait())
}
