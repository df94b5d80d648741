package schema_test

import (
	"strings"
	"testing"

	"sallyport/internal/problem"
	"sallyport/internal/schema"
)

func compile(t testing.TB, text string) *schema.Schema {
	t.Helper()
	s, err := schema.Compile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const order = `{
  "type": "object", "required": ["id", "items"], "additionalProperties": false,
  "properties": {
    "id": {"type": "string", "pattern": "^o-[0-9]+$", "maxLength": 9},
    "mail": {"type": "string", "format": "email"},
    "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/item"}},
    "kind": {"enum": ["a", "b"]}, "a/b~c": {"const": 1}
  },
  "$defs": {"item": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10}}}}
}`

func TestValidate(t *testing.T) {
	t.Parallel()
	s := compile(t, order)
	for _, tc := range []struct{ data, want string }{ // want: pointer and the beginning of the rule
		{`{"id":"o-1","items":[{"n":1}]}`, ""},
		{`{"items":[{}]}`, " required: id is missing"},
		{`{"id":"x","items":[{}]}`, "/id pattern:"},
		{`{"id":"o-1234567890","items":[{}]}`, "/id maxLength: want at most 9"},
		{`{"id":1,"items":[{}]}`, "/id type: want string"},
		{`{"id":"o-1","items":[]}`, "/items minItems:"},
		{`{"id":"o-1","items":[{},{"n":0}]}`, "/items/1/n minimum: want at least 1"},
		{`{"id":"o-1","items":[{"n":10}]}`, "/items/0/n exclusiveMaximum: want less than 10"},
		{`{"id":"o-1","items":[{"n":1.5}]}`, "/items/0/n type: want integer"},
		{`{"id":"o-1","items":[{}],"mail":"nobody"}`, "/mail format: want email"},
		{`{"id":"o-1","items":[{}],"kind":"c"}`, "/kind enum:"},
		{`{"id":"o-1","items":[{}],"a/b~c":2}`, "/a~1b~0c const:"},
		{`{"id":"o-1","items":[{}],"other":2}`, "/other additionalProperties:"},
		{`7`, " type: want object"},
	} {
		err := s.Validate([]byte(tc.data))
		if tc.want == "" {
			if err != nil {
				t.Errorf("Validate(%s) = %v", tc.data, err)
			}
			continue
		}
		p := problem.From(err)
		if p.Kind != problem.Unprocessable || p.Code != "event.schema_violation" || len(p.Faults) != 1 {
			t.Errorf("Validate(%s) = %v with %+v", tc.data, err, p.Faults)
			continue
		}
		if got := p.Faults[0].Pointer + " " + p.Faults[0].Detail; !strings.HasPrefix(got, tc.want) {
			t.Errorf("Validate(%s): %s, want %s", tc.data, got, tc.want)
		}
	}
}

// TestNothingOfTheData: what a violation says holds nothing of the data.
func TestNothingOfTheData(t *testing.T) {
	t.Parallel()
	const marker = "PLANTED"
	s := compile(t, order)
	for _, data := range []string{
		`{"id":"` + marker + `","items":[{}]}`, `{"id":"o-1","items":[{}],"kind":"` + marker + `"}`,
		`{"id":"o-1","items":[{}],"mail":"` + marker + `"}`, `{"id":"o-1","items":"` + marker + `"}`, `"` + marker + `"`,
	} {
		p := problem.From(s.Validate([]byte(data)))
		text := p.Error() + p.Hint
		for _, f := range p.Faults {
			text += f.Pointer + f.Detail
		}
		if strings.Contains(text, marker) || len(p.Faults) == 0 {
			t.Errorf("the answer to %s is %s", data, text)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no JSON":          `{`,
		"duplicate key":    `{"type":"object","type":"string"}`,
		"unknown type":     `{"type":"thing"}`,
		"file reference":   `{"$ref":"file:///etc/passwd"}`,
		"http reference":   `{"$ref":"http://127.0.0.1/x"}`,
		"other schema":     `{"$ref":"other.json"}`,
		"metaschema":       `{"$schema":"http://example.com/mine","type":"object"}`,
		"missing def":      `{"$ref":"#/$defs/none"}`,
		"bad pattern":      `{"pattern":"("}`,
		"deep":             strings.Repeat(`{"not":`, 100) + `{}` + strings.Repeat(`}`, 100),
		"large":            `{"description":"` + strings.Repeat("x", schema.MaxBytes) + `"}`,
		"backslash in key": `{"a\`,
	} {
		if _, err := schema.Compile([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		} else if p := problem.From(err); p.Code != "schema.invalid" && p.Code != "schema.too_large" {
			t.Errorf("%s: %v, want schema.invalid", name, err)
		}
	}
}

// TestManyViolations bounds the answer.
func TestManyViolations(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"items":{"type":"integer"}}`)
	p := problem.From(s.Validate([]byte("[" + strings.Repeat(`"x",`, 5000) + `"x"]`)))
	if n := len(p.Faults); n == 0 || n > 20 {
		t.Errorf("%d faults named, want 1 to 20", n)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(order), []byte(`{"id":"o-1"}`))
	f.Add([]byte(`{"$ref":"#"}`), []byte(`1`))
	f.Add([]byte(`{"$dynamicRef":"#x","$anchor":"x"}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, text, data []byte) {
		s, err := schema.Compile(text)
		if err != nil {
			return
		}
		_ = s.Validate(data) // it answers, whatever that is
	})
}
