package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/bundle"
	"sallyport/internal/grant/double"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/server"
)

const (
	// maxTestFiles bounds the files of tests in an app's folder.
	maxTestFiles = 1000
	// maxEventFile bounds a file with the event of a test, in bytes; the server has a bound of its own.
	maxEventFile = 16 << 20
	// structured is the type of an event that is sent whole.
	structured = "application/cloudevents+json"
)

// functionRun is what function test answers.
type functionRun struct {
	Passed int                  `json:"passed"`
	Failed int                  `json:"failed"`
	Tests  []functionTestResult `json:"tests"`
}

// functionTestResult is what became of one test.
type functionTestResult struct {
	Name     string `json:"name"`
	Function string `json:"function"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Passed   bool   `json:"passed"`
	// Why has a line for each difference from what the test expects.
	Why    []string         `json:"why,omitempty"`
	Reply  jsontext.Value   `json:"reply,omitempty"`
	Events []jsontext.Value `json:"events"`
	// Code and Error say how the function failed, or why it was not run.
	Code        string        `json:"code,omitempty"`
	Error       string        `json:"error,omitempty"`
	Policies    []string      `json:"policies,omitempty"`
	Logs        []api.LogLine `json:"logs"`
	Uses        []double.Use  `json:"uses"`
	TookSeconds float64       `json:"took_seconds"`
}

// functionTestFlags are those of function test.
type functionTestFlags struct {
	function, event, eventType, run string
	details                         bool
}

func (a *app) functionTest() *cobra.Command {
	var f functionTestFlags
	c := &cobra.Command{
		Use: "test [FOLDER | FILE ...]", Short: "Run the tests of functions, with stand-ins for what their grants reach",
		Long: `Run the tests of an app's functions (*.test.toml, beside them): those in FOLDER (default: this folder), or single files. Each gives its function one
event, in a server of its own that ends with the command. Nothing outside is reached: what a function uses a grant for is checked as in production (by
policies, limits, templates, types), recorded without credentials, and then answered by the test:

  function = "confirm"

  [tests."a paid order is confirmed"]
  event  = { type = "order.reserved", data = { id = "o-1", customer = "ada" } }       # or file = "events/done.json"
  expect = { events = [{ type = "order.confirmed", subject = "o-1" }], logs = ["paid"] }

  [[tests."a paid order is confirmed".uses]]
  grant   = "payments"
  request = { method = "PUT", url = "http://127.0.0.1:8610/v1/charges/o-1" }          # a part of it, or with exact = true all
  answer  = { status = 200, body = { receipt = "r-1" } }                              # or error = { code = "fetch.timeout", retry = true }

What an expectation names must be so, in part or with exact = true wholly; expect.error is the code of a failure. A use without a fixture is answered
as if it had succeeded where that is clear (a write, a new key), and fails with grant.not_answered otherwise; a fixture that is not used fails the
test. in_order = true wants the uses in the order of the file. [[uses]] of the file itself, and of files in fixtures = ["x.fixtures.toml"], hold for all
tests. "sallyport dev --record" writes such a file. The exit code is 3 when a test fails.`,
		Example: `  sallyport function test
  sallyport function test ./webshop --run confirm --details
  sallyport function test --function price --event events/done.json --type order.created
  sallyport function test -o json | jq '.tests[] | select(.passed | not)'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.readFunctionTests(args, f)
			if err != nil {
				return err
			}
			return a.testFunctions(cmd.Context(), t, f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.run, "run", "", "only tests whose function or name has this `text` in it")
	flags.BoolVar(&f.details, "details", false, "show reply, events, log and uses of tests that pass, too")
	flags.StringVar(&f.function, "function", "", "run this `function` on the event of --event, without a test")
	flags.StringVar(&f.event, "event", "", "`file` with an event, or with its data and --type beside it")
	flags.StringVar(&f.eventType, "type", "", "`type` of the event whose data --event has")
	return c
}

// functionTests are the tests of an app.
type functionTests struct {
	dir   string
	app   *loaded
	files []*testFile
}

// testFile is a file of tests with its fixtures.
type testFile struct {
	name string
	text []byte
	*manifest.FunctionTests
}

