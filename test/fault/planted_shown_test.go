package fault_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sallyport/api"
	"sallyport/internal/manifest"
	"sallyport/internal/testkit"
)

// cli runs a command against the server, keeps what it prints, and returns its standard output and whether it succeeded.
func (w *planted) cli(t *testing.T, binary, token string, args ...string) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangs)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	if w.server != nil {
		cmd.Env = append(os.Environ(), "SALLYPORT_SERVER="+w.server.Ready.URL, "SALLYPORT_CA_FILE="+w.server.Ready.CAFile, "SALLYPORT_TOKEN="+token)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%q hangs\n%s", args, errs.String())
	}
	name := "sallyport " + strings.Join(args[:min(len(args), 2)], " ")
	w.keep(name, out.Bytes())
	w.keep(name, errs.Bytes())
	return out.String(), err == nil
}

// misplaced returns manifests that have the value of a secret where it does not belong, and whether only the server can know that it is one.
func (w *planted) misplaced(s plantedSecret) map[string]bool {
	if !utf8.Valid(s.value) {
		return nil
	}
	quoted, err := json.Marshal(string(s.value)) // which TOML reads too
	if err != nil {
		return nil
	}
	app := func(grant string) string {
		return "name = \"wrong\"\n[functions.f]\nsource = \"f.js\"\ngrants.g = { " + grant + " }\n"
	}
	http := func(rest string) string {
		return app(`http = "` + w.http.URL + `/x", private = ["127.0.0.1"], ` + strings.ReplaceAll(rest, "VALUE", string(quoted)))
	}
	out := map[string]bool{
		http(`auth = { bearer = VALUE }`):                                 false,
		http(`auth = { basic = { user = "u", password = VALUE } }`):       false,
		http(`auth = { header = { name = "X-Api-Key", value = VALUE } }`): false,
		http(`auth = { token = VALUE }`):                                  false,
		http(`headers = { Authorization = VALUE }`):                       false,
		app(`sql = ` + string(quoted) + `, queries.a = "select 1"`):       false,
		app(`secret = ` + string(quoted)):                                 false,
		http(`auth = { bearer = ` + string(s.cores[0]) + ` }`):            false, // without quotes
	}
	if len(s.value) >= 16 && s.use != "mtls" {
		out[http(`query = { key = "x" }`)+"# "+base64.StdEncoding.EncodeToString(s.value)+"\n"] = true
		out[app(`sql = "sqlite:x", queries.a = "select 1"`)+"[functions.f.grants.h]\nkv = \"h\"\n# "+strings.ReplaceAll(string(s.value), "\n", "\n# ")+"\n"] = true
	}
	return out
}

