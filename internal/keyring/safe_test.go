package keyring_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/problem"
)

func safe(t testing.TB, k *keyring.Keyring, ns ident.Namespace) *keyring.Safe {
	t.Helper()
	s, err := k.Safe(t.Context(), ns, "secrets")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSafe(t *testing.T) {
	t.Parallel()
	path, w := filepath.Join(t.TempDir(), "root.key"), newMemory()
	k := open(t, path, w)
	s := safe(t, k, "default")
	aad := []byte("default/name/1")
	sealed, err := s.Seal(t.Context(), "name/1", []byte("hello"), aad)
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Seal(t.Context(), "name/2", []byte("hello"), aad)
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != len("hello")+keyring.SafeOverhead || bytes.Contains(sealed, []byte("hello")) {
		t.Errorf("sealed = %x", sealed)
	}
	if _, err := s.Seal(t.Context(), "name/1", []byte("again"), aad); err == nil {
		t.Error("a key was overwritten")
	}
	again := safe(t, open(t, path, w), "default")
	if got, err := again.Open(t.Context(), "name/1", sealed, aad); err != nil || string(got) != "hello" {
		t.Errorf("after a restart, Open = %q, %v", got, err)
	}
	if _, err := safe(t, k, "other").Seal(t.Context(), "name/1", []byte("x"), aad); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() ([]byte, error){
		"other aad":       func() ([]byte, error) { return s.Open(t.Context(), "name/1", sealed, []byte("default/name/2")) },
		"other key":       func() ([]byte, error) { return s.Open(t.Context(), "name/2", sealed, aad) },
		"other namespace": func() ([]byte, error) { return safe(t, k, "other").Open(t.Context(), "name/1", sealed, aad) },
		"no key":          func() ([]byte, error) { return s.Open(t.Context(), "name/3", sealed, aad) },
		"cut":             func() ([]byte, error) { return s.Open(t.Context(), "name/1", sealed[:len(sealed)-1], aad) },
		"empty":           func() ([]byte, error) { return s.Open(t.Context(), "name/1", nil, aad) },
	} {
		if got, err := f(); !errors.Is(err, keyring.ErrOpen) || got != nil {
			t.Errorf("%s: Open = %q, %v; want ErrOpen", name, got, err)
		}
	}
	if err := s.Destroy(t.Context(), "name/1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), "name/1", sealed, aad); !errors.Is(err, keyring.ErrOpen) {
		t.Errorf("destroyed: %v", err)
	}
	if got, err := s.Open(t.Context(), "name/2", other, aad); err != nil || string(got) != "hello" {
		t.Errorf("the other: %q, %v", got, err)
	}
}

// TestSafeKeysAreBoundToTheirPlace puts the wrapped key of one value in the place of another's.
func TestSafeKeysAreBoundToTheirPlace(t *testing.T) {
	t.Parallel()
	path, w := filepath.Join(t.TempDir(), "root.key"), newMemory()
	s := safe(t, open(t, path, w), "default")
	sealed, err := s.Seal(t.Context(), "name/1", []byte("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.values["value/default/secrets/name/2"] = w.values["value/default/secrets/name/1"]
	_, err = s.Open(t.Context(), "name/2", sealed, nil)
	if got := problem.From(err).Code; got != "keyring.key_damaged" {
		t.Errorf("problem %q, want keyring.key_damaged", got)
	}
}

// TestSafeForgetsDestroyedKeys opens values while their keys are destroyed: afterwards none opens, whoever looked when.
func TestSafeForgetsDestroyedKeys(t *testing.T) {
	t.Parallel()
	w := newMemory()
	k := open(t, filepath.Join(t.TempDir(), "root.key"), w)
	for range 200 {
		s := safe(t, k, "default")
		sealed, err := s.Seal(t.Context(), "name/1", []byte("hello"), nil)
		if err != nil {
			t.Fatal(err)
		}
		s = safe(t, k, "default") // which has no key in memory
		var opening sync.WaitGroup
		for range 4 {
			opening.Go(func() {
				for range 10 {
					if got, err := s.Open(t.Context(), "name/1", sealed, nil); err != nil && !errors.Is(err, keyring.ErrOpen) || err == nil && string(got) != "hello" {
						t.Errorf("Open = %q, %v", got, err)
					}
				}
			})
		}
		if err := s.Destroy(t.Context(), "name/1"); err != nil {
			t.Fatal(err)
		}
		opening.Wait()
		if _, err := s.Open(t.Context(), "name/1", sealed, nil); !errors.Is(err, keyring.ErrOpen) {
			t.Fatalf("destroyed: %v", err)
		}
	}
}

func BenchmarkSafeOpen(b *testing.B) {
	s := safe(b, open(b, filepath.Join(b.TempDir(), "root.key"), newMemory()), "default")
	sealed, err := s.Seal(b.Context(), "name/1", []byte("sk_live_0123456789"), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Open(b.Context(), "name/1", sealed, nil); err != nil {
			b.Fatal(err)
		}
	}
}
