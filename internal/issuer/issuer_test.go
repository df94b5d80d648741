package issuer_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/access/oidc"
	"sallyport/internal/ident"
	"sallyport/internal/issuer"
	"sallyport/internal/keyring"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

const url = "https://events.example.com"

// memory keeps wrapped keys and the issuer's state.
type memory struct {
	mu   sync.Mutex
	m    map[string][]byte
	fail bool
	puts int
}

func (m *memory) Get(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.m[name]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (m *memory) Put(_ context.Context, name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail {
		return errors.New("disk is gone")
	}
	m.puts++
	m.m[name] = value
	return nil
}

func (m *memory) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, name)
	return nil
}

func (m *memory) Names(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for name := range m.m {
		if strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	return out, nil
}

// world is an issuer and who relies on it.
type world struct {
	t       *testing.T
	keyring *keyring.Keyring
	bucket  *memory
	*issuer.Issuer
}

func newWorld(t *testing.T) *world {
	root, err := keyring.OpenRoot(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.New(t.Context(), root, &memory{m: map[string][]byte{}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, keyring: k, bucket: &memory{m: map[string][]byte{}}}
	w.restart()
	return w
}

func (w *world) restart() {
	w.t.Helper()
	sealer, err := w.keyring.Sealer(w.t.Context(), "", "issuer/keys")
	if err != nil {
		w.t.Fatal(err)
	}
	if w.Issuer, err = issuer.Open(w.t.Context(), w.bucket, sealer, slog.New(slog.DiscardHandler)); err != nil {
		w.t.Fatal(err)
	}
	if err := w.Announce(url); err != nil {
		w.t.Fatal(err)
	}
}

// Get is how a relying party fetches what is published.
func (w *world) Get(_ context.Context, at string) (*outbound.Answer, error) {
	path, ok := strings.CutPrefix(at, url)
	text, found := w.Published(path)
	if !ok || !found {
		return &outbound.Answer{Status: http.StatusNotFound}, nil
	}
	return &outbound.Answer{Status: http.StatusOK, Body: text}, nil
}

// party returns a relying party that has fetched nothing yet.
func (w *world) party(audience string) oidc.Issuers {
	w.t.Helper()
	is, err := oidc.NewIssuer(oidc.Config{
		URL: url, Audiences: []string{audience}, Algorithms: []string{"RS256"}, Types: []string{"JWT"}, TenantClaim: "namespace", GroupsClaim: "groups", RolesClaim: "roles",
	}, w, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	return oidc.Issuers{url: is}
}

func (w *world) token(fn ident.FunctionName, audience string) string {
	w.t.Helper()
	text, expires, err := w.Token(w.t.Context(), issuer.Caller{Namespace: "shop", Function: fn, Revision: 7}, audience)
	if err != nil {
		w.t.Fatal(err)
	}
	if left := time.Until(expires); left <= 0 || left > 15*time.Minute {
		w.t.Errorf("the token ends in %v", left)
	}
	return text
}

// TestToken: a token verifies against what is published, as the function that it is of, for its audience and until its end, and
// not otherwise.
func TestToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		text := w.token("price", "sts.example.com")
		got, err := w.party("sts.example.com").Verify(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if got.Issuer != url || got.Subject != "shop/price" || got.Tenant != "shop" || got.Expires.Sub(time.Now()) > 15*time.Minute {
			t.Errorf("Verify = %+v", got)
		}
		if w.token("price", "sts.example.com") == text {
			t.Error("two tokens are the same")
		}
		head, rest, _ := strings.Cut(text, ".")
		claims, signature, _ := strings.Cut(rest, ".")
		other := strings.Split(w.token("other", "sts.example.com"), ".")
		for name, bad := range map[string]string{
			"another's claims": head + "." + other[1] + "." + signature, "another's signature": head + "." + claims + "." + other[2], "no signature": head + "." + claims + ".",
		} {
			if _, err := w.party("sts.example.com").Verify(t.Context(), bad); !errors.Is(err, oidc.ErrRefused) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.party("other.example.com").Verify(t.Context(), text); !errors.Is(err, oidc.ErrRefused) {
			t.Errorf("for another audience: %v", err)
		}
		if _, err := newWorld(t).party("sts.example.com").Verify(t.Context(), text); !errors.Is(err, oidc.ErrRefused) {
			t.Errorf("with the keys of another server: %v", err)
		}
		time.Sleep(15*time.Minute + time.Second)
		if _, err := w.party("sts.example.com").Verify(t.Context(), text); !errors.Is(err, oidc.ErrRefused) {
			t.Errorf("after its end: %v", err)
		}
	})
}

// TestRotation: over a year of rotations and restarts, every token verifies for its whole life for whoever keeps the published
// keys as long as they may, no key is kept for ever, and none signs before it was published for a day.
func TestRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		kid := func(token string) string { head, _, _ := strings.Cut(token, "."); return head }
		seen := map[string]bool{}
		for range 120 {
			party := w.party("a")
			if _, err := party.Verify(t.Context(), w.token("price", "a")); err != nil { // it has the keys now
				t.Fatal(err)
			}
			time.Sleep(issuer.CacheFor)
			if err := w.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
			text := w.token("price", "a")
			seen[kid(text)] = true
			time.Sleep(issuer.Lifetime - time.Second)
			for name, p := range map[string]oidc.Issuers{"cached": party, "new": w.party("a")} {
				if _, err := p.Verify(t.Context(), text); err != nil {
					t.Fatalf("after %d keys, %s: %v", len(seen), name, err)
				}
			}
			time.Sleep(3 * 24 * time.Hour)
			w.restart()
			keys, _ := w.Published(issuer.KeysPath)
			if n := strings.Count(string(keys), `"kid"`); n < 1 || n > 2 {
				t.Fatalf("%d keys are published", n)
			}
			if strings.Contains(string(keys), `"d"`) {
				t.Fatal("a private key is published")
			}
		}
		if len(seen) < 10 {
			t.Errorf("%d keys signed in a year", len(seen))
		}
	})
}

