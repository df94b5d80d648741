package access

import (
	"net/http"
	"net/netip"
	"time"

	"sallyport/internal/access/oidc"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// narrowedBy is what a 403 names as deciding when a caveat does.
const narrowedBy = "token-caveats"

// narrowed returns the principal of a narrowed token. It is that of the token it was made of, with caveats. What was
// verified is remembered, but the token it was made of is looked up each time: to revoke that one ends this one.
func (i *Identifier) narrowed(r *http.Request, text string) (*Principal, error) {
	if len(text) > narrow.MaxText {
		return nil, unauthenticated()
	}
	now, sum, changes := time.Now(), oidc.Sum(text), i.changes()
	p := i.narrowedKnown.get(sum, now, changes)
	if p == nil {
		if err := i.strained(r); err != nil {
			return nil, err
		}
		if p = i.verifyNarrowed(text); p == nil {
			return nil, unauthenticated()
		}
		i.narrowedKnown.put(sum, p, now, changes)
	}
	base := i.tokens.valid(p.base, now)
	if base == nil || !now.Before(p.Expires) {
		return nil, unauthenticated()
	}
	ip := addressOf(r)
	for n := range p.caveats {
		if !p.caveats[n].From(ip) {
			return nil, unauthenticated()
		}
	}
	return p, nil
}

// verifyNarrowed returns the principal of a chain that was made from a token of ours, or nil.
func (i *Identifier) verifyNarrowed(text string) *Principal {
	t, err := narrow.Parse(text)
	if err != nil {
		return nil
	}
	base := i.tokens.valid(t.ID, time.Now())
	if base == nil || !t.Verify(base.stored.Key) {
		return nil
	}
	p := *base.principal
	p.base, p.caveats = t.ID, t.Caveats
	p.policy.Attenuated = true
	p.policy = p.policy.Prepare()
	p.identity = p.policy.Digest()
	p.authority = authorityOf(&p)
	if end := t.Ends(); !end.IsZero() && end.Before(p.Expires) {
		p.Expires = end
	}
	return &p
}

// valid returns the token with this id, or nil when it was revoked or has expired.
func (t *Tokens) valid(id string, now time.Time) *token {
	tok := (*t.byID.Load())[id]
	if tok == nil || tok.stored.Revoked != nil || !now.Before(tok.stored.Expires) {
		return nil
	}
	return tok
}

// addressOf returns the client's address, the zero one when it is not known.
func addressOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// withinCaveats returns nil when the caveats of a narrowed token let it be used for an action. They never allow anything:
// policy decides after them as for the token it was made of.
func (p *Principal) withinCaveats(action policy.Action, res policy.Resource) error {
	if len(p.caveats) == 0 {
		return nil
	}
	// A token that a narrowed one makes would not be narrowed.
	ok := action != policy.ManageTokens
	for n := range p.caveats {
		c := &p.caveats[n]
		ok = ok && c.Action(string(action))
		// To invoke or deploy a function are ways to publish past the types, so nothing but to publish is left.
		if len(c.Types) > 0 {
			ok = ok && action == policy.Publish && res.Kind == policy.KindEventType && c.Type(res.Name)
		}
	}
	if ok {
		return nil
	}
	return problem.New(problem.Denied, "access.denied", "%s was narrowed, and may not %s here", p.ID, action).
		WithPolicies(narrowedBy).WithHint("ask whom you have the token from for one that reaches this (`sallyport token narrow`)")
}
