package sqlgrant

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/ncruces/go-sqlite3"

	"sallyport/internal/grant"
	"sallyport/internal/grant/sqlgrant/sealedfile"
	"sallyport/internal/grant/sqlgrant/sqlvalue"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

const (
	// maxHeap bounds the memory of a database's connection, in bytes: its cache, sorts, and the journal of a transaction.
	maxHeap = 64 << 20
	// cacheKiB is how much of a database is kept in memory, in KiB.
	cacheKiB = 8 << 10
	// maxPrepared bounds the statements that a connection keeps prepared.
	maxPrepared = 256
	// setupTable remembers which statements made the tables. Functions reach it as little as the tables of SQLite itself.
	setupTable = "sallyport_setup"
)

// lite is an open SQLite database: one connection, which its users take turns with.
type lite struct {
	name   string
	db     *sealedDB // nil when it is in memory
	space  func() error
	anchor *anchor // of the file, nil when nothing is kept
	// doors counts those that have it, and removed says that its file goes. Files.mu guards both.
	doors   int
	removed bool

	turn     chan struct{} // holds one token; who has it may use what follows
	conn     *sqlite3.Conn
	prepared map[string]preparedStmt
	settling bool // tables may be made and changed
	tending  bool // free pages may be cut off
	grows    bool // the statement that is being prepared does more than read and delete
	pages    int64
}

// preparedStmt is a statement that is ready to run.
type preparedStmt struct {
	*sqlite3.Stmt
	grows bool
}

