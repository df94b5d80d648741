package deploy

import (
	"maps"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
)

// unusedAfter is how long a grant has to be there and not be used until a plan says so. It is longer than a month has days, because
// some work is done once a month.
const unusedAfter = 32 * 24 * time.Hour

// What becomes of a grant.
const (
	grantNew      = "new"
	grantGone     = "gone"
	grantWidened  = "widened"
	grantNarrowed = "narrowed"
	grantChanged  = "changed"
	grantLimits   = "limits"
	grantUnused   = "unused"
)

// permissions returns what the functions of next gain and lose in comparison with those of old, by function and grant.
func permissions(old, next *app) []api.GrantChange {
	var out []api.GrantChange
	was := map[ident.FunctionName]*Function{}
	if old != nil {
		was = old.functions
	}
	names := maps.Clone(was)
	if names == nil {
		names = map[ident.FunctionName]*Function{}
	}
	maps.Copy(names, next.functions)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out = append(out, functionPermissions(name, was[name], next.functions[name])...)
	}
	return out
}

// functionPermissions compares the grants of a function; either may be nil.
func functionPermissions(name ident.FunctionName, a, b *Function) []api.GrantChange {
	var before, after map[string]manifest.Grant
	if a != nil {
		before = a.Grants
	}
	if b != nil {
		after = b.Grants
	}
	all := map[string]bool{}
	for g := range before {
		all[g] = true
	}
	for g := range after {
		all[g] = true
	}
	var out []api.GrantChange
	for _, g := range slices.Sorted(maps.Keys(all)) {
		x, had := before[g]
		y, has := after[g]
		change := compareGrants(x, y, had, has)
		if change.Change == "" {
			continue
		}
		change.Function, change.Grant = string(name), g
		out = append(out, change)
	}
	return out
}

// compareGrants says what differs between two grants of one name, of which either may not be there.
func compareGrants(a, b manifest.Grant, had, has bool) api.GrantChange {
	out := api.GrantChange{Kind: b.Kind(), RevealsSecret: has && b.Reveals()}
	switch {
	case !had:
		out.Change, out.Gains = grantNew, b.Reaches()
		return out
	case !has:
		out.Kind, out.Change, out.Loses = a.Kind(), grantGone, a.Reaches()
		return out
	}
	gains, loses := without(b.Reaches(), a.Reaches()), without(a.Reaches(), b.Reaches())
	wider, narrower := compareBounds(a.Bounds(), b.Bounds())
	out.Gains, out.Loses = append(gains, wider...), append(loses, narrower...)
	switch {
	case len(gains)+len(loses) == 0 && grantText(a) != grantText(b):
		out.Change = grantLimits
	case len(out.Gains) > 0 && len(out.Loses) > 0:
		out.Change = grantChanged
	case len(out.Gains) > 0:
		out.Change = grantWidened
	case len(out.Loses) > 0:
		out.Change = grantNarrowed
	}
	return out
}

// compareBounds returns the limits that differ, in words: those that allow more, and those that allow less. What one of the two
// grants has no limit for is shown by what it reaches.
func compareBounds(a, b []manifest.Bound) (wider, narrower []string) {
	for _, y := range b {
		i := slices.IndexFunc(a, func(x manifest.Bound) bool { return x.Name == y.Name })
		switch {
		case i < 0 || a[i].Value == y.Value:
		case a[i].Value < y.Value:
			wider = append(wider, "limit "+y.Name+" "+y.Text+", was "+a[i].Text)
		default:
			narrower = append(narrower, "limit "+y.Name+" "+y.Text+", was "+a[i].Text)
		}
	}
	return wider, narrower
}

// gains reports whether functions get something by the changes that they did not have. Whatever is new or wider counts, a limit too.
func gains(changes []api.GrantChange) bool {
	return slices.ContainsFunc(changes, func(c api.GrantChange) bool { return c.Change == grantNew || len(c.Gains) > 0 })
}

// without returns what is in list and not in other.
func without(list, other []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(other, s) {
			out = append(out, s)
		}
	}
	return out
}

// unused returns the grants that functions keep and have not used for long, as far as that is known: publish grants are used by
// a result, and not counted here.
func (d *Deployer) unused(ns ident.Namespace, old, next *app, now time.Time) []api.GrantChange {
	if old == nil || d.cfg.LastUsed == nil {
		return nil
	}
	var out []api.GrantChange
	for _, name := range slices.Sorted(maps.Keys(next.functions)) {
		was := old.functions[name]
		if was == nil || now.Sub(was.Deployed) < unusedAfter {
			continue
		}
		for _, g := range slices.Sorted(maps.Keys(next.functions[name].Grants)) {
			grant := next.functions[name].Grants[g]
			if _, had := was.Grants[g]; !had || grant.Kind() == manifest.KindPublish {
				continue
			}
			since := was.Deployed
			if last := d.cfg.LastUsed(ns, name, g); last.After(since) {
				since = last
			}
			if idle := now.Sub(since); idle >= unusedAfter {
				out = append(out, api.GrantChange{
					Function: string(name), Grant: g, Kind: grant.Kind(), Change: grantUnused, UnusedDays: int(idle / (24 * time.Hour)),
				})
			}
		}
	}
	return out
}
