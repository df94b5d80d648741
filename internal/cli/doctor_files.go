package cli

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// Names in a server's data directory.
const (
	rootKeyName = "root.key"
	tlsName     = "tls"
)

const (
	// maxCertificate bounds a certificate file in bytes.
	maxCertificate = 1 << 20
	// expiryWarning is how long before the end of a certificate doctor begins to warn.
	expiryWarning = 21 * 24 * time.Hour
)

// server checks the settings and the files of a server on this machine, whether it runs or not.
func (c *checks) server(f doctorFlags) {
	flags := serverFlags{config: f.config, dataDir: f.dataDir}
	s, err := flags.settings()
	if err != nil {
		c.config(f.config, err)
		return
	}
	if f.config != "" {
		c.ok("config", "%s is in order", f.config)
	}
	rootFile := s.Keys.RootFile
	if rootFile == "" {
		rootFile = filepath.Join(s.DataDir, rootKeyName)
	}
	c.dataDir(s.DataDir, rootFile)
	for _, ca := range s.ClientCAs {
		c.certificate("client CA "+ca.Name, ca.File)
	}
	for _, is := range s.Issuers {
		if is.CAFile != "" {
			c.certificate("CA of "+is.URL, is.CAFile)
		}
	}
	if s.TLS != (manifest.TLS{}) {
		c.certificate("certificate", s.TLS.CertFile)
		c.private("private key", s.TLS.KeyFile)
		return
	}
	c.ownCertificates(s.DataDir)
}

// config tells every fault in a server.toml.
func (c *checks) config(file string, err error) {
	s, _ := classify(err)
	c.fail("config", fmt.Sprintf("%s: %s", file, s.text), "sallyport explain "+s.code)
	for _, f := range s.faults {
		c.fail("config", fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Detail), "")
	}
}

// dataDir checks the folder that holds everything, and the key that opens it.
func (c *checks) dataDir(dir, rootFile string) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.ok("data", "%s is not there yet; the first start makes it", dir)
		return
	case err != nil:
		c.fail("data", reasonOf(err, dir), "give the server's user access")
		return
	case !info.IsDir():
		c.fail("data", dir+" is not a folder", "name another with --data-dir")
		return
	case info.Mode().Perm()&0o077 != 0:
		c.warn("data", fmt.Sprintf("%s is open to others: its mode is %04o", dir, info.Mode().Perm()), "chmod 700 "+dir)
	default:
		c.ok("data", "%s belongs to its user alone", dir)
	}
	c.private("root key", rootFile)
	if free, err := freeSpace(dir); err == nil {
		c.disk(free, dir)
	}
}

// ownCertificates checks those that a server issued itself. They renew themselves while it runs.
func (c *checks) ownCertificates(dir string) {
	files, err := filepath.Glob(filepath.Join(dir, tlsName, "*.crt"))
	if err != nil || len(files) == 0 {
		return // the first start makes them
	}
	for _, file := range files {
		c.certificate("certificate", file)
	}
}

// private checks that a file is there, and readable by its owner alone.
func (c *checks) private(name, file string) bool {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		c.fail(name, reasonOf(err, file), "name the right file, or restore it")
		return false
	case !info.Mode().IsRegular():
		c.fail(name, file+" is not a regular file", "name the right file")
		return false
	case info.Mode().Perm()&0o077 != 0:
		c.fail(name, fmt.Sprintf("others can read %s: its mode is %04o", file, info.Mode().Perm()), "chmod 600 "+file)
		return true
	}
	c.ok(name, "%s is readable by its owner alone", file)
	return true
}

// certificate checks that a certificate can be read and how long it is valid.
func (c *checks) certificate(name, file string) bool {
	cert, err := readCertificate(file)
	if err != nil {
		c.fail(name, err.Error(), "name a file with a certificate in PEM form")
		return false
	}
	now := time.Now()
	left := cert.NotAfter.Sub(now)
	detail := fmt.Sprintf("%s is valid until %s", file, stamp(cert.NotAfter))
	switch {
	case now.Before(cert.NotBefore):
		c.fail(name, fmt.Sprintf("%s is valid only from %s on", file, stamp(cert.NotBefore)), "see whether this machine's clock is right")
	case left <= 0:
		c.fail(name, fmt.Sprintf("%s ended %s", file, stamp(cert.NotAfter)), "renew it")
	case left < expiryWarning:
		c.warn(name, detail, "renew it soon")
	default:
		c.ok(name, "%s", detail)
	}
	return true
}

// readCertificate returns the first certificate in a file.
func readCertificate(file string) (*x509.Certificate, error) {
	text, err := readBounded(file, maxCertificate)
	if err != nil {
		return nil, errors.New(reasonOf(err, file))
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate in %s is damaged", file)
	}
	return cert, nil
}

// reasonOf says in words why a file cannot be used.
func reasonOf(err error, file string) string {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p.Public
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return file + ": " + err.Error()
}
