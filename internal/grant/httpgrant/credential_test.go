package httpgrant_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"sallyport/internal/grant/httpgrant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/testkit"
)

const key = `sk_live_9/x+"<&Q=~7`

// TestCredentials has each kind come to the service, and nothing of it to the function: the service sends back all it got,
// in several forms.
func TestCredentials(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	stamp := fmt.Sprint(at.Unix())
	body := `{"amount":1}`
	digest := sha256.Sum256([]byte(body))
	sign := func(algorithm, text string) []byte {
		m := hmac.New(sha256.New, []byte(key))
		if algorithm == manifest.HMACSHA512 {
			m = hmac.New(sha512.New, []byte(key))
		}
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	for _, tt := range []struct {
		name string
		auth manifest.HTTPAuth
		want func(r *http.Request) string // what is wrong with it
	}{
		{"none", manifest.HTTPAuth{}, func(r *http.Request) string { return r.Header.Get("Authorization") }},
		{"bearer", manifest.HTTPAuth{Bearer: "secret:k"}, header("Authorization", "Bearer "+key)},
		{"bearer of a version", manifest.HTTPAuth{Bearer: "secret:k@2"}, header("Authorization", "Bearer another-value")},
		{"basic", manifest.HTTPAuth{Basic: &manifest.HTTPBasic{User: "u", Password: "secret:k"}}, func(r *http.Request) string {
			if u, p, ok := r.BasicAuth(); !ok || u != "u" || p != key {
				return u + ":" + p
			}
			return ""
		}},
		{"header", manifest.HTTPAuth{Header: &manifest.HTTPNamed{Name: "X-Api-Key", Prefix: "Key ", Value: "secret:k"}}, header("X-Api-Key", "Key "+key)},
		{"query", manifest.HTTPAuth{Query: &manifest.HTTPNamed{Name: "key", Value: "secret:k"}}, func(r *http.Request) string {
			if r.URL.Query().Get("key") != key || r.URL.Query().Get("a") != "b" {
				return r.RequestURI
			}
			return ""
		}},
		{"HMAC", manifest.HTTPAuth{HMAC: &manifest.HTTPSigned{Key: "secret:k", Header: "X-Signature", Format: "t={timestamp},v1={signature}", Signed: manifest.DefaultSigned, Algorithm: "sha256", Encoding: "hex"}}, func(r *http.Request) string {
			text := "sallyport-hmac-v1\nPOST\n" + r.Host + "\n/v1/a%20b\na=b\n" + stamp + "\n" + hex.EncodeToString(digest[:])
			return header("X-Signature", "t="+stamp+",v1="+hex.EncodeToString(sign("sha256", text)))(r)
		}},
		{"HMAC of the body", manifest.HTTPAuth{HMAC: &manifest.HTTPSigned{Key: "secret:k", Header: "X-Hub-Signature", Format: "sha512={signature}", Signed: "{timestamp}.{body}", Algorithm: "sha512", Encoding: "base64"}}, header("X-Hub-Signature", "sha512="+base64.StdEncoding.EncodeToString(sign("sha512", stamp+"."+body)))},
		{"AWS", manifest.HTTPAuth{AWS: &manifest.HTTPAWS{AccessKey: "AKIDEXAMPLE", SecretKey: "secret:aws", Session: "secret:session", Region: "eu-central-1", Service: "execute-api"}}, func(r *http.Request) string {
			again, err := http.NewRequest(r.Method, "http://"+r.Host+r.RequestURI, nil)
			if err != nil {
				return err.Error()
			}
			again.ContentLength = r.ContentLength
			for _, name := range []string{"X-Amz-Content-Sha256", "Content-Type"} {
				again.Header.Set(name, r.Header.Get(name))
			}
			creds := aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "aws-secret-key", SessionToken: "aws-session-token"}
			if err := v4.NewSigner().SignHTTP(r.Context(), creds, again, hex.EncodeToString(digest[:]), "execute-api", "eu-central-1", at); err != nil {
				return err.Error()
			}
			return header("Authorization", again.Header.Get("Authorization"))(r) + header("X-Amz-Security-Token", "aws-session-token")(r)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if wrong := tt.want(r); wrong != "" {
					t.Errorf("the service got %q", wrong)
				}
				auth := r.Header.Get("Authorization")
				w.Header().Set("X-Echo", auth)
				w.Header().Set("X-Uri", r.RequestURI)
				got, _ := io.ReadAll(r.Body)
				all, _ := json.Marshal(r.Header)
				fmt.Fprintf(w, "%s %s %s %s %x %s %s\n%s", auth, r.RequestURI, url.QueryEscape(key), base64.StdEncoding.EncodeToString([]byte("xy"+key+"z")), key, key, all, got)
			}))
			t.Cleanup(s.Close)
			store := &secrets{values: map[string]string{"k": key + "\n", "k@2": "another-value", "aws": "aws-secret-key", "session": "aws-session-token"}}
			d := open(t, config{grant: manifest.HTTPGrant{URL: s.URL + "/v1/{id}", AllowQuery: []string{"a"}, Private: loopback(), Auth: tt.auth}, secrets: store, kind: httpgrant.Kind{Now: func() time.Time { return at }}})
			a, err := do(t, d, `{"method":"POST","values":{"id":"a b"},"query":{"a":"b"},"headers":{"content-type":"application/json"}}`, body)
			if err != nil || !strings.HasSuffix(a.Body, body) || a.URL != s.URL+"/v1/a%20b?a=b" {
				t.Fatalf("%+v, %v", a, err)
			}
			if tt.name == "none" {
				return
			}
			all := fmt.Sprintf("%+v", a)
			hidden := []string{"aws-secret-key", "aws-session-token", "another-value", "Signature=" + "0", "v1=" + hex.EncodeToString(sign("sha256", "x"))[:1] + "0"}
			if tt.auth.AWS == nil && tt.auth.Bearer != "secret:k@2" {
				hidden = append(hidden, key, url.QueryEscape(key), hex.EncodeToString([]byte(key)), base64.StdEncoding.EncodeToString([]byte(key)), base64.StdEncoding.EncodeToString([]byte("u:"+key)))
			}
			for _, v := range hidden {
				if strings.Contains(all, v) {
					t.Errorf("the function gets %q in %s", v, all)
				}
			}
			if !strings.Contains(all, "[redacted]") {
				t.Errorf("nothing was taken out of %s", all)
			}
		})
	}
}

