package sqlgrant

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/problem"
)

// limit bounds an answer.
type limit struct{ rows, bytes int }

// answer is the JSON that a function gets: {"rows": […], "changed": n} for one statement, a list of them for a transaction.
type answer struct {
	limit   limit
	single  bool
	json    []byte
	results int
	rows    int // of this result
	columns int // of this row
}

func newAnswer(l limit, single bool) *answer { return &answer{limit: l, single: single} }

// begin begins the result of the next statement.
func (a *answer) begin() {
	if a.results > 0 {
		a.json = append(a.json, ',')
	}
	a.results++
	a.rows = 0
	a.json = append(a.json, `{"rows":[`...)
}

// row begins a row.
func (a *answer) row(name string) error {
	if a.rows == a.limit.rows {
		return problem.New(problem.TooLarge, "grant.sql_too_many_rows", "statement %q gives more than %d rows", name, a.limit.rows).
			WithHint("add a limit to the statement, or raise max_rows of the grant")
	}
	if len(a.json) > a.limit.bytes {
		return problem.New(problem.TooLarge, "grant.sql_too_large", "statement %q gives more than %d bytes", name, a.limit.bytes).
			WithHint("ask for fewer columns or rows, or raise limits.reply of the grant")
	}
	if a.rows > 0 {
		a.json = append(a.json, ',')
	}
	a.rows++
	a.columns = 0
	a.json = append(a.json, '{')
	return nil
}

// column begins a column; its value is appended to a.json after that. key is the name as JSON, with a colon.
func (a *answer) column(key []byte) {
	if a.columns > 0 {
		a.json = append(a.json, ',')
	}
	a.columns++
	a.json = append(a.json, key...)
}

func (a *answer) endRow() { a.json = append(a.json, '}') }

// end ends the result of a statement, which changed that many rows.
func (a *answer) end(changed int64) {
	a.json = append(a.json, `],"changed":`...)
	a.json = strconv.AppendInt(a.json, changed, 10)
	a.json = append(a.json, '}')
}

func (a *answer) finish() []byte {
	if a.single {
		return a.json
	}
	out := make([]byte, 0, len(a.json)+2)
	out = append(out, '[')
	return append(append(out, a.json...), ']')
}

// keys returns the names of columns as the keys of a JSON object. Two of one name would hide each other.
func keys(statement string, names []string) ([][]byte, error) {
	seen := map[string]bool{}
	out := make([][]byte, len(names))
	for i, name := range names {
		if seen[name] {
			return nil, problem.New(problem.Invalid, "grant.sql_columns", "statement %q gives two columns called %q", statement, clip(name)).
				WithHint("give one of them another name with as")
		}
		seen[name] = true
		key, err := jsontext.AppendQuote(nil, name)
		if err != nil {
			return nil, problem.New(problem.Invalid, "grant.sql_columns", "statement %q gives a column whose name is not UTF-8", statement)
		}
		out[i] = append(key, ':')
	}
	return out, nil
}
