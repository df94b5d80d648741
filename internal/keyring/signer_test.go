package keyring_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/keyring"
)

// TestSigner: a signing key verifies with its public key, comes back from its sealed form alone, and is never printed.
func TestSigner(t *testing.T) {
	t.Parallel()
	k := open(t, filepath.Join(t.TempDir(), "root.key"), newMemory())
	by, other := sealer(t, k, "", "issuer"), sealer(t, k, "", "other")
	s, err := keyring.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(by)
	if err != nil {
		t.Fatal(err)
	}
	again, err := keyring.OpenSigner(by, sealed)
	if err != nil || again.ID() != s.ID() || !again.Public().Equal(s.Public()) {
		t.Fatalf("OpenSigner = %v, %v", again, err)
	}
	signature, err := again.Sign([]byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("message"))
	if err := rsa.VerifyPKCS1v15(s.Public(), crypto.SHA256, sum[:], signature); err != nil {
		t.Error(err)
	}
	if _, err := keyring.OpenSigner(other, sealed); !errors.Is(err, keyring.ErrOpen) {
		t.Errorf("opened for another purpose: %v", err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := keyring.OpenSigner(by, sealed); !errors.Is(err, keyring.ErrOpen) {
		t.Errorf("an altered one: %v", err)
	}
	wrong, err := by.Seal(nil, []byte("no key"), []byte("signing key 1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.OpenSigner(by, wrong); !errors.Is(err, keyring.ErrOpen) {
		t.Errorf("no key at all: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", s, s, s, s); !strings.Contains(text, "redacted") || len(text) > 100 {
		t.Errorf("it prints as %s", text)
	}
}
