package policy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/policy"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"event_type:shop/order.created", "event_type:shop/a/b", "function:shop/price", "namespace:shop", "server"} {
		r, err := policy.ParseResource(s)
		if err != nil || r.String() != s {
			t.Errorf("ParseResource(%q) = %v, %v", s, r, err)
		}
	}
	for s, want := range map[string]string{
		"": "want", "server:x": "want", "eventtype:shop/x": `"event_type"`, "function:price": `"function:default/price"`, "function:Shop/price": "lower-case",
		"function:shop/": "function name", "event_type:shop/a b": "event type", "namespace:UP": "lower-case", "shop": "want",
	} {
		if r, err := policy.ParseResource(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseResource(%q) = %v, %v, want %s", s, r, err, want)
		}
	}
	for s, want := range map[string]policy.Principal{
		"user:ann": {Kind: policy.KindUser, ID: "user:ann"}, "service:spiffe://a/b": {Kind: policy.KindService, ID: "service:spiffe://a/b"},
		"token:1": {Kind: policy.KindToken, ID: "token:1"}, "function:shop/price": {Kind: policy.KindFunction, ID: "function:shop/price", Namespace: "shop"},
	} {
		if p, err := policy.ParsePrincipal(s); err != nil || p.Digest() != want.Digest() {
			t.Errorf("ParsePrincipal(%q) = %v, %v, want %v", s, p, err, want)
		}
	}
	for s, want := range map[string]string{"": "want", "ann": "want", "usr:ann": `"user"`, "user:": "want", "function:price": "slash", "event_type:a/b": "want"} {
		if p, err := policy.ParsePrincipal(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePrincipal(%q) = %v, %v, want %s", s, p, err, want)
		}
	}
	if a, err := policy.ParseAction("publish"); err != nil || a != policy.Publish {
		t.Errorf("ParseAction = %v, %v", a, err)
	}
	if _, err := policy.ParseAction("publsh"); err == nil || !strings.Contains(err.Error(), `"publish"`) {
		t.Errorf("ParseAction of a misspelt action = %v", err)
	}
	if _, err := policy.ParseAction(strings.Repeat("x", 1000)); err == nil || len(err.Error()) > 200 {
		t.Errorf("ParseAction of a long text = %v", err)
	}
	if !strings.Contains(policy.SchemaText(), "action publish") {
		t.Error("SchemaText has no actions")
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	s := with(t, file("shop", teams))
	event := policy.Context{Event: &policy.Event{Size: 1}}
	ann := policy.Request{Principal: user("ann", "ops"), Action: policy.Publish, Resource: eventType("shop", "order.paid"), Context: event}
	bob := ann
	bob.Principal = user("bob", "ops")
	failed := s.Check([]policy.Test{
		{Name: "right", Request: ann, Allow: true},
		{Name: "right, by", Request: ann, Allow: true, By: []string{"shop/ops-publish"}},
		{Name: "wrong", Request: ann, Allow: false},
		{Name: "wrong by", Request: ann, Allow: true, By: []string{"shop/other"}},
		{Name: "by nothing", Request: bob, By: []string{}},
	})
	type short struct {
		name                string
		missing, unexpected []string
	}
	var got []short
	for _, f := range failed {
		got = append(got, short{f.Test.Name, f.Missing, f.Unexpected})
	}
	want := []short{{"wrong", nil, nil}, {"wrong by", []string{"shop/other"}, []string{"shop/ops-publish"}}, {"by nothing", nil, []string{"shop/no-bob"}}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(short{})); d != "" {
		t.Errorf("Check (-want +got):\n%s", d)
	}
}
