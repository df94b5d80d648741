package sqltext_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/manifest/sqltext"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		dialect sqltext.Dialect
		text    string
		want    sqltext.Statement
	}{
		{"insert", sqltext.PostgreSQL, "insert into t values ($1, $2)", sqltext.Statement{Params: 2, Write: true}},
		{"select", sqltext.SQLite, "SELECT * FROM t WHERE a = $1", sqltext.Statement{Params: 1}},
		{"semicolon at the end", sqltext.PostgreSQL, " select 1 ; -- done\n", sqltext.Statement{Text: "select 1"}},
		{"semicolon in a text", sqltext.PostgreSQL, "select ';', \";\"", sqltext.Statement{}},
		{"semicolon in dollar quotes", sqltext.PostgreSQL, "select $a$;$b$;$a$, $$;$1$$", sqltext.Statement{}},
		{"semicolon after an escaped quote", sqltext.PostgreSQL, `select E'\';'`, sqltext.Statement{}},
		{"backslash in a plain text", sqltext.PostgreSQL, `select '\', $1`, sqltext.Statement{Params: 1}},
		{"nested comment", sqltext.PostgreSQL, "select 1 /* ; /* ; */ ; */", sqltext.Statement{Text: "select 1"}},
		{"comment that does not nest", sqltext.SQLite, "select 1 /* /* ; */", sqltext.Statement{Text: "select 1"}},
		{"names in quotes", sqltext.SQLite, "select [;], `;` from t", sqltext.Statement{}},
		{"a parameter twice", sqltext.SQLite, "select $1, $1, $2", sqltext.Statement{Params: 2}},
		{"writing with", sqltext.PostgreSQL, "with x as (delete from t returning *) select * from x", sqltext.Statement{Write: true}},
		{"reading with", sqltext.PostgreSQL, "with x as (select 1) select * from x", sqltext.Statement{}},
		{"lock", sqltext.PostgreSQL, "select * from t for no key update", sqltext.Statement{Write: true}},
		{"into", sqltext.PostgreSQL, "select * into u from t", sqltext.Statement{Write: true}},
		{"a column called so", sqltext.PostgreSQL, `select "update", '$2' from t`, sqltext.Statement{}},
		{"operators with question marks", sqltext.PostgreSQL, "select data ? $1, data::text from t", sqltext.Statement{Params: 1}},
		{"dollar within a name", sqltext.PostgreSQL, "select a$1 from t", sqltext.Statement{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			want := test.want
			if want.Text == "" {
				want.Text = test.text
			}
			got, err := sqltext.Parse(test.dialect, test.text)
			if err != nil {
				t.Fatalf("Parse(%q): %v", test.text, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", test.text, diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		dialect sqltext.Dialect
		text    string
		at      string // what the error points at
		want    string
	}{
		{"two statements", sqltext.PostgreSQL, "select 1; drop table t", "drop", "second statement"},
		{"two after a closed comment", sqltext.SQLite, "select 1 /* /* */ ; drop table t -- */", "drop", "second statement"},
		{"two after a plain backslash", sqltext.PostgreSQL, `select '\'; drop table t --'`, "drop", "second statement"},
		{"nothing", sqltext.PostgreSQL, " ; ", " ; ", "no statement"},
		{"empty", sqltext.SQLite, "", "", "no statement"},
		{"data definition", sqltext.PostgreSQL, "drop table t", "drop", "begins with"},
		{"transaction", sqltext.PostgreSQL, "COMMIT", "COMMIT", "begins with"},
		{"copy", sqltext.PostgreSQL, "copy t from program 'id'", "copy", "begins with"},
		{"pragma", sqltext.SQLite, "pragma key = 1", "pragma", "begins with"},
		{"attach", sqltext.SQLite, "attach '/etc/passwd' as x", "attach", "begins with"},
		{"merge", sqltext.SQLite, "merge into t using u on true when matched then delete", "merge", "begins with"},
		{"a hole", sqltext.PostgreSQL, "select $1, $3", "$3", "no $2"},
		{"zero", sqltext.PostgreSQL, "select $0", "$0", "parameters are"},
		{"leading zero", sqltext.PostgreSQL, "select $01", "$01", "parameters are"},
		{"too many", sqltext.PostgreSQL, "select $101", "$101", "parameters are"},
		{"named", sqltext.SQLite, "select $id", "$id", "parameters are"},
		{"question mark", sqltext.SQLite, "select ?", "?", "parameters are"},
		{"colon", sqltext.SQLite, "select :id", ":", "parameters are"},
		{"open quote", sqltext.PostgreSQL, "select 'a", "'", "not closed"},
		{"open escape", sqltext.PostgreSQL, `select E'a\'`, "E'", "not closed"},
		{"open dollar quote", sqltext.PostgreSQL, "select $x$ a $y$", "$x$", "not closed"},
		{"open comment", sqltext.PostgreSQL, "select 1 /* /* */", "/*", "not closed"},
		{"NUL", sqltext.PostgreSQL, "select 1\x00", "\x00", "NUL"},
		{"session settings", sqltext.PostgreSQL, "select set_config('statement_timeout', '0', false)", "set_config", "not allowed"},
		{"too long", sqltext.PostgreSQL, "select '" + strings.Repeat("a", sqltext.MaxBytes) + "'", "", "at most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := sqltext.Parse(test.dialect, test.text)
			bad, ok := errors.AsType[*sqltext.Error](err)
			if !ok || !strings.Contains(bad.Detail, test.want) {
				t.Fatalf("Parse(%.80q) = %v; want %q", test.text, err, test.want)
			}
			if got := test.text[bad.Offset : bad.Offset+bad.Length]; got != test.at {
				t.Errorf("Parse(%.80q) points at %q; want %q", test.text, got, test.at)
			}
		})
	}
}

func TestParseSetup(t *testing.T) {
	t.Parallel()
	if got, err := sqltext.ParseSetup("create table t (a) ;"); got != "create table t (a)" || err != nil {
		t.Errorf("ParseSetup = %q, %v", got, err)
	}
	for _, text := range []string{"attach 'x' as y", "pragma user_version = 1", "create table t (a); drop table t", "insert into t values ($1)", "begin"} {
		if _, err := sqltext.ParseSetup(text); err == nil {
			t.Errorf("ParseSetup(%q) = nil; want an error", text)
		}
	}
}

// FuzzParse holds that an error points into the text, and that what was accepted is accepted again and has
// no semicolon outside of quotes: a text that is joined to it begins another statement.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"select $1", "select ';' -- x", "select E'\\';' /* /* */ */", "with x as (select $a$;$a$) select 1;", "values (`;`, [;])"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, text string, postgres bool) {
		dialect := sqltext.SQLite
		if postgres {
			dialect = sqltext.PostgreSQL
		}
		s, err := sqltext.Parse(dialect, text)
		if bad, ok := errors.AsType[*sqltext.Error](err); ok {
			if bad.Offset < 0 || bad.Length < 0 || bad.Offset+bad.Length > len(text) || bad.Detail == "" {
				t.Fatalf("Parse(%q) = %+v", text, bad)
			}
			return
		}
		if err != nil {
			t.Fatalf("Parse(%q) = %v; want an *Error", text, err)
		}
		again, err := sqltext.Parse(dialect, s.Text)
		if err != nil || again != s {
			t.Fatalf("Parse(%q) = %+v, %v; want %+v", s.Text, again, err, s)
		}
		// The space keeps what follows from becoming part of the last word.
		if len(s.Text)+len(" ; select 1") > sqltext.MaxBytes {
			return
		}
		if _, err := sqltext.Parse(dialect, s.Text+" ; select 1"); err == nil {
			t.Fatalf("Parse(%q) hides what follows", s.Text)
		}
	})
}
