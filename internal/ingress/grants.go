package ingress

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"sallyport/internal/access"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// InvokedType is the type of the events that calls of functions by functions are.
const InvokedType ident.EventType = "sallyport.invocation"

// MayUse implements grant.Gate: the revision of the function is the principal, and who is behind its event the cause.
func (in *Intake) MayUse(ctx context.Context, q *grant.Question) error {
	c := q.Caller
	p := in.users.principalOf(q)
	var cause *access.Cause
	if c.Event != nil {
		cause = CauseOf(c.Namespace, c.Event)
	}
	return in.cfg.Guard.AuthorizeUse(ctx, p, policy.OfGrant(c.Namespace, c.Function, c.Grant, q.Kind, q.Targets), q.Op, cause)
}

// users are the principals that revisions with grants are: one is asked about with each use, and a digest of all that it may is part of it.
type users struct {
	mu    sync.Mutex
	known map[user]*access.Principal
}

// user is whose principal is known; what its grants are is compared besides.
type user struct {
	ns       ident.Namespace
	function ident.FunctionName
	revision int
	invokes  ident.FunctionName
}

// maxUsers bounds the principals that are kept; then all are forgotten.
const maxUsers = 4096

func (u *users) principalOf(q *grant.Question) *access.Principal {
	key := user{q.Caller.Namespace, q.Caller.Function, q.Caller.Revision, q.Invokes}
	u.mu.Lock()
	p := u.known[key]
	u.mu.Unlock()
	if p != nil && p.Uses(q.Grants, q.Publishes) {
		return p
	}
	p = principalOf(q)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known == nil || len(u.known) >= maxUsers {
		u.known = map[user]*access.Principal{}
	}
	u.known[key] = p
	return p
}

func principalOf(q *grant.Question) *access.Principal {
	var invokes []ident.FunctionName
	if q.Invokes != "" {
		invokes = []ident.FunctionName{q.Invokes}
	}
	c := q.Caller
	return access.FunctionPrincipal(c.Namespace, c.Function, c.Revision, q.Publishes).With(q.Grants, invokes)
}

// MayCall returns why a function may not call a function now.
func (in *Intake) MayCall(ctx context.Context, c *grant.Caller, function ident.FunctionName) error {
	_, err := in.authorizeCall(ctx, c, function)
	return err
}

func (in *Intake) authorizeCall(ctx context.Context, c *grant.Caller, function ident.FunctionName) (*access.Principal, error) {
	if c.Event.Hops >= MaxHops {
		return nil, problem.New(problem.Unprocessable, "ingress.too_many_hops",
			"the call is the %dth in a chain of events that functions caused; at most %d are allowed", c.Event.Hops, MaxHops).
			WithHint("look for functions that call each other: `sallyport event get` shows causes")
	}
	if _, err := in.cfg.State(c.Namespace).Function(function); err != nil {
		return nil, err
	}
	p := principalOf(&grant.Question{Caller: c, Invokes: function, Grants: []string{c.Grant}})
	res := policy.Resource{Kind: policy.KindFunction, Namespace: c.Namespace, Name: string(function)}
	return p, in.cfg.Guard.AuthorizeCaused(ctx, p, policy.Invoke, res, CauseOf(c.Namespace, c.Event))
}

// Call stores the event that the call of a function by a function is, and returns where it stands.
func (in *Intake) Call(ctx context.Context, c *grant.Caller, function ident.FunctionName, data []byte) (ident.Position, error) {
	p, err := in.authorizeCall(ctx, c, function)
	if err != nil {
		return 0, err
	}
	log, err := in.cfg.Log(c.Namespace)
	if err != nil {
		return 0, err
	}
	now := time.Now().UTC()
	e := event.Event{Type: InvokedType, ID: newID(), Source: access.FunctionSource(c.Namespace, c.Function), Time: now}
	if len(data) > 0 {
		e.Data, e.DataKind, e.DataContentType = data, event.DataJSON, "application/json"
	}
	if trace, ok := c.Event.Extension("traceparent"); ok {
		e.SetExtension("traceparent", trace)
	}
	rec := event.Record{
		Event: e, AcceptedAt: now, Principal: p.ID, Target: function, Cause: c.Event.Position, CauseID: c.Event.ID, Hops: c.Event.Hops + 1,
		Behind: behindFunction(c.Event, c.Function, c.Revision),
	}
	if in.cfg.Quotas != nil {
		in.cfg.Quotas.Emitted(c.Namespace, 1, sizeOf([]event.Event{e}))
	}
	var appended []eventlog.Appended
	if appended, err = log.Append(ctx, []event.Record{rec}); err != nil {
		return 0, err
	}
	return appended[0].Position, nil
}

// newID returns an id that no other event has.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
