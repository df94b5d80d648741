package policy_test

import (
	"testing"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

// TestActsForCaller: what a function may do is what it and who is behind it may both do, but for permits that say otherwise,
// through any number of functions.
func TestActsForCaller(t *testing.T) {
	t.Parallel()
	s := with(t, file("", `
@id("functions-publish") permit (principal is Function, action == Action::"publish", resource) when { resource.name like "paid*" };
@id("on-its-own") @act_as("function") permit (principal == Function::"a/clerk", action == Action::"publish", resource == EventType::"a/paid.late");
@id("never") forbid (principal == Token::"evil", action, resource);
@id("only-who-may") forbid (principal is Function, action == Action::"publish", resource == EventType::"a/strict")
when { context has cause && !context.cause.permitted };
`))
	may := policy.Principal{Kind: policy.KindToken, ID: "token:may", Role: policy.Publisher, Namespace: "a"}
	evil := may
	evil.ID = "token:evil"
	narrow := may
	narrow.ID, narrow.EventTypes = "token:narrow", []ident.EventType{"order.created"}
	foreign := may
	foreign.ID, foreign.Namespace = "token:foreign", "b"
	nothing := policy.Principal{Kind: policy.KindUser, ID: "user:x"}
	clerk := policy.Principal{
		Kind: policy.KindFunction, ID: "function:a/clerk", Namespace: "a", Revision: "3", EventTypes: []ident.EventType{"granted", "strict"},
	}
	through := []ident.PrincipalID{"function:a/first", "function:a/second"}
	for _, tc := range []struct {
		name, typ string
		cause     *policy.Cause
		want      string
	}{
		{"a grant is its own", "granted", &policy.Cause{Principal: &narrow}, "function-grants"},
		{"a grant, barred", "granted", &policy.Cause{Barred: true}, "function-grants"},
		{"nobody asked", "paid", nil, "functions-publish"},
		{"nobody is behind it", "paid", &policy.Cause{Functions: through}, "functions-publish"},
		{"who may", "paid", &policy.Cause{Principal: &may, Functions: through}, "functions-publish"},
		{"a narrowed token", "paid", &policy.Cause{Principal: &narrow}, "!token-event-types"},
		{"a narrowed token, by two functions", "paid", &policy.Cause{Principal: &narrow, Functions: through}, "!token-event-types"},
		{"who has no role", "paid", &policy.Cause{Principal: &nothing, Functions: through}, "!"},
		{"who is forbidden", "paid", &policy.Cause{Principal: &evil}, "!never"},
		{"another namespace", "paid", &policy.Cause{Principal: &foreign}, "!namespace-border"},
		{"barred", "paid", &policy.Cause{Principal: &may, Barred: true}, "!"},
		{"a function poses as who is behind it", "paid", &policy.Cause{Principal: &clerk}, "!"},
		{"a permit of its own", "paid.late", &policy.Cause{Principal: &narrow, Functions: through}, "functions-publish on-its-own"},
		{"a policy that asks for the caller", "strict", &policy.Cause{Principal: &narrow}, "!only-who-may"},
		{"a policy that asks for the caller, by two functions", "strict", &policy.Cause{Principal: &narrow, Functions: through}, "!only-who-may"},
		{"a policy that asks for the caller, barred", "strict", &policy.Cause{Barred: true}, "!only-who-may"},
		{"a policy that asks for the caller, who may", "strict", &policy.Cause{Principal: &may}, "function-grants"},
	} {
		q := policy.Request{Principal: clerk, Action: policy.Publish, Resource: eventType("a", tc.typ), Context: policy.Context{
			Transport: policy.TransportInternal, Cause: tc.cause, Event: &policy.Event{Type: tc.typ},
		}}
		got := s.Decide(q)
		if outcome(got) != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, outcome(got), tc.want)
		}
		if e := s.Explain(q); e.Decision.Allowed != got.Allowed || outcome(e.Decision) != tc.want {
			t.Errorf("%s: explained as %s, decided %s", tc.name, outcome(e.Decision), outcome(got))
		}
		d, alone := s.DecideAlone(q)
		if whole := d.Allowed && (alone || s.Behind(q).Allowed); whole != got.Allowed {
			t.Errorf("%s: its halves make %v, the whole %v", tc.name, whole, got.Allowed)
		}
	}
}
