package cell

import (
	"errors"
	"time"

	"sallyport/internal/problem"
)

// Codes that more than one place uses.
const (
	codeFailed        = "cell.function_failed" // the function itself reported it
	codeMemory        = "cell.memory"
	codeCanceled      = "cell.canceled"
	codeScriptInvalid = "cell.script_invalid"
)

// maxMessageBytes bounds the message of a failure: it is stored with every attempt and dead letter.
const maxMessageBytes = 4 << 10

// Failure is what a function said when it failed. It is in the chain of the problem that Invoke
// returns; Failed finds it.
type Failure struct {
	Message string
	// Final is true when the function said that another attempt is useless.
	Final bool
	// RetryAfter is when it asked to be tried again; zero leaves that to the platform.
	RetryAfter time.Duration
	// Stack is where it failed, in the author's own files where a source map tells; may be empty.
	Stack string
}

// Error returns the message.
func (f *Failure) Error() string { return f.Message }

// Failed returns what the function said, when err is a failure that it reported itself.
func Failed(err error) (*Failure, bool) { return errors.AsType[*Failure](err) }

// failed is the problem of a failure.
func failed(f *Failure, faults ...problem.Fault) *problem.Error {
	f.Message = bounded(f.Message, maxMessageBytes)
	return problem.New(problem.FunctionFailed, codeFailed, "%s", f.Message).
		WithFaults(faults...).WithRetryAfter(f.RetryAfter).WithCause(f)
}
