package httpgrant_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sallyport/internal/grant"
	"sallyport/internal/grant/httpgrant"
	"sallyport/internal/manifest"
)

// canary listens at every loopback address, and counts who comes.
func canary(t *testing.T) (port string, hits *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	hits = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			hits.Add(1)
			_ = c.Close()
		}
	}()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, hits
}

// names is a resolver with what a test says.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// spellings are URLs that lead, or would have some parser led, to this machine, to a private network or to a metadata service.
func spellings(port string) []string {
	var out []string
	for _, host := range []string{
		"127.0.0.1", "127.1", "127.0.1", "127.000.000.001", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "017700000001", "2130706433", "127.0.0.1.", "127.0.0.01", "0", "0.0.0.0", "localhost", "localhost.",
		"LOCALHOST", "localhost.localdomain", "127.0.0.1.nip.io", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::1%25lo]", "[fe80::1%25eth0]",
		"169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "metadata.google.internal", "100.100.100.200", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1",
		"①②⑦.⓪.⓪.①", "127。0。0。1", "１２７.0.0.1", "loc%61lhost", "%31%32%37.0.0.1", "127.0.0.1%00.api.example.org", "127.0.0.1%2f.api.example.org", "api.example.org.127.0.0.1.nip.io", "255.255.255.255", "224.0.0.1",
	} {
		out = append(out, "http://"+host+":"+port+"/v1/x", "https://"+host+":"+port+"/v1/x")
	}
	for _, host := range []string{"127.0.0.1:" + port, "[::1]:" + port} {
		out = append(out,
			"https://api.example.org@"+host+"/v1/x", "https://api.example.org:443@"+host+"/v1/x", "https://api.example.org%40"+host+"/v1/x", "https://"+host+"@api.example.org/v1/x",
			"https://"+host+"#@api.example.org/v1/x", "https://"+host+"?@api.example.org/v1/x", "https://"+host+`\@api.example.org/v1/x`, "https://api.example.org\\@"+host+"/v1/x", "https://api.example.org#@"+host+"/v1/x",
			"https://"+host+"/https://api.example.org/v1/x", "//"+host+"/v1/x", `\\`+host+`\v1\x`, "https:"+host+"/v1/x", "https:///"+host+"/v1/x", "https://api.example.org\t@"+host+"/v1/x", "https://api.example.org\r\n@"+host+"/v1/x",
			"https://api.example.org/v1/x\r\nHost: "+host, "https://api.example.org/v1/x HTTP/1.1\r\nHost: "+host+"\r\n\r\nGET /v1/y", "https://api.example.org:"+port+"/v1/x", "https://api.example.org:0443/v1/x",
			"https://api.example.org:99999/v1/x", "https://api.example.org:/v1/x", "https://api.example.org.:443/v1/x", "https://API.example.org.evil.example/v1/x", "jar:https://"+host+"!/v1/x", "view-source:https://"+host+"/v1/x",
		)
	}
	for _, scheme := range []string{"file", "ftp", "gopher", "dict", "ldap", "sftp", "tftp", "ws", "wss", "data", "javascript", "unix", "netdoc", "php", "http+unix", "https+x"} {
		out = append(out, scheme+"://api.example.org/v1/x", scheme+":/etc/passwd")
	}
	return out
}

// TestNothingIsReached asks for each spelling of what is out of bounds, as a URL, as a value, and in the query.
func TestNothingIsReached(t *testing.T) {
	t.Parallel()
	port, hits := canary(t)
	var asked atomic.Int64
	d := open(t, config{grant: manifest.HTTPGrant{URL: "https://api.example.org/v1/{id}", AllowQuery: []string{"*"}}, kind: httpgrant.Kind{Resolver: counting{&asked}}})
	all := spellings(port)
	if len(all) < 60 {
		t.Fatalf("only %d spellings", len(all))
	}
	for _, target := range all {
		request, err := json.Marshal(map[string]string{"url": target})
		if err != nil {
			t.Fatal(err)
		}
		if wire, err := d.Wire(&grant.Call{Op: "fetch", Request: request}); err == nil && target != "https://api.example.org#@127.0.0.1:"+port+"/v1/x" {
			t.Errorf("%q becomes %q", target, wire)
		}
		if _, err := do(t, d, string(request), ""); code(err) != "fetch.not_covered" {
			t.Errorf("%q: %v", target, err)
		}
		// As a value, it is a value.
		for _, request := range []map[string]any{{"values": map[string]string{"id": target}}, {"values": map[string]string{"id": "x"}, "query": map[string]string{"q": target, target: "q"}}} {
			text, err := json.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			if wire, err := d.Wire(&grant.Call{Op: "fetch", Request: text}); err == nil {
				checkWire(t, wire, "api.example.org")
			}
		}
	}
	if hits.Load() > 0 || asked.Load() > 0 {
		t.Errorf("%d connections, %d names were asked for", hits.Load(), asked.Load())
	}
}

