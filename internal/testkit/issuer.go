package testkit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Audience is whom the tokens of an Issuer are for.
const Audience = "sallyport"

// Fault is what is wrong with an issuer.
type Fault string

// The faults of an issuer.
const (
	FaultNone      Fault = ""
	FaultDown      Fault = "down"      // 503 to everything
	FaultHuge      Fault = "huge"      // 10 MiB
	FaultRedirect  Fault = "redirect"  // to itself
	FaultMalformed Fault = "malformed" // no JSON
	FaultTwice     Fault = "twice"     // a member that is there twice
	FaultOther     Fault = "other"     // the discovery document of another issuer
	FaultNoKeys    Fault = "no keys"   // an empty set
	FaultHang      Fault = "hang"      // no answer until the fault is another one
)

// Key is one of an issuer's keys.
type Key struct {
	ID        string
	Algorithm string // EdDSA, ES256 or RS256
	Signer    crypto.Signer
}

// Issuer is an OpenID Connect issuer with faults on demand. Its tokens are made here, and not by the library that
// checks them.
type Issuer struct {
	URL    string
	CAFile string

	server *httptest.Server
	mu     sync.Mutex
	keys   []Key
	made   int
	fault  Fault
	// changed is closed when the fault becomes another one.
	changed chan struct{}
	asked   map[string]int
	login   login
}

// NewIssuer starts an issuer that has one key of each algorithm.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{asked: map[string]int{}, login: newLogin(), changed: make(chan struct{})}
	i.server = httptest.NewTLSServer(http.HandlerFunc(i.serve))
	t.Cleanup(i.server.Close)
	i.URL = i.server.URL
	i.CAFile = filepath.Join(t.TempDir(), "issuer-ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw})
	if err := os.WriteFile(i.CAFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	i.Rotate(t)
	return i
}

// Roots returns the CA that the issuer's certificate is from.
func (i *Issuer) Roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(i.server.Certificate())
	return roots
}

// Rotate replaces all keys, but for those in keep.
func (i *Issuer) Rotate(t testing.TB, keep ...Key) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.made++
	i.keys = keep
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256"} {
		i.keys = append(i.keys, NewKey(t, algorithm, fmt.Sprintf("%s-%d", algorithm, i.made)))
	}
}

// NewKey makes a key that no issuer has.
func NewKey(t testing.TB, algorithm, id string) Key {
	t.Helper()
	k := Key{ID: id, Algorithm: algorithm}
	var err error
	switch algorithm {
	case "ES256":
		k.Signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, k.Signer, err = ed25519.GenerateKey(rand.Reader)
	case "RS256":
		k.Signer, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("no keys for %s here", algorithm)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Key returns the current key of an algorithm.
func (i *Issuer) Key(algorithm string) Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, k := range i.keys {
		if k.Algorithm == algorithm {
			return k
		}
	}
	return Key{}
}

// Fail has the issuer fail from now on.
func (i *Issuer) Fail(f Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fault = f
	close(i.changed)
	i.changed = make(chan struct{})
}

// Asked returns how often a path was asked for.
func (i *Issuer) Asked(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[path]
}

// Claims returns the claims of a good token, changed; a nil value removes one.
func (i *Issuer) Claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"iss": i.URL, "aud": Audience, "sub": "ada", "iat": now, "exp": now + 300}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Token returns a good token with its claims changed, signed with ES256.
func (i *Issuer) Token(change map[string]any) string {
	k := i.Key("ES256")
	return Sign(k, map[string]any{"alg": k.Algorithm, "kid": k.ID, "typ": "JWT"}, i.Claims(change))
}

// Sign makes a token. header and claims are JSON in a string, or what is encoded as such.
func Sign(k Key, header, claims any) string {
	return SignRaw(k, segment(header)+"."+segment(claims))
}

// SignRaw makes a token of a signing input, whatever it is.
func SignRaw(k Key, input string) string {
	digest := sha256.Sum256([]byte(input))
	var signature []byte
	switch s := k.Signer.(type) {
	case ed25519.PrivateKey:
		signature = ed25519.Sign(s, []byte(input))
	case *ecdsa.PrivateKey:
		r, v, err := ecdsa.Sign(rand.Reader, s, digest[:])
		if err != nil {
			panic(err) // no random numbers
		}
		signature = make([]byte, 64)
		r.FillBytes(signature[:32])
		v.FillBytes(signature[32:])
	case *rsa.PrivateKey:
		var err error
		if signature, err = rsa.SignPKCS1v15(rand.Reader, s, crypto.SHA256, digest[:]); err != nil {
			panic(err) // a key that is too small
		}
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segment(v any) string {
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // a test that encodes a channel
		}
		text = string(b)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// JWK returns the public half of a key.
func (k Key) JWK() map[string]any {
	b64 := base64.RawURLEncoding.EncodeToString
	out := map[string]any{"kid": k.ID, "alg": k.Algorithm, "use": "sig"}
	switch p := k.Signer.Public().(type) {
	case ed25519.PublicKey:
		out["kty"], out["crv"], out["x"] = "OKP", "Ed25519", b64(p)
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			panic(err) // a curve that is not P-256
		}
		out["kty"], out["crv"], out["x"], out["y"] = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case *rsa.PublicKey:
		out["kty"], out["n"], out["e"] = "RSA", b64(p.N.Bytes()), b64(big.NewInt(int64(p.E)).Bytes())
	}
	return out
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked[r.URL.Path]++
	for i.fault == FaultHang {
		changed := i.changed
		i.mu.Unlock()
		<-changed
		i.mu.Lock()
	}
	switch i.fault {
	case FaultDown:
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	case FaultHuge:
		_, _ = w.Write([]byte(strings.Repeat(" ", 10<<20)))
		return
	case FaultRedirect:
		http.Redirect(w, r, i.URL+r.URL.Path+"?again", http.StatusFound)
		return
	case FaultMalformed:
		_, _ = w.Write([]byte("<html>"))
		return
	case FaultTwice:
		fmt.Fprintf(w, `{"issuer":%q,"issuer":%q,"jwks_uri":%q,"jwks_uri":%q,"keys":[],"keys":[]}`, i.URL, i.URL, i.URL+"/keys", i.URL+"/keys")
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		i.discovery(w)
	case "/keys":
		set := []any{}
		for _, k := range i.keys {
			if i.fault != FaultNoKeys {
				set = append(set, k.JWK())
			}
		}
		reply(w, http.StatusOK, map[string]any{"keys": set})
	default:
		i.serveLogin(w, r)
	}
}

func (i *Issuer) discovery(w http.ResponseWriter) {
	name := i.URL
	if i.fault == FaultOther {
		name = "https://other.example"
	}
	reply(w, http.StatusOK, map[string]any{
		"issuer": name, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
		"device_authorization_endpoint": i.URL + "/device", "revocation_endpoint": i.URL + "/revoke",
		"code_challenge_methods_supported": []string{"S256"},
	})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
