package access_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// memory is a bucket that can be told to fail.
type memory struct {
	m    map[string][]byte
	fail bool
}

func (b *memory) Put(_ context.Context, key string, value []byte) error {
	if b.fail {
		return errors.New("disk is gone")
	}
	b.m[key] = value
	return nil
}

func (b *memory) Delete(_ context.Context, key string) error {
	if b.fail {
		return errors.New("disk is gone")
	}
	delete(b.m, key)
	return nil
}

func (b *memory) List(context.Context, string, string, int) ([]store.Entry, error) {
	var out []store.Entry
	for _, k := range slices.Sorted(maps.Keys(b.m)) {
		out = append(out, store.Entry{Key: k, Value: b.m[k]})
	}
	return out, nil
}

func newGuard(t testing.TB, b *memory) *access.Guard {
	t.Helper()
	tokens, err := access.NewTokens(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.New()
	if err != nil {
		t.Fatal(err)
	}
	return access.NewGuard(tokens, set)
}

func create(t testing.TB, g *access.Guard, req api.TokenRequest) *api.NewToken {
	t.Helper()
	tok, err := g.Create(t.Context(), "test", req)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	b := &memory{m: map[string][]byte{}}
	g := newGuard(t, b)
	tok := create(t, g, api.TokenRequest{Role: "publisher", Namespace: "shop", EventTypes: []string{"order.created"}})
	for range 2 { // the second time with the tokens read back from the store
		p, err := g.Authenticate(t.Context(), tok.Text)
		if err != nil || p.Role != policy.Publisher || p.Namespace != "shop" {
			t.Fatalf("Authenticate = %+v, %v", p, err)
		}
		g = newGuard(t, b)
	}
	for name, text := range map[string]string{
		"empty": "", "other secret": tok.Text[:len(tok.Text)-1] + "x", "cut": tok.Text[:40], "upper case": strings.ToUpper(tok.Text),
		"long": tok.Text + "0", "other id": "sp_0000000000000000" + tok.Text[19:], "text": strings.Repeat("a", len(tok.Text)),
	} {
		if p, err := g.Authenticate(t.Context(), text); problem.From(err).Code != "access.unauthenticated" || p != nil {
			t.Errorf("%s: Authenticate = %v, %v; want access.unauthenticated", name, p, err)
		}
	}
	for key, value := range b.m {
		if strings.Contains(string(value), tok.Text[20:80]) {
			t.Errorf("the store holds the secret of %s", key)
		}
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	b := &memory{m: map[string][]byte{}}
	g := newGuard(t, b)
	tok := create(t, g, api.TokenRequest{Role: "reader"})
	b.fail = true
	if err := g.Revoke(t.Context(), tok.ID); err == nil {
		t.Fatal("Revoke succeeded without the store")
	}
	if _, err := g.Authenticate(t.Context(), tok.Text); err != nil {
		t.Fatalf("after a failed Revoke: %v", err)
	}
	b.fail = false
	for range 2 {
		if err := g.Revoke(t.Context(), tok.ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := g.Authenticate(t.Context(), tok.Text); err == nil {
			t.Error("a revoked token is accepted")
		}
		g = newGuard(t, b)
	}
	if err := g.Revoke(t.Context(), "nothing"); problem.From(err).Kind != problem.NotFound {
		t.Errorf("Revoke(unknown) = %v", err)
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, &memory{m: map[string][]byte{}})
		tok := create(t, g, api.TokenRequest{Role: "reader", ExpiresIn: "1h"})
		if _, err := g.Authenticate(t.Context(), tok.Text); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // the bubble's clock
		if _, err := g.Authenticate(t.Context(), tok.Text); err == nil {
			t.Error("an expired token is accepted")
		}
	})
}

func TestTokenRequests(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	for name, req := range map[string]api.TokenRequest{
		"no role":       {},
		"unknown role":  {Role: "root"},
		"bad namespace": {Role: "reader", Namespace: "A B"},
		"bad type":      {Role: "publisher", EventTypes: []string{"a", "b c"}},
		"no duration":   {Role: "reader", ExpiresIn: "soon"},
		"for ever":      {Role: "reader", ExpiresIn: "999999h"},
		"past":          {Role: "reader", ExpiresIn: "-1h"},
		"long text":     {Role: "reader", Description: strings.Repeat("x", 1000)},
	} {
		if _, err := g.Create(t.Context(), "test", req); problem.From(err).Code != "access.token_request_invalid" || len(problem.From(err).Faults) != 1 {
			t.Errorf("%s: %v; want one fault of access.token_request_invalid", name, err)
		}
	}
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "operator.token")
	b := &memory{m: map[string][]byte{}}
	g := newGuard(t, b)
	if made, err := g.Bootstrap(t.Context(), file); err != nil || !made {
		t.Fatalf("Bootstrap = %v, %v", made, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the token file is %v, %v", st.Mode(), err)
	}
	p, err := g.Authenticate(t.Context(), strings.TrimSpace(string(text)))
	if err != nil || p.Role != policy.Operator {
		t.Fatalf("Authenticate = %+v, %v", p, err)
	}
	g = newGuard(t, b)
	if made, err := g.Bootstrap(t.Context(), file); err != nil || made {
		t.Errorf("second Bootstrap = %v, %v; want nothing made", made, err)
	}
	if err := g.Revoke(t.Context(), strings.TrimPrefix(string(p.ID), "token:")); err != nil {
		t.Fatal(err)
	}
	if made, err := g.Bootstrap(t.Context(), file); err != nil || !made {
		t.Errorf("Bootstrap with the last operator revoked = %v, %v; want a new token", made, err)
	}
	empty := newGuard(t, &memory{m: map[string][]byte{}, fail: true})
	other := filepath.Join(t.TempDir(), "operator.token")
	if _, err := empty.Bootstrap(t.Context(), other); err == nil {
		t.Error("Bootstrap succeeded without the store")
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("a failed Bootstrap left a token file")
	}
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	tok := create(t, g, api.TokenRequest{Role: "publisher", Namespace: "shop", EventTypes: []string{"a"}})
	p, err := g.Authenticate(t.Context(), tok.Text)
	if err != nil {
		t.Fatal(err)
	}
	resource := func(name string) policy.Resource {
		return policy.Resource{Kind: policy.KindEventType, Namespace: "shop", Name: name}
	}
	for range 2 { // remembered answers are the same
		if err := g.Authorize(t.Context(), p, policy.Publish, resource("a")); err != nil {
			t.Error(err)
		}
		err := problem.From(g.Authorize(t.Context(), p, policy.Publish, resource("b")))
		if err.Code != "access.denied" || !slices.Equal(err.Policies, []string{"token-event-types"}) {
			t.Errorf("Authorize(b) = %v by %v", err, err.Policies)
		}
		for i := range access.MaxRemembered { // more than are remembered
			if g.Authorize(t.Context(), p, policy.Publish, resource(fmt.Sprint("z", i))) == nil {
				t.Error("allowed")
			}
		}
	}
}

// TestReissue loses the operator token's file: no start makes another token, a person asks for it.
func TestReissue(t *testing.T) {
	t.Parallel()
	b := &memory{m: map[string][]byte{}}
	g := newGuard(t, b)
	file := filepath.Join(t.TempDir(), "operator.token")
	read := func() string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	if _, err := g.Bootstrap(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	lost := read()
	other := create(t, g, api.TokenRequest{Role: "operator"})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if made, err := g.Bootstrap(t.Context(), file); made || err != nil {
		t.Errorf("Bootstrap without the file = %v, %v; want nothing made", made, err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("Bootstrap wrote the file again")
	}
	if err := g.Reissue(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{lost: false, other.Text: true, read(): true} {
		if _, err := g.Authenticate(t.Context(), text); (err == nil) != want {
			t.Errorf("after Reissue: Authenticate = %v, want accepted %v", err, want)
		}
	}
}

// TestForgetEnded fills the server with tokens: room comes from those that ended long ago only.
func TestForgetEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &memory{m: map[string][]byte{}}
		value := func(id, expires string) {
			b.m[id] = []byte(`{"id":"` + id + `","role":"reader","created":"2000-01-01T00:00:00Z","expires":"` + expires + `","hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`)
		}
		for i := range access.MaxTokens {
			value(fmt.Sprintf("%016x", i), "2100-01-01T00:00:00Z")
		}
		req := api.TokenRequest{Role: "reader"}
		value("0000000000000000", "1999-12-31T00:00:00Z") // the bubble's clock begins in 2000
		if _, err := newGuard(t, b).Create(t.Context(), "test", req); problem.From(err).Code != "access.too_many_tokens" {
			t.Fatalf("Create = %v, want access.too_many_tokens: the expired token is still listed", err)
		}
		value("0000000000000000", "1999-11-01T00:00:00Z")
		g := newGuard(t, b)
		b.fail = true
		if _, err := g.Create(t.Context(), "test", req); problem.From(err).Code != "access.unavailable" {
			t.Fatalf("Create = %v, want access.unavailable", err)
		}
		b.fail = false
		if _, err := g.Create(t.Context(), "test", req); err != nil {
			t.Fatal(err)
		}
		if len(g.List()) != access.MaxTokens || b.m["0000000000000000"] != nil {
			t.Errorf("%d tokens", len(g.List()))
		}
	})
}

func TestMalformedStore(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"no JSON": `{`, "no hash": `{"id":"a"}`, "other id": `{"id":"b","hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`,
	} {
		if _, err := access.NewTokens(t.Context(), &memory{m: map[string][]byte{"a": []byte(value)}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestGuardDenies asks for nobody, for a principal that was not authenticated, and for functions with
// and without a grant.
func TestGuardDenies(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	res := policy.Resource{Kind: policy.KindEventType, Namespace: "shop", Name: "a"}
	for range 2 {
		for name, tt := range map[string]struct {
			p    *access.Principal
			code string
		}{
			"nobody":       {nil, "access.unauthenticated"},
			"made up":      {&access.Principal{ID: "token:x", Role: policy.Operator}, "access.denied"},
			"not granted":  {access.FunctionPrincipal("shop", "f", 1, []ident.EventType{"b"}), "access.denied"},
			"elsewhere":    {access.FunctionPrincipal("bank", "f", 1, []ident.EventType{"a"}), "access.denied"},
			"granted":      {access.FunctionPrincipal("shop", "f", 1, []ident.EventType{"b", "a"}), ""},
			"looks joined": {access.FunctionPrincipal("shop", "f", 1, []ident.EventType{"ba"}), "access.denied"},
		} {
			code := ""
			if err := g.Authorize(t.Context(), tt.p, policy.Publish, res); err != nil {
				code = problem.From(err).Code
			}
			if code != tt.code {
				t.Errorf("%s: %q, want %q", name, code, tt.code)
			}
		}
	}
}

// TestGuardRevealsNothing compares what a token of one namespace hears of another that exists with
// what it hears of one that does not: but for the name it sent, the same.
func TestGuardRevealsNothing(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	tok := create(t, g, api.TokenRequest{Role: "developer", Namespace: "shop"})
	create(t, g, api.TokenRequest{Role: "developer", Namespace: "bank"})
	p, err := g.Authenticate(t.Context(), tok.Text)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ns ident.Namespace) string {
		err := problem.From(g.Authorize(t.Context(), p, policy.ReadEvents, policy.OfNamespace(ns)))
		return strings.ReplaceAll(fmt.Sprint(err, err.Hint, err.Policies), string(ns), "NS")
	}
	if there, not := ask("bank"), ask("nowhere"); there != not {
		t.Errorf("%q and %q", there, not)
	}
}

// TestConcurrentUse has tokens come and go while others ask; the race detector looks on.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	tok := create(t, g, api.TokenRequest{Role: "publisher"})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 200 {
				p, err := g.Authenticate(t.Context(), tok.Text)
				if err != nil {
					t.Error(err)
					return
				}
				res := policy.Resource{Kind: policy.KindEventType, Namespace: "shop", Name: fmt.Sprint(i, j)}
				if err := g.Authorize(t.Context(), p, policy.Publish, res); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			made, err := g.Create(t.Context(), "test", api.TokenRequest{Role: "reader"})
			if err == nil {
				err = g.Revoke(t.Context(), made.ID)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

// FuzzAuthenticate holds that nothing but the token's own text is accepted.
func FuzzAuthenticate(f *testing.F) {
	g := newGuard(f, &memory{m: map[string][]byte{}})
	tok := create(f, g, api.TokenRequest{Role: "reader"})
	f.Add(tok.Text)
	f.Add(tok.Text[:len(tok.Text)-1])
	f.Add("sp__")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := g.Authenticate(t.Context(), text); (err == nil) != (text == tok.Text) || (p == nil) == (err == nil) {
			t.Errorf("Authenticate(%q) = %v, %v", text, p, err)
		}
	})
}

func BenchmarkPublishPath(b *testing.B) {
	g := newGuard(b, &memory{m: map[string][]byte{}})
	tok := create(b, g, api.TokenRequest{Role: "publisher"})
	r := policy.Resource{Kind: policy.KindEventType, Namespace: "default", Name: "a"}
	b.ReportAllocs()
	for b.Loop() {
		p, err := g.Authenticate(b.Context(), tok.Text)
		if err == nil {
			err = g.Authorize(b.Context(), p, policy.Publish, r)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
