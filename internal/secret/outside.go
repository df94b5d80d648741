package secret

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
)

const (
	// DefaultTTL is how long a value of another store is used without asking for it again.
	DefaultTTL = 5 * time.Minute
	// maxHeld bounds the secrets of other stores whose values are held, and maxHeldBytes those values, the earlier ones too.
	maxHeld      = 1000
	maxHeldBytes = 16 << 20
	// maxEarlier bounds the earlier values of one secret that are held.
	maxEarlier = 16
	// keyVaultAPI is the version of the REST API of Azure Key Vault.
	keyVaultAPI = "7.4"
	// keyVaultScope is what tokens for it are asked for.
	keyVaultScope = "https://vault.azure.net/.default"
	// tokenMargin is how long before its end a token is asked for anew.
	tokenMargin = 30 * time.Second
)

// Getter fetches what it is sent to; outbound.Client is one.
type Getter interface {
	GetWith(ctx context.Context, target string, header http.Header) (*outbound.Answer, error)
	PostForm(ctx context.Context, target string, form url.Values) (*outbound.Answer, error)
}

// Source is another store, for one namespace.
type Source struct {
	// Kind is ident.StoreVault or ident.StoreKeyVault.
	Kind      string
	Namespace ident.Namespace
	// URL is where it is, without a slash at its end.
	URL string
	// Prefix begins the names of the secrets that the namespace may read; for Vault it MUST end with a slash, for "kv/shop" is before
	// "kv/shopping" too.
	Prefix string
	// Token returns the credential: of Vault the token, of Key Vault a bearer token, unless TokenURL is set.
	Token func() ([]byte, error)
	// TokenURL, ClientID and ClientSecret, all or none, get tokens for Key Vault as a registered application.
	TokenURL, ClientID string
	ClientSecret       func() ([]byte, error)
	// VaultNamespace is that of Vault Enterprise and OpenBao, "" for none.
	VaultNamespace string
	// TTL is how long a value is used without asking for it again, DefaultTTL when it is 0.
	TTL    time.Duration
	Client Getter
}

// Outside reads secrets of other stores. Values are held sealed, in memory only, for a short while; when that is over and the other
// store does not answer, the use of the secret fails. It is safe for concurrent use; the nil Outside has no store.
type Outside struct {
	sources map[sourceID]*source
	aead    cipher.AEAD // of a key that ends with the process
	log     *slog.Logger

	mu    sync.Mutex
	known map[heldID]held
	size  int // of the values in known, in bytes
	count uint64
}

type sourceID struct {
	ns   ident.Namespace
	kind string
}

type source struct {
	Source
	mu    sync.Mutex // held while a token is fetched
	token []byte
	until time.Time
}

type heldID struct {
	ns  ident.Namespace
	ref ident.SecretRef
}

type held struct {
	sealed []byte
	until  time.Time
	number uint64 // of the fetch: two that differ may be two values
	// earlier are the values before, the last one first. They are not used any more, and still taken out of texts.
	earlier []earlier
	read    time.Time // last
}

// earlier is a value that functions may still have, until then.
type earlier struct {
	sealed []byte
	until  time.Time
}

// size is what the values take, in bytes.
func (h *held) size() int {
	n := len(h.sealed)
	for _, e := range h.earlier {
		n += len(e.sealed)
	}
	return n
}

// NewOutside returns what reads from the sources, of each kind one for a namespace.
func NewOutside(sources []Source, log *slog.Logger) (*Outside, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // documented to never fail
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	o := &Outside{sources: map[sourceID]*source{}, aead: aead, log: log, known: map[heldID]held{}}
	for _, s := range sources {
		id := sourceID{s.Namespace, s.Kind}
		if o.sources[id] != nil {
			return nil, fmt.Errorf("namespace %q has two stores of kind %q", s.Namespace, s.Kind)
		}
		if s.TTL == 0 {
			s.TTL = DefaultTTL
		}
		o.sources[id] = &source{Source: s}
	}
	return o, nil
}

// covers returns nil when a namespace may read a reference.
func (o *Outside) covers(ns ident.Namespace, ref ident.SecretRef) error {
	var s *source
	if o != nil {
		s = o.sources[sourceID{ns, ref.Store}]
	}
	if s == nil {
		return problem.New(problem.NotFound, "secret.no_such_store", "the namespace %q has no store of secrets of kind %q", ns, ref.Store).
			WithHint("the operator names it in server.toml: [[secret_stores]] kind = %q, namespace = %q", ref.Store, ns)
	}
	if !strings.HasPrefix(ref.Name, s.Prefix) {
		return problem.New(problem.Denied, "secret.outside_prefix", "the namespace %q reads secrets of %s that begin with %q only", ns, ref.Store, s.Prefix)
	}
	return nil
}

