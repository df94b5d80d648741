package httpapi

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// Policies are the policies that the guard decides by; access.Policies are.
type Policies interface {
	Plan(owner access.PolicyOwner, files map[string]string) (*access.PolicyChange, error)
	Apply(ctx context.Context, owner access.PolicyOwner, files map[string]string) (*access.PolicyChange, error)
}

const (
	// maxPolicyBody is the texts of policies, escaped.
	maxPolicyBody = 2 * access.MaxPolicyBytes
	// maxShown bounds how many differences a plan of policies shows of each kind.
	maxShown = 100
	// replayed is how far back a plan looks at what was asked.
	replayed = access.DecisionRetention
)

// listPolicies answers with the policies that decide about what is in a namespace, or about the server.
func (a *API) listPolicies(c *call) error {
	out := api.PolicyList{Policies: []api.Policy{}}
	for p := range a.deps.Guard.Set().Policies() {
		if p.Namespace == "" || p.Namespace == c.ns {
			out.Policies = append(out.Policies, describePolicy(p))
		}
	}
	return answer(c, http.StatusOK, &out)
}

func describePolicy(p policy.Policy) api.Policy {
	out := api.Policy{ID: p.ID, Effect: "forbid", BuiltIn: p.BuiltIn, Namespace: string(p.Namespace), File: p.File, Line: p.Line, Text: p.Text}
	if p.Permit {
		out.Effect = "permit"
	}
	return out
}

// applyPolicies makes policies those of an app, or of the server, and says what that changes.
func (a *API) applyPolicies(c *call) error {
	dry, err := c.query.flag("dry_run")
	if err != nil {
		return err
	}
	action := policy.ManagePolicies
	if dry { // to look at what would change is to read
		action = policy.ReadPolicies
	}
	if err := a.deps.Guard.Authorize(c.r.Context(), c.p, action, c.target()); err != nil {
		return err
	}
	name, err := ident.ParseAppName(c.r.PathValue("app"))
	if err != nil {
		return badRequest("%v", err)
	}
	if c.ns != "" {
		if _, err := a.space(c); err != nil {
			return err
		}
	}
	if a.draining.Load() {
		return stopping()
	}
	giveBack, err := a.applying.take(c.ns) // to compare takes a processor for some seconds at the most
	if err != nil {
		return err
	}
	defer giveBack()
	var body api.PolicyFiles
	if err := readJSON(c.r, maxPolicyBody, &body); err != nil {
		return err
	}
	owner := access.PolicyOwner{Namespace: c.ns, Name: name}
	change, err := a.deps.Policies.Plan(owner, body.Files)
	if err != nil {
		return err
	}
	// What follows from it is found before it is in force: it is to be looked at.
	out, err := a.consequences(c, change)
	if err != nil {
		return err
	}
	if !dry {
		if _, err := a.deps.Policies.Apply(c.r.Context(), owner, body.Files); err != nil {
			return err
		}
		out.Applied = true
	}
	return answer(c, http.StatusOK, out)
}

