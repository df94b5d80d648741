package urltemplate_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/manifest/urltemplate"
)

func parse(t testing.TB, text string) *urltemplate.Template {
	t.Helper()
	tpl, err := urltemplate.Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return tpl
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, origin string }{
		{"https://api.example.org", "https://api.example.org"},
		{"https://api.example.org/", "https://api.example.org"},
		{"https://api.example.org:443/v1/{id}/x", "https://api.example.org"},
		{"https://api.example.org:8443/v1/{id}.json", "https://api.example.org:8443"},
		{"http://127.0.0.1:8080/{path...}", "http://127.0.0.1:8080"},
		{"https://[2606:4700::1111]/a", "https://[2606:4700::1111]"},
		{"https://xn--bcher-kva.example/a:b@c;d=1,2", "https://xn--bcher-kva.example"},
		{"https://my_service/a", "https://my_service"},
	} {
		if got := parse(t, tt.in).Origin(); got != tt.origin {
			t.Errorf("Parse(%q).Origin() = %q; want %q", tt.in, got, tt.origin)
		}
	}
	for _, in := range []string{
		"", "api.example.org", "//x/", "ftp://x/", "HTTPS://x/", "file:///etc/passwd", "https:/x", "https://", "https:///a", "https://u:p@x/", "https://u@x/",
		"https://X.example/", "https://x./", "https://.x/", "https://-x/", "https://x-/", "https://a..b/", "https://x y/", "https://{host}/", "https://x.{tld}/",
		"https://x:/", "https://x:0/", "https://x:65536/", "https://x:080/", "https://x:{port}/", "https://x:80:80/", "https://127.1/", "https://2130706433/",
		"https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.0.0.01/", "https://1.2.3.4.5/", "https://256.1.1.1/", "https://[::1/", "https://::1/",
		"https://[::ffff:127.0.0.1]/", "https://[0:0::1]/", "https://[fe80::1%25eth0]/", "https://[::1]x/", "https://bücher.example/", "https://x/?a=b", "https://x/#f",
		"https://x/a//b", "https://x/./a", "https://x/../a", "https://x/..", "https://x/a%2fb", "https://x/a b", `https://x/a\b`, "https://x/{a}{b}", "https://x/{a", "https://x/a}",
		"https://x/{}", "https://x/{1a}", "https://x/{a-b}", "https://x/{a}/{a}", "https://x/{a...}/b", "https://x/v{a...}", "https://x/{...}", "https://x/\r\nX: y",
		"https://" + strings.Repeat("a", 64) + ".org/", "https://x/" + strings.Repeat("a/", 70), "https://x/" + strings.Repeat("a", 3000),
	} {
		if got, err := urltemplate.Parse(in); err == nil {
			t.Errorf("Parse(%q) = %+v; want an error", in, got)
		}
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ template, value, want string }{
		{"https://x/v1/{id}", "ch_1", "/v1/ch_1"}, {"https://x/v1/{id}", "a b", "/v1/a%20b"}, {"https://x/v1/{id}", "?a=b&c#d", "/v1/%3Fa%3Db%26c%23d"},
		{"https://x/v1/{id}.json", "é", "/v1/%C3%A9.json"}, {"https://x/v1/{id}", "100%", "/v1/100%25"}, {"https://x/v1/{id}", "...", "/v1/..."},
		{"https://x/v1/{id}", "a;b=c:@", "/v1/a%3Bb%3Dc%3A%40"}, {"https://x/v1/{id...}", "a/b c/d", "/v1/a/b%20c/d"}, {"https://x/v1/{id}/", "a", "/v1/a/"},
		{"https://x/v1/{id}", "http://10.0.0.1", ""}, {"https://x/v1/{id}", "", ""}, {"https://x/v1/{id}", ".", ""}, {"https://x/v1/{id}", "..", ""},
		{"https://x/v1/{id}", "a/b", ""}, {"https://x/v1/{id}", `a\b`, ""}, {"https://x/v1/{id}", "%2e%2e", ""}, {"https://x/v1/{id}", "%2E.", ""},
		{"https://x/v1/{id}", "%252e%252e", ""}, {"https://x/v1/{id}", "a%2fb", ""}, {"https://x/v1/{id}", "a%5cb", ""}, {"https://x/v1/{id}", "a%255cb", ""},
		{"https://x/v1/{id}", "..;", ""}, {"https://x/v1/{id}", "..;a=b", ""}, {"https://x/v1/{id}", "..%3b", ""}, {"https://x/v1/{id}", "a\r\nX: y", ""}, {"https://x/v1/{id}", "a\x00", ""},
		{"https://x/v1/{id}", "%0d%0aX: y", ""}, {"https://x/v1/{id}", "%00", ""}, {"https://x/v1/{id}", "a\u0085b", ""}, {"https://x/v1/{id}", "\xff", ""}, {"https://x/v1/{id}", "%25252525", ""},
		{"https://x/v1/.{id}", ".", ""}, {"https://x/v1/{id}.", ".", ""}, {"https://x/v1/.{id}", "%2e", ""}, {"https://x/v1/{id...}", "a//b", ""}, {"https://x/v1/{id...}", "/a", ""}, {"https://x/v1/{id...}", "a/", ""},
		{"https://x/v1/{id...}", "a/../b", ""}, {"https://x/v1/{id...}", "a/%2e%2e/b", ""}, {"https://x/v1/{id...}", "a%2fb", ""}, {"https://x/v1/{id}", strings.Repeat("a", 3000), ""},
	} {
		_, got, err := parse(t, tt.template).Expand(map[string]string{"id": tt.value})
		if tt.want == "" {
			if !errors.Is(err, urltemplate.ErrValue) {
				t.Errorf("Expand(%q, %q) = %q, %v; want ErrValue", tt.template, tt.value, got, err)
			}
		} else if err != nil || got != tt.want {
			t.Errorf("Expand(%q, %q) = %q, %v; want %q", tt.template, tt.value, got, err, tt.want)
		}
	}
	tpl := parse(t, "https://x/{a}/{b}")
	for _, values := range []map[string]string{nil, {"a": "1"}, {"a": "1", "c": "2"}, {"a": "1", "b": "2", "c": "3"}} {
		if _, _, err := tpl.Expand(values); !errors.Is(err, urltemplate.ErrValue) {
			t.Errorf("Expand(%v): %v; want ErrValue", values, err)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	tpl := parse(t, "https://api.example.org/v1/{kind}/{id}.json")
	for _, in := range []string{
		"https://api.example.org/v1/a/b.json", "HTTPS://API.example.ORG/v1/a/b.json", "https://api.example.org:443/v1/a/b.json", "https://api.example.org/v1/%61/b.json#x",
		"https://api.example.org/v1/a/b.json?q=1#x?y",
	} {
		values, query, err := tpl.Match(in)
		if err != nil || !cmp.Equal(values, map[string]string{"kind": "a", "id": "b"}) || strings.Contains(in, "?q") != (query == "q=1") {
			t.Errorf("Match(%q) = %v, %q, %v", in, values, query, err)
		}
	}
	for _, in := range []string{
		"", "/v1/a/b.json", "http://api.example.org/v1/a/b.json", "https://api.example.org", "https://api.example.org/v1/a/b", "https://api.example.org/v1/a/.json",
		"https://api.example.org/v1//b.json", "https://api.example.org/v1/a/b.json/", "https://api.example.org/v1/a/c/b.json", "https://api.example.org//v1/a/b.json",
		"https://api.example.org.evil.com/v1/a/b.json", "https://api.example.org@evil.com/v1/a/b.json", "https://u:p@api.example.org/v1/a/b.json", "https://api.example.org:8443/v1/a/b.json",
		"https://api.example.org./v1/a/b.json", "https://evil.com/https://api.example.org/v1/a/b.json", "https://evil.com#@api.example.org/v1/a/b.json", "https://evil.com\\@api.example.org/v1/a/b.json",
		"https://api.example.org/v1/../a/b.json", "https://api.example.org/v1/%2e%2e/b.json", "https://api.example.org/v1/a%2fc/b.json", "https://api.example.org/v1/a%252fc/b.json",
		"https://api.example.org/v1/a\r\n/b.json", "https://api.example.org/v1/a%0d%0a/b.json", "https://api.example.org/v1/%/b.json", "https://api.example.org/v1/%zz/b.json", "https://api.example.org/v1/%ff/b.json",
		"https://api.example.org/v1/é/b.json", "https://api.example.org\t/v1/a/b.json", " https://api.example.org/v1/a/b.json", "https:api.example.org/v1/a/b.json", "https:/\\api.example.org/v1/a/b.json",
		"https://api.example.org/V1/a/b.json", "https://api.example.org/v1;x/a/b.json", "https://api.example.org/v1/a/b.json" + strings.Repeat("a", 9000),
	} {
		if values, _, err := tpl.Match(in); !errors.Is(err, urltemplate.ErrNoMatch) {
			t.Errorf("Match(%q) = %v, %v; want ErrNoMatch", in, values, err)
		}
	}
	rest := parse(t, "https://x/files/{path...}")
	if values, _, err := rest.Match("https://x/files/a/b%20c"); err != nil || values["path"] != "a/b c" {
		t.Errorf("rest: %v, %v", values, err)
	}
	for _, in := range []string{"https://x/files", "https://x/files/", "https://x/files/a/../b", "https://x/files/a%2fb", "https://x/files/%2e%2e/etc"} {
		if values, _, err := rest.Match(in); err == nil {
			t.Errorf("Match(%q) = %v", in, values)
		}
	}
}

// checkWire holds what a path that was made must be, whatever the values were.
func checkWire(t *testing.T, tpl *urltemplate.Template, template, path, raw string) {
	t.Helper()
	u, err := url.Parse(tpl.Origin() + raw)
	if err != nil {
		t.Fatalf("%q makes %q: %v", template, raw, err)
	}
	if u.Scheme+"://"+u.Host != tpl.Origin() || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != path || u.EscapedPath() != raw {
		t.Fatalf("%q makes %q, which is %#v", template, raw, u)
	}
	if !strings.Contains(template, "...") && strings.Count(raw, "/") != strings.Count(strings.SplitN(template, "://", 2)[1], "/") {
		t.Fatalf("%q makes %q: another number of segments", template, raw)
	}
	for _, c := range []byte(raw) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			t.Fatalf("%q makes %q: the byte %q", template, raw, c)
		}
	}
	for decoded := raw; ; {
		if strings.ContainsAny(decoded, "\r\n\x00\\") {
			t.Fatalf("%q makes %q, which can be read as %q", template, raw, decoded)
		}
		if !strings.Contains(template, "...") && strings.Count(decoded, "/") != strings.Count(raw, "/") {
			t.Fatalf("%q makes %q, which can be read as %q", template, raw, decoded)
		}
		for part := range strings.SplitSeq(decoded, "/") {
			if name, _, _ := strings.Cut(part, ";"); name == "." || name == ".." {
				t.Fatalf("%q makes %q, which can be read as %q", template, raw, decoded)
			}
		}
		next, err := url.PathUnescape(decoded)
		if err != nil || next == decoded {
			return
		}
		decoded = next
	}
}