// readFunctionTests reads an app and its tests. What is wrong with the tests is found, and printed, as a whole.
func (a *app) readFunctionTests(args []string, f functionTestFlags) (*functionTests, error) {
	if (f.event == "") != (f.function == "") {
		return nil, usage("--function and --event go together")
	}
	t := &functionTests{dir: "."}
	names := args
	if len(args) <= 1 {
		t.dir = folder(args)
	}
	if info, err := os.Stat(t.dir); len(args) > 1 || err == nil && !info.IsDir() {
		if t.dir, err = appFolder(args[0]); err != nil {
			return nil, err
		}
	} else if names, err = testFiles(t.dir); err != nil {
		return nil, err
	}
	var err error
	if t.app, err = loadApp(t.dir); err != nil {
		return nil, inFolder(err, t.dir)
	}
	m := t.app.app
	if f.function != "" {
		one, err := single(m, f)
		if err != nil {
			return nil, err
		}
		t.files = []*testFile{one}
		return t, nil
	}
	if len(names) == 0 {
		return nil, manifest.NoFunctionTests(t.dir)
	}
	var faulty []error
	for _, name := range names {
		one, err := readTestFile(name, m)
		if err != nil {
			faulty = append(faulty, err)
			continue
		}
		t.files = append(t.files, one)
	}
	if len(faulty) > 0 {
		return nil, a.found(faulty...)
	}
	return t, nil
}

// appFolder returns the folder of the app that a file belongs to.
func appFolder(file string) (string, error) {
	for dir := filepath.Dir(file); ; dir = filepath.Join(dir, "..") {
		if _, err := os.Stat(filepath.Join(dir, bundle.ManifestName)); err == nil {
			return dir, nil
		}
		abs, err := filepath.Abs(dir)
		if err != nil || filepath.Dir(abs) == abs {
			return "", problem.New(problem.NotFound, "bundle.no_app", "there is no %s in a folder above %s", bundle.ManifestName, file).
				WithHint("name a file of tests that stands in an app's folder")
		}
	}
}

// testFiles returns the files of function tests in a folder and below it, in order.
func testFiles(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != dir && (strings.HasPrefix(e.Name(), ".") || e.Name() == "node_modules"):
			return fs.SkipDir
		case e.Type().IsRegular() && strings.HasSuffix(e.Name(), manifest.FunctionTestFile):
			names = append(names, path)
		}
		if len(names) > maxTestFiles {
			return problem.New(problem.TooLarge, "cli.too_large", "%s has more than %d files of function tests", dir, maxTestFiles)
		}
		return nil
	})
	return names, err
}

func readTestFile(name string, m *manifest.App) (*testFile, error) {
	text, err := readBounded(name, manifest.MaxBytes)
	if err != nil {
		return nil, err
	}
	t := &testFile{name: name, text: text}
	if t.FunctionTests, err = manifest.ParseFunctionTests(name, text, false); err != nil {
		return nil, err
	}
	for _, f := range t.Fixtures {
		file := filepath.Join(filepath.Dir(name), filepath.FromSlash(f))
		more, err := readFixtures(file)
		switch {
		case err != nil:
			return nil, err
		case more.Function != t.Function:
			return nil, problem.New(problem.Invalid, "manifest.invalid", "%s has answers for the function %q, and %s tests %q", file, more.Function, name, t.Function)
		}
		t.Doubles = append(t.Doubles, more.Doubles...)
	}
	return t, t.check(m)
}

func readFixtures(file string) (*manifest.FunctionTests, error) {
	text, err := readBounded(file, manifest.MaxBytes)
	if err != nil {
		return nil, err
	}
	return manifest.ParseFunctionTests(file, text, true)
}

