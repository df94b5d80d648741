package policy

import (
	"iter"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"sallyport/internal/ident"
)

// scope is the head of a policy: whom, which actions and what it is about.
type scope struct {
	principal, resource bound
	actions             []Action // nil: all
}

// bound is what a scope says of a principal or resource. Empty parts say nothing.
type bound struct {
	typ types.EntityType // it is of this type
	uid types.EntityUID  // it is this entity, or in it
	eq  bool             // it is this entity and not in it
}

func scopeOf(p *xast.Policy) scope {
	s := scope{principal: boundOf(p.Principal), resource: boundOf(p.Resource)}
	switch a := p.Action.(type) {
	case xast.ScopeTypeEq:
		s.actions = []Action{Action(a.Entity.ID)}
	case xast.ScopeTypeIn: // the schema has no groups of actions
		s.actions = []Action{Action(a.Entity.ID)}
	case xast.ScopeTypeInSet:
		s.actions = make([]Action, len(a.Entities))
		for i, e := range a.Entities {
			s.actions[i] = Action(e.ID)
		}
	}
	return s
}

func boundOf(n xast.IsScopeNode) bound {
	switch n := n.(type) {
	case xast.ScopeTypeEq:
		return bound{typ: n.Entity.Type, uid: n.Entity, eq: true}
	case xast.ScopeTypeIn:
		return bound{uid: n.Entity}
	case xast.ScopeTypeIs:
		return bound{typ: n.Type}
	case xast.ScopeTypeIsIn:
		return bound{typ: n.Type, uid: n.Entity}
	}
	return bound{}
}

// admits reports whether an entity is within the bound, given that bound.uid is empty, the entity itself
// or a parent of it.
func (b *bound) admits(uid types.EntityUID) bool {
	return (b.typ == "" || b.typ == uid.Type) && (!b.eq || b.uid == uid)
}

// index finds the policies whose scope a request is in. It is sound: a policy that it leaves out could
// neither permit, nor forbid, nor fail, because Cedar evaluates the scope first and the scope cannot fail.
type index struct {
	byAction map[Action]*actionIndex
	all      []*compiled
}

// actionIndex holds the policies of one action by the entity that the scope names, if it names one.
type actionIndex struct {
	byPrincipal map[types.EntityUID]*resourceIndex
	any         *resourceIndex
	// reads are the parts of the context that policies of the action read which name no resource, and readsOf those that name one: it,
	// or the namespace that it is in.
	reads   ContextPart
	readsOf map[Resource]ContextPart
}

// readsAbout returns the parts of the context that some policy of the action whose scope the resource may be in reads.
func (ai *actionIndex) readsAbout(r *Resource) ContextPart {
	parts := ai.reads
	if len(ai.readsOf) == 0 {
		return parts
	}
	parts |= ai.readsOf[*r]
	if _, ok := r.parent(); ok {
		parts |= ai.readsOf[OfNamespace(r.Namespace)]
	}
	if f, ok := r.function(); ok {
		parts |= ai.readsOf[f]
	}
	return parts
}

// noteReads notes what a policy of the action reads.
func (ai *actionIndex) noteReads(c *compiled) {
	if c.reads == 0 {
		return
	}
	r, ok := resourceOf(c.scope.resource.uid)
	if !ok {
		ai.reads |= c.reads
		return
	}
	if ai.readsOf == nil {
		ai.readsOf = map[Resource]ContextPart{}
	}
	ai.readsOf[r] |= c.reads
}

// resourceOf returns the resource that a scope names, and false when it names none of which that is sure.
func resourceOf(uid types.EntityUID) (Resource, bool) {
	r := Resource{Kind: Kind(uid.Type), Name: string(uid.ID)}
	switch r.Kind {
	case KindNamespace:
		r.Namespace = ident.Namespace(r.Name)
	case KindEventType, KindFunction:
		ns, name, _ := strings.Cut(r.Name, "/")
		r.Namespace, r.Name = ident.Namespace(ns), name
	case KindServer, KindGrant, KindToken, KindUser, KindService: // that a grant is not found by its name here costs nothing but time
	}
	return r, uid != (types.EntityUID{}) && r.well() && r.uid() == uid
}

