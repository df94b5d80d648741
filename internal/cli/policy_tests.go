package cli

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// testRun is what policy test answers.
type testRun struct {
	// Namespace is whose policies the files were taken as; empty is the whole server.
	Namespace string       `json:"namespace,omitempty"`
	Passed    int          `json:"passed"`
	Failed    int          `json:"failed"`
	Tests     []testResult `json:"tests"`
}

// testResult is what became of one test.
type testResult struct {
	Name   string   `json:"name"`
	File   string   `json:"file"`
	Line   int      `json:"line"`
	Passed bool     `json:"passed"`
	Want   verdict  `json:"want"`
	Got    *verdict `json:"got,omitempty"` // of a test that failed
	// Missing are the policies that should have determined the decision, and Unexpected those that should not.
	Missing    []string `json:"missing,omitempty"`
	Unexpected []string `json:"unexpected,omitempty"`
	// Why has a sentence for each policy that did not do what it should.
	Why []string `json:"why,omitempty"`
}

// verdict is a decision. With nil Policies it does not matter which determined it; empty ones are none.
type verdict struct {
	Decision string   `json:"decision"`
	Policies []string `json:"policies,omitzero"`
}

func verdictOf(allowed bool, by []string) verdict {
	if allowed {
		return verdict{"allow", by}
	}
	return verdict{"deny", by}
}

// String is such as "allow by a, b".
func (v verdict) String() string {
	switch {
	case v.Policies == nil:
		return v.Decision
	case len(v.Policies) == 0:
		return v.Decision + " by no policy"
	}
	return v.Decision + " by " + strings.Join(v.Policies, ", ")
}

func (a *app) policyTest() *cobra.Command {
	return a.policyCheck(&cobra.Command{
		Use: "test [FOLDER | FILE ...]", Short: "Run the tests of policies, without a server",
		Long: `Run policy tests (*_test.toml) against the policies (*.cedar) and perimeters (*perimeters.toml) beside them and the policies that are built
in: those in the folder policies of FOLDER (default: this folder), or those of FOLDER itself when it has no such folder, or single
files. A test says what a request must come to, and with "by" which policies must determine it:

  [tests."a till publishes orders"]
  principal = { id = "token:till", role = "publisher" }
  action    = "publish"
  resource  = "event_type:default/order.created"
  context   = { transport = "tls", event = { size = 100 } }
  expect    = "allow"
  by        = ["publisher-types"]

The exit code is 3 when a test fails, or when a file has faults. No server is asked: it may have other policies.`,
		Example: `  sallyport policy test
  sallyport policy test ./webshop --namespace shop
  sallyport policy test -o json | jq '.tests[] | select(.passed | not)'`,
	}, func(s *policySources, of policiesOf) error {
		if len(s.tests) == 0 {
			return noPolicies("policy tests")
		}
		return a.testPolicies(s, of)
	})
}

func (a *app) testPolicies(s *policySources, of policiesOf) error {
	set, faulty := s.compile(of)
	tests, wrong := s.parseTests()
	if faulty = append(faulty, wrong...); len(faulty) > 0 {
		return a.found(faulty...)
	}
	run := runTests(set, of, tests)
	if err := a.showTests(run); err != nil {
		return err
	}
	a.say("%s passed, %d failed, with %s, as those of %s", count(run.Passed, "test", "tests"), run.Failed,
		count(len(s.policies), "file of policies", "files of policies"), of)
	if run.Failed > 0 {
		return a.found(s.failure(run))
	}
	return nil
}

func runTests(set *policy.Set, of policiesOf, tests []policy.Test) *testRun {
	run := &testRun{Namespace: string(of), Passed: len(tests)}
	for i, t := range tests {
		r := testResult{Name: t.Name, File: t.File, Line: t.Line, Passed: true, Want: verdictOf(t.Allow, t.By)}
		for _, f := range set.Check(tests[i : i+1]) {
			got := verdictOf(f.Got.Allowed, append([]string{}, f.Got.Policies...))
			r.Passed, r.Got, r.Missing, r.Unexpected = false, &got, f.Missing, f.Unexpected
			r.Why = why(set, of, &f)
			run.Passed, run.Failed = run.Passed-1, run.Failed+1
		}
		run.Tests = append(run.Tests, r)
	}
	return run
}

