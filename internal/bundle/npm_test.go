package bundle_test

import (
	"context"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/bundle"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// packages are some of npm's kinds, all of which say who they are.
var packages = map[string]string{
	"node_modules/esm/package.json":    `{"name":"esm","type":"module","exports":"./index.js"}`,
	"node_modules/esm/index.js":        "export const who = 'esm'\nexport const unused = 'NOT-USED'\n",
	"node_modules/cjs/package.json":    `{"name":"cjs","main":"./lib/main"}`,
	"node_modules/cjs/lib/main.js":     "const part = require('./part')\nexports.who = 'cjs ' + part\n",
	"node_modules/cjs/lib/part.js":     "module.exports = 'part'\n",
	"node_modules/module/package.json": `{"name":"module","main":"./node.js","module":"./es.js","sideEffects":false}`,
	"node_modules/module/node.js":      "exports.who = require('fs')\n",
	"node_modules/module/es.js":        "export const who = 'module'\n",

	"node_modules/conditional/package.json": `{"name":"conditional","exports":{".":{"node":"./node.js","deno":"./node.js","browser":{"import":"./web.mjs","require":"./web.cjs"},"default":"./node.js"},"./sub/*":"./sub/*.js"}}`,
	"node_modules/conditional/node.js":      "require('crypto')\n",
	"node_modules/conditional/web.mjs":      "export const who = 'web'\n",
	"node_modules/conditional/web.cjs":      "exports.who = 'web by require'\n",
	"node_modules/conditional/sub/x.js":     "export const who = 'sub'\n",
	"node_modules/worker/package.json":      `{"name":"worker","exports":{"worker":"./worker.js","browser":"./dom.js","default":"./node.js"}}`,
	"node_modules/worker/worker.js":         "export const who = 'worker'\n",
	"node_modules/replaced/package.json":    `{"name":"replaced","main":"./main.js","browser":{"fs":false,"./node.js":"./web.js"}}`,
	"node_modules/replaced/main.js":         "const fs = require('fs')\nexports.who = require('./node') + (fs.readFileSync ? ' with files' : '')\n",
	"node_modules/replaced/node.js":         "module.exports = 'node'\n",
	"node_modules/replaced/web.js":          "module.exports = 'replaced'\n",
	"node_modules/tries/index.js":           "let c\ntry { c = require('node:crypto') } catch { c = null }\nexports.who = c === null ? 'tried' : 'found'\n",
	"node_modules/@scope/typed/index.ts":    "export const who: string = '@scope/typed'\n",
	"node_modules/env/index.js":             "exports.who = process.env.NODE_ENV\n",
	"node_modules/global/index.js":          "(function (root) { root.who = 'umd' })(typeof self !== 'undefined' ? self : this)\n",
	"node_modules/a/package.json":           `{"name":"a","main":"index.js"}`,
	"node_modules/a/index.js":               "exports.who = 'a of ' + require('b').who\n",
	"node_modules/b/index.js":               "exports.who = 'the app'\n",
	"node_modules/a/node_modules/b/main.js": "exports.who = 'b of a'\n",

	"node_modules/a/node_modules/b/package.json": `{"name":"b","main":"main.js"}`,
}

// sandbox is the engine that the tests share: what JavaScript runs in is compiled once for all of them.
var sandbox = sync.OnceValues(func() (*cell.Engine, error) { return cell.New(context.Background(), cell.Default()) })

// run bundles an app with one function, loads it as the server does, and has it handle an event.
func run(t *testing.T, files map[string]string, data string) (cell.Result, error) {
	t.Helper()
	all := maps.Clone(packages)
	maps.Copy(all, files)
	all["app.toml"] = manifestFor("f.ts")
	module := load(t, all).Modules["f"]
	engine, err := sandbox()
	if err != nil {
		t.Fatal(err)
	}
	spec := cell.Spec{Name: "f.ts", Kind: api.ModuleScript, Code: module.Code, SourceMap: module.SourceMap}
	f, err := engine.Load(t.Context(), spec, cell.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close(context.Background()) })
	result, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(`{"id":"1","type":"t","source":"/s","data":` + data + `}`), Attempt: 1})
	return result, err
}

