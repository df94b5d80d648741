package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// maxSchemas bounds the schema texts of one bundle, in number; their size is the schema package's.
const maxSchemas = 1000

// maxFaults bounds the faults of one answer: a bundle can be wrong in as many ways as it has bytes.
const maxFaults = 100

// checkParts sees that the bundle has exactly what its manifest names.
func checkParts(m *manifest.App, bundle *api.Bundle) error {
	var faults []problem.Fault
	missing := func(format string, args ...any) {
		faults = append(faults, problem.Fault{File: manifestFile, Detail: fmt.Sprintf(format, args...)})
	}
	for name := range m.Functions {
		if _, ok := bundle.Modules[string(name)]; !ok {
			missing("function %q has no module in the bundle", name)
		}
	}
	for name := range bundle.Modules {
		if _, ok := m.Functions[ident.FunctionName(name)]; !ok {
			missing("the bundle has a module for %q, which is no function of the manifest", clip(name))
		}
	}
	named := map[string]bool{}
	for typ, t := range m.EventTypes {
		named[t.Schema] = true
		if _, ok := bundle.Schemas[t.Schema]; !ok && t.Schema != "" {
			missing("event type %q has no schema %q in the bundle", typ, t.Schema)
		}
	}
	for path := range bundle.Schemas {
		if !named[path] {
			missing("the bundle has a schema %q, which no event type of the manifest names", clip(path))
		}
	}
	if len(bundle.Schemas) > maxSchemas {
		missing("%d schemas, at most %d", len(bundle.Schemas), maxSchemas)
	}
	if len(faults) == 0 {
		return nil
	}
	sortFaults(faults)
	faults = faults[:min(len(faults), maxFaults)]
	return problem.New(problem.Invalid, "deploy.bundle_incomplete", "the bundle does not hold what its manifest names").
		WithHint("send it with `sallyport apply`").WithFaults(faults...)
}

// checkNames sees that no other app of the namespace has the same names: they are unique in it.
func (d *Deployer) checkNames(ns ident.Namespace, m *manifest.App) error {
	var faults []problem.Fault
	taken := func(kind, name string, owner ident.AppName) {
		faults = append(faults, problem.Fault{File: manifestFile, Detail: fmt.Sprintf("%s %q belongs to the app %q", kind, name, owner)})
	}
	for _, other := range d.apps[ns] {
		if other.name == m.Name {
			continue
		}
		for n := range m.Functions {
			if other.functions[n] != nil {
				taken("function", string(n), other.name)
			}
		}
		for n := range m.EventTypes {
			if other.eventTypes[n] != nil {
				taken("event type", string(n), other.name)
			}
		}
		for n := range m.Subscriptions {
			if other.subscriptions[n] != nil {
				taken("subscription", string(n), other.name)
			}
		}
	}
	if len(faults) == 0 {
		return nil
	}
	sortFaults(faults)
	return problem.New(problem.Conflict, "deploy.name_taken", "names in the manifest belong to another app of this namespace").
		WithHint("rename them, or apply to another namespace").WithFaults(faults...)
}

// checkSecrets asks about the functions that are new or changed and use secrets.
func (d *Deployer) checkSecrets(ctx context.Context, ns ident.Namespace, old, next *app) error {
	var list []*Function
	for _, name := range slices.Sorted(maps.Keys(next.functions)) {
		f := next.functions[name]
		if old != nil && old.functions[name] != nil && sameFunction(old.functions[name], f) {
			continue
		}
		if len(f.Secrets)+len(f.Reveals) > 0 {
			list = append(list, f)
		}
	}
	if d.cfg.CheckSecrets == nil || len(list) == 0 {
		return nil
	}
	return d.cfg.CheckSecrets(ctx, ns, list)
}

func sortFaults(faults []problem.Fault) {
	slices.SortFunc(faults, func(a, b problem.Fault) int { return strings.Compare(a.Detail, b.Detail) })
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// inFile says in which file of the bundle a fault is.
func inFile(err error, file string) error {
	p, ok := errors.AsType[*problem.Error](err)
	if !ok {
		return err
	}
	c := *p
	c.Faults = slices.Clone(p.Faults)
	for i := range c.Faults {
		if c.Faults[i].File == "" {
			c.Faults[i].File = file
		}
	}
	if len(c.Faults) == 0 {
		c.Faults = []problem.Fault{{File: file, Detail: p.Public}}
	}
	return &c
}
