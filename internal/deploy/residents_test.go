package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sallyport/internal/cell"
	"sallyport/internal/deploy"
	"sallyport/internal/ident"
)

// weighed is an Engine whose functions each weigh so much, and that knows which are loaded.
type weighed struct {
	mu     sync.Mutex
	loaded map[string]int
	bytes  int64
}

func (w *weighed) Load(_ context.Context, spec cell.Spec, _ cell.Limits) (deploy.Cell, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loaded[spec.Name]++
	return weighedCell{w, spec.Name}, nil
}

func (w *weighed) names() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for i := range 10 {
		if name := fmt.Sprintf("f%d.wasm", i); w.loaded[name] > 0 {
			out = append(out, name[:2])
		}
	}
	return strings.Join(out, " ")
}

type weighedCell struct {
	engine *weighed
	name   string
}

func (weighedCell) Invoke(context.Context, cell.Input) (cell.Result, cell.Usage, error) {
	return cell.Result{}, cell.Usage{}, nil
}
func (weighedCell) Kind() string      { return cell.KindCommand }
func (c weighedCell) Resident() int64 { return c.engine.bytes }
func (c weighedCell) Close(context.Context) error {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	c.engine.loaded[c.name]--
	return nil
}

// TestMemoryIsBounded: loaded functions hold no more than they may; the one that was not used for
// longest goes first, and never one that is in use.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	manifest := "name = \"many\"\n[functions]\n"
	for i := range 5 {
		manifest += fmt.Sprintf("f%d.source = \"f%d.wasm\"\n", i, i)
	}
	w, engine := newWorld(), &weighed{loaded: map[string]int{}, bytes: 10}
	d, err := deploy.New(t.Context(), deploy.Config{
		Apps: bucket{w}, Blobs: blobs{w}, Engine: engine, Memory: 30,
		End: func(context.Context, ident.Namespace) (ident.Position, error) { return 0, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := func(when, names string) {
		t.Helper()
		if got := engine.names(); got != names {
			t.Errorf("%s: %q are loaded; want %q", when, got, names)
		}
	}
	use := func(name string) (release func()) {
		t.Helper()
		_, release, err := d.State("default").Functions[ident.FunctionName(name)].Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	apply(t, d, app(manifest, 1))
	want("after apply", "f2 f3 f4")
	use("f2")()
	want("one that was loaded", "f2 f3 f4")
	use("f0")()
	want("one that was not", "f0 f2 f4")
	held := use("f4")
	use("f1")()
	use("f3")()
	want("while f4 is used", "f1 f3 f4")
	use("f0")()
	use("f1")()
	use("f2")()
	want("while it is still used", "f1 f2 f4")
	held()
	use("f3")()
	want("after that", "f1 f2 f3")

	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				use(fmt.Sprintf("f%d", (i+j)%5))()
			}
		})
	}
	wg.Wait()
	use("f0")()
	if n := len(strings.Fields(engine.names())); n != 3 {
		t.Errorf("%d functions are loaded after all of that; want 3", n)
	}
}

// TestWarm: after a start functions are loaded, as many as half of the memory for them holds.
func TestWarm(t *testing.T) {
	t.Parallel()
	manifest := "name = \"many\"\n[functions]\n"
	for i := range 5 {
		manifest += fmt.Sprintf("f%d.source = \"f%d.wasm\"\n", i, i)
	}
	w := newWorld()
	apply(t, w.open(t), app(manifest, 1))
	for most, want := range map[int64]string{60: "f0 f1 f2", 0: "", 1000: "f0 f1 f2 f3 f4"} {
		engine := &weighed{loaded: map[string]int{}, bytes: 10}
		d, err := deploy.New(t.Context(), deploy.Config{
			Apps: bucket{w}, Blobs: blobs{w}, Engine: engine, Memory: most,
			End: func(context.Context, ident.Namespace) (ident.Position, error) { return 0, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := engine.names(); got != "" {
			t.Errorf("before Warm %s are loaded, want none", got)
		}
		d.Warm(t.Context())
		if got := engine.names(); got != want {
			t.Errorf("with room for %d bytes, %q are loaded, want %q", most, got, want)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		d.Warm(ended)
	}
}
