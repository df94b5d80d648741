package secret_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/internal/event"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/redact"
	"sallyport/internal/secret"
	"sallyport/internal/store"
)

// disk is what survives a crash: wrapped keys and a bucket of each namespace. Each write can be the last.
type disk struct {
	mu     sync.Mutex
	values map[string][]byte
	writes int
	// crashAt, when positive, has that write and everything after it fail: the process is dead.
	crashAt int
	after   bool // the write at which it crashes is made
	dead    bool
}

func newDisk() *disk { return &disk{values: map[string][]byte{}} }

var errDead = errors.New("the process is dead")

// write makes one write, unless the process is dead or dies of it.
func (d *disk) write(do func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errDead
	}
	d.writes++
	if d.crashAt == d.writes {
		d.dead = true
		if d.after {
			do()
		}
		return errDead
	}
	do()
	return nil
}

func (d *disk) get(key string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, errDead
	}
	if v, ok := d.values[key]; ok {
		return bytes.Clone(v), nil
	}
	return nil, fmt.Errorf("get %s: %w", key, fs.ErrNotExist)
}

// wrapped is the disk as the keyring sees it, and bucket as the store of secrets does.
type wrapped struct{ d *disk }

func (w wrapped) Get(_ context.Context, name string) ([]byte, error) { return w.d.get("keys/" + name) }
func (w wrapped) Put(_ context.Context, name string, v []byte) error {
	return w.d.write(func() { w.d.values["keys/"+name] = bytes.Clone(v) })
}
func (w wrapped) Names(context.Context, string) ([]string, error) { return nil, nil }
func (w wrapped) Delete(_ context.Context, name string) error {
	return w.d.write(func() { delete(w.d.values, "keys/"+name) })
}

type bucket struct {
	d      *disk
	prefix string
}

func (b bucket) Get(_ context.Context, key string) ([]byte, error) {
	v, err := b.d.get(b.prefix + key)
	if errors.Is(err, fs.ErrNotExist) {
		err = store.ErrNotFound
	}
	return v, err
}

func (b bucket) Put(_ context.Context, key string, v []byte) error {
	return b.d.write(func() { b.d.values[b.prefix+key] = bytes.Clone(v) })
}

func (b bucket) Delete(_ context.Context, key string) error {
	return b.d.write(func() { delete(b.d.values, b.prefix+key) })
}

func (b bucket) Keys(_ context.Context, prefix, _ string, _ int) (out []string, err error) {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(b.d.values)) {
		if after, ok := strings.CutPrefix(k, b.prefix); ok && strings.HasPrefix(after, prefix) {
			out = append(out, after)
		}
	}
	return out, nil
}

func (b bucket) List(ctx context.Context, prefix, _ string, _ int) (out []store.Entry, err error) {
	keys, err := b.Keys(ctx, prefix, "", 0)
	for _, k := range keys {
		v, err := b.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		out = append(out, store.Entry{Key: k, Value: v})
	}
	return out, err
}

// world is a store of secrets over a disk.
type world struct {
	*secret.Store
	disk    *disk
	root    string
	log     *bytes.Buffer
	mu      sync.Mutex
	touches []secret.Touch
	deny    error
	outside *secret.Outside
	hidden  redact.Live
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{disk: newDisk(), root: filepath.Join(t.TempDir(), "root.key")}
	w.start(t)
	return w
}

// start starts the store anew, from what is on the disk.
func (w *world) start(t testing.TB) {
	t.Helper()
	root, err := keyring.OpenRoot(w.root)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.New(t.Context(), root, wrapped{w.disk})
	if err != nil {
		t.Fatal(err)
	}
	w.log = &bytes.Buffer{}
	s := secret.New(secret.Config{
		Open: func(ctx context.Context, ns ident.Namespace) (secret.Bucket, secret.Safe, error) {
			safe, err := keys.Safe(ctx, ns, "secrets")
			return bucket{w.disk, "bucket/" + string(ns) + "/"}, safe, err
		},
		Permit: func(context.Context, grant.Use, ident.Namespace, string, bool) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.deny
		},
		Touched: func(x secret.Touch) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.touches = append(w.touches, x)
		},
		Outside: w.outside, Hidden: &w.hidden, Logger: slog.New(slog.NewTextHandler(&locked{w: w.log}, nil)),
	})
	w.Store = s
	t.Cleanup(func() { _ = s.Close() }) // a dead disk fails it
}

// locked is a writer that several goroutines may use.
type locked struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

const shop ident.Namespace = "shop"

func (w *world) set(t testing.TB, name ident.SecretName, value string) {
	t.Helper()
	if _, err := w.Set(t.Context(), shop, name, []byte(value), secret.Setting{By: "user:ann"}); err != nil {
		t.Fatal(err)
	}
}

// value returns what a reference gives a function, or the code of the problem in brackets.
func (w *world) value(t testing.TB, ref string) string {
	t.Helper()
	v, err := w.Value(t.Context(), shop, ref, use)
	if err != nil {
		return "[" + code(err) + "]"
	}
	return string(v)
}

var use = grant.Use{Caller: grant.Caller{Namespace: shop, Function: "price", Revision: 3, Grant: "stripe", Event: &event.Record{Event: event.Event{ID: "e-1"}, Principal: "user:ann"}}}