// TestPlantedSecretsWhereTheyAreShown looks for secrets where people look at what functions may do: in what `apply` prints, in approvals as they are shown and
// as they are stored, in explanations, in the log of uses, and in findings of canaries; also when a manifest has the value of a secret in a wrong
// place, which is refused.
func TestPlantedSecretsWhereTheyAreShown(t *testing.T) {
	t.Parallel()
	binary, dir := testkit.Binary(t), t.TempDir()
	w := newPlanted(t, 100, 10)
	s := testkit.Start(t, binary, filepath.Join(dir, "data"))
	w.server = s
	w.set(t)
	app := filepath.Join(dir, "app")
	w.write(t, app, &api.Bundle{})
	refused := 0
	for i, secret := range w.secrets {
		n := 0
		for text, ofServer := range w.misplaced(secret) {
			body, err := json.Marshal(&api.Bundle{Manifest: text, Modules: map[string]api.Module{"f": {Kind: api.ModuleScript, Code: []byte("export default () => 1")}}})
			if err != nil {
				t.Fatal(err)
			}
			a := s.MustDo(t, http.MethodPost, "/v1/namespaces/default/apps?dry_run="+fmt.Sprint(n%2 == 0), body, "Content-Type", "application/json")
			w.keep("refused manifests", a.Body)
			if a.Status < 400 || a.Status >= 500 || ofServer && a.Problem().Code != "secret.in_manifest" {
				t.Errorf("the manifest with the value of %s (%s, %s) is answered with %d %.300s", secret.name, secret.use, secret.shape, a.Status, a.Body)
			}
			refused++
			if n++; i%20 == n%20 { // the command says it too, of what it reads itself
				w.write(t, app, &api.Bundle{Manifest: text, Modules: map[string]api.Module{"f": {Kind: api.ModuleScript, Code: []byte("export default () => 1")}}})
				for _, form := range []string{"text", "json"} {
					if _, ok := w.cli(t, binary, s.Token, "apply", app, "-o", form); ok {
						t.Errorf("apply took the manifest with the value of %s", secret.name)
					}
				}
			}
		}
	}
	if refused < 500 {
		t.Errorf("only %d manifests were refused", refused)
	}
	w.approve(t, binary, app)
	for n := range len(w.secrets) / w.ofOne {
		body := fmt.Sprintf(`{"mode":"reply","from":0,"to":%d}`, w.ofOne)
		a := s.MustDo(t, http.MethodPost, fmt.Sprintf("/v1/namespaces/default/functions/f%d/invoke", n), []byte(body), "Content-Type", "application/json")
		if w.keep("replies", a.Body); a.Status != http.StatusOK {
			t.Fatalf("invoke f%d: %d %.300s", n, a.Status, a.Body)
		}
		w.proved(t, a.Body)
	}
	for i := 0; i < len(w.secrets); i += 7 {
		w.cli(t, binary, s.Token, "secret", "log", w.secrets[i].name)
		w.cli(t, binary, s.Token, "secret", "get", w.secrets[i].name, "-o", "json")
		w.cli(t, binary, s.Token, "policy", "explain", "--principal", fmt.Sprintf("function:default/f%d", i/w.ofOne), "--action", "useSecret", "--resource", "secret:default/"+w.secrets[i].name)
	}
	for _, args := range [][]string{
		{"policy", "decisions"}, {"policy", "decisions", "-o", "json"}, {"usage"}, {"status"}, {"secret", "list"}, {"function", "list", "-o", "json"}, {"function", "get", "f3", "-o", "json"}, {"doctor"},
	} {
		w.cli(t, binary, s.Token, args...)
	}
	w.canaries(t, binary)
	w.searchFolders(t, filepath.Join(dir, "data"))
	if _, err := s.Stop(); err != nil {
		t.Fatalf("stop: %v\n%s", err, s.Output())
	}
	w.searchFolders(t, filepath.Join(dir, "data"))
	w.keep("what the server printed", []byte(s.Output()))
	w.search(t)
}

