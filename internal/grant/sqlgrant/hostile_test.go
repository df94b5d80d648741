package sqlgrant_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/problem"
)

// corpusFolder names the variable of a folder with more values: files *.jsonl, in it and below, of objects with "fields".
const corpusFolder = "SALLYPORT_CORPUS"

// ownValues are values that would do something if they became part of a statement, on either database.
func ownValues() []string {
	values := []string{
		"'", "''", "\"", "`", "\\", "\\'", ";", "--", "/*", "*/", "$1", "$$", "$a$", "?", ":id", "@id", "%", "_", "\u2019", "ʼ", "＇", "\xbf'", "\r\n", "\t",
		"'); drop table victims; --", "' or '1'='1", "1; drop table victims", "\\'; drop table victims; --", "$$; drop table victims; $$",
		"' union select secret from victims --", "'||(select secret from victims)||'", "{\"a\",\"b\"}", "{1,2}", "\\x27", "E'\\''", "U&'\\0027'",
		"0x27", "1e400", "NaN", "null", "NULL", "default", "current_user", "(select 1)", "pg_sleep(10)", "'; select pg_sleep(10); --",
		"'; copy victims to program 'id'; --", "'; attach database '/tmp/x' as x; --", "load_extension('x')", "\ufeff'; drop table victims; --",
	}
	for _, wrap := range []string{"'%s'", "\"%s\"", "')%s--", "\\'%s", "$x$%s$x$", "/*%s*/"} {
		values = append(values, fmt.Sprintf(wrap, "; drop table victims; "), strings.Repeat(fmt.Sprintf(wrap, "a"), 500))
	}
	return values
}

