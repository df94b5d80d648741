package client_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/client"
)

// serve starts a TLS server with handler and returns a client of it with the token "sp_test".
func serve(t *testing.T, handler http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewTLSServer(handler)
	t.Cleanup(s.Close)
	c, err := client.New(client.Config{Server: s.URL + "/", CAFile: caFile(t, s), Token: " sp_test\n", Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func caFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const url = "https://127.0.0.1:8600"
	for _, tt := range []struct {
		name string
		cfg  client.Config
		want string
	}{
		{"plain HTTP", client.Config{Server: "http://127.0.0.1:8600"}, "https://host:port"},
		{"no server", client.Config{}, "https://host:port"},
		{"no host", client.Config{Server: "https://"}, "https://host:port"},
		{"credentials in the URL", client.Config{Server: "https://user:secret@host"}, "https://host:port"},
		{"a query", client.Config{Server: "https://host?x=1"}, "https://host:port"},
		{"no URL", client.Config{Server: "https://[::1"}, "https://host:port"},
		{"no token file", client.Config{Server: url, TokenFile: filepath.Join(dir, "none")}, "read the token"},
		{"huge token file", client.Config{Server: url, TokenFile: write("huge", strings.Repeat("x", 1<<20+1))}, "larger than"},
		{"token of two lines", client.Config{Server: url, TokenFile: write("two", "sp_one\nsp_two\n")}, "malformed"},
		{"no CA file", client.Config{Server: url, CAFile: filepath.Join(dir, "none")}, "read the CA certificate"},
		{"certificate without a key", client.Config{Server: url, CertFile: write("crt", "nothing")}, "read the client certificate"},
		{"CA file without a certificate", client.Config{Server: url, CAFile: write("ca", "nothing")}, "holds no certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := client.New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New(%v) error = %v; want one with %q", tt.cfg, err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "sp_one") || strings.Contains(err.Error(), "xxxx")) {
				t.Errorf("New(%v) error = %v; it shows the token", tt.cfg, err)
			}
		})
	}
}

// TestRequests holds what each method sends to the contract: method, escaped path, query and body.
func TestRequests(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, tt := range []struct {
		name string
		call func(c *client.Client) error
		want string
	}{
		{"publish", func(c *client.Client) error { _, err := c.Publish(ctx, []byte(`{}`), false); return err },
			"POST /v1/namespaces/shop/events application/cloudevents+json {}"},
		{"publish a batch", func(c *client.Client) error { _, err := c.Publish(ctx, []byte(`[]`), true); return err },
			"POST /v1/namespaces/shop/events application/cloudevents-batch+json []"},
		{"event", func(c *client.Client) error {
			_, err := c.Event(ctx, "a/b ?", client.EventOptions{Source: "/s", Wait: time.Second, Data: true})
			return err
		}, "GET /v1/namespaces/shop/events/a%2Fb%20%3F?data=true&source=%2Fs&wait=1s"},
		{"event with the id ..", func(c *client.Client) error { _, err := c.Event(ctx, "..", client.EventOptions{}); return err },
			"GET /v1/namespaces/shop/events/%2E%2E"},
		{"events", func(c *client.Client) error {
			_, err := c.Events(ctx, client.ListOptions{Type: "a*", State: "dead", Since: "10m", Limit: 5, Cursor: "9"})
			return err
		}, "GET /v1/namespaces/shop/events?cursor=9&limit=5&since=10m&state=dead&type=a%2A"},
		{"invoke", func(c *client.Client) error { _, err := c.Invoke(ctx, "price", []byte("x"), "text/plain"); return err },
			"POST /v1/namespaces/shop/functions/price/invoke text/plain x"},
		{"functions", func(c *client.Client) error { _, err := c.Functions(ctx); return err }, "GET /v1/namespaces/shop/functions"},
		{"function", func(c *client.Client) error { _, err := c.Function(ctx, "price"); return err }, "GET /v1/namespaces/shop/functions/price"},
		{"subscriptions", func(c *client.Client) error { _, err := c.Subscriptions(ctx); return err }, "GET /v1/namespaces/shop/subscriptions"},
		{"subscription", func(c *client.Client) error { _, err := c.Subscription(ctx, "s"); return err }, "GET /v1/namespaces/shop/subscriptions/s"},
		{"pause", func(c *client.Client) error { _, err := c.SetPaused(ctx, "s", true); return err },
			"POST /v1/namespaces/shop/subscriptions/s/pause application/json"},
		{"resume", func(c *client.Client) error { _, err := c.SetPaused(ctx, "s", false); return err },
			"POST /v1/namespaces/shop/subscriptions/s/resume application/json"},
		{"dead letters", func(c *client.Client) error {
			_, err := c.DeadLetters(ctx, client.ListOptions{Subscription: "s"})
			return err
		},
			"GET /v1/namespaces/shop/dead-letters?subscription=s"},
		{"dead letter", func(c *client.Client) error { _, err := c.DeadLetter(ctx, "1-s", true); return err },
			"GET /v1/namespaces/shop/dead-letters/1-s?data=true"},
		{"redrive", func(c *client.Client) error { _, err := c.Redrive(ctx, api.DeadLetterSelection{All: true}); return err },
			`POST /v1/namespaces/shop/dead-letters/redrive application/json {"all":true,"dry_run":false}`},
		{"discard", func(c *client.Client) error {
			_, err := c.Discard(ctx, api.DeadLetterSelection{IDs: []string{"x"}, DryRun: true})
			return err
		}, `POST /v1/namespaces/shop/dead-letters/discard application/json {"ids":["x"],"all":false,"dry_run":true}`},
		{"apply", func(c *client.Client) error {
			_, err := c.Apply(ctx, &api.Bundle{Manifest: "m", Modules: map[string]api.Module{}}, true)
			return err
		}, `POST /v1/namespaces/shop/apps?dry_run=true application/json {"manifest":"m","modules":{}}`},
		{"create a token", func(c *client.Client) error {
			_, err := c.CreateToken(ctx, api.TokenRequest{Role: "reader"})
			return err
		},
			`POST /v1/tokens application/json {"role":"reader"}`},
		{"tokens", func(c *client.Client) error { _, err := c.Tokens(ctx); return err }, "GET /v1/tokens"},
		{"revoke", func(c *client.Client) error { return c.RevokeToken(ctx, "a/b") }, "DELETE /v1/tokens/a%2Fb"},
		{"status", func(c *client.Client) error { _, err := c.Status(ctx); return err }, "GET /v1/status"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got string
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				got = strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Method, r.RequestURI, r.Header.Get("Content-Type"), body))
				if a := r.Header.Get("Authorization"); a != "Bearer sp_test" {
					t.Errorf("Authorization = %q; want the token", a)
				}
				_, _ = io.WriteString(w, "{}")
			})
			if err := tt.call(c); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		w.Header().Set("Sallyport-Event-Id", "e1")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, `{"code":"cell.function_failed","title":"It failed","detail":"out of stock","future":1}`)
	})
	got, err := c.Invoke(t.Context(), "f", nil, "application/json")
	if got != nil {
		t.Errorf("Invoke() = %v; want nil with an error", got)
	}
	p, ok := errors.AsType[*client.Problem](err)
	if !ok {
		t.Fatalf("Invoke() error = %v; want a *client.Problem", err)
	}
	want := client.Problem{
		Problem:    api.Problem{Code: "cell.function_failed", Title: "It failed", Detail: "out of stock", Status: 502},
		RetryAfter: 3 * time.Second, EventID: "e1",
	}
	if diff := cmp.Diff(want, *p); diff != "" {
		t.Errorf("problem (-want +got):\n%s", diff)
	}
	if got, want := p.Error(), "out of stock [cell.function_failed]"; got != want {
		t.Errorf("Error() = %q; want %q", got, want)
	}
}

