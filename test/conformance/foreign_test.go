package conformance_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/narrow"
	"sallyport/internal/testkit"
)

// The namespaces of TestNothingCrossesNamespaces, all names of one length; the last does not exist.
var foreignNames = []string{"alpha", "bravo", "delta", "gamma"}

const noNamespace = "omega"

// someone is a principal: the namespace it is of, and its credential.
type someone struct{ name, home, token string }

// TestNothingCrossesNamespaces asks every operation of openapi.yaml as each of 50 principals of four namespaces: about
// another namespace that exists, and about one that does not. The two answers are the same, byte for byte, and none has
// anything of the other namespace in it.
func TestNothingCrossesNamespaces(t *testing.T) {
	t.Parallel()
	is := testkit.NewIssuer(t)
	s := startWith(t, foreignSettings(is))
	fillNamespaces(t, s, is)
	all := everybody(t, s, is)
	if len(all) < 50 {
		t.Fatalf("only %d principals", len(all))
	}
	ids := tokenIDs(t, s)
	asked := 0
	for _, p := range all {
		for _, op := range operations(t) {
			if op.open {
				continue
			}
			for _, there := range foreignNames[:3] {
				if there == p.home {
					there = foreignNames[3]
				}
				exists := probeForeign(t, s, &p, op, there, ids[there])
				missing := probeForeign(t, s, &p, op, noNamespace, noToken)
				for i := range exists {
					asked++
					compare(t, &p, exists[i], missing[i], there, ids[there])
				}
			}
		}
	}
	t.Logf("%d principals, %d pairs of answers", len(all), asked)
	if asked < 50*3*len(operations(t))-1000 {
		t.Errorf("only %d pairs of answers: the gate asks too little", asked)
	}
}

// noToken is the id of no token.
const noToken = "0123456789abcdef"

// mark is in everything that is in a namespace.
func mark(ns string) string { return "mark-of-" + ns }

func foreignSettings(is *testkit.Issuer) string {
	text := fmt.Sprintf("[[issuers]]\nurl = %q\naudience = [%q]\nca_file = %q\nprivate_network = true\n", is.URL, testkit.Audience, is.CAFile)
	for _, ns := range foreignNames {
		for _, role := range []string{"developer", "operator"} {
			text += fmt.Sprintf("[[issuers.map]]\nclaim = \"groups\"\nvalue = \"%s-%s\"\nrole = %q\nnamespace = %q\n", ns, role, role, ns)
		}
	}
	return text
}

// post sends JSON as the operator and wants one of the answers.
func postJSON(t *testing.T, s *testkit.Server, path string, v any, want ...int) testkit.Answer {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	a := s.MustDo(t, "POST", path, body, "Content-Type", "application/json")
	if !slices.Contains(want, a.Status) {
		t.Fatalf("POST %s = %d\n%s", path, a.Status, a.Body)
	}
	return a
}

