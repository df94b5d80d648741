package sqlgrant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// maxNames bounds the names of tables and columns that a misspelt one is compared with.
const maxNames = 2000

// Check implements grant.Checker: it has the database prepare each statement, and runs none. Nothing of a database of SQLite is
// touched: the statements are prepared by an empty copy of its tables, on which the set-up that it has not seen has run.
func (k *Kind) Check(ctx context.Context, o grant.Opening, others []manifest.Grant) grant.Checked {
	if o.Grant.SQL == nil {
		return grant.Checked{}
	}
	if o.Grant.SQL.SQLite != "" {
		faults, err := k.files.check(ctx, o, others)
		return checked(ctx, faults, err)
	}
	if o.Secrets == nil {
		return checked(ctx, nil, problem.New(problem.Unavailable, "grant.no_secrets", "grant %q needs a secret, and this server keeps none", o.Name))
	}
	s, err := newServer(o, k.dial)
	if err != nil {
		return checked(ctx, nil, err)
	}
	faults, err := s.check(withCaller(ctx, grant.Caller{Namespace: o.Namespace, Function: o.Function, Revision: o.Revision, Grant: o.Name}))
	for i := range faults {
		faults[i].Detail = s.hidden().Cut(faults[i].Detail)
	}
	return checked(ctx, faults, clean(s.hidden(), err))
}

// checked gives an error of a check the form that its reader may have.
func checked(ctx context.Context, faults []grant.CheckFault, err error) grant.Checked {
	if _, ok := errors.AsType[*problem.Error](err); err != nil && !ok {
		if err = timedOut(ctx, err); ctx.Err() == nil {
			err = problem.New(problem.Internal, "internal", "the database could not be asked").WithCause(err)
		}
	}
	return grant.Checked{Faults: faults, Unchecked: err}
}

// faultIn is a fault of a named statement at a byte of its text.
func faultIn(name, text string, offset int, format string, args ...any) grant.CheckFault {
	return grant.CheckFault{Key: []string{"queries", name}, Statement: text, Offset: offset, Detail: fmt.Sprintf("statement %q: ", name) + fmt.Sprintf(format, args...)}
}

// wrongParams is the fault of a statement of which the database sees other parameters than the manifest, nil when it does not.
func wrongParams(name string, q manifest.SQLQuery, seen int) []grant.CheckFault {
	if seen == q.Params {
		return nil
	}
	return []grant.CheckFault{faultIn(name, q.Text, 0, "the database sees %d parameters in it, the manifest has %d", seen, q.Params)}
}

