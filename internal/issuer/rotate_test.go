package issuer_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/access/oidc"
	"sallyport/internal/issuer"
	"sallyport/internal/problem"
)

// states returns the states of the published keys, and their ids.
func (w *world) states() (states, ids []string) {
	_, keys := w.Status()
	for _, k := range keys {
		states, ids = append(states, string(k.State)), append(ids, k.ID)
	}
	return states, ids
}

// TestRotateNow: a rotation that is asked for is as one that is due: no token stops verifying, for whoever keeps the keys, and one at
// a time is enough.
func TestRotateNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		party := w.party("a")
		old := w.token("price", "a")
		if _, err := party.Verify(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		if revoked, err := w.Rotate(t.Context(), false); err != nil || revoked != nil {
			t.Fatalf("Rotate = %q, %v", revoked, err)
		}
		if states, _ := w.states(); !slices.Equal(states, []string{"signs", "next"}) {
			t.Errorf("the keys are %q", states)
		}
		_, err := w.Rotate(t.Context(), false)
		if p := problem.From(err); p.Code != "issuer.rotating" || p.Hint == "" {
			t.Errorf("again: %v", err)
		}
		for name, p := range map[string]oidc.Issuers{"cached": party, "new": w.party("a")} {
			for _, text := range []string{old, w.token("price", "a")} {
				if _, err := p.Verify(t.Context(), text); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		time.Sleep(issuer.PublishAhead)
		w.restart()
		if states, _ := w.states(); !slices.Equal(states, []string{"expires", "signs"}) {
			t.Errorf("a day later, the keys are %q", states)
		}
		if _, err := party.Verify(t.Context(), w.token("price", "a")); err != nil {
			t.Errorf("by the next key: %v", err)
		}
		time.Sleep(issuer.Keep)
		if err := w.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if states, _ := w.states(); !slices.Equal(states, []string{"signs"}) {
			t.Errorf("two days later, the keys are %q", states)
		}
	})
}

// TestRevokeOld: a key that was revoked is published no more at once, signs nothing more, and stays so over a restart; what it
// signed is refused by whoever asks for the keys again.
func TestRevokeOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.Rotate(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		_, ids := w.states()
		old := w.token("price", "a")
		w.bucket.fail = true
		if _, err := w.Rotate(t.Context(), true); problem.From(err).Code != "issuer.unavailable" {
			t.Errorf("without a store: %v", err)
		}
		if _, still := w.states(); !slices.Equal(still, ids) {
			t.Errorf("without a store, the keys are %q, and were %q", still, ids)
		}
		w.bucket.fail = false
		revoked, err := w.Rotate(t.Context(), true)
		if err != nil || !slices.Equal(revoked, ids) {
			t.Fatalf("Rotate = %q, %v; want %q", revoked, err, ids)
		}
		for range 2 {
			published, _ := w.Published(issuer.KeysPath)
			if n := strings.Count(string(published), `"kid"`); n != 1 || slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(string(published), id) }) {
				t.Errorf("published: %s; revoked: %q", published, ids)
			}
			if states, _ := w.states(); !slices.Equal(states, []string{"signs"}) {
				t.Errorf("the keys are %q", states)
			}
			party := w.party("a")
			if _, err := party.Verify(t.Context(), old); !errors.Is(err, oidc.ErrRefused) {
				t.Errorf("a token by a revoked key: %v", err)
			}
			if _, err := party.Verify(t.Context(), w.token("price", "a")); err != nil {
				t.Errorf("a token by the new key: %v", err)
			}
			w.restart()
		}
	})
}

// TestRevokedHere: a relying party that is told of the revocation refuses at once, though the keys that it keeps say otherwise, and
// takes the new key without waiting.
func TestRevokedHere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		party := w.party("a")
		old := w.token("price", "a")
		if _, err := party.Verify(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		before := party.Changes()
		revoked, err := w.Rotate(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := party.Verify(t.Context(), old); err != nil {
			t.Errorf("nobody told it: %v", err)
		}
		party[url].Revoke(revoked...)
		if party.Changes() == before {
			t.Error("what is remembered of tokens is not ended")
		}
		for range 2 {
			if _, err := party.Verify(t.Context(), old); !errors.Is(err, oidc.ErrRefused) {
				t.Errorf("by a revoked key: %v", err)
			}
			if _, err := party.Verify(t.Context(), w.token("price", "a")); err != nil {
				t.Errorf("by the new key: %v", err)
			}
		}
	})
}
