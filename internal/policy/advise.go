package policy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Use is a decision as it was recorded: what was asked, what determined it, how often and when last.
type Use struct {
	Request  Request // with the context of one of them
	Allowed  bool
	Policies []string // the determining ones, as recorded
	Count    int64
	Last     time.Time
}

// Unused returns the permits, built-in ones aside, that determined no allowed use since a time.
func (s *Set) Unused(uses []Use, since time.Time) []Policy {
	used := map[string]bool{}
	for i := range uses {
		if uses[i].Allowed && !uses[i].Last.Before(since) {
			for _, id := range uses[i].Policies {
				used[id] = true
			}
		}
	}
	var list []Policy
	for c := range s.all() {
		if c.permit && c.ns != builtIn && !used[c.id] {
			list = append(list, c.describe())
		}
	}
	return list
}

// UnusedActions are what a principal may do to something, and has not done to anything.
type UnusedActions struct {
	Principal int // the place in the universe
	Actions   []Action
}

// UnusedActions returns, for each principal of the universe that has some, the actions that it may do to something in it, in some
// context, and has not done to anything since a time.
func (s *Set) UnusedActions(uses []Use, since time.Time, u Universe) ([]UnusedActions, error) {
	type did struct {
		principal ident.PrincipalID
		action    Action
	}
	used := map[did]bool{}
	for i := range uses {
		if uses[i].Allowed && !uses[i].Last.Before(since) {
			used[did{uses[i].Request.Principal.ID, uses[i].Request.Action}] = true
		}
	}
	var list []UnusedActions
	err := u.each(func(i int, q *Request) {
		d := did{q.Principal.ID, q.Action}
		if used[d] || !s.decide(q, true).Allowed {
			return
		}
		used[d] = true // one resource is enough
		if len(list) == 0 || list[len(list)-1].Principal != i {
			list = append(list, UnusedActions{Principal: i})
		}
		last := &list[len(list)-1]
		last.Actions = append(last.Actions, q.Action)
	})
	return list, err
}

// UnusedGrants returns what the universe's principals may do, in some context, and have not done since a time.
func (s *Set) UnusedGrants(uses []Use, since time.Time, u Universe) ([]Access, error) {
	type grant struct {
		principal ident.PrincipalID
		action    Action
		resource  Resource
	}
	used := map[grant]bool{}
	for i := range uses {
		if q := &uses[i].Request; uses[i].Allowed && !uses[i].Last.Before(since) {
			used[grant{q.Principal.ID, q.Action, q.Resource}] = true
		}
	}
	var list []Access
	err := u.each(func(i int, q *Request) {
		if used[grant{q.Principal.ID, q.Action, q.Resource}] {
			return
		}
		if a := s.access(q, true, nil); a.Allowed {
			a.Principal = i
			list = append(list, a)
		}
	})
	return list, err
}

// Wildcard is a permit that leaves something open.
type Wildcard struct {
	Policy Policy
	// Open are "principal", "action" and "resource": what the scope does not narrow. A type alone narrows nothing.
	Open []string
	// Unconditional says that it has no condition either.
	Unconditional bool
}

// Wildcards returns the permits, built-in ones aside, that leave something open.
func (s *Set) Wildcards() []Wildcard {
	var list []Wildcard
	for c := range s.all() {
		if !c.permit || c.ns == builtIn {
			continue
		}
		w := Wildcard{Policy: c.describe(), Unconditional: len(c.parsed.Conditions) == 0}
		if c.scope.principal.uid == (types.EntityUID{}) {
			w.Open = append(w.Open, "principal")
		}
		if c.scope.actions == nil {
			w.Open = append(w.Open, "action")
		}
		if c.scope.resource.uid == (types.EntityUID{}) {
			w.Open = append(w.Open, "resource")
		}
		if len(w.Open) > 0 {
			list = append(list, w)
		}
	}
	return list
}

