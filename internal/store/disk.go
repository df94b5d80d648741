package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sallyport/internal/problem"
)

// freeBytes returns how many bytes an unprivileged process can still write to dir's file system.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil // its type is another on each system
}

// tryWrite writes and removes a small file in dir: a disk may have space and still refuse writes, being
// read-only or over a quota.
func tryWrite(dir string) error {
	file, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, probeSize))
	return errors.Join(err, file.Sync(), file.Close(), os.Remove(file.Name()))
}

// probeSize is the size in bytes of what tryWrite writes: a few blocks of a file system.
const probeSize = 16 << 10

// lockDir makes dir and takes it for this process until the file is closed, by exit at the latest.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unusable(dir, err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, unusable(dir, err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return file, nil
	}
	err = errors.Join(err, file.Close())
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, problem.New(problem.Conflict, "store.in_use", "another server is using %s", dir).
			WithHint("stop the other server, or give this one a data directory of its own").WithCause(err)
	}
	return nil, unusable(dir, err)
}

// unlockDir gives dir back. Closing the file alone does not while a process that is being started still has a copy of it,
// which it has until it runs its program.
func unlockDir(lock *os.File) error {
	return errors.Join(unix.Flock(int(lock.Fd()), unix.LOCK_UN), lock.Close())
}

func unusable(dir string, cause error) error {
	return problem.New(problem.Unavailable, "store.unusable", "the store in %s cannot be opened", dir).
		WithHint("see the cause in the log; the folder must belong to the user the server runs as").
		WithCause(cause)
}
