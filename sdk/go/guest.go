// Package guest lets a Go program be a Sallyport function: a WebAssembly reactor that handles one
// event.
//
//	package main
//
//	import guest "sallyport/sdk/go"
//
//	func init() {
//		guest.Handle(reserve)
//		guest.Rehearse(`{"id":"1","source":"/shop","type":"order.created","data":{"ID":"o-1"}}`)
//	}
//
//	func main() {}
//
//	func reserve(ctx *guest.Context, event *guest.Event) (any, error) {
//		var order struct{ ID string }
//		if err := event.Decode(&order); err != nil {
//			return nil, guest.Final(err)
//		}
//		ctx.Infof("reserving %s", order.ID)
//		return nil, ctx.Publish("order.reserved", order)
//	}
//
// Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o reserve.wasm .
//
// Every event starts from the memory as it was after initialisation: package variables hold nothing of
// earlier events, and the program has no files, environment or network. See Rehearse for
// speed, and OnReseed for random numbers. The call that the host makes and the calls it offers are in
// design/abi.md. On other platforms the package compiles too, so that Test can try a handler in an
// ordinary Go test.
package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Handler handles one event. The value it returns, unless it is nil, is the reply that a synchronous
// caller gets, as JSON. An error fails the attempt, and nothing that was published counts.
type Handler func(ctx *Context, event *Event) (reply any, err error)

// handler is what Handle was given. A reactor is entered without arguments, so it is kept here.
var handler Handler

// Handle sets the program's handler. Call it in init: main does not run in a reactor.
func Handle(h Handler) { handler = h }

// rehearsals is what Rehearse was given.
var rehearsals []string

// Rehearse has the handler handle an event, given in the JSON format of CloudEvents, at the end of
// initialisation. What becomes of it does not matter; what is built at first use does: encoding/json
// learns the types, pools and caches fill, the memory grows. Every event begins with that done, which
// without a rehearsal each of them does anew, and most of a small event's time is that. An event like
// those to come does the most. What the handler keeps in package variables then, it finds in every
// event. Call Rehearse in init.
func Rehearse(event string) { rehearsals = append(rehearsals, event) }

// rehearse handles the events of Rehearse, for a host that counts nothing.
func rehearse() {
	for _, event := range rehearsals {
		r := handle(handler, &testHost{end: time.Now().Add(testTimeout)}, []byte(event))
		r.encode()
	}
	rehearsals = nil
}

// reseeders is what OnReseed was given.
var reseeders []func()

// OnReseed has f run before each event, and once after initialisation. Initialisation itself runs
// once for many events, each of which starts from the memory as it was then. math/rand, maps and
// hash/maphash draw new numbers for each event all the same, and crypto/rand does anyway; but a
// generator that the program keeps in a package variable, or a number that it drew in init, is the
// same for all of them, unless f makes it anew. Call OnReseed in init.
func OnReseed(f func()) { reseeders = append(reseeders, f) }

// Final returns an error that fails the delivery for good: err, and no further attempt.
func Final(err error) error { return &failure{cause: err, final: true} }

// RetryAfter returns an error that asks for the next attempt not before that long.
func RetryAfter(err error, wait time.Duration) error { return &failure{cause: err, wait: wait} }

type failure struct {
	cause error
	final bool
	wait  time.Duration
}

// Error returns the text of the cause.
func (f *failure) Error() string { return f.cause.Error() }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.cause }

// Context is the invocation a handler runs in.
type Context struct {
	host   host
	events []Emitted
	err    error // of the first event that cannot be published
}

// host is what a Context asks of the server.
type host interface {
	attempt() int
	deadline() time.Time
	log(level int, line string)
	// begin begins a use of a grant, and wait takes its answer, nil when there is none; failed says that it is an error.
	begin(grant, op string, request, body []byte) int32
	wait(number int32) (a *Answer, failed bool)
}

// Attempt returns which try at this delivery it is, from 1.
func (c *Context) Attempt() int { return c.host.attempt() }

// Deadline returns when the invocation is stopped.
func (c *Context) Deadline() time.Time { return c.host.deadline() }

// The levels of a log line.
const (
	levelDebug = iota
	levelInfo
	levelWarn
	levelError
)

// Debugf writes to the function log.
func (c *Context) Debugf(format string, args ...any) {
	c.host.log(levelDebug, fmt.Sprintf(format, args...))
}

// Infof writes to the function log.
func (c *Context) Infof(format string, args ...any) {
	c.host.log(levelInfo, fmt.Sprintf(format, args...))
}

// Warnf writes to the function log.
func (c *Context) Warnf(format string, args ...any) {
	c.host.log(levelWarn, fmt.Sprintf(format, args...))
}

// Errorf writes to the function log. It does not fail the attempt: return an error for that.
func (c *Context) Errorf(format string, args ...any) {
	c.host.log(levelError, fmt.Sprintf(format, args...))
}

// Emitted is an event the function publishes. One of Value, Data and DataBase64 is set, or none.
type Emitted struct {
	Type            string
	ID              string
	Subject         string
	DataContentType string
	// Value becomes the data, as JSON.
	Value any
	// Data is JSON data as text.
	Data json.RawMessage
	// DataBase64 is data that is not JSON.
	DataBase64 []byte
}

// Publish publishes an event when the handler returns without an error; data becomes JSON. One of
// the function's publish grants must name its type.
func (c *Context) Publish(eventType string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode the data of %s: %w", eventType, err)
	}
	c.events = append(c.events, Emitted{Type: eventType, Data: text})
	return nil
}

// PublishEvent is Publish for an event with more attributes. Data that cannot be JSON fails the
// attempt when the handler returns.
func (c *Context) PublishEvent(e Emitted) {
	var err error
	switch {
	case e.Value != nil:
		e.Data, err = json.Marshal(e.Value)
		e.Value = nil
	case len(e.Data) > 0 && !json.Valid(e.Data):
		err = errors.New("it is not JSON")
	}
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("encode the data of %s: %w", e.Type, err)
	}
	c.events = append(c.events, e)
}

// handle runs h and returns the result; a panic is a failure like any other.
func handle(h Handler, host host, event []byte) (r result) {
	defer func() {
		if v := recover(); v != nil {
			r = result{failure: &wireError{Message: fmt.Sprintf("panic: %v", v), Stack: string(debug.Stack())}}
		}
	}()
	if h == nil {
		return result{failure: failed(Final(errors.New("the program has no handler: call guest.Handle in init")))}
	}
	e, err := parseEvent(event)
	if err != nil {
		return result{failure: failed(err)}
	}
	ctx := &Context{host: host}
	reply, err := h(ctx, e)
	if err == nil {
		err = ctx.err
	}
	if err != nil {
		return result{failure: failed(err)}
	}
	r.events = ctx.events
	if reply != nil {
		if r.reply, err = json.Marshal(reply); err != nil {
			return result{failure: failed(fmt.Errorf("encode the reply: %w", err))}
		}
	}
	return r
}
