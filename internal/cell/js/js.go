// Package js runs scripts: it holds QuickJS as a WebAssembly module and drives it.
//
// QuickJS is a guest like any other; this package adds what a script finds there (prelude/*.js) and
// the calls that load a script and hand it an event. A VM lives in one instance of the module. Prepare
// evaluates the prelude in it, and Load a script. Everything they did is in the instance's memory: a copy of that
// memory, put into another new instance and given to Resume, is a VM in which the script has been
// evaluated and no event handled. The same instance, its memory put back, serves the next event after Resume.
//
// The package knows nothing of limits: its caller bounds the instance's memory and time, and what
// it takes from the Host. Where QuickJS comes from is in ORIGIN.md. Caller: cell.
package js

import (
	"context"
	"embed"
	"time"
)

//go:embed quickjs.wasm
var code []byte

// prelude is preludeSources compiled by QuickJS: evaluating it takes a tenth of the time, and what it
// leaves in every script's memory is less. TestPrelude holds it to the sources, and makes it anew.
//
//go:embed prelude.bin
var prelude []byte

//go:embed prelude/*.js
var preludeSources embed.FS

// preludeParts lists the files of the prelude in the order in which they are called. Each is an
// expression: a function of the host's functions and of an object in which the parts leave what others
// need of them.
func preludeParts() []string {
	return []string{"base", "timers", "encoding", "events", "clone", "url", "crypto", "console", "grants", "fetch", "blob", "room", "main"}
}

// Code returns the WebAssembly module in which scripts run. It must not be changed.
func Code() []byte { return code }

// Prelude returns what Prepare evaluates. It must not be changed.
func Prelude() []byte { return prelude }

// Host is what a script can reach. Its methods are called by the goroutine that called the VM, and
// the bytes they get are the guest's memory: valid during the call only.
type Host interface {
	// Log takes one line of the levels 0 debug, 1 info, 2 warn and 3 error.
	Log(level uint32, line []byte)
	// Result takes the result of the event, as JSON.
	Result(text []byte)
	// Random fills p with random bytes.
	Random(p []byte)
	// Attempt returns the number of this try, and Deadline when it ends, in Unix milliseconds.
	Attempt() int
	Deadline() int64
	// Grants returns the function's grants.
	Grants() []Grant
	// Use begins a use of a grant and returns its number; 0 when none can be begun, as while a script is loaded.
	Use(grant, op string, request, body []byte) uint32
	// Waits reports whether there are uses whose answers were not taken, and Answer takes one. It waits for at most wait when that is not
	// negative, and while ctx lasts.
	Waits() bool
	Answer(ctx context.Context, wait time.Duration) (Answer, bool)
}

// Answer is what came of a use of a grant.
type Answer struct {
	Number     uint32
	JSON, Body []byte
	Failed     bool
}

// Exception is what a script threw where it may not.
type Exception struct {
	// JSON describes it as the error of a result does: message, stack, retry, retry_after_seconds. It
	// is bounded, and empty when there is no telling.
	JSON []byte
	// Rejection is true when it is the reason of a promise that nobody handled.
	Rejection bool
}

// Error says that there is an exception, not which: the text is the guest's.
func (e *Exception) Error() string { return "the script threw an exception" }
