package httpgrant_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/grant"
	"sallyport/internal/grant/httpgrant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// secrets is a store of secrets in memory.
type secrets struct {
	mu     sync.Mutex
	values map[string]string
	asked  int
	// after, when set, is called after each look-up.
	after func(*secrets)
}

func (s *secrets) Value(_ context.Context, ns ident.Namespace, ref string, _ grant.Use) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	v, ok := s.values[ref]
	if ns != "shop" || !ok {
		return nil, errors.New("there is no such secret")
	}
	if s.after != nil {
		s.after(s)
	}
	return []byte(v), nil
}

func (s *secrets) set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name] = value
}

// config is what a test opens a door with.
type config struct {
	grant   manifest.HTTPGrant
	limits  manifest.GrantLimits
	secrets *secrets
	kind    httpgrant.Kind
}

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }

func open(t testing.TB, c config) *httpgrant.Door {
	t.Helper()
	if c.limits == (manifest.GrantLimits{}) {
		c.limits = manifest.DefaultGrantLimits()
		c.limits.Timeout = time.Minute
	}
	if c.grant.Methods == nil {
		c.grant.Methods = []string{"GET", "POST"}
	}
	o := grant.Opening{Namespace: "shop", Function: "price", Name: "api", Grant: manifest.Grant{HTTP: &c.grant, Limits: c.limits}}
	if c.secrets != nil {
		o.Secrets = c.secrets
	}
	door, err := c.kind.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(door.Close(), door.Close()); err != nil {
			t.Error(err)
		}
	})
	return door.(*httpgrant.Door)
}

// answer is what a function gets.
type answer struct {
	Status  int         `json:"status"`
	Headers [][2]string `json:"headers"`
	URL     string      `json:"url"`
	Body    string      `json:"-"`
}

