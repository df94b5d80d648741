package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pinSelf binds every thread of this process to these processors.
func pinSelf(cpus ...int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	runtime.GOMAXPROCS(1)
	return nil
}

// pinned is the role that binds itself to some processors and then becomes the command given, so that
// the command finds itself on a machine with these processors from its first instruction on.
func pinned(_ context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: bench pinned CPU[,CPU …] COMMAND [ARG …]")
	}
	runtime.LockOSThread()
	var set unix.CPUSet
	for text := range strings.SplitSeq(args[0], ",") {
		cpu, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to processors %s: %w", args[0], err)
	}
	return syscall.Exec(args[1], args[1:], os.Environ())
}
