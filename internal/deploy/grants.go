package deploy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

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

// grantSpecs returns what a module may know of its function's grants, in order of their names.
func grantSpecs(grants map[string]manifest.Grant) []cell.GrantSpec {
	var out []cell.GrantSpec
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		g := grants[name]
		if g.Kind() == manifest.KindPublish {
			continue // it is no use while a function runs
		}
		out = append(out, cell.GrantSpec{Name: name, Kind: g.Kind(), About: about(g), Request: int(g.Limits.Request), Reply: int(g.Limits.Reply)})
	}
	return out
}

// about returns what a script has to know of a grant.
func about(g manifest.Grant) string {
	switch {
	case g.HTTP != nil:
		return strings.Join(g.HTTP.Methods, " ") + " " + g.HTTP.URL
	case g.Blob != nil: // how large the parts of an object can be
		return fmt.Sprintf("%d %d", g.Limits.Request, g.Limits.Reply)
	}
	return ""
}

// grantText returns all that the manifest says of a grant, as a text that is the same for the same.
func grantText(g manifest.Grant) string {
	nanoseconds := json.MarshalToFunc(func(to *jsontext.Encoder, d time.Duration) error { return to.WriteToken(jsontext.Int(int64(d))) })
	text, err := json.Marshal(g, json.Deterministic(true), json.WithMarshalers(nanoseconds))
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
		RequestBytes: g.Limits.Request, ReplyBytes: g.Limits.Reply, InvocationBytes: g.Limits.Bytes,
	}
}

// Close closes the doors of all functions, and waits for their uses to end. No invocation may be running any more.
func (d *Deployer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, apps := range d.apps {
		for _, a := range apps {
			for _, f := range a.functions {
				errs = append(errs, f.Doors().Close())
			}
		}
	}
	return errors.Join(errs...)
}
