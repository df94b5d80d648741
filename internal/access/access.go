// Package access knows who asks (the identifier) and asks whether they may (the guard).
//
// A token is a random bearer credential: the server keeps its hash, its role, its namespace, the
// event types it is limited to and its expiry. All tokens are in memory, so a request costs one
// hash and no store, and a revoked token fails on the next request.
//
// Beside its own tokens, the server accepts those of the issuers that its configuration names (package oidc). What
// such a principal gets is said by a mapping of its claims; without one it gets nothing.
//
// The guard is the only caller of policy. Everything else gets it as an interface with the one
// method it needs. An error while deciding is a deny.
//
// Callers: httpapi (Identify, Authorize, tokens), ingress (Authorize), server (New, Bootstrap).
package access

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// Principal is who acts, authenticated. It is immutable. Only Identify, Authenticate, FunctionPrincipal and ServerPrincipal make
// one that may do anything: the zero Principal is denied everything.
type Principal struct {
	ID         ident.PrincipalID
	Role       policy.Role
	Namespace  ident.Namespace // "": the whole server
	EventTypes []ident.EventType
	Expires    time.Time // zero for a function
	// Claims are what an issuer says of it; nil for tokens of the server's own and for functions.
	Claims *Claims

	// base and caveats are of a narrowed token: the id of the token it was made of, and what narrows it.
	base    string
	caveats []narrow.Caveats
	// authority names what is kept of it (Callers), "" when its id says all.
	authority string

	// bound is what the caller must prove to have, of an issuer's token.
	bound binding

	policy policy.Principal
	// identity is a digest of policy: what it may do follows from it.
	identity [sha256.Size]byte
}

func newPrincipal(p policy.Principal, expires time.Time) *Principal {
	// A function's principal is made for each of its events, whose decisions are mostly known; the others stay.
	if p.Kind != policy.KindFunction {
		p = p.Prepare()
	}
	return &Principal{
		ID: p.ID, Role: p.Role, Namespace: p.Namespace, EventTypes: p.EventTypes, Expires: expires,
		policy: p, identity: p.Digest(),
	}
}

// FunctionPrincipal returns the principal that a revision of a function is, with the types its grants name.
func FunctionPrincipal(ns ident.Namespace, name ident.FunctionName, revision int, publishes []ident.EventType) *Principal {
	p := policy.Principal{Kind: policy.KindFunction, ID: FunctionID(ns, name), Namespace: ns, EventTypes: publishes}
	if revision > 0 {
		p.Revision = strconv.Itoa(revision)
	}
	return newPrincipal(p, time.Time{})
}

// With returns the principal with grants that it uses while it runs, by their names, and the functions that they let it call.
func (p *Principal) With(grants []string, invokes []ident.FunctionName) *Principal {
	as := p.policy
	as.Grants, as.Invokes = grants, invokes
	return newPrincipal(as, p.Expires)
}

// Uses reports whether these are the grants that the principal uses while it runs, and the types that it publishes.
func (p *Principal) Uses(grants []string, publishes []ident.EventType) bool {
	return slices.Equal(p.policy.Grants, grants) && slices.Equal(p.policy.EventTypes, publishes)
}

// FunctionID returns the id of a function as a principal.
func FunctionID(ns ident.Namespace, name ident.FunctionName) ident.PrincipalID {
	return ident.PrincipalID("function:" + string(ns) + "/" + string(name))
}

// WithSecrets returns the function with the secrets that its grants use, and those of them whose value it reads.
func (p *Principal) WithSecrets(uses, reveals []string) *Principal {
	if len(uses)+len(reveals) == 0 {
		return p
	}
	with := p.policy
	with.Secrets, with.Reveals = uses, reveals
	return newPrincipal(with, p.Expires)
}

// Guard authenticates and authorises. It is safe for concurrent use.
type Guard struct {
	*Tokens
	current atomic.Pointer[policies]
	known   answers
	record  *Decisions // nil: nothing is recorded
	callers *Callers   // nil: nothing is kept
	// ownIssuer returns the URL of this server as an issuer; nil is none.
	ownIssuer func() string
}

