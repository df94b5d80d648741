package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// clockTicks is USER_HZ, the unit of the times in /proc/PID/stat: 100 on every Linux that Go runs on.
const clockTicks = 100

// oneCPU and bothCPUs are where a server under measurement may run, as the role pinned takes it. Both is for what has to
// be quick on a machine of two processors, and for how a server shares them; the load generator then shares one with it.
const (
	oneCPU   = "0"
	bothCPUs = "0,1"
)

// process is a server under measurement.
type process struct {
	cmd   *exec.Cmd
	ready []byte // what it said when it was ready
	took  time.Duration
	log   bytes.Buffer
}

// start runs a command pinned to these processors. The command says on its standard output,
// or (readyFile) in a file, that it is ready.
func start(ctx context.Context, cpus, readyFile string, command ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{}
	began := time.Now()
	p.cmd = exec.CommandContext(ctx, self, append([]string{"pinned", cpus}, command...)...)
	p.cmd.Stderr = &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if readyFile == "" {
		p.ready, err = bufio.NewReader(out).ReadBytes('\n')
	} else {
		p.ready, err = awaitFile(ctx, readyFile)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not become ready: %w\n%s", filepath.Base(command[0]), err, p.log.String()), p.stop())
	}
	p.took = time.Since(began)
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	return p, nil
}

// awaitFile returns the content of a file that another process creates by renaming.
func awaitFile(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(path)
		if err == nil {
			return b, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// stop ends the process: politely, then not.
func (p *process) stop() error {
	if p.cmd.Process == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(15*time.Second, func() { _ = p.cmd.Process.Kill() }) // Wait reports it
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM {
			return nil // the baselines end on the signal itself
		}
		return fmt.Errorf("%w\n%s", err, p.log.String())
	}
	return nil
}

// cpu returns the CPU time, user and system, that the process and those it started have used so far.
func (p *process) cpu() (time.Duration, error) { return tree(p.cmd.Process.Pid).cpu() }

// resident returns the resident memory in bytes, that of the processes it started included.
func (p *process) resident() (int64, error) { return tree(p.cmd.Process.Pid).resident() }

// tree is a process and those that it started: the workers of functions.
type tree int

// cpu returns the CPU time, user and system, that they have used so far.
func (t tree) cpu() (time.Duration, error) {
	ticks, err := t.sum(func(pid int) (int64, error) {
		fields, err := statFields(pid)
		if err != nil {
			return 0, err
		}
		const utime, cstime = 11, 14 // between them system time, and the user time of children that have ended
		if len(fields) <= cstime {
			return 0, errors.New("/proc/PID/stat is too short")
		}
		total := int64(0)
		for _, text := range fields[utime : cstime+1] {
			ticks, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return 0, err
			}
			total += ticks
		}
		return total, nil
	})
	return time.Duration(ticks) * (time.Second / clockTicks), err
}

// statFields returns what /proc/PID/stat says after the command, which may hold spaces.
func statFields(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])), nil
}

// sum adds up a figure of all of them.
func (t tree) sum(of func(pid int) (int64, error)) (int64, error) {
	total, err := of(int(t))
	if err != nil {
		return 0, err
	}
	list, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		const parent = 1
		fields, err := statFields(pid)
		if err != nil || len(fields) <= parent || fields[parent] != strconv.Itoa(int(t)) {
			continue // it has ended, or is another's
		}
		own, err := of(pid)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended since
		}
		if err != nil {
			return 0, err
		}
		total += own
	}
	return total, nil
}

// resident returns their resident memory in bytes.
func (t tree) resident() (int64, error) {
	return t.sum(func(pid int) (int64, error) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(b))
		if len(fields) < 2 {
			return 0, errors.New("/proc/PID/statm is too short")
		}
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		return pages * int64(os.Getpagesize()), err
	})
}
