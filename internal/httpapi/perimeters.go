package httpapi

import (
	"cmp"
	"maps"
	"net/http"
	"slices"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// listPerimeters answers with the perimeters of a namespace, or with those of the server, which name what is in other
// namespaces.
func (a *API) listPerimeters(c *call) error {
	out := api.PerimeterList{Perimeters: []api.Perimeter{}}
	for _, p := range a.deps.Guard.Set().Perimeters() {
		if p.Namespace == c.ns {
			out.Perimeters = append(out.Perimeters, describePerimeter(&p))
		}
	}
	return answer(c, http.StatusOK, &out)
}

func (a *API) getPerimeter(c *call) error {
	p, err := a.perimeter(c)
	if err != nil {
		return err
	}
	out := describePerimeter(&p)
	return answer(c, http.StatusOK, &out)
}

// perimeter returns the one that the path names.
func (a *API) perimeter(c *call) (policy.PerimeterInfo, error) {
	name := c.r.PathValue("name")
	p, ok := a.deps.Guard.Set().Perimeter(c.ns, name)
	if !ok {
		return p, problem.New(problem.NotFound, "policy.perimeter_not_found", "there is no perimeter %q", clip(name)).
			WithHint("list them with `sallyport perimeter list`, those of the server with --on-server")
	}
	return p, nil
}

func describePerimeter(p *policy.PerimeterInfo) api.Perimeter {
	out := api.Perimeter{
		ID: p.ID, Name: p.Name, Namespace: string(p.Namespace), Description: p.Description, Mode: p.Mode.String(), EventTypes: orEmpty(p.EventTypes),
		Functions: orEmpty(p.Functions), Levels: []api.Level{}, Bridges: []api.Bridge{}, File: p.File, Line: p.Line,
	}
	for _, l := range p.Levels {
		out.Levels = append(out.Levels, api.Level{Name: l.Name, IP: l.IP, MTLS: l.MutualTLS, Hours: l.Hours, Strength: l.Strength, Methods: l.Methods})
	}
	for i := range p.Bridges {
		out.Bridges = append(out.Bridges, *describeBridge(&p.Bridges[i]))
	}
	return out
}

func describeBridge(b *policy.Bridge) *api.Bridge {
	if b == nil {
		return nil
	}
	out := &api.Bridge{Name: b.Name, From: b.From, To: b.To, When: b.When}
	for _, action := range b.Actions {
		out.Actions = append(out.Actions, string(action))
	}
	return out
}

// describeVerdicts says what perimeters make of a question.
func describeVerdicts(list []policy.PerimeterVerdict) []api.PerimeterVerdict {
	var out []api.PerimeterVerdict
	for i := range list {
		v := &list[i]
		one := api.PerimeterVerdict{
			ID: v.ID, Mode: v.Mode.String(), Direction: "out", Denied: v.Denied, Bridge: v.Bridge, Needed: describeBridge(v.Needed),
		}
		if v.Inward {
			one.Direction = "in"
		}
		for _, b := range v.Bridges {
			way := api.BridgeVerdict{ID: b.ID, From: b.From, Action: b.Action}
			if b.Condition != nil {
				way.Condition = &api.PolicyCondition{Text: b.Condition.Text, Holds: b.Condition.Holds, Error: b.Condition.Error}
			}
			one.Bridges = append(one.Bridges, way)
		}
		for _, l := range v.Levels {
			one.Levels = append(one.Levels, api.LevelVerdict{Name: l.Name, Holds: l.Holds, Lacks: l.Lacks})
		}
		out = append(out, one)
	}
	return out
}

// testPerimeter answers with what a perimeter denies, or in dry-run would: of what was asked in a period, and of what the
// apps declare now.
func (a *API) testPerimeter(c *call) error {
	since, until, err := c.query.period()
	if err != nil {
		return err
	}
	limit, err := c.query.limit()
	if err != nil {
		return err
	}
	p, err := a.perimeter(c)
	if err != nil {
		return err
	}
	found := a.decided(c, access.DecisionQuery{Since: since, Until: until, Perimeter: p.ID})
	out := api.PerimeterTest{
		ID: p.ID, Mode: p.Mode.String(), Since: since.UTC(), Until: until.UTC(), Asked: []api.Decision{}, More: len(found) > limit, Declared: []api.Crossing{},
	}
	for i := range found[:min(len(found), limit)] {
		out.Asked = append(out.Asked, describeDecision(&found[i]))
	}
	for _, ns := range a.namespaces(c) {
		out.Declared = append(out.Declared, a.declared(ns, p.ID)...)
	}
	return answer(c, http.StatusOK, &out)
}

// declared returns the subscriptions and publish grants of a namespace that a perimeter is in the way of.
func (a *API) declared(ns ident.Namespace, perimeter string) []api.Crossing {
	set, state := a.deps.Guard.Set(), a.deps.Deployer.State(ns)
	var out []api.Crossing
	note := func(one api.Crossing, verdicts []policy.PerimeterVerdict) {
		for i := range verdicts {
			if v := &verdicts[i]; v.ID == perimeter && v.Denied {
				one.Needed = describeBridge(v.Needed)
				out = append(out, one)
			}
		}
	}
	types := typesOf(state)
	for _, name := range slices.Sorted(maps.Keys(state.Subscriptions)) {
		sub := state.Subscriptions[name]
		for _, t := range types {
			if sub.Filter.Type.Match(string(t)) {
				q := policy.DeliveryRequest(ns, t, sub.Function.Name)
				note(api.Crossing{From: string(q.Principal.ID), Action: string(q.Action), Resource: q.Resource.String(), By: "subscription " + string(name)},
					set.ExplainDelivery(ns, t, sub.Function.Name))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(state.Functions)) {
		p := actingFunction(ns, state.Functions[name])
		for _, t := range state.Functions[name].Publishes {
			q := policy.Request{
				Principal: p, Action: policy.Publish, Resource: policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: string(t)},
				Context: policy.Context{Transport: policy.TransportInternal, Event: &policy.Event{Type: string(t)}},
			}
			note(api.Crossing{From: string(p.ID), Action: string(q.Action), Resource: q.Resource.String(), By: "grant of function " + string(name)}, set.ExplainPerimeters(q))
		}
	}
	return out
}

// typesOf returns the event types that the apps of a namespace name: those they describe, publish, or subscribe to by an
// exact name.
func typesOf(state *deploy.State) []ident.EventType {
	known := map[ident.EventType]bool{}
	for t := range state.EventTypes {
		known[t] = true
	}
	for _, f := range state.Functions {
		for _, t := range f.Publishes {
			known[t] = true
		}
	}
	for _, s := range state.Subscriptions {
		if t, err := ident.ParseEventType(s.Filter.Type.String()); err == nil {
			known[t] = true
		}
	}
	return slices.SortedFunc(maps.Keys(known), func(a, b ident.EventType) int { return cmp.Compare(a, b) })
}

// namespaces returns those that a call is about: its own, or of a whole server all.
func (a *API) namespaces(c *call) []ident.Namespace {
	if c.ns != "" {
		return []ident.Namespace{c.ns}
	}
	return a.deps.Namespaces.Names()
}

// decided returns what was decided about what a call is about: of a whole server, about it and every namespace. What was
// asked last comes first.
func (a *API) decided(c *call, q access.DecisionQuery) []access.Decided {
	if q.Namespace = c.ns; c.ns != "" {
		return a.deps.Decisions.List(q)
	}
	all := a.deps.Decisions.List(q)
	for _, ns := range a.namespaces(c) {
		q.Namespace = ns
		all = append(all, a.deps.Decisions.List(q)...)
	}
	slices.SortStableFunc(all, func(x, y access.Decided) int { return y.Last.Compare(x.Last) })
	return all
}

// crossing remembers, for one answer, which of the functions or event types that it is about perimeters keep from the caller.
type crossing struct {
	a      *API
	c      *call
	action policy.Action
	kind   policy.Kind
	set    *policy.Set
	known  map[string]bool
}

// crossings returns what is asked for each item of an answer.
func (a *API) crossings(c *call, action policy.Action, kind policy.Kind) *crossing {
	return &crossing{a: a, c: c, action: action, kind: kind}
}

// may reports whether no perimeter keeps what has the name from the caller. A new set of policies is asked anew.
func (x *crossing) may(name string) bool {
	if set := x.a.deps.Guard.Set(); set != x.set || len(x.known) > maxListLimit {
		x.set, x.known = set, map[string]bool{}
	}
	may, ok := x.known[name]
	if !ok {
		may = x.a.deps.Guard.Cross(x.c.r.Context(), x.c.p, x.action, policy.Resource{Kind: x.kind, Namespace: x.c.ns, Name: name}) == nil
		x.known[name] = may
	}
	return may
}
