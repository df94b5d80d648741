package policy_test

import (
	"fmt"
	"math/rand/v2"
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

// permitAll lets only perimeters and guard rails deny.
var permitAll = file("", `@id("all") permit (principal, action, resource);`)

func within(t testing.TB, files ...policy.PerimeterFile) *policy.Set {
	t.Helper()
	s, err := policy.NewWith(policy.Config{Files: []policy.File{permitAll}, Perimeters: files})
	if err != nil {
		t.Fatalf("%v %+v", err, problem.From(err).Faults)
	}
	return s
}

// payments is a perimeter of the namespace shop with a bridge of each form.
func payments(change func(*policy.Perimeter)) policy.PerimeterFile {
	p := policy.Perimeter{
		Name: "payments", EventTypes: []string{"payment.*", "card"}, Functions: []string{"charge", "refund-*"},
		Bridges: []policy.Bridge{
			{Name: "in", From: []string{"user:ann", "group:ops", "service:till-*"}, To: []string{"event_type:payment.asked", "function:charge"}, Actions: []policy.Action{policy.Publish, policy.Invoke}},
			{Name: "out", From: []string{"function:charge"}, To: []string{"event_type:order.*"}, Actions: []policy.Action{policy.Publish}, When: "context.event.size < 100"},
			{Name: "read", From: []string{"user:auditor"}, To: []string{"event_type:*"}, Actions: []policy.Action{policy.ReadEvents}},
			{Name: "settled", From: []string{"event_type:payment.settled"}, To: []string{"function:ship"}, Actions: []policy.Action{policy.Deliver}},
		},
	}
	if change != nil {
		change(&p)
	}
	return policy.PerimeterFile{
		Name: "payments.toml", Namespace: "shop", Perimeters: []policy.Perimeter{p},
		Levels: []policy.Level{
			{Name: "office", IP: []string{"192.0.2.0/24", "2001:db8::1"}, Hours: []string{"mon-fri 07:00-19:00"}},
			{Name: "strong", MutualTLS: true, Strength: []string{"phr", "phrh"}, Methods: []string{"hwk", "pin"}},
		},
	}
}

func actor(id string) policy.Principal {
	p, err := policy.ParsePrincipal(id)
	if err != nil {
		panic(err)
	}
	return p
}

func asks(id string, a policy.Action, r policy.Resource) policy.Request {
	return policy.Request{Principal: actor(id), Action: a, Resource: r, Context: policy.Context{
		Transport: policy.TransportTLS, Now: noon, Event: &policy.Event{Type: r.Name, Source: "/", Size: 50},
	}}
}

// TestPerimeterBorder: nothing crosses the border without a bridge, whatever permits it; what stays on one side does.
func TestPerimeterBorder(t *testing.T) {
	t.Parallel()
	s := within(t, payments(nil))
	shop := func(name string) policy.Resource { return eventType("shop", name) }
	ops := asks("user:bob", policy.Publish, shop("payment.asked"))
	ops.Principal.Groups = []string{"staff", "ops"}
	grouped := asks("function:shop/price", policy.Publish, shop("payment.asked"))
	grouped.Principal.Groups = []string{"ops"}
	large := asks("function:shop/charge", policy.Publish, shop("order.paid"))
	large.Context.Event.Size = 100
	for _, tc := range []struct {
		name string
		q    policy.Request
		want string // policies, or "!" and what denies, then bridges
	}{
		{"user into", asks("user:bob", policy.Publish, shop("payment.asked")), "!perimeter:shop/payments"},
		{"user into, exact", asks("user:bob", policy.Publish, shop("card")), "!perimeter:shop/payments"},
		{"user beside", asks("user:bob", policy.Publish, shop("cards")), "all"},
		{"same name elsewhere", asks("user:bob", policy.Publish, eventType("b", "card")), "all"},
		{"service into", asks("service:x", policy.Invoke, function("shop", "refund-2")), "!perimeter:shop/payments"},
		{"token into", asks("token:x", policy.Invoke, function("shop", "charge")), "!perimeter:shop/payments"},
		{"function into", asks("function:shop/price", policy.Publish, shop("payment.asked")), "!perimeter:shop/payments"},
		{"function invokes into", asks("function:shop/price", policy.Invoke, function("shop", "charge")), "!perimeter:shop/payments"},
		{"user with the name of a function inside", asks("user:shop/charge", policy.Publish, shop("card")), "!perimeter:shop/payments"},
		{"function within", asks("function:shop/charge", policy.Publish, shop("card")), "all"},
		{"function invokes within", asks("function:shop/charge", policy.Invoke, function("shop", "refund-1")), "all"},
		{"function out", asks("function:shop/charge", policy.Publish, shop("price.changed")), "!perimeter:shop/payments"},
		{"function invokes out", asks("function:shop/refund-1", policy.Invoke, function("shop", "price")), "!perimeter:shop/payments"},
		{"function outside stays outside", asks("function:shop/price", policy.Publish, shop("order.paid")), "all"},
		{"function out to another namespace", asks("function:shop/charge", policy.Publish, eventType("b", "order.paid")), "!namespace-border perimeter:shop/payments"},
		{"bridge in", asks("user:ann", policy.Publish, shop("payment.asked")), "all bridge:shop/payments/in"},
		{"bridge in, invoke", asks("service:till-7", policy.Invoke, function("shop", "charge")), "all bridge:shop/payments/in"},
		{"bridge in, other type", asks("user:ann", policy.Publish, shop("payment.made")), "!perimeter:shop/payments"},
		{"bridge in, other service", asks("service:till", policy.Invoke, function("shop", "charge")), "!perimeter:shop/payments"},
		{"bridge in, group", ops, "all bridge:shop/payments/in"},
		{"bridge in, function with a group", grouped, "!perimeter:shop/payments"},
		{"bridge out", asks("function:shop/charge", policy.Publish, shop("order.paid")), "all bridge:shop/payments/out"},
		{"bridge out, condition", large, "!perimeter:shop/payments"},
		{"bridge out, other function", asks("function:shop/refund-1", policy.Publish, shop("order.paid")), "!perimeter:shop/payments"},
		{"status is no crossing", asks("user:bob", policy.ReadStatus, policy.OfNamespace("shop")), "all"},
		{"reading of a namespace that is partly inside", asks("user:bob", policy.ReadEvents, policy.OfNamespace("shop")), "all"},
	} {
		if got := crossed(s.Decide(tc.q)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		if got := s.Explain(tc.q); crossed(got.Decision) != tc.want {
			t.Errorf("%s: explained as %s, want %s", tc.name, crossed(got.Decision), tc.want)
		}
	}
}

func crossed(d policy.Decision) string {
	return strings.TrimSpace(outcome(d) + " " + strings.Join(d.Bridges, " "))
}

// TestPerimeterAroundNamespace: when all of a namespace is inside, so is what is done to the namespace as a whole.
func TestPerimeterAroundNamespace(t *testing.T) {
	t.Parallel()
	s := within(t, policy.PerimeterFile{Name: "p.toml", Perimeters: []policy.Perimeter{{
		Name: "all", EventTypes: []string{"shop/*"}, Functions: []string{"shop/*", "b/f"},
		Bridges: []policy.Bridge{
			{Name: "ann", From: []string{"user:ann"}, To: []string{"event_type:shop/*"}, Actions: []policy.Action{policy.ReadEvents}},
			{Name: "bob", From: []string{"user:bob"}, To: []string{"event_type:shop/a*"}, Actions: []policy.Action{policy.ReadEvents}},
			{Name: "ci", From: []string{"service:ci"}, To: []string{"function:shop/*"}, Actions: []policy.Action{policy.Deploy}},
		},
	}}})
	shop := policy.OfNamespace("shop")
	for _, tc := range []struct {
		q    policy.Request
		want string
	}{
		{asks("user:ann", policy.ReadEvents, shop), "all bridge:all/ann"},
		{asks("user:ann", policy.ReadEventData, shop), "!perimeter:all"},
		{asks("user:ann", policy.ReadDeadLetters, shop), "!perimeter:all"},
		{asks("user:ann", policy.ReadLogs, shop), "!perimeter:all"},
		{asks("user:bob", policy.ReadEvents, shop), "!perimeter:all"}, // his bridge is for some types only
		{asks("user:ann", policy.Deploy, shop), "!perimeter:all"},
		{asks("service:ci", policy.Deploy, shop), "all bridge:all/ci"},
		{asks("user:ann", policy.Deploy, policy.OfNamespace("b")), "all"}, // not all of b is inside
		{asks("user:ann", policy.ReadEvents, policy.OfNamespace("b")), "all"},
		{asks("user:ann", policy.ReadStatus, shop), "all"},
	} {
		if got := crossed(s.Decide(tc.q)); got != tc.want {
			t.Errorf("%s %s %v: %s, want %s", tc.q.Principal.ID, tc.q.Action, tc.q.Resource, got, tc.want)
		}
	}
	if got := s.Inside(shop); !slices.Equal(got, []string{"perimeter:all"}) {
		t.Errorf("Inside(shop) = %v", got)
	}
	if got := s.Inside(policy.OfNamespace("b")); got != nil {
		t.Errorf("Inside(b) = %v", got)
	}
	if got := s.Inside(function("b", "f")); !slices.Equal(got, []string{"perimeter:all"}) {
		t.Errorf("Inside(b/f) = %v", got)
	}
}

// TestCross: what is inside is neither read nor deployed from outside, one at a time.
func TestCross(t *testing.T) {
	t.Parallel()
	s := within(t, payments(nil))
	for _, tc := range []struct {
		q    policy.Request
		want string
	}{
		{asks("user:bob", policy.ReadEvents, eventType("shop", "card")), "!perimeter:shop/payments"},
		{asks("user:bob", policy.ReadEvents, eventType("shop", "order")), ""},
		{asks("user:auditor", policy.ReadEvents, eventType("shop", "card")), "bridge:shop/payments/read"},
		{asks("user:auditor", policy.ReadEventData, eventType("shop", "card")), "!perimeter:shop/payments"},
		{asks("user:auditor", policy.ReadDeadLetters, eventType("shop", "card")), "!perimeter:shop/payments"},
		{asks("user:bob", policy.ReadLogs, function("shop", "charge")), "!perimeter:shop/payments"},
		{asks("user:bob", policy.ReadLogs, function("shop", "ship")), ""},
		{asks("user:bob", policy.Deploy, function("shop", "charge")), "!perimeter:shop/payments"},
		{asks("user:bob", policy.ReadStatus, policy.OfServer()), ""},
		// What no perimeter could be asked about is denied.
		{asks("user:bob", policy.Publish, policy.OfNamespace("shop")), "!"},
		{asks("user:bob", policy.ReadLogs, eventType("shop", "order")), "!"},
		{policy.Request{Principal: policy.Principal{Kind: policy.KindUser, ID: "x"}, Action: policy.ReadEvents, Resource: eventType("shop", "order")}, "!"},
	} {
		if got := crossed(s.Cross(tc.q)); got != tc.want {
			t.Errorf("Cross(%s %s %v) = %q, want %q", tc.q.Principal.ID, tc.q.Action, tc.q.Resource, got, tc.want)
		}
	}
	if !newSet(t).Cross(asks("user:bob", policy.ReadEvents, eventType("shop", "card"))).Allowed {
		t.Error("a set without perimeters denies")
	}
}

// TestCanDeliver: an event inside does not get to a function outside, nor one from outside to a function inside.
func TestCanDeliver(t *testing.T) {
	t.Parallel()
	s := within(t, payments(nil))
	for _, tc := range []struct {
		event    ident.EventType
		function ident.FunctionName
		want     string
	}{
		{"payment.made", "charge", ""},
		{"order.paid", "ship", ""},
		{"payment.made", "ship", "!perimeter:shop/payments"},
		{"order.paid", "charge", "!perimeter:shop/payments"},
		{"payment.settled", "ship", "bridge:shop/payments/settled"},
		{"payment.settled", "price", "!perimeter:shop/payments"},
	} {
		if got := crossed(s.CanDeliver("shop", tc.event, tc.function)); got != tc.want {
			t.Errorf("CanDeliver(%s, %s) = %q, want %q", tc.event, tc.function, got, tc.want)
		}
		v := s.ExplainDelivery("shop", tc.event, tc.function)
		if denied := len(v) > 0 && v[0].Denied; denied != strings.HasPrefix(tc.want, "!") {
			t.Errorf("ExplainDelivery(%s, %s) = %+v", tc.event, tc.function, v)
		}
	}
	if !s.CanDeliver("b", "payment.made", "ship").Allowed || !newSet(t).CanDeliver("shop", "payment.made", "ship").Allowed {
		t.Error("a delivery that crosses no border is denied")
	}
}

// TestDryRun: a perimeter in dry-run changes no decision, and is named in it.
func TestDryRun(t *testing.T) {
	t.Parallel()
	without, enforced := within(t), within(t, payments(nil))
	dry := within(t, payments(func(p *policy.Perimeter) { p.Mode = policy.DryRun }))
	named := 0
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		q := asks(pick(rnd, "user:ann", "user:bob", "function:shop/charge", "function:shop/ship"), policy.Publish,
			eventType("shop", pick(rnd, "card", "payment.asked", "order.paid", "x")))
		q.Context.Event.Size = pick(rnd, int64(10), 1000)
		got := dry.Decide(q)
		if want := !enforced.Decide(q).Allowed; want != (len(got.DryRun) == 1) {
			t.Fatalf("%+v: dry-run %v, enforced denies: %v", q, got.DryRun, want)
		}
		named += len(got.DryRun)
		got.DryRun = nil
		if diff := cmp.Diff(without.Decide(q), got); diff != "" {
			t.Fatalf("dry-run changes the decision about %+v:\n%s", q, diff)
		}
	}
	if named == 0 {
		t.Error("nothing would have been denied")
	}
	if d := dry.CanDeliver("shop", "card", "ship"); !d.Allowed || len(d.DryRun) != 1 {
		t.Errorf("CanDeliver in dry-run: %+v", d)
	}
	if v := dry.ExplainPerimeters(asks("user:bob", policy.Publish, eventType("shop", "card"))); len(v) != 1 || !v[0].Denied || v[0].Mode != policy.DryRun {
		t.Errorf("ExplainPerimeters in dry-run: %+v", v)
	}
}

// TestLevels: who comes in meets every level; who goes out, and functions inside, need none.
func TestLevels(t *testing.T) {
	t.Parallel()
	s := within(t, payments(func(p *policy.Perimeter) {
		p.Require = []string{"office", "strong"}
		p.Bridges[0].From = append(p.Bridges[0].From, "function:price")
	}))
	good := asks("user:ann", policy.Publish, eventType("shop", "payment.asked"))
	good.Context.IP, good.Context.Transport = ip("192.0.2.9"), policy.TransportMutualTLS
	good.Principal.Claims = &policy.Claims{Strength: "phr", Methods: []string{"pin", "hwk", "pwd"}}
	if got := crossed(s.Decide(good)); got != "all bridge:shop/payments/in" {
		t.Fatalf("good: %s", got)
	}
	for name, tc := range map[string]struct {
		change func(*policy.Request)
		lacks  string
	}{
		"address":        {func(q *policy.Request) { q.Context.IP = ip("192.0.3.9") }, "office ip"},
		"no address":     {func(q *policy.Request) { q.Context.IP = policy.Context{}.IP }, "office ip"},
		"mapped address": {func(q *policy.Request) { q.Context.IP = ip("::ffff:192.0.2.1") }, ""},
		"one address":    {func(q *policy.Request) { q.Context.IP = ip("2001:db8::1") }, ""},
		"other address":  {func(q *policy.Request) { q.Context.IP = ip("2001:db8::2") }, "office ip"},
		"no certificate": {func(q *policy.Request) { q.Context.Transport = policy.TransportTLS }, "strong mtls"},
		"internal":       {func(q *policy.Request) { q.Context.Transport = policy.TransportInternal }, "strong mtls"},
		"late":           {func(q *policy.Request) { q.Context.Now = noon.Add(7 * time.Hour) }, "office hours"},
		"last minute":    {func(q *policy.Request) { q.Context.Now = noon.Add(7*time.Hour - time.Second) }, ""},
		"first minute":   {func(q *policy.Request) { q.Context.Now = noon.Add(-5 * time.Hour) }, ""},
		"early":          {func(q *policy.Request) { q.Context.Now = noon.Add(-5*time.Hour - time.Second) }, "office hours"},
		"sunday":         {func(q *policy.Request) { q.Context.Now = noon.AddDate(0, 0, -1) }, "office hours"},
		"friday":         {func(q *policy.Request) { q.Context.Now = noon.AddDate(0, 0, 4) }, ""},
		"other zone":     {func(q *policy.Request) { q.Context.Now = noon.In(time.FixedZone("", 12*3600)) }, ""},
		"no time":        {func(q *policy.Request) { q.Context.Now = time.Time{} }, "office hours"},
		"weak": {func(q *policy.Request) {
			q.Principal.Claims = &policy.Claims{Strength: "x", Methods: []string{"hwk", "pin"}}
		}, "strong strength"},
		"one method": {func(q *policy.Request) {
			q.Principal.Claims = &policy.Claims{Strength: "phrh", Methods: []string{"hwk"}}
		}, "strong methods"},
		"no claims":             {func(q *policy.Request) { q.Principal.Claims = nil }, "strong strength strong methods"},
		"function from outside": {func(q *policy.Request) { q.Principal = actor("function:shop/price") }, "strong strength strong methods"},
	} {
		q := good
		tc.change(&q)
		var lacks []string
		for _, v := range s.ExplainPerimeters(q) {
			for _, l := range v.Levels {
				for _, what := range l.Lacks {
					lacks = append(lacks, l.Name+" "+what)
				}
			}
			if v.Needed != nil || v.Bridge == "" {
				t.Errorf("%s: a bridge is said to be needed: %+v", name, v)
			}
		}
		if got := strings.Join(lacks, " "); got != tc.lacks {
			t.Errorf("%s lacks %q, want %q", name, got, tc.lacks)
		}
		if s.Decide(q).Allowed != (tc.lacks == "") {
			t.Errorf("%s: %s", name, crossed(s.Decide(q)))
		}
	}
	out := asks("function:shop/charge", policy.Publish, eventType("shop", "order.paid"))
	if got := crossed(s.Decide(out)); got != "all bridge:shop/payments/out" {
		t.Errorf("out: %s", got)
	}
	if got := crossed(s.CanDeliver("shop", "payment.settled", "ship")); got != "bridge:shop/payments/settled" {
		t.Errorf("delivery: %s", got)
	}
	// A level is no bridge.
	good.Resource.Name = "card"
	if got := crossed(s.Decide(good)); got != "!perimeter:shop/payments" {
		t.Errorf("without a bridge: %s", got)
	}
}

// TestPerimeterReads: the parts of the context that decisions may depend on are those of what the request can meet.
func TestPerimeterReads(t *testing.T) {
	t.Parallel()
	s := within(t, payments(func(p *policy.Perimeter) { p.Require = []string{"office"} }))
	for _, tc := range []struct {
		a    policy.Action
		r    policy.Resource
		want policy.ContextPart
	}{
		{policy.Publish, eventType("shop", "card"), policy.PartTransport | policy.PartIP | policy.PartNow},
		{policy.Publish, eventType("shop", "order.paid"), policy.PartTransport | policy.PartEvent},
		{policy.Publish, eventType("shop", "x"), policy.PartTransport},
		{policy.Publish, eventType("b", "card"), policy.PartTransport},
		{policy.Invoke, function("shop", "charge"), policy.PartTransport | policy.PartIP | policy.PartNow},
		{policy.Invoke, function("shop", "x"), policy.PartTransport},
		{policy.ReadStatus, policy.OfNamespace("shop"), policy.PartTransport},
	} {
		if got := s.Reads(tc.a, tc.r); got != tc.want {
			t.Errorf("Reads(%s, %v) = %b, want %b", tc.a, tc.r, got, tc.want)
		}
	}
}

// TestBridgeCondition: one that fails opens nothing, and is named.
func TestBridgeCondition(t *testing.T) {
	t.Parallel()
	s := within(t, payments(func(p *policy.Perimeter) {
		p.Bridges = append(p.Bridges, policy.Bridge{
			Name: "late", From: []string{"user:late"}, To: []string{"function:charge"}, Actions: []policy.Action{policy.Invoke},
			When: `context.now > datetime("2026-03-02T11:00:00Z") && principal.role == "" && resource.name == "charge"`,
		})
	}))
	q := asks("user:late", policy.Invoke, function("shop", "charge"))
	if got := crossed(s.Decide(q)); got != "all bridge:shop/payments/late" {
		t.Errorf("in time: %s", got)
	}
	q.Context.Now = time.Time{}
	got := s.Decide(q)
	if crossed(got) != "!perimeter:shop/payments" || len(got.Errors) != 1 || got.Errors[0].Policy != "bridge:shop/payments/late" {
		t.Errorf("without a time: %+v", got)
	}
	dry := within(t, payments(func(p *policy.Perimeter) {
		p.Mode = policy.DryRun
		p.Bridges = []policy.Bridge{{Name: "late", From: []string{"user:late"}, To: []string{"function:charge"}, Actions: []policy.Action{policy.Invoke}, When: `context.now > datetime("2026-03-02")`}}
	}))
	if d := dry.Decide(q); !d.Allowed || d.Errors != nil || len(d.DryRun) != 1 {
		t.Errorf("without a time, in dry-run: %+v", d)
	}
	q.Context.Now = noon.Add(-2 * time.Hour)
	v := s.ExplainPerimeters(q)
	want := []policy.PerimeterVerdict{{
		ID: "perimeter:shop/payments", Inward: true, Denied: true, To: "function:shop/charge",
		Bridges: []policy.BridgeVerdict{
			{ID: "bridge:shop/payments/in", Action: true},
			{ID: "bridge:shop/payments/late", From: true, Action: true, Condition: &policy.Condition{
				Text: `context.now > datetime("2026-03-02T11:00:00Z") && principal.role == "" && resource.name == "charge"`,
			}},
		},
		Needed: &policy.Bridge{From: []string{"user:late"}, To: []string{"function:charge"}, Actions: []policy.Action{policy.Invoke}},
	}}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Errorf("ExplainPerimeters (-want +got):\n%s", diff)
	}
}