// policies is a set of policies, and the number of sets there were before it.
type policies struct {
	*policy.Set
	number uint64
}

// NewGuard returns a guard over tokens and policies.
func NewGuard(tokens *Tokens, set *policy.Set) *Guard {
	g := &Guard{Tokens: tokens}
	g.current.Store(&policies{Set: set})
	return g
}

// Use has the guard decide by other policies from now on, in requests that are under way too.
func (g *Guard) Use(set *policy.Set) {
	for {
		now := g.current.Load()
		if g.current.CompareAndSwap(now, &policies{Set: set, number: now.number + 1}) {
			return
		}
	}
}

// Set returns the policies that the guard decides by.
func (g *Guard) Set() *policy.Set { return g.current.Load().Set }

// Policy returns the principal as policies see it.
func (p *Principal) Policy() policy.Principal { return p.policy }

// Circumstances are what policies may know of a request that came by a network.
type Circumstances struct {
	IP netip.Addr
	// MutualTLS says that the client showed a certificate that was accepted.
	MutualTLS bool
}

type principalKey struct{}

// WithPrincipal returns a context for what is done on behalf of p.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalOf returns on whose behalf something is done, nil when nobody is known: that is denied everything.
func PrincipalOf(ctx context.Context) *Principal {
	p, _ := ctx.Value(principalKey{}).(*Principal)
	return p
}

// ServerPrincipal returns the principal that the server itself is in a namespace, where it sends events and invokes functions for
// what it does by itself.
func ServerPrincipal(ns ident.Namespace, what string) *Principal {
	return newPrincipal(policy.Principal{Kind: policy.KindService, ID: ident.PrincipalID("service:sallyport/" + what), Role: policy.Publisher, Namespace: ns}, time.Time{})
}

type circumstancesKey struct{}

// WithCircumstances returns a context for what is done because of a request. Without it, nothing of what is decided came
// by a network.
func WithCircumstances(ctx context.Context, c Circumstances) context.Context {
	return context.WithValue(ctx, circumstancesKey{}, c)
}

// contextOf returns the circumstances as policies see them.
func contextOf(ctx context.Context) policy.Context {
	c := policy.Context{Now: time.Now(), Transport: policy.TransportInternal}
	if of, ok := ctx.Value(circumstancesKey{}).(Circumstances); ok {
		c.IP, c.Transport = of.IP, policy.TransportTLS // there is no listener without
		if of.MutualTLS {
			c.Transport = policy.TransportMutualTLS
		}
	}
	return c
}

// Authorize returns nil when p may do action on res, else a problem access.denied that names the
// determining policies. The answer does not depend on whether res exists. Decisions are remembered, with
// whatever part of the circumstances the policies about such a question read.
func (g *Guard) Authorize(ctx context.Context, p *Principal, action policy.Action, res policy.Resource) error {
	return g.decide(ctx, p, action, res, details{}, nil)
}

// AuthorizeCaused is Authorize for what a function does because of an event: unless a policy lets it act on its own authority
// (as it does for its grants), it may do what who sent the first event of the chain may do as well. The problem of a
// deny for that reason is access.denied_for_caller.
func (g *Guard) AuthorizeCaused(ctx context.Context, p *Principal, action policy.Action, res policy.Resource, cause *Cause) error {
	return g.decide(ctx, p, action, res, details{}, cause)
}

// AuthorizeUse is AuthorizeCaused for the use of a grant; op is what is to be done with it.
func (g *Guard) AuthorizeUse(ctx context.Context, p *Principal, res policy.Resource, op string, cause *Cause) error {
	return g.decide(ctx, p, policy.UseGrant, res, details{op: op}, cause)
}

// details are what is to be decided about beside a resource.
type details struct {
	event *policy.Event
	op    string
}