func header(name, value string) func(*http.Request) string {
	return func(r *http.Request) string {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != value {
			return fmt.Sprintf("%s: %q; want %q", name, got, value)
		}
		return ""
	}
}

// TestBadSecrets holds what is said when a secret is missing or cannot be used, without it.
func TestBadSecrets(t *testing.T) {
	t.Parallel()
	reached := 0
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
	t.Cleanup(s.Close)
	store := &secrets{values: map[string]string{"lines": "secret-line-1\r\nX-Evil: 1", "empty": "", "colon": "a:b", "k": key}}
	for _, tt := range []struct {
		name string
		auth manifest.HTTPAuth
		want string
	}{
		{"missing", manifest.HTTPAuth{Bearer: "secret:nothing"}, "fetch.credential_unavailable"},
		{"empty", manifest.HTTPAuth{Bearer: "secret:empty"}, "fetch.credential_unavailable"},
		{"lines", manifest.HTTPAuth{Bearer: "secret:lines"}, "fetch.credential_unusable"},
		{"lines in basic", manifest.HTTPAuth{Basic: &manifest.HTTPBasic{User: "secret:colon", Password: "secret:k"}}, "fetch.credential_unusable"},
		{"lines in AWS", manifest.HTTPAuth{AWS: &manifest.HTTPAWS{AccessKey: "secret:lines", SecretKey: "secret:k", Region: "r", Service: "s"}}, "fetch.credential_unusable"},
		{"no certificate", manifest.HTTPAuth{MTLS: &manifest.HTTPCertificate{Certificate: "secret:k", Key: "secret:k"}}, "fetch.credential_unusable"},
	} {
		d := open(t, config{grant: manifest.HTTPGrant{URL: s.URL, Private: loopback(), Auth: tt.auth}, secrets: store})
		_, err := do(t, d, "{}", "")
		if code(err) != tt.want {
			t.Errorf("%s: %v; want %s", tt.name, err, tt.want)
		}
		for e := err; e != nil; e = unwrap(e) {
			if strings.Contains(e.Error(), "secret-line") || strings.Contains(e.Error(), key) {
				t.Errorf("%s: the error has the secret: %v", tt.name, e)
			}
		}
	}
	if _, err := do(t, open(t, config{grant: manifest.HTTPGrant{URL: s.URL, Private: loopback(), Auth: manifest.HTTPAuth{Bearer: "secret:k"}}}), "{}", ""); code(err) != "fetch.credential_unavailable" {
		t.Errorf("no store: %v", err)
	}
	if reached > 0 {
		t.Errorf("the service was reached %d times", reached)
	}
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

// TestErrorsHoldNoCredential has a server send the credential back where no HTTP belongs: it comes into the cause of the error.
func TestErrorsHoldNoCredential(t *testing.T) {
	t.Parallel()
	address := liar(t, write("HTTP/1.1 "+key+"\r\n\r\n"))
	d := open(t, config{grant: manifest.HTTPGrant{URL: address, Private: loopback(), Auth: manifest.HTTPAuth{Bearer: "secret:k"}}, secrets: &secrets{values: map[string]string{"k": key}}})
	_, err := do(t, d, "{}", "")
	if code(err) != "fetch.answer_broken" {
		t.Fatal(err)
	}
	causes := ""
	for e := err; e != nil; e = unwrap(e) {
		causes += e.Error() + "\n"
	}
	if strings.Contains(causes, key) || !strings.Contains(causes, "[redacted]") {
		t.Errorf("causes: %s", causes)
	}
}

// TestRotation: a secret that changes is used by the next request, and one that changes while the old one is refused, by the same.
func TestRotation(t *testing.T) {
	t.Parallel()
	valid := atomic.Value{}
	valid.Store("version-1")
	asked := atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer "+valid.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	store := &secrets{values: map[string]string{"k": "version-1"}}
	d := open(t, config{grant: manifest.HTTPGrant{URL: s.URL, Private: loopback(), Methods: []string{"POST"}, Auth: manifest.HTTPAuth{Bearer: "secret:k"}}, secrets: store})
	status := func(want, requests int) {
		t.Helper()
		asked.Store(0)
		a, err := do(t, d, "{}", "data")
		if err != nil || a.Status != want || a.Body != "data" || asked.Load() != int64(requests) {
			t.Errorf("%+v, %v, %d requests; want %d, %d", a, err, asked.Load(), want, requests)
		}
	}
	status(http.StatusOK, 1)
	valid.Store("version-2")
	store.set("k", "version-2")
	status(http.StatusOK, 1)
	valid.Store("version-3")
	status(http.StatusUnauthorized, 1) // nothing newer is there: it is the function's to know
	store.after = func(s *secrets) { s.values["k"], s.after = "version-3", nil }
	status(http.StatusOK, 2)
	status(http.StatusOK, 1)
}

// TestOAuth2 gets a token, keeps it, and gets another one when it ends, when the client's secret changes and when it is refused.
func TestOAuth2(t *testing.T) {
	t.Parallel()
	var issued atomic.Int64
	var fault atomic.Value
	fault.Store("")
	var valid atomic.Value
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" {
			if r.Header.Get("Authorization") != "Bearer "+valid.Load().(string) {
				w.WriteHeader(http.StatusUnauthorized)
			}
			_, _ = io.WriteString(w, r.Header.Get("Authorization"))
			return
		}
		id, password, ok := r.BasicAuth()
		if !ok {
			id, password = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
		} else {
			password, _ = url.QueryUnescape(password)
		}
		if id != "client" || password != key && password != "rotated-secret" || r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "a b" {
			t.Errorf("the issuer got %q %q %v", id, password, r.PostForm)
		}
		if f := fault.Load().(string); f != "" {
			if f == "503" || f == "400" {
				w.WriteHeader(map[string]int{"503": 503, "400": 400}[f])
			}
			_, _ = io.WriteString(w, f)
			return
		}
		token := fmt.Sprintf("token-%08d", issued.Add(1))
		valid.Store(token)
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer","expires_in":600,"more":[1]}`, token)
	}))
	t.Cleanup(s.Close)
	for _, how := range []string{manifest.OAuth2Basic, manifest.OAuth2Body} {
		issued.Store(0)
		now := time.Now()
		store := &secrets{values: map[string]string{"c": key}}
		d := open(t, config{
			grant: manifest.HTTPGrant{URL: s.URL + "/api", Private: loopback(), CA: caOf(s), Auth: manifest.HTTPAuth{OAuth2: &manifest.HTTPOAuth2{
				TokenURL: s.URL + "/token", ClientID: "client", ClientSecret: "secret:c", Scopes: []string{"a", "b"}, ClientAuth: how,
			}}},
			secrets: store, kind: httpgrant.Kind{Now: func() time.Time { return now }},
		})
		use := func(what string, want int64) {
			t.Helper()
			a, err := do(t, d, "{}", "")
			if err != nil || a.Status != http.StatusOK || a.Body != "Bearer [redacted]" || issued.Load() != want {
				t.Errorf("%s, %s: %+v, %v, %d issued; want %d", how, what, a, err, issued.Load(), want)
			}
		}
		use("first", 1)
		use("kept", 1)
		now = now.Add(595 * time.Second)
		use("ends soon", 2)
		store.set("c", "rotated-secret")
		use("rotated", 3)
		valid.Store("withdrawn")
		use("refused", 4)
		now = now.Add(time.Hour)
		for f, want := range map[string]string{
			"503": "fetch.token_refused", "400": "fetch.token_refused", "{": "fetch.token_refused", `{"access_token":"","token_type":"Bearer"}`: "fetch.token_refused",
			`{"access_token":"x","token_type":"mac"}`: "fetch.token_refused", strings.Repeat("x", 100<<10): "fetch.answer_too_large",
		} {
			fault.Store(f)
			if _, err := do(t, d, "{}", ""); code(err) != want || (f == "503") != (problem.From(err).Kind == problem.Unavailable) {
				t.Errorf("issuer answers %.20q: %v", f, err)
			}
		}
		fault.Store("")
	}
}

