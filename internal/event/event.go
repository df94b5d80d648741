// Package event holds the event: CloudEvents 1.0 as a value, its codecs (HTTP binding, JSON format,
// the binary form of the event log), and the strict JSON check that everything from outside passes.
//
// It is pure: no I/O, no clock, no goroutine. Parsers are bounded by Limits before they look at
// anything, refuse what another parser could read differently (duplicate keys, invalid UTF-8), and
// report faults as problems that name the place and never repeat the value.
//
// Source: CloudEvents 1.0.2, its HTTP protocol binding and its JSON event format.
package event

import (
	"time"

	"sallyport/internal/ident"
)

// DataKind says what Event.Data is.
type DataKind uint8

// The kinds of data.
const (
	DataNone   DataKind = iota // no data
	DataJSON                   // exactly one strict JSON text, byte for byte as it was received
	DataBinary                 // anything else
)

// AttrKind is the CloudEvents type of an extension attribute, kept so that the JSON form round-trips.
type AttrKind uint8

// The types of extension attributes.
const (
	AttrString AttrKind = iota
	AttrBoolean
	AttrInteger
)

// Attribute is an extension attribute: Value is its canonical string form.
type Attribute struct {
	Name, Value string
	Kind        AttrKind
}

// Event is a CloudEvent. Extensions are sorted by name. A zero Time is an absent one.
type Event struct {
	ID, Source, Subject string
	Type                ident.EventType
	Time                time.Time
	DataContentType     string
	DataSchema          string
	Extensions          []Attribute
	Data                []byte
	DataKind            DataKind
}

// Extension returns the value of an extension attribute.
func (e *Event) Extension(name string) (string, bool) {
	for i := range e.Extensions {
		if e.Extensions[i].Name == name {
			return e.Extensions[i].Value, true
		}
	}
	return "", false
}

// SetExtension sets a string extension, keeping the order of names. The slice is copied, so that
// events that share one do not see it.
func (e *Event) SetExtension(name, value string) {
	out := make([]Attribute, 0, len(e.Extensions)+1)
	placed := false
	for _, a := range e.Extensions {
		if !placed && a.Name >= name {
			out = append(out, Attribute{Name: name, Value: value})
			placed = true
		}
		if a.Name != name {
			out = append(out, a)
		}
	}
	if !placed {
		out = append(out, Attribute{Name: name, Value: value})
	}
	e.Extensions = out
}

// Record is an accepted event: the event and what the server knows of it. The event log stores it.
type Record struct {
	Event
	// Position is set when the record is appended or read; it is not part of the stored form.
	Position   ident.Position
	AcceptedAt time.Time
	Principal  ident.PrincipalID
	// Target, when set, makes this the direct invocation of one function: no subscription is matched.
	Target ident.FunctionName
	// OnlySubscription, when set, makes this an event for one subscription alone.
	OnlySubscription ident.SubscriptionName
	// Cause is the event whose handling emitted this one, 0 when there is none; CauseID its id.
	Cause   ident.Position
	CauseID string
	// Hops is the causal depth: 0 for an event from outside.
	Hops uint8
	// Behind is who is behind the event, as far as Principal does not say it.
	Behind Behind
}

// Behind is who is behind an event: who sent the first one of its chain, and the functions since then.
type Behind struct {
	// Principal sent the first event of the chain; "" when that is this event.
	Principal ident.PrincipalID
	// Authority is access's note on that principal: what is kept of what it might do, and how and from where its request
	// came. That is personal data: it MUST NOT be shown or logged. It means something to access alone.
	Authority string
	// Functions are the functions since then, the one that emitted this event last, as "price@3 audit@12": name and
	// revision. Hops bounds how many there are.
	Functions string
}

// Limits bound what a parser accepts. The zero value accepts no event. Strings are measured as they
// are written, so data in base64 is bounded by StringBytes too.
type Limits struct {
	EventBytes     int // one event: attributes and data, as they are sent
	BatchBytes     int // a request body in batch mode
	BatchEvents    int
	Depth          int // nested arrays and objects, counted from the data
	Members        int // of one object or array
	KeyBytes       int // one object key, as written
	StringBytes    int // one string, as written
	NumberBytes    int // one number, as written
	Extensions     int // extension attributes of one event
	AttributeBytes int // the value of one attribute
}

// DefaultLimits returns the limits of a server that sets none. An event of 1 MiB is the middle of
// what peers accept (256 KiB to 6 MiB); depth and members are far above what people write by hand
// and far below what exhausts a parser.
func DefaultLimits() Limits {
	return Limits{
		EventBytes: 1 << 20, BatchBytes: 4 << 20, BatchEvents: ident.MaxBatchEvents,
		Depth: 64, Members: 10_000, KeyBytes: 1 << 10, StringBytes: 1 << 20, NumberBytes: 100,
		Extensions: 32, AttributeBytes: 2 << 10,
	}
}
