// Package deploy applies apps and keeps what is active: functions, event types and subscriptions of
// each namespace.
//
// Apply checks everything before it changes anything, and switches with one write: an app is one
// value in the store, so a crash leaves the old one or the new one, whole. What is active is an
// immutable State behind an atomic pointer: readers on the way of every event take no lock.
//
// It does not authorise (httpapi asks the guard), deliver or run anything. Callers: httpapi (Apply,
// Pause, Resume, State), ingress and dispatch (State), server (New, Open).
package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/cell"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// Bucket is where apps are kept; store.Bucket is one.
type Bucket interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]store.Entry, error)
}

// Blobs is where modules are kept, by digest; store.Blobs is one.
type Blobs interface {
	Put(ctx context.Context, content []byte) (digest string, err error)
	Get(ctx context.Context, digest string) ([]byte, error)
	Delete(ctx context.Context, digest string) error
}

// Engine loads modules, in this process (InProcess) or behind a wall.
type Engine interface {
	Load(ctx context.Context, spec cell.Spec, limits cell.Limits) (Cell, error)
}

// Cell is a loaded function; *cell.Function is one.
type Cell interface {
	Invoke(ctx context.Context, in cell.Input) (cell.Result, cell.Usage, error)
	Kind() string
	// Resident returns about how much memory it takes while it is loaded and nobody uses it, in bytes.
	Resident() int64
	Close(ctx context.Context) error
}

// InProcess has functions run in this process.
func InProcess(e *cell.Engine) Engine { return inProcess{e} }

type inProcess struct{ engine *cell.Engine }

