package policy

import (
	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// ParseUnvalidated makes a set of policies of the server that the schema would refuse, and of no others.
func ParseUnvalidated(text []byte) (*Set, error) {
	known, err := readSchema()
	if err != nil {
		return nil, err
	}
	asks, err := questions(known.resolved)
	if err != nil {
		return nil, err
	}
	known.validator = validate.New(known.resolved)
	r := &reader{schema: known}
	f := &source{name: "test.cedar", text: text}
	var list []*compiled
	for _, s := range r.statements(f) {
		var p cedar.Policy
		if err := p.UnmarshalCedar(s.text()); err != nil {
			return nil, err
		}
		list = append(list, compile(string(p.Annotations()["id"]), s, &p))
	}
	return &Set{schema: known, asks: asks, server: newIndex(list), transports: newTransports()}, nil
}

// Plain decides as Cedar itself does: with every policy that there is for the resource, and no index. An
// error in a forbid is a deny, which is this package's own rule.
func (s *Set) Plain(q Request) Decision {
	if !s.asks[ask{q.Principal.Kind, q.Action, q.Resource.Kind}] {
		return Decision{}
	}
	w, ok := newWorld(&q, allParts)
	if !ok {
		return Decision{}
	}
	list := s.server.all
	if own := s.own[q.Resource.Namespace]; own != nil && q.Resource.Namespace != "" {
		list = append(list[:len(list):len(list)], own.all...)
	}
	return s.judge(w, &selection{list: list, whole: true})
}

// PlainLoose decides as Cedar does without the context, of a set whose policies are about everything.
func (s *Set) PlainLoose(q Request) Decision {
	w, ok := s.ask(&q, false)
	if !ok {
		return Decision{}
	}
	return s.judge(w, &selection{list: s.server.all, loose: true})
}

// Loose decides without the context.
func (s *Set) Loose(q Request) Decision { return s.decide(&q, true) }

// InScope returns how many policies are evaluated for a request.
func (s *Set) InScope(q Request) int {
	w, _ := s.ask(&q, true)
	return len(s.inScope(&w.request, &q, nil))
}

// Toll returns what perimeters add to the decision about a request.
func (s *Set) Toll(q *Request) func() Decision {
	w, _ := s.ask(q, true)
	return func() Decision {
		d := Decision{Allowed: true}
		if len(s.borders) > 0 {
			s.conditionReads(q.Action, &q.Resource)
		}
		s.enclose(w, q, false, &d)
		return d
	}
}

// Quickly returns what quick conditions say of each policy whose scope a request is in, "yes", "no" or "unsure".
func (s *Set) Quickly(q Request) map[string]string {
	room := &workspace{}
	scope, d, _ := s.inScopeQuickly(&q, false, room)
	out := map[string]string{}
	for _, c := range scope {
		out[c.id] = "no"
	}
	for _, c := range append(d.permits, d.forbids...) {
		out[c.id] = "yes"
	}
	for _, c := range d.rest {
		out[c.id] = "unsure"
	}
	return out
}

// Alone returns what Cedar says of one policy, "yes", "no" or "error".
func (s *Set) Alone(q Request, id string) string {
	w, _ := newWorld(&q, allParts)
	for c := range s.all() {
		if c.id == id {
			holds, failure := w.evaluate(c.policy())
			switch {
			case failure != "":
				return "error"
			case holds:
				return "yes"
			}
		}
	}
	return "no"
}
