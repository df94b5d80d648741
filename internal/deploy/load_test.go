package deploy_test

import (
	"context"
	"sync"
	"testing"

	"sallyport/internal/cell"
	"sallyport/internal/deploy"
	"sallyport/internal/problem"
)

// gated is an engine in which modules of one name load only once they are let go.
type gated struct {
	deploy.Engine
	name    string
	begun   chan struct{} // has a word for each load that is held
	release chan struct{}
}

func (h gated) Load(ctx context.Context, spec cell.Spec, limits cell.Limits) (deploy.Cell, error) {
	if spec.Name == h.name {
		h.begun <- struct{}{}
		<-h.release
	}
	return h.Engine.Load(ctx, spec, limits)
}

// Apps whose module is slow.wasm, and another.
const (
	slowApp  = "name = \"slow\"\n[functions.slow]\nsource = \"slow.wasm\"\n"
	quickApp = "name = \"quick\"\n[functions.quick]\nsource = \"quick.wasm\"\n[subscriptions.all]\nfunction = \"quick\"\nfilter = { type = \"*\" }\n"
)

// TestLoadHoldsNobodyUp: while a module takes its time to load, others apply, pause and remove what is theirs. A module that was loaded for
// a revision that is not the next any more is loaded again.
func TestLoadHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWorld()
	h := gated{Engine: deploy.InProcess(newEngine(t)), name: "slow.wasm", begun: make(chan struct{}, 2), release: make(chan struct{})}
	d := w.openWith(t, h)
	var slow sync.WaitGroup
	for variant := range 2 { // two of one app: the second to end finds that the other came first
		slow.Go(func() {
			if _, err := d.Apply(t.Context(), "token:t", "default", app(slowApp, byte(variant)), false, nil); err != nil {
				t.Errorf("Apply(slow) = %v", err)
			}
		})
	}
	<-h.begun
	<-h.begun
	apply(t, d, app(quickApp, 1))
	if _, err := d.SetPaused(t.Context(), "default", "all", true); err != nil {
		t.Errorf("SetPaused = %v", err)
	}
	if _, err := d.Apply(t.Context(), "token:t", "other", app(quickApp, 1), false, nil); err != nil {
		t.Errorf("Apply(quick) in another namespace = %v", err)
	}
	if err := d.RemoveNamespace(t.Context(), "other"); err != nil {
		t.Errorf("RemoveNamespace = %v", err)
	}
	if s := d.State("default"); s.Functions["slow"] != nil || !s.Subscriptions["all"].Paused {
		t.Error("a module is active that was not loaded, or the subscription is not paused")
	}
	close(h.release)
	slow.Wait()
	f := d.State("default").Functions["slow"]
	if f == nil || f.Revision != 2 {
		t.Fatalf("the function is %+v, want its revision 2", f)
	}
	c, done, err := f.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if _, _, err := c.Invoke(t.Context(), cell.Input{Event: []byte(`{}`)}); err != nil {
		t.Errorf("Invoke = %v", problem.From(err))
	}
}
