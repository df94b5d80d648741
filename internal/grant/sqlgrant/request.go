package sqlgrant

import (
	"errors"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// maxStatements bounds the statements of a transaction: they are sent in one go.
const maxStatements = 100

// statement is a named statement with its parameters, as JSON.
type statement struct {
	name   string
	query  manifest.SQLQuery
	params []jsontext.Value
}

// request is what a function sends.
type request struct {
	Query      string    `json:"query,omitzero"`
	Params     params    `json:"params,omitzero"`
	Statements []request `json:"statements,omitzero"`
}

// params are read without reflection: there are some in nearly every use.
type params []jsontext.Value

// UnmarshalJSONFrom reads parameters.
func (p *params) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch tok, err := dec.ReadToken(); {
	case err != nil:
		return err
	case tok.Kind() == jsontext.KindNull:
		return nil
	case tok.Kind() != jsontext.KindBeginArray:
		return errors.New("want a list")
	}
	for dec.PeekKind() != jsontext.KindEndArray {
		v, err := dec.ReadValue()
		if err != nil {
			return err
		}
		*p = append(*p, v.Clone())
	}
	_, err := dec.ReadToken()
	return err
}

// parse reads what a function asks for; single says that it asks for one statement, not for a transaction.
func parse(queries map[string]manifest.SQLQuery, call *grant.Call) (statements []statement, single bool, err error) {
	if call.Op != OpQuery && call.Op != OpTransaction {
		return nil, false, problem.New(problem.Invalid, "grant.sql_request", "an sql grant has no operation %q", clip(call.Op)).
			WithHint("call one of its statements, or transaction")
	}
	var r request
	if err := json.Unmarshal(call.Request, &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, false, problem.New(problem.Invalid, "grant.sql_request", "the request is not of the form {query, params} or {statements}").WithCause(err)
	}
	list := []request{r}
	if single = call.Op == OpQuery; !single {
		if list = r.Statements; len(list) == 0 || len(list) > maxStatements {
			return nil, false, problem.New(problem.Invalid, "grant.sql_request", "the transaction has %d statements, want 1 to %d", len(list), maxStatements)
		}
	}
	for _, one := range list {
		q, ok := queries[one.Query]
		if !ok {
			return nil, false, unknownQuery(one.Query, queries)
		}
		if len(one.Params) != q.Params {
			return nil, false, problem.New(problem.Invalid, "grant.sql_parameter", "statement %q has %d parameters, %d were given",
				one.Query, q.Params, len(one.Params))
		}
		statements = append(statements, statement{name: one.Query, query: q, params: one.Params})
	}
	return statements, single, nil
}

func unknownQuery(name string, queries map[string]manifest.SQLQuery) error {
	names := make([]string, 0, len(queries))
	for n := range queries {
		names = append(names, n)
	}
	slices.Sort(names)
	p := problem.New(problem.NotFound, "grant.sql_no_statement", "the grant has no statement %q", clip(name))
	if near := problem.Nearest(name, slices.Values(names)); near != "" {
		return p.WithHint("did you mean %q?", near)
	}
	return p.WithHint("it has %s; name others in the manifest, under queries", clip(strings.Join(names, ", ")))
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
