package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"sallyport/internal/redact"
)

const secret = `hunter2/"é&p ss`

// nested is the secret in JSON that is a text in JSON, so often.
func nested(times int) string {
	text := secret
	for range times + 1 {
		quoted, err := json.Marshal(text)
		if err != nil {
			panic(err)
		}
		text = string(quoted[1 : len(quoted)-1])
	}
	return text
}

// forms are the secret as it may come out of a function.
func forms() map[string]string {
	quoted, err := json.Marshal(secret)
	if err != nil {
		panic(err)
	}
	out := map[string]string{
		"plain": secret, "json": string(quoted), "hex": hex.EncodeToString([]byte(secret)),
		"HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))), "query": url.QueryEscape(secret), "path": url.PathEscape(secret),
		"lower":     strings.NewReplacer("%2F", "%2f", "%C3%A9", "%c3%a9").Replace(url.QueryEscape(secret)),
		"component": `hunter2%2F%22%C3%A9%26p%20ss`, "html": html.EscapeString(secret), "json in json": nested(1), "json in json in json": nested(2),
		"url64": base64.URLEncoding.EncodeToString([]byte(secret)), "raw64": base64.RawStdEncoding.EncodeToString([]byte(secret)),
	}
	for i := range 3 {
		out[fmt.Sprint("basic", i)] = base64.StdEncoding.EncodeToString([]byte("user:"[:i] + secret + ":rest"))
	}
	return out
}

func TestForms(t *testing.T) {
	t.Parallel()
	s := redact.New([]byte(secret))
	for name, form := range forms() {
		in := "before " + form + " after"
		got := s.Text(in)
		if !strings.Contains(got, redact.Mask) || !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " after") {
			t.Errorf("%s: Text = %q", name, got)
		}
		if len(got)-len("before  after")-len(redact.Mask) > 14 {
			t.Errorf("%s: too much is left: %q", name, got)
		}
	}
}

// TestFormsOfBinary has values that are no text taken for one, as decoders do.
func TestFormsOfBinary(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		v := make([]byte, 8+rnd.IntN(60))
		for j := range v {
			v[j] = byte(rnd.Uint32())
			if rnd.IntN(3) > 0 {
				v[j] &= 127
			}
		}
		copy(v[rnd.IntN(len(v)-3):], "\xe2\x82") // a part of a character
		known := len(strings.ReplaceAll(string([]rune(string(v))), "\uFFFD", ""))
		if known < redact.MinLength {
			continue
		}
		quoted, err := json.Marshal(string(v))
		if err != nil {
			t.Fatal(err)
		}
		s := redact.New(v)
		for name, form := range map[string]string{
			"bytes": string([]rune(string(v))), "runs": strings.ToValidUTF8(string(v), "\uFFFD"), "json": string(quoted[1 : len(quoted)-1]),
			"base64 of a text": base64.StdEncoding.EncodeToString([]byte(string([]rune(string(v))))), "component of a text": url.QueryEscape(string([]rune(string(v)))),
		} {
			if got := s.Text("before " + form + " after"); !strings.Contains(got, redact.Mask) || len(got) > len("before  after")+len(redact.Mask)+4 {
				t.Fatalf("%d, %s: Text(%q) = %q", i, name, form, got)
			}
		}
	}
	// Of what is the beginning of a character, decoders of JavaScript make one U+FFFD.
	s := redact.New([]byte("key-\xe2\x82A\xf0\x9f\x98B\xed\xa0\x80\xff\xf0\x9f-end\xe2"))
	if text := "key-\uFFFDA\uFFFDB\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD-end\uFFFD"; s.Text(text) != redact.Mask {
		t.Errorf("Text(%q) = %q", text, s.Text(text))
	}
	for _, v := range []string{"\xff\xff\xff\xff\xff\xff\xff\xff", "\xffabcd\xff\xff"} {
		if text := strings.Repeat("\uFFFD", 20); redact.New([]byte(v)).Found([]byte(text)) {
			t.Errorf("a value of which nothing is known as a text is found in %q", text)
		}
	}
}

// TestCutOff has a text end within a value, as long ones do.
func TestCutOff(t *testing.T) {
	t.Parallel()
	const value = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-abcdefghijklmnopqrstuvwxyz"
	s := redact.New([]byte(value))
	for n := redact.MinLength; n <= len(value); n++ {
		for _, end := range []string{"", "…", "\uFFFD"} {
			if got, want := s.Cut("x: "+value[:n]+end), "x: "+redact.Mask+end; got != want {
				t.Errorf("Cut after %d bytes = %q, want %q", n, got, want)
			}
		}
	}
	for _, text := range []string{"", "abcde", "x: abcde…", "abcdefgh is in the middle"} {
		if got := s.Cut(text); got != text {
			t.Errorf("Cut(%q) = %q", text, got)
		}
	}
}