// counting is a resolver that knows nothing and counts who asks.
type counting struct{ asked *atomic.Int64 }

func (c counting) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	c.asked.Add(1)
	return nil, errors.New("nothing")
}

// TestAddresses has the grant's own name lead to each kind of special address.
func TestAddresses(t *testing.T) {
	t.Parallel()
	port, hits := canary(t)
	for _, ip := range []string{
		"127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1", "0.0.0.0", "::", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255",
		"169.254.169.254", "169.254.1.1", "::ffff:169.254.169.254", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
		"224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", "240.0.0.1", "255.255.255.255", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001::1",
		"2001:db8::1", "100::1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1", "192.88.99.1", "3fff::1", "5f00::1", "fe80::a9fe:a9fe",
	} {
		for _, scheme := range []string{"https", "http"} {
			name := "rebound.example"
			d := open(t, config{grant: manifest.HTTPGrant{URL: scheme + "://" + name + ":" + port + "/", Private: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}}, kind: httpgrant.Kind{Resolver: names{name: {netip.MustParseAddr(ip)}}}})
			if _, err := do(t, d, "{}", ""); code(err) != "fetch.address_refused" {
				t.Errorf("%s %s: %v", scheme, ip, err)
			}
			if d.Open() > 0 {
				t.Errorf("%s: a connection is open", ip)
			}
		}
	}
	// Without TLS no public address is reached, whatever is named.
	d := open(t, config{grant: manifest.HTTPGrant{URL: "http://public.example/", Private: []netip.Prefix{netip.MustParsePrefix("8.0.0.0/8")}}, kind: httpgrant.Kind{Resolver: names{"public.example": {netip.MustParseAddr("8.8.8.8")}}}})
	if _, err := do(t, d, "{}", ""); code(err) != "fetch.address_refused" {
		t.Errorf("public without TLS: %v", err)
	}
	if hits.Load() > 0 {
		t.Errorf("%d connections", hits.Load())
	}
}

// nameServer is a DNS server of the test's own: each question gets the next of the answers, and the last one for ever.
func nameServer(t *testing.T, answers ...[]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		asked := 0
		buffer := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var msg dnsmessage.Message
			if msg.Unpack(buffer[:n]) != nil || len(msg.Questions) != 1 {
				continue
			}
			q := msg.Questions[0]
			msg.Header.Response, msg.Header.Authoritative = true, true
			msg.Additionals = nil
			if q.Type == dnsmessage.TypeA {
				for _, ip := range answers[min(asked, len(answers)-1)] {
					msg.Answers = append(msg.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0},
						Body:   &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()},
					})
				}
				asked++
			}
			packed, err := msg.Pack()
			if err == nil {
				_, err = conn.WriteTo(packed, from)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// two starts a server at 127.0.0.2 and another one at the same port of 127.0.0.1, which nobody may reach.
func two(t *testing.T, handler http.HandlerFunc) (port string, forbidden *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("this machine has no second loopback address: %v", err)
	}
	_, port, _ = net.SplitHostPort(l.Addr().String())
	inner, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	forbidden = new(atomic.Int64)
	for listener, h := range map[net.Listener]http.HandlerFunc{l: handler, inner: func(http.ResponseWriter, *http.Request) { forbidden.Add(1) }} {
		s := &http.Server{Handler: h}
		go func() { _ = s.Serve(listener) }()
		t.Cleanup(func() { _ = s.Close() })
	}
	return port, forbidden
}

