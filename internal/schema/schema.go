// Package schema checks event data against JSON Schemas (2020-12).
//
// Schemas come from developers and data from anyone, so both are bounded: a schema refers to nothing
// outside itself (the library's default loader would read files), what a validation can cost is known
// before it begins, and a violation names the place and the rule, never the value. It is pure.
// Callers: deploy (Compile), ingress (Validate).
package schema

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"sallyport/internal/problem"
)

// Limits of a schema and of an answer.
const (
	MaxBytes  = 256 << 10 // a schema text; the largest published ones are about 200 KiB
	maxDepth  = 64        // nesting of a schema, and of data: what event.DefaultLimits accept
	maxFaults = 20        // violations named in one answer
)

// schemaURL names the schema inside the compiler; nothing is ever loaded from it (RFC 2606, 2). It has a
// path, so that a reference to a neighbour is one, and not a reference to the schema itself.
const schemaURL = "https://schema.invalid/schema"

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct {
	compiled *jsonschema.Schema
	weights  *weights
}

// closedLoader refuses every reference out of the schema.
type closedLoader struct{}

func (closedLoader) Load(string) (any, error) {
	return nil, errors.New("a schema may refer only to itself")
}

// Compile compiles a schema text. Formats are asserted.
func Compile(text []byte) (*Schema, error) {
	if len(text) > MaxBytes {
		return nil, problem.New(problem.TooLarge, "schema.too_large", "the schema is %d bytes, at most %d are allowed", len(text), MaxBytes)
	}
	shape := shapeOf(text)
	if shape.deep {
		return nil, problem.New(problem.Invalid, "schema.invalid", "the schema is nested deeper than %d", maxDepth)
	}
	if !jsontext.Value(text).IsValid() {
		return nil, problem.New(problem.Invalid, "schema.invalid", "the schema is not a JSON text (RFC 8259, each key once, UTF-8)")
	}
	if shape.wide {
		return nil, problem.New(problem.Invalid, "schema.invalid", "the schema has a number that no double holds")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, problem.New(problem.Invalid, "schema.invalid", "the schema is not a JSON text").WithCause(err)
	}
	if dynamic, parts := dynamicRefs(doc); dynamic && parts {
		return nil, invalid(errors.New("it has $dynamicRef or $recursiveRef together with a part that has an $id of its own, which is not supported"))
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(closedLoader{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, invalid(err)
	}
	compiled, err := c.Compile(schemaURL)
	if err != nil {
		return nil, invalid(err)
	}
	w, err := weigh(compiled)
	if err != nil {
		return nil, invalid(err)
	}
	return &Schema{compiled: compiled, weights: w}, nil
}

// dynamicRefs reports whether a schema has references that are resolved at run time, and parts that
// are schemas of their own. With both, where a reference leads depends on the way that was taken
// there, and nobody can say beforehand what a validation costs.
func dynamicRefs(doc any) (dynamic, parts bool) {
	var walk func(v any, inside bool)
	walk = func(v any, inside bool) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				_, text := value.(string)
				dynamic = dynamic || text && (key == "$dynamicRef" || key == "$recursiveRef")
				parts = parts || text && inside && (key == "$id" || key == "id")
				walk(value, true)
			}
		case []any:
			for _, value := range v {
				walk(value, true)
			}
		}
	}
	walk(doc, false)
	return dynamic, parts
}

// invalid explains why a schema does not compile. The text is the developer's own.
func invalid(err error) error {
	text := strings.ReplaceAll(err.Error(), schemaURL, "the schema")
	if len(text) > 500 {
		text = text[:500] + "…"
	}
	return problem.New(problem.Invalid, "schema.invalid", "the schema is no JSON Schema 2020-12: %s", text).WithCause(err)
}

