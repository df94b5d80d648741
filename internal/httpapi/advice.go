package httpapi

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

func tooMuchToAsk() error {
	return problem.New(problem.Unprocessable, "policy.too_many_questions", "there is too much to ask about for one answer")
}

// reach answers what a principal may do, and what functions do that it can have run: its blast radius.
func (a *API) reach(c *call) error {
	u := a.everything(c)
	p, err := principalIn(u, c.query["principal"])
	if err != nil {
		return err
	}
	if err := a.addTypes(c, &u, p.EventTypes); err != nil {
		return err
	}
	list, err := a.deps.Guard.Set().Follow(p, u, a.runs, nil)
	if err != nil {
		return tooMuchToAsk()
	}
	out := &api.AccessList{Access: []api.Access{}}
	for i := range list {
		one := accessOf(string(list[i].By.ID), &list[i].Access)
		one.Via = list[i].Via
		out.Access = append(out.Access, one)
	}
	return answer(c, http.StatusOK, out)
}

// addTypes adds to a universe the event types that somebody may publish of which nobody knows yet but that a subscription has them
// delivered: those that policies, perimeters and the caller name, and the patterns of filters.
func (a *API) addTypes(c *call, u *policy.Universe, named []ident.EventType) error {
	known := map[policy.Resource]bool{}
	for _, r := range u.Resources {
		known[r] = true
	}
	for _, ns := range a.namespaces(c) {
		types, err := typesAbout(a.deps.Guard.Set(), ns, a.deps.Deployer.State(ns))
		if err != nil {
			return err
		}
		for _, t := range append(types, named...) {
			r := policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: string(t)}
			if !known[r] {
				known[r] = true
				u.Resources = append(u.Resources, r)
			}
		}
	}
	return nil
}

// actingFunction returns the principal that a function is, with everything that its grants name.
func actingFunction(ns ident.Namespace, f *deploy.Function) policy.Principal {
	return access.FunctionOf(ns, f.Name, f.Revision, f.Grants).Policy()
}

// runs returns the functions that something has run: to invoke them, to publish what a subscription has delivered to them, and to
// deploy, which gives them other code.
func (a *API) runs(action policy.Action, res policy.Resource) []policy.Principal {
	state, set := a.deps.Deployer.State(res.Namespace), a.deps.Guard.Set()
	may := func(ident.FunctionName) bool { return false }
	switch action {
	case policy.Invoke:
		may = func(f ident.FunctionName) bool { return string(f) == res.Name }
	case policy.Deploy: // who may replace the code of something in the namespace, by what is known of the namespace
		may = func(ident.FunctionName) bool { return res.Kind == policy.KindNamespace }
	case policy.Publish:
		to := map[ident.FunctionName]bool{}
		for _, s := range state.Subscriptions {
			if s.Filter.Type.Match(res.Name) && set.CanDeliver(res.Namespace, ident.EventType(res.Name), s.Function.Name).Allowed {
				to[s.Function.Name] = true
			}
		}
		may = func(f ident.FunctionName) bool { return to[f] }
	}
	var out []policy.Principal
	for name, f := range state.Functions {
		if may(name) {
			out = append(out, actingFunction(res.Namespace, f))
		}
	}
	slices.SortFunc(out, func(x, y policy.Principal) int { return cmp.Compare(x.ID, y.ID) })
	return out
}

// uses returns what was asked since a time, as advice needs it.
func (a *API) uses(c *call, since time.Time) []policy.Use {
	var out []policy.Use
	for _, d := range a.recorded(c, since) {
		out = append(out, policy.Use{
			Request: policy.Request{Principal: d.As, Action: d.Action, Resource: d.Resource, Context: circumstances(&d)},
			Allowed: d.Allowed, Policies: d.Policies, Count: d.Count, Last: d.Last,
		})
	}
	return out
}

