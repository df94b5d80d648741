package editor_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/editor"
	"sallyport/internal/manifest"
)

var update = flag.Bool("update", false, "write the golden file")

// TestTypes holds the types of an app with each kind of grant to a file, which the TypeScript compiler checks with a function that uses
// them: internal/bundle TestSignups.
func TestTypes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "sdk", "js", "testdata", "app")
	text, err := os.ReadFile(filepath.Join(dir, "app.toml"))
	if err != nil {
		t.Fatal(err)
	}
	app, err := manifest.ParseApp("app.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	got, golden := editor.Types(app), filepath.Join(dir, editor.TypesName)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", golden, diff)
	}
	if n := strings.Count(got, "/**"); n != strings.Count(got, "*/") {
		t.Errorf("%d comments begin and %d end", n, strings.Count(got, "*/"))
	}
}
