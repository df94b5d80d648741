package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/httpapi"
	"sallyport/internal/policy"
)

// fill puts names into a path.
func fill(path, ns string) string {
	return strings.NewReplacer("{ns}", ns, "{id}", "e-1", "{name}", "price", "{app}", "hooks").Replace(path)
}

// TestUnauthenticated is G6: whatever is asked without a valid token, in whatever form, gets one and the
// same answer, and no body is read.
func TestUnauthenticated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type ask struct{ method, target string }
	var asks []ask
	for _, r := range httpapi.Routes() {
		for _, m := range []string{r.Method, "PUT", "HEAD", "OPTIONS", "BREW"} {
			asks = append(asks, ask{m, fill(r.Path, "shop")}, ask{m, fill(r.Path, "none") + "?x=%zz"})
		}
	}
	for _, target := range []string{
		"/", "/v1", "/v1/", "//v1/status", "/v1/../v1/status", "/v1/./status", "/v1/status/", "/V1/status", "/healthz/", "/healthz/x", "//healthz",
		"/debug/pprof/", "/v1/namespaces/Shop/events", "/v1/namespaces//events", "/v1/namespaces/shop/events/..", "/v1/tokens/%2e%2e", "/%2e%2e",
		"/v1/status?" + strings.Repeat("x", httpapi.MaxQueryBytes+1),
	} {
		asks = append(asks, ask{"GET", target}, ask{"POST", target})
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/jwks.json"} {
		asks = append(asks, ask{"POST", path}, ask{"HEAD", path}, ask{"GET", path + "/"}, ask{"GET", path + "?x"}, ask{"GET", "/" + path}, ask{"GET", "/x" + path})
		r := httptest.NewRequest("GET", path, nil)
		if rec := w.serve(r); rec.Code != 200 || rec.Header().Get("Cache-Control") != "public, max-age=3600" || rec.Header().Get("Content-Type") != "application/json" {
			t.Errorf("GET %s = %d, %v", path, rec.Code, rec.Header())
		}
	}
	asks = append(asks, ask{"GET", "/.well-known/"}, ask{"POST", "/healthz"}, ask{"DELETE", "/readyz"}, ask{"HEAD", "/healthz"})
	revoked, err := w.guard.Create(t.Context(), "test", api.TokenRequest{Role: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.guard.Revoke(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	good := w.tokens[policy.Operator]
	auths := [][]string{
		nil, {""}, {"Bearer"}, {"Bearer "}, {"Bearer x"}, {good}, {"Basic " + good}, {"Bearer  " + good}, {"Bearer " + good + " "}, {"Bearer " + revoked.Text},
		{"Bearer " + good[:len(good)-1] + "g"}, {"Bearer " + good, "Bearer " + good}, {"Bearer " + strings.Repeat("a", 1<<16)},
	}
	var want *httptest.ResponseRecorder
	for i, a := range asks {
		r := httptest.NewRequest(a.method, a.target, untouched{t})
		r.ContentLength = -1
		if auth := auths[i%len(auths)]; auth != nil {
			r.Header["Authorization"] = auth
		}
		rec := w.serve(r)
		if want == nil {
			want = rec
			wantProblem(t, rec, http.StatusUnauthorized, "access.unauthenticated")
			if rec.Header().Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
		}
		if rec.Code != want.Code || rec.Body.String() != want.Body.String() || len(rec.Header()) != len(want.Header()) {
			t.Errorf("%s %s is told apart: %d %v\n%s", a.method, a.target, rec.Code, rec.Header(), rec.Body)
		}
	}
	r := httptest.NewRequest("OPTIONS", "/", nil)
	r.URL.Path, r.RequestURI = "*", "*"
	if rec := w.serve(r); rec.Body.String() != want.Body.String() {
		t.Errorf("OPTIONS * is told apart: %d", rec.Code)
	}
	r = httptest.NewRequest("CONNECT", "/", nil)
	r.URL.Path, r.URL.Host = "", "example.com:443"
	if rec := w.serve(r); rec.Body.String() != want.Body.String() {
		t.Errorf("CONNECT is told apart: %d", rec.Code)
	}
}

// untouched is a body that must not be read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, http.ErrBodyReadAfterClose
}

// TestAuthorizationBeforeExistence: what a token may not reach is answered in the same way whether it
// exists or not, for each route, and no body is read before that.
func TestAuthorizationBeforeExistence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, role := range policy.Roles() {
		token := w.token(t, api.TokenRequest{Role: string(role), Namespace: "shop"})
		for _, r := range httpapi.Routes() {
			var answers []string
			for _, ns := range []string{"bank", "none"} {
				target := fill(r.Path, ns)
				for _, target := range []string{target, strings.NewReplacer("e-1", "other", "price", "other").Replace(target)} {
					var req *http.Request
					if r.Action == "" {
						req = httptest.NewRequest(r.Method, target, strings.NewReader(oneEvent))
						req.Header.Set("Content-Type", "application/cloudevents+json")
					} else {
						req = httptest.NewRequest(r.Method, target, untouched{t})
						req.ContentLength = -1
					}
					if strings.HasSuffix(r.Path, "/invoke") {
						req.Header.Set("Content-Type", "application/json")
					}
					req.Header.Set("Authorization", "Bearer "+token)
					rec := w.serve(req)
					if showsOwn(r.Path) && rec.Code != http.StatusForbidden {
						// It is about the token's own namespace, whatever is named.
						if body := rec.Body.String(); strings.Contains(body, "bank") || rec.Code >= 500 {
							t.Errorf("%s: %s %s = %d %s", role, r.Method, r.Path, rec.Code, body)
						}
						continue
					}
					wantProblem(t, rec, http.StatusForbidden, "access.denied")
					body := strings.NewReplacer(`"`+ns, `"NS`, `\"`+ns, `\"NS`, ":"+ns, ":NS", "other", "price").Replace(rec.Body.String()) // the hint names what was asked for
					answers = append(answers, body)
				}
			}
			for _, a := range answers {
				if a != answers[0] {
					t.Errorf("%s: %s %s tells what exists:\n%s\n%s", role, r.Method, r.Path, answers[0], a)
				}
			}
		}
	}
}

