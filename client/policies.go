package client

import (
	"context"
	"net/url"

	"sallyport/api"
)

// Question is one about policies: may this principal do that to this? Address, At, Source, Subject and Size say under which
// circumstances, and may be left out.
type Question struct {
	Principal, Action, Resource        string
	Address, At, Source, Subject, Size string
	// CausedBy is who sent the first event of the chain because of which a function asks, and Through the functions
	// between the two, as "NAMESPACE/NAME,NAMESPACE/NAME".
	CausedBy, Through string
	MutualTLS         bool
	// Server asks about the server itself, not about what is in the namespace.
	Server bool
}

// about returns a path in the namespace, or of the server.
func (c *Client) about(server bool, parts ...string) string {
	if !server {
		return c.inNamespace(parts...)
	}
	path := "/v1"
	for _, p := range parts {
		path += "/" + segment(p)
	}
	return path
}

// Policies lists the policies that decide about what is in the namespace, or about the server.
func (c *Client) Policies(ctx context.Context, server bool) (*api.PolicyList, error) {
	return get[api.PolicyList](ctx, c, nil, c.about(server, "policies"))
}

// ApplyPolicies makes files all policies of an app, or of a name that the operator gives to policies of the server, and
// returns what that changes. With dry set it changes nothing.
func (c *Client) ApplyPolicies(ctx context.Context, server bool, app string, files map[string]string, dry bool) (*api.PolicyPlan, error) {
	q := url.Values{}
	if dry {
		q.Set("dry_run", "true")
	}
	return post[api.PolicyPlan](ctx, c, q, c.about(server, "policies", app), api.PolicyFiles{Files: files})
}

// ExplainDecision returns how a question is decided, and why.
func (c *Client) ExplainDecision(ctx context.Context, o Question) (*api.PolicyExplanation, error) {
	q := url.Values{}
	for name, value := range map[string]string{
		"principal": o.Principal, "action": o.Action, "resource": o.Resource, "address": o.Address, "at": o.At,
		"source": o.Source, "subject": o.Subject, "size": o.Size, "caused_by": o.CausedBy, "through": o.Through,
	} {
		set(q, name, value)
	}
	if o.MutualTLS {
		q.Set("mtls", "true")
	}
	return get[api.PolicyExplanation](ctx, c, q, c.about(o.Server, "access", "explain"))
}

// WhoCan returns who may do something to something.
func (c *Client) WhoCan(ctx context.Context, server bool, action, resource string) (*api.AccessList, error) {
	q := url.Values{"action": {action}, "resource": {resource}}
	return get[api.AccessList](ctx, c, q, c.about(server, "access", "who-can"))
}

// Reach returns what a principal may do.
func (c *Client) Reach(ctx context.Context, server bool, principal string) (*api.AccessList, error) {
	return get[api.AccessList](ctx, c, url.Values{"principal": {principal}}, c.about(server, "access", "reach"))
}

// Unused returns policies, grants and actions that nothing needed since a time; with a principal, those of that one.
func (c *Client) Unused(ctx context.Context, server bool, since, principal string) (*api.UnusedList, error) {
	q := url.Values{}
	set(q, "since", since)
	set(q, "principal", principal)
	return get[api.UnusedList](ctx, c, q, c.about(server, "access", "unused"))
}

// Wildcards lists the permits that leave something open.
func (c *Client) Wildcards(ctx context.Context, server bool) (*api.WildcardList, error) {
	return get[api.WildcardList](ctx, c, nil, c.about(server, "access", "wildcards"))
}

// Propose returns the policies of the namespace, or of the server, tightened to what was asked since a time.
func (c *Client) Propose(ctx context.Context, server bool, since string) (*api.PolicyProposal, error) {
	q := url.Values{}
	set(q, "since", since)
	return get[api.PolicyProposal](ctx, c, q, c.about(server, "access", "proposal"))
}

// Boundary returns forbids for the server that keep a principal within what it did since a time.
func (c *Client) Boundary(ctx context.Context, principal, since string) (*api.PolicyProposal, error) {
	q := url.Values{"principal": {principal}}
	set(q, "since", since)
	return get[api.PolicyProposal](ctx, c, q, c.about(true, "access", "boundary"))
}