// Proposal is a tightened form of the policies of a namespace or of the server. It permits nothing that they do
// not permit, and every recorded allowed request that they allow.
type Proposal struct {
	Text []byte // in Cedar, for a file of the namespace
	Set  *Set   // with it in place
	// Dropped are the permits that nothing used, and Narrowed those that became narrower.
	Dropped, Narrowed []string
	// Replayed is how many recorded requests were decided with both sets, alike. Assumed are those that are not allowed without
	// circumstances that are not recorded, such as an address: of them it is shown that each permit that allowed them has a
	// narrower form that is about them, under the same conditions. Skipped were allowed when they were recorded, and are not now.
	Replayed, Assumed, Skipped int
}

// ErrNotProven says that a proposal would deny what was allowed; it is not handed out then.
var ErrNotProven = errors.New("the tightened policies would deny a recorded request")

// evidence is a recorded allowed request that a proposal must allow.
type evidence struct {
	request *Request
	// strict says that it is allowed in the context that is at hand; else it is in some context.
	strict bool
	// permits are those that allow it, or did when it was recorded and still would in some context.
	permits []string
}

// evidence returns the allowed uses since a time that are still allowed, in some context. What is recorded of perimeters alone needs
// no policies.
func (s *Set) evidence(uses []Use, since time.Time) (list []evidence, skipped int) {
	for i := range uses {
		u := &uses[i]
		if _, _, delivery := u.Request.delivery(); delivery || s.partial(&u.Request) || !u.Allowed || u.Last.Before(since) {
			continue
		}
		now, ever := s.Decide(u.Request), s.decide(&u.Request, true)
		e := evidence{request: &u.Request, strict: now.Allowed}
		if now.Allowed {
			e.permits = now.Policies
		}
		for _, id := range u.Policies {
			if slices.Contains(ever.Policies, id) && !slices.Contains(e.permits, id) {
				e.permits = append(e.permits[:len(e.permits):len(e.permits)], id)
			}
		}
		if !e.strict && (!ever.Allowed || len(e.permits) == 0) {
			skipped++
			continue
		}
		list = append(list, e)
	}
	return list, skipped
}

// Propose tightens the permits of a namespace, or with "" of the server, to what the allowed uses since a time needed:
// permits that none needed are dropped, the others get the actions and resources that were used, and, where
// they name no principal and no group, the principals. Conditions stay, and forbids stay as they are. Who is in a
// group today is not looked at: a permit for a group stays one for the group.
func (s *Set) Propose(uses []Use, since time.Time, ns ident.Namespace) (*Proposal, error) {
	p := &Proposal{}
	needs := map[string]*need{}
	shown, skipped := s.evidence(uses, since)
	p.Skipped = skipped
	for i := range shown {
		for _, id := range shown[i].permits {
			if needs[id] == nil {
				needs[id] = &need{}
			}
			needs[id].add(shown[i].request)
		}
	}
	var files []File
	var text bytes.Buffer
	taken := map[string]bool{}
	for c := range s.all() {
		switch {
		case c.ns == builtIn:
		case c.ns != ns:
			files = append(files, File{Name: fmt.Sprintf("%d", len(files)), Text: []byte(c.text), Namespace: c.ns})
		case !c.permit:
			text.WriteString(c.text + "\n\n")
			taken[c.localID()] = true
		}
	}
	forms := map[string][]string{}
	for c := range s.all() {
		if c.ns != ns || !c.permit {
			continue
		}
		if needs[c.id] == nil {
			p.Dropped = append(p.Dropped, c.id)
			continue
		}
		p.Narrowed = append(p.Narrowed, c.id)
		for _, form := range needs[c.id].narrow(c, taken) {
			forms[c.id] = append(forms[c.id], strings.TrimSuffix(c.id, c.localID())+form.id)
			text.Write(form.text)
			text.WriteString("\n\n")
		}
	}
	p.Text = text.Bytes()
	if err := s.prove(p, ns, files, shown, forms); err != nil {
		return nil, err
	}
	return p, nil
}