// Still is Authorize for what p was allowed and goes on doing: that it may still is not recorded again.
func (g *Guard) Still(ctx context.Context, p *Principal, action policy.Action, res policy.Resource) error {
	q := policy.Request{Principal: p.policy, Action: action, Resource: res, Context: contextOf(ctx)}
	if p.withinCaveats(action, res) == nil && g.Set().Decide(q).Allowed {
		return nil
	}
	return g.Authorize(ctx, p, action, res)
}

// AuthorizeEvent is Authorize for the publishing of an event; cause is who is behind it when a function publishes it.
func (g *Guard) AuthorizeEvent(ctx context.Context, p *Principal, ns ident.Namespace, e *policy.Event, cause *Cause) error {
	return g.decide(ctx, p, policy.Publish, policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: e.Type}, details{event: e}, cause)
}

// Cross returns nil when no perimeter is in the way of what p was permitted to do in a namespace, for one event type or
// function of it; else a problem access.denied that names the perimeters.
func (g *Guard) Cross(ctx context.Context, p *Principal, action policy.Action, res policy.Resource) error {
	q := policy.Request{Principal: p.policy, Action: action, Resource: res, Context: contextOf(ctx)}
	d := g.Set().Cross(q)
	g.record.crossed(&q, d)
	if !d.Allowed {
		return g.denied(p, action, res, d)
	}
	return nil
}

// CanDeliver returns nil when no perimeter is between an event type and a function of a namespace.
func (g *Guard) CanDeliver(ns ident.Namespace, t ident.EventType, f ident.FunctionName) error {
	d := g.Set().CanDeliver(ns, t, f)
	if len(d.Policies)+len(d.Bridges)+len(d.DryRun) > 0 {
		q := policy.DeliveryRequest(ns, t, f)
		g.record.crossed(&q, d)
	}
	if d.Allowed {
		return nil
	}
	return problem.New(problem.Denied, "access.delivery_denied", "events of the type %s are not delivered to the function %s: a perimeter is between them", t, f).
		WithPolicies(d.Policies...).WithHint("add a bridge with the action deliver to the perimeter, apply, and redrive the dead letter")
}

// SameForType reports whether all events of a type are decided alike, as far as p is the same.
func (g *Guard) SameForType(ns ident.Namespace, t ident.EventType) bool {
	return g.Set().Reads(policy.Publish, policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: string(t)})&policy.PartEvent == 0
}

func (g *Guard) decide(ctx context.Context, p *Principal, action policy.Action, res policy.Resource, of details, cause *Cause) error {
	if p == nil {
		return unauthenticated()
	}
	if err := p.withinCaveats(action, res); err != nil {
		return err
	}
	set := g.current.Load()
	c := contextOf(ctx)
	c.Event, c.Op = of.event, of.op
	reads := set.Reads(action, res)
	if cause != nil && reads&policy.PartCause != 0 {
		var err error
		if c.Cause, err = g.causeFor(ctx, cause, action, res); err != nil {
			return err
		}
	}
	a := g.ask(set, p, action, res, &c, reads)
	switch {
	case a.err != nil && cause != nil:
		return g.deniedCaused(p, action, res, a.decision, cause)
	case a.err != nil || a.alone || cause == nil:
		return a.err
	}
	// The function is permitted it for whoever is behind it: that half is asked, and remembered, as the caller's own.
	caller, err := g.behind(ctx, cause)
	switch {
	case err != nil:
		return err
	case caller == nil:
		return deniedForCaller(p, action, res, nil, cause)
	}
	if err := caller.withinCaveats(action, res); err != nil {
		return deniedForCaller(p, action, res, problem.From(err).Policies, cause)
	}
	// It is asked as it was when the first event came: by which address and how, and at what time.
	_, sent, known := parseAuthority(cause.Authority)
	c.Cause, c.IP, c.Now, c.Transport = nil, sent.IP, sent.Now, sent.Transport
	half := g.ask(set, caller, action, res, &c, reads)
	if half.err == nil {
		return nil
	}
	denied := deniedForCaller(p, action, res, half.decision.Policies, cause)
	asks := reads&(policy.PartIP|policy.PartNow) != 0
	if !known && (asks || len(half.decision.Errors) > 0) {
		denied.Public += "; how its event came was not kept, and policies ask for it"
	}
	if asks {
		denied.Hint += " (and with --address, --mtls and --at as that event came)"
	}
	return denied
}

