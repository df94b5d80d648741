package event_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"sallyport/internal/event"
	"sallyport/internal/problem"
)

// small are limits that a test can exceed with a readable text.
func small() event.Limits {
	return event.Limits{
		EventBytes: 1 << 12, BatchBytes: 1 << 14, BatchEvents: 3, Depth: 3, Members: 4, KeyBytes: 6, StringBytes: 8,
		NumberBytes: 6, Extensions: 2, AttributeBytes: 64,
	}
}

// fault is what a test says of a problem.
type fault struct {
	Code, Pointer string
}

// faultOf returns the code and the first pointer of a problem; the zero fault for no error.
func faultOf(t testing.TB, err error) fault {
	t.Helper()
	if err == nil {
		return fault{}
	}
	p, ok := errors.AsType[*problem.Error](err)
	if !ok {
		t.Fatalf("error %v is no problem", err)
	}
	f := fault{Code: p.Code}
	if len(p.Faults) > 0 {
		f.Pointer = p.Faults[0].Pointer
	}
	return f
}

const (
	malformed = "event.json_malformed"
	duplicate = "event.json_duplicate_key"
	limit     = "event.json_limit"
)

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     fault
	}{
		{"null", "null", fault{}},
		{"true in space", " \t\r\n true \n", fault{}},
		{"empty string", `""`, fault{}},
		{"empty object", `{ }`, fault{}},
		{"empty array", `[ ]`, fault{}},
		{"empty key", `{"":1}`, fault{}},
		{"numbers", `[0,-0,1.5e+3,-10]`, fault{}},
		{"escapes", `"\b\f\n\r"`, fault{}},
		{"at depth", `[[[1]]]`, fault{}},
		{"at members", `{"a":1,"b":2,"c":3,"d":4}`, fault{}},
		{"at key length", `{"abcdef":1}`, fault{}},
		{"at string length", `"12345678"`, fault{}},
		{"at number length", `123456`, fault{}},
		{"same key in other objects", `[{"a":{"a":1}},{"a":2}]`, fault{}},
		{"wide characters", `"äöü€"`, fault{Code: limit}},
		{"wide characters that fit", `"äöü"`, fault{}},

		{"nothing", "", fault{Code: malformed}},
		{"only space", "  ", fault{Code: malformed}},
		{"byte order mark", "\ufeff1", fault{Code: malformed}},
		{"two values", "1 2", fault{Code: malformed}},
		{"trailing bracket", "[1]]", fault{Code: malformed}},
		{"trailing NUL", "1\x00", fault{Code: malformed}},
		{"cut literal", "tru", fault{Code: malformed}},
		{"wrong case", "True", fault{Code: malformed}},
		{"literal run on", "nulll", fault{Code: malformed}},
		{"NaN", "NaN", fault{Code: malformed}},
		{"comment", "[1,/*x*/2]", fault{malformed, "/1"}},
		{"trailing comma", "[1,]", fault{malformed, "/1"}},
		{"leading comma", "[,1]", fault{malformed, "/0"}},
		{"trailing comma in object", `{"a":1,}`, fault{Code: malformed}},
		{"no comma", "[1 2]", fault{Code: malformed}},
		{"no colon", `{"a" 1}`, fault{malformed, "/a"}},
		{"no value", `{"a":}`, fault{malformed, "/a"}},
		{"number as key", `{1:2}`, fault{Code: malformed}},
		{"open object", `{"a":[{"b":1`, fault{malformed, "/a/0"}},
		{"open array", `[1,[`, fault{malformed, "/1/0"}},
		{"mixed brackets", `[{]}`, fault{malformed, "/0"}},
		{"single quotes", `['a']`, fault{malformed, "/0"}},
		{"leading zero", `[01]`, fault{Code: malformed}},
		{"plus", `+1`, fault{Code: malformed}},
		{"bare minus", `-`, fault{Code: malformed}},
		{"no fraction", `1.`, fault{Code: malformed}},
		{"no integer", `.5`, fault{Code: malformed}},
		{"no exponent", `1e+`, fault{Code: malformed}},
		{"hexadecimal", `0x1`, fault{Code: malformed}},
		{"open string", `"abc`, fault{Code: malformed}},
		{"open escape", `"abc\`, fault{Code: malformed}},
		{"escaped quote only", `"\"`, fault{Code: malformed}},
		{"unknown escape", `"\x"`, fault{Code: malformed}},
		{"short unicode escape", `"\u12"`, fault{Code: malformed}},
		{"control character", "[\"a\nb\"]", fault{malformed, "/0"}},
		{"NUL in string", "\"a\x00\"", fault{Code: malformed}},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", fault{malformed, "/a"}},
		{"invalid UTF-8 behind plain text", "\"abcd\xc3\"", fault{Code: malformed}},
		{"overlong UTF-8", "\"\xc0\xaf\"", fault{Code: malformed}},
		{"surrogate in UTF-8", "\"\xed\xa0\x80\"", fault{Code: malformed}},
		{"invalid UTF-8 in key", "{\"\xff\":1}", fault{Code: malformed}},
		{"high surrogate alone", `"\ud800"`, fault{Code: malformed}},
		{"low surrogate alone", `"\udc00"`, fault{Code: malformed}},
		{"two high surrogates", `["\ud800\ud800"]`, fault{malformed, "/0"}},

		{"same key", `{"a":1,"a":2}`, fault{duplicate, "/a"}},
		{"same key, deep", `{"x":[0,{"a":1,"b":2,"a":3}]}`, fault{duplicate, "/x/1/a"}},
		{"same key, escaped", `{"a":1,"\u0061":2}`, fault{duplicate, "/a"}},
		{"same key, both escaped", `{"\u0061":1,"\u0061":2}`, fault{duplicate, "/a"}},
		{"same empty key", `{"":1,"":2}`, fault{duplicate, "/"}},
		{"pointer is escaped", `{"a/~":1,"a/~":2}`, fault{duplicate, "/a~1~0"}},

		{"too deep", `[[{"a":[1]}]]`, fault{limit, "/0/0/a"}},
		{"too many members", `[{"a":1,"b":2,"c":3,"d":4,"e":5}]`, fault{limit, "/0"}},
		{"too many elements", `[1,2,3,4,5]`, fault{Code: limit}},
		{"long key", `{"x":{"abcdefg":1}}`, fault{limit, "/x"}},
		{"long string", `["123456789"]`, fault{limit, "/0"}},
		{"long number", `[1,1234567]`, fault{limit, "/1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := faultOf(t, event.CheckJSON([]byte(tt.in), small()))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("CheckJSON(%q) (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}

// TestCheckJSONStringPlaces moves what ends a run of plain characters through all places in a word.
func TestCheckJSONStringPlaces(t *testing.T) {
	t.Parallel()
	pieces := []struct {
		text string
		ok   bool
	}{
		{`\n`, true},
		{`\"`, true},
		{`\\`, true},
		{"é", true},
		{"€", true},
		{"😀", true},
		{`\ud83d\ude00`, true},
		{"\x7f", true},
		{"\x1f", false},
		{"\x00", false},
		{"\x80", false},
		{"\xf0\x9f\x98", false},
		{`\ud83d`, false},
		{`\q`, false},
		{`"`, false},
	}
	for _, p := range pieces {
		for before := range 20 {
			for after := range 10 {
				text := `"` + strings.Repeat("a", before) + p.text + strings.Repeat("b", after) + `"`
				if err := event.CheckJSON([]byte(text), event.DefaultLimits()); (err == nil) != p.ok {
					t.Errorf("CheckJSON(%q) = %v; want accepted %v", text, err, p.ok)
				}
			}
		}
	}
}

func TestCheckJSONManyKeys(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 31, 32, 33, 64, 1000} {
		var keys []string
		for i := range n {
			keys = append(keys, `"the-same-prefix-`+strconv.Itoa(i)+`-the-same-suffix":[{"a":1},{"a":2}]`)
		}
		if err := event.CheckJSON([]byte("{"+strings.Join(keys, ",")+"}"), event.DefaultLimits()); err != nil {
			t.Errorf("CheckJSON(%d keys) = %v; want nil", n, err)
		}
		for _, again := range []int{0, n / 2, n - 1} {
			text := "{" + strings.Join(append(slices.Clone(keys), keys[again]), ",") + "}"
			want := fault{duplicate, "/the-same-prefix-" + strconv.Itoa(again) + "-the-same-suffix"}
			if got := faultOf(t, event.CheckJSON([]byte(text), event.DefaultLimits())); got != want {
				t.Errorf("CheckJSON(%d keys, key %d again) = %v; want %v", n, again, got, want)
			}
		}
	}
}

// TestCheckJSONFaultsAreShort sees to it that hostile keys do not fill an answer, and that values are
// not in it at all.
func TestCheckJSONFaultsAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 500)
	text := `{"` + long + `":{"` + long + `":["secret-value", "secret-value` + "\x01" + `"]}}`
	p, ok := errors.AsType[*problem.Error](event.CheckJSON([]byte(text), event.DefaultLimits()))
	if !ok || len(p.Faults) != 1 {
		t.Fatalf("CheckJSON = %v; want a problem with one fault", p)
	}
	all := p.Public + p.Hint + p.Faults[0].Pointer + p.Faults[0].Detail
	if len(all) > 500 || strings.Contains(all, "secret") || !strings.Contains(p.Faults[0].Pointer, "é…/") {
		t.Errorf("CheckJSON says %q (%d bytes); want it short, with clipped keys, without values", all, len(all))
	}
}

func TestCheckJSONZeroLimits(t *testing.T) {
	t.Parallel()
	for _, in := range []string{`{}`, `[]`, `1`, `"a"`} {
		if err := event.CheckJSON([]byte(in), event.Limits{}); err == nil {
			t.Errorf("CheckJSON(%s) with no limits = nil; want a fault", in)
		}
	}
}

// open are limits that no fuzz input reaches, but for the depth, which keeps below jsontext's own.
func open() event.Limits {
	const none = 1 << 30
	return event.Limits{Depth: 9_999, Members: none, KeyBytes: none, StringBytes: none, NumberBytes: none}
}

// FuzzCheckJSON holds the scanner to the verdict of jsontext: what one accepts the other must, and
// faults must have the same class.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-2.5e10,true,false,null,"x\u00e9\ud83d\ude00"],"b":{"c":{}}}`, `{"a":1,"\u0061":2}`, "\"\xff\"", `"\ud800\udc0"`,
		`[[[[]]]]`, `{"k0":0,"k1":0,"k2":0,"k0":1}`, ` 1 2`, `{"":"","":0}`, `01`, `-`, `1.e5`, "\ufeff{}", `{"a":1 "b"}`,
		`"aaaaaaaaaaaaaaaa\\"`, `"日本語テキスト"`, bigObject(40), bigObject(33) + "x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		err := event.CheckJSON(b, open())
		if !bytes.Equal(before, b) {
			t.Fatalf("CheckJSON changed its input %q", before)
		}
		want := oracle(b)
		if (err == nil) != (want == nil) {
			t.Fatalf("CheckJSON(%q) = %v; jsontext says %v", b, err, want)
		}
		if err == nil {
			return
		}
		got := faultOf(t, err)
		if errors.Is(want, jsontext.ErrDuplicateName) && got.Code != duplicate {
			// An invalid string behind the key's opening quote may be found first, and the other way round.
			t.Fatalf("CheckJSON(%q) = %v; jsontext says %v", b, err, want)
		}
	})
}

