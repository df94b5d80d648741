//go:build !linux

package cli

import (
	"errors"
	"runtime"
)

// checkMachine says that there is nothing it knows to look at.
func checkMachine(c *checks) { c.ok("machine", "%s %s", runtime.GOOS, runtime.GOARCH) }

// freeSpace is asked on Linux only; elsewhere the server says what is free.
func freeSpace(string) (int64, error) { return 0, errors.ErrUnsupported }
