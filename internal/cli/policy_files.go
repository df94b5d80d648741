package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// What an app's folder has of policies.
const (
	policyDir    = "policies"
	policyEnding = ".cedar"
	testsEnding  = "_test.toml"
)

// policyText is a file of policies, or of policy tests.
type policyText struct {
	name string // as the user finds it
	text []byte
}

// policySources are the files that a check is about.
type policySources struct{ policies, perimeters, tests []policyText }

// policyCheck is a command that checks files of policies without a server: check gets what the arguments name, and whose policies
// they are.
func (a *app) policyCheck(c *cobra.Command, check func(*policySources, policiesOf) error) *cobra.Command {
	var onServer bool
	c.RunE = func(_ *cobra.Command, args []string) error {
		of, err := a.policiesOf(onServer)
		if err != nil {
			return err
		}
		s, err := a.readPolicies(args)
		if err != nil {
			return err
		}
		return check(s, of)
	}
	c.Flags().BoolVar(&onServer, "on-server", false, "the policies are of the whole server, not of a namespace")
	return c
}

// readPolicies reads the files and folders that the arguments name, by default those of this folder.
func (a *app) readPolicies(args []string) (*policySources, error) {
	if len(args) == 0 {
		args = []string{"."}
	}
	var s policySources
	for _, arg := range args {
		if err := a.readPolicy(&s, arg); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

func (a *app) readPolicy(s *policySources, arg string) error {
	if arg == "-" {
		text, err := readAll(a.env.Stdin, "stdin", policy.MaxFileBytes)
		s.policies = append(s.policies, policyText{"stdin", text})
		return err
	}
	info, err := os.Stat(arg)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return problem.New(problem.NotFound, "cli.no_file", "there is no file or folder %s", arg)
	case err != nil:
		return err
	case info.IsDir():
		return s.folder(arg)
	case !isPolicyFile(arg):
		return usage("%s is neither a folder nor a file of policies (*%s), perimeters (*%s) or policy tests (*%s)",
			clean(arg), policyEnding, manifest.PerimeterFile, testsEnding)
	}
	text, err := readBounded(arg, policy.MaxFileBytes)
	s.add(filepath.ToSlash(arg), text)
	return err
}

// folder reads the policies of a folder: those in its folder "policies", or else its own. It may be from
// somebody else, so links that lead out of it and files that are none are refused: what is in them would be
// shown with their faults.
func (s *policySources) folder(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the folder: %w", err)
	}
	defer func() { _ = root.Close() }() // it was only read from
	within := "."
	switch st, err := root.Stat(policyDir); {
	case err == nil && st.IsDir():
		within = policyDir
	case err != nil && !errors.Is(err, fs.ErrNotExist): // such as a link out of the folder
		return fmt.Errorf("open %s: %w", filepath.Join(dir, policyDir), err)
	}
	entries, err := fs.ReadDir(root.FS(), within)
	if err != nil {
		return fmt.Errorf("list %s: %w", filepath.Join(dir, within), err)
	}
	found := 0
	for _, e := range entries {
		if !isPolicyFile(e.Name()) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name := filepath.Join(within, e.Name())
		shown := filepath.ToSlash(filepath.Join(dir, name))
		if found++; found > 2*policy.MaxFiles { // policies and their tests
			return problem.New(problem.TooLarge, "cli.too_large", "%s has more than %d files of policies", filepath.Join(dir, within), 2*policy.MaxFiles)
		}
		text, err := readIn(root, name, shown)
		if err != nil {
			return err
		}
		s.add(shown, text)
	}
	return nil
}

// readIn reads a file of policies in a folder.
func readIn(root *os.Root, name, shown string) ([]byte, error) {
	st, err := root.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", shown, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is not a regular file", shown)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", shown, err)
	}
	text, err := readAll(f, shown, policy.MaxFileBytes)
	return text, errors.Join(err, f.Close())
}

func isPolicyFile(name string) bool {
	return strings.HasSuffix(name, policyEnding) || isPerimeterFile(name) || strings.HasSuffix(name, testsEnding)
}

func isPerimeterFile(name string) bool { return strings.HasSuffix(name, manifest.PerimeterFile) }

func (s *policySources) add(name string, text []byte) {
	switch {
	case strings.HasSuffix(name, testsEnding):
		s.tests = append(s.tests, policyText{name, text})
	case isPerimeterFile(name):
		s.perimeters = append(s.perimeters, policyText{name, text})
	default:
		s.policies = append(s.policies, policyText{name, text})
	}
}

// policiesOf is a namespace whose policies files are taken as; "" is the whole server.
type policiesOf ident.Namespace

// String says whose policies they are.
func (of policiesOf) String() string {
	if of == "" {
		return "the whole server"
	}
	return "the namespace " + string(of)
}

// policiesOf returns whose policies the files are.
func (a *app) policiesOf(onServer bool) (policiesOf, error) {
	name := a.namespace()
	switch {
	case onServer && a.conn.namespace != "":
		return "", usage("policies are of a namespace or of the whole server: --namespace and --on-server do not go together")
	case onServer:
		return "", nil
	case name == "":
		return "default", nil
	}
	ns, err := ident.ParseNamespace(name)
	if err != nil {
		return "", usage("%v", err)
	}
	return policiesOf(ns), nil
}

// compile validates the policies, together with those that are built in, and the perimeters. The set is nil when there are faults, a
// problem for each file of perimeters and one for all policies.
func (s *policySources) compile(of policiesOf) (set *policy.Set, faulty []error) {
	cfg := policy.Config{}
	for _, f := range s.policies {
		cfg.Files = append(cfg.Files, policy.File{Name: f.name, Text: f.text, Namespace: ident.Namespace(of)})
	}
	for _, f := range s.perimeters {
		p, err := manifest.ParsePerimeters(f.name, f.text, ident.Namespace(of))
		if err != nil {
			faulty = append(faulty, err)
			continue
		}
		cfg.Perimeters = append(cfg.Perimeters, p)
	}
	set, err := policy.NewWith(cfg)
	if err != nil {
		faulty = append([]error{err}, faulty...)
	}
	if len(faulty) > 0 {
		return nil, faulty
	}
	return set, nil
}

// parseTests returns the tests of all files, and a problem for each file with faults.
func (s *policySources) parseTests() (tests []policy.Test, faulty []error) {
	for _, f := range s.tests {
		list, err := manifest.ParsePolicyTests(f.name, f.text)
		if err != nil {
			faulty = append(faulty, err)
		}
		tests = append(tests, list...)
	}
	return tests, faulty
}

// found reports problems that a check found, every place of them, and returns the exit code that says so.
func (a *app) found(problems ...error) error {
	for _, err := range problems {
		s, _ := classify(err)
		s.whole = true
		render(a.env.Stderr, s, a.colours())
	}
	return outcome(exitFound)
}
