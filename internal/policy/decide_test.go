package policy_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// noon is when the requests of the tests are made.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func file(ns ident.Namespace, text string) policy.File {
	return policy.File{Name: "test.cedar", Namespace: ns, Text: []byte(text)}
}

func with(t testing.TB, files ...policy.File) *policy.Set {
	t.Helper()
	s, err := policy.New(files...)
	if err != nil {
		t.Fatalf("%v %+v", err, problem.From(err).Faults)
	}
	return s
}

func user(id string, groups ...string) policy.Principal {
	return policy.Principal{Kind: policy.KindUser, ID: ident.PrincipalID("user:" + id), Groups: groups}
}

// outcome is a decision as a text: its policies, "!" before those of a deny.
func outcome(d policy.Decision) string {
	if d.Allowed {
		return strings.Join(d.Policies, " ")
	}
	return "!" + strings.Join(d.Policies, " ")
}

// TestNamespacePoliciesStayAtHome: what a namespace's policies say decides about its own resources and no other,
// whether they permit or forbid all, or fail.
func TestNamespacePoliciesStayAtHome(t *testing.T) {
	t.Parallel()
	s := with(t,
		file("a", `@id("all") permit (principal, action, resource); @id("none-of-b") forbid (principal, action, resource in Namespace::"b");`),
		file("b", `@id("ann") permit (principal == User::"ann", action == Action::"publish", resource == EventType::"b/x");`),
	)
	ann, bob := user("ann"), user("bob")
	for _, tc := range []struct {
		p      policy.Principal
		action policy.Action
		r      policy.Resource
		want   string
	}{
		{bob, policy.Publish, eventType("a", "x"), "a/all"},
		{bob, policy.Publish, eventType("b", "x"), "!"},
		{ann, policy.Publish, eventType("b", "x"), "b/ann"},
		{ann, policy.Publish, eventType("b", "y"), "!"},
		{bob, policy.ReadStatus, policy.OfServer(), "!"},
		{bob, policy.ManageTokens, policy.OfServer(), "!server-operator"},
		{bob, policy.ManagePolicies, policy.OfNamespace("a"), "a/all"},
		{bob, policy.ManagePolicies, policy.OfNamespace("b"), "!"},
		// A namespace's policy never lets in who belongs to another.
		{token(policy.Developer, "b"), policy.Deploy, policy.OfNamespace("a"), "!namespace-border"},
	} {
		if got := outcome(s.Decide(policy.Request{Principal: tc.p, Action: tc.action, Resource: tc.r})); got != tc.want {
			t.Errorf("%s %s %v: %s, want %s", tc.p.ID, tc.action, tc.r, got, tc.want)
		}
	}
}

// TestWithNamespace replaces the policies of one namespace, and leaves the set it is made from as it was.
func TestWithNamespace(t *testing.T) {
	t.Parallel()
	before := with(t, file("", `@id("s") permit (principal == User::"ann", action == Action::"readLogs", resource);`),
		file("a", `@id("old") permit (principal, action == Action::"readEvents", resource);`),
		file("b", `@id("kept") permit (principal, action == Action::"readEvents", resource);`))
	after, err := before.WithNamespace("a", file("a", `@id("new") permit (principal, action == Action::"readEvents", resource);`))
	if err != nil {
		t.Fatal(err)
	}
	without, err := after.WithNamespace("a")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(s *policy.Set, a policy.Action, ns ident.Namespace) string {
		return outcome(s.Decide(policy.Request{Principal: user("ann"), Action: a, Resource: policy.OfNamespace(ns)}))
	}
	for _, tc := range []struct {
		s        *policy.Set
		a        policy.Action
		ns       ident.Namespace
		want     string
		policies int
	}{
		{before, policy.ReadEvents, "a", "a/old", 3},
		{after, policy.ReadEvents, "a", "a/new", 3},
		{after, policy.ReadEvents, "b", "b/kept", 3},
		{after, policy.ReadLogs, "a", "s", 3},
		{without, policy.ReadEvents, "a", "!", 2},
	} {
		if got := ask(tc.s, tc.a, tc.ns); got != tc.want {
			t.Errorf("%s of %s: %s, want %s", tc.a, tc.ns, got, tc.want)
		}
		n := 0
		for p := range tc.s.Policies() {
			if !p.BuiltIn {
				n++
			}
		}
		if n != tc.policies {
			t.Errorf("%d policies, want %d", n, tc.policies)
		}
	}
	for _, bad := range []policy.File{file("b", ""), file("", "")} {
		if _, err := before.WithNamespace("a", bad); err == nil {
			t.Errorf("a file of %q became one of a", bad.Namespace)
		}
	}
	if _, err := before.WithNamespace(""); err == nil {
		t.Error("WithNamespace changed the server's policies")
	}
	if _, err := before.WithNamespace("a", file("a", "x")); err == nil {
		t.Error("WithNamespace took a file with a fault")
	}
}

