package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

var (
	quickNames = []string{
		"role", "namespace", "limited", "attenuated", "eventTypes", "owns", "claims", "name", "revision", "grants", "invokes", "secrets", "reveals",
		"function", "kind", "tls", "mtls", "ip", "now", "event", "cause", "op", "type", "source", "subject", "size", "issuer", "groups", "roles", "methods",
		"tenant", "strength", "time", "nothing",
	}
	quickBases   = []string{"principal", "resource", "context", "context.event", "principal.claims", "action", "context.cause", "principal.claims.nothing"}
	quickNumbers = []string{"0", "5", "100", "-1"}
	quickTexts   = []string{`""`, `"a"`, `"b"`, `"x0"`, `"reader"`, `"r1"`, `"f1"`}
)

func quickPath(rnd *rand.Rand) string {
	return pick(rnd, quickBases...) + "." + pick(rnd, quickNames...)
}

func quickScalar(rnd *rand.Rand) string {
	switch rnd.IntN(8) {
	case 0:
		return pick(rnd, quickNumbers...)
	case 1:
		return pick(rnd, "true", "false", `User::"u0"`, `ip("10.0.0.1")`, "principal", "resource")
	case 2, 3, 4:
		return pick(rnd, quickTexts...)
	}
	return quickLikely(rnd)
}

// quickLikely is a path that there may well be.
func quickLikely(rnd *rand.Rand) string {
	if rnd.IntN(6) == 0 {
		return quickPath(rnd)
	}
	return pick(rnd, "principal.role", "principal.namespace", "principal.name", "principal.revision", "resource.name", "resource.namespace", "context.op",
		"context.event.type", "context.event.source", "context.event.subject", "context.event.size", "principal.claims.issuer", "principal.claims.tenant",
		"principal.claims.strength", "principal.limited", "principal.attenuated", "context.tls", "context.mtls")
}

// quickCondition returns an expression, most often of the type of a truth.
func quickCondition(rnd *rand.Rand, depth int) string {
	if depth > 0 && rnd.IntN(3) > 0 {
		left, right := quickCondition(rnd, depth-1), quickCondition(rnd, depth-1)
		return pick(rnd, "("+left+" && "+right+")", "("+left+" || "+right+")", "!("+left+")", "(if "+left+" then "+right+" else false)")
	}
	switch rnd.IntN(14) {
	case 9, 10:
		return pick(rnd, "principal has ", "principal has ", "context has ", "context.event has ", "principal.claims has ") + pick(rnd, quickNames...)
	case 11:
		return pick(rnd, "principal.role", "principal.namespace", "resource.name", "resource.namespace", "context.event.type") + pick(rnd, " == ", " != ") + pick(rnd, quickTexts...)
	case 12:
		return "principal." + pick(rnd, "eventTypes", "claims.roles", "owns", "secrets") + ".contains(" + pick(rnd, quickTexts...) + ")"
	case 13:
		return pick(rnd, "context.tls", "!context.mtls", "context.event.size < 5", `resource.name like "x*"`, `context.ip.isInRange(ip("10.0.0.0/8"))`)
	case 0, 1:
		return pick(rnd, quickBases...) + " has " + pick(rnd, quickNames...)
	case 2, 3:
		return quickScalar(rnd) + pick(rnd, " == ", " != ") + quickScalar(rnd)
	case 4:
		return pick(rnd, "context.event.size", quickScalar(rnd)) + pick(rnd, " < ", " <= ", " > ", " >= ") + pick(rnd, pick(rnd, quickNumbers...), quickScalar(rnd))
	case 5:
		return quickLikely(rnd) + ` like ` + pick(rnd, `"*"`, `"a*"`, `"*0"`, `""`)
	case 6:
		set := pick(rnd, "eventTypes", "owns", "secrets", "reveals", "grants", "invokes", "claims.groups", "claims.roles", "claims.methods", "role", "nothing")
		return "principal." + set + ".contains(" + quickScalar(rnd) + ")"
	case 7:
		return pick(rnd, "context.ip", "context.ip", "principal.role") + pick(rnd, `.isInRange(ip("10.0.0.0/8"))`, `.isInRange(ip("10.0.0.1"))`, `.isInRange(ip("::/0"))`, `.isLoopback()`, `.isInRange(ip("no"))`)
	}
	return pick(rnd, "true", "false", "principal.limited", "principal.attenuated", "context.tls", "context.mtls", quickLikely(rnd))
}

