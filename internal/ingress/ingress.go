// Package ingress is the one way events come in: from producers over HTTP, from synchronous callers,
// and from functions that emit them. It authorises, checks against schemas, stamps what the server
// knows of the event, and appends to the event log.
//
// It parses nothing (event does) and delivers nothing (dispatch does). Whatever is accepted is on
// disk when Accept returns; a request is accepted whole or not at all. Callers: httpapi (Accept),
// dispatch (Emit).
package ingress

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// MaxHops bounds the causal depth: an event emitted by a function that handled an event emitted by a
// function, and so on. A loop of functions ends here.
const MaxHops = 16

// reservedSource begins the sources of events that functions emit. Nobody else may use it: it could
// pass for a function, or take an id that a function's event will have.
const reservedSource = "/namespaces/"

// Guard authorises; access.Guard is one.
type Guard interface {
	Authorize(ctx context.Context, p *access.Principal, action policy.Action, res policy.Resource) error
	AuthorizeEvent(ctx context.Context, p *access.Principal, ns ident.Namespace, e *policy.Event, cause *access.Cause) error
	AuthorizeCaused(ctx context.Context, p *access.Principal, action policy.Action, res policy.Resource, cause *access.Cause) error
	AuthorizeUse(ctx context.Context, p *access.Principal, res policy.Resource, op string, cause *access.Cause) error
	Keep(ctx context.Context, p *access.Principal) (string, error)
	SameForType(ns ident.Namespace, t ident.EventType) bool
}

// Log is the event log of a namespace; eventlog.Log is one.
type Log interface {
	Append(ctx context.Context, recs []event.Record) ([]eventlog.Appended, error)
}

// Config says what an Intake works with.
type Config struct {
	Guard Guard
	// Log returns the event log of a namespace, or a NotFound problem.
	Log func(ns ident.Namespace) (Log, error)
	// State returns what is active in a namespace.
	State func(ns ident.Namespace) *deploy.State
	// Quotas bound what comes in; nil for no bound.
	Quotas Quotas
}

// Quotas bound the events of namespaces; namespace.Registry does. size is of attributes and data, in bytes.
type Quotas interface {
	// Admit returns a problem when n events are too many, and else what to call when they are stored, or are not.
	Admit(ctx context.Context, ns ident.Namespace, n int, size int64) (done func(), err error)
	// Emitted counts events of functions, which are never refused for a quota.
	Emitted(ns ident.Namespace, n int, size int64)
}

// sizeOf returns about how much events take, in bytes.
func sizeOf(evs []event.Event) (size int64) {
	for i := range evs {
		e := &evs[i]
		size += int64(len(e.ID) + len(e.Source) + len(e.Type) + len(e.Subject) + len(e.DataContentType) + len(e.DataSchema) + len(e.Data))
		for _, x := range e.Extensions {
			size += int64(len(x.Name) + len(x.Value))
		}
	}
	return size
}

// Intake accepts events. It is safe for concurrent use.
type Intake struct {
	cfg   Config
	users users
}

// New returns an Intake.
func New(cfg Config) *Intake { return &Intake{cfg: cfg} }

// Options say what is particular about a request.
type Options struct {
	// Target, when set, makes the events direct invocations of this function.
	Target ident.FunctionName
}

// Accept stores evs, all or none, on behalf of p, and returns where they stand, in their order. It
// does not keep the events or their data.
func (in *Intake) Accept(ctx context.Context, p *access.Principal, ns ident.Namespace, evs []event.Event, opts Options) ([]api.Receipt, error) {
	if err := in.authorize(ctx, p, ns, evs, opts); err != nil {
		return nil, err
	}
	state := in.cfg.State(ns)
	if opts.Target != "" {
		if _, err := state.Function(opts.Target); err != nil {
			return nil, err
		}
	}
	log, err := in.cfg.Log(ns)
	if err != nil {
		return nil, err
	}
	// What p may do is kept before its events are: a function that handles them may have to ask.
	authority, err := in.cfg.Guard.Keep(ctx, p)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	recs := make([]event.Record, len(evs))
	for i := range evs {
		if strings.HasPrefix(evs[i].Source, reservedSource) {
			return nil, problem.New(problem.Invalid, "ingress.reserved_source",
				"sources that begin with %s are the platform's own", reservedSource)
		}
		if err := validate(state, &evs[i], i, len(evs)); err != nil {
			return nil, err
		}
		recs[i] = event.Record{
			Event: evs[i], AcceptedAt: now, Principal: p.ID, Target: opts.Target, Behind: event.Behind{Authority: authority},
		}
	}
	if in.cfg.Quotas != nil {
		// Last, so that what is refused for another reason counts for nothing.
		done, err := in.cfg.Quotas.Admit(ctx, ns, len(evs), sizeOf(evs))
		if err != nil {
			return nil, err
		}
		defer done()
	}
	return store(ctx, log, recs)
}

