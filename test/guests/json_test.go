package guests_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// jsonGuest loads the guest of testdata/json that is written with an SDK's own reader and writer, as it
// is built here, or where it cannot be, as it is committed.
func jsonGuest(t testing.TB, folder, source string) *cell.Function {
	t.Helper()
	e := exampleOf(folder)
	out := filepath.Join(t.TempDir(), "json.wasm")
	err := withTools(e.packages, func() error { return e.recipe(out, "../../test/guests/testdata/json/"+source) })
	if errors.Is(err, errNoTools) {
		t.Logf("NOT BUILT: %v\nThe committed module of %s runs instead.", err, source)
		out, err = filepath.Join("testdata/json", source+".wasm"), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	eng, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	f, err := eng.Load(t.Context(), cell.Spec{Name: source, Kind: api.ModuleWasm, Code: code}, cell.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// texts are JSON and what is nearly JSON.
var texts = []string{
	`0`, `-0`, `-1.5e+3`, `1E5`, `true`, `false`, `null`, `""`, `"a\u00e4\ud83d\ude00\"\\\/\b\f\n\r\t"`, `[]`, `{}`, ` [ 1 , 2 ] `, `{"a":{"a":[{}]}}`,
	` { "a" : [ [ ] , "x" , { } ] } `, `[1,[2,[3]],"]}"]`, `9223372036854775807`, `-9223372036854775808`, `9223372036854775808`, `123456789012345`, "\t[\n1\r]",
	strings.Repeat("[", 60) + strings.Repeat("]", 60), `"` + strings.Repeat("é", 300) + `"`,
	``, ` `, `01`, `1.`, `.5`, `+1`, `1e`, `--1`, `-`, `tru`, `truex`, `nul`, `"`, `"\x"`, `"\u12g4"`, `"\u12`, `"\`, "\"\n\"", `[`, `[1,]`, `[,1]`, `[1 2]`, `[1}`, `{`,
	`{1:2}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1]`, `{"a" 1}`, `{"a":1 "b":2}`, `1 2`, `[]]`, `{}{}`, `1,"x":2`, `NaN`, `'a'`, `1}`, `],[`,
	strings.Repeat("[", 100) + strings.Repeat("]", 100),
}

// checkJSON has the guest read and write a text, and holds it to encoding/json.
func checkJSON(t *testing.T, f *cell.Function, way, text string) {
	t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	event := fmt.Sprintf(`{"id":"1","data":{"way":%q,"text":%s}}`, way, quoted)
	result, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(event), Attempt: 1})
	valid := json.Valid([]byte(text))
	if err != nil {
		switch p := problem.From(err); p.Code {
		case "cell.function_failed":
			if valid && strings.Count(text, "[")+strings.Count(text, "{") <= 60 {
				t.Errorf("%s %.100q is refused: %v", way, text, err)
			}
		case "cell.bad_result": // the host is stricter: names twice, half a surrogate pair
			if !valid {
				t.Errorf("%s %.100q is written into the result: %v", way, text, err)
			}
		default:
			t.Errorf("%s %.100q: %v", way, text, err)
		}
		return
	}
	if !valid {
		t.Errorf("%s %.100q is accepted as %.100s; it is not JSON", way, text, result.Reply)
		return
	}
	var want, have any
	if json.Unmarshal([]byte(text), &want) != nil || json.Unmarshal(result.Reply, &have) != nil {
		return // a number that is out of range, which the guest copies
	}
	if !reflect.DeepEqual(want, have) {
		t.Errorf("%s %.100q becomes %.100s", way, text, result.Reply)
	}
}

// TestOtherRandom: two events never draw the same numbers, in C and AssemblyScript either.
func TestOtherRandom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ folder, source string }{{"c", "json.c"}, {"assemblyscript", "json.ts"}} {
		t.Run(tt.folder, func(t *testing.T) {
			t.Parallel()
			f := jsonGuest(t, tt.folder, tt.source)
			seen := map[string]bool{}
			for range 20 {
				got := invoke(t, f, `"data":{"way":"random","text":""}`, 1)
				if got.Failure != "" || len(got.Reply) < 3 || seen[got.Reply] {
					t.Fatalf("%+v; want a number that did not come before", got)
				}
				seen[got.Reply] = true
			}
		})
	}
}

// TestJSON: the readers and writers of the SDKs without a JSON library keep to JSON.
func TestJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ folder, source string }{{"c", "json.c"}, {"assemblyscript", "json.ts"}} {
		t.Run(tt.folder, func(t *testing.T) {
			t.Parallel()
			f := jsonGuest(t, tt.folder, tt.source)
			for _, text := range texts {
				checkJSON(t, f, "raw", text)
				checkJSON(t, f, "copy", text)
				for cut := range min(len(text), 30) {
					checkJSON(t, f, "raw", strings.ToValidUTF8(text[:cut], ""))
				}
			}
		})
	}
}

// TestCWriterRefuses: what is not one value fails the attempt, and never becomes a result.
func TestCWriterRefuses(t *testing.T) {
	t.Parallel()
	f := jsonGuest(t, "c", "json.c")
	for way, want := range map[string]string{
		"two": "a second value", "no name": "a member without a name", "no value": "an end where there is none", "name in an array": "a name outside an object",
		"no end": "an object or array without its end", "end": "an end where there is none", "deep": "too many levels",
		"event without an end": "an object or array without its end", "event of two": "a second value",
	} {
		if got := invoke(t, f, fmt.Sprintf(`"data":{"misuse":%q}`, way), 1); got.Failure != "the function wrote "+want {
			t.Errorf("%s = %+v; want that the function wrote %s", way, got, want)
		}
	}
}

// FuzzCJSON has the reader of the C header, which no language guards, read anything.
func FuzzCJSON(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	guest := jsonGuest(f, "c", "json.c")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || len(text) > 4096 {
			t.Skip("not an event's text")
		}
		checkJSON(t, guest, "raw", text)
		checkJSON(t, guest, "copy", text)
	})
}
