// Package access knows who asks (tokens) and asks whether they may (the guard).
//
// A token is a random bearer credential: the server keeps its hash, its role, its namespace, the
// event types it is limited to and its expiry. All tokens are in memory, so a request costs one
// hash and no store, and a revoked token fails on the next request.
//
// The guard is the only caller of policy. Everything else gets it as an interface with the one
// method it needs. An error while deciding is a deny.
//
// Callers: httpapi (Authenticate, Authorize, tokens), ingress (Authorize), server (New, Bootstrap).
package access

import (
	"context"
	"crypto/sha256"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// Principal is who acts, authenticated. It is immutable. Only Authenticate and FunctionPrincipal make
// one that may do anything: the zero Principal is denied everything.
type Principal struct {
	ID         ident.PrincipalID
	Role       policy.Role
	Namespace  ident.Namespace // "": the whole server
	EventTypes []ident.EventType
	Expires    time.Time // zero for a function

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

// FunctionPrincipal returns the principal that a deployed function is, with the types its grants name.
func FunctionPrincipal(ns ident.Namespace, name ident.FunctionName, publishes []ident.EventType) *Principal {
	id := ident.PrincipalID("function:" + string(ns) + "/" + string(name))
	return newPrincipal(policy.Principal{Kind: policy.KindFunction, ID: id, Namespace: ns, EventTypes: publishes}, time.Time{})
}

// Guard authenticates and authorises. It is safe for concurrent use.
type Guard struct {
	*Tokens
	policies *policy.Set
	known    answers
}

// NewGuard returns a guard over tokens and policies.
func NewGuard(tokens *Tokens, policies *policy.Set) *Guard {
	return &Guard{Tokens: tokens, policies: policies}
}

// Authorize returns nil when p may do action on res, else a problem access.denied that names the
// determining policies. The answer does not depend on whether res exists. Policies and principals
// do not change, so decisions are remembered.
func (g *Guard) Authorize(_ context.Context, p *Principal, action policy.Action, res policy.Resource) error {
	if p == nil {
		return unauthenticated()
	}
	q := question{p.identity, action, res}
	if err, ok := g.known.get(&q); ok {
		return err
	}
	d := g.policies.Decide(policy.Request{Principal: p.policy, Action: action, Resource: res})
	var err error
	if !d.Allowed {
		err = denied(p, action, res, d)
	}
	if p.identity != [sha256.Size]byte{} {
		g.known.put(&q, err)
	}
	return err
}

// denied says what was denied in the caller's own words: it reveals nothing the caller did not send.
func denied(p *Principal, action policy.Action, res policy.Resource, d policy.Decision) error {
	what := string(action)
	if res.Kind == policy.KindEventType || res.Kind == policy.KindFunction {
		what += " " + res.Name
	}
	out := problem.New(problem.Denied, "access.denied", "%s may not %s in namespace %q", p.ID, what, res.Namespace)
	if res.Kind == policy.KindServer {
		out = problem.New(problem.Denied, "access.denied", "%s may not %s on this server", p.ID, what)
	}
	if len(d.Policies) == 0 {
		return out.WithHint("no policy permits it; ask your operator for a token with another role (`sallyport token create`)")
	}
	return out.WithPolicies(d.Policies...).
		WithHint("ask your operator for a token that reaches this (`sallyport token create`)")
}
