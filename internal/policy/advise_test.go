package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

func use(p policy.Principal, a policy.Action, r policy.Resource, policies ...string) policy.Use {
	return policy.Use{
		Request: policy.Request{Principal: p, Action: a, Resource: r, Context: policy.Context{
			Now: noon, Transport: policy.TransportTLS, Event: &policy.Event{Type: r.Name, Size: 1},
		}},
		Allowed: true, Policies: policies, Count: 1, Last: noon,
	}
}

const broad = `
@id("ops-all") @doc("ops may do all") permit (principal in Group::"ops", action, resource);
@id("users-publish") permit (principal is User, action in [Action::"publish", Action::"invoke"], resource in Namespace::"shop")
when { context.tls };
@id("one") permit (principal == User::"ann", action == Action::"invoke", resource == Function::"shop/refund");
@id("never") permit (principal, action == Action::"deploy", resource) when { principal has role && principal.role == "builder" };
@id("no-eve") forbid (principal == User::"eve", action, resource);`

func TestUnused(t *testing.T) {
	t.Parallel()
	s := with(t, file("shop", broad), file("", `@id("server-wide") permit (principal == User::"x", action, resource);`))
	uses := []policy.Use{
		use(user("ann"), policy.Invoke, function("shop", "refund"), "shop/one", "shop/users-publish"),
		use(user("ann", "ops"), policy.Deploy, policy.OfNamespace("shop"), "shop/ops-all"),
	}
	uses[1].Last = noon.Add(-48 * time.Hour)
	denied := use(user("ann"), policy.Deploy, policy.OfNamespace("shop"), "shop/never")
	denied.Allowed = false
	ids := func(list []policy.Policy) string {
		var out []string
		for _, p := range list {
			out = append(out, p.ID)
		}
		return strings.Join(out, " ")
	}
	if got, want := ids(s.Unused(append(uses, denied), noon.Add(-24*time.Hour))), "server-wide shop/ops-all shop/never"; got != want {
		t.Errorf("Unused of a day = %s, want %s", got, want)
	}
	if got, want := ids(s.Unused(uses, noon.Add(-96*time.Hour))), "server-wide shop/never"; got != want {
		t.Errorf("Unused of four days = %s, want %s", got, want)
	}
	grants, err := s.UnusedGrants(uses, noon.Add(-24*time.Hour), policy.Universe{
		Principals: []policy.Principal{user("ann")}, Actions: []policy.Action{policy.Publish, policy.Invoke},
		Resources: []policy.Resource{function("shop", "refund"), function("shop", "price"), eventType("other", "x")},
	})
	if err != nil || len(grants) != 1 || grants[0].Resource.Name != "price" {
		t.Errorf("UnusedGrants = %v, %v, want to invoke price", grants, err)
	}
	var got []string
	for _, w := range s.Wildcards() {
		got = append(got, fmt.Sprintf("%s %v %v", w.Policy.ID, w.Open, w.Unconditional))
	}
	want := []string{
		"server-wide [action resource] true", "shop/ops-all [action resource] true", "shop/users-publish [principal] false", "shop/never [principal resource] false",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Wildcards (-want +got):\n%s", d)
	}
}

func TestPropose(t *testing.T) {
	t.Parallel()
	s := with(t, file("shop", broad))
	ann, bob, opal := user("ann"), user("bob"), user("opal", "ops")
	uses := []policy.Use{
		use(ann, policy.Publish, eventType("shop", "order.created")), use(ann, policy.Publish, eventType("shop", "order.paid")),
		use(bob, policy.Publish, eventType("shop", "order.paid")), use(bob, policy.Invoke, function("shop", "price")),
		use(opal, policy.ReadLogs, policy.OfNamespace("shop")), use(opal, policy.ReadEvents, policy.OfNamespace("shop")),
	}
	for i := range 30 {
		uses = append(uses, use(opal, policy.Publish, eventType("shop", fmt.Sprintf("stock.moved.%d", i))))
	}
	gone := use(user("gone"), policy.Deploy, policy.OfNamespace("shop"))
	p, err := s.Propose(append(uses, gone), noon.Add(-time.Hour), "shop")
	if err != nil {
		t.Fatal(err, problem.From(err).Faults)
	}
	golden(t, "testdata/proposal.cedar", string(p.Text))
	if p.Replayed != len(uses) || p.Skipped != 1 {
		t.Errorf("replayed %d and skipped %d, want %d and 1", p.Replayed, p.Skipped, len(uses))
	}
	if d := cmp.Diff([]string{"shop/one", "shop/never"}, p.Dropped); d != "" {
		t.Errorf("dropped (-want +got):\n%s", d)
	}
	for _, q := range []policy.Request{
		use(ann, policy.Publish, eventType("shop", "stock.moved.1")).Request, use(ann, policy.Invoke, function("shop", "refund")).Request,
		use(opal, policy.Deploy, policy.OfNamespace("shop")).Request, use(user("carl"), policy.Publish, eventType("shop", "order.paid")).Request,
	} {
		if !s.Decide(q).Allowed || p.Set.Decide(q).Allowed {
			t.Errorf("%s %s %s: want it allowed before the proposal and denied with it", q.Principal.ID, q.Action, q.Resource)
		}
	}
	if d := p.Set.Decide(use(opal, policy.Publish, eventType("shop", "stock.moved.99")).Request); !d.Allowed {
		t.Error("the next type of the family is denied")
	}
}

