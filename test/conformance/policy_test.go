package conformance_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// probes is how many requests the gate is asked about, over rounds sets of policies.
const (
	probes = 10_000
	rounds = 4
)

// caller is a principal with what its token says.
type caller struct {
	api.NewToken
}

func (c *caller) entity() cedar.Entity {
	var limits []cedar.Value
	for _, t := range c.EventTypes {
		limits = append(limits, cedar.String(t))
	}
	return cedar.Entity{UID: cedar.NewEntityUID("Token", cedar.String(c.ID)), Attributes: cedar.NewRecord(cedar.RecordMap{
		"role": cedar.String(c.Role), "namespace": cedar.String(c.Namespace), "limited": cedar.Boolean(len(limits) > 0),
		"attenuated": cedar.False, "eventTypes": cedar.NewSet(limits...),
	})}
}

// question is what a request asks the gate.
type question struct {
	action   string
	resource cedar.Entity
	event    cedar.Record // of publish
}

func namespaceEntity(ns string) cedar.Entity {
	return cedar.Entity{UID: cedar.NewEntityUID("Namespace", cedar.String(ns)), Attributes: cedar.NewRecord(cedar.RecordMap{"name": cedar.String(ns), "namespace": cedar.String(ns)})}
}

func within(kind cedar.EntityType, ns, name string) cedar.Entity {
	return cedar.Entity{
		UID: cedar.NewEntityUID(kind, cedar.String(ns+"/"+name)), Parents: cedar.NewEntityUIDSet(cedar.NewEntityUID("Namespace", cedar.String(ns))),
		Attributes: cedar.NewRecord(cedar.RecordMap{"name": cedar.String(name), "namespace": cedar.String(ns)}),
	}
}

// probe is a request and what it asks. A request that asks two questions must be allowed both.
type probe struct {
	method, path, body string
	asks               []question
}

// exported is the policies as the API shows them, evaluated by Cedar and by nothing of ours.
type exported map[string]*cedar.PolicySet

// export reads the policies about each namespace, and with "" about the server.
func export(t *testing.T, s *testkit.Server) exported {
	t.Helper()
	out := exported{}
	for ns, path := range map[string]string{"": "/v1/policies", "default": "/v1/namespaces/default/policies", "bank": "/v1/namespaces/bank/policies"} {
		var list api.PolicyList
		s.MustDo(t, "GET", path, nil).Decode(t, http.StatusOK, &list)
		set := cedar.NewPolicySet()
		for _, p := range list.Policies {
			var policy cedar.Policy
			if err := policy.UnmarshalCedar([]byte(p.Text)); err != nil {
				t.Fatalf("%s: %v", p.ID, err)
			}
			set.Add(cedar.PolicyID(p.ID), &policy)
		}
		out[ns] = set
	}
	return out
}