// fillNamespaces makes the namespaces, with everything that can be in one. alpha has no roles; each has an owner of the issuer,
// policies that forbid and permit, and quotas.
func fillNamespaces(t *testing.T, s *testkit.Server, is *testkit.Issuer) {
	t.Helper()
	for _, ns := range foreignNames {
		req := api.NamespaceRequest{Name: ns, Owners: []string{"user:" + is.URL + "#owner-" + ns}, Quotas: map[string]int64{"functions": 3, "events_per_second": 1000}}
		if ns == "alpha" {
			req.Policies = "none"
		}
		postJSON(t, s, "/v1/namespaces", req, http.StatusCreated)
		base := "/v1/namespaces/" + ns
		postJSON(t, s, base+"/apps", api.Bundle{
			Manifest: fmt.Sprintf("name = %q\n[event_types.\"%[1]s\"]\n[functions.%[1]s]\nsource = \"f.js\"\n[subscriptions.%[1]s]\nfunction = %[1]q\nfilter = { type = %[1]q }\nretry = { attempts = 1 }\n", mark(ns)),
			Modules:  map[string]api.Module{mark(ns): {Kind: api.ModuleScript, Code: []byte(`export default (event, ctx) => { ctx.log("` + mark(ns) + `"); throw new Error("` + mark(ns) + `") }`)}},
		}, http.StatusOK)
		postJSON(t, s, base+"/policies/"+mark(ns), api.PolicyFiles{Files: map[string]string{"a.cedar": fmt.Sprintf(
			"@id(\"%[1]s\")\nforbid (principal, action, resource) unless { principal has role };\n@id(\"%[1]s-none\")\nforbid (principal, action, resource)\nwhen { principal has role && principal.namespace != %[2]q && principal.namespace != \"\" };\n"+
				"@id(\"%[1]s-ann\")\npermit (principal == User::\"%[3]s#ann\", action == Action::\"publish\", resource is EventType)\nwhen { resource.name == %[1]q };\n", mark(ns), ns, is.URL)}}, http.StatusOK)
		a := s.MustDo(t, "POST", base+"/events", []byte(`{"mark":"`+mark(ns)+`"}`), "Content-Type", "application/json",
			"Ce-Specversion", "1.0", "Ce-Type", mark(ns), "Ce-Source", "/"+mark(ns), "Ce-Id", mark(ns))
		if a.Status != http.StatusAccepted {
			t.Fatalf("publish in %s = %d\n%s", ns, a.Status, a.Body)
		}
		var e api.Event
		s.MustDo(t, "GET", base+"/events/"+mark(ns)+"?wait=60s", nil).Decode(t, http.StatusOK, &e)
		if e.State != api.StateDead {
			t.Fatalf("the event of %s is %s, want a dead letter", ns, e.State)
		}
	}
	// One of the whole server, about one namespace: whoever does not belong there must not learn of it.
	postJSON(t, s, "/v1/policies/server", api.PolicyFiles{Files: map[string]string{"s.cedar": "@id(\"mark-of-server\")\nforbid (principal, action, resource in Namespace::\"bravo\")\nwhen { principal has role && principal.namespace != \"bravo\" && principal.role != \"operator\" };\n"}}, http.StatusOK)
}

// everybody returns principals of each namespace: tokens of each role, limited and narrowed ones, and users of the issuer,
// mapped, owners, and such as have nothing.
func everybody(t *testing.T, s *testkit.Server, is *testkit.Issuer) []someone {
	t.Helper()
	var out []someone
	token := func(req api.TokenRequest) string {
		var tok api.NewToken
		postJSON(t, s, "/v1/tokens", req, http.StatusCreated).Decode(t, http.StatusCreated, &tok)
		return tok.Text
	}
	user := func(name, home string, claims map[string]any) {
		claims["exp"] = is.Claims(nil)["exp"].(int64) + 3600
		out = append(out, someone{name: name, home: home, token: is.Token(claims)})
	}
	for _, ns := range foreignNames {
		for _, role := range []string{"operator", "developer", "publisher", "reader"} {
			text := token(api.TokenRequest{Role: role, Namespace: ns, Description: mark(ns)})
			out = append(out, someone{role + " of " + ns, ns, text})
			limited := token(api.TokenRequest{Role: role, Namespace: ns, EventTypes: []string{mark(ns)}, Description: mark(ns)})
			out = append(out, someone{"limited " + role + " of " + ns, ns, limited})
			if role == "developer" || role == "operator" {
				narrowed, err := narrow.Narrow(text, narrow.Caveats{Actions: []string{"readEvents", "publish", "readStatus"}})
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, someone{"narrowed " + role + " of " + ns, ns, narrowed})
				user(role+" user of "+ns, ns, map[string]any{"sub": role, "groups": []string{ns + "-" + role}})
			}
		}
		user("owner of "+ns, ns, map[string]any{"sub": "owner-" + ns})
	}
	user("ann, who may publish one type anywhere", "", map[string]any{"sub": "ann"})
	user("nobody", "", map[string]any{"sub": "nobody"})
	return out
}

// tokenIDs returns the id of one token of each namespace.
func tokenIDs(t *testing.T, s *testkit.Server) map[string]string {
	t.Helper()
	var list api.TokenList
	s.MustDo(t, "GET", "/v1/tokens", nil).Decode(t, http.StatusOK, &list)
	out := map[string]string{}
	for _, tok := range list.Tokens {
		out[tok.Namespace] = tok.ID
	}
	return out
}

// asked is a request and its answer.
type asked struct {
	what   string
	answer testkit.Answer
}