var templates = []string{"https://x.example/v1/{id}", "https://x.example/v1/{id}/z", "https://x.example/v1/pre-{id}.json", "https://x.example/v1/{id...}", "https://x.example/.{id}"}

func FuzzExpand(f *testing.F) {
	for _, v := range []string{"a", "..", "%2e%2e", "a/b", "a\r\nHost: evil", "?x#y", "..;/", "%252f", "@evil.com", "//evil.com", "\u2028", "%c0%ae"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, template := range templates {
			tpl := parse(t, template)
			path, raw, err := tpl.Expand(map[string]string{"id": value})
			if err != nil {
				continue
			}
			checkWire(t, tpl, template, path, raw)
			// What is made is matched again, as the same.
			values, _, err := tpl.Match(tpl.Origin() + raw)
			if err != nil || values["id"] != value {
				t.Fatalf("%q makes %q of %q, which matches as %q, %v", template, raw, value, values, err)
			}
		}
	})
}

func FuzzMatch(f *testing.F) {
	for _, u := range []string{"https://x.example/v1/a", "https://x.example:443/v1/a?b=c#d", "https://u@x.example/v1/a", "https://x.example/v1/%2e%2e", "https://x.example\\@evil/v1/a"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, in string) {
		for _, template := range templates {
			tpl := parse(t, template)
			values, _, err := tpl.Match(in)
			if err != nil {
				continue
			}
			path, raw, err := tpl.Expand(values)
			if err != nil {
				t.Fatalf("%q matches %q as %q, of which it makes nothing: %v", template, in, values, err)
			}
			checkWire(t, tpl, template, path, raw)
			// Whoever reads the URL in the usual way reads the same.
			u, err := url.Parse(in)
			if err != nil || !strings.EqualFold(u.Hostname(), tpl.Host) || u.Path != path {
				t.Fatalf("%q matches %q as %q; net/url reads %+v, %v", template, in, values, u, err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, template := range templates {
		f.Add(template)
	}
	f.Fuzz(func(t *testing.T, in string) {
		tpl, err := urltemplate.Parse(in)
		if err != nil {
			return
		}
		values := map[string]string{}
		for _, name := range tpl.Names {
			values[name] = "v"
		}
		path, raw, err := tpl.Expand(values)
		if err != nil {
			return // a segment that would be a dot segment
		}
		u, err := url.Parse(tpl.Origin() + raw)
		if err != nil || u.Path != path || u.Hostname() != tpl.Host || u.User != nil || u.RawQuery != "" {
			t.Fatalf("%q makes %q%q, which is %+v, %v", in, tpl.Origin(), raw, u, err)
		}
	})
}

// TestCorpus puts every attack of the shared corpus, where it is there, into every template.
func TestCorpus(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob("../../../../shared/corpus/malicious/*.jsonl")
	if len(files) == 0 {
		t.Skip("the corpus is not part of the project, and not beside it here")
	}
	tried, made := 0, 0
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var attack struct{ Fields map[string]string }
			if err := json.Unmarshal(lines.Bytes(), &attack); err != nil {
				t.Fatal(err)
			}
			for _, value := range attack.Fields {
				for _, template := range templates {
					tpl := parse(t, template)
					tried++
					if path, raw, err := tpl.Expand(map[string]string{"id": value}); err == nil {
						made++
						checkWire(t, tpl, template, path, raw)
					}
				}
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if tried < 1000 {
		t.Fatalf("only %d values: the test tests nothing", tried)
	}
	t.Logf("%d of %d became a path", made, tried)
}
