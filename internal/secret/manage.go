package secret

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Secret describes a secret without its value.
type Secret struct {
	Name        ident.SecretName
	Description string
	Created     time.Time
	By          ident.PrincipalID
	Canary      bool
	Reference   string
	// Current, Previous and Pending are numbers of versions, 0 for none that can be used.
	Current, Previous, Pending int
	PreviousUntil              time.Time
	Versions                   []Version
	Rotation                   *Rotation
	LastUsed                   time.Time
}

// Version describes a version without its value.
type Version struct {
	Number    int
	State     State
	Created   time.Time
	By        ident.PrincipalID
	Size      int
	Origin    string
	Destroyed *time.Time
}

func (sp *space) describe(r *record, now time.Time) Secret {
	out := Secret{
		Name: r.Name, Description: r.Description, Created: r.Created, By: r.By, Canary: r.Canary, Reference: r.Reference,
		LastUsed: sp.lastUsed(r.Name),
	}
	for i := range r.Versions {
		v := &r.Versions[i]
		state := r.state(v, now)
		switch state {
		case Current:
			out.Current = v.Number
		case Previous:
			out.Previous, out.PreviousUntil = v.Number, r.Until
		case Pending:
			out.Pending = v.Number
		case Disabled, Destroyed:
		}
		out.Versions = append(out.Versions, Version{
			Number: v.Number, State: state, Created: v.Created, By: v.By, Size: v.Size, Origin: v.Origin, Destroyed: v.Destroyed,
		})
	}
	if r.Rotation != nil {
		out.Rotation = r.Rotation.describe()
	}
	return out
}

// List returns the secrets of a namespace.
func (s *Store) List(ctx context.Context, ns ident.Namespace) ([]Secret, error) {
	sp, err := s.space(ctx, ns)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	var out []Secret
	for _, r := range sp.all() {
		out = append(out, sp.describe(r, now))
	}
	return out, nil
}