// Load implements Engine.
func (p inProcess) Load(ctx context.Context, spec cell.Spec, limits cell.Limits) (Cell, error) {
	f, err := p.engine.Load(ctx, spec, limits)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Namespaces are those of the server; namespace.Registry are.
type Namespaces interface {
	// Ensure makes a namespace unless it exists.
	Ensure(ctx context.Context, ns ident.Namespace) error
}

// Config says what a Deployer works with.
type Config struct {
	Apps   Bucket
	Blobs  Blobs
	Engine Engine
	// End returns the position that the next event of a namespace will stand at or after: a new
	// subscription gets events from there on.
	End func(ctx context.Context, ns ident.Namespace) (ident.Position, error)
	// Namespaces makes the namespace of an app that is new.
	Namespaces Namespaces
	// Within returns a problem when a namespace may not hold so much together.
	Within func(ns ident.Namespace, held Held) error
	// Memory is how much memory loaded functions may take together, in bytes. What is in use stays.
	Memory int64
	// CheckSecrets, when set, returns why functions must not be deployed that use the secrets they name.
	CheckSecrets func(ctx context.Context, ns ident.Namespace, functions []*Function) error
	// CheckText, when set, returns why a text that people wrote must not be taken: it holds the value of a secret. Hide takes such values out of an error.
	CheckText func(ctx context.Context, ns ident.Namespace, file string, text []byte) error
	Hide      func(ctx context.Context, ns ident.Namespace, err error) error
	// Grants is what the doors of functions are made of.
	Grants grant.Config
	// LastUsed returns when a function used a grant last, zero when it is not known to have; nil knows nothing.
	LastUsed func(ns ident.Namespace, function ident.FunctionName, grant string) time.Time
	// Invoked returns how often the functions of a namespace were invoked lately, as far as it is known; nil knows nothing.
	Invoked func(ns ident.Namespace) map[ident.FunctionName]int64
	// Approvals is where approvals are kept; without it, none is demanded.
	Approvals Bucket
	// ApprovalDemanded reports whether a second principal has to approve what functions of a namespace gain.
	ApprovalDemanded func(ns ident.Namespace) bool
	// Authority returns what is kept of whoever applies an app in ctx, to ask later whether they still may.
	Authority func(ctx context.Context) (string, error)
	Logger    *slog.Logger
}

// Deployer keeps the apps of all namespaces. It is safe for concurrent use.
type Deployer struct {
	cfg       Config
	residents *residents
	approvals approvals

	mu     sync.Mutex // one Apply, Pause or Resume at a time
	apps   map[ident.Namespace]map[ident.AppName]*app
	notify []func(ident.Namespace)

	states atomic.Pointer[map[ident.Namespace]*State]
}

// New returns a Deployer with everything that was applied before. Modules are loaded when they are
// first needed, so that a start does not wait for compilers.
func New(ctx context.Context, cfg Config) (*Deployer, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Deployer{cfg: cfg, residents: newResidents(cfg.Memory), apps: map[ident.Namespace]map[ident.AppName]*app{}}
	d.states.Store(&map[ident.Namespace]*State{})
	entries, err := cfg.Apps.List(ctx, "", "", 0)
	if err != nil {
		return nil, fmt.Errorf("list apps: %w", err)
	}
	for _, e := range entries {
		if err := d.restore(e); err != nil {
			return nil, fmt.Errorf("restore %q: %w", e.Key, err)
		}
	}
	for ns := range d.apps {
		d.publish(ns)
	}
	if err := d.restoreApprovals(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// State returns what is active in ns; never nil. It does not change: ask again for each event.
// Namespaces that nobody made have an empty one.
func (d *Deployer) State(ns ident.Namespace) *State {
	if s := (*d.states.Load())[ns]; s != nil {
		return s
	}
	return emptyState
}

// emptyState is what is active in a namespace without apps.
var emptyState = newState(nil)

// Found returns the namespaces that the store had something of, in order of name.
func (d *Deployer) Found() []ident.Namespace { return slices.Sorted(maps.Keys(*d.states.Load())) }

// ensure sees that ns exists. d.mu is held.
func (d *Deployer) ensure(ctx context.Context, ns ident.Namespace) error {
	if err := d.cfg.Namespaces.Ensure(ctx, ns); err != nil {
		return err
	}
	if d.apps[ns] == nil {
		d.apps[ns] = map[ident.AppName]*app{}
	}
	return nil
}

// OnChange has f called after each change of what is active in a namespace. f MUST NOT change
// anything here itself, and should be quick: whoever made the change waits for it.
func (d *Deployer) OnChange(f func(ident.Namespace)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notify = append(d.notify, f)
}

// publish makes the apps of ns the active state. d.mu is held, or nobody else has d yet.
func (d *Deployer) publish(ns ident.Namespace) {
	old := *d.states.Load()
	next := make(map[ident.Namespace]*State, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	next[ns] = newState(d.apps[ns])
	d.states.Store(&next)
	for _, f := range d.notify {
		f(ns)
	}
}

// unpublish makes ns one of which nothing is known. d.mu is held.
func (d *Deployer) unpublish(ns ident.Namespace) {
	next := maps.Clone(*d.states.Load())
	delete(next, ns)
	d.states.Store(&next)
}

// SetPaused pauses or resumes a subscription, and returns it as it is then.
func (d *Deployer) SetPaused(ctx context.Context, ns ident.Namespace, name ident.SubscriptionName, paused bool) (*Subscription, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.apps[ns] {
		sub := a.subscriptions[name]
		if sub == nil {
			continue
		}
		if sub.Paused == paused {
			return sub, nil
		}
		next := *a
		next.stored.Paused = withName(a.stored.Paused, string(name), paused)
		if err := d.save(ctx, ns, &next); err != nil {
			return nil, unavailable(err)
		}
		changed := *sub
		changed.Paused = paused
		next.subscriptions = maps.Clone(a.subscriptions)
		next.subscriptions[name] = &changed
		d.apps[ns][a.name] = &next
		d.publish(ns)
		return next.subscriptions[name], nil
	}
	return nil, problem.New(problem.NotFound, "deploy.subscription_not_found", "there is no subscription %q", clip(string(name))).
		WithHint("list them with `sallyport subscription list`")
}

// withName returns list with or without name.
func withName(list []string, name string, in bool) []string {
	var out []string
	for _, n := range list {
		if n != name {
			out = append(out, n)
		}
	}
	if in {
		out = append(out, name)
	}
	return out
}

// unavailable hides an error of the store that says nothing to a user.
func unavailable(err error) error {
	if _, ok := errors.AsType[*problem.Error](err); ok {
		return err
	}
	return problem.New(problem.Unavailable, "deploy.unavailable", "the store cannot be used at the moment").
		WithHint("do the same again; it does no harm if it was done already").WithRetryAfter(time.Second).WithCause(err)
}
