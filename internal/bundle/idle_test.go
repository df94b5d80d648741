package bundle_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/bundle"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// moduleOf is a module that imports one function, without parameters, of sallyport, and has a text in a custom section.
func moduleOf(imported, text string) []byte {
	section := func(id byte, body ...[]byte) []byte {
		all := slices.Concat(body...)
		return append([]byte{id, byte(len(all))}, all...)
	}
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"), section(1, []byte{1, 0x60, 0, 0}),
		section(2, []byte{1}, name("sallyport"), name(imported), []byte{0, 0}), section(0, name("texts"), []byte(text)))
}

// TestIdleModules: what is said of the grants of modules; functions that share a module are each looked at with their own grants.
func TestIdleModules(t *testing.T) {
	t.Parallel()
	const text = `name = "app"
[functions.able]
source = "able.wasm"
grants.carts = { kv = "carts" }
grants.stock = { kv = "stock" }
grants.out = { publish = ["priced"] }
[functions.also]
source = "able.wasm"
grants.ledger = { kv = "ledger" }
[functions.none]
source = "able.wasm"
[functions.unable]
source = "unable.wasm"
grants.carts = { kv = "carts" }
grants.out = { publish = ["priced"] }
[functions.broken]
source = "broken.wasm"
grants.carts = { kv = "carts" }
`
	app, err := manifest.ParseApp("app.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	able, unable := moduleOf("grant_start", "carts"), moduleOf("grant_end", "carts")
	b := &api.Bundle{Manifest: text, Modules: map[string]api.Module{}}
	for name, code := range map[string][]byte{"able": able, "also": able, "none": able, "unable": unable, "broken": able[:20]} {
		b.Modules[name] = api.Module{Kind: api.ModuleWasm, Code: code}
	}
	idle := bundle.IdleGrants(b, app)
	said := func(faults []problem.Fault) (out []string) {
		for _, f := range faults {
			out = append(out, f.Detail)
			if f.Line == 0 || !strings.Contains(f.Source, "kv") {
				t.Errorf("%q has no place: %+v", f.Detail, f)
			}
		}
		return out
	}
	want := []string{`the module of the function unable does not use its grant "carts": it does not import sallyport.grant_start`}
	if diff := cmp.Diff(want, said(idle.Unused)); diff != "" {
		t.Error(diff)
	}
	want = []string{
		`the module of the function able may not use its grant "stock": its name occurs nowhere in the module`,
		`the module of the function also may not use its grant "ledger": its name occurs nowhere in the module`,
	}
	if diff := cmp.Diff(want, said(idle.Unnamed)); diff != "" {
		t.Error(diff)
	}
}
