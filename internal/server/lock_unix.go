//go:build unix

package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sallyport/internal/problem"
)

// lockDir sees that one server alone uses a data directory. The lock ends with the process, however
// it ends.
func lockDir(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, problem.New(problem.Unavailable, "server.data_dir", "the data directory cannot be used: %v", err).
			WithHint("choose another with --data-dir, or give this user access")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = problem.New(problem.Conflict, "server.data_dir_in_use", "another Sallyport uses the data directory %s", filepath.Dir(path)).
				WithHint("stop it, or choose another with --data-dir")
		}
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		// Closing alone does not give it back while a process that is being started still has a copy of the file.
		if err := errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close()); err != nil {
			return fmt.Errorf("unlock data directory: %w", err)
		}
		return nil
	}, nil
}