// meant returns a suggestion for a name that the database does not know, empty when there is none.
func meant(name string, known []string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	if near := problem.Nearest(name, slices.Values(known)); near != "" && near != name {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// check has the server prepare the statements on a connection of its own.
func (s *server) check(ctx context.Context) ([]grant.CheckFault, error) {
	cfg, err := pgx.ParseConfig(standIn)
	if err != nil {
		return nil, err
	}
	if err := s.beforeConnect(ctx, cfg); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectProblem(ctx, s.ns.Name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it only prepared; pgx bounds the goodbye
	var faults []grant.CheckFault
	var tables []string
	queries := s.ns.Grant.SQL.Queries
	for _, name := range slices.Sorted(maps.Keys(queries)) {
		described, err := conn.Prepare(ctx, "q "+name, queries[name].Text)
		refusal, refused := errors.AsType[*pgconn.PgError](err)
		switch {
		case err == nil:
			faults = append(faults, wrongParams(name, queries[name], len(described.ParamOIDs))...)
			faults = append(faults, doubled(name, columnNames(described.Fields))...)
		case refused && aboutText(refusal.Code):
			if tables == nil && refusal.Code == undefinedTable {
				if tables, err = tableNames(ctx, conn); err != nil {
					return faults, queryProblem(ctx, name, false, err)
				}
			}
			faults = append(faults, refusedByServer(name, queries[name].Text, refusal, tables))
		default:
			return faults, queryProblem(ctx, name, false, err)
		}
	}
	return faults, nil
}

const undefinedTable = "42P01"

// aboutText reports whether an error of PostgreSQL is about the text of a statement and the tables that it names: class 42 (syntax, names,
// types, privileges), 22 (a constant that is none of its type) and 0A (what PostgreSQL does not have).
func aboutText(code string) bool {
	return strings.HasPrefix(code, "42") || strings.HasPrefix(code, "22") || strings.HasPrefix(code, "0A")
}

// quoted finds the first name that a message quotes.
var quoted = regexp.MustCompile(`"([^"]+)"`)

func refusedByServer(name, text string, pg *pgconn.PgError, tables []string) grant.CheckFault {
	// The position counts characters, from 1.
	offset := 0
	for i := int32(1); i < pg.Position && offset < len(text); i++ {
		_, size := utf8.DecodeRuneInString(text[offset:])
		offset += size
	}
	more := ""
	if m := quoted.FindStringSubmatch(pg.Message); m != nil && pg.Code == undefinedTable {
		more = meant(m[1], tables)
	} else if pg.Hint != "" {
		more = "; " + clip(pg.Hint)
	}
	return faultIn(name, text, offset, "%s [SQLSTATE %s]%s", clip(pg.Message), pg.Code, more)
}

// tableNames returns the tables that statements can name without their schema.
func tableNames(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `select c.relname::text from pg_catalog.pg_class c where c.relkind in ('r', 'v', 'm', 'p', 'f')
		and c.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) and pg_catalog.pg_table_is_visible(c.oid) limit `+strconv.Itoa(maxNames), pgx.QueryExecModeDescribeExec)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return append(names, ""), err // not nil: it is asked for once
}

func columnNames(fields []pgconn.FieldDescription) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return names
}

// doubled is the fault of two columns with one name.
func doubled(name string, columns []string) []grant.CheckFault {
	_, err := keys(name, columns)
	if err == nil {
		return nil
	}
	p := problem.From(err)
	return []grant.CheckFault{{Key: []string{"queries", name}, Detail: p.Public + "; " + p.Hint}}
}

// check prepares the statements of a grant on an empty copy of its database.
func (f *Files) check(ctx context.Context, o grant.Opening, others []manifest.Grant) ([]grant.CheckFault, error) {
	tables, err := f.tables(ctx, o.Namespace, string(o.Namespace)+"/"+o.Grant.SQL.SQLite)
	if err != nil {
		return nil, err
	}
	l, err := openLite("check", f.vfs, nil, f.cfg.Space)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.end() }() // it was in memory
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	defer l.give()
	faults, err := l.rebuild(tables, o.Grant.SQL, others)
	if err != nil || len(faults) > 0 {
		return faults, err
	}
	queries := o.Grant.SQL.Queries
	for _, name := range slices.Sorted(maps.Keys(queries)) {
		faults = append(faults, l.checkStatement(name, queries[name])...)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, timedOut(ctx, ctx.Err())
	}
	return faults, nil
}

// tables returns the statements that make the tables of a database as they are, and the digests of the set-up that it has seen. One that is not
// there is not made, and has none.
func (f *Files) tables(ctx context.Context, ns ident.Namespace, name string) (out schema, err error) {
	l, err := f.there(ctx, ns, name)
	if err != nil || l == nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.release(l)) }()
	if err := l.take(ctx); err != nil {
		return out, err
	}
	defer l.give()
	if out.made, err = l.texts("select sql from sqlite_schema where sql is not null and name <> '" + setupTable + "' and name not like 'sqlite\\_%' escape '\\' order by rowid"); err != nil {
		return out, err
	}
	out.seen, err = l.texts("select statement from " + setupTable)
	return out, err
}

// schema is what a database has.
type schema struct{ made, seen []string }

// texts runs a statement of our own, without asking authorize, and returns its first column.
func (l *lite) texts(text string) (out []string, err error) {
	if err := l.conn.SetAuthorizer(nil); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.conn.SetAuthorizer(l.authorize)) }()
	s, _, err := l.conn.Prepare(text)
	if err != nil {
		return nil, err
	}
	for s.Step() {
		out = append(out, s.ColumnText(0))
	}
	return out, errors.Join(s.Err(), s.Close())
}

