package bundle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/bundle"
	"sallyport/internal/problem"
)

const handler = "export default (event, ctx) => event.data\n"

// link marks a file that is made as a symbolic link to what follows.
const link = "-> "

// linked makes a folder with these files, some of them links.
func linked(t testing.TB, files map[string]string) string {
	t.Helper()
	plain, links := map[string]string{}, map[string]string{}
	for name, text := range files {
		if target, ok := strings.CutPrefix(text, link); ok {
			links[name] = target
		} else {
			plain[name] = text
		}
	}
	dir := folder(t, plain)
	for name, target := range links {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, files map[string]string) *api.Bundle {
	t.Helper()
	b, _, err := bundle.Load(linked(t, files))
	if err != nil {
		t.Fatalf("Load: %v\n%s", err, places(err))
	}
	return b
}

// places renders the faults of an error with their places and lines.
func places(err error) string {
	var b strings.Builder
	for _, f := range problem.From(err).Faults {
		fmt.Fprintf(&b, "%s:%d:%d+%d: %s\n    %s\n", f.File, f.Line, f.Column, f.Length, f.Detail, f.Source)
	}
	return b.String()
}

// A revision is known by its content, so an app must be the same wherever it lies.
func TestLoadDoesNotDependOnTheFolder(t *testing.T) {
	t.Parallel()
	files := map[string]string{"app.toml": manifestFor("src/f.ts"), "src/f.ts": "import './g'\n" + handler, "src/g.ts": "globalThis.x = 1"}
	first := load(t, files)
	dir := folder(t, files)
	alias := filepath.Join(t.TempDir(), "alias")
	if err := os.Symlink(dir, alias); err != nil {
		t.Fatal(err)
	}
	second, _, err := bundle.Load(alias)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("by way of a link (-plain +link):\n%s", diff)
	}
	for _, text := range [][]byte{second.Modules["f"].Code, second.Modules["f"].SourceMap} {
		if strings.Contains(string(text), filepath.Base(filepath.Dir(dir))) {
			t.Errorf("the bundle names the folder it was made in: %s", text)
		}
	}
}

func TestLoadLanguageLevel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, source string }{
		{"top-level await", "const n = await Promise.resolve(3)\nexport default () => n\n"},
		{"private methods and static blocks", "class A { #x() { return 1 } static y; static { A.y = 1 } get z() { return this.#x() } }\nexport default () => new A().z\n"},
		{"logical assignment", "let a; a ??= 1\nexport default () => a\n"},
		{"enums", "enum Colour { Red = 'red' }\nexport default (): Colour => Colour.Red\n"},
		{"CommonJS", "module.exports = () => process.env.NODE_ENV\n"},
		{"re-exported", "export { default } from './g'\n"},
		{"JSON", "import data from './data.json'\nexport default () => data.text\n"},
		{"types from outside", "import type { X } from '../../outside'\nexport default (x: X) => x\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := load(t, map[string]string{"app.toml": manifestFor("f.ts"), "f.ts": tt.source, "g.ts": handler, "data.json": `{"text":"x"}`})
			code := string(b.Modules["f"].Code)
			if !strings.Contains(code, "default") || strings.Contains(code, "import ") || strings.Contains(code, "process") {
				t.Errorf("this is no script for a cell:\n%s", code)
			}
		})
	}
}