// TestProposeOnlyNarrows: with random policies and uses, a proposal allows every use that the set allows, and nothing
// that it denies.
func TestProposeOnlyNarrows(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	replayed, narrowed := 0, 0
	for round := range 15 {
		s := with(t, policy.File{Namespace: "a", Text: validRandomPolicies(rnd, 12)}, file("b", `@id("kept") permit (principal is User, action == Action::"publish", resource);`),
			file("", `@id("all") permit (principal is Service, action == Action::"invoke", resource);`))
		var uses []policy.Use
		for range 100 {
			q := randomRequest(rnd)
			uses = append(uses, policy.Use{Request: q, Allowed: s.Decide(q).Allowed, Last: noon})
		}
		proposals := map[string]*policy.Proposal{}
		for _, ns := range []string{"a", ""} {
			p, err := s.Propose(uses, noon, ident.Namespace(ns))
			if err != nil {
				t.Fatalf("round %d, namespace %q: %v %+v", round, ns, err, problem.From(err).Faults)
			}
			proposals["of "+ns] = p
		}
		for _, u := range uses[:5] {
			p, err := s.Boundary(u.Request.Principal, uses, noon)
			if err != nil {
				t.Fatalf("round %d: boundary: %v %+v", round, err, problem.From(err).Faults)
			}
			proposals["boundary of "+string(u.Request.Principal.ID)] = p
		}
		for range 300 {
			q := randomRequest(rnd)
			for name, p := range proposals {
				before, after := s.Decide(q), p.Set.Decide(q)
				if after.Allowed && !before.Allowed {
					t.Fatalf("round %d: the proposal %s allows %+v:\n%s", round, name, q, p.Text)
				}
				if before.Allowed && !after.Allowed {
					narrowed++
				}
			}
		}
		replayed += proposals["of a"].Replayed
	}
	if replayed < 100 || narrowed < 100 {
		t.Errorf("replayed %d, narrowed %d: the random uses test too little", replayed, narrowed)
	}
}

func TestBoundary(t *testing.T) {
	t.Parallel()
	s := with(t, file("shop", broad))
	dev := token(policy.Developer, "shop")
	uses := []policy.Use{
		use(dev, policy.Publish, eventType("shop", "order.paid")), use(dev, policy.Deploy, policy.OfNamespace("shop")),
		use(dev, policy.ReadStatus, policy.OfNamespace("shop")), use(user("other"), policy.Publish, eventType("shop", "x")),
		use(dev, policy.ManageTokens, policy.OfServer()),
	}
	p, err := s.Boundary(dev, uses, noon)
	if err != nil {
		t.Fatal(err, problem.From(err).Faults)
	}
	golden(t, "testdata/boundary.cedar", string(p.Text))
	if p.Replayed != 3 || p.Skipped != 1 {
		t.Errorf("replayed %d and skipped %d, want 3 and 1", p.Replayed, p.Skipped)
	}
	for _, q := range []policy.Request{
		use(dev, policy.Publish, eventType("shop", "other")).Request, use(dev, policy.Invoke, function("shop", "price")).Request,
		use(dev, policy.ReadLogs, policy.OfNamespace("shop")).Request,
	} {
		if !s.Decide(q).Allowed || p.Set.Decide(q).Allowed {
			t.Errorf("%s %s: want it allowed before the boundary and denied with it", q.Action, q.Resource)
		}
	}
	if _, err := s.Boundary(policy.Principal{}, nil, noon); problem.From(err).Kind != problem.Invalid {
		t.Errorf("Boundary of nobody = %v, want Invalid", err)
	}
}