// Get returns one secret.
func (s *Store) Get(ctx context.Context, ns ident.Namespace, name ident.SecretName) (*Secret, error) {
	sp, r, err := s.find(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	out := sp.describe(r, time.Now())
	return &out, nil
}

func (s *Store) find(ctx context.Context, ns ident.Namespace, name ident.SecretName) (*space, *record, error) {
	sp, err := s.space(ctx, ns)
	if err != nil {
		return nil, nil, err
	}
	r, err := sp.get(ctx, name)
	return sp, r, err
}

// Setting says how a value is set.
type Setting struct {
	By ident.PrincipalID
	// Pending leaves what is in force as it is.
	Pending bool
	// Grace is how long the version before stays usable, DefaultGrace when it is 0.
	Grace       time.Duration
	Description string
	// Canary makes a new secret one that nobody has a reason to touch.
	Canary bool
}

// Set makes a new version of a secret, and the secret if there is none. The caller keeps value, and clears it.
func (s *Store) Set(ctx context.Context, ns ident.Namespace, name ident.SecretName, value []byte, o Setting) (*Secret, error) {
	return s.set(ctx, ns, name, value, OriginSet, o)
}

func (s *Store) set(ctx context.Context, ns ident.Namespace, name ident.SecretName, value []byte, origin string, o Setting) (*Secret, error) {
	if err := o.check(value); err != nil {
		return nil, err
	}
	sp, err := s.space(ctx, ns)
	if err != nil {
		return nil, err
	}
	sp.writing.Lock()
	defer sp.writing.Unlock()
	r, ended, err := sp.addVersion(ctx, name, value, origin, o.By, func(r *record, n int, now time.Time) error {
		switch {
		case r.Reference != "":
			return problem.New(problem.Conflict, "secret.linked", "the secret %q is in another store, %s: set it there", name, r.Reference).
				WithHint("to keep it here, destroy the link first: sallyport secret destroy %s", name)
		case r.Rotation.running():
			return rotating(r)
		case n == 1:
			r.Created, r.By, r.Canary = now, o.By, o.Canary
		case o.Canary != r.Canary && o.Canary:
			return problem.New(problem.Conflict, "secret.not_a_canary", "the secret %q exists and is no canary", name).
				WithHint("give the canary a name of its own")
		}
		if o.Description != "" {
			r.Description = o.Description
		}
		if o.Pending {
			r.Pending = n
			return nil
		}
		r.promote(n, o.grace(), now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	sp.end(ctx, ended)
	out := sp.describe(r, time.Now())
	return &out, nil
}

func (o *Setting) grace() time.Duration {
	if o.Grace == 0 {
		return DefaultGrace
	}
	return o.Grace
}

func (o *Setting) check(value []byte) error {
	switch {
	case len(value) == 0:
		return invalid("the value is empty").WithHint("give it on stdin, or with --file FILE")
	case len(value) > MaxValue:
		return problem.New(problem.TooLarge, "secret.value_too_large", "the value is %d bytes long, at most %d are allowed", len(value), MaxValue)
	case o.Grace < 0 || o.Grace > MaxGrace:
		return invalid("the time of grace is at most %s", MaxGrace)
	case len(o.Description) > maxDescription || !utf8.ValidString(o.Description):
		return invalid("the description is no text of at most %d bytes", maxDescription)
	}
	return nil
}

func invalid(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "secret.invalid", format, args...)
}

// addVersion stores a value and has label say what it is. The order is: key, value, record. What a crash leaves without a record is
// swept away at the next start. sp.writing is held.
func (sp *space) addVersion(ctx context.Context, name ident.SecretName, value []byte, origin string, by ident.PrincipalID, label func(r *record, n int, now time.Time) error) (*record, []string, error) {
	now := time.Now().UTC()
	sp.mu.RLock()
	old, many := sp.secrets[name].clone(), len(sp.secrets) >= MaxSecrets
	sp.mu.RUnlock()
	if old == nil && many {
		return nil, nil, problem.New(problem.Exhausted, "secret.too_many", "the namespace has %d secrets, and may have no more", MaxSecrets).
			WithHint("destroy what is not needed: sallyport secret list, sallyport secret destroy NAME")
	}
	// A refusal comes before anything is stored; what is refused after a failed write was read again, below too.
	probe := old
	if probe == nil {
		probe = &record{Name: name, Next: 1}
	}
	if err := label(probe, probe.Next, now); err != nil {
		return nil, nil, err
	}
	var ended []string
	var made string
	ctx = context.WithoutCancel(ctx)
	r, err := sp.changeHeld(ctx, name, func(r *record) (*record, error) {
		if r == nil {
			r = &record{Name: name, Next: 1}
		}
		v := version{Number: r.Next, Key: keyName(name, r.Next), Created: now, By: by, Size: len(value), Origin: origin}
		made = v.Key
		sealed, err := sp.safe.Seal(ctx, v.Key, value, additional(sp.ns, name, v.Number))
		if err != nil {
			return nil, fmt.Errorf("seal a secret: %w", err)
		}
		if err := sp.bucket.Put(ctx, valuePrefix+v.Key, sealed); err != nil {
			return nil, fmt.Errorf("store the value of a secret: %w", err)
		}
		if err := label(r, v.Number, now); err != nil {
			return nil, err
		}
		ended = r.add(v, now)
		return r, nil
	})
	if err != nil && made != "" {
		sp.mu.RLock()
		unknown := sp.stale[name]
		sp.mu.RUnlock()
		if !unknown { // else the record may be stored, and name it
			sp.end(ctx, []string{made})
		}
	}
	return r, ended, err
}

// keyName names the key of a version. The random part keeps a name from being used twice, whatever a crash left.
func keyName(name ident.SecretName, n int) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // documented to never fail
	return fmt.Sprintf("%s/%d-%s", name, n, hex.EncodeToString(b[:]))
}

// additional is what a value is bound to.
func additional(ns ident.Namespace, name ident.SecretName, n int) []byte {
	return fmt.Appendf(nil, "sallyport secret\x00%s\x00%s\x00%d", ns, name, n)
}

// end destroys values of versions that have ended. What fails is done at the next start.
func (sp *space) end(ctx context.Context, keys []string) {
	for _, key := range keys {
		if err := sp.shred(context.WithoutCancel(ctx), key); err != nil {
			sp.log.Error("destroy the value of a secret; it is tried again at the next start", "namespace", string(sp.ns), "key", key, "error", err)
		}
	}
}

// Link makes a secret whose value another store has.
func (s *Store) Link(ctx context.Context, ns ident.Namespace, name ident.SecretName, reference string, o Setting) (*Secret, error) {
	ref, err := ident.ParseSecretRef(reference)
	if err != nil || ref.Own() {
		return nil, invalid(`want a reference to another store, such as "vault:kv/shop/stripe#key" or "keyvault:stripe-key"`).WithCause(err)
	}
	if err := s.cfg.Outside.covers(ns, ref); err != nil {
		return nil, err
	}
	if err := o.check([]byte("x")); err != nil {
		return nil, err
	}
	sp, err := s.space(ctx, ns)
	if err != nil {
		return nil, err
	}
	r, err := sp.change(ctx, name, func(r *record) (*record, error) {
		if r != nil && r.Reference == "" {
			return nil, problem.New(problem.Conflict, "secret.not_a_link", "the secret %q has values of its own", name).
				WithHint("destroy it first, or choose another name")
		}
		if r == nil {
			r = &record{Name: name, Next: 1, Created: time.Now().UTC(), By: o.By, Canary: o.Canary}
			sp.mu.RLock()
			many := len(sp.secrets) >= MaxSecrets
			sp.mu.RUnlock()
			if many {
				return nil, problem.New(problem.Exhausted, "secret.too_many", "the namespace has %d secrets, and may have no more", MaxSecrets)
			}
		}
		if r.Reference != ref.String() {
			sp.unlinked(name, r.Reference)
		}
		r.Reference, r.Description = ref.String(), o.Description
		return r, nil
	})
	if err != nil {
		return nil, err
	}
	out := sp.describe(r, time.Now())
	return &out, nil
}

// Promote brings a version into force: a pending one, or one from before.
func (s *Store) Promote(ctx context.Context, ns ident.Namespace, name ident.SecretName, n int, grace time.Duration) (*Secret, error) {
	if err := (&Setting{Grace: grace}).check([]byte("x")); err != nil {
		return nil, err
	}
	return s.onVersion(ctx, ns, name, n, func(r *record, _ *version, now time.Time) error {
		r.promote(n, (&Setting{Grace: grace}).grace(), now)
		return nil
	})
}

// Disable keeps a version from being used, the current one too: then the secret cannot be used at all.
func (s *Store) Disable(ctx context.Context, ns ident.Namespace, name ident.SecretName, n int) (*Secret, error) {
	return s.onVersion(ctx, ns, name, n, func(_ *record, v *version, _ time.Time) error {
		v.Disabled = true
		return nil
	})
}

// onVersion changes one version that is not destroyed.
func (s *Store) onVersion(ctx context.Context, ns ident.Namespace, name ident.SecretName, n int, f func(*record, *version, time.Time) error) (*Secret, error) {
	sp, err := s.space(ctx, ns)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	r, err := sp.change(ctx, name, func(r *record) (*record, error) {
		if r == nil {
			return nil, notFound(ns, name)
		}
		if r.Rotation.running() {
			return nil, rotating(r)
		}
		v := r.version(n)
		if v == nil || v.Destroyed != nil {
			return nil, unavailable(name, fmt.Sprint(n), "it is destroyed, or was never there")
		}
		return r, f(r, v, now)
	})
	if err != nil {
		return nil, err
	}
	out := sp.describe(r, time.Now())
	return &out, nil
}

// Destroy destroys a version for good, or with n = 0 the secret with all its versions. It returns when no value of it can be read
// any more; the answer for a secret is nil.
func (s *Store) Destroy(ctx context.Context, ns ident.Namespace, name ident.SecretName, n int) (*Secret, error) {
	sp, err := s.space(ctx, ns)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	now := time.Now().UTC()
	var keys []string
	r, err := sp.change(ctx, name, func(r *record) (*record, error) {
		if r == nil {
			return nil, notFound(ns, name)
		}
		if r.Rotation.running() && (n == 0 || n == r.Pending) {
			return nil, rotating(r)
		}
		found := false
		for i := range r.Versions {
			if v := &r.Versions[i]; n == 0 || v.Number == n {
				found = true
				keys = append(keys, v.Key) // of those that are destroyed too: the last time may have failed half-way
				if v.Destroyed == nil {
					v.Destroyed = &now
				}
			}
		}
		if n == 0 {
			sp.unlinked(name, r.Reference)
			return nil, nil
		}
		if !found {
			return nil, unavailable(name, fmt.Sprint(n), "there is none")
		}
		return r, nil
	})
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if err := sp.shred(ctx, key); err != nil {
			return nil, err
		}
	}
	if r == nil {
		return nil, sp.forgetUses(ctx, name)
	}
	out := sp.describe(r, time.Now())
	return &out, nil
}

// Missing returns those of the references whose secret is not there, as people write them.
func (s *Store) Missing(ctx context.Context, ns ident.Namespace, refs []ident.SecretRef) ([]ident.SecretRef, error) {
	var out []ident.SecretRef
	for _, ref := range refs {
		if !ref.Own() {
			if s.cfg.Outside.covers(ns, ref) != nil {
				out = append(out, ref)
			}
			continue
		}
		_, _, err := s.find(ctx, ns, ident.SecretName(ref.Name))
		if isNotFound(err) {
			out = append(out, ref)
		} else if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// parseRef reads a reference of the doors: what follows "secret:", or a whole reference.
func parseRef(text string) (ident.SecretRef, error) {
	if !strings.Contains(text, ":") {
		text = ident.StoreOwn + ":" + text
	}
	ref, err := ident.ParseSecretRef(text)
	if err != nil {
		return ref, problem.New(problem.Invalid, "secret.invalid", "%v", err)
	}
	return ref, nil
}
