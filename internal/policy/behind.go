package policy

import (
	"slices"

	"sallyport/internal/ident"
)

// A permit with the annotation @act_as("function") lets a function do something on its own authority. With any other
// permit, a function does what who caused it may do as well, so that nobody reaches by way of a function what is
// denied to them: decisions/0017.
const (
	actAs         = "act_as"
	actAsFunction = "function"
)

// DecideAlone decides without who is behind a function's request. With alone the answer stands; else it is an allow, and
// only as far as who caused the request may do the same, which Decide asks as well. Who remembers decisions remembers
// the two answers apart, because there are many callers.
func (s *Set) DecideAlone(q Request) (d Decision, alone bool) {
	room := s.work.take()
	room.request = q
	d, alone = s.half(&room.request, false)
	s.work.give(room)
	return d, alone
}

// alone reports whether the answer to a question stands without who is behind it.
func (s *selection) alone(q *Request, d *Decision) bool {
	if q.Principal.Kind != KindFunction || !d.Allowed {
		return true
	}
	return slices.ContainsFunc(d.Policies, func(id string) bool {
		c := s.find(id)
		return c != nil && c.own
	})
}

// within returns the answer to a question whose first half is d.
func (s *Set) within(q *Request, d Decision, alone bool) Decision {
	if alone || !d.Allowed {
		return d
	}
	behind := s.behind(q)
	if behind.Allowed {
		return d
	}
	behind.Bridges, behind.DryRun = nil, d.DryRun
	return behind
}

// Behind returns whether who caused a function's request may do the same. When nobody did, as for a schedule,
// nothing is in the way.
func (s *Set) Behind(q Request) Decision { return s.behind(&q) }

// behind asks it with the circumstances in which the first event came, so a policy on them decides as it did then.
func (s *Set) behind(q *Request) Decision {
	cause := q.Context.Cause
	switch {
	case cause == nil:
		return Decision{Allowed: true}
	case cause.Barred:
		return Decision{}
	case cause.Principal == nil:
		return Decision{Allowed: true}
	case cause.Principal.Kind == KindFunction:
		return Decision{}
	}
	own := Request{Principal: *cause.Principal, Action: q.Action, Resource: q.Resource, Context: q.Context, resource: q.resource}
	own.Context.Cause = nil
	if sent := cause.Sent; sent != nil {
		own.Context.IP, own.Context.Now, own.Context.Transport = sent.IP, sent.Now, sent.Transport
	}
	return s.decide(&own, false)
}

// MayGrant decides whether who deploys a function of a namespace may do themselves what a grant of it permits. A perimeter that
// the function is inside of is not in the way: to deploy the function, which is asked apart, is to act inside of it.
func (s *Set) MayGrant(q Request, ns ident.Namespace, function ident.FunctionName) Decision {
	w, ok := s.ask(&q, true)
	if !ok {
		return Decision{}
	}
	d := s.judge(w, &selection{list: s.inScope(&w.request, &q, nil)})
	if len(s.borders) == 0 {
		return d
	}
	list, ok := q.passages(w, false, nil)
	if !ok {
		return d
	}
	t := s.payAll(list)
	for _, b := range s.around(&end{kind: KindFunction, ns: ns, name: string(function)}, nil) {
		t.denied = slices.DeleteFunc(t.denied, func(id string) bool { return id == b.id })
	}
	t.settle(&d)
	return d
}