// prove makes the set of a proposal, and holds it to what was recorded. forms are the ids of those that each permit became.
func (s *Set) prove(p *Proposal, ns ident.Namespace, others []File, shown []evidence, forms map[string][]string) (err error) {
	proposed := File{Name: "proposed.cedar", Text: p.Text, Namespace: ns}
	if ns != "" {
		p.Set, err = s.WithNamespace(ns, proposed)
	} else if p.Set, err = New(append(joined(others), proposed)...); err == nil {
		p.Set.borders = s.borders
	}
	if err != nil {
		return fmt.Errorf("read the proposed policies: %w", err)
	}
	for i := range shown {
		e := &shown[i]
		ever := p.Set.decide(e.request, true)
		proven := ever.Allowed && (!e.strict || p.Set.Decide(*e.request).Allowed)
		for _, id := range e.permits {
			became := forms[id]
			proven = proven && (became == nil || slices.ContainsFunc(became, func(form string) bool { return slices.Contains(ever.Policies, form) }))
		}
		if !proven {
			return fmt.Errorf("%w: %s %s %s", ErrNotProven, e.request.Principal.ID, e.request.Action, e.request.Resource)
		}
		if e.strict {
			p.Replayed++
		} else {
			p.Assumed++
		}
	}
	return nil
}

// joined makes one file of each namespace's, and more where one would be too large.
func joined(files []File) []File {
	var out []File
	for _, f := range files {
		if n := len(out); n > 0 && out[n-1].Namespace == f.Namespace && len(out[n-1].Text)+len(f.Text) < MaxFileBytes {
			out[n-1].Text = append(append(out[n-1].Text, '\n'), f.Text...)
			continue
		}
		out = append(out, f)
	}
	return out
}

// localID is the policy's own @id.
func (c *compiled) localID() string {
	if c.ns == "" || c.ns == builtIn {
		return c.id
	}
	return c.id[len(c.ns)+1:]
}

// need is what the uses needed of one permit.
type need struct{ uses []needed }

// needed is a combination that was used.
type needed struct {
	principal types.EntityUID
	action    Action
	resource  Resource
}

func (n *need) add(q *Request) {
	id, _ := q.Principal.well()
	r := q.Resource
	r.Grant, r.Reaches = "", "" // in a policy a grant has a name only
	n.uses = append(n.uses, needed{cedar.NewEntityUID(cedar.EntityType(q.Principal.Kind), cedar.String(id)), q.Action, r})
}

// part is a narrower permit: some actions of one principal, or of whoever the permit is for, on some resources
// of one kind.
type part struct {
	principal types.EntityUID // zero: as in the permit
	kind      Kind
	actions   []Action
	resources []Resource
}

// narrow returns the permits that take the place of c, with ids that are not taken.
func (n *need) narrow(c *compiled, taken map[string]bool) []form {
	named := c.scope.principal.uid != (types.EntityUID{})
	var parts []part
	for _, u := range n.uses {
		if named {
			u.principal = types.EntityUID{}
		}
		i := slices.IndexFunc(parts, func(p part) bool {
			return p.principal == u.principal && p.kind == u.resource.Kind && p.actions[0] == u.action
		})
		if i < 0 {
			i = len(parts)
			parts = append(parts, part{principal: u.principal, kind: u.resource.Kind, actions: []Action{u.action}})
		}
		if !slices.Contains(parts[i].resources, u.resource) {
			parts[i].resources = append(parts[i].resources, u.resource)
		}
	}
	parts = merge(parts)
	out := make([]form, len(parts))
	for i := range parts {
		id := freeID(c.localID(), taken)
		out[i] = form{id, parts[i].permit(c, id)}
	}
	return out
}

// form is a permit that takes the place of another, with its own id.
type form struct {
	id   string
	text []byte
}

