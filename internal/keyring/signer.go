package keyring

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
)

// signerBits is the size of a signing key: what others verify with must be of a kind that they all know, which is RSA with
// 2,048 bits for OpenID Connect.
const signerBits = 2048

// Signer is a key that signs for others to verify (RS256). It is safe for concurrent use. The private key does not leave this
// package but sealed.
type Signer struct {
	redacted
	private *rsa.PrivateKey
	id      string
}

// NewSigner makes a key.
func NewSigner() (*Signer, error) {
	private, err := rsa.GenerateKey(rand.Reader, signerBits)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return newSigner(private)
}

func newSigner(private *rsa.PrivateKey) (*Signer, error) {
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encode a public key: %w", err)
	}
	sum := sha256.Sum256(public)
	return &Signer{private: private, id: base64.RawURLEncoding.EncodeToString(sum[:16])}, nil
}

// ID names the key. It follows from the public key, so no two keys have the same.
func (s *Signer) ID() string { return s.id }

// Public returns the key that verifies. It MUST NOT be changed.
func (s *Signer) Public() *rsa.PublicKey { return &s.private.PublicKey }

// Sign returns the signature of a message by RSASSA-PKCS1-v1_5 with SHA-256.
func (s *Signer) Sign(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return rsa.SignPKCS1v15(nil, s.private, crypto.SHA256, sum[:])
}

// signerAAD keeps a sealed signing key from being taken for anything else.
var signerAAD = []byte("signing key 1")

// Seal returns the key sealed by a sealer.
func (s *Signer) Seal(by *Sealer) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(s.private)
	if err != nil {
		return nil, fmt.Errorf("encode a signing key: %w", err)
	}
	defer clear(plain)
	return by.Seal(nil, plain, signerAAD)
}

// OpenSigner returns the key that Seal sealed.
func OpenSigner(by *Sealer, sealed []byte) (*Signer, error) {
	plain, err := by.Open(nil, sealed, signerAAD)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, ErrOpen
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, ErrOpen
	}
	return newSigner(private)
}
