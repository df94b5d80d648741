package manifest

import (
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// The ends of the names of files of function tests, and of fixtures that several tests and `dev` share.
const (
	FunctionTestFile = ".test.toml"
	FixtureFile      = ".fixtures.toml"
)

// Limits of a file of function tests.
const (
	maxFunctionTests = 1000  // in one file
	maxDoubles       = 1000  // of one test, and of one file
	maxExpected      = 1000  // events, or lines of the log, of one test
	maxDoubleTimes   = 10000 // uses of one double
)

// FunctionTests is a file of tests of one function.
type FunctionTests struct {
	Function ident.FunctionName
	// Fixtures are other files whose answers hold for every test here: paths beside this file.
	Fixtures []string
	// Secrets are values for the tests, by the names of secrets; others get one that says it is none.
	Secrets map[string]string
	// Doubles answer uses in every test, as often as they are made.
	Doubles []Double
	Tests   []FunctionTest
}

// FunctionTest runs the function on one event.
type FunctionTest struct {
	Name string
	File string
	Line int
	// Event is the event without what is made for it when it is not there: id, source, time.
	Event TestEvent
	// InOrder says that the uses come in the order of Doubles.
	InOrder bool
	Doubles []Double
	Expect  Expectation
}

// TestEvent is the event of a test. A file has data, or a whole event.
type TestEvent struct {
	Type, Source, Subject, ID string
	Time                      time.Time
	Data                      jsontext.Value
	DataFile                  string
	Line                      int
}

// Expectation is what a test wants. What it does not name does not matter.
type Expectation struct {
	// Exact says that values are all that is named, and not a part.
	Exact bool
	Reply jsontext.Value
	// Events are those that the function publishes; nil does not matter, empty is none.
	Events []jsontext.Value
	// Error is the code of the failure; empty wants that there is none.
	Error string
	// Message is a part of the failure's sentence.
	Message string
	// Logs are parts of lines of its log, in their order.
	Logs []string
}

// Double answers uses of a grant.
type Double struct {
	File  string
	Line  int
	Grant string
	// Op is the operation; empty is any.
	Op string
	// Request is what of a use must be so; with Exact it is all of it. Nil is any.
	Request jsontext.Value
	Exact   bool
	// Times is how often it answers; 0 is as often as it is asked.
	Times int
	// Answer is what the function gets, and Error, when it is set, the problem that it gets instead.
	Answer jsontext.Value
	Error  *DoubleError
}

// DoubleError is a problem that stands in for an answer.
type DoubleError struct {
	Code, Message string
	Retry         bool
	RetryAfter    time.Duration
}

// ParseFunctionTests reads the text of a file of function tests, or of fixtures, which has no tests; file names it in messages. The error
// is a problem with every fault in it.
//
//	function = "confirm"
//
//	[tests."a paid order is confirmed"]
//	event  = { type = "order.reserved", data = { id = "o-1", customer = "ada" } }
//	expect = { events = [{ type = "order.confirmed" }] }
//
//	[[tests."a paid order is confirmed".uses]]
//	grant   = "payments"
//	request = { method = "PUT", body = { customer = "ada" } }
//	answer  = { status = 200, body = { receipt = "r-1" } }
//
// TOML has no null: a value may also be given as JSON in a text, under the same key with _json behind it.
func ParseFunctionTests(file string, text []byte, fixtures bool) (*FunctionTests, error) {
	d, err := open(file, text)
	if err != nil {
		return nil, err
	}
	root := d.table(d.root)
	out := &FunctionTests{}
	name := root.text("function")
	root.need("function", `the file does not say whose function it is about; add one, such as function = "price"`)
	if name != "" {
		root.parsed("function", func() (err error) { out.Function, err = ident.ParseFunctionName(name); return err })
	}
	out.Doubles = root.doubles("uses", 0)
	if fixtures {
		root.need("uses", "the file has no uses; add one, [[uses]]")
	} else {
		out.Fixtures = root.words("fixtures", maxDoubles)
		out.Secrets = root.secretValues()
		for name, t := range root.tables("tests", maxFunctionTests) {
			out.Tests = append(out.Tests, t.functionTest(name))
		}
		root.need("tests", "the file has no tests; add one, such as [tests.\"an order is priced\"]")
	}
	root.done()
	if err := d.err(); err != nil {
		return nil, err
	}
	return out, nil
}

func (t *table) secretValues() map[string]string {
	if !t.has("secrets") {
		return nil
	}
	s := t.table("secrets")
	values := map[string]string{}
	for _, name := range s.n.order {
		values[name] = s.text(name)
	}
	s.done()
	return values
}

func (t *table) functionTest(name string) FunctionTest {
	test := FunctionTest{Name: name, File: t.d.file, Line: t.d.mark(t.n.key).Line}
	test.Event = t.table("event").testEvent()
	t.need("event", `the test has no event; add one, such as event = { type = "order.created", data = { id = "o-1" } }`)
	t.truth("in_order", &test.InOrder)
	test.Doubles = t.doubles("uses", 1)
	test.Expect = t.table("expect").expectation()
	t.done()
	return test
}

func (t *table) testEvent() TestEvent {
	e := TestEvent{Line: t.d.mark(t.n.key).Line}
	t.textTo("type", &e.Type)
	t.textTo("source", &e.Source)
	t.textTo("subject", &e.Subject)
	t.textTo("id", &e.ID)
	t.textTo("file", &e.DataFile)
	if e.DataFile == "" {
		t.need("type", `the event has no type; add one, such as type = "order.created", or file = "events/order.json"`)
	}
	t.moment("time", &e.Time)
	e.Data = t.value("data")
	if e.Data != nil && e.DataFile != "" {
		t.fault("file", "the event has data and a file of it; one of them is enough")
	}
	t.done()
	return e
}

func (t *table) expectation() Expectation {
	var e Expectation
	t.truth("exact", &e.Exact)
	e.Reply = t.value("reply")
	t.textTo("error", &e.Error)
	t.textTo("message", &e.Message)
	if t.has("logs") {
		e.Logs = t.words("logs", maxExpected)
	}
	list := t.lookUp("events", kindList, "a list of events")
	if list == nil {
		if n := t.n.members["events"]; n != nil && n.kind == kindTables {
			list = n
		}
	}
	if list != nil {
		e.Events = []jsontext.Value{}
		if len(list.items) > maxExpected {
			t.fault("events", "%d of them, at most %d are allowed", len(list.items), maxExpected)
			list = &node{}
		}
		for _, item := range list.items {
			if item.kind != kindTable {
				t.d.fault(item.value, `want an event, such as { type = "order.priced" }, not %s`, item.kind)
				continue
			}
			e.Events = append(e.Events, t.d.json(item))
		}
	}
	t.done()
	return e
}

func (t *table) doubles(key string, times int) []Double {
	var list []Double
	for _, u := range t.each(key, maxDoubles) {
		list = append(list, u.double(times))
	}
	return list
}

func (t *table) double(times int) Double {
	at := t.n.key
	if at.length == 0 {
		at = t.n.value
	}
	d := Double{File: t.d.file, Line: t.d.mark(at).Line, Times: times}
	t.textTo("grant", &d.Grant)
	t.need("grant", `the use names no grant; add one, such as grant = "payments"`)
	t.textTo("op", &d.Op)
	d.Request = t.value("request")
	t.truth("exact", &d.Exact)
	if t.has("times") {
		t.integer("times", &d.Times, 1, maxDoubleTimes)
	}
	d.Answer = t.value("answer")
	if t.has("error") {
		d.Error = t.table("error").doubleError()
		if d.Answer != nil {
			t.fault("error", "the use has an answer and an error; one of them")
		}
	} else if d.Answer == nil {
		t.need("answer", `the use has no answer; add answer = { … } or error = { code = "fetch.timeout" }`)
	}
	t.done()
	return d
}

func (t *table) doubleError() *DoubleError {
	e := &DoubleError{}
	t.textTo("code", &e.Code)
	t.need("code", `the error has no code; add one, such as code = "fetch.timeout"`)
	t.textTo("message", &e.Message)
	t.truth("retry", &e.Retry)
	t.duration("retry_after", &e.RetryAfter, 0, MaxTimeout)
	t.done()
	return e
}

// value reads a value of any form as JSON, or JSON in a text from the key with _json behind it; nil when neither is there.
func (t *table) value(key string) jsontext.Value {
	inText := key + "_json"
	t.known = append(t.known, key)
	if t.has(inText) {
		s := jsontext.Value(t.text(inText))
		switch {
		case t.has(key):
			t.fault(inText, "%s is there already", key)
		case len(s) > 0 && !s.IsValid():
			t.fault(inText, "not valid JSON")
		default:
			return s
		}
		return nil
	}
	if n := t.n.members[key]; n != nil {
		return t.d.json(n)
	}
	return nil
}

// json returns a value as JSON.
func (d *document) json(n *node) jsontext.Value {
	out, err := appendNode(nil, n)
	if err != nil || !jsontext.Value(out).IsValid() {
		d.fault(n.value, "the value is none that JSON has")
		return nil
	}
	return out
}

func appendNode(out []byte, n *node) ([]byte, error) {
	var err error
	switch n.kind {
	case kindTable:
		out = append(out, '{')
		for i, key := range n.order {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = jsontext.AppendQuote(out, key); err != nil {
				return nil, err
			}
			if out, err = appendNode(append(out, ':'), n.members[key]); err != nil {
				return nil, err
			}
		}
		return append(out, '}'), nil
	case kindList, kindTables:
		out = append(out, '[')
		for i, item := range n.items {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = appendNode(out, item); err != nil {
				return nil, err
			}
		}
		return append(out, ']'), nil
	case kindText, kindTime:
		return jsontext.AppendQuote(out, n.text)
	case kindInteger:
		v, err := strconv.ParseInt(n.text, 0, 64)
		return strconv.AppendInt(out, v, 10), err
	case kindFloat:
		v, err := strconv.ParseFloat(strings.ReplaceAll(n.text, "_", ""), 64)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(v) // refuses inf and nan
		return append(out, text...), err
	}
	return append(out, n.text...), nil // true or false
}

// MaxFixtures bounds the answers that a file of recorded ones may have: ParseFunctionTests reads as many.
const MaxFixtures = maxDoubles

// AppendFixture writes a double as ParseFunctionTests reads it, under [[uses]].
func AppendFixture(out []byte, d *Double) []byte {
	out = append(out, "\n[[uses]]\ngrant = "...)
	out = appendText(out, d.Grant)
	if d.Op != "" {
		out = append(append(out, "\nop = "...), appendText(nil, d.Op)...)
	}
	if d.Exact {
		out = append(out, "\nexact = true"...)
	}
	out = appendValue(out, "request", d.Request)
	if d.Error == nil {
		return append(appendValue(out, "answer", d.Answer), '\n')
	}
	out = append(append(out, "\nerror = { code = "...), appendText(nil, d.Error.Code)...)
	out = append(append(out, ", message = "...), appendText(nil, d.Error.Message)...)
	if d.Error.Retry {
		out = append(out, ", retry = true"...)
	}
	return append(out, " }\n"...)
}

// appendText writes a text in quotes: the escapes of JSON are all TOML's too, but for the solidus, which is not escaped here.
func appendText(out []byte, s string) []byte {
	quoted, err := jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\ufffd"))
	if err != nil {
		panic("BUG: a valid text cannot be quoted: " + err.Error())
	}
	return append(out, strings.ReplaceAll(string(quoted), "\x7f", `\u007f`)...) // which TOML wants escaped, and JSON does not
}

func appendValue(out []byte, key string, v jsontext.Value) []byte {
	if v == nil {
		return out
	}
	return append(append(append(append(out, '\n'), key...), "_json = "...), appendText(nil, string(v))...)
}

// NoFunctionTests is the problem of a folder that has none.
func NoFunctionTests(dir string) error {
	return problem.New(problem.NotFound, "cli.no_function_tests", "%s has no tests of functions", dir).
		WithHint("write one beside the function, NAME%s; `sallyport function test --help` shows how", FunctionTestFile)
}
