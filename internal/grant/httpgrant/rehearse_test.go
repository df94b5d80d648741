package httpgrant_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/internal/grant"
	"sallyport/internal/grant/httpgrant"
	"sallyport/internal/manifest"
)

// stand answers each request with the next of its answers, and keeps what would have been sent.
type stand struct {
	answers []grant.Reply
	sent    []string
}

func (s *stand) Takes(*grant.Caller) bool { return true }

func (s *stand) Answer(_ context.Context, _ *grant.Call, p grant.Planned) (grant.Reply, bool, error) {
	s.sent = append(s.sent, string(p.Sent))
	a := grant.Reply{JSON: []byte(`{}`)}
	if len(s.answers) > 0 {
		a, s.answers = s.answers[0], s.answers[1:]
	}
	return a, false, nil
}

func rehearse(t *testing.T, d *httpgrant.Door, request, body string, s *stand) (grant.Reply, error) {
	t.Helper()
	reply, carryOut, err := d.Rehearse(t.Context(), &grant.Call{Op: "fetch", Request: []byte(request), Body: []byte(body)}, s)
	if carryOut {
		t.Error("the use is to be carried out, which nobody said")
	}
	return reply, err
}

// TestRehearsalsAreRefusedAlike: what a request is refused for, it is refused for in a rehearsal, by the same code; and what is not, comes to
// the stand-in with no name looked up and nothing connected to.
func TestRehearsalsAreRefusedAlike(t *testing.T) {
	t.Parallel()
	port, hits := canary(t)
	var asked atomic.Int64
	held := &secrets{values: map[string]string{"key": "sk_live_12345678"}}
	d := open(t, config{
		grant: manifest.HTTPGrant{
			URL: "https://api.example.org/v1/{id}", AllowQuery: []string{"*"}, AllowHeaders: []string{"X-Ok"}, Auth: manifest.HTTPAuth{Bearer: "secret:key"},
		},
		secrets: held, kind: httpgrant.Kind{Resolver: counting{&asked}},
	})
	var requests []map[string]any
	for _, v := range append(spellings(port), injections...) {
		requests = append(requests, map[string]any{"url": v}, map[string]any{"values": map[string]string{"id": v}}, map[string]any{"values": map[string]string{v: "a"}},
			map[string]any{"values": map[string]string{"id": "a"}, "query": map[string]string{v: v}}, map[string]any{"values": map[string]string{"id": "a"}, "headers": map[string]string{"X-Ok": v}},
			map[string]any{"values": map[string]string{"id": "a"}, "headers": map[string]string{v: "a"}}, map[string]any{"method": v, "values": map[string]string{"id": "a"}})
	}
	requests = append(requests, map[string]any{"values": map[string]string{"id": "a"}}, map[string]any{"method": "DELETE", "values": map[string]string{"id": "a"}})
	refused, passed := 0, 0
	for _, r := range requests {
		text, err := json.Marshal(r)
		if err != nil {
			continue // it cannot be said
		}
		_, inTruth := do(t, d, string(text), "")
		before := asked.Load()
		s := &stand{}
		_, rehearsed := rehearse(t, d, string(text), "", s)
		want := code(inTruth)
		if want == "fetch.name_unknown" { // it got as far as the resolver
			want = ""
			passed++
		} else {
			refused++
		}
		if code(rehearsed) != want {
			t.Errorf("%s: rehearsed %v, in truth %v", text, rehearsed, inTruth)
		}
		if asked.Load() != before || (want == "") != (len(s.sent) == 1) {
			t.Errorf("%s: %d names were looked up, the stand-in got %q", text, asked.Load()-before, s.sent)
		}
		if strings.Contains(strings.Join(s.sent, ""), "sk_live") {
			t.Errorf("%s: the credential is in %q", text, s.sent)
		}
	}
	if refused < 100 || passed < 20 || hits.Load() > 0 {
		t.Errorf("%d were refused, %d passed, %d connections: the test tests nothing", refused, passed, hits.Load())
	}
}

// TestRehearsedAnswers: an answer of a stand-in is treated like one of the service.
func TestRehearsedAnswers(t *testing.T) {
	t.Parallel()
	held := &secrets{values: map[string]string{"key": "sk_live_12345678"}}
	auth := manifest.HTTPAuth{Bearer: "secret:key"}
	d := open(t, config{grant: manifest.HTTPGrant{URL: "https://api.example.org/v1/{id}", Redirects: 2, Auth: auth}, secrets: held})
	const request = `{"values":{"id":"a"}}`

	echo := grant.Reply{JSON: []byte(`{"status":201,"headers":{"x-echo":"Bearer sk_live_12345678"}}`), Body: []byte("you sent sk_live_12345678")}
	reply, err := rehearse(t, d, request, "", &stand{answers: []grant.Reply{echo}})
	if text := string(reply.JSON) + string(reply.Body); err != nil || strings.Contains(text, "sk_live") || !strings.Contains(text, `"status":201`) || !strings.Contains(text, "you sent ") {
		t.Errorf("an echo of the credential comes back as %s, %v", text, err)
	}
	moved := func(to string) grant.Reply {
		return grant.Reply{JSON: []byte(`{"status":307,"headers":{"location":"` + to + `"}}`)}
	}
	s := &stand{answers: []grant.Reply{moved("/v1/b")}}
	if _, err := rehearse(t, d, request, "", s); err != nil || len(s.sent) != 2 || !strings.Contains(s.sent[1], "/v1/b") {
		t.Errorf("a redirect gave %v, and was followed by %q", err, s.sent)
	}
	for _, to := range []string{"https://evil.example/v1/b", "http://api.example.org/v1/b", "/admin"} {
		if _, err := rehearse(t, d, request, "", &stand{answers: []grant.Reply{moved(to)}}); code(err) != "fetch.redirect_refused" {
			t.Errorf("a redirect to %s = %v", to, err)
		}
	}
	for _, a := range []string{`{"status":99}`, `{"state":200}`, `[]`, `{"status":"200"}`} {
		if _, err := rehearse(t, d, request, "", &stand{answers: []grant.Reply{{JSON: []byte(a)}}}); code(err) != "grant.stand_in_invalid" {
			t.Errorf("the answer %s = %v", a, err)
		}
	}
	held.set("key", "")
	if _, err := rehearse(t, d, request, "", &stand{}); code(err) != "fetch.credential_unavailable" {
		t.Errorf("without its secret, a use is %v", err)
	}
}

// TestRehearsedAddresses: an address that stands in the manifest is checked without connecting to it.
func TestRehearsedAddresses(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer service.Close()
	for _, tt := range []struct {
		grant manifest.HTTPGrant
		want  string
	}{
		{manifest.HTTPGrant{URL: service.URL + "/"}, "fetch.address_refused"},
		{manifest.HTTPGrant{URL: service.URL + "/", Private: loopback()}, ""},
		{manifest.HTTPGrant{URL: "https://169.254.169.254/"}, "fetch.address_refused"},
		{manifest.HTTPGrant{URL: "https://10.0.0.1/"}, "fetch.address_refused"},
	} {
		d := open(t, config{grant: tt.grant})
		_, err := rehearse(t, d, `{}`, "", &stand{})
		if code(err) != tt.want {
			t.Errorf("%s = %v; want %q", tt.grant.URL, err, tt.want)
		}
		if tt.want != "" {
			if _, err := do(t, d, `{}`, ""); code(err) != tt.want {
				t.Errorf("in truth, %s = %v; want %q", tt.grant.URL, err, tt.want)
			}
		}
	}
	if hits.Load() > 0 {
		t.Errorf("%d requests reached the service", hits.Load())
	}
}