func (a answer) header(name string) string {
	for _, h := range a.Headers {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

func do(t testing.TB, d grant.Door, request, body string) (answer, error) {
	t.Helper()
	reply, err := d.Do(t.Context(), &grant.Call{Op: "fetch", Request: []byte(request), Body: []byte(body)})
	if err != nil {
		return answer{}, err
	}
	var a answer
	if err := json.Unmarshal(reply.JSON, &a); err != nil {
		t.Fatalf("reply %s: %v", reply.JSON, err)
	}
	a.Body = string(reply.Body)
	return a, nil
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

// echo answers what it was asked.
type echo struct {
	Method, URI, Host, Body string
	Header                  http.Header
	Client                  string
}

func serveEcho(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	e := echo{Method: r.Method, URI: r.RequestURI, Host: r.Host, Body: string(body), Header: r.Header}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		e.Client = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	w.Header().Set("X-Answer", "yes")
	w.Header().Set("Set-Cookie", "session=1")
	_ = json.NewEncoder(w).Encode(e)
}

func caOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// TestFetch sends what a function supplies, and nothing else.
func TestFetch(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(serveEcho))
	t.Cleanup(s.Close)
	d := open(t, config{grant: manifest.HTTPGrant{
		URL: s.URL + "/v1/charges/{id}", Query: map[string]string{"version": "2"}, Headers: map[string]string{"X-Fixed": "f"}, AllowQuery: []string{"limit"},
		AllowHeaders: []string{"Idempotency-Key"}, Private: loopback(), CA: caOf(s),
	}})
	for _, tt := range []struct{ name, request, body, want string }{
		{"values", `{"method":"post","values":{"id":"ch 1"},"query":{"limit":[1,"a&b"]},"headers":{"content-type":"text/plain","Idempotency-Key":"k"}}`, "data", "POST /v1/charges/ch%201?version=2&limit=1&limit=a%26b data"},
		{"URL", `{"url":"` + s.URL + `/v1/charges/ch%201?limit=3&version=2#x"}`, "", "GET /v1/charges/ch%201?version=2&limit=3 "},
		{"lists", `{"values":{"id":7},"query":[["limit",true]],"headers":[["accept","text/plain"]]}`, "", "GET /v1/charges/7?version=2&limit=true "},
	} {
		a, err := do(t, d, tt.request, tt.body)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var e echo
		if err := json.Unmarshal([]byte(a.Body), &e); err != nil {
			t.Fatal(err)
		}
		if got := e.Method + " " + e.URI + " " + e.Body; got != tt.want || a.Status != http.StatusOK || a.header("x-answer") != "yes" || a.header("set-cookie") != "" {
			t.Errorf("%s: %q, answered %+v; want %q", tt.name, got, a, tt.want)
		}
		if e.Header.Get("X-Fixed") != "f" || e.Header.Get("User-Agent") != "sallyport" || e.Host != strings.TrimPrefix(s.URL, "https://") {
			t.Errorf("%s: headers %v, host %q", tt.name, e.Header, e.Host)
		}
		if want := s.URL + strings.Fields(tt.want)[1]; a.URL != want {
			t.Errorf("%s: URL %q; want %q", tt.name, a.URL, want)
		}
		if !d.Covers("GET", a.URL) || d.Covers("PUT", a.URL) || d.Covers("GET", s.URL+"/v2/x") {
			t.Errorf("%s: Covers is wrong", tt.name)
		}
	}
	if n := d.Open(); n != 1 {
		t.Errorf("%d connections are open after three requests; want 1", n)
	}
	d2 := open(t, config{grant: manifest.HTTPGrant{URL: s.URL + "/", Private: loopback()}})
	if _, err := do(t, d2, "{}", ""); code(err) != "fetch.certificate_refused" {
		t.Errorf("a CA that is not known: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, d, `{"values":{"id":"1"}}`, ""); err == nil {
		t.Error("a closed door sends")
	}
}

// TestRefused names what a function may not, each with its code, and holds that nothing was sent.
func TestRefused(t *testing.T) {
	t.Parallel()
	hits := 0
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	t.Cleanup(s.Close)
	d := open(t, config{grant: manifest.HTTPGrant{
		URL: s.URL + "/v1/{id}", Query: map[string]string{"version": "2"}, Headers: map[string]string{"X-Fixed": "f"}, AllowQuery: []string{"*"}, AllowHeaders: []string{"X-Ok"}, Private: loopback(),
		Auth: manifest.HTTPAuth{Query: &manifest.HTTPNamed{Name: "api_key", Value: "secret:k"}},
	}, secrets: &secrets{values: map[string]string{"k": "sk_live_123"}}})
	for _, tt := range []struct{ request, body, want string }{
		{`{`, "", "fetch.request_invalid"}, {`[]`, "", "fetch.request_invalid"}, {`{"host":"x"}`, "", "fetch.request_invalid"}, {`{"values":{"id":{}}}`, "", "fetch.request_invalid"},
		{`{"values":{"id":"1"},"values":{"id":"2"}}`, "", "fetch.request_invalid"}, {`{"values":{"id":"1"},"query":[["a"]]}`, "", "fetch.request_invalid"},
		{`{"values":{"id":"1"},"query":"a=b"}`, "", "fetch.request_invalid"}, {`{"values":{"id":"1","id":"2"}}`, "", "fetch.request_invalid"}, {`{"values":["1"]}`, "", "fetch.request_invalid"},
		{`{"values":{"id":"1"},"query":{"a":null}}`, "", "fetch.request_invalid"},
		{`{"method":"PUT","values":{"id":"1"}}`, "", "fetch.method_refused"}, {`{"method":"GET /x HTTP/1.1\r\nHost: y\r\n\r\n","values":{"id":"1"}}`, "", "fetch.method_refused"},
		{`{"method":"GET","values":{"id":"1"}}`, "body", "fetch.request_invalid"}, {`{}`, "", "fetch.value_refused"}, {`{"values":{"id":"1","x":"2"}}`, "", "fetch.value_refused"},
		{`{"values":{"id":"a/b"}}`, "", "fetch.value_refused"}, {`{"values":{"id":".."}}`, "", "fetch.value_refused"}, {`{"url":"` + s.URL + `/v1/1","values":{"id":"2"}}`, "", "fetch.request_invalid"},
		{`{"url":"` + s.URL + `/v2/1"}`, "", "fetch.not_covered"}, {`{"url":"` + s.URL + `/v1/1?a=%zz"}`, "", "fetch.request_invalid"},
		{`{"values":{"id":"1"},"query":{"version":"3"}}`, "", "fetch.query_refused"}, {`{"url":"` + s.URL + `/v1/1?version=3"}`, "", "fetch.query_refused"},
		{`{"values":{"id":"1"},"query":{"Version":"3"}}`, "", "fetch.query_refused"}, {`{"values":{"id":"1"},"query":{"version[]":"3"}}`, "", "fetch.query_refused"},
		{`{"values":{"id":"1"},"query":{"api_key":"x"}}`, "", "fetch.query_refused"}, {`{"values":{"id":"1"},"query":{"api.key":"x"}}`, "", "fetch.query_refused"},
		{`{"values":{"id":"1"},"query":{" api key ":"x"}}`, "", "fetch.query_refused"}, {`{"url":"` + s.URL + `/v1/1?%61pi_key=x"}`, "", "fetch.query_refused"},
		{`{"values":{"id":"1"},"query":{"a":"` + strings.Repeat("x", 9000) + `"}}`, "", "fetch.request_invalid"},
		{`{"values":{"id":"1"},"headers":{"host":"evil"}}`, "", "fetch.header_refused"}, {`{"values":{"id":"1"},"headers":{"X-Other":"1"}}`, "", "fetch.header_refused"},
		{`{"values":{"id":"1"},"headers":{"X-Fixed":"1"}}`, "", "fetch.header_refused"}, {`{"values":{"id":"1"},"headers":{"X-Ok":"1\r\nX: y"}}`, "", "fetch.request_invalid"},
		{`{"values":{"id":"1"},"headers":{"X-Ok\r\nX":"y"}}`, "", "fetch.header_refused"}, {`{"values":{"id":"1"},"headers":[["X-Ok","1"],["x-ok","2"]]}`, "", "fetch.request_invalid"},
		{`{"values":{"id":"1"},"headers":{"":"y"}}`, "", "fetch.header_refused"}, {`{"values":{"id":"1"},"headers":{"X-Ok":"é"}}`, "", "fetch.request_invalid"},
	} {
		if _, err := do(t, d, tt.request, tt.body); code(err) != tt.want {
			t.Errorf("%.90s: %v; want %s", tt.request, err, tt.want)
		}
	}
	for _, name := range []string{
		"Authorization", "Cookie", "Connection", "Transfer-Encoding", "transfer_encoding", "Content-Length", "Content_Length", "TE", "Trailer", "Upgrade", "Expect", "Proxy-Authorization", "Keep-Alive", "Via",
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X_Forwarded_Host", "X-HTTP-Method-Override", "X-Original-URL", "Sec-Fetch-Site", "Origin", "Date", "Accept-Encoding", "Transfer-Encoding ", " Host", "Host:",
	} {
		request, _ := json.Marshal(map[string]any{"values": map[string]string{"id": "1"}, "headers": map[string]string{name: "x"}})
		if _, err := do(t, d, string(request), ""); code(err) != "fetch.header_refused" {
			t.Errorf("header %q: %v", name, err)
		}
	}
	if _, err := d.Do(t.Context(), &grant.Call{Op: "dial", Request: []byte("{}")}); code(err) != "fetch.request_invalid" {
		t.Errorf("another operation: %v", err)
	}
	if hits > 0 {
		t.Errorf("%d requests were sent", hits)
	}
	if _, err := do(t, d, `{"values":{"id":"1"},"query":{"other":"x"}}`, ""); err != nil || hits != 1 {
		t.Errorf("what is allowed: %v, %d sent", err, hits)
	}
}

// TestRedirects follows those that stay within the grant.
func TestRedirects(t *testing.T) {
	t.Parallel()
	reached := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
	t.Cleanup(other.Close)
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer sk_live_123" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		to := map[string]string{
			"/v1/a": "/v1/b", "/v1/b": "end", "/v1/other": other.URL + "/v1/x", "/v1/path": "/admin", "/v1/up": "/v1/../admin", "/v1/loop": "/v1/loop", "/v1/user": strings.Replace(s.URL, "//", "//u:p@", 1) + "/v1/end",
			"/v1/scheme": "file:///etc/passwd", "/v1/query": "/v1/end?admin=1", "/v1/bad": "http://%zz", "/v1/meta": "http://169.254.169.254/v1/x", "/v1/slash": "//evil.example/v1/x", "/v1/back": `\\evil.example\v1\x`,
		}[r.URL.Path]
		if to == "" {
			serveEcho(w, r)
			return
		}
		w.Header().Set("Location", to)
		status := http.StatusFound
		if r.URL.Query().Get("keep") != "" {
			status = http.StatusTemporaryRedirect
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	store := &secrets{values: map[string]string{"k": "sk_live_123"}}
	g := manifest.HTTPGrant{URL: s.URL + "/v1/{id}", Private: loopback(), Redirects: 3, Auth: manifest.HTTPAuth{Bearer: "secret:k"}, AllowQuery: []string{"keep"}}
	d := open(t, config{grant: g, secrets: store})
	a, err := do(t, d, `{"method":"POST","values":{"id":"a"},"headers":{"content-type":"text/plain"}}`, "data")
	if err != nil || a.URL != s.URL+"/v1/end" || !strings.Contains(a.Body, `"GET"`) || strings.Contains(a.Body, "data") {
		t.Errorf("followed: %+v, %v", a, err)
	}
	if a, err = do(t, d, `{"method":"POST","values":{"id":"b"},"query":{"keep":1}}`, "data"); err != nil || !strings.Contains(a.Body, `"POST"`) || !strings.Contains(a.Body, "data") {
		t.Errorf("followed with the body: %+v, %v", a, err)
	}
	for _, id := range []string{"other", "path", "up", "user", "scheme", "query", "bad", "meta", "slash", "back"} {
		if a, err := do(t, d, `{"values":{"id":"`+id+`"}}`, ""); code(err) != "fetch.redirect_refused" {
			t.Errorf("%s: %+v, %v", id, a, err)
		}
	}
	if a, err := do(t, d, `{"values":{"id":"loop"}}`, ""); err != nil || a.Status != http.StatusFound {
		t.Errorf("for ever: %+v, %v", a, err)
	}
	g.Redirects = 0
	if a, err := do(t, open(t, config{grant: g, secrets: store}), `{"values":{"id":"other"}}`, ""); err != nil || a.Status != http.StatusFound || a.header("location") != other.URL+"/v1/x" {
		t.Errorf("not followed: %+v, %v", a, err)
	}
	if reached > 0 {
		t.Errorf("another server was reached %d times", reached)
	}
}

// TestManyAtOnce uses one door from many goroutines while a secret changes.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(serveEcho))
	t.Cleanup(s.Close)
	store := &secrets{values: map[string]string{"k": "sk_live_0000"}}
	d := open(t, config{grant: manifest.HTTPGrant{URL: s.URL + "/{id}", Private: loopback(), Auth: manifest.HTTPAuth{Bearer: "secret:k"}}, secrets: store})
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			for j := range 20 {
				if i == 0 {
					store.set("k", fmt.Sprintf("sk_live_%04d", j))
				}
				id := fmt.Sprintf("%d-%d", i, j)
				a, err := do(t, d, `{"values":{"id":"`+id+`"}}`, "")
				if err != nil || !strings.Contains(a.Body, `"/`+id+`"`) || strings.Contains(a.Body, "sk_live") || !strings.Contains(a.Body, "Bearer [redacted]") {
					t.Errorf("%s: %+v, %v", id, a, err)
				}
			}
		})
	}
	all.Wait()
}

func TestReplyForm(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-B"] = []string{"2", "1"}
		w.Header().Set("X-A", "caf\xe9")
		w.Header().Set("Date", "now")
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(s.Close)
	a, err := do(t, open(t, config{grant: manifest.HTTPGrant{URL: s.URL, Private: loopback()}}), "{}", "")
	want := answer{Status: http.StatusTeapot, URL: s.URL + "/", Headers: [][2]string{{"date", "now"}, {"x-a", "café"}, {"x-b", "1"}, {"x-b", "2"}}}
	if diff := cmp.Diff(want, a); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
