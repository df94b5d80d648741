package conformance_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/internal/testkit"
)

// startWith starts a server with a server.toml.
func startWith(t *testing.T, settings string) *testkit.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.toml")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	return testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"), "--config", file)
}

// issuerTable returns the part of a server.toml that has is accepted, and gives the group shop-team a namespace.
func issuerTable(is *testkit.Issuer) string {
	return fmt.Sprintf(`
[[issuers]]
url = %q
audience = [%q]
ca_file = %q
private_network = true

[[issuers.map]]
claim = "groups"
value = "shop-team"
role = "developer"
namespace = "default"
`, is.URL, testkit.Audience, is.CAFile)
}

// TestIssuer has an issuer's tokens accepted, by the real binary: what its mapping gives, and nothing else.
func TestIssuer(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	s := startWith(t, issuerTable(is))
	foreign := testkit.NewKey(t, "ES256", is.Key("ES256").ID)
	team := map[string]any{"groups": []string{"x", "shop-team"}}
	with := func(change map[string]any) string {
		change["groups"] = team["groups"]
		return is.Token(change)
	}
	for _, tc := range []struct {
		name, token, path string
		want              int
	}{
		{"mapped", is.Token(team), "/v1/namespaces/default/events", 200},
		{"another namespace", is.Token(team), "/v1/namespaces/shop/events", 403},
		{"tokens", is.Token(team), "/v1/tokens", 403},
		{"not mapped", is.Token(nil), "/v1/namespaces/default/events", 403},
		{"not mapped, status", is.Token(nil), "/v1/status", 403},
		{"another audience", with(map[string]any{"aud": "x"}), "/v1/namespaces/default/events", 401},
		{"another issuer", with(map[string]any{"iss": "https://login.example.com"}), "/v1/namespaces/default/events", 401},
		{"expired", with(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), "/v1/namespaces/default/events", 401},
		{"foreign key", testkit.Sign(foreign, map[string]any{"alg": "ES256", "kid": foreign.ID, "typ": "JWT"}, is.Claims(team)), "/v1/namespaces/default/events", 401},
	} {
		if resp := bare(t, s, "GET", tc.path, http.Header{"Authorization": {"Bearer " + tc.token}}); resp.StatusCode != tc.want {
			t.Errorf("%s: %d; want %d", tc.name, resp.StatusCode, tc.want)
		}
	}
	// The issuer goes down: what is known works on, and what is not known is not let in.
	is.Fail(testkit.FaultDown)
	known := is.Token(team)
	is.Rotate(t)
	ask := func(token string) int {
		return bare(t, s, "GET", "/v1/namespaces/default/events", http.Header{"Authorization": {"Bearer " + token}}).StatusCode
	}
	if got := ask(known); got != http.StatusOK {
		t.Errorf("a known key with the issuer down: %d; want 200", got)
	}
	// 503 when the server asked the issuer just now, 401 when it did a moment ago.
	if got := ask(is.Token(team)); got != http.StatusServiceUnavailable && got != http.StatusUnauthorized {
		t.Errorf("an unknown key with the issuer down: %d; want 503 or 401", got)
	}
}
