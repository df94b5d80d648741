package kvgrant_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/grant/kvgrant"
	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// world is a real store in a folder.
type world struct {
	dir    string
	keys   *keyring.Keyring
	admit  func(ident.Namespace, int64) (func(), error) // nil is always
	engine *store.Engine
	kind   *kvgrant.Kind
	now    time.Time
	mu     sync.Mutex
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func openWorld(ctx context.Context, dir string) (*world, error) {
	root, err := keyring.OpenRoot(filepath.Join(dir, "root.key"))
	if err != nil {
		return nil, err
	}
	engine, err := store.Open(ctx, store.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		return nil, err
	}
	keys, err := keyring.New(ctx, root, engine.WrappedKeys())
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	w := &world{dir: dir, keys: keys, engine: engine, now: time.Now()}
	w.kind = w.newKind()
	return w, nil
}

// newKind returns what a process has of the store.
func (w *world) newKind() *kvgrant.Kind {
	var kind *kvgrant.Kind
	kind = kvgrant.New(kvgrant.Config{
		Now: w.clock,
		Open: func(ctx context.Context, ns ident.Namespace, name string) (kvgrant.Storage, func(string) string, error) {
			sealer, err := w.keys.Sealer(ctx, ns, "kv")
			if err != nil {
				return nil, nil, err
			}
			bucket, err := w.engine.Bucket(ctx, "kv."+string(ns)+"."+name, sealer)
			return bucket, func(key string) string { return fmt.Sprintf("%x", sealer.MACStrings(name, key)) }, err
		},
		Names: func(ctx context.Context, ns ident.Namespace) ([]string, error) {
			prefix := "kv." + string(ns) + "."
			names, err := w.engine.BucketNames(ctx, prefix)
			for i := range names {
				names[i] = strings.TrimPrefix(names[i], prefix)
			}
			return names, err
		},
		Ready: func(ctx context.Context, ns ident.Namespace) error { return kind.Measure(ctx, ns) },
		Admit: func(ns ident.Namespace, n int64) (func(), error) {
			if w.admit == nil {
				return func() {}, nil
			}
			return w.admit(ns, n)
		},
	})
	return kind
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w, err := openWorld(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) door(t testing.TB, ns ident.Namespace, g manifest.KVGrant) grant.Door {
	t.Helper()
	if g.ValueSize == 0 {
		g.ValueSize = manifest.DefaultKVValue
	}
	if g.Quota == 0 {
		g.Quota = manifest.DefaultKVQuota
	}
	door, err := w.kind.Open(t.Context(), grant.Opening{Namespace: ns, Function: "f", Name: "kv", Grant: manifest.Grant{KV: &g, Limits: manifest.DefaultGrantLimits()}})
	if err != nil {
		t.Fatal(err)
	}
	return door
}

func do(t testing.TB, door grant.Door, op, request string) string {
	t.Helper()
	reply, err := door.Do(t.Context(), &grant.Call{Op: op, Request: []byte(request)})
	if err != nil {
		t.Fatalf("%s %s: %v (%v)", op, request, err, errors.Unwrap(err))
	}
	return string(reply.JSON)
}

func refused(t testing.TB, door grant.Door, op, request, code string) {
	t.Helper()
	_, err := door.Do(t.Context(), &grant.Call{Op: op, Request: []byte(request)})
	if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != code {
		t.Errorf("%s %.80s = %v; want %s", op, request, err, code)
	}
	switch code {
	case "grant.kv_full", "grant.kv_not_a_number", "namespace.storage_full":
		return // which depends on what is there
	}
	refusedInRehearsal(t, door, op, request, code)
}

type value struct {
	Value   any    `json:"value"`
	Version uint64 `json:"version"`
	Set     bool   `json:"set"`
	Expires string `json:"expires"`
}

func decode(t testing.TB, text string) (v value) {
	t.Helper()
	if text == "" {
		return v
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestSetAndGet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "carts"})
	if got := do(t, door, "get", `{"key":"a"}`); got != "" {
		t.Errorf("get of nothing = %s", got)
	}
	first := decode(t, do(t, door, "set", `{"key":"a","value":{"n":1}}`))
	got := decode(t, do(t, door, "get", `{"key":"a"}`))
	if fmt.Sprint(got.Value) != "map[n:1]" || got.Version != first.Version || !first.Set {
		t.Errorf("get = %+v after set = %+v", got, first)
	}
	reply, err := door.Do(t.Context(), &grant.Call{Op: "set", Request: []byte(`{"key":"b"}`), Body: []byte{0, 255}})
	if err != nil {
		t.Fatal(err)
	}
	if reply, err = door.Do(t.Context(), &grant.Call{Op: "get", Request: []byte(`{"key":"b"}`)}); err != nil || !bytes.Equal(reply.Body, []byte{0, 255}) {
		t.Errorf("bytes come back as %v, %v", reply.Body, err)
	}
	if got := do(t, door, "delete", `{"key":"a"}`); got != `{"deleted":true}` {
		t.Errorf("delete = %s", got)
	}
	if got := do(t, door, "delete", `{"key":"a"}`); got != `{"deleted":false}` {
		t.Errorf("delete again = %s", got)
	}
	if got := do(t, door, "get", `{"key":"a"}`); got != "" {
		t.Errorf("get after delete = %s", got)
	}
	again := decode(t, do(t, door, "set", `{"key":"a","value":1}`))
	if again.Version <= first.Version {
		t.Errorf("version %d after %d", again.Version, first.Version)
	}
}

// TestNoBytes: from a worker no bytes come as bytes of no length. Beside a value they are none, and without one they are the value.
func TestNoBytes(t *testing.T) {
	t.Parallel()
	door := newWorld(t).door(t, "shop", manifest.KVGrant{Bucket: "carts"})
	for request, want := range map[string]string{`{"key":"a","value":{"x":1}}`: `{"value":{"x":1},"version":`, `{"key":"a"}`: `{"version":`} {
		if _, err := door.Do(t.Context(), &grant.Call{Op: "set", Request: []byte(request), Body: []byte{}}); err != nil {
			t.Errorf("set %s: %v", request, err)
		}
		if got := do(t, door, "get", `{"key":"a"}`); !strings.HasPrefix(got, want) {
			t.Errorf("after set %s there is %s; want %s", request, got, want)
		}
	}
	_, err := door.Do(t.Context(), &grant.Call{Op: "set", Request: []byte(`{"key":"a","value":1}`), Body: []byte{1}})
	if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != "grant.kv_request" {
		t.Errorf("a value and bytes: %v; want grant.kv_request", err)
	}
}

func TestCompareAndSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "carts"})
	first := decode(t, do(t, door, "compareAndSet", `{"key":"a","version":0,"value":1}`))
	if !first.Set {
		t.Fatal("a key that is not there cannot be made")
	}
	if again := decode(t, do(t, door, "compareAndSet", `{"key":"a","version":0,"value":2}`)); again.Set || again.Version != first.Version {
		t.Errorf("made again: %+v", again)
	}
	second := decode(t, do(t, door, "compareAndSet", fmt.Sprintf(`{"key":"a","version":%d,"value":3}`, first.Version)))
	if !second.Set || second.Version <= first.Version {
		t.Errorf("replaced: %+v after %+v", second, first)
	}
	if got := do(t, door, "delete", fmt.Sprintf(`{"key":"a","version":%d}`, first.Version)); got != `{"deleted":false}` {
		t.Errorf("delete of an old version = %s", got)
	}
}

