// Package issuer makes short-lived identity tokens for functions, and publishes what others verify them with: the server is an
// OpenID Connect issuer of its own, so that a cloud can trust its functions by federation and nobody keeps static keys.
//
// What holds: a token is a JWT that is signed by a key of the keyring, is for exactly one audience, ends after
// Lifetime, and names one revision of one function as its subject. A key is published for PublishAhead before it signs
// anything, and until everything that it signed has ended, so whoever keeps the keys for CacheFor verifies every token.
// Keys are on disk, sealed, before they are published. A key that was revoked is published no more, and its successor signs at once.
//
// It does not decide who gets a token: the grant does. Callers: server, and by way of the grant kind identity, functions.
//
// Sources: OpenID Connect Discovery 1.0, RFC 7517 (JWK), RFC 7519 (JWT).
package issuer

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

const (
	// Lifetime is how long a token is valid.
	Lifetime = 15 * time.Minute
	// RotateEvery is how long a key signs.
	RotateEvery = 30 * 24 * time.Hour
	// PublishAhead is how long a key is published before it signs, and Keep how long after it signed last: longer than anybody
	// keeps the published keys, and than a token lives.
	PublishAhead, Keep = 24 * time.Hour, 24 * time.Hour
	// CacheFor is how long others may keep what is published.
	CacheFor = time.Hour
	// MaxAudience bounds an audience, in bytes.
	MaxAudience = 255
	// checkEvery is how often it is looked whether a key is due.
	checkEvery = 10 * time.Minute
	// backdate is how far before now a token begins to be valid, for verifiers whose clocks are behind.
	backdate = 5 * time.Second
)

// The paths of what is published, after the issuer's URL.
const (
	DiscoveryPath = "/.well-known/openid-configuration"
	KeysPath      = "/.well-known/jwks.json"
)

// stateKey is the one key in the bucket.
const stateKey = "keys"

// Bucket is where keys are kept, sealed by the keyring; store.Bucket is one.
type Bucket interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
}

// storedKey is a key in the store.
type storedKey struct {
	Sealed  []byte    `json:"sealed"`
	Created time.Time `json:"created"`
}

// signingKey is a key in use.
type signingKey struct {
	*keyring.Signer
	created time.Time
}

// Issuer is the issuer of a server. It is safe for concurrent use.
type Issuer struct {
	bucket Bucket
	sealer *keyring.Sealer
	log    *slog.Logger
	// about is nil until Announce.
	about atomic.Pointer[about]

	mu   sync.Mutex // one change of the keys at a time
	keys atomic.Pointer[[]signingKey]
	// set is the published form of keys.
	set atomic.Pointer[[]byte]
}

// Open returns the issuer whose keys are in bucket. The first start makes a key.
func Open(ctx context.Context, bucket Bucket, sealer *keyring.Sealer, log *slog.Logger) (*Issuer, error) {
	i := &Issuer{bucket: bucket, sealer: sealer, log: log}
	value, err := bucket.Get(ctx, stateKey)
	if err == nil {
		var stored []storedKey
		if err := json.Unmarshal(value, &stored); err != nil {
			return nil, fmt.Errorf("decode the keys of the issuer: %w", err)
		}
		keys := make([]signingKey, len(stored))
		for n, k := range stored {
			signer, err := keyring.OpenSigner(sealer, k.Sealed)
			if err != nil {
				return nil, fmt.Errorf("open a key of the issuer: %w", err)
			}
			keys[n] = signingKey{signer, k.Created}
		}
		if err := i.use(keys); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("read the keys of the issuer: %w", err)
	}
	return i, i.Maintain(ctx)
}

// use makes keys, which are stored, those that are in use.
func (i *Issuer) use(keys []signingKey) error {
	set, err := keySet(keys)
	if err != nil {
		return err
	}
	i.keys.Store(&keys)
	i.set.Store(&set)
	return nil
}

// Maintain makes the key that is due, and ends those that nothing needs any more.
func (i *Issuer) Maintain(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var old []signingKey
	if now := i.keys.Load(); now != nil {
		old = *now
	}
	keys, err := due(old, time.Now().UTC().Truncate(time.Second))
	if err != nil || keys == nil {
		return err
	}
	return i.store(ctx, keys)
}

// store has keys stored, and then in use. i.mu is held.
func (i *Issuer) store(ctx context.Context, keys []signingKey) error {
	var err error
	stored := make([]storedKey, len(keys))
	for n, k := range keys {
		if stored[n].Sealed, err = k.Seal(i.sealer); err != nil {
			return fmt.Errorf("seal a key of the issuer: %w", err)
		}
		stored[n].Created = k.created
	}
	value, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("encode the keys of the issuer: %w", err)
	}
	// A write that was begun is brought to its end: what is published is stored.
	if err := i.bucket.Put(context.WithoutCancel(ctx), stateKey, value); err != nil {
		return fmt.Errorf("store the keys of the issuer: %w", err)
	}
	return i.use(keys)
}

// due returns the keys as they are to be now, nil when they are. They are in the order they were made in.
func due(keys []signingKey, now time.Time) ([]signingKey, error) {
	next := keys
	if len(next) > 1 && !now.Before(next[1].created.Add(PublishAhead+Keep)) {
		next = next[1:] // its successor has signed for so long that nothing of it is valid
	}
	if n := len(next); n == 0 || !now.Before(next[n-1].created.Add(RotateEvery)) {
		signer, err := keyring.NewSigner()
		if err != nil {
			return nil, err
		}
		next = append(next[:n:n], signingKey{signer, now})
	}
	if len(next) == len(keys) && (len(keys) == 0 || next[0] == keys[0]) {
		return nil, nil
	}
	return next, nil
}

