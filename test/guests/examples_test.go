package guests_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/bundle"
	"sallyport/internal/cell"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/testkit"
)

// outcome is what an example makes of an event.
type outcome struct {
	Reply   string
	Events  []cell.Emitted
	Log     []string
	Failure string
	Final   bool
	Wait    time.Duration
}

func done(id, jsonID, total string) outcome {
	return outcome{
		Reply:  total,
		Events: []cell.Emitted{{Type: "order.priced", Subject: id, Data: []byte(`{"id":` + jsonID + `,"total":` + total + `}`)}},
		Log:    []string{"info order " + id + " costs " + total},
	}
}

// cases are events that every example treats alike.
var cases = []struct {
	name, event string // the event's members after its type
	attempt     int
	// sdk is true for what a program without an SDK does in another way.
	sdk  bool
	want outcome
}{
	{name: "an order", event: `"data":{"id":"o-1","lines":[{"sku":"book","quantity":2,"cents":1250},{"sku":"pen","quantity":1,"cents":99}]}`,
		want: done("o-1", `"o-1"`, "2599")},
	{name: "white space, other members, a name that is escaped", event: ` "hops" : 3 , "data" : { "note" : [ {"]":"}\""} , -1.5e+3 , true , null , [] , {} ] ,` +
		` "\u0069d" : "o-2" , "lines" : [ { "quantity" : 1000 , "cents" : 1000000000 , "x" : "\\" } ] } `, want: done("o-2", `"o-2"`, "1000000000000")},
	{name: "data that looks like syntax", event: `"data":{"id":"\",\"total\":0},\"x\":{\"","lines":[{"quantity":1,"cents":0}]}`,
		want: done(`","total":0},"x":{"`, `"\",\"total\":0},\"x\":{\""`, "0")},
	{name: "text of other scripts", event: `"data":{"id":"ü\u00fc\ud83d\ude00😀\/","lines":[{"quantity":1,"cents":7}]}`,
		want: done("üü😀😀/", `"üü😀😀/"`, "7")},
	{name: "a retry", event: `"data":{"id":"o-3","lines":[{"sku":"new","quantity":1,"cents":1}]}`, attempt: 1, sdk: true,
		want: outcome{Failure: "the price list is being updated", Wait: time.Second}},
	{name: "the attempt after it", event: `"data":{"id":"o-3","lines":[{"sku":"new","quantity":1,"cents":1}]}`, attempt: 2,
		want: done("o-3", `"o-3"`, "1")},
	{name: "no lines", event: `"data":{"id":"o-4","lines":[]}`, want: outcome{Failure: "order o-4 has no lines", Final: true}},
	{name: "no id", event: `"data":{"lines":[]}`, want: outcome{Failure: "the order has no id", Final: true}},
	{name: "too many", event: `"data":{"id":"o-5","lines":[{"quantity":1000,"cents":1},{"quantity":1001,"cents":1}]}`,
		want: outcome{Failure: "line 2 of order o-5 has no quantity or price", Final: true}},
	{name: "no price", event: `"data":{"id":"o-6","lines":[{"quantity":1}]}`,
		want: outcome{Failure: "line 1 of order o-6 has no quantity or price", Final: true}},
}

// TestExamples: the examples of all languages do the same with the same event, in the sandbox and as
// a user deploys them.
func TestExamples(t *testing.T) {
	t.Parallel()
	binary := testkit.Binary(t)
	server := testkit.Start(t, binary, filepath.Join(t.TempDir(), "data"))
	for _, e := range examples {
		t.Run(e.folder, func(t *testing.T) {
			t.Parallel()
			for name, module := range e.modules(t) {
				app := e.app(t, module)
				t.Run(name, func(t *testing.T) {
					f := load(t, app, "price-"+e.folder)
					testCases(t, f)
					if f.Kind() != cell.KindCommand { // which is started anew for each event
						testWarm(t, f)
					}
				})
				t.Run(name+" deployed", func(t *testing.T) {
					testDeployed(t, user{binary, server, app}, "price-"+e.folder, "o-"+name)
				})
			}
		})
	}
}

