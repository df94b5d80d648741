// Package namespace keeps which namespaces a server has, who owns each, and what each may use.
//
// A namespace is one record in the store. It is active from the one write that makes the record; it is
// deleting from the write that says so, and gone with the record, which is removed last. So a crash leaves
// a namespace that is, one that is not, or one whose deletion the next start completes.
//
// It decides nothing: policy says what owners may do, and learns of them through Changed. It removes nothing but
// the record: server removes what a namespace holds. Quotas of what is counted are checked where the count is
// kept; the package says what is too much, and in which words. Admission of events is in admit.go.
//
// Callers: httpapi (Create, Update, Get, List), server (Open, Close, Delete), and through the functions that server hands
// on: deploy, access and ingress.
package namespace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// What the policies of a namespace begin with.
const (
	// PoliciesRoles has the roles of tokens and mappings mean what they mean everywhere.
	PoliciesRoles = "roles"
	// PoliciesNone has roles permit nothing but for that of an operator: what its owners' policies do not permit is denied.
	PoliciesNone = "none"
)

// Whether a second principal approves what the functions of a namespace gain.
const (
	ApprovalsNone  = "none"
	ApprovalsGains = "gains"
)

// The states of a namespace.
const (
	stateActive   = "active"
	stateDeleting = "deleting"
)

const (
	// most bounds the namespaces of a server: each has an event log and a dispatcher of its own.
	most = 1000
	// maxOwners bounds the owners of a namespace, and maxOwnerID the id of one, in bytes.
	maxOwners  = 100
	maxOwnerID = 1000
	// closedPause is when to come again to a namespace that is being deleted.
	closedPause = time.Second
)

// Bucket is where namespaces are kept; store.Bucket is one.
type Bucket interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]store.Entry, error)
}

// Registry is the namespaces of a server. It is safe for concurrent use.
type Registry struct {
	bucket Bucket
	// changed is told of all namespaces before a change of them can be seen.
	changed func([]policy.NamespaceFacts)
	measure func(ident.Namespace) (Measure, error)
	kept    Kept

	mu      sync.Mutex // one change at a time
	current atomic.Pointer[map[ident.Namespace]*entry]
}

// entry is one namespace. It is immutable, but for its gate.
type entry struct {
	stored
	closed bool // to requests, for it is being deleted, or may be about to
	gate   *gate
}

// stored is the form in the store.
type stored struct {
	State     string           `json:"state"`
	Owners    []string         `json:"owners"`
	Policies  string           `json:"policies"`
	Approvals string           `json:"approvals,omitempty"` // "" is none
	Quotas    map[string]int64 `json:"quotas"`
	Created   time.Time        `json:"created"`
	CreatedBy string           `json:"created_by"`
}

// Open returns the namespaces in bucket, with those in others, which a server before there were records left.
func Open(ctx context.Context, bucket Bucket, others []ident.Namespace) (*Registry, error) {
	entries, err := bucket.List(ctx, "", "", 0)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	all := make(map[ident.Namespace]*entry, len(entries))
	for _, e := range entries {
		one := &entry{gate: &gate{}}
		if err := json.Unmarshal(e.Value, &one.stored); err != nil {
			return nil, fmt.Errorf("decode the namespace %q: %w", e.Key, err)
		}
		if one.State != stateActive && one.State != stateDeleting {
			return nil, fmt.Errorf("the namespace %q in the store has the state %q", e.Key, one.State)
		}
		one.closed = one.State == stateDeleting
		all[ident.Namespace(e.Key)] = one
	}
	r := &Registry{bucket: bucket}
	for _, ns := range others {
		if all[ns] == nil {
			all[ns] = fresh("")
		}
	}
	r.current.Store(&all)
	return r, nil
}

