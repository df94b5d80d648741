package access_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

func narrowed(t testing.TB, text string, c narrow.Caveats) string {
	t.Helper()
	out, err := narrow.Narrow(text, c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestNarrowed holds narrowed tokens to their caveats, and to what the token was allowed that they were made of.
func TestNarrowed(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	who := access.NewIdentifier(g.Tokens, access.IdentifierConfig{})
	operator := create(t, g, api.TokenRequest{Role: "operator"})
	reader := create(t, g, api.TokenRequest{Role: "reader", Namespace: "shop"})
	typeOf := func(name string) policy.Resource {
		return policy.Resource{Kind: policy.KindEventType, Namespace: "shop", Name: name}
	}
	shop, function := policy.OfNamespace("shop"), policy.Resource{Kind: policy.KindFunction, Namespace: "shop", Name: "f"}
	type ask struct {
		action policy.Action
		res    policy.Resource
	}
	all := map[string]ask{
		"publish order.x": {policy.Publish, typeOf("order.x")}, "publish a": {policy.Publish, typeOf("a")}, "invoke": {policy.Invoke, function},
		"deploy": {policy.Deploy, shop}, "read": {policy.ReadEvents, shop}, "tokens": {policy.ManageTokens, policy.OfServer()}, "status": {policy.ReadStatus, policy.OfServer()},
	}
	types := narrow.Caveats{Types: []string{"order.*"}}
	for name, tt := range map[string]struct {
		text string
		may  []string
	}{
		"not narrowed":     {operator.Text, []string{"publish order.x", "publish a", "invoke", "deploy", "read", "tokens", "status"}},
		"time":             {narrowed(t, operator.Text, narrow.Caveats{Expires: time.Now().Add(time.Hour).Unix()}), []string{"publish order.x", "publish a", "invoke", "deploy", "read", "status"}},
		"types":            {narrowed(t, operator.Text, types), []string{"publish order.x"}},
		"types, two ways":  {narrowed(t, narrowed(t, operator.Text, types), narrow.Caveats{Types: []string{"a", "order.y"}}), nil},
		"types, wider":     {narrowed(t, narrowed(t, operator.Text, types), narrow.Caveats{Types: []string{"*"}}), []string{"publish order.x"}},
		"actions":          {narrowed(t, operator.Text, narrow.Caveats{Actions: []string{"readEvents", "manageTokens", "nothing"}}), []string{"read"}},
		"actions, wider":   {narrowed(t, narrowed(t, operator.Text, narrow.Caveats{Actions: []string{"invoke"}}), narrow.Caveats{Actions: []string{"invoke", "readEvents"}}), []string{"invoke"}},
		"more than it has": {narrowed(t, reader.Text, narrow.Caveats{Actions: []string{"publish", "deploy", "readEvents"}}), []string{"read"}},
	} {
		for range 2 { // the second time it is remembered
			p, err := who.Identify(request("Bearer " + tt.text))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for what, q := range all {
				err := g.Authorize(t.Context(), p, q.action, q.res)
				if (err == nil) != slices.Contains(tt.may, what) {
					t.Errorf("%s: %s = %v", name, what, err)
				}
			}
		}
	}
	p, err := who.Identify(request("Bearer " + narrowed(t, operator.Text, types)))
	if err != nil {
		t.Fatal(err)
	}
	if err := problem.From(g.Authorize(t.Context(), p, policy.ReadEvents, shop)); err.Code != "access.denied" || !slices.Equal(err.Policies, []string{"token-caveats"}) {
		t.Errorf("denied by %v, %v", err.Policies, err)
	}
}

// TestNarrowedEnds: address, time, and the end of the token it was made of.
func TestNarrowedEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &memory{m: map[string][]byte{}}
		g := newGuard(t, b)
		who := access.NewIdentifier(g.Tokens, access.IdentifierConfig{})
		base := create(t, g, api.TokenRequest{Role: "reader", ExpiresIn: "3h"})
		ask := func(text, from string) bool {
			r := request("Bearer " + text)
			r.RemoteAddr = from
			_, err := who.Identify(r)
			return err == nil
		}
		inside := narrowed(t, base.Text, narrow.Caveats{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		hour := narrowed(t, base.Text, narrow.Caveats{Expires: time.Now().Add(time.Hour).Unix()})
		longer := narrowed(t, hour, narrow.Caveats{Expires: time.Now().Add(100 * time.Hour).Unix()})
		for from, want := range map[string]bool{"10.2.3.4:1": true, "[::ffff:10.2.3.4]:1": true, "11.2.3.4:1": false, "[::1]:1": false, "": false, "@": false} {
			for range 2 {
				if got := ask(inside, from); got != want {
					t.Errorf("from %q: %v; want %v", from, got, want)
				}
			}
		}
		if !ask(hour, "") || !ask(longer, "") || ask(hour[:len(hour)-1], "") || ask(narrow.Prefix+strings.Repeat("A", 6000), "") {
			t.Error("wrong answers within the hour")
		}
		time.Sleep(time.Hour) // the bubble's clock
		if ask(hour, "") || ask(longer, "") || !ask(base.Text, "") {
			t.Error("after its end a narrowed token is accepted, or the token it was made of is not")
		}
		again := narrowed(t, inside, narrow.Caveats{Actions: []string{"readEvents"}})
		if !ask(again, "10.0.0.1:1") {
			t.Error("a token narrowed twice is refused")
		}
		for _, value := range b.m {
			// What the store has makes no chain.
			forged := narrowed(t, "sp_"+base.ID+"_"+string(value), narrow.Caveats{Expires: time.Now().Add(time.Hour).Unix()})
			if ask(forged, "") {
				t.Error("the store's content makes tokens")
			}
		}
		if err := g.Revoke(t.Context(), base.ID); err != nil {
			t.Fatal(err)
		}
		if ask(again, "10.0.0.1:1") || ask(inside, "10.0.0.1:1") {
			t.Error("a token whose base was revoked is accepted")
		}
	})
}
