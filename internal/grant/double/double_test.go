package double_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"sallyport/internal/event"
	"sallyport/internal/grant"
	"sallyport/internal/grant/double"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want, got string
		exact           bool
		lines           []string
	}{
		{"a part", `{"a":1}`, `{"a":1.0,"b":2}`, false, nil},
		{"all", `{"a":1}`, `{"a":1,"b":2}`, true, []string{`/b: want nothing, got 2`}},
		{"missing", `{"a":{"b":1}}`, `{"a":{}}`, false, []string{`/a/b: want 1, got nothing`}},
		{"lists", `[1,2]`, `[1]`, false, []string{`/: want 2 items, got 1: [1]`}},
		{"in lists", `[{"a":1}]`, `[{"a":2,"b":3}]`, false, []string{`/0/a: want 1, got 2`}},
		{"kinds", `{"a":"1"}`, `{"a":1}`, false, []string{`/a: want "1", got 1`}},
		{"null", `{"a":null}`, `{"a":false}`, false, []string{`/a: want null, got false`}},
		{"escapes", `"\u0061"`, `"a"`, true, nil},
		{"large integers", `9007199254740993`, `9007199254740992`, false, []string{`/: want 9007199254740993, got 9007199254740992`}},
		{"nothing", `1`, ``, false, []string{`/: want 1, got nothing`}},
	} {
		if diff := cmp.Diff(tt.lines, double.Diff([]byte(tt.want), []byte(tt.got), tt.exact)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func FuzzDiff(f *testing.F) {
	f.Add(`{"a":[1,{"b":null}]}`, `{"a":[1,{"b":2}]}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		va, vb := []byte(a), []byte(b)
		if !isJSON(va) || !isJSON(vb) {
			return
		}
		if lines := double.Diff(va, va, true); len(lines) > 0 {
			t.Errorf("%s differs from itself: %q", a, lines)
		}
		if len(double.Diff(va, vb, true)) == 0 && len(double.Diff(vb, va, true)) > 0 {
			t.Errorf("%s is %s, and not the other way round", a, b)
		}
	})
}

// use makes a use of a grant, as grant.Set does.
func use(s *double.Stand, c *grant.Call, p grant.Planned) (reply grant.Reply, carryOut bool, err error) {
	reply, carryOut, err = s.Answer(context.Background(), c, p)
	s.Used(context.Background(), &grant.Used{Caller: c.Caller, Kind: manifest.KindHTTP, Op: c.Op, Call: c, Reply: reply, Err: err})
	return reply, carryOut, err
}

func call(name, op string) *grant.Call {
	return &grant.Call{Caller: grant.Caller{Namespace: "shop", Function: "confirm", Grant: name, Event: &event.Record{Event: event.Event{ID: "e-1"}}}, Op: op, Request: []byte(`{}`)}
}

func answers(grant, request, answer string, times int) manifest.Double {
	d := manifest.Double{File: "x.test.toml", Line: 3, Grant: grant, Answer: []byte(answer), Times: times}
	if request != "" {
		d.Request = []byte(request)
	}
	return d
}

// TestFixtures: what a test says answers first, as often as it says, in its order when that is wanted; then what holds for all; then what is neutral.
func TestFixtures(t *testing.T) {
	t.Parallel()
	neutral := &grant.Reply{JSON: []byte(`"neutral"`)}
	for _, tt := range []struct {
		name     string
		list     []manifest.Double
		inOrder  bool
		requests []string
		want     []string
		unused   int
	}{
		{"by request", []manifest.Double{answers("g", `{"id":1}`, `"one"`, 1), answers("g", `{"id":2}`, `"two"`, 1)}, false, []string{`{"id":2}`, `{"id":1}`}, []string{`"two"`, `"one"`}, 0},
		{"so often", []manifest.Double{answers("g", "", `"twice"`, 2)}, false, []string{`{}`, `{}`, `{}`}, []string{`"twice"`, `"twice"`, `"neutral"`}, 0},
		{"not so often", []manifest.Double{answers("g", "", `"twice"`, 2)}, false, []string{`{}`}, []string{`"twice"`}, 1},
		{"another grant", []manifest.Double{answers("h", "", `"h"`, 1)}, false, []string{`{}`}, []string{`"neutral"`}, 1},
		{"in order", []manifest.Double{answers("g", `{"id":1}`, `"one"`, 1), answers("g", `{"id":2}`, `"two"`, 1)}, true, []string{`{"id":2}`, `{"id":1}`}, []string{`"neutral"`, `"one"`}, 1},
		{"for all", []manifest.Double{answers("g", `{"id":1}`, `"one"`, 1)}, false, []string{`{"id":9}`, `{"id":9}`}, []string{`"shared"`, `"shared"`}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := double.New(double.Config{})
			s.Share("confirm", []manifest.Double{answers("g", `{"id":9}`, `"shared"`, 0)})
			s.Share("other", []manifest.Double{answers("g", "", `"of another function"`, 0)})
			s.Begin("e-1", tt.list, tt.inOrder)
			var got []string
			for _, r := range tt.requests {
				reply, carryOut, err := use(s, call("g", "fetch"), grant.Planned{Sent: []byte(r), Effect: true, Neutral: neutral})
				if err != nil || carryOut {
					t.Fatalf("Answer = %t, %v", carryOut, err)
				}
				got = append(got, string(reply.JSON))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			uses, unused := s.End("e-1")
			if len(uses) != len(tt.requests) || len(unused) != tt.unused {
				t.Errorf("End = %+v, %+v; want %d and %d", uses, unused, len(tt.requests), tt.unused)
			}
		})
	}
}

func TestNotAnswered(t *testing.T) {
	t.Parallel()
	s := double.New(double.Config{})
	s.Begin("e-1", []manifest.Double{{Grant: "down", Error: &manifest.DoubleError{Code: "fetch.timeout", Retry: true}, Times: 1}}, false)
	_, _, err := use(s, call("g", "fetch"), grant.Planned{Sent: []byte(`{}`), Effect: true})
	if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != "grant.not_answered" || !strings.Contains(p.Public, `grant = "g", op = "fetch"`) {
		t.Errorf("Answer = %v; want grant.not_answered with the fixture to write", err)
	}
	_, _, err = use(s, call("down", "fetch"), grant.Planned{Sent: []byte(`{}`), Effect: true})
	if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != "fetch.timeout" || p.Kind != problem.Unavailable {
		t.Errorf("Answer = %v; want fetch.timeout, to be tried again", err)
	}
	denied := call("g", "fetch")
	s.Used(t.Context(), &grant.Used{Caller: denied.Caller, Kind: manifest.KindHTTP, Op: "fetch", Call: denied, Err: problem.New(problem.Denied, "access.denied", "no").WithPolicies("shop/no-g")})
	uses, _ := s.End("e-1")
	if len(uses) != 3 || uses[0].Answered != double.ByNobody || uses[2].Answered != double.ByRefusal || !cmp.Equal(uses[2].Policies, []string{"shop/no-g"}) {
		t.Errorf("uses = %+v", uses)
	}
}

// TestCarryOut: with capture only what has no effect is carried out; what is recorded has no secret in it and answers the same use the next time.
func TestCarryOut(t *testing.T) {
	t.Parallel()
	capture := double.New(double.Config{Takes: func(name string) bool { return name == "g" }, CarryOut: func(_ string, effect bool) bool { return !effect }})
	if capture.Takes(&grant.Caller{Grant: "h"}) || !capture.Takes(&grant.Caller{Grant: "g"}) {
		t.Error("another grant than the chosen one is taken")
	}
	for _, effect := range []bool{true, false} {
		if _, carryOut, _ := use(capture, call("g", "x"), grant.Planned{Sent: []byte(`{}`), Effect: effect}); carryOut == effect {
			t.Errorf("a use with effect %t is carried out: %t", effect, carryOut)
		}
	}
	var kept []manifest.Double
	record := double.New(double.Config{CarryOut: func(string, bool) bool { return true }, Recorded: func(function string, d manifest.Double) {
		if function != "confirm" {
			t.Errorf("recorded for %s", function)
		}
		kept = append(kept, d)
	}})
	record.RedactBy(func(_ context.Context, _ ident.Namespace, _ ident.FunctionName, text []byte) []byte {
		return bytes.ReplaceAll(text, []byte("sk_live"), []byte("[redacted]"))
	})
	c := call("g", "fetch")
	sent := []byte(`{"method":"PUT","body":"sk_live"}`)
	if _, carryOut, err := record.Answer(t.Context(), c, grant.Planned{Sent: sent, Effect: true}); !carryOut || err != nil {
		t.Fatalf("Answer = %t, %v", carryOut, err)
	}
	record.Used(t.Context(), &grant.Used{
		Caller: c.Caller, Kind: manifest.KindHTTP, Op: "fetch", Call: c,
		Reply: grant.Reply{JSON: []byte(`{"status":200,"headers":[["content-type","application/json"],["date","today"]],"url":"https://x/"}`), Body: []byte(`{"r":"sk_live"}`)},
	})
	secret := call("key", "value")
	if _, _, err := record.Answer(t.Context(), secret, grant.Planned{Sent: []byte(`{"secret":"key"}`), Effect: true}); err != nil {
		t.Fatal(err)
	}
	record.Used(t.Context(), &grant.Used{Caller: secret.Caller, Kind: manifest.KindSecret, Op: "value", Call: secret, Reply: grant.Reply{JSON: []byte(`{"value":"hunter2"}`)}})
	want := []manifest.Double{
		{Grant: "g", Op: "fetch", Request: []byte(`{"method":"PUT","body":"[redacted]"}`), Answer: []byte(`{"status":200,"headers":{"content-type":"application/json"},"body":{"r":"[redacted]"}}`)},
		{Grant: "key", Op: "value", Request: []byte(`{"secret":"key"}`), Answer: []byte(`{"value":"[redacted]","version":1,"expires":"2100-01-01T00:00:00Z"}`)},
	}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Fatalf("recorded (-want +got):\n%s", diff)
	}
	again := double.New(double.Config{})
	again.Share("confirm", kept)
	reply, _, err := use(again, call("g", "fetch"), grant.Planned{Sent: want[0].Request, Effect: true})
	if err != nil || string(reply.Body) != `{"r":"[redacted]"}` || !strings.Contains(string(reply.JSON), `"status":200`) {
		t.Errorf("what was recorded answers %s %s, %v", reply.JSON, reply.Body, err)
	}
}

// TestManyUses: uses of many events at a time stay apart.
func TestManyUses(t *testing.T) {
	t.Parallel()
	s := double.New(double.Config{})
	var all sync.WaitGroup
	for i := range 20 {
		id := strings.Repeat("e", i+1)
		s.Begin(id, []manifest.Double{answers("g", "", `"`+id+`"`, 50)}, false)
		all.Go(func() {
			for range 50 {
				c := call("g", "fetch")
				c.Caller.Event = &event.Record{Event: event.Event{ID: id}}
				if reply, _, err := use(s, c, grant.Planned{Sent: []byte(`{}`)}); err != nil || string(reply.JSON) != `"`+id+`"` {
					t.Errorf("%s was answered %s, %v", id, reply.JSON, err)
				}
			}
			if uses, unused := s.End(id); len(uses) != 50 || len(unused) > 0 {
				t.Errorf("%s: %d uses, %d unused", id, len(uses), len(unused))
			}
		})
	}
	all.Wait()
}

func isJSON(b []byte) bool { return jsontext.Value(b).IsValid() }
