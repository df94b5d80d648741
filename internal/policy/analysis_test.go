package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

const teams = `
@id("ops-publish") permit (principal in Group::"ops", action == Action::"publish", resource in Namespace::"shop");
@id("inside") permit (principal is User, action == Action::"invoke", resource == Function::"shop/refund")
when { principal in Group::"desk" && context has ip && context.ip.isInRange(ip("10.0.0.0/8")) };
@id("no-large") forbid (principal, action == Action::"publish", resource == EventType::"shop/order.paid") when { context.event.size > 1000 };
@id("no-bob") forbid (principal == User::"bob", action == Action::"publish", resource == EventType::"shop/order.paid");
`

func show2(list []policy.Access) []string {
	var out []string
	for _, a := range list {
		out = append(out, fmt.Sprintf("%d %s %s: %s; assumed %v", a.Principal, a.Action, a.Resource.Name, outcome(a.Decision), a.Assumed))
	}
	return out
}

func TestWhoCan(t *testing.T) {
	t.Parallel()
	s := with(t, file("shop", teams))
	people := []policy.Principal{user("ann", "ops"), user("bob", "ops"), user("cleo", "desk"), {}}
	paid, refund := eventType("shop", "order.paid"), function("shop", "refund")
	home := policy.Context{IP: ip("10.0.0.1"), Transport: policy.TransportTLS}
	for _, tc := range []struct {
		name string
		a    policy.Action
		r    policy.Resource
		c    *policy.Context
		want []string
	}{
		{"publish in some context", policy.Publish, paid, nil, []string{
			"0 publish order.paid: shop/ops-publish; assumed [shop/no-large]", "1 publish order.paid: !shop/no-bob; assumed []",
			"2 publish order.paid: !; assumed []", "3 publish order.paid: !; assumed []",
		}},
		{"publish with a large event", policy.Publish, paid, &policy.Context{Event: &policy.Event{Size: 1001}}, []string{
			"0 publish order.paid: !shop/no-large; assumed []", "1 publish order.paid: !shop/no-bob shop/no-large; assumed []",
			"2 publish order.paid: !shop/no-large; assumed []", "3 publish order.paid: !; assumed []",
		}},
		{"invoke in some context", policy.Invoke, refund, nil, []string{
			"0 invoke refund: !; assumed []", "1 invoke refund: !; assumed []",
			"2 invoke refund: shop/inside; assumed [shop/inside]", "3 invoke refund: !; assumed []",
		}},
		{"invoke from home", policy.Invoke, refund, &home, []string{
			"0 invoke refund: !; assumed []", "1 invoke refund: !; assumed []", "2 invoke refund: shop/inside; assumed []", "3 invoke refund: !; assumed []",
		}},
	} {
		if d := cmp.Diff(tc.want, show2(s.WhoCan(tc.a, tc.r, people, tc.c))); d != "" {
			t.Errorf("%s: WhoCan (-want +got):\n%s", tc.name, d)
		}
	}
}

func universe() policy.Universe {
	return policy.Universe{
		Principals: []policy.Principal{user("ann", "ops"), user("cleo", "desk")},
		Resources:  []policy.Resource{eventType("shop", "order.paid"), function("shop", "refund"), policy.OfNamespace("shop"), policy.OfServer()},
	}
}

