package httpapi_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"sallyport/api"
	"sallyport/internal/dispatch"
	"sallyport/internal/httpapi"
	"sallyport/internal/policy"
)

// description is api/openapi.yaml.
type description struct {
	OpenAPI    string `yaml:"openapi"`
	Paths      map[string]map[string]yaml.Node
	Components struct {
		Parameters map[string]parameter
		Schemas    map[string]any
	}
	whole any
}

type parameter struct {
	Ref      string `yaml:"$ref"`
	Name, In string
	Required bool
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Summary     string
	Parameters  []parameter
	Security    []any
	RequestBody any                       `yaml:"requestBody"`
	Responses   map[string]map[string]any `yaml:"responses"`
}

func readDescription(t testing.TB) *description {
	t.Helper()
	text, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d description
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &d.whole); err != nil {
		t.Fatal(err)
	}
	return &d
}

// operations returns the operations by "METHOD /path"; those of a path have the path's parameters.
func (d *description) operations(t testing.TB) map[string]operation {
	t.Helper()
	out := map[string]operation{}
	for path, methods := range d.Paths {
		var shared []parameter
		if n, ok := methods["parameters"]; ok {
			if err := n.Decode(&shared); err != nil {
				t.Fatal(err)
			}
		}
		for method, n := range methods {
			if method == "parameters" {
				continue
			}
			var op operation
			if err := n.Decode(&op); err != nil {
				t.Fatal(err)
			}
			op.Parameters = append(slices.Clone(shared), op.Parameters...)
			for i, p := range op.Parameters {
				op.Parameters[i] = d.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
			}
			out[strings.ToUpper(method)+" "+path] = op
		}
	}
	return out
}

// TestDescription holds api/openapi.yaml and the table of routes together, both ways.
func TestDescription(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	if d.OpenAPI != "3.1.0" {
		t.Errorf("openapi = %q", d.OpenAPI)
	}
	ops, ids := d.operations(t), map[string]bool{}
	for _, r := range httpapi.Routes() {
		key := r.Method + " " + r.Path
		op, ok := ops[key]
		if !ok {
			t.Errorf("%s is not in openapi.yaml", key)
			continue
		}
		delete(ops, key)
		if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" {
			t.Errorf("%s has no operationId of its own, or no summary", key)
		}
		ids[op.OperationID] = true
		if op.Security != nil {
			t.Errorf("%s says that it needs no token", key)
		}
		if op.Responses["default"] == nil || op.Responses["401"] == nil || op.Responses["403"] == nil {
			t.Errorf("%s lacks an answer that every route has", key)
		}
		if (op.RequestBody != nil) != (r.Method == "PATCH" || r.Method == "POST" && !slices.Contains([]string{"pause", "resume", "accept"}, path.Base(r.Path))) {
			t.Errorf("%s: request body described: %v", key, op.RequestBody != nil)
		}
		got := map[string][]string{}
		for _, p := range op.Parameters {
			got[p.In] = append(got[p.In], p.Name)
			if p.Required != (p.In == "path") {
				t.Errorf("%s: parameter %s: required is %v", key, p.Name, p.Required)
			}
		}
		if diff := gocmp.Diff(sorted(r.Query), sorted(got["query"])); diff != "" {
			t.Errorf("%s: query parameters differ (-route +description):\n%s", key, diff)
		}
		var inPath []string
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(r.Path, -1) {
			inPath = append(inPath, m[1])
		}
		if diff := gocmp.Diff(sorted(inPath), sorted(got["path"])); diff != "" {
			t.Errorf("%s: path parameters differ (-route +description):\n%s", key, diff)
		}
	}
	for key, op := range ops {
		if !slices.Contains([]string{"GET /healthz", "GET /readyz", "GET /.well-known/openid-configuration", "GET /.well-known/jwks.json"}, key) {
			t.Errorf("%s is in openapi.yaml, but not a route", key)
		} else if op.Security == nil || len(op.Security) > 0 {
			t.Errorf("%s does not say that it needs no token", key)
		}
	}
}

func sorted(list []string) []string {
	out := append([]string{}, list...)
	slices.Sort(out)
	return out
}

// TestReferences: every $ref leads somewhere, and everything that can be referred to is.
func TestReferences(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	refs := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				if ref, ok := x.(string); ok && k == "$ref" {
					refs[ref] = true
				}
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(d.whole)
	components := d.whole.(map[string]any)["components"].(map[string]any)
	for _, kind := range []string{"schemas", "parameters", "responses"} {
		for name := range components[kind].(map[string]any) {
			ref := "#/components/" + kind + "/" + name
			if !refs[ref] {
				t.Errorf("nothing refers to %s", ref)
			}
			delete(refs, ref)
		}
	}
	if len(refs) > 0 {
		t.Errorf("references that lead nowhere: %v", slices.Sorted(maps.Keys(refs)))
	}
}