// TestProposeKeepsWhatCannotBeReplayed: what was allowed in circumstances that nobody recorded keeps its permit.
func TestProposeKeepsWhatCannotBeReplayed(t *testing.T) {
	t.Parallel()
	s := with(t, file("shop", `
@id("office") permit (principal is User, action == Action::"publish", resource in Namespace::"shop")
when { context has ip && context.ip.isInRange(ip("10.0.0.0/8")) };
@id("small") permit (principal, action == Action::"publish", resource) when { context.event.size < 10 };`))
	ann, bob := user("ann"), user("bob")
	order := eventType("shop", "order")
	uses := []policy.Use{
		use(ann, policy.Publish, order, "shop/office"),                // was large; without its size, "small" would allow it
		use(bob, policy.Publish, eventType("shop", "x"), "shop/gone"), // allowed by "small" now
	}
	uses[0].Request.Context.Event.Size = 0
	large := use(bob, policy.Publish, order, "shop/office")
	large.Request.Context.Event.Size = 100 // nothing that is known allows it: the address is missing
	unknown := use(bob, policy.Invoke, function("shop", "f"), "shop/gone")
	p, err := s.Propose(append(uses, large, unknown), noon, "shop")
	if err != nil {
		t.Fatal(err)
	}
	if p.Replayed != 2 || p.Assumed != 1 || p.Skipped != 1 || len(p.Dropped) != 0 {
		t.Errorf("replayed %d, assumed %d, skipped %d, dropped %v", p.Replayed, p.Assumed, p.Skipped, p.Dropped)
	}
	office := policy.Context{Now: noon, Transport: policy.TransportTLS, IP: netip.MustParseAddr("10.1.2.3"), Event: &policy.Event{Type: "order", Size: 1000}}
	for who, want := range map[string]bool{"ann": true, "bob": true, "carl": false} {
		if got := p.Set.Decide(policy.Request{Principal: user(who), Action: policy.Publish, Resource: order, Context: office}).Allowed; got != want {
			t.Errorf("%s from the office: %v, want %v\n%s", who, got, want, p.Text)
		}
	}
	b, err := s.Boundary(bob, []policy.Use{large}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if b.Assumed != 1 || !b.Set.Decide(policy.Request{Principal: bob, Action: policy.Publish, Resource: order, Context: office}).Allowed {
		t.Errorf("the boundary denies what was recorded:\n%s", b.Text)
	}
}

// TestFollow: what a principal can have functions do is its own blast radius.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := with(t)
	fn := func(name string, publishes ...ident.EventType) policy.Principal {
		return policy.Principal{Kind: policy.KindFunction, ID: ident.PrincipalID("function:shop/" + name), Namespace: "shop", EventTypes: publishes}
	}
	a, b, c := fn("a", "two"), fn("b", "three", "one"), fn("c", "four")
	one, two, three, four := eventType("shop", "one"), eventType("shop", "two"), eventType("shop", "three"), eventType("shop", "four")
	u := policy.Universe{Principals: []policy.Principal{a, b, c}, Resources: []policy.Resource{one, two, three, four, function("shop", "a")}}
	delivered := map[policy.Resource][]policy.Principal{one: {a}, two: {b, a}}
	limited := policy.Principal{Kind: policy.KindToken, ID: "token:t", Role: policy.Publisher, EventTypes: []ident.EventType{"one"}}
	list, err := s.Follow(limited, u, func(act policy.Action, r policy.Resource) []policy.Principal {
		if act == policy.Publish {
			return delivered[r]
		}
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range list {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.By.ID, r.Action, r.Resource.Name, strings.Join(r.Via, " "))))
	}
	const viaA = "event_type:shop/one function:shop/a"
	want := []string{
		"token:t publish one", "function:shop/a publish two " + viaA,
		"function:shop/b publish one " + viaA + " event_type:shop/two function:shop/b",
		"function:shop/b publish three " + viaA + " event_type:shop/two function:shop/b",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Follow (-want +got):\n%s", d)
	}
}

// TestUnusedActions: an action that was done to anything is used.
func TestUnusedActions(t *testing.T) {
	t.Parallel()
	s := with(t)
	reader, stranger := token(policy.Reader, "shop"), user("x")
	uses := []policy.Use{use(reader, policy.ReadLogs, policy.OfNamespace("shop"), "reader-namespace")}
	got, err := s.UnusedActions(uses, noon, policy.Universe{Principals: []policy.Principal{stranger, reader}, Resources: []policy.Resource{policy.OfNamespace("shop"), policy.OfNamespace("bank")}})
	want := []policy.UnusedActions{{Principal: 1, Actions: []policy.Action{policy.ReadEvents, policy.ReadFunctions, policy.ReadDeadLetters, policy.ReadStatus}}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("UnusedActions: %v (-want +got):\n%s", err, d)
	}
}