func TestScriptFaults(t *testing.T) {
	t.Parallel()
	outside := folder(t, map[string]string{"secret.ts": "export default 'TOP-SECRET'"})
	secret := filepath.Join(outside, "secret.ts")
	for _, tt := range []struct {
		name  string
		files map[string]string // next to an app.toml with the source f.js
		want  string            // of "file:line:column+length: detail"
	}{
		{"syntax", map[string]string{"f.js": "const a = 1\nexport default (event) => { return [ }\n"}, `f.js:2:38+1: Unexpected "}"`},
		{"column after letters of two bytes", map[string]string{"f.js": "const ä = 'öü' +* 2\n"}, `f.js:1:17+1: Unexpected "*"`},
		{"syntax of an import", map[string]string{"f.js": "import './lib/g'\n" + handler, "lib/g.ts": "\n  let let = 1\n"}, `lib/g.ts:2:7`},
		{"no default export", map[string]string{"f.js": "export const handle = 1\n"}, `f.js:0:0+0: it has no default export`},
		{"by an absolute path", map[string]string{"f.js": "import s from '" + secret + "'\n" + handler + "console.log(s)"}, `is outside the app's folder`},
		{"by require", map[string]string{"f.js": "const s = require('" + secret + "')\n" + handler + "console.log(s)"}, `is outside the app's folder`},
		{"by a link", map[string]string{"f.js": "import './s'\n" + handler, "s.ts": link + secret}, `f.js:1:8+5: secret.ts is outside the app's folder`},
		{"by a linked folder", map[string]string{"f.js": "import './s/secret'\n" + handler, "s": link + outside}, `f.js:1:8+12: secret.ts is outside the app's folder`},
		{"by a linked package", map[string]string{"f.js": "import 'pkg/secret.ts'\n" + handler, "node_modules/pkg": link + outside}, `f.js:1:8+15: secret.ts is outside the app's folder`},
		{"Node's modules by the old name", map[string]string{"f.js": "import fs from 'fs/promises'\n" + handler}, `f.js:1:16+13: "fs/promises": functions run in a sandbox`},
		{"Node's modules in a package", map[string]string{"f.js": "import p from 'p'\nconsole.log(p)\n" + handler, "node_modules/p/index.js": "module.exports = require('net')"}, `node_modules/p/index.js:1:26+5: "net": functions run in a sandbox`},
		{"no such package", map[string]string{"f.js": "import z from 'zod'\n" + handler}, `f.js:1:15+5: "zod": there is no such package in the app's node_modules`},
		{"network", map[string]string{"f.js": "import z from 'https://esm.sh/zod'\n" + handler}, `f.js:1:15+20: "https://esm.sh/zod": nothing is imported from the network`},
		{"too large", map[string]string{"f.js": handler + "globalThis.x = '" + strings.Repeat("x", 4<<20) + "'\n"}, `app.toml:3:10+6: it is too large`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.files["app.toml"] = manifestFor("f.js")
			_, _, err := bundle.Load(linked(t, tt.files))
			got := places(err)
			if problem.From(err).Code != "bundle.source_invalid" || !strings.Contains(got, tt.want) {
				t.Errorf("Load = %v\n%swant %s", err, got, tt.want)
			}
			if strings.Contains(got, "TOP-SECRET") {
				t.Error("the error shows a file from outside")
			}
		})
	}
}

func TestFileFaults(t *testing.T) {
	t.Parallel()
	schema := "name = \"a\"\n[event_types.a]\nschema = \"a.json\"\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"wasm that is none", map[string]string{"app.toml": manifestFor("f.wasm"), "f.wasm": "version https://git-lfs.github.com/spec/v1\n"}, `app.toml:3:10+8: this is no WebAssembly binary`},
		{"wasm too large", map[string]string{"app.toml": manifestFor("f.wasm"), "f.wasm": "\x00asm" + strings.Repeat("\x00", 32<<20)}, `app.toml:3:10+8: it is too large`},
		{"entry is a folder", map[string]string{"app.toml": manifestFor("f"), "f/index.ts/x": "x"}, `app.toml:3:10+3: the folder has no index.ts`},
		{"schema too large", map[string]string{"app.toml": schema, "a.json": strings.Repeat(" ", 256<<10+1)}, `app.toml:3:10+8: it is too large`},
		{"schema is a folder", map[string]string{"app.toml": schema, "a.json/x": "{}"}, `app.toml:3:10+8: it is not a regular file`},
		{"manifest is a folder", map[string]string{"app.toml/x": ""}, `app.toml:0:0+0: it is not a regular file`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := bundle.Load(folder(t, tt.files))
			if got := places(err); problem.From(err).Code != "bundle.source_invalid" || !strings.Contains(got, tt.want) {
				t.Errorf("Load = %v\n%swant %s", err, got, tt.want)
			}
		})
	}
}

