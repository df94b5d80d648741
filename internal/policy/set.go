package policy

import (
	_ "embed"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

//go:embed rails.cedar
var railsText []byte

//go:embed roles.cedar
var rolesText []byte

//go:embed schema.cedarschema
var schemaText []byte

// builtIn is whose policies the guard rails and roles are; it is no namespace's name.
const builtIn ident.Namespace = "*"

// SchemaText returns the schema that policies are validated against, in Cedar's own form.
func SchemaText() string { return string(schemaText) }

// Set is a set of policies. It is immutable and safe for concurrent use.
type Set struct {
	schema *vocabulary
	// asks holds every question there is: what the schema does not know is denied before Cedar, whose
	// permits may be for any action.
	asks map[ask]bool
	// server has the guard rails, the roles and the policies of the whole server.
	server *index
	// own has the policies of each namespace. They are asked about its resources and about no others.
	own map[ident.Namespace]*index
	// borders has the perimeters of the server and of each namespace; nil without any.
	borders map[ident.Namespace]*frontier
	// transports are the contexts in which nothing but the transport is read: most decisions need no other.
	transports *transports
	// facts are what is known of namespaces; nil when nothing is.
	facts *facts
	// work is shared by all sets that are made of one.
	work *workspaces
}

// transports are contexts by their Transport.
type transports [TransportUnkept + 1]cedar.Record

func newTransports() *transports {
	var all transports
	for t := range all {
		c := Context{Transport: Transport(t)}
		all[t] = c.record(PartTransport, nil)
	}
	return &all
}

// ask is a kind of question: may a principal of this kind do this to a resource of this kind?
type ask struct {
	principal Kind
	action    Action
	resource  Kind
}

// New returns the built-in policies and those of the files. The error is a problem that names every fault
// of every file.
func New(files ...File) (*Set, error) {
	known, err := readSchema()
	if err != nil {
		return nil, err
	}
	asks, err := questions(known.resolved)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if _, err := ident.ParseNamespace(string(f.Namespace)); err != nil && f.Namespace != "" {
			return nil, problem.New(problem.Invalid, codeInvalid, "%s is of no namespace: %v", f.Name, err)
		}
	}
	base := &Set{schema: known, asks: asks, server: newIndex(nil), own: map[ident.Namespace]*index{}, transports: newTransports(), work: &workspaces{}}
	return base.read(append([]File{
		{Name: "rails.cedar", Text: railsText, Namespace: builtIn}, {Name: "roles.cedar", Text: rolesText, Namespace: builtIn},
	}, files...))
}

// WithNamespace returns the set with the policies of a namespace replaced by those of the files, all of which
// MUST be of that namespace; without files it has none. What is unchanged is shared, so a change of one
// namespace costs nothing for the others. A set with other policies for the whole server is made by New.
func (s *Set) WithNamespace(ns ident.Namespace, files ...File) (*Set, error) {
	if _, err := ident.ParseNamespace(string(ns)); err != nil {
		return nil, problem.New(problem.Invalid, codeInvalid, "policies of a namespace need its name")
	}
	for _, f := range files {
		if f.Namespace != ns {
			return nil, problem.New(problem.Invalid, codeInvalid, "%s is not of the namespace %q", f.Name, ns)
		}
	}
	next := *s
	next.own = maps.Clone(s.own)
	delete(next.own, ns)
	return next.read(files)
}

// read returns s with the policies of the files added.
func (s *Set) read(files []File) (*Set, error) {
	r := &reader{schema: s.schema, ids: map[ident.Namespace]map[string]string{}}
	lists := map[ident.Namespace][]*compiled{}
	count := map[ident.Namespace]int{}
	for i := range files {
		f := &source{name: files[i].Name, text: files[i].Text, ns: files[i].Namespace}
		if count[f.ns]++; count[f.ns] == MaxFiles+1 {
			r.fault(f, 0, 0, "there are more than %d files of policies for one namespace", MaxFiles)
		}
		if count[f.ns] > MaxFiles {
			continue
		}
		list := r.read(f)
		if before := len(lists[f.ns]); before <= MaxPolicies && before+len(list) > MaxPolicies {
			r.fault(f, 0, 0, "there are more than %d policies for one namespace", MaxPolicies)
		}
		lists[f.ns] = append(lists[f.ns], list...)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	next := &Set{schema: s.schema, asks: s.asks, server: s.server, own: maps.Clone(s.own), borders: s.borders, transports: s.transports, facts: s.facts, work: s.work}
	if added := slices.Concat(lists[builtIn], lists[""]); len(added) > 0 {
		next.server = newIndex(slices.Concat(s.server.all, added))
	}
	for ns, list := range lists {
		if ns != builtIn && ns != "" {
			next.own[ns] = newIndex(list)
		}
	}
	return next, nil
}

func readSchema() (*vocabulary, error) {
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar(schemaText); err != nil {
		return nil, fmt.Errorf("parse policy schema: %w", err)
	}
	out, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("resolve policy schema: %w", err)
	}
	v := &vocabulary{resolved: out, validator: validate.New(out), types: []string{"Action"}}
	for t := range out.Entities {
		v.types = append(v.types, string(t))
		if principalPrefix(Kind(t)) != "" {
			v.principals = append(v.principals, string(t))
		}
	}
	slices.Sort(v.types)
	v.ofAction = map[Action]*validate.Validator{}
	for uid := range out.Actions {
		one := *out
		one.Actions = maps.Clone(out.Actions)
		for other, def := range one.Actions {
			if other != uid {
				def.AppliesTo = nil // known by name still
				one.Actions[other] = def
			}
		}
		v.ofAction[Action(uid.ID)] = validate.New(&one)
	}
	return v, nil
}

