package access_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/narrow"
	"sallyport/internal/problem"
)

func code(who *access.Identifier, from, auth string) string {
	r := request(auth)
	r.RemoteAddr = from
	_, err := who.Identify(r)
	if err == nil {
		return "ok"
	}
	return problem.From(err).Code
}

// TestRates: a burst, then the rate, for each address and each principal apart.
func TestRates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, &memory{m: map[string][]byte{}})
		one, two := create(t, g, api.TokenRequest{Role: "reader"}), create(t, g, api.TokenRequest{Role: "reader"})
		for name, tt := range map[string]struct {
			rates             access.Rates
			from, alike, free [2]string // address and token
		}{
			"principal": {access.Rates{Principal: access.Rate{PerSecond: 2, Burst: 5}}, [2]string{"1.1.1.1:1", one.Text}, [2]string{"1.1.1.2:1", one.Text}, [2]string{"1.1.1.1:1", two.Text}},
			"address":   {access.Rates{Address: access.Rate{PerSecond: 2, Burst: 5}}, [2]string{"1.1.1.1:1", one.Text}, [2]string{"1.1.1.1:2", two.Text}, [2]string{"1.1.1.2:1", one.Text}},
			"IPv6":      {access.Rates{Address: access.Rate{PerSecond: 2, Burst: 5}}, [2]string{"[2a00::1]:1", one.Text}, [2]string{"[2a00::ff:0:0:2]:2", two.Text}, [2]string{"[2a00:0:0:100::1]:1", one.Text}},
		} {
			who := access.NewIdentifier(g.Tokens, access.IdentifierConfig{Rates: tt.rates})
			ask := func(as [2]string) string { return code(who, as[0], "Bearer "+as[1]) }
			for n := range 5 {
				if got := ask(tt.from); got != "ok" {
					t.Errorf("%s: request %d of the burst: %s", name, n, got)
				}
			}
			for _, as := range [][2]string{tt.from, tt.alike} {
				if got := ask(as); got != "access.rate_exceeded" {
					t.Errorf("%s: past the burst as %v: %s", name, as, got)
				}
			}
			r := request("Bearer " + tt.from[1])
			r.RemoteAddr = tt.from[0]
			_, err := who.Identify(r)
			if p := problem.From(err); p.Kind.Status() != http.StatusTooManyRequests || p.RetryAfter != time.Second/2 {
				t.Errorf("%s: %v, again after %v; want 429 and 500ms", name, err, p.RetryAfter)
			}
			if got := ask(tt.free); got != "ok" {
				t.Errorf("%s: another one: %s", name, got)
			}
			time.Sleep(time.Second) // the bubble's clock
			if a, b, c := ask(tt.from), ask(tt.from), ask(tt.from); a != "ok" || b != "ok" || c == "ok" {
				t.Errorf("%s: a second later: %s, %s, %s; want two", name, a, b, c)
			}
		}
	})
}

// TestFailures: past its failures, no signature is checked for an address; who is known is not locked out.
func TestFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, &memory{m: map[string][]byte{}})
		own := create(t, g, api.TokenRequest{Role: "reader"})
		who := access.NewIdentifier(g.Tokens, access.IdentifierConfig{Rates: access.Rates{Failures: access.Rate{PerSecond: 1, Burst: 10}}})
		caveats := func(n int64) string {
			return "Bearer " + narrowed(t, own.Text, narrow.Caveats{Expires: time.Now().Unix() + 1000 + n})
		}
		known, fresh := caveats(1), caveats(2)
		if got := code(who, "1.1.1.1:1", known); got != "ok" {
			t.Fatal(got)
		}
		for range 10 {
			if got := code(who, "1.1.1.1:1", "Bearer x"); got != "access.unauthenticated" {
				t.Fatal(got)
			}
		}
		for auth, want := range map[string]string{
			fresh: "access.too_many_failures", known: "ok", "Bearer " + own.Text: "ok", "Bearer x": "access.unauthenticated",
			"Bearer " + narrow.Prefix + "x": "access.too_many_failures",
		} {
			if got := code(who, "1.1.1.1:1", auth); got != want {
				t.Errorf("%.20s: %s; want %s", auth, got, want)
			}
		}
		if got := code(who, "1.1.1.2:1", fresh); got != "ok" {
			t.Errorf("another address: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := code(who, "1.1.1.1:1", caveats(3)); got != "ok" {
			t.Errorf("two seconds later: %s", got)
		}
	})
}

// TestLimiterIsBounded has more addresses fail than are kept: the rest shares one number, and room comes back with time.
func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, &memory{m: map[string][]byte{}})
		own := create(t, g, api.TokenRequest{Role: "reader"})
		who := access.NewIdentifier(g.Tokens, access.IdentifierConfig{Rates: access.Rates{Address: access.Rate{PerSecond: 1, Burst: 1}}})
		ask := func(n int) string {
			return code(who, fmt.Sprintf("%d.%d.%d.1:1", n>>16&255, n>>8&255, n&255), "Bearer "+own.Text)
		}
		for n := range access.MaxKeys + access.MaxKeys/8 {
			ask(n)
		}
		if kept := who.Kept(); kept > access.MaxKeys {
			t.Errorf("%d keys are kept; want at most %d", kept, access.MaxKeys)
		}
		refused := 0
		for n := range 1000 {
			if ask(1<<23+n) != "ok" {
				refused++
			}
		}
		if refused < 900 {
			t.Errorf("of 1000 new addresses in a flood %d are refused: they go around the rate", refused)
		}
		time.Sleep(time.Minute)
		if got := ask(1<<23 + 5000); got != "ok" {
			t.Errorf("a minute after the flood: %s", got)
		}
	})
}
