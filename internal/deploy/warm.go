package deploy

import (
	"cmp"
	"context"
	"slices"

	"sallyport/internal/ident"
)

const (
	// warmFunctions is how many functions a start loads at most: many more would be a load of their own.
	warmFunctions = 64
	// warmShare is the part of the memory for functions that a start takes at most, as a divisor: the rest is for
	// those that events ask for.
	warmShare = 2
)

// Warm loads functions that are not in memory, those that were invoked most lately first, then those that were deployed last, so
// that the first event of one need not wait for its code. It stops at some number of them, at a part of the memory there is for functions, and when
// ctx ends; a function that cannot be loaded is left to its first event, which says why.
func (d *Deployer) Warm(ctx context.Context) {
	type ranked struct {
		*Function
		invoked int64
	}
	var all []ranked
	for ns, state := range *d.states.Load() {
		var invoked map[ident.FunctionName]int64
		if d.cfg.Invoked != nil {
			invoked = d.cfg.Invoked(ns)
		}
		for _, f := range state.Functions {
			all = append(all, ranked{f, invoked[f.Name]})
		}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.invoked, a.invoked), b.Deployed.Compare(a.Deployed), cmp.Compare(a.Name, b.Name))
	})
	for _, f := range all[:min(len(all), warmFunctions)] {
		if ctx.Err() != nil || d.residents.taken() >= d.cfg.Memory/warmShare {
			return
		}
		_, release, err := f.module.acquire(ctx)
		if err != nil {
			d.cfg.Logger.DebugContext(ctx, "load a function at the start", "function", string(f.Name), "error", err)
			continue
		}
		release()
	}
}