// TestPackages runs a function that imports a package of every kind, each for a platform like the web.
func TestPackages(t *testing.T) {
	t.Parallel()
	result, err := run(t, map[string]string{"f.ts": `
		import { who as esm } from 'esm'
		import { who as cjs } from 'cjs'
		import { who as module } from 'module'
		import { who as conditional } from 'conditional'
		import { who as sub } from 'conditional/sub/x'
		import { who as worker } from 'worker'
		import replaced from 'replaced'
		import tries from 'tries'
		import { who as typed } from '@scope/typed'
		import env from 'env'
		import 'global'
		import a from 'a'
		declare const who: string
		declare function require(name: string): any
		export default () => ({ all: [esm, cjs, module, conditional, require('conditional').who, sub, worker, replaced.who, tries.who, typed, env.who, who, a.who, require('b').who] })
	`}, `1`)
	want := `{"all":["esm","cjs part","module","web","web by require","sub","worker","replaced","tried","@scope/typed","production","umd","a of b of a","the app"]}`
	if err != nil || string(result.Reply) != want {
		t.Errorf("reply = %s, %v; want %s", result.Reply, err, want)
	}
}

// TestLanguage runs what is new in the language, which the engine has or the bundler rewrites.
func TestLanguage(t *testing.T) {
	t.Parallel()
	result, err := run(t, map[string]string{"f.ts": `
		const top = await Promise.resolve('await')
		class C { #p = 1; #m() { return this.#p }; static s = 0; static { C.s = 2 }; get v() { return this.#m() }; static has(o: object) { return #p in o } }
		function logged(value: Function, context: { name: string | symbol }) { return function (this: unknown) { return [context.name, value.call(this)] } }
		class D { @logged m() { return 3 } }
		enum E { A = 'a' }
		let q: { n?: number } | undefined; q ??= {}; q.n ||= 4
		const disposed: string[] = []
		{ using a = { [Symbol.dispose]() { disposed.push('disposed') } } }
		const { x, ...rest } = { x: 1, y: 2 }
		async function* g() { yield 1; yield 2 }
		export default async () => {
			const seen = []; for await (const n of g()) seen.push(n)
			return { top, c: [new C().v, C.s, C.has(new C()), C.has({})], d: new D().m(), e: E.A, q, disposed, rest, seen, re: /[\p{L}--[a-z]]/v.test('ä'), named: /(?<y>\d)/d.exec('a1')!.indices!.groups!.y,
				more: [[1, 2, 3].at(-1), [3, 1].toSorted(), Object.groupBy([1, 2], (n) => n % 2 ? 'odd' : 'even'), new Set([1]).union(new Set([2])).size, 'a-b'.replaceAll('-', '+'), 10_000n === 10000n, Array.from([1].values().map((n) => n + 1))] }
		}
	`}, `1`)
	want := `{"top":"await","c":[1,2,true,false],"d":["m",3],"e":"a","q":{"n":4},"disposed":["disposed"],"rest":{"y":2},"seen":[1,2],"re":true,"named":[1,2],` +
		`"more":[3,[1,3],{"odd":[1],"even":[2]},2,"a+b",true,[2]]}`
	if err != nil || string(result.Reply) != want {
		t.Errorf("reply = %s, %v; want %s", result.Reply, err, want)
	}
}

// TestPackagesFail holds that what goes wrong in a package is shown in the package's own file and line, and
// in the author's, after an await too.
func TestPackagesFail(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"node_modules/prices/package.json": `{"name":"prices","type":"module","exports":"./src/index.js"}`,
		"node_modules/prices/src/index.js": "// A package.\n\nexport function price(item) {\n  return item.price.toFixed(2)\n}\n\nexport async function later(item) {\n  await null\n  return price(item)\n}\n",
		"f.ts":                             "import { later, price } from 'prices'\n\ntype Order = { item?: { price: number }, how: string }\n\nasync function total(order: Order): Promise<string> {\n  await null\n  return price(order.item!)\n}\n\nexport default async (event: { data: Order }) => {\n  if (event.data.how === 'in the package') return later(event.data.item)\n  return total(event.data)\n}\n",
	}
	for how, want := range map[string]string{
		"in the package": "at price (node_modules/prices/src/index.js:4:10)\nat later (node_modules/prices/src/index.js:9:16)\n",
		"in the app":     "at price (node_modules/prices/src/index.js:4:10)\nat total (f.ts:7:16)\n",
	} {
		_, err := run(t, files, `{"how":"`+how+`"}`)
		said, ok := cell.Failed(err)
		if !ok {
			t.Fatalf("%s: %v", how, err)
		}
		if diff := cmp.Diff(want, said.Stack); diff != "" {
			t.Errorf("%s (-want +got):\n%s", how, diff)
		}
		if faults := problem.From(err).Faults; len(faults) != 1 || faults[0].File != "node_modules/prices/src/index.js" || faults[0].Line != 4 {
			t.Errorf("%s: faults are %+v", how, faults)
		}
	}
}

