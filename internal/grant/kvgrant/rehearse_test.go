package kvgrant_test

import (
	"context"
	"errors"
	"testing"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// stand gives the neutral answer, or another.
type stand struct {
	answer string
	asked  int
}

func (s *stand) Takes(*grant.Caller) bool { return true }

func (s *stand) Answer(_ context.Context, _ *grant.Call, p grant.Planned) (grant.Reply, bool, error) {
	s.asked++
	if s.answer != "" {
		return grant.Reply{JSON: []byte(s.answer)}, false, nil
	}
	return *p.Neutral, false, nil
}

func rehearse(t testing.TB, door grant.Door, op, request string, s *stand) (string, error) {
	t.Helper()
	reply, _, err := door.(grant.Rehearser).Rehearse(t.Context(), &grant.Call{Op: op, Request: []byte(request)}, s)
	return string(reply.JSON), err
}

// refusedInRehearsal wants the refusal that there is in truth, before the stand-in is asked.
func refusedInRehearsal(t testing.TB, door grant.Door, op, request, code string) {
	t.Helper()
	s := &stand{}
	_, err := rehearse(t, door, op, request, s)
	if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != code || s.asked > 0 {
		t.Errorf("rehearsed, %s %.80s = %v; want %s, and nobody asked", op, request, err, code)
	}
}

// TestRehearse: a bucket is empty and takes everything, and stays as it is.
func TestRehearse(t *testing.T) {
	t.Parallel()
	door := newWorld(t).door(t, "shop", manifest.KVGrant{Bucket: "b", ValueSize: 100, Quota: 10_000})
	do(t, door, "set", `{"key":"a","value":1}`)
	for _, tt := range []struct{ op, request, answer, want string }{
		{"get", `{"key":"a"}`, "", `null`},
		{"list", `{}`, "", `{"keys":[]}`},
		{"set", `{"key":"a","value":2}`, "", `{"set":true,"version":1}`},
		{"compareAndSet", `{"key":"a","value":2,"version":7}`, "", `{"set":true,"version":1}`},
		{"delete", `{"key":"a"}`, "", `{"deleted":true}`},
		{"increment", `{"key":"a","by":5}`, "", `{"value":5,"version":1}`},
		{"get", `{"key":"a"}`, `{"value":{"x":1},"version":3}`, `{"value":{"x":1},"version":3}`},
		{"set", `{"key":"a","value":2}`, `{"set":false,"version":4}`, `{"set":false,"version":4}`},
	} {
		if got, err := rehearse(t, door, tt.op, tt.request, &stand{answer: tt.answer}); err != nil || got != tt.want {
			t.Errorf("%s %s = %s, %v; want %s", tt.op, tt.request, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ op, answer string }{{"get", `17`}, {"get", `{"vlaue":1}`}, {"set", `{"set":"yes"}`}, {"list", `[]`}, {"increment", `{"value":1.5}`}} {
		_, err := rehearse(t, door, tt.op, `{"key":"a","value":1}`, &stand{answer: tt.answer})
		if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != "grant.stand_in_invalid" {
			t.Errorf("%s answered %s = %v; want grant.stand_in_invalid", tt.op, tt.answer, err)
		}
	}
	if v := decode(t, do(t, door, "get", `{"key":"a"}`)); v.Value != 1.0 {
		t.Errorf("after rehearsals the value is %v", v.Value)
	}
}
