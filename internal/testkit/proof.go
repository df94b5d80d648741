package testkit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"time"
)

// Thumbprint returns the thumbprint of a key, as in cnf.jkt of a token (RFC 7638).
func (k Key) Thumbprint() string {
	jwk := k.JWK()
	// The required members alone, in the order of their names, which is that of the encoder.
	maps.DeleteFunc(jwk, func(name string, _ any) bool { return name == "kid" || name == "alg" || name == "use" })
	text, err := json.Marshal(jwk)
	if err != nil {
		panic(err) // texts only
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Proof returns a proof of possession for a request with a token; header and claims change what is in it, and a nil value
// removes a member.
func (k Key) Proof(method, url, token string, header, claims map[string]any) string {
	jwk := k.JWK()
	delete(jwk, "use")
	sum := sha256.Sum256([]byte(token))
	h := map[string]any{"typ": "dpop+jwt", "alg": k.Algorithm, "jwk": jwk}
	c := map[string]any{"jti": rand.Text(), "htm": method, "htu": url, "iat": time.Now().Unix(), "ath": base64.RawURLEncoding.EncodeToString(sum[:])}
	maps.Copy(h, header)
	maps.Copy(c, claims)
	for _, m := range []map[string]any{h, c} {
		maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	}
	return Sign(k, h, c)
}
