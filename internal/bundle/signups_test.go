package bundle_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/bundle"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// unreachable is what npm says when it has no registry to ask.
var unreachable = regexp.MustCompile(`\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT)\b`)

// The example with a package of npm's: it says what to do while the package is not installed, its types are
// right, and it runs.
func TestSignups(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("installs packages")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("there is no npm")
	}
	// The types that the example imports are in the same place beside it.
	root := t.TempDir()
	dir := filepath.Join(root, "examples", "signups")
	for _, copied := range []struct{ from, to string }{{"../../examples/signups", dir}, {"../../sdk/js", filepath.Join(root, "sdk", "js")}} {
		if err := os.CopyFS(copied.to, os.DirFS(copied.from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}

	_, _, err = bundle.Load(dir)
	if want := "check.ts:1:20+9: \"valibot\": there is no such package in the app's node_modules; run `npm install` in the app's folder"; !strings.Contains(places(err), want) {
		t.Errorf("Load = %s; want %s", places(err), want)
	}
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(lock), "resolved") || strings.Contains(string(lock), "://") {
		t.Error("the lockfile names a registry")
	}
	if out, err := inFolder(t, dir, npm, "ci", "--no-audit", "--no-fund"); err != nil {
		if unreachable.MatchString(out) {
			t.Skipf("npm reaches no registry: %s", out)
		}
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	for _, project := range []string{dir, filepath.Join(root, "sdk", "js", "testdata"), filepath.Join(root, "sdk", "js", "testdata", "app")} {
		if out, err := inFolder(t, dir, npm, "exec", "--", "tsc", "--noEmit", "-p", project); err != nil {
			t.Errorf("the types of %s: %v\n%s", filepath.Base(project), err, out)
		}
	}
	b, _, err := bundle.Load(dir)
	if err != nil {
		t.Fatal(err, places(err))
	}
	signups(t, dir, b.Modules["check"])
}

func inFolder(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	command.Dir = dir
	out, err := command.CombinedOutput()
	return string(out), err
}

// signups has the example's function handle the example's events.
func signups(t *testing.T, dir string, module api.Module) {
	t.Helper()
	engine, err := sandbox()
	if err != nil {
		t.Fatal(err)
	}
	f, err := engine.Load(t.Context(), cell.Spec{Name: "check.ts", Kind: api.ModuleScript, Code: module.Code, SourceMap: module.SourceMap}, cell.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close(context.Background()) })
	const id = "b5fc85e55755f9e0d030a10a"
	for name, want := range map[string]cell.Emitted{
		"accepted": {Type: "signup.accepted", Subject: id, Data: jsontext.Value(`{"id":"` + id + `","name":"Ada Lovelace","email":"ada@example.com",` +
			`"homepage":"https://xn--bcher-kva.example/ada?page=1","languages":["en","fi"]}`)},
		"rejected": {Type: "signup.rejected", Data: jsontext.Value(`{"reasons":[{"field":"name","message":"a name is wanted"},` +
			`{"field":"email","message":"this is no e-mail address"},{"field":"languages.1","message":"en, fi or sv is wanted"}]}`)},
	} {
		data, err := os.ReadFile(filepath.Join(dir, "events", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		event := []byte(`{"id":"1","source":"/s","type":"signup.received","data":` + string(data) + `}`)
		result, _, err := f.Invoke(t.Context(), cell.Input{Event: event, Attempt: 1})
		if err != nil {
			t.Errorf("%s: %v", name, problem.From(err))
			continue
		}
		if diff := cmp.Diff([]cell.Emitted{want}, result.Events); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