// Run keeps the keys fresh until ctx ends.
func (i *Issuer) Run(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := i.Maintain(ctx); err != nil {
				i.log.ErrorContext(ctx, "renew the issuer's keys; those that there are stay in use", "error", err)
			}
		}
	}
}

// current returns which key signs now: the newest one that is published for long enough, or the first.
func current(keys []signingKey, now time.Time) int {
	for n := len(keys) - 1; n > 0; n-- {
		if !now.Before(keys[n].created.Add(PublishAhead)) {
			return n
		}
	}
	return 0
}

// about is by which URL others know the issuer, and its discovery document.
type about struct {
	url       string
	discovery []byte
}

// Announce says by which URL others know the issuer. Before it, there are no tokens.
func (i *Issuer) Announce(url string) error {
	text, err := json.Marshal(&discovery{
		Issuer: url, Keys: url + KeysPath, Responses: []string{"id_token"}, Subjects: []string{"public"}, Algorithms: []string{"RS256"},
		Claims: []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "namespace", "function", "revision"},
	})
	if err != nil {
		return fmt.Errorf("encode the discovery document: %w", err)
	}
	i.about.Store(&about{url, text})
	return nil
}

// URL returns by which URL others know the issuer, "" before Announce.
func (i *Issuer) URL() string {
	if about := i.about.Load(); about != nil {
		return about.url
	}
	return ""
}

// Caller is the revision of a function that asks for a token.
type Caller struct {
	Namespace ident.Namespace
	Function  ident.FunctionName
	Revision  int
}

// header is that of a token.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// claims are those of a token.
type claims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	Expires   int64  `json:"exp"`
	NotBefore int64  `json:"nbf"`
	IssuedAt  int64  `json:"iat"`
	ID        string `json:"jti"`
	Namespace string `json:"namespace"`
	Function  string `json:"function"`
	Revision  int    `json:"revision"`
}

// Token returns a token for one audience that says which function the caller is, and until when it is valid.
func (i *Issuer) Token(_ context.Context, c Caller, audience string) (token string, expires time.Time, err error) {
	about := i.about.Load()
	if about == nil {
		return "", time.Time{}, problem.New(problem.Unavailable, "issuer.no_url", "this server has no URL as an issuer").
			WithHint("set identity.issuer in server.toml to the URL under which others find it")
	}
	if audience == "" || len(audience) > MaxAudience {
		return "", time.Time{}, problem.New(problem.Invalid, "issuer.bad_audience", "a token is for an audience of 1 to %d bytes", MaxAudience)
	}
	now := time.Now().UTC().Truncate(time.Second)
	keys := *i.keys.Load()
	key := keys[current(keys, now)]
	expires = now.Add(Lifetime)
	signed, err := encode(&header{Algorithm: "RS256", KeyID: key.ID(), Type: "JWT"}, &claims{
		Issuer: about.url, Subject: string(c.Namespace) + "/" + string(c.Function), Audience: audience,
		Expires: expires.Unix(), NotBefore: now.Add(-backdate).Unix(), IssuedAt: now.Unix(), ID: newID(),
		Namespace: string(c.Namespace), Function: string(c.Function), Revision: c.Revision,
	})
	if err != nil {
		return "", time.Time{}, err
	}
	signature, err := key.Sign([]byte(signed))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign a token: %w", err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), expires, nil
}

func encode(h *header, c *claims) (string, error) {
	first, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode a token: %w", err)
	}
	second, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encode a token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(first) + "." + base64.RawURLEncoding.EncodeToString(second), nil
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // it does not fail: it ends the process instead
	return hex.EncodeToString(b[:])
}

// jwk is a published key.
type jwk struct {
	Type      string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	ID        string `json:"kid"`
	N         string `json:"n"`
	E         string `json:"e"`
}

func keySet(keys []signingKey) ([]byte, error) {
	list := make([]jwk, len(keys))
	for n, k := range keys {
		public := k.Public()
		list[n] = jwk{
			Type: "RSA", Use: "sig", Algorithm: "RS256", ID: k.ID(), N: base64.RawURLEncoding.EncodeToString(public.N.Bytes()),
			E: base64.RawURLEncoding.EncodeToString(big.NewInt(int64(public.E)).Bytes()),
		}
	}
	return json.Marshal(map[string][]jwk{"keys": list})
}

// discovery is the discovery document. Nobody logs in here, so it has no endpoints but that of the keys.
type discovery struct {
	Issuer     string   `json:"issuer"`
	Keys       string   `json:"jwks_uri"`
	Responses  []string `json:"response_types_supported"`
	Subjects   []string `json:"subject_types_supported"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
	Claims     []string `json:"claims_supported"`
}

// Published returns what is to be read under a path, by anybody, and false when that is nothing.
func (i *Issuer) Published(path string) ([]byte, bool) {
	about := i.about.Load()
	switch {
	case about == nil:
	case path == KeysPath:
		return *i.set.Load(), true
	case path == DiscoveryPath:
		return about.discovery, true
	}
	return nil, false
}
