package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
	"sallyport/internal/store"
)

// Value returns the value of the version that ref names, "name", "name@version" or a whole reference, for the door of a grant. It asks
// the gate for the use of that one secret, writes the use down, and raises a finding when it is a canary. The caller clears what
// it gets when it is done with it.
func (s *Store) Value(ctx context.Context, ns ident.Namespace, ref string, use grant.Use) ([]byte, error) {
	value, _, err := s.value(ctx, ns, ref, use, false)
	return value, err
}

// Reveal is Value for a function that reads the value itself; it returns the number of the version too, 0 of another store's.
func (s *Store) Reveal(ctx context.Context, ns ident.Namespace, ref string, use grant.Use) (value []byte, number int, err error) {
	return s.value(ctx, ns, ref, use, true)
}

func (s *Store) value(ctx context.Context, ns ident.Namespace, text string, use grant.Use, reveal bool) ([]byte, int, error) {
	ref, err := parseRef(text)
	if err != nil {
		return nil, 0, err
	}
	if err := s.permit(ctx, ns, ref, use, reveal); err != nil {
		return nil, 0, err
	}
	if err := s.stepDue(ctx, ns, use); err != nil {
		return nil, 0, err
	}
	if !ref.Own() {
		value, err := s.outside(ctx, ns, ref)
		return value, 0, err
	}
	sp, r, err := s.find(ctx, ns, ident.SecretName(ref.Name))
	if err != nil {
		return nil, 0, err
	}
	kind := UseApplied
	if reveal {
		kind = UseRevealed
	}
	if r.Reference != "" {
		value, err := s.linked(ctx, ns, r, ref)
		if err == nil {
			s.noted(sp, r, use, 0, kind)
		}
		return value, 0, err
	}
	v, err := r.resolve(ref, time.Now())
	if err != nil {
		return nil, 0, err
	}
	value, err := sp.open(ctx, r.Name, v)
	if err != nil {
		return nil, 0, err
	}
	s.noted(sp, r, use, v.Number, kind)
	return value, v.Number, nil
}

// permit asks the gate. A refusal is written down, and of a canary it is a finding like a use.
func (s *Store) permit(ctx context.Context, ns ident.Namespace, ref ident.SecretRef, use grant.Use, reveal bool) error {
	err := s.cfg.Permit(ctx, use, ns, ref.Secret(), reveal)
	if err == nil || !ref.Own() {
		return err
	}
	if sp, r, missing := s.find(ctx, ns, ident.SecretName(ref.Name)); missing == nil {
		s.noted(sp, r, use, 0, UseDenied)
	}
	return err
}

// linked reads a secret that another store has. Its versions are those of that store.
func (s *Store) linked(ctx context.Context, ns ident.Namespace, r *record, asked ident.SecretRef) ([]byte, error) {
	ref, err := r.linkedTo(asked)
	if err != nil {
		return nil, err
	}
	return s.outside(ctx, ns, ref)
}

// linkedTo returns what a reference to a secret that another store has means there.
func (r *record) linkedTo(asked ident.SecretRef) (ident.SecretRef, error) {
	ref, err := ident.ParseSecretRef(r.Reference)
	if err != nil {
		return ref, fmt.Errorf("read the reference of secret %q: %w", r.Name, err)
	}
	switch asked.Version {
	case ident.VersionCurrent:
	case ident.VersionPrevious, ident.VersionPending:
		return ref, unavailable(r.Name, asked.Version, "the secret is in another store, which has numbers only")
	default:
		ref.Version = asked.Version
	}
	return ref, nil
}

// outside reads a secret of another store.
func (s *Store) outside(ctx context.Context, ns ident.Namespace, ref ident.SecretRef) ([]byte, error) {
	value, number, err := s.cfg.Outside.read(ctx, ns, ref)
	if err == nil { // under the number too: the value before stays hidden
		s.cfg.Hidden.Put(fmt.Sprintf("%s %s %d", ns, ref, number), value)
	}
	return value, err
}

// noted writes a use down.
func (s *Store) noted(sp *space, r *record, use grant.Use, number int, kind UseKind) {
	sp.note(r.Name, use, number, kind, time.Now())
	if r.Canary {
		s.touched(Touch{Namespace: sp.ns, Name: r.Name, Use: use, Denied: kind == UseDenied})
	}
}

// TouchedByHand raises the finding of a canary that a principal did something with; of any other secret it does nothing.
func (s *Store) TouchedByHand(ctx context.Context, ns ident.Namespace, name ident.SecretName, by ident.PrincipalID) {
	if _, r, err := s.find(ctx, ns, name); err == nil && r.Canary {
		s.touched(Touch{Namespace: ns, Name: name, Principal: by})
	}
}

func (s *Store) touched(t Touch) {
	s.log.Warn("canary secret touched", "namespace", string(t.Namespace), "secret", string(t.Name), "function", string(t.Use.Caller.Function),
		"revision", t.Use.Caller.Revision, "grant", t.Use.Caller.Grant, "event", t.EventID(), "principal", string(t.Principal), "denied", t.Denied)
	if s.cfg.Touched != nil {
		s.cfg.Touched(t)
	}
}

// open unseals the value of a version, and has the server's log hide it from then on.
func (sp *space) open(ctx context.Context, name ident.SecretName, v *version) ([]byte, error) {
	value, err := sp.unseal(ctx, name, v)
	if err == nil {
		sp.hidden.Put(string(sp.ns)+"/"+v.Key, value)
	}
	return value, err
}

