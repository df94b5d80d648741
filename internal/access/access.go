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
	"encoding/binary"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// Principal is who acts, authenticated. It is immutable. Only Identify, Authenticate and FunctionPrincipal make
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

	// bound is what the caller must prove to have, of an issuer's token.
	bound binding

	policy policy.Principal
	// identity is a digest of policy: what it may do follows from it.
	identity [sha256.Size]byte
}

func newPrincipal(p policy.Principal, expires time.Time) *Principal {
	return &Principal{
		ID: p.ID, Role: p.Role, Namespace: p.Namespace, EventTypes: p.EventTypes, Expires: expires,
		policy: p, identity: identify(p),
	}
}

// identify returns a digest of everything that decisions about p depend on.
func identify(p policy.Principal) [sha256.Size]byte {
	b := make([]byte, 0, 256)
	add := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	add(string(p.Kind))
	add(string(p.ID))
	add(string(p.Role))
	add(string(p.Namespace))
	for _, t := range p.EventTypes {
		add(string(t))
	}
	return sha256.Sum256(b)
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
	if err := p.withinCaveats(action, res); err != nil {
		return err
	}
	q := question{p.identity, action, res}
	if err, ok := g.known.get(&q); ok {
		return err
	}
	d := g.policies.Decide(p.policy, action, res)
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