// showsOwn reports whether a path without a namespace is about those that the caller may see or manage.
func showsOwn(path string) bool {
	return path == "/v1/status" || path == "/v1/namespaces" || strings.HasPrefix(path, "/v1/tokens")
}

// TestEveryRouteAsks: each route is denied to a token that no policy helps: a publisher for what is not
// publishing or invoking, and a reader for that.
func TestEveryRouteAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, r := range httpapi.Routes() {
		role := policy.Publisher
		if r.Action == "" {
			role = policy.Reader
		}
		if showsOwn(r.Path) {
			role = policy.Publisher
		}
		rec := w.do(r.Method, fill(r.Path, "shop"), oneEvent, as(w.tokens[role])...)
		if strings.HasSuffix(r.Path, "/invoke") {
			rec = w.do(r.Method, fill(r.Path, "shop"), "1", as(w.tokens[role])...)
		}
		p := wantProblem(t, rec, http.StatusForbidden, "access.denied")
		if r.Action != "" && !strings.Contains(p.Detail, r.Action) {
			t.Errorf("%s %s: %q does not name the action %s", r.Method, r.Path, p.Detail, r.Action)
		}
	}
}

// TestData: reading an event does not mean reading its data.
func TestData(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do("POST", "/v1/namespaces/shop/events", oneEvent)
	for _, target := range []string{"/v1/namespaces/shop/events/e-1", "/v1/namespaces/shop/dead-letters/l-1"} {
		reader := as(w.tokens[policy.Reader])
		if rec := w.do("GET", target, "", reader...); rec.Code != 200 || strings.Contains(rec.Body.String(), `"data`+`"`) {
			t.Errorf("GET %s = %d %s", target, rec.Code, rec.Body)
		}
		wantProblem(t, w.do("GET", target+"?data=true", "", reader...), 403, "access.denied")
		wantProblem(t, w.do("GET", target+"?data=yes", "", reader...), 400, "httpapi.bad_request")
		if rec := w.do("GET", target+"?data=true", ""); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"data":{`) {
			t.Errorf("GET %s?data=true = %d %s", target, rec.Code, rec.Body)
		}
	}
}

// TestStatus shows each token what it may see.
func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := decode[api.Status](t, w.do("GET", "/v1/status", ""), 200)
	if len(all.Namespaces) != 2 || all.Namespaces[0].Name != "bank" || all.DataDir == "" || len(all.Issuers) != 1 || len(all.RevocationLists) != 1 || !all.Ready {
		t.Errorf("the operator sees %+v", all)
	}
	mine := decode[api.Status](t, w.do("GET", "/v1/status", "", as(w.token(t, api.TokenRequest{Role: "reader", Namespace: "shop"}))...), 200)
	if len(mine.Namespaces) != 1 || mine.Namespaces[0].Name != "shop" || mine.DataDir != "" || mine.DiskFree != 0 || mine.Resident != 0 || mine.Cells != nil || mine.Issuers != nil || mine.RevocationLists != nil {
		t.Errorf("a reader of shop sees %+v", mine)
	}
	wantProblem(t, w.do("GET", "/v1/status", "", as(w.token(t, api.TokenRequest{Role: "reader", Namespace: "none"}))...), 403, "access.denied")
	wantProblem(t, w.do("GET", "/v1/status", "", as(w.tokens[policy.Publisher])...), 403, "access.denied")
}
