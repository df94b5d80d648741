package grant_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// stand is a Stand that answers everything with a text.
type stand struct{ asked []string }

func (s *stand) Takes(c *grant.Caller) bool { return c.Grant != "real" }

func (s *stand) Answer(_ context.Context, call *grant.Call, p grant.Planned) (grant.Reply, bool, error) {
	s.asked = append(s.asked, call.Op+" "+string(p.Sent))
	return grant.Reply{JSON: []byte(`"stand-in"`)}, false, nil
}

// TestRehearsedUseIsDecidedAlike: with a Stand behind the doors, what refuses a use refuses it; what would go through does not. The
// doors of this test know nothing of rehearsals, like those of a kind that is new.
func TestRehearsedUseIsDecidedAlike(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		grant, op, body string
		change          func(*grant.Config, *manifest.GrantLimits)
		want            string
	}{
		"answered":               {grant: "web", op: "get", want: `"stand-in"`},
		"would panic":            {grant: "web", op: "panic", want: `"stand-in"`},
		"would fail":             {grant: "web", op: "fail", want: `"stand-in"`},
		"no such grant":          {grant: "vault", op: "get", want: "grant.not_granted"},
		"a publish grant":        {grant: "out", op: "get", want: "grant.not_granted"},
		"denied":                 {grant: "web", op: "denied", want: "access.denied"},
		"a kind that is missing": {grant: "other", op: "get", want: "grant.kind_missing"},
		"a large request":        {grant: "web", op: "get", body: strings.Repeat("x", 1001), want: "grant.request_too_large"},
		"a large reply":          {grant: "web", op: "get", change: func(_ *grant.Config, l *manifest.GrantLimits) { l.Reply = 5 }, want: "grant.reply_too_large"},
		"no gate":                {grant: "web", op: "get", change: func(c *grant.Config, _ *manifest.GrantLimits) { c.Gate = nil }, want: "grant.no_gate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := &stand{}
			s, _, used := newSet(t, func(c *grant.Config, l *manifest.GrantLimits) {
				c.Stand = in
				if tc.change != nil {
					tc.change(c, l)
				}
			})
			reply, err := s.Use(t.Context(), grant.Call{Op: tc.op, Request: []byte(`{}`), Body: []byte(tc.body)}, tc.grant)
			got := string(reply.JSON)
			if err != nil {
				got = problem.From(err).Code
			}
			if got != tc.want {
				t.Errorf("Use(%s, %s) = %s, %v; want %s", tc.grant, tc.op, reply.JSON, err, tc.want)
			}
			if asked := len(in.asked) == 1; asked != (err == nil || tc.want == "grant.reply_too_large") {
				t.Errorf("the stand-in was asked %v", in.asked)
			}
			if list := used(); tc.want != "grant.not_granted" && len(list) != 1 {
				t.Errorf("it was told %+v", list)
			}
		})
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ object, body, want string }{
		{`{}`, "", `{}`},
		{`{}`, `{"a": 1}`, `{"body":{"a": 1}}`},
		{`{"x":1}`, ` [1] `, `{"x":1,"body":[1]}`},
		{`{"x":1}`, "a text", `{"x":1,"body":"a text"}`},
		{`{"x":1}`, "17", `{"x":1,"body":"17"}`},
		{`{"x":1}`, "\xff", `{"x":1,"body":{"base64":"/w=="}}`},
	} {
		got := grant.WithBody([]byte(tt.object), []byte(tt.body))
		if string(got) != tt.want || !got.IsValid() {
			t.Errorf("WithBody(%s, %q) = %s; want %s", tt.object, tt.body, got, tt.want)
		}
	}
	for _, tt := range []struct{ value, want string }{{`"a text"`, "a text"}, {`{"base64":"/w=="}`, "\xff"}, {`{"a":1}`, `{"a":1}`}, {`[1]`, `[1]`}} {
		if got, err := grant.BodyOf([]byte(tt.value)); err != nil || string(got) != tt.want {
			t.Errorf("BodyOf(%s) = %q, %v; want %q", tt.value, got, err, tt.want)
		}
	}
	if diff := cmp.Diff([]byte(nil), must(grant.BodyOf([]byte(`{"base64":"!"}`)))); diff != "" {
		t.Error(diff)
	}
}

// must returns nil for what failed.
func must(b []byte, err error) []byte {
	if err != nil {
		return nil
	}
	return b
}
