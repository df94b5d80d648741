package deploy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/deploy"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/store"
)

var errDisk = errors.New("disk is gone")

// world is everything that outlives a Deployer, and can be told to fail.
type world struct {
	mu         sync.Mutex
	apps       map[string][]byte
	blobs      map[string][]byte
	namespaces map[ident.Namespace]bool
	within     func(ident.Namespace, deploy.Held) error
	end        ident.Position
	// writes counts what was written; the write failAt and all after it fail.
	writes, failAt int
	// lateFail has the Put of an app fail after it was made.
	lateFail bool
	failRead error // of blobs
	failEnd  error
	// approvals has everything demanded; failApproval fails the writes of approvals.
	approvals    bool
	failApproval bool
	pending      map[string][]byte
	// lastUsed is when each grant was used last.
	lastUsed time.Time
	kinds    grant.Registry
}

// pendingBucket is where approvals are.
type pendingBucket struct{ *world }

func (w pendingBucket) Get(_ context.Context, key string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v, ok := w.pending[key]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (w pendingBucket) Put(ctx context.Context, key string, value []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failApproval {
		return errDisk
	}
	if err := errors.Join(ctx.Err(), w.write()); err != nil {
		return err
	}
	w.pending[key] = bytes.Clone(value)
	return nil
}

func (w pendingBucket) Delete(_ context.Context, key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pending, key)
	return nil
}

func (w pendingBucket) List(context.Context, string, string, int) ([]store.Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []store.Entry
	for _, k := range slices.Sorted(maps.Keys(w.pending)) {
		out = append(out, store.Entry{Key: k, Value: w.pending[k]})
	}
	return out, nil
}

// write counts a write and reports whether it fails. w.mu is held.
func (w *world) write() error {
	w.writes++
	if w.failAt > 0 && w.writes >= w.failAt {
		return errDisk
	}
	return nil
}

// kept returns the names of the blobs.
func (w *world) kept() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.blobs))
}

func newWorld() *world {
	return &world{apps: map[string][]byte{}, blobs: map[string][]byte{}, pending: map[string][]byte{}, namespaces: map[ident.Namespace]bool{}, end: 5 << ident.PositionIndexBits}
}

type bucket struct{ *world }

func (w bucket) Get(_ context.Context, key string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v, ok := w.apps[key]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (w bucket) Put(ctx context.Context, key string, value []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := errors.Join(ctx.Err(), w.write()); err != nil {
		return err
	}
	w.apps[key] = bytes.Clone(value)
	if w.lateFail {
		return store.ErrStalled
	}
	return nil
}

func (w bucket) Delete(_ context.Context, key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.write(); err != nil {
		return err
	}
	delete(w.apps, key)
	return nil
}

// namespaces notes which namespaces were made.
type namespaces struct{ *world }

func (w namespaces) Ensure(ctx context.Context, ns ident.Namespace) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.namespaces[ns] {
		return nil
	}
	if err := errors.Join(ctx.Err(), w.write()); err != nil {
		return err
	}
	w.namespaces[ns] = true
	return nil
}

func (w bucket) List(_ context.Context, prefix, _ string, _ int) ([]store.Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []store.Entry
	for _, k := range slices.Sorted(maps.Keys(w.apps)) {
		if strings.HasPrefix(k, prefix) {
			out = append(out, store.Entry{Key: k, Value: w.apps[k]})
		}
	}
	return out, nil
}

type blobs struct{ *world }

func (w blobs) Put(_ context.Context, content []byte) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.write(); err != nil {
		return "", err
	}
	sum := sha256.Sum256(content)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	w.world.blobs[digest] = bytes.Clone(content)
	return digest, nil
}

