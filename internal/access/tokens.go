package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// A token is "sp_", its id, "_", its secret, "_" and a checksum, all in lower-case hex: a secret
// scanner knows it by its form, and a mistyped one is told from a wrong one without a look-up.
const (
	tokenPrefix  = "sp_"
	idBytes      = 8
	secretBytes  = 32
	tokenLength  = len(tokenPrefix) + 2*idBytes + 1 + 2*secretBytes + 1 + 8
	secretOffset = len(tokenPrefix) + 2*idBytes
	sumOffset    = tokenLength - 9
)

// Limits of tokens.
const (
	DefaultLifetime    = 90 * 24 * time.Hour
	MaxLifetime        = 5 * 366 * 24 * time.Hour
	firstLifetime      = 366 * 24 * time.Hour // of the operator token of the first start
	maxTokens          = 100_000              // about 1 KiB each in memory
	maxTokenEventTypes = 100
	maxDescription     = 200 // bytes
	// keepEnded is how long a token that was revoked or has expired is still listed when room is needed.
	keepEnded = 30 * 24 * time.Hour
)

// Bucket is where tokens are kept; store.Bucket is one.
type Bucket interface {
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]store.Entry, error)
}

// Tokens are all tokens of a server. They are safe for concurrent use.
type Tokens struct {
	bucket Bucket
	// within says whether a namespace that has so many valid tokens may have one; nil for any.
	within func(ns ident.Namespace, valid int) error

	mu   sync.Mutex // one change at a time
	byID atomic.Pointer[map[string]*token]
}

// token is one token: what is stored, and the principal it authenticates.
type token struct {
	stored    storedToken
	hash      [sha256.Size]byte
	principal *Principal
}

// storedToken is the form of a token in the store. The hash is of its whole text, which has 256
// random bits, so it needs no salt and no slow hash.
type storedToken struct {
	api.Token
	Hash []byte `json:"hash"`
	// Key is what narrowed tokens made of this one are checked with. It is a public key: with it, nobody makes one.
	// A token of a server before there were narrowed ones has none, and cannot be narrowed.
	Key []byte `json:"key,omitempty"`
}

// NewTokens returns the tokens in bucket.
func NewTokens(ctx context.Context, bucket Bucket) (*Tokens, error) {
	entries, err := bucket.List(ctx, "", "", 0)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	byID := make(map[string]*token, len(entries))
	for _, e := range entries {
		var s storedToken
		if err := json.Unmarshal(e.Value, &s); err != nil {
			return nil, fmt.Errorf("decode token %q: %w", e.Key, err)
		}
		if len(s.Hash) != sha256.Size || s.ID != e.Key {
			return nil, fmt.Errorf("token %q in the store is malformed", e.Key)
		}
		byID[s.ID] = newToken(s)
	}
	t := &Tokens{bucket: bucket}
	t.byID.Store(&byID)
	return t, nil
}

func newToken(s storedToken) *token {
	types := make([]ident.EventType, len(s.EventTypes))
	for i, e := range s.EventTypes {
		types[i] = ident.EventType(e)
	}
	t := &token{stored: s, hash: [sha256.Size]byte(s.Hash)}
	t.principal = newPrincipal(policy.Principal{
		Kind: policy.KindToken, ID: ident.PrincipalID("token:" + s.ID), Role: policy.Role(s.Role),
		Namespace: ident.Namespace(s.Namespace), EventTypes: types,
	}, s.Expires)
	return t
}

// Authenticate returns the principal of a token's text, or a problem access.unauthenticated that
// is the same whatever is wrong.
func (t *Tokens) Authenticate(_ context.Context, text string) (*Principal, error) {
	if len(text) != tokenLength || !strings.HasPrefix(text, tokenPrefix) || text[sumOffset] != '_' || text[secretOffset] != '_' {
		return nil, unauthenticated()
	}
	var buf [tokenLength]byte
	copy(buf[:], text)
	hash := sha256.Sum256(buf[:])
	tok := (*t.byID.Load())[text[len(tokenPrefix):secretOffset]]
	if tok == nil || subtle.ConstantTimeCompare(hash[:], tok.hash[:]) != 1 || tok.stored.Revoked != nil || !time.Now().Before(tok.stored.Expires) {
		return nil, unauthenticated()
	}
	return tok.principal, nil
}

