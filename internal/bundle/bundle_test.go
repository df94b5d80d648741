package bundle_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/bundle"
	"sallyport/internal/problem"
)

// folder makes a folder with these files.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const oneFunction = "name = \"app\"\n[functions.f]\nsource = \"%\"\n"

func manifestFor(source string) string { return strings.ReplaceAll(oneFunction, "%", source) }

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"app.toml": `name = "app"
[event_types."a"]
schema = "schemas/a.json"
[functions.ts]
source = "one.ts"
[functions.folder]
source = "two"
[functions.wasm]
source = "three.wasm"
`,
		"schemas/a.json":                  `{"type":"object"}`,
		"one.ts":                          "import { unused, used } from './lib/helper'\nimport dep from 'dep'\nexport default (event: any): string => used(dep)\n",
		"lib/helper.ts":                   "export const used = (s: string) => s + 'USED'\nexport const unused = () => 'UNUSED'\n",
		"node_modules/dep/package.json":   `{"name":"dep","version":"1.0.0","module":"index.mjs"}`,
		"node_modules/dep/index.mjs":      "export default 'DEP'\n",
		"two/index.js":                    "export default () => 'TWO'\n",
		"three.wasm":                      "\x00asm",
		"not-part-of-it/secret-notes.txt": "SECRET",
	})
	b, app, err := bundle.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if app.Name != "app" || len(b.Modules) != 3 || b.Schemas["schemas/a.json"] != `{"type":"object"}` {
		t.Errorf("Load = %+v", b)
	}
	one := b.Modules["ts"]
	for text, want := range map[string]bool{"USED": true, "DEP": true, "UNUSED": false, "import ": false, ": any": false, "export": true} {
		if strings.Contains(string(one.Code), text) != want {
			t.Errorf("the script holds %q: %v, want %v\n%s", text, !want, want, one.Code)
		}
	}
	if one.Kind != api.ModuleScript || !strings.Contains(string(one.SourceMap), "lib/helper.ts") {
		t.Errorf("kind %q, source map %s", one.Kind, one.SourceMap)
	}
	if m := b.Modules["wasm"]; m.Kind != api.ModuleWasm || string(m.Code) != "\x00asm" {
		t.Errorf("the module = %+v", m)
	}
	if !strings.Contains(string(b.Modules["folder"].Code), "TWO") {
		t.Errorf("the folder's script = %s", b.Modules["folder"].Code)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	outside := folder(t, map[string]string{"secret.ts": "export default 'SECRET'\n", "secret.json": `{}`})
	for _, tc := range []struct {
		name  string
		files map[string]string
		links map[string]string
		code  string
		want  problem.Fault // what is set must match; Detail must be contained
	}{
		{"no manifest", map[string]string{"x": ""}, nil, "bundle.no_app", problem.Fault{}},
		{"manifest with a fault", map[string]string{"app.toml": "nam = 1\n"}, nil, "manifest.invalid", problem.Fault{File: "app.toml", Line: 1}},
		{"no source", map[string]string{"app.toml": manifestFor("f.ts")}, nil, "bundle.source_invalid", problem.Fault{File: "app.toml", Line: 3, Column: 10, Detail: "no such file"}},
		{"module not built", map[string]string{"app.toml": manifestFor("f.wasm")}, nil, "bundle.source_invalid", problem.Fault{File: "app.toml", Line: 3, Column: 10, Detail: "build the module first"}},
		{"other ending", map[string]string{"app.toml": manifestFor("f.py"), "f.py": ""}, nil, "bundle.source_invalid", problem.Fault{File: "app.toml", Line: 3, Column: 10, Detail: "a source ends in"}},
		{"folder without entry", map[string]string{"app.toml": manifestFor("f"), "f/x.ts": ""}, nil, "bundle.source_invalid", problem.Fault{File: "app.toml", Line: 3, Column: 10, Detail: "no index.ts"}},
		{"syntax", map[string]string{"app.toml": manifestFor("f.ts"), "f.ts": "\nexport default ((\n"}, nil, "bundle.source_invalid", problem.Fault{File: "f.ts", Detail: "Unexpected end of file"}},
		{"unknown import", map[string]string{"app.toml": manifestFor("f.ts"), "f.ts": "import x from './nothing'\nexport default x\n"}, nil, "bundle.source_invalid", problem.Fault{File: "f.ts", Line: 1, Column: 15, Detail: "there is no such file"}},
		{"Node module", map[string]string{"app.toml": manifestFor("f.ts"), "f.ts": "import fs from 'node:fs'\nexport default fs\n"}, nil, "bundle.source_invalid", problem.Fault{File: "f.ts", Line: 1, Detail: "without Node's modules"}},
		{"import from outside", map[string]string{"app.toml": manifestFor("f.ts"), "f.ts": "import x from '" + outside + "/secret'\nexport default x\n"}, nil, "bundle.source_invalid", problem.Fault{Detail: "outside the app's folder"}},
		{"link to outside", map[string]string{"app.toml": manifestFor("f.ts"), "f.ts": "import x from './link'\nexport default x\n"}, map[string]string{"link.ts": outside + "/secret.ts"}, "bundle.source_invalid", problem.Fault{Detail: "outside the app's folder"}},
		{"source is a link to outside", map[string]string{"app.toml": manifestFor("f.ts")}, map[string]string{"f.ts": outside + "/secret.ts"}, "bundle.source_invalid", problem.Fault{File: "app.toml", Line: 3, Column: 10, Detail: "escapes"}},
		{"schema is a link to outside", map[string]string{"app.toml": "name = \"app\"\n[event_types.\"a\"]\nschema = \"a.json\"\n"}, map[string]string{"a.json": outside + "/secret.json"}, "bundle.source_invalid", problem.Fault{File: "app.toml", Line: 3, Column: 10, Detail: "escapes"}},
		{"no schema", map[string]string{"app.toml": "name = \"app\"\n[event_types.\"a\"]\nschema = \"a.json\"\n"}, nil, "bundle.source_invalid", problem.Fault{File: "app.toml", Line: 3, Column: 10, Detail: "no such file"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, tc.files)
			for name, to := range tc.links {
				if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			b, _, err := bundle.Load(dir)
			p := problem.From(err)
			if p.Code != tc.code || b != nil {
				t.Fatalf("Load = %v, %v; want %s", b, err, tc.code)
			}
			if tc.want == (problem.Fault{}) {
				return
			}
			if len(p.Faults) == 0 {
				t.Fatalf("no fault in %v", p)
			}
			f := p.Faults[0]
			if tc.want.File != "" && f.File != tc.want.File || tc.want.Line != 0 && f.Line != tc.want.Line ||
				tc.want.Column != 0 && f.Column != tc.want.Column || !strings.Contains(f.Detail, tc.want.Detail) {
				t.Errorf("fault = %+v, want %+v", f, tc.want)
			}
		})
	}
}

// show returns a problem with its faults, for a message.
func show(err error) string {
	p := problem.From(err)
	var b strings.Builder
	b.WriteString(p.Error())
	for _, f := range p.Faults {
		b.WriteString("\n\t" + f.File + ": " + f.Detail)
	}
	return b.String()
}
