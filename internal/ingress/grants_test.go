package ingress_test

import (
	"testing"

	"sallyport/internal/access"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
)

// TestWhoUsesGrants: the principal that is asked about is that of the revision with the grants that it has now, whatever was asked before.
func TestWhoUsesGrants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ask := func(ns ident.Namespace, function ident.FunctionName, revision int, grants []string, publishes []ident.EventType) *access.Principal {
		t.Helper()
		c := grant.Caller{Namespace: ns, Function: function, Revision: revision, Grant: "web"}
		if err := w.MayUse(t.Context(), &grant.Question{Caller: &c, Kind: "http", Op: "fetch", Grants: grants, Publishes: publishes}); err == nil {
			t.Error("MayUse = nil, and the guard refused")
		}
		if p := w.guard.who; p.ID != access.FunctionID(ns, function) || !p.Uses(grants, publishes) {
			t.Errorf("asked about %s as another than %s/%s with %q and %q", p.ID, ns, function, grants, publishes)
		}
		return w.guard.who
	}
	two, one := []string{"db", "web"}, []string{"web"}
	types := []ident.EventType{"plain"}
	first := ask("ns", "fn", 1, two, types)
	if ask("ns", "fn", 1, two, types) != first {
		t.Error("the principal of the same revision was made again")
	}
	for _, other := range []*access.Principal{
		ask("ns", "fn", 1, one, types), ask("ns", "fn", 1, two, nil), ask("ns", "fn", 2, two, types),
		ask("ns", "other", 1, two, types), ask("other", "fn", 1, two, types), ask("ns", "fn", 1, nil, nil),
	} {
		if other == first {
			t.Error("another revision, or other grants, are the same principal")
		}
	}
}
