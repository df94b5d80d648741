package manifest

import "strings"

// IdentityGrant gets tokens that say which function it is, for others to trust.
type IdentityGrant struct {
	// Audience is whom the tokens are for; they are good for nobody else.
	Audience string
}

// maxAudience bounds an audience, in bytes.
const maxAudience = 255

// identityGrant reads a grant of kind identity.
func (t *table) identityGrant(g *Grant) {
	in := t.table(KindIdentity)
	in.need("audience", "the grant has no audience: a token is for exactly one")
	g.Identity = &IdentityGrant{Audience: in.text("audience")}
	if a := g.Identity.Audience; len(a) > maxAudience || strings.ContainsFunc(a, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		in.fault("audience", "want a text of 1 to %d bytes without control characters", maxAudience)
	}
	in.done()
}