// read returns the value of a reference, and a number that no other value of it has. The caller clears the value.
func (o *Outside) read(ctx context.Context, ns ident.Namespace, ref ident.SecretRef) (value []byte, number uint64, err error) {
	if err := o.covers(ns, ref); err != nil {
		return nil, 0, err
	}
	id := heldID{ns, ref}
	o.mu.Lock()
	h, ok := o.known[id]
	o.mu.Unlock()
	if ok && time.Now().Before(h.until) {
		value, err := o.unseal(id, h)
		return value, h.number, err
	}
	s := o.sources[sourceID{ns, ref.Store}]
	value, err = s.fetch(ctx, ref)
	if err != nil {
		o.log.WarnContext(ctx, "read a secret of another store", "namespace", string(ns), "reference", ref.String(), "error", err)
		if p, ok := errors.AsType[*problem.Error](err); ok {
			return nil, 0, p
		}
		return nil, 0, problem.New(problem.Unavailable, "secret.store_unavailable", "the store of the secret %s does not answer as it should", ref).
			WithHint("the server's log says what it answered").WithRetryAfter(time.Second).WithCause(err)
	}
	return value, o.hold(id, value, s.TTL), nil
}

func (id heldID) additional() []byte { return []byte(string(id.ns) + "\x00" + id.ref.String()) }

// hold keeps a value, and the one before as long as functions may have it. It returns the number of the value.
func (o *Outside) hold(id heldID, value []byte, ttl time.Duration) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	h := o.known[id]
	o.size -= h.size()
	h.earlier = slices.DeleteFunc(slices.Clone(h.earlier), func(e earlier) bool { return !now.Before(e.until) })
	was, err := o.unseal(id, h)
	if err != nil || !bytes.Equal(was, value) {
		o.count++
		h.number = o.count
		if err == nil {
			h.earlier = slices.Insert(h.earlier, 0, earlier{h.sealed, now.Add(grant.MaxLeased)})
			h.earlier = h.earlier[:min(len(h.earlier), maxEarlier)]
		}
	}
	clear(was)
	h.sealed, h.until, h.read = o.aead.Seal(nil, nil, value, id.additional()), now.Add(ttl), now
	o.known[id] = h
	o.size += h.size()
	o.shrink(id, now)
	return h.number
}

// shrink forgets what nobody may have any more and then what was read longest ago, until what is held is within its bounds. The secret that was
// read now stays, and earlier values of it go before it does. o.mu is held.
func (o *Outside) shrink(last heldID, now time.Time) {
	for len(o.known) > maxHeld || o.size > maxHeldBytes {
		oldest := last
		for id, h := range o.known {
			if id != last && (oldest == last || h.read.Before(o.known[oldest].read)) {
				oldest = id
			}
		}
		h := o.known[oldest]
		o.size -= h.size()
		if oldest != last {
			if now.Before(h.read.Add(grant.MaxLeased)) {
				o.log.Warn("more secrets of other stores are in use than can be held: one is read anew, and not taken out of texts before", "namespace", string(oldest.ns), "reference", oldest.ref.String())
			}
			delete(o.known, oldest)
			continue
		}
		h.earlier = nil
		o.known[last] = h
		o.size += h.size()
		return
	}
}

func (o *Outside) unseal(id heldID, h held) ([]byte, error) {
	if h.sealed == nil {
		return nil, errors.New("nothing is held")
	}
	return o.aead.Open(nil, nil, h.sealed, id.additional())
}

// held returns the values that functions may have of a reference: the last one that was read, whether it may still be used or not, and those before
// while they may be leased. The caller clears them.
func (o *Outside) held(ns ident.Namespace, ref ident.SecretRef) (values [][]byte) {
	if o == nil {
		return nil
	}
	id := heldID{ns, ref}
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.known[id]
	add := func(sealed []byte) {
		if value, err := o.unseal(id, held{sealed: sealed}); err == nil {
			values = append(values, value)
		}
	}
	add(h.sealed)
	now := time.Now()
	for _, e := range h.earlier {
		if now.Before(e.until) {
			add(e.sealed)
		}
	}
	return values
}

// mark differs when held does.
func (o *Outside) mark(ns ident.Namespace, ref ident.SecretRef) string {
	if o == nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return strconv.FormatUint(o.known[heldID{ns, ref}].number, 10)
}

func (s *source) fetch(ctx context.Context, ref ident.SecretRef) ([]byte, error) {
	if s.Kind == ident.StoreVault {
		return s.fetchVault(ctx, ref)
	}
	return s.fetchKeyVault(ctx, ref)
}

