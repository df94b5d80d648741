package secret

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
)

// UseKind says what was done with a secret.
type UseKind string

// The kinds of uses.
const (
	// UseApplied: the server applied it outside the sandbox.
	UseApplied UseKind = "applied"
	// UseRevealed: a function got the value.
	UseRevealed UseKind = "revealed"
	// UseDenied: the gate refused.
	UseDenied UseKind = "denied"
)

const (
	// maxUses bounds what is written down of one secret; the oldest goes first.
	maxUses = 200
	// together is how long uses that differ in nothing are one line.
	together = time.Minute
	// writeEvery is how often uses are written.
	writeEvery = 2 * time.Second
)

// Use is a line of the access log of a secret: what one revision of a function did with one version within a minute. The event
// is the last one's.
type Use struct {
	First     time.Time          `json:"first"`
	Last      time.Time          `json:"last"`
	Count     int64              `json:"count"`
	Kind      UseKind            `json:"kind"`
	Version   int                `json:"version,omitempty"`
	Function  ident.FunctionName `json:"function,omitempty"`
	Revision  int                `json:"revision,omitempty"`
	Grant     string             `json:"grant,omitempty"`
	EventID   string             `json:"event,omitempty"`
	Principal ident.PrincipalID  `json:"principal,omitempty"`
}

// uses are those of one secret, the oldest first.
type uses struct {
	list    []Use
	changed bool
}

func (sp *space) loadUses(ctx context.Context) error {
	entries, err := sp.bucket.List(ctx, usesPrefix, "", 0)
	if err != nil {
		return fmt.Errorf("list uses of secrets: %w", err)
	}
	for _, e := range entries {
		u := &uses{}
		if err := json.Unmarshal(e.Value, &u.list); err != nil {
			return fmt.Errorf("decode the uses of a secret: %w", err)
		}
		sp.uses[ident.SecretName(strings.TrimPrefix(e.Key, usesPrefix))] = u
	}
	return nil
}

// note writes a use down in memory.
func (sp *space) note(name ident.SecretName, use grant.Use, number int, kind UseKind, now time.Time) {
	c := &use.Caller
	var id string
	var principal ident.PrincipalID
	if c.Event != nil {
		id, principal = c.Event.ID, c.Event.Principal
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	u := sp.uses[name]
	if u == nil {
		u = &uses{}
		sp.uses[name] = u
	}
	u.changed = true
	for i := len(u.list) - 1; i >= 0; i-- {
		l := &u.list[i]
		if now.Sub(l.First) > together {
			break
		}
		if l.Kind == kind && l.Version == number && l.Function == c.Function && l.Revision == c.Revision && l.Grant == c.Grant && l.Principal == principal {
			l.Last, l.EventID = now.UTC(), id
			l.Count++
			return
		}
	}
	u.list = append(u.list, Use{
		First: now.UTC(), Last: now.UTC(), Count: 1, Kind: kind, Version: number, Function: c.Function, Revision: c.Revision, Grant: c.Grant,
		EventID: id, Principal: principal,
	})
	if len(u.list) > maxUses {
		u.list = slices.Delete(u.list, 0, len(u.list)-maxUses)
	}
}

func (sp *space) lastUsed(name ident.SecretName) (last time.Time) {
	sp.mu.RLock()
	defer sp.mu.RUnlock()
	if u := sp.uses[name]; u != nil {
		for i := range u.list {
			if u.list[i].Kind != UseDenied && u.list[i].Last.After(last) {
				last = u.list[i].Last
			}
		}
	}
	return last
}

// Uses returns who used a secret, the newest first.
func (s *Store) Uses(ctx context.Context, ns ident.Namespace, name ident.SecretName) ([]Use, error) {
	sp, _, err := s.find(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	sp.mu.RLock()
	defer sp.mu.RUnlock()
	if sp.uses[name] == nil {
		return nil, nil
	}
	out := slices.Clone(sp.uses[name].list)
	slices.Reverse(out)
	return out, nil
}

func (sp *space) forgetUses(ctx context.Context, name ident.SecretName) error {
	sp.mu.Lock()
	delete(sp.uses, name)
	sp.mu.Unlock()
	if err := sp.bucket.Delete(ctx, usesPrefix+string(name)); err != nil {
		return fmt.Errorf("delete the uses of a secret: %w", err)
	}
	return nil
}

// writeUses writes uses until ctx ends, and then what is left.
func (s *Store) writeUses(ctx context.Context) {
	ticks := time.NewTicker(writeEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
		}
		s.mu.Lock()
		spaces := make([]*space, 0, len(s.spaces))
		for _, sp := range s.spaces {
			spaces = append(spaces, sp)
		}
		s.mu.Unlock()
		for _, sp := range spaces {
			if err := sp.storeUses(context.WithoutCancel(ctx)); err != nil {
				s.log.Warn("write the uses of secrets; they are tried again", "namespace", string(sp.ns), "error", err)
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (sp *space) storeUses(ctx context.Context) error {
	changed := map[ident.SecretName][]byte{}
	sp.mu.Lock()
	for name, u := range sp.uses {
		if u.changed && sp.secrets[name] != nil {
			text, err := json.Marshal(u.list)
			if err != nil {
				sp.mu.Unlock()
				return err
			}
			changed[name], u.changed = text, false
		}
	}
	sp.mu.Unlock()
	var failed error
	for name, text := range changed {
		if err := sp.bucket.Put(ctx, usesPrefix+string(name), text); err != nil {
			failed = err
			sp.mu.Lock()
			if u := sp.uses[name]; u != nil {
				u.changed = true
			}
			sp.mu.Unlock()
		}
	}
	return failed
}