// openLite opens the database in a file; without a file it is in memory, empty.
func openLite(name, vfsName string, db *sealedDB, space func() error) (*lite, error) {
	address, vacuum := "file:"+name+"?vfs="+vfsName, ""
	switch {
	case db == nil:
		address += "&mode=memory"
	case db.file.Pages() == 0:
		// So that pages without use can be cut off. A database keeps what it was made with.
		vacuum = "pragma auto_vacuum = incremental;"
	}
	conn, err := sqlite3.OpenFlags(address, sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	l := &lite{name: name, db: db, space: space, turn: make(chan struct{}, 1), conn: conn, prepared: map[string]preparedStmt{}}
	l.turn <- struct{}{}
	conn.HardHeapLimit(maxHeap)
	_, err = conn.Config(sqlite3.DBCONFIG_DEFENSIVE, true)
	if err == nil {
		err = conn.Exec(fmt.Sprintf(`pragma page_size = %d; pragma journal_mode = memory; pragma synchronous = full; pragma locking_mode = exclusive;
			pragma temp_store = memory; pragma cache_size = -%d; pragma foreign_keys = on; pragma trusted_schema = off; %s
			create table if not exists %s (statement text primary key) without rowid`, sealedfile.PageSize, cacheKiB, vacuum, setupTable))
	}
	if err == nil {
		err = conn.SetAuthorizer(l.authorize)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

// end closes the connection and the file.
func (l *lite) end() error {
	<-l.turn
	l.forget()
	err := l.conn.Close()
	if l.db != nil {
		err = errors.Join(err, l.db.file.Close())
		last := l.db.file.Root()
		if l.removed {
			last = sealedfile.Root{}
		}
		err = errors.Join(err, l.anchor.end(last))
	}
	return err
}

func (l *lite) forget() {
	for text, s := range l.prepared {
		_ = s.Close() // its error is that of the last run
		delete(l.prepared, text)
	}
}

// take waits for the connection until ctx is done; give gives it back.
func (l *lite) take(ctx context.Context) error {
	select {
	case <-l.turn:
		l.conn.SetInterrupt(ctx)
		l.only(false)
		if l.db != nil {
			l.db.refused = nil
		}
		return nil
	case <-ctx.Done():
		return timedOut(ctx, ctx.Err())
	}
}

func (l *lite) give() {
	l.conn.SetInterrupt(context.Background())
	if !l.conn.GetAutocommit() {
		// Whatever ended the transaction, the next one begins anew.
		if err := l.conn.Exec("rollback"); err != nil {
			l.forget()
		}
	}
	l.turn <- struct{}{}
}

// only says whether what runs until the turn ends, or this is said again, only reads and deletes.
func (l *lite) only(deletes bool) {
	if l.db != nil {
		l.db.frees = deletes
	}
}

// authorize is asked for everything that a statement does when it is prepared. What is not named here is refused: other databases,
// settings, virtual tables, and the tables of SQLite and Sallyport.
func (l *lite) authorize(action sqlite3.AuthorizerActionCode, third, _, schema, _ string) sqlite3.AuthorizerReturnCode {
	const ok, deny = sqlite3.AUTH_OK, sqlite3.AUTH_DENY
	if l.tending && action == sqlite3.AUTH_PRAGMA && third == "incremental_vacuum" {
		return ok
	}
	if l.settling {
		switch action {
		case sqlite3.AUTH_ATTACH, sqlite3.AUTH_DETACH, sqlite3.AUTH_PRAGMA, sqlite3.AUTH_CREATE_VTABLE, sqlite3.AUTH_DROP_VTABLE:
			return deny
		}
		return ok
	}
	switch action {
	case sqlite3.AUTH_SELECT, sqlite3.AUTH_FUNCTION, sqlite3.AUTH_RECURSIVE, sqlite3.AUTH_TRANSACTION:
		return ok
	case sqlite3.AUTH_READ, sqlite3.AUTH_INSERT, sqlite3.AUTH_UPDATE, sqlite3.AUTH_DELETE:
		table := strings.ToLower(third)
		if strings.HasPrefix(table, "sqlite_") || table == setupTable || schema == "temp" {
			return deny
		}
		l.grows = l.grows || action == sqlite3.AUTH_INSERT || action == sqlite3.AUTH_UPDATE
		return ok
	}
	return deny
}

// setUp runs the statements that make the tables, those that this database has not seen, all or none, and gives it its size.
func (l *lite) setUp(ctx context.Context, g *manifest.SQLGrant) error {
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.give()
	l.settling = true
	defer func() { l.settling = false }()
	if pages := g.Size / sealedfile.PageSize; pages > l.pages {
		l.pages = pages
		if err := l.exec(fmt.Sprintf("pragma max_page_count = %d", pages)); err != nil {
			return l.failed(ctx, "", err)
		}
	}
	if len(g.Setup) == 0 {
		return nil
	}
	if err := l.conn.Exec("begin immediate"); err != nil {
		return l.failed(ctx, "", err)
	}
	for i, text := range g.Setup {
		if err := l.setUpOnce(text); err != nil {
			return problem.New(problem.Invalid, "grant.sql_setup", "statement %d of the set-up of database %q failed: %s", i+1, g.SQLite, clip(reason(err))).
				WithHint("correct the statement under setup and apply the app again; none of them has taken effect").WithCause(err)
		}
	}
	if err := l.conn.Exec("commit"); err != nil {
		return l.failed(ctx, "", err)
	}
	l.forget() // the tables have changed
	return nil
}

// exec runs a statement of our own, without asking authorize.
func (l *lite) exec(text string) error {
	if err := l.conn.SetAuthorizer(nil); err != nil {
		return err
	}
	return errors.Join(l.conn.Exec(text), l.conn.SetAuthorizer(l.authorize))
}

func (l *lite) setUpOnce(text string) error {
	sum := sha256.Sum256([]byte(text))
	id := hex.EncodeToString(sum[:])
	if err := l.conn.Exec(fmt.Sprintf("insert into %s values ('%s')", setupTable, id)); err != nil {
		if errors.Is(err, sqlite3.CONSTRAINT) {
			return nil // it has run
		}
		return err
	}
	s, tail, err := l.conn.Prepare(text)
	if err != nil {
		return err
	}
	if strings.TrimSpace(tail) != "" {
		return errors.Join(errors.New("it is more than one statement"), s.Close())
	}
	return errors.Join(s.Exec(), s.Close())
}

// hidden is nothing: such a database has no password.
func (*lite) hidden() *redact.Set { return nil }

// run runs statements: one by itself, several in a transaction.
func (l *lite) run(ctx context.Context, statements []statement, writes bool, out *answer) error {
	if writes {
		if err := l.space(); err != nil {
			return err
		}
	}
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.give()
	l.only(true) // until one of them does more
	if err := l.withinMemory(func() error { return l.all(ctx, statements, writes, out) }); err != nil {
		return err
	}
	if writes && l.db != nil {
		l.db.shrink(l)
	}
	return nil
}

// withinMemory runs f. Where SQLite needs more memory than it may have, its library panics, with what it does not export: the statement failed, like any other.
func (l *lite) withinMemory(f func() error) (err error) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if fmt.Sprint(r) != "sqlite3: out of memory" { // TestSQLiteHugeValues tells when it says so no more
			panic(r)
		}
		// They were reset before the library looked at the error, but not all of what they hold was let go.
		func() {
			defer func() { _ = recover() }() // the same once more
			l.forget()
		}()
		err = problem.New(problem.Exhausted, "grant.sql_exhausted", "the statements failed: they need more than %d bytes of memory", maxHeap).
			WithHint("ask for less at a time, such as with a limit, or a part of a value with substr")
	}()
	return f()
}

func (l *lite) all(ctx context.Context, statements []statement, writes bool, out *answer) error {
	if len(statements) == 1 {
		return l.failed(ctx, statements[0].name, l.one(statements[0], out))
	}
	begin := "begin"
	if writes {
		begin = "begin immediate"
	}
	if err := l.conn.Exec(begin); err != nil {
		return l.failed(ctx, "", err)
	}
	for _, st := range statements {
		if err := l.one(st, out); err != nil {
			return l.failed(ctx, st.name, err)
		}
	}
	return l.failed(ctx, "", l.conn.Exec("commit"))
}

// one runs one statement.
func (l *lite) one(st statement, out *answer) (err error) {
	s, err := l.prepare(st)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reset(s.Stmt, err), s.ClearBindings()) }()
	columns, err := ready(s.Stmt, st)
	if err != nil {
		return err
	}
	if s.grows {
		l.only(false)
	}
	out.begin()
	for s.Step() {
		if err := out.row(st.name); err != nil {
			return err
		}
		for i := range columns {
			out.column(columns[i])
			out.json = column(out.json, s.Stmt, i)
		}
		out.endRow()
	}
	if err := s.Err(); err != nil {
		return err
	}
	changed := int64(0)
	if !s.ReadOnly() {
		changed = l.conn.Changes()
	}
	out.end(changed)
	return nil
}