// Concurrent users who read, add and compareAndSet lose nothing: the sum is the number of their successes.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const users, each = 8, 25
	var running sync.WaitGroup
	for range users {
		door := w.door(t, "shop", manifest.KVGrant{Bucket: "counts"})
		running.Go(func() {
			seen := uint64(0)
			for range each {
				for {
					current := decode(t, do(t, door, "get", `{"key":"n"}`))
					if current.Version < seen {
						t.Errorf("version %d was read after %d", current.Version, seen)
					}
					n, _ := current.Value.(float64)
					next := decode(t, do(t, door, "compareAndSet", fmt.Sprintf(`{"key":"n","version":%d,"value":%v}`, current.Version, n+1)))
					seen = next.Version
					if next.Set {
						break
					}
				}
				do(t, door, "increment", `{"key":"m"}`)
			}
		})
	}
	running.Wait()
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "counts"})
	for _, key := range []string{"n", "m"} {
		if got := decode(t, do(t, door, "get", fmt.Sprintf(`{"key":%q}`, key))); got.Value != float64(users*each) {
			t.Errorf("%s = %v; want %d", key, got.Value, users*each)
		}
	}
}

// No door reaches the keys of another prefix, bucket or namespace.
func TestSpaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	doors := map[string]grant.Door{
		"shop":   w.door(t, "shop", manifest.KVGrant{Bucket: "carts"}),
		"bank":   w.door(t, "bank", manifest.KVGrant{Bucket: "carts"}),
		"bucket": w.door(t, "shop", manifest.KVGrant{Bucket: "others"}),
		"one":    w.door(t, "shop", manifest.KVGrant{Bucket: "parts", Prefix: "one/"}),
		"two":    w.door(t, "shop", manifest.KVGrant{Bucket: "parts", Prefix: "two/"}),
	}
	for name, door := range doors {
		do(t, door, "set", fmt.Sprintf(`{"key":"k","value":%q}`, name))
	}
	for name, door := range doors {
		if got := decode(t, do(t, door, "get", `{"key":"k"}`)); got.Value != name {
			t.Errorf("%s reads %v", name, got.Value)
		}
		for _, key := range []string{"one/k", "two/k", "../two/k", "../k", "carts/k"} {
			if got := do(t, door, "get", fmt.Sprintf(`{"key":%q}`, key)); got != "" {
				t.Errorf("%s reads %s at %s", name, got, key)
			}
		}
		for _, prefix := range []string{"", "k"} {
			if got := do(t, door, "list", fmt.Sprintf(`{"prefix":%q}`, prefix)); strings.Count(got, `"key"`) != 1 || !strings.Contains(got, `"key":"k"`) {
				t.Errorf("%s lists %s", name, got)
			}
		}
	}
}

