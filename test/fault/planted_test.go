package fault_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// How the 1,000 secrets are spread: each function has so many grants, of the kinds in turn, and handles some of them in each call.
const (
	plantedSecrets  = 1000
	plantedOfOne    = 50
	plantedAtOnce   = 10
	plantedParallel = 8
)

// TestPlantedSecrets plants 1,000 secrets of different shapes and has them used by every kind of grant that takes one, by functions that give
// away all that they get, and with services that answer with the credentials they were sent. Then it looks for each of them, as it is and
// encoded, in everything that comes out of the server and in everything that it wrote to the disk.
func TestPlantedSecrets(t *testing.T) {
	binary := testkit.Binary(t)
	dir := t.TempDir()
	temporary := filepath.Join(dir, "tmp")
	if err := os.Mkdir(temporary, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temporary) // the server's temporary files are searched too
	config := filepath.Join(dir, "server.toml")
	if err := os.WriteFile(config, []byte("[cells]\nsecond_wall = \"on\"\n[log]\nlevel = \"debug\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newPlanted(t, plantedSecrets, plantedOfOne)
	s := testkit.Start(t, binary, filepath.Join(dir, "data"), "--config", config)
	w.server = s
	w.set(t)
	w.apply(t)
	w.use(t)
	w.read(t)
	w.searchFolders(t, filepath.Join(dir, "data"), temporary)
	if _, err := s.Stop(); err != nil {
		t.Fatalf("stop: %v\n%s", err, s.Output())
	}
	w.searchFolders(t, filepath.Join(dir, "data"), temporary)
	w.keep("what the server printed", []byte(s.Output()))
	w.search(t)
}

// planted is the secrets of the test, the services that they are for, and what came out.
type planted struct {
	server  *testkit.Server
	secrets []plantedSecret
	ofOne   int // of the secrets that one function has
	finder  *finder
	http    *httptest.Server
	tls     *httptest.Server
	sql     net.Listener
	lenient atomic.Bool // databases that refuse statements take them for the moment

	mu sync.Mutex
	// came are the secrets that arrived at a service or at a function, by their index: those that did not, prove nothing.
	came map[int]bool
	out  map[string][]byte
}

// newPlanted makes so many secrets, so many of them for each function.
func newPlanted(t *testing.T, secrets, ofOne int) *planted {
	t.Helper()
	w := &planted{ofOne: ofOne, came: map[int]bool{}, out: map[string][]byte{}}
	handler := http.HandlerFunc(w.echo)
	w.http = httptest.NewServer(handler)
	t.Cleanup(w.http.Close)
	w.tls = httptest.NewUnstartedServer(handler)
	w.tls.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	w.tls.StartTLS()
	t.Cleanup(w.tls.Close)
	w.startDatabase(t)
	for i := range secrets {
		w.secrets = append(w.secrets, newPlantedSecret(t, i, w.sql.Addr().String()))
	}
	w.finder = newFinder(t, w.secrets)
	return w
}

func (w *planted) arrived(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.came[i] = true
}

// apply applies the app, at first with databases that refuse its statements, and say so with the password that they got.
func (w *planted) apply(t *testing.T) {
	t.Helper()
	body, err := json.Marshal(w.bundle())
	if err != nil {
		t.Fatal(err)
	}
	a := w.server.MustDo(t, http.MethodPost, "/v1/namespaces/default/apps", body, "Content-Type", "application/json")
	if w.keep("refused apply", a.Body); a.Status != http.StatusUnprocessableEntity || !bytes.Contains(a.Body, []byte("deploy.statements_refused")) {
		t.Errorf("apply with databases that refuse its statements: %d %.300s", a.Status, a.Body)
	}
	w.lenient.Store(true)
	w.keep("apply", fmt.Appendf(nil, "%+v", w.server.Apply(t, w.bundle())))
	w.lenient.Store(false)
}

func (w *planted) keep(name string, text []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out[name] = append(append(w.out[name], text...), '\n')
}

// each calls do for the numbers below n, several at a time.
func each(n int, do func(i int)) {
	var all sync.WaitGroup
	places := make(chan struct{}, plantedParallel)
	for i := range n {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			do(i)
		})
	}
	all.Wait()
}

