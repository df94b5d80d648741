package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/event"
	"sallyport/internal/filter"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/schema"
	"sallyport/internal/store"
)

// State is what is active in a namespace at one moment. It is immutable.
type State struct {
	Functions     map[ident.FunctionName]*Function
	EventTypes    map[ident.EventType]*EventType
	Subscriptions map[ident.SubscriptionName]*Subscription
	// Held is how much all that is. Of modules that a server before there were quotas stored, the size is not known.
	Held Held
	// revisions are those of the apps.
	revisions map[ident.AppName]int
	index     *filter.Index[*Subscription]
}

// EventType is a type that an app describes.
type EventType struct {
	App ident.AppName
	// Schema is what data of the type must satisfy; nil accepts anything.
	Schema *schema.Schema
	text   string
}

// Subscription hands events to a function.
type Subscription struct {
	Name     ident.SubscriptionName
	App      ident.AppName
	Function *Function
	Filter   filter.Filter
	// When is the condition beyond the filter, nil for none; WhenText is its source.
	When     *filter.When
	WhenText string
	Retry    manifest.Retry
	// From is the first position the subscription gets: where the log ended when it was created.
	From   ident.Position
	Paused bool
}

// Function is one deployed function.
type Function struct {
	Name      ident.FunctionName
	App       ident.AppName
	Revision  int // of the app, when this function last changed
	Kind      string
	Digest    string
	Limits    cell.Limits
	Publishes []ident.EventType
	// Secrets are those that its grants use, and Reveals those of them whose value it reads.
	Secrets, Reveals []ident.SecretRef
	// Grants are all of the function, by their names; Publishes are the types of those that publish.
	Grants   map[string]manifest.Grant
	Deployed time.Time
	By       ident.PrincipalID
	// Approval says who approved what it gained last, nil when nobody had to.
	Approval *api.FunctionApproval

	source string // the file it came from, for messages
	module *moduleHandle
}

// Emits reports whether what the function does can make events: it publishes, or calls functions.
func (f *Function) Emits() bool {
	if len(f.Publishes) > 0 {
		return true
	}
	for _, g := range f.Grants {
		if g.Kind() == manifest.KindInvoke {
			return true
		}
	}
	return false
}

// Publish reports whether the function's grants let it publish typ.
func (f *Function) Publish(typ ident.EventType) bool {
	return slices.Contains(f.Publishes, typ)
}

// Doors returns the doors of the function's grants. They are closed after the last invocation of a replaced revision.
func (f *Function) Doors() *grant.Set { return f.module.doors }

// ErrReplaced is returned by Acquire for a revision that was replaced more than once since its State was
// read, so that its code is gone: read the State again.
var ErrReplaced = errors.New("the revision was replaced, and its code is removed")

// Acquire returns the function's cell, loading it when it is not in memory. The caller calls release
// when its invocation is over; a replaced revision is freed after its last one.
func (f *Function) Acquire(ctx context.Context) (fn Cell, release func(), err error) {
	return f.module.acquire(ctx)
}

// Match calls visit for each subscription that e is for: its filter matches, its When is true, and e
// stands at or after its From. When a condition cannot be evaluated, visit gets the error: the
// event must not be lost because of it.
func (s *State) Match(e *event.Record, visit func(*Subscription, error)) {
	s.index.Match(&e.Event, func(sub *Subscription) {
		if e.Position < sub.From {
			return
		}
		if sub.When == nil {
			visit(sub, nil)
			return
		}
		if ok, err := sub.When.Match(&e.Event); ok || err != nil {
			visit(sub, err)
		}
	})
}

func newState(apps map[ident.AppName]*app) *State {
	s := &State{
		Functions:     map[ident.FunctionName]*Function{},
		EventTypes:    map[ident.EventType]*EventType{},
		Subscriptions: map[ident.SubscriptionName]*Subscription{},
		revisions:     map[ident.AppName]int{},
	}
	var entries []filter.Entry[*Subscription]
	for _, a := range apps {
		s.revisions[a.name] = a.stored.Revision
		for n, f := range a.functions {
			s.Functions[n] = f
		}
		for n, t := range a.eventTypes {
			s.EventTypes[n] = t
		}
		for n, sub := range a.subscriptions {
			s.Subscriptions[n] = sub
		}
	}
	// In order of name, so that an event is handed out in the same order every time.
	for _, n := range slices.Sorted(maps.Keys(s.Subscriptions)) {
		entries = append(entries, filter.Entry[*Subscription]{Filter: s.Subscriptions[n].Filter, Value: s.Subscriptions[n]})
	}
	s.index, s.Held = filter.NewIndex(entries), heldBy(apps)
	return s
}

