// Package secret is the store of secrets: values with names, each namespace's own, in versions that never change.
//
// A version is current, previous, pending, disabled or destroyed. Its value is sealed under a key of its own (keyring.Safe), bound
// to namespace, name and version; to destroy it is to destroy that key, after which nothing reads the value, wherever its bytes are.
// What is current and what is previous changes with one write, so there is no moment without a version in force.
//
// The package hands values to the doors of grants (Store.Value) and makes what takes them out of texts (Store.Redactor). It
// writes down who used what, raises a finding when a canary is touched, and has functions of the user's rotate secrets
// (Rotator). A secret may be in another store, such as Vault; then it is read there when it is used.
//
// Invariants. No value is in an error, a log or on disk in clear. Values are in memory while they are used, and in the Sets that take
// them out of texts. No value is handed out without the gate's consent; an error of the gate is a refusal. What was destroyed
// stays destroyed, whenever a crash comes.
//
// Callers: httpapi (management), deploy and dispatch through server, the doors of grants (Value).
package secret

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
	"sallyport/internal/store"
)

// Limits of the secrets of one namespace.
const (
	// MaxSecrets bounds the secrets.
	MaxSecrets = 1000
	// MaxValue bounds a value in bytes: a chain of certificates with its key.
	MaxValue = 64 << 10
	// maxLive bounds the versions of a secret that are not destroyed. The oldest that has no name is destroyed for a new one.
	maxLive = 16
	// maxKept bounds the versions of a secret that are listed, the destroyed ones too.
	maxKept = 100
	// maxDescription bounds a description in bytes.
	maxDescription = 500
	// DefaultGrace is how long the version before stays usable after a new one came into force, and MaxGrace the longest.
	DefaultGrace = 24 * time.Hour
	MaxGrace     = 90 * 24 * time.Hour
	// maxCached bounds the sealed values that are kept in memory, in bytes.
	maxCached = 8 << 20
	// maxSets bounds the redactors that are kept.
	maxSets = 1024
)

// Bucket is a sealed key-value space; store.Bucket is one.
type Bucket interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]store.Entry, error)
	Keys(ctx context.Context, prefix, after string, limit int) ([]string, error)
}

// Safe seals each value under a key of its own; keyring.Safe is one.
type Safe interface {
	Seal(ctx context.Context, name string, plaintext, aad []byte) ([]byte, error)
	Open(ctx context.Context, name string, sealed, aad []byte) ([]byte, error)
	Destroy(ctx context.Context, name string) error
}

// Touch is a use of a canary.
type Touch struct {
	Namespace ident.Namespace
	Name      ident.SecretName
	Use       grant.Use
	Principal ident.PrincipalID // who did it by hand, "" for a function
	Denied    bool
}

// EventID returns the event that was handled when a function touched a canary, or "".
func (t *Touch) EventID() string {
	if e := t.Use.Caller.Event; e != nil {
		return e.ID
	}
	return ""
}

// Config says what a Store works with.
type Config struct {
	// Open returns where the secrets of a namespace are kept.
	Open func(ctx context.Context, ns ident.Namespace) (Bucket, Safe, error)
	// Permit asks the gate whether a function may use a secret, or read its value.
	Permit func(ctx context.Context, use grant.Use, ns ident.Namespace, secret string, reveal bool) error
	// Outside reads secrets of other stores; nil is none.
	Outside *Outside
	// Touched, when set, is told of each use of a canary. It must not block.
	Touched func(Touch)
	// Hidden, when set, has each value that was opened, until it is destroyed.
	Hidden *redact.Live
	Logger *slog.Logger
}

// Store is the secrets of all namespaces. It is safe for concurrent use. Close it.
type Store struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	spaces map[ident.Namespace]*space

	sets struct {
		sync.Mutex
		known map[string]knownSet
	}
	stop    context.CancelFunc
	running sync.WaitGroup
}

type knownSet struct {
	mark string
	set  *redact.Set
}

// New returns the store. It writes down uses until Close.
func New(cfg Config) *Store {
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{cfg: cfg, log: cfg.Logger, spaces: map[ident.Namespace]*space{}, stop: stop}
	s.sets.known = map[string]knownSet{}
	s.running.Go(func() { s.writeUses(ctx) })
	return s
}

// Close writes down the uses that are not yet. It is idempotent.
func (s *Store) Close() error {
	s.stop()
	s.running.Wait()
	return nil
}

// space is the secrets of one namespace.
type space struct {
	ns     ident.Namespace
	bucket Bucket
	safe   Safe
	hidden *redact.Live
	log    *slog.Logger

	writing sync.Mutex // held while a secret changes

	mu      sync.RWMutex // guards what follows; not held across I/O
	secrets map[ident.SecretName]*record
	stale   map[ident.SecretName]bool // a write failed, and what is stored is not known
	cached  map[string][]byte         // sealed values
	size    int                       // of cached
	uses    map[ident.SecretName]*uses
	former  map[ident.SecretName][]former
}

// Keys of the bucket.
const (
	secretPrefix = "s/"
	valuePrefix  = "v/"
	usesPrefix   = "l/"
)