// fresh returns a namespace that nobody said anything about.
func fresh(by ident.PrincipalID) *entry {
	return &entry{gate: &gate{}, stored: stored{
		State: stateActive, Policies: PoliciesRoles, Created: time.Now().UTC().Truncate(time.Second), CreatedBy: string(by),
	}}
}

// Changed has f told of all namespaces, now and before each change can be seen. It is called once, before the registry is
// used by others.
func (r *Registry) Changed(f func([]policy.NamespaceFacts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = f
	f(facts(*r.current.Load()))
}

func facts(all map[ident.Namespace]*entry) []policy.NamespaceFacts {
	out := make([]policy.NamespaceFacts, 0, len(all))
	for _, ns := range slices.Sorted(maps.Keys(all)) {
		f := policy.NamespaceFacts{Name: ns, NoRoles: all[ns].Policies == PoliciesNone}
		for _, o := range all[ns].Owners {
			f.Owners = append(f.Owners, ident.PrincipalID(o))
		}
		out = append(out, f)
	}
	return out
}

// show makes e what ns is from now on; nil for no namespace. r.mu is held.
func (r *Registry) show(ns ident.Namespace, e *entry) {
	next := maps.Clone(*r.current.Load())
	if e == nil {
		delete(next, ns)
	} else {
		next[ns] = e
	}
	if r.changed != nil {
		r.changed(facts(next))
	}
	r.current.Store(&next)
}

// save stores e and then shows it. Whether the caller waits has no bearing on a write that was begun. r.mu is held.
func (r *Registry) save(ctx context.Context, ns ident.Namespace, e *entry) error {
	text, err := json.Marshal(&e.stored, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode namespace: %w", err)
	}
	ctx = context.WithoutCancel(ctx)
	if err := r.bucket.Put(ctx, string(ns), text); err != nil {
		// The write may have been made all the same: what is there decides.
		if there, getErr := r.bucket.Get(ctx, string(ns)); getErr != nil || string(there) != string(text) {
			return unavailable(err)
		}
	}
	r.show(ns, e)
	return nil
}

// Create makes a namespace, on behalf of by. One that is there as it is asked for is no error: created is false then.
func (r *Registry) Create(ctx context.Context, by ident.PrincipalID, req *api.NamespaceRequest) (created bool, err error) {
	ns, err := ident.ParseNamespace(req.Name)
	if err != nil {
		return false, invalid(problem.Fault{Pointer: "/name", Detail: err.Error()})
	}
	e := fresh(by)
	e.Owners, e.Quotas = normal(req.Owners), quotas(nil, req.Quotas)
	if req.Policies != "" {
		e.Policies = req.Policies
	}
	e.Approvals = cmp.Or(req.Approvals, ApprovalsNone)
	if err := validate(&e.stored, req.Quotas); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if there := (*r.current.Load())[ns]; there != nil {
		if err := there.open(ns); err != nil {
			return false, err
		}
		if slices.Equal(there.Owners, e.Owners) && there.Policies == e.Policies &&
			cmp.Or(there.Approvals, ApprovalsNone) == e.Approvals && maps.Equal(there.Quotas, e.Quotas) {
			return false, nil
		}
		return false, problem.New(problem.Conflict, "namespace.exists", "there is a namespace %q already, with other owners, quotas, policies or approvals", ns).
			WithHint("see it with `sallyport namespace get %s`, change it with `sallyport namespace update %s`", ns, ns)
	}
	return true, r.add(ctx, ns, e)
}

// Ensure makes ns unless it exists: what an app or a token of a new namespace does.
func (r *Registry) Ensure(ctx context.Context, ns ident.Namespace) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if there := (*r.current.Load())[ns]; there != nil {
		return there.open(ns)
	}
	return r.add(ctx, ns, fresh(""))
}

func (r *Registry) add(ctx context.Context, ns ident.Namespace, e *entry) error {
	if len(*r.current.Load()) >= most {
		return problem.New(problem.Exhausted, "namespace.too_many", "there are %d namespaces, which is the most", most)
	}
	return r.save(ctx, ns, e)
}

