package schema_test

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/internal/problem"
	"sallyport/internal/schema"
)

// nest returns data that is depth objects deep, each the member a of the one around it.
func nest(depth int) string {
	return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)
}

func codeOf(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

// TestNumbersAreBounded: the library computes with exact fractions, and dereferences nil when one is too
// large for it.
func TestNumbersAreBounded(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"items":{"type":"number","minimum":-1e300,"multipleOf":1e-300}}`)
	for data, want := range map[string]string{
		`[1e300, 0.5E-2, 1e+0000010, 12345678901234567890]`: "",
		`["1e999999999", true, false]`:                      "event.schema_violation", // strings are no numbers
		`[1e1000001]`:                                       "event.schema_violation",
		`[1E-999999]`:                                       "event.schema_violation",
		`[1e+401]`:                                          "event.schema_violation",
	} {
		if got := codeOf(s.Validate([]byte(data))); got != want {
			t.Errorf("Validate(%s) = %q; want %q", data, got, want)
		}
	}
	if _, err := schema.Compile([]byte(`{"maximum":1e999999}`)); codeOf(err) != "schema.invalid" {
		t.Errorf("Compile with a wide number = %v; want schema.invalid", err)
	}
}

// TestWorkIsBounded: what a validation costs is known before it begins.
func TestWorkIsBounded(t *testing.T) {
	t.Parallel()
	const (
		costly   = "schema.too_costly"
		violated = "event.schema_violation"
	)
	twice := `{"%s":[{"properties":{"a":{"$ref":"#"}}},{"properties":{"a":{"$ref":"#"},"b":{"const":1}}}]}`
	long := "[" + strings.Repeat("1,", 50_000) + "1]"
	tests := []struct {
		name, schema, data, want string
	}{
		{"plain, deep", `{"type":"object"}`, nest(64), ""},
		{"too deep", `{"type":"object"}`, nest(65), violated},
		{"recursive, deep", `{"properties":{"a":{"$ref":"#"}}}`, nest(64), ""},
		{"tree, flat", fmt.Sprintf(twice, "anyOf"), nest(5), ""},
		{"tree by anyOf", fmt.Sprintf(twice, "anyOf"), nest(40), costly},
		{"tree by oneOf", fmt.Sprintf(twice, "oneOf"), nest(40), costly},
		{"tree by allOf", fmt.Sprintf(twice, "allOf"), nest(40), costly},
		{"tree by not", `{"not":{"properties":{"a":{"$ref":"#"}}},"properties":{"a":{"$ref":"#"}}}`, nest(40), costly},
		{"tree by if", `{"if":{"properties":{"a":{"$ref":"#"}}},"then":{"properties":{"a":{"$ref":"#"}}}}`, nest(40), costly},
		{"tree by dependentSchemas", `{"dependentSchemas":{"a":{"properties":{"a":{"$ref":"#"}}}},"properties":{"a":{"$ref":"#"}}}`, nest(40), costly},
		{"tree by patterns", `{"patternProperties":{"a":{"$ref":"#"},"^a":{"$ref":"#"}}}`, nest(40), costly},
		{"tree by unevaluatedProperties", `{"properties":{"a":{"$ref":"#"}},"unevaluatedProperties":{"$ref":"#"}}`, nest(40), costly},
		{"tree by dynamicRef", `{"$dynamicAnchor":"t","anyOf":[{"properties":{"a":{"$dynamicRef":"#t"}}},{"properties":{"a":{"$dynamicRef":"#t"},"b":false}}]}`, nest(40), costly},
		{"tree by recursiveRef", `{"$schema":"https://json-schema.org/draft/2019-09/schema","$recursiveAnchor":true,"anyOf":[{"properties":{"a":{"$recursiveRef":"#"}}},{"properties":{"a":{"$recursiveRef":"#"}}}]}`, nest(40), costly},
		{"tree by contains", `{"items":{"$ref":"#"},"contains":{"$ref":"#"}}`, strings.Repeat("[", 40) + strings.Repeat("]", 40), costly},
		{"tree by old items", `{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"$ref":"#"}],"contains":{"$ref":"#"}}`, strings.Repeat("[", 40) + strings.Repeat("]", 40), costly},
		{"tree by old dependencies", `{"$schema":"http://json-schema.org/draft-07/schema#","dependencies":{"a":{"properties":{"a":{"$ref":"#"}}}},"properties":{"a":{"$ref":"#"}}}`, nest(40), costly},
		{"long, plain", `{"items":{"type":"integer"}}`, long, ""},
		{"long, large enum", `{"items":{"enum":[` + strings.Repeat(`"x",`, 500) + `1]}}`, long, costly},
		{"long text, many patterns", `{"anyOf":[` + strings.Repeat(`{"pattern":"a.*b"},`, 99) + `true]}`, `"` + strings.Repeat("a", 1<<19) + `"`, costly},
		{"a schema of schemas", `{"$ref":"https://json-schema.org/draft/2020-12/schema"}`, `{"type":"object","properties":{"a":{"minimum":1}}}`, ""},
		{"no schema", `{"$ref":"https://json-schema.org/draft/2020-12/schema"}`, `{"type":7}`, violated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := compile(t, tt.schema)
			if got := codeOf(s.Validate([]byte(tt.data))); got != tt.want {
				t.Errorf("Validate = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestCompileRefusesEndlessSchemas(t *testing.T) {
	t.Parallel()
	var chain strings.Builder // 2 to the power of 40 evaluations of one value
	chain.WriteString(`{"$ref":"#/$defs/d0","$defs":{"d40":true`)
	for i := range 40 {
		fmt.Fprintf(&chain, `,"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, i+1, i+1)
	}
	chain.WriteString("}}")
	for name, text := range map[string]string{
		"itself":        `{"$ref":"#"}`,
		"circle":        `{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[true,{"$ref":"#/$defs/b"}]},"b":{"not":{"$ref":"#/$defs/a"}}}}`,
		"dynamic":       `{"$dynamicAnchor":"x","anyOf":[{"$dynamicRef":"#x"}]}`,
		"chain":         chain.String(),
		"dynamic parts": `{"$id":"urn:a","$dynamicAnchor":"x","properties":{"a":{"$dynamicRef":"#x"}},"$defs":{"b":{"$id":"urn:b","$dynamicAnchor":"x"}}}`,
	} {
		if _, err := schema.Compile([]byte(text)); codeOf(err) != "schema.invalid" {
			t.Errorf("%s: Compile = %v; want schema.invalid", name, err)
		}
	}
}

