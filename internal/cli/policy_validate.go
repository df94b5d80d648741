package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

func (a *app) policySchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print what policies can be about, as a Cedar schema", Args: noArguments(),
		Long:    "Print the schema that policies are validated against, in Cedar's own form: principals, actions, resources and the context.",
		Example: "  sallyport policy schema\n  sallyport policy schema > sallyport.cedarschema",
		RunE: func(*cobra.Command, []string) error {
			return a.show(struct {
				Schema string `json:"schema"`
			}{policy.SchemaText()}, func(w io.Writer) { fmt.Fprint(w, policy.SchemaText()) })
		},
	}
}

// validation is what policy validate answers.
type validation struct {
	// Namespace is whose policies the files were taken as; empty is the whole server.
	Namespace string          `json:"namespace,omitempty"`
	Valid     bool            `json:"valid"`
	Files     []validatedFile `json:"files"`
}

// validatedFile is a file that was looked at. Policies and perimeters are named when no file of these has faults.
type validatedFile struct {
	File       string           `json:"file"`
	Policies   []string         `json:"policies,omitempty"`
	Perimeters []string         `json:"perimeters,omitempty"`
	Tests      []string         `json:"tests,omitempty"`
	Faults     []api.FieldError `json:"faults,omitempty"`
}

func (a *app) policyValidate() *cobra.Command {
	return a.policyCheck(&cobra.Command{
		Use: "validate [FOLDER | FILE ...]", Short: "Look for faults in policies and perimeters, without a server",
		Long: `Look for faults in policies (*.cedar), perimeters (*perimeters.toml) and policy tests (*_test.toml): those in the folder policies of
FOLDER (default: this folder), or those of FOLDER itself when it has no such folder, or single files; - is policies on stdin.
Every policy and every condition of a bridge is checked against the schema, and names against each other and those that are
built in. The exit code is 3 when there are faults.

It asks no server, so it does not know what else is active there.`,
		Example: "  sallyport policy validate\n  sallyport policy validate ./webshop --namespace shop\n  sallyport policy validate orders.cedar -o json",
	}, func(s *policySources, of policiesOf) error {
		if len(s.policies)+len(s.perimeters)+len(s.tests) == 0 {
			return noPolicies("policies or policy tests")
		}
		return a.validate(s, of)
	})
}

// noPolicies says that there is nothing to check: a check that finds nothing must not pass.
func noPolicies(what string) error {
	return problem.New(problem.NotFound, "cli.no_policies", "there are no %s", what).
		WithHint("name the app's folder; policies are policies/*%s in it, and their tests policies/*%s", policyEnding, testsEnding)
}

func (a *app) validate(s *policySources, of policiesOf) error {
	set, faulty := s.compile(of)
	tests, wrong := s.parseTests()
	faulty = append(faulty, wrong...)
	v := s.validation(of, set, tests, faulty)
	if v.Valid || a.output != formText {
		if err := a.showValidation(v); err != nil {
			return err
		}
	}
	checked := count(len(s.policies), "file of policies", "files of policies")
	if n := len(s.perimeters); n > 0 {
		checked += ", " + count(n, "file of perimeters", "files of perimeters")
	}
	a.say("checked %s and %s, as those of %s", checked, count(len(s.tests), "file of tests", "files of tests"), of)
	if !v.Valid {
		return a.found(faulty...)
	}
	return nil
}

// validation says what is in which file. The set is nil when the policies have faults.
func (s *policySources) validation(of policiesOf, set *policy.Set, tests []policy.Test, faulty []error) *validation {
	v := &validation{Namespace: string(of), Valid: len(faulty) == 0}
	for _, f := range slices.Concat(s.policies, s.perimeters, s.tests) {
		v.Files = append(v.Files, validatedFile{File: f.name})
	}
	at := func(name string) *validatedFile {
		i := slices.IndexFunc(v.Files, func(f validatedFile) bool { return f.File == name })
		if i < 0 {
			i, v.Files = len(v.Files), append(v.Files, validatedFile{File: name})
		}
		return &v.Files[i]
	}
	if set != nil {
		for p := range set.Policies() {
			if !p.BuiltIn {
				f := at(p.File)
				f.Policies = append(f.Policies, p.ID)
			}
		}
		for _, p := range set.Perimeters() {
			f := at(p.File)
			f.Perimeters = append(f.Perimeters, p.ID)
		}
	}
	for _, t := range tests {
		f := at(t.File)
		f.Tests = append(f.Tests, t.Name)
	}
	for _, err := range faulty {
		for _, fault := range shownProblem(problem.From(err)).faults {
			f := at(fault.File)
			f.Faults = append(f.Faults, fault)
		}
	}
	return v
}

func (a *app) showValidation(v *validation) error {
	return showEach(a, v, v.Files, func(w io.Writer) {
		rows := [][]string{{"FILE", "HOLDS"}}
		for _, f := range v.Files {
			if a.quiet {
				for _, id := range slices.Concat(f.Policies, f.Perimeters) {
					fmt.Fprintln(w, clean(id))
				}
				continue
			}
			holds := count(len(f.Policies), "policy", "policies")
			switch {
			case strings.HasSuffix(f.File, testsEnding):
				holds = count(len(f.Tests), "test", "tests")
			case isPerimeterFile(f.File):
				holds = count(len(f.Perimeters), "perimeter", "perimeters")
			}
			rows = append(rows, []string{f.File, holds})
		}
		if !a.quiet {
			columns(w, rows)
		}
	})
}

// count is a number with its noun.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
