package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
)

func TestParseProblems(t *testing.T) {
	t.Parallel()
	const good = "\n# comment\r\n[\"a.b_1\"]\ntitle   = \"T \\\"q\\\" \\\\ # no comment\"\nexplain = \"\"\"\nOne\n\"two\" \\\n   \n  three\\t.\"\"\"\n"
	tests := []struct {
		name, text string
		want       []api.ProblemEntry
		err        string
	}{
		{name: "empty"},
		{name: "all forms", text: good, want: []api.ProblemEntry{{Code: "a.b_1", Title: `T "q" \ # no comment`, Explain: "One\n\"two\" three\t."}}},
		{name: "no final line break", text: "[\"a.b\"]\ntitle=\"t\"\nexplain=\"e\"", want: []api.ProblemEntry{{Code: "a.b", Title: "t", Explain: "e"}}},
		{name: "key before table", text: `title = "t"`, err: "line 1: want [\"area.code\"] before the first key"},
		{name: "unknown key", text: "[\"a.b\"]\ntitel = \"t\"", err: `line 2: key "titel"; want title or explain`},
		{name: "twice", text: "[\"a.b\"]\ntitle = \"t\"\ntitle = \"u\"", err: "line 3: title is given twice"},
		{name: "half a table", text: "[\"a.b\"]\ntitle = \"t\"\n[\"a.c\"]", err: `line 3: problem "a.b" lacks its title or explain`},
		{name: "empty text", text: "[\"a.b\"]\ntitle = \" \"", err: "line 2: title is empty"},
		{name: "two titles' lines", text: "[\"a.b\"]\ntitle = \"a\\nb\"", err: "line 2: title has more than one line"},
		{name: "bare table", text: "[a.b]", err: "line 1: want a text in quotation marks"},
		{name: "long quotes in table", text: `["""a.b"""]`, err: "line 1: want a name in single quotation marks"},
		{name: "bad code", text: `["a.B"]`, err: `line 1: code "a.B"; want area.snake_case`},
		{name: "code without area", text: `["abc"]`, err: `line 1: code "abc"; want area.snake_case`},
		{name: "open table", text: `["a.b"`, err: "line 1: want ] after the code"},
		{name: "more on the line", text: `["a.b"] x`, err: "line 1: want the end of the line"},
		{name: "comment after value", text: "[\"a.b\"]\ntitle = \"t\" # c", err: "line 2: want the end of the line"},
		{name: "open text", text: "[\"a.b\"]\ntitle = \"t\nx\"", err: "line 2: text is not closed on its line"},
		{name: "open long text", text: "[\"a.b\"]\ntitle = \"\"\"t", err: "line 2: text is not closed"},
		{name: "open escape", text: "[\"a.b\"]\ntitle = \"\\", err: "line 2: text is not closed"},
		{name: "escape", text: "[\"a.b\"]\ntitle = \"\\u0041\"", err: `line 2: escape that is none of \" \\ \n \t`},
		{name: "control", text: "[\"a.b\"]\ntitle = \"\x00\"", err: "line 2: text has the control character 0x0"},
		{name: "control in comment", text: "#\x00", err: "line 1: comment has the control character 0x0"},
		{name: "lone carriage return", text: "\r", err: "line 1: want the end of the line"},
		{name: "no equals", text: "[\"a.b\"]\ntitle \"t\"", err: "line 2: want = after the key"},
		{name: "not UTF-8", text: "\xff", err: "file is not UTF-8"},
		{name: "too long", text: strings.Repeat("\n", 1<<20+1), err: "file is 1048577 bytes long, want at most 1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := api.ParseProblems([]byte(tt.text))
			if msg := fmt.Sprint(err); err != nil && msg != tt.err || err == nil && tt.err != "" {
				t.Fatalf("error = %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
				t.Errorf("entries differ (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzParseProblems holds that what is accepted can be written in the plainest form of the format
// and is read back unchanged.
func FuzzParseProblems(f *testing.F) {
	f.Add([]byte("[\"a.b\"]\ntitle = \"t\"\nexplain = \"\"\"\ne \\\n  f\"\"\"\n"))
	f.Add([]byte("# x\r\n[\"internal\"]\r\ntitle=\"\\\\\\\"\\t\"\r\nexplain=\"\"\"\"a\"\"\"\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		first, err := api.ParseProblems(text)
		if err != nil {
			return
		}
		quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`)
		var b strings.Builder
		for _, e := range first {
			fmt.Fprintf(&b, "[\"%s\"]\ntitle = \"%s\"\nexplain = \"%s\"\n", e.Code, quote.Replace(e.Title), quote.Replace(e.Explain))
		}
		again, err := api.ParseProblems([]byte(b.String()))
		if err != nil {
			t.Fatalf("plain form is refused: %v\n%s", err, b.String())
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("entries differ (-first +again):\n%s", diff)
		}
	})
}
