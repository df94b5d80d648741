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
	"sallyport/internal/problem"
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
		Apps: bucket{w}, Blobs: blobs{w}, Namespaces: namespaces{w}, Engine: engine, Memory: 30,
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

// TestPinned: a function with min_instances is loaded by Pin, stays whatever else is used, and an app with
// which such functions would take more than there is changes nothing.
func TestPinned(t *testing.T) {
	t.Parallel()
	manifest := "name = \"many\"\n[functions]\nf0 = { source = \"f0.wasm\", min_instances = 1 }\n"
	for i := 1; i < 5; i++ {
		manifest += fmt.Sprintf("f%d.source = \"f%d.wasm\"\n", i, i)
	}
	w, engine := newWorld(), &weighed{loaded: map[string]int{}, bytes: 10}
	open := func() *deploy.Deployer {
		t.Helper()
		d, err := deploy.New(t.Context(), deploy.Config{
			Apps: bucket{w}, Blobs: blobs{w}, Namespaces: namespaces{w}, Engine: engine, Memory: 30,
			End: func(context.Context, ident.Namespace) (ident.Position, error) { return 0, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	apply(t, d, app(manifest, 1))
	if got := engine.names(); got != "f0 f3 f4" {
		t.Errorf("after apply %q are loaded; want f0 f3 f4", got)
	}
	all := manifest
	for i := 1; i < 5; i++ {
		all = strings.Replace(all, fmt.Sprintf("f%d.source = \"f%d.wasm\"", i, i), fmt.Sprintf("f%d = { source = \"f%d.wasm\", min_instances = 1 }", i, i), 1)
	}
	before := d.State("default")
	_, err := d.Apply(t.Context(), "p", "default", app(all, 1), false, nil)
	p := problem.From(err)
	if p.Code != "deploy.min_instances_too_large" || !strings.Contains(p.Public, "50 bytes") || !strings.Contains(p.Public, "30 bytes") {
		t.Errorf("Apply = %v; want deploy.min_instances_too_large, with 50 and 30 bytes", err)
	}
	if d.State("default") != before {
		t.Error("the app that was refused is active")
	}

	engine.mu.Lock()
	engine.loaded = map[string]int{}
	engine.mu.Unlock()
	d = open()
	d.Pin(t.Context())
	if got := engine.names(); got != "f0" {
		t.Errorf("after a start %q are loaded; want f0", got)
	}
	for i := 1; i < 5; i++ {
		_, release, err := d.State("default").Functions[ident.FunctionName(fmt.Sprint("f", i))].Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	if got := engine.names(); got != "f0 f3 f4" {
		t.Errorf("after all were used %q are loaded; want f0 f3 f4", got)
	}
}

// TestLimitsAreChanges: each limit that an app gives its function anew is applied.
func TestLimitsAreChanges(t *testing.T) {
	t.Parallel()
	d := newWorld().open(t)
	const function = "name = \"a\"\n[functions.f]\nsource = \"f.wasm\"\n"
	apply(t, d, app(function, 1))
	for _, line := range []string{
		"min_instances = 1", "memory = \"2MiB\"", "timeout = \"1s\"", "limits.cpu = \"1s\"", "limits.output = \"1KiB\"",
		"limits.log = \"1KiB\"", "limits.events = 1", "limits.host_calls = 1",
	} {
		before := d.State("default").Functions["f"].Limits
		apply(t, d, app(function+line+"\n", 1))
		if d.State("default").Functions["f"].Limits == before {
			t.Errorf("%s changed nothing", line)
		}
	}
}

// TestWarm: after a start functions are loaded, as many as half of the memory for them holds, those that were invoked
// most first.
func TestWarm(t *testing.T) {
	t.Parallel()
	manifest := "name = \"many\"\n[functions]\n"
	for i := range 5 {
		manifest += fmt.Sprintf("f%d.source = \"f%d.wasm\"\n", i, i)
	}
	w := newWorld()
	apply(t, w.open(t), app(manifest, 1))
	for _, test := range []struct {
		most    int64
		invoked map[ident.FunctionName]int64
		want    string
	}{
		{60, nil, "f0 f1 f2"},
		{60, map[ident.FunctionName]int64{"f4": 10, "f2": 3}, "f0 f2 f4"},
		{0, nil, ""},
		{1000, nil, "f0 f1 f2 f3 f4"},
	} {
		most, want := test.most, test.want
		engine := &weighed{loaded: map[string]int{}, bytes: 10}
		d, err := deploy.New(t.Context(), deploy.Config{
			Apps: bucket{w}, Blobs: blobs{w}, Namespaces: namespaces{w}, Engine: engine, Memory: most,
			Invoked: func(ident.Namespace) map[ident.FunctionName]int64 { return test.invoked },
			End:     func(context.Context, ident.Namespace) (ident.Position, error) { return 0, nil },
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
