package cell_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// engine returns the engine that the tests share: a module is compiled once for all of them.
var engine = sync.OnceValues(func() (*cell.Engine, error) {
	return cell.New(context.Background(), cell.Default())
})

func testEngine(t testing.TB) *cell.Engine {
	t.Helper()
	e, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// loaded is a function of this process, or of a worker behind the second wall.
type loaded interface {
	Invoke(context.Context, cell.Input) (cell.Result, cell.Usage, error)
	Kind() string
	Limits() cell.Limits
	Close(context.Context) error
}

// loader loads functions into one of them.
type loader func(context.Context, cell.Spec, cell.Limits) (loaded, error)

// here loads into an engine of this process.
func here(e *cell.Engine) loader {
	return func(ctx context.Context, spec cell.Spec, limits cell.Limits) (loaded, error) {
		f, err := e.Load(ctx, spec, limits)
		if err != nil {
			return nil, err // not a nil function that is no nil interface
		}
		return f, nil
	}
}

func load(t testing.TB, spec cell.Spec, limits cell.Limits) *cell.Function {
	t.Helper()
	f, err := testEngine(t).Load(t.Context(), spec, limits)
	if err != nil {
		t.Fatalf("Load(%s) = %v: %v", spec.Name, err, errors.Unwrap(problem.From(err)))
	}
	t.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return f
}

func loadScript(t testing.TB, source string) *cell.Function {
	t.Helper()
	return load(t, cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(source)}, cell.DefaultLimits())
}

// event returns an event with this JSON data.
func event(data string) []byte {
	return fmt.Appendf(nil, `{"specversion":"1.0","id":"e-1","source":"/test","type":"test.happened","data":%s}`, data)
}

// lines collects a function's log as "level message".
type lines []string

func (l *lines) add(level, message string) { *l = append(*l, level+" "+message) }

func invoke(t testing.TB, f loaded, data string) (cell.Result, lines, error) {
	t.Helper()
	var log lines
	result, usage, err := f.Invoke(t.Context(), cell.Input{Event: event(data), EventID: "e-1", Attempt: 1, Log: log.add})
	if usage.Duration <= 0 || usage.MemoryPeak > f.Limits().Memory {
		t.Errorf("Invoke: usage is %+v", usage)
	}
	return result, log, err
}

// reply invokes f, which must succeed, and returns its reply.
func reply(t testing.TB, f loaded, data string) string {
	t.Helper()
	result, _, err := invoke(t, f, data)
	if err != nil {
		t.Fatalf("Invoke(%.100s) = %v", data, err)
	}
	return string(result.Reply)
}

// failure invokes f, which must fail with this code.
func failure(t testing.TB, f *cell.Function, data, code string) *problem.Error {
	t.Helper()
	_, _, err := invoke(t, f, data)
	return wantProblem(t, err, problem.FunctionFailed, code)
}

func wantProblem(t testing.TB, err error, kind problem.Kind, code string) *problem.Error {
	t.Helper()
	if err == nil {
		t.Fatalf("error = nil; want %s", code)
	}
	p := problem.From(err)
	if p.Kind != kind || p.Code != code {
		t.Fatalf("error = %v (kind %d); want kind %d and code %s", err, p.Kind, kind, code)
	}
	return p
}

func within(t testing.TB, most time.Duration, what func()) {
	t.Helper()
	started := time.Now()
	what()
	if took := time.Since(started); took > most {
		t.Errorf("it took %s; want at most %s", took, most)
	}
}

func wantText(t testing.TB, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("text = %q; want %q in it", text, want)
	}
}

const (
	problemFailed        = problem.FunctionFailed
	problemUnprocessable = problem.Unprocessable
)

// wantKnown checks that an error is the function's failure, and not a fault of the host.
func wantKnown(t testing.TB, err error) {
	t.Helper()
	if p := problem.From(err); p.Kind != problem.FunctionFailed {
		t.Errorf("error = %v of kind %d; want a failure of the function", err, p.Kind)
	}
}
