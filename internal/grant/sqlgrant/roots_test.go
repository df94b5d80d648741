package sqlgrant_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"sallyport/internal/grant/sqlgrant"
	"sallyport/internal/grant/sqlgrant/sealedfile"
	"sallyport/internal/ident"
	"sallyport/internal/store"
)

// bucket is a store that outlives Files, and can be told to fail.
type bucket struct {
	mu    sync.Mutex
	kept  map[string][]byte
	fails error
}

func (b *bucket) Get(_ context.Context, key string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v, ok := b.kept[key]; ok && b.fails == nil {
		return v, nil
	}
	return nil, errors.Join(b.fails, store.ErrNotFound)
}

func (b *bucket) Put(_ context.Context, key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails == nil {
		b.kept[key] = value
	}
	return b.fails
}

func (b *bucket) Delete(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.kept, key)
	return b.fails
}

func (b *bucket) all() map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.kept)
}

// rootedFiles returns the databases of a folder whose roots are in b. Its owner closes it.
func rootedFiles(t testing.TB, dir string, b sqlgrant.Roots) *sqlgrant.Files {
	t.Helper()
	sealer := newGCM(t)
	files, err := sqlgrant.NewFiles(sqlgrant.FilesConfig{
		Dir: dir, Sealer: func(context.Context, ident.Namespace) (sealedfile.Sealer, error) { return sealer, nil },
		Roots: func(context.Context, ident.Namespace) (sqlgrant.Roots, error) { return b, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

const rooted = `sql = "sqlite:db"
setup = ["create table orders (id text primary key)"]
queries.add = "insert into orders values ($1)"
queries.all = "select count(*) as n from orders"`

// with runs something on the database in a folder, as one run of the server.
func with(t *testing.T, dir string, b sqlgrant.Roots, use func(ask func(name, params string) (string, error))) {
	t.Helper()
	files := rootedFiles(t, dir, b)
	door, err := sqlgrant.New(files).Open(t.Context(), opening(t, rooted))
	if err != nil {
		t.Fatal(err)
	}
	use(func(name, params string) (string, error) { return query(t, door, name, params) })
	if err := errors.Join(door.Close(), files.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestOlderFilePutBack: the file of yesterday, whole and sealed as it is, does not open; the newer one does, and the older one once somebody
// accepted it, after which the newer one is refused.
func TestOlderFilePutBack(t *testing.T) {
	t.Parallel()
	dir, b := t.TempDir(), &bucket{kept: map[string][]byte{}}
	path := filepath.Join(dir, "shop", "db.sealed")
	read := func() []byte {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	put := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add := func(id string) {
		t.Helper()
		with(t, dir, b, func(ask func(string, string) (string, error)) {
			got, err := ask("add", `"`+id+`"`)
			wantReply(t, got, err, `{"rows":[],"changed":1}`)
		})
	}
	holds := func(want string) {
		t.Helper()
		with(t, dir, b, func(ask func(string, string) (string, error)) {
			got, err := ask("all", "")
			wantReply(t, got, err, `{"rows":[{"n":`+want+`}],"changed":0}`)
		})
	}
	refused := func() {
		t.Helper()
		with(t, dir, b, func(ask func(string, string) (string, error)) {
			for _, name := range []string{"all", "add"} {
				params := map[string]string{"add": `"x"`}[name]
				_, err := ask(name, params)
				wantProblem(t, err, "grant.sql_rolled_back", "shop/db")
			}
		})
	}
	accept := func(code string) *sqlgrant.Accepted {
		t.Helper()
		files := rootedFiles(t, dir, b)
		out, err := files.Accept(t.Context(), "shop", "db")
		if code != "" {
			wantProblem(t, err, code, "db")
		} else if err != nil {
			t.Fatal(err)
		}
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		return out
	}

	accept("grant.sql_no_database")
	add("a")
	yesterday := read()
	add("b")
	today := read()
	accept("grant.sql_not_rolled_back")
	put(yesterday)
	refused()
	put(today)
	holds("2")

	put(yesterday)
	if out := accept(""); out.Gone || out.Known <= out.Found || out.Recorded.IsZero() {
		t.Errorf("Accept = %+v", out)
	}
	holds("1")
	add("c")
	mine := read()
	for _, other := range [][]byte{today, yesterday} {
		put(other)
		refused()
	}
	put(mine)
	holds("2")

	// A file that is gone is none that never was.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	refused()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file was made anew: %v", err)
	}
	if out := accept(""); !out.Gone {
		t.Errorf("Accept = %+v, want that it is gone", out)
	}
	holds("0")

	// A server before roots were kept left none; and what is kept and cannot be read opens nothing.
	b.kept = map[string][]byte{}
	holds("0")
	if len(b.kept) != 1 {
		t.Error("nothing is kept of a database that was there before")
	}
	b.kept["db"] = []byte("{")
	with(t, dir, b, func(ask func(string, string) (string, error)) {
		if got, err := ask("all", ""); err == nil {
			t.Errorf("with a root that cannot be read: %s", got)
		}
	})
}

// TestKilledAtAnyMoment: whatever the store had of a database that is used, its file, as a kill leaves it then or later, opens.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	dir, b := t.TempDir(), &bucket{kept: map[string][]byte{}}
	path := filepath.Join(dir, "shop", "db.sealed")
	copies := 0
	killed := func() {
		t.Helper()
		copies++
		kept := b.all() // the store first: the file only grows
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		left := filepath.Join(t.TempDir(), "left")
		if err := os.MkdirAll(filepath.Join(left, "shop"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(left, "shop", "db.sealed"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		with(t, left, &bucket{kept: kept}, func(ask func(string, string) (string, error)) {
			if _, err := ask("all", ""); err != nil {
				t.Fatalf("after a kill: %v (%v)", err, errors.Unwrap(err))
			}
		})
	}
	for run := range 4 {
		with(t, dir, b, func(ask func(string, string) (string, error)) {
			for i := range 10 {
				if _, err := ask("add", `"`+string(rune('a'+run))+string(rune('a'+i))+`"`); err != nil {
					t.Fatal(err)
				}
				killed()
			}
		})
		killed()
	}
	if copies != 44 {
		t.Errorf("%d kills", copies)
	}
	// A store that does not answer stops no commit, and the next close says so.
	files := rootedFiles(t, dir, b)
	door, err := sqlgrant.New(files).Open(t.Context(), opening(t, rooted))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := query(t, door, "all", ""); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.fails = errors.New("the store is gone")
	b.mu.Unlock()
	if _, err := query(t, door, "add", `"zz"`); err != nil {
		t.Errorf("a commit without the store: %v", err)
	}
	if err := errors.Join(door.Close(), files.Close()); err == nil {
		t.Error("a root that could not be kept is not told of")
	}
}
