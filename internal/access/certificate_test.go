package access_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/internal/access"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/testkit"
)

func parseURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// shown returns a request on a connection whose handshake verified a certificate of ca.
func shown(cert *tls.Certificate, ca *x509.Certificate) *http.Request {
	r := request()
	r.Header.Del("Authorization")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}, VerifiedChains: [][]*x509.Certificate{{cert.Leaf, ca}}}
	return r
}

func TestIdentifyCertificate(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	ca, other := testkit.NewAuthority(t, "shop"), testkit.NewAuthority(t, "shop")
	revoked := &access.Revocations{}
	g := newGuard(t, &memory{m: map[string][]byte{}})
	who := newIdentifier(t, g, is, func(c *access.IdentifierConfig) {
		c.Authorities = []access.Authority{{Name: "shop", Roots: []*x509.Certificate{ca.Certificate}, Revoked: revoked, Map: func(c *access.Claims) (access.Mapping, bool) {
			return access.Mapping{Role: policy.Reader}, strings.HasPrefix(c.Subject, "spiffe://example.org/") || c.Subject == "CN=client"
		}}}
	})
	uris := func(list ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, u := range list {
				c.URIs = append(c.URIs, parseURL(t, u))
			}
		}
	}
	withdrawn := ca.Issue(t, nil)
	plain := ca.Issue(t, nil)
	// Without a list that holds nothing is known to be good.
	if p, err := who.Identify(shown(plain, ca.Certificate)); err == nil {
		t.Errorf("without a list: %v", p)
	}
	load := func(next time.Time, certs ...*tls.Certificate) {
		if err := revoked.Load([][]byte{ca.Revoke(t, "", next, certs...)}, []*x509.Certificate{ca.Certificate}); err != nil {
			t.Fatal(err)
		}
	}
	load(time.Now().Add(time.Hour))
	for range 2 {
		p, err := who.Identify(shown(withdrawn, ca.Certificate))
		if err != nil || p.ID != "service:x509:shop#CN=client" || p.Role != policy.Reader {
			t.Fatalf("before it is revoked: %+v, %v", p, err)
		}
	}
	load(time.Now().Add(time.Hour), withdrawn)
	for name, tt := range map[string]struct {
		cert *tls.Certificate
		ca   *x509.Certificate
		want string
		role policy.Role
	}{
		"subject":       {plain, ca.Certificate, "service:x509:shop#CN=client", policy.Reader},
		"spiffe":        {ca.Issue(t, uris("spiffe://example.org/shop/api")), ca.Certificate, "service:x509:shop#spiffe://example.org/shop/api", policy.Reader},
		"not mapped":    {ca.Issue(t, uris("spiffe://evil.org/shop/api")), ca.Certificate, "service:x509:shop#spiffe://evil.org/shop/api", ""},
		"other subject": {ca.Issue(t, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "client,O=x"} }), ca.Certificate, "service:x509:shop#CN=client%5c,O=x", ""},
		"other CA":      {other.Issue(t, nil), other.Certificate, "", ""},
		"revoked":       {withdrawn, ca.Certificate, "", ""},
		"two ids":       {ca.Issue(t, uris("spiffe://example.org/a", "spiffe://example.org/b")), ca.Certificate, "", ""},
		"id and URI":    {ca.Issue(t, uris("https://example.org/", "spiffe://example.org/b")), ca.Certificate, "", ""},
		"dots":          {ca.Issue(t, uris("spiffe://example.org/../b")), ca.Certificate, "", ""},
		"port":          {ca.Issue(t, uris("spiffe://example.org:1/b")), ca.Certificate, "", ""},
		"query":         {ca.Issue(t, uris("spiffe://example.org/b?x")), ca.Certificate, "", ""},
		"no path":       {ca.Issue(t, uris("spiffe://example.org")), ca.Certificate, "", ""},
		"a CA's":        {ca.Issue(t, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), ca.Certificate, "", ""},
		"no name":       {ca.Issue(t, func(c *x509.Certificate) { c.Subject = pkix.Name{} }), ca.Certificate, "", ""},
		"expired":       {ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), ca.Certificate, "", ""},
		"not yet":       {ca.Issue(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), ca.Certificate, "", ""},
	} {
		p, err := who.Identify(shown(tt.cert, tt.ca))
		switch {
		case tt.want == "" && (p != nil || problem.From(err).Code != "access.unauthenticated"):
			t.Errorf("%s: %+v, %v; want access.unauthenticated", name, p, err)
		case tt.want != "" && (err != nil || string(p.ID) != tt.want || p.Role != tt.role):
			t.Errorf("%s: %+v, %v; want %s with role %q", name, p, err, tt.want, tt.role)
		}
	}
	if p, err := who.Identify(request("Bearer " + string(plain.Leaf.Raw))); err == nil {
		t.Errorf("the bytes of a certificate that is known are a token: %v", p)
	}
	good := shown(plain, ca.Certificate)
	for name, h := range map[string][2]string{"origin": {"Origin", "https://evil.example"}, "site": {"Sec-Fetch-Site", "cross-site"}, "a bad token": {"Authorization", "Bearer x"}, "an empty token": {"Authorization", ""}} {
		r := good.Clone(t.Context())
		r.Header.Set(h[0], h[1])
		if p, err := who.Identify(r); err == nil {
			t.Errorf("a good certificate with %s: %v", name, p)
		}
	}
	load(time.Now().Add(-time.Minute))
	if p, err := who.Identify(good); err == nil {
		t.Errorf("with a list that is past its next update: %v", p)
	}
}

func TestRevocationsLoad(t *testing.T) {
	t.Parallel()
	ca, other := testkit.NewAuthority(t, "a"), testkit.NewAuthority(t, "b")
	good := ca.Revoke(t, "", time.Now().Add(time.Hour))
	for name, ders := range map[string][][]byte{
		"nothing": nil, "no list": {[]byte("x")}, "of another CA": {other.Revoke(t, "", time.Now().Add(time.Hour))}, "one of two": {good, []byte("x")}, "cut": {good[:len(good)-1]},
	} {
		v := &access.Revocations{}
		if err := v.Load(ders, []*x509.Certificate{ca.Certificate}); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}