type resourceIndex struct {
	byResource map[types.EntityUID][]*compiled
	any        []*compiled
}

func newIndex(list []*compiled) *index {
	x := &index{byAction: map[Action]*actionIndex{}, all: list}
	for _, c := range list {
		actions := c.scope.actions
		if actions == nil {
			actions = Actions()
		}
		added := map[Action]bool{} // a scope may name an action twice
		for _, a := range actions {
			if !added[a] {
				added[a] = true
				x.add(a, c)
			}
		}
	}
	return x
}

func (x *index) add(a Action, c *compiled) {
	ai := x.byAction[a]
	if ai == nil {
		ai = &actionIndex{byPrincipal: map[types.EntityUID]*resourceIndex{}, any: &resourceIndex{}}
		x.byAction[a] = ai
	}
	ai.noteReads(c)
	ri := ai.any
	if uid := c.scope.principal.uid; uid != (types.EntityUID{}) {
		if ri = ai.byPrincipal[uid]; ri == nil {
			ri = &resourceIndex{}
			ai.byPrincipal[uid] = ri
		}
	}
	uid := c.scope.resource.uid
	if uid == (types.EntityUID{}) {
		ri.any = append(ri.any, c)
		return
	}
	if ri.byResource == nil {
		ri.byResource = map[types.EntityUID][]*compiled{}
	}
	ri.byResource[uid] = append(ri.byResource[uid], c)
}

// candidates yields the policies whose scope the request is in.
func (x *index) candidates(a Action, about *cedar.Request, q *Request, list []*compiled) []*compiled {
	if x == nil {
		return list
	}
	ai := x.byAction[a]
	if ai == nil {
		return list
	}
	principal := about.Principal
	list = ai.any.candidates(about, q, list)
	if len(ai.byPrincipal) == 0 {
		return list
	}
	if ri := ai.byPrincipal[principal]; ri != nil {
		list = ri.candidates(about, q, list)
	}
	if q.Principal.Kind == KindFunction {
		if ri := ai.byPrincipal[namespaceUID(q.Principal.Namespace)]; ri != nil {
			list = ri.candidates(about, q, list)
		}
		return list
	}
	for i, g := range q.Principal.Groups {
		if ri := ai.byPrincipal[groupUID(g)]; ri != nil && !containsBefore(q.Principal.Groups, i) {
			list = ri.candidates(about, q, list)
		}
	}
	return list
}

// containsBefore reports whether the group at i stands in the list before.
func containsBefore(groups []string, i int) bool {
	for _, g := range groups[:i] {
		if g == groups[i] {
			return true
		}
	}
	return false
}

func (ri *resourceIndex) candidates(about *cedar.Request, q *Request, list []*compiled) []*compiled {
	list = admit(ri.any, about, list)
	if len(ri.byResource) == 0 {
		return list
	}
	list = admit(ri.byResource[about.Resource], about, list)
	if parent, ok := q.Resource.parent(); ok {
		list = admit(ri.byResource[parent], about, list)
	}
	if f, ok := q.Resource.function(); ok {
		list = admit(ri.byResource[f.uid()], about, list)
	}
	return list
}

func admit(from []*compiled, about *cedar.Request, list []*compiled) []*compiled {
	for _, c := range from {
		if c.scope.principal.admits(about.Principal) && c.scope.resource.admits(about.Resource) {
			list = append(list, c)
		}
	}
	return list
}

// selection is policies as Cedar takes them.
type selection struct {
	list  []*compiled
	loose bool // without the context
	whole bool // with their scopes, for policies that the index has not chosen
}

// All yields the policies by the place in the list, so that what determined a decision is found again.
func (s *selection) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, c := range s.list {
			form := c.body
			switch {
			case s.loose && c.loose == nil:
				continue
			case s.loose:
				form = c.loose
			case s.whole:
				form = c.policy
			}
			if !yield(cedar.PolicyID(c.id), form()) {
				return
			}
		}
	}
}
