package keyring_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/problem"
)

// memory is a Wrapped in memory that can be made to fail.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	puts   []string
	fail   error
}

func newMemory() *memory { return &memory{values: map[string][]byte{}} }

func (m *memory) Get(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.values[name]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", name, fs.ErrNotExist)
	}
	return bytes.Clone(value), nil
}

func (m *memory) Put(_ context.Context, name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.values[name] = bytes.Clone(value)
	m.puts = append(m.puts, name)
	return nil
}

func (m *memory) Names(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.values {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names, nil
}

func (m *memory) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	delete(m.values, name)
	return nil
}

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func open(t testing.TB, path string, w keyring.Wrapped) *keyring.Keyring {
	t.Helper()
	k, err := tryOpen(path, w)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func tryOpen(path string, w keyring.Wrapped) (*keyring.Keyring, error) {
	root, err := keyring.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return keyring.New(context.Background(), root, w)
}

func sealer(t testing.TB, k *keyring.Keyring, ns ident.Namespace, purpose string) *keyring.Sealer {
	t.Helper()
	s, err := k.Sealer(context.Background(), ns, purpose)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func seal(t testing.TB, s *keyring.Sealer, plaintext, aad string) []byte {
	t.Helper()
	sealed, err := s.Seal(nil, []byte(plaintext), []byte(aad))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func mustOpen(t testing.TB, s *keyring.Sealer, sealed []byte, aad string) string {
	t.Helper()
	plaintext, err := s.Open(nil, sealed, []byte(aad))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return string(plaintext)
}

func keyID(sealed []byte) uint32 { return binary.BigEndian.Uint32(sealed[1:5]) }

func TestSealedValuesOpenAfterRestart(t *testing.T) {
	t.Parallel()
	path, w := filepath.Join(t.TempDir(), "root.key"), newMemory()
	first := sealer(t, open(t, path, w), "default", "events")
	sealed := seal(t, first, "hello", "place")
	if got, want := len(sealed), len("hello")+keyring.Overhead; got != want {
		t.Errorf("sealed length = %d, want %d", got, want)
	}
	again := sealer(t, open(t, path, w), "default", "events")
	if got := mustOpen(t, again, sealed, "place"); got != "hello" {
		t.Errorf("Open = %q, want hello", got)
	}
	if first.MACStrings("a") != again.MACStrings("a") {
		t.Error("the digest changed with a restart")
	}
	if bytes.Contains(sealed, []byte("hello")) {
		t.Error("the sealed value shows its plain text")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	k := open(t, filepath.Join(t.TempDir(), "root.key"), newMemory())
	s := sealer(t, k, "default", "events")
	sealed := seal(t, s, "hello", "place")
	changed := func(i int) []byte {
		c := bytes.Clone(sealed)
		c[i] ^= 1
		return c
	}
	type attempt struct {
		name   string
		by     *keyring.Sealer
		sealed []byte
		aad    string
	}
	attempts := []attempt{
		{"other place", s, sealed, "elsewhere"},
		{"other purpose", sealer(t, k, "default", "journal"), sealed, "place"},
		{"other namespace", sealer(t, k, "other", "events"), sealed, "place"},
		{"system namespace", sealer(t, k, "", "events"), sealed, "place"},
		{"empty", s, nil, "place"},
		{"too short", s, sealed[:keyring.Overhead-1], "place"},
		{"cut", s, sealed[:len(sealed)-1], "place"},
		{"longer", s, append(bytes.Clone(sealed), 0), "place"},
	}
	for i := range sealed {
		attempts = append(attempts, attempt{fmt.Sprint("bit of byte ", i), s, changed(i), "place"})
	}
	for _, a := range attempts {
		dst := []byte("kept")
		got, err := a.by.Open(dst, a.sealed, []byte(a.aad))
		if !errors.Is(err, keyring.ErrOpen) || string(got) != "kept" {
			t.Errorf("%s: Open = %q, %v; want ErrOpen", a.name, got, err)
		}
		if got, err := a.by.OpenInPlace(bytes.Clone(a.sealed), []byte(a.aad)); !errors.Is(err, keyring.ErrOpen) || len(got) > 0 {
			t.Errorf("%s: OpenInPlace = %q, %v; want ErrOpen", a.name, got, err)
		}
	}
	if got, err := s.OpenInPlace(bytes.Clone(sealed), []byte("place")); err != nil || string(got) != "hello" {
		t.Errorf("OpenInPlace = %q, %v; want hello", got, err)
	}
}

func TestSealerIsShared(t *testing.T) {
	t.Parallel()
	k := open(t, filepath.Join(t.TempDir(), "root.key"), newMemory())
	if sealer(t, k, "default", "events") != sealer(t, k, "default", "events") {
		t.Error("the same pair gave two sealers: their counts would be apart")
	}
	for _, bad := range []string{"", "UPPER", "a b", "a\x00", strings.Repeat("a", keyring.MaxPurposeLength+1)} {
		if _, err := k.Sealer(t.Context(), "default", bad); err == nil {
			t.Errorf("Sealer(%q) was accepted", bad)
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*keyring.Sealer){
		"records": func(s *keyring.Sealer) { s.Use(keyring.RotateRecords, 0) },
		"bytes":   func(s *keyring.Sealer) { s.Use(0, keyring.RotateBytes) },
		"age":     func(*keyring.Sealer) { time.Sleep(keyring.RotateAge) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "root.key")
			synctest.Test(t, func(t *testing.T) {
				w := newMemory()
				s := sealer(t, open(t, path, w), "default", "events")
				before, digest := seal(t, s, "old", ""), s.MACStrings("x")
				use(s)
				after := seal(t, s, "new", "")
				if keyID(before) == keyID(after) {
					t.Fatal("the key was not replaced")
				}
				if s.MACStrings("x") != digest {
					t.Error("the digest changed with the key")
				}
				again := sealer(t, open(t, path, w), "default", "events")
				for _, by := range []*keyring.Sealer{s, again} {
					if mustOpen(t, by, before, "") != "old" || mustOpen(t, by, after, "") != "new" {
						t.Error("a value of before or after does not open")
					}
				}
				if got := keyID(seal(t, again, "", "")); got != keyID(after) {
					t.Errorf("after a restart key %d seals, want %d", got, keyID(after))
				}
			})
		})
	}
}

// TestCrashesDoNotExtendAKey starts again and again, as in a crash loop, each time using what a key is
// good for between two stores of its count.
func TestCrashesDoNotExtendAKey(t *testing.T) {
	t.Parallel()
	path, w := filepath.Join(t.TempDir(), "root.key"), newMemory()
	used := map[uint32]int64{}
	const step = keyring.RotateRecords / 16
	for range 40 {
		s := sealer(t, open(t, path, w), "default", "events")
		used[keyID(seal(t, s, "", ""))]++
		s.Use(step-2, 0)
		used[keyID(seal(t, s, "", ""))] += step - 1
	}
	for id, records := range used {
		if records > keyring.RotateRecords {
			t.Errorf("key %d sealed %d records, more than %d", id, records, keyring.RotateRecords)
		}
	}
	if len(used) < 3 {
		t.Errorf("40 crashes used %d keys: the count is not kept", len(used))
	}
}

// TestRotationWithoutStorage holds that a full disk neither stops sealing at once nor lets a key pass
// its hard limit, and that rotation comes when storing works again.
func TestRotationWithoutStorage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	synctest.Test(t, func(t *testing.T) {
		w := newMemory()
		s := sealer(t, open(t, path, w), "default", "events")
		id := keyID(seal(t, s, "", ""))
		w.setFail(errors.New("disk full"))
		s.Use(keyring.RotateRecords, 0)
		if got := keyID(seal(t, s, "", "")); got != id {
			t.Fatalf("sealed with key %d that could not be stored", got)
		}
		s.Use(keyring.RotateRecords, 0)
		if _, err := s.Seal(nil, nil, nil); !errors.Is(err, keyring.ErrExhausted) {
			t.Fatalf("past the hard limit, Seal = %v, want ErrExhausted", err)
		}
		w.setFail(nil)
		sealed := seal(t, s, "again", "")
		if keyID(sealed) == id {
			t.Error("storing works again and the key was not replaced")
		}
		if got := mustOpen(t, sealer(t, open(t, path, w), "default", "events"), sealed, ""); got != "again" {
			t.Errorf("Open = %q, want again", got)
		}
	})
}

// TestNoKeyIsOverwritten winds "current" back, as a crash or a restored backup may.
func TestNoKeyIsOverwritten(t *testing.T) {
	t.Parallel()
	path, w := filepath.Join(t.TempDir(), "root.key"), newMemory()
	s := sealer(t, open(t, path, w), "default", "events")
	const current = "segment/default/events/current"
	old := bytes.Clone(w.values[current])
	s.Use(keyring.RotateRecords, 0)
	second := seal(t, s, "second", "")
	w.values[current] = old
	s = sealer(t, open(t, path, w), "default", "events")
	s.Use(keyring.RotateRecords, 0)
	third := seal(t, s, "third", "")
	if keyID(third) == keyID(second) {
		t.Fatalf("key %d was made twice", keyID(third))
	}
	if got := mustOpen(t, s, second, ""); got != "second" {
		t.Errorf("Open = %q, want second", got)
	}
}

func TestRootIsNeverReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, w := filepath.Join(dir, "root.key"), newMemory()
	sealer(t, open(t, path, w), "default", "events")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.key")
	open(t, other, newMemory())
	otherText, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		prepare func() error
		want    string
	}{
		{"missing", func() error { return os.Remove(path) }, "keyring.root_missing"},
		{"still missing", func() error { return nil }, "keyring.root_missing"},
		{"of another store", func() error { return os.WriteFile(path, otherText, 0o600) }, "keyring.root_wrong"},
		{"empty", func() error { return os.WriteFile(path, nil, 0o600) }, "keyring.root_malformed"},
		{"cut", func() error { return os.WriteFile(path, text[:len(text)-3], 0o600) }, "keyring.root_malformed"},
		{"one letter changed", func() error {
			c := bytes.Clone(text)
			c[len(c)-20] ^= 1
			return os.WriteFile(path, c, 0o600)
		}, "keyring.root_malformed"},
		{"huge", func() error { return os.WriteFile(path, bytes.Repeat(text, 100), 0o600) }, "keyring.root_malformed"},
		{"readable by the group", func() error {
			return errors.Join(os.WriteFile(path, text, 0o600), os.Chmod(path, 0o640)) //nolint:gosec // that is the fault
		}, "keyring.root_exposed"},
		{"a folder", func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "keyring.root_unreadable"},
		{"restored", func() error { return errors.Join(os.Remove(path), os.WriteFile(path, text, 0o600)) }, ""},
	}
	for _, tt := range tests {
		if err := tt.prepare(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		code := ""
		if _, err := tryOpen(path, w); err != nil {
			code = problem.From(err).Code
			if strings.Contains(err.Error(), strings.Fields(string(text))[len(strings.Fields(string(text)))-1]) {
				t.Errorf("%s: the error shows the key", tt.name)
			}
		}
		if code != tt.want {
			t.Errorf("%s: problem %q, want %q", tt.name, code, tt.want)
		}
	}
}

func TestNewRootFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	root, err := keyring.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the file exists before New knows that the store is empty: %v", err)
	}
	if _, err := keyring.New(t.Context(), root, newMemory()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode = %o, want 600", got)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("files left over: %v, %v", names, err)
	}
}

