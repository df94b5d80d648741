package policy_test

import (
	"slices"
	"testing"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

// TestOwners: an owner is to its namespace what an operator of it is, and nothing to others and to the server.
func TestOwners(t *testing.T) {
	t.Parallel()
	ann := policy.Principal{Kind: policy.KindUser, ID: "user:ann"}
	bob := policy.Principal{Kind: policy.KindUser, ID: "user:bob", Role: policy.Reader, Namespace: "shop"}
	limited := policy.Principal{Kind: policy.KindToken, ID: "token:limited", Namespace: "shop", EventTypes: []ident.EventType{"x"}}
	narrowed := policy.Principal{Kind: policy.KindToken, ID: "token:narrowed", Namespace: "shop", Attenuated: true}
	caused := policy.Context{Transport: policy.TransportTLS, Cause: &policy.Cause{Principal: &ann}}
	s := newSet(t).WithFacts([]policy.NamespaceFacts{
		{Name: "shop", Owners: []ident.PrincipalID{"user:ann", "user:bob", "token:limited", "token:narrowed"}},
		{Name: "bank", Owners: []ident.PrincipalID{"user:bob"}}, // who is of another namespace owns nothing in it
	})
	for _, tc := range []struct {
		name   string
		p      policy.Principal
		action policy.Action
		r      policy.Resource
		want   string
	}{
		{"owner deploys", ann, policy.Deploy, policy.OfNamespace("shop"), "namespace-owner"},
		{"owner makes tokens", ann, policy.ManageTokens, policy.OfNamespace("shop"), "namespace-owner"},
		{"owner writes policies", ann, policy.ManagePolicies, policy.OfNamespace("shop"), "namespace-owner"},
		{"owner publishes", ann, policy.Publish, eventType("shop", "order"), "namespace-owner"},
		{"owner names owners", ann, policy.ManageNamespaces, policy.OfNamespace("shop"), "namespace-owner"},
		{"owner elsewhere", ann, policy.Deploy, policy.OfNamespace("bank"), "!"},
		{"owner makes tokens elsewhere", ann, policy.ManageTokens, policy.OfNamespace("bank"), "!"},
		{"owner makes tokens of the server", ann, policy.ManageTokens, policy.OfServer(), "!server-operator"},
		{"owner makes namespaces", ann, policy.ManageNamespaces, policy.OfServer(), "!server-operator"},
		{"owner reads metrics", ann, policy.ReadMetrics, policy.OfServer(), "!"},
		{"owner with a role", bob, policy.Deploy, policy.OfNamespace("shop"), "namespace-owner"},
		{"owner of another namespace", bob, policy.Deploy, policy.OfNamespace("bank"), "!namespace-border"},
		{"limited owner", limited, policy.ManageTokens, policy.OfNamespace("shop"), "!token-event-types-only"},
		{"narrowed owner", narrowed, policy.ManageTokens, policy.OfNamespace("shop"), "!no-self-granting"},
		{"nobody", policy.Principal{Kind: policy.KindUser, ID: "user:ann2"}, policy.ReadStatus, policy.OfNamespace("shop"), "!"},
	} {
		q := policy.Request{Principal: tc.p, Action: tc.action, Resource: tc.r, Context: policy.Context{Transport: policy.TransportTLS}}
		if tc.action == policy.Publish {
			q.Context.Event = &policy.Event{Type: tc.r.Name}
		}
		if got := outcome(s.Decide(q)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		q.Principal = q.Principal.Prepare()
		if got := outcome(s.Decide(q)); got != tc.want {
			t.Errorf("%s, prepared: %s, want %s", tc.name, got, tc.want)
		}
		if got := outcome(s.Explain(q).Decision); got != tc.want {
			t.Errorf("%s, explained: %s, want %s", tc.name, got, tc.want)
		}
	}
	if d := s.Decide(policy.Request{Principal: ann, Action: policy.ManageTokens, Resource: policy.OfNamespace("shop"), Context: caused}); d.Allowed {
		t.Error("what a function caused makes tokens")
	}
	if d := s.WithFacts(nil).Decide(policy.Request{Principal: ann, Action: policy.Deploy, Resource: policy.OfNamespace("shop"), Context: policy.Context{Transport: policy.TransportTLS}}); d.Allowed {
		t.Error("an owner that is none any more may still deploy")
	}
	if list, err := s.CanReach(ann, policy.Universe{Resources: []policy.Resource{policy.OfNamespace("shop"), policy.OfNamespace("bank"), policy.OfServer()}}, nil); err != nil ||
		slices.ContainsFunc(list, func(a policy.Access) bool { return a.Resource.Namespace != "shop" }) || len(list) < 10 {
		t.Errorf("an owner can reach %v, %v", list, err)
	}
}

// TestNoRoles: in a namespace that was made without, a role permits nothing, but for that of an operator; its policies do.
func TestNoRoles(t *testing.T) {
	t.Parallel()
	s := with(t, file("closed", `@id("devs") permit (principal == Token::"developer", action == Action::"readLogs", resource);`)).
		WithFacts([]policy.NamespaceFacts{{Name: "closed", NoRoles: true}, {Name: "open"}})
	for _, role := range policy.Roles() {
		for _, home := range []ident.Namespace{"", "closed", "open"} {
			p := policy.Principal{Kind: policy.KindToken, ID: ident.PrincipalID("token:" + role), Role: role, Namespace: home}
			ask := func(a policy.Action, r policy.Resource) bool {
				return s.Decide(policy.Request{Principal: p, Action: a, Resource: r, Context: policy.Context{Transport: policy.TransportTLS, Event: &policy.Event{Type: "t"}}}).Allowed
			}
			of := func(ns ident.Namespace) bool { return home == "" || home == ns }
			for _, ns := range []ident.Namespace{"closed", "open"} {
				can := ask(policy.Publish, eventType(ns, "t")) || ask(policy.ReadStatus, policy.OfNamespace(ns))
				if want := of(ns) && (ns == "open" || role == policy.Operator); can != want {
					t.Errorf("%s of %q may do something in %s: %v, want %v", role, home, ns, can, want)
				}
			}
			if got, want := ask(policy.ReadLogs, policy.OfNamespace("closed")), of("closed") && (role == policy.Operator || role == policy.Developer); got != want {
				t.Errorf("%s of %q reads logs by a policy: %v, want %v", role, home, got, want)
			}
		}
	}
}

func TestBelongs(t *testing.T) {
	t.Parallel()
	s := newSet(t).WithFacts([]policy.NamespaceFacts{{Name: "shop", Owners: []ident.PrincipalID{"user:ann"}}})
	for name, tc := range map[string]struct {
		p    policy.Principal
		want bool
	}{
		"owner":              {policy.Principal{ID: "user:ann"}, true},
		"of it":              {policy.Principal{ID: "token:a", Namespace: "shop"}, true},
		"of another":         {policy.Principal{ID: "token:a", Namespace: "bank", Role: policy.Operator}, false},
		"owner of another":   {policy.Principal{ID: "user:ann", Namespace: "bank"}, false},
		"of the server":      {policy.Principal{ID: "token:a", Role: policy.Reader}, true},
		"without a role":     {policy.Principal{ID: "user:bob"}, false},
		"function of it":     {policy.Principal{Kind: policy.KindFunction, ID: "function:shop/f", Namespace: "shop"}, true},
		"function elsewhere": {policy.Principal{Kind: policy.KindFunction, ID: "function:bank/f", Namespace: "bank"}, false},
	} {
		if got := s.Belongs(&tc.p, "shop"); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	if !s.BuiltIn("namespace-border") || s.BuiltIn("shop/x") {
		t.Error("BuiltIn is wrong")
	}
}
