package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/store"
)

// TestDeleteStream: a stream that is deleted and made anew begins at 1 and has nothing in it, after a restart too.
func TestDeleteStream(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	s, other := openStream(t, e, "events-shop"), openStream(t, e, "events-shop-2")
	for _, s := range []*store.Stream{s, other} {
		if _, err := s.Publish(t.Context(), []byte("old"), store.AnyLast); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := e.DeleteStream(t.Context(), store.StreamConfig{Name: "events-shop"}); err != nil {
			t.Fatal(err)
		}
	}
	s = openStream(t, e, "events-shop")
	closeEngine(t, e)
	e = open(t, dir)
	s, other = openStream(t, e, "events-shop"), openStream(t, e, "events-shop-2")
	if st, err := s.State(t.Context()); err != nil || st.Last != 0 || st.Messages != 0 {
		t.Errorf("State = %+v, %v", st, err)
	}
	if st, err := other.State(t.Context()); err != nil || st.Messages != 1 {
		t.Errorf("State of another = %+v, %v", st, err)
	}
	if err := e.DeleteStream(t.Context(), store.StreamConfig{Name: "a.b"}); err == nil {
		t.Error("a name that is none was taken")
	}
}

// TestDestroyedKeyIsOverwritten looks for the bytes of a wrapped key in every file, before and after it was deleted.
func TestDestroyedKeyIsOverwritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	w := e.WrappedKeys()
	for _, name := range []string{"namespace/shop", "namespace/shop-2", "segment/shop/events/current", "segment/shop-2/events/current"} {
		if err := w.Put(t.Context(), name, []byte("marker of "+name+".")); err != nil {
			t.Fatal(err)
		}
	}
	names, err := w.Names(t.Context(), "segment/shop/")
	if diff := cmp.Diff([]string{"segment/shop/events/current"}, names); err != nil || diff != "" {
		t.Errorf("Names: %v (-want +got):\n%s", err, diff)
	}
	if !onDisk(t, dir, "marker of namespace/shop.") {
		t.Fatal("the marker is not found while it is there: the test looks in the wrong place")
	}
	for range 2 {
		if err := w.Delete(t.Context(), "namespace/shop"); err != nil {
			t.Fatal(err)
		}
	}
	if onDisk(t, dir, "marker of namespace/shop.") {
		t.Error("the bytes of a key that was deleted are on the disk")
	}
	closeEngine(t, e)
	w = open(t, dir).WrappedKeys()
	if _, err := w.Get(t.Context(), "namespace/shop"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get after a restart = %v", err)
	}
	if got, err := w.Get(t.Context(), "namespace/shop-2"); err != nil || string(got) != "marker of namespace/shop-2." {
		t.Errorf("Get of another = %q, %v", got, err)
	}
}

func onDisk(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	b, other := openBucket(t, e, "usage-shop"), openBucket(t, e, "usage-shop-2")
	for _, key := range []string{"a", "b", "c"} {
		put(t, b, key, "1")
		put(t, other, key, "2")
	}
	put(t, openBucket(t, e, "kv-shop.a"), "k", "1")
	put(t, openBucket(t, e, "kv-shop-2.a"), "k", "1")
	if names, err := e.BucketNames(t.Context(), "kv-shop."); err != nil || !slices.Equal(names, []string{"kv-shop.a"}) {
		t.Errorf("BucketNames = %q, %v", names, err)
	}
	for range 2 {
		if err := b.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	closeEngine(t, e)
	e = open(t, dir)
	if got := list(t, openBucket(t, e, "usage-shop"), "", "", 0); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	if got := list(t, openBucket(t, e, "usage-shop-2"), "", "", 0); !slices.Equal(got, []string{"a=2", "b=2", "c=2"}) {
		t.Errorf("another has %v", got)
	}
}
