package manifest

import (
	"errors"
	"fmt"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/manifest/sqltext"
)

// SQLGrant runs named statements on a database: a PostgreSQL server whose address is a secret, or an SQLite database of the
// namespace that Sallyport keeps itself.
type SQLGrant struct {
	// Secret refers to the address of a PostgreSQL server, as "name" or "name@version"; it is empty for SQLite.
	Secret string
	// SQLite names a database of the namespace; it is empty for PostgreSQL.
	SQLite string
	// CA refers to the certificates of the CAs that PostgreSQL's certificate must come from; empty are the system's.
	CA string
	// Private allows a PostgreSQL server at a loopback or private address.
	Private bool
	// Setup are statements that make the tables of an SQLite database, each of which runs once.
	Setup []string
	// Size bounds an SQLite database, in bytes.
	Size int64
	// Connections bounds the connections to PostgreSQL.
	Connections int
	// MaxRows bounds the rows of an answer.
	MaxRows int
	Queries map[string]SQLQuery
}

// SQLQuery is a named statement.
type SQLQuery struct {
	// Text is one statement, with parameters $1 to $Params.
	Text   string
	Params int
	// Write says that it runs in a transaction that may change something.
	Write bool
}

// Limits of what an sql grant may ask for, and what it gets when it does not ask.
const (
	MinSQLSize, MaxSQLSize, DefaultSQLSize = 64 << 10, 16 << 30, 256 << 20 // bytes
	MaxSQLConnections                      = 64
	DefaultSQLConnections                  = 8
	MaxSQLRows, DefaultSQLRows             = 100_000, 1000
	maxSQLQueries                          = 200 // of one grant
	maxSQLSetup                            = 200 // statements of one grant
)

// SQLTransaction is what functions call to run several named statements as one; no statement is called so.
const SQLTransaction = "transaction"

// sqlGrant reads a grant of kind sql.
func (t *table) sqlGrant(g *Grant) {
	s := &SQLGrant{
		Size: DefaultSQLSize, Connections: DefaultSQLConnections, MaxRows: DefaultSQLRows, Queries: map[string]SQLQuery{},
	}
	dialect := t.database(s)
	if dialect == sqltext.SQLite {
		s.Setup = t.setup()
		t.size("size", &s.Size, MinSQLSize, MaxSQLSize)
	} else {
		s.CA = t.secretRef("ca")
		t.truth("private", &s.Private)
		t.integer("connections", &s.Connections, 1, MaxSQLConnections)
	}
	t.integer("max_rows", &s.MaxRows, 1, MaxSQLRows)
	t.need("queries", `the grant has no statements; add one, such as queries.find = "select * from orders where id = $1"`)
	t.queries(dialect, s)
	g.SQL = s
}

// database reads which database a grant is for.
func (t *table) database(s *SQLGrant) sqltext.Dialect {
	text := t.text("sql")
	switch scheme, name, _ := strings.Cut(text, ":"); {
	case scheme == "secret":
		s.Secret = t.refOf("sql", text)
	case scheme == "sqlite":
		if _, err := ident.ParseGrantName(name); err != nil {
			t.fault("sql", "the database's %s", strings.TrimPrefix(words(err), "grant "))
		}
		s.SQLite = name
		return sqltext.SQLite
	case text == "":
	case strings.Contains(text, "://"):
		t.fault("sql", `an address with a password does not belong here; keep it as a secret and write "secret:NAME"`)
	default:
		t.fault("sql", `want "sqlite:NAME", or "secret:NAME" for a PostgreSQL server`)
	}
	return sqltext.PostgreSQL
}

// secretRef reads a reference to a secret, "secret:NAME" or "secret:NAME@VERSION", and returns what follows the colon.
func (t *table) secretRef(key string) string {
	if text := t.text(key); text != "" {
		return t.refOf(key, text)
	}
	return ""
}

func (t *table) refOf(key, text string) string {
	ref, ok := strings.CutPrefix(text, "secret:")
	if _, err := ident.ParseSecretRef(text); !ok || err != nil {
		t.fault(key, `want "secret:NAME" or "secret:NAME@VERSION"`)
		return ""
	}
	return ref
}

func (t *table) setup() []string {
	var texts []string
	for _, n := range t.texts("setup", maxSQLSetup) {
		text, err := sqltext.ParseSetup(n.text)
		t.d.sqlFault(n, err)
		texts = append(texts, text)
	}
	return texts
}

// queries reads the named statements, each a text or a table with more about it.
func (t *table) queries(dialect sqltext.Dialect, s *SQLGrant) {
	all := t.lookUp("queries", kindTable, "a table of statements")
	if all == nil {
		return
	}
	if n := len(all.order); n == 0 || n > maxSQLQueries {
		t.d.fault(all.key, "%d statements, want 1 to %d", n, maxSQLQueries)
		return
	}
	for _, name := range all.order {
		n := all.members[name]
		if err := checkQueryName(name); err != nil {
			t.d.fault(n.key, "%v", err)
		}
		switch n.kind {
		case kindText:
			s.Queries[name] = t.d.statement(dialect, n, "")
		case kindTable:
			sub := t.d.table(n)
			sub.need("statement", `the statement is missing; add statement = "select …"`)
			text, mode := sub.lookUp("statement", kindText, "a text in quotes"), ""
			sub.oneOf("mode", &mode, "read", "write")
			sub.done()
			if text != nil {
				s.Queries[name] = t.d.statement(dialect, text, mode)
			}
		default:
			t.d.fault(n.value, "want a statement in quotes or a table, not %s", n.kind)
		}
	}
}

// statement looks at a statement; mode says how it runs when that is not to be seen from it.
func (d *document) statement(dialect sqltext.Dialect, n *node, mode string) SQLQuery {
	st, err := sqltext.Parse(dialect, n.text)
	d.sqlFault(n, err)
	if mode == "read" && st.Write {
		d.fault(n.value, `the statement changes or locks rows, so its mode is not "read"`)
	}
	return SQLQuery{Text: st.Text, Params: st.Params, Write: st.Write || mode == "write"}
}

// sqlFault notes what is wrong with a statement, where it is when the text stands in the file as it is read.
func (d *document) sqlFault(n *node, err error) {
	bad, ok := errors.AsType[*sqltext.Error](err)
	if !ok {
		return
	}
	raw := string(d.text[n.value.offset : n.value.offset+n.value.length])
	at := n.value
	if from := strings.Index(raw, n.text); from >= 0 && n.text != "" {
		at = place{offset: n.value.offset + from + bad.Offset, length: max(bad.Length, 1)}
	}
	d.fault(at, "%s", bad.Detail)
}

// maxQueryName bounds the name of a statement, in bytes.
const maxQueryName = 63

// checkQueryName allows what can be called from every language: letters, digits and _, beginning with a letter.
func checkQueryName(name string) error {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', i > 0 && ('0' <= c && c <= '9' || c == '_'):
		default:
			return errors.New("the name of a statement consists of letters, digits and _, and begins with a letter")
		}
	}
	switch {
	case name == "" || len(name) > maxQueryName:
		return fmt.Errorf("the name of a statement has 1 to %d characters", maxQueryName)
	case name == SQLTransaction || name == "then" || name == "kind" || name == "call":
		return fmt.Errorf("no statement can be called %q: it means something else to functions", name)
	}
	return nil
}
