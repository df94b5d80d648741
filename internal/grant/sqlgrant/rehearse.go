package sqlgrant

import (
	"context"
	"regexp"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/grant"
)

// returning finds statements that change something and give rows: what those would be, nobody can know. A false find costs a fixture.
var returning = regexp.MustCompile(`(?i)\breturning\b`)

// sentStatement is a statement as tests and fixtures have it.
type sentStatement struct {
	Query     string           `json:"query"`
	Params    []jsontext.Value `json:"params"`
	Statement string           `json:"statement"`
}

// result is what a statement gives.
type result struct {
	Rows    []map[string]jsontext.Value `json:"rows"`
	Changed int64                       `json:"changed"`
}

// Rehearse implements grant.Rehearser: statements and parameters are checked, by the database itself when it is SQLite. A
// PostgreSQL server is not connected to, so the types of parameters, which only it knows, are not checked. A statement that only
// writes is answered as if it had changed one row.
func (d *door) Rehearse(ctx context.Context, call *grant.Call, s grant.Stand) (grant.Reply, bool, error) {
	statements, single, err := parse(d.queries, call)
	if err != nil {
		return grant.Reply{}, false, err
	}
	db, err := d.opened(ctx)
	if err != nil {
		return grant.Reply{}, false, err
	}
	if err := db.rehearse(ctx, statements, call.Caller); err != nil {
		return grant.Reply{}, false, err
	}
	planned, err := plan(statements, single)
	if err != nil {
		return grant.Reply{}, false, err
	}
	reply, carryOut, err := s.Answer(ctx, call, planned)
	if carryOut {
		return grant.Reply{}, true, nil
	}
	const want = "{rows = [{column = value}], changed = 0}"
	if single {
		reply, err = grant.Typed[result](call, reply, err, want)
	} else {
		reply, err = grant.Typed[[]result](call, reply, err, "a list of "+want)
	}
	return reply, false, err
}

// plan describes statements that are not run.
func plan(statements []statement, single bool) (grant.Planned, error) {
	p := grant.Planned{}
	known := true
	list, results := make([]sentStatement, len(statements)), make([]result, len(statements))
	for i, st := range statements {
		params := st.params
		if params == nil {
			params = []jsontext.Value{}
		}
		list[i] = sentStatement{st.name, params, st.query.Text}
		results[i] = result{Rows: []map[string]jsontext.Value{}, Changed: 1}
		p.Effect = p.Effect || st.query.Write
		known = known && st.query.Write && !returning.MatchString(st.query.Text)
	}
	var err error
	var neutral []byte
	if single {
		p.Sent, err = json.Marshal(&list[0])
		neutral, _ = json.Marshal(&results[0]) // no value of a caller's is in it
	} else {
		p.Sent, err = json.Marshal(map[string][]sentStatement{"statements": list})
		neutral, _ = json.Marshal(results)
	}
	if known {
		p.Neutral = &grant.Reply{JSON: neutral}
	}
	return p, err
}

// rehearse looks the secrets up, which may be refused, and drops them.
func (s *server) rehearse(ctx context.Context, _ []statement, caller grant.Caller) error {
	for _, ref := range []string{s.ns.Grant.SQL.Secret, s.ns.Grant.SQL.CA} {
		if ref == "" {
			continue
		}
		value, err := s.ns.Secrets.Value(ctx, s.ns.Namespace, ref, grant.Use{Caller: caller})
		if err != nil {
			return err
		}
		clear(value)
	}
	return nil
}
