//go:build !linux

package confine

import "errors"

// Folder is nowhere.
const Folder = ""

// Root is nothing.
type Root struct{ Own bool }

// Enter changes nothing.
func Enter() Root { return Root{} }

// Apply fails: the walls are Linux's.
func Apply(Root) (Report, error) { return Report{}, errors.ErrUnsupported }

// Namespaces returns nothing.
func Namespaces() []string { return nil }
