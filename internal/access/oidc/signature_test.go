package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"

	"sallyport/internal/access/oidc"
)

// TestSignatures signs with every algorithm, by the standard library, and has each accepted under its own name and no other.
func TestSignatures(t *testing.T) {
	t.Parallel()
	const input = "header.claims"
	digest := func(h crypto.Hash) []byte {
		w := h.New()
		w.Write([]byte(input))
		return w.Sum(nil)
	}
	type signed struct {
		public    crypto.PublicKey
		signature []byte
	}
	all := map[string]signed{}
	for name, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		h := map[string]crypto.Hash{"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512}[name]
		r, s, err := ecdsa.Sign(rand.Reader, key, digest(h))
		if err != nil {
			t.Fatal(err)
		}
		size := (curve.Params().BitSize + 7) / 8
		raw := make([]byte, 2*size)
		r.FillBytes(raw[:size])
		s.FillBytes(raw[size:])
		all[name] = signed{&key.PublicKey, raw}
		der, err := ecdsa.SignASN1(rand.Reader, key, digest(h))
		if err != nil {
			t.Fatal(err)
		}
		for what, bad := range map[string][]byte{"DER": der, "zeros": make([]byte, 2*size), "longer": append(raw[:len(raw):len(raw)], 0), "nothing": nil} {
			if oidc.VerifySignature(&key.PublicKey, name, input, bad) {
				t.Errorf("%s: a signature of %s is accepted", name, what)
			}
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512} {
		s, err := rsa.SignPKCS1v15(rand.Reader, key, h, digest(h))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = signed{&key.PublicKey, s}
		if s, err = rsa.SignPSS(rand.Reader, key, h, digest(h), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}); err != nil {
			t.Fatal(err)
		}
		all["P"+name[1:]] = signed{&key.PublicKey, s}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all["EdDSA"] = signed{public, ed25519.Sign(private, []byte(input))}
	if len(all) != 10 {
		t.Fatalf("%d algorithms; want all 10", len(all))
	}
	for name, s := range all {
		for as := range all {
			if got := oidc.VerifySignature(s.public, as, input, s.signature); got != (name == as) {
				t.Errorf("%s as %s: %v", name, as, got)
			}
		}
		if oidc.VerifySignature(s.public, name, input+"x", s.signature) {
			t.Errorf("%s: a signature of something else is accepted", name)
		}
	}
}

// TestWeakKeys: what is too weak, too large or of another kind signs nothing.
func TestWeakKeys(t *testing.T) {
	t.Parallel()
	even := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 4}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]any{
		"RSA of 1024 bits": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}, "RSA of 16384 bits": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 16383), E: 65537},
		"an even exponent": even, "an exponent of 1": &rsa.PublicKey{N: even.N, E: 1}, "P-224": &p224.PublicKey, "a secret": []byte("secret"), "nothing": nil,
	} {
		if n := oidc.Algorithms(key); n != 0 {
			t.Errorf("%s signs with %d algorithms", name, n)
		}
	}
}