func unauthenticated() error {
	return problem.New(problem.Unauthenticated, "access.unauthenticated", "the request has no valid token").
		WithHint("send Authorization: Bearer with a token; `sallyport token create` makes one, `sallyport login` gets one, `sallyport doctor` checks yours")
}

// Create makes a token for req on behalf of by. The answer holds its text, which is not kept.
func (t *Tokens) Create(ctx context.Context, by ident.PrincipalID, req api.TokenRequest) (*api.NewToken, error) {
	lifetime, err := checkRequest(&req)
	if err != nil {
		return nil, err
	}
	id, text := newText()
	return t.create(ctx, by, req, lifetime, id, text)
}

func (t *Tokens) create(ctx context.Context, by ident.PrincipalID, req api.TokenRequest, lifetime time.Duration, id, text string) (*api.NewToken, error) {
	hash := sha256.Sum256([]byte(text))
	now := time.Now().UTC().Truncate(time.Second)
	s := storedToken{Hash: hash[:], Key: narrow.Key(text), Token: api.Token{
		ID: id, Role: req.Role, Namespace: req.Namespace, EventTypes: req.EventTypes, Description: req.Description,
		Created: now, CreatedBy: string(by), Expires: now.Add(lifetime),
	}}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(*t.byID.Load()) >= maxTokens {
		if err := t.forgetEnded(ctx, now.Add(-keepEnded)); err != nil {
			return nil, err
		}
	}
	if len(*t.byID.Load()) >= maxTokens {
		return nil, problem.New(problem.Exhausted, "access.too_many_tokens", "there are %d tokens, which is the most", maxTokens)
	}
	if t.within != nil && req.Namespace != "" {
		if err := t.within(ident.Namespace(req.Namespace), t.countValid(req.Namespace, now)+1); err != nil {
			return nil, err
		}
	}
	if err := t.put(ctx, s); err != nil {
		return nil, err
	}
	return &api.NewToken{Token: s.Token, Text: text}, nil
}

// Within has f asked before a token of a namespace is made, with how many valid ones there would be. It is called once,
// before Create.
func (t *Tokens) Within(f func(ns ident.Namespace, valid int) error) { t.within = f }

// Valid returns how many tokens of a namespace are neither revoked nor expired.
func (t *Tokens) Valid(ns ident.Namespace) int { return t.countValid(string(ns), time.Now()) }

func (t *Tokens) countValid(ns string, now time.Time) (n int) {
	for _, tok := range *t.byID.Load() {
		if s := &tok.stored; s.Namespace == ns && s.Revoked == nil && now.Before(s.Expires) {
			n++
		}
	}
	return n
}

// NamespaceOf returns the namespace of the token with this id, if there is one.
func (t *Tokens) NamespaceOf(id string) (ns ident.Namespace, ok bool) {
	if tok := (*t.byID.Load())[id]; tok != nil {
		return ident.Namespace(tok.stored.Namespace), true
	}
	return "", false
}