func TestPackageFaults(t *testing.T) {
	t.Parallel()
	const sandbox = "functions run in a sandbox without Node's modules"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string // of the faults, with places
	}{
		{"Node's module in the app", map[string]string{"f.ts": "import fs from 'node:fs'\nconsole.log(fs)\n" + handler},
			[]string{`f.ts:1:16+9: "node:fs": ` + sandbox + `; they have what the web has`, "a grant in app.toml"}},
		{"in a package", map[string]string{"f.ts": "import 'p'\n" + handler, "node_modules/p/index.js": "require('net')\n"},
			[]string{`node_modules/p/index.js:1:9+5: "net": ` + sandbox + `, and the package p needs this one (f.ts imports p)`, "made for browsers or workers"}},
		{"in a package of a package", map[string]string{"f.ts": "import './lib'\n" + handler, "lib.ts": "import '@s/a/x'\n", "node_modules/@s/a/x.js": "require('c')\n", "node_modules/c/index.js": "require('node:tls')\n"},
			[]string{`node_modules/c/index.js:1:9+10: "node:tls": `, "the package c needs this one (lib.ts imports @s/a, which imports c)"}},
		{"packages in a circle", map[string]string{"f.ts": "import 'c1'\n" + handler, "node_modules/c1/index.js": "require('c2')\n", "node_modules/c2/index.js": "require('c1'); require('fs')\n"},
			[]string{`node_modules/c2/index.js:1:24+4: "fs": `, "the package c2 needs this one ("}},
		{"not installed", map[string]string{"f.ts": "import 'left-pad'\n" + handler, "package.json": `{"dependencies":{"left-pad":"1"}}`},
			[]string{"f.ts:1:8+10: \"left-pad\": there is no such package in the app's node_modules; run `npm install` in the app's folder"}},
		{"not wanted yet", map[string]string{"f.ts": "import '@s/left-pad/x'\n" + handler, "package.json": `{}`},
			[]string{"\"@s/left-pad/x\": there is no such package in the app's node_modules; run `npm install @s/left-pad` in"}},
		{"half installed", map[string]string{"f.ts": "import 'p'\n" + handler, "node_modules/p/index.js": "require('left-pad')\n"},
			[]string{"node_modules/p/index.js:1:9+10: \"left-pad\": there is no such package in the app's node_modules; run `npm install` in"}},
		{"no package.json that can be read", map[string]string{"f.ts": "import 'q'\n" + handler, "package.json": `{"dependencies":`},
			[]string{"run `npm install q`"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.files["app.toml"] = manifestFor("f.ts")
			_, _, err := bundle.Load(linked(t, tt.files))
			got := places(err)
			for _, want := range tt.want {
				if problem.From(err).Code != "bundle.source_invalid" || !strings.Contains(got, want) {
					t.Errorf("Load = %v\n%swant %s", err, got, want)
				}
			}
		})
	}
}

// A package that is linked to a place outside the app does not get into the bundle, by whatever field it is found.
func TestPackagesFromOutside(t *testing.T) {
	t.Parallel()
	outside := folder(t, map[string]string{"package.json": `{"name":"p","browser":"./x.js"}`, "x.js": "export default 'TOP-SECRET'\n"})
	for name, files := range map[string]map[string]string{
		"linked package":  {"node_modules/p": link + outside},
		"linked folder":   {"node_modules": link + outside, "f.ts": "import s from 'x.js'\nconsole.log(s)\n" + handler},
		"field":           {"node_modules/p/package.json": `{"browser":"../../../` + strings.TrimPrefix(outside, "/") + `/x.js"}`},
		"map of a field":  {"node_modules/p/package.json": `{"main":"m.js","browser":{"./m.js":"` + outside + `/x.js"}}`, "node_modules/p/m.js": "export default 1\n"},
		"exports":         {"node_modules/p/package.json": `{"exports":"../../` + strings.TrimPrefix(outside, "/") + `/x.js"}`},
		"linked manifest": {"node_modules/p/package.json": link + outside + "/package.json", "node_modules/p/x.js": link + outside + "/x.js"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := map[string]string{"app.toml": manifestFor("f.ts"), "f.ts": "import s from 'p'\nconsole.log(s)\n" + handler}
			maps.Copy(all, files)
			b, _, err := bundle.Load(linked(t, all))
			if err == nil {
				t.Errorf("Load = %s; want a fault", b.Modules["f"].Code)
			}
			if strings.Contains(places(err), "TOP-SECRET") {
				t.Error("the error shows a file from outside")
			}
		})
	}
}
