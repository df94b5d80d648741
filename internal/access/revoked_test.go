package access_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/access/oidc"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/testkit"
)

// TestRevokedEverywhere: whatever kind of credential it is, when it is revoked the next request with it is refused though it was accepted,
// and remembered, a moment ago; a request that runs with it is who it was no longer; and no other credential ends with it.
func TestRevokedEverywhere(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	ca := testkit.NewAuthority(t, "shop")
	lists := &access.Revocations{}
	var issuer *oidc.Issuer
	g := newGuard(t, &memory{m: map[string][]byte{}})
	who := newIdentifier(t, g, is, func(c *access.IdentifierConfig) {
		issuer = c.Issuers[0].Issuer
		c.Authorities = []access.Authority{{Name: "shop", Roots: []*x509.Certificate{ca.Certificate}, Revoked: lists, Map: func(*access.Claims) (access.Mapping, bool) {
			return access.Mapping{Role: policy.Reader}, true
		}}}
	})
	load := func(certs ...*tls.Certificate) {
		t.Helper()
		if err := lists.Load([][]byte{ca.Revoke(t, "", time.Now().Add(time.Hour), certs...)}, []*x509.Certificate{ca.Certificate}); err != nil {
			t.Fatal(err)
		}
	}
	load()
	hour := time.Now().Add(time.Hour).Unix()
	own, other := create(t, g, api.TokenRequest{Role: "reader"}), create(t, g, api.TokenRequest{Role: "reader"})
	once := narrowed(t, own.Text, narrow.Caveats{Actions: []string{"readEvents"}})
	cert, bound, good := ca.Issue(t, nil), ca.Issue(t, nil), ca.Issue(t, nil)
	sum := sha256.Sum256(bound.Leaf.Raw)
	jwt := is.Token(map[string]any{"exp": hour})
	mtls := shown(bound, ca.Certificate)
	mtls.Header.Set("Authorization", "Bearer "+is.Token(map[string]any{"exp": hour, "cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}}))
	requests := map[string]*http.Request{
		"token": request("Bearer " + own.Text), "narrowed": request("Bearer " + once),
		"narrowed twice": request("Bearer " + narrowed(t, once, narrow.Caveats{Expires: hour})), "certificate": shown(cert, ca.Certificate),
		"JWT": request("Bearer " + jwt), "JWT bound to a certificate": mtls,
		"another token": request("Bearer " + other.Text), "another certificate": shown(good, ca.Certificate),
	}
	alive := func(step string, ended ...string) {
		t.Helper()
		for name, r := range requests {
			want := true
			for _, e := range ended {
				want = want && e != name
			}
			for range 2 {
				if _, err := who.Identify(r); (err == nil) != want {
					t.Errorf("%s: a request with the %s: %v, want accepted %v", step, name, err, want)
				}
			}
			if err := who.Still(r); (err == nil) != want {
				t.Errorf("%s: running work with the %s: %v, want that it goes on %v", step, name, err, want)
			}
		}
	}
	alive("before")
	if err := g.Revoke(t.Context(), own.ID); err != nil {
		t.Fatal(err)
	}
	ended := []string{"token", "narrowed", "narrowed twice"}
	alive("the token is revoked", ended...)
	load(cert)
	ended = append(ended, "certificate")
	alive("the certificate is revoked", ended...)
	load(cert, bound)
	ended = append(ended, "JWT bound to a certificate")
	alive("the certificate of a JWT is revoked", ended...)
	issuer.Revoke(keyID(t, jwt))
	alive("the key of the JWT is revoked", append(ended, "JWT")...)
}
