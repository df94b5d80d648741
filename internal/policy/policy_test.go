package policy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

func newSet(t testing.TB) *policy.Set {
	t.Helper()
	s, err := policy.New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func token(role policy.Role, ns ident.Namespace, types ...ident.EventType) policy.Principal {
	return policy.Principal{Kind: policy.KindToken, ID: "token:t", Role: role, Namespace: ns, EventTypes: types}
}

func eventType(ns ident.Namespace, name string) policy.Resource {
	return policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: name}
}

func function(ns ident.Namespace, name string) policy.Resource {
	return policy.Resource{Kind: policy.KindFunction, Namespace: ns, Name: name}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	a, b := ident.Namespace("a"), ident.Namespace("b")
	price := policy.Principal{Kind: policy.KindFunction, ID: "function:a/price", Namespace: a, EventTypes: []ident.EventType{"priced"}}
	for _, tc := range []struct {
		name   string
		p      policy.Principal
		action policy.Action
		r      policy.Resource
		want   string // determining policies, "!" before a deny
	}{
		{"operator publishes", token(policy.Operator, ""), policy.Publish, eventType(a, "x"), "operator-all"},
		{"operator makes tokens", token(policy.Operator, ""), policy.ManageTokens, policy.OfServer(), "operator-all"},
		{"operator of a namespace makes none", token(policy.Operator, a), policy.ManageTokens, policy.OfServer(), "!namespace-border server-operator"},
		{"operator of a namespace elsewhere", token(policy.Operator, a), policy.Deploy, policy.OfNamespace(b), "!namespace-border"},
		{"developer deploys", token(policy.Developer, a), policy.Deploy, policy.OfNamespace(a), "developer-namespace"},
		{"developer elsewhere", token(policy.Developer, a), policy.Deploy, policy.OfNamespace(b), "!namespace-border"},
		{"developer makes no tokens", token(policy.Developer, ""), policy.ManageTokens, policy.OfServer(), "!server-operator"},
		{"publisher publishes", token(policy.Publisher, a), policy.Publish, eventType(a, "x"), "publisher-types"},
		{"publisher of a type", token(policy.Publisher, a, "x"), policy.Publish, eventType(a, "x"), "publisher-types"},
		{"publisher of another type", token(policy.Publisher, a, "x"), policy.Publish, eventType(a, "y"), "!token-event-types"},
		{"limited publisher invokes", token(policy.Publisher, a, "x"), policy.Invoke, function(a, "f"), "!token-event-types-only"},
		{"publisher invokes", token(policy.Publisher, a), policy.Invoke, function(a, "f"), "publisher-types"},
		{"publisher reads nothing", token(policy.Publisher, a), policy.ReadEvents, policy.OfNamespace(a), "!"},
		{"reader reads", token(policy.Reader, a), policy.ReadEvents, policy.OfNamespace(a), "reader-namespace"},
		{"reader sees no data", token(policy.Reader, a), policy.ReadEventData, policy.OfNamespace(a), "!"},
		{"reader publishes nothing", token(policy.Reader, a), policy.Publish, eventType(a, "x"), "!"},
		{"reader of all reads metrics", token(policy.Reader, ""), policy.ReadMetrics, policy.OfServer(), "reader-namespace"},
		{"function by grant", price, policy.Publish, eventType(a, "priced"), "function-grants"},
		{"function without grant", price, policy.Publish, eventType(a, "paid"), "!"},
		{"function elsewhere", price, policy.Publish, eventType(b, "priced"), "!namespace-border"},
		{"function invokes nothing", price, policy.Invoke, function(a, "g"), "!"},
		{"nobody", policy.Principal{}, policy.Publish, eventType(a, "x"), "!"},
		{"unknown role", token("root", ""), policy.Publish, eventType(a, "x"), "!"},
		{"limited developer deploys", token(policy.Developer, a, "x"), policy.Deploy, policy.OfNamespace(a), "!token-event-types-only"},
		{"limited operator makes tokens", token(policy.Operator, "", "x"), policy.ManageTokens, policy.OfServer(), "!token-event-types-only"},
		{"limited developer reads", token(policy.Developer, a, "x"), policy.ReadEvents, policy.OfNamespace(a), "developer-namespace"},
		{"operator's unknown action", token(policy.Operator, ""), "fly", policy.OfServer(), "!"},
		{"operator publishes to the server", token(policy.Operator, ""), policy.Publish, policy.OfServer(), "!"},
		{"operator's unknown resource", token(policy.Operator, ""), policy.Deploy, policy.Resource{Kind: "Moon"}, "!"},
		{"event type as a principal", policy.Principal{Kind: policy.KindEventType, Role: policy.Operator}, policy.Publish, eventType(a, "x"), "!"},
		{"unknown action", token(policy.Developer, a), "fly", policy.OfNamespace(a), "!"},
	} {
		d := s.Decide(policy.Request{Principal: tc.p, Action: tc.action, Resource: tc.r})
		got := strings.Join(d.Policies, " ")
		if !d.Allowed {
			got = "!" + got
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestDenyByDefault asks every action of everyone who has no role, on every kind of resource.
func TestDenyByDefault(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	for _, a := range append(policy.Actions(), "") {
		for _, r := range []policy.Resource{{}, policy.OfNamespace("a"), policy.OfServer(), eventType("a", "x"), function("a", "f")} {
			for _, p := range []policy.Principal{{}, token("", ""), token("", "a"), {Kind: policy.KindFunction}, {Kind: policy.KindFunction, ID: "function:a/f", Namespace: "a"}, {Kind: policy.KindUser, ID: "user:u"}} {
				if d := s.Decide(policy.Request{Principal: p, Action: a, Resource: r}); d.Allowed {
					t.Errorf("%v may %s %v by %v", p, a, r, d.Policies)
				}
			}
		}
	}
}

// TestFailingForbidDenies has a forbid that cannot be evaluated: the request is denied by it.
func TestFailingForbidDenies(t *testing.T) {
	t.Parallel()
	s, err := policy.ParseUnvalidated([]byte(`
@id("all") permit (principal, action, resource);
@id("broken") forbid (principal, action, resource) when { principal.missing == 1 };`))
	if err != nil {
		t.Fatal(err)
	}
	d := s.Decide(policy.Request{Principal: token(policy.Operator, ""), Action: policy.Publish, Resource: eventType("a", "x")})
	if len(d.Errors) != 1 || d.Errors[0].Policy != "broken" || d.Errors[0].Message == "" {
		t.Errorf("errors are %v, want one of the policy broken", d.Errors)
	}
	want := policy.Decision{Policies: []string{"broken"}, Errors: d.Errors}
	if d := cmp.Diff(want, d); d != "" {
		t.Errorf("Decide (-want +got):\n%s", d)
	}
}

func BenchmarkDecide(b *testing.B) {
	s := newSet(b)
	q := policy.Request{Principal: token(policy.Publisher, "a", "x"), Action: policy.Publish, Resource: eventType("a", "x")}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Decide(q).Allowed {
			b.Fatal("denied")
		}
	}
}
