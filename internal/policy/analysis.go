package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/internal/ident"
)

// MaxQuestions bounds how many questions one analysis asks. A million take some seconds.
const MaxQuestions = 5_000_000

// ErrTooManyQuestions says that a universe is too large for one analysis.
var ErrTooManyQuestions = errors.New("too many questions for one analysis")

// Universe is what an analysis asks about. Combinations that the schema does not know are left out.
type Universe struct {
	Principals []Principal
	Actions    []Action // nil: all
	Resources  []Resource
}

// Access is what a principal may do.
type Access struct {
	// Principal is the place in the list that was asked about.
	Principal int
	Action    Action
	Resource  Resource
	Decision
	// Assumed are the policies, perimeters and bridges, sorted, whose conditions on the context were left out of account: the conditions of
	// permits are assumed to hold, and those of forbids not to. Empty when the answer is so in every context.
	Assumed []string
}

// WhoCan answers for each principal, in their order, whether it may do the action on the resource. With a nil
// context, conditions that read the context are assumed to be so that the request is allowed: an answer "allowed"
// then means "in some context, perhaps", with the policies in Assumed, and "denied" means in every context.
func (s *Set) WhoCan(a Action, r Resource, principals []Principal, c *Context) []Access {
	list := make([]Access, len(principals))
	entity := r.entity(r.uid())
	q := Request{Action: a, Resource: r, resource: &entity}
	if c != nil {
		q.Context = *c
	}
	room := s.work.take()
	defer s.work.give(room)
	for i := range principals {
		q.Principal = principals[i]
		list[i] = s.access(&q, c == nil, room)
		list[i].Principal = i
	}
	return list
}

// access answers one question of an analysis.
func (s *Set) access(q *Request, loose bool, room *workspace) Access {
	out := Access{Action: q.Action, Resource: q.Resource}
	if room == nil {
		room = s.work.take()
		defer s.work.give(room)
	}
	d, scope, assumed := s.decideIn(room, q, loose)
	out.Decision = d
	if !loose || !out.Allowed {
		return out
	}
	for _, c := range scope {
		// The rail against plaintext is of every decision: it says nothing about this one.
		if c.reads != 0 && c.ns != builtIn && (!c.permit || slices.Contains(out.Policies, c.id)) {
			out.Assumed = append(out.Assumed, c.id)
		}
	}
	out.Assumed = append(out.Assumed, assumed...)
	out.Assumed = inOrder(out.Assumed)
	return out
}

// CanReach returns everything in the universe that the principal may do; its principals are not looked at. The
// context is as in WhoCan.
func (s *Set) CanReach(p Principal, u Universe, c *Context) ([]Access, error) {
	u.Principals = []Principal{p}
	var list []Access
	err := u.each(func(i int, q *Request) {
		if c != nil {
			q.Context = *c
		}
		if a := s.access(q, c == nil, nil); a.Allowed {
			list = append(list, a)
		}
	})
	return list, err
}

// Reached is something that a principal may do, or that functions may do because of it.
type Reached struct {
	Access
	// By is who does it: the principal itself, or a function, and Via what it came by: "event_type:…" and "function:…" in turn.
	By  Principal
	Via []string
}

// Follow returns what CanReach does, and everything that functions may do which the principal can have run, by invoking them, by publishing
// what is delivered to them or by deploying them, and so on. runs returns the functions that something allowed has run; it is asked about
// publish, invoke and deploy. Each function is followed once, by the shortest way.
func (s *Set) Follow(p Principal, u Universe, runs func(a Action, r Resource) []Principal, c *Context) ([]Reached, error) {
	var list []Reached
	seen := map[ident.PrincipalID]bool{p.ID: true}
	todo := []Reached{{By: p}}
	if n := len(Actions()) * len(u.Resources); n > 0 && len(u.Principals) > MaxQuestions/n {
		return nil, ErrTooManyQuestions // each function is one of the principals
	}
	for len(todo) > 0 {
		from := todo[0]
		todo = todo[1:]
		reach, err := s.CanReach(from.By, u, c)
		if err != nil {
			return nil, err
		}
		for _, a := range reach {
			list = append(list, Reached{Access: a, By: from.By, Via: from.Via})
			if a.Action != Publish && a.Action != Invoke && a.Action != Deploy {
				continue
			}
			for _, f := range runs(a.Action, a.Resource) {
				if seen[f.ID] {
					continue
				}
				seen[f.ID] = true
				via := slices.Clone(from.Via)
				if a.Action == Publish {
					via = append(via, a.Resource.String())
				}
				todo = append(todo, Reached{By: f, Via: append(via, string(f.ID))})
			}
		}
	}
	return list, nil
}