// authorize asks the guard about each type once, or about each event where policies look at events.
func (in *Intake) authorize(ctx context.Context, p *access.Principal, ns ident.Namespace, evs []event.Event, opts Options) error {
	if opts.Target != "" {
		return in.cfg.Guard.Authorize(ctx, p, policy.Invoke, policy.Resource{Kind: policy.KindFunction, Namespace: ns, Name: string(opts.Target)})
	}
	for i := range evs {
		if i > 0 && evs[i].Type == evs[i-1].Type && in.cfg.Guard.SameForType(ns, evs[i].Type) {
			continue
		}
		if err := in.cfg.Guard.AuthorizeEvent(ctx, p, ns, described(&evs[i]), nil); err != nil {
			return err
		}
	}
	return nil
}

// validate checks event i of n against the schema of its type, if it has one.
func validate(state *deploy.State, e *event.Event, i, n int) error {
	t := state.EventTypes[e.Type]
	if t == nil || t.Schema == nil {
		return nil
	}
	if e.DataKind != event.DataJSON {
		return at(problem.New(problem.Unprocessable, "event.schema_violation", "the type %s has a schema, so its data must be JSON", e.Type).
			WithFaults(problem.Fault{Detail: "no JSON data"}), i, n)
	}
	if err := t.Schema.Validate(e.Data); err != nil {
		return at(err, i, n)
	}
	return nil
}

// at puts the place of the event in its batch before the places in its data.
func at(err error, i, n int) error {
	p := problem.From(err)
	if n == 1 {
		return p
	}
	c := *p
	c.Faults = nil
	for _, f := range p.Faults {
		f.Pointer = fmt.Sprintf("/%d/data%s", i, f.Pointer)
		c.Faults = append(c.Faults, f)
	}
	return &c
}

func store(ctx context.Context, log Log, recs []event.Record) ([]api.Receipt, error) {
	appended, err := log.Append(ctx, recs)
	if err != nil {
		return nil, err
	}
	receipts := make([]api.Receipt, len(recs))
	for i := range recs {
		receipts[i] = api.Receipt{
			ID: recs[i].ID, Source: recs[i].Source,
			Position: uint64(appended[i].Position), Duplicate: appended[i].Duplicate,
		}
	}
	return receipts, nil
}

// Emission is what one attempt at a delivery wants published.
type Emission struct {
	Namespace ident.Namespace
	Function  *deploy.Function
	// Delivery tells deliveries of one event to one function apart: the subscription's name, or
	// nothing for a direct invocation.
	Delivery ident.SubscriptionName
	Cause    *event.Record
	Events   []event.Event // type, subject and data; the rest is set here
}

