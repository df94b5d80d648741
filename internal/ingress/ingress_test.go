package ingress_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/schema"
)

// log remembers what was appended.
type log struct{ recs []event.Record }

func (l *log) Append(_ context.Context, recs []event.Record) ([]eventlog.Appended, error) {
	out := make([]eventlog.Appended, len(recs))
	for i := range recs {
		l.recs = append(l.recs, recs[i])
		out[i] = eventlog.Appended{Position: ident.NewPosition(1, len(l.recs)-1)}
	}
	return out, nil
}

// guard allows what its list names and counts the questions.
type guard struct {
	allow map[policy.Resource]policy.Action
	asked int
	// events are those asked about; each says that policies look at events.
	events []policy.Event
	each   bool
	cause  *access.Cause // of the last event
	who    *access.Principal
	keeps  string
}

func (g *guard) Authorize(_ context.Context, p *access.Principal, a policy.Action, r policy.Resource) error {
	g.asked++
	if g.allow[r] == a {
		return nil
	}
	return problem.New(problem.Denied, "access.denied", "%s may not", p.ID).WithPolicies("test")
}

func (g *guard) AuthorizeEvent(ctx context.Context, p *access.Principal, ns ident.Namespace, e *policy.Event, cause *access.Cause) error {
	g.cause, g.who = cause, p
	g.events = append(g.events, *e)
	return g.Authorize(ctx, p, policy.Publish, policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: e.Type})
}

func (g *guard) AuthorizeCaused(ctx context.Context, p *access.Principal, a policy.Action, r policy.Resource, cause *access.Cause) error {
	g.cause, g.who = cause, p
	return g.Authorize(ctx, p, a, r)
}

func (g *guard) AuthorizeUse(ctx context.Context, p *access.Principal, r policy.Resource, _ string, cause *access.Cause) error {
	return g.AuthorizeCaused(ctx, p, policy.UseGrant, r, cause)
}

func (g *guard) Keep(_ context.Context, p *access.Principal) (string, error) { return g.keeps, nil }

func (g *guard) SameForType(ident.Namespace, ident.EventType) bool { return !g.each }