// hostileValues returns our own values, and those of the folder that corpusFolder names.
func hostileValues(t *testing.T) []string {
	t.Helper()
	values := ownValues()
	root := os.Getenv(corpusFolder)
	if root == "" {
		return values
	}
	files, err := filepath.Glob(filepath.Join(root, "*", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s=%s has no files */*.jsonl (%v)", corpusFolder, root, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(content))
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var entry struct {
				Fields map[string]any `json:"fields"`
			}
			if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for name, v := range entry.Fields {
				if s, ok := v.(string); ok {
					values = append(values, s)
				}
				values = append(values, name)
			}
		}
	}
	return values
}

// No value of a parameter, of any type, does anything beyond its statement: it is stored and comes back as it is, or it is refused, and
// the table beside it stays what it was.
func TestValuesAreNotCode(t *testing.T) {
	t.Parallel()
	values := hostileValues(t)
	t.Logf("%d values", len(values))
	const victims = "create table victims (secret text)"
	const plant = "insert into victims values ('planted')"
	const queries = `
queries.insert = "insert into kept (id, v) values ($1, $2)"
queries.get = "select v from kept where v = $1 and id = $2"
queries.typed = "select $1 + 1 as n from victims"
queries.typedList = "%s"
queries.witness = "select secret, (select cast(count(*) as integer) from kept) as kept from victims"
limits.request = "8MiB"
limits.reply = "8MiB"
max_rows = 3
`
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		list := "select count(*) as n from json_each($1)"
		door := sqliteDoor(t, fmt.Sprintf("setup = [%q, \"create table kept (id integer, v text)\", %q]\n", victims, plant)+fmt.Sprintf(queries, list))
		storeAll(t, door, values)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		list := "select cast(cardinality($1::text[]) as integer) as n"
		db := emptyDatabase(t, victims, "create table kept (id integer, v text)", plant)
		storeAll(t, postgresDoor(t, db, strings.Replace(fmt.Sprintf(queries, list), "$1 + 1", "$1::integer + 1", 1)), values)
	})
}

func storeAll(t *testing.T, door grant.Door, values []string) {
	t.Helper()
	kept := 0
	for i, v := range values {
		quoted, err := json.Marshal(strings.ToValidUTF8(v, "\ufffd"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := query(t, door, "insert", fmt.Sprintf("%d, %s", i, quoted)); err != nil {
			wantProblem(t, err, "grant.sql_parameter", "") // a NUL
			continue
		}
		kept++
		got, err := query(t, door, "get", fmt.Sprintf("%s, %d", quoted, i))
		if err != nil || !sameRow(t, got, quoted) {
			t.Fatalf("value %d, %.60s: came back as %.200s, %v", i, quoted, got, err)
		}
		// Where a number or a list is wanted, it is refused or converted, and nothing else.
		_, _ = query(t, door, "typed", string(quoted))
		_, _ = query(t, door, "typedList", string(quoted))
		_, _ = query(t, door, "typedList", "["+string(quoted)+"]")
	}
	got, err := query(t, door, "witness", "")
	wantReply(t, got, err, fmt.Sprintf(`{"rows":[{"secret":"planted","kept":%d}],"changed":0}`, kept))
}

// sameRow reports whether a reply is one row whose v is the JSON text.
func sameRow(t *testing.T, reply string, quoted []byte) bool {
	t.Helper()
	var got struct {
		Rows []struct {
			V string `json:"v"`
		} `json:"rows"`
		Changed int `json:"changed"`
	}
	var want string
	if err := json.Unmarshal([]byte(reply), &got); err != nil {
		t.Fatalf("%s: %v", reply, err)
	}
	if err := json.Unmarshal(quoted, &want); err != nil {
		t.Fatal(err)
	}
	return len(got.Rows) == 1 && got.Rows[0].V == want
}

// What SQLite statements may not do is refused when they are prepared, although they begin with an allowed word.
func TestSQLiteStatementsReachTheirTablesOnly(t *testing.T) {
	t.Parallel()
	door := sqliteDoor(t, `
setup = ["create table t (a)"]
queries.schema = "select sql from sqlite_master"
queries.setup = "select * from sallyport_setup"
queries.forge = "insert into sallyport_setup values ('x')"
queries.pragma = "select * from pragma_table_info('t')"
queries.hidden = "with x as (select 1) select writefile('/tmp/x', 'x')"
`)
	for name, code := range map[string]string{"schema": "grant.sql_statement", "setup": "grant.sql_statement", "forge": "grant.sql_statement",
		"pragma": "grant.sql_privilege", "hidden": "grant.sql_statement"} {
		_, err := query(t, door, name, "")
		wantProblem(t, err, code, name)
	}
}

// The file of a database holds nothing in clear, survives a restart, and one changed byte of it is found.
func TestSQLiteSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const text = `sql = "sqlite:db"
setup = ["create table people (name text)", "insert into people values ('planted in clear')"]
queries.insert = "insert into people values ($1)"
queries.all = "select name from people order by name"`
	files := newFiles(t, dir)
	door := openDoor(t, files, nil, text)
	if _, err := query(t, door, "insert", `"jane in clear"`); err != nil {
		t.Fatal(err)
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "shop", "db.sealed")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, []byte("in clear")) || bytes.Contains(content, []byte("people")) || bytes.Contains(content, []byte("SQLite")) {
		t.Error("the file has content in clear")
	}
	entries, err := os.ReadDir(filepath.Join(dir, "shop"))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %d entries (%v): something was written beside the database", len(entries), err)
	}
	again := openDoor(t, newFiles(t, dir), nil, text)
	got, err := query(t, again, "all", "")
	wantReply(t, got, err, `{"rows":[{"name":"jane in clear"},{"name":"planted in clear"}],"changed":0}`)

	other := t.TempDir()
	if err := os.Mkdir(filepath.Join(other, "shop"), 0o700); err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(filepath.Join(other, "shop", "db.sealed"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := openDoor(t, newFiles(t, other), nil, text)
	_, err = query(t, damaged, "all", "")
	wantProblem(t, err, "grant.sql_damaged", "shop/db")
}

// A database ends at its size, with an error, and goes on when there is room again.
func TestSQLiteSize(t *testing.T) {
	t.Parallel()
	door := sqliteDoor(t, `
size = "128KiB"
setup = ["create table t (a text)"]
queries.insert = "insert into t values ($1)"
queries.empty = "delete from t"
queries.count = "select count(*) as n from t"`)
	value := fmt.Sprintf("%q", strings.Repeat("x", 4000))
	for i := 0; ; i++ {
		if _, err := query(t, door, "insert", value); err != nil {
			wantProblem(t, err, "grant.sql_full", "insert")
			break
		}
		if i > 32 {
			t.Fatal("33 rows of 4,000 bytes fit in 128 KiB")
		}
	}
	if _, err := query(t, door, "empty", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := query(t, door, "insert", value); err != nil {
		t.Fatal(err)
	}
}

// TestSQLiteHugeValues: a value that a statement makes of nothing, and that is larger than the memory of a database or than an answer may be, is refused with a
// code, whatever size it has, and the database goes on.
func TestSQLiteHugeValues(t *testing.T) {
	t.Parallel()
	door := sqliteDoor(t, `
queries.zeros = "select zeroblob($1) as z"
queries.text = "select printf('%.*c', $1, 'x') as z"
queries.hex = "select hex(zeroblob($1)) as z"
queries.small = "select zeroblob(3) as z"`)
	codes := []string{"grant.sql_too_large", "grant.sql_exhausted", "grant.sql_value"}
	for _, name := range []string{"zeros", "text", "hex"} {
		for _, size := range []int{10 << 20, 40 << 20, 60 << 20, 64 << 20, 70 << 20, 100_000_000, 900_000_000, 1_000_000_001} {
			got, err := query(t, door, name, fmt.Sprint(size))
			if err == nil && size < 64<<20 {
				continue // the door gives no more than its memory; what of it a function gets is bounded by limits.reply
			}
			if p, ok := errors.AsType[*problem.Error](err); !ok || !slices.Contains(codes, p.Code) {
				t.Errorf("%s of %d bytes: %.100s, %v; want one of %q", name, size, got, err, codes)
			}
		}
		got, err := query(t, door, "small", "")
		wantReply(t, got, err, `{"rows":[{"z":"AAAA"}],"changed":0}`)
		if got, err := query(t, door, name, "1"); err != nil {
			t.Errorf("%s of a byte, afterwards: %s, %v", name, got, err)
		}
	}
}
