package sqlgrant_test

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/internal/grant"
)

// onBoth runs a test on both databases, with a table orders (id text primary key, total integer not null check (total >= 0)).
func onBoth(t *testing.T, queries string, test func(t *testing.T, door grant.Door)) {
	t.Helper()
	const table = "create table orders (id text primary key, total integer not null constraint positive check (total >= 0), note text)"
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, sqliteDoor(t, fmt.Sprintf("setup = [%q]\n%s", table, queries)))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, postgresDoor(t, emptyDatabase(t, table), queries))
	})
}

const orders = `
queries.insert = "insert into orders (id, total) values ($1, $2)"
queries.find = "select id, total from orders where id = $1"
queries.all = "select id, total from orders order by id"
queries.raise = "update orders set total = total + $2 where id = $1"
queries.count = "select cast(count(*) as integer) as n from orders"
`

func TestQuery(t *testing.T) {
	t.Parallel()
	onBoth(t, orders, func(t *testing.T, door grant.Door) {
		got, err := query(t, door, "insert", `"o-1", 5`)
		wantReply(t, got, err, `{"rows":[],"changed":1}`)
		got, err = query(t, door, "insert", `"o-2", 7`)
		wantReply(t, got, err, `{"rows":[],"changed":1}`)
		got, err = query(t, door, "all", "")
		wantReply(t, got, err, `{"rows":[{"id":"o-1","total":5},{"id":"o-2","total":7}],"changed":0}`)
		got, err = query(t, door, "find", `"nobody"`)
		wantReply(t, got, err, `{"rows":[],"changed":0}`)
		got, err = query(t, door, "raise", `"o-1", 1`)
		wantReply(t, got, err, `{"rows":[],"changed":1}`)

		_, err = query(t, door, "insert", `"o-1", 5`)
		if p := wantProblem(t, err, "grant.sql_exists", `"insert" failed`); strings.Contains(p.Error(), "o-1") {
			t.Errorf("the error holds a value: %v", p)
		}
		_, err = query(t, door, "insert", `"o-3", -1`)
		wantProblem(t, err, "grant.sql_constraint", "positive")
		_, err = query(t, door, "insert", `"o-3", null`)
		wantProblem(t, err, "grant.sql_constraint", "total")
		got, err = query(t, door, "count", "")
		wantReply(t, got, err, `{"rows":[{"n":2}],"changed":0}`)
	})
}

func TestTransaction(t *testing.T) {
	t.Parallel()
	onBoth(t, orders, func(t *testing.T, door grant.Door) {
		got, err := call(t, door, "transaction", `{"statements":[{"query":"insert","params":["a",1]},{"query":"raise","params":["a",2]},{"query":"all"}]}`)
		wantReply(t, got, err, `[{"rows":[],"changed":1},{"rows":[],"changed":1},{"rows":[{"id":"a","total":3}],"changed":0}]`)
		// The last one fails, so the first takes no effect.
		_, err = call(t, door, "transaction", `{"statements":[{"query":"insert","params":["b",1]},{"query":"raise","params":["a",-10]},{"query":"all"}]}`)
		wantProblem(t, err, "grant.sql_constraint", `"raise" failed`)
		_, err = call(t, door, "transaction", `{"statements":[{"query":"insert","params":["b",1]},{"query":"insert","params":["b",1]}]}`)
		wantProblem(t, err, "grant.sql_exists", `"insert" failed`)
		got, err = call(t, door, "transaction", `{"statements":[{"query":"all"},{"query":"count"}]}`)
		wantReply(t, got, err, `[{"rows":[{"id":"a","total":3}],"changed":0},{"rows":[{"n":1}],"changed":0}]`)
	})
}

func TestRequests(t *testing.T) {
	t.Parallel()
	onBoth(t, orders, func(t *testing.T, door grant.Door) {
		many := `{"statements":[` + strings.Repeat(`{"query":"all"},`, 100) + `{"query":"all"}]}`
		for _, test := range []struct{ op, request, code string }{
			{"query", `{"query":"drop table orders"}`, "grant.sql_no_statement"},
			{"query", `{"query":"al"}`, "grant.sql_no_statement"},
			{"query", `{}`, "grant.sql_no_statement"},
			{"query", `{"query":"all","sql":"drop table orders"}`, "grant.sql_request"},
			{"query", `{"query":"all","params":{"a":1}}`, "grant.sql_request"},
			{"query", `["all"]`, "grant.sql_request"},
			{"query", `{"query":"find"}`, "grant.sql_parameter"},
			{"query", `{"query":"find","params":["a","b"]}`, "grant.sql_parameter"},
			{"transaction", `{"statements":[]}`, "grant.sql_request"},
			{"transaction", `{"query":"all"}`, "grant.sql_request"},
			{"transaction", many, "grant.sql_request"},
			{"exec", `{"query":"all"}`, "grant.sql_request"},
		} {
			_, err := call(t, door, test.op, test.request)
			wantProblem(t, err, test.code, "")
		}
	})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	onBoth(t, orders+"queries.long = \"select $1 as v\"\nmax_rows = 3\nlimits.reply = \"1KiB\"", func(t *testing.T, door grant.Door) {
		for i := range 3 {
			if _, err := query(t, door, "insert", fmt.Sprintf(`"%d", 1`, i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := query(t, door, "all", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := query(t, door, "insert", `"3", 1`); err != nil {
			t.Fatal(err)
		}
		_, err := query(t, door, "all", "")
		wantProblem(t, err, "grant.sql_too_many_rows", `"all" gives more than 3 rows`)
		// The door goes on.
		got, err := query(t, door, "count", "")
		wantReply(t, got, err, `{"rows":[{"n":4}],"changed":0}`)
	})
}

// A statement that is said to read cannot change anything, whatever it calls.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		db := emptyDatabase(t, "create table t (a int)", "create sequence s",
			"create function f() returns int language sql as 'insert into t values (1) returning a'")
		door := postgresDoor(t, db, `
queries.hidden = "select f() as a"
queries.next = "select nextval('s') as n"
queries.allowed = { statement = "select f() as a", mode = "write" }
queries.count = "select count(*)::int as n from t"`)
		for _, name := range []string{"hidden", "next"} {
			_, err := query(t, door, name, "")
			wantProblem(t, err, "grant.sql_read_only", name)
			_, err = call(t, door, "transaction", fmt.Sprintf(`{"statements":[{"query":"count"},{"query":%q}]}`, name))
			wantProblem(t, err, "grant.sql_read_only", name)
		}
		got, err := query(t, door, "allowed", "")
		wantReply(t, got, err, `{"rows":[{"a":1}],"changed":0}`)
		got, err = query(t, door, "count", "")
		wantReply(t, got, err, `{"rows":[{"n":1}],"changed":0}`)
	})
}
