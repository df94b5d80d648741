package cell

import (
	"context"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/ident"
)

// The kinds of function, as users see them.
const (
	KindJavaScript = "javascript"
	KindReactor    = "reactor"
	KindCommand    = "command"
)

// The levels of a log line.
const (
	LevelDebug = "debug"
	LevelInfo  = "info"
	LevelWarn  = "warn"
	LevelError = "error"
)

// Function is a loaded module with limits. It is safe for concurrent use: every Invoke has an
// instance to itself. Close it when it is no longer invoked, to give back the compiled code.
type Function struct {
	name   string
	kind   string
	module *module
	guest  guest
	limits Limits
	grants []GrantSpec
	engine *Engine
	once   sync.Once
	// held is what Resident counts besides the template.
	held int64
	// template is set by Load and never changed; nil when instances are made anew for each event.
	template *template

	idle   []*instance // that wait for an event, the last to run at the end; guarded by engine.idle.mu
	closed bool        // guarded by engine.idle.mu
	// floored is true once engine.idle.floor counts its least instances; guarded by engine.idle.mu.
	floored bool
}

// Kind returns what sort of module it is: KindJavaScript, KindReactor or KindCommand.
func (f *Function) Kind() string { return f.kind }

// Limits returns the limits it was loaded with.
func (f *Function) Limits() Limits { return f.limits }

// Granted reports whether the function has grants that it uses while it runs.
func (f *Function) Granted() bool { return len(f.grants) > 0 }

// Resident returns about how much memory the function takes while no instance of it waits, in bytes:
// its template, and the compiled code of a module, although other functions may share that.
func (f *Function) Resident() int64 {
	const fixed = 4 << 10
	bytes := int64(fixed) + f.held
	if f.template != nil {
		bytes += f.template.image.Bytes() + f.floorBytes()
	}
	return bytes
}

// Close releases the compiled code; the last function of a module frees it. It is idempotent and
// MUST NOT be called while an Invoke of this function is running.
func (f *Function) Close(ctx context.Context) error {
	var err error
	f.once.Do(func() {
		f.engine.idle.drop(ctx, f)
		if f.template != nil {
			f.engine.memories.Forget(f.template.image)
		}
		err = f.engine.release(ctx, f.module)
		f.engine.tidier.Touch()
	})
	return err
}

// Input is one event for a function.
type Input struct {
	// Event is the event in the JSON format of CloudEvents.
	Event []byte
	// EventID is the event's id, which the guest finds in its context too.
	EventID string
	// Attempt counts the tries at this delivery from 1.
	Attempt int
	// Heavy says that the function's attempts compute for long, as far as its past tells. A cell is the same
	// for all; whoever has several places for cells may put it where it keeps nobody from a processor.
	Heavy bool
	// Log receives each line the function logs, from the goroutine of Invoke; nil drops them.
	Log func(level, message string)
	// Use makes one use of a grant: it is called from any goroutine, several times at once, and returns soon after its context
	// is done. nil is a function without grants. Grants, when it is set, is used instead.
	Use    func(context.Context, GrantUse) GrantAnswer
	Grants Grants
	// Waits is told when the function begins to wait for answers to its uses and computes nothing meanwhile, and when it goes
	// on; nil for nobody.
	Waits func(waiting bool)
}

// Result is what a function made of an event.
type Result struct {
	// Reply is the value a synchronous caller gets; empty when there is none.
	Reply jsontext.Value
	// Events are to be published, in this order.
	Events []Emitted
}

// Emitted is an event a function returned. Its type is well formed; whether the function may
// publish it, and whether its data fits the schema, is for others to decide.
type Emitted struct {
	Type    ident.EventType
	ID      string // empty: the platform makes one
	Subject string
	// Data is one JSON value; when it is empty, DataBase64 holds binary data, or there is none.
	Data            jsontext.Value
	DataContentType string
	DataBase64      []byte
}

// Usage is what an invocation cost.
type Usage struct {
	// Duration is the wall time from the request for an instance to the result.
	Duration time.Duration
	// CPU is the processor time of it.
	CPU time.Duration
	// MemoryPeak is the most linear memory the instance held, in bytes.
	MemoryPeak int64
	// Cold is true when the instance was made for this event, and false when it had served others.
	Cold bool
	// BytesIn is the length of the event, and BytesOut that of the result and of what was logged.
	BytesIn, BytesOut int64
}