// why says why a test failed: what is wrong with the question, and what kept each policy that should have
// determined the decision from it. When the test names none, those are all of the files with the wanted effect.
func why(set *policy.Set, of policiesOf, f *policy.TestFailure) []string {
	q := &f.Test.Request
	e := set.Explain(*q)
	if !e.Known {
		return []string{fmt.Sprintf("no policy can be about it: the schema does not know that a %s may %s a %s",
			q.Principal.Kind, q.Action, q.Resource.Kind)}
	}
	var list []string
	if ns := string(q.Resource.Namespace); of != "" && ns != "" && ns != string(of) {
		list = append(list, fmt.Sprintf("the policies are of %s and not asked about %s, which is of the namespace %s", of, q.Resource, ns))
	}
	for _, err := range f.Got.Errors {
		list = append(list, fmt.Sprintf("%s could not be evaluated: %s", err.Policy, err.Message))
	}
	for _, id := range f.Missing {
		i := slices.IndexFunc(e.Matched, func(m policy.Match) bool { return m.Policy.ID == id })
		if i < 0 {
			list = append(list, notAsked(set, of, id))
			continue
		}
		list = append(list, kept(&e.Matched[i]))
	}
	if f.Test.By != nil {
		return list
	}
	for i := range e.Matched {
		if m := &e.Matched[i]; !m.Policy.BuiltIn && !m.Determined && m.Policy.Permit == f.Test.Allow && m.Error == "" {
			list = append(list, kept(m))
		}
	}
	return list
}

// notAsked says why a policy was not asked at all.
func notAsked(set *policy.Set, of policiesOf, id string) string {
	_, qualified, found := strings.Cut(id, "/")
	if !found {
		qualified = id
	}
	if of != "" {
		qualified = string(of) + "/" + qualified
	}
	for p := range set.Policies() {
		switch p.ID {
		case id:
			return id + " is not about this principal, action and resource"
		case qualified:
			return fmt.Sprintf("there is no policy %s; the one of %s is %s", id, of, qualified)
		}
	}
	near := problem.Nearest(id, func(yield func(string) bool) {
		for p := range set.Policies() {
			if !yield(p.ID) {
				return
			}
		}
	})
	if near != "" {
		return fmt.Sprintf("there is no policy %s; did you mean %s?", id, near)
	}
	return "there is no policy " + id
}

// kept says what kept a policy whose scope the request is in from determining the decision.
func kept(m *policy.Match) string {
	for _, c := range m.Conditions {
		if c.Holds {
			continue
		}
		word := "when"
		if c.Unless {
			word = "unless"
		}
		return fmt.Sprintf("%s does not apply: %s { %s }", m.Policy.ID, word, strings.Join(strings.Fields(c.Text), " "))
	}
	if m.Policy.Permit {
		return m.Policy.ID + " permits it, but a forbid wins over it"
	}
	return m.Policy.ID + " applies"
}

func (a *app) showTests(run *testRun) error {
	return showEach(a, run, run.Tests, func(w io.Writer) {
		for _, t := range run.Tests {
			switch {
			case a.quiet && !t.Passed:
				fmt.Fprintln(w, clean(t.Name))
			case a.quiet:
			case t.Passed:
				fmt.Fprintf(w, "ok    %s\n", clean(t.Name))
			default:
				fmt.Fprintf(w, "FAIL  %s\n", clean(t.Name))
				for _, line := range t.Why {
					fmt.Fprintf(w, "      %s\n", clean(line))
				}
			}
		}
	})
}

// failure is the problem of the tests that failed, each with its place.
func (s *policySources) failure(run *testRun) error {
	var faults []problem.Fault
	for i := range run.Tests {
		t := &run.Tests[i]
		if t.Passed {
			continue
		}
		detail := fmt.Sprintf("want %s, got %s", t.Want, t.Got)
		same := t.Got.Decision == t.Want.Decision // only by others: say which
		if same && len(t.Missing) > 0 {
			detail += "; missing: " + strings.Join(t.Missing, ", ")
		}
		if same && len(t.Unexpected) > 0 {
			detail += "; unexpected: " + strings.Join(t.Unexpected, ", ")
		}
		file := slices.IndexFunc(s.tests, func(f policyText) bool { return f.name == t.File })
		faults = append(faults, atLine(s.tests[file], t.Line, detail))
	}
	return problem.New(problem.Invalid, "cli.policy_test_failed", "%d of %s failed", run.Failed, count(len(run.Tests), "policy test", "policy tests")).
		WithFaults(faults...)
}

// atLine returns a fault that marks a line.
func atLine(f policyText, line int, detail string) problem.Fault {
	offset := 0
	for range line - 1 {
		offset += bytes.IndexByte(f.text[offset:], '\n') + 1
	}
	text, _, _ := bytes.Cut(f.text[offset:], []byte("\n"))
	fault := problem.Mark(f.name, f.text, offset, len(bytes.TrimRight(text, " \t\r")))
	fault.Detail = detail
	return fault
}