func (sp *space) unseal(ctx context.Context, name ident.SecretName, v *version) ([]byte, error) {
	sealed, err := sp.sealed(ctx, v.Key)
	var value []byte
	if err == nil {
		value, err = sp.safe.Open(ctx, v.Key, sealed, additional(sp.ns, name, v.Number))
	}
	switch {
	case err == nil:
		return value, nil
	case errors.Is(err, keyring.ErrOpen), errors.Is(err, store.ErrNotFound):
		// Destroyed between the look at the record and now, or the store was altered.
		return nil, problem.New(problem.Conflict, "secret.version_unavailable", "the version %d of the secret %q does not open", v.Number, name).
			WithHint("see whether it was destroyed: sallyport secret versions %s", name).WithCause(err)
	}
	return nil, problem.New(problem.Unavailable, "secret.unreadable", "the secret %q cannot be read now", name).WithRetryAfter(time.Second).WithCause(err)
}

// sealed returns the sealed value of a version.
func (sp *space) sealed(ctx context.Context, key string) ([]byte, error) {
	sp.mu.RLock()
	sealed := sp.cached[key]
	sp.mu.RUnlock()
	if sealed != nil {
		return sealed, nil
	}
	sealed, err := sp.bucket.Get(ctx, valuePrefix+key)
	if err != nil {
		return nil, err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.size+len(sealed) > maxCached {
		clear(sp.cached)
		sp.size = 0
	}
	if sp.cached[key] == nil {
		sp.size += len(sealed)
	}
	sp.cached[key] = sealed
	return sealed, nil
}

// Redactor returns what takes the values of secrets out of texts: those of all versions that are not destroyed, for who holds one that was disabled or replaced may
// still say it, and of secrets in other stores those that are in use. It is nil without references.
func (s *Store) Redactor(ctx context.Context, ns ident.Namespace, refs []ident.SecretRef) (*redact.Set, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	sp, err := s.space(ctx, ns)
	if err != nil {
		return nil, err
	}
	var names, mark strings.Builder
	var records []*record
	var outside []ident.SecretRef
	names.WriteString(string(ns))
	for _, ref := range refs {
		names.WriteString(" " + ref.String())
		if !ref.Own() {
			outside = append(outside, ref)
			mark.WriteString(" " + s.cfg.Outside.mark(ns, ref))
			continue
		}
		r, err := sp.get(ctx, ident.SecretName(ref.Name))
		if err != nil && !isNotFound(err) {
			return nil, err
		}
		for _, linked := range sp.links(ident.SecretName(ref.Name), r, ref) {
			outside = append(outside, linked)
			mark.WriteString(" " + linked.String() + " " + s.cfg.Outside.mark(ns, linked))
		}
		if r == nil {
			continue
		}
		mark.WriteString(" " + strconv.FormatUint(r.Changes, 10))
		if r.Reference != "" {
			continue
		}
		if slices.Contains(records, r) {
			continue
		}
		records = append(records, r)
	}
	s.sets.Lock()
	known, ok := s.sets.known[names.String()]
	s.sets.Unlock()
	if ok && known.mark == mark.String() {
		return known.set, nil
	}
	values, err := sp.live(ctx, records, sp.open)
	if err != nil {
		return nil, err
	}
	for _, ref := range outside {
		values = append(values, s.cfg.Outside.held(ns, ref)...)
	}
	set := redact.New(values...)
	for _, v := range values {
		clear(v)
	}
	s.sets.Lock()
	defer s.sets.Unlock()
	if len(s.sets.known) >= maxSets {
		clear(s.sets.known)
	}
	s.sets.known[names.String()] = knownSet{mark.String(), set}
	return set, nil
}

// former is what a secret referred to in another store, and until when functions may have its value.
type former struct {
	ref   ident.SecretRef
	until time.Time
}

// maxFormer bounds what is known of one secret that it referred to.
const maxFormer = 8

// unlinked notes that a secret refers to something else from now on, or is gone. sp.writing is held.
func (sp *space) unlinked(name ident.SecretName, reference string) {
	ref, err := ident.ParseSecretRef(reference)
	if err != nil {
		return
	}
	now := time.Now()
	sp.mu.Lock()
	defer sp.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(sp.former[name]), func(f former) bool { return f.ref == ref || !now.Before(f.until) })
	list = slices.Insert(list, 0, former{ref, now.Add(grant.MaxLeased)})
	sp.former[name] = list[:min(len(list), maxFormer)]
}

// links returns what a reference to a secret means in another store, and meant there as long ago as functions may have the value. r is nil when the secret
// is gone.
func (sp *space) links(name ident.SecretName, r *record, asked ident.SecretRef) (out []ident.SecretRef) {
	add := func(reference string) {
		if ref, err := (&record{Reference: reference}).linkedTo(asked); err == nil {
			out = append(out, ref)
		}
	}
	if r != nil && r.Reference != "" {
		add(r.Reference)
	}
	sp.mu.RLock()
	defer sp.mu.RUnlock()
	for _, f := range sp.former[name] {
		if time.Now().Before(f.until) {
			add(f.ref.String())
		}
	}
	return out
}

// live returns the values of the versions that there are, which open opens.
func (sp *space) live(ctx context.Context, records []*record, open func(context.Context, ident.SecretName, *version) ([]byte, error)) ([][]byte, error) {
	var values [][]byte
	for _, r := range records {
		for i := range r.Versions {
			v := &r.Versions[i]
			if v.Destroyed != nil {
				continue
			}
			value, err := open(ctx, r.Name, v)
			if err != nil {
				return nil, err
			}
			values = append(values, bytes.Clone(value))
			clear(value)
		}
	}
	return values, nil
}