// questions returns what the schema lets be asked. Each Action of this package is in it, and
// nothing else.
func questions(s *resolved.Schema) (map[ask]bool, error) {
	asks := map[ask]bool{}
	known := map[types.EntityUID]bool{}
	for _, a := range Actions() {
		uid := actionUID(a)
		known[uid] = true
		def, ok := s.Actions[uid]
		if !ok || def.AppliesTo == nil {
			return nil, fmt.Errorf("policy schema does not say what the action %q applies to", a)
		}
		for _, p := range def.AppliesTo.Principals {
			for _, r := range def.AppliesTo.Resources {
				asks[ask{Kind(p), a, Kind(r)}] = true
			}
		}
	}
	for uid := range s.Actions {
		if !known[uid] {
			return nil, fmt.Errorf("policy schema has the unknown action %v", uid)
		}
	}
	return asks, nil
}

// Decide returns whether the request is allowed, and by which policies. A question that the schema does
// not know, such as one about an unknown action, is denied by no policy.
func (s *Set) Decide(q Request) Decision {
	d, alone := s.DecideAlone(q)
	if alone || !d.Allowed {
		return d
	}
	again := q // which is on the heap, and then alone
	return s.within(&again, d, alone)
}

// Reads returns the parts of the context that a decision about the action on the resource may depend on.
func (s *Set) Reads(a Action, r Resource) ContextPart {
	parts := s.policyReads(a, &r)
	if len(s.borders) > 0 {
		parts |= s.perimeterReads(a, &r)
	}
	return parts
}

func (s *Set) policyReads(a Action, r *Resource) (parts ContextPart) {
	for _, x := range []*index{s.server, s.own[r.Namespace]} {
		if x != nil && x.byAction[a] != nil {
			parts |= x.byAction[a].readsAbout(r)
		}
	}
	return parts
}

// inline is how many policies in the scope of one request cost no allocation.
const inline = 16

// decide decides, without the context when loose, and without who is behind a function.
func (s *Set) decide(q *Request, loose bool) Decision {
	d, _ := s.half(q, loose)
	return d
}

// half is decide, and says whether the answer stands without who is behind a function.
func (s *Set) half(q *Request, loose bool) (d Decision, alone bool) {
	room := s.work.take()
	d, scope, _ := s.decideIn(room, q, loose)
	alone = (&selection{list: scope}).alone(q, &d)
	s.work.give(room)
	return d, alone
}

// decideIn decides with what room there is in a workspace: by quick conditions as far as they go, and by Cedar for the rest. It returns the
// policies whose scope the request is in, which are good as long as the workspace, and what was assumed when loose.
func (s *Set) decideIn(room *workspace, q *Request, loose bool) (d Decision, scope []*compiled, assumed []string) {
	scope, found, ok := s.inScopeQuickly(q, loose, room)
	w := &room.world
	if len(s.borders) > 0 {
		*w = world{set: s, asked: q}
	}
	if !ok || len(found.rest) > 0 {
		made, ok := s.ask(q, !loose)
		if !ok {
			return Decision{}, nil, nil
		}
		w = made
	}
	if !ok {
		scope = s.inScope(&w.request, q, room.scope[:0])
		found.rest = scope
	}
	d = s.judgeRest(w, loose, &found)
	return d, scope, s.enclose(w, q, loose, &d)
}

