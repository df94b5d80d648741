package sqlgrant_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/grant"
	"sallyport/internal/grant/sqlgrant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// askedFor notes for what secrets were asked.
type askedFor struct {
	secrets
	uses []grant.Use
}

func (a *askedFor) Value(ctx context.Context, ns ident.Namespace, ref string, use grant.Use) ([]byte, error) {
	a.uses = append(a.uses, use)
	return a.secrets.Value(ctx, ns, ref, use)
}

// check asks about a grant.
func check(t testing.TB, files *sqlgrant.Files, held grant.Secrets, text string, others ...manifest.Grant) grant.Checked {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	return grant.Registry{manifest.KindSQL: sqlgrant.New(files)}.Check(ctx, grant.Opening{
		Namespace: "shop", Function: "f", Revision: 1, Name: "db", Grant: parseGrant(t, text), Secrets: held,
	}, others)
}

// wantFaults compares faults, each as "key@the rest of the statement: detail", by their parts.
func wantFaults(t testing.TB, got grant.Checked, want ...string) {
	t.Helper()
	if got.Unchecked != nil || len(got.Faults) != len(want) {
		t.Fatalf("Check = %+v; want %d faults", got, len(want))
	}
	for i, f := range got.Faults {
		text := strings.Join(f.Key, ".") + "@" + f.Statement[f.Offset:] + ": " + f.Detail
		for _, part := range strings.Split(want[i], " … ") {
			if !strings.Contains(text, part) {
				t.Errorf("fault %d is %q; want %q in it", i, text, part)
			}
		}
	}
}

// TestCheckStatements: what a database would refuse when a function uses it, it refuses before, with the place and a name that may be meant.
func TestCheckStatements(t *testing.T) {
	t.Parallel()
	const table = "create table orders (id text primary key, total integer not null)"
	for name, tc := range map[string]struct {
		queries          string
		sqlite, postgres []string // nil when that is not for it
	}{
		"in order": {
			queries: "queries.a = \"select id, total from orders where id = $1\"\nqueries.b = \"update orders set total = $1 where id = $2\"", sqlite: []string{}, postgres: []string{},
		},
		"a table": {
			queries: `queries.find = "select id from ordrs"`, sqlite: []string{`queries.find@ordrs: … "find" … no such table: ordrs … did you mean "orders"?`},
			postgres: []string{`queries.find@ordrs: … relation "ordrs" does not exist … 42P01 … did you mean "orders"?`},
		},
		"a column, after letters of several bytes": {
			queries: `queries.find = "select 'grüße' as g, totl from orders"`, sqlite: []string{`queries.find@totl from orders: … no such column: totl … did you mean "total"?`},
			postgres: []string{`queries.find@totl from orders: … "totl" does not exist … "orders.total"`},
		},
		"a column that is written": {
			queries: `queries.add = "insert into orders (id, totl) values ($1, $2)"`, sqlite: []string{`queries.add@totl) … no column named totl … did you mean "total"?`}, postgres: []string{`queries.add@totl … "totl"`},
		},
		"syntax": {
			queries: `queries.find = "select id frm orders limit 1"`, sqlite: []string{`queries.find@orders limit … syntax error`}, postgres: []string{`queries.find@orders limit … syntax error`},
		},
		"two columns of one name": {
			queries: `queries.find = "select id, total as id from orders"`, sqlite: []string{`two columns called "id"`}, postgres: []string{`two columns called "id"`},
		},
		"a function that is not there": {
			queries: `queries.find = "select unheard_of(id) from orders"`, sqlite: []string{"unheard_of"}, postgres: []string{"queries.find@unheard_of(id) … 42883"},
		},
		"a parameter without a type": {queries: `queries.find = "select $1 as x"`, sqlite: []string{}, postgres: []string{}},
		"a constant of another type": {queries: `queries.find = "select id from orders where total = 'many'"`, sqlite: []string{}, postgres: []string{"queries.find@'many' … 22P02"}},
		"several": {
			queries: "queries.a = \"select x from orders\"\nqueries.b = \"select id from orders\"\nqueries.c = \"select y from orders\"",
			sqlite:  []string{"queries.a@x from", "queries.c@y from"}, postgres: []string{"queries.a@x from", "queries.c@y from"},
		},
		"tables of SQLite itself": {queries: `queries.find = "select sql from sqlite_schema"`, sqlite: []string{"reaches what no statement may"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantFaults(t, check(t, newFiles(t, t.TempDir()), nil, fmt.Sprintf("sql = \"sqlite:db\"\nsetup = [%q]\n%s", table, tc.queries)), tc.sqlite...)
			if tc.postgres != nil {
				held := &askedFor{secrets: secrets{"dsn": server(t).Address(emptyDatabase(t, table), false)}}
				wantFaults(t, check(t, nil, held, "sql = \"secret:dsn\"\nprivate = true\n"+tc.queries), tc.postgres...)
				if len(held.uses) != 1 || !held.uses[0].Check || held.uses[0].Caller.Function != "f" || held.uses[0].Caller.Grant != "db" {
					t.Errorf("the secret was asked for as %+v; want once, for a check", held.uses)
				}
			}
		})
	}
}

