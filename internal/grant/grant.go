// Package grant is the seam between a function and what it may reach: a grant is a named door whose dangerous
// part is fixed outside the sandbox.
//
// A Kind opens doors of one kind; the packages below this one (httpgrant, sqlgrant, kvgrant, blobgrant) are kinds. A
// Registry has the kinds that a server was built with. A Set holds the doors of one function revision, made from its manifest
// when they are first used, and is the only way to a door: it finds the grant by its name, asks the gate, holds the limits,
// counts, and only then calls the door.
//
// What holds, whatever a function asks for:
//
//   - A name that its own revision has no grant of reaches nothing.
//   - No door is called without the gate's consent; an error while deciding is a refusal.
//   - Every use is bounded: how many at a time and in a second, how long, how many bytes in and out.
//   - A failure is a *problem.Error whose text holds no credential: the function gets it as {code, message, retry}.
//
// The package does no I/O of its own. Callers: deploy (Sets), dispatch (uses), server (the Registry).
package grant

import (
	"context"

	"sallyport/internal/event"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
)

// Caller says on whose behalf a grant is used: what the gate, the meter and a receipt need to know.
type Caller struct {
	Namespace ident.Namespace
	Function  ident.FunctionName
	// Revision is that of the app when the function last changed, as people see it.
	Revision int
	// Grant is the name of the grant that is used.
	Grant string
	// Event is the event that is handled: it says who is behind what the function does. It is nil in tests only.
	Event   *event.Record
	Attempt int
}

// Call is one use of a grant.
type Call struct {
	Caller Caller
	// Op is what is to be done, of the kind: "fetch", "query", "get".
	Op string
	// Request is a JSON object, valid and bounded before it comes here.
	Request []byte
	// Body is what comes with it as bytes; it may be nil.
	Body []byte
	// Spent counts the bytes of the invocation.
	Spent Spent
}

// Reply is what the guest gets.
type Reply struct {
	// JSON is a JSON value; empty stands for null.
	JSON []byte
	// Body is what comes with it as bytes; it may be nil.
	Body []byte
}

// Door is one grant of one function revision. It is safe for concurrent use.
type Door interface {
	// Do serves one use until ctx is done. Its error is a *problem.Error, of which the guest gets code, sentence and whether to
	// retry; what is not one is an internal error to the guest. No text of it may hold a credential.
	Do(ctx context.Context, call *Call) (Reply, error)
	// Close ends what the door holds open. No Do is running then, and none comes after.
	Close() error
}

// Opening is what a door is opened for.
type Opening struct {
	Namespace ident.Namespace
	Function  ident.FunctionName
	Revision  int
	// Name is the grant's name, and Grant what the manifest says of it: exactly one kind, with its limits.
	Name  string
	Grant manifest.Grant
	// Secrets reveals what the manifest refers to; it is nil where there is no store of secrets.
	Secrets Secrets
}

// Kind opens doors of one kind. It is safe for concurrent use.
type Kind interface {
	// Open makes a door. It does not connect to anything: a door connects when it is used.
	Open(ctx context.Context, o Opening) (Door, error)
}

// Use says what a secret is revealed for.
type Use struct {
	Caller Caller
	// Check says that no function uses the value: the grant is looked at for the principal of the context, who is deploying it.
	Check bool
}

// MaxLeased is how long functions may have the value of a secret after it was read: the longest lease, and the longest invocation that got it at
// the end of one.
const MaxLeased = manifest.MaxLease + manifest.MaxTimeout

// Secrets reveals secret values to the doors, outside the sandbox. It is implemented by the store of secrets.
type Secrets interface {
	// Value returns the value of the version that ref names, "name" or "name@version", the current one when it
	// names none. The gate has been asked by then.
	Value(ctx context.Context, ns ident.Namespace, ref string, use Use) ([]byte, error)
}