// quickRequest returns a request in which everything that a principal, a resource and a context can have is there or is not.
func quickRequest(rnd *rand.Rand) policy.Request {
	some := func(list ...string) []string {
		var out []string
		for _, s := range list {
			if rnd.IntN(2) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	q := randomRequest(rnd)
	p := &q.Principal
	for _, s := range some("a", "x0", "b") {
		p.EventTypes = append(p.EventTypes, ident.EventType(s))
	}
	p.Attenuated, p.Secrets, p.Reveals, p.Revision = rnd.IntN(2) == 0, some("a"), some("b"), pick(rnd, "", "r1")
	if p.Grants = some("a", "x0"); len(p.Grants) > 0 {
		p.Invokes = []ident.FunctionName{"f1"}
	}
	for _, s := range some("a", "b") {
		p.Owns = append(p.Owns, ident.Namespace(s))
	}
	if rnd.IntN(2) == 0 {
		p.Claims = &policy.Claims{
			Issuer: pick(rnd, "", "a"), Groups: some("a", "b"), Roles: some("a", "x0"), Methods: some("a"), Tenant: pick(rnd, "", "a"), Strength: pick(rnd, "", "b"),
			Time: pick(rnd, time.Time{}, noon), Others: map[string][]string{"a": some("a")},
		}
	}
	if rnd.IntN(8) == 0 {
		q.Action, q.Resource = policy.UseGrant, policy.OfGrant(pick(rnd, ident.Namespace("a"), "b"), "f1", pick(rnd, "a", "b"), pick(rnd, "", "http"), "")
	}
	if rnd.IntN(12) == 0 && p.Kind == policy.KindFunction {
		q.Action, q.Resource = policy.Invoke, policy.Resource{Kind: policy.KindFunction, Namespace: p.Namespace, Name: string(p.ID[len("function:a/"):])}
	}
	c := &q.Context
	c.Transport = pick(rnd, policy.TransportUnknown, policy.TransportPlaintext, policy.TransportTLS, policy.TransportMutualTLS, policy.TransportInternal, policy.TransportUnkept)
	c.IP, c.Now = pick(rnd, ip("10.0.0.1"), ip("::ffff:10.0.0.1"), ip("2001:db8::1"), ip("fe80::1%eth0"), policy.Context{}.IP), pick(rnd, noon, time.Time{})
	c.Op = pick(rnd, "", "a")
	if rnd.IntN(2) == 0 {
		c.Event = &policy.Event{Type: pick(rnd, "a", "x0", q.Resource.Name), Source: pick(rnd, "a", ""), Subject: pick(rnd, "", "b"), Size: int64(rnd.IntN(8))}
	}
	if rnd.IntN(8) == 0 {
		c.Cause = &policy.Cause{Functions: []ident.PrincipalID{"function:a/f0"}}
	}
	return q
}

// TestQuickIsCedar: what is decided without Cedar is what Cedar decides: whatever conditions there are and whatever a request has,
// the decision is the same, by the same policies, with the same errors.
func TestQuickIsCedar(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 5))
	counts := map[string]int{}
	for range 200 {
		var b strings.Builder
		for i := range 12 {
			fmt.Fprintf(&b, "@id(\"p%d\") %s (principal, action, resource)", i, pick(rnd, "permit", "permit", "forbid"))
			for range 1 + rnd.IntN(2) {
				fmt.Fprintf(&b, " %s { %s }", pick(rnd, "when", "unless"), quickCondition(rnd, rnd.IntN(3)))
			}
			b.WriteString(";\n")
		}
		s, err := policy.ParseUnvalidated([]byte(b.String()))
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		for range 40 {
			q := quickRequest(rnd)
			if rnd.IntN(2) == 0 {
				q.Principal = q.Principal.Prepare()
			}
			want, got := s.Plain(q), s.Decide(q)
			if q.Principal.Kind == policy.KindFunction && want.Allowed && q.Context.Cause != nil {
				got, _ = s.DecideAlone(q) // the other half is another question
			}
			if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("Decide(%+v with %+v and %+v) (-cedar +quick):\n%s\n%s", q, q.Context.Event, q.Principal.Claims, d, b.String())
			}
			if d := cmp.Diff(s.PlainLoose(q), s.Loose(q), cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("Loose(%+v with %+v) (-cedar +quick):\n%s\n%s", q, q.Principal.Claims, d, b.String())
			}
			for id, answer := range s.Quickly(q) {
				counts[answer]++
				if cedar := s.Alone(q, id); answer != "unsure" && answer != cedar {
					t.Fatalf("%s: quickly %s, by Cedar %s, for %+v\n%s", id, answer, cedar, q, b.String())
				}
			}
		}
	}
	if counts["yes"] < 5000 || counts["no"] < 5000 || counts["unsure"] < 5000 {
		t.Errorf("%v: the random conditions test too little", counts)
	}
}

// TestQuickKnowsBuiltIn: what every decision evaluates, guard rails and roles, is decided without Cedar, and so are common conditions: else
// nothing is gained.
func TestQuickKnowsBuiltIn(t *testing.T) {
	t.Parallel()
	s := with(t, file("", `
@id("size") permit (principal is User, action == Action::"publish", resource) when { context.event.size < 100 && resource.name like "order.*" };
@id("claims") permit (principal is User, action, resource)
when { principal has claims && principal.claims.roles.contains("ops") && principal.claims has tenant && principal.claims.tenant == "acme" };
@id("net") forbid (principal is User, action, resource) unless { context has ip && context.ip.isInRange(ip("10.0.0.0/8")) };`))
	ann := user("ann")
	ann.Claims = &policy.Claims{Roles: []string{"ops"}, Tenant: "acme"}
	q := policy.Request{Principal: ann, Action: policy.Publish, Resource: eventType("shop", "order.paid"), Context: policy.Context{
		Transport: policy.TransportTLS, IP: ip("10.0.0.1"), Event: &policy.Event{Type: "order.paid", Size: 5},
	}}
	if d := s.Decide(q); outcome(d) != "claims size" {
		t.Errorf("decided %s", outcome(d))
	}
	for id, answer := range s.Quickly(q) {
		if answer == "unsure" {
			t.Errorf("%s is left to Cedar", id)
		}
	}
}
