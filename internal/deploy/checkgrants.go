package deploy

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"sallyport/api"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

const (
	// checkTime bounds the wait for what grants reach: nothing else is applied meanwhile, and what does not answer is a warning only.
	checkTime = 5 * time.Second
	// checksAtOnce bounds the connections and the copies of databases that are open for it.
	checksAtOnce = 4
)

// toCheck is a grant that what it reaches is asked about, and what came of it.
type toCheck struct {
	function *Function
	name     string
	found    grant.Checked
}

// checkGrants has what the grants of an app reach say whether it takes what the manifest fixes. Faults are a problem; what could not be asked is told in the plan.
// Whoever deploys was asked about by the gate before, so nobody learns of a database here that they may not use: functions that stay as they are, which
// Consent was not asked about yet, are looked at in a dry run when it agrees. A grant that somebody else has to approve is not used for anything before that.
func (d *Deployer) checkGrants(ctx context.Context, at *attempt, plan *api.Plan, old, next *app) error {
	var list []*toCheck
	for _, name := range slices.Sorted(maps.Keys(next.functions)) {
		f := next.functions[name]
		stays := old != nil && old.functions[name] != nil && sameFunction(old.functions[name], f)
		if stays && !at.dryRun {
			continue
		}
		for _, g := range slices.Sorted(maps.Keys(f.Grants)) {
			if f.Grants[g].Kind() != manifest.KindSQL { // the one kind with texts that only what it reaches can judge
				continue
			}
			one := &toCheck{function: f, name: g}
			list = append(list, one)
			switch {
			case plan.NeedsApproval && gains(changesOf(plan.Grants, string(name), g)):
				one.found.Unchecked = problem.New(problem.Denied, "deploy.check_unapproved", "somebody else has to approve the grant first; it is checked when they do")
			case stays && at.may != nil:
				one.found.Unchecked = at.may(Change{Change: api.Change{Kind: kindFunction, Name: string(name)}, Grants: map[string]manifest.Grant{g: f.Grants[g]}})
			}
		}
	}
	d.askDatabases(ctx, at, next, list)
	var faults []problem.Fault
	for _, one := range list {
		if err := one.found.Unchecked; err != nil {
			p := problem.From(err)
			plan.Unchecked = append(plan.Unchecked, api.Unchecked{Function: string(one.function.Name), Grant: one.name, Code: p.Code, Detail: p.Public, Hint: p.Hint})
		}
		for _, f := range one.found.Faults {
			key := append([]string{"functions", string(one.function.Name), "grants", one.name}, f.Key...)
			faults = append(faults, manifest.FaultIn(manifestFile, []byte(at.bundle.Manifest), f.Detail, f.Statement, f.Offset, key...))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	slices.SortStableFunc(faults, func(a, b problem.Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return problem.New(problem.Unprocessable, "deploy.statements_refused", "a database does not take what the app fixes for it").
		WithHint("correct the manifest, or make the tables first; nothing was changed").WithFaults(faults[:min(len(faults), maxFaults)]...)
}

// changesOf returns what becomes of one grant.
func changesOf(list []api.GrantChange, function, name string) []api.GrantChange {
	return slices.DeleteFunc(slices.Clone(list), func(c api.GrantChange) bool { return c.Function != function || c.Grant != name })
}

// askDatabases fills in what was found, within checkTime.
func (d *Deployer) askDatabases(ctx context.Context, at *attempt, next *app, list []*toCheck) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	others := d.sqlGrants(at, next)
	places := make(chan struct{}, checksAtOnce)
	var all sync.WaitGroup
	for _, one := range list {
		if one.found.Unchecked != nil {
			continue
		}
		g := one.function.Grants[one.name]
		if d.cfg.Grants.Stand != nil && g.SQL.SQLite == "" {
			one.found.Unchecked = problem.New(problem.Unavailable, "deploy.check_captured", "uses of grants are captured here, so the database is not connected to")
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			one.found = d.cfg.Grants.Kinds.Check(ctx, grant.Opening{
				Namespace: at.ns, Function: one.function.Name, Revision: one.function.Revision, Name: one.name, Grant: g, Secrets: d.cfg.Grants.Secrets,
			}, others)
		})
	}
	all.Wait()
}

// sqlGrants returns the sql grants of a namespace as they would be, in order.
func (d *Deployer) sqlGrants(at *attempt, next *app) []manifest.Grant {
	apps := maps.Clone(d.apps[at.ns])
	if apps == nil {
		apps = map[ident.AppName]*app{}
	}
	apps[next.name] = next
	var out []manifest.Grant
	for _, a := range slices.Sorted(maps.Keys(apps)) {
		for _, f := range slices.Sorted(maps.Keys(apps[a].functions)) {
			grants := apps[a].functions[f].Grants
			for _, g := range slices.Sorted(maps.Keys(grants)) {
				if grants[g].SQL != nil {
					out = append(out, grants[g])
				}
			}
		}
	}
	return out
}