// probeForeign asks an operation about a namespace and what would be in it.
func probeForeign(t *testing.T, s *testkit.Server, p *someone, op operation, ns, tokenID string) []asked {
	t.Helper()
	if op.method == "POST" && op.path == "/v1/policies/{app}" && p.home == "" {
		ns = foreignNames[0] // the body would differ in what it names, and not in what is asked
	}
	path := strings.NewReplacer("{ns}", ns, "{id}", mark(ns), "{name}", mark(ns), "{app}", mark(ns)).Replace(op.path)
	if strings.HasPrefix(op.path, "/v1/tokens/") {
		path = "/v1/tokens/" + tokenID
	}
	kind, body := "application/json", "{}"
	switch op.method + " " + op.path {
	case "POST /v1/namespaces/{ns}/events":
		kind, body = "application/cloudevents+json", `{"specversion":"1.0","id":"probe","source":"/probe","type":"probe"}`
	case "POST /v1/namespaces":
		body = `{"name":"` + ns + `"}`
	case "POST /v1/tokens":
		body = `{"role":"reader","namespace":"` + ns + `"}`
	case "POST /v1/namespaces/{ns}/dead-letters/redrive", "POST /v1/namespaces/{ns}/dead-letters/discard":
		body = `{"all":true}`
	case "POST /v1/namespaces/{ns}/policies/{app}", "POST /v1/policies/{app}":
		body = `{"files":{}}`
	case "POST /v1/namespaces/{ns}/apps":
		body = `{"manifest":"name = \"probe\"","modules":{}}`
	case "PATCH /v1/namespaces/{ns}":
		body = `{"owners":[]}`
	}
	paths := []string{path}
	// What is asked about within one's own namespace, or of the server, names others too.
	question := "?principal=function:" + ns + "/" + mark(ns) + "&action=publish&resource=event_type:" + ns + "/" + mark(ns)
	home := strings.Replace(op.path, "{ns}", p.home, 1)
	switch {
	case strings.HasSuffix(op.path, "/access/explain"):
		paths = append(paths, path+question, home+question, home+"?principal=token:"+tokenID+"&action=readEvents&resource=namespace:"+ns)
	case strings.HasSuffix(op.path, "/access/who-can"):
		paths = append(paths, path+"?action=readEvents&resource=namespace:"+ns, home+"?action=readEvents&resource=namespace:"+ns)
	case strings.HasSuffix(op.path, "/access/reach"):
		paths = append(paths, home+"?principal=token:"+tokenID, home+"?principal=function:"+ns+"/"+mark(ns))
	case strings.HasSuffix(op.path, "/decisions") && op.method == "GET":
		paths = append(paths, home+"?principal=token:"+tokenID)
	case op.path == "/v1/namespaces/{ns}/events/{id}", op.path == "/v1/namespaces/{ns}/dead-letters/{id}":
		paths = append(paths, path+"?data=true")
	case op.method == "GET" && op.path == "/v1/namespaces/{ns}/logs":
		paths = append(paths, path+"?follow=true&limit=1")
	}
	var out []asked
	for _, target := range paths {
		if p.home == "" && strings.Contains(target, "/namespaces//") {
			continue // it has no namespace of its own
		}
		out = append(out, asked{op.method + " " + target, s.MustDo(t, op.method, target, []byte(body), "Content-Type", kind, "Authorization", "Bearer "+p.token)})
	}
	return out
}

// compare holds two answers together: what differs is the name that was asked for, and nothing else.
func compare(t *testing.T, p *someone, exists, missing asked, there, tokenID string) {
	t.Helper()
	plain := func(a testkit.Answer, ns, id string) string {
		h := a.Header.Clone()
		h.Del("Date")
		text := fmt.Sprint(a.Status, h, "\n", string(a.Body))
		return strings.NewReplacer(mark(ns), "mark-of-NS", id, "TOKEN", `"`+ns, `"NS`, ":"+ns, ":NS", " "+ns, " NS", "/"+ns, "/NS").Replace(text)
	}
	if exists.answer.Status >= 500 || missing.answer.Status >= 500 {
		t.Errorf("%s: %s = %d, %s = %d", p.name, exists.what, exists.answer.Status, missing.what, missing.answer.Status)
	}
	if a, b := plain(exists.answer, there, tokenID), plain(missing.answer, noNamespace, noToken); a != b && !changes(exists.what) {
		t.Errorf("%s: %s tells whether it exists:\n%s\n%s: \n%s", p.name, exists.what, a, missing.what, b)
	}
	// Whoever is told its own question is told nothing.
	if body := strings.ReplaceAll(string(exists.answer.Body), exists.what, ""); exists.answer.Status < 300 && strings.Contains(body, mark(there)) {
		t.Errorf("%s: %s reads another namespace:\n%s", p.name, exists.what, body)
	}
}

