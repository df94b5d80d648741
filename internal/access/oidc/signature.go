package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // the digests that signatures are of
	_ "crypto/sha512"
	"errors"
	"math/big"

	"github.com/go-jose/go-jose/v4"
)

var errSignature = errors.New("signature is not of this key")

// digests are those of the algorithms.
var digests = map[jose.SignatureAlgorithm]crypto.Hash{
	jose.ES256: crypto.SHA256, jose.ES384: crypto.SHA384, jose.ES512: crypto.SHA512,
	jose.PS256: crypto.SHA256, jose.PS384: crypto.SHA384, jose.PS512: crypto.SHA512,
	jose.RS256: crypto.SHA256, jose.RS384: crypto.SHA384, jose.RS512: crypto.SHA512,
}

// verify checks the signature of input. The token was parsed once, by us: a library that takes the whole token would
// parse it again, in a way of its own. The algorithm MUST be one of those of the key (algorithmsOf).
//
// Source: RFC 7518, section 3; RFC 8037, section 3.1.
func verify(public any, algorithm jose.SignatureAlgorithm, input string, signature []byte) error {
	if p, ok := public.(ed25519.PublicKey); ok {
		return only(algorithm == jose.EdDSA && ed25519.Verify(p, []byte(input), signature))
	}
	hash, ok := digests[algorithm]
	if !ok {
		return errSignature
	}
	h := hash.New()
	h.Write([]byte(input))
	digest := h.Sum(nil)
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		return only(algorithm[0] == 'E' && verifyECDSA(p, digest, signature))
	case *rsa.PublicKey:
		switch algorithm[0] {
		case 'R':
			return only(rsa.VerifyPKCS1v15(p, hash, digest, signature) == nil)
		case 'P':
			return only(rsa.VerifyPSS(p, hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil)
		}
	}
	return errSignature
}

// verifyECDSA checks a signature that is r and s, each as long as the curve's order.
func verifyECDSA(p *ecdsa.PublicKey, digest, signature []byte) bool {
	const bitsOfByte = 8
	size := (p.Params().N.BitLen() + bitsOfByte - 1) / bitsOfByte
	if len(signature) != 2*size {
		return false
	}
	return ecdsa.Verify(p, digest, new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:]))
}

// only returns nil for a signature that is right.
func only(ok bool) error {
	if !ok {
		return errSignature
	}
	return nil
}
