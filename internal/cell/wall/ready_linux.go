package wall

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// readable returns what waits until a socket can be read, for at most so long when that is not negative, and reports whether it can. The thread
// waits in the kernel.
func readable(conn *os.File) func(wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(conn.Fd()), Events: unix.POLLIN}}
	return func(wait time.Duration) bool {
		until := time.Now().Add(wait)
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
			return err != nil || n > 0 // an error is found again by who reads
		}
	}
}