// Validate returns nil when data, one JSON text that has passed the strict check, satisfies the
// schema; else a problem event.schema_violation with the pointer and the rule of each violation.
func (s *Schema) Validate(data []byte) error {
	shape := shapeOf(data)
	if err := s.bounded(&shape); err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return problem.New(problem.Unprocessable, "event.schema_violation", "the event's data is not JSON, which its schema wants").WithCause(err)
	}
	err = s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	bad, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return fmt.Errorf("validate event data: %w", err)
	}
	p := problem.New(problem.Unprocessable, "event.schema_violation", "the event's data does not match the schema of its type").
		WithHint("see the rules with `sallyport explain event.schema_violation`, the places above")
	list := faults(nil, bad)
	slices.SortFunc(list, func(a, b problem.Fault) int { // the library goes through maps
		return cmp.Or(strings.Compare(a.Pointer, b.Pointer), strings.Compare(a.Detail, b.Detail))
	})
	return p.WithFaults(list...)
}

// bounded refuses data whose validation nobody should wait for.
func (s *Schema) bounded(shape *shape) error {
	detail := ""
	switch {
	case shape.wide:
		detail = "a number that no double holds"
	case shape.deep:
		detail = fmt.Sprintf("nested deeper than %d", maxDepth)
	case s.weights.work(shape) > maxWork:
		return problem.New(problem.Unprocessable, "schema.too_costly",
			"the event's data is too large or too deep for the schema of its type, which tries many alternatives at each level").
			WithHint("send smaller or flatter data, or give the schema fewer alternatives")
	default:
		return nil
	}
	return problem.New(problem.Unprocessable, "event.schema_violation", "the event's data cannot be checked against the schema of its type: %s", detail).
		WithFaults(problem.Fault{Detail: detail})
}

// faults gathers the leaves of the library's tree of errors.
func faults(out []problem.Fault, e *jsonschema.ValidationError) []problem.Fault {
	for _, cause := range e.Causes {
		out = faults(out, cause)
	}
	if len(e.Causes) > 0 || len(out) >= maxFaults {
		return out[:min(len(out), maxFaults)]
	}
	at := pointer(e.InstanceLocation)
	if extra, ok := e.ErrorKind.(*kind.AdditionalProperties); ok {
		for _, name := range extra.Properties[:min(len(extra.Properties), maxFaults-len(out))] {
			out = append(out, problem.Fault{Pointer: at + pointer([]string{name}), Detail: rule(e.ErrorKind)})
		}
		return out
	}
	return append(out, problem.Fault{Pointer: at, Detail: rule(e.ErrorKind)})
}

func pointer(path []string) string {
	var b strings.Builder
	for _, p := range path {
		if len(p) > 80 {
			p = p[:80] + "…"
		}
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	return b.String()
}

// rule says which rule was broken, in words that hold nothing of the data.
func rule(k jsonschema.ErrorKind) string {
	keyword := strings.Join(k.KeywordPath(), "/")
	switch k := k.(type) {
	case *kind.Required:
		return "required: " + strings.Join(k.Missing, ", ") + " is missing"
	case *kind.Type:
		return "type: want " + strings.Join(k.Want, " or ")
	case *kind.AdditionalProperties:
		return "additionalProperties: a member that the schema does not know"
	case *kind.Minimum:
		return "minimum: want at least " + k.Want.RatString()
	case *kind.Maximum:
		return "maximum: want at most " + k.Want.RatString()
	case *kind.ExclusiveMinimum:
		return "exclusiveMinimum: want more than " + k.Want.RatString()
	case *kind.ExclusiveMaximum:
		return "exclusiveMaximum: want less than " + k.Want.RatString()
	case *kind.MinLength:
		return fmt.Sprintf("minLength: want at least %d characters", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("maxLength: want at most %d characters", k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("minItems: want at least %d", k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("maxItems: want at most %d", k.Want)
	case *kind.Pattern:
		return "pattern: want a match of " + k.Want
	case *kind.Format:
		return "format: want " + k.Want
	case *kind.Enum:
		return "enum: want one of the listed values"
	case *kind.Const:
		return "const: want the fixed value"
	}
	if keyword == "" {
		return "not allowed by the schema"
	}
	return keyword + ": not satisfied"
}