// TestSchemas holds the schemas of openapi.yaml and the types of package api together: the same
// members, and required exactly where a value is always written.
func TestSchemas(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	types := []any{
		api.Receipt{}, api.Receipts{}, api.Problem{}, api.FieldError{}, api.Event{}, api.Delivery{}, api.Attempt{}, api.EventList{},
		api.DeadLetter{}, api.DeadLetterList{}, api.DeadLetterSelection{}, api.DeadLetterResult{}, api.Bundle{}, api.Module{}, api.Plan{},
		api.Change{}, api.Function{}, api.Grant{}, api.GrantChange{}, api.FunctionList{}, api.Usage{}, api.UsageLine{}, api.GrantUsage{}, api.DecisionList{}, api.Decision{}, api.Policy{}, api.PolicyList{}, api.PolicyFiles{}, api.PolicyPlan{}, api.AccessChange{}, api.ReplayDifference{}, api.PolicyExplanation{}, api.Behind{}, api.FunctionRevision{}, api.PolicyMatch{}, api.PolicyCondition{}, api.AccessList{}, api.Access{}, api.UnusedList{}, api.UnusedActions{}, api.WildcardList{}, api.Wildcard{}, api.PolicyProposal{}, api.PerimeterVerdict{}, api.BridgeVerdict{}, api.LevelVerdict{}, api.Bridge{}, api.Level{}, api.Perimeter{}, api.PerimeterList{},
		api.PerimeterTest{}, api.Crossing{}, api.Unchecked{}, api.DatabaseAccepted{}, api.Subscription{}, api.Filter{}, api.Retry{}, api.SubscriptionList{},
		api.Secret{}, api.SecretList{}, api.SecretVersion{}, api.SecretVersionList{}, api.SecretUse{}, api.SecretUseList{}, api.SecretVersionRequest{},
		api.SecretLinkRequest{}, api.SecretCanaryRequest{}, api.SecretCanary{}, api.SecretRotationRequest{}, api.SecretRotation{},
		api.LogLine{}, api.TokenRequest{}, api.Token{}, api.TokenList{}, api.Status{}, api.CellStatus{}, api.IssuerStatus{}, api.Issuer{}, api.IssuerKey{}, api.IssuerRotation{}, api.RevocationStatus{}, api.Wall{}, api.NamespaceStatus{},
		api.Namespace{}, api.NamespaceList{}, api.NamespaceRequest{}, api.NamespaceUpdate{}, api.NamespaceDeleted{},
		api.Approval{}, api.ApprovalList{}, api.ApprovalRequest{}, api.RejectionRequest{}, api.FunctionApproval{},
	}
	left := maps.Clone(d.Components.Schemas)
	for _, known := range []string{"CloudEvent", "NewToken"} { // not a type of ours; a Token and its text
		delete(left, known)
	}
	for _, v := range types {
		typ := reflect.TypeOf(v)
		schema, ok := d.Components.Schemas[typ.Name()].(map[string]any)
		if !ok {
			t.Errorf("%s has no schema", typ.Name())
			continue
		}
		delete(left, typ.Name())
		var members, required []string
		for i := range typ.NumField() {
			name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			members = append(members, name)
			if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
				required = append(required, name)
			}
		}
		properties, _ := schema["properties"].(map[string]any)
		if diff := gocmp.Diff(sorted(members), slices.Sorted(maps.Keys(properties))); diff != "" {
			t.Errorf("%s: members differ (-type +schema):\n%s", typ.Name(), diff)
		}
		var inSchema []string
		list, _ := schema["required"].([]any)
		for _, x := range list {
			inSchema = append(inSchema, fmt.Sprint(x))
		}
		if diff := gocmp.Diff(sorted(required), sorted(inSchema)); diff != "" {
			t.Errorf("%s: required members differ (-type +schema):\n%s", typ.Name(), diff)
		}
	}
	if len(left) > 0 {
		t.Errorf("schemas of no type: %v", slices.Sorted(maps.Keys(left)))
	}
}