// refused is the problem of an answer that is no value.
func refused(ref ident.SecretRef, status int) error {
	switch status {
	case http.StatusNotFound:
		return problem.New(problem.NotFound, "secret.not_in_store", "there is no secret %s in its store", ref)
	case http.StatusForbidden, http.StatusUnauthorized:
		return problem.New(problem.Unavailable, "secret.store_denied", "the store of the secret %s refuses the server's own credential", ref).
			WithHint("the operator renews it; server.toml names its file")
	}
	return fmt.Errorf("answered with status %d", status)
}

// fetchVault reads from the key-value engine of version 2.
//
// Source: https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version.
func (s *source) fetchVault(ctx context.Context, ref ident.SecretRef) ([]byte, error) {
	token, err := s.Token()
	if err != nil {
		return nil, fmt.Errorf("read the token for Vault: %w", err)
	}
	defer clear(token)
	mount, path, _ := strings.Cut(ref.Name, "/")
	target := s.URL + "/v1/" + mount + "/data/" + path
	if ref.Version != "" {
		target += "?version=" + ref.Version
	}
	header := http.Header{"X-Vault-Token": {string(bytes.TrimSpace(token))}, "X-Vault-Request": {"true"}}
	if s.VaultNamespace != "" {
		header["X-Vault-Namespace"] = []string{s.VaultNamespace}
	}
	answer, err := s.Client.GetWith(ctx, target, header)
	if err != nil {
		return nil, err
	}
	defer clear(answer.Body)
	if answer.Status != http.StatusOK {
		return nil, refused(ref, answer.Status)
	}
	var body struct {
		Data struct {
			Data map[string]any `json:"data"`
		} `json:"data"`
	}
	if err := json.Unmarshal(answer.Body, &body); err != nil {
		return nil, errors.New("answered with something else than a secret")
	}
	value, ok := body.Data.Data[ref.Field].(string)
	if !ok {
		return nil, problem.New(problem.NotFound, "secret.not_in_store", "the secret %s has no text in the field %q", ref, ref.Field)
	}
	return bounded(value, ref)
}

func bounded(value string, ref ident.SecretRef) ([]byte, error) {
	if value == "" || len(value) > MaxValue {
		return nil, problem.New(problem.Unavailable, "secret.store_unavailable", "the value of %s is %d bytes long, want 1 to %d", ref, len(value), MaxValue)
	}
	return []byte(value), nil
}

// fetchKeyVault reads a secret of Azure Key Vault.
//
// Source: https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret.
func (s *source) fetchKeyVault(ctx context.Context, ref ident.SecretRef) ([]byte, error) {
	token, err := s.bearer(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(token)
	target := s.URL + "/secrets/" + ref.Name
	if ref.Version != "" {
		target += "/" + ref.Version
	}
	answer, err := s.Client.GetWith(ctx, target+"?api-version="+keyVaultAPI, http.Header{"Authorization": {"Bearer " + string(token)}})
	if err != nil {
		return nil, err
	}
	defer clear(answer.Body)
	if answer.Status == http.StatusUnauthorized {
		s.mu.Lock()
		s.until = time.Time{} // the next use asks for a new token
		s.mu.Unlock()
	}
	if answer.Status != http.StatusOK {
		return nil, refused(ref, answer.Status)
	}
	var body struct {
		Value string `json:"value"`
	}
	if err := json.Unmarshal(answer.Body, &body); err != nil {
		return nil, errors.New("answered with something else than a secret")
	}
	return bounded(body.Value, ref)
}

// bearer returns a token for Key Vault.
func (s *source) bearer(ctx context.Context) ([]byte, error) {
	if s.TokenURL == "" {
		token, err := s.Token()
		return bytes.TrimSpace(token), err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.until) {
		return bytes.Clone(s.token), nil
	}
	secret, err := s.ClientSecret()
	if err != nil {
		return nil, fmt.Errorf("read the client secret for Key Vault: %w", err)
	}
	defer clear(secret)
	answer, err := s.Client.PostForm(ctx, s.TokenURL, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {s.ClientID}, "client_secret": {string(bytes.TrimSpace(secret))}, "scope": {keyVaultScope},
	})
	if err != nil {
		return nil, fmt.Errorf("ask for a token: %w", err)
	}
	defer clear(answer.Body)
	var body struct {
		Token   string `json:"access_token"`
		Expires int64  `json:"expires_in"`
	}
	if answer.Status != http.StatusOK {
		return nil, fmt.Errorf("the request for a token was answered with status %d", answer.Status)
	}
	if err := json.Unmarshal(answer.Body, &body); err != nil || body.Token == "" || strings.ContainsFunc(body.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the request for a token was answered with something else")
	}
	clear(s.token)
	s.token = []byte(body.Token)
	s.until = time.Now().Add(time.Duration(min(max(body.Expires, 0), 24*3600))*time.Second - tokenMargin)
	return bytes.Clone(s.token), nil
}
