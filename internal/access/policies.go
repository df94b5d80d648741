package access

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

const (
	// MaxPolicyBytes bounds the texts of the policies that are applied together.
	MaxPolicyBytes = 1 << 20
	// maxFileName bounds the name of a file of policies, in bytes.
	maxFileName = 200
)

// PolicyOwner is what policies are applied with: an app of a namespace, or, without a namespace, a name that the
// operator gives to policies of the whole server.
type PolicyOwner struct {
	Namespace ident.Namespace
	Name      ident.AppName
}

func (o PolicyOwner) key() string { return string(o.Namespace) + "/" + string(o.Name) }

// Policies are the policies of a server beside those that are built in. They are stored, and what is stored is what the
// guard decides by. It is safe for concurrent use.
type Policies struct {
	bucket Bucket
	guard  *Guard

	mu    sync.Mutex // one change at a time
	files map[PolicyOwner]map[string]string
	facts []policy.NamespaceFacts
	open  func(ident.Namespace) error // nil: every namespace is
	// planned is the last change that was planned: who looks at a plan mostly applies it, and to compile costs far more than
	// to remember. It holds as long as the guard decides by the set that it changes.
	planned *PolicyChange
}

// storedPolicies is the form in the store.
type storedPolicies struct {
	Files map[string]string `json:"files"`
}

// OpenPolicies has the guard decide by what is in the bucket. Policies that are not valid any more are an error: to go
// on without one that forbids would open what it closes.
func OpenPolicies(ctx context.Context, bucket Bucket, guard *Guard) (*Policies, error) {
	p := &Policies{bucket: bucket, guard: guard, files: map[PolicyOwner]map[string]string{}}
	entries, err := bucket.List(ctx, "", "", 0)
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	for _, e := range entries {
		ns, name, _ := strings.Cut(e.Key, "/")
		var s storedPolicies
		if err := json.Unmarshal(e.Value, &s); err != nil {
			return nil, fmt.Errorf("decode the policies of %q: %w", e.Key, err)
		}
		p.files[PolicyOwner{ident.Namespace(ns), ident.AppName(name)}] = s.Files
	}
	set, err := compile(p.files)
	if err != nil {
		return nil, fmt.Errorf("load policies: %w", err)
	}
	guard.Use(set)
	return p, nil
}

// compile makes a set of files.
func compile(files map[PolicyOwner]map[string]string) (*policy.Set, error) {
	cfg, err := parse(files, func(PolicyOwner) bool { return true })
	if err != nil {
		return nil, err
	}
	return policy.NewWith(cfg)
}

// recompile returns the set with what changed for one owner: the policies of its namespace alone are compiled, and those of a whole
// server are with all others, for they are found together.
func recompile(set *policy.Set, owner PolicyOwner, files map[PolicyOwner]map[string]string) (*policy.Set, error) {
	if owner.Namespace == "" {
		return compile(files)
	}
	cfg, err := parse(files, func(o PolicyOwner) bool { return o.Namespace == owner.Namespace })
	if err != nil {
		return nil, err
	}
	if set, err = set.WithNamespace(owner.Namespace, cfg.Files...); err != nil {
		return nil, err
	}
	return set.WithPerimeters(owner.Namespace, cfg.Perimeters...)
}

// parse returns the files of some owners, in a fixed order.
func parse(files map[PolicyOwner]map[string]string, of func(PolicyOwner) bool) (cfg policy.Config, err error) {
	owners := slices.SortedFunc(maps.Keys(files), func(a, b PolicyOwner) int { return cmp.Compare(a.key(), b.key()) })
	for _, o := range owners {
		if !of(o) {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(files[o])) {
			text := []byte(files[o][name])
			if !strings.HasSuffix(name, manifest.PerimeterFile) {
				cfg.Files = append(cfg.Files, policy.File{Name: name, Text: text, Namespace: o.Namespace})
				continue
			}
			perimeters, err := manifest.ParsePerimeters(name, text, o.Namespace)
			if err != nil {
				return cfg, err
			}
			cfg.Perimeters = append(cfg.Perimeters, perimeters)
		}
	}
	return cfg, nil
}