// space opens the secrets of a namespace when they are first asked for.
func (s *Store) space(ctx context.Context, ns ident.Namespace) (*space, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp := s.spaces[ns]; sp != nil {
		return sp, nil
	}
	bucket, safe, err := s.cfg.Open(ctx, ns)
	if err != nil {
		return nil, err
	}
	sp := &space{
		ns: ns, bucket: bucket, safe: safe, hidden: s.cfg.Hidden, log: s.log, secrets: map[ident.SecretName]*record{}, stale: map[ident.SecretName]bool{},
		cached: map[string][]byte{}, uses: map[ident.SecretName]*uses{}, former: map[ident.SecretName][]former{},
	}
	entries, err := bucket.List(ctx, secretPrefix, "", 0)
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	for _, e := range entries {
		r := &record{}
		if err := json.Unmarshal(e.Value, r); err != nil {
			return nil, fmt.Errorf("decode secret %q: %w", strings.TrimPrefix(e.Key, secretPrefix), err)
		}
		sp.secrets[r.Name] = r
	}
	if err := sp.loadUses(ctx); err != nil {
		return nil, err
	}
	if err := sp.sweep(ctx); err != nil {
		return nil, err
	}
	s.spaces[ns] = sp
	return sp, nil
}

// Forget drops what is in memory of a namespace that is being removed; the caller removes what is stored.
func (s *Store) Forget(ns ident.Namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.spaces, ns)
}

// sweep destroys the values that no version has: of what was being made, or being destroyed, when a crash came.
func (sp *space) sweep(ctx context.Context) error {
	keys, err := sp.bucket.Keys(ctx, valuePrefix, "", 0)
	if err != nil {
		return fmt.Errorf("list values of secrets: %w", err)
	}
	live := map[string]bool{}
	for _, r := range sp.secrets {
		for i := range r.Versions {
			if v := &r.Versions[i]; v.Destroyed == nil && v.Key != "" {
				live[v.Key] = true
			}
		}
	}
	for _, key := range keys {
		if name := strings.TrimPrefix(key, valuePrefix); !live[name] {
			if err := sp.shred(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// shred destroys a value: its key first, so that what is left of it says that there is something to do.
func (sp *space) shred(ctx context.Context, key string) error {
	if err := sp.safe.Destroy(ctx, key); err != nil {
		return err
	}
	if err := sp.bucket.Delete(ctx, valuePrefix+key); err != nil {
		return fmt.Errorf("delete the value of a secret: %w", err)
	}
	sp.hidden.Drop(string(sp.ns) + "/" + key)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.size -= len(sp.cached[key])
	delete(sp.cached, key)
	return nil
}

// get returns a secret as it is now. What it returns is never changed.
func (sp *space) get(ctx context.Context, name ident.SecretName) (*record, error) {
	sp.mu.RLock()
	r, stale := sp.secrets[name], sp.stale[name]
	sp.mu.RUnlock()
	if stale {
		sp.writing.Lock()
		defer sp.writing.Unlock()
		return sp.reload(ctx, name)
	}
	if r == nil {
		return nil, notFound(sp.ns, name)
	}
	return r, nil
}

// reload reads a secret again after a write of it failed. sp.writing is held.
func (sp *space) reload(ctx context.Context, name ident.SecretName) (*record, error) {
	text, err := sp.bucket.Get(ctx, secretPrefix+string(name))
	var r *record
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("read secret %q: %w", name, err)
	default:
		r = &record{}
		if err := json.Unmarshal(text, r); err != nil {
			return nil, fmt.Errorf("decode secret %q: %w", name, err)
		}
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	delete(sp.stale, name)
	if r == nil {
		delete(sp.secrets, name)
		return nil, notFound(sp.ns, name)
	}
	sp.secrets[name] = r
	return r, nil
}

// change has f change a copy of a secret, and stores it. f gets nil for a secret that is not there, and returns nil to remove it.
// A write that was begun is brought to its end, for what is in memory and what is stored must not differ.
func (sp *space) change(ctx context.Context, name ident.SecretName, f func(r *record) (*record, error)) (*record, error) {
	sp.writing.Lock()
	defer sp.writing.Unlock()
	return sp.changeHeld(ctx, name, f)
}

// changeHeld is change for who holds sp.writing.
func (sp *space) changeHeld(ctx context.Context, name ident.SecretName, f func(r *record) (*record, error)) (*record, error) {
	sp.mu.RLock()
	r, stale := sp.secrets[name], sp.stale[name]
	sp.mu.RUnlock()
	if stale {
		var err error
		if r, err = sp.reload(ctx, name); err != nil && !isNotFound(err) {
			return nil, err
		}
	}
	next, err := f(r.clone())
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	key := secretPrefix + string(name)
	if next == nil {
		err = sp.bucket.Delete(ctx, key)
	} else {
		next.Changes++
		var text []byte
		if text, err = json.Marshal(next, json.Deterministic(true)); err != nil {
			return nil, fmt.Errorf("encode secret %q: %w", name, err)
		}
		err = sp.bucket.Put(ctx, key, text)
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if err != nil {
		sp.stale[name] = true
		return nil, fmt.Errorf("store secret %q: %w", name, err)
	}
	if next == nil {
		delete(sp.secrets, name)
	} else {
		sp.secrets[name] = next
	}
	return next, nil
}

// all returns the secrets in order of their names.
func (sp *space) all() []*record {
	sp.mu.RLock()
	defer sp.mu.RUnlock()
	out := make([]*record, 0, len(sp.secrets))
	for _, name := range slices.Sorted(maps.Keys(sp.secrets)) {
		out = append(out, sp.secrets[name])
	}
	return out
}

func notFound(ns ident.Namespace, name ident.SecretName) *problem.Error {
	return problem.New(problem.NotFound, "secret.not_found", "there is no secret %q in namespace %q", name, ns).
		WithHint("set it from a file or from stdin: sallyport secret set %s -n %s --file FILE", name, ns)
}

func isNotFound(err error) bool {
	p, ok := errors.AsType[*problem.Error](err)
	return ok && p.Code == "secret.not_found"
}
