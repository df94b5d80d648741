package policy

import "slices"

// Test is what a set of policies is expected to decide. manifest.ParsePolicyTests reads them from a file.
type Test struct {
	Name    string
	File    string
	Line    int
	Request Request
	Allow   bool
	// By, when not nil, are all the policies that determine it.
	By []string
}

// TestFailure is a test whose expectation a set does not meet.
type TestFailure struct {
	Test Test
	Got  Decision
	// Missing are the policies of By that do not determine the decision, and Unexpected those that do without
	// being in By.
	Missing, Unexpected []string
}

// Check decides the request of each test, and returns the tests that failed, in their order.
func (s *Set) Check(tests []Test) []TestFailure {
	var failed []TestFailure
	for _, t := range tests {
		f := TestFailure{Test: t, Got: s.Decide(t.Request)}
		if t.By != nil {
			f.Missing = without(t.By, f.Got.Policies)
			f.Unexpected = without(f.Got.Policies, t.By)
		}
		if f.Got.Allowed != t.Allow || len(f.Missing) > 0 || len(f.Unexpected) > 0 {
			failed = append(failed, f)
		}
	}
	return failed
}

// without returns what is in list and not in others.
func without(list, others []string) []string {
	var rest []string
	for _, s := range list {
		if !slices.Contains(others, s) {
			rest = append(rest, s)
		}
	}
	return rest
}