// TestAnalysesSeePerimeters: every analysis answers as Decide does.
func TestAnalysesSeePerimeters(t *testing.T) {
	t.Parallel()
	before, after := within(t), within(t, payments(func(p *policy.Perimeter) { p.Require = []string{"office"} }))
	ann, bob, charge := actor("user:ann"), actor("user:bob"), actor("function:shop/charge")
	asked, paid := eventType("shop", "payment.asked"), eventType("shop", "order.paid")
	var got []string
	for _, a := range after.WhoCan(policy.Publish, asked, []policy.Principal{ann, bob, charge}, nil) {
		got = append(got, fmt.Sprint(a.Allowed, a.Assumed))
	}
	if want := []string{"true [perimeter:shop/payments]", "false []", "true []"}; !slices.Equal(got, want) {
		t.Errorf("WhoCan = %v, want %v", got, want)
	}
	if a := after.WhoCan(policy.Publish, paid, []policy.Principal{charge}, nil)[0]; !a.Allowed || !slices.Equal(a.Assumed, []string{"bridge:shop/payments/out"}) {
		t.Errorf("WhoCan publish out: %+v", a)
	}
	u := policy.Universe{Principals: []policy.Principal{ann, bob}, Actions: []policy.Action{policy.Publish}, Resources: []policy.Resource{asked, paid}}
	// A bridge that needs no context goes before one that does.
	both := within(t, payments(func(p *policy.Perimeter) {
		p.Bridges = append(p.Bridges, policy.Bridge{Name: "zz", From: []string{"function:charge"}, To: []string{"event_type:*"}, Actions: []policy.Action{policy.Publish}})
	}))
	if a := both.WhoCan(policy.Publish, paid, []policy.Principal{charge}, nil)[0]; !a.Allowed || a.Assumed != nil || !slices.Equal(a.Bridges, []string{"bridge:shop/payments/zz"}) {
		t.Errorf("WhoCan publish out, surely: %+v", a)
	}
	// One in dry-run assumes nothing.
	dry := within(t, payments(func(p *policy.Perimeter) { p.Mode, p.Require = policy.DryRun, []string{"office"} }))
	if a := dry.WhoCan(policy.Publish, asked, []policy.Principal{ann}, nil)[0]; !a.Allowed || a.Assumed != nil || a.Bridges != nil || a.DryRun != nil {
		t.Errorf("WhoCan in dry-run: %+v", a)
	}
	reach, err := after.CanReach(bob, u, nil)
	if err != nil || len(reach) != 1 || reach[0].Resource != paid {
		t.Errorf("CanReach = %+v (%v)", reach, err)
	}
	changes, err := policy.Diff(before, after, u, nil)
	if err != nil || len(changes) != 1 || changes[0].Principal != 1 || !slices.Equal(changes[0].New.Policies, []string{"perimeter:shop/payments"}) {
		t.Errorf("Diff = %+v (%v)", changes, err)
	}
	q := asks("user:bob", policy.Publish, asked)
	if d := policy.Replay([]policy.Request{q}, before, after); len(d) != 1 || d[0].New.Allowed {
		t.Errorf("Replay = %+v", d)
	}
	if f := after.Check([]policy.Test{{Request: q, By: []string{"perimeter:shop/payments"}}}); f != nil {
		t.Errorf("Check = %+v", f)
	}
	if e := after.Explain(q); len(e.Perimeters) != 1 || e.Perimeters[0].Needed == nil || len(e.Matched) == 0 {
		t.Errorf("Explain = %+v", e)
	}
}

