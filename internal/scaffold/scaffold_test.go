package scaffold_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"sallyport/internal/bundle"
	"sallyport/internal/editor"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/scaffold"
	"sallyport/internal/schema"
)

// write makes a new app named hello.
func write(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "apps", "hello")
	files, err := scaffold.Write(dir, scaffold.TypeScript)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		rel, err := filepath.Rel(dir, f)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.ToSlash(rel))
	}
	slices.Sort(names)
	want := []string{".gitignore", "app.schema.json", "app.toml", "app.types.d.ts", "events/greeting.json", "hello.ts", "sallyport.d.ts", "schemas/greeting.requested.json", "tsconfig.json"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	return dir
}

func TestWriteMakesAnAppThatLoads(t *testing.T) {
	t.Parallel()
	dir := write(t)
	b, app, err := bundle.Load(dir)
	if err != nil {
		t.Fatalf("%v %+v", err, problem.From(err).Faults)
	}
	if app.Name != "hello" {
		t.Errorf("the app is named %q, want that of its folder", app.Name)
	}
	s := app.Subscriptions["greet"]
	typ := ident.EventType(s.Filter.Type.String())
	compiled, err := schema.Compile([]byte(b.Schemas[app.EventTypes[typ].Schema]))
	if err != nil {
		t.Fatal(err)
	}
	sample, err := os.ReadFile(filepath.Join(dir, "events", "greeting.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(sample); err != nil {
		t.Errorf("the sample event does not match its schema: %v", err)
	}
	code := string(b.Modules[string(s.Function)].Code)
	for _, typ := range app.Functions[s.Function].Grants["out"].Publish {
		if !strings.Contains(code, string(typ)) {
			t.Errorf("the handler may publish %s and does not:\n%s", typ, code)
		}
	}
	for _, f := range editor.Files(app) {
		text, err := os.ReadFile(filepath.Join(dir, f.Name))
		if diff := cmp.Diff(f.Text, string(text)); err != nil || diff != "" {
			t.Errorf("%s is not what sallyport function types writes: %v\n%s", f.Name, err, diff)
		}
	}
}

func TestWriteTwice(t *testing.T) {
	t.Parallel()
	dir := write(t)
	before := tree(t, dir)
	if _, err := scaffold.Write(dir, scaffold.TypeScript); problem.From(err).Code != "scaffold.not_empty" {
		t.Errorf("writing again: %v, want scaffold.not_empty", err)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("a refused Write changed something (-before +after):\n%s", diff)
	}
}

func TestWriteIntoAnEmptyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "here")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if _, err := scaffold.Write(".", scaffold.TypeScript); err != nil {
		t.Fatal(err)
	}
	if _, app, err := bundle.Load("."); err != nil || app.Name != "here" {
		t.Errorf("Load = %+v, %v; want the app here", app, err)
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{"full/app.toml": "mine", "hidden/.git": "mine", "file": "mine"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, dir)
	for _, tt := range []struct{ name, code string }{
		{"full", "scaffold.not_empty"},
		{"full/", "scaffold.not_empty"},
		{"hidden", "scaffold.not_empty"},
		{"file", "scaffold.not_empty"},
		{"Hello", "scaffold.bad_name"},
		{"hello world", "scaffold.bad_name"},
		{"-x", "scaffold.bad_name"},
		{"ünï", "scaffold.bad_name"},
		{"My App", "scaffold.bad_name"},
		{"new/Bad_Name", "scaffold.bad_name"},
		{strings.Repeat("a", 64), "scaffold.bad_name"},
	} {
		files, err := scaffold.Write(filepath.Join(dir, tt.name), scaffold.TypeScript)
		if p := problem.From(err); p.Code != tt.code || p.Hint == "" || len(files) > 0 {
			t.Errorf("Write(%q) = %v, %v; want %s with a hint", tt.name, files, err, tt.code)
		}
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("something was changed (-before +after):\n%s", diff)
	}
}

