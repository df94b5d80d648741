package access_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/store"
	"sallyport/internal/testkit"
)

// Get makes memory a bucket of callers.
func (b *memory) Get(_ context.Context, key string) ([]byte, error) {
	if v, ok := b.m[key]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

// behindWorld is a guard whose policies let functions publish "paid" and its like.
type behindWorld struct {
	*access.Guard
	tokens, callers *memory
}

func newBehindWorld(t *testing.T) *behindWorld {
	w := &behindWorld{tokens: &memory{m: map[string][]byte{}}, callers: &memory{m: map[string][]byte{}}}
	w.restart(t)
	return w
}

func (w *behindWorld) restart(t *testing.T) {
	t.Helper()
	w.Guard = newGuard(t, w.tokens)
	set, err := policy.New(policy.File{Name: "p.cedar", Namespace: "shop", Text: []byte(`
@id("functions") permit (principal is Function, action == Action::"publish", resource);
@id("own") @act_as("function") permit (principal is Function, action == Action::"publish", resource == EventType::"shop/own");
@id("no-guests") forbid (principal is User in Group::"x#guests", action, resource);
@id("chain") forbid (principal is Function, action == Action::"publish", resource == EventType::"shop/short") when { context has cause && context.cause.depth > 1 };
`)})
	if err != nil {
		t.Fatal(err)
	}
	w.Use(set)
	callers, err := access.OpenCallers(t.Context(), w.callers)
	if err != nil {
		t.Fatal(err)
	}
	w.KeepIn(callers)
}

// useText has the guard decide by the policies of a text, of the namespace.
func (w *behindWorld) useText(t *testing.T, text string) {
	t.Helper()
	set, err := policy.New(policy.File{Name: "p.cedar", Namespace: "shop", Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	w.Use(set)
}

// sent returns the cause that an event of p makes, by functions.
func (w *behindWorld) sent(t *testing.T, p *access.Principal, functions ...ident.PrincipalID) *access.Cause {
	t.Helper()
	authority, err := w.Keep(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return &access.Cause{Principal: p.ID, Authority: authority, Functions: functions}
}

// publish asks whether a function may publish a type because of a cause.
func (w *behindWorld) publish(t *testing.T, typ string, cause *access.Cause) *problem.Error {
	t.Helper()
	f := access.FunctionPrincipal("shop", "clerk", 3, []ident.EventType{"granted"})
	e := &policy.Event{Type: typ, Source: access.FunctionSource("shop", "clerk")}
	var answers []error
	for range 2 { // the second time it is remembered
		answers = append(answers, w.AuthorizeEvent(t.Context(), f, "shop", e, cause))
	}
	if fmt.Sprint(answers[0]) != fmt.Sprint(answers[1]) {
		t.Errorf("publish %s: first %v, then %v", typ, answers[0], answers[1])
	}
	if answers[0] == nil {
		return nil
	}
	return problem.From(answers[0])
}

func principal(t *testing.T, who *access.Identifier, text string) *access.Principal {
	t.Helper()
	p, err := who.Identify(request("Bearer " + text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBehind: a function does for a caller what the caller may do, whatever the caller came with, after a restart too; and
// by its grants what those say.
func TestBehind(t *testing.T) {
	t.Parallel()
	w := newBehindWorld(t)
	is := testkit.NewIssuer(t)
	who := newIdentifier(t, w.Guard, is, nil)
	publisher := create(t, w.Guard, api.TokenRequest{Role: "publisher", Namespace: "shop"})
	limited := create(t, w.Guard, api.TokenRequest{Role: "publisher", Namespace: "shop", EventTypes: []string{"order"}})
	reader := create(t, w.Guard, api.TokenRequest{Role: "reader", Namespace: "shop"})
	first, second := access.FunctionID("shop", "first"), access.FunctionID("shop", "second")
	may := map[string]*access.Cause{
		"publisher":        w.sent(t, principal(t, who, publisher.Text)),
		"publisher, far":   w.sent(t, principal(t, who, publisher.Text), first),
		"narrowed to it":   w.sent(t, principal(t, who, narrowed(t, publisher.Text, narrow.Caveats{Types: []string{"pa*"}}))),
		"user with a role": w.sent(t, principal(t, who, is.Token(map[string]any{"groups": []string{"shop-team"}}))),
	}
	mayNot := map[string]*access.Cause{
		"limited":            w.sent(t, principal(t, who, limited.Text)),
		"limited, far":       w.sent(t, principal(t, who, limited.Text), first, second),
		"reader":             w.sent(t, principal(t, who, reader.Text)),
		"narrowed":           w.sent(t, principal(t, who, narrowed(t, publisher.Text, narrow.Caveats{Types: []string{"order"}})), first),
		"narrowed to read":   w.sent(t, principal(t, who, narrowed(t, publisher.Text, narrow.Caveats{Actions: []string{"readEvents"}}))),
		"user without role":  w.sent(t, principal(t, who, is.Token(map[string]any{"groups": []string{"others"}}))),
		"nobody known":       {},
		"nobody, far":        {Functions: []ident.PrincipalID{first}},
		"a function":         {Principal: first},
		"unknown token":      {Principal: "token:0123456789abcdef"},
		"unknown user":       {Principal: "user:https://idp#eve"},
		"unknown authority":  {Principal: "user:https://idp#eve", Authority: strings.Repeat("0", 32)},
		"lost":               {Principal: "user:https://idp#eve", Authority: "?"},
		"malformed":          {Principal: "ada"},
		"another's":          {Principal: "user:https://idp#eve"},
		"another's, a token": {Principal: ident.PrincipalID("token:" + limited.ID)},
	}
	mayNot["another's"].Authority = may["user with a role"].Authority
	mayNot["another's, a token"].Authority = may["narrowed to it"].Authority
	for round := range 2 {
		for name, cause := range may {
			if err := w.publish(t, "paid", cause); err != nil {
				t.Errorf("round %d: %s: %v", round, name, err)
			}
		}
		for name, cause := range mayNot {
			err := w.publish(t, "paid", cause)
			if err == nil || err.Code != "access.denied_for_caller" || !strings.Contains(err.Hint, " --caused-by ") {
				t.Errorf("round %d: %s: %v, want access.denied_for_caller", round, name, err)
			}
			for _, own := range []string{"granted", "own"} {
				if err := w.publish(t, own, cause); err != nil {
					t.Errorf("round %d: %s: publish %s on its own authority: %v", round, name, own, err)
				}
			}
		}
		if err := w.publish(t, "short", w.sent(t, principal(t, who, publisher.Text), first, second)); err == nil || err.Code != "access.denied" {
			t.Errorf("a policy on the chain: %v", err)
		}
		w.restart(t)
	}
	if err := w.Revoke(t.Context(), publisher.ID); err != nil {
		t.Fatal(err)
	}
	for name, cause := range may {
		if err := w.publish(t, "paid", cause); (err == nil) != strings.HasPrefix(name, "user") {
			t.Errorf("after the token was revoked, %s: %v", name, err)
		}
	}
}

// TestCallersBounded: who narrows a token without end has no more kept than a bound, and nobody else's forgotten.
func TestCallersBounded(t *testing.T) {
	t.Parallel()
	w := newBehindWorld(t)
	who := access.NewIdentifier(w.Guard.Tokens, access.IdentifierConfig{})
	quiet := create(t, w.Guard, api.TokenRequest{Role: "publisher", Namespace: "shop"})
	noisy := create(t, w.Guard, api.TokenRequest{Role: "publisher", Namespace: "shop"})
	kept := w.sent(t, principal(t, who, narrowed(t, quiet.Text, narrow.Caveats{Types: []string{"paid"}})))
	for i := range access.MaxCallerStates + 20 {
		w.sent(t, principal(t, who, narrowed(t, noisy.Text, narrow.Caveats{Types: []string{fmt.Sprint("t", i)}})))
	}
	if n := len(w.callers.m); n != access.MaxCallerStates+1 {
		t.Errorf("%d are kept, want %d", n, access.MaxCallerStates+1)
	}
	if err := w.publish(t, "paid", kept); err != nil {
		t.Errorf("the one of another token: %v", err)
	}
	w.callers.fail = true
	p := principal(t, who, narrowed(t, quiet.Text, narrow.Caveats{Types: []string{"new"}}))
	if _, err := w.Keep(t.Context(), p); problem.From(err).Code != "access.unavailable" {
		t.Errorf("Keep without a store = %v", err)
	}
	if _, err := w.Keep(t.Context(), principal(t, who, quiet.Text)); err != nil {
		t.Errorf("a token needs none: %v", err)
	}
}

// TestMayGrant: nobody hands a function what they may not do, and the refusal names each grant and why.
func TestMayGrant(t *testing.T) {
	t.Parallel()
	w := newBehindWorld(t)
	set, err := policy.New(policy.File{Name: "p.cedar", Namespace: "shop", Text: []byte(`
@id("no-payments") forbid (principal is Token, action == Action::"publish", resource == EventType::"shop/payment");
@id("no-boss") forbid (principal is Token, action == Action::"invoke", resource == Function::"shop/boss");`)})
	if err != nil {
		t.Fatal(err)
	}
	w.Use(set)
	who := access.NewIdentifier(w.Guard.Tokens, access.IdentifierConfig{})
	dev := create(t, w.Guard, api.TokenRequest{Role: "developer", Namespace: "shop"})
	reader := create(t, w.Guard, api.TokenRequest{Role: "reader", Namespace: "shop"})
	deploys := narrowed(t, dev.Text, narrow.Caveats{Actions: []string{"deploy"}})
	// A perimeter that the function is inside of is passed by deploying it; any other one is in the way.
	perimeters, err := manifest.ParsePerimeters("perimeters.toml", []byte("[perimeters.a]\nfunctions = [\"f\"]\nevent_types = [\"with-f\"]\n[perimeters.b]\nevent_types = [\"without-f\"]\n"), "shop")
	if err != nil {
		t.Fatal(err)
	}
	bordered, err := policy.NewWith(policy.Config{Perimeters: []policy.PerimeterFile{perimeters}})
	if err != nil {
		t.Fatal(err)
	}
	p := principal(t, who, dev.Text)
	w.Use(bordered)
	if err := w.MayGrant(t.Context(), p, "shop", "f", map[string]manifest.Grant{"a": {Publish: []ident.EventType{"with-f", "x"}}}); err != nil {
		t.Errorf("within a perimeter: %v", err)
	}
	if err := problem.From(w.MayGrant(t.Context(), p, "shop", "f", map[string]manifest.Grant{"a": {Publish: []ident.EventType{"without-f"}}})); !slices.Contains(err.Policies, "perimeter:shop/b") {
		t.Errorf("into another perimeter: %v by %v", err, err.Policies)
	}
	w.Use(set)
	publish := func(types ...ident.EventType) manifest.Grant { return manifest.Grant{Publish: types} }
	for _, tc := range []struct {
		name, text string
		grants     map[string]manifest.Grant
		policies   []string
		faults     []string
	}{
		{"nothing", deploys, nil, nil, nil},
		{"what it may", dev.Text, map[string]manifest.Grant{"a": publish("order", "x"), "b": publish()}, nil, nil},
		{"more than it may", dev.Text, map[string]manifest.Grant{"a": publish("order"), "b": publish("x", "payment")}, []string{"no-payments"},
			[]string{"grant b: publish event_type:shop/payment"}},
		{"two grants", dev.Text, map[string]manifest.Grant{"b": publish("payment"), "c": {Invoke: &manifest.InvokeGrant{Function: "boss"}}, "d": {Invoke: &manifest.InvokeGrant{Function: "f"}}},
			[]string{"no-boss", "no-payments"}, []string{"grant b: publish event_type:shop/payment", "grant c: invoke function:shop/boss"}},
		{"no role for it", reader.Text, map[string]manifest.Grant{"a": publish("order")}, nil, []string{"grant a: publish event_type:shop/order, which no policy permits"}},
		{"a narrowed token", deploys, map[string]manifest.Grant{"a": publish("order")}, []string{"token-caveats"}, []string{"grant a: publish event_type:shop/order"}},
	} {
		err := w.MayGrant(t.Context(), principal(t, who, tc.text), "shop", "f", tc.grants)
		if len(tc.faults) == 0 {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		p := problem.From(err)
		var faults []string
		for _, f := range p.Faults {
			faults = append(faults, f.Detail)
		}
		for i := range p.Policies {
			p.Policies[i] = strings.TrimPrefix(p.Policies[i], "shop/")
		}
		slices.Sort(p.Policies)
		if p.Code != "access.grant_exceeds_deployer" || !slices.Equal(faults, tc.faults) || !slices.Equal(p.Policies, tc.policies) || p.Hint == "" {
			t.Errorf("%s: %v %q by %q, hint %q", tc.name, err, faults, p.Policies, p.Hint)
		}
	}
}