// TestRebinding has a name mean the service when it is looked at, and something else later, or both at once.
func TestRebinding(t *testing.T) {
	t.Parallel()
	port, forbidden := two(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		if r.URL.Path == "/a" {
			w.Header().Set("Location", "/b")
			w.WriteHeader(http.StatusFound)
		}
	})
	grantTo := manifest.HTTPGrant{URL: "http://rebound.test:" + port + "/{id}", Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Redirects: 2}
	// Between two calls: the second is refused, because what the name means then is out of bounds.
	d := open(t, config{grant: grantTo, kind: httpgrant.Kind{Resolver: nameServer(t, []string{"127.0.0.2"}, []string{"127.0.0.1"})}})
	if _, err := do(t, d, `{"values":{"id":"x"}}`, ""); err != nil {
		t.Errorf("first: %v", err)
	}
	if _, err := do(t, d, `{"values":{"id":"x"}}`, ""); code(err) != "fetch.address_refused" {
		t.Errorf("rebound: %v", err)
	}
	// Within a call the name means what it meant.
	d = open(t, config{grant: grantTo, kind: httpgrant.Kind{Resolver: nameServer(t, []string{"127.0.0.2"}, []string{"127.0.0.1"})}})
	if a, err := do(t, d, `{"values":{"id":"a"}}`, ""); err != nil || !strings.HasSuffix(a.URL, "/b") {
		t.Errorf("redirect: %+v, %v", a, err)
	}
	// Both at once, in either order, and written as IPv6.
	for _, answer := range [][]string{{"127.0.0.1", "127.0.0.2"}, {"127.0.0.2", "127.0.0.1"}} {
		d = open(t, config{grant: grantTo, kind: httpgrant.Kind{Resolver: nameServer(t, answer)}})
		for range 4 {
			if _, err := do(t, d, `{"values":{"id":"x"}}`, ""); err != nil {
				t.Errorf("%v: %v", answer, err)
			}
		}
	}
	if n := forbidden.Load(); n > 0 {
		t.Errorf("what nobody may reach was reached %d times", n)
	}
}

// checkWire holds that bytes are one request to the host, without anything behind it.
func checkWire(t *testing.T, wire []byte, host string) {
	t.Helper()
	head, body, ok := bytes.Cut(wire, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("%q has no end of its headers", wire)
	}
	lines := strings.Split(string(head), "\r\n")
	if strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00") || strings.Count(lines[0], " ") != 2 || !strings.HasPrefix(lines[1], "Host: "+host) {
		t.Fatalf("%q", wire)
	}
	in := bufio.NewReader(bytes.NewReader(wire))
	req, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("%q: %v", wire, err)
	}
	got, err := io.ReadAll(req.Body)
	if err != nil || !bytes.Equal(got, body) || in.Buffered() > 0 || req.Host != host || len(req.TransferEncoding) > 0 {
		t.Fatalf("%q is read as %+v, %v", wire, req, err)
	}
	allowed := map[string]bool{"User-Agent": true, "Content-Length": true, "X-Ok": true, "Content-Type": true, "Accept": true}
	for name := range req.Header {
		if !allowed[name] {
			t.Fatalf("%q has the header %s", wire, name)
		}
	}
}