// unused answers with the policies, grants and actions that nothing that was asked since a time needed; with the parameter
// principal, with what is that one's.
func (a *API) unused(c *call) error {
	since, _, err := c.query.period()
	if err != nil {
		return err
	}
	u, uses := a.everything(c), a.uses(c, since)
	only := ident.PrincipalID(c.query["principal"])
	if only != "" {
		p, err := principalIn(u, string(only))
		if err != nil {
			return err
		}
		u.Principals = []policy.Principal{p}
	}
	set := a.deps.Guard.Set()
	out := api.UnusedList{Since: since.UTC(), Policies: []api.Policy{}, Grants: []api.Access{}, Actions: []api.UnusedActions{}}
	for _, p := range set.Unused(uses, since) {
		if p.Namespace == c.ns && only == "" {
			out.Policies = append(out.Policies, describePolicy(p))
		}
	}
	// What a manifest grants a function, and the types that a token is limited to, are for something.
	granted, acting := u, u
	granted.Actions = []policy.Action{policy.Publish}
	granted.Principals = slices.DeleteFunc(slices.Clone(u.Principals), func(p policy.Principal) bool { return len(p.EventTypes) == 0 })
	acting.Principals = slices.DeleteFunc(slices.Clone(u.Principals), func(p policy.Principal) bool { return p.Kind == policy.KindFunction })
	grants, err := set.UnusedGrants(uses, since, granted)
	if err != nil {
		return tooMuchToAsk()
	}
	for i := range grants {
		out.Grants = append(out.Grants, accessOf(string(granted.Principals[grants[i].Principal].ID), &grants[i]))
	}
	actions, err := set.UnusedActions(uses, since, acting)
	if err != nil {
		return tooMuchToAsk()
	}
	for _, one := range actions {
		p := &acting.Principals[one.Principal]
		described := api.UnusedActions{Principal: string(p.ID), Role: string(p.Role)}
		for _, action := range one.Actions {
			described.Actions = append(described.Actions, string(action))
		}
		out.Actions = append(out.Actions, described)
	}
	return answer(c, http.StatusOK, &out)
}

// wildcards answers with the permits that leave a principal, an action or a resource open.
func (a *API) wildcards(c *call) error {
	out := api.WildcardList{Wildcards: []api.Wildcard{}}
	for _, w := range a.deps.Guard.Set().Wildcards() {
		if w.Policy.Namespace == c.ns {
			out.Wildcards = append(out.Wildcards, api.Wildcard{Policy: describePolicy(w.Policy), Open: w.Open, Unconditional: w.Unconditional})
		}
	}
	return answer(c, http.StatusOK, &out)
}

// propose answers with the policies of a namespace, or of the server, tightened to what was asked since a time, and the proof.
func (a *API) propose(c *call) error {
	return a.proposal(c, func(uses []policy.Use, since time.Time) (*policy.Proposal, error) {
		return a.deps.Guard.Set().Propose(uses, since, c.ns)
	})
}

// boundary answers with forbids for the server that keep a principal within what it did since a time, and the proof.
func (a *API) boundary(c *call) error {
	p, err := principalIn(a.everything(c), c.query["principal"])
	if err != nil {
		return err
	}
	return a.proposal(c, func(uses []policy.Use, since time.Time) (*policy.Proposal, error) {
		return a.deps.Guard.Set().Boundary(p, uses, since)
	})
}

func (a *API) proposal(c *call, make func(uses []policy.Use, since time.Time) (*policy.Proposal, error)) error {
	since, _, err := c.query.period()
	if err != nil {
		return err
	}
	giveBack, err := a.applying.take(c.ns) // it takes a processor for some seconds at the most
	if err != nil {
		return err
	}
	defer giveBack()
	p, err := make(a.uses(c, since), since)
	switch {
	case errors.Is(err, policy.ErrNotProven):
		return problem.New(problem.Unprocessable, "policy.not_proven", "what would be proposed would deny something that was allowed, so it is not proposed").
			WithHint("try a longer --since").WithCause(err)
	case err != nil:
		return err
	}
	return answer(c, http.StatusOK, &api.PolicyProposal{
		Since: since.UTC(), Text: string(p.Text), Dropped: orEmpty(p.Dropped), Narrowed: orEmpty(p.Narrowed),
		Replayed: p.Replayed, Assumed: p.Assumed, Skipped: p.Skipped,
	})
}

func accessOf(principal string, a *policy.Access) api.Access {
	return api.Access{Principal: principal, Action: string(a.Action), Resource: a.Resource.String(), Policies: orEmpty(a.Policies), Assumed: orEmpty(a.Assumed)}
}
