package sqlgrant_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/internal/grant"
	"sallyport/internal/grant/sqlgrant"
	"sallyport/internal/grant/sqlgrant/sealedfile"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// quota is a namespace's part of the disk, as the server has it.
type quota struct {
	mu      sync.Mutex
	limit   int64
	flying  int64
	most    int64 // that was stored
	refused int
	files   *sqlgrant.Files
}

func (q *quota) admit(ns ident.Namespace, n int64) (func(), error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.files.Stored(ns)+q.flying+n > q.limit {
		q.refused++
		return nil, problem.New(problem.Exhausted, "namespace.storage_full", "no room for %d", n)
	}
	q.flying += n
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.flying -= n
		q.most = max(q.most, q.files.Stored(ns))
	}, nil
}

// bounded returns the databases of a folder whose namespace has a quota.
func bounded(t testing.TB, dir string, limit int64) *quota {
	t.Helper()
	sealer := newGCM(t)
	q := &quota{limit: limit}
	var err error
	q.files, err = sqlgrant.NewFiles(sqlgrant.FilesConfig{
		Dir: dir, Sealer: func(context.Context, ident.Namespace) (sealedfile.Sealer, error) { return sealer, nil },
		Ready: func(ctx context.Context, ns ident.Namespace) error { return q.files.Measure(ctx, ns) },
		Admit: q.admit,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.files.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

const keptGrant = `setup = ["create table kept (id integer primary key, data text)"]
queries.insert = "insert into kept values ($1, $2)"
queries.update = "update kept set data = $2 where id = $1"
queries.delete = "delete from kept where id >= $1"
queries.count = "select count(*) as n, coalesce(sum(length(data)), 0) as size from kept"
`

// fill inserts rows of 10,000 bytes until one is refused, and returns how many there are.
func fill(t testing.TB, door grant.Door, from int) int {
	t.Helper()
	for i := from; ; i++ {
		_, err := query(t, door, "insert", fmt.Sprintf("%d,%q", i, strings.Repeat("r", 10_000)))
		if err != nil {
			wantProblem(t, err, "namespace.storage_full", "no room")
			return i
		}
	}
}

// TestStoredBytes: a database takes its pages on the quota of its namespace, a commit that would exceed it is taken back whole, and what deletes leave
// is given back.
func TestStoredBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := bounded(t, dir, 1<<20)
	door := openDoor(t, q.files, nil, "sql = \"sqlite:db\"\n"+keptGrant)
	n := fill(t, door, 0)
	count := func(d grant.Door, n int) {
		t.Helper()
		got, err := query(t, d, "count", "")
		wantReply(t, got, err, fmt.Sprintf(`{"rows":[{"n":%d,"size":%d}],"changed":0}`, n, n*10_000))
	}
	count(door, n)
	if stored := q.files.Stored("shop"); stored > q.limit || stored < q.limit*9/10 || n < 70 {
		t.Errorf("%d rows take %d bytes of %d", n, stored, q.limit)
	}

	// A transaction is refused whole; one that needs no more than it frees is not.
	row := strings.Repeat("s", 10_000)
	_, err := call(t, door, "transaction", fmt.Sprintf(`{"statements":[{"query":"update","params":[0,"x"]},{"query":"insert","params":[1000,%q]},{"query":"insert","params":[1001,%q]}]}`, row+row, row))
	wantProblem(t, err, "namespace.storage_full", "no room")
	count(door, n)
	if _, err := call(t, door, "transaction", fmt.Sprintf(`{"statements":[{"query":"delete","params":[%d]},{"query":"insert","params":[1000,%q]}]}`, n-1, row)); err != nil {
		t.Errorf("an exchange of rows: %v", err)
	}
	count(door, n)

	// Who comes after a restart finds the same, whether a database was opened or not.
	stored := q.files.Stored("shop")
	if err := door.Close(); err != nil {
		t.Fatal(err)
	}
	q = bounded(t, dir, 1<<20)
	if err := q.files.Measure(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if got := q.files.Stored("shop"); got != stored {
		t.Errorf("measured %d bytes; there were %d", got, stored)
	}
	other := openDoor(t, q.files, nil, "sql = \"sqlite:other\"\nqueries.one = \"select 1\"")
	_, err = query(t, other, "one", "")
	wantProblem(t, err, "namespace.storage_full", "no room")
	door = openDoor(t, q.files, nil, "sql = \"sqlite:db\"\n"+keptGrant)
	count(door, n)
	if got := q.files.Stored("shop"); got != stored {
		t.Errorf("%d bytes when it is open; there were %d", got, stored)
	}

	// With nothing left of the quota, deleting works, and gives the room to others.
	q.limit = 0
	if _, err := query(t, door, "delete", "1"); err != nil {
		t.Fatal(err)
	}
	if got := q.files.Stored("shop"); got > 200_000 {
		t.Errorf("%d bytes are left of %d", got, stored)
	}
	q.limit = 1 << 20
	if _, err := query(t, other, "one", ""); err != nil {
		t.Error(err)
	}
	if again := fill(t, door, 1); again < n-5 {
		t.Errorf("%d rows fit, and did before: %d", again, n)
	}
	if err := q.files.Remove("shop"); err != nil || q.files.Stored("shop") != 0 {
		t.Errorf("%d bytes are left, %v", q.files.Stored("shop"), err)
	}
}

// TestStoredBytesOfMany: databases that grow at once do not exceed the quota together.
func TestStoredBytesOfMany(t *testing.T) {
	t.Parallel()
	q := bounded(t, t.TempDir(), 2<<20)
	var running sync.WaitGroup
	for i := range 4 {
		door := openDoor(t, q.files, nil, fmt.Sprintf("sql = \"sqlite:db%d\"\n", i)+keptGrant)
		running.Go(func() {
			for row := range 200 {
				if _, err := query(t, door, "insert", fmt.Sprintf("%d,%q", row, strings.Repeat("r", 10_000))); err != nil {
					if problem.From(err).Code != "namespace.storage_full" {
						t.Error(err)
					}
					return
				}
			}
			t.Error("nothing was refused")
		})
	}
	running.Wait()
	if stored := q.files.Stored("shop"); stored > q.limit || q.most > q.limit || stored < q.limit*9/10 || q.refused != 4 {
		t.Errorf("%d bytes are stored, %d at most, of %d; %d were refused", stored, q.most, q.limit, q.refused)
	}
}

// TestStoredBytesModel: whatever is refused, the rows are those of the changes that were not, also after the database was closed and opened, and their
// index agrees with them.
func TestStoredBytesModel(t *testing.T) {
	t.Parallel()
	const text = "sql = \"sqlite:db\"\n" + `setup = ["create table kept (id integer primary key, size integer not null, data text not null)", "create index sizes on kept (size, data)"]
queries.put = "insert into kept values ($1, $2, $3) on conflict (id) do update set size = excluded.size, data = excluded.data"
queries.delete = "delete from kept where id = $1"
queries.rows = "select id, size, length(data) as length from kept order by id"
queries.sizes = "select count(*) as n, coalesce(sum(size), 0) as size from kept indexed by sizes where size >= 0"
`
	const seed = 7
	random := rand.New(rand.NewPCG(seed, seed))
	dir := t.TempDir()
	q := bounded(t, dir, 400_000)
	door := openDoor(t, q.files, nil, text)
	model := map[int]int{}
	check := func() {
		t.Helper()
		var rows []string
		total := 0
		for _, id := range slices.Sorted(maps.Keys(model)) {
			rows = append(rows, fmt.Sprintf(`{"id":%d,"size":%d,"length":%d}`, id, model[id], model[id]))
			total += model[id]
		}
		got, err := query(t, door, "rows", "")
		wantReply(t, got, err, `{"rows":[`+strings.Join(rows, ",")+`],"changed":0}`)
		got, err = query(t, door, "sizes", "")
		wantReply(t, got, err, fmt.Sprintf(`{"rows":[{"n":%d,"size":%d}],"changed":0}`, len(model), total))
	}
	for step := range 600 {
		next := maps.Clone(model)
		var statements []string
		grows := false
		for range 1 + random.IntN(4) {
			id := random.IntN(40)
			if random.IntN(3) == 0 {
				statements = append(statements, fmt.Sprintf(`{"query":"delete","params":[%d]}`, id))
				delete(next, id)
				continue
			}
			size := random.IntN(12_000)
			statements = append(statements, fmt.Sprintf(`{"query":"put","params":[%d,%d,%q]}`, id, size, strings.Repeat("d", size)))
			next[id], grows = size, true
		}
		if _, err := call(t, door, "transaction", `{"statements":[`+strings.Join(statements, ",")+`]}`); err == nil {
			model = next
		} else if wantProblem(t, err, "namespace.storage_full", "no room"); !grows {
			t.Error("a transaction was refused that only deletes")
		} else {
			check()
		}
		if step%100 == 99 {
			check()
			if err := door.Close(); err != nil {
				t.Fatal(err)
			}
			door = openDoor(t, q.files, nil, text)
			check()
		}
	}
	if stored := q.files.Stored("shop"); q.refused < 20 || stored > q.limit {
		t.Errorf("seed %d: %d were refused, %d bytes are stored of %d", seed, q.refused, stored, q.limit)
	}
}
