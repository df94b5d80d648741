package access

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// need is what somebody must be permitted to hand a function a grant.
type need struct {
	action   policy.Action
	resource policy.Resource
	event    *policy.Event
}

// needsOf returns what a grant of a function lets it do. To use a grant somebody needs no more than the permission, for there is no
// other way to what most kinds reach.
func needsOf(ns ident.Namespace, fn ident.FunctionName, name string, g manifest.Grant) []need {
	use := need{policy.UseGrant, policy.OfGrant(ns, fn, name, g.Kind()), nil}
	switch g.Kind() {
	case manifest.KindPublish:
		needs := make([]need, len(g.Publish))
		for i, t := range g.Publish {
			needs[i] = need{
				policy.Publish, policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: string(t)},
				&policy.Event{Type: string(t), Source: FunctionSource(ns, fn)},
			}
		}
		return needs
	case manifest.KindInvoke:
		return []need{use, {policy.Invoke, policy.Resource{Kind: policy.KindFunction, Namespace: ns, Name: string(g.Invoke.Function)}, nil}}
	}
	return []need{use}
}

// FunctionSource returns the source of the events that a function emits.
func FunctionSource(ns ident.Namespace, fn ident.FunctionName) string {
	return "/namespaces/" + string(ns) + "/functions/" + string(fn)
}

// MayGrant returns nil when p may do everything itself that grants let a function of a namespace do: nobody hands a function
// more than they have. Of a publish grant it asks as for an event from the function without subject and data, because no
// other is known yet. The problem, access.grant_exceeds_deployer, names every grant that goes too far.
func (g *Guard) MayGrant(ctx context.Context, p *Principal, ns ident.Namespace, fn ident.FunctionName, grants map[string]manifest.Grant) error {
	out := problem.New(problem.Denied, "access.grant_exceeds_deployer",
		"%s may not give the function %s what it may not do itself", p.ID, fn)
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		for _, n := range needsOf(ns, fn, name, grants[name]) {
			err := g.mayGrant(ctx, p, n, ns, fn)
			if err == nil {
				continue
			}
			denied := problem.From(err)
			detail := fmt.Sprintf("grant %s: %s %s", name, n.action, n.resource)
			if len(denied.Policies) == 0 {
				detail += ", which no policy permits"
			}
			out = out.WithFaults(problem.Fault{Detail: detail}).WithPolicies(denied.Policies...)
			out.Hint = cmp.Or(out.Hint, denied.Hint)
		}
	}
	if len(out.Faults) == 0 {
		return nil
	}
	slices.Sort(out.Policies)
	out.Policies = slices.Compact(out.Policies)
	return out
}

// mayGrant asks for one need. It is not recorded: nobody has done anything yet.
func (g *Guard) mayGrant(ctx context.Context, p *Principal, n need, ns ident.Namespace, fn ident.FunctionName) error {
	if err := p.withinCaveats(n.action, n.resource); err != nil {
		return err
	}
	c := contextOf(ctx)
	c.Event = n.event
	d := g.Set().MayGrant(policy.Request{Principal: p.policy, Action: n.action, Resource: n.resource, Context: c}, ns, fn)
	if d.Allowed {
		return nil
	}
	return g.denied(p, n.action, n.resource, d)
}