// tree returns the files under dir with their content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			found[path] = ""
			return err
		}
		text, err := os.ReadFile(path)
		found[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// editorSchema is the part of app.schema.json that the tests look at.
type editorSchema struct {
	Properties  map[string]property   `json:"properties"`
	Definitions map[string]definition `json:"definitions"`
}

type definition struct {
	Properties map[string]property `json:"properties"`
}

type property struct {
	Default any `json:"default"`
}

// Editors are told of the keys that the parser knows, no more and no fewer, and of its defaults.
func TestEditorSchemaFollowsTheParser(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(write(t), "app.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s editorSchema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	const grantOf = "functions.a.grants.a"
	for table, properties := range map[string]map[string]property{
		"":              s.Properties,
		"event_types.a": s.Definitions["event_type"].Properties,
		"functions.a":   s.Definitions["function"].Properties,
		// Of a grant, its kind decides what else is there.
		grantOf + ".publish = [\"a\"]\n" + grantOf:                s.Definitions["grant_publish"].Properties,
		grantOf + ".http = \"https://a\"\n" + grantOf:             s.Definitions["grant_http"].Properties,
		grantOf + ".http = \"https://a\"\n" + grantOf + ".limits": s.Definitions["grant_limits"].Properties,
		grantOf + ".http = \"https://a\"\n" + grantOf + ".auth":   s.Definitions["http_auth"].Properties,
		grantOf + ".kv = \"a\"\n" + grantOf:                       s.Definitions["grant_kv"].Properties,
		grantOf + ".blob = \"a\"\n" + grantOf:                     s.Definitions["grant_blob"].Properties,
		grantOf + ".secret = \"secret:a\"\n" + grantOf:            s.Definitions["grant_secret"].Properties,
		grantOf + ".invoke = \"a\"\n" + grantOf:                   s.Definitions["grant_invoke"].Properties,
		grantOf + ".identity.audience = \"a\"\n" + grantOf:        s.Definitions["grant_identity"].Properties,
		"subscriptions.a":        s.Definitions["subscription"].Properties,
		"subscriptions.a.filter": s.Definitions["filter"].Properties,
		"subscriptions.a.retry":  s.Definitions["retry"].Properties,
	} {
		var keys []string
		for k := range properties {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if diff := cmp.Diff(known(t, table), keys); diff != "" {
			t.Errorf("keys of [%s] (-parser +schema):\n%s", table, diff)
		}
	}
	retry := s.Definitions["retry"].Properties
	app, err := manifest.ParseApp("app.toml", []byte("name = \"a\"\nfunctions.a = { source = \"a.ts\", memory = \""+
		s.Definitions["function"].Properties["memory"].Default.(string)+"\", timeout = \""+s.Definitions["function"].Properties["timeout"].Default.(string)+
		"\" }\nsubscriptions.a = { function = \"a\", filter.type = \"*\", retry = { backoff = \""+retry["backoff"].Default.(string)+
		"\", max_backoff = \""+retry["max_backoff"].Default.(string)+"\", max_age = \""+retry["max_age"].Default.(string)+"\" } }\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f := app.Functions["a"]; f.Memory != manifest.DefaultMemory || f.Timeout != manifest.DefaultTimeout {
		t.Errorf("the schema's defaults give %+v", f)
	}
	if r := app.Subscriptions["a"].Retry; r != manifest.DefaultRetry() || retry["attempts"].Default != float64(r.Attempts) {
		t.Errorf("the schema's defaults give %+v and %v attempts", r, retry["attempts"].Default)
	}
}

// known returns the keys that the parser knows in a table, sorted: it lists them when it meets another. What has to be there as well may
// stand before the table's name.
func known(t *testing.T, table string) []string {
	t.Helper()
	text := "no-such-key-at-all = 1\n"
	if table != "" {
		text = table + "." + text
	}
	_, err := manifest.ParseApp("app.toml", []byte(text))
	for _, f := range problem.From(err).Faults {
		if _, list, ok := strings.Cut(f.Detail, "known here: "); ok {
			keys := strings.Split(list, ", ")
			slices.Sort(keys)
			return keys
		}
	}
	t.Fatalf("the parser takes any key in [%s]", table)
	return nil
}

// What the editors' schema accepts and refuses is what the parser does, for these.
func TestEditorSchemaAgreesWithTheParser(t *testing.T) {
	t.Parallel()
	dir := write(t)
	compiler := jsonschema.NewCompiler()
	compiled, err := compiler.Compile(filepath.Join(dir, "app.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{
		"duration":           "name = \"a\"\nfunctions.f = { source = \"f.ts\", timeout = \"1m30.5s\", memory = \"32 MiB\" }",
		"bad duration":       "name = \"a\"\nfunctions.f = { source = \"f.ts\", timeout = \"1 s\" }",
		"bad size":           "name = \"a\"\nfunctions.f = { source = \"f.ts\", memory = \"32MB\" }",
		"no name":            "functions.f = { source = \"f.ts\" }",
		"no source":          "name = \"a\"\nfunctions.f = {}",
		"unknown key":        "name = \"a\"\nfunctions.f = { source = \"f.ts\", memroy = \"32MiB\" }",
		"absolute path":      "name = \"a\"\nfunctions.f = { source = \"/f.ts\" }",
		"bad function name":  "name = \"a\"\nfunctions.F = { source = \"f.ts\" }",
		"http grant":         "name = \"a\"\nfunctions.f = { source = \"f.ts\", grants.g = { http = \"https://x/{id}\", auth.bearer = \"secret:k@2\", private = [\"10.0.0.1\"], limits.timeout = \"2s\" } }",
		"http grant's key":   "name = \"a\"\nfunctions.f = { source = \"f.ts\", grants.g = { http = \"https://x\", auth.bearer = \"sk_live_1\" } }",
		"http grant's query": "name = \"a\"\nfunctions.f = { source = \"f.ts\", grants.g.http = \"https://x/?a=b\" }",
		"grant of two kinds": "name = \"a\"\nfunctions.f = { source = \"f.ts\", grants.g = { http = \"https://x\", publish = [\"a\"] } }",
		"pattern":            "name = \"a\"\nfunctions.f.source = \"f.ts\"\nsubscriptions.s = { function = \"f\", filter.type = \"a.*\" }",
		"bad pattern":        "name = \"a\"\nfunctions.f.source = \"f.ts\"\nsubscriptions.s = { function = \"f\", filter.type = \"a.*.b\" }",
		"selects nothing":    "name = \"a\"\nfunctions.f.source = \"f.ts\"\nsubscriptions.s = { function = \"f\" }",
		"condition alone":    "name = \"a\"\nfunctions.f.source = \"f.ts\"\nsubscriptions.s = { function = \"f\", when = \"true\" }",
		"too many attempts":  "name = \"a\"\nfunctions.f.source = \"f.ts\"\nsubscriptions.s = { function = \"f\", when = \"true\", retry.attempts = 101 }",
		"empty filter":       "name = \"a\"\nfunctions.f.source = \"f.ts\"\nsubscriptions.s = { function = \"f\", filter = {} }",
		"event type and all": "name = \"a-b-1\"\n[event_types.\"a.b\"]\nschema = \"a/b.json\"\n",
	}
	for name, path := range map[string]string{"the new app": filepath.Join(dir, "app.toml"), "the webshop": "../../examples/webshop/app.toml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	accepted := 0
	for name, text := range texts {
		var document map[string]any
		if err := toml.Unmarshal([]byte(text), &document); err != nil {
			t.Fatal(err)
		}
		_, parser := manifest.ParseApp("app.toml", []byte(text))
		editor := compiled.Validate(document)
		if (parser == nil) != (editor == nil) {
			t.Errorf("%s: the parser says %v, the editors' schema %v", name, parser, editor)
		}
		if parser == nil {
			accepted++
		}
	}
	if accepted != 7 {
		t.Errorf("%d texts were accepted, want 7", accepted)
	}
}
