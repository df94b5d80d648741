package keyring_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/keyring"
)

var update = flag.Bool("update", false, "write testdata/v1.json anew: only when no release has sealed anything in that form")

// golden is a root key, its wrapped keys and a value sealed under them, in hex.
type golden struct {
	Root   string            `json:"root"`
	Keys   map[string]string `json:"keys"`
	Sealed string            `json:"sealed"`
	Digest string            `json:"digest"`
}

const (
	goldenPath = "testdata/v1.json"
	goldenText = "the form of sealed values is kept"
)

// TestFormat opens what an earlier build sealed: every form on disk begins with its version, and what
// a released version wrote is read for ever.
func TestFormat(t *testing.T) {
	t.Parallel()
	path, w := filepath.Join(t.TempDir(), "root.key"), newMemory()
	if *update {
		writeGolden(t, path, w)
	}
	text, err := os.ReadFile(goldenPath)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(g.Root), 0o600); err != nil {
		t.Fatal(err)
	}
	w = newMemory()
	for name, record := range g.Keys {
		w.values[name] = unhex(t, record)
	}
	s := sealer(t, open(t, path, w), "default", "events")
	sealed := unhex(t, g.Sealed)
	if got := mustOpen(t, s, sealed, "place"); got != goldenText {
		t.Errorf("Open = %q, want %q", got, goldenText)
	}
	if !bytes.Equal(sealed[:5], []byte{1, 0, 0, 0, 1}) || len(sealed) != 1+4+12+len(goldenText)+16 {
		t.Errorf("the layout is not version, key id, nonce, ciphertext, tag: %x", sealed)
	}
	d := s.MACStrings("source", "id")
	if got := hex.EncodeToString(d[:]); got != g.Digest {
		t.Errorf("digest = %s, want %s", got, g.Digest)
	}
	if len(w.puts) > 0 {
		t.Errorf("opening stored keys: %v", w.puts)
	}
}

func writeGolden(t *testing.T, path string, w *memory) {
	t.Helper()
	s := sealer(t, open(t, path, w), "default", "events")
	root, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := s.MACStrings("source", "id")
	g := golden{
		Root: string(root), Keys: map[string]string{},
		Sealed: hex.EncodeToString(seal(t, s, goldenText, "place")), Digest: hex.EncodeToString(d[:]),
	}
	for name, record := range w.values {
		g.Keys[name] = hex.EncodeToString(record)
	}
	text, err := json.Marshal(g, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenPath, append(text, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var _ keyring.Wrapped = (*memory)(nil)
