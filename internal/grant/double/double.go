// Package double stands in for what is behind the doors of grants: it answers from fixtures, answers with what a use would come to
// if it simply succeeded, or says which fixture there should be. It records every use, without credentials.
//
// It is for `function test` and `dev`. What decides, limits and counts is in front of it, in grant.Set and the doors, and runs as
// in a server: nothing in here allows anything.
//
// Callers: server, which puts it behind the doors of a server that is no production server; cli, which makes one.
package double

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// How a use was answered.
const (
	ByFixture = "fixture"
	ByNeutral = "neutral"    // as if it had succeeded
	ByNobody  = "unanswered" // there is no fixture, and nothing else to say
	ByDoor    = "carried out"
	ByRefusal = "refused" // before anybody was asked for an answer
)

// Use is one use of a grant, as it is shown. No credential is in it.
type Use struct {
	Function string         `json:"function"`
	Grant    string         `json:"grant"`
	Kind     string         `json:"kind"`
	Op       string         `json:"op"`
	Request  jsontext.Value `json:"request,omitempty"`
	// Answered is how: fixture, neutral, unanswered, carried out, refused.
	Answered string `json:"answered"`
	// Fixture is the place of the fixture that answered, FILE:LINE.
	Fixture string `json:"fixture,omitempty"`
	// Code and Error say why the use failed; Policies are those that denied it.
	Code     string   `json:"code,omitempty"`
	Error    string   `json:"error,omitempty"`
	Policies []string `json:"policies,omitempty"`
}

// Config says what a Stand does.
type Config struct {
	// Takes reports whether uses of a grant are rehearsed; nil takes all.
	Takes func(grant string) bool
	// CarryOut reports whether a use that no fixture answers is made after all; effect says that it would change, send or reveal
	// something. Nil makes none.
	CarryOut func(grant string, effect bool) bool
	// Recorded, when set, is told of each use that was made, as a fixture.
	Recorded func(function string, d manifest.Double)
	// Told is told of each use when it is over.
	Told func(Use)
}

// Redact takes the secrets of a function out of a JSON text.
type Redact func(ctx context.Context, ns ident.Namespace, function ident.FunctionName, text []byte) []byte

// Stand is a grant.Stand. It is safe for concurrent use.
type Stand struct {
	cfg Config

	mu     sync.Mutex
	redact Redact
	shared map[ident.FunctionName][]*fixture
	tests  map[string]*session // by the id of the event
	// planned are the uses that are under way.
	planned map[*grant.Call]*Use
}

type fixture struct {
	manifest.Double
	used int
}

// session is one test.
type session struct {
	fixtures []*fixture
	inOrder  bool
	uses     []Use
}

// New returns a Stand.
func New(cfg Config) *Stand {
	return &Stand{cfg: cfg, shared: map[ident.FunctionName][]*fixture{}, tests: map[string]*session{}, planned: map[*grant.Call]*Use{}}
}

// RedactBy has requests and recorded answers go through r.
func (s *Stand) RedactBy(r Redact) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.redact = r
}

// Share replaces the fixtures of a function that hold for all of its events.
func (s *Stand) Share(function ident.FunctionName, list []manifest.Double) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared[function] = fixtures(list)
}

func fixtures(list []manifest.Double) []*fixture {
	out := make([]*fixture, len(list))
	for i, d := range list {
		out[i] = &fixture{Double: d}
	}
	return out
}

// Begin has the uses that are made for an event answered by these fixtures first.
func (s *Stand) Begin(eventID string, list []manifest.Double, inOrder bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tests[eventID] = &session{fixtures: fixtures(list), inOrder: inOrder}
}

// End returns the uses that were made for an event, and the fixtures that were asked less often than they say.
func (s *Stand) End(eventID string) (uses []Use, unused []manifest.Double) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.tests[eventID]
	delete(s.tests, eventID)
	if one == nil {
		return nil, nil
	}
	for _, f := range one.fixtures {
		if f.used < f.Times {
			unused = append(unused, f.Double)
		}
	}
	return one.uses, unused
}

