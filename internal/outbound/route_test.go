package outbound_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"sallyport/internal/outbound"
)

// TestReachable holds that naming opens what it says, and nothing else.
func TestReachable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ip    string
		named string
		want  bool
	}{
		{"8.8.8.8", "", true}, {"2606:4700::1111", "", true}, {"::ffff:8.8.8.8", "", true}, {"127.0.0.1", "", false}, {"4000::1", "", false}, {"::2:0:0:1", "", false},
		{"127.0.0.1", "127.0.0.1/32", true}, {"127.0.0.2", "127.0.0.1/32", false}, {"::ffff:127.0.0.1", "127.0.0.1/32", true}, {"::1", "127.0.0.0/8", false}, {"::1", "::1/128", true},
		{"10.1.2.3", "10.0.0.0/8", true}, {"10.1.2.3", "192.168.0.0/16", false}, {"100.64.1.1", "100.64.0.0/10", true}, {"fd12::1", "fd12::/16", true}, {"198.18.0.1", "198.18.0.0/15", true},
		{"169.254.1.1", "169.254.0.0/16", true}, {"169.254.169.254", "169.254.0.0/16", false}, {"169.254.169.254", "169.254.169.254/32", true}, {"fd00:ec2::254", "fd00::/8", false},
		{"fd00:ec2::254", "fd00:ec2::254/128", true}, {"100.100.100.200", "100.64.0.0/10", false}, {"fe80::1", "fe80::/10", true}, {"fe80::1%eth0", "fe80::/10", false},
		{"0.0.0.0", "0.0.0.0/8", false}, {"::", "::/0", false}, {"224.0.0.1", "224.0.0.0/4", false}, {"ff02::1", "ff00::/8", false}, {"255.255.255.255", "255.255.255.255/32", false},
		{"64:ff9b::808:808", "", false}, {"64:ff9b::808:808", "64:ff9b::/96", true}, {"64:ff9b::7f00:1", "64:ff9b::/96", false}, {"64:ff9b::a9fe:a9fe", "64:ff9b::/96", false},
		{"2002:7f00:1::1", "2002::/16", false}, {"2002:808:808::1", "2002::/16", true}, {"2001:0:1:2:3:4:80ff:fffe", "2001::/32", false}, {"2001:0:1:2:3:4:f7f7:f7f7", "2001::/32", true},
		{"2606:4700::5efe:808:808", "", false}, {"fd00::5efe:a00:1", "fd00::/8", false}, {"fd00::200:5efe:808:808", "fd00::/8", true}, {"::ffff:0:7f00:1", "::/0", false},
	} {
		var named []netip.Prefix
		if tt.named != "" {
			named = append(named, netip.MustParsePrefix(tt.named))
		}
		if got := outbound.Reachable(netip.MustParseAddr(tt.ip), named); got != tt.want {
			t.Errorf("Reachable(%s, %s) = %v; want %v", tt.ip, tt.named, got, tt.want)
		}
	}
}

// TestRoute holds what a route asks of its callers, and that it ends what it holds.
func TestRoute(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	if _, err := outbound.NewRoute(outbound.RouteConfig{}); err == nil {
		t.Error("a route without bounds is made")
	}
	if _, err := outbound.NewRoute(outbound.RouteConfig{MaxBytes: 1, Proxy: &outbound.Proxy{URL: &url.URL{Scheme: "socks5", Host: "x"}}}); err == nil {
		t.Error("a proxy of another kind is taken")
	}
	named := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	exchange := func(ctx context.Context, r *outbound.Route, target string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Exchange(req)
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	secure, err := outbound.NewRoute(outbound.RouteConfig{MaxBytes: 1000, Named: named})
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	if err := exchange(ctx, secure, s.URL); !errors.Is(err, outbound.ErrAddress) {
		t.Errorf("without TLS: %v; want ErrAddress", err)
	}
	plain, err := outbound.NewRoute(outbound.RouteConfig{MaxBytes: 1000, Named: named, Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := exchange(t.Context(), plain, s.URL); err == nil {
		t.Error("an exchange without a deadline is begun")
	}
	if err := exchange(ctx, plain, s.URL); err != nil || plain.Open() != 1 {
		t.Errorf("%v, %d connections", err, plain.Open())
	}
	plain.Close()
	plain.Close()
	if err := exchange(ctx, plain, s.URL); !errors.Is(err, outbound.ErrClosed) || plain.Open() != 0 {
		t.Errorf("closed: %v, %d connections", err, plain.Open())
	}
}