// TestClientCertificate shows one that is kept as a secret, and another one as soon as it is another.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	authority := testkit.NewAuthority(t, "clients")
	pool := x509.NewCertPool()
	pool.AddCert(authority.Certificate)
	s := httptest.NewUnstartedServer(http.HandlerFunc(serveEcho))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	pair := func(name string) (cert, key string) {
		issued := authority.Issue(t, func(c *x509.Certificate) { c.Subject.CommonName = name })
		certFile, keyFile := testkit.WritePair(t, issued)
		certText, err := os.ReadFile(certFile)
		if err != nil {
			t.Fatal(err)
		}
		keyText, err := os.ReadFile(keyFile)
		if err != nil {
			t.Fatal(err)
		}
		return string(certText), string(keyText)
	}
	store := &secrets{values: map[string]string{"ca": caOf(s)}}
	g := manifest.HTTPGrant{URL: s.URL, Private: loopback(), CA: "secret:ca", Auth: manifest.HTTPAuth{MTLS: &manifest.HTTPCertificate{Certificate: "secret:cert", Key: "secret:cert-key"}}}
	d := open(t, config{grant: g, secrets: store})
	for _, name := range []string{"first", "first", "second"} {
		cert, certKey := pair(name)
		store.set("cert", cert)
		store.set("cert-key", certKey)
		a, err := do(t, d, "{}", "")
		if err != nil || !strings.Contains(a.Body, `"Client":"`+name+`"`) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		if n := d.Open(); n != 1 {
			t.Errorf("%d connections are open; want 1", n)
		}
	}
	g.Auth = manifest.HTTPAuth{}
	if _, err := do(t, open(t, config{grant: g, secrets: store}), "{}", ""); code(err) != "fetch.certificate_refused" && code(err) != "fetch.answer_broken" {
		t.Errorf("without a certificate: %v", err)
	}
}

