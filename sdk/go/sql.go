package guest

import (
	"encoding/base64"
	"encoding/json"
)

// SQL is a grant of kind sql: its statements are in the manifest, and the function gives their parameters.
type SQL struct {
	c     *Context
	grant string
}

// SQL returns a grant of kind sql by its name.
func (c *Context) SQL(grant string) SQL { return SQL{c, grant} }

// SQLResult is what a statement gives.
type SQLResult struct {
	// Rows is a JSON list of objects, which Decode decodes. bigint and numeric columns of PostgreSQL are texts, and bytes are texts in base64.
	Rows json.RawMessage `json:"rows"`
	// Changed is how many rows the statement changed.
	Changed int64 `json:"changed"`
}

// Decode decodes the rows into a pointer to a slice, of structs or of maps. A []byte field takes a column of bytes.
func (r *SQLResult) Decode(to any) error { return json.Unmarshal(r.Rows, to) }

// Statement is a statement of the grant, by its name in the manifest, with its parameters.
type Statement struct {
	Query  string
	Params []any
}

// Query runs a statement. A parameter is whatever encodes to the JSON that its type takes; a []byte is bytes, nil null.
func (s SQL) Query(statement string, params ...any) (*SQLResult, error) {
	a, err := s.c.Call(s.grant, "query", wireStatement(Statement{statement, params}), nil)
	if err != nil {
		return nil, err
	}
	r := &SQLResult{}
	return r, a.Decode(r)
}

// Transaction runs statements in their order, all of them or none, and returns what each gives.
func (s SQL) Transaction(statements ...Statement) ([]SQLResult, error) {
	wire := struct {
		Statements []statementWire `json:"statements"`
	}{make([]statementWire, len(statements))}
	for i, one := range statements {
		wire.Statements[i] = wireStatement(one)
	}
	a, err := s.c.Call(s.grant, "transaction", wire, nil)
	if err != nil {
		return nil, err
	}
	var r []SQLResult
	return r, a.Decode(&r)
}

// statementWire is a statement as the host reads it.
type statementWire struct {
	Query  string `json:"query"`
	Params []any  `json:"params"`
}

func wireStatement(s Statement) statementWire {
	w := statementWire{s.Query, make([]any, len(s.Params))}
	for i, p := range s.Params {
		if b, ok := p.([]byte); ok && b != nil {
			p = map[string]string{"$bytes": base64.StdEncoding.EncodeToString(b)}
		}
		w.Params[i] = p
	}
	return w
}
