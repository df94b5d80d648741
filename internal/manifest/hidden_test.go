package manifest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// TestFaultsShowNoCredential: a manifest with a credential where a reference, or nothing, belongs is refused, and nothing of the refusal holds it, whatever
// the key, and whatever else is wrong with the line.
func TestFaultsShowNoCredential(t *testing.T) {
	t.Parallel()
	const value = "sk-live-Tq7Zr2Wn5Xb9Lc4Vd8"
	places := []string{
		`http = "https://x/", auth.bearer = "%s"`,
		`http = "https://x/", auth.bearer = "secret:%s"`,
		`http = "https://x/", auth.bearer = 1, auth.token = "%s"`,
		`http = "https://x/", auth = { bearer = "%s", colour = "red" }`,
		`http = "https://x/", auth = { basic = { user = "u", password = "%s" } }`,
		`http = "https://x/", auth = { basic = { user = "u", pass = "%s" } }`,
		`http = "https://x/", auth = { header = { name = "X-Key", value = "%s" } }`,
		`http = "https://x/", auth = { header = "%s" }`,
		`http = "https://x/", auth = ["%s"]`,
		`http = "https://x/", auth = "%s"`,
		`http = "https://x/", auth = { query = { name = "key", value = "%s" } }`,
		`http = "https://x/", auth = { hmac = { key = "%s" } }`,
		`http = "https://x/", auth = { aws = { access_key = "AKIA", secret_key = "%s", session_token = "%[1]s" } }`,
		`http = "https://x/", auth = { oauth2 = { token_url = "https://x/", client_id = "c", client_secret = "%s" } }`,
		`http = "https://x/", auth = { mtls = { certificate = "%s", key = "%[1]s" } }`,
		`http = "https://x/", headers = { Authorization = "Bearer %s" }`,
		`http = "https://x/", headers = { X-Key = "secret:%s" }`,
		`http = "https://x/", headers = { X-Key = ["%s"] }`,
		`http = "https://x/", query = { key = "secret:%s" }`,
		`http = "https://x/", header = "%s"`,
		`http = "https://user:%s@x/"`,
		`http = "https://%s@x/"`,
		`http = "https://x/", proxy = "http://user:%s@x:1"`,
		`http = "https://x/", ca = "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----"`,
		`http = "https://x/", ca = "secret:%s"`,
		`sql = "postgres://user:%s@x/y", queries.a = "select 1"`,
		`sql = "secret:%s", queries.a = "select 1"`,
		`sql = "%s", queries.a = "select 1"`,
		`sql = "secret:dsn", password = "%s", queries.a = "select 1"`,
		`secret = "%s"`,
		`secret = "secret:%s"`,
		`secret = "secret:a", value = "%s"`,
		`token = "%s"`,
		`http = "https://x/", auth = { bearer = %s }`,
		`http = "https://x/", auth.bearer = 'it's %s'`,
		`http = "https://x/", auth.bearer = "secret:a", auth.bearer = "%s"`,
		`http = "https://x/", auth.bearer = """%s`,
	}
	for _, p := range places {
		for _, form := range []string{"[functions.f]\nsource = \"f.js\"\ngrants.g = { %s }\n", "functions.f = { source = \"f.js\", sauce = 1, grants = { g = { %s } } }\n"} {
			text := "name = \"shop\"\n" + fmt.Sprintf(form, fmt.Sprintf(p, value))
			_, err := manifest.ParseApp("app.toml", []byte(text))
			refused, ok := errors.AsType[*problem.Error](err)
			if !ok || len(refused.Faults) == 0 {
				t.Errorf("%s is not refused: %v", p, err)
				continue
			}
			if all := fmt.Sprintf("%+v %s", *refused, err); strings.Contains(strings.ToLower(all), strings.ToLower(value[8:])) {
				t.Errorf("%s: the refusal holds the credential: %s", p, all)
			}
			for _, f := range refused.Faults {
				at := manifest.FaultAt("app.toml", []byte(text), "", "functions", "f", "grants", "g")
				if strings.Contains(at.Source+f.Source, value[8:]) {
					t.Errorf("%s: the fault shows the credential: %+v", p, at)
				}
			}
		}
	}
}
