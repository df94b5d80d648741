package guests_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/testkit"
)

// TestInit: what `sallyport init --language` writes is built by its own recipe, from that folder alone, and does at the first event what the
// function in TypeScript does.
func TestInit(t *testing.T) {
	t.Parallel()
	binary := testkit.Binary(t)
	server := testkit.Start(t, binary, filepath.Join(t.TempDir(), "data"))
	for language, packages := range map[string][]string{
		"typescript": nil,
		"go":         nil,
		"rust":       exampleOf("rust").packages,
		"c":          exampleOf("c").packages,
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			name := "in-" + language
			u := user{binary, server, t.TempDir()}
			if _, stderr, err := u.run(t, "init", name, "--language", language); err != nil {
				t.Fatalf("init: %v\n%s", err, stderr)
			}
			u.dir = filepath.Join(u.dir, name)
			if language != "typescript" {
				if _, stderr, err := u.run(t, "apply", "-n", name); err == nil || !strings.Contains(stderr, "build the module first: ./build") {
					t.Errorf("apply before it is built: %v, %q; want what builds it", err, stderr)
				}
				switch err := withTools(packages, func() error { return buildIn(u.dir) }); {
				case errors.Is(err, errNoTools):
					t.Skipf("NOT BUILT: %v\nTo build it: apt-get install %s", err, strings.Join(packages, " "))
				case err != nil:
					t.Fatal(err)
				}
			}
			for _, args := range [][]string{{"namespace", "create", name}, {"apply", "-n", name}} {
				if _, stderr, err := u.run(t, args...); err != nil {
					t.Fatalf("%s: %v\n%s", args[0], err, stderr)
				}
			}
			stdout, stderr, err := u.run(t, "send", "greeting.requested", "-n", name, "--data", `{"name":"Ada \"ü"}`, "--wait")
			if err != nil || !strings.Contains(stdout, "greeting.made") {
				t.Errorf("send = %q, %v; want a greeting.made\n%s", stdout, err, stderr)
			}
			eventually(t, "its line in the log", func() bool {
				stdout, _, err := u.run(t, "logs", "-n", name)
				return err == nil && strings.Contains(stdout, `Hello, Ada "ü!`)
			})
		})
	}
}

// buildIn runs the recipe in a folder; Debian's Rust where the one that comes first has no WebAssembly.
func buildIn(dir string) error {
	var err error
	for _, env := range [][]string{nil, {"RUSTC=/usr/bin/rustc", "CARGO=/usr/bin/cargo"}} {
		c := exec.Command("./build")
		c.Dir, c.Env = dir, append(append(os.Environ(), "GOFLAGS="), env...)
		text, failed := c.CombinedOutput()
		if failed == nil {
			return nil
		}
		exit, ok := errors.AsType[*exec.ExitError](failed)
		if !ok || exit.ExitCode() != statusNoTools {
			return fmt.Errorf("build: %w\n%s", failed, text)
		}
		err = fmt.Errorf("%w: %s", errNoTools, strings.TrimSpace(string(text)))
	}
	return err
}