// Update changes a namespace.
func (r *Registry) Update(ctx context.Context, ns ident.Namespace, req *api.NamespaceUpdate) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := (*r.current.Load())[ns]
	if there == nil {
		return NotFound(ns)
	}
	if err := there.open(ns); err != nil {
		return err
	}
	next := *there
	if req.Owners != nil {
		next.Owners = normal(*req.Owners)
	}
	if req.Policies != "" {
		next.Policies = req.Policies
	}
	next.Approvals = cmp.Or(req.Approvals, there.Approvals)
	next.Quotas = quotas(there.Quotas, req.Quotas)
	if err := validate(&next.stored, req.Quotas); err != nil {
		return err
	}
	if err := r.save(ctx, ns, &next); err != nil {
		return err
	}
	next.gate.forget() // what came while nothing was bounded was not counted
	return nil
}

// normal returns owners in order, each once.
func normal(owners []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(owners)))
}

// validate reports every fault of what was asked for.
func validate(of *stored, quotas map[string]int64) error {
	owners := of.Owners
	var faults []problem.Fault
	fault := func(pointer, format string, args ...any) {
		faults = append(faults, problem.Fault{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
	if len(owners) > maxOwners {
		fault("/owners", "at most %d", maxOwners)
		owners = nil
	}
	for _, o := range owners {
		p, err := policy.ParsePrincipal(o)
		switch {
		case len(o) > maxOwnerID:
			fault("/owners", "an id has at most %d bytes", maxOwnerID)
		case err != nil:
			fault("/owners", "%v", err)
		case p.Kind == policy.KindFunction:
			fault("/owners", "%s: a function owns nothing; want a user, a service or a token", o)
		}
	}
	if of.Policies != PoliciesRoles && of.Policies != PoliciesNone {
		fault("/policies", "want %s or %s", PoliciesRoles, PoliciesNone)
	}
	if of.Approvals != "" && of.Approvals != ApprovalsNone && of.Approvals != ApprovalsGains {
		fault("/approvals", "want %s or %s", ApprovalsNone, ApprovalsGains)
	}
	for _, name := range slices.Sorted(maps.Keys(quotas)) {
		switch {
		case !slices.Contains(QuotaNames(), name):
			fault("/quotas", "there is no quota %q; want %s", clip(name), strings.Join(QuotaNames(), ", "))
		case quotas[name] < 0 || quotas[name] > maxQuota:
			fault("/quotas/"+name, "want 0, which is no quota, to %d", maxQuota)
		}
	}
	if len(faults) > 0 {
		return invalid(faults...)
	}
	return nil
}

func invalid(faults ...problem.Fault) error {
	return problem.New(problem.Invalid, "namespace.invalid", "the namespace cannot be like this").WithFaults(faults...)
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// Exists reports whether ns exists. One that is being deleted does not.
func (r *Registry) Exists(ns ident.Namespace) bool {
	e := (*r.current.Load())[ns]
	return e != nil && e.State == stateActive
}

// Names returns every namespace that exists, in order of name.
func (r *Registry) Names() []ident.Namespace { return r.in(stateActive) }

// Deleting returns the namespaces whose deletion was begun and is not over.
func (r *Registry) Deleting() []ident.Namespace { return r.in(stateDeleting) }

// in returns the namespaces in a state, in order of name.
func (r *Registry) in(state string) []ident.Namespace {
	var out []ident.Namespace
	for ns, e := range *r.current.Load() {
		if e.State == state {
			out = append(out, ns)
		}
	}
	slices.Sort(out)
	return out
}

// Approvals reports whether a second principal has to approve what functions of ns gain. Of a namespace that is not known, nobody
// said so.
func (r *Registry) Approvals(ns ident.Namespace) bool {
	e := (*r.current.Load())[ns]
	return e != nil && e.Approvals == ApprovalsGains
}

// Get returns a namespace, without what it uses.
func (r *Registry) Get(ns ident.Namespace) (*api.Namespace, error) {
	e := (*r.current.Load())[ns]
	if e == nil {
		return nil, NotFound(ns)
	}
	return e.describe(ns), nil
}

// List returns all namespaces, those being deleted too, in order of name, without what they use.
func (r *Registry) List() []api.Namespace {
	var out []api.Namespace
	for ns, e := range *r.current.Load() {
		out = append(out, *e.describe(ns))
	}
	slices.SortFunc(out, func(a, b api.Namespace) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (e *entry) describe(ns ident.Namespace) *api.Namespace {
	out := &api.Namespace{
		Name: string(ns), State: e.State, Owners: append([]string{}, e.Owners...), Policies: e.Policies,
		Approvals: cmp.Or(e.Approvals, ApprovalsNone), Quotas: map[string]int64{},
		Created: e.Created, CreatedBy: e.CreatedBy,
	}
	maps.Copy(out.Quotas, e.Quotas)
	return out
}

// NotFound is the problem of a namespace that does not exist.
func NotFound(ns ident.Namespace) error {
	return problem.New(problem.NotFound, "server.namespace_not_found", "there is no namespace %q", ns).
		WithHint("`sallyport namespace create %s` makes it; list those you may see with `sallyport namespace list`", ns)
}

// open returns why requests may not use the namespace.
func (e *entry) open(ns ident.Namespace) error {
	if !e.closed {
		return nil
	}
	p := problem.New(problem.Unavailable, "namespace.closed", "the namespace %q is being deleted", ns).WithRetryAfter(closedPause)
	if e.State == stateDeleting {
		return p.WithHint("if it does not end, `sallyport namespace delete %s` goes on with it, and so does a restart of the server", ns)
	}
	return p
}

// Open returns nil when requests may use ns, or may make it.
func (r *Registry) Open(ns ident.Namespace) error {
	if e := (*r.current.Load())[ns]; e != nil {
		return e.open(ns)
	}
	return nil
}

// Close has requests refused in ns, for it is to be deleted; Reopen ends that.
func (r *Registry) Close(ns ident.Namespace) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := (*r.current.Load())[ns]
	switch {
	case there == nil:
		return NotFound(ns)
	case ns == ident.DefaultNamespace:
		return problem.New(problem.Conflict, "namespace.built_in", "the namespace %q is there on every server and cannot be deleted", ns)
	}
	next := *there
	next.closed = true
	r.show(ns, &next)
	return nil
}

// Reopen takes back a Close. A namespace whose deletion was begun stays closed.
func (r *Registry) Reopen(ns ident.Namespace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if there := (*r.current.Load())[ns]; there != nil && there.State == stateActive {
		next := *there
		next.closed = false
		r.show(ns, &next)
	}
}

// Begin notes that ns is being deleted: from then on it will be, whatever happens. It is closed already.
func (r *Registry) Begin(ctx context.Context, ns ident.Namespace) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := (*r.current.Load())[ns]
	if there == nil {
		return NotFound(ns)
	}
	next := *there
	next.State, next.closed = stateDeleting, true
	return r.save(ctx, ns, &next)
}

// Forget removes the record of ns, of which nothing is left.
func (r *Registry) Forget(ctx context.Context, ns ident.Namespace) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.bucket.Delete(context.WithoutCancel(ctx), string(ns)); err != nil {
		return unavailable(err)
	}
	r.show(ns, nil)
	return nil
}

// unavailable hides an error of the store that says nothing to a user.
func unavailable(err error) error {
	if _, ok := errors.AsType[*problem.Error](err); ok {
		return err
	}
	return problem.New(problem.Unavailable, "namespace.unavailable", "the namespace could not be stored").
		WithHint("do the same again; it does no harm if it was done already").WithRetryAfter(time.Second).WithCause(err)
}
