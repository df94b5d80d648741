package secret

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
)

// double is a server that answers as Vault's key-value engine (version 2) and Azure Key Vault say they do. It is not one of them.
type double struct {
	*httptest.Server
	requests, tokens atomic.Int64
	// valid is the bearer token that Key Vault takes.
	valid atomic.Value
}

func newDouble(t *testing.T) *double {
	d := &double{}
	d.valid.Store("bearer-1")
	mux := http.NewServeMux()
	vault := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			d.requests.Add(1)
			switch {
			case r.Header.Get("X-Vault-Token") != "vault-token":
				status, body = http.StatusForbidden, `{"errors":["permission denied"]}`
			case r.URL.Query().Get("version") == "1":
				body = `{"data":{"data":{"password":"the first"},"metadata":{"version":1}}}`
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	mux.HandleFunc("GET /v1/kv/data/shop/db", vault(200, `{"data":{"data":{"password":"hunter2 and more","port":5432},"metadata":{"version":2}}}`))
	mux.HandleFunc("GET /v1/kv/data/shop/gone", vault(404, `{"errors":[]}`))
	mux.HandleFunc("GET /v1/kv/data/shop/text", vault(200, `<html>`))
	mux.HandleFunc("GET /v1/kv/data/shop/large", vault(200, `{"data":{"data":{"password":"`+strings.Repeat("x", MaxValue+1)+`"}}}`))
	mux.HandleFunc("GET /v1/kv/data/shop/endless", vault(200, strings.Repeat(" ", 1<<20)))
	mux.HandleFunc("GET /v1/kv/data/shop/sealed", vault(503, `{"errors":["Vault is sealed"]}`))
	mux.HandleFunc("GET /v1/kv/data/shop/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/v1/kv/data/shop/db", http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		d.tokens.Add(1)
		if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_id") != "app" || r.FormValue("client_secret") != "app-secret" || r.FormValue("scope") != keyVaultScope {
			http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"token_type":"Bearer","expires_in":3599,"access_token":"` + d.valid.Load().(string) + `"}`))
	})
	mux.HandleFunc("GET /secrets/shop-db/{version...}", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+d.valid.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Query().Get("api-version") == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = w.Write([]byte(`{"value":"of version ` + r.PathValue("version") + `","id":"x","attributes":{"enabled":true}}`))
	})
	mux.HandleFunc("GET /secrets/shop-db", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+d.valid.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"value":"the current"}`))
	})
	d.Server = httptest.NewTLSServer(mux)
	t.Cleanup(d.Close)
	return d
}

