package access_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/internal/access"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/testkit"
)

const boundURL = "https://localhost/v1/status"

func proving(token string, proofs ...string) *http.Request {
	r := request("DPoP " + token)
	r.Header["Dpop"] = proofs
	return r
}

// TestProof holds a token that is bound to a key to its proofs: each is good once, for one request, and made with that key.
func TestProof(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	g := newGuard(t, &memory{m: map[string][]byte{}})
	who := newIdentifier(t, g, is, func(c *access.IdentifierConfig) { c.Ours = func(h string) bool { return h == "localhost" } })
	now := time.Now().Unix()
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256"} {
		key, other := testkit.NewKey(t, algorithm, ""), testkit.NewKey(t, algorithm, "")
		token := is.Token(map[string]any{"cnf": map[string]any{"jkt": key.Thumbprint()}})
		free := is.Token(nil)
		proof := func(header, claims map[string]any) string { return key.Proof("GET", boundURL, token, header, claims) }
		good := proof(nil, nil)
		if _, err := who.Identify(proving(token, good)); err != nil {
			t.Fatalf("%s: a good proof: %v", algorithm, err)
		}
		r := proving(token, good)
		if err := who.Still(r); err != nil {
			t.Errorf("%s: Still with a proof that was used: %v", algorithm, err)
		}
		for name, claims := range map[string]map[string]any{
			"port": {"htu": "https://LOCALHOST:443/v1/status"}, "soon": {"iat": now + 50}, "more": {"nonce": "x"},
		} {
			if _, err := who.Identify(proving(token, proof(nil, claims))); err != nil {
				t.Errorf("%s, %s: %v", algorithm, name, err)
			}
		}
		private := key.JWK()
		private["d"] = "AAAA"
		fresh := func() string { return proof(nil, nil) }
		elsewhere := proving(token, fresh())
		elsewhere.Host = "evil.example"
		theirs := proving(token, key.Proof("GET", "https://evil.example/v1/status", token, nil, nil))
		theirs.Host = "evil.example"
		post := proving(token, fresh())
		post.Method = "POST"
		bearer := request("Bearer " + token)
		bearer.Header["Dpop"] = []string{fresh()}
		for name, r := range map[string]*http.Request{
			"used before": proving(token, good), "none": proving(token), "two": proving(token, fresh(), fresh()), "empty": proving(token, ""),
			"as a bearer token": request("Bearer " + token), "as a bearer token with a proof": bearer, "another method": post,
			"another host": elsewhere, "their host": theirs,
			"a token that is not bound": proving(free, key.Proof("GET", boundURL, free, nil, nil)),
			"another key":               proving(token, other.Proof("GET", boundURL, token, nil, nil)),
			"the key of another":        proving(token, other.Proof("GET", boundURL, token, map[string]any{"jwk": key.JWK()}, nil)),
			"another token":             proving(token, key.Proof("GET", boundURL, free, nil, nil)),
			"no hash":                   proving(token, proof(nil, map[string]any{"ath": nil})),
			"another path":              proving(token, proof(nil, map[string]any{"htu": "https://localhost/v1/tokens"})),
			"a query":                   proving(token, proof(nil, map[string]any{"htu": boundURL + "?x"})),
			"plain HTTP":                proving(token, proof(nil, map[string]any{"htu": "http://localhost/v1/status"})),
			"no URL":                    proving(token, proof(nil, map[string]any{"htu": nil})),
			"lower case":                proving(token, proof(nil, map[string]any{"htm": "get"})),
			"old":                       proving(token, proof(nil, map[string]any{"iat": now - 120})),
			"future":                    proving(token, proof(nil, map[string]any{"iat": now + 120})),
			"no time":                   proving(token, proof(nil, map[string]any{"iat": nil})),
			"no id":                     proving(token, proof(nil, map[string]any{"jti": nil})),
			"long id":                   proving(token, proof(nil, map[string]any{"jti": strings.Repeat("x", 129)})),
			"a JWT":                     proving(token, proof(map[string]any{"typ": "JWT"}, nil)),
			"no type":                   proving(token, proof(map[string]any{"typ": nil}, nil)),
			"no key":                    proving(token, proof(map[string]any{"jwk": nil}, nil)),
			"a private key":             proving(token, proof(map[string]any{"jwk": private}, nil)),
			"none as algorithm":         proving(token, proof(map[string]any{"alg": "none"}, nil)),
			"HS256":                     proving(token, proof(map[string]any{"alg": "HS256"}, nil)),
			"a critical header":         proving(token, proof(map[string]any{"crit": []string{"x"}}, nil)),
			"too long":                  proving(token, proof(nil, map[string]any{"x": strings.Repeat("x", 5000)})),
			"cut":                       proving(token, fresh()[:100]),
			"line break":                proving(token, fresh()+"\n"),
		} {
			if p, err := who.Identify(r); p != nil || problem.From(err).Code != "access.unauthenticated" {
				t.Errorf("%s, %s: %v, %v; want access.unauthenticated", algorithm, name, p, err)
			}
		}
	}
	before := newIdentifier(t, g, is, func(c *access.IdentifierConfig) { c.Ours = func(string) bool { return true } })
	key := testkit.NewKey(t, "EdDSA", "")
	token := is.Token(map[string]any{"cnf": map[string]any{"jkt": key.Thumbprint()}})
	if _, err := before.Identify(proving(token, key.Proof("GET", boundURL, token, nil, map[string]any{"iat": now - 30}))); err == nil {
		t.Error("a proof from before the server's start is accepted: it may have been used")
	}
}

// TestBoundToCertificate: a token that names a certificate needs it, and a good one.
func TestBoundToCertificate(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	ca := testkit.NewAuthority(t, "shop")
	g := newGuard(t, &memory{m: map[string][]byte{}})
	who := newIdentifier(t, g, is, func(c *access.IdentifierConfig) {
		c.Authorities = []access.Authority{{Name: "shop", Roots: []*x509.Certificate{ca.Certificate}, Map: func(*access.Claims) (access.Mapping, bool) {
			return access.Mapping{Role: policy.Operator}, true
		}}}
	})
	cert, other := ca.Issue(t, nil), ca.Issue(t, nil)
	expired := ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })
	token := func(of *x509.Certificate) string {
		sum := sha256.Sum256(of.Raw)
		return is.Token(map[string]any{"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}})
	}
	with := func(r *http.Request, token string) *http.Request {
		r.Header.Set("Authorization", "Bearer "+token)
		return r
	}
	p, err := who.Identify(with(shown(cert, ca.Certificate), token(cert.Leaf)))
	if err != nil || p.Role != "" || !strings.HasPrefix(string(p.ID), "user:") {
		t.Errorf("with its certificate: %+v, %v; want the token's principal, without the certificate's role", p, err)
	}
	for name, r := range map[string]*http.Request{
		"no certificate": request("Bearer " + token(cert.Leaf)),
		"another":        with(shown(other, ca.Certificate), token(cert.Leaf)),
		"expired":        with(shown(expired, ca.Certificate), token(expired.Leaf)),
	} {
		if p, err := who.Identify(r); err == nil {
			t.Errorf("%s: %v", name, p)
		}
	}
}
