// Package sdk has the sources of the SDKs of languages that are compiled by tools of their own, for `sallyport init` to write beside a new function.
// Caller: internal/scaffold. The packages below it are for functions.
package sdk

import "embed"

// Files has go, rust and c, each as it is in the repository. Tests are among them.
//
//go:embed go/*.go go/guesthttp/*.go rust/Cargo.toml rust/src/*.rs c/sallyport.h
var Files embed.FS
