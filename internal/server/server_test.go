package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/grant/double"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/server"
)

// running is a server inside the test.
type running struct {
	ready api.Ready
	stop  func() error
	log   *bytes.Buffer
}

func settings(dir string) *manifest.Server {
	s := manifest.DefaultServer()
	s.Listen, s.DataDir = "127.0.0.1:0", dir
	return s
}

// run starts a server and waits until it is ready.
func run(t *testing.T, cfg server.Config) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{log: &bytes.Buffer{}}
	ready, ended := make(chan api.Ready, 1), make(chan error, 1)
	cfg.Version, cfg.Mode, cfg.Log = "test", "server", r.log
	cfg.OnReady = func(v api.Ready) { ready <- v }
	go func() { ended <- server.Run(ctx, cfg) }()
	select {
	case r.ready = <-ready:
	case err := <-ended:
		cancel()
		t.Fatalf("server ended before it was ready: %v", err)
	}
	var once sync.Once
	var err error
	r.stop = func() error {
		once.Do(func() { cancel(); err = <-ended })
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("server ended with %v", err)
		}
	})
	return r
}

func (r *running) client(t *testing.T, token string) *client.Client {
	t.Helper()
	cfg := client.Config{Server: r.ready.URL, CAFile: r.ready.CAFile, TokenFile: r.ready.TokenFile, Token: token}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStartStopStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	readyFile := filepath.Join(t.TempDir(), "ready.json")
	cfg := server.Config{Settings: settings(dir)}
	cfg.Settings.ReadyFile = readyFile
	var ca []byte
	for round := range 2 {
		r := run(t, cfg)
		if _, err := os.Stat(readyFile); err != nil {
			t.Errorf("round %d: no ready file: %v", round, err)
		}
		c := r.client(t, "")
		st, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !st.Ready || len(st.Namespaces) != 1 || st.Namespaces[0].Accepted != int64(round) {
			t.Errorf("round %d: status %+v", round, st)
		}
		event := []byte(`{"specversion":"1.0","id":"` + strings.Repeat("x", round+1) + `","source":"/t","type":"a"}`)
		if _, err := c.Publish(t.Context(), event, false); err != nil {
			t.Fatal(err)
		}
		pem, err := os.ReadFile(r.ready.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			ca = pem
		} else if !bytes.Equal(ca, pem) {
			t.Error("a restart replaced the CA: every client would have to be told")
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(readyFile); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("round %d: the ready file is there after the end: %v", round, err)
		}
		text, err := os.ReadFile(r.ready.TokenFile)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(r.log.String(), strings.TrimSpace(string(text))) {
			t.Error("the log holds the operator token")
		}
	}
}

// TestPermissions: nothing in the data directory can be read by others.
func TestPermissions(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	r := run(t, server.Config{Settings: settings(dir)})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// The directory is closed to others, so what is below it may be what the store makes it.
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode of the data directory is %v, %v; want 0700", st.Mode(), err)
	}
	for _, name := range []string{"root.key", "operator.token", "tls/ca.key", "tls/server.key"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, st, err)
		}
	}
}

func TestOneServerForADirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	run(t, server.Config{Settings: settings(dir)})
	err := server.Run(t.Context(), server.Config{Settings: settings(dir), Log: io.Discard})
	if problem.From(err).Code != "server.data_dir_in_use" {
		t.Errorf("a second server on the same directory: %v, want server.data_dir_in_use", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for code, change := range map[string]func(*manifest.Server){
		"server.address_in_use":       func(s *manifest.Server) { s.Listen = busy.Addr().String() },
		"server.address_unusable":     func(s *manifest.Server) { s.Listen = "203.0.113.1:1" },
		"server.data_dir":             func(s *manifest.Server) { s.DataDir = filepath.Join(file, "data") },
		"server.certificate_unusable": func(s *manifest.Server) { s.TLS = manifest.TLS{CertFile: file, KeyFile: file} },
	} {
		s := settings(filepath.Join(t.TempDir(), "data"))
		change(s)
		if err := server.Run(t.Context(), server.Config{Settings: s, Log: io.Discard}); problem.From(err).Code != code {
			t.Errorf("Run = %v, want %s", err, code)
		}
	}
}

// TestTLS: the server speaks TLS 1.3 and nothing older, with a certificate of its own CA.
func TestTLS(t *testing.T) {
	t.Parallel()
	r := run(t, server.Config{Settings: settings(filepath.Join(t.TempDir(), "data"))})
	pem, err := os.ReadFile(r.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	address := strings.TrimPrefix(r.ready.URL, "https://")
	for name, cfg := range map[string]*tls.Config{
		"TLS 1.2":      {RootCAs: roots, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12},
		"other name":   {RootCAs: roots, ServerName: "example.com"},
		"unknown root": {RootCAs: x509.NewCertPool()},
	} {
		if conn, err := tls.Dial("tcp", address, cfg); err == nil {
			_ = conn.Close()
			t.Errorf("%s: the connection was made", name)
		}
	}
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/": 401, "/metrics": 401, "/v1/status": 401, "/debug/pprof/": 401} {
		resp, err := hc.Get(r.ready.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s without a token = %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestNewOperatorToken(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	r := run(t, server.Config{Settings: settings(dir)})
	old, err := os.ReadFile(r.ready.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = run(t, server.Config{Settings: settings(dir), NewOperatorToken: true})
	if _, err := r.client(t, "").Status(t.Context()); err != nil {
		t.Errorf("the new token: %v", err)
	}
	_, err = r.client(t, strings.TrimSpace(string(old))).Status(t.Context())
	if p, ok := errors.AsType[*client.Problem](err); !ok || p.Code != "access.unauthenticated" {
		t.Errorf("the replaced token: %v, want access.unauthenticated", err)
	}
}

// TestNamespaces: a namespace is made by its first token, and is apart from others.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	r := run(t, server.Config{Settings: settings(dir)})
	tok, err := r.client(t, "").CreateToken(t.Context(), api.TokenRequest{Role: "developer", Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		for ns, want := range map[string]string{"shop": "", "default": "access.denied", "nowhere": "access.denied"} {
			c, err := client.New(client.Config{Server: r.ready.URL, CAFile: r.ready.CAFile, Token: tok.Text, Namespace: ns})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Publish(t.Context(), []byte(`{"specversion":"1.0","id":"1","source":"/t","type":"a"}`), false)
			p, _ := errors.AsType[*client.Problem](err)
			if got := code(p); got != want {
				t.Errorf("round %d: publish in %s = %q, want %q", round, ns, got, want)
			}
		}
		if round == 0 {
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r = run(t, server.Config{Settings: settings(dir)})
		}
	}
}

func code(p *client.Problem) string {
	if p == nil {
		return ""
	}
	return p.Code
}

// TestNoDoublesInProduction: a server refuses to run with stand-ins for what grants reach, and with invocations that are whole events.
func TestNoDoublesInProduction(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*server.Config){
		"doubles": func(c *server.Config) { c.Doubles = double.New(double.Config{}) },
		"events":  func(c *server.Config) { c.InvokeEvents = true },
	} {
		for _, mode := range []string{server.ModeServer, "", "something else"} {
			dir := filepath.Join(t.TempDir(), "data")
			cfg := server.Config{Settings: settings(dir), Mode: mode, Log: io.Discard, OnReady: func(api.Ready) { t.Errorf("%s: a server of mode %q runs", name, mode) }}
			change(&cfg)
			if err := server.Run(t.Context(), cfg); err == nil {
				t.Errorf("%s: Run of mode %q = nil", name, mode)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: the server began with its data: %v", name, err)
			}
		}
	}
}