// ready gives a statement its parameters, and returns the keys of its columns.
func ready(s *sqlite3.Stmt, st statement) ([][]byte, error) {
	for i, v := range st.params {
		// $1 is the name of a parameter to SQLite, whose own number is the order in which it first stands in the text.
		if err := bind(s, s.BindIndex("$"+strconv.Itoa(i+1)), v); err != nil {
			return nil, parameterProblem(st.name, i+1, err)
		}
	}
	names := make([]string, s.ColumnCount())
	for i := range names {
		names[i] = s.ColumnName(i)
	}
	return keys(st.name, names)
}

// rehearse does all that run does, but for running the statements.
func (l *lite) rehearse(ctx context.Context, statements []statement, _ grant.Caller) error {
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.give()
	for _, st := range statements {
		s, err := l.prepare(st)
		if err == nil {
			_, err = ready(s.Stmt, st)
			err = errors.Join(err, s.ClearBindings())
		}
		if err != nil {
			return l.failed(ctx, st.name, err)
		}
	}
	return nil
}

// prepare returns a statement that is known to the database.
func (l *lite) prepare(st statement) (preparedStmt, error) {
	var none preparedStmt
	s := l.prepared[st.query.Text]
	if s.Stmt == nil {
		var tail string
		var err error
		l.grows = false
		if s.Stmt, tail, err = l.conn.PrepareFlags(st.query.Text, sqlite3.PREPARE_PERSISTENT); err != nil {
			return none, problem.New(problem.Invalid, "grant.sql_statement", "the database does not take statement %q: %s", st.name, clip(reason(err))).
				WithHint("correct it in the manifest, and apply it").WithCause(err)
		}
		s.grows = l.grows
		if s.Stmt == nil || strings.TrimSpace(tail) != "" {
			return none, errors.Join(problem.New(problem.Invalid, "grant.sql_statement", "%q is not one statement", st.name), s.Close())
		}
		if len(l.prepared) >= maxPrepared {
			l.forget()
		}
		l.prepared[st.query.Text] = s
	}
	if !s.ReadOnly() && !st.query.Write {
		return none, problem.New(problem.Denied, "grant.sql_read_only", "statement %q failed: the statement reads, and would change something", st.name)
	}
	return s, nil
}

// bind gives a parameter a JSON value.
func bind(s *sqlite3.Stmt, index int, v jsontext.Value) error {
	switch v.Kind() {
	case 'n':
		return s.BindNull(index)
	case 't', 'f':
		return s.BindBool(index, v.Kind() == 't')
	case '"':
		str, err := sqlvalue.Text(v)
		if err != nil {
			return err
		}
		return s.BindText(index, str)
	case '0':
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return s.BindInt64(index, n)
		}
		n, err := strconv.ParseFloat(string(v), 64)
		if err != nil || !strings.ContainsAny(string(v), ".eE") {
			return errors.New("wants a number of 64 bits")
		}
		return s.BindFloat(index, n)
	case '{':
		var o map[string]jsontext.Value
		if err := json.Unmarshal(v, &o); err == nil && len(o) == 1 && o[sqlvalue.BytesKey] != nil {
			raw, err := sqlvalue.DecodeBytes(v)
			if err != nil {
				return err
			}
			return s.BindBlob(index, raw)
		}
	}
	return s.BindText(index, string(v)) // an object or a list, as JSON
}

