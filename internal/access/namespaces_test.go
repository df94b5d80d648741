package access_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// TestForeignPoliciesAreNotNamed: whoever does not belong to a namespace is told of no policy about it, and so the same as of
// one that does not exist.
func TestForeignPoliciesAreNotNamed(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	p := openPolicies(t, &memory{m: map[string][]byte{}}, g)
	owner, files := shopPolicy(`@id("all") forbid (principal, action, resource);`)
	if _, err := p.Apply(t.Context(), owner, files); err != nil {
		t.Fatal(err)
	}
	server := map[string]string{"s.cedar": `@id("freeze") forbid (principal, action, resource in Namespace::"shop");`}
	if _, err := p.Apply(t.Context(), access.PolicyOwner{Name: "server"}, server); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		home, want string // of the namespace shop
	}{{"bank", "namespace-border"}, {"shop", "freeze shop/all"}, {"", "freeze shop/all"}} {
		who, err := g.Authenticate(t.Context(), create(t, g, api.TokenRequest{Role: "operator", Namespace: tc.home}).Text)
		if err != nil {
			t.Fatal(err)
		}
		denied := problem.From(g.Authorize(t.Context(), who, policy.ReadLogs, policy.OfNamespace("shop")))
		if got := strings.Join(denied.Policies, " "); got != tc.want {
			t.Errorf("who is of %q is told of %q, want %q", tc.home, got, tc.want)
		}
		other := problem.From(g.Authorize(t.Context(), who, policy.ReadLogs, policy.OfNamespace("none")))
		if tc.home == "bank" && (strings.ReplaceAll(denied.Public+denied.Hint, "shop", "none") != other.Public+other.Hint || denied.Code != other.Code) {
			t.Errorf("shop answers %+v, a namespace that does not exist %+v", denied, other)
		}
	}
}

// TestRemoveNamespace: tokens, policies and decisions of a namespace go, and stay away after a restart.
func TestRemoveNamespace(t *testing.T) {
	t.Parallel()
	tokens, policies, record := &memory{m: map[string][]byte{}}, &memory{m: map[string][]byte{}}, &memory{m: map[string][]byte{}}
	g := newGuard(t, tokens)
	d, err := access.OpenDecisions(t.Context(), record, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	p := openPolicies(t, policies, g)
	g.RecordIn(d)
	owner, files := shopPolicy(noOrders)
	for _, o := range []access.PolicyOwner{owner, {Namespace: "bank", Name: "a"}} {
		one := map[string]string{}
		for name, text := range files {
			one[name] = strings.ReplaceAll(text, "shop", string(o.Namespace))
		}
		if _, err := p.Apply(t.Context(), o, one); err != nil {
			t.Fatal(err)
		}
	}
	gone, kept := create(t, g, api.TokenRequest{Role: "reader", Namespace: "shop"}), create(t, g, api.TokenRequest{Role: "reader", Namespace: "bank"})
	for _, tok := range []*api.NewToken{gone, kept} {
		who, err := g.Authenticate(t.Context(), tok.Text)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Authorize(t.Context(), who, policy.ReadLogs, policy.OfNamespace(ident.Namespace(tok.Namespace))); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.Valid("shop"); n != 1 {
		t.Errorf("%d valid tokens", n)
	}
	tokens.fail = true
	if err := g.RemoveNamespace(t.Context(), "shop"); err == nil {
		t.Error("tokens were removed without a store")
	}
	if _, err := g.Authenticate(t.Context(), gone.Text); err == nil {
		t.Error("a token of a namespace that is being deleted is valid")
	}
	tokens.fail = false
	g = newGuard(t, tokens) // as after a crash
	if err := errors.Join(g.RemoveNamespace(t.Context(), "shop"), p.RemoveNamespace(t.Context(), "shop"), d.RemoveNamespace(t.Context(), "shop")); err != nil {
		t.Fatal(err)
	}
	if len(d.List(access.DecisionQuery{Namespace: "shop"})) > 0 || len(d.List(access.DecisionQuery{Namespace: "bank"})) == 0 {
		t.Error("the wrong decisions are left")
	}
	for _, b := range []*memory{policies, record} {
		for key, value := range b.m {
			if strings.Contains(key+string(value), "shop") {
				t.Errorf("%s is left: %s", key, value)
			}
		}
	}
	g = newGuard(t, tokens)
	if list := g.List(); len(list) != 1 || list[0].ID != kept.ID {
		t.Errorf("tokens that are left: %+v", list)
	}
}

// TestWithin: who bounds the tokens of a namespace is asked with those that are valid.
func TestWithin(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	var asked []int
	full := errors.New("full")
	g.Within(func(_ ident.Namespace, valid int) error {
		if asked = append(asked, valid); valid > 2 {
			return full
		}
		return nil
	})
	shop := api.TokenRequest{Role: "reader", Namespace: "shop"}
	create(t, g, api.TokenRequest{Role: "reader"})
	first := create(t, g, shop)
	create(t, g, shop)
	if _, err := g.Create(t.Context(), "test", shop); !errors.Is(err, full) {
		t.Errorf("Create = %v, want the refusal", err)
	}
	if err := g.Revoke(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	create(t, g, shop)
	if len(asked) != 4 || asked[0] != 1 || asked[2] != 3 || asked[3] != 2 {
		t.Errorf("asked with %v", asked)
	}
}