// injections are what tries to leave its place.
var injections = []string{
	"\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "x\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n", "%0d%0aX-Evil: 1", "%0aX-Evil:1", "%250d%250aX-Evil: 1", "\u560a\u560dX-Evil: 1", "\u010d\u010aX-Evil: 1", "\u2028X-Evil: 1", "\x00X",
	" HTTP/1.1\r\nX-Evil: 1", "x HTTP/1.1", "\tX", "?a=b", "#f", "&a=b", ";a=b", "/../../admin", "..", "../", "..;/", "%2e%2e%2f", "%252e%252e%252f", "..%c0%af", "..%5c", `..\`, "//evil", "@evil", ":80", "{id}", "{{id}}", "${id}", "\u0085", "\v", "\f", "\x7f",
	"0\r\n\r\n", "Transfer-Encoding: chunked", "x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "x\r\nContent-Length: 0",
}

// TestNothingIsSmuggled puts each injection, and each attack of the shared corpus where it is there, into everything that a
// function supplies.
func TestNothingIsSmuggled(t *testing.T) {
	t.Parallel()
	d := open(t, config{grant: manifest.HTTPGrant{URL: "https://api.example.org/v1/{id}/x", AllowQuery: []string{"*"}, AllowHeaders: []string{"X-Ok"}}})
	values := append(injections, corpus(t)...)
	made, refused := 0, 0
	for _, v := range values {
		for _, request := range []map[string]any{
			{"values": map[string]string{"id": v}}, {"values": map[string]string{"id": "a" + v}}, {"values": map[string]string{v: "a"}}, {"values": map[string]string{"id": "a"}, "query": map[string]string{"q": v}},
			{"values": map[string]string{"id": "a"}, "query": map[string]string{v: "q"}}, {"values": map[string]string{"id": "a"}, "headers": map[string]string{"X-Ok": v}}, {"values": map[string]string{"id": "a"}, "headers": map[string]string{v: "x"}},
			{"values": map[string]string{"id": "a"}, "headers": map[string]string{"X-Ok" + v: "x"}}, {"method": "POST" + v, "values": map[string]string{"id": "a"}}, {"url": "https://api.example.org/v1/" + v + "/x"}, {"url": "https://api.example.org/v1/a/x?" + v},
			{"url": "https://api.example.org" + v + "/v1/a/x"},
		} {
			text, err := json.Marshal(request)
			if err != nil {
				continue // not UTF-8: it cannot be said
			}
			wire, err := d.Wire(&grant.Call{Op: "fetch", Request: text})
			if err != nil {
				refused++
				continue
			}
			made++
			checkWire(t, wire, "api.example.org")
			if path := strings.Fields(string(wire))[1]; strings.Count(strings.Split(path, "?")[0], "/") != 3 || !strings.HasPrefix(path, "/v1/") {
				t.Fatalf("%s becomes %q", text, wire)
			}
		}
		// A body is a body, whatever is in it.
		wire, err := d.Wire(&grant.Call{Op: "fetch", Request: []byte(`{"method":"POST","values":{"id":"a"}}`), Body: []byte(v)})
		if err != nil {
			t.Fatal(err)
		}
		checkWire(t, wire, "api.example.org")
	}
	if made < len(values) || refused < len(values) {
		t.Fatalf("%d were made, %d refused: the test tests nothing", made, refused)
	}
}

func corpus(t *testing.T) []string {
	t.Helper()
	files, _ := filepath.Glob("../../../../shared/corpus/malicious/*.jsonl")
	var out []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var attack struct{ Fields map[string]string }
			if err := json.Unmarshal(line, &attack); err != nil {
				t.Fatal(err)
			}
			for _, v := range attack.Fields {
				out = append(out, v)
			}
		}
	}
	return out
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"method":"POST","values":{"id":"a"},"query":{"b":["c"]},"headers":[["x-ok","d"]]}`), []byte("body"))
	f.Add([]byte(`{"url":"https://api.example.org/v1/a/x?b=c#d"}`), []byte(nil))
	for _, v := range injections {
		text, err := json.Marshal(map[string]any{"values": map[string]string{"id": v}, "headers": map[string]string{"X-Ok": v}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte(v))
	}
	d := open(f, config{grant: manifest.HTTPGrant{URL: "https://api.example.org/v1/{id}/x", AllowQuery: []string{"*"}, AllowHeaders: []string{"X-Ok"}}})
	f.Fuzz(func(t *testing.T, request, body []byte) {
		wire, err := d.Wire(&grant.Call{Op: "fetch", Request: request, Body: body})
		if err != nil {
			if c := code(err); !strings.HasPrefix(c, "fetch.") {
				t.Fatalf("%s: %v", request, err)
			}
			return
		}
		// These a function may set.
		for _, name := range []string{"Accept-Language", "Content-Language", "If-Match", "If-Modified-Since", "If-None-Match", "If-Unmodified-Since", "Prefer", "Range"} {
			if bytes.Contains(wire, []byte("\r\n"+name+": ")) {
				return
			}
		}
		checkWire(t, wire, "api.example.org")
	})
}

// liar is a server that answers a connection with bytes, or worse.
func liar(t *testing.T, serve func(c net.Conn, gone <-chan struct{})) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	gone := make(chan struct{})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				stop := make(chan struct{})
				defer close(stop)
				go func() {
					select {
					case <-gone:
						_ = c.Close()
					case <-stop:
					}
				}()
				in := bufio.NewReader(c)
				if req, err := http.ReadRequest(in); err == nil {
					_, _ = io.Copy(io.Discard, req.Body)
					serve(c, gone)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(gone)
		all.Wait()
	})
	return "http://" + l.Addr().String()
}

// write is a server that writes a text and closes.
func write(text string) func(net.Conn, <-chan struct{}) {
	return func(c net.Conn, _ <-chan struct{}) { _, _ = io.WriteString(c, text) }
}

// endless is a server that writes a text, and then another one as long as somebody reads.
func endless(text, more string) func(net.Conn, <-chan struct{}) {
	return func(c net.Conn, _ <-chan struct{}) {
		_, err := io.WriteString(c, text)
		for err == nil {
			_, err = io.WriteString(c, more)
		}
	}
}

// silent is a server that writes a text, and then nothing.
func silent(text string) func(net.Conn, <-chan struct{}) {
	return func(c net.Conn, gone <-chan struct{}) {
		_, _ = io.WriteString(c, text)
		<-gone
	}
}

