package wall

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// yieldTo lowers the priority of the calling thread by so many steps: a process that it starts begins with
// that, and so does every thread of it. None of them can raise it again: that takes a privilege.
func yieldTo(steps int) error {
	if steps == 0 {
		return nil
	}
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 - nice, and 0 is the calling thread
	if err != nil {
		return fmt.Errorf("read the priority: %w", err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 20-raw+steps); err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	return nil
}

// yieldGroup lowers the priority of the process pid as a whole. Where the kernel shares processors between
// sessions first (sched_autogroup, when no control group does it), the priorities of threads count only
// within one, and a worker has its own. Where it does not, there is no such file, or it does nothing.
func yieldGroup(pid, steps int) error {
	if steps == 0 {
		return nil
	}
	err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/autogroup", []byte(strconv.Itoa(steps)), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