func TestWrappedKeysAreBoundToTheirPlace(t *testing.T) {
	t.Parallel()
	path, w := filepath.Join(t.TempDir(), "root.key"), newMemory()
	k := open(t, path, w)
	sealer(t, k, "a", "events")
	sealer(t, k, "b", "events")
	sealer(t, k, "a", "journal")
	s := sealer(t, k, "a", "events")
	sealed := seal(t, s, "x", "")
	s.Use(keyring.RotateRecords, 0)
	seal(t, s, "x", "")
	good := maps.Clone(w.values)
	swaps := [][2]string{
		{"namespace/a", "namespace/b"},
		{"segment/a/events/current", "segment/b/events/current"},
		{"segment/a/events/current", "segment/a/journal/current"},
		{"segment/a/events/current", "namespace/a"},
		{"segment/a/events/00000001", "segment/a/events/00000002"},
		{"segment/a/events/00000001", "segment/a/journal/00000001"},
	}
	for _, swap := range swaps {
		w.values = maps.Clone(good)
		w.values[swap[0]] = good[swap[1]]
		if good[swap[1]] == nil {
			t.Fatalf("there is no record %q", swap[1])
		}
		k := open(t, path, w)
		s, err := k.Sealer(t.Context(), "a", "events")
		if err == nil {
			_, err = s.Open(nil, sealed, nil)
		}
		if got := problem.From(err).Code; got != "keyring.key_damaged" {
			t.Errorf("%s with the record of %s: problem %q, want keyring.key_damaged", swap[0], swap[1], got)
		}
	}
	for i := range good["namespace/a"] {
		w.values = maps.Clone(good)
		w.values["namespace/a"] = bytes.Clone(good["namespace/a"])
		w.values["namespace/a"][i] ^= 0x10
		if _, err := open(t, path, w).Sealer(t.Context(), "a", "events"); err == nil {
			t.Errorf("a changed byte %d of a wrapped key went unseen", i)
		}
	}
}

