//go:build !linux

package wall

import (
	"errors"
	"log/slog"
	"os"
)

func start(Config, room, *slog.Logger) (*process, error) { return nil, errors.ErrUnsupported }

// Inherited fails: there are no worker processes here.
func Inherited(int) (*os.File, []*os.File, error) { return nil, nil, errors.ErrUnsupported }