func (w blobs) Get(_ context.Context, digest string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failRead != nil {
		return nil, w.failRead
	}
	if v, ok := w.world.blobs[digest]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (w blobs) Delete(_ context.Context, digest string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.write(); err != nil {
		return err
	}
	delete(w.world.blobs, digest)
	return nil
}

func newEngine(t testing.TB) *cell.Engine {
	t.Helper()
	e, err := cell.New(t.Context(), cell.Default())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// open returns a Deployer on what w holds, as after a start.
func (w *world) open(t testing.TB) *deploy.Deployer {
	t.Helper()
	d, err := w.tryOpen(t)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// openWith is open with an engine of the test's own.
func (w *world) openWith(t testing.TB, e deploy.Engine) *deploy.Deployer {
	t.Helper()
	d, err := deploy.New(t.Context(), w.config(e))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) tryOpen(t testing.TB) (*deploy.Deployer, error) {
	t.Helper()
	return deploy.New(t.Context(), w.config(deploy.InProcess(newEngine(t))))
}

func (w *world) config(e deploy.Engine) deploy.Config {
	return deploy.Config{
		Apps: bucket{w}, Blobs: blobs{w}, Namespaces: namespaces{w}, Within: w.within, Engine: e, Memory: 1 << 30,
		End:       func(context.Context, ident.Namespace) (ident.Position, error) { return w.end, w.failEnd },
		Approvals: pendingBucket{w}, ApprovalDemanded: func(ident.Namespace) bool { return w.approvals },
		LastUsed:  func(ident.Namespace, ident.FunctionName, string) time.Time { return w.lastUsed },
		Authority: func(context.Context) (string, error) { return "as", nil },
		Grants:    grant.Config{Kinds: w.kinds},
	}
}

// module returns a WASI command that does nothing; variant makes its digest another.
func module(variant byte) api.Module {
	code := []byte("\x00asm\x01\x00\x00\x00" +
		"\x01\x04\x01\x60\x00\x00" + // type 0: func()
		"\x03\x02\x01\x00" + // function 0 is of type 0
		"\x05\x03\x01\x00\x01" + // memory 0 of one page
		"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" + // both exported
		"\x0a\x04\x01\x02\x00\x0b" + // function 0 returns
		"\x00\x02\x01") // a custom section of one byte
	return api.Module{Kind: api.ModuleWasm, Code: append(code, variant)}
}

// digestOf returns the name of the blob of module(variant).
func digestOf(variant byte) string {
	sum := sha256.Sum256(module(variant).Code)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// app returns a bundle: manifest, and module(variant) for each function that it says has its source
// in NAME.wasm.
func app(manifest string, variant byte) *api.Bundle {
	b := &api.Bundle{Manifest: manifest, Modules: map[string]api.Module{}, Schemas: map[string]string{}}
	for _, m := range regexp.MustCompile(`source = "(.*)\.wasm"`).FindAllStringSubmatch(manifest, -1) {
		b.Modules[m[1]] = module(variant)
	}
	for _, m := range regexp.MustCompile(`schema = "(.*)"`).FindAllStringSubmatch(manifest, -1) {
		b.Schemas[m[1]] = `{"type":"object"}`
	}
	return b
}

// apply applies b to the namespace default, which must succeed, and returns the plan in words.
func apply(t testing.TB, d *deploy.Deployer, b *api.Bundle) []string {
	t.Helper()
	plan, err := d.Apply(t.Context(), "token:t", "default", b, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return words(plan)
}

func words(plan *api.Plan) []string {
	out := []string{fmt.Sprint(plan.App, " ", plan.Revision)}
	for _, c := range plan.Changes {
		out = append(out, strings.TrimSpace(fmt.Sprint(c.Action, " ", c.Kind, " ", c.Name, ": ", c.Detail)))
	}
	return out
}

// show returns all that is active in a namespace, in words.
func show(d *deploy.Deployer, ns ident.Namespace) []string {
	var out []string
	s := d.State(ns)
	for _, f := range s.Functions {
		out = append(out, fmt.Sprintf("function %+v", f.Describe()))
	}
	for n, e := range s.EventTypes {
		out = append(out, fmt.Sprintf("event type %s of %s, schema %t", n, e.App, e.Schema != nil))
	}
	for _, sub := range s.Subscriptions {
		out = append(out, fmt.Sprintf("subscription %+v from %s", sub.Describe(), sub.From))
	}
	slices.Sort(out)
	return out
}