// RemoveNamespace ends and removes all tokens of a namespace, and those that cannot be removed now end all the same.
func (t *Tokens) RemoveNamespace(ctx context.Context, ns ident.Namespace) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(*t.byID.Load())
	var gone []string
	for id, tok := range next {
		if tok.stored.Namespace == string(ns) {
			gone = append(gone, id)
			delete(next, id)
		}
	}
	t.byID.Store(&next)
	for _, id := range gone {
		if err := t.bucket.Delete(ctx, id); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// newText makes the text of a token. crypto/rand does not fail: it ends the process instead.
func newText() (id, text string) {
	var b [idBytes + secretBytes]byte
	rand.Read(b[:])
	id = hex.EncodeToString(b[:idBytes])
	text = tokenPrefix + id + "_" + hex.EncodeToString(b[idBytes:])
	return id, fmt.Sprintf("%s_%08x", text, crc32.ChecksumIEEE([]byte(text)))
}

// put stores s and makes it current. t.mu is held.
func (t *Tokens) put(ctx context.Context, s storedToken) error {
	value, err := json.Marshal(&s)
	if err != nil {
		return fmt.Errorf("encode token: %w", err)
	}
	if err := t.bucket.Put(ctx, s.ID, value); err != nil {
		return unavailable(err)
	}
	next := maps.Clone(*t.byID.Load())
	next[s.ID] = newToken(s)
	t.byID.Store(&next)
	return nil
}

// forgetEnded removes the tokens that ended before then. t.mu is held.
func (t *Tokens) forgetEnded(ctx context.Context, then time.Time) error {
	next := maps.Clone(*t.byID.Load())
	defer t.byID.Store(&next)
	for id, tok := range next {
		s := &tok.stored
		if s.Expires.Before(then) || s.Revoked != nil && s.Revoked.Before(then) {
			if err := t.bucket.Delete(ctx, id); err != nil {
				return unavailable(err)
			}
			delete(next, id)
		}
	}
	return nil
}

func unavailable(err error) error {
	return problem.New(problem.Unavailable, "access.unavailable", "the token could not be stored").
		WithRetryAfter(time.Second).WithCause(err)
}

// Revoke ends the token with this id; its next request fails. Revoking twice is no error.
func (t *Tokens) Revoke(ctx context.Context, id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	tok := (*t.byID.Load())[id]
	if tok == nil {
		return problem.New(problem.NotFound, "access.token_not_found", "there is no token with this id").
			WithHint("list them with `sallyport token list`; the id is the part between sp_ and the next _")
	}
	if tok.stored.Revoked != nil {
		return nil
	}
	s := tok.stored
	now := time.Now().UTC().Truncate(time.Second)
	s.Revoked = &now
	return t.put(ctx, s)
}

// List returns all tokens, newest first, without their texts.
func (t *Tokens) List() []api.Token {
	out := []api.Token{}
	for _, tok := range *t.byID.Load() {
		out = append(out, tok.stored.Token)
	}
	slices.SortFunc(out, func(a, b api.Token) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

func checkRequest(req *api.TokenRequest) (time.Duration, error) {
	var faults []problem.Fault
	fault := func(pointer, format string, args ...any) {
		faults = append(faults, problem.Fault{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
	if !slices.Contains(policy.Roles(), policy.Role(req.Role)) {
		fault("/role", "want operator, developer, publisher or reader")
	}
	if req.Namespace != "" {
		if _, err := ident.ParseNamespace(req.Namespace); err != nil {
			fault("/namespace", "%v", err)
		}
	}
	if len(req.EventTypes) > maxTokenEventTypes {
		fault("/event_types", "at most %d", maxTokenEventTypes)
	}
	for i, e := range req.EventTypes {
		if _, err := ident.ParseEventType(e); err != nil {
			fault(fmt.Sprintf("/event_types/%d", i), "%v", err)
		}
	}
	if len(req.Description) > maxDescription {
		fault("/description", "at most %d bytes", maxDescription)
	}
	lifetime := DefaultLifetime
	if req.ExpiresIn != "" {
		d, err := time.ParseDuration(req.ExpiresIn)
		if err != nil || d < time.Second || d > MaxLifetime {
			fault("/expires_in", "want a duration such as 720h, at most %s", MaxLifetime)
		}
		lifetime = d
	}
	if len(faults) > 0 {
		return 0, problem.New(problem.Invalid, "access.token_request_invalid", "the token cannot be made like this").WithFaults(faults...)
	}
	return lifetime, nil
}