func TestDigestFramesItsParts(t *testing.T) {
	t.Parallel()
	k := open(t, filepath.Join(t.TempDir(), "root.key"), newMemory())
	s := sealer(t, k, "default", "index")
	long := strings.Repeat("x", 5000)
	inputs := [][]string{
		{}, {""}, {"", ""}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {long}, {long + "y"}, {long, "y"}, {long[:1013]}, {long[:1014]}, {long[:1024], "z"},
	}
	seen := map[keyring.Digest][]string{}
	for _, parts := range inputs {
		var raw [][]byte
		for _, p := range parts {
			raw = append(raw, []byte(p))
		}
		d := s.MACStrings(parts...)
		if d != s.MAC(raw...) {
			t.Errorf("MAC and MACStrings of %d parts differ", len(parts))
		}
		if other, ok := seen[d]; ok {
			t.Errorf("two inputs of %d and %d parts have one digest", len(parts), len(other))
		}
		seen[d] = parts
		if d == sealer(t, k, "other", "index").MACStrings(parts...) || d == sealer(t, k, "default", "other").MACStrings(parts...) {
			t.Error("the digest is the same in another namespace or purpose")
		}
	}
}

func TestNothingSecretIsPrinted(t *testing.T) {
	t.Parallel()
	root, err := keyring.OpenRoot(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.New(t.Context(), root, newMemory())
	if err != nil {
		t.Fatal(err)
	}
	s := sealer(t, k, "", "x")
	for _, v := range []any{root, k, s} {
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		for _, text := range []string{fmt.Sprintf("%v", v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%s", v)} {
			if diff := cmp.Diff("[redacted]", text); diff != "" {
				t.Errorf("%T prints something else (-want +got):\n%s", v, diff)
			}
		}
		if !strings.Contains(log.String(), "v=[redacted]") {
			t.Errorf("%T is logged as %s", v, &log)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	path, w := filepath.Join(t.TempDir(), "root.key"), newMemory()
	k := open(t, path, w)
	s := sealer(t, k, "default", "events")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 200 {
				text := fmt.Sprint(i)
				sealed := seal(t, s, text, text)
				if mustOpen(t, s, sealed, text) != text {
					t.Error("opened to something else")
				}
				s.Use(keyring.RotateRecords/64, 0)
				s.MACStrings(text)
			}
		})
	}
	group.Wait()
	if got := len(w.puts); got > 8*200 {
		t.Errorf("%d stores for 1,600 values", got)
	}
}

func FuzzOpen(f *testing.F) {
	s := sealer(f, open(f, filepath.Join(f.TempDir(), "root.key"), newMemory()), "default", "events")
	f.Add(seal(f, s, "hello", "aad"))
	f.Add([]byte{1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if _, err := s.Open(nil, sealed, []byte("other")); err == nil {
			t.Error("opened something that was never sealed")
		}
	})
}

func FuzzParseRoot(f *testing.F) {
	path := filepath.Join(f.TempDir(), "root.key")
	open(f, path, newMemory())
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("sallyport-root-key-v1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		formatted, ok := keyring.ParseRoot(text)
		if !ok {
			return
		}
		again, ok := keyring.ParseRoot(formatted)
		if !ok || !bytes.Equal(again, formatted) {
			t.Error("a root key changed when it was written and read")
		}
	})
}