// TestWithPerimeters replaces those of one namespace; policies and perimeters do not lose each other.
func TestWithPerimeters(t *testing.T) {
	t.Parallel()
	server := policy.PerimeterFile{Name: "s.toml", Perimeters: []policy.Perimeter{{Name: "s", EventTypes: []string{"shop/x"}}}}
	s := within(t, payments(nil), server)
	ids := func(s *policy.Set) (list []string) {
		for _, p := range s.Perimeters() {
			list = append(list, p.ID)
		}
		return list
	}
	changed, err := s.WithNamespace("shop", file("shop", `@id("p") permit (principal, action, resource);`))
	if err != nil {
		t.Fatal(err)
	}
	less, err := changed.WithPerimeters("shop")
	if err != nil {
		t.Fatal(err)
	}
	none, err := less.WithPerimeters("")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		s    *policy.Set
		want []string
	}{
		{s, []string{"perimeter:s", "perimeter:shop/payments"}},
		{changed, []string{"perimeter:s", "perimeter:shop/payments"}},
		{less, []string{"perimeter:s"}},
		{none, nil},
	} {
		if got := ids(tc.s); !slices.Equal(got, tc.want) {
			t.Errorf("perimeters %v, want %v", got, tc.want)
		}
	}
	q := asks("user:bob", policy.Publish, eventType("shop", "card"))
	if changed.Decide(q).Allowed || !less.Decide(q).Allowed || less.Decide(asks("user:bob", policy.Publish, eventType("shop", "x"))).Allowed {
		t.Error("perimeters are not those that are listed")
	}
	if p, ok := s.Perimeter("shop", "payments"); !ok || len(p.EventTypes) != 2 || p.Namespace != "shop" || p.File != "payments.toml" {
		t.Errorf("Perimeter = %+v, %v", p, ok)
	}
	if _, ok := s.Perimeter("", "payments"); ok {
		t.Error("a perimeter of a namespace is one of the server")
	}
	if p, _ := within(t, payments(func(p *policy.Perimeter) { p.Require = []string{"strong"} })).Perimeter("shop", "payments"); len(p.Levels) != 1 || !p.Levels[0].MutualTLS {
		t.Errorf("levels of Perimeter = %+v", p.Levels)
	}
	for name, f := range map[string]policy.PerimeterFile{
		"other namespace": {Namespace: "b", Perimeters: payments(nil).Perimeters},
		"no members":      {Namespace: "shop", Perimeters: []policy.Perimeter{{Name: "x"}}},
		"unknown mode":    {Namespace: "shop", Perimeters: []policy.Perimeter{{Name: "x", Mode: 7, Functions: []string{"f"}}}},
		"two of a name":   {Namespace: "shop", Perimeters: []policy.Perimeter{{Name: "x", Functions: []string{"f"}}, {Name: "x", Functions: []string{"f"}}}},
		"too many":        {Namespace: "shop", Perimeters: slices.Repeat([]policy.Perimeter{{Name: "x", Functions: []string{"f"}}}, policy.MaxPerimeters+1)},
	} {
		if _, err := s.WithPerimeters("shop", f); problem.From(err) == nil || problem.From(err).Kind != problem.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := payments(nil)
	other.Name = "more.toml"
	for _, f := range []policy.PerimeterFile{payments(nil), other} {
		if _, err := s.WithPerimeters("shop", payments(nil), f); err == nil || problem.From(err).Faults[0].File != f.Name {
			t.Errorf("two files have a perimeter of one name: %v", err)
		}
	}
	if _, err := s.WithPerimeters("UPPER"); err == nil {
		t.Error("perimeters of no namespace")
	}
	if _, err := policy.NewWith(policy.Config{Perimeters: []policy.PerimeterFile{{Namespace: "shop"}}}); err == nil {
		t.Error("NewWith takes a file without perimeters")
	}
}

