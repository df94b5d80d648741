package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"sallyport/internal/problem"
)

const (
	// caLifetime is long because every client has to be handed the CA again when it changes.
	caLifetime = 10 * 365 * 24 * time.Hour
	// leafLifetime stays under the 398 days that common verifiers accept.
	leafLifetime = 397 * 24 * time.Hour
	// leafRenewal is how long before its end the server certificate is made anew.
	leafRenewal = 30 * 24 * time.Hour
	// renewalCheck is how often a running server looks whether its certificate needs renewal.
	renewalCheck = 6 * time.Hour
	// clockSkew backdates certificates, for clients whose clock is a little slow.
	clockSkew = 5 * time.Minute
)

// certificates holds the certificate the listener shows. One that the operator brought is reloaded
// by reload; one of our own CA is renewed before it ends. Both take effect on the next handshake.
type certificates struct {
	current atomic.Pointer[tls.Certificate]
	load    func(now time.Time) (*tls.Certificate, error)
	caFile  string
}

// newCertificates returns the operator's certificate when certFile and keyFile are named, and
// otherwise one issued by the local CA in dir, which is created on first use.
func newCertificates(dir, certFile, keyFile string, hosts []string, now time.Time) (*certificates, error) {
	c := &certificates{caFile: certFile}
	if certFile != "" {
		c.load = func(time.Time) (*tls.Certificate, error) { return loadPair(certFile, keyFile) }
	} else {
		c.caFile = filepath.Join(dir, "ca.crt")
		c.load = func(now time.Time) (*tls.Certificate, error) { return localCertificate(dir, hosts, now) }
	}
	return c, c.reload(now)
}

// reload reads or renews the certificate; on error the one in use stays.
func (c *certificates) reload(now time.Time) error {
	cert, err := c.load(now)
	if err != nil {
		return err
	}
	c.current.Store(cert)
	return nil
}

// run renews the certificate as long as ctx lives.
func (c *certificates) run(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(renewalCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := c.reload(now); err != nil {
				log.ErrorContext(ctx, "server certificate not renewed; the old one stays in use", slog.Any("error", err))
			}
		}
	}
}

// tlsConfig returns the only TLS configuration there is: version 1.3, nothing older.
func (c *certificates) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

func loadPair(certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, problem.New(problem.Invalid, "server.certificate_unusable", "cannot use the certificate %s with the key %s", certFile, keyFile).
			WithHint("both must be PEM files, and the key must belong to the certificate").WithCause(err)
	}
	return &cert, nil
}

// localCertificate returns the server certificate in dir, issuing it (and before it the CA) when it
// is missing, soon over, or does not name every one of hosts.
func localCertificate(dir string, hosts []string, now time.Time) (*tls.Certificate, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the TLS folder: %w", err)
	}
	ca, err := pairOrNew(dir, "ca", func() (*tls.Certificate, error) { return issueCA(now) }, func(c *tls.Certificate) bool {
		return now.Before(c.Leaf.NotAfter)
	})
	if err != nil {
		return nil, err
	}
	return pairOrNew(dir, "server", func() (*tls.Certificate, error) { return issueLeaf(ca, hosts, now) }, func(c *tls.Certificate) bool {
		return now.Before(c.Leaf.NotAfter.Add(-leafRenewal)) && c.Leaf.CheckSignatureFrom(ca.Leaf) == nil && names(c.Leaf, hosts)
	})
}

func names(leaf *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if leaf.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}

// pairOrNew loads name.crt and name.key from dir and keeps them if good says so; otherwise it
// issues and stores a new pair. A pair that exists but cannot be read is an error, not a reason to
// issue: replacing a CA silently would break every client that trusts it.
func pairOrNew(dir, name string, issue func() (*tls.Certificate, error), good func(*tls.Certificate) bool) (*tls.Certificate, error) {
	certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	_, err := os.Stat(keyFile)
	switch {
	case err == nil:
		cert, err := loadPair(certFile, keyFile)
		if err != nil {
			return nil, err
		}
		if good(cert) {
			return cert, nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("look for %s: %w", keyFile, err)
	}
	cert, err := issue()
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encode the key of the %s certificate: %w", name, err)
	}
	// The certificate is written first: a key file without one would be an error at the next start.
	if err := writeFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})); err != nil {
		return nil, err
	}
	return cert, writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

func issueCA(now time.Time) (*tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Sallyport local CA"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return issue(template, nil)
}

func issueLeaf(ca *tls.Certificate, hosts []string, now time.Time) (*tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Sallyport server"},
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    now.Add(leafLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return issue(template, ca)
}

// issue signs template with parent, or with its own new key when parent is nil.
func issue(template *x509.Certificate, parent *tls.Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a key: %w", err)
	}
	const serialBits = 127 // RFC 5280 allows 20 octets and wants a positive number
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits)); err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	signer, issuer := any(key), template
	if parent != nil {
		signer, issuer = parent.PrivateKey, parent.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %q: %w", template.Subject.CommonName, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse the certificate just signed: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// certificateHosts lists the names the local server certificate is valid for: loopback in every
// spelling, this machine's name, and the address the operator listens on.
func certificateHosts(listen string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() && !ip.IsLoopback() {
			hosts = append(hosts, host)
		}
	}
	return hosts
}
