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
				exists := probe(t, s, &p, op, there, ids[there])
				missing := probe(t, s, &p, op, noNamespace, noToken)
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

// probe asks an operation about a namespace and what would be in it.
func probe(t *testing.T, s *testkit.Server, p *someone, op operation, ns, tokenID string) []asked {
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
	if want := []string{"GET /healthz", "GET /readyz"}; !slices.Equal(open, want) {
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