// Takes implements grant.Stand.
func (s *Stand) Takes(c *grant.Caller) bool { return s.cfg.Takes == nil || s.cfg.Takes(c.Grant) }

// Answer implements grant.Stand.
func (s *Stand) Answer(ctx context.Context, call *grant.Call, p grant.Planned) (grant.Reply, bool, error) {
	sent := s.redacted(ctx, &call.Caller, p.Sent)
	s.mu.Lock()
	defer s.mu.Unlock()
	use := &Use{Function: string(call.Caller.Function), Grant: call.Caller.Grant, Op: call.Op, Request: sent}
	s.planned[call] = use
	// What was recorded is without secrets, and what is matched is, too.
	if f := s.find(call, sent); f != nil {
		f.used++
		use.Answered, use.Fixture = ByFixture, place(f.Double)
		reply, err := answerOf(f)
		return reply, false, err
	}
	switch {
	case s.cfg.CarryOut != nil && s.cfg.CarryOut(call.Caller.Grant, p.Effect):
		use.Answered = ByDoor
		return grant.Reply{}, true, nil
	case p.Neutral != nil:
		use.Answered = ByNeutral
		return *p.Neutral, false, nil
	}
	use.Answered = ByNobody
	return grant.Reply{}, false, problem.New(problem.Unprocessable, "grant.not_answered", "the use of the grant %q was not carried out, and nothing answers it; write a fixture: [[uses]] grant = %q, op = %q, request = …, answer = …",
		call.Caller.Grant, call.Caller.Grant, call.Op)
}

// find returns the fixture that answers a use: of the test first, and then of those for all events.
func (s *Stand) find(call *grant.Call, sent jsontext.Value) *fixture {
	if one := s.tests[eventOf(call)]; one != nil {
		for _, f := range one.fixtures {
			if f.Times > 0 && f.used >= f.Times {
				continue
			}
			if f.answers(call, sent) {
				return f
			}
			if one.inOrder {
				break // the next one is another
			}
		}
	}
	for _, f := range s.shared[call.Caller.Function] {
		if (f.Times == 0 || f.used < f.Times) && f.answers(call, sent) {
			return f
		}
	}
	return nil
}

func (f *fixture) answers(call *grant.Call, sent jsontext.Value) bool {
	return f.Grant == call.Caller.Grant && (f.Op == "" || f.Op == call.Op) && (f.Request == nil || len(Diff(f.Request, sent, f.Exact)) == 0)
}

func eventOf(call *grant.Call) string {
	if call.Caller.Event == nil {
		return ""
	}
	return call.Caller.Event.ID
}

// answerOf returns what a fixture answers. The member "body" of an answer stands for the bytes beside the JSON.
func answerOf(f *fixture) (grant.Reply, error) {
	if e := f.Error; e != nil {
		kind := problem.Unprocessable
		if e.Retry {
			kind = problem.Unavailable
		}
		message := e.Message
		if message == "" {
			message = "the fixture says so"
		}
		p := problem.New(kind, e.Code, "%s", message)
		if e.RetryAfter > 0 {
			p = p.WithRetryAfter(e.RetryAfter)
		}
		return grant.Reply{}, p
	}
	var members map[string]jsontext.Value
	if f.Answer.Kind() != '{' || json.Unmarshal(f.Answer, &members) != nil || members["body"] == nil {
		return grant.Reply{JSON: slices.Clone(f.Answer)}, nil
	}
	body, err := grant.BodyOf(members["body"])
	if err != nil {
		return grant.Reply{}, grant.NotOfForm(f.Grant, `with a body that is JSON, a text or { base64 = "…" }`, err)
	}
	delete(members, "body")
	text, err := json.Marshal(members, json.Deterministic(true))
	return grant.Reply{JSON: text, Body: body}, err
}

