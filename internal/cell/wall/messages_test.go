package wall_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/problem"
)

func results() []cell.Result {
	return []cell.Result{
		{},
		{Reply: []byte(`{"n":1}`)},
		{Events: []cell.Emitted{
			{Type: "a.b", ID: "1", Subject: "s", Data: []byte(`[1]`), DataContentType: "application/json"},
			{Type: "a.c", DataBase64: []byte{0, 1, 255}},
			{Type: "a.d"},
		}},
	}
}

func usage() cell.Usage {
	return cell.Usage{Duration: time.Second, CPU: time.Millisecond, MemoryPeak: 1 << 20, BytesIn: 10, BytesOut: 20, Cold: true}
}

func TestResultsComeThrough(t *testing.T) {
	t.Parallel()
	for _, want := range results() {
		got, u, err := wall.DecodeDone(wall.DoneBody(usage(), want), cell.DefaultLimits())
		if err != nil {
			t.Errorf("decode %+v: %v", want, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(usage(), u); diff != "" {
			t.Errorf("usage (-want +got):\n%s", diff)
		}
	}
}

func TestQuestionsComeThrough(t *testing.T) {
	t.Parallel()
	spec := cell.Spec{Name: "a.js", Kind: api.ModuleScript, Code: []byte("code"), SourceMap: []byte("map")}
	limits := cell.DefaultLimits()
	limits.CPU = time.Second
	function, gotSpec, gotLimits, err := wall.DecodeLoad(wall.LoadBody(7, spec, limits))
	if err != nil || function != 7 || !reflect.DeepEqual(spec, gotSpec) || limits != gotLimits {
		t.Errorf("load = %d %+v %+v %v", function, gotSpec, gotLimits, err)
	}
	in := cell.Input{Event: []byte(`{}`), EventID: "e", Attempt: 3}
	function, gotIn, err := wall.DecodeInvoke(wall.InvokeBody(9, in))
	if err != nil || function != 9 || !reflect.DeepEqual(in, gotIn) {
		t.Errorf("invoke = %d %+v %v", function, gotIn, err)
	}
}

func TestFailuresComeThrough(t *testing.T) {
	t.Parallel()
	said := &cell.Failure{Message: "no", Final: true, RetryAfter: time.Minute, Stack: "at a.js:1"}
	for name, want := range map[string]*problem.Error{
		"trap":     problem.New(problem.FunctionFailed, "cell.trap", "the function trapped").WithHint("mend it").WithCause(errors.New("hidden")),
		"its own":  problem.New(problem.FunctionFailed, "cell.function_failed", "no").WithCause(said).WithRetryAfter(time.Minute),
		"a place":  problem.New(problem.Unprocessable, "cell.script_invalid", "bad").WithFaults(problem.Fault{File: "a.js", Line: 3, Column: 1, Length: 2, Source: "x", Detail: "d"}),
		"internal": problem.From(errors.New("hidden")),
	} {
		_, got, err := wall.DecodeFailed(wall.FailedBody(usage(), want), cell.DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p := problem.From(got)
		if p.Kind != want.Kind || p.Code != want.Code || p.Public != want.Public || p.Hint != want.Hint || p.RetryAfter != want.RetryAfter {
			t.Errorf("%s = %+v, want %+v", name, p, want)
		}
		if diff := cmp.Diff(want.Faults, p.Faults); diff != "" {
			t.Errorf("%s: faults (-want +got):\n%s", name, diff)
		}
		if w, g := want.Unwrap(), p.Unwrap(); w != nil && (g == nil || w.Error() != g.Error()) {
			t.Errorf("%s: cause = %v, want %v", name, g, w)
		}
		wantSaid, _ := cell.Failed(want)
		gotSaid, _ := cell.Failed(got)
		if diff := cmp.Diff(wantSaid, gotSaid); diff != "" {
			t.Errorf("%s: what the function said (-want +got):\n%s", name, diff)
		}
	}
}

// TestHostileMessages decodes what no honest worker sends.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	small := cell.DefaultLimits()
	small.Output, small.Events = 8, 1
	done := func(r cell.Result) []byte { return wall.DoneBody(cell.Usage{}, r) }
	for name, body := range map[string][]byte{
		"empty":                   nil,
		"reply too long":          done(cell.Result{Reply: []byte(`"123456789"`)}),
		"reply is not JSON":       done(cell.Result{Reply: []byte(`{`)}),
		"reply repeats a key":     done(cell.Result{Reply: []byte(`{"a":1,"a":2}`)}),
		"too many events":         done(cell.Result{Events: []cell.Emitted{{Type: "a.b"}, {Type: "a.b"}}}),
		"type malformed":          done(cell.Result{Events: []cell.Emitted{{Type: "a b"}}}),
		"control character":       done(cell.Result{Events: []cell.Emitted{{Type: "a.b", Subject: "a\nb"}}}),
		"subject is not UTF-8":    done(cell.Result{Events: []cell.Emitted{{Type: "a.b", Subject: "\xff"}}}),
		"two kinds of data":       done(cell.Result{Events: []cell.Emitted{{Type: "a.b", Data: []byte(`1`), DataBase64: []byte(`1`)}}}),
		"something is left":       append(done(cell.Result{}), 0),
		"cut off":                 done(cell.Result{Reply: []byte(`1`)})[:8],
		"a number without an end": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		if _, _, err := wall.DecodeDone(body, small); !errors.Is(err, wall.ErrProtocol) {
			t.Errorf("%s: DecodeDone = %v, want a broken protocol", name, err)
		}
	}
	for name, p := range map[string]*problem.Error{
		"speaks for dispatch": problem.New(problem.FunctionFailed, "dispatch.event_gone", "gone"),
		"denies":              problem.New(problem.Denied, "cell.denied", "no"),
		"long code":           problem.New(problem.FunctionFailed, "cell."+string(make([]byte, 100)), "no"),
	} {
		if _, _, err := wall.DecodeFailed(wall.FailedBody(cell.Usage{}, p), small); !errors.Is(err, wall.ErrProtocol) {
			t.Errorf("%s: DecodeFailed = %v, want a broken protocol", name, err)
		}
	}
	for name, body := range map[string][]byte{"no level": nil, "unknown level": {9, 'a'}, "not UTF-8": {1, 0xff}} {
		if _, _, err := wall.DecodeLog(body); !errors.Is(err, wall.ErrProtocol) {
			t.Errorf("%s: DecodeLog = %v, want a broken protocol", name, err)
		}
	}
	if _, err := wall.DecodeLoaded(wall.LoadedBody("kernel")); !errors.Is(err, wall.ErrProtocol) {
		t.Errorf("DecodeLoaded = %v, want a broken protocol", err)
	}
}

// FuzzFromWorker: whatever a worker sends, it is decoded to what can be sent again as the same, or
// refused.
func FuzzFromWorker(f *testing.F) {
	for _, r := range results() {
		f.Add(wall.DoneBody(usage(), r))
	}
	f.Add(wall.FailedBody(usage(), problem.New(problem.FunctionFailed, "cell.trap", "t").WithFaults(problem.Fault{Line: 1})))
	f.Add(wall.LogBody(cell.LevelWarn, "line"))
	f.Add(wall.LoadedBody(cell.KindReactor))
	f.Add(wall.EntriesBody("code-1", []byte("code")))
	limits := cell.DefaultLimits()
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, u, err := wall.DecodeDone(body, limits); err == nil {
			again, u2, err := wall.DecodeDone(wall.DoneBody(u, r), limits)
			if err != nil || !cmp.Equal(r, again) || u != u2 {
				t.Errorf("a result changed on its way: %+v, %+v, %v", r, again, err)
			}
			for _, e := range r.Events {
				if len(e.Subject)+len(e.ID) > len(body) {
					t.Errorf("more came out than went in: %+v", e)
				}
			}
		} else if !errors.Is(err, wall.ErrProtocol) {
			t.Errorf("DecodeDone = %v", err)
		}
		if u, failure, err := wall.DecodeFailed(body, limits); err == nil {
			if _, again, err := wall.DecodeFailed(wall.FailedBody(u, failure), limits); err != nil || problem.From(again).Code != problem.From(failure).Code {
				t.Errorf("a failure changed on its way: %v, %v, %v", failure, again, err)
			}
		}
		_, _ = wall.DecodeRefused(body)
		_, _, _ = wall.DecodeLog(body)
		_, _ = wall.DecodeLoaded(body)
		_, _ = wall.DecodeEntries(body)
	})
}

