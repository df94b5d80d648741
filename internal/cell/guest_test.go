package cell_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/cell"
)

func TestReactor(t *testing.T) {
	t.Parallel()
	f := load(t, built(t, "reactor"), cell.DefaultLimits())
	if f.Kind() != cell.KindReactor {
		t.Errorf("Kind = %s; want %s", f.Kind(), cell.KindReactor)
	}
	result, log, err := invoke(t, f, `{"what":"reply","text":"hällo"}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(result.Reply), `{"id":"e-1","source":"/test","subject":"","text":"hällo"}`; got != want {
		t.Errorf("reply = %s; want %s", got, want)
	}
	if diff := cmp.Diff(lines{"info attempt 1 of e-1"}, log); diff != "" {
		t.Errorf("log differs:\n%s", diff)
	}

	result, _, err = invoke(t, f, `{"what":"publish","text":"x"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []cell.Emitted{
		{Type: "test.binary", Subject: "s", DataContentType: "image/png", DataBase64: []byte{1, 2, 3}},
		{Type: "test.made", Data: []byte(`{"What":"publish","Text":"x"}`)},
	}
	if diff := cmp.Diff(want, result.Events); diff != "" {
		t.Errorf("events differ:\n%s", diff)
	}
	if result.Reply != nil {
		t.Errorf("reply = %s; want none", result.Reply)
	}
}

func TestReactorFails(t *testing.T) {
	t.Parallel()
	f := load(t, built(t, "reactor"), cell.DefaultLimits())
	for _, tt := range []struct {
		what, code, message string
		final               bool
		wait                time.Duration
	}{
		{"fail", "cell.function_failed", "no stock", false, 0},
		{"final", "cell.function_failed", "no stock", true, 0},
		{"later", "cell.function_failed", "no stock", false, 90 * time.Second},
		{"panic", "cell.function_failed", "panic: no stock", false, 0},
		{"exit", "cell.function_failed", "no stock", false, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			p := failure(t, f, `{"what":"`+tt.what+`","text":"no stock"}`, tt.code)
			said, ok := cell.Failed(p)
			if !ok || said.Message != tt.message || said.Final != tt.final || said.RetryAfter != tt.wait || p.RetryAfter != tt.wait {
				t.Errorf("failure = %+v, %+v; want %q, final %t, retry after %s", said, p, tt.message, tt.final, tt.wait)
			}
		})
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	f := load(t, built(t, "command"), cell.DefaultLimits())
	if f.Kind() != cell.KindCommand {
		t.Errorf("Kind = %s; want %s", f.Kind(), cell.KindCommand)
	}
	result, log, err := invoke(t, f, `{"what":"reply","text":"hi"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := cell.Result{Reply: []byte(`{"id":"e-1","text":"hi"}`), Events: []cell.Emitted{{Type: "test.made", Data: []byte("1")}}}
	if diff := cmp.Diff(want, result); diff != "" {
		t.Errorf("result differs:\n%s", diff)
	}
	if diff := cmp.Diff(lines{"info handling e-1"}, log); diff != "" {
		t.Errorf("log differs:\n%s", diff)
	}
	if got := reply(t, f, `{"what":"nothing"}`); got != "" {
		t.Errorf("reply = %s; want none", got)
	}
	p := failure(t, f, `{"what":"fail","text":"the last line"}`, "cell.function_failed")
	if p.Public != "the last line" {
		t.Errorf("message = %q; want the last line on stderr", p.Public)
	}
	failure(t, f, `{"what":"flood"}`, "cell.output_too_large")
}

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	f := load(t, built(t, "command"), cell.DefaultLimits())
	_, log, err := invoke(t, f, `{"what":"shout"}`)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Join(log, "")); n > f.Limits().LogBytes+1000 {
		t.Errorf("the log has %d bytes; want at most about %d", n, f.Limits().LogBytes)
	}
	wantText(t, log[len(log)-1], "further lines are dropped")
}

func TestResults(t *testing.T) {
	t.Parallel()
	limits := cell.DefaultLimits()
	limits.Events, limits.Output = 2, 2000
	f := load(t, wasm("echo.wasm", echo()), limits)
	for _, tt := range []struct {
		name, result, code, text string
	}{
		{"empty", ``, "", ""},
		{"white space", " \n", "", ""},
		{"empty object", `{}`, "", ""},
		{"reply", `{"reply":[1,2]}`, "", ""},
		{"null reply", `{"reply":null}`, "", ""},
		{"both", `{"reply":1,"events":[{"type":"a.b"}]}`, "", ""},
		{"most events", `{"events":[{"type":"a.b"},{"type":"a.b","data":null}]}`, "", ""},
		{"not JSON", `hello`, "cell.bad_result", "invalid character"},
		{"not an object", `[1]`, "cell.bad_result", ""},
		{"unknown member", `{"replies":1}`, "cell.bad_result", "replies"},
		{"duplicate member", `{"reply":1,"reply":2}`, "cell.bad_result", "duplicate"},
		{"invalid UTF-8", "{\"reply\":\"\xff\"}", "cell.bad_result", "UTF-8"},
		{"lone surrogate", `{"reply":"\ud800"}`, "cell.bad_result", "surrogate"},
		{"trailing text", `{} {}`, "cell.bad_result", ""},
		{"too many events", `{"events":[{"type":"a.b"},{"type":"a.b"},{"type":"a.b"}]}`, "cell.bad_result", "3 events, the limit is 2"},
		{"event without a type", `{"events":[{"data":1}]}`, "cell.bad_result", "event 0"},
		{"bad type", `{"events":[{"type":"a.b"},{"type":"A b"}]}`, "cell.bad_result", "event 1"},
		{"two data", `{"events":[{"type":"a.b","data":1,"data_base64":"AA=="}]}`, "cell.bad_result", "both"},
		{"bad base64", `{"events":[{"type":"a.b","data_base64":"!"}]}`, "cell.bad_result", ""},
		{"control character", `{"events":[{"type":"a.b","subject":"a\nb"}]}`, "cell.bad_result", "subject"},
		{"long id", `{"events":[{"type":"a.b","id":"` + strings.Repeat("x", 1025) + `"}]}`, "cell.bad_result", "id"},
		{"deep", strings.Repeat(`[`, 900) + strings.Repeat(`]`, 900), "cell.bad_result", ""},
		{"error", `{"error":{"message":"no"}}`, "cell.function_failed", "no"},
		{"error without a message", `{"error":{}}`, "cell.function_failed", "without a message"},
		{"error with a lone surrogate", `{"error":{"message":"no \ud800","retry":false}}`, "cell.function_failed", "no \ufffd"},
		{"endless wait", `{"error":{"message":"no","retry_after_seconds":1e300}}`, "cell.function_failed", "no"},
		{"negative wait", `{"error":{"message":"no","retry_after_seconds":-1}}`, "cell.function_failed", "no"},
		{"too long", `{"reply":"` + strings.Repeat("x", 2000) + `"}`, "cell.output_too_large", "2000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(tt.result)})
			if tt.code == "" {
				if err != nil {
					t.Errorf("Invoke = %v", err)
				}
				return
			}
			p := wantProblem(t, err, problemFailed, tt.code)
			wantText(t, p.Public, tt.text)
			if said, ok := cell.Failed(p); ok && said.Final != strings.Contains(tt.result, `"retry":false`) {
				t.Errorf("final = %t", said.Final)
			}
			if p.RetryAfter < 0 || p.RetryAfter > 24*time.Hour {
				t.Errorf("RetryAfter = %s; want at most a day", p.RetryAfter)
			}
		})
	}
}

func FuzzResult(f *testing.F) {
	for _, seed := range []string{``, `{}`, `{"reply":1}`, `{"events":[{"type":"a.b","data_base64":"AA=="}]}`, `{"error":{"message":"m","retry":false,"retry_after_seconds":1.5}}`} {
		f.Add([]byte(seed))
	}
	fn := load(f, wasm("echo.wasm", echo()), cell.DefaultLimits())
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4*64<<10 {
			t.Skip("longer than the memory of the module")
		}
		result, _, err := fn.Invoke(t.Context(), cell.Input{Event: text})
		if err != nil {
			wantKnown(t, err)
			return
		}
		if result.Reply != nil && !result.Reply.IsValid() {
			t.Errorf("reply %q is not JSON", result.Reply)
		}
		for _, e := range result.Events {
			if len(e.Data) > 0 && !e.Data.IsValid() {
				t.Errorf("event data %q is not JSON", e.Data)
			}
		}
	})
}