type world struct {
	*ingress.Intake
	log   log
	guard guard
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := schema.Compile([]byte(`{"type":"object","properties":{"n":{"type":"integer"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	state := &deploy.State{
		Functions:  map[ident.FunctionName]*deploy.Function{"fn": {Name: "fn"}},
		EventTypes: map[ident.EventType]*deploy.EventType{"checked": {Schema: s}, "plain": {}},
	}
	w := &world{guard: guard{allow: map[policy.Resource]policy.Action{}}}
	for _, typ := range []string{"checked", "plain"} {
		w.guard.allow[policy.Resource{Kind: policy.KindEventType, Namespace: "ns", Name: typ}] = policy.Publish
	}
	for _, fn := range []string{"fn", "missing"} {
		w.guard.allow[policy.Resource{Kind: policy.KindFunction, Namespace: "ns", Name: fn}] = policy.Invoke
	}
	w.Intake = ingress.New(ingress.Config{
		Guard: &w.guard, State: func(ident.Namespace) *deploy.State { return state },
		Log: func(ns ident.Namespace) (ingress.Log, error) {
			if ns != "ns" {
				return nil, errors.New("no such namespace")
			}
			return &w.log, nil
		},
	})
	return w
}

func jsonEvent(id string, typ ident.EventType, data string) event.Event {
	return event.Event{ID: id, Source: "/s", Type: typ, Data: []byte(data), DataKind: event.DataJSON}
}

var who = access.FunctionPrincipal("ns", "tester", 1, nil)

func TestAccept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evs := []event.Event{jsonEvent("1", "checked", `{"n":1}`), jsonEvent("2", "plain", `7`), jsonEvent("3", "plain", `8`)}
	receipts, err := w.Accept(t.Context(), who, "ns", evs, ingress.Options{})
	if err != nil || len(receipts) != 3 || receipts[2].ID != "3" || receipts[2].Position != uint64(ident.NewPosition(1, 2)) {
		t.Fatalf("Accept = %+v, %v", receipts, err)
	}
	if w.guard.asked != 2 {
		t.Errorf("the guard was asked %d times about two types", w.guard.asked)
	}
	if r := w.log.recs[0]; r.Principal != who.ID || r.AcceptedAt.IsZero() || r.Target != "" || r.Cause != 0 {
		t.Errorf("the stored record is %+v", r)
	}
	if _, err := w.Accept(t.Context(), who, "ns", evs[:1], ingress.Options{Target: "fn"}); err != nil || w.log.recs[3].Target != "fn" {
		t.Errorf("invocation: %v, %+v", err, w.log.recs)
	}
}

func TestAcceptRefuses(t *testing.T) {
	t.Parallel()
	binary := jsonEvent("1", "checked", "x")
	binary.DataKind = event.DataBinary
	reserved := jsonEvent("1", "plain", `1`)
	reserved.Source = "/namespaces/ns/functions/fn"
	good := jsonEvent("0", "plain", `1`)
	for _, tc := range []struct {
		name    string
		ns      ident.Namespace
		evs     []event.Event
		opts    ingress.Options
		code    string
		pointer string
	}{
		{"type not allowed", "ns", []event.Event{good, jsonEvent("1", "other", `1`)}, ingress.Options{}, "access.denied", ""},
		{"other namespace", "elsewhere", []event.Event{good}, ingress.Options{}, "access.denied", ""},
		{"violation", "ns", []event.Event{jsonEvent("1", "checked", `{"n":"x"}`)}, ingress.Options{}, "event.schema_violation", "/n"},
		{"violation in a batch", "ns", []event.Event{good, jsonEvent("1", "checked", `{"n":"x"}`)}, ingress.Options{}, "event.schema_violation", "/1/data/n"},
		{"no JSON for a schema", "ns", []event.Event{binary}, ingress.Options{}, "event.schema_violation", ""},
		{"source of the platform", "ns", []event.Event{reserved}, ingress.Options{}, "ingress.reserved_source", ""},
		{"function not there", "ns", []event.Event{good}, ingress.Options{Target: "missing"}, "deploy.function_not_found", ""},
		{"function not allowed", "ns", []event.Event{good}, ingress.Options{Target: "secret"}, "access.denied", ""},
	} {
		w := newWorld(t)
		_, err := w.Accept(t.Context(), who, tc.ns, tc.evs, tc.opts)
		p := problem.From(err)
		if p.Code != tc.code || len(w.log.recs) != 0 {
			t.Errorf("%s: %v, %d stored; want %s and nothing", tc.name, err, len(w.log.recs), tc.code)
		}
		if tc.pointer != "" && (len(p.Faults) == 0 || p.Faults[0].Pointer != tc.pointer) {
			t.Errorf("%s: faults %+v, want %s", tc.name, p.Faults, tc.pointer)
		}
	}
}

func emission(hops uint8, evs ...event.Event) ingress.Emission {
	cause := &event.Record{Event: event.Event{ID: "cause"}, Position: 5000, Hops: hops}
	cause.SetExtension("traceparent", "trace")
	return ingress.Emission{
		Namespace: "ns", Function: &deploy.Function{Name: "fn", Publishes: []ident.EventType{"plain"}}, Delivery: "sub", Cause: cause, Events: evs,
	}
}

func TestEmit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	em := emission(2, event.Event{Type: "plain", Data: []byte(`1`), DataKind: event.DataJSON}, event.Event{Type: "plain"})
	first, err := w.Emit(t.Context(), em)
	if err != nil || len(first) != 2 || first[0] == first[1] {
		t.Fatalf("Emit = %v, %v", first, err)
	}
	again, err := w.Emit(t.Context(), em)
	if d := cmp.Diff(first, again); err != nil || d != "" {
		t.Errorf("a repeated attempt gives other ids (-first +again): %v\n%s", err, d)
	}
	other := em
	other.Delivery = "other"
	if ids, err := w.Emit(t.Context(), other); err != nil || ids[0] == first[0] {
		t.Errorf("another delivery gives the same ids: %v, %v", ids, err)
	}
	r := w.log.recs[0]
	trace, _ := r.Extension("traceparent")
	if r.Source != "/namespaces/ns/functions/fn" || r.Principal != "function:ns/fn" || r.Cause != 5000 || r.CauseID != "cause" || r.Hops != 3 || trace != "trace" || r.ID != first[0] {
		t.Errorf("the emitted record is %+v", r)
	}
	if ids, err := w.Emit(t.Context(), emission(0)); err != nil || ids != nil {
		t.Errorf("an emission without events = %v, %v", ids, err)
	}
}

// TestChain: who sent the first event is behind all that follow from it, with every function since and its revision, and a
// chain ends at its bound.
func TestChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.guard.keeps = "00ff"
	if _, err := w.Accept(t.Context(), who, "ns", []event.Event{jsonEvent("1", "plain", `1`)}, ingress.Options{}); err != nil {
		t.Fatal(err)
	}
	if b := w.log.recs[0].Behind; b != (event.Behind{Authority: "00ff"}) {
		t.Errorf("behind an event from outside: %+v", b)
	}
	chain := ""
	for hop := 1; ; hop++ {
		stored, err := event.ParseRecord(event.AppendRecord(nil, &w.log.recs[hop-1]))
		if err != nil {
			t.Fatal(err)
		}
		stored.Position = ident.NewPosition(uint64(hop), 0)
		name := ident.FunctionName(fmt.Sprint("f", hop))
		ids, err := w.Emit(t.Context(), ingress.Emission{
			Namespace: "ns", Function: &deploy.Function{Name: name, Revision: 10 * hop, Publishes: []ident.EventType{"plain"}}, Cause: &stored,
			Events: []event.Event{{Type: "plain"}},
		})
		if hop > ingress.MaxHops {
			if problem.From(err).Code != "ingress.too_many_hops" {
				t.Errorf("hop %d: %v, %v", hop, ids, err)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		// The function that acts is the principal; those before it are in the cause.
		want := &access.Cause{Principal: who.ID, Authority: "00ff"}
		for i := 1; i < hop; i++ {
			want.Functions = append(want.Functions, access.FunctionID("ns", ident.FunctionName(fmt.Sprint("f", i))))
		}
		if diff := cmp.Diff(want, w.guard.cause); diff != "" {
			t.Errorf("hop %d (-want +got):\n%s", hop, diff)
		}
		if w.guard.who.Policy().Revision != fmt.Sprint(10*hop) {
			t.Errorf("hop %d: decided about revision %q", hop, w.guard.who.Policy().Revision)
		}
		chain = strings.TrimPrefix(fmt.Sprintf("%s f%d@%d", chain, hop, 10*hop), " ")
		if b := w.log.recs[hop].Behind; b != (event.Behind{Principal: who.ID, Authority: "00ff", Functions: chain}) {
			t.Errorf("hop %d: behind it: %+v", hop, b)
		}
	}
}

// TestOldChain: an event that a function emitted before it was kept who is behind it has nobody behind it who may do anything.
func TestOldChain(t *testing.T) {
	t.Parallel()
	c := ingress.CauseOf("ns", &event.Record{Principal: "function:ns/f", Cause: 1, CauseID: "x", Hops: 1})
	if c.Principal != "function:ns/f" || c.Authority != "" || c.Functions != nil {
		t.Errorf("CauseOf = %+v", c)
	}
}

func TestEmitRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		em   ingress.Emission
		code string
	}{
		"chain too long":   {emission(ingress.MaxHops, event.Event{Type: "plain"}), "ingress.too_many_hops"},
		"not granted":      {emission(0, event.Event{Type: "plain"}, event.Event{Type: "other"}), "ingress.publish_not_granted"},
		"schema violation": {emission(0, jsonEvent("", "checked", `{"n":"x"}`)), "event.schema_violation"},
	} {
		w := newWorld(t)
		if _, err := w.Emit(t.Context(), tc.em); problem.From(err).Code != tc.code || len(w.log.recs) != 0 {
			t.Errorf("%s: %v, %d stored; want %s and nothing", name, err, len(w.log.recs), tc.code)
		}
	}
}
