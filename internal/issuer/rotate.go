package issuer

import (
	"context"
	"time"

	"sallyport/internal/keyring"
	"sallyport/internal/problem"
)

// KeyState is what a published key is for.
type KeyState string

// The states of a key.
const (
	KeyNext    KeyState = "next"    // published, and signs later
	KeySigns   KeyState = "signs"   // signs what is made now
	KeyExpires KeyState = "expires" // verifies what it signed
)

// Key describes a published key.
type Key struct {
	ID      string
	State   KeyState
	Created time.Time
	// Until is when the state ends: the key signs, is followed by another one, or is not published any more. It is zero for one
	// whose successor is not made yet.
	Until time.Time
}

// Status describes the issuer: the URL by which others know it, "" without one, and its keys, the oldest first.
func (i *Issuer) Status() (url string, keys []Key) {
	if about := i.about.Load(); about != nil {
		url = about.url
	}
	now := time.Now().UTC().Truncate(time.Second)
	all := *i.keys.Load()
	signs := current(all, now)
	state := KeyExpires
	for n, k := range all {
		one := Key{ID: k.ID(), State: state, Created: k.created}
		switch {
		case n == signs:
			one.State, state = KeySigns, KeyNext
			if n+1 < len(all) {
				one.Until = all[n+1].created.Add(PublishAhead)
			}
		case state == KeyNext:
			one.Until = k.created.Add(PublishAhead)
		default:
			one.Until = all[n+1].created.Add(PublishAhead + Keep)
		}
		keys = append(keys, one)
	}
	return url, keys
}

// Rotate makes a key now, as if one were due: it is published, signs in a day, and the keys that there are stay until nothing is valid
// that they signed. With revoke, it signs at once, and all other keys are published no more from now on: everything that they
// signed is void for whoever asks for the keys again. The ids of those are returned.
func (i *Issuer) Rotate(ctx context.Context, revoke bool) (revoked []string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now().UTC().Truncate(time.Second)
	old := *i.keys.Load()
	if next := old[len(old)-1]; !revoke && current(old, now) != len(old)-1 {
		return nil, problem.New(problem.Conflict, "issuer.rotating", "the key %s is published already, and signs from %s on", next.ID(),
			next.created.Add(PublishAhead).Format(time.RFC3339)).
			WithHint("wait for it; if a key is known to somebody else: sallyport issuer rotate --revoke-old")
	}
	signer, err := keyring.NewSigner()
	if err != nil {
		return nil, err
	}
	keys := append(old[:len(old):len(old)], signingKey{signer, now})
	if revoke {
		for _, k := range old {
			revoked = append(revoked, k.ID())
		}
		keys = keys[len(old):]
	}
	if err := i.store(ctx, keys); err != nil {
		return nil, problem.New(problem.Unavailable, "issuer.unavailable", "the new key could not be stored; the keys are as they were").WithRetryAfter(time.Second).WithCause(err)
	}
	return revoked, nil
}
