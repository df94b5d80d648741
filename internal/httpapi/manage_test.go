package httpapi_test

import (
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/httpapi"
)

func TestFunctionsAndSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if l := decode[api.FunctionList](t, w.do("GET", shop+"/functions", ""), 200); len(l.Functions) != 1 || l.Functions[0].Name != "price" {
		t.Errorf("functions = %+v", l)
	}
	if f := decode[api.Function](t, w.do("GET", shop+"/functions/price", ""), 200); f.App != "app" || f.Publishes[0] != "order.priced" {
		t.Errorf("function = %+v", f)
	}
	if l := decode[api.SubscriptionList](t, w.do("GET", shop+"/subscriptions", ""), 200); len(l.Subscriptions) != 1 || l.Subscriptions[0].Pending != 3 || l.Subscriptions[0].Dead != 2 {
		t.Errorf("subscriptions = %+v", l)
	}
	for _, tc := range []struct {
		method, path string
		paused       bool
	}{{"GET", "", false}, {"POST", "/pause", true}, {"POST", "/resume", false}} {
		s := decode[api.Subscription](t, w.do(tc.method, shop+"/subscriptions/orders"+tc.path, ""), 200)
		if s.Name != "orders" || s.Paused != tc.paused || s.Pending != 3 {
			t.Errorf("%s: %+v", tc.path, s)
		}
		wantProblem(t, w.do(tc.method, shop+"/subscriptions/none"+tc.path, ""), 404, "deploy.subscription_not_found")
		wantProblem(t, w.do(tc.method, shop+"/subscriptions/No"+tc.path, ""), 400, "httpapi.bad_request")
	}
	wantProblem(t, w.do("GET", shop+"/functions/none", ""), 404, "deploy.function_not_found")
	wantProblem(t, w.do("GET", shop+"/functions/No%2F..", ""), 400, "httpapi.bad_request")
	// A namespace that does not exist has no functions; what needs its parts says so.
	if l := decode[api.FunctionList](t, w.do("GET", "/v1/namespaces/none/functions", ""), 200); len(l.Functions) != 0 {
		t.Errorf("functions = %+v", l)
	}
	wantProblem(t, w.do("GET", "/v1/namespaces/none/subscriptions", ""), 404, "server.namespace_not_found")
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if l := decode[api.DeadLetterList](t, w.do("GET", shop+"/dead-letters?subscription=orders&limit=5&cursor=x", ""), 200); len(l.DeadLetters) != 1 || l.Cursor != "next" {
		t.Errorf("list = %+v", l)
	}
	wantProblem(t, w.do("GET", shop+"/dead-letters?subscription=No", ""), 400, "httpapi.bad_request")
	wantProblem(t, w.do("GET", shop+"/dead-letters?limit=1001", ""), 400, "httpapi.bad_request")
	if l := decode[api.DeadLetter](t, w.do("GET", shop+"/dead-letters/l-1", ""), 200); l.Event == nil || l.Event.State != api.StateDead || l.Event.Size == 0 {
		t.Errorf("letter = %+v", l)
	}
	wantProblem(t, w.do("GET", shop+"/dead-letters/none", ""), 404, "dispatch.dead_letter_not_found")
	wantProblem(t, w.do("GET", shop+"/dead-letters/redrive", ""), 405, "httpapi.method_not_allowed")
	for path, want := range map[string]string{"redrive": "redriven", "discard": "discarded"} {
		got := decode[api.DeadLetterResult](t, w.do("POST", shop+"/dead-letters/"+path, `{"ids":["l-1"],"dry_run":true}`), 200)
		if got.IDs[0] != want || !got.DryRun {
			t.Errorf("%s = %+v", path, got)
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := `{"manifest":"name = \"app\"","modules":{"price":{"kind":"script","code":"AAE="}},"schemas":{"a.json":"{}"}}`
	for query, applied := range map[string]bool{"": true, "?dry_run=false": true, "?dry_run=true": false} {
		plan := decode[api.Plan](t, w.do("POST", shop+"/apps"+query, body), 200)
		if plan.Applied != applied || len(plan.Changes) != 1 {
			t.Errorf("%s: %+v", query, plan)
		}
	}
	if b := w.applied[0]; b.Manifest != `name = "app"` || string(b.Modules["price"].Code) != "\x00\x01" || b.Schemas["a.json"] != "{}" {
		t.Errorf("bundle = %+v", b)
	}
	wantProblem(t, w.do("POST", shop+"/apps?dry_run=1", body), 400, "httpapi.bad_request")
}

// TestBodies: JSON bodies are read strictly, and a fault names its place.
func TestBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tc := range []struct{ body, pointer string }{
		{``, ""}, {`{`, ""}, {`[]`, ""}, {`{"role":"reader"} x`, ""}, {`{"role":1}`, "/role"}, {`{"role":"reader","rolle":1}`, "/rolle"},
		{`{"role":"reader","role":"operator"}`, "/role"}, {`{"Role":"reader"}`, "/Role"}, {"{\"role\":\"\xff\"}", "/role"}, {`{"event_types":[1]}`, "/event_types/0"},
	} {
		p := wantProblem(t, w.do("POST", "/v1/tokens", tc.body), 400, "httpapi.bad_request")
		if tc.pointer != "" && (len(p.Errors) != 1 || p.Errors[0].Pointer != tc.pointer) {
			t.Errorf("%q: places = %+v, want %s", tc.body, p.Errors, tc.pointer)
		}
	}
	wantProblem(t, w.do("POST", "/v1/tokens", `{"role":"reader"}`, "Content-Encoding", "br"), 415, "httpapi.encoded_body")
	wantProblem(t, w.do("POST", "/v1/tokens", strings.Repeat(" ", httpapi.MaxSmallBody+1)), 413, "httpapi.body_too_large")
}

func TestTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := len(w.guard.List())
	made := decode[api.NewToken](t, w.do("POST", "/v1/tokens", `{"role":"reader","namespace":"new"}`), 201)
	if made.Text == "" || w.spaces["new"] == nil {
		t.Errorf("token %+v, namespace made: %v", made.ID, w.spaces["new"] != nil)
	}
	rec := w.do("GET", "/v1/tokens", "")
	if list := decode[api.TokenList](t, rec, 200); len(list.Tokens) != before+1 || strings.Contains(rec.Body.String(), made.Text) {
		t.Errorf("%d tokens, want %d", len(list.Tokens), before+1)
	}
	if rec := w.do("DELETE", "/v1/tokens/"+made.ID, ""); rec.Code != 204 || rec.Body.Len() > 0 {
		t.Errorf("revoke = %d %s", rec.Code, rec.Body)
	}
	wantProblem(t, w.do("GET", "/v1/namespaces/new/events", "", as(made.Text)...), 401, "access.unauthenticated")
	wantProblem(t, w.do("DELETE", "/v1/tokens/none", ""), 404, "access.token_not_found")
	// A request that is refused makes no namespace; a namespace that cannot be made leaves no token.
	if rec := w.do("POST", "/v1/tokens", `{"role":"king","namespace":"castle"}`); rec.Code != 400 || w.spaces["castle"] != nil {
		t.Errorf("refused request = %d, namespace made: %v", rec.Code, w.spaces["castle"] != nil)
	}
	wantProblem(t, w.do("POST", "/v1/tokens", `{"role":"reader","namespace":"broken"}`), 500, "internal")
	for _, tok := range w.guard.List() {
		if tok.Namespace == "broken" && tok.Revoked == nil {
			t.Error("a token of a namespace that could not be made is valid")
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if rec := w.do("GET", "/metrics", ""); rec.Code != 200 || rec.Body.String() != "metric 1\n" || rec.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("metrics = %d %s", rec.Code, rec.Body)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := httpapi.New(httpapi.Config{}, httpapi.Deps{})
	if err == nil || !strings.Contains(err.Error(), "requests must be") || !strings.Contains(err.Error(), "an event must") {
		t.Errorf("New with nothing = %v, want every fault", err)
	}
}
