package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/ident"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/store"
)

// Limits of what is kept of callers.
const (
	// callerRetention is how long what a caller was is kept after its last event: longer than any retry lasts.
	callerRetention = 90 * 24 * time.Hour
	// maxCallers bounds all of them, some 100 bytes each in memory and up to 8 KiB on disk.
	maxCallers = 100_000
	// maxCallerStates bounds those of one principal: a holder narrows a token as often as it likes. The one that was used
	// least lately makes room, so that nobody makes another's be forgotten.
	maxCallerStates = 256
	// authorityBytes of a digest name one.
	authorityBytes = 16
	// unknownAuthority is of a caller that could not be kept: it may do nothing by way of a function.
	unknownAuthority = "?"
)

// CallerBucket is where callers are kept; store.Bucket is one.
type CallerBucket interface {
	Bucket
	Get(ctx context.Context, key string) ([]byte, error)
}

// Callers keep what those may do whose id does not say it, because a credential did that is not kept: users and services of
// issuers and certificates, and holders of narrowed tokens. A function that handles an event later, after a restart or
// a retry, does no more than they might when they sent it. They are safe for concurrent use.
type Callers struct {
	bucket CallerBucket

	mu    sync.RWMutex
	known map[string]callerUse
	// of counts what is known of each principal.
	of map[ident.PrincipalID]int
}

type callerUse struct {
	principal ident.PrincipalID
	day       int64 // of the last event, since 1970
}

// storedCaller is the form in the store.
type storedCaller struct {
	As policy.Principal `json:"as"`
	// Base is the token that a narrowed one was made of, and Caveats what narrows it.
	Base    string           `json:"base,omitempty"`
	Caveats []narrow.Caveats `json:"caveats,omitempty"`
	Day     int64            `json:"day"`
}

// OpenCallers returns the callers in bucket, and forgets those that sent nothing for long.
func OpenCallers(ctx context.Context, bucket CallerBucket) (*Callers, error) {
	c := &Callers{bucket: bucket, known: map[string]callerUse{}, of: map[ident.PrincipalID]int{}}
	entries, err := bucket.List(ctx, "", "", 0)
	if err != nil {
		return nil, fmt.Errorf("list callers: %w", err)
	}
	for _, e := range entries {
		var s storedCaller
		if err := json.Unmarshal(e.Value, &s); err != nil {
			return nil, fmt.Errorf("decode the caller %q: %w", e.Key, err)
		}
		c.add(e.Key, callerUse{s.As.ID, s.Day})
	}
	return c, c.forgetOld(ctx, today())
}

func today() int64 { return time.Now().Unix() / int64(24*time.Hour/time.Second) }

func (c *Callers) add(key string, use callerUse) {
	if _, known := c.known[key]; !known {
		c.of[use.principal]++
	}
	c.known[key] = use
}