// TestPasswordOfAddress is that of a database, which is told it without the rest of the address.
func TestPasswordOfAddress(t *testing.T) {
	t.Parallel()
	s := redact.New([]byte("postgres://u:p%40ss%2Fword@db/x\n"))
	if got := s.Text("the password p@ss/word is wrong"); got != "the password [redacted] is wrong" {
		t.Errorf("Text = %q", got)
	}
}

func TestOrdinaryTextIsKept(t *testing.T) {
	t.Parallel()
	s := redact.New([]byte(secret), []byte("abc"))
	in := []byte("hunter and hunter3, abc, hunter2")
	if got := s.Bytes(in); &got[0] != &in[0] {
		t.Errorf("Bytes = %q", got)
	}
	var none *redact.Set
	if redact.New([]byte("short")[:5]) != none || none.Text("x") != "x" || none.Found(in) || string(none.JSON([]byte("1"))) != "1" {
		t.Error("the nil Set does something")
	}
	if fmt.Sprintf("%v %+v %#v", s, s, s) != "[redacted] [redacted] [redacted]" {
		t.Error("a Set shows its values")
	}
}

func TestLongValues(t *testing.T) {
	t.Parallel()
	var key strings.Builder
	for i := range 50 {
		fmt.Fprintf(&key, "%060d%04d\n", i*7919, i)
	}
	s := redact.New([]byte(key.String()))
	if got := s.Text("x" + key.String() + "y"); got != "x[redacted]y" {
		t.Errorf("whole: %d bytes are left", len(got))
	}
	line := strings.Split(key.String(), "\n")[20]
	if got := s.Text("<" + line + ">"); got != "<[redacted]>" {
		t.Errorf("one line: %q", got)
	}
	if got := s.Text(key.String()[:200]); strings.Contains(got, "7919") {
		t.Errorf("cut: %q", got)
	}
}

func TestJSONStaysJSON(t *testing.T) {
	t.Parallel()
	s := redact.New([]byte("12345678"))
	for in, want := range map[string]string{
		`{"pin":12345678}`: `"[redacted]"`, `{"pin":"12345678"}`: `{"pin":"[redacted]"}`, `{"a":1}`: `{"a":1}`,
	} {
		if got := string(s.JSON([]byte(in))); got != want {
			t.Errorf("JSON(%s) = %s, want %s", in, got, want)
		}
	}
}

// TestWriterCuts writes every form in two pieces, cut everywhere, and byte by byte.
func TestWriterCuts(t *testing.T) {
	t.Parallel()
	s := redact.New([]byte(secret), []byte("hunter2-and-more"))
	for name, form := range forms() {
		in := "before hunter2 " + form + " after"
		want := s.Text(in)
		for cut := range len(in) + 1 {
			if got := written(t, s, in[:cut], in[cut:]); got != want {
				t.Fatalf("%s cut at %d: %q, want %q", name, cut, got, want)
			}
		}
		if got := written(t, s, strings.Split(in, "")...); got != want {
			t.Errorf("%s byte by byte: %q, want %q", name, got, want)
		}
	}
}

func written(t testing.TB, s *redact.Set, parts ...string) string {
	t.Helper()
	var out bytes.Buffer
	w := s.Writer(&out)
	for _, p := range parts {
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func FuzzWriter(f *testing.F) {
	f.Add([]byte("secret-value"), []byte("a secret-value b"), 5)
	f.Add([]byte("aaaaaaaa"), []byte("aaaaaaaaaaaaaaaaaaa"), 3)
	f.Add([]byte("aaaaaaaa"), []byte("aaaaaaaa"), 3)
	f.Fuzz(func(t *testing.T, value, text []byte, cut int) {
		s := redact.New(value)
		if s == nil {
			return
		}
		cut = max(0, min(cut, len(text)))
		whole, got := s.Bytes(text), written(t, s, string(text[:cut]), string(text[cut:]))
		if string(whole) != got {
			t.Fatalf("cut at %d: %q, whole: %q", cut, got, whole)
		}
		// What is put in its place can make a value with what is around it, if the value has parts of it.
		if len(value) <= 64 && !bytes.ContainsAny(value, redact.Mask) && bytes.Contains(whole, value) {
			t.Fatalf("the value %q is left in %q", value, whole)
		}
	})
}

func BenchmarkBytes(b *testing.B) {
	text := bytes.Repeat([]byte("a line of a log that holds nothing that is secret at all; "), 20)
	for _, n := range []int{0, 1, 10, 100} {
		values := make([][]byte, n)
		for i := range values {
			values[i] = fmt.Appendf(nil, "secret-%d-%032x", i, i*7919)
		}
		s := redact.New(values...)
		b.Run(fmt.Sprint(n, "values"), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				s.Bytes(text)
			}
		})
	}
}
