package kvgrant_test

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// quota is a namespace's part of the disk, as the server has it.
type quota struct {
	w      *world
	mu     sync.Mutex
	limit  int64
	flying int64
	asked  int
}

func (q *quota) admit(ns ident.Namespace, n int64) (func(), error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked++
	if q.w.kind.Stored(ns)+q.flying+n > q.limit {
		return nil, problem.New(problem.Exhausted, "namespace.storage_full", "no room for %d", n)
	}
	q.flying += n
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.flying -= n
	}, nil
}

// TestStoredBytes: what takes more of the disk is asked for, what deletes, replaces and ends gives back, and a process that comes after counts the same.
func TestStoredBytes(t *testing.T) {
	t.Parallel()
	q := &quota{limit: 20_000}
	w := newWorld(t)
	q.w = w
	w.admit = q.admit
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "carts"})
	value := strings.Repeat("v", 4000)
	set := func(key string, size int) string { return fmt.Sprintf(`{"key":%q,"value":%q}`, key, value[:size]) }
	for i := range 4 {
		do(t, door, "set", set(fmt.Sprint(i), 4000))
	}
	refused(t, door, "set", set("4", 4000), "namespace.storage_full")
	do(t, door, "get", `{"key":"3"}`)
	asked := q.asked
	do(t, door, "set", set("3", 3000)) // which takes less than before
	do(t, door, "delete", `{"key":"2"}`)
	if q.asked != asked {
		t.Error("a change was asked for that takes nothing")
	}
	do(t, door, "set", set("5", 4000))
	do(t, door, "set", set("3", 4000))
	refused(t, door, "set", set("6", 4000), "namespace.storage_full")
	do(t, door, "delete", `{"key":"5"}`)
	do(t, door, "set", `{"key":"short","ttl":60,"value":"`+value+`"}`)
	refused(t, door, "set", set("6", 4000), "namespace.storage_full")
	w.pass(time.Hour)
	do(t, door, "set", set("6", 4000)) // in the place of the value whose time is over
	do(t, door, "increment", `{"key":"n"}`)
	stored := w.kind.Stored("shop")

	again := w.newKind()
	if got := again.Stored("shop"); got != 0 {
		t.Errorf("%d bytes before anything was measured", got)
	}
	if err := again.Measure(t.Context(), "shop"); err != nil || again.Stored("shop") != stored {
		t.Errorf("measured %d bytes, %v; there are %d", again.Stored("shop"), err, stored)
	}
	if err := again.Measure(t.Context(), "bank"); err != nil || again.Stored("bank") != 0 {
		t.Errorf("another namespace has %d bytes, %v", again.Stored("bank"), err)
	}
	w.kind = again
	q.limit = 0
	door = w.door(t, "shop", manifest.KVGrant{Bucket: "carts"})
	refused(t, door, "increment", `{"key":"m"}`, "namespace.storage_full")
	for _, key := range []string{"0", "1", "3", "6", "n"} {
		if got := do(t, door, "delete", fmt.Sprintf(`{"key":%q}`, key)); got != `{"deleted":true}` {
			t.Errorf("delete %s = %s", key, got)
		}
	}
	if got := w.kind.Stored("shop"); got != 0 {
		t.Errorf("%d bytes are left", got)
	}
}

// TestStoredBytesOfMany: buckets that are filled at once do not exceed the quota together.
func TestStoredBytesOfMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := &quota{w: w, limit: 100_000}
	w.admit = q.admit
	var running sync.WaitGroup
	for i := range 4 {
		door := w.door(t, "shop", manifest.KVGrant{Bucket: fmt.Sprint("b", i%3)})
		running.Go(func() {
			for n := range 100 {
				_, err := door.Do(t.Context(), &grant.Call{Op: "set", Request: fmt.Appendf(nil, `{"key":"%d-%d","value":%q}`, i, n, strings.Repeat("v", 1000))})
				if stored := w.kind.Stored("shop"); stored > q.limit {
					t.Errorf("%d bytes are stored", stored)
				}
				if err != nil {
					if problem.From(err).Code != "namespace.storage_full" {
						t.Error(err)
					}
					return
				}
			}
			t.Error("nothing was refused")
		})
	}
	running.Wait()
	if stored := w.kind.Stored("shop"); stored < 98_000 {
		t.Errorf("%d bytes are stored of %d", stored, q.limit)
	}
}

// TestStoredBytesAreEnough: what is counted for small values is not less than what the store's files grow by.
func TestStoredBytesAreEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.size(t)
	door := w.door(t, "shop", manifest.KVGrant{Bucket: "carts"})
	for i := range 500 {
		do(t, door, "set", fmt.Sprintf(`{"key":"%d","value":1}`, i))
	}
	grown, counted := w.size(t)-before, w.kind.Stored("shop")
	if grown > counted || counted > 3*grown {
		t.Errorf("500 values count %d bytes, and the files grew by %d", counted, grown)
	}
}

// size is that of the files of messages in the store.
func (w *world) size(t testing.TB) (n int64) {
	t.Helper()
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".blk" {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
