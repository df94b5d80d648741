package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// lattice says which packages of this module a package may import: those to its left, with
// everything they may import themselves. DO NOT CHANGE IT TO MAKE A BUILD PASS: a change here is a
// change of the design and needs a decision record in design/decisions.
//
// Packages of one level do not know each other, but for the pairs named here.
var lattice = map[string][]string{
	// Values: no I/O, no clock, no goroutine.
	"api":              {},
	"internal/ident":   {},
	"internal/problem": {},
	"internal/event":   {"internal/ident", "internal/problem"},

	// The form of narrowed tokens, which the command line makes and access checks: decisions/0011.
	"internal/narrow": {"internal/ident"},

	// Pure: texts in, decisions and compiled forms out.
	"internal/filter": {"internal/event", "internal/ident", "internal/problem"},
	"internal/schema": {"internal/problem"},
	"internal/policy": {"internal/ident", "internal/problem"},
	// Known values are taken out of texts: decisions/0023.
	"internal/redact": {},
	// Where in its author's files a place in a script is: for the bundler, and for stack traces.
	"internal/sourcemap": {},
	// Files of policy tests are read like manifests: decisions/0013.
	"internal/manifest": {"internal/filter", "internal/ident", "internal/policy", "internal/problem"},

	// Keys, storage, sandbox.
	"internal/keyring": {"internal/ident", "internal/problem"},
	// The one package that opens connections to the world outside: decisions/0010.
	"internal/outbound": {},
	"internal/store":    {"internal/problem"},
	"internal/eventlog": {"internal/event", "internal/ident", "internal/keyring", "internal/problem", "internal/store"},
	// Identity tokens for functions: decisions/0017.
	"internal/issuer": {"internal/ident", "internal/keyring", "internal/problem", "internal/store"},
	// What can be told of a module from its bytes, for the sandbox and for whoever bundles an app: decisions/0034.
	"internal/cell/harden": {},
	"internal/cell":        {"api", "internal/cell/harden", "internal/ident", "internal/problem", "internal/sourcemap"},
	// The seam of grants, and under it one package for each kind: decisions/0020.
	"internal/grant": {"api", "internal/event", "internal/ident", "internal/keyring", "internal/manifest", "internal/outbound", "internal/problem", "internal/redact", "internal/store"},
	// What stands in for what is behind grants, in tests of functions and in dev: decisions/0031.
	"internal/grant/double": {"internal/grant", "internal/ident", "internal/manifest", "internal/problem"},
	"internal/bundle":       {"api", "internal/cell/harden", "internal/ident", "internal/manifest", "internal/problem", "internal/sourcemap"},

	// Which namespaces there are, who owns them and what they may use: decisions/0016.
	"internal/namespace": {"api", "internal/ident", "internal/policy", "internal/problem", "internal/store"},

	// The capabilities.
	"internal/access":  {"api", "internal/ident", "internal/manifest", "internal/narrow", "internal/outbound", "internal/policy", "internal/problem", "internal/store"},
	"internal/deploy":  {"api", "internal/cell", "internal/event", "internal/filter", "internal/grant", "internal/ident", "internal/manifest", "internal/problem", "internal/schema", "internal/store"},
	"internal/ingress": {"api", "internal/access", "internal/deploy", "internal/event", "internal/eventlog", "internal/grant", "internal/ident", "internal/policy", "internal/problem", "internal/schema"},
	"internal/funclog": {"api"},
	// Values with names, which grants use: decisions/0023.
	"internal/secret": {"internal/grant", "internal/ident", "internal/keyring", "internal/outbound", "internal/problem", "internal/redact", "internal/store"},
	"internal/meter":  {"internal/ident", "internal/store"},
	// What a function emits comes in by the same way as everything else: decisions/0004.
	"internal/dispatch": {"api", "internal/cell", "internal/deploy", "internal/event", "internal/eventlog", "internal/grant", "internal/ident", "internal/ingress", "internal/manifest", "internal/problem", "internal/redact", "internal/store"},

	// The surfaces.
	"client":           {"api"},
	"internal/login":   {"internal/outbound"},
	"internal/httpapi": {"api", "internal/access", "internal/deploy", "internal/dispatch", "internal/event", "internal/eventlog", "internal/funclog", "internal/ident", "internal/ingress", "internal/manifest", "internal/meter", "internal/policy", "internal/problem", "internal/secret"},
	"internal/server":  {"*"},
	"sdk":              {},
	"sdk/js":           {},
	// What editors are told of an app: decisions/0029.
	"internal/editor":   {"internal/ident", "internal/manifest", "sdk/js"},
	"internal/scaffold": {"internal/ident", "internal/problem", "sdk", "sdk/js"},
	// The command line checks and tests policies, and decides nothing for a server: decisions/0012.
	"internal/cli":  {"api", "client", "internal/bundle", "internal/editor", "internal/grant/double", "internal/ident", "internal/login", "internal/manifest", "internal/narrow", "internal/outbound", "internal/policy", "internal/problem", "internal/redact", "internal/scaffold", "internal/server"},
	"cmd/sallyport": {"internal/cli"},

	"internal/telemetry": {},
}

