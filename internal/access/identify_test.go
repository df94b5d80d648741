package access_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/access/oidc"
	"sallyport/internal/outbound"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/testkit"
)

// newIdentifier returns one that knows is, and gives the group shop-team a role.
func newIdentifier(t testing.TB, g *access.Guard, is *testkit.Issuer, change func(*access.IdentifierConfig)) *access.Identifier {
	t.Helper()
	client, err := outbound.New(outbound.Config{RootCAs: is.Roots(), Private: true, Timeout: 10 * time.Second, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	issuer, err := oidc.NewIssuer(oidc.Config{
		URL: is.URL, Audiences: []string{testkit.Audience}, Algorithms: []string{"ES256", "EdDSA"}, Types: []string{"JWT"}, Skew: time.Second, GroupsClaim: "groups",
	}, client, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := access.IdentifierConfig{Issuers: []access.Issuer{{Issuer: issuer, Map: func(c *access.Claims) (access.Mapping, bool) {
		return access.Mapping{Role: policy.Developer, Namespace: "shop"}, slices.Contains(c.Groups, "shop-team")
	}}}}
	if change != nil {
		change(&cfg)
	}
	return access.NewIdentifier(g.Tokens, cfg)
}

func request(auth ...string) *http.Request {
	r := httptest.NewRequest("GET", "https://localhost/v1/status", nil)
	r.Header["Authorization"] = auth
	return r
}

// TestIdentifyIssuer: an issuer's token is a principal made of issuer and subject, with the role that a mapping gives, and
// no other.
func TestIdentifyIssuer(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	g := newGuard(t, &memory{m: map[string][]byte{}})
	who := newIdentifier(t, g, is, nil)
	shop := policy.OfNamespace("shop")
	known := is.Token(map[string]any{"groups": []string{"shop-team"}, "email": "ada@example.com", "acr": "2", "amr": []string{"otp"}})
	for range 2 { // the second time it is remembered
		p, err := who.Identify(request("Bearer " + known))
		if err != nil {
			t.Fatal(err)
		}
		if string(p.ID) != "user:"+is.URL+"#ada" {
			t.Errorf("ID = %q", p.ID)
		}
		want := &access.Claims{Issuer: is.URL, Subject: "ada", Groups: []string{"shop-team"}, ACR: "2", AMR: []string{"otp"}}
		if diff := cmp.Diff(want, p.Claims); diff != "" {
			t.Errorf("Claims (-want +got):\n%s", diff)
		}
		for res, want := range map[policy.Resource]bool{shop: true, policy.OfNamespace("bank"): false} {
			if err := g.Authorize(t.Context(), p, policy.ReadEvents, res); (err == nil) != want {
				t.Errorf("Authorize(%v) = %v; want allowed %v", res, err, want)
			}
		}
	}
	stranger, err := who.Identify(request("Bearer " + is.Token(map[string]any{"groups": []string{"Shop-Team"}, "sub": "e ve\n#ada"})))
	if err != nil {
		t.Fatal(err)
	}
	if want := "user:" + is.URL + "#e%20ve%0a#ada"; string(stranger.ID) != want {
		t.Errorf("ID = %q; want %q", stranger.ID, want)
	}
	long, err := who.Identify(request("Bearer " + is.Token(map[string]any{"sub": strings.Repeat("ä", 120)})))
	if err != nil || !strings.HasPrefix(string(long.ID), "user:"+is.URL+"#%sha256:") || len(long.ID) > 400 {
		t.Errorf("ID of a long subject = %q, %v", long.ID, err)
	}
	for _, a := range policy.Actions() {
		for _, res := range []policy.Resource{shop, policy.OfServer(), {Kind: policy.KindEventType, Namespace: "shop", Name: "a"}, {Kind: policy.KindFunction, Namespace: "shop", Name: "f"}} {
			if g.Authorize(t.Context(), stranger, a, res) == nil {
				t.Errorf("who has no mapping may %s on %v", a, res)
			}
		}
	}
}

// TestIdentifyRefuses: what is not a good token gets one and the same answer, and no token is remembered longer than it is
// valid.
func TestIdentifyRefuses(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	g := newGuard(t, &memory{m: map[string][]byte{}})
	who := newIdentifier(t, g, is, nil)
	good, own := is.Token(nil), create(t, g, api.TokenRequest{Role: "reader"}).Text
	for _, text := range []string{good, own} {
		if _, err := who.Identify(request("bearer " + text)); err != nil {
			t.Fatal(err)
		}
	}
	for name, auth := range map[string][]string{
		"nothing": nil, "two": {"Bearer " + good, "Bearer " + good}, "two kinds": {"Bearer " + own, "Bearer " + good}, "no scheme": {good}, "basic": {"Basic " + good},
		"two spaces": {"Bearer  " + good}, "too long": {"Bearer " + good + strings.Repeat("x", oidc.MaxToken)}, "broken": {"Bearer " + good[:len(good)-2]},
		"bound to a certificate": {"Bearer " + is.Token(map[string]any{"cnf": map[string]any{"x5t#S256": "x"}})},
		"bound to a key":         {"Bearer " + is.Token(map[string]any{"cnf": map[string]any{"jkt": "x"}})},
	} {
		if p, err := who.Identify(request(auth...)); p != nil || problem.From(err).Code != "access.unauthenticated" {
			t.Errorf("%s: Identify = %v, %v; want access.unauthenticated", name, p, err)
		}
	}
	if err := who.Still(request("Bearer " + good)); err != nil {
		t.Errorf("Still = %v", err)
	}
	is.Fail(testkit.FaultDown)
	is.Rotate(t)
	_, err := newIdentifier(t, g, is, nil).Identify(request("Bearer " + good))
	if p := problem.From(err); p.Code != "access.issuer_unavailable" || p.RetryAfter <= 0 {
		t.Errorf("without keys: %v; want access.issuer_unavailable with a time", err)
	}
}

// TestLogHoldsNoToken refuses tokens in every way and looks for parts of them in the log of a developer.
func TestLogHoldsNoToken(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	g := newGuard(t, &memory{m: map[string][]byte{}})
	var log bytes.Buffer
	who := newIdentifier(t, g, is, func(c *access.IdentifierConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	k := is.Key("ES256")
	header := map[string]any{"alg": "ES256", "kid": k.ID, "typ": "JWT"}
	for _, change := range []map[string]any{
		{"sub": 7774444}, {"aud": "canary-audience"}, {"iss": "https://canary.example"}, {"groups": map[string]any{"canary": "canary-group"}}, {"exp": "canary-time"}, {"amr": "canary-amr"},
	} {
		for _, token := range []string{is.Token(change), testkit.Sign(k, header, is.Claims(change)) + "canary", "canary." + is.Token(change)} {
			if _, err := who.Identify(request("Bearer " + token)); err == nil {
				t.Errorf("%v: accepted", change)
			}
			for _, secret := range []string{"canary", "7774444", token[:40], token[len(token)-20:]} {
				if strings.Contains(log.String(), secret) {
					t.Fatalf("the log holds %q:\n%s", secret, log.String())
				}
			}
		}
	}
	if !strings.Contains(log.String(), "token refused") {
		t.Error("nothing is logged, so this test shows nothing")
	}
}

// TestRememberedKeyEnds: a key that its issuer withdraws ends what was remembered of its tokens.
func TestRememberedKeyEnds(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	g := newGuard(t, &memory{m: map[string][]byte{}})
	var issuer *oidc.Issuer
	who := newIdentifier(t, g, is, func(c *access.IdentifierConfig) { issuer = c.Issuers[0].Issuer })
	old := is.Token(nil)
	if _, err := who.Identify(request("Bearer " + old)); err != nil {
		t.Fatal(err)
	}
	is.Rotate(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() { defer close(ended); issuer.Run(ctx) }() // it fetches at once, and then waits
	// A key that is not known waits for the fetch that is under way, or makes one.
	for issuer.Changes() == 0 {
		_, _ = who.Identify(request("Bearer " + is.Token(nil)))
	}
	cancel()
	<-ended
	if _, err := who.Identify(request("Bearer " + old)); err == nil {
		t.Error("a token of a key that was withdrawn is still accepted")
	}
}

// TestRevokedKey: a key that is revoked here ends what was remembered of its tokens with the next request, and is not accepted again
// though its issuer goes on publishing it.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	var issuer *oidc.Issuer
	who := newIdentifier(t, newGuard(t, &memory{m: map[string][]byte{}}), is, func(c *access.IdentifierConfig) { issuer = c.Issuers[0].Issuer })
	old := is.Token(nil)
	r := request("Bearer " + old)
	if _, err := who.Identify(r); err != nil {
		t.Fatal(err)
	}
	issuer.Revoke(keyID(t, old))
	for range 2 {
		if _, err := who.Identify(request("Bearer " + old)); err == nil {
			t.Error("a token of a revoked key is accepted")
		}
		if who.Still(r) == nil {
			t.Error("a request that runs goes on with a token of a revoked key")
		}
	}
}

// keyID returns the id of the key that signed a token.
func keyID(t *testing.T, token string) string {
	t.Helper()
	head, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	var header struct {
		KeyID string `json:"kid"`
	}
	if err == nil {
		err = json.Unmarshal(text, &header)
	}
	if err != nil || header.KeyID == "" {
		t.Fatalf("header %s: %v", text, err)
	}
	return header.KeyID
}

func BenchmarkIdentify(b *testing.B) {
	is := testkit.NewIssuer(b)
	g := newGuard(b, &memory{m: map[string][]byte{}})
	who := newIdentifier(b, g, is, nil)
	r := request("Bearer " + is.Token(map[string]any{"groups": []string{"shop-team"}, "exp": time.Now().Add(time.Hour).Unix()}))
	own := request("Bearer " + create(b, g, api.TokenRequest{Role: "reader"}).Text)
	b.Run("own, before there were others", func(b *testing.B) {
		text := strings.TrimPrefix(own.Header.Get("Authorization"), "Bearer ")
		for b.Loop() {
			if _, err := g.Authenticate(b.Context(), text); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, r := range map[string]*http.Request{"issuer": r, "own": own} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := who.Identify(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestIdentityHasClaims: answers are not shared by tokens of one subject whose claims differ.
func TestIdentityHasClaims(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	who := newIdentifier(t, newGuard(t, &memory{m: map[string][]byte{}}), is, nil)
	seen := map[[32]byte]map[string]any{}
	for _, change := range []map[string]any{
		nil, {"groups": []string{"a", "b"}}, {"groups": []string{"ab"}}, {"acr": "a"}, {"amr": []string{"a"}}, {"amr": []string{"a", "b"}}, {"auth_time": 5}, {"azp": "a"}, {"sub": "b"},
	} {
		p, err := who.Identify(request("Bearer " + is.Token(change)))
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[p.Identity()]; ok {
			t.Errorf("claims %v and %v are one identity", before, change)
		}
		seen[p.Identity()] = change
	}
}
