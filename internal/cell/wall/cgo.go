//go:build cgo

package wall

// builtWithCgo says that this program has C code in it: see ErrCgo.
const builtWithCgo = true
