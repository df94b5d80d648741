// Command bench measures the real binary beside its baselines, in one run on one machine, and
// prints ratios. Run it with `make bench`; `go run ./bench -h` lists the flags.
//
// Every server process is pinned to processor 0 and the load generator to processor 1, but for the measures deploy, fair and beside,
// in which the server has both. The figure
// to compare is the CPU time of the whole server process per event: it does not count waiting for a
// busy core or for the disk, so it says what a core can carry. Wall rates and latencies are printed
// beside it. These are shared machines: compare figures of one run only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	serverCPU = 0
	loadCPU   = 1
)

// options is what the flags set.
type options struct {
	binary   string
	dir      string
	json     string
	only     string
	rounds   int
	duration time.Duration
	clients  int
	stored   int
	profile  string
	workerd  string
	idleGo   int
	attacks  string
}

func main() { os.Exit(doMain(os.Args[1:], os.Stdout, os.Stderr)) }

func doMain(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		if role, ok := roles()[args[0]]; ok {
			if err := role(ctx, args[1:]); err != nil {
				fmt.Fprintln(stderr, "bench:", err)
				return 1
			}
			return 0
		}
	}
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.binary, "binary", "", "the sallyport `file` to measure (default: built from this checkout)")
	flags.StringVar(&o.dir, "dir", "", "`folder` for the data of the run, on the disk to measure (default: a new one in the temporary folder)")
	flags.StringVar(&o.json, "json", "", "write the results to `file` too")
	flags.StringVar(&o.only, "only", "a,b,c,d,start,cell,workerd,kept,wake,deploy,restart,idle,wall,fair,beside,gate,grants", "which measures to take")
	flags.IntVar(&o.rounds, "rounds", 3, "how often each pair is measured, in turn")
	flags.DurationVar(&o.duration, "duration", 4*time.Second, "how long one measurement lasts")
	flags.IntVar(&o.clients, "clients", 64, "keep-alive connections")
	flags.IntVar(&o.stored, "stored", 1_000_000, "events stored before the restart is timed")
	flags.StringVar(&o.profile, "profile", "", "write a CPU profile of the server to `file`, of the last of (a), (b), (kept) and (gate) that is measured")
	flags.IntVar(&o.idleGo, "idle-go", 100, "how many of the 10,000 idle functions are Go modules; to compile one takes seconds")
	flags.StringVar(&o.attacks, "attacks", "", "which attacks (beside) has, such as loop-js,memory-wasm (default: all)")
	flags.StringVar(&o.workerd, "workerd", "", "the workerd `file` to compare with (default: npm installs one into the folder of the run)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := run(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// run takes every measure asked for and prints the table.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "sallyport-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	if o.binary == "" {
		o.binary = filepath.Join(o.dir, "sallyport")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", o.binary, "./cmd/sallyport")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build sallyport: %w", err)
		}
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil { // some of what starts it is elsewhere
		return err
	}
	if err := pinSelf(loadCPU); err != nil {
		return fmt.Errorf("pin the load generator: %w", err)
	}
	r := &report{}
	measures := []struct {
		name string
		take func(context.Context, options, *report, io.Writer) error
	}{
		{"a", measureSingles},
		{"b", measureBatches},
		{"c", measureEndToEnd},
		{"d", measureMemory},
		{"start", measureStart},
		{"cell", measureCells},
		{"workerd", measureWorkerd},
		{"kept", measureKept},
		{"wake", measureWake},
		{"deploy", measureDeploy},
		{"restart", measureRestart},
		{"idle", measureIdle},
		{"wall", measureWall},
		{"fair", measureFair},
		{"beside", measureBeside},
		{"grants", measureGrants},
		{"gate", measureGate},
	}
	taken := 0
	for _, m := range measures {
		if !strings.Contains(","+o.only+",", ","+m.name+",") {
			continue
		}
		taken++
		fmt.Fprintf(stderr, "measuring (%s) …\n", m.name)
		if err := m.take(ctx, o, r, stderr); err != nil {
			return fmt.Errorf("measure (%s): %w", m.name, err)
		}
	}
	if taken == 0 {
		return fmt.Errorf("-only %q names no measure", o.only)
	}
	if err := r.print(stdout); err != nil {
		return err
	}
	if o.json != "" {
		return r.writeJSON(o.json)
	}
	return nil
}