// check sees that the tests are about a function and grants that the app has.
func (t *testFile) check(m *manifest.App) error {
	fn, ok := m.Functions[t.Function]
	if !ok {
		near := problem.Nearest(string(t.Function), func(yield func(string) bool) {
			for name := range m.Functions {
				if !yield(string(name)) {
					return
				}
			}
		})
		p := problem.New(problem.Invalid, "manifest.invalid", "%s is about the function %q, which the app has not", t.name, t.Function)
		if near != "" {
			p = p.WithHint("did you mean %q?", near)
		}
		return p
	}
	codes, err := explanations()
	if err != nil {
		return err
	}
	var faults []problem.Fault
	for _, d := range t.all() {
		detail := ""
		switch g, ok := fn.Grants[d.Grant]; {
		case !ok || g.Kind() == manifest.KindPublish:
			detail = fmt.Sprintf("the function %q has no grant %q that is used while it runs; it has %s", t.Function, d.Grant, strings.Join(slices.Sorted(maps.Keys(fn.Grants)), ", "))
		case d.Error != nil && !slices.ContainsFunc(codes, func(p explanation) bool { return p.Code == d.Error.Code }):
			// A function that handles an error asks for its code: a test with a code that there is not would show nothing.
			detail = fmt.Sprintf("there is no problem code %q; %s", d.Error.Code, nearCode(codes, d.Error.Code))
		default:
			continue
		}
		if d.File == t.name {
			faults = append(faults, atLine(policyText{t.name, t.text}, d.Line, detail))
		} else {
			faults = append(faults, problem.Fault{File: d.File, Line: d.Line, Detail: detail})
		}
	}
	if len(faults) > 0 {
		return problem.New(problem.Invalid, "manifest.invalid", "%s has answers that no grant gives", t.name).WithFaults(faults...)
	}
	return nil
}

// all returns all fixtures of the file.
func (t *testFile) all() []manifest.Double {
	all := slices.Clone(t.Doubles)
	for i := range t.Tests {
		all = append(all, t.Tests[i].Doubles...)
	}
	return all
}

// single returns a test without expectations: the event of the command line.
func single(m *manifest.App, f functionTestFlags) (*testFile, error) {
	t := &testFile{name: f.event, FunctionTests: &manifest.FunctionTests{Function: ident.FunctionName(f.function)}}
	if err := t.check(m); err != nil {
		return nil, problem.New(problem.NotFound, "deploy.function_not_found", "the app has no function %q", f.function).
			WithHint("the functions are those of %s", bundle.ManifestName)
	}
	t.Tests = []manifest.FunctionTest{{Name: f.event, Event: manifest.TestEvent{Type: f.eventType, DataFile: filepath.Base(f.event)}}}
	return t, nil
}

