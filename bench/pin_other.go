//go:build !linux

package main

import (
	"context"
	"errors"
)

// errNotLinux is why nothing is measured elsewhere: processors are shared out, and what they did is read, as Linux has it.
var errNotLinux = errors.New("the bench runs on Linux only")

func pinSelf(...int) error { return errNotLinux }

func pinned(context.Context, []string) error { return errNotLinux }
