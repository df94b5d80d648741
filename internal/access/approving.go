package access

import (
	"context"
	"slices"
	"strings"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// secondPrincipal is what a 403 and the record of decisions name as deciding when who approves is not somebody else.
const secondPrincipal = "second-principal"

// maxMakers bounds how far back it is followed who made whose token.
const maxMakers = 100

// MayApprove returns nil when p may approve what sender applied to a namespace: policy has to permit it, and p has to be somebody
// else. A token is nobody else than who made it, because whoever makes a token has it; and two tokens that one principal made are
// one, unless that is an operator of the whole server, who says whether there are approvals at all.
func (g *Guard) MayApprove(ctx context.Context, p *Principal, ns ident.Namespace, sender ident.PrincipalID) error {
	res := policy.OfNamespace(ns)
	if err := g.Authorize(ctx, p, policy.ApproveGrants, res); err != nil {
		return err
	}
	same := g.sameAs(p.ID, sender)
	if p.Claims != nil && g.ownIssuer != nil && p.Claims.Issuer == g.ownIssuer() && p.Claims.Issuer != "" {
		same = "the token is of a function"
	}
	if same == "" {
		return nil
	}
	g.record.second(p, res)
	return problem.New(problem.Denied, "access.same_principal", "%s may not approve what %s applied: %s", p.ID, sender, same).
		WithPolicies(secondPrincipal).
		WithHint("somebody else has to; to see who may: sallyport policy who-can %s namespace:%s", policy.ApproveGrants, ns)
}

// OwnIssuer tells the guard by which URL others know this server as an issuer of tokens for functions. It is called once, before g
// is used.
func (g *Guard) OwnIssuer(url func() string) { g.ownIssuer = url }

// second counts that somebody may not approve because it is nobody else.
func (d *Decisions) second(p *Principal, res policy.Resource) {
	if d == nil {
		return
	}
	d.count(&question{principal: p.identity, action: policy.ApproveGrants, resource: res},
		&answer{as: p.policy, decision: policy.Decision{Policies: []string{secondPrincipal}}}, 1, time.Now())
}

// sameAs returns why two principals may be one, in words; "" when they are two.
func (g *Guard) sameAs(approver, sender ident.PrincipalID) string {
	a, s := g.makers(approver), g.makers(sender)
	switch {
	case approver == sender:
		return "it is the same principal"
	case slices.Contains(a, sender):
		return string(sender) + " made the token of " + string(approver)
	case slices.Contains(s, approver):
		return string(approver) + " made the token of " + string(sender)
	}
	for _, maker := range a {
		if slices.Contains(s, maker) && !g.trustedMaker(maker) {
			return string(maker) + " made the tokens of both"
		}
	}
	return ""
}

// makers returns who made the token of a principal, who made the token of that one, and so on.
func (g *Guard) makers(id ident.PrincipalID) []ident.PrincipalID {
	var out []ident.PrincipalID
	for len(out) < maxMakers {
		name, isToken := strings.CutPrefix(string(id), "token:")
		tok := (*g.Tokens.byID.Load())[name]
		if !isToken || tok == nil || tok.stored.CreatedBy == "" {
			return out
		}
		id = ident.PrincipalID(tok.stored.CreatedBy)
		out = append(out, id)
	}
	return out
}

// trustedMaker reports whether a maker of tokens is the server, or a token of an operator of the whole server.
func (g *Guard) trustedMaker(id ident.PrincipalID) bool {
	name, isToken := strings.CutPrefix(string(id), "token:")
	if !isToken {
		return id == madeByServer
	}
	tok := (*g.Tokens.byID.Load())[name]
	return tok != nil && tok.principal.Role == policy.Operator && tok.principal.Namespace == ""
}

// Absent returns who did something before, and a context for what is asked about them: their request came as it did then, and it is now.
// authority is what Keep returned. The principal is nil when its credential was revoked since, or nobody knows any more what it might do.
func (g *Guard) Absent(ctx context.Context, id ident.PrincipalID, authority string) (context.Context, *Principal, error) {
	p, err := g.behind(ctx, &Cause{Principal: id, Authority: authority})
	_, sent, _ := parseAuthority(authority)
	return WithCircumstances(ctx, Circumstances{IP: sent.IP, MutualTLS: sent.Transport == policy.TransportMutualTLS}), p, err
}
