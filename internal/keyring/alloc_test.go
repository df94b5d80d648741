//go:build !race

package keyring_test

import (
	"path/filepath"
	"testing"
)

// TestNoAllocations is not for the race detector, under which sync.Pool drops what it is given.
func TestNoAllocations(t *testing.T) {
	s := sealer(t, open(t, filepath.Join(t.TempDir(), "root.key"), newMemory()), "default", "events")
	plaintext, aad := make([]byte, 1024), []byte("aad")
	sealed, opened := make([]byte, 0, 2048), make([]byte, 0, 2048)
	sealed, err := s.Seal(sealed, plaintext, aad)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"Seal":       func() { sealed, _ = s.Seal(sealed[:0], plaintext, aad) },
		"Open":       func() { opened, _ = s.Open(opened[:0], sealed, aad) },
		"MAC":        func() { s.MAC(plaintext, aad) },
		"MACStrings": func() { s.MACStrings("source", "id") },
	} {
		if got := testing.AllocsPerRun(200, f); got > 0 {
			t.Errorf("%s allocates %v times", name, got)
		}
	}
}
