package manifest_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

var update = flag.Bool("update", false, "write the golden files")

func parseApp(text []byte) error {
	_, err := manifest.ParseApp("app.toml", text)
	return err
}

func parseServer(text []byte) error {
	_, err := manifest.ParseServer("server.toml", text)
	return err
}

func parsePolicyTests(text []byte) error {
	_, err := manifest.ParsePolicyTests("orders.test.toml", text)
	return err
}

// parsePerimeters reads perimeters of a namespace, or of the server when the text begins with "# server".
func parsePerimeters(text []byte) error {
	ns := ident.Namespace("shop")
	if strings.HasPrefix(string(text), "# server") {
		ns = ""
	}
	_, err := manifest.ParsePerimeters("payments.toml", text, ns)
	return err
}

// Each error of a manifest has a golden file with what a user sees: the sentence, and every fault with
// its line and a caret under what is wrong.
func TestErrors(t *testing.T) {
	t.Parallel()
	for folder, parse := range map[string]func([]byte) error{"app": parseApp, "server": parseServer, "policytest": parsePolicyTests, "perimeter": parsePerimeters} {
		files, err := filepath.Glob(filepath.Join("testdata", folder, "*.toml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no test data in %s (%v)", folder, err)
		}
		for _, file := range files {
			t.Run(folder+"/"+strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
				t.Parallel()
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				golden(t, strings.TrimSuffix(file, ".toml")+".golden", show(t, parse(text)))
			})
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; make it with -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// show renders an error in the form of the command line.
func show(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	p := problem.From(err)
	if p.Kind != problem.Invalid {
		t.Errorf("kind of %v is %v, want Invalid", err, p.Kind)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "error: %s  [%s]\n", p.Public, p.Code)
	for _, f := range p.Faults {
		fmt.Fprintf(&b, "  %s:%d:%d\n", f.File, f.Line, f.Column)
		pad := strings.Repeat(" ", len(fmt.Sprint(f.Line)))
		fmt.Fprintf(&b, "    %d | %s\n", f.Line, f.Source)
		fmt.Fprintf(&b, "    %s | %s%s %s\n", pad, strings.Repeat(" ", f.Column-1), strings.Repeat("^", f.Length), f.Detail)
	}
	return b.String()
}
