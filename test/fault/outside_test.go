package fault_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// changingStore answers as Vault's key-value engine and as Azure Key Vault document it, with one value that changes. It is a double of them.
type changingStore struct {
	*httptest.Server
	mu     sync.Mutex
	values [][]byte
	came   map[string]bool // the values that arrived at the service
}

func (s *changingStore) value() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.values[len(s.values)-1])
}

// turn makes another value.
func (s *changingStore) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = append(s.values, randomOf(letters, 40))
}

// ServeHTTP serves both stores, and a service that echoes the credential it is sent.
func (s *changingStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch {
	case strings.HasPrefix(r.URL.Path, "/v1/kv/data/"):
		answer = map[string]any{"data": map[string]any{"data": map[string]string{"password": s.value()}}}
	case strings.HasPrefix(r.URL.Path, "/secrets/"):
		answer = map[string]string{"value": s.value()}
	case r.URL.Path == "/turn":
		s.turn()
		return
	case r.URL.Path == "/pause": // between two looks at a value
		time.Sleep(20 * time.Millisecond)
		return
	default:
		sent := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		s.came[sent] = true
		s.mu.Unlock()
		w.Header().Set("X-Echo", sent)
		for _, form := range formsOf([]byte(sent)) {
			_, _ = fmt.Fprintf(w, "%s\n", form)
		}
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// leaseScript gets a value, has it changed, gets the next one, and gives both away in every way that it has. The lease of the first has not ended. It keeps the
// first in a bucket, and says it again when it is called the next time: by then nothing has it in force.
const leaseScript = `
export default async (event, ctx) => {
  const g = ctx.grants, out = [];
  const read = async () => (await g.value.call("value")).value.value;
  const kept = await g.kept.get("first");
  if (kept) out.push(kept.value);
  const first = await read();
  out.push(first, await (await g.echo.fetch({})).text());
  ctx.log(first);
  await g.turn.fetch({});
  let second = first;
  for (let n = 0; second === first && n < 500; n++) { await g.pause.fetch({}); second = await read(); }
  if (second === first) throw new Error("the value did not change");
  out.push(second, await (await g.echo.fetch({})).text());
  if (!kept) await g.kept.set("first", first);
  for (const text of [...out, first + second, btoa(first), encodeURIComponent(second)]) ctx.log(text);
  ctx.publish("leased.seen", { out }, { subject: first });
  if (event.data.fail) throw new Error(first + " " + second, { cause: out });
  return { out, changed: true };
};
`

const leaseApp = `
name = "leased"
[functions.%[1]s]
source  = "%[1]s.js"
timeout = "60s"
limits  = { host_calls = 5000, log = "1MiB" }
[functions.%[1]s.grants]
value = { secret = "secret:%[1]s" }
echo  = { http = "%[2]s/echo", private = ["127.0.0.1"], auth = { bearer = "secret:%[1]s" } }
turn  = { http = "%[2]s/turn", private = ["127.0.0.1"] }
pause = { http = "%[2]s/pause", private = ["127.0.0.1"] }
kept  = { kv = "%[1]s" }
out   = { publish = ["leased.seen"] }
[subscriptions.%[1]s]
function = "%[1]s"
filter   = { type = "leased.%[1]s" }
retry    = { attempts = 2, backoff = "10ms" }
[functions.reader]
source = "reader.js"
[subscriptions.reader]
function = "reader"
filter   = { type = "leased.seen" }
`

// TestLeasedValuesOfOtherStores: what a function was given of a secret in another store is in nothing that it says, in the invocation that read it for the first
// time, after it was changed there while the function has both, and in a later invocation within the time of the lease.
func TestLeasedValuesOfOtherStores(t *testing.T) {
	t.Parallel()
	store := &changingStore{came: map[string]bool{}}
	store.turn()
	store.Server = httptest.NewTLSServer(store)
	t.Cleanup(store.Close)
	plain := httptest.NewServer(store)
	t.Cleanup(plain.Close)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: store.Certificate().Raw}))
	token := file("token", []byte("token-of-the-server"))
	config := "[log]\nlevel = \"debug\"\n"
	for kind, prefix := range map[string]string{"vault": "kv/shop/", "keyvault": "shop-"} {
		config += fmt.Sprintf("[[secret_stores]]\nkind = %q\nnamespace = \"default\"\nurl = %q\nprefix = %q\ntoken_file = %q\nca_file = %q\nprivate_network = true\nttl = \"1s\"\n",
			kind, store.URL, prefix, token, ca)
	}
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(dir, "data"), "--config", file("server.toml", []byte(config)))
	for name, ref := range map[string]string{"vault": "vault:kv/shop/db#password", "keyvault": "keyvault:shop-db"} {
		a := s.MustDo(t, http.MethodPost, "/v1/namespaces/default/secrets/"+name+"/link", fmt.Appendf(nil, `{"reference":%q}`, ref), "Content-Type", "application/json")
		if a.Status != http.StatusOK {
			t.Fatalf("link %s: %d %s", name, a.Status, a.Body)
		}
	}
	out := map[string]string{}
	keep := func(name string, a testkit.Answer) testkit.Answer {
		out[name] += string(a.Body)
		return a
	}
	const ns = "/v1/namespaces/default"
	for _, kind := range []string{"vault", "keyvault"} {
		s.Apply(t, &api.Bundle{Manifest: fmt.Sprintf(leaseApp, kind, plain.URL), Modules: map[string]api.Module{
			kind:     {Kind: api.ModuleScript, Code: []byte(leaseScript)},
			"reader": {Kind: api.ModuleScript, Code: []byte(`export default (event, ctx) => { ctx.log(event.subject ?? ""); for (const text of event.data.out) ctx.log(text) }`)},
		}})
		for range 2 {
			a := keep("replies", s.MustDo(t, http.MethodPost, ns+"/functions/"+kind+"/invoke", []byte(`{}`), "Content-Type", "application/json"))
			if a.Status != http.StatusOK || !strings.Contains(string(a.Body), `"changed":`) {
				t.Fatalf("%s: %d %.500s", kind, a.Status, a.Body)
			}
		}
		keep("problems", s.MustDo(t, http.MethodPost, ns+"/functions/"+kind+"/invoke", []byte(`{"fail":true}`), "Content-Type", "application/json"))
		if _, err := s.Publish(t.Context(), "leased."+kind, kind, []byte(`{"fail":true}`)); err != nil {
			t.Fatal(err)
		}
		if e := s.Event(t, kind, "60s"); e.State != api.StateDead {
			t.Errorf("%s: the event is %s, want dead", kind, e.State)
		}
		keep("event", s.MustDo(t, http.MethodGet, ns+"/events/"+kind+"?source=/test&data=true", nil))
		keep("logs of "+kind, s.MustDo(t, http.MethodGet, ns+"/logs?limit=1000&function="+kind, nil))
	}
	keep("logs of the reader", s.MustDo(t, http.MethodGet, ns+"/logs?limit=1000&function=reader", nil))
	var letters api.DeadLetterList
	keep("dead letters", s.MustDo(t, http.MethodGet, ns+"/dead-letters", nil)).Decode(t, http.StatusOK, &letters)
	for _, l := range letters.DeadLetters {
		keep("dead letters", s.MustDo(t, http.MethodGet, ns+"/dead-letters/"+l.ID+"?data=true", nil))
	}
	for _, path := range []string{"/secrets", "/secrets/vault/log", "/decisions", "/usage"} {
		keep(path, s.MustDo(t, http.MethodGet, ns+path, nil))
	}
	out["what the server printed"] = s.Output()
	store.check(t, out)
}

// check looks for every value that the store had in everything that came out.
func (s *changingStore) check(t *testing.T, out map[string]string) {
	t.Helper()
	var planted []plantedSecret
	came := 0
	for i, v := range s.values {
		planted = append(planted, plantedSecret{name: fmt.Sprint("value ", i), value: v, cores: [][]byte{v}})
		if s.came[string(v)] {
			came++
		}
	}
	f, size := newFinder(t, planted), 0
	for name, text := range out {
		size += len(text)
		f.look(t, name, []byte(text))
	}
	if came < 8 || size < 10_000 || !strings.Contains(out["logs of vault"], "[redacted]") || !strings.Contains(out["logs of the reader"], "[redacted]") {
		t.Errorf("%d of %d values came to the service, and %d bytes came out: too few to prove anything", came, len(s.values), size)
	}
	t.Logf("%d values, %d of them used; searched %d bytes", len(s.values), came, size)
}