// TestGuardRails: no policy lifts them.
func TestGuardRails(t *testing.T) {
	t.Parallel()
	s := with(t, file("", `@id("all") permit (principal, action, resource);`), file("a", `@id("all") permit (principal, action, resource);`))
	attenuated := token(policy.Operator, "")
	attenuated.Attenuated = true
	price := policy.Principal{Kind: policy.KindFunction, ID: "function:a/price", Namespace: "a"}
	caused := policy.Context{Cause: &policy.Cause{Functions: []ident.PrincipalID{"function:a/price"}}}
	plain, tls := policy.Context{Transport: policy.TransportPlaintext}, policy.Context{Transport: policy.TransportTLS}
	for _, tc := range []struct {
		name string
		q    policy.Request
		want string
	}{
		{"plaintext", policy.Request{Principal: token(policy.Operator, ""), Action: policy.Publish, Resource: eventType("a", "x"), Context: plain}, "!no-plaintext"},
		{"TLS", policy.Request{Principal: token(policy.Operator, ""), Action: policy.Publish, Resource: eventType("a", "x"), Context: tls}, "a/all all operator-all"},
		{"attenuated makes policies", policy.Request{Principal: attenuated, Action: policy.ManagePolicies, Resource: policy.OfNamespace("a")}, "!no-self-granting"},
		{"attenuated makes tokens", policy.Request{Principal: attenuated, Action: policy.ManageTokens, Resource: policy.OfServer()}, "!no-self-granting"},
		{"attenuated deploys", policy.Request{Principal: attenuated, Action: policy.Deploy, Resource: policy.OfNamespace("a")}, "a/all all operator-all"},
		{"limited makes policies", policy.Request{Principal: token(policy.Operator, "", "x"), Action: policy.ManagePolicies, Resource: policy.OfNamespace("a")}, "!token-event-types-only"},
		{"caused by a function", policy.Request{Principal: token(policy.Operator, ""), Action: policy.ManagePolicies, Resource: policy.OfNamespace("a"), Context: caused}, "!no-self-granting"},
		{"function makes policies", policy.Request{Principal: price, Action: policy.ManagePolicies, Resource: policy.OfNamespace("a")}, "!"},
		{"function elsewhere", policy.Request{Principal: price, Action: policy.Publish, Resource: eventType("b", "x")}, "!namespace-border"},
		{"user rotates the issuer", policy.Request{Principal: user("ann"), Action: policy.RotateIssuer, Resource: policy.OfServer()}, "!server-operator"},
		{"user makes perimeters", policy.Request{Principal: user("ann"), Action: policy.ManagePerimeters, Resource: policy.OfServer()}, "!server-operator"},
		{"developer of all makes namespaces", policy.Request{Principal: token(policy.Developer, ""), Action: policy.ManageNamespaces, Resource: policy.OfServer()}, "!server-operator"},
		{"user makes the server's policies", policy.Request{Principal: user("ann"), Action: policy.ManagePolicies, Resource: policy.OfServer()}, "!server-operator"},
		{"limited user", policy.Request{Principal: policy.Principal{Kind: policy.KindUser, ID: "user:u", EventTypes: []ident.EventType{"x"}}, Action: policy.Publish, Resource: eventType("a", "y")}, "!token-event-types"},
	} {
		if got := outcome(s.Decide(tc.q)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestMalformedQuestionsAreDenied: a principal without its prefix or with more than it may have, and a chain that is
// too long, are denied by no policy.
func TestMalformedQuestionsAreDenied(t *testing.T) {
	t.Parallel()
	s := with(t, file("", `@id("all") permit (principal, action, resource);`))
	many := func(n int) []string { return make([]string, n) }
	good := policy.Request{Principal: user("ann"), Action: policy.Publish, Resource: eventType("a", "x")}
	if !s.Decide(good).Allowed {
		t.Fatal("the good question is denied")
	}
	for name, change := range map[string]func(q *policy.Request){
		"no prefix":        func(q *policy.Request) { q.Principal.ID = "ann" },
		"other prefix":     func(q *policy.Request) { q.Principal.ID = "token:ann" },
		"no name":          func(q *policy.Request) { q.Principal.ID = "user:" },
		"groups":           func(q *policy.Request) { q.Principal.Groups = many(policy.MaxGroups + 1) },
		"groups in claims": func(q *policy.Request) { q.Principal.Claims = &policy.Claims{Groups: many(policy.MaxGroups + 1)} },
		"values of a claim": func(q *policy.Request) {
			q.Principal.Claims = &policy.Claims{Others: map[string][]string{"x": many(policy.MaxClaims + 1)}}
		},
		"chain": func(q *policy.Request) {
			q.Context.Cause = &policy.Cause{Functions: make([]ident.PrincipalID, policy.MaxChain+1)}
		},
		"chain of users": func(q *policy.Request) { q.Context.Cause = &policy.Cause{Functions: []ident.PrincipalID{"user:x"}} },
		"server of a namespace": func(q *policy.Request) {
			q.Action, q.Resource = policy.ReadStatus, policy.Resource{Kind: policy.KindServer, Namespace: "a", Name: "server"}
		},
		"namespace of another": func(q *policy.Request) {
			q.Action, q.Resource = policy.ReadLogs, policy.Resource{Kind: policy.KindNamespace, Namespace: "a", Name: "b"}
		},
		"event type of no namespace": func(q *policy.Request) { q.Resource.Namespace = "" },
		"cause":                      func(q *policy.Request) { q.Context.Cause = &policy.Cause{Principal: &policy.Principal{}} },
	} {
		q := good
		change(&q)
		if got := s.Decide(q); got.Allowed || got.Policies != nil {
			t.Errorf("%s: %+v, want a deny by nothing", name, got)
		}
		if w := s.WhoCan(q.Action, q.Resource, []policy.Principal{q.Principal}, &q.Context); w[0].Allowed {
			t.Errorf("%s: WhoCan allows", name)
		}
	}
}

// TestContext: what policies read of the context, the claims and the caller chain; and that what is not given denies.
func TestContext(t *testing.T) {
	t.Parallel()
	s := with(t, file("", `
@id("hours") permit (principal == User::"hours", action, resource) when { context.now < datetime("2026-03-02T13:00:00Z") };
@id("late") forbid (principal == User::"late", action, resource) when { context.now > datetime("2026-03-02T11:00:00Z") };
@id("late-may") permit (principal == User::"late", action, resource);
@id("mtls") permit (principal == User::"mtls", action, resource) when { context.mtls };
@id("net") permit (principal == User::"net", action, resource) when { context has ip && context.ip.isInRange(ip("10.0.0.0/8")) };
@id("size") permit (principal == User::"size", action == Action::"publish", resource)
when { context.event.size < 100 && context.event.source like "/till/*" && !(context.event has subject) && context.event.type == resource.name };
@id("claims") permit (principal is User in Group::"staff", action, resource)
when { principal has claims && principal.claims.issuer == "https://idp" && principal.claims.roles.contains("ops")
    && principal.claims has tenant && principal.claims.tenant == "acme" && principal.claims has strength && principal.claims.strength == "phr"
    && principal.claims.methods.contains("hwk") && principal.claims has time && context.now.durationSince(principal.claims.time) < duration("1h")
    && principal.claims.groups.contains("staff") && principal.hasTag("department") && principal.getTag("department").contains("sales") };
@id("chain") @act_as("function") permit (principal is Function, action == Action::"publish", resource)
when { context has cause && context.cause.functions.contains(Function::"a/first") && context.cause.depth == 1
    && context.cause has user && context.cause.user in Group::"staff" && principal has revision && principal.revision == "r1" };
@id("self") permit (principal is Function, action == Action::"invoke", resource is Function) when { resource == principal };
`))
	at := func(id string, c policy.Context) policy.Request {
		return policy.Request{Principal: user(id), Action: policy.Publish, Resource: eventType("a", "x"), Context: c}
	}
	event := func(size int64, source, subject string) policy.Context {
		return policy.Context{Event: &policy.Event{Type: "x", Source: source, Subject: subject, Size: size}}
	}
	claims := func(change func(*policy.Claims)) policy.Request {
		c := &policy.Claims{
			Issuer: "https://idp", Groups: []string{"staff"}, Roles: []string{"ops"}, Tenant: "acme", Strength: "phr", Methods: []string{"hwk"},
			Time: noon.Add(-time.Minute), Others: map[string][]string{"department": {"sales"}},
		}
		change(c)
		q := at("ann", policy.Context{Now: noon})
		q.Principal.Groups, q.Principal.Claims = []string{"staff"}, c
		return q
	}
	ann := user("ann", "staff")
	function := func(cause *policy.Cause) policy.Request {
		return policy.Request{
			Principal: policy.Principal{Kind: policy.KindFunction, ID: "function:a/price", Namespace: "a", Revision: "r1"},
			Action:    policy.Publish, Resource: eventType("a", "x"), Context: policy.Context{Cause: cause},
		}
	}
	first := []ident.PrincipalID{"function:a/first"}
	self := policy.Resource{Kind: policy.KindFunction, Namespace: "a", Name: "price"}
	for _, tc := range []struct {
		name string
		q    policy.Request
		want string
	}{
		{"in hours", at("hours", policy.Context{Now: noon}), "hours"},
		{"after hours", at("hours", policy.Context{Now: noon.Add(2 * time.Hour)}), "!"},
		{"no time permits nothing", at("hours", policy.Context{}), "!"},
		{"forbidden hours", at("late", policy.Context{Now: noon}), "!late"},
		{"no time is a deny", at("late", policy.Context{}), "!late"},
		{"mutual TLS", at("mtls", policy.Context{Transport: policy.TransportMutualTLS}), "mtls"},
		{"TLS", at("mtls", policy.Context{Transport: policy.TransportTLS}), "!"},
		{"within the server", at("mtls", policy.Context{Transport: policy.TransportInternal}), "!"},
		{"in the net", at("net", policy.Context{IP: ip("10.1.2.3")}), "net"},
		{"in the net, mapped", at("net", policy.Context{IP: ip("::ffff:10.1.2.3")}), "net"},
		{"outside", at("net", policy.Context{IP: ip("192.0.2.1")}), "!"},
		{"zone", at("net", policy.Context{IP: ip("fe80::1%eth0")}), "!"},
		{"nowhere", at("net", policy.Context{}), "!"},
		{"small event", at("size", event(99, "/till/1", "")), "size"},
		{"large event", at("size", event(100, "/till/1", "")), "!"},
		{"event with a subject", at("size", event(99, "/till/1", "s")), "!"},
		{"claims", claims(func(*policy.Claims) {}), "claims"},
		{"other issuer", claims(func(c *policy.Claims) { c.Issuer = "https://evil" }), "!"},
		{"no tenant", claims(func(c *policy.Claims) { c.Tenant = "" }), "!"},
		{"no strength", claims(func(c *policy.Claims) { c.Strength = "" }), "!"},
		{"no time of login", claims(func(c *policy.Claims) { c.Time = time.Time{} }), "!"},
		{"old login", claims(func(c *policy.Claims) { c.Time = noon.Add(-2 * time.Hour) }), "!"},
		{"no tags", claims(func(c *policy.Claims) { c.Others = nil }), "!"},
		{"chain", function(&policy.Cause{Principal: &ann, Functions: first}), "chain"},
		{"chain of nobody", function(&policy.Cause{Functions: first}), "!"},
		{"other chain", function(&policy.Cause{Principal: &ann}), "!"},
		{"no chain", function(nil), "!"},
		{"function invokes itself", policy.Request{
			Principal: policy.Principal{Kind: policy.KindFunction, ID: "function:a/price", Namespace: "a"}, Action: policy.Invoke, Resource: self,
		}, "self"},
	} {
		if got := outcome(s.Decide(tc.q)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		tc.q.Principal = tc.q.Principal.Prepare()
		if got := outcome(s.Decide(tc.q)); got != tc.want {
			t.Errorf("%s, prepared: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestDigest: whatever decisions depend on is in the digest of a principal.
func TestDigest(t *testing.T) {
	t.Parallel()
	list := []policy.Principal{
		{}, {Kind: policy.KindUser}, {ID: "user:a"}, {Role: policy.Operator}, {Namespace: "a"}, {EventTypes: []ident.EventType{"a"}},
		{EventTypes: []ident.EventType{"a", "b"}}, {Attenuated: true}, {Revision: "a"}, {Groups: []string{"a"}}, {Groups: []string{"a", "b"}},
		{Claims: &policy.Claims{}}, {Claims: &policy.Claims{Issuer: "a"}}, {Claims: &policy.Claims{Groups: []string{"a"}}},
		{Claims: &policy.Claims{Roles: []string{"a"}}}, {Claims: &policy.Claims{Tenant: "a"}}, {Claims: &policy.Claims{Strength: "a"}},
		{Claims: &policy.Claims{Methods: []string{"a"}}}, {Claims: &policy.Claims{Time: noon}}, {Claims: &policy.Claims{Others: map[string][]string{"a": {"b"}}}},
		{Claims: &policy.Claims{Others: map[string][]string{"a": {"c"}}}},
	}
	seen := map[[32]byte]int{}
	for i := range list {
		d := list[i].Digest()
		if j, ok := seen[d]; ok {
			t.Errorf("principals %d and %d have one digest", i, j)
		}
		seen[d] = i
		p := list[i].Prepare()
		if p.Digest() != d {
			t.Errorf("principal %d has another digest when prepared", i)
		}
	}
}

// TestKey: contexts that differ in a part have different keys of it, and the same keys of the others.
func TestKey(t *testing.T) {
	t.Parallel()
	parts := []policy.ContextPart{policy.PartTransport, policy.PartIP, policy.PartCause, policy.PartEvent}
	base := policy.Context{}
	other := []policy.Context{
		{Transport: policy.TransportTLS}, {IP: ip("10.0.0.1")}, {Cause: &policy.Cause{Functions: []ident.PrincipalID{"function:a/b"}}},
		{Event: &policy.Event{Type: "x"}},
	}
	for i, c := range other {
		for j, part := range parts {
			a, okA := base.Key(part)
			b, okB := c.Key(part)
			if !okA || !okB || (a == b) == (i == j) {
				t.Errorf("keys of part %d of context %d: equal is %v, want %v", part, i, a == b, i != j)
			}
		}
	}
	if _, ok := base.Key(policy.PartNow); ok {
		t.Error("a decision that depends on the time has a key")
	}
	ann := user("ann")
	if _, ok := (&policy.Context{Cause: &policy.Cause{Principal: &ann}}).Key(policy.PartCause); ok {
		t.Error("a decision that depends on another principal has a key")
	}
	s := with(t, file("a", `@id("t") permit (principal, action == Action::"publish", resource) when { context.event.size < 1 };
@id("n") permit (principal, action == Action::"invoke", resource) when { context.now > datetime("2026-01-01") };
@id("i") permit (principal, action == Action::"readLogs", resource) when { context has ip };
@id("w") permit (principal, action == Action::"deploy", resource) when { context == context };
@id("c") permit (principal, action == Action::"readEvents", resource) when { context has cause && context.cause.depth < 2 };`),
		file("", `@id("one") forbid (principal, action, resource == EventType::"b/small") when { context has ip };
@id("all") forbid (principal, action == Action::"publish", resource in Namespace::"c") when { context.event.size > 9 };`))
	for _, tc := range []struct {
		a    policy.Action
		r    policy.Resource
		want policy.ContextPart
	}{
		{policy.Publish, eventType("a", "x"), policy.PartTransport | policy.PartEvent},
		{policy.Publish, eventType("b", "x"), policy.PartTransport},
		{policy.Publish, eventType("b", "small"), policy.PartTransport | policy.PartIP},
		{policy.Invoke, function("b", "small"), policy.PartTransport},
		{policy.Publish, eventType("c", "x"), policy.PartTransport | policy.PartEvent},
		{policy.Invoke, function("a", "x"), policy.PartTransport | policy.PartNow},
		{policy.ReadLogs, policy.OfNamespace("a"), policy.PartTransport | policy.PartIP},
		{policy.ReadEvents, policy.OfNamespace("a"), policy.PartTransport | policy.PartCause},
		{policy.Deploy, policy.OfNamespace("a"), policy.PartTransport | policy.PartIP | policy.PartNow | policy.PartCause | policy.PartEvent | policy.PartOp},
		{policy.ReadMetrics, policy.OfServer(), policy.PartTransport},
	} {
		if got := s.Reads(tc.a, tc.r); got != tc.want {
			t.Errorf("Reads(%s, %v) = %b, want %b", tc.a, tc.r, got, tc.want)
		}
	}
}

// TestIndexIsSound: with random policies and requests, the index finds what Cedar finds without it: the same
// decision, by the same policies, with the same errors.
func TestIndexIsSound(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	allowed, denied, failed := 0, 0, 0
	for round := range 30 {
		s, err := policy.ParseUnvalidated(randomPolicies(rnd, 40))
		if err != nil {
			t.Fatal(err)
		}
		own, err := policy.New(policy.File{Namespace: "a", Text: validRandomPolicies(rnd, 20)})
		if err != nil {
			t.Fatal(show(t, err))
		}
		for range 200 {
			q := randomRequest(rnd)
			for _, s := range []*policy.Set{s, own} {
				want, got := s.Plain(q), s.Decide(q)
				if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
					t.Fatalf("round %d: Decide(%+v) (-plain +indexed):\n%s", round, q, d)
				}
				if got.Allowed && !s.Loose(q).Allowed {
					t.Fatalf("round %d: allowed, but not without its context: %+v", round, q)
				}
				switch {
				case len(got.Errors) > 0:
					failed++
				case got.Allowed:
					allowed++
				case len(got.Policies) > 0:
					denied++
				}
			}
		}
	}
	if allowed < 300 || denied < 300 || failed < 300 {
		t.Errorf("%d allowed, %d denied, %d failed: the random policies test too little", allowed, denied, failed)
	}
}

func pick[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

var (
	randomPrincipals = []string{`Token::"t0"`, `Token::"t1"`, `User::"u0"`, `User::"u1"`, `Service::"s0"`, `Function::"a/f0"`, `Function::"b/f1"`}
	randomResources  = []string{`EventType::"a/x0"`, `EventType::"a/x1"`, `EventType::"b/x0"`, `Function::"a/f0"`, `Function::"b/f1"`, `Namespace::"a"`, `Namespace::"b"`, `Server::"server"`}
	randomKinds      = []string{"Token", "User", "Service", "Function"}
	randomTypes      = []string{"EventType", "Function", "Namespace", "Server"}
)

// randomPolicies returns policies of every form of scope, with conditions that hold, do not, and fail.
func randomPolicies(rnd *rand.Rand, n int) []byte {
	var b bytes.Buffer
	for i := range n {
		group := fmt.Sprintf(`Group::"g%d"`, rnd.IntN(3))
		ns := fmt.Sprintf(`Namespace::%q`, pick(rnd, "a", "b"))
		principal := pick(rnd, "principal", "principal", "principal == "+pick(rnd, randomPrincipals...), "principal in "+group,
			"principal is "+pick(rnd, randomKinds...), "principal is "+pick(rnd, randomKinds...)+" in "+group, "principal in "+ns, "principal == "+group)
		action := pick(rnd, "action", `action == Action::"publish"`, `action in Action::"invoke"`,
			`action in [Action::"publish", Action::"readStatus", Action::"publish"]`, fmt.Sprintf(`action == Action::%q`, pick(rnd, policy.Actions()...)))
		resource := pick(rnd, "resource", "resource", "resource == "+pick(rnd, randomResources...), "resource in "+ns,
			"resource is "+pick(rnd, randomTypes...), "resource is EventType in "+ns, "resource in "+pick(rnd, randomResources...))
		condition := pick(rnd, "", "", `when { principal.role == "reader" }`, `when { resource.name == "x0" }`, `when { context has ip }`,
			`unless { context.tls }`, `when { principal.missing }`, `when { resource.namespace == "a" && context.tls }`,
			`unless { principal.namespace == "a" || context.mtls }`, `when { !(context has ip && context.tls) }`)
		fmt.Fprintf(&b, "@id(\"p%d\") %s (%s, %s, %s) %s;\n", i, pick(rnd, "permit", "permit", "forbid"), principal, action, resource, condition)
	}
	return b.Bytes()
}

// validRandomPolicies returns policies that the schema takes.
func validRandomPolicies(rnd *rand.Rand, n int) []byte {
	var b bytes.Buffer
	for i := range n {
		principal := pick(rnd, "principal", "principal == "+pick(rnd, randomPrincipals...), `principal in Group::"g1"`, "principal is User")
		action, resource := "action", "resource"
		if rnd.IntN(2) == 0 {
			action, resource = `action == Action::"publish"`, pick(rnd, "resource", `resource == EventType::"a/x0"`, `resource in Namespace::"a"`, `resource == EventType::"b/x0"`)
		}
		condition := pick(rnd, "", `when { context has ip && context.tls }`, `when { resource.name == "x0" }`, `unless { context.mtls }`)
		fmt.Fprintf(&b, "@id(\"p%d\") %s (%s, %s, %s) %s;\n", i, pick(rnd, "permit", "permit", "permit", "forbid"), principal, action, resource, condition)
	}
	return b.Bytes()
}

func randomRequest(rnd *rand.Rand) policy.Request {
	kind := pick(rnd, policy.KindToken, policy.KindUser, policy.KindService, policy.KindFunction)
	ns := pick(rnd, ident.Namespace("a"), "b")
	p := policy.Principal{Kind: kind, Namespace: pick(rnd, "", ns), Role: pick(rnd, "", policy.Reader, policy.Operator)}
	n := rnd.IntN(2)
	switch kind {
	case policy.KindFunction:
		p.ID, p.Namespace = ident.PrincipalID(fmt.Sprintf("function:%s/f%d", ns, n)), ns
	default:
		p.ID = ident.PrincipalID(fmt.Sprintf("%s:%c%d", strings.ToLower(string(kind)), strings.ToLower(string(kind))[0], n))
		p.Groups = slices.Repeat([]string{fmt.Sprintf("g%d", rnd.IntN(3)), fmt.Sprintf("g%d", rnd.IntN(3))}, 1+rnd.IntN(2))
	}
	r := pick(rnd, eventType(ns, fmt.Sprintf("x%d", n)), eventType(ns, "x0"), function(ns, fmt.Sprintf("f%d", n)), policy.OfNamespace(ns), policy.OfServer())
	c := policy.Context{Transport: pick(rnd, policy.TransportUnknown, policy.TransportPlaintext, policy.TransportTLS, policy.TransportMutualTLS)}
	if rnd.IntN(2) == 0 {
		c.IP = ip("10.0.0.1")
	}
	a := pick(rnd, policy.Actions()...)
	switch r.Kind {
	case policy.KindEventType:
		a = policy.Publish
	case policy.KindFunction:
		a = policy.Invoke
	case policy.KindServer, policy.KindNamespace:
		a = pick(rnd, policy.ReadStatus, policy.ReadPolicies, a)
	case policy.KindToken, policy.KindUser, policy.KindService:
	}
	return policy.Request{Principal: p, Action: a, Resource: r, Context: c}
}

// TestGrantIsInItsFunction: a policy about a function holds for its grants, whatever it reads.
func TestGrantIsInItsFunction(t *testing.T) {
	t.Parallel()
	s := with(t, permitAll, file("", `@id("no") forbid (principal, action == Action::"useGrant", resource in Function::"shop/f") when { context has ip };`))
	for name, allowed := range map[ident.FunctionName]bool{"f": false, "g": true} {
		q := policy.Request{
			Principal: user("ann"), Action: policy.UseGrant, Resource: policy.OfGrant("shop", name, "db", "sql", ""),
			Context: policy.Context{Now: noon, Transport: policy.TransportTLS, IP: ip("192.0.2.1")},
		}
		want, got := s.Plain(q), s.Decide(q)
		if got.Allowed != allowed || want.Allowed != allowed {
			t.Errorf("a grant of %s: %+v, and by Cedar alone %+v, want allowed %v", name, got, want, allowed)
		}
	}
}
