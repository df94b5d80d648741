package access_test

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

func openPolicies(t *testing.T, b *memory, g *access.Guard) *access.Policies {
	t.Helper()
	p, err := access.OpenPolicies(t.Context(), b, g)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func shopPolicy(text string) (access.PolicyOwner, map[string]string) {
	return access.PolicyOwner{Namespace: "shop", Name: "a"}, map[string]string{"policies/a.cedar": text}
}

const noOrders = `@id("no-orders") forbid (principal, action == Action::"publish", resource == EventType::"shop/order");`

// TestPoliciesInForce: a change is in force for who was answered before, survives a restart, and one that is not valid or
// cannot be stored changes nothing.
func TestPoliciesInForce(t *testing.T) {
	t.Parallel()
	tokens, stored := &memory{m: map[string][]byte{}}, &memory{m: map[string][]byte{}}
	g := newGuard(t, tokens)
	p := openPolicies(t, stored, g)
	who, err := g.Authenticate(t.Context(), create(t, g, api.TokenRequest{Role: "publisher", Namespace: "shop"}).Text)
	if err != nil {
		t.Fatal(err)
	}
	code := func(g *access.Guard) string {
		err := g.AuthorizeEvent(t.Context(), who, "shop", &policy.Event{Type: "order"}, nil)
		if err == nil {
			return ""
		}
		return problem.From(err).Code
	}
	owner, files := shopPolicy(noOrders)
	if got := code(g); got != "" {
		t.Fatalf("before: %s", got)
	}
	stored.fail = true
	if _, err := p.Apply(t.Context(), owner, files); problem.From(err).Code != "policy.unavailable" {
		t.Errorf("Apply without a store = %v", err)
	}
	if got := code(g); got != "" {
		t.Errorf("after an Apply that failed: %s", got)
	}
	stored.fail = false
	c, err := p.Apply(t.Context(), owner, files)
	if err != nil || len(c.Created) != 1 || c.Created[0] != "shop/no-orders" {
		t.Fatalf("Apply = %+v, %v", c, err)
	}
	if got := code(g); got != "access.denied" {
		t.Errorf("after Apply: %q, want access.denied: an answer from before was given", got)
	}
	_, bad := shopPolicy(`permit (principal, action == Action::"publsh", resource);`)
	if _, err := p.Apply(t.Context(), owner, bad); problem.From(err).Code != "policy.invalid" || code(g) != "access.denied" {
		t.Errorf("Apply of what is not valid = %v", err)
	}
	again := newGuard(t, tokens)
	p = openPolicies(t, stored, again)
	if got := code(again); got != "access.denied" {
		t.Errorf("after a restart: %q, want access.denied", got)
	}
	if c, err := p.Apply(t.Context(), owner, nil); err != nil || len(c.Deleted) != 1 || code(again) != "" {
		t.Errorf("Apply of nothing = %+v, %v, and then %q", c, err, code(again))
	}
	if len(stored.m) != 0 {
		t.Errorf("the store holds %d entries of what was removed", len(stored.m))
	}
	for key, value := range map[string]string{"shop/a": `{`, "shop/b": `{"files":{"a.cedar":"permit"}}`} {
		if _, err := access.OpenPolicies(t.Context(), &memory{m: map[string][]byte{key: []byte(value)}}, again); err == nil {
			t.Errorf("OpenPolicies of %s = nil: the server would go on without a policy that may forbid", value)
		}
	}
}

// TestCircumstances: an answer is remembered with what of the circumstances policies look at, and with no more.
func TestCircumstances(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	p := openPolicies(t, &memory{m: map[string][]byte{}}, g)
	who, err := g.Authenticate(t.Context(), create(t, g, api.TokenRequest{Role: "publisher"}).Text)
	if err != nil {
		t.Fatal(err)
	}
	owner, files := shopPolicy(`@id("office") forbid (principal, action == Action::"publish", resource)
unless { context has ip && context.ip.isInRange(ip("10.0.0.0/8")) };
@id("certificate") forbid (principal, action == Action::"invoke", resource) unless { context.mtls };
@id("small") forbid (principal, action == Action::"publish", resource == EventType::"shop/small") when { context.event.size > 10 };`)
	if _, err := p.Apply(t.Context(), owner, files); err != nil {
		t.Fatal(err)
	}
	if g.SameForType("shop", "small") || !g.SameForType("shop", "order") || !g.SameForType("bank", "small") {
		t.Error("SameForType does not say where policies look at events")
	}
	for range 2 { // the second time they are remembered
		for _, tt := range []struct {
			from    string
			mutual  bool
			typ     string
			size    int64
			publish bool
			invoke  bool
		}{
			{"10.1.2.3", false, "order", 100, true, false},
			{"::ffff:10.1.2.3", false, "order", 100, true, false},
			{"192.0.2.1", false, "order", 1, false, false},
			{"10.1.2.3", true, "small", 10, true, true},
			{"10.1.2.3", true, "small", 11, false, true},
		} {
			ctx := access.WithCircumstances(t.Context(), access.Circumstances{IP: netip.MustParseAddr(tt.from), MutualTLS: tt.mutual})
			if err := g.AuthorizeEvent(ctx, who, "shop", &policy.Event{Type: tt.typ, Size: tt.size}, nil); (err == nil) != tt.publish {
				t.Errorf("%+v: publish = %v", tt, err)
			}
			if err := g.Authorize(ctx, who, policy.Invoke, policy.Resource{Kind: policy.KindFunction, Namespace: "shop", Name: "f"}); (err == nil) != tt.invoke {
				t.Errorf("%+v: invoke = %v", tt, err)
			}
		}
	}
	// Nothing of what is decided within the server came from an address.
	if err := g.AuthorizeEvent(t.Context(), who, "shop", &policy.Event{Type: "order"}, nil); err == nil {
		t.Error("without an address: allowed")
	}
}

// TestDecisions: what was decided is there, remembered or not, with how often, and after a restart.
func TestDecisions(t *testing.T) {
	t.Parallel()
	b := &memory{m: map[string][]byte{}}
	g := newGuard(t, &memory{m: map[string][]byte{}})
	d, err := access.OpenDecisions(t.Context(), b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g.RecordIn(d)
	who, err := g.Authenticate(t.Context(), create(t, g, api.TokenRequest{Role: "publisher", EventTypes: []string{"a"}}).Text)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 3 {
		for _, typ := range []string{"a", "b"} {
			_ = g.AuthorizeEvent(t.Context(), who, "shop", &policy.Event{Type: typ}, nil) // the answer is not what is tested
		}
	}
	check := func(d *access.Decisions) {
		t.Helper()
		list := d.List(access.DecisionQuery{Namespace: "shop", Since: began.Add(-time.Minute)})
		if len(list) != 2 {
			t.Fatalf("List = %+v, want two", list)
		}
		for _, one := range list {
			if one.Count != 3 || one.As.ID != who.ID || one.As.Role != policy.Publisher || one.Allowed != (one.Resource.Name == "a") || len(one.Policies) != 1 {
				t.Errorf("a decision is %+v", one)
			}
		}
		if n := len(d.List(access.DecisionQuery{Namespace: "shop", Since: began.Add(-time.Minute), Denied: true})); n != 1 {
			t.Errorf("%d were denied, want one", n)
		}
		for name, q := range map[string]access.DecisionQuery{
			"another namespace": {Namespace: "bank"}, "another principal": {Namespace: "shop", Principal: "token:x"}, "later": {Namespace: "shop", Since: began.Add(time.Hour)},
		} {
			if n := len(d.List(q)); n != 0 {
				t.Errorf("%s: %d decisions, want none", name, n)
			}
		}
	}
	check(d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = access.OpenDecisions(t.Context(), b, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	check(d)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestCrossingsRecorded: what perimeters alone decide is on record when they have something to say: a deny, a bridge, or what
// would be a deny but for dry-run.
func TestCrossingsRecorded(t *testing.T) {
	t.Parallel()
	b := &memory{m: map[string][]byte{}}
	g := newGuard(t, &memory{m: map[string][]byte{}})
	d, err := access.OpenDecisions(t.Context(), b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g.RecordIn(d)
	p := openPolicies(t, &memory{m: map[string][]byte{}}, g)
	if _, err := p.Apply(t.Context(), access.PolicyOwner{Namespace: "shop", Name: "a"}, map[string]string{"perimeters.toml": `
[perimeters.cards]
event_types = ["card.*"]
[perimeters.cards.bridges.out]
from = ["event_type:card.sent"]
to = ["function:f"]
actions = ["deliver"]
[perimeters.trial]
mode = "dry-run"
functions = ["f"]
`}); err != nil {
		t.Fatal(err)
	}
	for typ, allowed := range map[ident.EventType]bool{"card.sent": true, "card.paid": false, "other": true} {
		for range 2 {
			if err := g.CanDeliver("shop", typ, "f"); (err == nil) != allowed {
				t.Errorf("CanDeliver(%s) = %v", typ, err)
			}
		}
		if err := g.CanDeliver("shop", "other", "g"); err != nil {
			t.Error(err)
		}
	}
	check := func(d *access.Decisions) {
		t.Helper()
		got := map[string]policy.Decision{}
		for _, one := range d.List(access.DecisionQuery{Namespace: "shop"}) {
			if one.Count != 2 || one.Action != policy.Deliver {
				t.Errorf("recorded %+v", one)
			}
			got[string(one.As.ID)] = one.Decision
		}
		trial := []string{"perimeter:shop/trial"}
		want := map[string]policy.Decision{
			"event_type:shop/card.sent": {Allowed: true, Bridges: []string{"bridge:shop/cards/out"}, DryRun: trial},
			"event_type:shop/card.paid": {Policies: []string{"perimeter:shop/cards"}, DryRun: trial},
			"event_type:shop/other":     {Allowed: true, DryRun: trial},
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("recorded (-want +got):\n%s", diff)
		}
		for perimeter, n := range map[string]int{"perimeter:shop/trial": 3, "perimeter:shop/cards": 1, "perimeter:shop/x": 0} {
			if got := len(d.List(access.DecisionQuery{Namespace: "shop", Perimeter: perimeter})); got != n {
				t.Errorf("%s denied %d, want %d", perimeter, got, n)
			}
		}
	}
	check(d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = access.OpenDecisions(t.Context(), b, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	check(d)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestPlanIsKept: what was planned is applied as it was compiled, but not when other policies are in force since.
func TestPlanIsKept(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	p := openPolicies(t, &memory{m: map[string][]byte{}}, g)
	owner, files := shopPolicy(noOrders)
	plan := func() *policy.Set {
		t.Helper()
		c, err := p.Plan(owner, files)
		if err != nil {
			t.Fatal(err)
		}
		return c.New
	}
	first := plan()
	if plan() != first {
		t.Error("the same plan is compiled again")
	}
	bank := access.PolicyOwner{Namespace: "bank", Name: "b"}
	if _, err := p.Apply(t.Context(), bank, map[string]string{
		"b.cedar": `@id("b") forbid (principal == User::"b", action, resource);`, "perimeters.toml": "[perimeters.vault]\nevent_types = [\"gold\"]\n",
	}); err != nil {
		t.Fatal(err)
	}
	second := plan()
	if second == first {
		t.Error("a plan over other policies is kept: applying it would bring those back")
	}
	if _, err := p.Apply(t.Context(), owner, files); err != nil || g.Set() != second {
		t.Errorf("Apply = %v, and does not use what was planned", err)
	}
	// A change of one namespace leaves the others as they are, and so does one of the server.
	everything := func(when string) {
		t.Helper()
		have := map[string]bool{}
		for one := range g.Set().Policies() {
			have[one.ID] = true
		}
		for _, one := range g.Set().Perimeters() {
			have[one.ID] = true
		}
		if !have["shop/no-orders"] || !have["bank/b"] || !have["perimeter:bank/vault"] || !have["namespace-border"] {
			t.Errorf("%s, there are %v", when, have)
		}
	}
	everything("after a change of shop")
	if _, err := p.Apply(t.Context(), access.PolicyOwner{Name: "company"}, map[string]string{"c.cedar": `@id("c") forbid (principal == User::"c", action, resource);`}); err != nil {
		t.Fatal(err)
	}
	everything("after a change of the server")
}