// set stores all secrets.
func (w *planted) set(t *testing.T) {
	t.Helper()
	each(len(w.secrets), func(i int) {
		a, err := w.server.Do(t.Context(), http.MethodPost, "/v1/namespaces/default/secrets/"+w.secrets[i].name+"/versions", w.secrets[i].value,
			"Content-Type", "application/octet-stream")
		if err != nil || a.Status != http.StatusOK {
			t.Errorf("set %s (%s): %v %d %s", w.secrets[i].name, w.secrets[i].shape, err, a.Status, a.Body)
		}
		w.keep("answers about secrets", a.Body)
	})
	if t.Failed() {
		t.FailNow()
	}
}

// plantedScript gives away all that it gets: everything that a grant answers, and of what is not encoded already, the encodings.
const plantedScript = `
const bytesOf = (text) => new TextEncoder().encode(text);
const encodings = (bytes) => {
  const out = [];
  for (let shift = 0; shift < 3; shift++) {
    const moved = new Uint8Array(shift + bytes.length);
    moved.set(bytes, shift);
    out.push(moved.toBase64(), moved.toBase64({ alphabet: "base64url" }));
  }
  const hex = bytes.toHex();
  out.push(hex, hex.toUpperCase());
  return out;
};
const all = (text) => [text, JSON.stringify(text), encodeURIComponent(text), ...encodings(bytesOf(text))];
const thrown = (e) => [e.code, e.message, String(e), e.stack].join(" ");
const grants = {
  http: async (g, out, quick) => {
    for (const how of quick ? ["echo"] : ["echo", "error", "redirect", "broken"]) {
      try {
        const r = await g.fetch({ values: { how } });
        out.push(JSON.stringify([...r.headers]), await r.text());
      } catch (e) { out.push(thrown(e)); }
    }
  },
  sql: async (g, out) => {
    try { out.push(JSON.stringify(await g.read("p"))); } catch (e) { out.push(thrown(e)); }
  },
  secret: async (g, out, quick, proofs) => {
    const { value: v } = await g.call("value");
    const bytes = v.base64 ? Uint8Array.fromBase64(v.base64) : bytesOf(v.value);
    proofs.push(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex());
    out.push(JSON.stringify(v), ...(v.value ? all(v.value) : encodings(bytes)));
  },
};
export default async (event, ctx) => {
  const { mode, from, to } = event.data;
  const out = [], proofs = [];
  const names = Object.keys(ctx.grants).filter((name) => name.startsWith("s")).sort().slice(from, to);
  for (const name of names) {
    try { await grants[ctx.grants[name].kind](ctx.grants[name], out, mode !== "reply", proofs); } catch (e) { out.push(thrown(e)); }
  }
  const short = out.filter((text) => text.length < 1500);
  // A line is cut at 8 KiB, and an error at 300 bytes: here, in the middle of what is given away.
  for (const text of short.slice(0, 2)) for (const left of [30, 40]) ctx.log("-".repeat(8192 - left) + text);
  for (const text of short) ctx.log(text);
  ctx.publish("planted.seen", { out }, { subject: out[0].replace(/[^ -~]/g, "").slice(0, 1000) });
  if (mode === "cut") throw new Error("-".repeat(262) + (short[0] ?? ""));
  if (mode !== "reply") throw new Error(out.join(" "), { cause: out });
  return { out, proofs };
};
`

// bundle has functions that have all secrets between them, and one that has none and logs the events of the others.
func (w *planted) bundle() *api.Bundle {
	var m strings.Builder
	m.WriteString("name = \"planted\"\n[functions.reader]\nsource = \"reader.js\"\n[subscriptions.reader]\nfunction = \"reader\"\nfilter = { type = \"planted.seen\" }\n")
	modules := map[string]api.Module{"reader": {Kind: api.ModuleScript, Code: []byte(
		`export default (event, ctx) => { ctx.log(event.subject ?? ""); for (const text of event.data.out) ctx.log(text) }`)}}
	for i, secret := range w.secrets {
		f := fmt.Sprintf("f%d", i/w.ofOne)
		if i%w.ofOne == 0 {
			fmt.Fprintf(&m, "[functions.%s]\nsource = \"%s.js\"\n[functions.%s.grants.out]\npublish = [\"planted.seen\"]\n", f, f, f)
			fmt.Fprintf(&m, "[subscriptions.%s]\nfunction = \"%s\"\nfilter = { type = \"planted.%s\" }\nretry = { attempts = 2, backoff = \"10ms\" }\n", f, f, f)
			modules[f] = api.Module{Kind: api.ModuleScript, Code: []byte(plantedScript)}
		}
		fmt.Fprintf(&m, "[functions.%s.grants.s%03d]\n%s\n", f, i, w.grant(i, secret))
	}
	return &api.Bundle{Manifest: m.String(), Modules: modules}
}