// write writes an app into a folder.
func (w *planted) write(t *testing.T, dir string, b *api.Bundle) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"app.toml": []byte(b.Manifest)}
	for name, m := range b.Modules {
		files[name+".js"] = m.Code
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// approve applies the app where somebody else has to approve what its functions gain, looks at that, and approves it.
func (w *planted) approve(t *testing.T, binary, app string) {
	t.Helper()
	w.lenient.Store(true)
	if _, ok := w.cli(t, binary, w.server.Token, "namespace", "update", "default", "--approvals", "gains"); !ok {
		t.Fatalf("demand approvals: %s", w.out["sallyport namespace update"])
	}
	var tokens [2]string
	for i := range tokens {
		var tok api.NewToken
		w.server.MustDo(t, http.MethodPost, "/v1/tokens", []byte(`{"role":"operator","namespace":"default"}`), "Content-Type", "application/json").Decode(t, http.StatusCreated, &tok)
		tokens[i] = tok.Text
	}
	w.write(t, app, w.bundle())
	w.cli(t, binary, tokens[0], "apply", app, "--dry-run")
	w.cli(t, binary, tokens[0], "apply", app, "-o", "json")
	out, _ := w.cli(t, binary, tokens[0], "approval", "list", "-q")
	id := strings.TrimSpace(out)
	if id == "" {
		t.Fatalf("nothing waits for an approval: %.2000s", w.out["sallyport apply "+app])
	}
	for _, form := range []string{"text", "json"} {
		w.cli(t, binary, tokens[1], "approval", "list", "-o", form)
		if shown, ok := w.cli(t, binary, tokens[1], "approval", "get", id, "-o", form); !ok || !strings.Contains(shown, "s000") {
			t.Errorf("approval get: %.300s", shown)
		}
	}
	if _, ok := w.cli(t, binary, tokens[1], "approval", "approve", id, "--yes"); !ok {
		t.Fatalf("approve: %.2000s", w.out["sallyport approval approve"])
	}
	w.cli(t, binary, tokens[1], "approval", "get", id, "-o", "json")
	w.lenient.Store(false)
}

// canaries has functions touch canaries, and looks for the decoys in the findings.
func (w *planted) canaries(t *testing.T, binary string) {
	t.Helper()
	const ns = "/v1/namespaces/default"
	var decoys []plantedSecret
	found := map[string][]byte{}
	keep := func(name string, a testkit.Answer) {
		w.keep(name, a.Body)
		found[name] = append(found[name], a.Body...)
	}
	var text strings.Builder
	text.WriteString("name = \"canaries\"\n[functions.told]\nsource = \"told.js\"\n[subscriptions.told]\nfunction = \"told\"\nfilter = { type = \"sallyport.canary.touched\" }\n")
	modules := map[string]api.Module{"told": {Kind: api.ModuleScript, Code: []byte(`export default (event, ctx) => { ctx.log("told", JSON.stringify(event)) }`)}}
	for i, like := range []string{"password", "aws", "github"} {
		var canary struct {
			Decoy string `json:"decoy"`
		}
		name := fmt.Sprint("canary-", like)
		w.server.MustDo(t, http.MethodPost, ns+"/secrets/"+name+"/canary", fmt.Appendf(nil, `{"like":%q}`, like), "Content-Type", "application/json").Decode(t, http.StatusOK, &canary)
		if len(canary.Decoy) < finderBytes {
			t.Fatalf("the decoy %q is too short to be looked for", canary.Decoy)
		}
		core := []byte(canary.Decoy)
		decoys = append(decoys, plantedSecret{name: name, use: "canary", shape: like, value: core, cores: [][]byte{core}})
		fmt.Fprintf(&text, "[functions.c%d]\nsource = \"c%d.js\"\n[functions.c%d.grants]\nc = { http = \"%s/x\", private = [\"127.0.0.1\"], auth = { bearer = \"secret:%s\" } }\nr = { secret = \"secret:%[5]s\" }\n", i, i, i, w.http.URL, name)
		modules[fmt.Sprint("c", i)] = api.Module{Kind: api.ModuleScript, Code: []byte(`export default async (event, ctx) => { await ctx.grants.c.fetch({}); const { value } = await ctx.grants.r.call("value"); ctx.log(value.value); throw new Error(value.value) }`)}
	}
	if _, ok := w.cli(t, binary, w.server.Token, "namespace", "update", "default", "--approvals", "none"); !ok {
		t.Fatal("approvals are not switched off")
	}
	w.server.Apply(t, &api.Bundle{Manifest: text.String(), Modules: modules})
	for i, decoy := range decoys {
		keep("calls", w.server.MustDo(t, http.MethodPost, fmt.Sprintf("%s/functions/c%d/invoke", ns, i), []byte(`{}`), "Content-Type", "application/json"))
		keep("logs of uses", w.server.MustDo(t, http.MethodGet, ns+"/secrets/"+decoy.name+"/log", nil))
		keep("logs", w.server.MustDo(t, http.MethodGet, fmt.Sprintf("%s/logs?function=c%d", ns, i), nil))
		keep("secrets", w.server.MustDo(t, http.MethodGet, ns+"/secrets/"+decoy.name, nil))
	}
	awaitThat(t, "the findings are told", func() bool {
		a := w.server.MustDo(t, http.MethodGet, ns+"/logs?function=told", nil)
		if bytes.Count(a.Body, []byte("canary-")) < len(decoys) {
			return false
		}
		keep("findings", a)
		return true
	})
	keep("events", w.server.MustDo(t, http.MethodGet, ns+"/events?limit=1000", nil))
	keep("metrics", w.server.MustDo(t, http.MethodGet, "/metrics", nil))
	found["what the server printed"] = []byte(w.server.Output())
	f := newFinder(t, decoys)
	for name, text := range found {
		f.look(t, name, text)
	}
}

// TestPlantedSecretsInFixtures has a developer's server record what services answer, which is the credentials that they are sent, in every form; then it
// looks for them in the fixtures, in what is captured, and in what tests print that run on the fixtures.
func TestPlantedSecretsInFixtures(t *testing.T) {
	t.Parallel()
	binary, dir := testkit.Binary(t), t.TempDir()
	w := newPlanted(t, 100, 5)
	w.lenient.Store(true)
	app := filepath.Join(dir, "app")
	bundle := w.bundle()
	empty := *bundle
	empty.Manifest = "name = \"planted\"\n" // until the secrets are there
	data := filepath.Join(dir, "data")
	var fixtures []string
	for _, flags := range [][]string{{"--record"}, {"--capture"}, {"--capture", "--fixtures"}, {"--record"}} {
		if len(flags) == 2 {
			flags[1] += "=" + strings.Join(fixtures, ",")
		}
		from := &empty
		if len(fixtures) > 0 {
			from = bundle // fixtures are about functions that there are
		}
		w.write(t, app, from)
		for _, name := range fixtures { // write removed them
			if err := os.WriteFile(filepath.Join(app, filepath.Base(name)), w.out[filepath.Base(name)], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := testkit.StartDev(t, binary, app, append(flags, "--data-dir", data)...)
		w.server = s
		if len(fixtures) == 0 {
			w.set(t)
		}
		s.Apply(t, bundle)
		for n := range len(w.secrets) / w.ofOne {
			for _, mode := range []string{"reply", "throw"} {
				body := fmt.Sprintf(`{"mode":%q,"from":0,"to":%d}`, mode, w.ofOne)
				a := s.MustDo(t, http.MethodPost, fmt.Sprintf("/v1/namespaces/default/functions/f%d/invoke", n), []byte(body), "Content-Type", "application/json")
				w.keep("replies", a.Body)
				if mode == "reply" && a.Status == http.StatusOK && flags[0] == "--record" {
					w.proved(t, a.Body)
				}
			}
		}
		if flags[0] == "--record" && len(fixtures) == 0 {
			awaitThat(t, "the answers are recorded", func() bool {
				names, err := filepath.Glob(filepath.Join(app, "*"+manifest.FixtureFile))
				if err != nil {
					t.Fatal(err)
				}
				fixtures = names
				return len(names) == len(w.secrets)/w.ofOne
			})
		}
		if _, err := s.Stop(); err != nil {
			t.Fatalf("stop: %v\n%s", err, s.Output())
		}
		w.keep("what dev printed", []byte(s.Output()))
		for _, name := range fixtures {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			w.out[filepath.Base(name)] = text
		}
	}
	w.server = nil
	w.write(t, app, bundle)
	for n, name := range fixtures {
		test := fmt.Sprintf("function = \"f%d\"\n[tests.\"all is used\"]\nevent = { type = \"planted.f%d\", data = { mode = \"reply\", from = 0, to = %d } }\n", n, n, w.ofOne)
		_, uses, _ := strings.Cut(string(w.out[fmt.Sprintf("f%d%s", n, manifest.FixtureFile)]), "[[uses]]")
		test += "[[tests.\"all is used\".uses]]" + strings.ReplaceAll(uses, "[[uses]]", "[[tests.\"all is used\".uses]]")
		if err := os.WriteFile(filepath.Join(app, fmt.Sprintf("f%d.test.toml", n)), []byte(test), 0o600); err != nil {
			t.Fatal(err)
		}
		if size := len(w.out[filepath.Base(name)]); size < 1000 || !bytes.Contains(w.out[filepath.Base(name)], []byte("[redacted]")) {
			t.Errorf("%s has %d bytes, and nothing was taken out of it: the test looks at nothing", name, size)
		}
	}
	w.cli(t, binary, "", "function", "test", app, "--details")
	w.cli(t, binary, "", "function", "test", app, "-o", "json")
	if text := w.out["sallyport function test"]; !bytes.Contains(text, []byte("fixture")) {
		t.Errorf("the tests used no fixture: %.2000s", text)
	}
	w.searchFolders(t, app, data)
	w.search(t)
}

// hangs bounds what must come to an end.
const hangs = 2 * time.Minute

// awaitThat waits until something is so.
func awaitThat(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(hangs); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("it never comes that %s", what)
		}
	}
}