// merge makes one part of those that differ in the action only. The parts are in a stable order then.
func merge(parts []part) []part {
	var out []part
	for _, p := range parts {
		slices.SortFunc(p.resources, func(a, b Resource) int { return strings.Compare(a.String(), b.String()) })
		i := slices.IndexFunc(out, func(o part) bool {
			return o.principal == p.principal && o.kind == p.kind && slices.Equal(o.resources, p.resources)
		})
		if i < 0 {
			out = append(out, p)
			continue
		}
		out[i].actions = append(out[i].actions, p.actions...)
	}
	for i := range out {
		slices.Sort(out[i].actions)
	}
	slices.SortStableFunc(out, func(a, b part) int {
		return strings.Compare(a.principal.String()+string(a.actions[0]), b.principal.String()+string(b.actions[0]))
	})
	return out
}

func freeID(base string, taken map[string]bool) string {
	id := base
	for i := 2; taken[id]; i++ {
		suffix := fmt.Sprintf("-%d", i)
		id = base[:min(len(base), MaxIDLength-len(suffix))] + suffix
	}
	taken[id] = true
	return id
}

// fewNames is how many resources a proposal names one by one; more become a common prefix of their names.
const fewNames = 20

// permit returns c narrowed to the part. It is built as a tree, never as a text, so that no name can say more.
func (p *part) permit(c *compiled, id string) []byte {
	from := c.parsed
	to := *from
	to.Annotations = []xast.AnnotationType{{Key: "id", Value: types.String(id)}}
	for _, a := range from.Annotations {
		if a.Key != "id" {
			to.Annotations = append(to.Annotations, a)
		}
	}
	uids := make([]types.EntityUID, len(p.actions))
	for i, a := range p.actions {
		uids[i] = actionUID(a)
	}
	to.Action = xast.ScopeTypeInSet{Entities: uids}
	if len(uids) == 1 {
		to.Action = xast.ScopeTypeEq{Entity: uids[0]}
	}
	if p.principal != (types.EntityUID{}) {
		to.Principal = xast.ScopeTypeEq{Entity: p.principal}
	}
	to.Conditions = nil
	bound := c.scope.resource
	switch {
	case bound.eq:
	case len(p.resources) == 1:
		to.Resource = xast.ScopeTypeEq{Entity: p.resources[0].uid()}
		if bound.uid != (types.EntityUID{}) {
			to.Conditions = append(to.Conditions, when(ast.Resource().In(ast.Value(bound.uid))))
		}
	default:
		kind := types.EntityType(p.kind)
		to.Resource = xast.ScopeTypeIs{Type: kind}
		if bound.uid != (types.EntityUID{}) {
			to.Resource = xast.ScopeTypeIsIn{Type: kind, Entity: bound.uid}
		}
		to.Conditions = append(to.Conditions, when(p.names()))
	}
	to.Conditions = append(to.Conditions, from.Conditions...)
	return cedar.NewPolicyFromAST((*ast.Policy)(&to)).MarshalCedar()
}

func when(n ast.Node) xast.ConditionType {
	return xast.ConditionType{Condition: xast.ConditionWhen, Body: n.AsIsNode()}
}

// names is the condition that the resource is one of the part's. Many names that share a prefix up to a dot
// become that prefix: the next one of the family was meant too.
func (p *part) names() ast.Node {
	if prefix := p.prefix(); prefix != "" {
		return ast.Resource().Access("namespace").Equal(ast.String(types.String(p.resources[0].Namespace))).
			And(ast.Resource().Access("name").Like(types.NewPattern(prefix, types.Wildcard{})))
	}
	uids := make([]ast.Node, len(p.resources))
	for i := range p.resources {
		uids[i] = ast.Value(p.resources[i].uid())
	}
	return ast.Set(uids...).Contains(ast.Resource())
}