// TestPerimetersAreBounded: each number has its limit, checked before what is in the list.
func TestPerimetersAreBounded(t *testing.T) {
	t.Parallel()
	many := func(n int, s string) []string { return slices.Repeat([]string{s}, n+1) }
	for name, change := range map[string]func(*policy.PerimeterFile, *policy.Perimeter, *policy.Bridge){
		"levels": func(f *policy.PerimeterFile, _ *policy.Perimeter, _ *policy.Bridge) {
			f.Levels = slices.Repeat(f.Levels, policy.MaxLevels)
		},
		"ranges": func(f *policy.PerimeterFile, _ *policy.Perimeter, _ *policy.Bridge) {
			f.Levels[0].IP = many(policy.MaxLevelValues, "192.0.2.1")
		},
		"hours": func(f *policy.PerimeterFile, _ *policy.Perimeter, _ *policy.Bridge) {
			f.Levels[0].Hours = many(policy.MaxLevelValues, "00:00-24:00")
		},
		"methods": func(f *policy.PerimeterFile, _ *policy.Perimeter, _ *policy.Bridge) {
			f.Levels[0].Methods = many(policy.MaxLevelValues, "x")
		},
		"description": func(_ *policy.PerimeterFile, p *policy.Perimeter, _ *policy.Bridge) {
			p.Description = strings.Repeat("x", policy.MaxDescription+1)
		},
		"event types": func(_ *policy.PerimeterFile, p *policy.Perimeter, _ *policy.Bridge) {
			p.EventTypes = many(policy.MaxMembers, "x")
		},
		"functions": func(_ *policy.PerimeterFile, p *policy.Perimeter, _ *policy.Bridge) {
			p.Functions = many(policy.MaxMembers, "x")
		},
		"required": func(_ *policy.PerimeterFile, p *policy.Perimeter, _ *policy.Bridge) {
			p.Require = many(policy.MaxRequired, "office")
		},
		"bridges": func(_ *policy.PerimeterFile, p *policy.Perimeter, b *policy.Bridge) {
			p.Bridges = slices.Repeat([]policy.Bridge{*b}, policy.MaxBridges+1)
		},
		"ends": func(_ *policy.PerimeterFile, _ *policy.Perimeter, b *policy.Bridge) {
			b.From = many(policy.MaxEnds, "user:x")
		},
		"name": func(_ *policy.PerimeterFile, _ *policy.Perimeter, b *policy.Bridge) {
			b.From = []string{"user:" + strings.Repeat("x", 1001)}
		},
		"condition": func(_ *policy.PerimeterFile, _ *policy.Perimeter, b *policy.Bridge) {
			b.When = strings.Repeat(" ", policy.MaxConditionBytes) + "true"
		},
		"tokens": func(_ *policy.PerimeterFile, _ *policy.Perimeter, b *policy.Bridge) {
			b.When = "true" + strings.Repeat(" && true", policy.MaxConditionTokens/2)
		},
		"not text": func(_ *policy.PerimeterFile, _ *policy.Perimeter, b *policy.Bridge) {
			b.When = "principal.role == \"\xff\""
		},
	} {
		f := payments(nil)
		p := &f.Perimeters[0]
		change(&f, p, &p.Bridges[0])
		faults, err := policy.CheckPerimeters(f)
		if err != nil || len(faults) == 0 {
			t.Errorf("%s: %v, %v", name, faults, err)
		}
		if len(faults) > 60 {
			t.Errorf("%s: %d faults", name, len(faults))
		}
	}
	if faults, err := policy.CheckPerimeters(payments(nil)); err != nil || len(faults) > 0 {
		t.Errorf("the good file: %v %v", faults, err)
	}
}

