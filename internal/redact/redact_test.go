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

const secret = `sk_live_9/x+"<é&Q=~7`

// TestForms plants a value in every form that is promised.
func TestForms(t *testing.T) {
	t.Parallel()
	quoted, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	planted := map[string]string{
		"itself": secret, "hex": hex.EncodeToString([]byte(secret)), "upper hex": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"query": url.QueryEscape(secret), "path": url.PathEscape(secret), "lower query": strings.ToLower(url.QueryEscape("k_9/+")) + secret,
		"json": strings.Trim(string(quoted), `"`), "html": html.EscapeString(secret),
		"plain json": strings.ReplaceAll(secret, `"`, `\"`),
	}
	for n := range 9 {
		for name, enc := range map[string]*base64.Encoding{"std": base64.StdEncoding, "raw": base64.RawStdEncoding, "url": base64.URLEncoding, "rawurl": base64.RawURLEncoding} {
			planted[fmt.Sprintf("base64 %s %d", name, n)] = enc.EncodeToString([]byte(strings.Repeat("p", n) + secret + strings.Repeat("s", n/3)))
		}
	}
	all := ""
	for _, c := range []byte(secret) {
		all += fmt.Sprintf("%%%02X", c)
	}
	planted["every byte escaped"], planted["every byte escaped, lower"] = all, strings.ToLower(all)
	set := redact.New([]byte("another"), []byte(secret))
	for name, text := range planted {
		got, n := set.Replace([]byte("before " + text + " after"))
		if n != 1 || !bytes.Contains(got, []byte(redact.Mark)) || !bytes.HasPrefix(got, []byte("before ")) || !bytes.HasSuffix(got, []byte(" after")) {
			t.Errorf("%s: Replace(%q) = %q, %d places", name, text, got, n)
		}
		// Of base64, what holds bits of the up to eleven bytes around the value is left.
		if left := len(got) - len("before  after") - len(redact.Mark); left > 20 {
			t.Errorf("%s: %d bytes are left: %q", name, left, got)
		}
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		values []string
		in     string
		want   string
	}{
		{"none", nil, "text", "text"},
		{"not there", []string{"secret"}, "a secre", "a secre"},
		{"whole", []string{"secret"}, "secret", "[redacted]"},
		{"twice", []string{"secret"}, "secretsecret", "[redacted][redacted]"},
		{"short values are kept", []string{"abc"}, "abc", "abc"},
		{"the longest", []string{"secret", "secret-2"}, "secret-2!", "[redacted]!"},
		{"a shorter one", []string{"secret", "secret-2", "secret-25", "secretz"}, "secret-3 secret-24", "[redacted]-3 [redacted]4"},
		{"overlapping", []string{"abcdXYZ", "XYZefgh"}, "-abcdXYZefgh-", "-[redacted]-"},
		{"within", []string{"abcdefgh", "cdef"}, "abcdefgh cdef", "[redacted] [redacted]"},
	} {
		var values [][]byte
		for _, v := range tt.values {
			values = append(values, []byte(v))
		}
		set := redact.New(values...)
		if got := set.String(tt.in); got != tt.want {
			t.Errorf("%s: String(%q) = %q; want %q", tt.name, tt.in, got, tt.want)
		}
	}
	var zero *redact.Set
	if got := zero.String("text"); got != "text" {
		t.Errorf("no set: %q", got)
	}
}

// TestAgainstSearch compares with a search for each form by itself, over an alphabet in which values meet often.
func TestAgainstSearch(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	text := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab"[r.IntN(2)]
		}
		return b
	}
	hits := 0
	for range 5000 {
		values := make([][]byte, 1+r.IntN(5))
		for i := range values {
			values[i] = text(4 + r.IntN(4))
		}
		in := text(r.IntN(40))
		covered := make([]bool, len(in))
		for _, v := range values {
			for i := range in {
				if bytes.HasPrefix(in[i:], v) {
					for j := range v {
						covered[i+j] = true
					}
				}
			}
		}
		want := 0
		for _, c := range covered {
			if !c {
				want++
			}
		}
		got, _ := redact.New(values...).Replace(in)
		if left := len(bytes.ReplaceAll(got, []byte(redact.Mark), nil)); left != want {
			t.Fatalf("Replace(%q) of %q = %q: %d bytes are left; want %d", in, values, got, left, want)
		}
		hits += len(in) - want
	}
	if hits == 0 {
		t.Fatal("nothing was found: the test tests nothing")
	}
}

func FuzzReplace(f *testing.F) {
	f.Add([]byte("secret"), []byte("other"), []byte("a secret b"))
	f.Add([]byte(secret), []byte("\xff\x00\x01\x02"), []byte("c2tfbGl2ZV85"))
	f.Fuzz(func(t *testing.T, a, b, text []byte) {
		got, n := redact.New(a, b).Replace(text)
		if (n == 0) != bytes.Equal(got, text) && !bytes.Contains(text, []byte(redact.Mark)) {
			t.Errorf("%d places, and the text is %q", n, got)
		}
		for _, v := range [][]byte{a, b} {
			// Between two marks nothing of a value is left; a mark itself may be one.
			for part := range bytes.SplitSeq(got, []byte(redact.Mark)) {
				if len(v) >= redact.MinLength && bytes.Contains(part, v) {
					t.Errorf("%q is still in %q", v, got)
				}
			}
		}
	})
}

func BenchmarkReplace(b *testing.B) {
	for _, secrets := range []int{1, 1000} {
		values := make([][]byte, secrets)
		for i := range values {
			values[i] = fmt.Appendf(nil, "sk_live_%032d", i)
		}
		set := redact.New(values...)
		for name, text := range map[string][]byte{"ordinary": bytes.Repeat([]byte("The quick brown fox jumps. "), 40000), "hostile": bytes.Repeat([]byte("sk_live_0"), 120000)} {
			b.Run(fmt.Sprintf("%d/%s", secrets, name), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					set.Replace(text)
				}
			})
		}
	}
}