// Used is to be told of each use when it is over.
func (s *Stand) Used(ctx context.Context, u *grant.Used) {
	s.mu.Lock()
	use := s.planned[u.Call]
	delete(s.planned, u.Call)
	s.mu.Unlock()
	if !s.Takes(&u.Caller) && use == nil {
		return
	}
	if use == nil { // refused before it was planned
		use = &Use{Function: string(u.Caller.Function), Grant: u.Caller.Grant, Op: u.Op, Answered: ByRefusal}
		use.Request = s.redacted(ctx, &u.Caller, grant.WithBody(u.Call.Request, u.Call.Body))
	}
	use.Kind = u.Kind
	if u.Err != nil {
		p := problem.From(u.Err)
		use.Code, use.Error, use.Policies = p.Code, p.Public, p.Policies
	}
	if s.cfg.Recorded != nil && use.Answered == ByDoor {
		s.cfg.Recorded(use.Function, s.recorded(ctx, use, u))
	}
	s.mu.Lock()
	if one := s.tests[eventOf(u.Call)]; one != nil {
		one.uses = append(one.uses, *use)
	}
	s.mu.Unlock()
	if s.cfg.Told != nil {
		s.cfg.Told(*use)
	}
}

// recorded makes a fixture of a use that was made.
func (s *Stand) recorded(ctx context.Context, use *Use, u *grant.Used) manifest.Double {
	d := manifest.Double{Grant: use.Grant, Op: use.Op, Request: use.Request}
	if u.Err != nil {
		p := problem.From(u.Err)
		d.Error = &manifest.DoubleError{Code: p.Code, Message: p.Public, Retry: retryable(p.Kind), RetryAfter: p.RetryAfter.Round(time.Second)}
		return d
	}
	answer := u.Reply.JSON
	switch u.Kind {
	case manifest.KindHTTP:
		answer = plainHeaders(answer)
	case manifest.KindSecret, manifest.KindIdentity:
		answer = nil // the value itself; the neutral answer says that it is none
	}
	if answer == nil {
		d.Answer = revealed(u.Kind)
		return d
	}
	d.Answer = s.redacted(ctx, &u.Caller, grant.WithBody(answer, u.Reply.Body))
	return d
}

// revealed is what stands in a recording for what must not be in one.
func revealed(kind string) jsontext.Value {
	if kind == manifest.KindIdentity {
		return jsontext.Value(`{"token":"[redacted]","expires":"2100-01-01T00:00:00Z"}`)
	}
	return jsontext.Value(`{"value":"[redacted]","version":1,"expires":"2100-01-01T00:00:00Z"}`)
}

// keptHeaders are the headers of an answer that are recorded: the rest changes from day to day.
var keptHeaders = []string{"content-type", "content-language", "etag", "last-modified", "link", "location", "retry-after"}

// plainHeaders makes the headers of an answer, which are a list of pairs, the object that a fixture has.
func plainHeaders(answer jsontext.Value) jsontext.Value {
	var got struct {
		Status  int         `json:"status"`
		Headers [][2]string `json:"headers"`
		URL     string      `json:"url"`
	}
	if json.Unmarshal(answer, &got) != nil {
		return answer
	}
	headers := map[string]string{}
	for _, h := range got.Headers {
		if slices.Contains(keptHeaders, h[0]) {
			headers[h[0]] = h[1]
		}
	}
	out, err := json.Marshal(struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
	}{got.Status, headers}, json.Deterministic(true))
	if err != nil {
		return answer
	}
	return out
}

func retryable(k problem.Kind) bool {
	return k == problem.Timeout || k == problem.Unavailable || k == problem.Exhausted || k == problem.Conflict
}

func (s *Stand) redacted(ctx context.Context, c *grant.Caller, text jsontext.Value) jsontext.Value {
	s.mu.Lock()
	redact := s.redact
	s.mu.Unlock()
	if redact == nil {
		return slices.Clone(text)
	}
	return redact(ctx, c.Namespace, c.Function, slices.Clone(text))
}

func place(d manifest.Double) string { return d.File + ":" + itoa(d.Line) }