// naive is a perimeter file evaluated from its texts, without an index, and with conditions that a test can evaluate itself.
type naive struct{ files []policy.PerimeterFile }

// side is one end as the naive evaluator sees it: all names that a pattern may have for it.
type side struct{ kind, ns, name string }

func (n *naive) matches(pattern string, ns ident.Namespace, s side) bool {
	kind, name, _ := strings.Cut(pattern, ":")
	if kind != s.kind {
		return false
	}
	full := s.name
	switch kind {
	case "function", "event_type", "secret", "kv":
		full = s.ns + "/" + s.name
		if ns != "" {
			name = string(ns) + "/" + name
		}
	case "host":
		if ns != "" && string(ns) != s.ns {
			return false // a namespace's perimeter is about what its own functions reach
		}
		name = strings.Trim(name, "[]")
		if end, below := strings.CutPrefix(name, "*."); below {
			return strings.HasSuffix(full, "."+end)
		}
	}
	if head, found := strings.CutSuffix(name, "*"); found {
		return strings.HasPrefix(full, head)
	}
	return full == name
}

func (n *naive) inside(p *policy.Perimeter, ns ident.Namespace, s side) bool {
	for _, t := range p.EventTypes {
		if n.matches("event_type:"+t, ns, s) {
			return true
		}
	}
	for _, f := range p.Functions {
		if n.matches("function:"+f, ns, s) {
			return true
		}
	}
	for kind, list := range map[string][]string{"secret": p.Secrets, "host": p.Hosts, "kv": p.KV} {
		for _, m := range list {
			if n.matches(kind+":"+m, ns, s) {
				return true
			}
		}
	}
	return false
}

