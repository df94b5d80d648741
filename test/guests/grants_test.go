package guests_test

import (
	"encoding/json"
	"errors"
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

// grantsApp is the app of a language: a function with a grant of each kind that is used by a request.
const grantsApp = `
name = "%[1]s"

[functions.%[1]s]
source = "grants.wasm"
memory = "32MiB"

[functions.%[1]s.grants]
api    = { http = "%[2]s/v1/{id}", methods = ["POST"], private = ["127.0.0.1"] }
carts  = { kv = "carts", prefix = "%[1]s/" }
files  = { blob = "files", prefix = "%[1]s/" }
itself = { invoke = "%[1]s" }

[functions.%[1]s.grants.orders]
sql = "sqlite:%[1]s"
setup = ["create table orders (id text primary key, total integer not null)"]
queries.insert = "insert into orders (id, total) values ($1, $2)"
queries.find = "select id, total from orders where id = $1"
`

// use is what a guest is asked to do, and what is to come of it.
type use struct{ grant, op, request, body, want string }

// uses are made by every guest in this order.
var uses = []use{
	{grant: "carts", op: "set", request: `{"key":"jané","value":{"book":1}}`, want: `"set":true`},
	{grant: "carts", op: "get", request: `{"key":"jané"}`, want: `{"value":{"book":1},"version":`},
	{grant: "carts", op: "get", request: `{"key":"nobody"}`, want: `served null`},
	{grant: "orders", op: "query", request: `{"query":"insert","params":["o-1",5]}`, want: `"changed":1`},
	{grant: "orders", op: "query", request: `{"query":"find","params":["o-1"]}`, want: `{"id":"o-1","total":5}`},
	{grant: "orders", op: "query", request: `{"query":"drop"}`, want: `failed grant.sql_no_statement`},
	{grant: "api", op: "fetch", request: `{"values":{"id":"x y"},"method":"POST"}`, body: "grüße", want: `| POST /v1/x%20y grüße`},
	{grant: "api", op: "fetch", request: `{"values":{"id":"../admin"},"method":"POST"}`, want: `failed fetch.value_refused`},
	{grant: "files", op: "put", request: `{"name":"hello"}`, body: strings.Repeat("content ", 1000), want: `"size":8000`},
	{grant: "files", op: "get", request: `{"name":"hello","offset":7992}`, want: `| content `},
	{grant: "files", op: "stat", request: `{"name":"hello"}`, want: `"size":8000`},
	{grant: "itself", op: "invoke", request: `{"data":{"grant":"carts","op":"get","request":"{\"key\":\"jané\"}","body":""}}`, want: `book`},
	{grant: "vault", op: "get", request: `{}`, want: `failed grant.not_granted`},
	{grant: "carts", op: "get", request: `[]`, want: `failed grant.request_invalid`},
}

// grantsGuest builds the guest of a language, and skips the test where its tools are not there.
func grantsGuest(t *testing.T, language, out string) {
	t.Helper()
	var err error
	switch from := "../../test/guests/testdata/grants/"; language {
	case "go":
		err = buildGo("./test/guests/testdata/grants/go", "c-shared", out)
	case "c":
		err = exampleOf("c").recipe(out, from+"grants.c")
	case "rust":
		err = exampleOf("rust").recipe(out, from+"rust")
	case "assemblyscript":
		err = exampleOf("assemblyscript").recipe(out, from+"grants.ts")
	}
	if errors.Is(err, errNoTools) {
		t.Skipf("NOT BUILT: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestGrants: modules of every language use grants by the calls of their SDK, behind both walls of a real server, and the same comes of it.
func TestGrants(t *testing.T) {
	t.Parallel()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.EscapedPath(), body)
	}))
	t.Cleanup(service.Close)
	binary := testkit.Binary(t)
	server := testkit.Start(t, binary, filepath.Join(t.TempDir(), "data"))
	for _, language := range []string{"go", "c", "rust", "assemblyscript"} {
		t.Run(language, func(t *testing.T) { // one after the other: each is compiled, by the tools and by the server
			dir := t.TempDir()
			grantsGuest(t, language, filepath.Join(dir, "grants.wasm"))
			if err := os.WriteFile(filepath.Join(dir, "app.toml"), fmt.Appendf(nil, grantsApp, language, service.URL), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, stderr, err := (user{binary, server, dir}).run(t, "apply"); err != nil {
				t.Fatalf("apply: %v\n%s", err, stderr)
			}
			for _, u := range uses {
				data, err := json.Marshal(map[string]string{"grant": u.grant, "op": u.op, "request": u.request, "body": u.body})
				if err != nil {
					t.Fatal(err)
				}
				var reply struct {
					Served bool   `json:"served"`
					Value  string `json:"value"`
					Body   string `json:"body"`
				}
				server.MustDo(t, http.MethodPost, "/v1/namespaces/default/functions/"+language+"/invoke", data, "Content-Type", "application/json").Decode(t, http.StatusOK, &reply)
				got := "served " + reply.Value + " | " + reply.Body
				if !reply.Served {
					var failed struct{ Code string }
					if err := json.Unmarshal([]byte(reply.Value), &failed); err != nil {
						t.Fatalf("%s %s fails with %s", u.grant, u.op, reply.Value)
					}
					got = "failed " + failed.Code
				}
				if !strings.Contains(got, u.want) {
					t.Errorf("%s %s %s = %.300s; want %s", u.grant, u.op, u.request, got, u.want)
				}
			}
		})
	}
}
