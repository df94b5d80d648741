package manifest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

const functionTests = `
function = "confirm"
fixtures = ["shared.fixtures.toml"]
secrets  = { payments-key = "for tests" }

[tests."a paid order is confirmed"]
event = { type = "order.reserved", data = { id = "o-1", total = 12.5, when = 2030-01-02T03:04:05Z, tags = [1, true, "a"] } }
expect = { events = [{ type = "order.confirmed" }], logs = ["paid"] }

[[tests."a paid order is confirmed".uses]]
grant   = "payments"
request = { method = "PUT" }
answer  = { status = 200, body = { receipt = "r-1" } }

[[tests."a paid order is confirmed".uses]]
grant = "customers"
times = 2
answer_json = 'null'

[tests.refused]
event = { file = "events/done.json", type = "order.reserved" }
expect = { error = "x.y", events = [] }
in_order = true

[[tests.refused.uses]]
grant = "payments"
error = { code = "fetch.timeout", retry = true, retry_after = "2s" }
`

func TestParseFunctionTests(t *testing.T) {
	t.Parallel()
	got, err := manifest.ParseFunctionTests("confirm.test.toml", []byte(functionTests), false)
	if err != nil {
		t.Fatal(err)
	}
	if got.Function != "confirm" || got.Secrets["payments-key"] != "for tests" || len(got.Tests) != 2 || !cmp.Equal(got.Fixtures, []string{"shared.fixtures.toml"}) {
		t.Fatalf("ParseFunctionTests = %+v", got)
	}
	paid, refused := got.Tests[0], got.Tests[1]
	if want := `{"id":"o-1","total":12.5,"when":"2030-01-02T03:04:05Z","tags":[1,true,"a"]}`; string(paid.Event.Data) != want {
		t.Errorf("data = %s; want %s", paid.Event.Data, want)
	}
	if d := paid.Doubles[0]; string(d.Answer) != `{"status":200,"body":{"receipt":"r-1"}}` || d.Times != 1 || d.Line != 10 {
		t.Errorf("double = %+v", d)
	}
	if d := paid.Doubles[1]; string(d.Answer) != "null" || d.Times != 2 {
		t.Errorf("double = %+v", d)
	}
	if paid.Expect.Error != "" || len(paid.Expect.Events) != 1 || string(paid.Expect.Events[0]) != `{"type":"order.confirmed"}` {
		t.Errorf("expectation = %+v", paid.Expect)
	}
	if refused.Expect.Error != "x.y" || refused.Expect.Events == nil || len(refused.Expect.Events) != 0 || !refused.InOrder {
		t.Errorf("test = %+v", refused)
	}
	if e := refused.Doubles[0].Error; e == nil || e.Code != "fetch.timeout" || !e.Retry || e.RetryAfter.Seconds() != 2 {
		t.Errorf("error = %+v", e)
	}
}

func TestParseFunctionTestsRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text, want string
		fixtures         bool
	}{
		{"no function", "[tests.a]\nevent = { type = \"x.y\" }", "does not say whose function", false},
		{"no tests", `function = "a"`, "has no tests", false},
		{"no uses", `function = "a"`, "has no uses", true},
		{"tests in fixtures", "function = \"a\"\n[[uses]]\ngrant = \"g\"\nanswer = 1\n[tests.a]", `unknown key "tests"`, true},
		{"no event", "function = \"a\"\n[tests.a]\nexpect = {}", "has no event", false},
		{"no type", "function = \"a\"\n[tests.a]\nevent = { data = 1 }", "has no type", false},
		{"a file and data", "function = \"a\"\n[tests.a]\nevent = { data = 1, file = \"f\" }", "one of them is enough", false},
		{"no answer", "function = \"a\"\n[[uses]]\ngrant = \"g\"", "has no answer", true},
		{"an answer and an error", "function = \"a\"\n[[uses]]\ngrant = \"g\"\nanswer = 1\nerror = { code = \"a.b\" }", "one of them", true},
		{"no JSON", "function = \"a\"\n[[uses]]\ngrant = \"g\"\nanswer_json = \"{\"", "not valid JSON", true},
		{"no number of JSON", "function = \"a\"\n[[uses]]\ngrant = \"g\"\nanswer = inf", "none that JSON has", true},
		{"misspelt", "function = \"a\"\n[tests.a]\nevent = { type = \"x.y\" }\nexpcet = {}", `did you mean "expect"`, false},
		{"never", "function = \"a\"\n[[uses]]\ngrant = \"g\"\nanswer = 1\ntimes = 0", "want 1 to", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := manifest.ParseFunctionTests("a.test.toml", []byte(tt.text), tt.fixtures)
			if err == nil || !strings.Contains(faults(err), tt.want) {
				t.Errorf("ParseFunctionTests(%q) = %v; want a fault with %q", tt.text, faults(err), tt.want)
			}
		})
	}
}

func TestAppendFixtureIsRead(t *testing.T) {
	t.Parallel()
	want := []manifest.Double{
		{Grant: "payments", Op: "fetch", Request: []byte(`{"method":"PUT","x":null}`), Exact: true, Answer: []byte(`{"a":"\u007f\"'\n€"}`)},
		{Grant: "kv", Op: "get", Error: &manifest.DoubleError{Code: "a.b", Message: "no \"way\"", Retry: true}},
	}
	text := []byte("function = \"confirm\"\n")
	for i := range want {
		text = manifest.AppendFixture(text, &want[i])
	}
	got, err := manifest.ParseFunctionTests("confirm.fixtures.toml", text, true)
	if err != nil {
		t.Fatalf("%v\n%s", faults(err), text)
	}
	for i := range got.Doubles {
		got.Doubles[i].File, got.Doubles[i].Line = "", 0
	}
	if diff := cmp.Diff(want, got.Doubles); diff != "" {
		t.Errorf("what was written is read otherwise (-want +got):\n%s", diff)
	}
}

func FuzzFunctionTests(f *testing.F) {
	f.Add(functionTests, false)
	f.Add("function = \"a\"\n[[uses]]\ngrant = \"g\"\nanswer = { a = [1.5, inf] }", true)
	f.Fuzz(func(t *testing.T, text string, fixtures bool) {
		out, err := manifest.ParseFunctionTests("a.test.toml", []byte(text), fixtures)
		if err != nil {
			return
		}
		for i := range out.Doubles {
			written := manifest.AppendFixture([]byte("function = \"a\"\n"), &out.Doubles[i])
			if _, err := manifest.ParseFunctionTests("a.fixtures.toml", written, true); err != nil {
				t.Errorf("%q was written as %q, which is refused: %v", text, written, faults(err))
			}
		}
	})
}

// faults returns an error with all its faults, as one text.
func faults(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if p, ok := errors.AsType[*problem.Error](err); ok {
		for _, f := range p.Faults {
			text += "\n" + f.Detail
		}
	}
	return text
}