// deniesAny is denies for several things that are reached at once.
func (n *naive) deniesAny(q *policy.Request, from side, to []side) (denied, dry []string) {
	for _, one := range to {
		d, w := n.denies(q, from, one)
		denied, dry = append(denied, d...), append(dry, w...)
	}
	slices.Sort(denied)
	slices.Sort(dry)
	return slices.Compact(denied), slices.Compact(dry)
}

// denies returns the perimeters that deny, by the words of the documentation.
func (n *naive) denies(q *policy.Request, from, to side) (denied, dry []string) {
	for _, f := range n.files {
		for i := range f.Perimeters {
			p := &f.Perimeters[i]
			out, in := n.inside(p, f.Namespace, from), n.inside(p, f.Namespace, to)
			if out == in {
				continue
			}
			open := false
			for _, b := range p.Bridges {
				begins := slices.ContainsFunc(b.From, func(s string) bool {
					if g, ok := strings.CutPrefix(s, "group:"); ok {
						return slices.Contains(q.Principal.Groups, g)
					}
					return n.matches(s, f.Namespace, from)
				})
				leads := slices.ContainsFunc(b.To, func(s string) bool { return n.matches(s, f.Namespace, to) })
				open = open || begins && leads && slices.Contains(b.Actions, q.Action) && (b.When == "" || q.Context.Transport == policy.TransportMutualTLS)
			}
			if in && q.Action != policy.Deliver {
				for _, r := range p.Require {
					l := f.Levels[slices.IndexFunc(f.Levels, func(l policy.Level) bool { return l.Name == r })]
					open = open && (len(l.IP) == 0 || q.Context.IP.IsValid() && q.Context.IP.String() == "192.0.2.1") &&
						(len(l.Hours) == 0 || q.Context.Now.Hour() == 12) && (len(l.Strength) == 0 || q.Principal.Claims != nil)
				}
			}
			id := policy.PerimeterID(f.Namespace, p.Name)
			switch {
			case open:
			case p.Mode == policy.DryRun:
				dry = append(dry, id)
			default:
				denied = append(denied, id)
			}
		}
	}
	slices.Sort(denied)
	slices.Sort(dry)
	return denied, dry
}

// TestPerimetersAgainstNaive: with random perimeters and requests, the index and the checks find what a plain reading
// of the files finds; Reads names what the decision depends on; and what is allowed is so without its context.
func TestPerimetersAgainstNaive(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	denied, dry, bridged, open := 0, 0, 0, 0
	for round := range 60 {
		n := &naive{files: []policy.PerimeterFile{randomPerimeters(rnd, ""), randomPerimeters(rnd, "a"), randomPerimeters(rnd, "b")}}
		s := within(t, n.files...)
		for range 500 {
			q, from, to := randomCrossing(rnd)
			wantDenied, wantDry := n.deniesAny(&q, from, to)
			var got policy.Decision
			if q.Action == policy.Deliver {
				got = s.CanDeliver(ident.Namespace(to[0].ns), ident.EventType(from.name), ident.FunctionName(to[0].name))
			} else {
				got = s.Cross(q)
			}
			if diff := cmp.Diff(wantDenied, got.Policies, cmpopts.EquateEmpty()); diff != "" || got.Allowed != (len(wantDenied) == 0) {
				t.Fatalf("round %d: %+v of %+v: allowed %v (-want +got):\n%s\n%+v", round, q.Action, q, got.Allowed, diff, n.files)
			}
			if diff := cmp.Diff(wantDry, got.DryRun, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("round %d: dry-run of %+v (-want +got):\n%s", round, q, diff)
			}
			if q.Action != policy.Deliver {
				checkReads(t, rnd, s, q, got)
			}
			switch q.Action {
			case policy.Publish, policy.Invoke, policy.UseGrant, policy.UseSecret, policy.RevealSecret, policy.SetSecret:
				decided := s.Decide(q)
				for _, id := range wantDenied {
					if decided.Allowed || !slices.Contains(decided.Policies, id) {
						t.Fatalf("round %d: %+v is decided as %+v, want a deny by %s", round, q, decided, id)
					}
				}
				if len(wantDenied) == 0 && !decided.Allowed && !slices.Contains(decided.Policies, "namespace-border") {
					t.Fatalf("round %d: %+v is denied by %v", round, q, decided.Policies)
				}
				if decided.Allowed && !s.Loose(q).Allowed {
					t.Fatalf("round %d: allowed, but not without its context: %+v", round, q)
				}
			}
			denied, dry = denied+len(wantDenied), dry+len(wantDry)
			if len(got.Bridges) > 0 {
				bridged++
			} else if got.Allowed {
				open++
			}
		}
	}
	if denied < 1000 || dry < 1000 || bridged < 1000 || open < 1000 {
		t.Errorf("%d denied, %d in dry-run, %d by a bridge, %d without: the random perimeters test too little", denied, dry, bridged, open)
	}
}

