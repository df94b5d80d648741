package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// refreshEvery is how old keys become before they are fetched again, without anybody asking.
	refreshEvery = 5 * time.Minute
	// refreshPause is how long after a fetch a token with an unknown key makes no new one: whoever sends tokens
	// with invented keys must not have us ask the issuer for each.
	refreshPause = 10 * time.Second
	// maxWaiters bounds the callers that wait for one fetch: whoever has no token yet must not hold requests without bound.
	maxWaiters = 64
	// keepStale is how long keys are used that cannot be fetched again. An issuer that is down for a day has more
	// to do than let our callers in; and a key that it withdrew must end some day.
	keepStale = 24 * time.Hour
	// maxKeys bounds the keys of an issuer.
	maxKeys = 64
	// minRSA and maxRSA bound an RSA key in bits: a small one is broken, a huge one costs us.
	minRSA, maxRSA = 2048, 8192
)

// key is one that an issuer publishes.
type key struct {
	id         string
	algorithms []jose.SignatureAlgorithm
	public     any
}

// keySet is what an issuer published at a time. It is immutable.
type keySet struct {
	keys    []key
	fetched time.Time
}

// keys are those of an issuer, fetched when they are needed and again when they are old.
type keys struct {
	issuer string
	client Getter
	log    *slog.Logger

	current atomic.Pointer[keySet]
	dropped atomic.Uint64 // how often a fetch ended a key
	failed  atomic.Int64  // fetches

	mu      sync.Mutex
	fetch   *fetch // under way
	lastTry time.Time
	// revoked are the ids of keys that are not accepted whatever the issuer publishes.
	revoked map[string]bool
}

// fetch is one that callers wait for together.
type fetch struct {
	done    chan struct{}
	err     error
	waiters int
}

func newKeys(issuer string, client Getter, log *slog.Logger) *keys {
	return &keys{issuer: issuer, client: client, log: log}
}

// run fetches the keys at once, and then before they are old.
func (k *keys) run(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		if err := k.refresh(ctx, true); err != nil && ctx.Err() == nil {
			k.log.WarnContext(ctx, "keys of an issuer not fetched; those that are known stay in use", "issuer", k.issuer, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// find returns the key with this id for this algorithm. An unknown one has the keys fetched again, but not
// twice within refreshPause.
func (k *keys) find(ctx context.Context, id string, algorithm jose.SignatureAlgorithm) (*key, error) {
	set := k.current.Load()
	if set != nil && time.Since(set.fetched) < keepStale {
		if key := set.find(id, algorithm); key != nil {
			return key, nil
		}
	}
	err := k.refresh(ctx, false)
	set = k.current.Load()
	if set == nil || time.Since(set.fetched) >= keepStale {
		return nil, fmt.Errorf("%w: %w", ErrNoKeys, errors.Join(err, errors.New("nothing was fetched lately")))
	}
	if key := set.find(id, algorithm); key != nil {
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKeys, err)
	}
	return nil, fmt.Errorf("%w: unknown key", ErrRefused)
}

// find returns the key. A token without a key id fits when one key alone can have made it.
func (s *keySet) find(id string, algorithm jose.SignatureAlgorithm) *key {
	var found *key
	for i := range s.keys {
		k := &s.keys[i]
		if !slices.Contains(k.algorithms, algorithm) || id != "" && k.id != id {
			continue
		}
		if found != nil {
			return nil // which of the two, an attacker must not choose
		}
		found = k
	}
	return found
}

// refresh fetches the keys, once for all who ask at the same time. Without force it does nothing when the last
// try was a moment ago.
func (k *keys) refresh(ctx context.Context, force bool) error {
	k.mu.Lock()
	f := k.fetch
	if f == nil {
		if !force && time.Since(k.lastTry) < refreshPause {
			k.mu.Unlock()
			return nil
		}
		k.lastTry = time.Now()
		f = &fetch{done: make(chan struct{})}
		k.fetch = f
		// Whoever asked first may go away; the others still wait. The client bounds it.
		go k.complete(context.WithoutCancel(ctx), f)
	}
	if !force && f.waiters >= maxWaiters {
		k.mu.Unlock()
		return errors.New("too many wait for the issuer")
	}
	f.waiters++
	k.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *keys) complete(ctx context.Context, f *fetch) {
	set, err := k.load(ctx)
	k.mu.Lock()
	if err == nil {
		k.use(set)
	} else {
		k.failed.Add(1)
	}
	k.fetch = nil
	k.mu.Unlock()
	f.err = err
	close(f.done)
}

// use has the keys of a set accepted from now on, but those that were revoked. k.mu is held.
func (k *keys) use(set *keySet) {
	set.keys = slices.DeleteFunc(set.keys, func(one key) bool { return k.revoked[one.id] })
	if before := k.current.Swap(set); before != nil && !set.holds(before) {
		k.dropped.Add(1)
	}
}

// revoke has keys not accepted from now on, also when they are fetched again; the next unknown key is asked for at once.
func (k *keys) revoke(ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.revoked == nil {
		k.revoked = map[string]bool{}
	}
	for _, id := range ids {
		k.revoked[id] = true
	}
	k.lastTry = time.Time{}
	if now := k.current.Load(); now != nil {
		k.use(&keySet{keys: slices.Clone(now.keys), fetched: now.fetched})
	}
}

// holds reports whether each key of before is in s too.
func (s *keySet) holds(before *keySet) bool {
	return !slices.ContainsFunc(before.keys, func(old key) bool {
		return !slices.ContainsFunc(s.keys, func(k key) bool {
			return k.id == old.id && samePublic(k.public, old.public)
		})
	})
}

// discovery is what is read of a discovery document.
type discovery struct {
	Issuer  string `json:"issuer"`
	JWKSURI string `json:"jwks_uri"`
}

// load fetches the discovery document and the keys. The document is fetched each time: an issuer may move its keys.
func (k *keys) load(ctx context.Context) (*keySet, error) {
	var d discovery
	if err := k.get(ctx, strings.TrimSuffix(k.issuer, "/")+"/.well-known/openid-configuration", &d); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if d.Issuer != k.issuer {
		return nil, errors.New("discovery: the document is of another issuer")
	}
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := k.get(ctx, d.JWKSURI, &set); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("keys: more than %d", maxKeys)
	}
	out := &keySet{fetched: time.Now()}
	for _, raw := range set.Keys {
		if key, ok := parseKey(raw); ok {
			out.keys = append(out.keys, key)
		}
	}
	if len(out.keys) == 0 {
		return nil, errors.New("keys: none that can be used")
	}
	return out, nil
}

func (k *keys) get(ctx context.Context, url string, to any) error {
	a, err := k.client.Get(ctx, url)
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("answered %d", a.Status)
	}
	return json.Unmarshal(a.Body, to)
}

