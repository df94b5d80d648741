package access_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// TestBehindAsItCame: what a policy says of how and when a caller's request comes, it says of what functions do because of it as
// well, later and after a restart, for whatever is done; and nobody has more for it that this is not known.
func TestBehindAsItCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newBehindWorld(t)
		w.useText(t, `
@id("functions") permit (principal is Function, action in [Action::"publish", Action::"invoke", Action::"useGrant"], resource);
@id("all") permit (principal is Token, action in [Action::"invoke", Action::"useGrant"], resource);
@id("office") forbid (principal is Token, action in [Action::"publish", Action::"invoke", Action::"useGrant"], resource)
when { resource.name == "office" } unless { context has ip && context.ip.isInRange(ip("10.0.0.0/8")) };
@id("certified") forbid (principal is Token, action in [Action::"publish", Action::"invoke", Action::"useGrant"], resource)
when { resource.name == "certified" && !context.mtls };
@id("early") forbid (principal is Token, action in [Action::"publish", Action::"invoke", Action::"useGrant"], resource)
when { resource.name == "early" && context.now.toTime() >= duration("12h") };`)
		p := create(t, w.Guard, api.TokenRequest{Role: "publisher", Namespace: "shop"})
		who := access.NewIdentifier(w.Guard.Tokens, access.IdentifierConfig{})
		as := principal(t, who, p.Text)
		time.Sleep(9 * time.Hour) // it is nine o'clock
		sent := func(c *access.Circumstances, functions ...ident.PrincipalID) *access.Cause {
			ctx := t.Context()
			if c != nil {
				ctx = access.WithCircumstances(ctx, *c)
			}
			authority, err := w.Keep(ctx, as)
			if err != nil || len(authority) > 64 {
				t.Fatalf("Keep = %q, %v", authority, err)
			}
			return &access.Cause{Principal: as.ID, Authority: authority, Functions: functions}
		}
		first := access.FunctionID("shop", "first")
		inside, outside := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1234:5678")
		causes := []struct {
			name  string
			cause *access.Cause
			may   string
		}{
			{"from the office", sent(&access.Circumstances{IP: inside}), "office early"},
			{"from the office, by way of another function", sent(&access.Circumstances{IP: inside}, first), "office early"},
			{"from the office, as IPv6", sent(&access.Circumstances{IP: netip.AddrFrom16(inside.As16())}), "office early"},
			{"from outside", sent(&access.Circumstances{IP: outside}), "early"},
			{"with a certificate", sent(&access.Circumstances{IP: outside, MutualTLS: true}), "certified early"},
			{"within the server", sent(nil), "early"},
			{"before it was kept", &access.Cause{Principal: as.ID}, ""},
			{"malformed", &access.Cause{Principal: as.ID, Authority: ";tzz;10.1.2.3.4"}, ""},
			{"oversize", &access.Cause{Principal: as.ID, Authority: ";t0;" + strings.Repeat("0", 100)}, ""},
		}
		time.Sleep(5 * time.Hour) // and now it is two
		causes = append(causes, struct {
			name  string
			cause *access.Cause
			may   string
		}{"from the office, after noon", sent(&access.Circumstances{IP: inside, MutualTLS: true}), "office certified"})
		f := access.FunctionPrincipal("shop", "clerk", 3, nil).With([]string{"office", "early", "certified"}, nil)
		for _, tc := range causes {
			for _, name := range []string{"office", "certified", "early"} {
				for action, res := range map[policy.Action]policy.Resource{
					policy.Publish:  {Kind: policy.KindEventType, Namespace: "shop", Name: name},
					policy.Invoke:   {Kind: policy.KindFunction, Namespace: "shop", Name: name},
					policy.UseGrant: policy.OfGrant("shop", "other", name, "http", ""),
				} {
					err := w.AuthorizeCaused(t.Context(), f, action, res, tc.cause)
					if want := strings.Contains(tc.may, name); (err == nil) != want {
						t.Errorf("%s: %s %s: %v, want allowed %v", tc.name, action, name, err, want)
					}
					if err == nil {
						continue
					}
					if p := problem.From(err); p.Code != "access.denied_for_caller" || !strings.Contains(strings.Join(p.Policies, " "), name) ||
						strings.Contains(p.Public+p.Hint, "10.1.2.3") || strings.Contains(p.Public, "was not kept") != (tc.may == "") {
						t.Errorf("%s: %s %s: %s: %q by %q, hint %q", tc.name, action, name, p.Code, p.Public, p.Policies, p.Hint)
					}
				}
			}
		}
	})
}

// TestBehindAsItCameAndCause: a policy that asks whether who is behind a function may do the same has that answer, too.
func TestBehindAsItCameAndCause(t *testing.T) {
	t.Parallel()
	w := newBehindWorld(t)
	w.useText(t, `
@id("own") @act_as("function") permit (principal is Function, action == Action::"publish", resource);
@id("ask") forbid (principal is Function, action == Action::"publish", resource) when { context has cause && !context.cause.permitted };
@id("office") forbid (principal is Token, action == Action::"publish", resource) unless { context has ip && context.ip.isInRange(ip("10.0.0.0/8")) };`)
	who := access.NewIdentifier(w.Guard.Tokens, access.IdentifierConfig{})
	as := principal(t, who, create(t, w.Guard, api.TokenRequest{Role: "publisher", Namespace: "shop"}).Text)
	for address, want := range map[string]bool{"10.0.0.1": true, "192.0.2.1": false} {
		authority, err := w.Keep(access.WithCircumstances(t.Context(), access.Circumstances{IP: netip.MustParseAddr(address)}), as)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.publish(t, "paid", &access.Cause{Principal: as.ID, Authority: authority}); (err == nil) != want {
			t.Errorf("from %s: %v, want allowed %v", address, err, want)
		}
	}
}

// FuzzParseAuthority: whatever stands in an event, what is not exactly a note is nothing known.
func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"", "00ff", "00ff;tlmno;10.0.0.1", ";m1;2001:db8::1", ";i0", ";t0;fe80::1%eth0", ";;", ";x0", "?;t-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		name, sent, known := access.ParseAuthority(authority)
		switch {
		case strings.Contains(name, ";"):
			t.Errorf("ParseAuthority(%q) = the name %q", authority, name)
		case !known && sent != (policy.Sent{Transport: policy.TransportUnkept}):
			t.Errorf("ParseAuthority(%q) is not known, and %+v", authority, sent)
		case known && (sent.IP.Zone() != "" || sent.Transport == policy.TransportUnkept || sent.Transport == policy.TransportUnknown):
			t.Errorf("ParseAuthority(%q) = %+v", authority, sent)
		}
	})
}