// grant returns what the manifest says of the grant that uses a secret.
func (w *planted) grant(i int, s plantedSecret) string {
	if s.use == "secret" {
		return fmt.Sprintf("secret = \"secret:%s\"", s.name)
	}
	if s.use == "sql" {
		return fmt.Sprintf("sql = \"secret:%s\"\nprivate = true\nqueries.read = \"select $1::text as v\"", s.name)
	}
	auth := map[string]string{
		"bearer": `bearer = "secret:%s"`,
		"basic":  `basic = { user = "u", password = "secret:%s" }`,
		"header": `header = { name = "X-Api-Key", value = "secret:%s" }`,
		"query":  `query = { name = "key", value = "secret:%s" }`,
		"hmac":   `hmac = { key = "secret:%s" }`,
		"aws":    `aws = { access_key = "AKIAEXAMPLE", secret_key = "secret:%s", region = "eu-west-1", service = "s3" }`,
		"oauth2": `oauth2 = { token_url = "` + w.tls.URL + `/INDEX/token", client_id = "c", client_secret = "secret:%s" }`,
		"mtls":   `mtls = { certificate = "secret:%[1]s", key = "secret:%[1]s" }`,
	}[s.use]
	url, ca := w.http.URL, ""
	if s.use == "mtls" || s.use == "oauth2" {
		url = w.tls.URL
		ca = "ca = '''\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.tls.Certificate().Raw})) + "'''\n"
	}
	return fmt.Sprintf("http = \"%s/%d/{how}\"\nmethods = [\"GET\"]\nprivate = [\"127.0.0.1\"]\n%sauth = { %s }", url, i, ca, strings.ReplaceAll(fmt.Sprintf(auth, s.name), "INDEX", strconv.Itoa(i)))
}

// use has all functions use their secrets: called by somebody who waits, and by events that become dead letters.
func (w *planted) use(t *testing.T) {
	t.Helper()
	const slices = plantedOfOne / plantedAtOnce
	each(plantedSecrets/plantedAtOnce, func(n int) {
		f := fmt.Sprintf("f%d", n/slices)
		for _, mode := range []string{"reply", "throw", "cut"} {
			body := fmt.Sprintf(`{"mode":%q,"from":%d,"to":%d}`, mode, n%slices*plantedAtOnce, (n%slices+1)*plantedAtOnce)
			a, err := w.server.Do(t.Context(), http.MethodPost, "/v1/namespaces/default/functions/"+f+"/invoke", []byte(body), "Content-Type", "application/json")
			if err != nil || (a.Status == http.StatusOK) != (mode == "reply") {
				t.Errorf("invoke %s %s: %v %d %.300s", f, body, err, a.Status, a.Body)
				return
			}
			w.keep("replies", a.Body)
			if mode == "reply" {
				w.proved(t, a.Body)
			}
		}
		for i, mode := range []string{"throw", "cut"} {
			body := fmt.Sprintf(`{"mode":%q,"from":%d,"to":%d}`, mode, n%slices*plantedAtOnce, (n%slices+1)*plantedAtOnce)
			if a, err := w.server.Publish(t.Context(), "planted."+f, fmt.Sprint("e", 2*n+i), []byte(body)); err != nil || a.Status != http.StatusAccepted {
				t.Errorf("publish: %v %d %s", err, a.Status, a.Body)
			}
		}
	})
	if t.Failed() {
		t.Fatalf("%s", w.server.Output())
	}
	for n := range 2 * plantedSecrets / plantedAtOnce {
		if e := w.server.Event(t, fmt.Sprint("e", n), "60s"); e.State != api.StateDead {
			t.Fatalf("the event %d is %s, want dead", n, e.State)
		}
	}
}

// proved notes the secrets that a function has read, of which it replies with the digests.
func (w *planted) proved(t *testing.T, reply []byte) {
	t.Helper()
	var got struct {
		Proofs []string `json:"proofs"`
	}
	if err := json.Unmarshal(reply, &got); err != nil {
		t.Error(err)
		return
	}
	for i, s := range w.secrets {
		digest := sha256.Sum256(s.value)
		for _, proof := range got.Proofs {
			if proof == hex.EncodeToString(digest[:]) {
				w.arrived(i)
			}
		}
	}
}

// read asks the server for everything that it tells.
func (w *planted) read(t *testing.T) {
	t.Helper()
	const ns = "/v1/namespaces/default"
	get := func(name, path string) []byte {
		a, err := w.server.Do(t.Context(), http.MethodGet, path, nil)
		if err != nil || a.Status != http.StatusOK {
			t.Errorf("GET %s: %v %d %s", path, err, a.Status, a.Body)
		}
		w.keep(name, a.Body)
		return a.Body
	}
	for _, path := range []string{
		"/metrics", "/v1/status", ns + "/usage", ns + "/decisions", ns + "/decisions?denied=true", "/v1/decisions", ns + "/functions", ns + "/subscriptions", ns + "/secrets",
	} {
		get(path, path)
	}
	lines := 0
	for i := range plantedSecrets / plantedOfOne {
		path := fmt.Sprintf("%s/functions/f%d", ns, i)
		get(path, path)
		lines += bytes.Count(get("function logs", fmt.Sprintf("%s/logs?function=f%d&limit=1000", ns, i)), []byte("\n"))
	}
	seen := bytes.Count(get("logs of who gets the events", ns+"/logs?function=reader&limit=1000"), []byte("\n"))
	if lines < plantedSecrets || seen < 500 {
		t.Errorf("the functions logged %d and %d lines: too few to prove anything", lines, seen)
	}
	each(len(w.secrets), func(i int) {
		for _, more := range []string{"", "/versions", "/log"} {
			get("answers about secrets", ns+"/secrets/"+w.secrets[i].name+more)
		}
	})
	each(2*plantedSecrets/plantedAtOnce, func(n int) { get("events", fmt.Sprintf("%s/events/e%d?source=/test", ns, n)) })
	letters := 0
	for cursor := ""; ; {
		var list api.DeadLetterList
		if err := json.Unmarshal(get("dead letters", ns+"/dead-letters?limit=100"+cursor), &list); err != nil {
			t.Fatal(err)
		}
		for _, letter := range list.DeadLetters {
			get("dead letters", ns+"/dead-letters/"+letter.ID+"?data=true")
			letters++
		}
		if list.Cursor == "" {
			break
		}
		cursor = "&cursor=" + list.Cursor
	}
	if want := 4 * plantedSecrets / plantedAtOnce; letters != want { // of events and of calls
		t.Errorf("%d dead letters, want %d", letters, want)
	}
}

// search looks for every secret in everything that came out, and fails the test for each place.
func (w *planted) search(t *testing.T) {
	t.Helper()
	size := 0
	for name, text := range w.out {
		size += len(text)
		w.finder.look(t, name, text)
	}
	missing := map[string]int{}
	for i, s := range w.secrets {
		if !w.came[i] {
			missing[s.use+" "+s.shape]++
		}
	}
	// What a header cannot carry is refused, and a certificate's key is not sent: those did not arrive, which is right.
	if arrived := len(w.came); arrived < len(w.secrets)/2 {
		t.Errorf("only %d secrets were seen to arrive; missing are %v", arrived, missing)
	}
	t.Logf("%d of %d secrets were seen to arrive; searched %d KiB of answers for %d forms; not arrived: %v", len(w.came), len(w.secrets), size>>10, w.finder.forms, missing)
}

func (w *planted) searchFolders(t *testing.T, folders ...string) {
	t.Helper()
	files, size := 0, 0
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil // the server may remove a file meanwhile
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if os.IsNotExist(err) {
				return nil
			}
			files++
			size += len(content)
			w.finder.look(t, path, content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 5 || size < 1<<20 {
		t.Fatalf("only %d files with %d bytes were searched: the test looks in the wrong place", files, size)
	}
	t.Logf("searched %d files with %d KiB", files, size>>10)
}
