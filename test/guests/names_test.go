package guests_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sallyport/internal/cell/harden"
)

// surface builds a module and looks at it; it skips the test where the tools are not there.
func surface(t *testing.T, build func(out string) error) *harden.Surface {
	t.Helper()
	out := filepath.Join(t.TempDir(), "module.wasm")
	err := build(out)
	if errors.Is(err, errNoTools) {
		t.Skipf("NOT BUILT: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	s, err := harden.Look(code)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestModulesTellTheirGrants: of a module of every language it can be told whether it can use grants, and which it names: what apply warns of. The names
// are "carts", made at run time or put in memory by the code, and "orders".
func TestModulesTellTheirGrants(t *testing.T) {
	t.Parallel()
	for language, build := range map[string]func(out string) error{
		"go":   func(out string) error { return buildGo("./test/guests/testdata/grants/kinds", "c-shared", out) },
		"c":    func(out string) error { return exampleOf("c").recipe(out, "../../test/guests/testdata/names/names.c") },
		"rust": func(out string) error { return exampleOf("rust").recipe(out, "../../test/guests/testdata/names/rust") },
		"assemblyscript": func(out string) error {
			return exampleOf("assemblyscript").recipe(out, "../../test/guests/testdata/names/names.ts")
		},
	} {
		t.Run(language, func(t *testing.T) {
			s := surface(t, build)
			if !s.Imports("sallyport", "grant_start") || !s.Mentions("carts") || !s.Mentions("orders") || s.Mentions("invoices") {
				t.Errorf("imports %v, carts %v, orders %v, invoices %v; want all but the last", s.Imports("sallyport", "grant_start"), s.Mentions("carts"), s.Mentions("orders"), s.Mentions("invoices"))
			}
		})
		t.Run(language+", with names that come with the event", func(t *testing.T) {
			s := surface(t, func(out string) error { grantsGuest(t, language, out); return nil })
			if !s.Imports("sallyport", "grant_start") || s.Mentions("carts") {
				t.Errorf("imports %v, carts %v; want the first alone", s.Imports("sallyport", "grant_start"), s.Mentions("carts"))
			}
		})
		t.Run(language+", without a use", func(t *testing.T) {
			// The Rust SDK reaches its host by a table, so that no import can be left out. Hence nothing is said of a module that imports, and has no grant.
			if s := surface(t, exampleOf(language).build); s.Imports("sallyport", "grant_start") != (language == "rust") || s.Mentions("carts") {
				t.Errorf("imports %v, carts %v", s.Imports("sallyport", "grant_start"), s.Mentions("carts"))
			}
		})
	}
}