// maxExact is the largest integer that a JSON number holds exactly in every language.
const maxExact = 1<<53 - 1

// column appends a value of the present row as JSON.
func column(dst []byte, s *sqlite3.Stmt, i int) []byte {
	switch s.ColumnType(i) {
	case sqlite3.INTEGER:
		n := s.ColumnInt64(i)
		if n > maxExact || n < -maxExact {
			return sqlvalue.AppendText(dst, strconv.AppendInt(nil, n, 10))
		}
		return strconv.AppendInt(dst, n, 10)
	case sqlite3.FLOAT:
		f := s.ColumnFloat(i)
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return sqlvalue.AppendText(dst, strconv.AppendFloat(nil, f, 'g', -1, 64))
		}
		return jsonFloat(dst, f)
	case sqlite3.TEXT:
		return sqlvalue.AppendText(dst, s.ColumnRawText(i))
	case sqlite3.BLOB:
		return sqlvalue.AppendBytes(dst, s.ColumnRawBlob(i))
	}
	return append(dst, "null"...)
}

// jsonFloat appends a finite number as JSON.
func jsonFloat(dst []byte, f float64) []byte {
	return append(dst, jsontext.Float(f).String()...)
}

// failed makes a problem of an error.
func (l *lite) failed(ctx context.Context, name string, err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	what := "the transaction"
	if name != "" {
		what = fmt.Sprintf("statement %q", name)
	}
	is := func(codes ...error) bool {
		return slices.ContainsFunc(codes, func(code error) bool { return errors.Is(err, code) })
	}
	switch {
	case is(sqlite3.INTERRUPT):
		return timedOut(ctx, err)
	case is(sqlite3.CONSTRAINT_UNIQUE, sqlite3.CONSTRAINT_PRIMARYKEY, sqlite3.CONSTRAINT_ROWID):
		return problem.New(problem.Conflict, "grant.sql_exists", "%s failed: there is such a row already, %s", what, clip(reason(err))).WithCause(err)
	case is(sqlite3.CONSTRAINT_DATATYPE), is(sqlite3.MISMATCH, sqlite3.TOOBIG, sqlite3.RANGE):
		return problem.New(problem.Invalid, "grant.sql_value", "%s failed: a value is not one that the database takes there", what).WithCause(err)
	case is(sqlite3.CONSTRAINT):
		return problem.New(problem.Conflict, "grant.sql_constraint", "%s failed: a rule of the database forbids it, %s", what, clip(reason(err))).WithCause(err)
	case is(sqlite3.AUTH):
		return problem.New(problem.Denied, "grant.sql_privilege", "%s failed: it reaches what no statement may", what).WithCause(err)
	case is(sqlite3.FULL) && l.db != nil && l.db.refused != nil:
		return l.db.refused
	case is(sqlite3.FULL):
		return problem.New(problem.Exhausted, "grant.sql_full", "%s failed: the database has reached its size", what).
			WithHint("delete rows, or raise size of the grant").WithCause(err)
	case is(sqlite3.NOMEM):
		return problem.New(problem.Exhausted, "grant.sql_exhausted", "%s failed: it needs more than %d bytes of memory", what, maxHeap).WithCause(err)
	case is(sqlite3.IOERR, sqlite3.CORRUPT, sqlite3.NOTADB):
		if damage := l.db.file.Damage(); damage != nil || is(sqlite3.CORRUPT, sqlite3.NOTADB) {
			return unreadable(l.name, errors.Join(sealedfile.ErrDamaged, damage, err))
		}
		return problem.New(problem.Unavailable, "grant.sql_disk", "%s failed: the server's disk does not answer", what).WithRetryAfter(time.Second).WithCause(err)
	}
	return problem.New(problem.Invalid, "grant.sql_failed", "%s failed", what).WithCause(err)
}

// reason is what SQLite says of an error without the words that all begin with. It names tables, columns and syntax; it is only used
// where it names no value.
func reason(err error) string {
	if bad, ok := errors.AsType[*sqlite3.Error](err); ok {
		err = bad
	}
	text := strings.TrimPrefix(err.Error(), "sqlite3: ")
	if _, after, ok := strings.Cut(text, ": "); ok {
		return after
	}
	return text
}

// reset makes a statement ready for the next run. Its error is that of the last one, which failed already when err is not nil.
func reset(s *sqlite3.Stmt, err error) error {
	if resetErr := s.Reset(); err == nil {
		return resetErr
	}
	return nil
}
