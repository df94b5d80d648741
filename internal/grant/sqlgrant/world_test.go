package sqlgrant_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/internal/grant"
	"sallyport/internal/grant/sqlgrant"
	"sallyport/internal/grant/sqlgrant/sealedfile"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/testkit"
)

// postgres is the server of this package's tests, started by the first that wants it.
var postgres struct {
	once   sync.Once
	server *testkit.Postgres
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if postgres.server != nil {
		if err := postgres.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func server(t testing.TB) *testkit.Postgres {
	t.Helper()
	postgres.once.Do(func() { postgres.server, postgres.err = testkit.StartPostgres("fsync = off", "log_min_messages = log") })
	if postgres.err != nil {
		t.Fatal(postgres.err)
	}
	return postgres.server
}

var databases atomic.Int64

// emptyDatabase makes a database, runs statements in it, and returns its name.
func emptyDatabase(t testing.TB, statements ...string) string {
	t.Helper()
	name := fmt.Sprintf("test%d", databases.Add(1))
	direct(t, "postgres", "create database "+name)
	direct(t, name, statements...)
	return name
}

// direct runs statements without a grant.
func direct(t testing.TB, database string, statements ...string) {
	t.Helper()
	conn := connect(t, database)
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := conn.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server(t).Address(database, false))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// secrets reveals what it holds.
type secrets map[string]string

func (s secrets) Value(_ context.Context, _ ident.Namespace, ref string, _ grant.Use) ([]byte, error) {
	value, ok := s[ref]
	if !ok {
		return nil, problem.New(problem.NotFound, "secret.missing", "there is no secret %q", ref)
	}
	return []byte(value), nil
}

// gcm seals with a key of its own.
type gcm struct{ aead cipher.AEAD }

func newGCM(t testing.TB) gcm {
	t.Helper()
	block, err := aes.NewCipher(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return gcm{aead}
}

func (s gcm) Seal(dst, plain, aad []byte) ([]byte, error) {
	return s.aead.Seal(dst, nil, plain, aad), nil
}

func (s gcm) Open(dst, sealed, aad []byte) ([]byte, error) {
	return s.aead.Open(dst, nil, sealed, aad)
}

func newFiles(t testing.TB, dir string) *sqlgrant.Files {
	t.Helper()
	sealer := newGCM(t)
	files, err := sqlgrant.NewFiles(sqlgrant.FilesConfig{Dir: dir, Sealer: func(context.Context, ident.Namespace) (sealedfile.Sealer, error) { return sealer, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := files.Close(); err != nil {
			t.Error(err)
		}
	})
	return files
}

// parseGrant returns the grant of a manifest's text.
func parseGrant(t testing.TB, text string) manifest.Grant {
	t.Helper()
	app, err := manifest.ParseApp("app.toml", []byte("name = \"app\"\n[functions.f]\nsource = \"f.js\"\n[functions.f.grants.db]\n"+text))
	if err != nil {
		for _, f := range problem.From(err).Faults {
			t.Log(f.Detail)
		}
		t.Fatal(err)
	}
	return app.Functions["f"].Grants["db"]
}

// opening is what a door of a grant is opened for.
func opening(t testing.TB, text string) grant.Opening {
	t.Helper()
	return grant.Opening{Namespace: "shop", Function: "f", Revision: 1, Name: "db", Grant: parseGrant(t, text)}
}

func openDoor(t testing.TB, files *sqlgrant.Files, held secrets, text string) grant.Door {
	t.Helper()
	door, err := sqlgrant.New(files).Open(t.Context(), grant.Opening{
		Namespace: "shop", Function: "f", Revision: 1, Name: "db", Grant: parseGrant(t, text), Secrets: held,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := door.Close(); err != nil {
			t.Error(err)
		}
	})
	return door
}

// sqliteDoor opens a grant of an SQLite database of the test's own.
func sqliteDoor(t testing.TB, text string) grant.Door {
	t.Helper()
	return openDoor(t, newFiles(t, t.TempDir()), nil, "sql = \"sqlite:db\"\n"+text)
}

// postgresDoor opens a grant of a database of the server.
func postgresDoor(t testing.TB, database, text string) grant.Door {
	t.Helper()
	return openDoor(t, nil, secrets{"dsn": server(t).Address(database, false)}, "sql = \"secret:dsn\"\nprivate = true\n"+text)
}

// hang bounds a call: it only keeps a test from hanging.
const hang = 2 * time.Minute

func call(t testing.TB, door grant.Door, op, request string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	reply, err := door.Do(ctx, &grant.Call{Op: op, Request: []byte(request)})
	return string(reply.JSON), err
}

// query runs a named statement; params is the JSON of its parameters.
func query(t testing.TB, door grant.Door, name, params string) (string, error) {
	t.Helper()
	return call(t, door, "query", fmt.Sprintf(`{"query":%q,"params":[%s]}`, name, params))
}

func wantReply(t testing.TB, got string, err error, want string) {
	t.Helper()
	if err != nil {
		t.Fatalf("error %v (%v); want %s", err, errors.Unwrap(err), want)
	}
	if got != want {
		t.Errorf("reply = %s\n      want %s", got, want)
	}
}

// wantProblem wants a problem of that code, with a part of its text.
func wantProblem(t testing.TB, err error, code, part string) *problem.Error {
	t.Helper()
	p, ok := errors.AsType[*problem.Error](err)
	if !ok || p.Code != code || !strings.Contains(p.Public, part) {
		t.Fatalf("error = %v (%v); want %s with %q", err, errors.Unwrap(err), code, part)
	}
	return p
}

func openWith(t testing.TB, held grant.Secrets, text string) (grant.Door, error) {
	t.Helper()
	door, err := sqlgrant.New(nil).Open(t.Context(), grant.Opening{
		Namespace: "shop", Function: "f", Revision: 1, Name: "db", Grant: parseGrant(t, text), Secrets: held,
	})
	if err == nil {
		t.Cleanup(func() {
			if err := door.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return door, err
}
