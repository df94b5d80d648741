package policy

import (
	"slices"
	"strings"

	"sallyport/internal/ident"
)

// passage is something that goes from one end to another, and may cross borders on its way.
type passage struct {
	action   Action
	from, to end
	// request and world are of an action; nil for a delivery, which nobody asks for.
	request *Request
	world   *world
	loose   bool // the context is left out of account
}

// toll is what perimeters make of a passage.
type toll struct {
	denied, dryRun []string // perimeters
	bridges        []string // those that it goes by
	assumed        []string // perimeters and bridges whose conditions on the context were taken to hold
	errors         []EvaluationError
}

// passages appends the passages that a request is: one for each thing that it is done to. It is false when no perimeter is about
// such requests.
func (q *Request) passages(w *world, loose bool, list []passage) ([]passage, bool) {
	act, ok := borderActionOf(q.Action)
	if !ok {
		return list, false
	}
	var room [fewEnds]end
	ends, ok := q.Resource.ends(act, room[:0])
	for _, to := range ends {
		list = append(list, passage{action: q.Action, from: q.Principal.end(), to: to, request: q, world: w, loose: loose})
	}
	return list, ok
}

// payAll returns what perimeters make of passages of one request.
func (s *Set) payAll(list []passage) (t toll) {
	for i := range list {
		s.pay(&list[i], &t)
	}
	return t
}

// pay adds to a toll what perimeters make of a passage: each that has one end inside and the other not wants a bridge of its
// own, and from whoever comes in the levels that it demands.
func (s *Set) pay(p *passage, t *toll) {
	var ours, theirs [inline]*border
	from, to := s.around(&p.from, ours[:0]), s.around(&p.to, theirs[:0])
	if slices.Equal(from, to) {
		return // no border is between them
	}
	var room [inline]*bridge
	ways := s.bridgesTo(&p.to, room[:0])
	for _, b := range from {
		if !slices.Contains(to, b) {
			t.cross(p, b, ways, false)
		}
	}
	for _, b := range to {
		if !slices.Contains(from, b) {
			t.cross(p, b, ways, true)
		}
	}
}

// cross has a passage cross one border, inward or outward. Of a perimeter in dry-run it keeps nothing but that it would deny.
func (t *toll) cross(p *passage, b *border, ways []*bridge, inward bool) {
	assumed, failed := len(t.assumed), len(t.errors)
	way := t.way(p, b, ways)
	open := way != nil && (!inward || t.meets(p, b))
	if b.info.Mode == DryRun {
		t.assumed, t.errors = t.assumed[:assumed], t.errors[:failed]
		if !open {
			t.dryRun = append(t.dryRun, b.id)
		}
		return
	}
	if open {
		t.bridges = append(t.bridges, way.id)
	} else {
		t.denied = append(t.denied, b.id)
	}
}

// way returns the first bridge of the perimeter that the passage can take; without the context, one that needs none goes before.
func (t *toll) way(p *passage, b *border, ways []*bridge) *bridge {
	var perhaps *bridge
	for _, way := range ways {
		if way.border != b || !way.allows(p.action) || !way.begins(p) {
			continue
		}
		if way.when == nil {
			return way
		}
		holds, failure := way.when.check(p)
		if failure != "" {
			t.errors = append(t.errors, EvaluationError{Policy: way.id, Message: failure})
		}
		switch {
		case holds && p.loose && way.when.reads != 0:
			if perhaps == nil {
				perhaps = way
			}
		case holds:
			return way
		}
	}
	if perhaps != nil {
		t.assumed = append(t.assumed, perhaps.id)
	}
	return perhaps
}

// begins reports whether the bridge begins where the passage does. Functions are in no groups, as for policies.
func (b *bridge) begins(p *passage) bool {
	for i := range b.from {
		from := &b.from[i]
		if from.kind == kindGroup {
			if p.request != nil && p.from.kind != KindFunction && slices.ContainsFunc(p.request.Principal.Groups, from.fits) {
				return true
			}
		} else if from.admits(&p.from) {
			return true
		}
	}
	return false
}

// check evaluates the condition for a passage. One that is no request meets no condition.
func (c *condition) check(p *passage) (holds bool, failure string) {
	if p.world == nil {
		return false, ""
	}
	if p.loose {
		return p.world.evaluate(c.loose)
	}
	return p.world.evaluate(c.holds)
}

// meets reports whether who comes in meets the levels of the perimeter. A delivery is of nobody.
func (t *toll) meets(p *passage, b *border) bool {
	if p.request == nil {
		return true
	}
	var room [8]string
	for _, l := range b.levels {
		if len(l.lacks(p.request, p.loose, room[:0])) > 0 {
			return false
		}
	}
	if p.loose && b.levelReads != 0 {
		t.assumed = append(t.assumed, b.id)
	}
	return true
}

// enclose adds to the decision of the policies what perimeters make of the request. They forbid, so a deny of theirs
// wins over every permit and stands beside every other forbid.
func (s *Set) enclose(w *world, q *Request, loose bool, d *Decision) (assumed []string) {
	if len(s.borders) == 0 {
		return nil
	}
	var room [1]passage
	list, ok := q.passages(w, loose, room[:0])
	if !ok {
		return nil
	}
	t := s.payAll(list)
	t.settle(d)
	return t.assumed
}