func FuzzOpenWrapped(f *testing.F) {
	f.Add(make([]byte, 122))
	f.Fuzz(func(t *testing.T, record []byte) {
		if keyring.OpenWrapped(record) == nil {
			t.Error("unwrapped a key that was never wrapped")
		}
	})
}

func BenchmarkSealer(b *testing.B) {
	s := sealer(b, open(b, filepath.Join(b.TempDir(), "root.key"), newMemory()), "default", "events")
	plaintext, aad := make([]byte, 1024), []byte("default events 1")
	dst := make([]byte, 0, 2048)
	sealed, err := s.Seal(nil, plaintext, aad)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Seal 1 KiB", func(b *testing.B) {
		b.SetBytes(1024)
		for b.Loop() {
			dst, _ = s.Seal(dst[:0], plaintext, aad)
		}
	})
	b.Run("Open 1 KiB", func(b *testing.B) {
		b.SetBytes(1024)
		for b.Loop() {
			dst, _ = s.Open(dst[:0], sealed, aad)
		}
	})
	b.Run("MACStrings", func(b *testing.B) {
		for b.Loop() {
			s.MACStrings("/shop/checkout", "0198d4f2-7c1e-7000-8000-0123456789ab")
		}
	})
}

// TestDestroy: what was sealed in a namespace is unreadable after, wherever it is, also when a crash came between; other
// namespaces are not touched, one whose name begins alike among them.
func TestDestroy(t *testing.T) {
	t.Parallel()
	path, m := filepath.Join(t.TempDir(), "root.key"), newMemory()
	k := open(t, path, m)
	sealed := map[ident.Namespace][]byte{}
	seal := func(k *keyring.Keyring, ns ident.Namespace) {
		s, err := k.Sealer(t.Context(), ns, "events")
		if err != nil {
			t.Fatal(err)
		}
		if sealed[ns], err = s.Seal(nil, []byte("secret"), nil); err != nil {
			t.Fatal(err)
		}
	}
	opens := func(k *keyring.Keyring, ns ident.Namespace) error {
		s, err := k.Sealer(t.Context(), ns, "events")
		if err != nil {
			return err
		}
		_, err = s.Open(nil, sealed[ns], nil)
		return err
	}
	for _, ns := range []ident.Namespace{"", "shop", "shop-2"} {
		seal(k, ns)
	}
	m.setFail(errors.New("disk is gone"))
	if err := k.Destroy(t.Context(), "shop"); err == nil {
		t.Error("keys were destroyed without a store")
	}
	m.setFail(nil)
	k = open(t, path, m) // as after a crash
	for range 2 {
		if err := k.Destroy(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
	}
	for name := range m.values {
		if strings.HasPrefix(name, "namespace/shop") && !strings.HasSuffix(name, "-2") || strings.HasPrefix(name, "segment/shop/") {
			t.Errorf("the key %s is left", name)
		}
	}
	for _, k := range []*keyring.Keyring{k, open(t, path, m)} {
		if err := opens(k, "shop"); !errors.Is(err, keyring.ErrOpen) {
			t.Errorf("Open with the keys of a namespace of the same name = %v", err)
		}
		for _, ns := range []ident.Namespace{"", "shop-2"} {
			if err := opens(k, ns); err != nil {
				t.Errorf("Open in %q = %v", ns, err)
			}
		}
	}
	if err := k.Destroy(t.Context(), ""); err == nil {
		t.Error("the server's own keys were destroyed")
	}
}