// FuzzFromServer: a worker is not harmed by what it cannot understand.
func FuzzFromServer(f *testing.F) {
	f.Add(wall.LoadBody(1, cell.Spec{Name: "a", Kind: api.ModuleWasm, Code: []byte("c")}, cell.DefaultLimits()))
	f.Add(wall.InvokeBody(1, cell.Input{Event: []byte("{}"), EventID: "e", Attempt: 1}))
	f.Add(wall.CompileBody(cell.Spec{Name: "a", Kind: api.ModuleWasm, Code: []byte("c")}))
	f.Fuzz(func(t *testing.T, body []byte) {
		if spec, err := wall.DecodeCompile(body); err == nil && spec.Kind == api.ModuleWasm {
			if again, err := wall.DecodeCompile(wall.CompileBody(spec)); err != nil || !cmp.Equal(spec, again) {
				t.Errorf("a module changed on its way: %v", err)
			}
		}
		if function, spec, limits, err := wall.DecodeLoad(body); err == nil {
			if f2, s2, l2, err := wall.DecodeLoad(wall.LoadBody(function, spec, limits)); err != nil || f2 != function || !cmp.Equal(s2, spec) || l2 != limits {
				t.Errorf("a module changed on its way: %v", err)
			}
		}
		if function, in, err := wall.DecodeInvoke(body); err == nil {
			if f2, in2, err := wall.DecodeInvoke(wall.InvokeBody(function, in)); err != nil || f2 != function || string(in2.Event) != string(in.Event) {
				t.Errorf("an event changed on its way: %v", err)
			}
		}
	})
}