// oracle reads b with jsontext, token by token.
func oracle(b []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(b))
	if _, err := d.ReadValue(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func bigObject(n int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"key` + strconv.Itoa(i) + `":` + strconv.Itoa(i))
	}
	return b.String() + "}"
}

// sample is about 1 KiB of the JSON that events carry.
func sample() []byte {
	return []byte(`{"order":"o-12345","customer":{"name":"Ada Lovelace","email":"ada@example.org","tier":3},"items":[` +
		strings.Repeat(`{"sku":"SKU-1234","qty":2,"price":19.99,"note":"gift wrap please"},`, 13) + `{}],"total":599.70,"paid":true,"tags":["a","b","c"]}`)
}

func BenchmarkCheckJSON(b *testing.B) {
	for _, bb := range []struct {
		name string
		in   []byte
	}{
		{"order", sample()},
		{"text", []byte(`{"text":"` + strings.Repeat("plain words in a row ", 50) + `"}`)},
		{"wide", []byte(`{"text":"` + strings.Repeat("日本語テキスト", 50) + `"}`)},
		{"keys", []byte(bigObject(90))},
		{"numbers", []byte("[" + strings.Repeat("12.5,", 204) + "0]")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.in)))
			b.ReportAllocs()
			for b.Loop() {
				if err := event.CheckJSON(bb.in, event.DefaultLimits()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