func TestLoadReportsAllFaultsInOrder(t *testing.T) {
	t.Parallel()
	_, _, err := bundle.Load(folder(t, map[string]string{
		"app.toml": "name = \"a\"\nevent_types.e.schema = \"e.json\"\nfunctions = { a = { source = \"b.ts\" }, b = { source = \"b.ts\" }, c = { source = \"a.ts\" }, d = { source = \"d.wasm\" } }\n",
		"a.ts":     "import 'fs'\nimport './gone'\nimport 'left-pad'\n",
		"b.ts":     "export default (\n",
	}))
	var got []string
	for _, f := range problem.From(err).Faults {
		got = append(got, fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column))
	}
	want := []string{"a.ts:1:8", "a.ts:2:8", "a.ts:3:8", "app.toml:2:24", "app.toml:3:105", "b.ts:2:1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s%s", diff, places(err))
	}
}

func TestLoadWithoutApp(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{
		"empty": t.TempDir(), "missing": filepath.Join(t.TempDir(), "gone"), "file": filepath.Join(folder(t, map[string]string{"f": ""}), "f"),
	} {
		_, _, err := bundle.Load(dir)
		if p := problem.From(err); p.Code != "bundle.no_app" || p.Kind != problem.NotFound || p.Hint == "" {
			t.Errorf("%s: Load = %v, want bundle.no_app with a hint", name, err)
		}
	}
}

// A pipe has no end: reading it would hang the command.
func TestLoadDoesNotOpenPipes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"app.toml", "f.ts", "g.ts", "a.json", "tsconfig.json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{
				"app.toml": manifestFor("f.ts") + "[event_types.a]\nschema = \"a.json\"\n", "a.json": "{}",
				"f.ts": "import './g'\n" + handler, "g.ts": "export {}",
			}
			delete(files, name)
			dir := folder(t, files)
			if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
				t.Skipf("cannot make a pipe: %v", err)
			}
			_, _, err := bundle.Load(dir)
			if name == "tsconfig.json" {
				if err != nil {
					t.Errorf("Load = %v", err)
				}
				return
			}
			// Where it is an import, esbuild itself does not take it for a file.
			if got := places(err); !strings.Contains(got, "it is not a regular file") && !strings.Contains(got, "there is no such file") {
				t.Errorf("Load = %v %s", err, got)
			}
		})
	}
}

// The app's own tsconfig.json counts; what lies around the app's folder does not.
func TestLoadReadsItsOwnConfigurationOnly(t *testing.T) {
	t.Parallel()
	const script = "declare const inside: any, outside: any\nexport default () => <a/>\n"
	around := folder(t, map[string]string{
		"tsconfig.json": `{"compilerOptions":{"jsxFactory":"outside","jsx":"react"}}`, "app/app.toml": manifestFor("f.tsx"), "app/f.tsx": script,
	})
	b, _, err := bundle.Load(filepath.Join(around, "app"))
	if err != nil {
		t.Fatal(err, places(err))
	}
	if code := string(b.Modules["f"].Code); strings.Contains(code, "outside(") {
		t.Errorf("a tsconfig.json around the folder was read:\n%s", code)
	}
	own := load(t, map[string]string{
		"tsconfig.json": `{"compilerOptions":{"jsxFactory":"inside","jsx":"react"}}`, "app.toml": manifestFor("f.tsx"), "f.tsx": script,
	})
	if code := string(own.Modules["f"].Code); !strings.Contains(code, "inside(") {
		t.Errorf("the app's tsconfig.json was not read:\n%s", code)
	}
}

// BenchmarkLoad loads an app of three functions, which dev does whenever a file is saved.
func BenchmarkLoad(b *testing.B) {
	dir := folder(b, map[string]string{
		"app.toml": "name = \"a\"\n[functions]\na.source = \"a.ts\"\nb.source = \"b.ts\"\nc.source = \"c.ts\"\n",
		"a.ts":     handler, "b.ts": handler, "c.ts": handler,
	})
	for b.Loop() {
		if _, _, err := bundle.Load(dir); err != nil {
			b.Fatal(err)
		}
	}
}
