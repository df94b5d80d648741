package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"sallyport/internal/access/oidc"
	"sallyport/internal/ident"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// Mapping is what a principal gets that did not come with a token of the server's own.
type Mapping struct {
	Role       policy.Role
	Namespace  ident.Namespace // "": the whole server
	EventTypes []ident.EventType
}

// Claims are what an issuer or a certificate says of a principal, for policies to look at.
type Claims struct {
	Issuer, Subject string
	Client          string
	Groups, Roles   []string
	Tenant          string
	ACR             string
	AMR             []string
	AuthTime        time.Time
}

// Issuer is an issuer whose tokens are accepted, and what its principals get.
type Issuer struct {
	*oidc.Issuer
	// Service says that its tokens are of programs, not of people.
	Service bool
	// Map returns what a principal gets, and false when nothing is said about it.
	Map func(*Claims) (Mapping, bool)
}

// IdentifierConfig says by what, beside tokens of the server's own, callers prove who they are.
type IdentifierConfig struct {
	Issuers     []Issuer
	Authorities []Authority
	Rates       Rates
	// Ours reports whether a host name is one of this server; nil is none, and then no proof of possession is good.
	Ours   func(host string) bool
	Logger *slog.Logger
}

// Identifier finds out who sends a request. It decides nothing about what they may do. It is safe for concurrent use.
type Identifier struct {
	tokens  *Tokens
	cfg     IdentifierConfig
	issuers oidc.Issuers
	about   map[string]*Issuer
	// Each kind of credential is remembered apart: a certificate is public, and its bytes must be no token.
	tokensKnown, narrowedKnown, certificatesKnown recent
	rates                                         rates
	proofs                                        *oidc.Proofs
}

// NewIdentifier returns an identifier.
func NewIdentifier(tokens *Tokens, cfg IdentifierConfig) *Identifier {
	i := &Identifier{
		tokens: tokens, cfg: cfg, issuers: oidc.Issuers{}, about: map[string]*Issuer{},
		proofs: oidc.NewProofs(time.Now()), rates: newRates(cfg.Rates),
	}
	if i.cfg.Logger == nil {
		i.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for n := range cfg.Issuers {
		is := &cfg.Issuers[n]
		i.issuers[is.URL()], i.about[is.URL()] = is.Issuer, is
	}
	return i
}

// Identify returns the principal of a request, or a problem access.unauthenticated that is the same whatever is
// wrong. A token goes before a client certificate, and a bad one is not made good by it; a second Authorization
// header is refused.
func (i *Identifier) Identify(r *http.Request) (*Principal, error) {
	if i.rates.addresses != nil {
		if wait := i.rates.addresses.take(network(r)); wait > 0 {
			return nil, rateExceeded("this address", wait)
		}
	}
	p, err := i.identify(r)
	if err != nil {
		if i.rates.failures != nil && problem.From(err).Kind == problem.Unauthenticated {
			i.rates.failures.take(network(r))
		}
		return nil, err
	}
	if i.rates.principals != nil {
		if wait := i.rates.principals.take(p.ID); wait > 0 {
			return nil, rateExceeded(string(p.ID), wait)
		}
	}
	return p, nil
}

func (i *Identifier) identify(r *http.Request) (*Principal, error) {
	if len(i.cfg.Authorities) > 0 && len(r.Header["Authorization"]) == 0 && len(r.Header["Dpop"]) == 0 {
		if p := i.certificate(r); p != nil && !crossSite(r) {
			return p, nil
		}
		return nil, unauthenticated()
	}
	text, proven := credential(r)
	if proven {
		return i.foreign(r, text, true)
	}
	if strings.HasPrefix(text, narrow.Prefix) {
		return i.narrowed(r, text)
	}
	if !strings.HasPrefix(text, tokenPrefix) && len(i.issuers) > 0 && text != "" {
		return i.foreign(r, text, false)
	}
	return i.tokens.Authenticate(r.Context(), text)
}

// Circumstances returns what policies may know of a request beside who sends it.
func (i *Identifier) Circumstances(r *http.Request) Circumstances {
	return Circumstances{IP: addressOf(r), MutualTLS: i.certificate(r) != nil}
}

// Still returns nil while the principal of a request that takes long is who it was: its credential was not revoked
// and did not end. A proof of possession, which is used up, is not asked for again.
func (i *Identifier) Still(r *http.Request) error {
	if text, proven := credential(r); proven {
		_, err := i.verified(r, text)
		return err
	}
	_, err := i.identify(r)
	return err
}

// changes returns a number that grows when a credential that was accepted may not be accepted any more.
func (i *Identifier) changes() uint64 {
	sum := i.issuers.Changes()
	for n := range i.cfg.Authorities {
		if v := i.cfg.Authorities[n].Revoked; v != nil {
			sum += v.loads.Load()
		}
	}
	return sum
}

// credential returns the token of a request, or "", and whether it comes with a proof of possession (the scheme DPoP).
func credential(r *http.Request) (text string, proven bool) {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return "", false
	}
	scheme, text, ok := strings.Cut(values[0], " ")
	switch {
	case !ok || text == "":
		return "", false
	case strings.EqualFold(scheme, "Bearer"):
		return text, false
	case strings.EqualFold(scheme, "DPoP"):
		return text, true
	}
	return "", false
}

