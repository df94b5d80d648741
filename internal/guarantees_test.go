package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuaranteesHaveTests looks for every test that design/guarantees.md names.
func TestGuaranteesHaveTests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../design/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []string{"G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10"} {
		if !strings.Contains(string(text), "**"+g+" ") {
			t.Errorf("design/guarantees.md does not speak of %s", g)
		}
	}
	exist := map[string]bool{}
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(file), -1) {
			exist[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(string(text), -1)
	for _, name := range named {
		if !exist[name] {
			t.Errorf("design/guarantees.md names %s, which does not exist", name)
		}
	}
	if len(named) < 15 {
		t.Errorf("only %d tests named: the gate is looking in the wrong place", len(named))
	}
}
