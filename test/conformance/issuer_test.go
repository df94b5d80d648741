package conformance_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/access/oidc"
	"sallyport/internal/outbound"
	"sallyport/internal/testkit"
)

// published fetches what a server publishes, as anybody may.
type published struct{ client *http.Client }

func (p published) Get(ctx context.Context, url string) (*outbound.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if cached := resp.Header.Get("Cache-Control"); err == nil && cached != "public, max-age=3600" {
		err = fmt.Errorf("Cache-Control is %q", cached)
	}
	return &outbound.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, err
}

// TestFunctionIdentity: a function with the grant proves who it is to whoever trusts the server as an issuer, also after a
// restart; for the audience of its grant and no other; and a function without the grant gets nothing.
func TestFunctionIdentity(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	s := testkit.Start(t, testkit.Binary(t), data)
	s.Apply(t, &api.Bundle{
		Manifest: `name = "app"
[functions.cloud]
source = "cloud.js"
grants.cloud = { identity = { audience = "sts.example.com" } }
[functions.other]
source = "other.js"
`,
		Modules: map[string]api.Module{
			"cloud": {Kind: api.ModuleScript, Code: []byte(`export default async (event, ctx) => {
				if (event.data?.audience) return await ctx.grants.cloud.call("token", event.data);
				return await ctx.grants.cloud.token();
			}`)},
			"other": {Kind: api.ModuleScript, Code: []byte(`export default async (event, ctx) => await ctx.grants.cloud.token()`)},
		},
	})
	invoke := func(fn, data string) testkit.Answer {
		return s.MustDo(t, http.MethodPost, "/v1/namespaces/default/functions/"+fn+"/invoke", []byte(data), "Content-Type", "application/json")
	}
	token := func() string {
		t.Helper()
		var got struct {
			Token string `json:"token"`
		}
		invoke("cloud", `{}`).Decode(t, http.StatusOK, &got)
		return got.Token
	}
	var about struct {
		Issuer string `json:"issuer"`
	}
	answer, err := published{s.Client}.Get(t.Context(), s.Ready.URL+"/.well-known/openid-configuration")
	if err != nil || json.Unmarshal(answer.Body, &about) != nil || about.Issuer != s.Ready.URL {
		t.Fatalf("the discovery document is %s, %v", answer.Body, err)
	}
	party := func(audience string) oidc.Issuers {
		is, err := oidc.NewIssuer(oidc.Config{
			URL: s.Ready.URL, Audiences: []string{audience}, Algorithms: []string{"RS256"}, Types: []string{"JWT"}, GroupsClaim: "groups", RolesClaim: "roles", TenantClaim: "namespace",
		}, published{s.Client}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return oidc.Issuers{s.Ready.URL: is}
	}
	first := token()
	if got, err := party("sts.example.com").Verify(t.Context(), first); err != nil || got.Subject != "default/cloud" || got.Tenant != "default" {
		t.Errorf("Verify = %+v, %v", got, err)
	}
	if _, err := party("other.example.com").Verify(t.Context(), first); err == nil {
		t.Error("the token is accepted for another audience")
	}
	if a := invoke("cloud", `{"audience":"other.example.com"}`); a.Status == http.StatusOK || strings.Contains(string(a.Body), "eyJ") {
		t.Errorf("another audience: %d %s", a.Status, a.Body)
	}
	if a := invoke("other", `{}`); a.Status == http.StatusOK || strings.Contains(string(a.Body), "eyJ") {
		t.Errorf("a function without the grant: %d %s", a.Status, a.Body)
	}
}

// TestIssuerRevokeOld: on a server that takes its own functions' tokens, a revoked key is out of the published keys and its tokens are
// refused with the answer to the command, while a function gets a good token by the new key at once; an ordinary rotation ends nothing.
func TestIssuerRevokeOld(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	first := testkit.Start(t, testkit.Binary(t), data) // for the CA and a port, by which the server then names itself
	if _, err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(t.TempDir(), "server.toml")
	text := fmt.Sprintf(`[identity]
issuer = %[1]q
[[issuers]]
url = %[1]q
audience = ["sts.example.com"]
ca_file = %[2]q
private_network = true
principal = "service"
[[issuers.map]]
claim = "sub"
value = "default/cloud"
role = "reader"
namespace = "default"
`, first.Ready.URL, first.Ready.CAFile)
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testkit.Start(t, testkit.Binary(t), data, "--listen", strings.TrimPrefix(first.Ready.URL, "https://"), "--config", settings)
	s.Apply(t, &api.Bundle{
		Manifest: "name = \"app\"\n[functions.cloud]\nsource = \"cloud.js\"\ngrants.cloud = { identity = { audience = \"sts.example.com\" } }\n",
		Modules: map[string]api.Module{
			"cloud": {Kind: api.ModuleScript, Code: []byte(`export default async (event, ctx) => await ctx.grants.cloud.token()`)},
		},
	})
	token := func() string {
		t.Helper()
		var got struct {
			Token string `json:"token"`
		}
		s.MustDo(t, http.MethodPost, "/v1/namespaces/default/functions/cloud/invoke", []byte(`{}`), "Content-Type", "application/json").Decode(t, http.StatusOK, &got)
		return got.Token
	}
	status := func(token string) int {
		return s.MustDo(t, http.MethodGet, "/v1/namespaces/default/functions", nil, "Authorization", "Bearer "+token).Status
	}
	rotate := func(body string, header ...string) (out api.Issuer, code int) {
		a := s.MustDo(t, http.MethodPost, "/v1/issuer/rotate", []byte(body), append(header, "Content-Type", "application/json")...)
		if a.Status == http.StatusOK {
			a.Decode(t, http.StatusOK, &out)
		}
		return out, a.Status
	}
	old := token()
	if got := status(old); got != http.StatusOK {
		t.Fatalf("a token of the function's: %d", got)
	}
	if _, code := rotate(`{"revoke_old":true}`, "Authorization", "Bearer "+old); code != http.StatusForbidden {
		t.Errorf("a function rotates the issuer: %d", code)
	}
	out, code := rotate(`{}`)
	if code != http.StatusOK || len(out.Keys) != 2 || len(out.Revoked) != 0 {
		t.Fatalf("rotate: %d %+v", code, out)
	}
	if _, code := rotate(`{}`); code != http.StatusConflict {
		t.Errorf("rotate again: %d", code)
	}
	if got := status(old); got != http.StatusOK {
		t.Errorf("after an ordinary rotation: %d", got)
	}
	before := out.Keys
	if out, code = rotate(`{"revoke_old":true}`); code != http.StatusOK || len(out.Keys) != 1 || len(out.Revoked) != 2 {
		t.Fatalf("revoke: %d %+v", code, out)
	}
	if got := status(old); got != http.StatusUnauthorized {
		t.Errorf("a token by a revoked key: %d", got)
	}
	if got := status(token()); got != http.StatusOK {
		t.Errorf("a token by the new key: %d", got)
	}
	keys, err := published{s.Client}.Get(t.Context(), s.Ready.URL+"/.well-known/jwks.json")
	if err != nil || strings.Contains(string(keys.Body), before[0].ID) || strings.Contains(string(keys.Body), before[1].ID) {
		t.Errorf("published: %s, %v", keys.Body, err)
	}
}