// each asks every question of the universe.
func (u *Universe) each(ask func(principal int, q *Request)) error {
	actions := u.Actions
	if actions == nil {
		actions = Actions()
	}
	if n := len(actions) * len(u.Resources); n > 0 && len(u.Principals) > MaxQuestions/n {
		return fmt.Errorf("%w: %d principals, %d actions and %d resources make more than %d", ErrTooManyQuestions,
			len(u.Principals), len(actions), len(u.Resources), MaxQuestions)
	}
	for i := range u.Principals {
		q := Request{Principal: u.Principals[i].Prepare()}
		for _, q.Action = range actions {
			for _, q.Resource = range u.Resources {
				q.Context = Context{}
				ask(i, &q)
			}
		}
	}
	return nil
}

// Change is something that one set allows and another does not.
type Change struct {
	Principal int // the place in the universe
	Action    Action
	Resource  Resource
	Old, New  Access
}

// Diff returns what becomes allowed or denied in the universe when old is replaced by changed. The context is
// as in WhoCan: without one, it compares what could be allowed.
func Diff(old, changed *Set, u Universe, c *Context) ([]Change, error) {
	var list []Change
	err := u.each(func(i int, q *Request) {
		if c != nil {
			q.Context = *c
		}
		before, after := old.access(q, c == nil, nil), changed.access(q, c == nil, nil)
		if before.Allowed != after.Allowed {
			list = append(list, Change{Principal: i, Action: q.Action, Resource: q.Resource, Old: before, New: after})
		}
	})
	return list, err
}

// Difference is a recorded request that two sets decide differently.
type Difference struct {
	Request  int // the place in the list
	Old, New Decision
}

// Replay decides recorded requests with both sets, and returns those that are decided differently. Requests of Cross and
// of DeliveryRequest are decided by perimeters alone, as they were.
func Replay(requests []Request, old, changed *Set) []Difference {
	var list []Difference
	for i := range requests {
		before, after := old.again(&requests[i]), changed.again(&requests[i])
		if before.Allowed != after.Allowed {
			list = append(list, Difference{Request: i, Old: before, New: after})
		}
	}
	return list
}

// Explanation says how a decision came about.
type Explanation struct {
	Decision Decision
	// Known is false when the schema does not know such a request, or it holds more than it may: it is denied by nothing.
	Known bool
	// OnBehalf says that the function is permitted this only as far as who caused the request may do the same: then
	// Decision is about both, and those that are Determined of Matched determined the function's half.
	OnBehalf bool
	// Matched are the policies whose scope the request is in, permits and forbids, in the order of their ids.
	Matched []Match
	// Perimeters are those whose border the request crosses.
	Perimeters []PerimeterVerdict
}

// Match is a policy whose scope a request is in.
type Match struct {
	Policy     Policy
	Determined bool // it is one of the determining policies
	Holds      bool // all of its conditions hold
	Error      string
	Conditions []Condition
}

// Condition is one when or unless of a policy.
type Condition struct {
	Unless bool
	Text   string // between the braces, as it stands in the file
	Holds  bool   // for unless: what is in the braces is not so
	Error  string // why it could not be evaluated
}

// Explain decides the request, and says of every policy that is about it what its conditions came to. A request for one
// part of a namespace, as Cross has it, is asked of policies about the whole; a delivery, of perimeters alone.
func (s *Set) Explain(q Request) Explanation {
	if t, f, ok := q.delivery(); ok {
		return Explanation{Known: true, Decision: s.CanDeliver(q.Resource.Namespace, t, f), Perimeters: s.ExplainDelivery(q.Resource.Namespace, t, f)}
	}
	if s.partial(&q) {
		whole := q
		whole.Resource = OfNamespace(q.Resource.Namespace)
		out := s.Explain(whole)
		out.Decision = out.Decision.and(s.Cross(q))
		out.Perimeters = s.ExplainPerimeters(q)
		return out
	}
	w, ok := s.ask(&q, true)
	if !ok {
		return Explanation{}
	}
	sel := &selection{list: s.inScope(&w.request, &q, nil)}
	slices.SortFunc(sel.list, func(a, b *compiled) int { return strings.Compare(a.id, b.id) })
	own := s.judge(w, sel)
	alone := sel.alone(&q, &own)
	s.enclose(w, &q, false, &own)
	out := Explanation{Known: true, Decision: s.within(&q, own, alone), OnBehalf: !alone && own.Allowed, Perimeters: s.ExplainPerimeters(q)}
	for _, c := range sel.list {
		m := Match{Policy: c.describe(), Determined: slices.Contains(own.Policies, c.id)}
		m.Holds, m.Error = w.evaluate(c.policy())
		m.Conditions = w.conditions(c)
		out.Matched = append(out.Matched, m)
	}
	return out
}
