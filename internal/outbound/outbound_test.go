package outbound_test

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/internal/outbound"
)

func TestAllowed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ip              string
		public, private bool
	}{
		{"8.8.8.8", true, true}, {"2606:4700::1111", true, true},
		{"127.0.0.1", false, true}, {"127.9.9.9", false, true}, {"::1", false, true}, {"::ffff:127.0.0.1", false, true},
		{"10.0.0.1", false, true}, {"172.31.255.255", false, true}, {"192.168.1.1", false, true}, {"fd12::1", false, true},
		{"100.64.0.1", false, true}, {"::ffff:10.1.2.3", false, true}, {"172.32.0.1", true, true},
		{"169.254.169.254", false, false}, {"::ffff:169.254.169.254", false, false}, {"fe80::1", false, false},
		{"fd00:ec2::254", false, false}, {"100.100.100.200", false, false}, {"168.63.129.16", false, false},
		{"0.0.0.0", false, false}, {"::", false, false}, {"0.1.2.3", false, false}, {"224.0.0.1", false, false}, {"ff02::1", false, false},
		{"255.255.255.255", false, false}, {"64:ff9b::7f00:1", false, false}, {"::7f00:1", false, false}, {"2002:7f00:1::", false, false},
		{"198.18.0.1", false, false}, {"2001:db8::1", false, false}, {"fe80::1%eth0", false, false}, {"8.8.8.8", true, true},
	} {
		ip := netip.MustParseAddr(tt.ip)
		if got := outbound.Allowed(ip, false); got != tt.public {
			t.Errorf("Allowed(%s, false) = %v; want %v", tt.ip, got, tt.public)
		}
		if got := outbound.Allowed(ip, true); got != tt.private {
			t.Errorf("Allowed(%s, true) = %v; want %v", tt.ip, got, tt.private)
		}
	}
	if outbound.Allowed(netip.Addr{}, true) {
		t.Error("the zero address is allowed")
	}
}

func newClient(t *testing.T, s *httptest.Server, change func(*outbound.Config)) *outbound.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	cfg := outbound.Config{RootCAs: pool, Private: true, Timeout: 10 * time.Second, MaxBytes: 1000}
	if change != nil {
		change(&cfg)
	}
	c, err := outbound.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestExchange holds each bound of an exchange.
func TestExchange(t *testing.T) {
	t.Parallel()
	released := make(chan struct{})
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/large":
			_, _ = w.Write([]byte(strings.Repeat("x", 1001)))
		case "/headers":
			w.Header().Set("X", strings.Repeat("x", 64<<10))
		case "/slow":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-released:
			}
		case "/form":
			_, _ = w.Write([]byte(r.PostFormValue("a")))
		default:
			_, _ = w.Write([]byte("fine"))
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(released) })
	get := func(c *outbound.Client, target string) error { _, err := c.Get(t.Context(), target); return err }
	c := newClient(t, s, nil)
	if a, err := c.Get(t.Context(), s.URL); err != nil || string(a.Body) != "fine" || a.Status != http.StatusOK {
		t.Errorf("Get = %v, %v", a, err)
	}
	if a, err := c.PostForm(t.Context(), s.URL+"/form", url.Values{"a": {"b c"}}); err != nil || string(a.Body) != "b c" {
		t.Errorf("PostForm = %v, %v", a, err)
	}
	if err := get(c, s.URL+"/redirect"); !errors.Is(err, outbound.ErrRedirect) {
		t.Errorf("redirect: %v", err)
	}
	if err := get(c, s.URL+"/large"); !errors.Is(err, outbound.ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
	if err := get(c, s.URL+"/headers"); err == nil {
		t.Error("headers without bound are taken")
	}
	if err := get(newClient(t, s, func(c *outbound.Config) { c.Timeout = 50 * time.Millisecond }), s.URL+"/slow"); err == nil {
		t.Error("an answer without end is waited for")
	}
	if err := get(newClient(t, s, func(c *outbound.Config) { c.Private = false }), s.URL); !errors.Is(err, outbound.ErrAddress) {
		t.Errorf("loopback: %v; want ErrAddress", err)
	}
	if err := get(newClient(t, s, func(c *outbound.Config) { c.RootCAs = x509.NewCertPool() }), s.URL); err == nil {
		t.Error("a certificate of an unknown CA is taken")
	}
	// The name resolves to loopback: it is the address that is checked, not the name.
	if err := get(newClient(t, s, func(c *outbound.Config) { c.Private = false }), strings.Replace(s.URL, "127.0.0.1", "localhost", 1)); !errors.Is(err, outbound.ErrAddress) {
		t.Errorf("localhost: %v; want ErrAddress", err)
	}
	for _, target := range []string{"http://127.0.0.1/", "https://", "https://u:p@127.0.0.1/", "https://127.0.0.1/#x", "ftp://x/", "file:///etc/passwd", "https:x", "://", "https://" + strings.Repeat("x", 3000)} {
		if err := get(c, target); err == nil {
			t.Errorf("Get(%.40q) succeeded", target)
		}
	}
	if _, err := outbound.New(outbound.Config{}); err == nil {
		t.Error("a client without bounds is made")
	}
}