// inOrder sorts ids, and leaves each in once: several things that a grant reaches may be beyond one border.
func inOrder(ids []string) []string {
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (t *toll) settle(d *Decision) {
	d.DryRun = inOrder(t.dryRun)
	if len(t.errors) > 0 {
		d.Errors = append(d.Errors, t.errors...)
		slices.SortFunc(d.Errors, func(a, b EvaluationError) int { return strings.Compare(a.Policy, b.Policy) })
	}
	if len(t.denied) == 0 {
		if d.Allowed {
			d.Bridges = inOrder(t.bridges)
		}
		return
	}
	if d.Allowed {
		d.Allowed, d.Policies = false, nil // what permitted it determines nothing any more
	}
	d.Policies = inOrder(append(d.Policies, t.denied...))
}

// Cross returns what perimeters alone say of a request that Decide cannot answer, because its resource is a
// namespace with things inside and things outside: to read events, or dead letters, of one event type; to read the logs
// of one function, or to deploy it; to see one secret in a list. The resource MUST be that one thing. It permits nothing: Allowed
// says that no perimeter denies, and whoever asks MUST have asked Decide about the namespace. Without perimeters
// it costs nothing.
func (s *Set) Cross(q Request) Decision {
	if len(s.borders) == 0 {
		return Decision{Allowed: true}
	}
	if _, ok := borderActionOf(q.Action); !ok {
		return Decision{Allowed: true}
	}
	w, ok := s.newWorld(&q, s.conditionReads(q.Action, &q.Resource)|PartCause)
	if !ok || !q.Resource.well() {
		return Decision{}
	}
	list, ok := q.passages(w, false, nil)
	if !ok {
		return Decision{}
	}
	d := Decision{Allowed: true}
	t := s.payAll(list)
	t.settle(&d)
	return d
}

// CanDeliver returns whether events of a type may be delivered to a function of the namespace: one that is inside a
// perimeter is not to one outside, nor the other way round, but for a bridge. Without perimeters it costs nothing.
func (s *Set) CanDeliver(ns ident.Namespace, t ident.EventType, f ident.FunctionName) Decision {
	d := Decision{Allowed: true}
	if len(s.borders) == 0 {
		return d
	}
	p := delivery(ns, t, f)
	var paid toll
	s.pay(&p, &paid)
	paid.settle(&d)
	return d
}

func delivery(ns ident.Namespace, t ident.EventType, f ident.FunctionName) passage {
	return passage{
		action: Deliver, from: end{kind: KindEventType, ns: ns, name: string(t)}, to: end{kind: KindFunction, ns: ns, name: string(f)},
	}
}

// DeliveryRequest returns the question of CanDeliver as a request: nobody makes it, so the event type stands for who does.
func DeliveryRequest(ns ident.Namespace, t ident.EventType, f ident.FunctionName) Request {
	r := Resource{Kind: KindEventType, Namespace: ns, Name: string(t)}
	return Request{
		Principal: Principal{Kind: KindEventType, ID: ident.PrincipalID(r.String()), Namespace: ns}, Action: Deliver,
		Resource: Resource{Kind: KindFunction, Namespace: ns, Name: string(f)},
	}
}

// delivery returns what is delivered where by a request of DeliveryRequest. A border between namespaces is none of perimeters:
// nothing is delivered over it.
func (q *Request) delivery() (ident.EventType, ident.FunctionName, bool) {
	r, err := ParseResource(string(q.Principal.ID))
	if q.Action != Deliver || err != nil || r.Kind != KindEventType || q.Resource.Kind != KindFunction || r.Namespace != q.Resource.Namespace {
		return "", "", false
	}
	return ident.EventType(r.Name), ident.FunctionName(q.Resource.Name), true
}

// partial reports whether a request is one for Cross: policies know its action on the namespace only.
func (s *Set) partial(q *Request) bool {
	act, ok := borderActionOf(q.Action)
	kind := q.Principal.Kind
	return ok && act.kind == q.Resource.Kind && !s.asks[ask{kind, q.Action, q.Resource.Kind}] && s.asks[ask{kind, q.Action, KindNamespace}]
}

// and returns the decision that holds when both must allow.
func (d Decision) and(other Decision) Decision {
	out := Decision{Allowed: d.Allowed && other.Allowed}
	for _, one := range []*Decision{&d, &other} {
		if one.Allowed == out.Allowed { // what permitted determines nothing of a deny
			out.Policies = append(out.Policies, one.Policies...)
		}
		out.DryRun = append(out.DryRun, one.DryRun...)
		out.Errors = append(out.Errors, one.Errors...)
	}
	if out.Allowed {
		out.Bridges = append(append(out.Bridges, d.Bridges...), other.Bridges...)
	}
	for _, list := range []*[]string{&out.Policies, &out.Bridges, &out.DryRun} {
		*list = inOrder(*list)
	}
	return out
}

// again decides a request that was recorded, by whatever decided it then.
func (s *Set) again(q *Request) Decision {
	if t, f, ok := q.delivery(); ok {
		return s.CanDeliver(q.Resource.Namespace, t, f)
	}
	if s.partial(q) {
		return s.Cross(*q)
	}
	return s.Decide(*q)
}
