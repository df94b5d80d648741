// Package oidc checks the tokens of OpenID Connect issuers: JWTs that an issuer named in the configuration
// signed, for us, and that are valid now.
//
// What holds: a token's length is bounded before anything of it is parsed; its parts are parsed strictly,
// with names that are there twice refused; a JWE is never parsed; the signature is asymmetric, of an
// algorithm that the issuer's configuration lists, and by a key that the issuer publishes itself: keys and
// addresses of keys that a token carries are refused. A failure to fetch keys admits nobody; a key that is
// known goes on working while the issuer does not answer, for a day at most.
//
// It knows nothing of principals. Caller: access.
//
// Sources: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8725 (best practices), RFC 9068 (access tokens), OpenID Connect
// Discovery 1.0.
package oidc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/internal/outbound"
)

// MaxToken bounds a token in bytes, before it is parsed. Those of large issuers with many groups have 4 KiB.
const MaxToken = 8 << 10

// ErrRefused is wrapped by the error of a token that is not accepted, whatever is wrong with it.
var ErrRefused = errors.New("token is not accepted")

// ErrNoKeys is wrapped by the error of a token that cannot be checked now: its issuer does not answer.
var ErrNoKeys = errors.New("issuer's keys are not known")

// Config says what is accepted from one issuer.
type Config struct {
	URL        string
	Audiences  []string
	Algorithms []string
	// Types are the accepted values of the header typ; "" among them accepts a token without one.
	Types []string
	Skew  time.Duration
	// The names of the claims that Token has; "a.b" is a member of an object.
	GroupsClaim, RolesClaim, TenantClaim string
}

// Validate reports every fault of c.
func (c *Config) Validate() error {
	var errs []error
	if _, err := outbound.ParseURL(c.URL); err != nil {
		errs = append(errs, fmt.Errorf("issuer: %w", err))
	}
	if len(c.Audiences) == 0 || slices.Contains(c.Audiences, "") {
		errs = append(errs, errors.New("issuer: an audience is needed"))
	}
	if len(c.Algorithms) == 0 {
		errs = append(errs, errors.New("issuer: an algorithm is needed"))
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(asymmetric, jose.SignatureAlgorithm(a)) {
			errs = append(errs, fmt.Errorf("issuer: algorithm %q is not one of those that may be accepted", a))
		}
	}
	if len(c.Types) == 0 || c.Skew < 0 {
		errs = append(errs, errors.New("issuer: types are needed, and a skew that is not negative"))
	}
	return errors.Join(errs...)
}

// asymmetric are the algorithms that can be listed.
var asymmetric = []jose.SignatureAlgorithm{
	jose.EdDSA, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512, jose.RS256, jose.RS384, jose.RS512,
}

// Token is what a token says that was accepted.
type Token struct {
	Issuer, Subject string
	Client          string // azp or client_id: the program that got the token
	Groups, Roles   []string
	Tenant          string
	ACR             string
	AMR             []string
	AuthTime        time.Time // zero when the token does not say
	// Expires is until when the token is accepted: its exp, and the skew.
	Expires time.Time
	// Thumbprint and KeyThumbprint, when not empty, say which client certificate or key (RFC 8705, RFC 9449) the
	// caller must prove to have. The caller of Verify MUST see to it.
	Thumbprint, KeyThumbprint string
}

// Getter fetches what an issuer publishes; outbound.Client is one.
type Getter interface {
	Get(ctx context.Context, url string) (*outbound.Answer, error)
}

// Issuer checks the tokens of one issuer. It is safe for concurrent use.
type Issuer struct {
	cfg  Config
	keys *keys
}

// NewIssuer returns an issuer. It fetches nothing yet.
func NewIssuer(cfg Config, client Getter, log *slog.Logger) (*Issuer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Issuer{cfg: cfg, keys: newKeys(cfg.URL, client, log)}, nil
}

