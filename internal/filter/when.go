package filter

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"github.com/go-json-experiment/json"

	"sallyport/internal/event"
	"sallyport/internal/problem"
)

// Limits of a condition.
const (
	MaxWhenBytes = 2 << 10
	// maxCost bounds an evaluation in CEL's units, about 10 ns each: a condition cannot hold
	// dispatch for more than a millisecond.
	maxCost = 100_000
)

// When is a compiled condition: a CEL expression over `event`, of type bool.
type When struct {
	text    string
	program cel.Program
}

// CompileWhen compiles a condition. The variable event has the members id, source, type, subject,
// time (a timestamp, or absent), data (the parsed JSON data) and the extension attributes.
func CompileWhen(text string) (*When, error) {
	if len(text) > MaxWhenBytes {
		return nil, problem.New(problem.Invalid, "filter.when_invalid", "the condition is %d bytes, at most %d are allowed", len(text), MaxWhenBytes)
	}
	env, err := cel.NewEnv(cel.Variable("event", cel.MapType(cel.StringType, cel.DynType)))
	if err != nil {
		return nil, fmt.Errorf("make CEL environment: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		p := problem.New(problem.Invalid, "filter.when_invalid", "the condition is no valid CEL expression").
			WithHint("write one over event, such as event.data.total > 100")
		for _, e := range issues.Errors() {
			p = p.WithFaults(problem.Fault{Line: e.Location.Line(), Column: e.Location.Column() + 1, Source: text, Length: 1, Detail: plain(e.Message)})
		}
		return nil, p
	}
	if t := ast.OutputType(); t != cel.BoolType && t != cel.DynType {
		return nil, problem.New(problem.Invalid, "filter.when_invalid", "the condition is of type %s, it must be bool", t).
			WithFaults(problem.Fault{Line: 1, Column: 1, Source: text, Length: len(text), Detail: "compare it with something"})
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, problem.New(problem.Invalid, "filter.when_invalid", "the condition cannot be evaluated").WithCause(err)
	}
	return &When{text: text, program: program}, nil
}

// What the parser of CEL says, in its words: of a token that it did not expect, of one that is missing, and of a character that begins none.
var (
	unexpected = regexp.MustCompile(`(?s)^Syntax error: (?:mismatched|extraneous) input '(.*)' expecting `)
	missing    = regexp.MustCompile(`(?s)^Syntax error: missing ('.*') at '.*'$`)
	noToken    = regexp.MustCompile(`(?s)^Syntax error: token recognition error at: '(.*)'$`)
)

// plain says it in words that do not ask for the grammar.
func plain(message string) string {
	if m := unexpected.FindStringSubmatch(message); m != nil {
		if m[1] == "<EOF>" {
			return "the condition ends too early"
		}
		return fmt.Sprintf("%s is not expected here", m[1])
	}
	if m := missing.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("%s is missing", m[1])
	}
	if m := noToken.FindStringSubmatch(message); m != nil {
		switch {
		case strings.HasPrefix(m[1], "="):
			return "= is no operator; == compares"
		case strings.HasPrefix(m[1], `"`), strings.HasPrefix(m[1], `'`):
			return "the text does not end"
		}
		return fmt.Sprintf("%s is not expected here", m[1])
	}
	return message
}

// String returns the condition as it was written.
func (w *When) String() string { return w.text }

// Match evaluates the condition. An error means it could not be decided: a member that is not
// there, a result that is not bool, a cost over the bound.
func (w *When) Match(e *event.Event) (bool, error) {
	attributes, err := variables(e)
	if err != nil {
		return false, err
	}
	out, _, err := w.program.Eval(map[string]any{"event": attributes})
	if err != nil {
		return false, problem.New(problem.Unprocessable, "filter.when_failed", "the subscription's condition cannot be evaluated for this event").
			WithHint("guard members that may be absent: has(event.data.total) && event.data.total > 100").WithCause(err)
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, problem.New(problem.Unprocessable, "filter.when_failed", "the subscription's condition is not true or false for this event").
			WithCause(errors.New("result is of type " + out.Type().TypeName()))
	}
	return bool(b), nil
}

func variables(e *event.Event) (map[string]any, error) {
	m := map[string]any{"id": e.ID, "source": e.Source, "type": string(e.Type)}
	if e.Subject != "" {
		m["subject"] = e.Subject
	}
	if !e.Time.IsZero() {
		m["time"] = e.Time.Round(time.Nanosecond)
	}
	for _, a := range e.Extensions {
		m[a.Name] = a.Value
	}
	if e.DataKind == event.DataJSON {
		var v any
		if err := json.Unmarshal(e.Data, &v); err != nil {
			return nil, fmt.Errorf("read event data: %w", err)
		}
		m["data"] = v
	}
	return m, nil
}