// TestForeignAnswers: what answers may be anything, a proxy's page or a captive portal.
func TestForeignAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body string
		status     int
		header     []string
		want       string
	}{
		{"a proxy's error page", "<html>", 502, nil, "no answer of Sallyport"},
		{"JSON that is no problem", `{"error":"x"}`, 400, nil, "no answer of Sallyport"},
		{"a page with status 200", "<html>", 200, nil, "read the server's answer"},
		{"an answer that ends early", `{"version":`, 200, nil, "read the server's answer"},
		{"duplicate members", `{"version":"a","version":"b"}`, 200, nil, "read the server's answer"},
		{"a redirect", "", 307, []string{"Location", "https://elsewhere.example/"}, "redirect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				for i := 0; i+1 < len(tt.header); i += 2 {
					w.Header().Set(tt.header[i], tt.header[i+1])
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			got, err := c.Status(t.Context())
			if got != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Status() = %v, %v; want an error with %q", got, err, tt.want)
			}
		})
	}
}

// TestUnknownAuthority: a server whose certificate is not from the CA is not talked to.
func TestUnknownAuthority(t *testing.T) {
	t.Parallel()
	asked := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	defer s.Close()
	c, err := client.New(client.Config{Server: s.URL, Token: "sp_test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); err == nil || asked {
		t.Errorf("Status() error = %v, asked = %v; want an error before anything is sent", err, asked)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	const two = `{"time":"2026-01-02T03:04:05Z","function":"f","message":"one"}` + "\n" + `{"function":"f","message":"two"}` + "\n"
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, two) })
	var got []string
	collect := func(l *api.LogLine) error { got = append(got, l.Message); return nil }
	if err := c.Logs(t.Context(), client.LogOptions{}, collect); err != nil {
		t.Errorf("Logs() error = %v; want none at the end of the past", err)
	}
	if err := c.Logs(t.Context(), client.LogOptions{Follow: true}, collect); !errors.Is(err, client.ErrStreamEnded) {
		t.Errorf("Logs(follow) error = %v; want ErrStreamEnded", err)
	}
	if diff := cmp.Diff([]string{"one", "two", "one", "two"}, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	enough := errors.New("enough")
	if err := c.Logs(t.Context(), client.LogOptions{}, func(*api.LogLine) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Logs() error = %v; want that of line", err)
	}
	bad := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>\n") })
	if err := bad.Logs(t.Context(), client.LogOptions{}, collect); err == nil {
		t.Error("Logs() of a page: no error")
	}
}

// TestFollowEnds: a follower ends with its context, though the server says nothing more.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"message":"one"}`+"\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Logs(ctx, client.LogOptions{Follow: true}, func(*api.LogLine) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Logs() error = %v; want context.Canceled", err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", "Fri, 02 Jan 2026 03:04:05 GMT")
		_, _ = io.WriteString(w, "ok\n")
	})
	got, err := c.Health(t.Context())
	if want := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC); err != nil || !got.Equal(want) {
		t.Errorf("Health() = %v, %v; want %v", got, err, want)
	}
}

// TestNoTokenInLogs: neither the settings nor the client show the token when they are logged.
func TestNoTokenInLogs(t *testing.T) {
	t.Parallel()
	cfg := client.Config{Server: "https://host", Token: "sp_secret"}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "config", cfg, "client", c)
	if strings.Contains(out.String(), "sp_secret") || !strings.Contains(out.String(), "[redacted]") {
		t.Errorf("log = %s; want the token redacted", out.String())
	}
}
