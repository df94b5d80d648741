package access

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/internal/ident"
)

// Authority is a CA whose certificates prove who a caller is, and what its principals get.
type Authority struct {
	// Name is a part of its principals' ids, so that two authorities never make the same principal.
	Name  string
	Roots []*x509.Certificate
	// Revoked, when set, is asked about each certificate below a root.
	Revoked *Revocations
	// Map returns what a principal gets, and false when nothing is said about it.
	Map func(*Claims) (Mapping, bool)
}

// certificate returns whom a request's client certificate proves, or nil. The handshake has verified the chain; what
// can change while a connection lasts is looked at for each request: revocation and expiry.
func (i *Identifier) certificate(r *http.Request) *Principal {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	leaf := r.TLS.VerifiedChains[0][0]
	now, sum, changes := time.Now(), sha256.Sum256(leaf.Raw), i.changes()
	if p := i.certificatesKnown.get(sum, now, changes); p != nil {
		return p
	}
	for n := range i.cfg.Authorities {
		a := &i.cfg.Authorities[n]
		for _, chain := range r.TLS.VerifiedChains {
			p := a.principal(chain, now)
			if p == nil {
				continue
			}
			i.certificatesKnown.put(sum, p, now, changes)
			return p
		}
	}
	return nil
}

// principal returns whom a verified chain proves, or nil when it is not one of a's or does not hold now.
func (a *Authority) principal(chain []*x509.Certificate, now time.Time) *Principal {
	root := chain[len(chain)-1]
	if len(chain) < 2 || !contains(a.Roots, root) {
		return nil
	}
	expires := root.NotAfter
	for n, c := range chain {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return nil
		}
		if c.NotAfter.Before(expires) {
			expires = c.NotAfter
		}
		if a.Revoked == nil || n == len(chain)-1 {
			continue
		}
		until, ok := a.Revoked.good(c, chain[n+1], now)
		if !ok {
			return nil
		}
		if until.Before(expires) {
			expires = until
		}
	}
	name, ok := nameOf(chain[0])
	if !ok {
		return nil
	}
	claims := &Claims{Issuer: "x509:" + a.Name, Subject: name}
	return mapped(ident.PrincipalID("service:"+claims.Issuer+"#"+printable(name)), claims, a.Map, expires)
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, other := range list {
		if other.Equal(c) {
			return true
		}
	}
	return false
}

// maxName bounds the name in a certificate, in bytes, as SPIFFE does.
const maxName = 2048

// nameOf returns the name that a certificate proves: its SPIFFE id if it has one, else its subject. One that has a
// SPIFFE id and anything that could be taken for another is refused, as is that of a CA.
//
// Source: SPIFFE X509-SVID, sections 2 and 4; SPIFFE-ID, section 2.
func nameOf(c *x509.Certificate) (string, bool) {
	if c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return "", false
	}
	for _, u := range c.URIs {
		if strings.EqualFold(u.Scheme, "spiffe") {
			return u.String(), len(c.URIs) == 1 && isSPIFFE(u)
		}
	}
	name := c.Subject.String()
	return name, name != "" && len(name) <= maxName
}

func isSPIFFE(u *url.URL) bool {
	if u.Scheme != "spiffe" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.RawPath != "" || len(u.String()) > maxName ||
		strings.ContainsAny(u.Host, ":@") || u.Path == "" {
		return false
	}
	for segment := range strings.SplitSeq(u.Path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, notInSegment) {
			return false
		}
	}
	return true
}

func notInSegment(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letter && r != '.' && r != '-' && r != '_'
}

// crossSite reports whether a browser sends a request on behalf of a page. Browsers add a client certificate to such
// requests by themselves, so a page anywhere could act as its visitor; none that is meant comes from a page.
func crossSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header["Origin"] != nil || site != "" && site != "none"
}

// Revocations are the revocation lists of an authority. They are safe for concurrent use.
type Revocations struct {
	current atomic.Pointer[[]revocationList]
	loads   atomic.Uint64
}

type revocationList struct {
	issuer  *x509.Certificate
	issued  time.Time
	until   time.Time
	serials map[string]bool
}

// maxRevoked bounds the entries of a list.
const maxRevoked = 1_000_000

// Load replaces the lists by those in ders. Each must be signed by one of issuers. On an error the ones before stay.
func (v *Revocations) Load(ders [][]byte, issuers []*x509.Certificate) error {
	if len(ders) == 0 {
		return errors.New("no revocation list")
	}
	lists := make([]revocationList, 0, len(ders))
	for _, der := range ders {
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return fmt.Errorf("parse revocation list: %w", err)
		}
		list, err := newRevocationList(crl, issuers)
		if err != nil {
			return err
		}
		lists = append(lists, *list)
	}
	v.current.Store(&lists)
	v.loads.Add(1)
	return nil
}

func newRevocationList(crl *x509.RevocationList, issuers []*x509.Certificate) (*revocationList, error) {
	if len(crl.RevokedCertificateEntries) > maxRevoked {
		return nil, fmt.Errorf("revocation list has more than %d entries", maxRevoked)
	}
	for _, e := range crl.Extensions {
		// One that is critical narrows the list to some certificates or makes it a supplement of another: a
		// certificate that is not in it is then not known to be good.
		if e.Critical {
			return nil, fmt.Errorf("revocation list has the critical extension %s, which is not supported", e.Id)
		}
	}
	if crl.NextUpdate.IsZero() {
		return nil, errors.New("revocation list does not say until when it holds")
	}
	for _, issuer := range issuers {
		if crl.CheckSignatureFrom(issuer) != nil {
			continue
		}
		out := &revocationList{issuer: issuer, issued: crl.ThisUpdate, until: crl.NextUpdate, serials: make(map[string]bool, len(crl.RevokedCertificateEntries))}
		for i := range crl.RevokedCertificateEntries {
			out.serials[string(crl.RevokedCertificateEntries[i].SerialNumber.Bytes())] = true
		}
		return out, nil
	}
	return nil, errors.New("revocation list is not signed by this CA")
}

// Freshness returns how many certificates the lists name, when the oldest of them was issued, and until when all hold.
func (v *Revocations) Freshness() (revoked int, issued, until time.Time) {
	lists := v.current.Load()
	if lists == nil {
		return 0, issued, until
	}
	for i := range *lists {
		l := &(*lists)[i]
		revoked += len(l.serials)
		if issued.IsZero() || l.issued.Before(issued) {
			issued = l.issued
		}
		if until.IsZero() || l.until.Before(until) {
			until = l.until
		}
	}
	return revoked, issued, until
}

// good returns until when c is known not to be revoked. A certificate of an issuer without a list that holds now is
// not known to be good.
func (v *Revocations) good(c, issuer *x509.Certificate, now time.Time) (until time.Time, ok bool) {
	lists := v.current.Load()
	if lists == nil {
		return time.Time{}, false
	}
	for i := range *lists {
		l := &(*lists)[i]
		if !l.issuer.Equal(issuer) || now.After(l.until) {
			continue
		}
		if l.serials[string(c.SerialNumber.Bytes())] {
			return time.Time{}, false
		}
		if l.until.After(until) {
			until = l.until
		}
		ok = true
	}
	return until, ok
}