// checkReads changes what of the context Reads does not name, and sees that the decision stays.
func checkReads(t *testing.T, rnd *rand.Rand, s *policy.Set, q policy.Request, want policy.Decision) {
	t.Helper()
	parts := s.Reads(q.Action, q.Resource)
	other := randomContext(rnd)
	if parts&policy.PartIP == 0 {
		q.Context.IP = other.IP
	}
	if parts&policy.PartNow == 0 {
		q.Context.Now = other.Now
	}
	// Reads names the transport for every action that policies know, by the guard rail.
	if got := s.Cross(q); cmp.Diff(want, got) != "" {
		t.Fatalf("%+v: what Reads does not name changes the decision from %+v to %+v", q, want, got)
	}
}

func randomContext(rnd *rand.Rand) policy.Context {
	c := policy.Context{
		Transport: pick(rnd, policy.TransportTLS, policy.TransportMutualTLS), Now: pick(rnd, noon, noon.Add(8*time.Hour)),
		Event: &policy.Event{Type: "x"},
	}
	if rnd.IntN(3) > 0 {
		c.IP = ip(pick(rnd, "192.0.2.1", "198.51.100.1"))
	}
	return c
}

func randomCrossing(rnd *rand.Rand) (q policy.Request, from side, all []side) {
	ns := pick(rnd, "a", "b")
	q.Action = pick(rnd, policy.PerimeterActions()...)
	q.Context = randomContext(rnd)
	to := side{"event_type", ns, pick(rnd, "x", "x.y", "xz", "y")}
	switch q.Action {
	case policy.UseGrant, policy.UseSecret, policy.RevealSecret, policy.SetSecret, policy.RotateSecret, policy.DestroySecret, policy.ReadSecretMetadata:
		return randomReach(rnd, q, ns)
	case policy.Invoke, policy.Deliver, policy.ReadLogs, policy.Deploy:
		to = side{"function", ns, pick(rnd, "f", "fa", "g")}
	}
	q.Resource = eventType(ident.Namespace(ns), to.name)
	if to.kind == "function" {
		q.Resource = function(ident.Namespace(ns), to.name)
	}
	if q.Action == policy.Deliver {
		return q, side{"event_type", ns, pick(rnd, "x", "x.y", "xz", "y")}, []side{to}
	}
	q.Principal, from = randomActor(rnd, ns, q.Action == policy.Publish || q.Action == policy.Invoke)
	return q, from, []side{to}
}

// randomReach is a crossing to a secret, or to what a grant reaches.
func randomReach(rnd *rand.Rand, q policy.Request, ns string) (policy.Request, side, []side) {
	var from side
	if q.Action != policy.UseGrant {
		secret := side{"secret", ns, pick(rnd, "k", "ka", "m")}
		q.Resource = policy.Resource{Kind: policy.KindSecret, Namespace: ident.Namespace(ns), Name: secret.name}
		q.Principal, from = randomActor(rnd, ns, q.Action == policy.UseSecret || q.Action == policy.RevealSecret)
		return q, from, []side{secret}
	}
	q.Principal, from = randomActor(rnd, ns, true)
	var all []side
	var texts []string
	for range rnd.IntN(3) {
		one := pick(rnd, side{"host", ns, pick(rnd, "a.test", "b.a.test", "xa.test", "192.0.2.7", "2001:db8::7")}, side{"kv", ns, pick(rnd, "k", "ka", "m")})
		all, texts = append(all, one), append(texts, one.kind+":"+one.name)
	}
	q.Resource = policy.OfGrant(ident.Namespace(ns), "f", "g", "http", strings.Join(texts, "\n"))
	return q, from, all
}

// randomActor is who does something in a namespace.
func randomActor(rnd *rand.Rand, ns string, functions bool) (policy.Principal, side) {
	kinds := []string{"user", "service", "token"}
	if functions {
		kinds = append(kinds, "function", "function", "function")
	}
	from := side{kind: pick(rnd, kinds...), name: pick(rnd, "ann", "anna", "bob")}
	id := from.kind + ":" + from.name
	if from.kind == "function" {
		from.ns, from.name = pick(rnd, ns, ns, "a", "b"), pick(rnd, "f", "fa", "g")
		id = "function:" + from.ns + "/" + from.name
	}
	p := actor(id)
	if from.kind != "function" {
		p.Groups = []string{pick(rnd, "g0", "g1"), "g2"}
		if rnd.IntN(2) == 0 {
			p.Claims = &policy.Claims{Strength: "phr"}
		}
	}
	return p, from
}

func randomPerimeters(rnd *rand.Rand, ns ident.Namespace) policy.PerimeterFile {
	name := func(s string) string {
		if ns == "" {
			return pick(rnd, "a", "b") + "/" + s
		}
		return s
	}
	// A member stands in a perimeter once.
	some := func(most int, make func() string) (list []string) {
		for range rnd.IntN(most + 1) {
			if m := make(); !slices.Contains(list, m) {
				list = append(list, m)
			}
		}
		return list
	}
	f := policy.PerimeterFile{Name: string(ns) + ".toml", Namespace: ns, Levels: []policy.Level{
		{Name: "net", IP: []string{"192.0.2.0/24"}}, {Name: "noon", Hours: []string{"12:00-13:00"}}, {Name: "strong", Strength: []string{"phr"}},
	}}
	types := func() string { return name(pick(rnd, "x", "x*", "x.*", "y", "*")) }
	functions := func() string { return name(pick(rnd, "f", "f*", "g", "*")) }
	keys := func() string { return name(pick(rnd, "k", "k*", "m", "*")) }
	hosts := func() string { return pick(rnd, "a.test", "*.a.test", "192.0.2.7", "[2001:db8::7]", "*") }
	for i := range 1 + rnd.IntN(3) {
		p := policy.Perimeter{
			Name: fmt.Sprintf("p%d", i), EventTypes: some(3, types), Functions: append(some(2, functions), name("own")), Mode: pick(rnd, policy.Enforce, policy.DryRun),
			Secrets: some(2, keys), KV: some(1, keys), Hosts: some(2, hosts),
			Require: some(2, func() string { return pick(rnd, "net", "noon", "strong") }),
		}
		if rnd.IntN(2) == 0 {
			p.Require = nil
		}
		for j := range rnd.IntN(14) {
			p.Bridges = append(p.Bridges, randomBridge(rnd, fmt.Sprintf("b%d", j), types, functions, keys, hosts))
		}
		f.Perimeters = append(f.Perimeters, p)
	}
	return f
}

