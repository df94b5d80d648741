//go:build !linux

package wall

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
)

// errNotLinux is why there are no worker processes: what their walls are made of is Linux's.
var errNotLinux = errors.New("they need Linux, and this is " + runtime.GOOS)

func start(Config, room, *slog.Logger) (*process, error) { return nil, errNotLinux }

// Inherited fails: there are no worker processes here.
func Inherited(int) (*os.File, []*os.File, error) { return nil, nil, errNotLinux }
