package httpapi

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
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
		Functions: orEmpty(p.Functions), Secrets: p.Secrets, Hosts: p.Hosts, Audiences: p.Audiences, KV: p.KV, SQLite: p.SQLite, Blob: p.Blob, Levels: []api.Level{}, Bridges: []api.Bridge{}, File: p.File, Line: p.Line,
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
			ID: v.ID, Mode: v.Mode.String(), Direction: "out", To: v.To, Denied: v.Denied, Bridge: v.Bridge, Needed: describeBridge(v.Needed),
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
		list, err := a.declared(a.deps.Guard.Set(), ns)
		if err != nil {
			return err
		}
		out.Declared = append(out.Declared, slices.DeleteFunc(list, func(one api.Crossing) bool { return one.Perimeter != p.ID })...)
	}
	return answer(c, http.StatusOK, &out)
}

// declared returns what the apps of a namespace are for, and perimeters of a set deny or in dry-run would: deliveries and the use of grants.
func (a *API) declared(set *policy.Set, ns ident.Namespace) ([]api.Crossing, error) {
	state := a.deps.Deployer.State(ns)
	types, err := typesAbout(set, ns, state)
	if err != nil {
		return nil, err
	}
	var out []api.Crossing
	for _, name := range slices.Sorted(maps.Keys(state.Subscriptions)) {
		sub := state.Subscriptions[name]
		out = append(out, barredDeliveries(set, ns, name, sub.Filter.Type.Match, sub.Function.Name, types)...)
	}
	for _, name := range slices.Sorted(maps.Keys(state.Functions)) {
		out = append(out, barredGrants(set, ns, name, state.Functions[name].Revision, state.Functions[name].Grants)...)
	}
	return out, nil
}

// barredDeliveries returns the deliveries of a subscription that perimeters deny, or in dry-run would.
func barredDeliveries(set *policy.Set, ns ident.Namespace, name ident.SubscriptionName, match func(string) bool, to ident.FunctionName, known []ident.EventType) (out []api.Crossing) {
	for _, t := range known {
		if !match(string(t)) {
			continue
		}
		for _, v := range set.ExplainDelivery(ns, t, to) {
			if v.Denied {
				out = append(out, describeCrossing(string(policy.DeliveryRequest(ns, t, to).Principal.ID), policy.Deliver, "subscription "+string(name), &v))
			}
		}
	}
	return out
}

// barredGrants returns what perimeters deny, or in dry-run would, of what the grants of a function are for.
func barredGrants(set *policy.Set, ns ident.Namespace, fn ident.FunctionName, revision int, grants map[string]manifest.Grant) (out []api.Crossing) {
	for _, b := range access.BarredGrants(set, ns, fn, revision, grants) {
		out = append(out, describeCrossing(string(access.FunctionID(ns, fn)), b.Action, "grant "+b.Grant+" of function "+string(fn), &b.PerimeterVerdict))
	}
	return out
}

func describeCrossing(from string, action policy.Action, by string, v *policy.PerimeterVerdict) api.Crossing {
	return api.Crossing{Perimeter: v.ID, Mode: v.Mode.String(), From: from, Action: string(action), Resource: v.To, By: by, Needed: describeBridge(v.Needed)}
}

// newCrossings returns what is declared and new or changed perimeters are in the way of.
func (a *API) newCrossings(c *call, change *access.PolicyChange) ([]api.Crossing, error) {
	ids := slices.Concat(change.Created, change.Updated)
	if !slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(id, "perimeter:") }) {
		return nil, nil
	}
	var out []api.Crossing
	for _, ns := range a.namespaces(c) {
		list, err := a.declared(change.New, ns)
		if err != nil {
			return nil, err
		}
		out = append(out, slices.DeleteFunc(list, func(one api.Crossing) bool { return !slices.Contains(ids, one.Perimeter) })...)
	}
	return out, nil
}

// maxPatterns bounds how many event types are made of patterns for one question.
const maxPatterns = 100_000

// typesAbout returns the event types that decisions in a namespace can differ by, as far as anybody has named them: those that apps name,
// those that policies and perimeters name, and for a beginning or an end of names, which may stand for types that nobody has named yet,
// that text with its "*". It is a type to ask about like any: what is permitted or inside by a beginning or an end, is so for it.
func typesAbout(set *policy.Set, ns ident.Namespace, state *deploy.State) ([]ident.EventType, error) {
	known := map[string]bool{}
	for _, t := range typesOf(state) {
		known[string(t)] = true
	}
	for _, t := range set.EventTypesNamed(ns) {
		known[t] = true
	}
	for _, s := range state.Subscriptions {
		known[cmp.Or(s.Filter.Type.String(), "*")] = true
	}
	var beginnings, ends []string
	for t := range known {
		if text, ok := strings.CutSuffix(t, "*"); ok {
			beginnings = append(beginnings, text)
		} else if text, ok := strings.CutPrefix(t, "*"); ok {
			ends = append(ends, text)
		}
	}
	if len(beginnings)*len(ends) > maxPatterns {
		return nil, tooMuchToAsk()
	}
	for _, first := range beginnings {
		for _, last := range ends {
			known[first+"*"+last] = true // types that have both
		}
	}
	var out []ident.EventType
	for _, t := range slices.Sorted(maps.Keys(known)) {
		out = append(out, ident.EventType(t))
	}
	return out, nil
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