func randomBridge(rnd *rand.Rand, name string, types, functions, keys, hosts func() string) policy.Bridge {
	b := policy.Bridge{Name: name}
	if rnd.IntN(4) == 0 {
		b.From, b.To, b.Actions = []string{"event_type:" + types()}, []string{"function:" + functions()}, []policy.Action{policy.Deliver}
		return b
	}
	b.Actions = pick(rnd, []policy.Action{policy.Publish}, []policy.Action{policy.Publish, policy.ReadEvents}, []policy.Action{policy.Invoke},
		[]policy.Action{policy.Invoke, policy.ReadLogs, policy.Deploy}, []policy.Action{policy.ReadEventData, policy.ReadDeadLetters},
		[]policy.Action{policy.UseGrant}, []policy.Action{policy.UseGrant}, []policy.Action{policy.UseSecret}, []policy.Action{policy.SetSecret, policy.ReadSecretMetadata})
	b.To = []string{"event_type:" + types(), "event_type:" + types()}
	if slices.Contains(b.Actions, policy.Invoke) {
		b.To = []string{"function:" + functions()}
	}
	switch b.Actions[0] {
	case policy.UseGrant:
		b.To = []string{"host:" + hosts(), "kv:" + keys()}
	case policy.UseSecret, policy.SetSecret:
		b.To = []string{"secret:" + keys()}
	}
	b.From = []string{pick(rnd, "user:ann", "user:*", "service:ann*", "token:*", "group:g0", "group:g1"), pick(rnd, "user:bob", "group:g2")}
	if len(b.Actions) == 1 {
		b.From = append(b.From, "function:"+functions(), "function:"+functions())
	}
	if rnd.IntN(3) == 0 {
		b.When = "context.mtls"
	}
	return b
}

// FuzzBridgeCondition: whatever is taken as a condition is one expression, and no more: in brackets, in a policy, it is
// one policy with one condition.
func FuzzBridgeCondition(f *testing.F) {
	for _, s := range []string{
		"true", "context.tls && principal.role == \"operator\"", "true }; permit (principal, action, resource) when { true", "(true } unless { false)",
		"// x", "context.tls // x", "\"}\" == \"\\\"}\"", "[1, 2].contains(1)", "{\"a\": 1} has a", "if true then 1 == 2 else false", "1 < 2 } when { true",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file := payments(func(p *policy.Perimeter) {
			p.Bridges = []policy.Bridge{{Name: "b", From: []string{"user:x"}, To: []string{"function:charge"}, Actions: []policy.Action{policy.Invoke}, When: text}}
		})
		faults, err := policy.CheckPerimeters(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range faults {
			if fault.Detail == "" || len(fault.Path) != 5 || fault.In.Line > 1+strings.Count(text, "\n") {
				t.Fatalf("fault %+v is nowhere in %q", fault, text)
			}
		}
		if len(faults) > 0 || text == "" {
			return
		}
		s, err := policy.New(policy.File{Name: "x.cedar", Text: []byte("@id(\"x\") permit (principal is User, action == Action::\"invoke\", resource) when { (" + text + "\n) };")})
		if err != nil {
			t.Fatalf("%q is a condition, and not in brackets: %v %+v", text, err, problem.From(err).Faults)
		}
		own := 0
		for p := range s.Policies() {
			if !p.BuiltIn {
				own++
			}
		}
		if own != 1 {
			t.Fatalf("%q makes %d policies", text, own)
		}
	})
}

// TestExplainParts: what is asked about one part of a namespace, and a delivery, are explained and replayed by what decides them.
func TestExplainParts(t *testing.T) {
	t.Parallel()
	free, closed := within(t), within(t, payments(nil))
	logs := asks("user:ann", policy.ReadLogs, policy.Resource{Kind: policy.KindFunction, Namespace: "shop", Name: "charge"})
	read := asks("user:auditor", policy.ReadEvents, eventType("shop", "card"))
	into, out := policy.DeliveryRequest("shop", "order.paid", "charge"), policy.DeliveryRequest("shop", "payment.settled", "ship")
	for _, tc := range []struct {
		name      string
		q         policy.Request
		allowed   bool
		policies  []string
		bridges   []string
		crossings int
	}{
		{"logs", logs, false, []string{"perimeter:shop/payments"}, nil, 1},
		{"read", read, true, []string{"all"}, []string{"bridge:shop/payments/read"}, 1},
		{"deliver in", into, false, []string{"perimeter:shop/payments"}, nil, 1},
		{"deliver out", out, true, nil, []string{"bridge:shop/payments/settled"}, 1},
		{"deliver beside", policy.DeliveryRequest("shop", "order.paid", "ship"), true, nil, nil, 0},
	} {
		e := closed.Explain(tc.q)
		want := policy.Decision{Allowed: tc.allowed, Policies: tc.policies, Bridges: tc.bridges}
		if diff := cmp.Diff(want, e.Decision, cmpopts.EquateEmpty()); diff != "" || !e.Known || len(e.Perimeters) != tc.crossings {
			t.Errorf("%s: known %v, %d perimeters (-want +got):\n%s", tc.name, e.Known, len(e.Perimeters), diff)
		}
		differs := policy.Replay([]policy.Request{tc.q}, free, closed)
		if (len(differs) == 0) != tc.allowed {
			t.Errorf("%s: replayed %+v", tc.name, differs)
		}
	}
	denying, err := policy.New(file("", `@id("no") forbid (principal == User::"auditor", action == Action::"readEvents", resource);`), permitAll)
	if err != nil {
		t.Fatal(err)
	}
	if e := denying.Explain(read); e.Decision.Allowed || !slices.Equal(e.Decision.Policies, []string{"no"}) || len(e.Matched) == 0 {
		t.Errorf("a policy about the namespace does not deny what is in it: %+v", e)
	}
	for _, q := range []policy.Request{
		{Principal: actor("user:ann"), Action: policy.Deliver, Resource: into.Resource},
		{Principal: policy.DeliveryRequest("bank", "a", "f").Principal, Action: policy.Deliver, Resource: into.Resource},
	} {
		if e := closed.Explain(q); e.Known || e.Decision.Allowed {
			t.Errorf("%s delivers: %+v", q.Principal.ID, e)
		}
	}
}
