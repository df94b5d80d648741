package store_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"sallyport/internal/store"
)

// TestDestroyedKeyIsNowhere looks for a destroyed wrapped key in every file of the store, before and after it is closed.
func TestDestroyedKeyIsNowhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	w := e.WrappedKeys()
	keys := map[string][]byte{}
	for i := range 20 {
		key := make([]byte, 100)
		_, _ = rand.Read(key)
		keys[fmt.Sprint("value/default/secrets/a/", i)] = key
	}
	for name, key := range keys {
		if err := w.Put(t.Context(), name, key); err != nil {
			t.Fatal(err)
		}
	}
	const gone = "value/default/secrets/a/7"
	if n := filesWith(t, dir, keys[gone]); n == 0 {
		t.Fatal("the key is in no file: the search is wrong")
	}
	if err := w.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if n := filesWith(t, dir, keys[gone]); n > 0 {
		t.Errorf("the destroyed key is in %d files", n)
	}
	if err := w.Delete(t.Context(), gone); err != nil {
		t.Errorf("destroyed again: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if n := filesWith(t, dir, keys[gone]); n > 0 {
		t.Errorf("after Close the destroyed key is in %d files", n)
	}
	if e, err = store.Open(t.Context(), store.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	for name, key := range keys {
		got, err := e.WrappedKeys().Get(t.Context(), name)
		if name == gone && !errors.Is(err, store.ErrNotFound) || name != gone && !bytes.Equal(got, key) {
			t.Errorf("Get(%s) = %x, %v", name, got, err)
		}
	}
}

func filesWith(t *testing.T, dir string, part []byte) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, part) {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
