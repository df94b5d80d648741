package dotenv_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/cli/dotenv"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const text = "\ufeff# a comment\n\nA=1\r\nexport B_KEY = two words # a comment\n  C='it is $A #1'\nD=\"a\\nb\\\"\\\\ \\q\nc\" # d\nE=\nF=#\nG=x#y\n"
	got, err := dotenv.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []dotenv.Entry{
		{Name: "A", Value: []byte("1"), Line: 3}, {Name: "B_KEY", Value: []byte("two words"), Line: 4},
		{Name: "C", Value: []byte("it is $A #1"), Line: 5}, {Name: "D", Value: []byte("a\nb\"\\ \\q\nc"), Line: 6},
		{Name: "E", Line: 8}, {Name: "F", Line: 9}, {Name: "G", Value: []byte("x#y"), Line: 10},
	}
	for i := range got {
		if len(got[i].Value) == 0 {
			got[i].Value = nil
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"A=1\nhunter2": "line 2: want NAME=value", "1A=x": "line 1: want NAME=value", "A=\"hunter2": "line 1: the quotes do not end",
		"A='x' hunter2": "line 1: something follows the quotes", "A=hunter2\nA=hunter3": "line 2: A is set in line 1 already",
		"A=\x00": "line 1: the file is no text", "A=\xff": "line 1: the file is no text", "=x": "line 1: want NAME=value",
	} {
		_, err := dotenv.Parse([]byte(text))
		if err == nil || err.Error() != want || strings.Contains(err.Error(), "hunter") {
			t.Errorf("Parse(%q): %v, want %s", text, err, want)
		}
	}
}

func TestSecretName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"STRIPE_KEY": "stripe-key", "_A__B.c_": "a-b-c", "x1": "x1"} {
		if got := dotenv.SecretName(in); got != want {
			t.Errorf("SecretName(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("A=1\nexport B='x'\nC=\"y\\n\nz\" # c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := dotenv.Parse(text)
		if err != nil {
			return
		}
		line := 0
		for _, e := range entries {
			if e.Name == "" || e.Line <= line || len(e.Value) > len(text) {
				t.Fatalf("%+v after line %d", e, line)
			}
			line = e.Line
		}
	})
}