// allows evaluates a question. That an error in a forbid denies is the one rule that Cedar does not have.
func (e exported) allows(c *caller, q *question) bool {
	who := c.entity()
	context := cedar.RecordMap{
		"now": cedar.NewDatetime(time.Now()), "tls": cedar.True, "mtls": cedar.False,
		"ip": must(types.ParseIPAddr("127.0.0.1")),
	}
	if q.action == "publish" {
		context["event"] = q.event
	}
	ns, _ := q.resource.Attributes.Get("namespace")
	set := e[string(ns.(cedar.String))]
	decision, why := cedar.Authorize(set, cedar.EntityMap{who.UID: who, q.resource.UID: q.resource}, cedar.Request{
		Principal: who.UID, Action: cedar.NewEntityUID("Action", cedar.String(q.action)), Resource: q.resource.UID, Context: cedar.NewRecord(context),
	})
	for _, failed := range why.Errors {
		if set.Get(failed.PolicyID).Effect() == cedar.Forbid {
			return false
		}
	}
	return decision == cedar.Allow
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func oneOf[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

var (
	probedTypes  = []string{"order.created", "order.paid", "note"}
	probedSpaces = []string{"default", "bank"}
)

// randomProbe returns a request that changes nothing that a later one could meet.
func randomProbe(rnd *rand.Rand, n int) probe {
	ns := oneOf(rnd, probedSpaces...)
	space := func(action string) []question { return []question{{action: action, resource: namespaceEntity(ns)}} }
	server := func(action string) []question {
		return []question{{action: action, resource: cedar.Entity{UID: cedar.NewEntityUID("Server", "server"), Attributes: cedar.NewRecord(cedar.RecordMap{"name": cedar.String("server"), "namespace": cedar.String("")})}}}
	}
	in := "/v1/namespaces/" + ns
	name := oneOf(rnd, "price", "ship")
	switch rnd.IntN(16) {
	case 0:
		return probe{"POST", in + "/functions/" + name + "/invoke", "1", []question{{action: "invoke", resource: within("Function", ns, name)}}}
	case 1:
		return probe{"GET", in + "/events?limit=1", "", space("readEvents")}
	case 2:
		return probe{"GET", in + "/events/none?data=true", "", append(space("readEvents"), space("readEventData")...)}
	case 3:
		return probe{"GET", in + "/functions", "", space("readFunctions")}
	case 4:
		return probe{"GET", in + "/logs?limit=1", "", space("readLogs")}
	case 5:
		return probe{"POST", in + "/subscriptions/none/pause", "", space("manageSubscriptions")}
	case 6:
		return probe{"GET", in + "/dead-letters?limit=1", "", space("readDeadLetters")}
	case 7:
		return probe{"POST", in + "/dead-letters/discard", `{"ids":["none"]}`, space("manageDeadLetters")}
	case 8:
		return probe{"POST", in + "/apps?dry_run=true", `{"manifest":"","modules":{}}`, space("deploy")}
	case 9:
		return probe{"GET", in + "/perimeters", "", space("readPolicies")}
	case 10:
		return probe{"POST", in + "/policies/No%20Name", `{"files":{}}`, space("managePolicies")}
	case 11:
		return oneOf(rnd, probe{"GET", "/metrics", "", server("readMetrics")},
			probe{"GET", "/v1/perimeters", "", server("readPolicies")}, probe{"POST", "/v1/policies/No%20Name", `{"files":{}}`, server("managePolicies")})
	}
	typ, data := oneOf(rnd, probedTypes...), strings.Repeat("1", 1+rnd.IntN(60))
	event := cedar.RecordMap{"type": cedar.String(typ), "source": cedar.String(oneOf(rnd, "/till", "/web")), "size": cedar.Long(len(data))}
	body := fmt.Sprintf(`{"specversion":"1.0","id":"e-%d","type":%q,"source":%q,"data":%s}`, n, typ, string(event["source"].(cedar.String)), data)
	if rnd.IntN(2) == 0 {
		event["subject"] = cedar.String("s-1")
		body = strings.Replace(body, `"data"`, `"subject":"s-1","data"`, 1)
	}
	return probe{"POST", in + "/events", body, []question{{action: "publish", resource: within("EventType", ns, typ), event: cedar.NewRecord(event)}}}
}

// randomPolicies returns policies of every form: scopes of all widths, and conditions on principal, resource and context.
func randomPolicies(rnd *rand.Rand, ns, operator string, callers []*caller, n int) string {
	actions := []string{
		"publish", "invoke", "readEvents", "readEventData", "deploy", "readFunctions", "readLogs", "manageSubscriptions", "readDeadLetters",
		"manageDeadLetters", "readPolicies", "managePolicies", "manageTokens", "readMetrics",
	}
	var b strings.Builder
	for i := range n {
		principal := oneOf(rnd, "principal", "principal is Token", fmt.Sprintf("principal == Token::%q", oneOf(rnd, callers...).ID))
		a, other := oneOf(rnd, actions...), oneOf(rnd, actions...)
		action := oneOf(rnd, "action", fmt.Sprintf("action == Action::%q", a), fmt.Sprintf("action in [Action::%q, Action::%q]", a, other))
		resource, condition := "resource", oneOf(rnd, "",
			`when { principal has role && principal.role == "reader" }`, `unless { resource.name like "order.*" }`,
			`when { context.mtls }`, `when { context has ip && context.ip.isLoopback() }`, `unless { context.tls }`)
		in := oneOf(rnd, probedSpaces...)
		if ns != "" {
			in = ns
		}
		switch rnd.IntN(3) {
		case 0: // about events, which other actions have none of
			action, resource = `action == Action::"publish"`, oneOf(rnd, "resource", fmt.Sprintf("resource == EventType::%q", in+"/"+oneOf(rnd, probedTypes...)), fmt.Sprintf("resource in Namespace::%q", in))
			condition = oneOf(rnd, condition, `when { context.event.size < 30 }`, `when { context.event has subject && context.event.subject == "s-1" }`, `unless { context.event.source == "/till" }`,
				`when { context.event.size * 4611686018427387904 > 0 }`) // which fails, but for size 1
		case 1:
			action, resource = `action == Action::"invoke"`, oneOf(rnd, fmt.Sprintf("resource == Function::%q", in+"/price"), fmt.Sprintf("resource in Namespace::%q", in))
		}
		effect := oneOf(rnd, "permit", "permit", "permit", "forbid")
		if effect == "forbid" { // who applies the policies of the next round is kept out of it
			condition += fmt.Sprintf(` unless { principal == Token::%q }`, operator)
		}
		fmt.Fprintf(&b, "@id(\"p%d\") %s (%s, %s, %s) %s;\n", i, effect, principal, action, resource, condition)
	}
	return b.String()
}

// TestGateAgainstCedar: 10,000 random requests over the real API are answered as Cedar itself evaluates the policies that the
// API exports, for principals of every role, limited and not, in and out of their namespace.
func TestGateAgainstCedar(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	var known api.TokenList
	s.MustDo(t, "GET", "/v1/tokens", nil).Decode(t, http.StatusOK, &known)
	operator := known.Tokens[0].ID
	var callers []*caller
	for _, role := range []string{"operator", "developer", "publisher", "reader"} {
		for _, ns := range []string{"", "default", "bank"} {
			for _, types := range []string{"", `,"event_types":["order.created"]`} {
				c := &caller{}
				s.MustDo(t, "POST", "/v1/tokens", fmt.Appendf(nil, `{"role":%q,"namespace":%q%s}`, role, ns, types), "Content-Type", "application/json").Decode(t, http.StatusCreated, &c.NewToken)
				callers = append(callers, c)
			}
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var allowed, asked int
	for round := range rounds {
		for ns, path := range map[string]string{"": "/v1", "default": "/v1/namespaces/default", "bank": "/v1/namespaces/bank"} {
			files := must(json.Marshal(api.PolicyFiles{Files: map[string]string{"random.cedar": randomPolicies(rnd, ns, operator, callers, 12)}}))
			if a := s.MustDo(t, "POST", path+"/policies/random", files, "Content-Type", "application/json"); a.Status != http.StatusOK {
				t.Fatalf("policies of %q: %d %s\n%s", ns, a.Status, a.Body, files)
			}
		}
		yes, n := ask(t, s, export(t, s), callers, rnd, round)
		allowed, asked = allowed+yes, asked+n
	}
	if asked != probes || allowed < probes/20 || allowed > probes*19/20 {
		t.Errorf("%d of %d were allowed: the random policies test too little", allowed, asked)
	}
}

// ask sends the probes of a round, by several at a time, and compares each answer.
func ask(t *testing.T, s *testkit.Server, policies exported, callers []*caller, rnd *rand.Rand, round int) (allowed, asked int) {
	t.Helper()
	const workers = 8
	type one struct {
		probe
		c *caller
	}
	work := make(chan one, probes/rounds)
	for i := range probes / rounds {
		work <- one{randomProbe(rnd, round*probes+i), oneOf(rnd, callers...)}
	}
	close(work)
	var mu, applying sync.Mutex // few apps may be applied at the same time
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for w := range work {
				want := true
				for i := range w.asks {
					want = want && policies.allows(w.c, &w.asks[i])
				}
				free := func() {}
				if strings.Contains(w.path, "/apps") {
					applying.Lock()
					free = applying.Unlock
				}
				got, status, err := send(t.Context(), s, w.c, &w.probe)
				free()
				mu.Lock()
				asked++
				if want {
					allowed++
				}
				mu.Unlock()
				if err != nil || got != want {
					t.Errorf("%s %s of %s %s in %q, limited to %v: status %d, allowed %v, want %v (%v)\n%s", w.method, w.path, w.c.Role, w.c.ID, w.c.Namespace, w.c.EventTypes, status, got, want, err, w.body)
				}
			}
		})
	}
	group.Wait()
	return allowed, asked
}

// send returns whether the gate let a request through, whatever came of it.
func send(ctx context.Context, s *testkit.Server, c *caller, p *probe) (allowed bool, status int, err error) {
	media := "application/json"
	if strings.HasSuffix(p.path, "/events") {
		media = "application/cloudevents+json"
	}
	a, err := s.Do(ctx, p.method, p.path, []byte(p.body), "Content-Type", media, "Authorization", "Bearer "+c.Text)
	if err != nil {
		return false, 0, err
	}
	if a.Status == http.StatusTooManyRequests || a.Status == http.StatusUnauthorized || a.Status >= http.StatusInternalServerError {
		return false, a.Status, fmt.Errorf("no answer of the gate: %s", a.Body)
	}
	return a.Status != http.StatusForbidden, a.Status, nil
}
