package web_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	_ "github.com/nlnwa/whatwg-url/url"

	"sallyport/internal/cell/js/web"
)

// digests are those of the vectors of web-platform-tests that the Go module below carries.
var digests = map[string]string{
	"urltestdata.json":   "3f71e188f21f6cc0bbc25c7f6cc997fe2847de6893262c8bee539778e46117d2",
	"setters_tests.json": "1a03bc7f113809eba332917ab9cb3c915aa8c6a07f3cb296dfe94091494cdea9",
}

// folder is where the module with the vectors is; the import below keeps it in go.mod.
var folder = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/nlnwa/whatwg-url").Output()
	return strings.TrimSpace(string(out)), err
})

// vectors reads a file of test vectors.
func vectors(t *testing.T, name string, to any) {
	t.Helper()
	dir, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != digests[name] {
		t.Errorf("%s has the digest %x; want %s", name, sum, digests[name])
	}
	// Some inputs are lone surrogates, which JavaScript has replaced before they get here.
	if err := json.Unmarshal(text, to, jsontext.AllowInvalidUTF8(true), json.MatchCaseInsensitiveNames(false)); err != nil {
		t.Fatal(err)
	}
}

// parts are the properties of a URL object.
func parts(u *web.URL) map[string]string {
	href, c := u.Serialise()
	part := func(from, to int) string { return href[from:to] }
	p := map[string]string{
		"href": href, "protocol": part(0, c[0]), "username": part(c[1], c[2]), "password": part(c[3], c[4]),
		"hostname": part(c[5], c[6]), "host": part(c[5], c[7]), "port": strings.TrimPrefix(part(c[6], c[7]), ":"),
		"pathname": part(c[8], c[9]), "search": part(c[9], c[10]), "hash": href[c[10]:],
	}
	for _, name := range []string{"search", "hash"} {
		if len(p[name]) == 1 {
			p[name] = ""
		}
	}
	return p
}

// overtaken reports whether the standard has changed since the vectors were written: paths have ^ encoded,
// and the space at the end of an opaque path before a query or fragment is kept, encoded.
// TestChanged has what holds now.
func overtaken(text, value string) bool {
	return strings.Contains(text, "host/ !") || strings.Contains(text, ":space ") || strings.HasPrefix(text, "a:/") && strings.Contains(value, "^")
}

