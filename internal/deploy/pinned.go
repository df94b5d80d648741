package deploy

import (
	"context"
	"log/slog"
	"sync"

	"sallyport/internal/problem"
)

// checkPinned refuses an app with which the functions that are never unloaded would take more memory than
// loaded functions may. What is in memory by now counts: at a start, Pin may not have loaded all of them yet.
func (d *Deployer) checkPinned(old, next *app) error {
	asks := false
	for _, f := range next.functions {
		asks = asks || f.module.pinned
	}
	if !asks {
		return nil
	}
	var gone []*moduleHandle
	if old != nil {
		for name, f := range old.functions {
			if kept := next.functions[name]; kept == nil || kept.module != f.module {
				gone = append(gone, f.module)
			}
		}
	}
	bytes := d.residents.pinnedBytes(gone)
	if bytes <= d.residents.most {
		return nil
	}
	return problem.New(problem.Exhausted, "deploy.min_instances_too_large",
		"functions with min_instances would take %d bytes together, which is more than the %d bytes that loaded functions may take", bytes, d.residents.most).
		WithHint("lower min_instances in app.toml, or raise memory in [cells] of server.toml")
}

// pinsAtOnce is how many functions Pin loads at a time: a worker compiles on all processors as it is.
const pinsAtOnce = 2

// Pin loads the functions that have instances wait for them, and returns when it has, or when ctx has ended. One
// that cannot be loaded is logged: its next event tries it again. To be called once, after New.
func (d *Deployer) Pin(ctx context.Context) {
	turns := make(chan struct{}, pinsAtOnce)
	var all sync.WaitGroup
	for _, ns := range d.Found() {
		for _, f := range d.State(ns).Functions {
			if !f.module.pinned || ctx.Err() != nil {
				continue
			}
			turns <- struct{}{}
			all.Go(func() {
				defer func() { <-turns }()
				_, release, err := f.Acquire(ctx)
				switch {
				case err == nil:
					release()
				case ctx.Err() == nil:
					d.cfg.Logger.WarnContext(ctx, "a function has no instances that wait; its next event loads it",
						slog.String("namespace", string(ns)), slog.String("function", string(f.Name)), slog.Any("error", err))
				}
			})
		}
	}
	all.Wait()
	if bytes := d.residents.pinnedBytes(nil); bytes > d.residents.most {
		d.cfg.Logger.WarnContext(ctx, "functions with min_instances take more memory than loaded functions may; all others are unloaded after use",
			slog.Int64("bytes", bytes), slog.Int64("memory", d.residents.most))
	}
}