// URL returns the issuer's URL, which is its name.
func (i *Issuer) URL() string { return i.cfg.URL }

// Freshness is how fresh what is known of an issuer is.
type Freshness struct {
	Keys     int
	Fetched  time.Time // zero: never
	Failures int64     // fetches that failed, since the server began
}

// Freshness returns how fresh what is known of i is.
func (i *Issuer) Freshness() Freshness {
	out := Freshness{Failures: i.keys.failed.Load()}
	if set := i.keys.current.Load(); set != nil {
		out.Keys, out.Fetched = len(set.keys), set.fetched
	}
	return out
}

// Changes returns a number that grows when a key that was accepted is not accepted any more.
func (i *Issuer) Changes() uint64 { return i.keys.dropped.Load() }

// Revoke has what keys of i signed refused from now on, by their ids, whatever i publishes.
func (i *Issuer) Revoke(ids ...string) { i.keys.revoke(ids) }

// Run keeps the keys fresh until ctx ends.
func (i *Issuer) Run(ctx context.Context) { i.keys.run(ctx) }

// Issuers are all issuers of a server, by URL.
type Issuers map[string]*Issuer

// Verify checks a token against the issuer that it names. The error wraps ErrRefused or ErrNoKeys.
func (all Issuers) Verify(ctx context.Context, text string) (*Token, error) {
	t, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	issuer := all[t.claims.Issuer]
	if issuer == nil {
		return nil, fmt.Errorf("%w: unknown issuer", ErrRefused)
	}
	return issuer.verify(ctx, t)
}

// Changes returns a number that grows when any issuer drops a key.
func (all Issuers) Changes() uint64 {
	var sum uint64
	for _, i := range all {
		sum += i.Changes()
	}
	return sum
}

func (i *Issuer) verify(ctx context.Context, t *parsed) (*Token, error) {
	now := time.Now()
	// What costs least is first; what is said here is for the log of a developer, never for the caller.
	if err := i.check(t, now); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	algorithm := jose.SignatureAlgorithm(t.header.Algorithm)
	key, err := i.keys.find(ctx, t.header.KeyID, algorithm)
	if err != nil {
		return nil, err
	}
	if err := verify(key.public, algorithm, t.input, t.signature); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return t.token(&i.cfg)
}

// check looks at everything but the signature.
func (i *Issuer) check(t *parsed, now time.Time) error {
	c := &t.claims
	switch {
	case !slices.Contains(i.cfg.Algorithms, t.header.Algorithm):
		return errors.New("algorithm is not accepted")
	case !slices.Contains(i.cfg.Types, t.header.typ()):
		return errors.New("type is not accepted")
	case c.Issuer != i.cfg.URL:
		return errors.New("issuer is another one")
	case !slices.ContainsFunc(i.cfg.Audiences, func(a string) bool { return slices.Contains(c.Audience, a) }):
		return errors.New("audience is another one")
	case c.Subject == "" || len(c.Subject) > maxSubject:
		return errors.New("subject is missing or too long")
	case c.Expires == nil || !now.Before(c.Expires.at().Add(i.cfg.Skew)):
		return errors.New("expired, or without an end")
	case c.NotBefore != nil && now.Add(i.cfg.Skew).Before(c.NotBefore.at()):
		return errors.New("not valid yet")
	case c.IssuedAt != nil && now.Add(i.cfg.Skew).Before(c.IssuedAt.at()):
		return errors.New("issued in the future")
	}
	return nil
}

// usualToken is what most tokens are shorter than, in bytes.
const usualToken = 1 << 10

// Sum is the digest that tokens are remembered by.
func Sum(text string) [sha256.Size]byte {
	if len(text) <= usualToken {
		var buf [usualToken]byte // a small one need not be cleared for long
		return sha256.Sum256(buf[:copy(buf[:], text)])
	}
	var buf [MaxToken]byte
	return sha256.Sum256(buf[:copy(buf[:], text)])
}