func TestCanReach(t *testing.T) {
	t.Parallel()
	s := with(t, file("shop", teams))
	got, err := s.CanReach(token(policy.Reader, "shop"), universe(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, a := range got {
		actions = append(actions, string(a.Action)+" "+string(a.Resource.Kind))
	}
	want := []string{"readEvents Namespace", "readFunctions Namespace", "readLogs Namespace", "readDeadLetters Namespace", "readStatus Namespace"}
	if d := cmp.Diff(want, actions); d != "" {
		t.Errorf("CanReach (-want +got):\n%s", d)
	}
	if got, err := s.CanReach(user("cleo", "desk"), universe(), &policy.Context{}); err != nil || len(got) != 0 {
		t.Errorf("CanReach in a context without an address = %v, %v, want nothing", show2(got), err)
	}
	huge := policy.Universe{Actions: policy.Actions(), Resources: make([]policy.Resource, policy.MaxQuestions)}
	if _, err := s.CanReach(user("ann"), huge, nil); !errors.Is(err, policy.ErrTooManyQuestions) {
		t.Errorf("CanReach of a huge universe = %v, want ErrTooManyQuestions", err)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	old := with(t, file("shop", teams))
	changed := with(t, file("shop", teams+`
@id("cleo-too") permit (principal == User::"cleo", action == Action::"publish", resource);
@id("no-ops") forbid (principal in Group::"ops", action, resource == EventType::"shop/order.paid");`))
	changes, err := policy.Diff(old, changed, universe(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, fmt.Sprintf("%d %s %s: %s -> %s", c.Principal, c.Action, c.Resource.Name, outcome(c.Old.Decision), outcome(c.New.Decision)))
	}
	want := []string{
		"0 publish order.paid: shop/ops-publish -> !shop/no-ops",
		"1 publish order.paid: ! -> shop/cleo-too",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Diff (-want +got):\n%s", d)
	}
	if changes, err := policy.Diff(old, old, universe(), &policy.Context{}); err != nil || len(changes) > 0 {
		t.Errorf("Diff of a set with itself = %v, %v", changes, err)
	}
	requests := []policy.Request{
		{Principal: user("ann", "ops"), Action: policy.Publish, Resource: eventType("shop", "order.paid"), Context: policy.Context{Event: &policy.Event{Size: 1}}},
		{Principal: user("ann", "ops"), Action: policy.Publish, Resource: eventType("shop", "other"), Context: policy.Context{Event: &policy.Event{Size: 1}}},
	}
	replayed := policy.Replay(requests, old, changed)
	if len(replayed) != 1 || replayed[0].Request != 0 || !replayed[0].Old.Allowed || outcome(replayed[0].New) != "!shop/no-ops" {
		t.Errorf("Replay = %+v, want the first request denied by no-ops", replayed)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	s := with(t, file("shop", `
@id("ops") permit (principal in Group::"ops", action == Action::"publish", resource)
when { resource.name like "order.*" }   unless { context.event.size > 10 };
@id("desk") permit (principal in Group::"desk", action == Action::"publish", resource);
@id("never") permit (principal, action == Action::"publish", resource is EventType) when { context.mtls && [1, 2].contains(1) };
@id("night") forbid (principal, action == Action::"publish", resource) when { context.now > datetime("2027-01-01") };`))
	q := policy.Request{
		Principal: user("ann", "ops"), Action: policy.Publish, Resource: eventType("shop", "order.paid"),
		Context: policy.Context{Event: &policy.Event{Size: 5}, Transport: policy.TransportTLS},
	}
	e := s.Explain(q)
	var got []string
	for _, m := range e.Matched {
		if m.Policy.BuiltIn {
			continue
		}
		line := fmt.Sprintf("%s:%d determined %v holds %v %s", m.Policy.ID, m.Policy.Line, m.Determined, m.Holds, errorWord(m.Error))
		for _, c := range m.Conditions {
			line += fmt.Sprintf(" | %v %s: %v %s", c.Unless, c.Text, c.Holds, errorWord(c.Error))
		}
		got = append(got, strings.TrimSpace(line))
	}
	want := []string{
		`shop/never:5 determined false holds false  | false context.mtls && [1, 2].contains(1): false`,
		`shop/night:6 determined true holds false error | false context.now > datetime("2027-01-01"): false error`,
		`shop/ops:2 determined false holds true  | false resource.name like "order.*": true  | true context.event.size > 10: true`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Explain (-want +got):\n%s", d)
	}
	if !e.Known || outcome(e.Decision) != "!shop/night" {
		t.Errorf("decision is %v %s, want a deny by night", e.Known, outcome(e.Decision))
	}
	if d := cmp.Diff(s.Decide(q), e.Decision); d != "" {
		t.Errorf("Explain decides otherwise than Decide (-want +got):\n%s", d)
	}
	if e := s.Explain(policy.Request{Principal: user("ann"), Action: "fly", Resource: policy.OfServer()}); e.Known || len(e.Matched) > 0 {
		t.Errorf("Explain of an unknown action = %+v", e)
	}
}

func errorWord(s string) string {
	if s != "" {
		return "error"
	}
	return ""
}

func manyPrincipals(n int) []policy.Principal {
	list := make([]policy.Principal, n)
	for i := range list {
		list[i] = policy.Principal{Kind: policy.KindUser, ID: ident.PrincipalID(fmt.Sprintf("user:u-%d", i)), Groups: []string{fmt.Sprintf("team-%d", i%97)}}
	}
	return list
}

func BenchmarkWhoCan1000x1000(b *testing.B) {
	s := with(b, manyPolicies(1000)...)
	people, r := manyPrincipals(1000), eventType("shop", "order.5")
	b.ReportAllocs()
	for b.Loop() {
		if list := s.WhoCan(policy.Publish, r, people, nil); !list[5].Allowed {
			b.Fatal("denied")
		}
	}
}
