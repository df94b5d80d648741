package sqlgrant_test

import (
	"fmt"
	"testing"

	"sallyport/internal/grant"
	"sallyport/internal/store"
)

// BenchmarkPostgres compares a named statement with the same statement through bare pgx, both prepared, in one run.
func BenchmarkPostgres(b *testing.B) {
	db := emptyDatabase(b, "create table orders (id text primary key, total integer)",
		"insert into orders select 'o-' || i, i from generate_series(1, 1000) i")
	const find, raise = "select id, total from orders where id = $1", "update orders set total = total + $2 where id = $1"
	door := postgresDoor(b, db, fmt.Sprintf("queries.find = %q\nqueries.raise = %q", find, raise))
	bare := connect(b, db)
	for _, text := range []string{find, raise} {
		if _, err := bare.Prepare(b.Context(), text, text); err != nil {
			b.Fatal(err)
		}
	}
	ask := func(b *testing.B, request string) {
		c := &grant.Call{Op: "query", Request: []byte(request)}
		for b.Loop() {
			if _, err := door.Do(b.Context(), c); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("read/bare", func(b *testing.B) {
		for b.Loop() {
			var id string
			var total int
			if err := bare.QueryRow(b.Context(), find, "o-500").Scan(&id, &total); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read/grant", func(b *testing.B) { ask(b, `{"query":"find","params":["o-500"]}`) })
	b.Run("write/bare", func(b *testing.B) {
		for b.Loop() {
			if _, err := bare.Exec(b.Context(), raise, "o-500", 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write/grant", func(b *testing.B) { ask(b, `{"query":"raise","params":["o-500",1]}`) })
}

// BenchmarkSQLite also compares databases whose roots are kept in a store, as those of a server are, with ones whose are not.
func BenchmarkSQLite(b *testing.B) {
	const orders = `sql = "sqlite:db"
setup = ["create table orders (id text primary key, total integer)", "insert into orders values ('o-500', 1)"]
queries.find = "select id, total from orders where id = $1"
queries.raise = "update orders set total = total + $2 where id = $1"`
	engine, err := store.Open(b.Context(), store.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = engine.Close() }) // it held roots only
	roots, err := engine.Bucket(b.Context(), "databases", newGCM(b))
	if err != nil {
		b.Fatal(err)
	}
	rooted := rootedFiles(b, b.TempDir(), roots)
	b.Cleanup(func() {
		if err := rooted.Close(); err != nil {
			b.Error(err)
		}
	})
	doors := map[string]grant.Door{"": openDoor(b, newFiles(b, b.TempDir()), nil, orders), "/rooted": openDoor(b, rooted, nil, orders)}
	for _, request := range []struct{ name, text string }{
		{"read", `{"query":"find","params":["o-500"]}`}, {"write", `{"query":"raise","params":["o-500",1]}`},
	} {
		for _, kind := range []string{"", "/rooted"} {
			b.Run(request.name+kind, func(b *testing.B) {
				c := &grant.Call{Op: "query", Request: []byte(request.text)}
				for b.Loop() {
					if _, err := doors[kind].Do(b.Context(), c); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
