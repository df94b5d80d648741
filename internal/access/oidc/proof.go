package oidc

import (
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits of proofs.
const (
	maxProof = 4 << 10 // bytes
	maxJTI   = 128     // bytes
	// proofWindow is how far the time of a proof may be from ours, to either side.
	proofWindow = time.Minute
	// maxProofs bounds the proofs that are remembered, about 100 bytes each. They are those of two minutes, of callers that
	// have a token: when there is no room, proofs are refused, not forgotten.
	maxProofs = 1 << 17
)

// ErrFull is wrapped by the error of a proof that cannot be remembered: too many came of late.
var ErrFull = errors.New("too many proofs")

// Proof is what a proof of possession must fit.
type Proof struct {
	Text   string // of the header DPoP
	Token  string // the access token it came with
	Key    string // cnf.jkt of the token
	Method string
	// Host and Path are those of the request. The caller MUST have seen to it that Host is a name of ours: a proof for
	// another server is else good for this one.
	Host, Path string
}

// Proofs checks proofs of possession, and remembers them so that none is used twice. It is safe for concurrent use.
//
// Source: RFC 9449, section 4.3.
type Proofs struct {
	// started refuses the proofs from before: which of them were used is not known any more.
	started time.Time

	mu         sync.Mutex
	turned     time.Time
	young, old map[[sha256.Size]byte]struct{}
}

// NewProofs returns a memory of proofs that is empty, and knows it.
func NewProofs(now time.Time) *Proofs {
	return &Proofs{started: now.Truncate(time.Second), turned: now, young: map[[sha256.Size]byte]struct{}{}}
}

// proofHeader is the header of a proof. It carries its own key, which is the point of it: the token names the key's
// thumbprint.
type proofHeader struct {
	Type      string         `json:"typ"`
	Algorithm string         `json:"alg"`
	JWK       jsontext.Value `json:"jwk"`
	Rest      object         `json:",embed"`
}

type proofClaims struct {
	ID       string   `json:"jti"`
	Method   string   `json:"htm"`
	URL      string   `json:"htu"`
	IssuedAt *seconds `json:"iat"`
	Hash     string   `json:"ath"`
	Rest     object   `json:",embed"`
}

// Check checks a proof, and uses it up when everything else is right. The error wraps ErrRefused or ErrFull.
func (p *Proofs) Check(proof *Proof) error {
	now := time.Now()
	id, err := p.check(proof, now)
	if err != nil {
		return fmt.Errorf("%w: proof: %w", ErrRefused, err)
	}
	return p.burn(id, now)
}

// check checks everything that does not depend on other proofs, and returns what the proof is remembered by.
func (p *Proofs) check(proof *Proof, now time.Time) (id [sha256.Size]byte, err error) {
	head, body, input, signature, err := split(proof.Text)
	if err != nil {
		return id, err
	}
	var h proofHeader
	var c proofClaims
	if err := errors.Join(decode(head, &h), decode(body, &c)); err != nil {
		return id, err
	}
	if h.Type != "dpop+jwt" {
		return id, errors.New("type is another one")
	}
	for _, name := range refusedHeaders {
		if _, ok := h.Rest[name]; ok {
			return id, fmt.Errorf("has %q, which is not accepted", name)
		}
	}
	key, err := proofKey(h.JWK, jose.SignatureAlgorithm(h.Algorithm))
	if err != nil {
		return id, err
	}
	if err := verify(key.Key, jose.SignatureAlgorithm(h.Algorithm), input, signature); err != nil {
		return id, err
	}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return id, err
	}
	hash := sha256.Sum256([]byte(proof.Token))
	encode := base64.RawURLEncoding.EncodeToString
	switch {
	case !same(encode(thumbprint), proof.Key):
		return id, errors.New("key is not the token's")
	case !same(encode(hash[:]), c.Hash):
		return id, errors.New("made for another token")
	case c.Method != proof.Method:
		return id, errors.New("made for another method")
	case !sameURL(c.URL, proof.Host, proof.Path):
		return id, errors.New("made for another URL")
	case c.ID == "" || len(c.ID) > maxJTI:
		return id, errors.New("id is missing or too long")
	case c.IssuedAt == nil:
		return id, errors.New("without a time")
	}
	if at := c.IssuedAt.at(); at.Before(now.Add(-proofWindow)) || at.After(now.Add(proofWindow)) || at.Before(p.started) {
		return id, errors.New("not of this minute")
	}
	return sha256.Sum256(append(append([]byte(nil), thumbprint...), c.ID...)), nil
}

// proofKey returns the public key in a proof's header.
func proofKey(raw jsontext.Value, algorithm jose.SignatureAlgorithm) (*jose.JSONWebKey, error) {
	var about object
	if len(raw) == 0 || json.Unmarshal(raw, &about) != nil || about == nil {
		return nil, errors.New("no key")
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, ok := about[private]; ok {
			return nil, errors.New("key is a private one")
		}
	}
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(raw); err != nil || !key.Valid() || !key.IsPublic() {
		return nil, errors.New("key cannot be read")
	}
	for _, a := range algorithmsOf(key.Key) {
		if a == algorithm {
			return &key, nil
		}
	}
	return nil, errors.New("algorithm is not one of the key's")
}

// split splits a proof as parse does a token.
func split(text string) (head, body, input string, signature []byte, err error) {
	if len(text) > maxProof || strings.Count(text, ".") != 2 {
		return "", "", "", nil, errForm
	}
	end := strings.LastIndexByte(text, '.')
	input = text[:end]
	head, body, _ = strings.Cut(input, ".")
	signature, err = base64.RawURLEncoding.Strict().DecodeString(text[end+1:])
	if err != nil || len(signature) == 0 || strings.ContainsAny(text[end:], "\r\n") {
		return "", "", "", nil, errForm
	}
	return head, body, input, signature, nil
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// sameURL reports whether htu is the URL of a request without query and fragment. Scheme and host have no case, and
// the port of https may be left out.
func sameURL(htu, host, path string) bool {
	u, err := url.Parse(htu)
	if err != nil || !strings.EqualFold(u.Scheme, "https") || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return false
	}
	if u.Path == "" {
		u.Path = "/"
	}
	const port = ":443"
	return strings.EqualFold(strings.TrimSuffix(u.Host, port), strings.TrimSuffix(host, port)) && u.EscapedPath() == path
}

// burn remembers a proof, and refuses one that is remembered.
func (p *Proofs) burn(id [sha256.Size]byte, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A proof is good for two windows: one before its time, one after. What is old has been there for that long when
	// it is forgotten.
	if now.Sub(p.turned) >= 2*proofWindow {
		if p.old = p.young; now.Sub(p.turned) >= 4*proofWindow {
			p.old = nil
		}
		p.young, p.turned = map[[sha256.Size]byte]struct{}{}, now
	}
	_, young := p.young[id]
	_, old := p.old[id]
	switch {
	case young || old:
		return fmt.Errorf("%w: proof was used before", ErrRefused)
	case len(p.young) >= maxProofs:
		return ErrFull
	}
	p.young[id] = struct{}{}
	return nil
}
