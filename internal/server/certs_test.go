package server_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/internal/server"
)

// TestLocalCertificate follows the certificate through its life: it stays as long as it is good, is
// made anew before it ends or when a host is added, and the CA stays throughout.
func TestLocalCertificate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	leaf := func(at time.Time, hosts ...string) *x509.Certificate {
		t.Helper()
		c, err := server.LocalCertificate(dir, hosts, at)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := leaf(now, "localhost")
	if again := leaf(now.Add(300*24*time.Hour), "localhost"); !again.Equal(first) {
		t.Error("a good certificate was replaced")
	}
	if renewed := leaf(now.Add(380*24*time.Hour), "localhost"); renewed.Equal(first) {
		t.Error("a certificate about to end was kept")
	}
	if other := leaf(now.Add(380*24*time.Hour), "localhost", "other.example"); other.VerifyHostname("other.example") != nil {
		t.Error("the certificate does not name the new host")
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if _, err := first.Verify(x509.VerifyOptions{Roots: roots, DNSName: "localhost", CurrentTime: now}); err != nil {
		t.Errorf("the first certificate is not from the CA that is there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.LocalCertificate(dir, []string{"localhost"}, now); err == nil {
		t.Error("a damaged CA key was replaced in silence")
	}
}
