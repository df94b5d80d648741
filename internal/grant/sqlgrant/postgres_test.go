package sqlgrant_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

func TestPostgresTypes(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t, "create type mood as enum ('ok', 'bad')", "create domain positive as int check (value > 0)")
	for _, test := range []struct{ typ, in, want string }{
		{"smallint", "-3", "-3"},
		{"integer", `"17"`, "17"},
		{"integer", "null", "null"},
		{"bigint", "9007199254740993", `"9007199254740993"`},
		{"bigint", `"-9223372036854775808"`, `"-9223372036854775808"`},
		{"numeric", `"123456789012345678901234567890.123"`, `"123456789012345678901234567890.123"`},
		{"numeric", "1.50", `"1.50"`},
		{"numeric", `"NaN"`, `"NaN"`},
		{"double precision", "0.1", "0.1"},
		{"double precision", `"Infinity"`, `"Infinity"`},
		{"real", "1.5", "1.5"},
		{"boolean", "true", "true"},
		{"text", `"é\n\"x\" \\ 😀"`, `"é\n\"x\" \\ 😀"`},
		{"varchar(5)", `"ab"`, `"ab"`},
		{"uuid", `"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"`, `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
		{"bytea", `"AP8="`, `"AP8="`},
		{"bytea", `{"$bytes":"AP8="}`, `"AP8="`},
		{"timestamptz", `"2030-01-02T03:04:05.678+02:00"`, `"2030-01-02T01:04:05.678Z"`},
		{"timestamptz", `"infinity"`, `"infinity"`},
		{"timestamp", `"2030-01-02T03:04:05.5"`, `"2030-01-02T03:04:05.5"`},
		{"date", `"2030-01-02"`, `"2030-01-02"`},
		{"time", `"03:04:05"`, `"03:04:05"`},
		{"interval", `"1 day 2 hours"`, `"P1DT2H"`},
		{"json", `{"b": 1, "a": [null]}`, `{"b":1,"a":[null]}`},
		{"jsonb", `{"b":1,"a":"\"'"}`, `{"a": "\"'", "b": 1}`},
		{"jsonb", `"text"`, `"text"`},
		{"integer[]", "[1,null,3]", "[1,null,3]"},
		{"integer[]", "[[1,2],[3,4]]", "[[1,2],[3,4]]"},
		{"text[]", `["a,b","\"}{","null",null,"\\",""]`, `["a,b","\"}{","null",null,"\\",""]`},
		{"text[]", "[]", "[]"},
		{"boolean[]", "[true,false]", "[true,false]"},
		{"bigint[]", `[1]`, `["1"]`},
		{"jsonb[]", `[{"a":1},[2]]`, `[{"a": 1},[2]]`},
		{"bytea[]", `["AP8="]`, `["AP8="]`},
		{"mood", `"bad"`, `"bad"`},
		{"positive", "5", "5"},
		{"inet", `"10.0.0.1"`, `"10.0.0.1"`},
	} {
		t.Run(test.typ+" "+test.in, func(t *testing.T) {
			door := postgresDoor(t, db, fmt.Sprintf("connections = 1\nqueries.echo = \"select $1::%s as v\"", test.typ))
			got, err := query(t, door, "echo", test.in)
			if err != nil {
				t.Fatalf("%v (%v)", err, errors.Unwrap(err))
			}
			if squeeze(got) != squeeze(`{"rows":[{"v":`+test.want+`}],"changed":0}`) {
				t.Errorf("got %s; want %s", got, test.want)
			}
		})
	}
}

// squeeze leaves out the spaces that JSON values of the server have.
func squeeze(s string) string { return strings.ReplaceAll(s, " ", "") }

func TestPostgresParameterErrors(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t)
	for _, test := range []struct{ typ, in, code, text string }{
		{"integer", `"x"`, "grant.sql_parameter", "wants an integer of 32 bits"},
		{"integer", "1.5", "grant.sql_parameter", "wants an integer of 32 bits"},
		{"integer", "2147483648", "grant.sql_parameter", "wants an integer of 32 bits"},
		{"integer", "{}", "grant.sql_parameter", "wants a number, not an object"},
		{"bigint", "9223372036854775808", "grant.sql_parameter", "wants an integer of 64 bits"},
		{"numeric", `"1; drop"`, "grant.sql_parameter", "wants a number"},
		{"boolean", `"true"`, "grant.sql_parameter", "wants true or false, not a text"},
		{"text", "1", "grant.sql_parameter", "wants a text, not a number"},
		{"text", `"a\u0000b"`, "grant.sql_parameter", "NUL"},
		{"bytea", `"%%"`, "grant.sql_parameter", "base64"},
		{"timestamptz", `"tomorrow"`, "grant.sql_parameter", "wants a time"},
		{"integer[]", `[1,"x"]`, "grant.sql_parameter", "element 2 wants an integer"},
		{"text[]", `[[[[[[["deep"]]]]]]]`, "grant.sql_parameter", "nested deeper"},
		{"date", `"not a date, but a secret"`, "grant.sql_value", ""},
		{"uuid", `"zzz"`, "grant.sql_value", ""},
	} {
		t.Run(test.typ+" "+test.in, func(t *testing.T) {
			door := postgresDoor(t, db, fmt.Sprintf("connections = 1\nqueries.echo = \"select $1::%s as v\"", test.typ))
			_, err := query(t, door, "echo", test.in)
			p := wantProblem(t, err, test.code, test.text)
			if strings.Contains(fmt.Sprint(p, errors.Unwrap(p)), "secret") {
				t.Errorf("the error holds a value: %v (%v)", p, errors.Unwrap(p))
			}
		})
	}
}

func TestPostgresStatementErrors(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t, "create table t (a int primary key)", "create role reader login password 'reader'", "grant select on t to reader")
	door := postgresDoor(t, db, `
queries.missing = "select * from nothing"
queries.syntax = "select from from"
queries.twice = "select 1 as a, 2 as a"
queries.find = "select a from t"`)
	_, err := query(t, door, "missing", "")
	wantProblem(t, err, "grant.sql_statement", `relation "nothing" does not exist`)
	_, err = query(t, door, "syntax", "")
	wantProblem(t, err, "grant.sql_statement", "syntax error")
	_, err = query(t, door, "twice", "")
	wantProblem(t, err, "grant.sql_columns", `two columns called "a"`)
	// A changed table is an error that passes.
	if _, err = query(t, door, "find", ""); err != nil {
		t.Fatal(err)
	}
	direct(t, db, "alter table t alter column a type bigint")
	if _, err = query(t, door, "find", ""); err != nil {
		if p := wantProblem(t, err, "grant.sql_conflict", "have changed"); p.RetryAfter == 0 {
			t.Errorf("%v is not to be tried again", p)
		}
		if _, err = query(t, door, "find", ""); err != nil {
			t.Errorf("after a second try: %v", err)
		}
	}
	reader := strings.Replace(server(t).Address(db, false), "postgres:"+"test-of-sallyport", "reader:reader", 1)
	least := openDoor(t, nil, secrets{"dsn": reader}, "sql = \"secret:dsn\"\nprivate = true\nqueries.insert = \"insert into t values ($1)\"")
	_, err = query(t, least, "insert", "1")
	wantProblem(t, err, "grant.sql_privilege", "may not")
}

// A transaction that lost against another one says so, and that it may be tried again.
func TestPostgresDeadlock(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t, "create table t (a int primary key, n int)", "insert into t select i, 0 from generate_series(1, 2) i")
	door := postgresDoor(t, db, `queries.add = "update t set n = n + 1 where a = $1"`+"\nqueries.sum = \"select sum(n)::int as n from t\"")
	var running sync.WaitGroup
	for user := range 4 {
		running.Go(func() {
			order := `{"query":"add","params":[1]},{"query":"add","params":[2]}`
			if user%2 == 1 {
				order = `{"query":"add","params":[2]},{"query":"add","params":[1]}`
			}
			for range 20 {
				for {
					_, err := call(t, door, "transaction", `{"statements":[`+order+`]}`)
					if err == nil {
						break
					}
					if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != "grant.sql_conflict" || p.RetryAfter == 0 {
						t.Errorf("a deadlock is %v", err)
						return
					}
				}
			}
		})
	}
	running.Wait()
	got, err := query(t, door, "sum", "")
	wantReply(t, got, err, `{"rows":[{"n":160}],"changed":0}`)
}

func TestPostgresTLS(t *testing.T) {
	t.Parallel()
	s, db := server(t), emptyDatabase(t)
	const queries = "\nqueries.secure = \"select ssl from pg_stat_ssl where pid = pg_backend_pid()\""
	held := secrets{"dsn": s.Address(db, true), "ca": string(s.CA), "wrong": "-----", "plain": s.Address(db, false),
		"password": strings.Replace(s.Address(db, true), "test-of-", "not-", 1)}
	good := openDoor(t, nil, held, "sql = \"secret:dsn\"\nca = \"secret:ca\"\nprivate = true"+queries)
	got, err := query(t, good, "secure", "")
	wantReply(t, got, err, `{"rows":[{"ssl":true}],"changed":0}`)

	for _, test := range []struct{ name, text, code string }{
		{"a certificate that nobody vouches for", "sql = \"secret:dsn\"\nprivate = true", "grant.sql_unreachable"},
		{"a CA that is none", "sql = \"secret:dsn\"\nca = \"secret:wrong\"\nprivate = true", "grant.sql_address"},
		{"a private address that is not granted", "sql = \"secret:dsn\"\nca = \"secret:ca\"", "grant.sql_address_refused"},
		{"a private address in plain", "sql = \"secret:plain\"", "grant.sql_address_refused"},
		{"a wrong password", "sql = \"secret:password\"\nca = \"secret:ca\"\nprivate = true", "grant.sql_login"},
		{"no secret", "sql = \"secret:nothing\"", "secret.missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			door := openDoor(t, nil, held, test.text+queries)
			_, err := query(t, door, "secure", "")
			if p := wantProblem(t, err, test.code, ""); strings.Contains(p.Error()+p.Hint, "sallyport@") || strings.Contains(p.Error(), "test-of") {
				t.Errorf("the error holds the address: %v", p)
			}
		})
	}
}

// A new version of the secret is in use for new connections, and the calls meanwhile do not fail.
func TestPostgresRotation(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t, "create role rotated login password 'first'")
	base := strings.Split(server(t).Address(db, false), "@")[1]
	var mu sync.Mutex
	held := rotating{mu: &mu, value: "postgres://rotated:first@" + base}
	door, err := openWith(t, &held, "sql = \"secret:dsn\"\nprivate = true\nqueries.one = \"select 1 as n\"")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := query(t, door, "one", ""); err != nil {
		t.Fatal(err)
	}
	direct(t, db, "alter role rotated password 'second'")
	mu.Lock()
	held.value = "postgres://rotated:second@" + base
	mu.Unlock()
	var running sync.WaitGroup
	for range 6 {
		running.Go(func() {
			if _, err := query(t, door, "one", ""); err != nil {
				t.Errorf("after the rotation: %v (%v)", err, errors.Unwrap(err))
			}
		})
	}
	running.Wait()
}

// The server ends a statement that takes too long, and the door goes on.
func TestPostgresTimeout(t *testing.T) {
	t.Parallel()
	db := emptyDatabase(t, "create table t (a int)")
	door := postgresDoor(t, db, `
limits.timeout = "200ms"
queries.sleep = "select pg_sleep(100)"
queries.write = "insert into t select 1 from pg_sleep(100)"
queries.one = "select 1 as n"
queries.count = "select count(*)::int as n from t"`)
	for _, name := range []string{"sleep", "write"} {
		_, err := query(t, door, name, "") // the context of the call is longer: it is the server that ends it
		wantProblem(t, err, "grant.timeout", name)
	}
	// And when the server does not, the context does.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := door.Do(ctx, &grant.Call{Op: "query", Request: []byte(`{"query":"sleep"}`)})
	wantProblem(t, err, "grant.timeout", "")
	got, err := query(t, door, "count", "")
	wantReply(t, got, err, `{"rows":[{"n":0}],"changed":0}`)
}

// What answers and is no database, or lies, is an error in time.
func TestPostgresLiars(t *testing.T) {
	t.Parallel()
	endless := strings.Repeat("N\x00\x00\x00\x0dSNOTICE\x00\x00", 1000)
	for _, test := range []struct {
		name  string
		serve func(net.Conn)
		code  string
	}{
		{"closes", func(net.Conn) {}, "grant.sql_unreachable"},
		{"says nothing", func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)); _, _ = c.Read(make([]byte, 1)) }, "grant.timeout"},
		{"is an HTTP server", func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, "grant.sql_unreachable"},
		{"a message of 2 GiB", func(c net.Conn) { _, _ = c.Write([]byte("R\x7f\xff\xff\xff\x00\x00\x00\x00")) }, "grant.sql_unreachable"},
		{"endless notices", func(c net.Conn) {
			for {
				if _, err := c.Write([]byte(endless)); err != nil {
					return
				}
			}
		}, "grant.timeout"},
		{"a result that nobody asked for", func(c net.Conn) {
			_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05ID\x00\x00\x00\x06\x00\x00C\x00\x00\x00\x0dSELECT 1\x00"))
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = listener.Close() })
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						defer func() { _ = conn.Close() }()
						_, _ = conn.Read(make([]byte, 1<<16)) // the beginning of the client
						test.serve(conn)
					}()
				}
			}()
			address := fmt.Sprintf("postgres://u:p@%s/d?sslmode=disable", listener.Addr())
			door := openDoor(t, nil, secrets{"dsn": address}, "sql = \"secret:dsn\"\nprivate = true\nqueries.one = \"select 1 as n\"")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = door.Do(ctx, &grant.Call{Op: "query", Request: []byte(`{"query":"one"}`)})
			p, ok := errors.AsType[*problem.Error](err)
			if !ok || test.code != "" && p.Code != test.code {
				t.Errorf("error = %v (%v); want %s", err, errors.Unwrap(err), test.code)
			}
		})
	}
}

// rotating is a store of one secret that changes.
type rotating struct {
	mu    *sync.Mutex
	value string
}

func (r *rotating) Value(context.Context, ident.Namespace, string, grant.Use) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return []byte(r.value), nil
}