// changes reports whether an answer counts what was asked before, or tells the time: two of them differ, whatever is asked. That
// nothing of another namespace is in them is held all the same.
func changes(what string) bool {
	for _, part := range []string{" /v1/status", "/decisions", "/access/reach", "/access/unused"} {
		if strings.Contains(what, part) {
			return true
		}
	}
	return false
}

// TestQuotas holds the real binary to each quota: what is too much is refused with its name, its value and the command that raises
// it, and what was accepted is not lost.
func TestQuotas(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	app := func(name string, n int) api.Bundle {
		b := api.Bundle{Manifest: fmt.Sprintf("name = %q\n", name), Modules: map[string]api.Module{}}
		for i := range n {
			f := fmt.Sprint(name, i)
			b.Manifest += fmt.Sprintf("[functions.%[1]s]\nsource = \"f.js\"\n[subscriptions.%[1]s]\nfunction = %[1]q\nfilter = { type = \"t\" }\n", f)
			b.Modules[f] = api.Module{Kind: api.ModuleScript, Code: []byte("export default () => 1 //" + strings.Repeat("x", 1000))}
		}
		return b
	}
	event := func(ns, id string, size int) testkit.Answer {
		return s.MustDo(t, "POST", "/v1/namespaces/"+ns+"/events", []byte(`"`+strings.Repeat("x", size)+`"`), "Content-Type", "application/json",
			"Ce-Specversion", "1.0", "Ce-Type", "t", "Ce-Source", "/quota", "Ce-Id", id)
	}
	refused := func(a testkit.Answer, status int, code, hint string) {
		t.Helper()
		p := a.Problem()
		if a.Status != status || p.Code != code || !strings.Contains(p.Hint, hint) || (a.Header.Get("Retry-After") != "") != (status == http.StatusTooManyRequests) {
			t.Errorf("%d %s, Retry-After %q; want %d %s and the hint %q", a.Status, a.Body, a.Header.Get("Retry-After"), status, code, hint)
		}
	}
	within := func(ns, quota string, n int64) {
		postJSON(t, s, "/v1/namespaces", api.NamespaceRequest{Name: ns, Quotas: map[string]int64{quota: n}}, http.StatusCreated)
	}
	for quota, limit := range map[string]int64{"functions": 2, "subscriptions": 2, "module_bytes": 2500} {
		ns := strings.ReplaceAll(quota, "_", "-")
		within(ns, quota, limit)
		postJSON(t, s, "/v1/namespaces/"+ns+"/apps", app("a", 2), http.StatusOK)
		postJSON(t, s, "/v1/namespaces/"+ns+"/apps", app("a", 2), http.StatusOK) // the same is not more
		refused(postJSON(t, s, "/v1/namespaces/"+ns+"/apps", app("b", 1), http.StatusUnprocessableEntity), 422, "namespace.quota_exceeded", "sallyport namespace update "+ns+" --quota "+quota+"=")
		refused(postJSON(t, s, "/v1/namespaces/"+ns+"/apps?dry_run=true", app("a", 3), http.StatusUnprocessableEntity), 422, "namespace.quota_exceeded", quota)
	}
	within("tokens", "tokens", 1)
	postJSON(t, s, "/v1/tokens", api.TokenRequest{Role: "reader", Namespace: "tokens"}, http.StatusCreated)
	refused(postJSON(t, s, "/v1/tokens", api.TokenRequest{Role: "reader", Namespace: "tokens"}, http.StatusUnprocessableEntity), 422, "namespace.quota_exceeded", "--quota tokens=2")

	// A request that is larger than a second's worth leaves a debt of ten minutes.
	within("rate", "events_per_second", 1)
	batch := "[" + strings.TrimSuffix(strings.Repeat(`{"specversion":"1.0","id":"ID","source":"/quota","type":"t"},`, 600), ",") + "]"
	for i := range 600 {
		batch = strings.Replace(batch, "ID", fmt.Sprint(i), 1)
	}
	if a := s.MustDo(t, "POST", "/v1/namespaces/rate/events", []byte(batch), "Content-Type", "application/cloudevents-batch+json"); a.Status != http.StatusAccepted {
		t.Errorf("the first request = %d\n%s", a.Status, a.Body)
	}
	refused(event("rate", "one-more", 1), 429, "namespace.rate_exceeded", "--quota events_per_second=2")

	within("pending", "pending_events", 3)
	postJSON(t, s, "/v1/namespaces/pending/apps", app("a", 1), http.StatusOK)
	if a := s.MustDo(t, "POST", "/v1/namespaces/pending/subscriptions/a0/pause", nil); a.Status != http.StatusOK {
		t.Fatalf("pause = %d\n%s", a.Status, a.Body)
	}
	for i := range 3 {
		if a := event("pending", fmt.Sprint(i), 1); a.Status != http.StatusAccepted {
			t.Fatalf("event %d = %d\n%s", i, a.Status, a.Body)
		}
	}
	refused(event("pending", "3", 1), 429, "namespace.backlog_full", "--quota pending_events=6")
	if a := s.MustDo(t, "DELETE", "/v1/namespaces/pending", nil); a.Status != http.StatusConflict || a.Problem().Code != "namespace.pending_events" {
		t.Errorf("delete with pending events = %d\n%s", a.Status, a.Body)
	}
	if a := s.MustDo(t, "POST", "/v1/namespaces/pending/subscriptions/a0/resume", nil); a.Status != http.StatusOK {
		t.Fatalf("resume = %d\n%s", a.Status, a.Body)
	}
	for i := range 3 { // none of them was lost, by the quota or by the deletion that was refused
		var e api.Event
		s.MustDo(t, "GET", fmt.Sprintf("/v1/namespaces/pending/events/%d?wait=60s", i), nil).Decode(t, http.StatusOK, &e)
		if e.State != api.StateDone {
			t.Errorf("event %d is %s", i, e.State)
		}
	}
	var gone api.NamespaceDeleted
	s.MustDo(t, "DELETE", "/v1/namespaces/pending", nil).Decode(t, http.StatusOK, &gone)
	if gone.Accepted != 3 || gone.Done != 3 || gone.Pending != 0 {
		t.Errorf("last balance %+v", gone)
	}

	within("stored", "stored_bytes", 100_000)
	full := false
	for i := range 20 {
		a := event("stored", fmt.Sprint(i), 10_000)
		if full = a.Status != http.StatusAccepted; full {
			refused(a, 429, "namespace.storage_full", "--quota stored_bytes=200000")
			break
		}
	}
	var ns api.Namespace
	s.MustDo(t, "GET", "/v1/namespaces/stored", nil).Decode(t, http.StatusOK, &ns)
	if used := ns.Use["stored_bytes"]; !full || used > 100_000 || used < 50_000 {
		t.Errorf("%d bytes are stored, the quota is 100000; full: %v", used, full)
	}
	a := s.MustDo(t, "GET", "/metrics", nil)
	for _, want := range []string{`sallyport_namespace_quota{namespace="stored",quota="stored_bytes"} 100000`, `sallyport_namespace_use{namespace="functions",quota="functions"} 2`} {
		if !strings.Contains(string(a.Body), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(string(a.Body), `namespace="pending"`) {
		t.Error("the metrics have series of a namespace that was deleted")
	}
}

// TestOpenRoutes: these answer without a token, and nothing else does: TestEveryRoute asks all the others.
func TestOpenRoutes(t *testing.T) {
	t.Parallel()
	var open []string
	for _, op := range operations(t) {
		if op.open {
			open = append(open, op.method+" "+op.path)
		}
	}
	slices.Sort(open)
	if want := []string{"GET /.well-known/jwks.json", "GET /.well-known/openid-configuration", "GET /healthz", "GET /readyz"}; !slices.Equal(open, want) {
		t.Errorf("routes without a token are %v; want %v", open, want)
	}
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	for _, path := range []string{"/v1/namespaces", "/v1/namespaces/default", "/v1/namespaces/nothere"} {
		for _, method := range []string{"GET", "POST", "PATCH", "DELETE"} {
			if resp := bare(t, s, method, path, nil); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s %s without a token = %d, want 401", method, path, resp.StatusCode)
			}
		}
	}
}
