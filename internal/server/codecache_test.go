package server_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"sallyport/internal/keyring"
	"sallyport/internal/server"
)

// wrappedKeys keeps wrapped keys in memory.
type wrappedKeys map[string][]byte

func (w wrappedKeys) Get(_ context.Context, name string) ([]byte, error) {
	if value, ok := w[name]; ok {
		return value, nil
	}
	return nil, fs.ErrNotExist
}

func (w wrappedKeys) Put(_ context.Context, name string, value []byte) error {
	w[name] = bytes.Clone(value)
	return nil
}

func (w wrappedKeys) Names(context.Context, string) ([]string, error) { return nil, nil }

func (w wrappedKeys) Delete(_ context.Context, name string) error {
	delete(w, name)
	return nil
}

func newSealer(t *testing.T) *keyring.Sealer {
	t.Helper()
	dir := t.TempDir()
	root, err := keyring.OpenRoot(filepath.Join(dir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.New(t.Context(), root, wrappedKeys{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.Sealer(t.Context(), "", "code")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCodeCache: what comes out is what went in, or nothing: code is executed.
func TestCodeCache(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "code")
	c, err := server.NewCodeCache(dir, newSealer(t), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	code := bytes.Repeat([]byte("code of a function. "), 100)
	c.Put("code-1", code)
	if got := c.Get("code-1"); !bytes.Equal(got, code) {
		t.Fatalf("Get = %.40q; want what was put", got)
	}
	if c.Get("code-2") != nil {
		t.Error("Get of what was not put is not nil")
	}
	sealed, err := os.ReadFile(filepath.Join(dir, "code-1"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, code[:20]) {
		t.Error("the code is in clear on the disk")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		write(t, filepath.Join(dir, "code-1"), bad)
		if c.Get("code-1") != nil {
			t.Fatalf("code with bit 0 of byte %d changed was returned", i)
		}
	}
	write(t, filepath.Join(dir, "code-1"), sealed[:len(sealed)-1])
	if c.Get("code-1") != nil {
		t.Error("code that was cut off was returned")
	}
	write(t, filepath.Join(dir, "code-2"), sealed)
	if c.Get("code-2") != nil {
		t.Error("code of another key was returned")
	}
}

// TestCodeCacheIsBounded: what was not used for longest goes first.
func TestCodeCacheIsBounded(t *testing.T) {
	t.Parallel()
	const entry, most = 1000, 3500
	c, err := server.NewCodeCache(t.TempDir(), newSealer(t), most)
	if err != nil {
		t.Fatal(err)
	}
	code := make([]byte, entry)
	for _, key := range []string{"a", "b", "c"} {
		c.Put(key, code)
	}
	c.Get("a")
	c.Put("d", code)
	for key, want := range map[string]bool{"a": true, "b": false, "c": true, "d": true} {
		if got := c.Get(key) != nil; got != want {
			t.Errorf("entry %s is there: %v; want %v", key, got, want)
		}
	}
	c.Put("e", make([]byte, most+1)) // more than the disk has to spare
	if c.Get("e") != nil {
		t.Error("an entry is there that is larger than what there is to spare")
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
