package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"sallyport/internal/access"
	"sallyport/internal/access/oidc"
	"sallyport/internal/manifest"
	"sallyport/internal/outbound"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// Bounds of what is fetched from an issuer.
const (
	issuerTimeout = 10 * time.Second
	// maxIssuerAnswer is in bytes; the keys of large issuers have 20 KiB.
	maxIssuerAnswer = 256 << 10
	// maxPEM bounds a file of certificates; the CAs of a system have 250 KiB.
	maxPEM = 4 << 20
)

// newIdentifier returns what finds out who sends a request.
func (s *server) newIdentifier() (*access.Identifier, error) {
	cfg := access.IdentifierConfig{Logger: s.log, Ours: func(host string) bool {
		certs := s.certs.Load()
		return certs != nil && certs.current.Load().Leaf.VerifyHostname(host) == nil
	}}
	rates := &s.cfg.Settings.Rates
	cfg.Rates = access.Rates{Failures: access.Rate(rates.Failures), Address: access.Rate(rates.Address), Principal: access.Rate(rates.Principal)}
	for i := range s.cfg.Settings.Issuers {
		is, err := s.newIssuer(&s.cfg.Settings.Issuers[i])
		if err != nil {
			return nil, err
		}
		cfg.Issuers = append(cfg.Issuers, *is)
	}
	s.issuers = cfg.Issuers
	for i := range s.cfg.Settings.ClientCAs {
		ca, err := s.newAuthority(&s.cfg.Settings.ClientCAs[i])
		if err != nil {
			return nil, err
		}
		cfg.Authorities = append(cfg.Authorities, *ca)
	}
	return access.NewIdentifier(s.guard.Tokens, cfg), nil
}

func (s *server) newIssuer(m *manifest.Issuer) (*access.Issuer, error) {
	out := outbound.Config{Private: m.Private, Timeout: issuerTimeout, MaxBytes: maxIssuerAnswer}
	if m.CAFile != "" {
		certs, err := readCertificates(m.CAFile)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		for _, c := range certs {
			out.RootCAs.AddCert(c)
		}
	}
	client, err := outbound.New(out)
	if err != nil {
		return nil, err
	}
	s.later(func() error { client.Close(); return nil })
	types := slices.Clone(m.Types)
	for i := range types {
		if types[i] == manifest.TypeAbsent {
			types[i] = ""
		}
	}
	is, err := oidc.NewIssuer(oidc.Config{
		URL: m.URL, Audiences: m.Audiences, Algorithms: m.Algorithms, Types: types, Skew: m.Skew,
		GroupsClaim: m.GroupsClaim, RolesClaim: m.RolesClaim, TenantClaim: m.TenantClaim,
	}, client, s.log)
	if err != nil {
		return nil, fmt.Errorf("configure issuer %q: %w", m.URL, err)
	}
	return &access.Issuer{Issuer: is, Service: m.Principal == manifest.PrincipalService, Map: claimMap(m.Map)}, nil
}

// claimMap returns what says what a principal gets: the first mapping that fits.
func claimMap(list []manifest.ClaimMapping) func(*access.Claims) (access.Mapping, bool) {
	return func(c *access.Claims) (access.Mapping, bool) {
		for i := range list {
			if m := &list[i]; fits(m, c) {
				return mapping(&m.Mapping), true
			}
		}
		return access.Mapping{}, false
	}
}

func fits(m *manifest.ClaimMapping, c *access.Claims) bool {
	switch m.Claim {
	case manifest.ClaimSubject:
		return c.Subject == m.Value
	case manifest.ClaimGroups:
		return slices.Contains(c.Groups, m.Value)
	case manifest.ClaimRoles:
		return slices.Contains(c.Roles, m.Value)
	case manifest.ClaimTenant:
		return c.Tenant == m.Value
	}
	return false
}

func mapping(m *manifest.Mapping) access.Mapping {
	return access.Mapping{Role: policy.Role(m.Role), Namespace: m.Namespace, EventTypes: m.EventTypes}
}

// runIdentifier keeps what identities are checked with fresh, until ctx ends.
func (s *server) runIdentifier(ctx context.Context) {
	var all sync.WaitGroup
	for _, is := range s.issuers {
		all.Go(func() { is.Run(ctx) })
	}
	for _, list := range s.clientCAs.lists {
		all.Go(func() { list.run(ctx, s.log) })
	}
	all.Wait()
}

// readCertificates reads a PEM file of certificates, at least one.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := readBounded(path, maxPEM)
	if err != nil {
		return nil, problem.New(problem.Invalid, "server.ca_unusable", "cannot read the CA file %s: %s", path, reason(err)).WithCause(err)
	}
	var out []*x509.Certificate
	for _, der := range pemBlocks(text, "CERTIFICATE") {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, problem.New(problem.Invalid, "server.ca_unusable", "the CA file %s has a certificate that cannot be read", path).WithCause(err)
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, problem.New(problem.Invalid, "server.ca_unusable", "the CA file %s holds no certificate", path).
			WithHint("it must be a PEM file")
	}
	return out, nil
}

// readBounded reads a file of at most most bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return text, nil
}

// pemBlocks returns the blocks of one type.
func pemBlocks(text []byte, typ string) [][]byte {
	var out [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out
		}
		if block.Type == typ {
			out = append(out, block.Bytes)
		}
	}
}
