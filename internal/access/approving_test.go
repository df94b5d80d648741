package access_test

import (
	"errors"
	"log/slog"
	"testing"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// TestMayApprove: who approves is somebody else than who applied, and no token that one of the two made, or that one principal made for both.
func TestMayApprove(t *testing.T) {
	t.Parallel()
	g := newGuard(t, &memory{m: map[string][]byte{}})
	record, err := access.OpenDecisions(t.Context(), &memory{m: map[string][]byte{}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = record.Close() })
	g.RecordIn(record)
	by := func(maker string, role policy.Role, ns string) *access.Principal {
		tok, err := g.Create(t.Context(), ident.PrincipalID(maker), api.TokenRequest{Role: string(role), Namespace: ns})
		if err != nil {
			t.Fatal(err)
		}
		p, err := g.Authenticate(t.Context(), tok.Text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	root := by("server", policy.Operator, "")
	owner := by(string(root.ID), policy.Operator, "shop")
	dev := by(string(root.ID), policy.Developer, "shop")
	ann := by(string(root.ID), policy.Operator, "shop")
	one, two := by(string(owner.ID), policy.Operator, "shop"), by(string(owner.ID), policy.Developer, "shop")
	below := by(string(one.ID), policy.Operator, "shop")
	elsewhere := by(string(root.ID), policy.Operator, "bank")
	ofUser := by("user:ann", policy.Operator, "shop")
	function := *ann
	function.ID, function.Claims = "service:https://us#shop/pay", &access.Claims{Issuer: "https://us"}
	g.OwnIssuer(func() string { return "https://us" })
	for _, tt := range []struct {
		name     string
		approver *access.Principal
		sender   ident.PrincipalID
		want     string
	}{
		{"another principal", ann, dev.ID, ""},
		{"the same", ann, ann.ID, "access.same_principal"},
		{"a token of the sender's", one, owner.ID, "access.same_principal"},
		{"a token of a token of the sender's", below, owner.ID, "access.same_principal"},
		{"who made the sender's token", owner, two.ID, "access.same_principal"},
		{"two tokens of an operator of the namespace", one, two.ID, "access.same_principal"},
		{"one below the other's sister", below, two.ID, "access.same_principal"},
		{"the operator who made the sender's token", root, dev.ID, "access.same_principal"},
		{"two tokens of an operator of the server", owner, ann.ID, ""},
		{"a person, for a token of somebody else", ann, "user:ann", ""},
		{"a token that a person made, for that person", ofUser, "user:ann", "access.same_principal"},
		{"who may not approve", dev, ann.ID, "access.denied"},
		{"who belongs to another namespace", elsewhere, dev.ID, "access.denied"},
		{"a function", &function, dev.ID, "access.same_principal"},
		{"nobody", nil, dev.ID, "access.unauthenticated"},
	} {
		err := g.MayApprove(t.Context(), tt.approver, "shop", tt.sender)
		got := ""
		if p, ok := errors.AsType[*problem.Error](err); ok {
			got = p.Code
		}
		if got != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	found := false
	for _, d := range record.List(access.DecisionQuery{Namespace: "shop", Denied: true}) {
		found = found || d.Action == policy.ApproveGrants && len(d.Policies) == 1 && d.Policies[0] == "second-principal"
	}
	if !found {
		t.Error("that somebody may not approve their own is not recorded")
	}
}
