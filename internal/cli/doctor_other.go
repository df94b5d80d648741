//go:build !linux

package cli

import (
	"errors"
	"runtime"
)

// checkMachine says what there is on Linux only.
func checkMachine(c *checks) {
	c.warn("machine", runtime.GOOS+" "+runtime.GOARCH+" has no second wall, functions are reset by copying whole memories, and all the time that they run counts as processor time",
		`right for development, which "sallyport dev" does; run servers on Linux`)
}

// freeSpace is asked on Linux only; elsewhere the server says what is free.
func freeSpace(string) (int64, error) { return 0, errors.ErrUnsupported }