// keep has what p may do kept, and returns its name; "" when the id of p says it.
func (c *Callers) keep(ctx context.Context, p *Principal) (string, error) {
	if p.authority == "" {
		return "", nil
	}
	if c == nil {
		return unknownAuthority, nil
	}
	day := today()
	c.mu.RLock()
	use, ok := c.known[p.authority]
	c.mu.RUnlock()
	if ok && use.day == day {
		return p.authority, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.makeRoom(ctx, p, day); err != nil {
		return "", unavailable(err)
	}
	if _, ok := c.known[p.authority]; !ok && len(c.known) >= maxCallers {
		return unknownAuthority, nil
	}
	value, err := json.Marshal(&storedCaller{As: p.policy, Base: p.base, Caveats: p.caveats, Day: day})
	if err != nil {
		return "", fmt.Errorf("encode caller: %w", err)
	}
	if err := c.bucket.Put(ctx, p.authority, value); err != nil {
		return "", unavailable(err)
	}
	c.add(p.authority, callerUse{p.ID, day})
	return p.authority, nil
}

// makeRoom forgets others when p is one more of too many. c.mu is held.
func (c *Callers) makeRoom(ctx context.Context, p *Principal, day int64) error {
	if _, ok := c.known[p.authority]; ok {
		return nil
	}
	if c.of[p.ID] >= maxCallerStates {
		oldest := ""
		for key, use := range c.known {
			if use.principal == p.ID && (oldest == "" || use.day < c.known[oldest].day) {
				oldest = key
			}
		}
		return c.forget(ctx, oldest)
	}
	if len(c.known) >= maxCallers {
		return c.forgetOld(ctx, day)
	}
	return nil
}

func (c *Callers) forgetOld(ctx context.Context, day int64) error {
	for _, key := range slices.Collect(maps.Keys(c.known)) {
		if c.known[key].day < day-int64(callerRetention/(24*time.Hour)) {
			if err := c.forget(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Callers) forget(ctx context.Context, key string) error {
	if err := c.bucket.Delete(ctx, key); err != nil {
		return fmt.Errorf("forget a caller: %w", err)
	}
	if who := c.known[key].principal; c.of[who] > 1 {
		c.of[who]--
	} else {
		delete(c.of, who)
	}
	delete(c.known, key)
	return nil
}

// get returns what is kept under a name.
func (c *Callers) get(ctx context.Context, key string) (*storedCaller, error) {
	if c == nil || key == unknownAuthority {
		return nil, store.ErrNotFound
	}
	value, err := c.bucket.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	var s storedCaller
	if err := json.Unmarshal(value, &s); err != nil {
		return nil, fmt.Errorf("decode the caller %q: %w", key, err)
	}
	return &s, nil
}

// authorityOf names what a principal may do: its digest, with what narrows it.
func authorityOf(p *Principal) string {
	h := sha256.New()
	h.Write(p.identity[:])
	for i := range p.caveats {
		caveats := &p.caveats[i]
		fmt.Fprintf(h, "%q %q %q %d\x00", caveats.Types, caveats.Actions, caveats.Addresses, caveats.Expires)
	}
	return hex.EncodeToString(h.Sum(nil)[:authorityBytes])
}

// Cause is who is behind what a function does: who sent the first event of the chain, and the functions from there.
type Cause struct {
	// Principal sent the first event; "" is nobody that is known any more.
	Principal ident.PrincipalID
	// Authority is what Keep returned when the event was accepted.
	Authority string
	// Functions are those between the two, the first one first.
	Functions []ident.PrincipalID
}

// Keep has what p may do kept for as long as its events may be handled, and returns what goes with them: the name of it, and how
// the request that ctx is of came. It is quick for whoever has sent an event that day.
func (g *Guard) Keep(ctx context.Context, p *Principal) (string, error) {
	name, err := g.callers.keep(ctx, p)
	if err != nil {
		return "", err
	}
	return name + noteOf(ctx), nil
}

// KeepIn has the guard keep callers. It is called once, before g is used; without it, who came with a credential that is not
// one of the server's tokens is behind nothing that a function does.
func (g *Guard) KeepIn(c *Callers) { g.callers = c }

// behind returns who is behind a cause, as far as it may still act: nil when nobody is.
//
// What counts is what a caller might do when it sent the event, but for a token that was revoked since: that one is
// behind nothing any more. That a credential expires says until when it may be used to send, and not how long what was sent
// may take.
func (g *Guard) behind(ctx context.Context, cause *Cause) (*Principal, error) {
	p, err := policy.ParsePrincipal(string(cause.Principal))
	if err != nil || p.Kind == policy.KindFunction {
		return nil, nil
	}
	id, isToken := strings.CutPrefix(string(p.ID), "token:")
	var base *token
	if isToken {
		if base = (*g.Tokens.byID.Load())[id]; base == nil || base.stored.Revoked != nil {
			return nil, nil
		}
	}
	name, _, _ := parseAuthority(cause.Authority)
	switch {
	case name == "" && isToken:
		return base.principal, nil
	case name == "":
		return nil, nil
	}
	kept, err := g.callers.get(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if kept.As.ID != cause.Principal || isToken && kept.Base != id {
		return nil, nil
	}
	out := newPrincipal(kept.As, time.Time{})
	out.base, out.caveats = kept.Base, kept.Caveats
	return out, nil
}

// causeFor returns a cause as policies see it, for a question about an action on a resource.
func (g *Guard) causeFor(ctx context.Context, cause *Cause, action policy.Action, res policy.Resource) (*policy.Cause, error) {
	if cause == nil {
		return nil, nil
	}
	_, sent, _ := parseAuthority(cause.Authority)
	out := &policy.Cause{Functions: cause.Functions, Sent: &sent}
	p, err := g.behind(ctx, cause)
	switch {
	case err != nil:
		return nil, err
	case p == nil:
		// Policies about who it was still find the name.
		out.Barred = true
		if named, err := policy.ParsePrincipal(string(cause.Principal)); err == nil && named.Kind != policy.KindFunction {
			out.Principal = &named
		}
	default:
		out.Principal, out.Barred = &p.policy, p.withinCaveats(action, res) != nil
	}
	return out, nil
}

// Through writes functions of a chain as the flag of policy explain takes them.
func (c *Cause) through() string {
	names := make([]string, len(c.Functions))
	for i, f := range c.Functions {
		names[i] = strings.TrimPrefix(string(f), "function:")
	}
	return strings.Join(names, ",")
}

// Unknown stands for who is behind something and is not known any more, in questions about policies.
const Unknown = "unknown"

// explain returns the flags of policy explain that tell of the cause.
func (c *Cause) explain() string {
	out := " --caused-by " + cmp.Or(string(c.Principal), Unknown)
	if len(c.Functions) > 0 {
		out += " --through " + c.through()
	}
	return out
}

// RemoveNamespace forgets those who belong to a namespace.
func (c *Callers) RemoveNamespace(ctx context.Context, ns ident.Namespace) error {
	const chunk = 256
	c.mu.Lock()
	defer c.mu.Unlock()
	for after := ""; ; {
		entries, err := c.bucket.List(ctx, "", after, chunk)
		if err != nil {
			return unavailable(err)
		}
		for _, e := range entries {
			after = e.Key
			var s storedCaller
			if err := json.Unmarshal(e.Value, &s); err != nil {
				return fmt.Errorf("decode the caller %q: %w", e.Key, err)
			}
			if s.As.Namespace != ns {
				continue
			}
			if err := c.forget(ctx, e.Key); err != nil {
				return unavailable(err)
			}
		}
		if len(entries) < chunk {
			return nil
		}
	}
}

// RemoveNamespace ends and removes all tokens of a namespace, and forgets the callers who belong to it.
func (g *Guard) RemoveNamespace(ctx context.Context, ns ident.Namespace) error {
	err := g.Tokens.RemoveNamespace(ctx, ns)
	if err != nil || g.callers == nil {
		return err
	}
	return g.callers.RemoveNamespace(ctx, ns)
}
