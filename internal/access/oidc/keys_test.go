package oidc_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/access/oidc"
	"sallyport/internal/outbound"
	"sallyport/internal/testkit"
)

// published is what an issuer publishes, without a network.
type published struct {
	keys  []any
	down  atomic.Bool
	asked atomic.Int64 // for keys
}

const publishedURL = "https://login.example"

func (p *published) Get(_ context.Context, url string) (*outbound.Answer, error) {
	if p.down.Load() {
		return nil, errors.New("no answer")
	}
	doc := map[string]any{"issuer": publishedURL, "jwks_uri": publishedURL + "/keys"}
	if strings.HasSuffix(url, "/keys") {
		p.asked.Add(1)
		doc = map[string]any{"keys": p.keys}
	}
	body, err := json.Marshal(doc)
	return &outbound.Answer{Status: http.StatusOK, Body: body}, err
}

func token(k testkit.Key) string {
	now := time.Now().Unix()
	return testkit.Sign(k, map[string]any{"alg": k.Algorithm, "kid": k.ID, "typ": "JWT"},
		map[string]any{"iss": publishedURL, "aud": testkit.Audience, "sub": "ada", "iat": now, "exp": now + 60})
}

// TestStaleKeys follows keys through a day and more without their issuer: they are asked for every five minutes, work for a
// day, then end, and come back with it.
func TestStaleKeys(t *testing.T) {
	t.Parallel()
	key := testkit.NewKey(t, "EdDSA", "k")
	synctest.Test(t, func(t *testing.T) {
		p := &published{keys: []any{key.JWK()}}
		is, err := oidc.NewIssuer(config(publishedURL), p, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		all := oidc.Issuers{publishedURL: is}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); is.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		time.Sleep(time.Hour + time.Second) // the bubble's clock
		if n := p.asked.Load(); n != 13 {
			t.Errorf("asked for keys %d times in an hour; want at once and every five minutes", n)
		}
		p.down.Store(true)
		time.Sleep(23 * time.Hour)
		if _, err := all.Verify(t.Context(), token(key)); err != nil {
			t.Errorf("23 hours without the issuer: %v", err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := all.Verify(t.Context(), token(key)); !errors.Is(err, oidc.ErrNoKeys) {
			t.Errorf("25 hours without the issuer: %v; want ErrNoKeys", err)
		}
		p.down.Store(false)
		time.Sleep(5 * time.Minute)
		if _, err := all.Verify(t.Context(), token(key)); err != nil {
			t.Errorf("with the issuer back: %v", err)
		}
	})
}

// TestPublishedKeys: of what an issuer publishes, only public keys for signatures are used, each for its own algorithm, and never
// more than a bounded number.
func TestPublishedKeys(t *testing.T) {
	t.Parallel()
	key := testkit.NewKey(t, "ES256", "k")
	with := func(change map[string]any) any {
		jwk := key.JWK()
		for k, v := range change {
			jwk[k] = v
		}
		return jwk
	}
	many := make([]any, 65)
	for i := range many {
		many[i] = key.JWK()
	}
	twin := testkit.NewKey(t, "ES256", "k")
	for name, tt := range map[string]struct {
		keys []any
		ok   bool
	}{
		"the key":           {[]any{key.JWK()}, true},
		"among others":      {[]any{1, "x", map[string]any{"kty": "oct", "k": "AAAA", "kid": "k"}, map[string]any{"kty": "new"}, key.JWK()}, true},
		"without alg, use":  {[]any{with(map[string]any{"alg": "", "use": ""})}, true},
		"to verify":         {[]any{with(map[string]any{"key_ops": []string{"verify"}})}, true},
		"to encrypt":        {[]any{with(map[string]any{"use": "enc"})}, false},
		"to sign":           {[]any{with(map[string]any{"key_ops": []string{"sign"}})}, false},
		"another algorithm": {[]any{with(map[string]any{"alg": "ES384"})}, false},
		"private":           {[]any{with(map[string]any{"d": "AAAA"})}, false},
		"not on the curve":  {[]any{with(map[string]any{"x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"})}, false},
		"another id":        {[]any{with(map[string]any{"kid": "K"})}, false},
		"two of one id":     {[]any{twin.JWK(), key.JWK()}, false},
		"too many":          {many, false},
		"none":              {nil, false},
	} {
		is, err := oidc.NewIssuer(config(publishedURL), &published{keys: tt.keys}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (oidc.Issuers{publishedURL: is}).Verify(t.Context(), token(key)); (err == nil) != tt.ok {
			t.Errorf("%s: Verify = %v; want accepted %v", name, err, tt.ok)
		}
	}
}