// Describe returns the function as the API shows it.
func (f *Function) Describe() api.Function {
	out := api.Function{
		Name: string(f.Name), App: string(f.App), Revision: f.Revision, Kind: f.Kind, Digest: f.Digest,
		Memory: f.Limits.Memory, Timeout: f.Limits.Timeout.String(), MinInstances: f.Limits.MinInstances, Deployed: f.Deployed, By: string(f.By),
		Approval: f.Approval,
	}
	for _, t := range f.Publishes {
		out.Publishes = append(out.Publishes, string(t))
	}
	for _, name := range slices.Sorted(maps.Keys(f.Grants)) {
		out.Grants = append(out.Grants, describeGrant(name, f.Grants[name]))
	}
	return out
}

// Describe returns the subscription as the API shows it, without its counters.
func (s *Subscription) Describe() api.Subscription {
	return api.Subscription{
		Name: string(s.Name), App: string(s.App), Function: string(s.Function.Name),
		Filter: api.Filter{Type: s.Filter.Type.String(), Source: s.Filter.Source.String(), Subject: s.Filter.Subject.String()},
		When:   s.WhenText, Paused: s.Paused,
		Retry: api.Retry{
			Attempts: s.Retry.Attempts, Backoff: s.Retry.Backoff.String(),
			MaxBackoff: s.Retry.MaxBackoff.String(), MaxAge: s.Retry.MaxAge.String(),
		},
	}
}

// moduleHandle is the loaded code of one function with its limits. Revisions that differ in neither
// share it.
type moduleHandle struct {
	load      func(context.Context) (Cell, error)
	doors     *grant.Set
	residents *residents
	pinned    bool         // it has instances that wait, so it is loaded as long as it is not retired
	used      atomic.Int64 // when it was last acquired, in Unix nanoseconds

	mu      sync.Mutex
	fn      Cell // nil while it is not in memory
	users   int
	retired bool
}

func (m *moduleHandle) acquire(ctx context.Context) (Cell, func(), error) {
	m.used.Store(time.Now().UnixNano())
	fn, loaded, err := m.hold(ctx)
	if err != nil {
		return nil, nil, err
	}
	if loaded {
		m.residents.trim(ctx)
	}
	return fn, m.release, nil
}

// hold returns the function with one more user, loading it when it is not in memory.
func (m *moduleHandle) hold(ctx context.Context) (fn Cell, loaded bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fn == nil {
		// Others wait for the compiler here, instead of compiling the same again.
		if m.fn, err = m.load(ctx); err != nil {
			m.fn = nil
			if m.retired && errors.Is(err, store.ErrNotFound) {
				err = ErrReplaced
			}
			return nil, false, fmt.Errorf("load function: %w", err)
		}
		m.residents.add(m, m.fn.Resident())
		loaded = true
	}
	m.users++
	return m.fn, loaded, nil
}

// unload frees the function until it is acquired again, unless somebody uses it.
func (m *moduleHandle) unload(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users == 0 && m.fn != nil && m.load != nil {
		m.free(ctx)
	}
}

// free frees the function. m.mu is held.
func (m *moduleHandle) free(ctx context.Context) {
	// A failure to free is a leak of compiled code, nothing a caller could act on.
	_ = m.fn.Close(ctx)
	m.fn = nil
	m.residents.remove(m)
}

func (m *moduleHandle) setLoad(load func(context.Context) (Cell, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load = load
}

func (m *moduleHandle) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users--
	m.closeUnused()
}

// retire frees the module once nobody uses it.
func (m *moduleHandle) retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired = true
	m.closeUnused()
}

func (m *moduleHandle) closeUnused() {
	if !m.retired || m.users > 0 {
		return
	}
	if m.fn != nil {
		m.free(context.Background())
	}
	if m.doors != nil {
		go m.doors.Close() // waits for what a door is doing, which is nothing to whoever retires a revision
	}
}

func functionNotFound(name ident.FunctionName) error {
	return problem.New(problem.NotFound, "deploy.function_not_found", "there is no function %q", clip(string(name))).
		WithHint("list them with `sallyport function list`")
}

// Function returns the function called name, or a NotFound problem.
func (s *State) Function(name ident.FunctionName) (*Function, error) {
	if f := s.Functions[name]; f != nil {
		return f, nil
	}
	return nil, functionNotFound(name)
}