// anywhere may be imported by every package of L2 and above.
var anywhere = []string{"internal/telemetry"}

// owners names, for each third-party library, the one package that may import it. Libraries not
// listed here (JSON, x/sys, x/term, x/sync) are treated as part of the standard library.
var owners = map[string][]string{
	"cel.dev/cel-go":                                {"internal/filter"},
	"github.com/aws/aws-sdk-go-v2":                  {"internal/grant"},
	"github.com/cedar-policy/cedar-go":              {"internal/policy"},
	"github.com/elastic/go-seccomp-bpf":             {"internal/cell"},
	"github.com/evanw/esbuild":                      {"internal/bundle"},
	"github.com/tdewolff/parse":                     {"internal/bundle"},
	"github.com/go-jose/go-jose":                    {"internal/access"},
	"github.com/fsnotify/fsnotify":                  {"internal/cli"},
	"github.com/jackc/pgx":                          {"internal/grant/sqlgrant"},
	"github.com/ncruces/go-sqlite3":                 {"internal/grant/sqlgrant"},
	"github.com/klauspost/compress":                 {"internal/cell"},
	"github.com/landlock-lsm/go-landlock":           {"internal/cell"},
	"kernel.org/pub/linux/libs/security/libcap/cap": {"internal/cell"},
	"github.com/nats-io":                            {"internal/store"},
	"github.com/pelletier/go-toml":                  {"internal/manifest"},
	"github.com/prometheus/client_golang":           {"internal/telemetry"},
	"github.com/santhosh-tekuri/jsonschema":         {"internal/schema"},
	"github.com/spf13":                              {"internal/cli"},
	"github.com/tetratelabs/wazero":                 {"internal/cell"},
	"golang.org/x/net":                              {"internal/cell"},
	// The standard library's own choke points. An owner that is a sub-package owns it alone.
	"unsafe": {"internal/cell/snapshot"},
}

func TestImportLattice(t *testing.T) {
	t.Parallel()
	imports := productionImports(t)
	if len(imports) < 10 {
		t.Fatalf("found only %d packages: the gate is looking in the wrong place", len(imports))
	}
	for pkg, list := range imports {
		home, ok := row(pkg)
		if !ok {
			t.Errorf("package %s is in no row of the lattice", pkg)
			continue
		}
		for _, imp := range list {
			if local, ok := strings.CutPrefix(imp, "sallyport/"); ok {
				checkLocal(t, pkg, home, local)
				continue
			}
			for prefix, allowed := range owners {
				if (imp == prefix || strings.HasPrefix(imp, prefix+"/")) && !slices.Contains(allowed, home) && !slices.Contains(allowed, pkg) {
					t.Errorf("%s imports %s, which belongs to %v", pkg, imp, allowed)
				}
			}
		}
	}
}

func checkLocal(t *testing.T, pkg, home, imported string) {
	t.Helper()
	target, ok := row(imported)
	switch allowed := lattice[home]; {
	case !ok:
		t.Errorf("%s imports %s, which is in no row of the lattice", pkg, imported)
	case target == home, slices.Contains(allowed, "*"), slices.Contains(allowed, target), slices.Contains(anywhere, target):
	default:
		t.Errorf("%s imports %s: not allowed by the lattice", pkg, imported)
	}
}

// row returns the row of the lattice that a package belongs to: its own, or that of the nearest
// parent folder (sub-packages share their parent's rights).
func row(pkg string) (string, bool) {
	for p := pkg; p != "."; p = path.Dir(p) {
		if _, ok := lattice[p]; ok {
			return p, true
		}
	}
	return "", false
}

// productionImports reads the imports of every non-test file of the product. Tests, benchmarks,
// examples and guest SDKs are not the product.
func productionImports(t *testing.T) map[string][]string {
	t.Helper()
	root := ".."
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(strings.TrimPrefix(name, root), "/"))
		if d.IsDir() {
			skip := []string{"bench", "examples", "sdk", "test", "tools", "internal/testkit"}
			if slices.Contains(skip, rel) || d.Name() == "testdata" || d.Name() == "templates" || strings.HasPrefix(d.Name(), ".") && rel != "" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Dir(rel)
		for _, spec := range file.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[pkg] = append(found[pkg], imp)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
