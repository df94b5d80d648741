package httpapi_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/dispatch"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/funclog"
	"sallyport/internal/httpapi"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/manifest"
	"sallyport/internal/meter"
	"sallyport/internal/namespace"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// decisions returns a record of what the guard decides.
func decisions(t testing.TB, guard *access.Guard) *access.Decisions {
	t.Helper()
	d, err := access.OpenDecisions(t.Context(), &bucket{m: map[string][]byte{}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	guard.RecordIn(d)
	return d
}

// policies returns policies that the guard decides by.
func policies(t testing.TB, guard *access.Guard) *access.Policies {
	t.Helper()
	p, err := access.OpenPolicies(t.Context(), &bucket{m: map[string][]byte{}}, guard)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// world is a server behind the API: a real guard, and fakes of everything else. It has the namespaces
// shop and bank, each with one function "price" and one subscription "orders".
type world struct {
	*httpapi.API
	guard    *access.Guard
	log      *bytes.Buffer
	spaces   map[ident.Namespace]*space
	registry *namespace.Registry
	tokens   map[policy.Role]string // of the whole server

	mu      sync.Mutex
	refused []string
	fail    error          // of the intake
	hold    chan struct{}  // the intake waits for it, when it is set
	entered chan struct{}  // told when the intake is entered, when it is set
	accept  func(r accept) // sees what the intake gets
	ready   error
	instant bool // the intake answers at once, and stores nothing
	applied []*api.Bundle
	grants  map[string]manifest.Grant // of the function that waits for an approval
}

type accept struct {
	ns     ident.Namespace
	events []event.Event
	target ident.FunctionName
}

type bucket struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (b *bucket) Put(_ context.Context, key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m[key] = value
	return nil
}

func (b *bucket) Get(_ context.Context, key string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v, ok := b.m[key]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (b *bucket) Delete(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.m, key)
	return nil
}

func (b *bucket) List(context.Context, string, string, int) ([]store.Entry, error) { return nil, nil }

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, httpapi.Config{Limits: event.DefaultLimits(), Requests: 8})
}

func newWorldOf(t testing.TB, cfg httpapi.Config) *world {
	t.Helper()
	tokens, err := access.NewTokens(t.Context(), &bucket{m: map[string][]byte{}})
	if err != nil {
		t.Fatal(err)
	}
	builtIn, err := policy.New()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		guard: access.NewGuard(tokens, builtIn), log: &bytes.Buffer{},
		spaces: map[ident.Namespace]*space{"shop": newSpace("shop"), "bank": newSpace("bank")}, tokens: map[policy.Role]string{},
	}
	w.registry, err = namespace.Open(t.Context(), &bucket{m: map[string][]byte{}}, []ident.Namespace{"shop", "bank"})
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range policy.Roles() {
		w.tokens[role] = w.token(t, api.TokenRequest{Role: string(role)})
	}
	w.API, err = httpapi.New(cfg, httpapi.Deps{
		Identifier: access.NewIdentifier(w.guard.Tokens, access.IdentifierConfig{}),
		Guard:      w.guard, Decisions: decisions(t, w.guard), Policies: policies(t, w.guard), Intake: intake{w}, Deployer: deployer{w}, Secrets: newSecrets(t), Space: w.space, Namespaces: namespaces{w.registry, w},
		Status: func(context.Context) api.Status {
			return api.Status{
				Issuers:         []api.IssuerStatus{{URL: "https://login.example.com", Keys: 2, Refreshed: time.Unix(5, 0).UTC()}},
				RevocationLists: []api.RevocationStatus{{Authority: "shop", Revoked: 1, Issued: time.Unix(5, 0).UTC(), NextUpdate: time.Unix(9, 0).UTC()}},
				Version:         "v", Mode: "dev", Started: time.Unix(1, 0).UTC(), DataDir: "/data", DiskFree: 1, Resident: 2, Cells: &api.CellStatus{SecondWall: "on", Reset: "tracked"}}
		},
		Ready:   func() error { return w.ready },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metric 1\n") }),
		Issuer:  issuer{}, Databases: databases{},
		Published: func(path string) ([]byte, bool) {
			text, ok := map[string]string{"/.well-known/openid-configuration": `{"issuer":"https://x"}`, "/.well-known/jwks.json": `{"keys":[]}`}[path]
			return []byte(text), ok
		},
		Refused: func(code string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refused = append(w.refused, code)
		},
		Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// token makes a token.
func (w *world) token(t testing.TB, req api.TokenRequest) string {
	t.Helper()
	tok, err := w.guard.Create(t.Context(), "server", req)
	if err != nil {
		t.Fatal(err)
	}
	return tok.Text
}

// issuer has one key, and one that it ends.
type issuer struct{}

// databases accepts every database.
type databases struct{}

func (databases) Accept(_ context.Context, _ ident.Namespace, name string) (*api.DatabaseAccepted, error) {
	return &api.DatabaseAccepted{Name: name, Recorded: 97, RecordedAt: time.Unix(5, 0).UTC(), Found: 41}, nil
}

func (issuer) Status() *api.Issuer {
	until := time.Unix(9, 0).UTC()
	return &api.Issuer{URL: "https://x", Keys: []api.IssuerKey{{ID: "k", State: "signs", Created: time.Unix(5, 0).UTC(), Until: &until}}}
}

func (i issuer) Rotate(_ context.Context, how api.IssuerRotation) (*api.Issuer, error) {
	out := i.Status()
	if how.RevokeOld {
		out.Revoked = []string{"j"}
	}
	return out, nil
}

// statement is a meter in which one function ran twice.
type statement struct{}

func (statement) Usage(q meter.Query) ([]meter.Line, meter.Counter) {
	c := meter.Counter{Done: 1, Dead: 1, Cold: 1, Wall: 3e9, CPU: 2e9, GBSeconds: 0.5, PeakMax: 1 << 20, BytesIn: 10, BytesOut: 20}
	c.Durations[10] = 2
	line := meter.Line{Counter: c}
	if q.By.Function {
		line.Function = "price"
	}
	if q.By.Revision {
		line.Revision = 3
	}
	if q.By.Principal {
		line.Principal = "token:t"
	}
	return []meter.Line{line}, c
}

// Between returns the uses of two grants, of two functions.
func (statement) Between(since, until time.Time) map[meter.UseKey]meter.UseCounter {
	c := meter.UseCounter{Uses: 3, Failed: 2, Denied: 1, Took: 3e6, In: 30, Out: 60, Last: time.Unix(1, 0)}
	c.Durations[10] = 3
	return map[meter.UseKey]meter.UseCounter{{Function: "price", Grant: "orders", Kind: "sql"}: c, {Function: "confirm", Grant: "payments", Kind: "http"}: {Uses: 1}}
}

func (w *world) space(ns ident.Namespace) (*httpapi.Space, error) {
	if s := w.spaces[ns]; s != nil {
		return &httpapi.Space{Log: s, Dispatch: s, Lines: s, Usage: statement{}, Grants: statement{}}, nil
	}
	return nil, problem.New(problem.NotFound, "server.namespace_not_found", "there is no namespace %q", ns)
}

// do sends a request of the operator, unless header has another Authorization.
func (w *world) do(method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
	if strings.Contains(target, "/events") && method == "POST" {
		r.Header.Set("Content-Type", "application/cloudevents+json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i+1] == "" {
			r.Header.Del(header[i])
		}
	}
	return w.serve(r)
}

func (w *world) serve(r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec
}

// as returns the header of a token.
func as(token string) []string { return []string{"Authorization", "Bearer " + token} }

func decode[T any](t testing.TB, rec *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var v T
	if rec.Code != status {
		t.Fatalf("status = %d, want %d\n%s", rec.Code, status, rec.Body)
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &v, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("decode: %v\n%s", err, rec.Body)
	}
	return v
}

// wantProblem checks that an answer is a whole problem document.
func wantProblem(t testing.TB, rec *httptest.ResponseRecorder, status int, code string) api.Problem {
	t.Helper()
	p := decode[api.Problem](t, rec, status)
	if p.Code != code {
		t.Errorf("code = %q, want %q\n%s", p.Code, code, rec.Body)
	}
	if p.Status != status || p.Type != "urn:sallyport:problem:"+code || p.Title == "" || p.Detail == "" {
		t.Errorf("the problem is not whole: %s", rec.Body)
	}
	if got := rec.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type = %q", got)
	}
	retry := rec.Header().Get("Retry-After") != ""
	if want := status == 429 || status == 503; want && !retry {
		t.Errorf("%d without Retry-After", status)
	}
	return p
}

const oneEvent = `{"specversion":"1.0","id":"e-1","source":"/s","type":"order.created","data":{"n":1}}`

// intake authorises as ingress does and stores in the fake log.
type intake struct{ *world }

func (w intake) Accept(ctx context.Context, p *access.Principal, ns ident.Namespace, evs []event.Event, opts ingress.Options) ([]api.Receipt, error) {
	if w.instant {
		return []api.Receipt{{ID: evs[0].ID, Source: evs[0].Source, Position: 1}}, nil
	}
	w.mu.Lock()
	fail, hold, entered, see := w.fail, w.hold, w.entered, w.accept
	w.mu.Unlock()
	if entered != nil {
		entered <- struct{}{}
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fail != nil {
		return nil, fail
	}
	for i := range evs {
		action, res := policy.Publish, policy.Resource{Kind: policy.KindEventType, Namespace: ns, Name: string(evs[i].Type)}
		if opts.Target != "" {
			action, res = policy.Invoke, policy.Resource{Kind: policy.KindFunction, Namespace: ns, Name: string(opts.Target)}
		}
		if err := w.guard.Authorize(ctx, p, action, res); err != nil {
			return nil, err
		}
	}
	s := w.spaces[ns]
	if s == nil {
		_, err := w.space(ns)
		return nil, err
	}
	if opts.Target != "" && s.state.Functions[opts.Target] == nil {
		_, err := s.state.Function(opts.Target)
		return nil, err
	}
	if see != nil {
		see(accept{ns, evs, opts.Target})
	}
	return s.add(p.ID, evs, opts.Target), nil
}

type deployer struct{ *world }

// waits is what waits for an approval.
func (w deployer) waits() *api.Approval {
	return &api.Approval{
		ID: "a-1", App: "app", State: api.ApprovalPending, Digest: "sha256:1", Revision: 1, Changes: []api.Change{}, AppliedBy: w.sender(),
		Grants: []api.GrantChange{{Function: "price", Grant: "out", Kind: "http", Change: "new"}},
	}
}

// sender is the token that applied what waits: the one of a developer.
func (w deployer) sender() string {
	id, _, _ := strings.Cut(strings.TrimPrefix(w.tokens[policy.Developer], "sp_"), "_")
	return "token:" + id
}

func (w deployer) Approvals(ident.Namespace) []api.Approval { return []api.Approval{*w.waits()} }

func (w deployer) Approval(_ ident.Namespace, id string) (*api.Approval, deploy.Sender, error) {
	if id != "a-1" {
		return nil, deploy.Sender{}, problem.New(problem.NotFound, "approval.not_found", "there is none")
	}
	return w.waits(), deploy.Sender{ID: ident.PrincipalID(w.sender())}, nil
}

func (w deployer) Approve(_ context.Context, by ident.PrincipalID, _ ident.Namespace, _ string, _ api.ApprovalRequest, may deploy.Consent) (*api.Approval, error) {
	out := w.waits()
	out.State, out.DecidedBy = api.ApprovalApproved, string(by)
	return out, may(deploy.Change{Change: api.Change{Action: api.ActionCreate, Kind: "function", Name: "price"}, Grants: w.grants})
}

func (w deployer) Reject(_ context.Context, by ident.PrincipalID, _ ident.Namespace, _, reason string) (*api.Approval, error) {
	out := w.waits()
	out.State, out.DecidedBy, out.Reason = api.ApprovalRejected, string(by), reason
	return out, nil
}

func (w deployer) Apply(_ context.Context, _ ident.PrincipalID, _ ident.Namespace, b *api.Bundle, dry bool, may deploy.Consent) (*api.Plan, error) {
	w.mu.Lock()
	entered, hold := w.entered, w.hold
	w.applied = append(w.applied, b)
	w.mu.Unlock()
	if entered != nil {
		entered <- struct{}{}
	}
	if hold != nil {
		<-hold
	}
	plan := &api.Plan{App: "app", Revision: 2, Applied: !dry, Changes: []api.Change{{Action: api.ActionCreate, Kind: "function", Name: "price"}}}
	return plan, may(deploy.Change{Change: plan.Changes[0]})
}

func (w deployer) State(ns ident.Namespace) *deploy.State {
	if s := w.spaces[ns]; s != nil {
		return s.state
	}
	return &deploy.State{}
}

func (w deployer) SetPaused(_ context.Context, ns ident.Namespace, name ident.SubscriptionName, paused bool) (*deploy.Subscription, error) {
	s := w.spaces[ns].state.Subscriptions[name]
	if s == nil {
		return nil, problem.New(problem.NotFound, "deploy.subscription_not_found", "there is no subscription %q", name)
	}
	out := *s
	out.Paused = paused
	return &out, nil
}

// namespaces are real ones, but for what server adds to them.
type namespaces struct {
	*namespace.Registry
	*world
}

func (n namespaces) Ensure(ctx context.Context, ns ident.Namespace) error {
	if ns == "broken" {
		return errors.New("disk is gone")
	}
	if n.spaces[ns] == nil {
		n.spaces[ns] = newSpace(ns)
	}
	return n.Registry.Ensure(ctx, ns)
}

func (n namespaces) Use(context.Context, ident.Namespace) (use, stored map[string]int64, err error) {
	return map[string]int64{namespace.Functions: 1}, map[string]int64{"events": 0}, nil
}

func (n namespaces) Delete(ctx context.Context, _ ident.PrincipalID, ns ident.Namespace, _ bool, drain func(context.Context) error) (*api.NamespaceDeleted, error) {
	if err := n.Close(ns); err != nil {
		return nil, err
	}
	defer n.Reopen(ns)
	if err := drain(ctx); err != nil {
		return nil, err
	}
	if err := n.Forget(ctx, ns); err != nil {
		return nil, err
	}
	delete(n.spaces, ns)
	return &api.NamespaceDeleted{Name: string(ns), Accepted: 1, Done: 1}, nil
}

// space is the event log, the dispatcher and the function logs of a namespace.
type space struct {
	state *deploy.State

	mu        sync.Mutex
	records   []event.Record
	states    map[ident.Position]api.EventState
	settled   chan struct{} // closed and renewed when a state changes
	reply     *dispatch.Reply
	outcome   api.EventState // of every event from now on
	lines     []api.LogLine
	followers []chan api.LogLine
	full      bool // of followers
	lists     int
	fail      error
}

func newSpace(ns ident.Namespace) *space {
	f := &deploy.Function{Name: "price", App: "app", Revision: 1, Kind: "javascript", Digest: "d", By: "token:1", Publishes: []ident.EventType{"order.priced"}}
	f.Grants = map[string]manifest.Grant{"out": {Publish: f.Publishes}}
	return &space{
		state: &deploy.State{
			Functions:     map[ident.FunctionName]*deploy.Function{"price": f},
			Subscriptions: map[ident.SubscriptionName]*deploy.Subscription{"orders": {Name: "orders", App: "app", Function: f}},
		},
		states: map[ident.Position]api.EventState{}, settled: make(chan struct{}),
		lines: []api.LogLine{{Time: time.Unix(100, 0).UTC(), Function: "price", EventID: "e-1", Level: "info", Message: string(ns) + " one"}},
	}
}

func (s *space) add(by ident.PrincipalID, evs []event.Event, target ident.FunctionName) []api.Receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []api.Receipt
	for _, e := range evs {
		e.Data = bytes.Clone(e.Data)
		pos := ident.NewPosition(uint64(len(s.records)+1), 0)
		s.records = append(s.records, event.Record{Event: e, Position: pos, AcceptedAt: time.Unix(int64(len(s.records)), 0).UTC(), Principal: by, Target: target})
		s.states[pos] = cmp.Or(s.outcome, api.StatePending)
		out = append(out, api.Receipt{ID: e.ID, Source: e.Source, Position: uint64(pos)})
	}
	return out
}

// settle gives the event at pos its outcome.
func (s *space) settle(pos ident.Position, state api.EventState, reply *dispatch.Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[pos], s.reply = state, reply
	close(s.settled)
	s.settled = make(chan struct{})
}

func (s *space) At(_ context.Context, pos ident.Position) (event.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := pos.Batch(); n >= 1 && n <= uint64(len(s.records)) {
		return s.records[n-1], nil
	}
	return event.Record{}, problem.New(problem.NotFound, "eventlog.not_found", "there is no event at position %s", pos)
}

func (s *space) Find(_ context.Context, source, id string) ([]ident.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	var out []ident.Position
	for i := len(s.records) - 1; i >= 0; i-- {
		if r := &s.records[i]; r.ID == id && (source == "" || source == r.Source) {
			out = append(out, r.Position)
		}
	}
	return out, nil
}

func (s *space) List(_ context.Context, q eventlog.Query) ([]event.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	var out []event.Record
	for i := len(s.records) - 1; i >= 0 && len(out) < q.Limit; i-- {
		r := s.records[i]
		if (q.Before == 0 || r.Position < q.Before) && (q.Type == "" || r.Type == q.Type) && (q.Source == "" || r.Source == q.Source) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (s *space) Stats(context.Context) (eventlog.Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return eventlog.Stats{Accepted: uint64(len(s.records)), First: 1, Last: uint64(len(s.records))}, nil
}

func (s *space) Await(ctx context.Context, pos ident.Position) (api.EventState, *dispatch.Reply, error) {
	for {
		s.mu.Lock()
		state, reply, changed := s.states[pos], s.reply, s.settled
		s.mu.Unlock()
		if state != api.StatePending {
			return state, reply, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return api.StatePending, nil, ctx.Err()
		}
	}
}

func (s *space) Way(_ context.Context, pos ident.Position) (api.EventState, []api.Delivery, error) {
	at := time.Unix(5, 0).UTC()
	return s.State(pos), []api.Delivery{{
		Subscription: "orders", Function: "price", Revision: 1, State: s.State(pos), NextAttempt: &at,
		Attempts: []api.Attempt{{Number: 1, Started: at, Finished: at, Code: "cell.trap", Error: "not UTF-8: \xff", Emitted: []string{"x"}}},
	}}, nil
}

func (s *space) State(pos ident.Position) api.EventState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[pos]
}

func (s *space) Counts() map[ident.SubscriptionName]dispatch.Counts {
	return map[ident.SubscriptionName]dispatch.Counts{"orders": {Pending: 3, Dead: 2}}
}

func (s *space) Balance() dispatch.Balance { return dispatch.Balance{DeadLetters: 2} }

func (s *space) letter() api.DeadLetter {
	return api.DeadLetter{ID: "l-1", EventID: "e-1", Source: "/s", Type: "order.created", Function: "price", Reason: "r", Attempts: 1, Position: 1024}
}

func (s *space) DeadLetters(context.Context, ident.SubscriptionName, string, int) ([]api.DeadLetter, string, error) {
	return []api.DeadLetter{s.letter()}, "next", nil
}

func (s *space) DeadLetter(_ context.Context, id string) (*api.DeadLetter, *event.Record, error) {
	if id != "l-1" {
		return nil, nil, problem.New(problem.NotFound, "dispatch.dead_letter_not_found", "there is no dead letter with this id")
	}
	l := s.letter()
	return &l, &event.Record{Event: event.Event{ID: "e-1", Source: "/s", Type: "order.created", Data: []byte(`{"secret":1}`), DataKind: event.DataJSON}}, nil
}

func (s *space) Redrive(_ context.Context, sel api.DeadLetterSelection) (*api.DeadLetterResult, error) {
	return &api.DeadLetterResult{IDs: []string{"redriven"}, DryRun: sel.DryRun}, nil
}

func (s *space) Discard(_ context.Context, sel api.DeadLetterSelection) (*api.DeadLetterResult, error) {
	return &api.DeadLetterResult{IDs: []string{"discarded"}, DryRun: sel.DryRun}, nil
}

func (s *space) Read(_ context.Context, q funclog.Query) ([]api.LogLine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []api.LogLine
	for _, l := range s.lines {
		if q.Selects(&l) {
			out = append(out, l)
		}
	}
	return out[max(0, len(out)-q.Limit):], nil
}

func (s *space) Follow() (<-chan api.LogLine, func(), bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return nil, nil, false
	}
	c := make(chan api.LogLine, 16)
	s.followers = append(s.followers, c)
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.followers = slices.DeleteFunc(s.followers, func(f chan api.LogLine) bool { return f == c })
	}, true
}

func (s *space) say(l api.LogLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.followers {
		f <- l
	}
}