func TestTTL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "carts", TTL: time.Hour, Quota: 500})
	do(t, door, "set", `{"key":"short","value":1,"ttl":60}`)
	do(t, door, "set", `{"key":"long","value":1}`)
	refused(t, door, "set", `{"key":"a","value":1,"ttl":3601}`, "grant.kv_request")
	refused(t, door, "set", `{"key":"a","value":1,"ttl":-1}`, "grant.kv_request")
	refused(t, door, "set", `{"key":"a","value":1,"ttl":1e300}`, "grant.kv_request")
	w.pass(time.Minute)
	if got := do(t, door, "get", `{"key":"short"}`); got != "" {
		t.Errorf("get after its time = %s", got)
	}
	if got := do(t, door, "list", `{}`); strings.Contains(got, "short") || !strings.Contains(got, "long") {
		t.Errorf("list = %s", got)
	}
	if got := decode(t, do(t, door, "compareAndSet", `{"key":"short","version":0,"value":2}`)); !got.Set {
		t.Error("a key whose time is over cannot be made")
	}
	// Values whose time is over make room.
	for i := range 4 {
		do(t, door, "set", fmt.Sprintf(`{"key":"k%d","value":1}`, i))
	}
	refused(t, door, "set", fmt.Sprintf(`{"key":"k","value":%q}`, strings.Repeat("x", 200)), "grant.kv_full")
	w.pass(2 * time.Hour)
	do(t, door, "set", fmt.Sprintf(`{"key":"k","value":%q}`, strings.Repeat("x", 200)))
}

func TestLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "carts", Prefix: "p/"})
	for i := range 25 {
		do(t, door, "set", fmt.Sprintf(`{"key":"k%02d","value":%d}`, i, i))
	}
	do(t, door, "set", `{"key":"other","value":1}`)
	var seen []string
	after := ""
	for range 10 {
		var page struct {
			Keys []struct {
				Key string `json:"key"`
			} `json:"keys"`
			After string `json:"after"`
		}
		if err := json.Unmarshal([]byte(do(t, door, "list", fmt.Sprintf(`{"prefix":"k","limit":10,"after":%q}`, after))), &page); err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Keys {
			seen = append(seen, k.Key)
		}
		if after = page.After; after == "" {
			break
		}
	}
	if len(seen) != 25 || seen[0] != "k00" || seen[24] != "k24" {
		t.Errorf("pages have %v", seen)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "carts", ValueSize: 10, Quota: 300})
	for _, test := range []struct{ op, request, code string }{
		{"set", `{"key":"a","value":"0123456789"}`, "grant.kv_too_large"},
		{"set", fmt.Sprintf(`{"key":%q,"value":1}`, strings.Repeat("k", 513)), "grant.kv_too_large"},
		{"set", `{"key":"","value":1}`, "grant.kv_request"},
		{"set", `{"key":"a\u0000","value":1}`, "grant.kv_request"},
		{"set", `{"key":"a","value":1,"version":0}`, "grant.kv_request"},
		{"set", `{"key":"a","value":1,"prefix2":0}`, "grant.kv_request"},
		{"compareAndSet", `{"key":"a","value":1}`, "grant.kv_request"},
		{"drop", `{"key":"a"}`, "grant.kv_request"},
		{"list", `{"limit":1001}`, "grant.kv_request"},
		{"get", `[]`, "grant.kv_request"},
	} {
		refused(t, door, test.op, test.request, test.code)
	}
	for i := range 4 {
		do(t, door, "set", fmt.Sprintf(`{"key":"k%d","value":1}`, i))
	}
	refused(t, door, "set", `{"key":"k4","value":1}`, "grant.kv_full")
	do(t, door, "set", `{"key":"k0","value":2}`) // in place of one that is there
	if _, err := door.Do(t.Context(), &grant.Call{Op: "increment", Request: []byte(`{"key":"k0","by":9007199254740991}`)}); problem.From(err).Code != "grant.kv_request" {
		t.Errorf("an increment beyond what is exact = %v", err)
	}
	do(t, door, "delete", `{"key":"k1"}`)
	do(t, door, "set", `{"key":"k1","value":"text"}`)
	refused(t, door, "increment", `{"key":"k1"}`, "grant.kv_not_a_number")
	reader := w.door(t, "shop", manifest.KVGrant{Bucket: "carts", ReadOnly: true})
	do(t, reader, "get", `{"key":"k0"}`)
	for _, op := range []string{"set", "compareAndSet", "delete", "increment"} {
		refused(t, reader, op, `{"key":"k0"}`, "grant.kv_read_only")
	}
}

// What is on disk holds neither keys nor values, and a restart changes nothing.
func TestSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, err := openWorld(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "carts"})
	set := decode(t, do(t, door, "set", `{"key":"jane@example.org","value":"4111-1111"}`))
	if err := w.engine.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		for _, clear := range []string{"jane", "4111"} {
			if bytes.Contains(content, []byte(clear)) || strings.Contains(path, clear) {
				t.Errorf("%s has %q in clear", path, clear)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files, %v", files, err)
	}
	if w, err = openWorld(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	door = w.door(t, "shop", manifest.KVGrant{Bucket: "carts"})
	if got := decode(t, do(t, door, "get", `{"key":"jane@example.org"}`)); got.Value != "4111-1111" || got.Version != set.Version {
		t.Errorf("after a restart: %+v", got)
	}
	if err := w.engine.Close(); err != nil {
		t.Fatal(err)
	}
}

// childFolder tells the test binary that it is the process which is killed.
const childFolder = "SALLYPORT_TEST_KV_FOLDER"

// TestKill kills a process that increments a value, again and again: what it was told is there.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childFolder); dir != "" {
		child(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	last := int64(0)
	for round := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), childFolder+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for heard := 0; lines.Scan(); {
			n, err := strconv.ParseInt(strings.TrimPrefix(lines.Text(), "acknowledged "), 10, 64)
			if err != nil {
				t.Fatalf("the child says %q", lines.Text())
			}
			if n <= last {
				t.Fatalf("round %d: %d was acknowledged after %d", round, n, last)
			}
			last = n
			if heard++; heard == 10+round*7 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
	}
	if last < 100 {
		t.Fatalf("only %d were acknowledged", last)
	}
}

func child(t *testing.T, dir string) {
	w, err := openWorld(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "counts"})
	for {
		fmt.Printf("acknowledged %v\n", decode(t, do(t, door, "increment", `{"key":"n"}`)).Value)
	}
}

func BenchmarkGet(b *testing.B) {
	w := newWorld(b)
	door := w.door(b, "shop", manifest.KVGrant{Bucket: "carts"})
	do(b, door, "set", fmt.Sprintf(`{"key":"cart-17","value":%q}`, strings.Repeat("x", 1000)))
	call := &grant.Call{Op: "get", Request: []byte(`{"key":"cart-17"}`)}
	for b.Loop() {
		if _, err := door.Do(b.Context(), call); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSet(b *testing.B) {
	w := newWorld(b)
	door := w.door(b, "shop", manifest.KVGrant{Bucket: "carts"})
	call := &grant.Call{Op: "set", Request: fmt.Appendf(nil, `{"key":"cart-17","value":%q}`, strings.Repeat("x", 1000))}
	for b.Loop() {
		if _, err := door.Do(b.Context(), call); err != nil {
			b.Fatal(err)
		}
	}
}