// foreign returns the principal of an issuer's token, if the caller has proved what the token says must be proved. A token that
// is bound to a key is no bearer token, and one that is not bound takes no proof.
func (i *Identifier) foreign(r *http.Request, text string, proven bool) (*Principal, error) {
	p, err := i.verified(r, text)
	if err != nil {
		return nil, err
	}
	if proven != (p.bound.key != "") || !proven && len(r.Header["Dpop"]) > 0 {
		return nil, unauthenticated()
	}
	if p.bound.certificate != "" && !i.shows(r, p.bound.certificate) {
		return nil, unauthenticated()
	}
	if proven {
		if err := i.possesses(r, text, p.bound.key); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// verified returns the principal of an issuer's token, whatever else the token says must be proved.
func (i *Identifier) verified(r *http.Request, text string) (*Principal, error) {
	if len(text) > oidc.MaxToken {
		return nil, unauthenticated()
	}
	now, sum := time.Now(), oidc.Sum(text)
	changes := i.changes()
	if p := i.tokensKnown.get(sum, now, changes); p != nil {
		return p, nil
	}
	if err := i.strained(r); err != nil {
		return nil, err
	}
	tok, err := i.issuers.Verify(r.Context(), text)
	if err != nil {
		return nil, i.refused(r.Context(), err)
	}
	p := i.principal(tok)
	p.bound = binding{certificate: tok.Thumbprint, key: tok.KeyThumbprint}
	i.tokensKnown.put(sum, p, now, changes)
	return p, nil
}

// binding is what the caller must prove to have beside a token; both empty is nothing.
type binding struct{ certificate, key string }

// shows reports whether the caller's client certificate has this thumbprint, and is good now.
//
// Source: RFC 8705, section 3.
func (i *Identifier) shows(r *http.Request, thumbprint string) bool {
	if i.certificate(r) == nil {
		return false
	}
	sum := sha256.Sum256(r.TLS.VerifiedChains[0][0].Raw)
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(thumbprint)) == 1
}

// possesses returns nil when the request has one proof, made for it with the key of this thumbprint, and used for the first
// time.
func (i *Identifier) possesses(r *http.Request, text, key string) error {
	proofs := r.Header["Dpop"]
	if len(proofs) != 1 || !i.ours(r.Host) {
		return unauthenticated()
	}
	if err := i.strained(r); err != nil {
		return err
	}
	err := i.proofs.Check(&oidc.Proof{
		Text: proofs[0], Token: text, Key: key, Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(),
	})
	if errors.Is(err, oidc.ErrFull) {
		const pause = 5 * time.Second
		return problem.New(problem.Exhausted, "access.too_many_proofs", "too many proofs of possession came of late").WithRetryAfter(pause)
	}
	if err != nil {
		return i.refused(r.Context(), err)
	}
	return nil
}

// ours reports whether a Host header names this server. Whoever was sent a proof could else send it on to us.
func (i *Identifier) ours(host string) bool {
	if i.cfg.Ours == nil {
		return false
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return i.cfg.Ours(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// refused is what a caller is told of a token that was not accepted: nothing, unless it can come again.
func (i *Identifier) refused(ctx context.Context, err error) error {
	i.cfg.Logger.DebugContext(ctx, "token refused", "error", err)
	if errors.Is(err, oidc.ErrNoKeys) {
		const pause = 5 * time.Second
		return problem.New(problem.Unavailable, "access.issuer_unavailable", "the token's issuer does not answer, so the token cannot be checked").
			WithRetryAfter(pause).WithCause(err)
	}
	return unauthenticated()
}

// principal returns who a token is of. Its id is made of issuer and subject, which together are one principal for
// ever; names and addresses are not, and an issuer may give them to somebody else.
func (i *Identifier) principal(tok *oidc.Token) *Principal {
	is := i.about[tok.Issuer]
	kind := "user:"
	if is.Service {
		kind = "service:"
	}
	claims := &Claims{
		Issuer: tok.Issuer, Subject: tok.Subject, Client: tok.Client, Groups: tok.Groups, Roles: tok.Roles, Tenant: tok.Tenant,
		ACR: tok.ACR, AMR: tok.AMR, AuthTime: tok.AuthTime,
	}
	// An issuer's URL has no fragment, so the first # ends it.
	id := ident.PrincipalID(kind + tok.Issuer + "#" + printable(tok.Subject))
	return mapped(id, claims, is.Map, tok.Expires)
}

// mapped returns a principal with what a mapping gives it; without one it has no role, and may do nothing.
func mapped(id ident.PrincipalID, claims *Claims, by func(*Claims) (Mapping, bool), expires time.Time) *Principal {
	out := policy.Principal{Kind: policy.KindUser, ID: id, Claims: claims.forPolicies()}
	if strings.HasPrefix(string(id), "service:") {
		out.Kind = policy.KindService
	}
	if claims != nil {
		for _, g := range claims.Groups {
			out.Groups = append(out.Groups, claims.Issuer+"#"+g) // two issuers may use one name
		}
	}
	if m, ok := by(claims); ok {
		out.Role, out.Namespace, out.EventTypes = m.Role, m.Namespace, m.EventTypes
	}
	p := newPrincipal(out, expires)
	p.Claims = claims
	p.authority = authorityOf(p)
	return p
}

// forPolicies returns the claims as policies see them.
func (c *Claims) forPolicies() *policy.Claims {
	if c == nil {
		return nil
	}
	out := &policy.Claims{
		Issuer: c.Issuer, Groups: c.Groups, Roles: c.Roles, Tenant: c.Tenant, Strength: c.ACR, Methods: c.AMR, Time: c.AuthTime,
		Others: map[string][]string{},
	}
	for name, value := range map[string]string{"sub": c.Subject, "azp": c.Client} {
		if value != "" {
			out.Others[name] = []string{value}
		}
	}
	return out
}

// maxPrintable bounds a name in an id, in bytes: the id is stored with each of the up to 1,024 events of a request.
const maxPrintable = 200

// printable escapes what is not a plain character: ids are in logs, and on terminals. One that is too long is named by its
// digest, with a beginning that no escape has. Two names never become one.
func printable(s string) string {
	out := escaped(s)
	if len(out) > maxPrintable {
		return fmt.Sprintf("%%sha256:%x", sha256.Sum256([]byte(s)))
	}
	return out
}

func escaped(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	for n := range len(s) {
		if c := s[n]; c > ' ' && c < 0x7f && c != '%' && c != '"' && c != '\\' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// digest names a credential without holding it.
type digest = [sha256.Size]byte