// consequences says what a change of policies changes: which policies, who may do what, and what of that which was asked
// before would have been decided otherwise.
func (a *API) consequences(c *call, change *access.PolicyChange) (*api.PolicyPlan, error) {
	out := &api.PolicyPlan{
		Created: orEmpty(change.Created), Updated: orEmpty(change.Updated), Deleted: orEmpty(change.Deleted),
		Access: []api.AccessChange{}, Replay: []api.ReplayDifference{},
	}
	if change.None() {
		return out, nil
	}
	crossings, err := a.newCrossings(c, change)
	if err != nil {
		return nil, err
	}
	out.CrossingsMore = len(crossings) > maxShown
	out.Crossings = crossings[:min(len(crossings), maxShown)]
	recorded := a.recorded(c, time.Now().Add(-replayed))
	u := a.universe(c, recorded)
	diff, err := policy.Diff(change.Old, change.New, u, nil)
	if err != nil {
		return nil, problem.New(problem.Unprocessable, "policy.too_many_questions", "there are too many principals and resources to compare the policies for all of them")
	}
	out.AccessMore = len(diff) > maxShown
	for _, d := range diff[:min(len(diff), maxShown)] {
		out.Access = append(out.Access, api.AccessChange{
			Principal: string(u.Principals[d.Principal].ID), Action: string(d.Action), Resource: d.Resource.String(),
			Allowed: d.New.Allowed, Policies: orEmpty(decisive(d)), Assumed: orEmpty(d.New.Assumed),
		})
	}
	requests := make([]policy.Request, len(recorded))
	for i := range recorded {
		requests[i] = policy.Request{Principal: recorded[i].As, Action: recorded[i].Action, Resource: recorded[i].Resource, Context: circumstances(&recorded[i])}
		out.Replayed += recorded[i].Count
	}
	differences := policy.Replay(requests, change.Old, change.New)
	out.ReplayMore = len(differences) > maxShown
	for _, d := range differences[:min(len(differences), maxShown)] {
		r := &recorded[d.Request]
		policies := d.New.Policies
		if !d.New.Allowed && len(policies) == 0 {
			policies = d.Old.Policies
		}
		out.Replay = append(out.Replay, api.ReplayDifference{
			Principal: string(r.As.ID), Action: string(r.Action), Resource: r.Resource.String(), Allowed: d.New.Allowed,
			Policies: orEmpty(policies), Count: r.Count, Last: r.Last,
		})
	}
	return out, nil
}

// decisive returns the policies that make the difference: those that decide now, or that permitted before.
func decisive(d policy.Change) []string {
	if d.New.Allowed || len(d.New.Policies) > 0 {
		return d.New.Policies
	}
	return d.Old.Policies
}

// circumstances are those a recorded question is asked again with: what is not recorded is taken to be as for any request
// over TLS, for an event of the type without anything in it.
func circumstances(d *access.Decided) policy.Context {
	c := policy.Context{Now: d.Last, Transport: policy.TransportTLS}
	if d.As.Kind == policy.KindFunction {
		c.Transport = policy.TransportInternal
	}
	if d.Action == policy.Publish {
		c.Event = &policy.Event{Type: d.Resource.Name}
	}
	return c
}

// recorded returns what was asked since a time about what the call is about: of a whole server, everything.
func (a *API) recorded(c *call, since time.Time) []access.Decided {
	return a.decided(c, access.DecisionQuery{Since: since})
}

// universe is everybody and everything that the server knows of: tokens, functions, whoever has asked for something;
// namespaces, functions, and the event types that apps declare or somebody has published.
func (a *API) universe(c *call, recorded []access.Decided) policy.Universe {
	var u policy.Universe
	seen := map[ident.PrincipalID]bool{}
	who := func(p policy.Principal) {
		if !seen[p.ID] {
			seen[p.ID] = true
			u.Principals = append(u.Principals, p)
		}
	}
	known := map[policy.Resource]bool{}
	what := func(r policy.Resource) {
		named := r
		named.Grant, named.Reaches = "", "" // of a grant of one name, what the deployed function has comes first
		if !known[named] {
			known[named] = true
			u.Resources = append(u.Resources, r)
		}
	}
	for _, p := range a.deps.Guard.Principals() {
		if c.p.Namespace == "" || p.Namespace == "" || p.Namespace == c.ns {
			who(p)
			for _, t := range p.EventTypes {
				if p.Namespace != "" && (c.ns == "" || p.Namespace == c.ns) {
					what(policy.Resource{Kind: policy.KindEventType, Namespace: p.Namespace, Name: string(t)})
				}
			}
		}
	}
	spaces := []ident.Namespace{c.ns}
	if c.ns == "" {
		spaces = a.deps.Namespaces.Names()
		what(policy.OfServer())
	}
	for _, ns := range spaces {
		what(policy.OfNamespace(ns))
		state := a.deps.Deployer.State(ns)
		for _, f := range state.Functions {
			who(actingFunction(ns, f))
			for name, g := range f.Grants {
				if g.Publish == nil { // the types that it publishes are resources themselves
					what(access.OfGrant(ns, f.Name, name, g))
				}
			}
			what(policy.Resource{Kind: policy.KindFunction, Namespace: ns, Name: string(f.Name)})
			for _, name := range append(secretNames(f.Secrets), secretNames(f.Reveals)...) {
				what(policy.Resource{Kind: policy.KindSecret, Namespace: ns, Name: name})
			}
		}
		for _, t := range typesOf(state) {
			what(policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: string(t)})
		}
	}
	for _, d := range recorded {
		if d.Allowed && d.As.Kind != policy.KindEventType { // what nobody may do is not known to be there, and nobody delivers
			who(d.As)
			what(d.Resource)
		}
	}
	return u
}

