package problem_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sallyport/api"
)

// codeForm is what a code looks like: an area and a name.
var codeForm = regexp.MustCompile(`^[a-z]+\.[a-z][a-z_0-9]*$`)

// fileName tells names of files from codes.
var fileName = regexp.MustCompile(`\.(key|toml|json|cedar|cedarschema)$`)

// TestEveryCodeIsExplained: each code that the product answers has an entry in api/problems, and each
// entry is of a code that is in use. A code is every string constant of its form in a file that
// imports this package, or answers problems by another type (cli).
func TestEveryCodeIsExplained(t *testing.T) {
	t.Parallel()
	entries, err := api.Problems()
	if err != nil {
		t.Fatal(err)
	}
	registered, areas := map[string]bool{}, map[string]bool{}
	for _, e := range entries {
		registered[e.Code] = false
		area, _, _ := strings.Cut(e.Code, ".")
		areas[area] = true
		if e.Title == "" || e.Explain == "" || !codeForm.MatchString(e.Code) && e.Code != "internal" {
			t.Errorf("the entry of %q is not whole", e.Code)
		}
	}
	for code, file := range codes(t, areas) {
		if _, ok := registered[code]; !ok {
			t.Errorf("%s answers %q, which api/problems does not explain", file, code)
		}
		registered[code] = true
	}
	for code, used := range registered {
		if !used {
			t.Errorf("api/problems explains %q, which nothing answers", code)
		}
	}
	if len(registered) < 40 {
		t.Errorf("only %d codes: the gate is looking in the wrong place", len(registered))
	}
}

// codes returns the string constants of the form of a code in the product's files, each with a file
// that has it.
func codes(t *testing.T, areas map[string]bool) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && d.Name() == "testdata" {
				return fs.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			area, _, _ := strings.Cut(text, ".")
			if err == nil && (codeForm.MatchString(text) && areas[area] && !fileName.MatchString(text) || text == "internal") {
				found[text] = path
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
