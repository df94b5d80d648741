package manifest_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/policy"
)

const policyTests = `
[tests."ann publishes orders"]
principal = { id = "user:ann", role = "publisher", namespace = "shop", event_types = ["x"], groups = ["ops"], attenuated = true, claims = { issuer = "https://idp", tenant = "acme", strength = "phr", roles = ["r"], groups = ["g"], methods = ["pwd"], time = "2026-03-02T11:00:00Z", others = { department = ["sales"] } } }
action    = "publish"
resource  = "event_type:shop/order.created"
expect    = "allow"
by        = ["shop/ops"]

[tests."ann publishes orders".context]
now       = "2026-03-02T12:00:00Z"
transport = "mtls"
ip        = "10.0.0.1"
event     = { size = 100, source = "/till", subject = "s" }
cause     = { principal = { id = "user:bob" }, functions = ["shop/price"], sent = { transport = "tls", ip = "10.0.0.2" } }

[tests.stranger]
principal = "token:t1"
action    = "readStatus"
resource  = "server"
expect    = "deny"
by        = []
`

func TestParsePolicyTests(t *testing.T) {
	t.Parallel()
	got, err := manifest.ParsePolicyTests("t.toml", []byte(policyTests))
	if err != nil {
		t.Fatal(show(t, err))
	}
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	want := []policy.Test{
		{
			Name: "ann publishes orders", File: "t.toml", Line: 2, Allow: true, By: []string{"shop/ops"},
			Request: policy.Request{
				Principal: policy.Principal{
					Kind: policy.KindUser, ID: "user:ann", Role: policy.Publisher, Namespace: "shop", EventTypes: []ident.EventType{"x"},
					Groups: []string{"ops"}, Attenuated: true,
					Claims: &policy.Claims{
						Issuer: "https://idp", Tenant: "acme", Strength: "phr", Roles: []string{"r"}, Groups: []string{"g"}, Methods: []string{"pwd"},
						Time: noon.Add(-time.Hour), Others: map[string][]string{"department": {"sales"}},
					},
				},
				Action: policy.Publish, Resource: policy.Resource{Kind: policy.KindEventType, Namespace: "shop", Name: "order.created"},
				Context: policy.Context{
					Now: noon, Transport: policy.TransportMutualTLS, IP: netip.MustParseAddr("10.0.0.1"),
					Event: &policy.Event{Type: "order.created", Source: "/till", Subject: "s", Size: 100},
					Cause: &policy.Cause{
						Principal: &policy.Principal{Kind: policy.KindUser, ID: "user:bob"}, Functions: []ident.PrincipalID{"function:shop/price"},
						Sent: &policy.Sent{Transport: policy.TransportTLS, IP: netip.MustParseAddr("10.0.0.2")},
					},
				},
			},
		},
		{
			Name: "stranger", File: "t.toml", Line: 16, By: []string{},
			Request: policy.Request{Principal: policy.Principal{Kind: policy.KindToken, ID: "token:t1"}, Action: policy.ReadStatus, Resource: policy.OfServer()},
		},
	}
	opts := cmp.Options{
		cmpopts.IgnoreUnexported(policy.Principal{}, policy.Request{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() != ".By" }, cmpopts.EquateEmpty()),
	}
	if d := cmp.Diff(want, got, opts); d != "" {
		t.Errorf("ParsePolicyTests (-want +got):\n%s", d)
	}
}

// FuzzParsePolicyTests: whatever the text, the tests that are read can be run.
func FuzzParsePolicyTests(f *testing.F) {
	f.Add([]byte(policyTests))
	f.Add([]byte("[tests.x]\nprincipal=\"user:a\"\naction=\"deploy\"\nresource=\"namespace:a\"\nexpect=\"deny\"\n"))
	s, err := policy.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tests, err := manifest.ParsePolicyTests("f.toml", text)
		if err != nil {
			show(t, err)
			return
		}
		s.Check(tests)
		for _, test := range tests {
			r := test.Request.Resource
			if again, err := policy.ParseResource(r.String()); err != nil || again != r || test.Line < 1 {
				t.Errorf("test %q at line %d is about %v, read again as %v (%v)", test.Name, test.Line, r, again, err)
			}
		}
	})
}