// rebuild makes the tables of a database in an empty one: those that there are, and those of the set-up that it has not seen. The set-up of other
// grants may come before or after that of this one, as functions happen to be used, and counts as far as it runs.
func (l *lite) rebuild(tables schema, g *manifest.SQLGrant, others []manifest.Grant) ([]grant.CheckFault, error) {
	l.settling = true
	defer func() { l.settling = false }()
	for _, text := range tables.made {
		if err := l.conn.Exec(text); err != nil {
			return nil, fmt.Errorf("copy the tables: %w", err)
		}
	}
	for _, digest := range tables.seen {
		if err := l.conn.Exec(fmt.Sprintf("insert into %s values ('%s')", setupTable, strings.ReplaceAll(digest, "'", "''"))); err != nil {
			return nil, fmt.Errorf("copy the set-up: %w", err)
		}
	}
	l.setUpOthers(g, others)
	for i, text := range g.Setup {
		if err := l.setUpOnce(text); err != nil {
			at := grant.CheckFault{Key: []string{"setup", strconv.Itoa(i)}, Statement: text, Offset: offsetIn(text, err)}
			at.Detail = fmt.Sprintf("statement %d of the set-up of database %q: %s", i+1, g.SQLite, l.explain(err))
			if len(tables.seen) > 0 { // each of them was run once, as it was then
				at.Detail += "; add statements behind those that were run, and change none of them"
			}
			return []grant.CheckFault{at}, nil // what follows from it would be no fault of its own
		}
	}
	l.setUpOthers(g, others)
	return nil, nil
}

// setUpOthers runs the set-up of other grants of the same database, as far as it runs.
func (l *lite) setUpOthers(g *manifest.SQLGrant, others []manifest.Grant) {
	for _, o := range others {
		if o.SQL == nil || o.SQL.SQLite != g.SQLite {
			continue
		}
		for _, text := range o.SQL.Setup {
			if l.conn.Exec("savepoint one") != nil {
				return
			}
			if err := l.setUpOnce(text); err != nil {
				_ = l.conn.Exec("rollback to one") // it is reported with the grant that it is of
			}
			_ = l.conn.Exec("release one")
		}
	}
}

// checkStatement prepares a named statement.
func (l *lite) checkStatement(name string, q manifest.SQLQuery) []grant.CheckFault {
	s, tail, err := l.conn.Prepare(q.Text)
	if err != nil {
		return []grant.CheckFault{faultIn(name, q.Text, offsetIn(q.Text, err), "%s", l.explain(err))}
	}
	defer func() { _ = s.Close() }() // it has not run
	if strings.TrimSpace(tail) != "" {
		return []grant.CheckFault{faultIn(name, q.Text, len(q.Text)-len(tail), "it is more than one statement")}
	}
	if !s.ReadOnly() && !q.Write {
		return []grant.CheckFault{faultIn(name, q.Text, 0, `it would change something, and reads; write it as {statement = "…", mode = "write"}`)}
	}
	columns := make([]string, s.ColumnCount())
	for i := range columns {
		columns[i] = s.ColumnName(i)
	}
	return append(wrongParams(name, q, s.BindCount()), doubled(name, columns)...)
}

// offsetIn returns the byte of a statement that SQLite points at. It points at no table: the first word of that name is taken.
func offsetIn(text string, err error) int {
	if bad, ok := errors.AsType[*sqlite3.Error](err); ok && bad.SQL() != "" && strings.HasSuffix(text, bad.SQL()) {
		return len(text) - len(bad.SQL())
	}
	if m := unknownName.FindStringSubmatch(reason(err)); m != nil {
		if at := regexp.MustCompile(`(^|[^\w])` + regexp.QuoteMeta(m[2]+m[3]) + `($|[^\w])`).FindStringIndex(text); at != nil {
			return at[0] + strings.Index(text[at[0]:], m[2]+m[3])
		}
	}
	return 0
}

// unknownName finds the name that SQLite does not know.
var unknownName = regexp.MustCompile(`no such (table|column): (\S+)|has no column named (\S+)`)

// explain returns what SQLite says of a statement, with a name that may be meant.
func (l *lite) explain(err error) string {
	text := reason(err)
	if errors.Is(err, sqlite3.AUTH) {
		return "it reaches what no statement may: " + clip(text)
	}
	m := unknownName.FindStringSubmatch(text)
	if m == nil {
		return clip(text)
	}
	names := "select name from sqlite_schema where type in ('table', 'view') and name <> '" + setupTable + "' limit "
	if m[1] != "table" {
		names = "select distinct c.name from sqlite_schema t join pragma_table_info(t.name) c where t.name <> '" + setupTable + "' limit "
	}
	known, err := l.texts(names + strconv.Itoa(maxNames))
	if err != nil {
		return clip(text) // a suggestion is a courtesy
	}
	return clip(text) + meant(m[2]+m[3], known)
}

var _ grant.Checker = (*Kind)(nil)
