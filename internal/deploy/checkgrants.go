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
	// checkTime bounds the wait for what grants reach: what does not answer is a warning only.
	checkTime = 5 * time.Second
	// checksAtOnce bounds the connections and the copies of databases that are open for it.
	checksAtOnce = 4
)

// grantName is a grant of an app.
type grantName struct {
	function ident.FunctionName
	grant    string
}

// toCheck is a grant that what it reaches is asked about, and why it is not.
type toCheck struct {
	function *Function
	name     string
	spared   error
}

func (c *toCheck) key() grantName { return grantName{c.function.Name, c.name} }

// toCheck lists the grants of an app of which what they reach says whether it takes what the manifest fixes.
// Whoever deploys was asked about by the gate before, so nobody learns of a database here that they may not use: functions that stay as they are, which
// Consent was not asked about yet, are looked at in a dry run when it agrees. A grant that somebody else has to approve is not used for anything before that.
func (at *attempt) toCheck(plan *api.Plan, old, next *app) []*toCheck {
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
				one.spared = problem.New(problem.Denied, "deploy.check_unapproved", "somebody else has to approve the grant first; it is checked when they do")
			case stays && at.may != nil:
				one.spared = at.may(Change{Change: api.Change{Kind: kindFunction, Name: string(name)}, Grants: map[string]manifest.Grant{g: f.Grants[g]}})
			}
		}
	}
	return list
}

// askAhead asks the databases of what was built, once everything else about it is in order.
func (d *Deployer) askAhead(ctx context.Context, at *attempt, old, next *app) error {
	at.asked = map[grantName]grant.Checked{}
	d.mu.Lock()
	others, list, err := d.toAsk(ctx, at, old, next)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	d.askDatabases(ctx, at, others, list)
	return nil
}

// toAsk returns the sql grants of the namespace, and those of them that are to be checked. d.mu is held.
func (d *Deployer) toAsk(ctx context.Context, at *attempt, old, next *app) (others []manifest.Grant, list []*toCheck, err error) {
	if d.apps[at.ns][at.manifest.Name] != old {
		return nil, nil, errOvertaken
	}
	if others = d.sqlGrants(at, next); len(others) == 0 {
		return nil, nil, nil
	}
	plan, _, err := d.plan(ctx, at, old, next)
	if err != nil {
		return nil, nil, err
	}
	return others, at.toCheck(plan, old, next), nil
}

// checkGrants judges by what databases said. Faults are a problem; what could not be asked is told in the plan.
func checkGrants(at *attempt, plan *api.Plan, old, next *app) error {
	var faults []problem.Fault
	for _, one := range at.toCheck(plan, old, next) {
		found, asked := at.asked[one.key()]
		switch {
		case one.spared != nil:
			found = grant.Checked{Unchecked: one.spared}
		case !asked:
			return errOvertaken // the gate, or who has to approve, has changed
		}
		if err := found.Unchecked; err != nil {
			p := problem.From(err)
			plan.Unchecked = append(plan.Unchecked, api.Unchecked{Function: string(one.function.Name), Grant: one.name, Code: p.Code, Detail: p.Public, Hint: p.Hint})
		}
		for _, f := range found.Faults {
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

// askDatabases fills in what was asked, within checkTime.
func (d *Deployer) askDatabases(ctx context.Context, at *attempt, others []manifest.Grant, list []*toCheck) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	places := make(chan struct{}, checksAtOnce)
	found := make([]grant.Checked, len(list))
	var all sync.WaitGroup
	for i, one := range list {
		if one.spared != nil {
			continue
		}
		g := one.function.Grants[one.name]
		if d.cfg.Grants.Stand != nil && g.SQL.SQLite == "" {
			found[i].Unchecked = problem.New(problem.Unavailable, "deploy.check_captured", "uses of grants are captured here, so the database is not connected to")
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			found[i] = d.cfg.Grants.Kinds.Check(ctx, grant.Opening{
				Namespace: at.ns, Function: one.function.Name, Revision: one.function.Revision, Name: one.name, Grant: g, Secrets: d.cfg.Grants.Secrets,
			}, others)
		})
	}
	all.Wait()
	for i, one := range list {
		if one.spared == nil {
			at.asked[one.key()] = found[i]
		}
	}
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
