package policy

import (
	"slices"

	"sallyport/internal/ident"
)

// NamespaceFacts are what decisions about a namespace depend on beside policies.
type NamespaceFacts struct {
	Name ident.Namespace
	// Owners administer the namespace, and nothing else.
	Owners []ident.PrincipalID
	// NoRoles says that roles permit nothing in it, but for that of an operator: the policies of the namespace, or its
	// owners, say who may do what.
	NoRoles bool
}

// facts are NamespaceFacts as decisions look them up.
type facts struct {
	owns    map[ident.PrincipalID][]ident.Namespace
	noRoles map[ident.Namespace]bool
}

// WithFacts returns the set with what is known of namespaces replaced. What is unchanged is shared.
func (s *Set) WithFacts(list []NamespaceFacts) *Set {
	f := &facts{owns: map[ident.PrincipalID][]ident.Namespace{}, noRoles: map[ident.Namespace]bool{}}
	for i := range list {
		for _, id := range list[i].Owners {
			f.owns[id] = append(f.owns[id], list[i].Name)
		}
		if list[i].NoRoles {
			f.noRoles[list[i].Name] = true
		}
	}
	next := *s
	next.facts = nil
	if len(f.owns)+len(f.noRoles) > 0 {
		next.facts = f
	}
	return &next
}

// Belongs reports whether a principal may know that a namespace exists: it is one of it, an owner of it, or one of the
// whole server. Whoever does not belong may still be permitted something in it, by a policy that names the principal.
func (s *Set) Belongs(p *Principal, ns ident.Namespace) bool {
	switch {
	case ns == "" || p.Namespace == ns:
		return true
	case p.Namespace != "":
		return false
	case p.Role != "":
		return true
	}
	return s.facts != nil && slices.Contains(s.facts.owns[p.ID], ns)
}

// BuiltIn reports whether the id is that of a guard rail or a role.
func (s *Set) BuiltIn(id string) bool {
	return slices.ContainsFunc(s.server.all, func(c *compiled) bool { return c.ns == builtIn && c.id == id })
}

// principalIn returns the principal of a request as it is in the namespace of the resource.
func (s *Set) principalIn(q *Request) *Principal {
	p := &q.Principal
	if s.facts == nil || p.Kind == KindFunction {
		return p
	}
	owns := s.facts.owns[p.ID]
	without := p.Role != "" && p.Role != Operator && s.facts.noRoles[q.Resource.Namespace]
	if len(owns) == 0 && !without {
		return p
	}
	there := *p
	there.Owns, there.prepared = owns, nil
	if without {
		there.Role = ""
	}
	return &there
}

// newWorld returns the Cedar form of a request, in which the principal is what it is in the namespace of the resource.
func (s *Set) newWorld(q *Request, parts ContextPart) (*world, bool) {
	p := s.principalIn(q)
	if p == &q.Principal {
		return newWorld(q, parts)
	}
	there := *q
	there.Principal = *p
	return newWorld(&there, parts)
}
