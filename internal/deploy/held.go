package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/store"
)

// Held is how much the apps of a namespace hold together.
type Held struct {
	Functions, Subscriptions int
	// ModuleBytes are of the modules and source maps of the functions, those that are alike counted for each.
	ModuleBytes int64
}

// held returns what the apps of ns hold, without one of them. d.mu is held.
func (d *Deployer) held(ctx context.Context, ns ident.Namespace, except *app) (out Held, err error) {
	others := maps.Clone(d.apps[ns])
	if except != nil {
		delete(others, except.name)
	}
	for _, a := range others {
		for name, f := range a.stored.Functions {
			if f.Size == 0 {
				if f.Size, err = d.sizeOf(ctx, &f); err != nil {
					return out, err
				}
				a.stored.Functions[name] = f
			}
		}
	}
	return heldBy(others), nil
}

// heldBy returns what apps hold, as far as it is known without reading a module.
func heldBy(apps map[ident.AppName]*app) (out Held) {
	for _, a := range apps {
		out.Functions += len(a.functions)
		out.Subscriptions += len(a.subscriptions)
		for _, f := range a.stored.Functions {
			out.ModuleBytes += f.Size
		}
	}
	return out
}

// sizeOf reads how large the module of a function is, which was stored without its size.
func (d *Deployer) sizeOf(ctx context.Context, f *storedFunction) (n int64, err error) {
	for _, digest := range []string{f.Blob, f.SourceMap} {
		if digest == "" {
			continue
		}
		content, err := d.cfg.Blobs.Get(ctx, digest)
		if err != nil {
			return 0, fmt.Errorf("read how large a module is: %w", err)
		}
		n += int64(len(content))
	}
	return n, nil
}

// checkHeld refuses an app with which its namespace would hold more than it may. d.mu is held.
func (d *Deployer) checkHeld(ctx context.Context, ns ident.Namespace, bundle *api.Bundle, old, next *app) error {
	if d.cfg.Within == nil {
		return nil
	}
	held, err := d.held(ctx, ns, old)
	if err != nil {
		return unavailable(err)
	}
	held.Functions += len(next.functions)
	held.Subscriptions += len(next.subscriptions)
	for name := range next.functions {
		module := bundle.Modules[string(name)]
		held.ModuleBytes += int64(len(module.Code) + len(module.SourceMap))
	}
	return d.cfg.Within(ns, held)
}

// RemoveNamespace removes all apps of ns and what only they have. It may be called again after an error.
func (d *Deployer) RemoveNamespace(ctx context.Context, ns ident.Namespace) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.removeApprovals(ctx, ns); err != nil {
		return err
	}
	used := map[string]bool{}
	for other, apps := range d.apps {
		for _, a := range apps {
			for _, b := range append(a.stored.blobs(), a.stored.Stale...) {
				used[b] = used[b] || other != ns
			}
		}
	}
	for _, a := range d.apps[ns] {
		for _, f := range a.functions {
			f.module.retire()
		}
		for _, b := range append(a.stored.blobs(), a.stored.Stale...) {
			if used[b] {
				continue
			}
			if err := d.cfg.Blobs.Delete(ctx, b); err != nil && !errors.Is(err, store.ErrNotFound) {
				return unavailable(err)
			}
		}
		if err := d.cfg.Apps.Delete(ctx, string(ns)+"/"+string(a.name)); err != nil {
			return unavailable(err)
		}
	}
	// The mark that servers before there were records left of a namespace.
	if err := d.cfg.Apps.Delete(ctx, string(ns)+"/"); err != nil {
		return unavailable(err)
	}
	delete(d.apps, ns)
	d.unpublish(ns)
	d.cfg.Logger.InfoContext(ctx, "apps of a namespace removed", slog.String("namespace", string(ns)))
	return nil
}