// prefix is what the names of many resources of one namespace begin with, up to a dot, or "".
func (p *part) prefix() string {
	if len(p.resources) <= fewNames {
		return ""
	}
	prefix := p.resources[0].Name
	for _, r := range p.resources {
		if r.Namespace != p.resources[0].Namespace {
			return ""
		}
		for !strings.HasPrefix(r.Name, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	return prefix[:strings.LastIndexByte(prefix, '.')+1]
}

// Boundary returns forbids, for a file of the server, that keep a principal within what its allowed uses since a time
// needed, whatever permits it: a role, for instance, which no policy can narrow otherwise. It proves them like Propose. What else
// the server has stays, but for a former boundary of the same principal, which the new one replaces.
func (s *Set) Boundary(p Principal, uses []Use, since time.Time) (*Proposal, error) {
	id, ok := p.well()
	if !ok {
		return nil, problem.New(problem.Invalid, codeInvalid, "%q is no principal", clip(string(p.ID)))
	}
	out := &Proposal{}
	n := &need{}
	own := slices.DeleteFunc(slices.Clone(uses), func(u Use) bool { return u.Request.Principal.ID != p.ID })
	shown, skipped := s.evidence(own, since)
	out.Skipped = skipped
	for i := range shown {
		n.add(shown[i].request)
	}
	uid := cedar.NewEntityUID(cedar.EntityType(p.Kind), cedar.String(id))
	var text bytes.Buffer
	digest := sha256.Sum256([]byte(p.ID))
	prefix := fmt.Sprintf("boundary-%x-", digest[:8])
	for i, f := range s.fences(uid, p.Kind, n) {
		f.Annotations = []xast.AnnotationType{{Key: "id", Value: types.String(fmt.Sprintf("%s%d", prefix, i+1))}}
		text.Write(cedar.NewPolicyFromAST((*ast.Policy)(f)).MarshalCedar())
		text.WriteString("\n\n")
	}
	out.Text = text.Bytes()
	var files []File
	for c := range s.all() {
		if c.ns != builtIn && !(c.ns == "" && strings.HasPrefix(c.id, prefix)) {
			files = append(files, File{Name: fmt.Sprintf("%d", len(files)), Text: []byte(c.text), Namespace: c.ns})
		}
	}
	if err := s.prove(out, "", files, shown, nil); err != nil {
		return nil, err
	}
	return out, nil
}

// fences are the forbids of a boundary: one for all actions of which nothing was used, and one for each other action
// and kind of resource.
func (s *Set) fences(uid types.EntityUID, kind Kind, n *need) []*xast.Policy {
	var unused []types.EntityUID
	var fences []*xast.Policy
	for _, a := range Actions() {
		var parts []part
		used := false
		for _, r := range []Kind{KindEventType, KindFunction, KindSecret, KindNamespace, KindServer} {
			if s.asks[ask{kind, a, r}] {
				parts = append(parts, n.part(a, r))
				used = used || len(parts[len(parts)-1].resources) > 0
			}
		}
		if !used {
			if len(parts) > 0 {
				unused = append(unused, actionUID(a))
			}
			continue
		}
		for _, p := range parts {
			f := xast.Forbid().PrincipalEq(uid).ActionEq(actionUID(a)).ResourceIs(types.EntityType(p.kind))
			if len(p.resources) > 0 {
				f = f.Unless(xast.NewNode(when(p.names()).Body))
			}
			fences = append(fences, f)
		}
	}
	if len(unused) > 0 {
		fences = append(fences, xast.Forbid().PrincipalEq(uid).ActionInSet(unused...))
	}
	return fences
}

// part is what was used of an action on a kind of resource.
func (n *need) part(a Action, r Kind) part {
	p := part{kind: r, actions: []Action{a}}
	for _, u := range n.uses {
		if u.action == a && u.resource.Kind == r && !slices.Contains(p.resources, u.resource) {
			p.resources = append(p.resources, u.resource)
		}
	}
	slices.SortFunc(p.resources, func(a, b Resource) int { return strings.Compare(a.String(), b.String()) })
	return p
}