// parseKey returns a public key for signatures, and false for one of another use. Private and symmetric ones are of
// no use here: that they were published has ended them.
func parseKey(raw jsontext.Value) (key, bool) {
	var about struct {
		Use        string   `json:"use"`
		Operations []string `json:"key_ops"`
		Algorithm  string   `json:"alg"`
		Private    string   `json:"d"`
		Symmetric  string   `json:"k"`
	}
	if json.Unmarshal(raw, &about) != nil || about.Private != "" || about.Symmetric != "" ||
		about.Use != "" && about.Use != "sig" || len(about.Operations) > 0 && !slices.Contains(about.Operations, "verify") {
		return key{}, false
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(raw) != nil || !jwk.Valid() || !jwk.IsPublic() || len(jwk.KeyID) > maxKeyID {
		return key{}, false
	}
	algorithms := algorithmsOf(jwk.Key)
	if about.Algorithm != "" {
		algorithms = slices.DeleteFunc(algorithms, func(a jose.SignatureAlgorithm) bool { return string(a) != about.Algorithm })
	}
	return key{id: jwk.KeyID, algorithms: algorithms, public: jwk.Key}, len(algorithms) > 0
}

// algorithmsOf returns what a key can sign with, nothing for a key that is too weak or too large.
func algorithmsOf(public any) []jose.SignatureAlgorithm {
	switch p := public.(type) {
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	case *ecdsa.PublicKey:
		a := map[elliptic.Curve]jose.SignatureAlgorithm{elliptic.P256(): jose.ES256, elliptic.P384(): jose.ES384, elliptic.P521(): jose.ES512}[p.Curve]
		if a != "" {
			return []jose.SignatureAlgorithm{a}
		}
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n >= minRSA && n <= maxRSA && p.E >= 3 && p.E%2 == 1 {
			return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
		}
	}
	return nil
}

func samePublic(a, b any) bool {
	switch a := a.(type) {
	case ed25519.PublicKey:
		other, ok := b.(ed25519.PublicKey)
		return ok && a.Equal(other)
	case *ecdsa.PublicKey:
		other, ok := b.(*ecdsa.PublicKey)
		return ok && a.Equal(other)
	case *rsa.PublicKey:
		other, ok := b.(*rsa.PublicKey)
		return ok && a.Equal(other)
	}
	return false
}