// TestCheckChangesNothing: a check makes no database, and runs no statement and no set-up in one that is there.
func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := newFiles(t, dir)
	const first = "create table orders (id text primary key)"
	text := func(setup, queries string) string {
		return fmt.Sprintf("sql = \"sqlite:db\"\nsetup = [%s]\n%s", setup, queries)
	}
	all := `queries.all = "select count(*) as n from orders"`
	wantFaults(t, check(t, files, nil, text(fmt.Sprintf("%q, \"insert into orders values ('a')\"", first), all)))
	if found, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(found) > 0 {
		t.Fatalf("a check made %v (%v)", found, err)
	}

	door := openDoor(t, files, nil, text(fmt.Sprintf("%q", first), all+"\nqueries.add = \"insert into orders values ($1)\""))
	if _, err := query(t, door, "add", `"a"`); err != nil {
		t.Fatal(err)
	}
	// The tables are there, and what the set-up adds counts, for this grant and for another of the same database.
	more := text(fmt.Sprintf("%q, \"alter table orders add column total integer\", \"delete from orders\"", first), `queries.sum = "select sum(total) as n from orders"`)
	wantFaults(t, check(t, files, nil, more))
	wantFaults(t, check(t, files, nil, text("", `queries.sum = "select sum(total) as n from orders"`), parseGrant(t, more)))
	wantFaults(t, check(t, files, nil, text("", `queries.sum = "select sum(total) as n from orders"`)), "no such column: total")
	// A set-up that does not fit the tables that there are.
	wantFaults(t, check(t, files, nil, text(`"create table orders (id text primary key, total integer)"`, all)), "setup.0@ … table orders already exists")
	wantFaults(t, check(t, files, nil, text(fmt.Sprintf("%q, \"alter table ordrs add column x\"", first), all)), `setup.1@ … did you mean "orders"?`)
	got, err := query(t, door, "all", "")
	wantReply(t, got, err, `{"rows":[{"n":1}],"changed":0}`)
}

// TestCheckUnreachable: what does not answer, refuses its user, or is not to be reached is no fault, and its address is in no text.
func TestCheckUnreachable(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() }) // it only kept quiet
	for name, tc := range map[string]struct{ dsn, more, want string }{
		"nothing listens":        {"postgres://hunter2:hunter3@" + address + "/hunter4?sslmode=disable", "private = true", "grant.sql_unreachable"},
		"a private address":      {"postgres://hunter2:hunter3@" + address + "/hunter4?sslmode=disable", "", "grant.sql_address_refused"},
		"no address":             {"hunter2", "private = true", "grant.sql_address"},
		"plain to other machine": {"postgres://hunter2:hunter3@203.0.113.1/hunter4?sslmode=disable", "private = true", "grant.timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tc.want == "grant.timeout" {
				ctx, cancel = context.WithTimeout(t.Context(), 1)
				defer cancel()
			}
			got := grant.Registry{manifest.KindSQL: sqlgrant.New(nil)}.Check(ctx, grant.Opening{
				Namespace: "shop", Function: "f", Name: "db", Grant: parseGrant(t, "sql = \"secret:dsn\"\nqueries.a = \"select 1 as n\"\n"+tc.more), Secrets: secrets{"dsn": tc.dsn},
			}, nil)
			p := problem.From(got.Unchecked)
			if len(got.Faults) > 0 || p == nil || p.Code != tc.want || strings.Contains(p.Public+p.Hint, "hunter") || strings.Contains(fmt.Sprint(p.Unwrap()), "hunter3") {
				t.Errorf("Check = %+v; want %s without a part of the address", got, tc.want)
			}
		})
	}
	if got := check(t, nil, nil, "sql = \"secret:dsn\"\nqueries.a = \"select 1 as n\""); problem.From(got.Unchecked).Code != "grant.no_secrets" {
		t.Errorf("Check without secrets = %+v", got)
	}
	if got := check(t, nil, secrets{}, "sql = \"secret:dsn\"\nqueries.a = \"select 1 as n\""); problem.From(got.Unchecked).Code != "secret.missing" {
		t.Errorf("Check without the secret = %+v", got)
	}
}
