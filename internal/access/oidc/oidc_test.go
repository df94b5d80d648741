package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/access/oidc"
	"sallyport/internal/outbound"
	"sallyport/internal/testkit"
)

func config(url string) oidc.Config {
	return oidc.Config{
		URL: url, Audiences: []string{"other", testkit.Audience}, Algorithms: []string{"ES256", "EdDSA", "RS256"}, Types: []string{"JWT", "at+jwt"},
		Skew: 30 * time.Second, GroupsClaim: "groups", RolesClaim: "realm_access.roles", TenantClaim: "https://example.com/tenant",
	}
}

func client(t testing.TB, is *testkit.Issuer) *outbound.Client {
	t.Helper()
	c, err := outbound.New(outbound.Config{RootCAs: is.Roots(), Private: true, Timeout: 10 * time.Second, MaxBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newIssuers(t testing.TB, is *testkit.Issuer) oidc.Issuers {
	t.Helper()
	i, err := oidc.NewIssuer(config(is.URL), client(t, is), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return oidc.Issuers{is.URL: i}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	all := newIssuers(t, is)
	now := time.Now().Unix()
	claims := is.Claims(map[string]any{
		"aud": []string{"x", testkit.Audience}, "groups": []string{"a", "b"}, "realm_access": map[string]any{"roles": "r"},
		"https://example.com/tenant": "t", "acr": "2", "amr": []string{"otp"}, "auth_time": now - 5, "azp": "cli", "exp": float64(now) + 60.5,
		"nbf": now + 20, "iat": now + 20, "cnf": map[string]any{"jkt": "k", "x5t#S256": "c"},
	})
	want := &oidc.Token{
		Issuer: is.URL, Subject: "ada", Client: "cli", Groups: []string{"a", "b"}, Roles: []string{"r"}, Tenant: "t", ACR: "2", AMR: []string{"otp"},
		AuthTime: time.Unix(now-5, 0), Expires: time.Unix(now+90, 0), Thumbprint: "c", KeyThumbprint: "k",
	}
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256"} {
		k := is.Key(algorithm)
		for name, header := range map[string]map[string]any{
			"JWT":       {"alg": algorithm, "kid": k.ID, "typ": "JWT"},
			"at+jwt":    {"alg": algorithm, "kid": k.ID, "typ": "application/AT+JWT", "x5t": "ignored"},
			"no key id": {"alg": algorithm, "typ": "jwt"},
		} {
			got, err := all.Verify(t.Context(), testkit.Sign(k, header, claims))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s, %s: Verify = %v (-want +got):\n%s", algorithm, name, err, diff)
			}
		}
	}
}

// TestAttacks is the table of what must not be accepted, each a good token but for one thing.
func TestAttacks(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	all := newIssuers(t, is)
	key, foreign := is.Key("ES256"), testkit.NewKey(t, "ES256", is.Key("ES256").ID)
	rsaKey, edKey := is.Key("RS256"), is.Key("EdDSA")
	now := time.Now().Unix()
	header := func(change map[string]any) map[string]any {
		h := map[string]any{"alg": "ES256", "kid": key.ID, "typ": "JWT"}
		maps.Copy(h, change)
		maps.DeleteFunc(h, func(_ string, v any) bool { return v == nil })
		return h
	}
	withHeader := func(change map[string]any) string { return testkit.Sign(key, header(change), is.Claims(nil)) }
	withClaims := func(change map[string]any) string { return testkit.Sign(key, header(nil), is.Claims(change)) }
	good := withHeader(nil)
	if _, err := all.Verify(t.Context(), good); err != nil {
		t.Fatalf("the good token is refused, so this table shows nothing: %v", err)
	}
	parts := strings.Split(good, ".")
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	der, err := x509.MarshalPKIXPublicKey(key.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	symmetric := func(secret []byte) string {
		input := b64([]byte(text(header(map[string]any{"alg": "HS256"})))) + "." + parts[1]
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		return input + "." + b64(mac.Sum(nil))
	}
	jwk := foreign.JWK()
	rsaDER, err := x509.MarshalPKIXPublicKey(rsaKey.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	attacks := map[string]string{
		"empty": "", "dots": "..", "one part": parts[0], "two parts": parts[0] + "." + parts[1], "no signature": parts[0] + "." + parts[1] + ".",
		"a JWE": "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.YQ.YQ.YQ.YQ", "JSON form": `{"payload":"` + parts[1] + `","signatures":[]}`,
		"other signature": parts[0] + "." + parts[1] + "." + strings.Repeat("A", 86), "other claims": parts[0] + "." + b64([]byte(text(is.Claims(map[string]any{"sub": "eve"})))) + "." + parts[2],
		"padding": good + "=", "line break": parts[0] + "\n." + parts[1] + "." + parts[2], "break in the signature": good + "\n", "space before": " " + good,
		"too long": withClaims(map[string]any{"x": strings.Repeat("x", oidc.MaxToken)}),

		"none":              b64([]byte(text(header(map[string]any{"alg": "none"})))) + "." + parts[1] + ".",
		"None":              b64([]byte(text(header(map[string]any{"alg": "nOnE"})))) + "." + parts[1] + "." + parts[2],
		"HS256 by DER":      symmetric(der),
		"HS256 by PEM":      symmetric(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"HS256 by RSA, DER": symmetric(rsaDER),
		"HS256 by RSA, PEM": symmetric(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: rsaDER})),
		"HS256 by JWK":      symmetric([]byte(text(key.JWK()))),
		"HS256 by nothing":  symmetric(nil),
		"no algorithm":      withHeader(map[string]any{"alg": nil}),
		"another algorithm": withHeader(map[string]any{"alg": "ES384"}),
		"EdDSA by ES256":    withHeader(map[string]any{"alg": "EdDSA"}),
		"unlisted PS256":    testkit.Sign(rsaKey, header(map[string]any{"alg": "PS256", "kid": rsaKey.ID}), is.Claims(nil)),
		"key of another":    testkit.Sign(edKey, header(map[string]any{"alg": "EdDSA", "kid": key.ID}), is.Claims(nil)),

		"foreign key":      testkit.Sign(foreign, header(nil), is.Claims(nil)),
		"no kid, foreign":  testkit.Sign(foreign, header(map[string]any{"kid": nil}), is.Claims(nil)),
		"unknown kid":      withHeader(map[string]any{"kid": "x"}),
		"kid as a path":    testkit.Sign(foreign, header(map[string]any{"kid": "../../dev/null"}), is.Claims(nil)),
		"kid as SQL":       testkit.Sign(foreign, header(map[string]any{"kid": "' or 1=1 --"}), is.Claims(nil)),
		"kid as a list":    withHeader(map[string]any{"kid": []string{key.ID}}),
		"huge kid":         withHeader(map[string]any{"kid": strings.Repeat("k", 300)}),
		"jwk":              testkit.Sign(foreign, header(map[string]any{"jwk": jwk}), is.Claims(nil)),
		"jku":              testkit.Sign(foreign, header(map[string]any{"jku": is.URL + "/keys"}), is.Claims(nil)),
		"x5u":              testkit.Sign(foreign, header(map[string]any{"x5u": "https://evil.example/"}), is.Claims(nil)),
		"x5c":              testkit.Sign(foreign, header(map[string]any{"x5c": []string{"MIIB"}}), is.Claims(nil)),
		"jwk, well signed": withHeader(map[string]any{"jwk": key.JWK()}),
		"crit":             withHeader(map[string]any{"crit": []string{"exp"}, "exp": now + 60}),
		"b64":              withHeader(map[string]any{"b64": false}),
		"zip":              withHeader(map[string]any{"zip": "DEF"}),
		"nested":           withHeader(map[string]any{"cty": "JWT"}),

		"no type":       withHeader(map[string]any{"typ": nil}),
		"empty type":    withHeader(map[string]any{"typ": ""}),
		"DPoP proof":    withHeader(map[string]any{"typ": "dpop+jwt"}),
		"log-out token": withHeader(map[string]any{"typ": "logout+jwt"}),

		"algorithm twice": testkit.Sign(key, `{"alg":"ES256","alg":"ES256","typ":"JWT"}`, is.Claims(nil)),
		"ALG":             testkit.Sign(key, `{"ALG":"ES256","typ":"JWT"}`, is.Claims(nil)),
		"subject twice":   testkit.Sign(key, header(nil), `{"sub":"ada",`+text(is.Claims(nil))[1:]),
		"aud twice":       testkit.Sign(key, header(nil), `{"aud":"x",`+text(is.Claims(nil))[1:]),
		"unknown twice":   testkit.Sign(key, header(nil), `{"x":1,"x":1,`+text(is.Claims(nil))[1:]),
		"twice within":    testkit.Sign(key, header(nil), `{"realm_access":{"roles":"a","roles":"b"},`+text(is.Claims(nil))[1:]),
		"two objects":     testkit.Sign(key, header(nil), text(is.Claims(nil))+"{}"),
		"a list":          testkit.Sign(key, header(nil), "["+text(is.Claims(nil))+"]"),
		"bad UTF-8":       testkit.Sign(key, header(nil), "{\"x\":\"\xff\","+text(is.Claims(nil))[1:]),
		"null":            testkit.Sign(key, header(nil), "null"),

		"unknown issuer":      withClaims(map[string]any{"iss": "https://evil.example"}),
		"issuer with a slash": withClaims(map[string]any{"iss": is.URL + "/"}),
		"no issuer":           withClaims(map[string]any{"iss": nil}),
		"other audience":      withClaims(map[string]any{"aud": "elsewhere"}),
		"audience prefix":     withClaims(map[string]any{"aud": testkit.Audience + "x"}),
		"no audience":         withClaims(map[string]any{"aud": nil}),
		"empty audiences":     withClaims(map[string]any{"aud": []string{}}),
		"number as audience":  withClaims(map[string]any{"aud": []any{1, testkit.Audience}}),
		"many audiences":      withClaims(map[string]any{"aud": strings.Split(strings.Repeat("a ", 70)+testkit.Audience, " ")}),
		"no subject":          withClaims(map[string]any{"sub": nil}),
		"empty subject":       withClaims(map[string]any{"sub": ""}),
		"number as subject":   withClaims(map[string]any{"sub": 1}),
		"long subject":        withClaims(map[string]any{"sub": strings.Repeat("s", 256)}),
		"expired":             withClaims(map[string]any{"exp": now - 31}),
		"no end":              withClaims(map[string]any{"exp": nil}),
		"end as a text":       withClaims(map[string]any{"exp": "9999999999"}),
		"end out of range":    testkit.Sign(key, header(nil), `{"exp":1e300,`+text(is.Claims(map[string]any{"exp": nil}))[1:]),
		"negative end":        withClaims(map[string]any{"exp": -1}),
		"not yet valid":       withClaims(map[string]any{"nbf": now + 60}),
		"from the future":     withClaims(map[string]any{"iat": now + 60}),
		"unknown binding":     withClaims(map[string]any{"cnf": map[string]any{"kid": "x"}}),
		"groups as a number":  withClaims(map[string]any{"groups": 1}),
		"two tenants":         withClaims(map[string]any{"https://example.com/tenant": []string{"a", "b"}}),
	}
	accepted := 0
	for name, token := range attacks {
		got, err := all.Verify(t.Context(), token)
		if err == nil {
			accepted++
			t.Errorf("%s: accepted as %+v", name, got)
		}
		if !errors.Is(err, oidc.ErrRefused) {
			t.Errorf("%s: error = %v; want ErrRefused", name, err)
		}
	}
	t.Logf("%d attacks, %d accepted", len(attacks), accepted)
}

// TestRotation replaces keys: a new one is found at once, an old one ends with the fetch that misses it.
func TestRotation(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	all := newIssuers(t, is)
	before := is.Token(nil)
	if _, err := all.Verify(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	is.Rotate(t)
	changes := all.Changes()
	all.Forgive(is.URL)
	if _, err := all.Verify(t.Context(), is.Token(nil)); err != nil {
		t.Errorf("a token of a new key: %v", err)
	}
	if _, err := all.Verify(t.Context(), before); !errors.Is(err, oidc.ErrRefused) {
		t.Errorf("a token of a key that was withdrawn: %v; want ErrRefused", err)
	}
	if all.Changes() == changes {
		t.Error("the withdrawn key did not count as a change")
	}
	// Unknown keys do not make us ask again and again.
	asked := is.Asked("/keys")
	for range 100 {
		k := testkit.NewKey(t, "EdDSA", "invented")
		if _, err := all.Verify(t.Context(), testkit.Sign(k, map[string]any{"alg": "EdDSA", "kid": "invented", "typ": "JWT"}, is.Claims(nil))); !errors.Is(err, oidc.ErrRefused) {
			t.Fatalf("an invented key: %v", err)
		}
	}
	if n := is.Asked("/keys") - asked; n > 1 {
		t.Errorf("100 invented keys made %d fetches; want 1 at most", n)
	}
}

// TestIssuerFails: no failure admits anybody, and what was known goes on working.
func TestIssuerFails(t *testing.T) {
	t.Parallel()
	for _, fault := range []testkit.Fault{
		testkit.FaultDown, testkit.FaultHuge, testkit.FaultRedirect, testkit.FaultMalformed, testkit.FaultTwice, testkit.FaultOther, testkit.FaultNoKeys,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			is := testkit.NewIssuer(t)
			all := newIssuers(t, is)
			is.Fail(fault)
			if _, err := all.Verify(t.Context(), is.Token(nil)); !errors.Is(err, oidc.ErrNoKeys) {
				t.Errorf("without keys: %v; want ErrNoKeys", err)
			}
			is.Fail(testkit.FaultNone)
			all.Forgive(is.URL)
			known := is.Token(nil)
			if _, err := all.Verify(t.Context(), known); err != nil {
				t.Fatalf("after the fault: %v", err)
			}
			is.Fail(fault)
			old := is.Key("ES256")
			is.Rotate(t)
			all.Forgive(is.URL)
			if _, err := all.Verify(t.Context(), is.Token(nil)); !errors.Is(err, oidc.ErrNoKeys) {
				t.Errorf("a new key while the issuer fails: %v; want ErrNoKeys", err)
			}
			if _, err := all.Verify(t.Context(), testkit.Sign(old, map[string]any{"alg": "ES256", "kid": old.ID, "typ": "JWT"}, is.Claims(nil))); err != nil {
				t.Errorf("a known key while the issuer fails: %v", err)
			}
		})
	}
}

// TestWaitersAreBounded: an issuer that does not answer holds a bounded number of callers; the others go at once.
func TestWaitersAreBounded(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	all := newIssuers(t, is)
	is.Fail(testkit.FaultHang)
	token := is.Token(nil)
	const callers = 3 * oidc.MaxWaiters
	answers := make(chan error, callers)
	for range callers {
		go func() {
			_, err := all.Verify(t.Context(), token)
			answers <- err
		}()
	}
	for n := range callers - oidc.MaxWaiters {
		if err := <-answers; !errors.Is(err, oidc.ErrNoKeys) {
			t.Fatalf("caller %d: %v; want ErrNoKeys", n, err)
		}
	}
	is.Fail(testkit.FaultNone)
	for n := range oidc.MaxWaiters {
		if err := <-answers; err != nil {
			t.Errorf("waiter %d: %v", n, err)
		}
	}
	if asked := is.Asked("/keys"); asked != 1 {
		t.Errorf("%d fetches; want 1 for all", asked)
	}
}

func FuzzVerify(f *testing.F) {
	is := testkit.NewIssuer(f)
	all := newIssuers(f, is)
	good := is.Token(map[string]any{"exp": time.Now().Add(time.Hour).Unix()})
	f.Add(good)
	f.Add("..")
	f.Add(strings.Replace(good, ".", ".e", 1))
	f.Fuzz(func(t *testing.T, text string) {
		if tok, err := all.Verify(t.Context(), text); err == nil && text != good {
			t.Errorf("Verify(%q) = %+v", text, tok)
		}
	})
}

// BenchmarkVerify has, beside each algorithm, the signature check alone: what is over it is ours.
func BenchmarkVerify(b *testing.B) {
	digest := sha256.Sum256([]byte("x"))
	is := testkit.NewIssuer(b)
	all := newIssuers(b, is)
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256"} {
		k := is.Key(algorithm)
		token := testkit.Sign(k, map[string]any{"alg": algorithm, "kid": k.ID, "typ": "JWT"}, is.Claims(map[string]any{"groups": []string{"a", "b"}, "exp": time.Now().Add(time.Hour).Unix()}))
		signature, err := k.Signer.Sign(rand.Reader, digest[:], map[string]crypto.Hash{"ES256": crypto.SHA256, "RS256": crypto.SHA256}[algorithm])
		if err != nil {
			b.Fatal(err)
		}
		b.Run(algorithm+"/signature", func(b *testing.B) {
			for b.Loop() {
				switch p := k.Signer.Public().(type) {
				case *ecdsa.PublicKey:
					ecdsa.VerifyASN1(p, digest[:], signature)
				case ed25519.PublicKey:
					ed25519.Verify(p, digest[:], signature)
				case *rsa.PublicKey:
					_ = rsa.VerifyPKCS1v15(p, crypto.SHA256, digest[:], signature)
				}
			}
		})
		b.Run(algorithm+"/token", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := all.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