func bomb(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestLyingServers holds that every one of them ends in a problem of its own, with no connection and no goroutine left.
func TestLyingServers(t *testing.T) {
	packed := bomb(t)
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		name  string
		serve func(net.Conn, <-chan struct{})
		want  string
		slow  bool // it ends by the time limit
	}{
		{"closes at once", write(""), "fetch.answer_broken", false},
		{"no HTTP", write("SSH-2.0-OpenSSH\r\n"), "fetch.answer_broken", false},
		{"says nothing", silent(""), "fetch.timeout", true},
		{"half a status", silent("HTTP/1.1 2"), "fetch.timeout", true},
		{"half a header", silent(ok + "X: y"), "fetch.timeout", true},
		{"no body", silent(ok + "Content-Length: 5\r\n\r\n"), "fetch.timeout", true},
		{"half a body", silent(ok + "Content-Length: 5\r\n\r\nab"), "fetch.timeout", true},
		{"too short", write(ok + "Content-Length: 5\r\n\r\nab"), "fetch.answer_broken", false},
		{"too short in chunks", write(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nab"), "fetch.answer_broken", false},
		{"bad chunks", write(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n"), "fetch.answer_broken", false},
		{"huge length", silent(ok + "Content-Length: 9223372036854775807\r\n\r\n"), "fetch.answer_too_large", false},
		{"bad length", write(ok + "Content-Length: -5\r\n\r\n"), "fetch.answer_broken", false},
		{"two lengths", write(ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "fetch.answer_broken", false},
		{"endless body", endless(ok+"\r\n", strings.Repeat("x", 1024)), "fetch.answer_too_large", false},
		{"endless chunks", endless(ok+"Transfer-Encoding: chunked\r\n\r\n", "400\r\n"+strings.Repeat("x", 1024)+"\r\n"), "fetch.answer_too_large", false},
		{"endless headers", endless(ok, "X-Y: "+strings.Repeat("z", 1000)+"\r\n"), "fetch.answer_broken", false},
		{"an endless header", endless(ok+"X: ", strings.Repeat("z", 1000)), "fetch.answer_broken", false},
		{"endless informational answers", endless("", "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"), "fetch.answer_broken", false},
		{"bomb", write(ok + "Content-Encoding: gzip\r\n\r\n" + packed), "fetch.answer_too_large", false},
		{"bomb in bombs", write(ok + "Content-Encoding: gzip, gzip\r\n\r\n" + packed), "fetch.answer_encoding", false},
		{"no gzip", write(ok + "Content-Encoding: gzip\r\n\r\nplain"), "fetch.answer_broken", false},
		{"half of gzip", write(ok + "Content-Encoding: gzip\r\n\r\n" + packed[:len(packed)/2]), "fetch.answer_too_large", false},
		{"another encoding", write(ok + "Content-Encoding: br\r\n\r\nxxxx"), "fetch.answer_encoding", false},
		{"switches protocols", silent("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), "fetch.answer_broken", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			c := config{grant: manifest.HTTPGrant{URL: liar(t, tt.serve), Private: loopback()}, limits: manifest.DefaultGrantLimits()}
			c.limits.Reply, c.limits.Timeout = 128<<10, time.Minute
			if tt.slow {
				c.limits.Timeout = 200 * time.Millisecond
			}
			d := open(t, c)
			a, err := do(t, d, "{}", "")
			if code(err) != tt.want {
				t.Errorf("%+v, %v; want %s", a, err, tt.want)
			}
			settle(t, func() string {
				if n := d.Open(); n > 0 {
					return fmt.Sprintf("%d connections are open", n)
				}
				return ""
			})
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			// The server itself has one that accepts, and one each for a connection.
			settle(t, func() string {
				if n := runtime.NumGoroutine(); n > before+4 {
					return fmt.Sprintf("%d goroutines, %d before", n, before)
				}
				return ""
			})
		})
	}
}

// settle waits until a fault is no more: what ends in the background has a minute.
func settle(t *testing.T, fault func() string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for f := fault(); f != ""; f = fault() {
		if time.Now().After(deadline) {
			t.Fatal(f)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestUnreachable holds what is said when there is nothing.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, open(t, config{grant: manifest.HTTPGrant{URL: "http://" + address, Private: loopback()}}), "{}", ""); code(err) != "fetch.unreachable" {
		t.Errorf("a closed port: %v", err)
	}
	if _, err := do(t, open(t, config{grant: manifest.HTTPGrant{URL: "https://nowhere.example"}, kind: httpgrant.Kind{Resolver: names{}}}), "{}", ""); code(err) != "fetch.name_unknown" {
		t.Errorf("an unknown name: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := open(t, config{grant: manifest.HTTPGrant{URL: "http://" + address, Private: loopback()}})
	if _, err := d.Do(ctx, &grant.Call{Op: "fetch", Request: []byte("{}")}); code(err) != "fetch.timeout" {
		t.Errorf("cancelled: %v", err)
	}
}
