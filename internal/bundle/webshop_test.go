package bundle_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/bundle"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/schema"
)

const webshop = "../../examples/webshop"

// The example app, with its Go function built as `make guests` builds it.
func TestWebshop(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiles a Go program")
	}
	dir := filepath.Join(t.TempDir(), "webshop")
	if err := os.CopyFS(dir, os.DirFS(webshop)); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-buildmode=c-shared",
		"-o", filepath.Join(dir, "reserve.wasm"), "./examples/webshop/reserve")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build reserve.wasm: %v\n%s", err, out)
	}
	b, app, err := bundle.Load(dir)
	if err != nil {
		t.Fatal(err, show(err))
	}
	kinds := map[string]api.ModuleKind{}
	for name, m := range b.Modules {
		kinds[name] = m.Kind
	}
	want := map[string]api.ModuleKind{"price": api.ModuleScript, "confirm": api.ModuleScript, "reserve": api.ModuleWasm}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}

	// One event's way: each subscription takes a type that a function before it may publish.
	published := []ident.EventType{"order.created"}
	for _, step := range []struct {
		subscription ident.SubscriptionName
		function     ident.FunctionName
	}{{"price-orders", "price"}, {"reserve-orders", "reserve"}, {"confirm-orders", "confirm"}} {
		s := app.Subscriptions[step.subscription]
		if typ := ident.EventType(s.Filter.Type.String()); s.Function != step.function || !slices.Contains(published, typ) {
			t.Errorf("subscription %s takes %q to %q; published before: %q", step.subscription, typ, s.Function, published)
		}
		for _, g := range app.Functions[s.Function].Grants {
			published = append(published, g.Publish...)
		}
	}

	created, err := schema.Compile([]byte(b.Schemas[app.EventTypes["order.created"].Schema]))
	if err != nil {
		t.Fatal(err)
	}
	for event, refused := range map[string]bool{"done": false, "retried": false, "dead-lettered": false, "refused-by-schema": true} {
		data, err := os.ReadFile(filepath.Join(webshop, "events", event+".json"))
		if err != nil {
			t.Fatal(err)
		}
		switch err := created.Validate(data); {
		case (err != nil) != refused:
			t.Errorf("the schema says of %s.json: %v; want it refused: %v", event, err, refused)
		case refused && problem.From(err).Code != "event.schema_violation":
			t.Errorf("%s.json is refused as %v", event, err)
		}
	}
}