// testFunctions runs tests in a server of their own.
func (a *app) testFunctions(ctx context.Context, t *functionTests, f functionTestFlags) (err error) {
	dir, err := os.MkdirTemp("", "sallyport-test-*") // 0700
	if err != nil {
		return fmt.Errorf("make a folder for the server of the tests: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	settings := manifest.DefaultServer()
	settings.Listen, settings.DataDir, settings.Log.Level = "127.0.0.1:0", dir, "error"
	settings.Cells.SecondWall = manifest.WallOff // the code is the developer's own, as in dev
	stand := double.New(double.Config{})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var background sync.WaitGroup
	run := &functionRun{Tests: []functionTestResult{}}
	done := false
	var failed error // read after background ended
	err = server.Run(ctx, server.Config{
		Settings: settings, Mode: server.ModeDev, Version: a.env.Version, Log: a.env.Stderr, Doubles: stand, InvokeEvents: true,
		OnReady: func(r api.Ready) {
			background.Go(func() {
				defer stop()
				s := &testSession{app: a, stand: stand, flags: f, run: run}
				failed = s.all(ctx, r, t)
				done = failed == nil
			})
		},
	})
	stop()
	background.Wait()
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if !done {
		return context.Canceled
	}
	return a.tellFunctionTests(t, run, f)
}

// testSession runs tests in a server.
type testSession struct {
	app    *app
	stand  *double.Stand
	client *client.Client
	flags  functionTestFlags
	run    *functionRun
}

// all applies the app and runs its tests, one after the other.
func (s *testSession) all(ctx context.Context, r api.Ready, t *functionTests) (err error) {
	ns := cmp.Or(s.app.namespace(), "default")
	s.client, err = client.New(client.Config{Server: r.URL, CAFile: r.CAFile, TokenFile: r.TokenFile, Namespace: ns})
	if err != nil {
		return err
	}
	defer s.client.Close()
	if ns != "default" {
		if _, err := s.client.CreateNamespace(ctx, api.NamespaceRequest{Name: ns}); err != nil {
			return err
		}
	}
	secrets := secretNames(t.app.app)
	if err := s.setSecrets(ctx, secrets, nil); err != nil {
		return err
	}
	if _, err := t.app.apply(ctx, s.client, false); err != nil {
		return inFolder(err, t.dir)
	}
	// What a function publishes is stored, and is nobody's to handle: a test is about one function.
	for name := range t.app.app.Subscriptions {
		if _, err := s.client.SetPaused(ctx, string(name), true); err != nil {
			return err
		}
	}
	for _, file := range t.files {
		if err := s.setSecrets(ctx, secrets, file.Secrets); err != nil {
			return err
		}
		for i := range file.Tests {
			test := &file.Tests[i]
			if !strings.Contains(string(file.Function), s.flags.run) && !strings.Contains(test.Name, s.flags.run) {
				continue
			}
			s.stand.Share(file.Function, file.Doubles)
			if err := s.one(ctx, file, test); err != nil {
				return err
			}
		}
	}
	return nil
}

// secretNames returns the secrets of this server's own that the grants of an app name.
func secretNames(m *manifest.App) []string {
	names := map[string]bool{}
	for _, f := range m.Functions {
		uses, reveals := manifest.Secrets(f.Grants)
		for _, r := range append(uses, reveals...) {
			if r.Own() {
				names[r.Name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// setSecrets gives all secrets a value: that of the tests, or one that says it is none.
func (s *testSession) setSecrets(ctx context.Context, names []string, values map[string]string) error {
	for _, name := range names {
		value := cmp.Or(values[name], "stand-in-for-"+name)
		if _, err := s.client.SetSecret(ctx, name, []byte(value), client.SecretOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// one runs one test.
func (s *testSession) one(ctx context.Context, file *testFile, test *manifest.FunctionTest) error {
	r := functionTestResult{Name: test.Name, Function: string(file.Function), File: test.File, Line: test.Line, Events: []jsontext.Value{}, Logs: []api.LogLine{}}
	e, id, err := s.event(file, test)
	if err != nil {
		return err
	}
	s.stand.Begin(id, test.Doubles, test.InOrder)
	out, err := s.client.Invoke(ctx, string(file.Function), e, structured)
	uses, unused := s.stand.End(id)
	p, refused := errors.AsType[*client.Problem](err)
	switch {
	case refused:
		r.Code, r.Error, r.Policies = p.Code, shownAnswer(p).text, p.Policies
		for _, f := range p.Errors {
			if !strings.Contains(r.Error, f.Detail) {
				r.Error += "; " + strings.TrimSpace(f.Pointer+" "+f.Detail)
			}
		}
	case err != nil:
		return err
	default:
		r.Reply = out.Reply
	}
	r.Uses = append([]double.Use{}, uses...)
	if err := s.look(ctx, id, &r); err != nil {
		return err
	}
	r.Why = compare(&test.Expect, &r, unused)
	if s.flags.function != "" {
		r.Why = nil // nothing is expected
	}
	if r.Passed = len(r.Why) == 0; r.Passed {
		s.run.Passed++
	} else {
		s.run.Failed++
	}
	s.run.Tests = append(s.run.Tests, r)
	return nil
}

// look fills in what the server knows of the event.
func (s *testSession) look(ctx context.Context, id string, r *functionTestResult) error {
	e, err := s.client.Event(ctx, id, client.EventOptions{})
	if p, ok := errors.AsType[*client.Problem](err); ok && p.Status == http.StatusNotFound {
		return nil // it was not accepted
	}
	if err != nil {
		return err
	}
	for _, d := range e.Deliveries {
		for _, at := range d.Attempts {
			r.TookSeconds += at.Finished.Sub(at.Started).Seconds()
			for _, emitted := range at.Emitted {
				if err := s.emitted(ctx, emitted, r); err != nil {
					return err
				}
			}
		}
	}
	return s.client.Logs(ctx, client.LogOptions{Event: id, Limit: 1000}, func(l *api.LogLine) error {
		r.Logs = append(r.Logs, *l)
		return nil
	})
}

// emitted adds an event that the function published.
func (s *testSession) emitted(ctx context.Context, id string, r *functionTestResult) error {
	e, err := s.client.Event(ctx, id, client.EventOptions{Data: true})
	if err != nil {
		return err
	}
	text, err := json.Marshal(struct {
		Type    string         `json:"type"`
		Source  string         `json:"source"`
		Subject string         `json:"subject,omitempty"`
		Data    jsontext.Value `json:"data,omitempty"`
		Base64  []byte         `json:"data_base64,omitempty"`
	}{e.Type, e.Source, e.Subject, e.Data, e.DataBase64})
	r.Events = append(r.Events, text)
	return err
}

// event makes the event of a test, and returns it with its id.
func (s *testSession) event(file *testFile, test *manifest.FunctionTest) (jsontext.Value, string, error) {
	e := test.Event
	members := map[string]jsontext.Value{}
	if e.DataFile != "" {
		name := filepath.Join(filepath.Dir(file.name), filepath.FromSlash(e.DataFile))
		text, err := readBounded(name, maxEventFile)
		if err != nil {
			return nil, "", err
		}
		if err := checkSyntax(text); err != nil {
			return nil, "", problem.New(problem.Invalid, "cli.invalid_json", "%s is not JSON: %v", name, err)
		}
		whole := json.Unmarshal(text, &members) == nil && members["specversion"] != nil
		if !whole {
			members = map[string]jsontext.Value{"data": text}
			if e.Type == "" {
				return nil, "", problem.New(problem.Invalid, "cli.no_event_type", "%s has no event, but data", name).
					WithHint(`say which type the event is of: type = "order.created" in the test, or --type order.created`)
			}
		}
	}
	id := cmp.Or(e.ID, rand.Text()) // one of its own even when the file has one: an event that was there is not taken again
	at := ""
	if !e.Time.IsZero() {
		at = e.Time.UTC().Format(time.RFC3339Nano)
	}
	// What the test says goes before what the file says, and that before what is made up.
	for _, v := range []struct{ key, value, otherwise string }{
		{"specversion", "", "1.0"}, {"id", id, ""}, {"source", e.Source, "/tests"}, {"type", e.Type, ""}, {"subject", e.Subject, ""},
		{"time", at, time.Now().UTC().Format(time.RFC3339Nano)},
	} {
		value := v.value
		if value == "" && members[v.key] == nil {
			value = v.otherwise
		}
		if value == "" {
			continue
		}
		quoted, err := json.Marshal(value)
		if err != nil {
			return nil, "", err
		}
		members[v.key] = quoted
	}
	if e.Data != nil {
		members["data"] = e.Data
	}
	text, err := json.Marshal(members, json.Deterministic(true))
	return text, id, err
}

// compare returns how a run differs from what its test expects.
func compare(want *manifest.Expectation, r *functionTestResult, unused []manifest.Double) (why []string) {
	add := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	switch {
	case want.Error == "" && r.Code != "":
		add("want success, got %s: %s", r.Code, r.Error)
	case want.Error != r.Code:
		add("want the error %s, got %s", want.Error, cmp.Or(r.Code, "success"))
	case want.Message != "" && !strings.Contains(r.Error, want.Message):
		add("want an error with %q, got %q", want.Message, r.Error)
	}
	if want.Reply != nil {
		for _, line := range double.Diff(want.Reply, r.Reply, want.Exact) {
			add("reply%s", line)
		}
	}
	if want.Events != nil {
		if len(want.Events) != len(r.Events) {
			add("want %s, got %d", count(len(want.Events), "event", "events"), len(r.Events))
		}
		for i := range min(len(want.Events), len(r.Events)) {
			for _, line := range double.Diff(want.Events[i], r.Events[i], want.Exact) {
				add("event %d %s", i+1, line)
			}
		}
		for _, e := range r.Events[min(len(want.Events), len(r.Events)):] {
			add("unexpected event %s", double.Short(e))
		}
	}
	why = append(why, compareLogs(want.Logs, r.Logs)...)
	for _, u := range r.Uses {
		if u.Answered == double.ByNobody {
			add("unexpected use of %s: %s %s; write a fixture for it, with what it is to be answered", u.Grant, u.Op, double.Short(u.Request))
		}
	}
	for _, d := range unused {
		add("the fixture at %s:%d for %s was not used as often as it says%s", d.File, d.Line, d.Grant, nearest(d, r.Uses))
	}
	return why
}

// compareLogs returns which lines are missing; those that are wanted come in their order.
func compareLogs(want []string, got []api.LogLine) (why []string) {
	at := 0
	for _, w := range want {
		i := slices.IndexFunc(got[at:], func(l api.LogLine) bool { return strings.Contains(l.Message, w) })
		if i < 0 {
			why = append(why, fmt.Sprintf("want a line with %q in the log, after those before it", w))
			continue
		}
		at += i + 1
	}
	return why
}

// nearest says how the uses of a fixture's grant differ from it.
func nearest(d manifest.Double, uses []double.Use) string {
	for _, u := range uses {
		if u.Grant != d.Grant || u.Answered == double.ByFixture || d.Op != "" && d.Op != u.Op || d.Request == nil {
			continue
		}
		if lines := double.Diff(d.Request, u.Request, d.Exact); len(lines) > 0 {
			return "; a use differs: " + strings.Join(lines, "; ")
		}
	}
	return ""
}

// tellFunctionTests prints the results, and returns the exit code.
func (a *app) tellFunctionTests(t *functionTests, run *functionRun, f functionTestFlags) error {
	if len(run.Tests) == 0 {
		return problem.New(problem.NotFound, "cli.no_function_tests", "no test has %q in its function or its name", f.run)
	}
	if err := showEach(a, run, run.Tests, func(w io.Writer) {
		for i := range run.Tests {
			r := &run.Tests[i]
			switch {
			case f.function != "":
			case a.quiet && r.Passed:
				continue
			case a.quiet:
				fmt.Fprintln(w, clean(r.Name))
				continue
			case r.Passed:
				fmt.Fprintf(w, "ok    %s: %s\n", clean(r.Function), clean(r.Name))
			default:
				fmt.Fprintf(w, "FAIL  %s: %s\n", clean(r.Function), clean(r.Name))
			}
			for _, line := range r.Why {
				fmt.Fprintf(w, "      %s\n", clean(line))
			}
			if f.details || f.function != "" || !r.Passed {
				details(w, r)
			}
		}
	}); err != nil {
		return err
	}
	if f.function != "" {
		if run.Tests[0].Code != "" {
			return outcome(exitFailed)
		}
		return nil
	}
	a.say("%s passed, %d failed; nothing outside was reached", count(run.Passed, "test", "tests"), run.Failed)
	if run.Failed > 0 {
		var faults []problem.Fault
		for i := range run.Tests {
			if r := &run.Tests[i]; !r.Passed {
				file := t.files[slices.IndexFunc(t.files, func(f *testFile) bool { return f.name == r.File })]
				faults = append(faults, atLine(policyText{file.name, file.text}, r.Line, r.Why[0]))
			}
		}
		return a.found(problem.New(problem.Invalid, "cli.function_test_failed", "%d of %s failed", run.Failed, count(len(run.Tests), "function test", "function tests")).
			WithFaults(faults...))
	}
	return nil
}

// details prints what happened in a test.
func details(w io.Writer, r *functionTestResult) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "        %-6s %s\n", what, clean(fmt.Sprintf(format, args...)))
	}
	if len(r.Reply) > 0 {
		line("reply", "%s", double.Short(r.Reply))
	}
	if r.Code != "" {
		line("error", "%s: %s", r.Code, r.Error)
	}
	if len(r.Policies) > 0 {
		line("by", "%s", strings.Join(r.Policies, ", "))
	}
	for _, e := range r.Events {
		line("event", "%s", double.Short(e))
	}
	for _, l := range r.Logs {
		line("log", "%s %s", l.Level, l.Message)
	}
	for i := range r.Uses {
		line("use", "%s", useText(&r.Uses[i]))
	}
	line("took", "%s", seconds(r.TookSeconds))
}

// useText is one use of a grant in one line.
func useText(u *double.Use) string {
	text := fmt.Sprintf("%s %s %s: %s", u.Grant, u.Op, double.Short(u.Request), u.Answered)
	if u.Fixture != "" {
		text += " " + u.Fixture
	}
	if u.Code != "" {
		text += fmt.Sprintf(", %s: %s", u.Code, u.Error)
	}
	if len(u.Policies) > 0 {
		text += " (by " + strings.Join(u.Policies, ", ") + ")"
	}
	return text
}