// ask returns what policies say to a question, without who is behind it: from memory when they were asked before.
func (g *Guard) ask(set *policies, p *Principal, action policy.Action, res policy.Resource, c *policy.Context, reads policy.ContextPart) *answer {
	q := question{principal: p.identity, policies: set.number, action: action, resource: res}
	var cached bool
	if q.context, cached = c.Key(reads); cached {
		if known := g.known.get(&q); known != nil {
			known.asked.Add(1)
			return known
		}
	}
	a := &answer{as: p.policy}
	a.decision, a.alone = set.DecideAlone(policy.Request{Principal: p.policy, Action: action, Resource: res, Context: *c})
	if !a.decision.Allowed {
		a.err = g.denied(p, action, res, a.decision)
	}
	a.asked.Add(1)
	switch {
	case p.identity == [sha256.Size]byte{}: // nobody that was authenticated
	case cached:
		g.known.put(&q, a)
	case g.record != nil:
		g.record.add(map[question]*answer{q: a})
	}
	return a
}

// deniedForCaller says that a function was denied something because who is behind it may not do it.
func deniedForCaller(p *Principal, action policy.Action, res policy.Resource, policies []string, cause *Cause) *problem.Error {
	who := string(cause.Principal)
	if who == "" {
		who = "a caller that is not known any more"
	}
	return problem.New(problem.Denied, "access.denied_for_caller", "%s may %s %s only for who may do it as well, and %s may not", p.ID, action, res, who).
		WithPolicies(policies...).WithHint("to see why: %s", explainCaused(p, action, res, cause))
}

// deniedCaused is denied for what a function does because of an event.
func (g *Guard) deniedCaused(p *Principal, action policy.Action, res policy.Resource, d policy.Decision, cause *Cause) error {
	return problem.From(g.denied(p, action, res, d)).WithHint("to see why: %s", explainCaused(p, action, res, cause))
}

// explainCaused is the command that decides it again.
func explainCaused(p *Principal, action policy.Action, res policy.Resource, cause *Cause) string {
	return fmt.Sprintf("sallyport policy explain --principal %s --action %s --resource %s%s", p.ID, action, res, cause.explain())
}

// denied says what was denied in the caller's own words: it reveals nothing the caller did not send. Whoever does not belong
// to a namespace learns of no policy that is only about it: the answer for one that exists is that for one that does not.
func (g *Guard) denied(p *Principal, action policy.Action, res policy.Resource, d policy.Decision) error {
	what := string(action)
	if res.Kind == policy.KindEventType || res.Kind == policy.KindFunction || res.Kind == policy.KindSecret {
		what += " " + res.Name
	}
	out := problem.New(problem.Denied, "access.denied", "%s may not %s in namespace %q", p.ID, what, res.Namespace)
	if res.Kind == policy.KindServer {
		out = problem.New(problem.Denied, "access.denied", "%s may not %s on this server", p.ID, what)
	}
	if set := g.Set(); !set.Belongs(&p.policy, res.Namespace) {
		d.Policies = slices.DeleteFunc(slices.Clone(d.Policies), func(id string) bool { return !set.BuiltIn(id) })
	}
	if len(d.Policies) == 0 {
		return out.WithHint("no policy permits it; to see why: sallyport policy explain --principal %s --action %s --resource %s", p.ID, action, res)
	}
	return out.WithPolicies(d.Policies...).
		WithHint("to see why: sallyport policy explain --principal %s --action %s --resource %s", p.ID, action, res)
}
