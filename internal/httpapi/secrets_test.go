package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/api"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/secret"
	"sallyport/internal/store"
)

// kv is a bucket in memory.
type kv struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (b *kv) Get(_ context.Context, key string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v, ok := b.m[key]; ok {
		return bytes.Clone(v), nil
	}
	return nil, store.ErrNotFound
}

func (b *kv) Put(_ context.Context, key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m[key] = bytes.Clone(value)
	return nil
}

func (b *kv) Delete(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.m, key)
	return nil
}

func (b *kv) Keys(_ context.Context, prefix, _ string, _ int) (out []string, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(b.m)) {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	return out, nil
}

func (b *kv) List(ctx context.Context, prefix, _ string, _ int) (out []store.Entry, _ error) {
	keys, _ := b.Keys(ctx, prefix, "", 0)
	for _, k := range keys {
		v, _ := b.Get(ctx, k)
		out = append(out, store.Entry{Key: k, Value: v})
	}
	return out, nil
}

// plain seals nothing: that is tested elsewhere.
type plain struct{}

func (plain) Seal(_ context.Context, _ string, plaintext, _ []byte) ([]byte, error) {
	return bytes.Clone(plaintext), nil
}
func (plain) Open(_ context.Context, _ string, sealed, _ []byte) ([]byte, error) {
	return bytes.Clone(sealed), nil
}
func (plain) Destroy(context.Context, string) error { return nil }

// newSecrets returns a store of secrets with the secrets key and old, of two versions each, in shop.
func newSecrets(t testing.TB) *secret.Store {
	t.Helper()
	outside, err := secret.NewOutside([]secret.Source{{Kind: ident.StoreVault, Namespace: "shop", Prefix: "kv/shop/"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	spaces := map[ident.Namespace]*kv{"shop": {m: map[string][]byte{}}, "bank": {m: map[string][]byte{}}}
	s := secret.New(secret.Config{
		Open: func(_ context.Context, ns ident.Namespace) (secret.Bucket, secret.Safe, error) {
			return spaces[ns], plain{}, nil
		},
		Permit:  func(context.Context, grant.Use, ident.Namespace, string, bool) error { return errors.New("no") },
		Outside: outside, Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []ident.SecretName{"key", "old"} {
		for _, value := range []string{"hunter1", "hunter2"} {
			if _, err := s.Set(t.Context(), "shop", name, []byte(value), secret.Setting{By: "user:ann"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// TestSecretsNeedPermission asks for everything as who may not.
func TestSecretsNeedPermission(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	elsewhere := w.token(t, api.TokenRequest{Role: string(policy.Operator), Namespace: "bank"})
	limited := w.token(t, api.TokenRequest{Role: string(policy.Developer), EventTypes: []string{"a"}})
	for _, path := range []string{"", "/key", "/key/versions", "/key/log", "/none"} {
		for name, token := range map[string]string{"publisher": w.tokens[policy.Publisher], "reader": w.tokens[policy.Reader], "elsewhere": elsewhere} {
			if rec := w.do("GET", "/v1/namespaces/shop/secrets"+path, "", "Authorization", "Bearer "+token); rec.Code != 403 {
				t.Errorf("GET %s as %s = %d", path, name, rec.Code)
			}
		}
	}
	for path, body := range map[string]string{
		"versions": "x", "canary": `{}`, "link": `{"reference":"vault:kv/shop/a#b"}`, "promote": `{"version":1}`, "disable": `{"version":1}`,
		"destroy": `{"version":1}`, "rotate": `{"function":"price","now":true}`,
	} {
		for name, token := range map[string]string{
			"publisher": w.tokens[policy.Publisher], "reader": w.tokens[policy.Reader], "elsewhere": elsewhere, "limited": limited,
		} {
			for _, secret := range []string{"key", "none"} {
				if rec := w.do("POST", "/v1/namespaces/shop/secrets/"+secret+"/"+path, body, "Authorization", "Bearer "+token); rec.Code != 403 {
					t.Errorf("POST %s as %s = %d %s", path, name, rec.Code, rec.Body)
				}
			}
		}
	}
	if rec := w.do("POST", "/v1/namespaces/shop/secrets/key/destroy", `{"version":1}`, "Authorization", "Bearer "+w.tokens[policy.Developer]); rec.Code != 403 {
		t.Errorf("a developer destroys: %d", rec.Code)
	}
}

// TestSecretRequests: bad input is refused, and no answer holds a value.
func TestSecretRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const secrets = "/v1/namespaces/shop/secrets/"
	for _, tt := range []struct {
		method, path, body string
		code               int
		problem            string
	}{
		{"POST", "key/versions", "", 400, "secret.invalid"},
		{"POST", "key/versions", strings.Repeat("x", secret.MaxValue+1), 413, "httpapi.body_too_large"},
		{"POST", "key/versions?grace=x", "v", 400, "httpapi.bad_request"},
		{"POST", "key/versions?grace=9999h", "v", 400, "secret.invalid"},
		{"POST", "KEY/versions", "v", 400, "httpapi.bad_request"},
		{"POST", "a%2Fb/versions", "v", 400, "httpapi.bad_request"},
		{"GET", "none", "", 404, "secret.not_found"},
		{"POST", "key/promote", `{"version":9}`, 409, "secret.version_unavailable"},
		{"POST", "key/promote", `{"version":"1"}`, 400, "httpapi.bad_request"},
		{"POST", "key/disable", `{"version":-1}`, 409, "secret.version_unavailable"},
		{"POST", "key/destroy", `{"version":9}`, 409, "secret.version_unavailable"},
		{"POST", "key/canary", `{"like":"aws"}`, 409, "secret.not_a_canary"},
		{"POST", "bird/canary", `{"like":"x"}`, 400, "secret.invalid"},
		{"POST", "a/link", `{"reference":"secret:b"}`, 400, "secret.invalid"},
		{"POST", "a/link", `{"reference":"vault:kv/bank/a#b"}`, 403, "secret.outside_prefix"},
		{"POST", "a/link", `{"reference":"keyvault:b"}`, 404, "secret.no_such_store"},
		{"POST", "key/link", `{"reference":"vault:kv/shop/a#b"}`, 409, "secret.not_a_link"},
		{"POST", "key/rotate", `{"now":true}`, 400, "secret.invalid"},
		{"POST", "key/rotate", `{"function":"none"}`, 404, ""},
		{"POST", "key/rotate", `{"function":"price","every":"1s"}`, 400, "secret.invalid"},
	} {
		rec := w.do(tt.method, secrets+tt.path, tt.body)
		if rec.Code != tt.code || !strings.Contains(rec.Body.String(), tt.problem) {
			t.Errorf("%s %s = %d %s, want %d %s", tt.method, tt.path, rec.Code, rec.Body, tt.code, tt.problem)
		}
	}
	w.do("POST", secrets+"key/versions?description=d&pending=true&grace=1h", "hunter3")
	for _, path := range []string{"", "key", "key/versions", "key/log"} {
		rec := w.do("GET", strings.TrimSuffix(secrets+path, "/"), "")
		if rec.Code != 200 || strings.Contains(rec.Body.String(), "hunter") {
			t.Errorf("GET %s = %d %s", path, rec.Code, rec.Body)
		}
	}
	if strings.Contains(w.log.String(), "hunter") {
		t.Errorf("a value is in the log: %s", w.log)
	}
}
