package httpapi

import (
	"cmp"
	"context"
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

func (a *API) listFunctions(c *call) error {
	out := api.FunctionList{Functions: []api.Function{}}
	for _, f := range a.deps.Deployer.State(c.ns).Functions {
		out.Functions = append(out.Functions, f.Describe())
	}
	slices.SortFunc(out.Functions, func(x, y api.Function) int { return cmp.Compare(x.Name, y.Name) })
	return answer(c, http.StatusOK, &out)
}

func (a *API) getFunction(c *call) error {
	name, err := ident.ParseFunctionName(c.r.PathValue("name"))
	if err != nil {
		return badRequest("%v", err)
	}
	f, err := a.deps.Deployer.State(c.ns).Function(name)
	if err != nil {
		return err
	}
	out := f.Describe()
	return answer(c, http.StatusOK, &out)
}

// subscription describes s with its counters.
func subscription(space *Space, s *deploy.Subscription) api.Subscription {
	out, n := s.Describe(), space.Dispatch.Counts()[s.Name]
	out.Pending, out.Dead = n.Pending, n.Dead
	return out
}

func (a *API) listSubscriptions(c *call) error {
	space, err := a.space(c)
	if err != nil {
		return err
	}
	counts := space.Dispatch.Counts()
	out := api.SubscriptionList{Subscriptions: []api.Subscription{}}
	for _, s := range a.deps.Deployer.State(c.ns).Subscriptions {
		d := s.Describe()
		d.Pending, d.Dead = counts[s.Name].Pending, counts[s.Name].Dead
		out.Subscriptions = append(out.Subscriptions, d)
	}
	slices.SortFunc(out.Subscriptions, func(x, y api.Subscription) int { return cmp.Compare(x.Name, y.Name) })
	return answer(c, http.StatusOK, &out)
}

func (a *API) getSubscription(c *call) error {
	name, err := ident.ParseSubscriptionName(c.r.PathValue("name"))
	if err != nil {
		return badRequest("%v", err)
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	s := a.deps.Deployer.State(c.ns).Subscriptions[name]
	if s == nil {
		return problem.New(problem.NotFound, "deploy.subscription_not_found", "there is no subscription %q", name).
			WithHint("list them with `sallyport subscription list`")
	}
	out := subscription(space, s)
	return answer(c, http.StatusOK, &out)
}

func (a *API) pause(c *call) error  { return a.setPaused(c, true) }
func (a *API) resume(c *call) error { return a.setPaused(c, false) }

func (a *API) setPaused(c *call, paused bool) error {
	name, err := ident.ParseSubscriptionName(c.r.PathValue("name"))
	if err != nil {
		return badRequest("%v", err)
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	s, err := a.deps.Deployer.SetPaused(c.r.Context(), c.ns, name, paused)
	if err != nil {
		return err
	}
	out := subscription(space, s)
	return answer(c, http.StatusOK, &out)
}

func (a *API) listDeadLetters(c *call) error {
	limit, err := c.query.limit()
	if err != nil {
		return err
	}
	sub := ident.SubscriptionName(c.query["subscription"])
	if sub != "" {
		if sub, err = ident.ParseSubscriptionName(string(sub)); err != nil {
			return badRequest("%v", err)
		}
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	var out api.DeadLetterList
	if out.DeadLetters, out.Cursor, err = space.Dispatch.DeadLetters(c.r.Context(), sub, c.query["cursor"], limit); err != nil {
		return err
	}
	// A page may have fewer than asked for, or none, and yet a cursor.
	inside := a.crossings(c, policy.ReadDeadLetters, policy.KindEventType)
	out.DeadLetters = slices.DeleteFunc(out.DeadLetters, func(l api.DeadLetter) bool { return !inside.may(l.Type) })
	return answer(c, http.StatusOK, &out)
}

func (a *API) getDeadLetter(c *call) error {
	withData, err := a.withData(c)
	if err != nil {
		return err
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	letter, rec, err := space.Dispatch.DeadLetter(c.r.Context(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	for _, action := range []policy.Action{policy.ReadDeadLetters, policy.ReadEventData} {
		if action == policy.ReadEventData && !withData {
			continue
		}
		if err := a.cross(c, action, rec.Type); err != nil {
			return err
		}
	}
	ev := describe(rec, withData)
	ev.State = api.StateDead
	letter.Event = &ev
	return answer(c, http.StatusOK, letter)
}

func (a *API) redrive(c *call) error {
	return a.letters(c, func(d DeadLetters, sel api.DeadLetterSelection) (*api.DeadLetterResult, error) {
		return d.Redrive(c.r.Context(), sel)
	})
}

func (a *API) discard(c *call) error {
	return a.letters(c, func(d DeadLetters, sel api.DeadLetterSelection) (*api.DeadLetterResult, error) {
		return d.Discard(c.r.Context(), sel)
	})
}

func (a *API) letters(c *call, do func(DeadLetters, api.DeadLetterSelection) (*api.DeadLetterResult, error)) error {
	var sel api.DeadLetterSelection
	if err := readJSON(c.r, maxSmallBody, &sel); err != nil {
		return err
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	out, err := do(space.Dispatch, sel)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, out)
}

// bundleTime is how long the largest app may take over a slow link.
const bundleTime = 2 * time.Minute

// apply deploys an app; with dry_run=true it only says what that would change.
func (a *API) apply(c *call) error {
	dry, err := c.query.flag("dry_run")
	if err != nil {
		return err
	}
	if a.draining.Load() {
		return stopping()
	}
	giveBack, err := a.applying.take(c.ns)
	if err != nil {
		return err
	}
	defer giveBack()
	// A writer without deadlines has none to extend.
	_ = http.NewResponseController(c).SetReadDeadline(time.Now().Add(bundleTime))
	var bundle api.Bundle
	if err := readJSON(c.r, maxBundleBytes, &bundle); err != nil {
		return err
	}
	var crossings []api.Crossing
	plan, err := a.deps.Deployer.Apply(access.WithPrincipal(c.r.Context(), c.p), c.p.ID, c.ns, &bundle, dry, func(change deploy.Change) error {
		if change.Action == "" {
			return a.mayChange(c.r.Context(), c.p, c.ns, change)
		}
		barred, err := a.barred(c.ns, change)
		if err != nil {
			return err
		}
		crossings = append(crossings, barred...)
		return a.mayChange(c.r.Context(), c.p, c.ns, change)
	})
	if err != nil {
		return err
	}
	plan.Crossings = crossings
	status := http.StatusOK
	if plan.Approval != nil {
		status = http.StatusAccepted
	}
	return answer(c, status, plan)
}

// barred returns what a change of an app is for, and a perimeter denies or in dry-run would.
func (a *API) barred(ns ident.Namespace, change deploy.Change) ([]api.Crossing, error) {
	set := a.deps.Guard.Set()
	if sub := change.Subscription; sub != nil {
		types, err := typesAbout(set, ns, a.deps.Deployer.State(ns))
		if err != nil {
			return nil, err
		}
		types = append(types, ident.EventType(cmp.Or(sub.Filter.Type.String(), "*"))) // it is in no app yet
		return barredDeliveries(set, ns, ident.SubscriptionName(change.Name), sub.Filter.Type.Match, sub.Function, inOrder(types)), nil
	}
	if change.Kind != "function" {
		return nil, nil
	}
	return barredGrants(set, ns, ident.FunctionName(change.Name), 0, change.Grants), nil
}

// mayChange returns why p may not make a change of an app.
func (a *API) mayChange(ctx context.Context, p *access.Principal, ns ident.Namespace, change deploy.Change) error {
	if change.Kind != "function" {
		return nil
	}
	// Who replaces the code of a function that is inside a perimeter acts inside by way of it.
	if err := a.deps.Guard.Cross(ctx, p, policy.Deploy, policy.Resource{Kind: policy.KindFunction, Namespace: ns, Name: change.Name}); err != nil {
		return err
	}
	return a.deps.Guard.MayGrant(ctx, p, ns, ident.FunctionName(change.Name), change.Grants)
}

// inOrder sorts names, and leaves each in once.
func inOrder[T cmp.Ordered](list []T) []T {
	slices.Sort(list)
	return slices.Compact(list)
}

// status answers with the server's state and the balance of each namespace that the caller may see.
// Whoever may see neither the server nor a namespace is refused.
func (a *API) status(c *call) error {
	denied := a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ReadStatus, policy.OfServer())
	namespaces := []api.NamespaceStatus{}
	for _, ns := range a.deps.Namespaces.Names() {
		if a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ReadStatus, policy.OfNamespace(ns)) != nil {
			continue
		}
		n, err := a.namespaceStatus(c.r.Context(), ns)
		if problem.From(err).Kind == problem.NotFound || a.deps.Namespaces.Open(ns) != nil {
			continue // it is being deleted
		}
		if err != nil {
			return err
		}
		namespaces = append(namespaces, n)
	}
	if denied != nil && len(namespaces) == 0 {
		return denied
	}
	out := a.deps.Status(c.r.Context())
	if denied != nil {
		out.DataDir, out.DiskFree, out.Resident, out.Cells, out.Issuers, out.RevocationLists = "", 0, 0, nil, nil, nil
	}
	if err := a.notReady(); err != nil {
		out.Ready, out.Reason = false, err.Error()
	} else {
		out.Ready, out.Reason = true, ""
	}
	slices.SortFunc(namespaces, func(x, y api.NamespaceStatus) int { return cmp.Compare(x.Name, y.Name) })
	out.Namespaces = namespaces
	return answer(c, http.StatusOK, &out)
}

func (a *API) namespaceStatus(ctx context.Context, ns ident.Namespace) (api.NamespaceStatus, error) {
	space, err := a.deps.Space(ns)
	if err != nil {
		return api.NamespaceStatus{}, err
	}
	// The balance first: events accepted between the two reads then count as pending.
	b := space.Dispatch.Balance()
	st, err := space.Log.Stats(ctx)
	if err != nil {
		return api.NamespaceStatus{}, err
	}
	state := a.deps.Deployer.State(ns)
	quotas, err := a.deps.Namespaces.Get(ns)
	if err != nil {
		return api.NamespaceStatus{}, err
	}
	use, stored, err := a.deps.Namespaces.Use(ctx, ns)
	if err != nil {
		return api.NamespaceStatus{}, err
	}
	return api.NamespaceStatus{
		Name: string(ns), Accepted: int64(st.Accepted), Done: b.Done, Dead: b.Dead, Pending: int64(st.Accepted) - b.Done - b.Dead,
		FirstPosition: uint64(ident.NewPosition(st.First, 0)), LastPosition: uint64(ident.NewPosition(st.Last, ident.MaxBatchEvents-1)), StoredBytes: st.Bytes,
		Functions: len(state.Functions), Subscriptions: len(state.Subscriptions), DeadLetters: b.DeadLetters,
		Quotas: quotas.Quotas, Use: use, Stored: stored,
	}, nil
}

func (a *API) metrics(c *call) error {
	a.deps.Metrics.ServeHTTP(c, c.r)
	return nil
}