// outside returns a reader of the double: as Vault for "shop" and as Key Vault for "shop".
func (d *double) outside(t *testing.T) *Outside {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(d.Certificate())
	client, err := outbound.New(outbound.Config{RootCAs: roots, Private: true, Timeout: time.Minute, MaxBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	text := func(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s + "\n"), nil } }
	o, err := NewOutside([]Source{
		{Kind: ident.StoreVault, Namespace: "shop", URL: d.URL, Prefix: "kv/shop/", Token: text("vault-token"), Client: client},
		{Kind: ident.StoreVault, Namespace: "poor", URL: d.URL, Prefix: "kv/shop/", Token: text("another"), Client: client},
		{Kind: ident.StoreKeyVault, Namespace: "shop", URL: d.URL, Prefix: "shop-", TokenURL: d.URL + "/token", ClientID: "app", ClientSecret: text("app-secret"), Client: client},
		{Kind: ident.StoreKeyVault, Namespace: "poor", URL: d.URL, Prefix: "shop-", TokenURL: d.URL + "/token", ClientID: "app", ClientSecret: text("wrong"), Client: client},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func reference(t *testing.T, s string) ident.SecretRef {
	t.Helper()
	ref, err := ident.ParseSecretRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestOutside reads from stores of others, which answer as they document it, and as they must not.
func TestOutside(t *testing.T) {
	t.Parallel()
	o := newDouble(t).outside(t)
	for _, tt := range []struct {
		ns        ident.Namespace
		ref, want string
		code      string
	}{
		{"shop", "vault:kv/shop/db#password", "hunter2 and more", ""},
		{"shop", "vault:kv/shop/db#password@1", "the first", ""},
		{"shop", "vault:kv/shop/db#port", "", "secret.not_in_store"}, // a number is no text
		{"shop", "vault:kv/shop/db#user", "", "secret.not_in_store"},
		{"shop", "vault:kv/shop/gone#password", "", "secret.not_in_store"},
		{"shop", "vault:kv/shop/text#password", "", "secret.store_unavailable"},
		{"shop", "vault:kv/shop/large#password", "", "secret.store_unavailable"},
		{"shop", "vault:kv/shop/endless#password", "", "secret.store_unavailable"},
		{"shop", "vault:kv/shop/sealed#password", "", "secret.store_unavailable"},
		{"shop", "vault:kv/shop/away#password", "", "secret.store_unavailable"},
		{"poor", "vault:kv/shop/db#password", "", "secret.store_denied"},
		{"shop", "vault:kv/shopping/db#password", "", "secret.outside_prefix"},
		{"other", "vault:kv/shop/db#password", "", "secret.no_such_store"},
		{"shop", "keyvault:shop-db", "the current", ""},
		{"shop", "keyvault:shop-db@0123456789abcdef0123456789abcdef", "of version 0123456789abcdef0123456789abcdef", ""},
		{"shop", "keyvault:other", "", "secret.outside_prefix"},
		{"poor", "keyvault:shop-db", "", "secret.store_unavailable"},
	} {
		got, _, err := o.read(t.Context(), tt.ns, reference(t, tt.ref))
		code := ""
		if err != nil {
			code = problem.From(err).Code
		}
		if string(got) != tt.want || code != tt.code {
			t.Errorf("%s reads %s: %q, %v; want %q and code %q", tt.ns, tt.ref, got, err, tt.want, tt.code)
		}
		if err != nil && strings.Contains(err.Error()+problem.From(err).Hint, "hunter2") {
			t.Errorf("%s: the error has the value: %v", tt.ref, err)
		}
	}
}

// TestKeyVaultTokenEnds: a token that Key Vault does not take any more is not shown to it again.
func TestKeyVaultTokenEnds(t *testing.T) {
	t.Parallel()
	d := newDouble(t)
	o := d.outside(t)
	ref := reference(t, "keyvault:shop-db")
	read := func() string {
		o.mu.Lock()
		clear(o.known) // as if the time of each value were over
		o.mu.Unlock()
		got, _, err := o.read(t.Context(), "shop", ref)
		if err != nil {
			return problem.From(err).Code
		}
		return string(got)
	}
	if got := read() + read(); got != "the currentthe current" || d.tokens.Load() != 1 {
		t.Fatalf("%s, by %d tokens; want one for both", got, d.tokens.Load())
	}
	d.valid.Store("bearer-2")
	if got := read(); got != "secret.store_denied" {
		t.Errorf("with a token that ended: %s", got)
	}
	if got := read(); got != "the current" || d.tokens.Load() != 2 {
		t.Errorf("afterwards: %s, by %d tokens", got, d.tokens.Load())
	}
}

// faulty answers once, and then no more.
type faulty struct{ left int }

func (f *faulty) GetWith(context.Context, string, http.Header) (*outbound.Answer, error) {
	if f.left--; f.left < 0 {
		return nil, errors.New("connection refused")
	}
	return &outbound.Answer{Status: http.StatusOK, Body: []byte(`{"data":{"data":{"password":"kept a while"}}}`)}, nil
}

func (f *faulty) PostForm(context.Context, string, url.Values) (*outbound.Answer, error) {
	return nil, errors.New("not asked for")
}

// TestOutsideFailsClosed: a value is used for its time without asking, and not once longer when the store is gone.
func TestOutsideFailsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, err := NewOutside([]Source{{
			Kind: ident.StoreVault, Namespace: "shop", URL: "https://vault.example", Prefix: "kv/", TTL: time.Minute,
			Token: func() ([]byte, error) { return []byte("t"), nil }, Client: &faulty{left: 1},
		}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ref := reference(t, "vault:kv/db#password")
		for range 3 {
			if got, _, err := o.read(t.Context(), "shop", ref); err != nil || string(got) != "kept a while" {
				t.Fatalf("read = %q, %v", got, err)
			}
			time.Sleep(19 * time.Second)
		}
		time.Sleep(5 * time.Second)
		if got, _, err := o.read(t.Context(), "shop", ref); err == nil || problem.From(err).Code != "secret.store_unavailable" || got != nil {
			t.Errorf("after its time, with the store gone: %q, %v", got, err)
		}
		if got := o.held("shop", ref); len(got) != 1 || string(got[0]) != "kept a while" {
			t.Errorf("held = %q; it is still to be taken out of what functions say", got)
		}
	})
}

// changing answers with another value each time.
type changing struct{ n, size int }

func (c *changing) GetWith(context.Context, string, http.Header) (*outbound.Answer, error) {
	c.n++
	return &outbound.Answer{Status: http.StatusOK, Body: fmt.Appendf(nil, `{"data":{"data":{"password":"value %d%s"}}}`, c.n, strings.Repeat("x", c.size))}, nil
}

func (c *changing) PostForm(context.Context, string, url.Values) (*outbound.Answer, error) {
	return nil, errors.New("not asked for")
}

// TestEarlierValues: what a value of another store was before is held while functions may have it, and no longer; how much is held is bounded, and the value
// that was read last is never what goes.
func TestEarlierValues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &changing{}
		o, err := NewOutside([]Source{{
			Kind: ident.StoreVault, Namespace: "shop", URL: "https://vault.example", Prefix: "kv/", TTL: time.Second,
			Token: func() ([]byte, error) { return []byte("t"), nil }, Client: store,
		}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		read := func(ref ident.SecretRef) string {
			t.Helper()
			got, _, err := o.read(t.Context(), "shop", ref)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			return string(got)
		}
		ref := reference(t, "vault:kv/db#password")
		mark := o.mark("shop", ref)
		for n := 1; n <= 3; n++ {
			if got := read(ref); got != fmt.Sprint("value ", n) {
				t.Fatalf("read = %q", got)
			}
			if next := o.mark("shop", ref); next == mark {
				t.Error("the mark does not tell a new value")
			} else {
				mark = next
			}
		}
		if got := o.held("shop", ref); string(bytes.Join(got, []byte(","))) != "value 3,value 2,value 1" {
			t.Errorf("held = %q", got)
		}
		time.Sleep(grant.MaxLeased)
		if got := o.held("shop", ref); string(bytes.Join(got, []byte(","))) != "value 3" {
			t.Errorf("after the longest lease: held = %q", got)
		}
		for range 100 {
			read(ref)
		}
		if got := o.held("shop", ref); len(got) != 1+maxEarlier || string(got[0]) != "value 103" || string(got[maxEarlier]) != fmt.Sprint("value ", 103-maxEarlier) {
			t.Errorf("after 100 changes: held = %q", got)
		}
		store.size = MaxValue - 20
		for i := range 400 { // 25 MiB, read within a lease
			other := reference(t, fmt.Sprintf("vault:kv/db-%d#password", i%100))
			want := read(other)
			if got := o.held("shop", other); len(got) == 0 || string(got[0]) != want {
				t.Fatalf("the value that was read last is not held")
			}
			if o.size > maxHeldBytes {
				t.Fatalf("%d bytes are held", o.size)
			}
		}
		size := 0
		for _, h := range o.known {
			size += h.size()
		}
		if size != o.size || size < maxHeldBytes/2 {
			t.Errorf("%d bytes are held, and %d counted", size, o.size)
		}
		store.size = 0
		for i := range maxHeld + 10 {
			read(reference(t, fmt.Sprintf("vault:kv/many-%d#password", i)))
		}
		if len(o.known) != maxHeld {
			t.Errorf("%d secrets are held", len(o.known))
		}
	})
}
