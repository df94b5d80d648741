package policy_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

var update = flag.Bool("update", false, "write the golden files")

// Each fault of a policy has a golden file with what a user sees: the sentence, and every fault with its
// line and a caret under what is wrong.
func TestFaults(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "faults", "*.cedar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".cedar"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = policy.New(policy.File{Name: filepath.Base(file), Text: text})
			golden(t, strings.TrimSuffix(file, ".cedar")+".golden", show(t, err))
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; make it with -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// show renders an error in the form of the command line.
func show(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	p := problem.From(err)
	if p.Kind != problem.Invalid {
		t.Fatalf("kind of %v is %v, want Invalid", err, p.Kind)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "error: %s  [%s]\n", p.Public, p.Code)
	for _, f := range p.Faults {
		fmt.Fprintf(&b, "  %s:%d:%d\n", f.File, f.Line, f.Column)
		pad := strings.Repeat(" ", len(fmt.Sprint(f.Line)))
		fmt.Fprintf(&b, "    %d | %s\n", f.Line, f.Source)
		fmt.Fprintf(&b, "    %s | %s%s %s\n", pad, strings.Repeat(" ", f.Column-1), strings.Repeat("^", f.Length), f.Detail)
	}
	return b.String()
}

// TestFaultsOfAllFiles: one answer names the faults of every file, in the order of the files.
func TestFaultsOfAllFiles(t *testing.T) {
	t.Parallel()
	_, err := policy.New(
		policy.File{Name: "z.cedar", Text: []byte(`permit (principal, action, resource);`)},
		policy.File{Name: "a.cedar", Namespace: "shop", Text: []byte("@id(\"a\")\npermit (principal, action == Action::\"fly\", resource);")},
	)
	var got []string
	for _, f := range problem.From(err).Faults {
		got = append(got, fmt.Sprintf("%s:%d", f.File, f.Line))
	}
	if d := cmp.Diff([]string{"z.cedar:1", "a.cedar:2"}, got); d != "" {
		t.Errorf("faults (-want +got):\n%s", d)
	}
}

func TestLimitsOfSources(t *testing.T) {
	t.Parallel()
	one := []byte(`@id("p") permit (principal, action == Action::"invoke", resource);`)
	many := func(n int) []byte {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintf(&b, "@id(\"p%d\") permit (principal, action == Action::\"invoke\", resource == Function::\"shop/f%d\");\n", i, i)
		}
		return b.Bytes()
	}
	var files, tooMany []policy.File
	for i := range 3 {
		text := bytes.ReplaceAll(many(4000), []byte(`"p`), fmt.Appendf(nil, `"p%d-`, i))
		files = append(files, policy.File{Name: fmt.Sprint(i), Text: text, Namespace: "shop"})
	}
	for i := range 6 {
		text := bytes.ReplaceAll(many(4000), []byte(`"p`), fmt.Appendf(nil, `"p%d-`, i))
		tooMany = append(tooMany, policy.File{Name: fmt.Sprint(i), Text: text, Namespace: "shop"})
	}
	for _, tc := range []struct {
		name  string
		files []policy.File
		want  string // part of the first fault or the sentence, "" is no fault
	}{
		{"12,000 policies", files, ""},
		{"24,000 policies", tooMany, "more than 20000 policies"},
		{"large file", []policy.File{{Text: bytes.Repeat([]byte(" "), policy.MaxFileBytes+1)}}, "at most 1048576 are allowed"},
		{"largest file", []policy.File{{Text: append(bytes.Repeat([]byte(" "), policy.MaxFileBytes-len(one)), one...)}}, ""},
		{"NUL", []policy.File{{Text: []byte("//\x00\n")}}, "no place here"},
		{"many files", make([]policy.File, policy.MaxFiles+1), "more than 1000 files"},
		{"many faults", []policy.File{{Text: bytes.Repeat([]byte("x;"), 100)}}, "100 faults, of which these are 50"},
		{"no namespace", []policy.File{{Namespace: "*", Text: one}}, "of no namespace"},
	} {
		_, err := policy.New(tc.files...)
		got := ""
		if err != nil {
			p := problem.From(err)
			got = p.Public
			if len(p.Faults) > 0 {
				got += ": " + p.Faults[0].Detail
			}
		}
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// FuzzNew: whatever the text, New ends, and a set that it makes is read again from its own texts.
func FuzzNew(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "faults", "*.cedar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "rails.cedar", "roles.cedar") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	base, err := policy.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := base.WithNamespace("shop", policy.File{Name: "f.cedar", Text: text, Namespace: "shop"})
		if err != nil {
			p := problem.From(err)
			if p.Kind != problem.Invalid || len(p.Faults) == 0 {
				t.Fatalf("New(%q) = %v, want faults", text, err)
			}
			for _, fault := range p.Faults {
				if fault.Line < 1 || fault.Column < 1 || fault.Length < 1 || fault.Detail == "" {
					t.Errorf("fault %+v has no place", fault)
				}
			}
			return
		}
		var again bytes.Buffer
		n := 0
		for p := range s.Policies() {
			if !p.BuiltIn {
				again.WriteString(p.Text + "\n")
				n++
			}
		}
		if _, err := base.WithNamespace("shop", policy.File{Name: "f.cedar", Text: again.Bytes(), Namespace: "shop"}); err != nil {
			t.Errorf("%d policies are not read again: %v", n, err)
		}
	})
}