// app makes the example's folder anew, with this module.
func (e example) app(t testing.TB, module string) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range []struct{ from, name string }{{filepath.Join(root, "examples", e.folder, "app.toml"), "app.toml"}, {module, e.source}} {
		content, err := os.ReadFile(file.from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file.name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var engine = sync.OnceValues(func() (*cell.Engine, error) { return cell.New(context.Background(), cell.Default()) })

// load loads the function of an app into the sandbox, with the memory that its manifest gives it.
func load(t testing.TB, app, function string) *cell.Function {
	t.Helper()
	b, manifest, err := bundle.Load(app)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	limits := cell.DefaultLimits()
	limits.Memory = manifest.Functions[ident.FunctionName(function)].Memory
	m := b.Modules[function]
	f, err := e.Load(t.Context(), cell.Spec{Name: function, Kind: m.Kind, Code: m.Code, SourceMap: m.SourceMap}, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return f
}

func testCases(t *testing.T, f *cell.Function) {
	for _, tt := range cases {
		if tt.sdk && f.Kind() == cell.KindCommand {
			continue
		}
		got := invoke(t, f, tt.event, tt.attempt)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: the outcome differs:\n%s", tt.name, diff)
		}
	}
	// What only has to fail for good, each language in its own words.
	for _, event := range []string{
		`"data":{"id":"o-7","lines":[{"quantity":1.5,"cents":1}]}`, `"data":{"id":"o-7","lines":[{"quantity":1,"cents":99999999999999999999}]}`,
		`"data":{"id":7,"lines":[{"quantity":1,"cents":1}]}`, `"data":{"id":"o-7","lines":"many"}`, `"data":[]`, `"data":null`, `"data_base64":"e30="`, `"hops":1`,
	} {
		if got := invoke(t, f, event, 1); got.Failure == "" || !got.Final {
			t.Errorf("the outcome of %s is %+v; want a failure for good", event, got)
		}
	}
}

// testWarm: an instance that has handled an event serves the next one, which it does not when its
// memory had to grow for the first.
func testWarm(t *testing.T, f *cell.Function) {
	const tries = 5 // a machine that is short of memory may close an instance that waits
	for range tries {
		_, usage, err := f.Invoke(t.Context(), cell.Input{Event: []byte(`{"id":"e-1",` + cases[0].event + `}`), Attempt: 1})
		if err != nil {
			t.Fatal(err)
		}
		if !usage.Cold {
			return
		}
	}
	t.Errorf("%d events, and each needed a new instance", tries)
}

func invoke(t *testing.T, f *cell.Function, members string, attempt int) (got outcome) {
	t.Helper()
	event := `{"specversion":"1.0","id":"e-1","source":"/test","type":"order.created",` + members + `}`
	result, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(event), EventID: "e-1", Attempt: max(attempt, 1),
		Log: func(level, message string) { got.Log = append(got.Log, level+" "+message) }})
	if err == nil {
		got.Reply, got.Events = string(result.Reply), result.Events
		return got
	}
	said, ok := cell.Failed(problem.From(err))
	if !ok {
		t.Errorf("event %s: %v, which is none of the function's own failures", members, err)
		return got
	}
	got.Failure, got.Final, got.Wait = said.Message, said.Final, said.RetryAfter
	return got
}

// BenchmarkExamples is what one event costs in each language.
func BenchmarkExamples(b *testing.B) {
	event := []byte(`{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.created","data":{"id":"o-1",` +
		`"lines":[{"sku":"book","quantity":2,"cents":1250},{"sku":"pen","quantity":1,"cents":99},{"sku":"lamp","quantity":3,"cents":4900}]}}`)
	for _, e := range examples {
		b.Run(e.folder, func(b *testing.B) {
			module := filepath.Join(root, "examples", e.folder, e.source)
			if e.mode != "" {
				module = goModule(b, "./examples/"+e.folder, e.mode)
			}
			f := load(b, e.app(b, module), "price-"+e.folder)
			for b.Loop() {
				if _, _, err := f.Invoke(b.Context(), cell.Input{Event: event, Attempt: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// user is somebody with a shell, in a folder with an app.
type user struct {
	binary string
	server *testkit.Server
	dir    string
}

// run runs the binary and returns what it printed.
func (u user) run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, talk strings.Builder
	c := exec.CommandContext(t.Context(), u.binary, args...)
	c.Dir, c.Stdout, c.Stderr = u.dir, &out, &talk
	c.Env = append(os.Environ(), "SALLYPORT_SERVER="+u.server.Ready.URL, "SALLYPORT_CA_FILE="+u.server.Ready.CAFile, "SALLYPORT_TOKEN_FILE="+u.server.Ready.TokenFile)
	err = c.Run()
	return out.String(), talk.String(), err
}

// testDeployed deploys the app, and has its function price an order of this id.
func testDeployed(t *testing.T, u user, function, id string) {
	if _, stderr, err := u.run(t, "apply"); err != nil {
		t.Fatalf("apply: %v\n%s", err, stderr)
	}
	id = function + "-" + id
	stdout, stderr, err := u.run(t, "invoke", function, "--data", fmt.Sprintf(`{"id":%q,"lines":[{"quantity":3,"cents":14}]}`, id))
	if err != nil || stdout != "42\n" {
		t.Fatalf("invoke = %q, %v; want 42\n%s", stdout, err, stderr)
	}
	if _, stderr, err := u.run(t, "invoke", function, "--data", `{}`); err == nil || !strings.Contains(stderr, "the order has no id") {
		t.Errorf("invoke without an id: %v, %q; want its failure", err, stderr)
	}

	// What it published and logged comes after the reply.
	eventually(t, "an order.priced with the subject "+id, func() bool {
		stdout, stderr, err := u.run(t, "event", "list", "--type", "order.priced", "--limit", "1000", "-o", "ndjson")
		if err != nil {
			t.Fatalf("event list: %v\n%s", err, stderr)
		}
		return published(t, stdout, id)
	})
	eventually(t, "a log line about "+id, func() bool {
		stdout, stderr, err := u.run(t, "logs", "--function", function)
		if err != nil {
			t.Fatalf("logs: %v\n%s", err, stderr)
		}
		return strings.Contains(stdout, "order "+id+" costs 42")
	})
}

func published(t *testing.T, lines, subject string) bool {
	t.Helper()
	for line := range strings.Lines(lines) {
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("event list: %v: %s", err, line)
		}
		if e.Subject == subject {
			return true
		}
	}
	return false
}

// eventually waits for what the server brings about by itself; the limit only keeps the test from hanging.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	const limit = time.Minute
	end := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-end:
			t.Fatalf("%s: not within %s", what, limit)
		case <-tick.C:
		}
	}
}
