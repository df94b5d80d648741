package sqlgrant_test

import (
	"context"
	"testing"

	"sallyport/internal/grant"
	"sallyport/internal/problem"
)

// stand gives the neutral answer, or another, or says that there is none.
type stand struct {
	answer string
	sent   []string
	effect bool
}

func (s *stand) Takes(*grant.Caller) bool { return true }

func (s *stand) Answer(_ context.Context, _ *grant.Call, p grant.Planned) (grant.Reply, bool, error) {
	s.sent, s.effect = append(s.sent, string(p.Sent)), p.Effect
	switch {
	case s.answer != "":
		return grant.Reply{JSON: []byte(s.answer)}, false, nil
	case p.Neutral == nil:
		return grant.Reply{}, false, problem.New(problem.Unprocessable, "grant.not_answered", "nobody knows")
	}
	return *p.Neutral, false, nil
}

func rehearse(t *testing.T, door grant.Door, op, request string, s *stand) (string, error) {
	t.Helper()
	reply, _, err := door.(grant.Rehearser).Rehearse(t.Context(), &grant.Call{Op: op, Request: []byte(request)}, s)
	return string(reply.JSON), err
}

const rehearsed = `
setup = ["create table t (id integer primary key, name text) strict"]
queries.add    = "insert into t (id, name) values ($1, $2)"
queries.give   = "insert into t (name) values ($1) returning id"
queries.all    = "select id, name from t order by id"
queries.broken = "select nothing from t"
`

// TestRehearse: statements are checked by the database, and not run.
func TestRehearse(t *testing.T) {
	t.Parallel()
	door := sqliteDoor(t, rehearsed)
	for _, tt := range []struct{ op, request, answer, want string }{
		{"query", `{"query":"add","params":[1,"a"]}`, "", `{"rows":[],"changed":1}`},
		{"query", `{"query":"add","params":[1,"a"]}`, `{"changed":0}`, `{"rows":[],"changed":0}`},
		{"query", `{"query":"all"}`, `{"rows":[{"id":1,"name":"a"}]}`, `{"rows":[{"id":1,"name":"a"}],"changed":0}`},
		{"transaction", `{"statements":[{"query":"add","params":[1,"a"]},{"query":"add","params":[2,"b"]}]}`, "", `[{"rows":[],"changed":1},{"rows":[],"changed":1}]`},
	} {
		if got, err := rehearse(t, door, tt.op, tt.request, &stand{answer: tt.answer}); err != nil || got != tt.want {
			t.Errorf("%s %s = %s, %v; want %s", tt.op, tt.request, got, err, tt.want)
		}
	}
	// What is refused in truth is refused alike, and nobody is asked.
	for _, tt := range []struct{ op, request, code string }{
		{"query", `{"query":"nothere"}`, "grant.sql_no_statement"},
		{"query", `{"query":"add","params":[1]}`, "grant.sql_parameter"},
		{"query", `{"query":"add","params":[123456789012345678901234567890,"a"]}`, "grant.sql_parameter"},
		{"query", `{"query":"broken"}`, "grant.sql_statement"},
		{"drop", `{}`, "grant.sql_request"},
		{"transaction", `{"statements":[]}`, "grant.sql_request"},
	} {
		s := &stand{}
		_, err := rehearse(t, door, tt.op, tt.request, s)
		_, truth := call(t, door, tt.op, tt.request)
		if err == nil || truth == nil || problem.From(err).Code != tt.code || problem.From(truth).Code != tt.code || len(s.sent) > 0 {
			t.Errorf("%s %s: rehearsed %v, in truth %v; want %s, and nobody asked", tt.op, tt.request, err, truth, tt.code)
		}
	}
	for _, request := range []string{`{"query":"all"}`, `{"query":"give","params":["a"]}`} {
		if _, err := rehearse(t, door, "query", request, &stand{}); err == nil || problem.From(err).Code != "grant.not_answered" {
			t.Errorf("%s = %v; want grant.not_answered: nobody knows the rows", request, err)
		}
	}
	for _, answer := range []string{`{"rows":[1]}`, `{"row":[]}`, `[]`, `{"changed":"1"}`} {
		if _, err := rehearse(t, door, "query", `{"query":"all"}`, &stand{answer: answer}); err == nil || problem.From(err).Code != "grant.stand_in_invalid" {
			t.Errorf("the answer %s = %v", answer, err)
		}
	}
	got, err := query(t, door, "all", "")
	wantReply(t, got, err, `{"rows":[],"changed":0}`)
}

// TestRehearsePostgres: a server is not connected to; its secret is looked up as ever.
func TestRehearsePostgres(t *testing.T) {
	t.Parallel()
	const text = `
sql = "secret:db"
queries.add = "insert into t (id) values ($1)"
`
	door, err := openWith(t, secrets{"db": "stand-in-for-db"}, text)
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{}
	got, err := rehearse(t, door, "query", `{"query":"add","params":[1]}`, s)
	wantReply(t, got, err, `{"rows":[],"changed":1}`)
	if want := `{"query":"add","params":[1],"statement":"insert into t (id) values ($1)"}`; len(s.sent) != 1 || s.sent[0] != want || !s.effect {
		t.Errorf("sent %q, effect %t; want %s", s.sent, s.effect, want)
	}
	if door, err = openWith(t, secrets{}, text); err != nil {
		t.Fatal(err)
	}
	if _, err := rehearse(t, door, "query", `{"query":"add","params":[1]}`, &stand{}); err == nil {
		t.Error("without its secret, the use was answered")
	}
}