// TestAnswers asks every operation for a success and holds the answer to the description: its status,
// its content type and its schema.
func TestAnswers(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("mem:///openapi.json", d.whole); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	if rec := w.do("POST", "/v1/namespaces/shop/events", oneEvent); rec.Code != 202 {
		t.Fatalf("publish: %d %s", rec.Code, rec.Body)
	}
	w.spaces["shop"].settle(1024, api.StateDone, &dispatch.Reply{Value: []byte(`{"total":1}`)})
	w.spaces["shop"].outcome = api.StateDone
	tok, err := w.guard.Create(t.Context(), "test", api.TokenRequest{Role: string(policy.Reader)})
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string]string{
		"publish": oneEvent, "invoke": `1`, "redriveDeadLetters": `{"all":true}`, "discardDeadLetters": `{"all":true}`,
		"applyApp": `{"manifest":"","modules":{"price":{"kind":"script","code":"AA=="}}}`, "createToken": `{"role":"reader","namespace":"shop"}`,
		"applyPolicies": `{"files":{"a.cedar":"@id(\"a\") permit (principal == User::\"ann\", action == Action::\"publish\", resource);",` +
			`"perimeters.toml":"[perimeters.cards]\nevent_types = [\"card.*\"]"}}`,
		"setSecret": "hunter2", "plantCanary": `{"like":"aws"}`, "linkSecret": `{"reference":"vault:kv/shop/a#b"}`, "promoteSecret": `{"version":1}`,
		"disableSecret": `{"version":1}`, "destroySecret": `{"version":1}`, "rotateSecret": `{"function":"price","every":"24h"}`,
		"applyPoliciesOnServer": `{"files":{"perimeters.toml":"[perimeters.cards]\nevent_types = [\"shop/card.*\"]"}}`,
		"approve":               `{"digest":"sha256:1"}`, "reject": `{"reason":"no"}`,
		"rotateIssuer":    `{"revoke_old":true}`,
		"createNamespace": `{"name":"new"}`, "updateNamespace": `{"owners":["user:ann"],"quotas":{"functions":5}}`,
	}
	ids := map[string]string{"getEvent": "e-1?data=true&wait=1s", "getDeadLetter": "l-1?data=true", "revokeToken": tok.ID, "getApproval": "a-1", "approve": "a-1", "reject": "a-1"}
	names := map[string]string{
		"getFunction": "price", "invoke": "price", "getSubscription": "orders", "pauseSubscription": "orders", "resumeSubscription": "orders",
		"getSecret": "key", "listSecretVersions": "key", "setSecret": "key", "plantCanary": "bird", "linkSecret": "elsewhere", "promoteSecret": "key",
		"disableSecret": "old", "destroySecret": "old", "rotateSecret": "key", "listSecretUses": "key", "acceptDatabase": "orders",
		"getPerimeter": "cards", "getPerimeterOnServer": "cards", "testPerimeter": "cards", "testPerimeterOnServer": "cards",
	}
	const question = "?principal=user:ann&action=publish&resource=event_type:shop/order.created&address=10.0.0.1&size=1"
	queries := map[string]string{
		"explainDecision": question, "explainDecisionOnServer": question, "whoCan": "?action=invoke&resource=function:shop/price",
		"whoCanOnServer": "?action=manageTokens&resource=server", "reach": "?principal=function:shop/price", "reachOnServer": "?principal=user:ann", "proposeBoundary": "?principal=user:ann",
	}
	ops := d.operations(t)
	keys := slices.Collect(maps.Keys(ops))
	slices.SortFunc(keys, func(a, b string) int { return -cmp.Compare(a, b) })
	for _, key := range keys {
		method, path, _ := strings.Cut(key, " ")
		op := ops[key]
		target := strings.NewReplacer("{ns}", "shop", "{id}", ids[op.OperationID], "{name}", names[op.OperationID], "{app}", "hooks").Replace(path) + queries[op.OperationID]
		rec := w.do(method, target, bodies[op.OperationID])
		described, ok := op.Responses[fmt.Sprint(rec.Code)]
		if !ok || rec.Code >= 300 {
			t.Errorf("%s = %d, which is no success that is described\n%s", key, rec.Code, rec.Body)
			continue
		}
		content, _ := described["content"].(map[string]any)
		if rec.Code == 204 {
			if content != nil || rec.Body.Len() > 0 {
				t.Errorf("%s: 204 with content", key)
			}
			continue
		}
		media, _, _ := strings.Cut(rec.Header().Get("Content-Type"), ";")
		if content[media] == nil && rec.Header().Get("Content-Type") != "" {
			t.Errorf("%s answers %q, described are %v", key, media, slices.Sorted(maps.Keys(content)))
			continue
		}
		if media != "application/json" && media != "application/x-ndjson" {
			continue
		}
		schema, err := compiler.Compile("mem:///openapi.json#/paths/" + escape(path) + "/" + strings.ToLower(method) +
			"/responses/" + fmt.Sprint(rec.Code) + "/content/" + escape(media) + "/schema")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(rec.Body.String()) {
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(v); err != nil {
				t.Errorf("%s: the answer is not as described: %v\n%s", key, err, line)
			}
		}
	}
}

// escape writes a token of a JSON pointer in a URL.
func escape(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(s)
}
