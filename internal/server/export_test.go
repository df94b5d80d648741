package server

import (
	"crypto/x509"
	"log/slog"
	"time"

	"sallyport/internal/cell"
)

// NewCodeCache returns the code cache with room for most bytes.
func NewCodeCache(dir string, s sealer, most int64) (cell.Cache, error) {
	return newCodeCache(dir, s, most, func() int64 { return most }, slog.New(slog.DiscardHandler))
}

// LocalCertificate returns the certificate that localCertificate gives.
func LocalCertificate(dir string, hosts []string, now time.Time) (*x509.Certificate, error) {
	c, err := localCertificate(dir, hosts, now)
	if err != nil {
		return nil, err
	}
	return c.Leaf, nil
}
