package manifest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport/internal/ident"
)

// SecretGrant reads the value of a secret. It is the one kind that reveals one to the function.
type SecretGrant struct {
	Ref ident.SecretRef
	// Lease is how long the function may use a value that it was given; after that it asks again.
	Lease time.Duration
}

// reaches is the loudest of all, for with it the value is in the function's hands.
func (s *SecretGrant) reaches() []string {
	return []string{"THE FUNCTION READS THE VALUE OF " + s.Ref.String()}
}

// Limits of leases.
const (
	minLease     = time.Second
	MaxLease     = time.Hour
	DefaultLease = 5 * time.Minute
)

// secretGrant reads a grant of kind secret.
func (t *table) secretGrant(g *Grant) {
	s := &SecretGrant{Lease: DefaultLease}
	g.Secret = s
	if text := t.text(KindSecret); text != "" {
		ref, err := ident.ParseSecretRef(text)
		switch {
		case err != nil:
			t.fault(KindSecret, `want a secret's name, and perhaps its version, such as "secret:stripe-key" or "secret:stripe-key@3"`)
		case !ref.Own():
			t.fault(KindSecret, `a manifest names secrets of its namespace only: link this one to a name (sallyport secret link NAME %s) and write "secret:NAME"`, ref)
		}
		s.Ref = ref
	}
	t.duration("lease", &s.Lease, minLease, MaxLease)
}

// secretRefs are the secrets that a grant uses, and reveals tells whether the function gets the value.
func (g *Grant) secretRefs() (refs []ident.SecretRef, reveals bool) {
	switch {
	case g.Secret != nil:
		return []ident.SecretRef{g.Secret.Ref}, true
	case g.HTTP != nil:
		return parsed(g.HTTP.texts()), false
	case g.SQL != nil:
		var texts []string
		for _, ref := range []string{g.SQL.Secret, g.SQL.CA} {
			if ref != "" {
				texts = append(texts, SecretPrefix+ref)
			}
		}
		return parsed(texts), false
	}
	return nil, false
}

// texts are those of the grant that can be references.
func (h *HTTPGrant) texts() []string {
	a := &h.Auth
	out := []string{h.CA, a.Bearer}
	for _, n := range []*HTTPNamed{a.Header, a.Query} {
		if n != nil {
			out = append(out, n.Value)
		}
	}
	if a.Basic != nil {
		out = append(out, a.Basic.User, a.Basic.Password)
	}
	if a.HMAC != nil {
		out = append(out, a.HMAC.Key)
	}
	if a.AWS != nil {
		out = append(out, a.AWS.AccessKey, a.AWS.SecretKey, a.AWS.Session)
	}
	if a.OAuth2 != nil {
		out = append(out, a.OAuth2.ClientID, a.OAuth2.ClientSecret)
	}
	if a.MTLS != nil {
		out = append(out, a.MTLS.Certificate, a.MTLS.Key)
	}
	return out
}

// parsed returns the texts that are references. What is malformed was a fault when it was read.
func parsed(texts []string) (refs []ident.SecretRef) {
	for _, text := range texts {
		if ref, err := ident.ParseSecretRef(text); err == nil && ref.Own() {
			refs = append(refs, ref)
		}
	}
	return refs
}

// Secrets returns the references to secrets of a function's grants, without repetitions and in order: those that the server applies
// outside the sandbox, and those whose value the function reads.
func Secrets(grants map[string]Grant) (uses, reveals []ident.SecretRef) {
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		g := grants[name]
		refs, reveal := g.secretRefs()
		if reveal {
			reveals = append(reveals, refs...)
		} else {
			uses = append(uses, refs...)
		}
	}
	return inOrder(uses), inOrder(reveals)
}

func inOrder(refs []ident.SecretRef) []ident.SecretRef {
	slices.SortFunc(refs, func(a, b ident.SecretRef) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(refs)
}
