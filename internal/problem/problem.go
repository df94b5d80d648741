// Package problem holds the one error type that crosses package borders: what went wrong in a
// sentence for the user, a stable code to look up, a hint for the next command, and a hidden cause
// for the operator's log.
//
// Inside a package, errors are plain values; where they leave it for a user they become an Error.
// An error that is not an Error is Internal: the user sees "internal error" and a reference, the
// cause goes to the log. The codes and their explanations are in api/problems/.
package problem

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Kind is the class of a problem; it decides the HTTP status and the exit code.
type Kind uint8

// The kinds. The zero Kind is Internal, so that a forgotten kind reveals nothing.
const (
	Internal Kind = iota
	Invalid
	Unprocessable
	Unauthenticated
	Denied
	NotFound
	Conflict
	TooLarge
	Exhausted
	Timeout
	Unavailable
	Unsupported
	StorageFull
	FunctionFailed
)

// Status returns the HTTP status code of the kind.
func (k Kind) Status() int {
	switch k {
	case Internal:
		return http.StatusInternalServerError
	case Invalid:
		return http.StatusBadRequest
	case Unprocessable:
		return http.StatusUnprocessableEntity
	case Unauthenticated:
		return http.StatusUnauthorized
	case Denied:
		return http.StatusForbidden
	case NotFound:
		return http.StatusNotFound
	case Conflict:
		return http.StatusConflict
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case Exhausted:
		return http.StatusTooManyRequests
	case Timeout:
		return http.StatusGatewayTimeout
	case Unavailable:
		return http.StatusServiceUnavailable
	case Unsupported:
		return http.StatusUnsupportedMediaType
	case StorageFull:
		return http.StatusInsufficientStorage
	case FunctionFailed:
		return http.StatusBadGateway
	}
	return http.StatusInternalServerError
}

// Fault names one place in the user's input: by JSON pointer, or by file, line and column.
type Fault struct {
	Pointer string
	File    string
	Line    int    // from 1
	Column  int    // from 1, in characters
	Source  string // the line itself
	Length  int    // how many characters of it are marked
	Detail  string
}

// Error is a problem as a user meets it. Build it with New and the With methods; each returns a
// changed copy, so that an Error can be shared.
type Error struct {
	Kind   Kind
	Code   string // stable, in api/problems/, such as "event.schema_violation"
	Public string // one sentence for the user, lower case, no full stop
	Hint   string // the next command or act, may be empty
	Faults []Fault
	// Policies are the ids of the policies that determined a denial.
	Policies []string
	// RetryAfter, when positive, tells the caller when to come again.
	RetryAfter time.Duration
	cause      error
}

// New returns an Error; format and args make the sentence the user reads.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Public: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy that tells the user what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithCause returns a copy that carries err for the operator; the user never sees it.
func (e *Error) WithCause(err error) *Error {
	c := *e
	c.cause = err
	return &c
}

// WithFaults returns a copy that names places in the user's input.
func (e *Error) WithFaults(faults ...Fault) *Error {
	c := *e
	c.Faults = append(c.Faults[:len(c.Faults):len(c.Faults)], faults...)
	return &c
}

// WithPolicies returns a copy that names the policies that determined a denial.
func (e *Error) WithPolicies(ids ...string) *Error {
	c := *e
	c.Policies = append(c.Policies[:len(c.Policies):len(c.Policies)], ids...)
	return &c
}

// WithRetryAfter returns a copy that tells the caller to come again after d.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error returns the public sentence and the code; the cause is not in it.
func (e *Error) Error() string { return e.Public + " [" + e.Code + "]" }

// Unwrap returns the hidden cause.
func (e *Error) Unwrap() error { return e.cause }

// From returns err's problem: the Error in its chain, or an Internal one that hides err.
func From(err error) *Error {
	if p, ok := errors.AsType[*Error](err); ok {
		return p
	}
	return &Error{Kind: Internal, Code: "internal", Public: "internal error", cause: err}
}