// everything is the universe with what was asked as far back as it is kept.
func (a *API) everything(c *call) policy.Universe {
	return a.universe(c, a.recorded(c, time.Now().Add(-replayed)))
}

// explainPolicy says how one question is decided, and what each policy that is about it comes to.
func (a *API) explainPolicy(c *call) error {
	q, err := a.question(c)
	if err != nil {
		return err
	}
	e := a.deps.Guard.Set().Explain(q)
	out := api.PolicyExplanation{
		Principal: string(q.Principal.ID), Action: string(q.Action), Resource: q.Resource.String(),
		Allowed: e.Decision.Allowed, Policies: orEmpty(e.Decision.Policies), OnBehalf: e.OnBehalf, Matched: []api.PolicyMatch{},
		Bridges: e.Decision.Bridges, DryRun: e.Decision.DryRun, Perimeters: describeVerdicts(e.Perimeters),
		Approval: a.approvalOf(c, &q),
	}
	for _, m := range e.Matched {
		if m.Policy.Namespace != "" && m.Policy.Namespace != c.ns {
			continue
		}
		one := api.PolicyMatch{Policy: describePolicy(m.Policy), Determined: m.Determined, Holds: m.Holds, Error: m.Error}
		for _, cond := range m.Conditions {
			one.Conditions = append(one.Conditions, api.PolicyCondition{Unless: cond.Unless, Text: cond.Text, Holds: cond.Holds, Error: cond.Error})
		}
		out.Matched = append(out.Matched, one)
	}
	return answer(c, http.StatusOK, &out)
}

// whoCan answers who may do something to something.
func (a *API) whoCan(c *call) error {
	action, err := c.query.action()
	if err != nil {
		return err
	}
	res, err := a.asked(c)
	if err != nil {
		return err
	}
	principals := a.everything(c).Principals
	return answer(c, http.StatusOK, accessList(principals, a.deps.Guard.Set().WhoCan(action, res, principals, nil)))
}

func accessList(principals []policy.Principal, list []policy.Access) *api.AccessList {
	out := &api.AccessList{Access: []api.Access{}}
	for i := range list {
		one := &list[i]
		if one.Allowed {
			out.Access = append(out.Access, accessOf(string(principals[one.Principal].ID), one))
		}
	}
	return out
}

// questionParameters are those of a question about policies.
func questionParameters() []string {
	return []string{"principal", "action", "resource", "address", "mtls", "at", "source", "subject", "size", "caused_by", "through"}
}

