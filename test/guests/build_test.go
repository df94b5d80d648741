// Package guests_test builds the example of each language with that language's own tools, and holds
// all of them to one behaviour: in the sandbox by itself, and through the real binary as a user
// deploys it.
//
// Each example has a recipe, examples/LANGUAGE/build, which ends with status 3 when a tool that it
// needs is not there. CI installs it then; elsewhere, and where that is not possible, the build is
// skipped with what to install, and the module that is committed beside the example runs instead.
package guests_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// root is the repository.
const root = "../.."

// example is the example of one language: a folder in examples.
type example struct {
	folder string
	// source is what the manifest names.
	source string
	// mode is the build mode of an example in Go.
	mode string
	// packages are the Debian packages that bring the tools of the recipe.
	packages []string
}

var examples = []example{
	{folder: "go", source: "price.wasm", mode: "c-shared"},
	{folder: "command", source: "price.wasm", mode: "exe"},
	{folder: "c", source: "price.wasm", packages: []string{"clang", "lld"}},
	{folder: "rust", source: "price.wasm", packages: []string{"cargo", "rustc", "libstd-rust-dev-wasm32", "lld"}},
	{folder: "assemblyscript", source: "price.wasm", packages: []string{"npm"}},
	{folder: "typescript", source: "price.ts"},
}

// exampleOf returns the example in a folder.
func exampleOf(folder string) example {
	i := slices.IndexFunc(examples, func(e example) bool { return e.folder == folder })
	return examples[i]
}

// errNoTools is wrapped by the error of a build that lacks its tools.
var errNoTools = errors.New("the tools are not there")

// build makes the example's module.
func (e example) build(out string) error {
	if e.mode != "" {
		return buildGo("./examples/"+e.folder, e.mode, out)
	}
	return withTools(e.packages, func() error { return e.recipe(out) })
}

// withTools runs a build, and where it lacks tools that may be installed here, installs them and runs
// it again.
func withTools(packages []string, build func() error) error {
	err := build()
	if !errors.Is(err, errNoTools) || os.Getenv("CI") != "true" || os.Getuid() != 0 {
		return err
	}
	if err := install(packages); err != nil {
		return err
	}
	return build()
}

// statusNoTools is how a recipe ends that lacks a tool.
const statusNoTools = 3

// cooking is held by whoever runs a recipe: npm fills the folder that a recipe is in.
var cooking sync.Mutex

// recipe runs the example's recipe with these arguments.
func (e example) recipe(args ...string) error {
	cooking.Lock()
	defer cooking.Unlock()
	text, err := exec.Command(filepath.Join(root, "examples", e.folder, "build"), args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == statusNoTools {
		return fmt.Errorf("%w: %s", errNoTools, strings.TrimSpace(string(text)))
	}
	if err != nil {
		return fmt.Errorf("examples/%s/build: %w\n%s", e.folder, err, text)
	}
	return nil
}

// installing is held by whoever installs packages: the system takes one at a time.
var installing sync.Mutex

// install installs Debian packages.
func install(packages []string) error {
	installing.Lock()
	defer installing.Unlock()
	for _, args := range [][]string{
		{"update", "-qq"},
		append([]string{"install", "-qq", "-y", "--no-install-recommends"}, packages...),
	} {
		install := exec.Command("apt-get", args...)
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if text, err := install.CombinedOutput(); err != nil {
			return fmt.Errorf("%w, and apt-get %s fails: %w\n%s", errNoTools, args[0], err, text)
		}
	}
	return nil
}

// buildGo builds a Go package of the repository as a WebAssembly module.
func buildGo(pkg, mode, out string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-buildmode="+mode, "-o", out, pkg)
	build.Dir = root
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// goModule builds a Go package into a temporary file.
func goModule(t testing.TB, pkg, mode string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "module.wasm")
	if err := buildGo(pkg, mode, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// committed returns the module that is committed beside the example, or "" if there is none.
func (e example) committed(t *testing.T) string {
	t.Helper()
	if len(e.packages) == 0 {
		return ""
	}
	path := filepath.Join(root, "examples", e.folder, "price.wasm")
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := os.ReadFile(path + ".sha256")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(code)
	if want := hex.EncodeToString(sum[:]) + "  price.wasm\n"; string(digest) != want {
		t.Errorf("%s.sha256 = %q; want %q", path, digest, want)
	}
	return path
}

// modules returns the example's module as it was built here, if it could be, and the committed one, if
// there is one; at least one of them.
func (e example) modules(t *testing.T) map[string]string {
	t.Helper()
	if e.source != "price.wasm" {
		return map[string]string{"source": filepath.Join(root, "examples", e.folder, e.source)}
	}
	found := map[string]string{}
	if path := e.committed(t); path != "" {
		found["committed"] = path
	}
	out, err := filepath.Abs(filepath.Join(t.TempDir(), "price.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("build", func(t *testing.T) {
		err := e.build(out)
		if errors.Is(err, errNoTools) && found["committed"] != "" {
			t.Skipf("NOT BUILT: %v\nThe committed module of %s runs instead. To build it: apt-get install %s",
				err, e.folder, strings.Join(e.packages, " "))
		}
		if err != nil {
			t.Fatal(err)
		}
		found["built"] = out
	})
	if len(found) == 0 {
		t.Fatal("there is no module to run")
	}
	return found
}