func TestChanged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		part        web.Part
		value, base string
		want        string
	}{
		{web.PartHref, "foo://host/^{}", "", "foo://host/%5E%7B%7D"},
		{web.PartHref, "wss://h/^", "", "wss://h/%5E"},
		{web.PartPathname, "/^", "a:/", "a:/%5E"},
		{web.PartHref, "data:space ?query", "", "data:space%20?query"},
		{web.PartHref, "data:space  #f", "", "data:space %20#f"},
		{web.PartSearch, "", "data:space ?query", "data:space%20"},
		{web.PartHash, "", "data:space  #f", "data:space %20"},
		{web.PartHref, "http://h/" + strings.Repeat("a", web.MaxURL), "", ""},
		{web.PartHref, "http://" + strings.Repeat("ä", 4<<10), "", ""},
		{web.PartHash, "a", "", ""},
	} {
		got := ""
		if u, ok := web.Resolve(tt.part, tt.value, tt.base); ok {
			got, _ = u.Serialise()
		}
		if got != tt.want {
			t.Errorf("Resolve(%d, %.40q, %q) = %q; want %q", tt.part, tt.value, tt.base, got, tt.want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	var cases []jsontext.Value
	vectors(t, "urltestdata.json", &cases)
	ran := 0
	for _, text := range cases {
		if text.Kind() != '{' {
			continue // a comment
		}
		var c struct {
			Input   string         `json:"input"`
			Base    string         `json:"base"`
			Failure bool           `json:"failure"`
			Want    map[string]any `json:",embed"`
		}
		if err := json.Unmarshal(text, &c, jsontext.AllowInvalidUTF8(true)); err != nil {
			t.Fatal(err)
		}
		if overtaken(c.Input, "") {
			continue
		}
		ran++
		u, ok := web.Resolve(web.PartHref, c.Input, c.Base)
		if ok == c.Failure {
			t.Errorf("%q, base %q: parsed = %t; want %t", c.Input, c.Base, ok, !c.Failure)
			continue
		}
		if !ok {
			continue
		}
		for name, got := range parts(u) {
			if want, given := c.Want[name]; given && want != got {
				t.Errorf("%q, base %q: %s = %q; want %q", c.Input, c.Base, name, got, want)
			}
		}
	}
	if ran < 800 {
		t.Errorf("only %d cases ran", ran)
	}
}

func TestSetters(t *testing.T) {
	t.Parallel()
	var cases map[string]jsontext.Value
	vectors(t, "setters_tests.json", &cases)
	ran := 0
	for p, name := range []string{"href", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"} {
		var list []struct {
			Href     string            `json:"href"`
			Value    string            `json:"new_value"`
			Expected map[string]string `json:"expected"`
		}
		if err := json.Unmarshal(cases[name], &list, jsontext.AllowInvalidUTF8(true)); err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if web.Part(p) == web.PartHref || overtaken(c.Href, c.Value) {
				continue // a replacement of the whole is JavaScript's to do
			}
			ran++
			u, ok := web.Resolve(web.Part(p), c.Value, c.Href)
			if !ok {
				t.Errorf("%q is no URL", c.Href)
				continue
			}
			got := parts(u)
			for part, want := range c.Expected {
				if got[part] != want {
					t.Errorf("%q.%s = %q: %s = %q; want %q", c.Href, name, c.Value, part, got[part], want)
				}
			}
		}
	}
	if ran < 200 {
		t.Errorf("only %d cases ran", ran)
	}
}

// FuzzURL holds that a URL's string is the same URL, and that the offsets are in order.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"https://user:pw@example.com:8443/a/../b?q=1#f", "file:///C|/x", "http://[::1]:80/", "x:y z ?q", "http://ä.example", "http://0x7f.1/", "//h", "/.//p"} {
		f.Add(seed, "", int32(0))
		f.Add(seed, "https://example.com/a/b", int32(len(seed)%10))
	}
	f.Fuzz(func(t *testing.T, text, base string, part int32) {
		text, base = strings.ToValidUTF8(text, "x"), strings.ToValidUTF8(base, "x")
		u, ok := web.Resolve(web.Part(part), text, base)
		if !ok {
			return
		}
		href, cuts := u.Serialise()
		last := 0
		for _, cut := range cuts {
			if cut < last || cut > len(href) {
				t.Fatalf("%q: cuts are %v", href, cuts)
			}
			last = cut
		}
		if strings.ContainsFunc(href, func(r rune) bool { return r >= utf8.RuneSelf }) {
			t.Fatalf("%q is not ASCII", href)
		}
		again, ok := web.Resolve(web.PartHref, href, "")
		if !ok && len(href) > web.MaxURL {
			return
		}
		if !ok {
			t.Fatalf("%q is no URL", href)
		}
		if second, _ := again.Serialise(); second != href {
			t.Fatalf("%q is parsed as %q", href, second)
		}
	})
}

// BenchmarkLong parses URLs as long as they may be: the time must be in proportion to the length, which
// is what the repetitions of a tenth are for.
func BenchmarkLong(b *testing.B) {
	for name, unit := range map[string]string{"path": "a/", "dots": "a/../", "at": "@", "user": "a:", "label": "ä.", "slash": "/", "query": "?é", "drive": "C|/", "host": "a", "escape": "%2e/"} {
		for _, scheme := range []string{"http://", "http://h/", "file:///"} {
			for _, size := range []int{web.MaxURL / 10, web.MaxURL} {
				text := scheme + strings.Repeat(unit, (size-len(scheme)-1)/len(unit)) + "@"[:1]
				b.Run(name+"/"+strings.Trim(scheme, ":/")+"/"+map[bool]string{true: "whole", false: "tenth"}[size == web.MaxURL], func(b *testing.B) {
					b.SetBytes(int64(len(text)))
					for b.Loop() {
						if u, ok := web.Resolve(web.PartHref, text, ""); ok {
							u.Serialise()
						}
					}
				})
			}
		}
	}
}

func BenchmarkURL(b *testing.B) {
	for b.Loop() {
		u, _ := web.Resolve(web.PartHref, "https://api.example.com:8443/v1/orders/17?a=b&c=d#frag", "")
		u.Serialise()
	}
}
