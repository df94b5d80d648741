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

// needsOf returns what a grant of a function lets it do, the use of secrets included.
func needsOf(ns ident.Namespace, fn ident.FunctionName, name string, g manifest.Grant) []need {
	needs := []need{{policy.UseGrant, OfGrant(ns, fn, name, g), nil}}
	switch g.Kind() {
	case manifest.KindPublish:
		needs = make([]need, len(g.Publish))
		for i, t := range g.Publish {
			needs[i] = need{
				policy.Publish, policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: string(t)},
				&policy.Event{Type: string(t), Source: FunctionSource(ns, fn)},
			}
		}
	case manifest.KindInvoke:
		needs = append(needs, need{policy.Invoke, policy.Resource{Kind: policy.KindFunction, Namespace: ns, Name: string(g.Invoke.Function)}, nil})
	}
	uses, reveals := manifest.Secrets(map[string]manifest.Grant{name: g})
	secrets := func(action policy.Action, refs []ident.SecretRef) {
		for _, ref := range refs {
			needs = append(needs, need{action, policy.Resource{Kind: policy.KindSecret, Namespace: ns, Name: ref.Secret()}, nil})
		}
	}
	secrets(policy.UseSecret, uses)
	secrets(policy.RevealSecret, reveals)
	return needs
}

// OfGrant returns the resource that a grant of a function is.
func OfGrant(ns ident.Namespace, fn ident.FunctionName, name string, g manifest.Grant) policy.Resource {
	return policy.OfGrant(ns, fn, name, g.Kind(), g.Targets())
}

// FunctionOf returns the principal that a revision of a function is, with everything that its grants name.
func FunctionOf(ns ident.Namespace, name ident.FunctionName, revision int, grants map[string]manifest.Grant) *Principal {
	var publishes []ident.EventType
	var uses []string
	var invokes []ident.FunctionName
	for _, g := range slices.Sorted(maps.Keys(grants)) {
		switch one := grants[g]; one.Kind() {
		case manifest.KindPublish:
			publishes = append(publishes, one.Publish...)
			continue
		case manifest.KindInvoke:
			invokes = append(invokes, one.Invoke.Function)
		}
		uses = append(uses, g)
	}
	slices.Sort(publishes)
	slices.Sort(invokes)
	applied, revealed := manifest.Secrets(grants)
	return FunctionPrincipal(ns, name, revision, slices.Compact(publishes)).With(uses, slices.Compact(invokes)).
		WithSecrets(secretNames(applied), secretNames(revealed))
}

// secretNames returns the secrets of references, each once, as policies name them.
func secretNames(refs []ident.SecretRef) []string {
	var out []string
	for _, r := range refs {
		out = append(out, r.Secret())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Barred is something that a grant of a function is for, and a perimeter denies or in dry-run would.
type Barred struct {
	Grant  string
	Action policy.Action
	policy.PerimeterVerdict
}

// BarredGrants returns what perimeters of a set are in the way of, of the grants of a function: it may have them, and could not use them.
func BarredGrants(set *policy.Set, ns ident.Namespace, fn ident.FunctionName, revision int, grants map[string]manifest.Grant) []Barred {
	var out []Barred
	p := FunctionOf(ns, fn, revision, grants)
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		for _, n := range needsOf(ns, fn, name, grants[name]) {
			q := policy.Request{Principal: p.policy, Action: n.action, Resource: n.resource, Context: contextOf(context.Background())}
			q.Context.Event = n.event
			for _, v := range set.ExplainPerimeters(q) {
				if v.Denied {
					out = append(out, Barred{name, n.action, v})
				}
			}
		}
	}
	return out
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
			detail += g.lacking(p, n, denied.Policies)
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

// lacking says which bridges would open what perimeters among the policies deny.
func (g *Guard) lacking(p *Principal, n need, policies []string) (out string) {
	q := policy.Request{Principal: p.policy, Action: n.action, Resource: n.resource, Context: contextOf(context.Background())}
	q.Context.Event = n.event
	for _, v := range g.Set().ExplainPerimeters(q) {
		if v.Needed != nil && slices.Contains(policies, v.ID) {
			out += fmt.Sprintf("; a bridge of %s would be %s", v.ID, v.Needed)
		}
	}
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
