package guests_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/testkit"
)

const kindsApp = `
name = "kinds"

[functions.kinds]
source = "kinds.wasm"

[functions.kinds.grants]
api    = { http = "%s/v1/{id}", methods = ["POST"], allow_query = ["limit"], private = ["127.0.0.1"] }
carts  = { kv = "carts" }
files  = { blob = "files", limits = { reply = "256KiB" } }
key    = { secret = "secret:key" }
cloud  = { identity = { audience = "sts.example.com" } }
itself = { invoke = "kinds" }

[functions.kinds.grants.orders]
sql = "sqlite:kinds"
setup = ["create table orders (id text primary key, total integer not null, note blob)"]
queries.insert = "insert into orders (id, total, note) values ($1, $2, $3)"
queries.all = "select id, total, note from orders order by id"
`

// TestGoKinds: a module in Go uses a grant of each kind by the methods that the SDK has for it, and by a *http.Client, in a real server.
func TestGoKinds(t *testing.T) {
	t.Parallel()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Order", "o-1")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Accept"), body)
	}))
	t.Cleanup(service.Close)
	binary := testkit.Binary(t)
	server := testkit.Start(t, binary, filepath.Join(t.TempDir(), "data"))
	dir := t.TempDir()
	if err := buildGo("./test/guests/testdata/grants/kinds", "c-shared", filepath.Join(dir, "kinds.wasm")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"app.toml": fmt.Sprintf(kindsApp, service.URL), "key.txt": "12345678901234567890"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"secret", "set", "key", "--file", "key.txt"}, {"apply"}} {
		if _, stderr, err := (user{binary, server, dir}).run(t, args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, stderr)
		}
	}
	invoke := func(kind string) testkit.Answer {
		data, err := json.Marshal(map[string]string{"kind": kind, "url": service.URL})
		if err != nil {
			t.Fatal(err)
		}
		return server.MustDo(t, http.MethodPost, "/v1/namespaces/default/functions/kinds/invoke", data, "Content-Type", "application/json")
	}
	for _, kind := range []string{"http", "client", "sql", "kv", "blob", "rest"} {
		if r := invoke(kind); r.Status != http.StatusOK || strings.TrimSpace(string(r.Body)) != `"right"` {
			t.Errorf("%s: %d %s", kind, r.Status, r.Body)
		}
	}
	if r := invoke("refused"); r.Status == http.StatusOK || !strings.Contains(string(r.Body), "grant.sql_no_statement") {
		t.Errorf("a refusal: %d %s", r.Status, r.Body)
	}
}