// proxy is an HTTP proxy that makes tunnels, and remembers where to.
func proxy(t *testing.T, targets *[]string, to string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*targets = append(*targets, r.Method+" "+r.RequestURI)
		if to == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(out, in)
			_ = out.Close()
		}()
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestProxy goes through a proxy by address, or by name when the proxy is to resolve it.
func TestProxy(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(serveEcho))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "https://")
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	kind := httpgrant.Kind{Resolver: names{"example.com": {netip.MustParseAddr("93.184.216.34")}, "inside.example": {netip.MustParseAddr("10.0.0.1")}}}
	g := manifest.HTTPGrant{URL: "https://example.com:" + port, Private: loopback(), CA: caOf(s), Proxy: proxy(t, &targets, host)}
	if a, err := do(t, open(t, config{grant: g, kind: kind}), "{}", ""); err != nil || a.Status != http.StatusOK {
		t.Errorf("by address: %+v, %v", a, err)
	}
	g.ProxyResolves = true
	if a, err := do(t, open(t, config{grant: g, kind: httpgrant.Kind{Resolver: names{}}}), "{}", ""); err != nil || a.Status != http.StatusOK {
		t.Errorf("by name: %+v, %v", a, err)
	}
	if want := []string{"CONNECT 93.184.216.34:" + port, "CONNECT example.com:" + port}; fmt.Sprint(targets) != fmt.Sprint(want) {
		t.Errorf("targets %q; want %q", targets, want)
	}
	targets = nil
	// Through the proxy too, an address is one of those that may be reached.
	for _, target := range []string{"https://inside.example", "https://10.0.0.1", "https://169.254.169.254"} {
		g.URL, g.ProxyResolves = target, target != "https://inside.example"
		if _, err := do(t, open(t, config{grant: g, kind: kind}), "{}", ""); code(err) != "fetch.address_refused" {
			t.Errorf("%s: %v", target, err)
		}
	}
	// The proxy's own address must be named.
	g.URL, g.Private = "https://example.com", nil
	if _, err := do(t, open(t, config{grant: g, kind: kind}), "{}", ""); code(err) != "fetch.address_refused" {
		t.Errorf("a proxy that is not named: %v", err)
	}
	if len(targets) > 0 {
		t.Errorf("targets %q", targets)
	}
	g.Private = loopback()
	for name, address := range map[string]string{"refuses": proxy(t, &targets, ""), "is none": liar(t, write("SSH-2.0\r\n")), "is endless": liar(t, endless("HTTP/1.1 200 OK\r\n", "X: y\r\n")), "closes": liar(t, write(""))} {
		g.Proxy = address
		if _, err := do(t, open(t, config{grant: g, kind: kind}), "{}", ""); code(err) != "fetch.proxy_refused" {
			t.Errorf("a proxy that %s: %v", name, err)
		}
	}
}