// TestFaultsAreOrdered: the same data gets the same answer each time.
func TestFaultsAreOrdered(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"additionalProperties":false,"properties":{"a":false,"b":{"type":"string"},"c":{"minimum":5}}}`)
	for range 20 {
		var got []string
		for _, f := range problem.From(s.Validate([]byte(`{"z":1,"y":2,"c":1,"b":2,"a":3}`))).Faults {
			got = append(got, f.Pointer)
		}
		if strings.Join(got, " ") != "/a /b /c /y /z" {
			t.Fatalf("faults at %q; want /a /b /c /y /z", got)
		}
	}
}

func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"id":"o-1","items":[{"n":1}]}`))
	f.Add([]byte(`{"id":"\"","items":[1e5,[{}],"\\"]}`))
	s, err := schema.Compile([]byte(order))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := s.Validate(data); err != nil && problem.From(err).Kind != problem.Unprocessable {
			t.Errorf("Validate(%q) = %v; want a problem of kind unprocessable", data, err)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	s := compile(b, order)
	data := []byte(`{"id":"o-1","mail":"ada@example.org","items":[` + strings.Repeat(`{"n":3},`, 10) + `{"n":1}]}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Validate(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := schema.Compile([]byte(order)); err != nil {
			b.Fatal(err)
		}
	}
}
