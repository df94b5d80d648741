// Package conformance_test holds the real binary to its HTTP API: to api/openapi.yaml, to CloudEvents
// 1.0, and to deny by default.
package conformance_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/testkit"
)

type operation struct {
	method, path string
	open         bool // needs no token
}

// operations reads paths and methods out of openapi.yaml, which is written in block style.
func operations(t *testing.T) []operation {
	t.Helper()
	text, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path, method := regexp.MustCompile(`^  (/\S*):$`), regexp.MustCompile(`^    (get|post|put|patch|delete):$`)
	var out []operation
	at := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if m := path.FindStringSubmatch(line); m != nil {
			at = m[1]
		} else if m := method.FindStringSubmatch(line); m != nil && at != "" {
			out = append(out, operation{method: strings.ToUpper(m[1]), path: at})
		} else if line == "      security: []" {
			out[len(out)-1].open = true
		} else if line == "components:" {
			break
		}
	}
	if len(out) < 20 {
		t.Fatalf("only %d operations in openapi.yaml: the gate is looking in the wrong place", len(out))
	}
	return out
}

func fill(path string) string {
	return strings.NewReplacer("{ns}", "default", "{id}", "x", "{name}", "x").Replace(path)
}

// bare sends a request with these headers and nothing else.
func bare(t *testing.T, s *testkit.Server, method, path string, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.Ready.URL+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// public reports whether a path answers without a token. It is the list of all that do.
func public(path string) bool {
	return slices.Contains([]string{"/healthz", "/readyz", "/.well-known/openid-configuration", "/.well-known/jwks.json"}, path)
}

// TestEveryRoute asks each operation of openapi.yaml without a token, with a wrong one and with a
// method it does not have; and paths that do not exist. It is G6: nothing answers without a token.
func TestEveryRoute(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	known := map[string]map[string]bool{}
	for _, op := range operations(t) {
		if known[op.path] == nil {
			known[op.path] = map[string]bool{}
		}
		known[op.path][op.method] = true
		if op.open != public(op.path) {
			t.Errorf("%s %s: the description says open %v, the list %v", op.method, op.path, op.open, public(op.path))
		}
		if op.open {
			for _, m := range []string{"POST", "PUT", "DELETE", "HEAD"} {
				if resp := bare(t, s, m, op.path, nil); resp.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s %s without a token = %d, want 401", m, op.path, resp.StatusCode)
				}
			}
			if resp := bare(t, s, op.method, op.path, nil); resp.StatusCode != http.StatusOK {
				t.Errorf("%s %s without a token = %d, want 200", op.method, op.path, resp.StatusCode)
			}
			continue
		}
		var first string
		for _, auth := range []string{"", "Bearer", "Bearer x", "Basic b3A6b3A=", "Bearer " + strings.Repeat("sp_", 30), "Bearer " + s.Token[:len(s.Token)-1] + "~"} {
			h := http.Header{}
			if auth != "" {
				h.Set("Authorization", auth)
			}
			resp := bare(t, s, op.method, fill(op.path), h)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s with Authorization %q = %d, want 401", op.method, op.path, auth, resp.StatusCode)
			}
			if first == "" {
				first = string(body)
			}
			if string(body) != first {
				t.Errorf("%s %s tells wrong tokens apart:\n%s\n%s", op.method, op.path, first, body)
			}
		}
		a := s.MustDo(t, op.method, fill(op.path), []byte("{}"), "Content-Type", "application/json")
		if p := a.Problem(); p.Code == "httpapi.no_such_path" || p.Code == "httpapi.method_not_allowed" {
			t.Errorf("%s %s is in openapi.yaml, but the server answers %s", op.method, op.path, p.Code)
		}
	}
	for path, methods := range known {
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			if methods[m] || public(path) {
				continue
			}
			a := s.MustDo(t, m, fill(path), nil)
			if a.Status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s = %d, want 405", m, path, a.Status)
			}
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/namespaces/default/nothing", "/debug/pprof/", "/v2/status", "/healthz/x", "/.well-known/", "/.well-known/jwks.json/", "/.well-known/jwks.json?x=1", "/.well-known/security.txt"} {
		if resp := bare(t, s, "GET", path, nil); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("GET %s without a token = %d, want 401", path, resp.StatusCode)
		}
		if a := s.MustDo(t, "GET", path, nil); a.Status != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", path, a.Status)
		}
	}
}

// TestRoles gives each role a token of one namespace and asks what it must not get.
func TestRoles(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	token := func(req string) string {
		var tok api.NewToken
		s.MustDo(t, "POST", "/v1/tokens", []byte(req), "Content-Type", "application/json").Decode(t, http.StatusCreated, &tok)
		return tok.Text
	}
	event := []byte(`{"specversion":"1.0","id":"1","source":"/t","type":"a"}`)
	for _, tc := range []struct {
		role, method, path string
		want               int
	}{
		{"publisher", "POST", "/v1/namespaces/shop/events", 202},
		{"publisher", "POST", "/v1/namespaces/default/events", 403},
		{"publisher", "GET", "/v1/namespaces/shop/events", 403},
		{"publisher", "GET", "/v1/namespaces/shop/logs", 403},
		{"publisher", "POST", "/v1/namespaces/shop/apps", 403},
		{"publisher", "POST", "/v1/tokens", 403},
		{"publisher", "GET", "/metrics", 403},
		{"reader", "GET", "/v1/namespaces/shop/events", 200},
		{"reader", "GET", "/v1/namespaces/shop/events/1?data=true", 403},
		{"reader", "POST", "/v1/namespaces/shop/events", 403},
		{"reader", "POST", "/v1/namespaces/shop/dead-letters/redrive", 403},
		{"reader", "GET", "/v1/namespaces/default/events", 403},
		{"developer", "GET", "/v1/namespaces/shop/events/1?data=true", 200},
		{"developer", "GET", "/v1/namespaces/other/events", 403},
		{"developer", "GET", "/v1/tokens", 403},
		{"developer", "GET", "/metrics", 403},
	} {
		text := token(`{"role":"` + tc.role + `","namespace":"shop"}`)
		req, err := http.NewRequestWithContext(t.Context(), tc.method, s.Ready.URL+tc.path, bytes.NewReader(event))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+text)
		req.Header.Set("Content-Type", "application/cloudevents+json")
		resp, err := s.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%s: %s %s = %d, want %d\n%s", tc.role, tc.method, tc.path, resp.StatusCode, tc.want, body)
		}
	}
}

// TestRevokedAtOnce: a revoked token fails on the next request, on a connection that is open.
func TestRevokedAtOnce(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	var tok api.NewToken
	s.MustDo(t, "POST", "/v1/tokens", []byte(`{"role":"reader"}`), "Content-Type", "application/json").Decode(t, http.StatusCreated, &tok)
	h := http.Header{"Authorization": {"Bearer " + tok.Text}}
	if resp := bare(t, s, "GET", "/v1/status", h); resp.StatusCode != http.StatusOK {
		t.Fatalf("before: %d", resp.StatusCode)
	}
	if a := s.MustDo(t, "DELETE", "/v1/tokens/"+tok.ID, nil); a.Status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", a.Status, a.Body)
	}
	if resp := bare(t, s, "GET", "/v1/status", h); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after: %d, want 401", resp.StatusCode)
	}
}
