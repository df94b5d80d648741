package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/telemetry"
)

const (
	// crlCheck is how often a running server looks for a new revocation list: what it says is in force within a second.
	crlCheck = 500 * time.Millisecond
	// crlSettled is how old a file must be for its time to tell that it did not change: two writes that follow each other
	// may have the same time.
	crlSettled = 2 * time.Second
	// maxCRL bounds a file of revocation lists in bytes: about a million certificates.
	maxCRL = 64 << 20
)

// clientCAs are the CAs of callers.
type clientCAs struct {
	pool  *x509.CertPool // nil without any
	lists []*crlFile
}

// require has callers asked for a certificate. One that they show must be good; that they show none is no error,
// because they may have a token. Sessions are not resumed: what a certificate proved is looked at again each time.
func (c *clientCAs) require(config *tls.Config) *tls.Config {
	if c.pool != nil {
		config.ClientAuth, config.ClientCAs, config.SessionTicketsDisabled = tls.VerifyClientCertIfGiven, c.pool, true
	}
	return config
}

func (s *server) newAuthority(m *manifest.ClientCA) (*access.Authority, error) {
	roots, err := readCertificates(m.File)
	if err != nil {
		return nil, err
	}
	if s.clientCAs.pool == nil {
		s.clientCAs.pool = x509.NewCertPool()
	}
	for _, c := range roots {
		s.clientCAs.pool.AddCert(c)
	}
	a := &access.Authority{Name: m.Name, Roots: roots, Map: nameMap(m.Map)}
	if m.CRLFile != "" {
		a.Revoked = &access.Revocations{}
		list := &crlFile{name: m.Name, path: m.CRLFile, issuers: roots, to: a.Revoked}
		if _, err := list.reload(); err != nil {
			return nil, problem.New(problem.Invalid, "server.crl_unusable", "cannot use the revocation list %s: %v", m.CRLFile, err).
				WithHint("it must be a list of the CA in %s, in PEM or DER, that has a next update", m.File).WithCause(err)
		}
		s.clientCAs.lists = append(s.clientCAs.lists, list)
	}
	return a, nil
}

// nameMap returns what says what the holder of a certificate gets: the first mapping that fits.
func nameMap(list []manifest.NameMapping) func(*access.Claims) (access.Mapping, bool) {
	return func(c *access.Claims) (access.Mapping, bool) {
		for i := range list {
			m := &list[i]
			want := m.SPIFFE + m.Subject // one of them is empty
			begin, open := strings.CutSuffix(m.SPIFFE, "*")
			if c.Subject == want || open && len(c.Subject) > len(begin) && strings.HasPrefix(c.Subject, begin) {
				return mapping(&m.Mapping), true
			}
		}
		return access.Mapping{}, false
	}
}

// crlFile is a file of revocation lists that is read again when it changes.
type crlFile struct {
	path    string
	issuers []*x509.Certificate
	to      *access.Revocations
	last    []byte
	// read is the file as it was read, nil when its time does not tell yet whether it changes.
	read   fs.FileInfo
	name   string // of the CA
	failed atomic.Int64
}

// reload reads the file, and reports whether it was another one than before.
func (c *crlFile) reload() (bool, error) {
	now, err := os.Stat(c.path)
	if err != nil {
		return false, err
	}
	if c.read != nil && os.SameFile(c.read, now) && c.read.Size() == now.Size() && c.read.ModTime().Equal(now.ModTime()) {
		return false, nil
	}
	text, err := readBounded(c.path, maxCRL)
	if err != nil {
		return false, err
	}
	if c.read = nil; time.Since(now.ModTime()) > crlSettled {
		c.read = now
	}
	if c.last != nil && bytes.Equal(text, c.last) {
		return false, nil
	}
	c.last = text
	ders := pemBlocks(text, "X509 CRL")
	if len(ders) == 0 {
		ders = [][]byte{text}
	}
	return true, c.to.Load(ders, c.issuers)
}

// run looks for a new list until ctx ends. One that cannot be used leaves the one before in place, until that one's
// next update: from then on no certificate of the CA is accepted.
func (c *crlFile) run(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(crlCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch changed, err := c.reload(); {
		case err != nil:
			c.failed.Add(1)
			log.ErrorContext(ctx, "revocation list not read; the one before stays in use until its next update", "file", c.path, "error", err)
		case changed:
			log.InfoContext(ctx, "revocation list read", "file", c.path)
		}
	}
}

// credentialStatus returns how fresh is what the credentials of callers are checked with, as the API shows it.
func (s *server) credentialStatus() (issuers []api.IssuerStatus, lists []api.RevocationStatus) {
	for _, is := range s.issuers {
		f := is.Freshness()
		issuers = append(issuers, api.IssuerStatus{URL: is.URL(), Keys: f.Keys, Refreshed: f.Fetched.UTC(), Failures: f.Failures})
	}
	for _, l := range s.clientCAs.lists {
		revoked, issued, until := l.to.Freshness()
		lists = append(lists, api.RevocationStatus{Authority: l.name, Revoked: revoked, Issued: issued.UTC(), NextUpdate: until.UTC(), Failures: l.failed.Load()})
	}
	return issuers, lists
}

// credentialSample is credentialStatus for the metrics.
func (s *server) credentialSample() telemetry.Credentials {
	var out telemetry.Credentials
	issuers, lists := s.credentialStatus()
	for _, is := range issuers {
		out.Issuers = append(out.Issuers, telemetry.CredentialSource{Name: is.URL, Count: is.Keys, Since: is.Refreshed, Failures: is.Failures})
	}
	for _, l := range lists {
		out.Revocations = append(out.Revocations, telemetry.CredentialSource{Name: l.Authority, Count: l.Revoked, Since: l.Issued, Until: l.NextUpdate, Failures: l.Failures})
	}
	return out
}