// Emit stores the events of an emission, all or none, and returns their ids. The ids follow from the
// cause, so an attempt that is made again after a crash stores nothing twice: the first emission
// stands.
func (in *Intake) Emit(ctx context.Context, em Emission) ([]string, error) {
	if len(em.Events) == 0 {
		return nil, nil
	}
	if em.Cause.Hops >= MaxHops {
		return nil, problem.New(problem.Unprocessable, "ingress.too_many_hops",
			"the event is the %dth in a chain of events that functions emitted; at most %d are allowed", em.Cause.Hops, MaxHops).
			WithHint("look for functions that trigger each other: `sallyport event get` shows causes")
	}
	p := access.FunctionPrincipal(em.Namespace, em.Function.Name, em.Function.Revision, em.Function.Publishes)
	if err := in.authorizeEmission(ctx, p, em); err != nil {
		return nil, err
	}
	state := in.cfg.State(em.Namespace)
	log, err := in.cfg.Log(em.Namespace)
	if err != nil {
		return nil, err
	}
	behind := behindFunction(em.Cause, em.Function.Name, em.Function.Revision)
	now := time.Now().UTC()
	ids := make([]string, len(em.Events))
	recs := make([]event.Record, len(em.Events))
	for i, e := range em.Events {
		if err := validate(state, &e, i, len(em.Events)); err != nil {
			return nil, err
		}
		ids[i] = EmittedID(em.Namespace, em.Function.Name, em.Delivery, em.Cause.Position, i)
		e.ID, e.Source, e.Time = ids[i], sourceOf(em), now
		if trace, ok := em.Cause.Extension("traceparent"); ok {
			e.SetExtension("traceparent", trace)
		}
		recs[i] = event.Record{
			Event: e, AcceptedAt: now, Principal: p.ID,
			Cause: em.Cause.Position, CauseID: em.Cause.ID, Hops: em.Cause.Hops + 1, Behind: behind,
		}
	}
	if in.cfg.Quotas != nil {
		in.cfg.Quotas.Emitted(em.Namespace, len(em.Events), sizeOf(em.Events))
	}
	_, err = log.Append(ctx, recs)
	return ids, err
}

func (in *Intake) authorizeEmission(ctx context.Context, p *access.Principal, em Emission) error {
	cause := CauseOf(em.Namespace, em.Cause)
	for i := range em.Events {
		e := described(&em.Events[i])
		e.Source = sourceOf(em)
		err := in.cfg.Guard.AuthorizeEvent(ctx, p, em.Namespace, e, cause)
		if err == nil {
			continue
		}
		denied := problem.From(err)
		if denied.Code != "access.denied" {
			return err
		}
		if len(denied.Policies) > 0 {
			return problem.New(problem.Denied, "ingress.publish_not_granted",
				"the function %s may not publish %s: a policy forbids it", em.Function.Name, em.Events[i].Type).
				WithHint("%s", denied.Hint).WithPolicies(denied.Policies...)
		}
		return problem.New(problem.Denied, "ingress.publish_not_granted",
			"the function %s has no grant to publish %s", em.Function.Name, em.Events[i].Type).
			WithHint("add the type to a publish grant of the function in app.toml and apply")
	}
	return nil
}

// sourceOf returns the source of the events that a function emits.
func sourceOf(em Emission) string {
	return access.FunctionSource(em.Namespace, em.Function.Name)
}

// described returns what policies may know of an event.
func described(e *event.Event) *policy.Event {
	return &policy.Event{Type: string(e.Type), Source: e.Source, Subject: e.Subject, Size: int64(len(e.Data))}
}

// CauseOf returns who is behind what a function does because of an event: who sent the first event of the chain, and the
// functions since then.
func CauseOf(ns ident.Namespace, r *event.Record) *access.Cause {
	c := &access.Cause{Principal: r.Behind.Principal, Authority: r.Behind.Authority}
	if r.Behind.Functions == "" {
		c.Principal = r.Principal // of an event that a function emitted before this was kept, that function: nobody is known
		return c
	}
	for one := range strings.FieldsSeq(r.Behind.Functions) {
		name, _, _ := strings.Cut(one, "@")
		c.Functions = append(c.Functions, access.FunctionID(ns, ident.FunctionName(name)))
	}
	return c
}

// behindFunction returns who is behind what a revision of a function causes while it handles an event.
func behindFunction(cause *event.Record, function ident.FunctionName, revision int) event.Behind {
	b := cause.Behind
	if b.Principal == "" {
		b.Principal = cause.Principal
	}
	if b.Functions != "" {
		b.Functions += " "
	}
	b.Functions += fmt.Sprintf("%s@%d", function, revision)
	return b
}

// EmittedID returns the id of the i-th event that a function emitted in a delivery of the event at
// cause.
func EmittedID(ns ident.Namespace, fn ident.FunctionName, delivery ident.SubscriptionName, cause ident.Position, i int) string {
	h := sha256.New()
	for _, s := range []string{string(ns), string(fn), string(delivery)} {
		h.Write([]byte{byte(len(s))})
		h.Write([]byte(s))
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(cause))
	binary.BigEndian.PutUint64(b[8:], uint64(i))
	h.Write(b[:])
	return hex.EncodeToString(h.Sum(nil)[:16])
}