// TestStored: keys are published when they are on disk, and not without.
func TestStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		before, _ := w.Published(issuer.KeysPath)
		time.Sleep(issuer.RotateEvery)
		w.bucket.fail = true
		if err := w.Maintain(t.Context()); err == nil {
			t.Error("a key was made that is not stored")
		}
		if after, _ := w.Published(issuer.KeysPath); string(after) != string(before) {
			t.Error("a key was published that is not stored")
		}
		if _, err := w.party("a").Verify(t.Context(), w.token("price", "a")); err != nil {
			t.Error(err)
		}
		w.bucket.fail = false
		w.bucket.m["keys"] = []byte(`[{"sealed":"AAAA"}]`)
		sealer, err := w.keyring.Sealer(t.Context(), "", "issuer/keys")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := issuer.Open(t.Context(), w.bucket, sealer, slog.New(slog.DiscardHandler)); err == nil {
			t.Error("a key that does not open was taken")
		}
	})
}

// TestRefuses: no token without a URL of the issuer or an audience, and nothing is published but the two documents.
func TestRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := issuer.Caller{Namespace: "shop", Function: "price", Revision: 1}
	for _, audience := range []string{"", strings.Repeat("a", issuer.MaxAudience+1)} {
		if _, _, err := w.Token(t.Context(), c, audience); problem.From(err).Code != "issuer.bad_audience" {
			t.Errorf("audience of %d bytes: %v", len(audience), err)
		}
	}
	for _, path := range []string{"", "/", "/.well-known/", "/.well-known/jwks.json/", "/keys"} {
		if _, ok := w.Published(path); ok {
			t.Errorf("something is published at %q", path)
		}
	}
	sealer, err := w.keyring.Sealer(t.Context(), "", "issuer/keys")
	if err != nil {
		t.Fatal(err)
	}
	silent, err := issuer.Open(t.Context(), w.bucket, sealer, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := silent.Published(issuer.DiscoveryPath); ok {
		t.Error("a document without a URL is published")
	}
	if _, _, err := silent.Token(t.Context(), c, "a"); problem.From(err).Code != "issuer.no_url" {
		t.Errorf("without a URL: %v", err)
	}
}
