package deploy

import (
	"maps"
	"slices"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
)

// doors returns the doors of a function's grants.
func (d *Deployer) doors(ns ident.Namespace, f *Function) *grant.Set {
	return grant.NewSet(d.cfg.Grants, ns, f.Name, f.Revision, f.Grants)
}

// used returns the grants that a function uses while it runs.
func used(f manifest.Function) map[string]manifest.Grant {
	out := map[string]manifest.Grant{}
	for name, g := range f.Grants {
		if g.Kind() != manifest.KindPublish {
			out[name] = g
		}
	}
	return out
}

// grantSpecs returns what a module may know of its function's grants, by their names.
func grantSpecs(grants map[string]manifest.Grant) []cell.GrantSpec {
	var out []cell.GrantSpec
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		g := grants[name]
		out = append(out, cell.GrantSpec{Name: name, Kind: g.Kind(), Request: int(g.Limits.Request), Reply: int(g.Limits.Reply)})
	}
	return out
}

// grantText returns all that the manifest says of a grant, as a text that is the same for the same.
func grantText(g manifest.Grant) string {
	text, err := json.Marshal(g, json.Deterministic(true))
	if err != nil {
		panic("BUG: a grant cannot be written: " + err.Error())
	}
	return string(text)
}

func sameGrants(a, b map[string]manifest.Grant) bool {
	return maps.EqualFunc(a, b, func(a, b manifest.Grant) bool { return grantText(a) == grantText(b) })
}

// describeGrant returns a grant as the API shows it.
func describeGrant(name string, g manifest.Grant) api.Grant {
	return api.Grant{
		Name: name, Kind: g.Kind(), Reaches: g.Reaches(), Rate: g.Limits.Rate, Concurrency: g.Limits.Concurrency, Timeout: g.Limits.Timeout.String(),
		RequestBytes: g.Limits.Request, ReplyBytes: g.Limits.Reply,
	}
}
