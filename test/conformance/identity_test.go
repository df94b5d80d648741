package conformance_test

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/client"
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
	// Who may read the server's status sees it, and how fresh the keys are; nobody else does.
	var status api.Status
	s.MustDo(t, "GET", "/v1/status", nil).Decode(t, http.StatusOK, &status)
	if len(status.Issuers) != 1 || status.Issuers[0].URL != is.URL || status.Issuers[0].Keys == 0 || status.Issuers[0].Refreshed.IsZero() {
		t.Errorf("the status of issuers is %+v", status.Issuers)
	}
	if a := s.MustDo(t, "GET", "/metrics", nil); !strings.Contains(string(a.Body), "sallyport_issuer_refreshed_timestamp_seconds{issuer=\""+is.URL) {
		t.Error("the metrics do not name the issuer")
	}
	status = api.Status{}
	s.MustDo(t, "GET", "/v1/status", nil, "Authorization", "Bearer "+known).Decode(t, http.StatusOK, &status)
	if len(status.Namespaces) != 1 || len(status.Issuers) != 0 {
		t.Errorf("a developer of one namespace sees %+v", status)
	}
}

// TestClientCertificate holds the real binary to what a client certificate proves, in handshakes and on a connection that
// is open while its certificate is revoked.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	ca, other := testkit.NewAuthority(t, "shop"), testkit.NewAuthority(t, "other")
	crl := filepath.Join(t.TempDir(), "shop.crl")
	ca.Revoke(t, crl, time.Now().Add(time.Hour))
	s := startWith(t, fmt.Sprintf(`
[[tls.client_ca]]
name = "shop"
file = %q
crl_file = %q

[[tls.client_ca.map]]
spiffe = "spiffe://example.org/shop/*"
role = "reader"
namespace = "default"
`, ca.File, crl))
	id := func(text string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = []*url.URL{u}
		}
	}
	ask := func(c *http.Client, auth string) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.Ready.URL+"/v1/namespaces/default/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0 // the handshake failed
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	api := ca.Issue(t, id("spiffe://example.org/shop/api"))
	for name, tc := range map[string]struct {
		client *http.Client
		auth   string
		want   int
	}{
		"good":                   {s.ClientWith(t, api), "", 200},
		"none":                   {s.Client, "", 401},
		"none, a token":          {s.Client, "Bearer " + s.Token, 200},
		"good, a bad token":      {s.ClientWith(t, api), "Bearer x", 401},
		"another name":           {s.ClientWith(t, ca.Issue(t, id("spiffe://example.org/bank/api"))), "", 403},
		"another CA":             {s.ClientWith(t, other.Issue(t, id("spiffe://example.org/shop/api"))), "", 0},
		"another CA, good token": {s.ClientWith(t, other.Issue(t, nil)), "Bearer " + s.Token, 0},
		"expired": {s.ClientWith(t, ca.Issue(t, func(c *x509.Certificate) {
			id("spiffe://example.org/shop/api")(c)
			c.NotAfter = time.Now().Add(-time.Minute)
		})), "", 0},
		"of a server": {s.ClientWith(t, ca.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), "", 0},
	} {
		if got := ask(tc.client, tc.auth); got != tc.want {
			t.Errorf("%s: %d; want %d", name, got, tc.want)
		}
	}
	var status struct {
		Lists []struct {
			Authority string `json:"authority"`
			Revoked   int    `json:"revoked"`
		} `json:"revocation_lists"`
	}
	if body := s.MustDo(t, "GET", "/v1/status", nil).Body; json.Unmarshal(body, &status) != nil || len(status.Lists) != 1 || status.Lists[0].Authority != "shop" || status.Lists[0].Revoked != 0 {
		t.Errorf("the status of revocation lists is %s", body)
	}
	certFile, keyFile := testkit.WritePair(t, api)
	c, err := client.New(client.Config{Server: s.Ready.URL, CAFile: s.Ready.CAFile, CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Events(t.Context(), client.ListOptions{}); err != nil {
		t.Errorf("by the client library: %v", err)
	}
	open := s.ClientWith(t, api)
	if got := ask(open, ""); got != http.StatusOK {
		t.Fatalf("before the revocation: %d", got)
	}
	ca.Revoke(t, crl, time.Now().Add(time.Hour), api)
	const limit = time.Minute // when it counts as never: the file is looked at twice a second
	for began := time.Now(); ask(open, "") != http.StatusUnauthorized; {
		if time.Since(began) > limit {
			t.Fatal("a revoked certificate is accepted on a connection that is open")
		}
	}
	if got := ask(s.ClientWith(t, api), ""); got != http.StatusUnauthorized {
		t.Errorf("a revoked certificate on a new connection: %d; want 401", got)
	}
}

// TestFailuresAndRates has the real binary answer 429 with Retry-After.
func TestFailuresAndRates(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	s := startWith(t, issuerTable(is)+`
[rates]
failures = { rate = 1, burst = 5 }
principal = { rate = 1, burst = 3 }
`)
	status := func(token string) *http.Response {
		return bare(t, s, "GET", "/v1/status", http.Header{"Authorization": {"Bearer " + token}})
	}
	for range 3 {
		if got := status(s.Token).StatusCode; got != http.StatusOK {
			t.Fatalf("within the burst: %d", got)
		}
	}
	if got := status(s.Token); got.StatusCode != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("past the principal's burst: %d, Retry-After %q", got.StatusCode, got.Header.Get("Retry-After"))
	}
	limited := false
	for range 50 {
		got := status(is.Token(map[string]any{"aud": "x"}))
		limited = limited || got.StatusCode == http.StatusTooManyRequests && got.Header.Get("Retry-After") != ""
	}
	if !limited {
		t.Error("50 tokens for somebody else are all checked")
	}
}