// question reads a question about policies from the query.
func (a *API) question(c *call) (q policy.Request, err error) {
	if q.Resource, err = a.asked(c); err != nil {
		return q, err
	}
	if c.query["action"] == string(policy.Deliver) {
		t, err := policy.ParseResource(c.query["principal"])
		if err != nil || t.Kind != policy.KindEventType || q.Resource.Kind != policy.KindFunction || t.Namespace != q.Resource.Namespace {
			return q, badRequest("an event type is delivered to a function of its namespace: want the principal event_type:NAMESPACE/TYPE and the resource function:NAMESPACE/NAME")
		}
		return policy.DeliveryRequest(t.Namespace, ident.EventType(t.Name), ident.FunctionName(q.Resource.Name)), nil
	}
	known := a.everything(c)
	if q.Principal, err = principalIn(known, c.query["principal"]); err != nil {
		return q, err
	}
	if q.Action, err = c.query.action(); err != nil {
		return q, err
	}
	q.Context = policy.Context{Now: time.Now(), Transport: policy.TransportTLS}
	if q.Principal.Kind == policy.KindFunction {
		q.Context.Transport = policy.TransportInternal
	}
	mutual, err := c.query.flag("mtls")
	if err != nil {
		return q, err
	}
	if mutual {
		q.Context.Transport = policy.TransportMutualTLS
	}
	if text := c.query["address"]; text != "" {
		if q.Context.IP, err = netip.ParseAddr(text); err != nil {
			return q, badRequest("address: want an IP address")
		}
	}
	if at, err := c.query.time("at"); err != nil {
		return q, err
	} else if !at.IsZero() {
		q.Context.Now = at
	}
	if q.Action == policy.Publish {
		e := &policy.Event{Type: q.Resource.Name, Source: c.query["source"], Subject: c.query["subject"]}
		if text := c.query["size"]; text != "" {
			if e.Size, err = strconv.ParseInt(text, 10, 64); err != nil || e.Size < 0 {
				return q, badRequest("size: want a number of bytes")
			}
		}
		q.Context.Event = e
	}
	if q.Context.Cause, err = c.cause(known); err != nil || q.Context.Cause == nil || q.Principal.Kind != policy.KindFunction {
		return q, err
	}
	// No function asks by a network: address, mtls and at are those of the request by which the first event came.
	sent := policy.Sent{IP: q.Context.IP, Now: q.Context.Now, Transport: q.Context.Transport}
	if sent.Transport == policy.TransportInternal {
		sent.Transport = policy.TransportTLS
	}
	q.Context.Cause.Sent, q.Context.IP, q.Context.Now, q.Context.Transport = &sent, netip.Addr{}, time.Now(), policy.TransportInternal
	return q, nil
}

// cause reads who is behind what a function asks; nil when nobody is named.
func (c *call) cause(known policy.Universe) (*policy.Cause, error) {
	by, through := c.query["caused_by"], c.query["through"]
	if by == "" && through == "" {
		return nil, nil
	}
	out := &policy.Cause{Barred: by == access.Unknown}
	if by != "" && !out.Barred {
		p, err := principalIn(known, by)
		if err != nil || p.Kind == policy.KindFunction {
			return nil, badRequest("caused_by: want token:ID, user:ID, service:ID or %s", access.Unknown)
		}
		out.Principal = &p
	}
	if through == "" {
		return out, nil
	}
	for name := range strings.SplitSeq(through, ",") {
		p, err := policy.ParsePrincipal("function:" + name)
		if err != nil || len(out.Functions) == policy.MaxChain {
			return nil, badRequest("through: want at most %d functions as NAMESPACE/NAME, with commas between", policy.MaxChain)
		}
		out.Functions = append(out.Functions, p.ID)
	}
	return out, nil
}

// action reads the action that a question is about.
func (q query) action() (policy.Action, error) {
	a, err := policy.ParseAction(q["action"])
	if err != nil {
		return a, badRequest("action: %s", problem.From(err).Public)
	}
	return a, nil
}

// asked reads the resource that a question is about: one of the call's namespace, or of the server.
func (a *API) asked(c *call) (policy.Resource, error) {
	r, err := policy.ParseResource(c.query["resource"])
	if err != nil {
		return r, badRequest("resource: %v", err)
	}
	if c.ns != "" && r.Namespace != c.ns {
		return r, problem.New(problem.Invalid, "policy.other_namespace", "%s is not in the namespace %q", r, c.ns).
			WithHint("ask its own namespace (-n), or the server (--on-server)")
	}
	if r.Kind != policy.KindGrant {
		return r, nil
	}
	function, name, _ := strings.Cut(r.Name, "/")
	if f, err := a.deps.Deployer.State(r.Namespace).Function(ident.FunctionName(function)); err == nil {
		if g, ok := f.Grants[name]; ok {
			return access.OfGrant(r.Namespace, f.Name, name, g), nil
		}
	}
	return r, nil // it may be about to be deployed: policies know it by its name
}

// principalIn returns the principal of an id, with everything that is known of it. One that is not known has nothing but its
// id; so has, for who belongs to a namespace, one of another.
func principalIn(u policy.Universe, id string) (policy.Principal, error) {
	p, err := policy.ParsePrincipal(id)
	if err != nil {
		return p, badRequest("principal: %v", err)
	}
	for _, known := range u.Principals {
		if known.ID == p.ID {
			return known, nil
		}
	}
	return p, nil
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
