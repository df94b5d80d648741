// Package sqltext looks at the text of a named SQL statement before any database sees it: that it is one
// statement, of a kind that reads or changes rows, with parameters $1 to $n, and whether it changes anything.
//
// It is a lexer with a few rules and no parser of SQL. It says early, with the place, what is wrong with a
// manifest; it is not what keeps statements apart. That is done by how they are sent: prepared, one at a
// time, so that a database refuses a second one, with parameters beside the text and never in it.
//
// Callers: manifest.
package sqltext

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Dialect says whose SQL a text is.
type Dialect uint8

// The dialects.
const (
	PostgreSQL Dialect = iota + 1
	SQLite
)

// String returns the name that messages use.
func (d Dialect) String() string {
	if d == SQLite {
		return "SQLite"
	}
	return "PostgreSQL"
}

// Limits of a statement.
const (
	// MaxBytes bounds the text of a statement, in bytes.
	MaxBytes = 16 << 10
	// MaxParams bounds its parameters.
	MaxParams = 100
)

// Statement is a text that was looked at.
type Statement struct {
	// Text is the statement without a semicolon at its end.
	Text string
	// Params is the number of its parameters, $1 to $Params.
	Params int
	// Write says that it seems to change something, or to lock rows.
	Write bool
}

// Error says what is wrong with a statement, and where, in bytes.
type Error struct {
	Offset, Length int
	Detail         string
}

// Error returns the detail.
func (e *Error) Error() string { return e.Detail }

func faultAt(t token, format string, args ...any) error {
	return &Error{Offset: t.offset, Length: len(t.text), Detail: fmt.Sprintf(format, args...)}
}

// reads and writes are the words that a named statement may begin with. Everything else, from "begin" to
// "copy", is for the people who keep the database.
var (
	reads  = []string{"select", "values", "with"}
	writes = []string{"insert", "update", "delete", "merge", "replace"}
)

// Parse looks at a named statement. The error is an *Error.
func Parse(d Dialect, text string) (Statement, error) {
	tokens, err := single(d, text)
	if err != nil {
		return Statement{}, err
	}
	first := tokens[0]
	if !slices.Contains(reads, first.word()) && !slices.Contains(writes, first.word()) ||
		first.word() == "merge" && d == SQLite || first.word() == "replace" && d == PostgreSQL {
		return Statement{}, faultAt(first, "a named statement begins with one of select, insert, update, delete, values, with, %s", own(d))
	}
	params, err := params(d, tokens)
	if err != nil {
		return Statement{}, err
	}
	for _, t := range tokens {
		if d == PostgreSQL && t.word() == "set_config" {
			return Statement{}, faultAt(t, "set_config is not allowed: it could lift the limits of the session")
		}
	}
	return Statement{Text: trimmed(text, tokens), Params: params, Write: changes(tokens)}, nil
}

func own(d Dialect) string {
	if d == SQLite {
		return "replace"
	}
	return "merge"
}

// setups are the words that a statement which sets up a database may begin with.
var setups = []string{"create", "alter", "drop", "insert", "update", "delete", "replace"}

// ParseSetup looks at a statement that makes or changes tables of an SQLite database. It has no parameters.
func ParseSetup(text string) (string, error) {
	tokens, err := single(SQLite, text)
	if err != nil {
		return "", err
	}
	if !slices.Contains(setups, tokens[0].word()) {
		return "", faultAt(tokens[0], "a statement that sets up a database begins with one of %s", strings.Join(setups, ", "))
	}
	for _, t := range tokens {
		if t.kind == kindParam {
			return "", faultAt(t, "a statement that sets up a database has no parameters")
		}
	}
	return trimmed(text, tokens), nil
}

// single returns the tokens of a text that is one statement, without the semicolon at its end. A trigger,
// whose body has semicolons, is none: its statements would be no named ones.
func single(d Dialect, text string) ([]token, error) {
	if len(text) > MaxBytes {
		return nil, &Error{Detail: fmt.Sprintf("the statement is %d bytes, at most %d are allowed", len(text), MaxBytes)}
	}
	tokens, err := scan(d, text)
	if err != nil {
		return nil, err
	}
	for i, t := range tokens {
		if t.text != ";" {
			continue
		}
		if i+1 < len(tokens) {
			return nil, faultAt(tokens[i+1], "a second statement; a named statement is one, use a transaction for several")
		}
		tokens = tokens[:i]
	}
	if len(tokens) == 0 {
		return nil, &Error{Length: len(text), Detail: "there is no statement in it"}
	}
	return tokens, nil
}

// trimmed returns the text from the first to the last token.
func trimmed(text string, tokens []token) string {
	last := tokens[len(tokens)-1]
	return text[tokens[0].offset : last.offset+len(last.text)]
}

// params counts the parameters, which MUST be $1 to $n: a hole is a forgotten one.
func params(d Dialect, tokens []token) (int, error) {
	seen := map[int]token{}
	most := 0
	for _, t := range tokens {
		if t.kind != kindParam {
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(t.text, "$"))
		if err != nil || n < 1 || n > MaxParams || t.text != "$"+strconv.Itoa(n) {
			return 0, faultAt(t, "parameters are $1 to $%d in a named statement of %s", MaxParams, d)
		}
		seen[n] = t
		most = max(most, n)
	}
	for n := 1; n <= most; n++ {
		if _, ok := seen[n]; !ok {
			return 0, faultAt(seen[most], "there is $%d, but no $%d", most, n)
		}
	}
	return most, nil
}

// changes reports whether a statement seems to need a transaction that writes. What it does not see, such as
// a function with side effects, the database refuses in a transaction that only reads.
func changes(tokens []token) bool {
	if slices.Contains(writes, tokens[0].word()) {
		return true
	}
	for i, t := range tokens[1:] {
		before := tokens[i].word()
		switch t.word() {
		case "insert", "delete", "merge":
			if tokens[0].word() == "with" {
				return true
			}
		case "update", "share", "no", "key":
			// "for update" locks rows; "with … update" changes them.
			if before == "for" || t.word() == "update" && tokens[0].word() == "with" {
				return true
			}
		case "into":
			return true // select … into makes a table
		}
	}
	return false
}
