package wall

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// readable returns what waits until a socket can be read, for at most so long when that is not negative, and reports whether it can. The thread
// waits in the kernel, and the descriptor stays the socket's for as long as it does, whoever closes it.
func readable(conn *os.File) func(wait time.Duration) bool {
	raw, err := conn.SyscallConn()
	return func(wait time.Duration) bool {
		if err != nil {
			return true // an error is found again by who reads
		}
		ready := true
		if err := raw.Control(func(fd uintptr) { ready = poll(int32(fd), wait) }); err != nil {
			return true
		}
		return ready
	}
}

func poll(fd int32, wait time.Duration) bool {
	fds, until := []unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, time.Now().Add(wait)
	for {
		var timeout *unix.Timespec
		if wait >= 0 {
			t := unix.NsecToTimespec(int64(max(time.Until(until), 0)))
			timeout = &t
		}
		n, err := unix.Ppoll(fds, timeout, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err != nil || n > 0
	}
}
