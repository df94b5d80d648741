//go:build !linux

package confine

import "errors"

// Apply fails: the walls are Linux's.
func Apply() (Report, error) { return Report{}, errors.ErrUnsupported }

// Namespaces returns nothing.
func Namespaces() []string { return nil }