// judgeRest has Cedar evaluate what quick conditions leave, if anything, and decides by all of it.
func (s *Set) judgeRest(w *world, loose bool, found *quickDecision) Decision {
	var d Decision
	if len(found.rest) > 0 {
		d = s.judge(w, &selection{list: found.rest, loose: loose})
	}
	denied := len(d.Policies) > 0 && !d.Allowed
	from := found.forbids
	if len(from) == 0 && !denied {
		from = found.permits
	}
	switch {
	case len(from) == 0:
		return d
	case d.Allowed && len(found.forbids) > 0:
		d.Policies = nil // what permitted it determines nothing any more
	}
	d.Allowed = len(found.forbids) == 0 && !denied
	d.Policies = slices.Grow(d.Policies, len(from))
	for _, c := range from {
		d.Policies = append(d.Policies, c.id)
	}
	slices.Sort(d.Policies)
	return d
}

// ask returns the Cedar form of a question, if there is one.
func (s *Set) ask(q *Request, withContext bool) (*world, bool) {
	if !s.asks[ask{q.Principal.Kind, q.Action, q.Resource.Kind}] || !q.Resource.well() {
		return nil, false
	}
	// What no policy reads need not be there; but a cause that is malformed is refused whoever reads it.
	var parts ContextPart
	if withContext {
		parts = s.policyReads(q.Action, &q.Resource)
		if len(s.borders) > 0 {
			parts |= s.conditionReads(q.Action, &q.Resource)
		}
		if parts&PartCause != 0 {
			q.permitted = s.behind(q).Allowed
		}
		parts |= PartCause
	}
	if parts&^PartCause == PartTransport && q.Context.Cause == nil && int(q.Context.Transport) < len(s.transports) {
		w, ok := s.newWorld(q, 0)
		if ok {
			w.request.Context = s.transports[q.Context.Transport]
		}
		return w, ok
	}
	return s.newWorld(q, parts)
}

// inScope appends the policies whose scope the request is in. A namespace's own are chosen by the namespace
// of the resource, so that they decide about no other's.
func (s *Set) inScope(about *cedar.Request, q *Request, list []*compiled) []*compiled {
	list = s.server.candidates(q.Action, about, q, list)
	if q.Resource.Namespace != "" {
		list = s.own[q.Resource.Namespace].candidates(q.Action, about, q, list)
	}
	return list
}

// judge evaluates policies. Cedar passes over a policy that fails: that is safe for a permit, but a
// forbid might have denied, so it does.
func (s *Set) judge(w *world, sel *selection) Decision {
	allowed, diagnostic := cedar.Authorize(sel, w, w.request)
	d := Decision{Allowed: allowed == cedar.Allow}
	if n := len(diagnostic.Reasons); n > 0 {
		d.Policies = make([]string, 0, n)
	}
	for _, reason := range diagnostic.Reasons {
		d.Policies = append(d.Policies, string(reason.PolicyID))
	}
	for _, e := range diagnostic.Errors {
		id := string(e.PolicyID)
		d.Errors = append(d.Errors, EvaluationError{Policy: id, Message: e.Message})
		if sel.permits(id) {
			continue
		}
		if d.Allowed {
			d.Allowed, d.Policies = false, nil // what permitted it determines nothing any more
		}
		d.Policies = append(d.Policies, id)
	}
	if len(d.Policies) > 1 {
		slices.Sort(d.Policies)
	}
	if len(d.Errors) > 1 {
		slices.SortFunc(d.Errors, func(a, b EvaluationError) int { return strings.Compare(a.Policy, b.Policy) })
	}
	return d
}

// permits reports whether the policy of an id is a permit.
func (s *selection) permits(id string) bool {
	c := s.find(id)
	return c != nil && c.permit
}

func (s *selection) find(id string) *compiled {
	for _, c := range s.list {
		if c.id == id {
			return c
		}
	}
	return nil
}

// Policy describes a policy of a Set.
type Policy struct {
	ID string
	// Namespace is whose it is, "" the whole server's.
	Namespace ident.Namespace
	BuiltIn   bool
	Permit    bool
	File      string
	Line      int
	Text      string
}

// Policies yields all policies: the built-in ones, those of the server, and those of the namespaces in the
// order of their names.
func (s *Set) Policies() iter.Seq[Policy] {
	return func(yield func(Policy) bool) {
		for c := range s.all() {
			if !yield(c.describe()) {
				return
			}
		}
	}
}

func (s *Set) all() iter.Seq[*compiled] {
	return func(yield func(*compiled) bool) {
		lists := [][]*compiled{s.server.all}
		for _, ns := range slices.Sorted(maps.Keys(s.own)) {
			lists = append(lists, s.own[ns].all)
		}
		for _, list := range lists {
			for _, c := range list {
				if !yield(c) {
					return
				}
			}
		}
	}
}

func (c *compiled) describe() Policy {
	p := Policy{
		ID: c.id, Namespace: c.ns, Permit: c.permit, File: c.file, Line: c.line, Text: c.text,
	}
	if c.ns == builtIn {
		p.Namespace, p.BuiltIn = "", true
	}
	return p
}