// Principals returns those of all tokens that were not revoked.
func (t *Tokens) Principals() []policy.Principal {
	var out []policy.Principal
	for _, tok := range *t.byID.Load() {
		if tok.stored.Revoked == nil {
			out = append(out, tok.principal.policy)
		}
	}
	slices.SortFunc(out, func(a, b policy.Principal) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// PolicyChange is what applying policies would change.
type PolicyChange struct {
	Old, New *policy.Set
	// Created, Updated and Deleted are the ids of policies.
	Created, Updated, Deleted []string

	owner PolicyOwner
	files map[string]string
}

// None reports whether nothing would change.
func (c *PolicyChange) None() bool { return len(c.Created)+len(c.Updated)+len(c.Deleted) == 0 }

// Plan validates the files that are to be all policies of the owner, and says what would change. The error is a problem
// that names every fault of every file.
func (p *Policies) Plan(owner PolicyOwner, files map[string]string) (*PolicyChange, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plan(owner, files)
}

func (p *Policies) plan(owner PolicyOwner, files map[string]string) (*PolicyChange, error) {
	total := 0
	for name, text := range files {
		total += len(text)
		if name == "" || len(name) > maxFileName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, problem.New(problem.Invalid, "policy.invalid", "a file of policies has no name that can be shown")
		}
	}
	if total > MaxPolicyBytes {
		return nil, problem.New(problem.TooLarge, "policy.too_large", "the policies are %d bytes long, the limit is %d", total, MaxPolicyBytes)
	}
	now := p.guard.Set()
	if c := p.planned; c != nil && c.Old == now && c.owner == owner && maps.Equal(c.files, files) {
		return c, nil
	}
	all := maps.Clone(p.files)
	if delete(all, owner); len(files) > 0 {
		all[owner] = files
	}
	set, err := recompile(now, owner, all)
	if err != nil {
		return nil, err
	}
	set = set.WithFacts(p.facts)
	c := &PolicyChange{Old: now, New: set, owner: owner, files: maps.Clone(files)}
	c.compare()
	p.planned = c
	return c, nil
}

// compare finds the policies and perimeters that differ.
func (c *PolicyChange) compare() {
	before := describe(c.Old)
	for id, now := range describe(c.New) {
		was, there := before[id]
		delete(before, id)
		switch {
		case !there:
			c.Created = append(c.Created, id)
		case was != now:
			c.Updated = append(c.Updated, id)
		}
	}
	slices.Sort(c.Created)
	slices.Sort(c.Updated)
	c.Deleted = slices.Sorted(maps.Keys(before))
}

// describe returns everything in a set by its id, in a form that differs when it does.
func describe(s *policy.Set) map[string]string {
	out := map[string]string{}
	for one := range s.Policies() {
		out[one.ID] = one.Text
	}
	for _, one := range s.Perimeters() {
		out[one.ID] = fmt.Sprintf("%+v", one)
	}
	return out
}

// Apply makes the files all policies of the owner. They are stored, and then in force for everything that is asked
// from then on; after an error nothing has changed.
func (p *Policies) Apply(ctx context.Context, owner PolicyOwner, files map[string]string) (*PolicyChange, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open != nil && owner.Namespace != "" {
		if err := p.open(owner.Namespace); err != nil {
			return nil, err
		}
	}
	c, err := p.plan(owner, files)
	if err != nil || c.None() && maps.Equal(p.files[owner], files) {
		return c, err
	}
	text, err := json.Marshal(&storedPolicies{Files: files}, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode policies: %w", err)
	}
	// A write that was begun is brought to its end: what is in force and what is stored do not differ.
	ctx = context.WithoutCancel(ctx)
	if len(files) == 0 {
		err = p.bucket.Delete(ctx, owner.key())
	} else {
		err = p.bucket.Put(ctx, owner.key(), text)
	}
	if err != nil {
		return nil, problem.New(problem.Unavailable, "policy.unavailable", "the policies could not be stored; those before are in force").
			WithHint("try again; if it goes on, look at the server's disk").WithCause(err)
	}
	if delete(p.files, owner); len(files) > 0 {
		p.files[owner] = maps.Clone(files)
	}
	p.planned = nil
	p.guard.Use(c.New)
	return c, nil
}

// UseFacts has the guard decide with what is known of namespaces from now on.
func (p *Policies) UseFacts(list []policy.NamespaceFacts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.facts = list
	p.guard.Use(p.guard.Set().WithFacts(list))
}

// Within has open say whether policies of a namespace may be applied. It is called once, before Apply.
func (p *Policies) Within(open func(ident.Namespace) error) { p.open = open }

// RemoveNamespace removes all policies and perimeters of a namespace.
func (p *Policies) RemoveNamespace(ctx context.Context, ns ident.Namespace) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := maps.Clone(p.files)
	for o := range p.files {
		if o.Namespace == ns {
			delete(left, o)
		}
	}
	if len(left) == len(p.files) {
		return nil
	}
	set, err := compile(left)
	if err != nil {
		return err
	}
	for o := range p.files {
		if o.Namespace != ns {
			continue
		}
		if err := p.bucket.Delete(ctx, o.key()); err != nil {
			return problem.New(problem.Unavailable, "policy.unavailable", "the policies of the namespace could not be removed").WithCause(err)
		}
	}
	p.files = left
	p.guard.Use(set.WithFacts(p.facts))
	return nil
}
