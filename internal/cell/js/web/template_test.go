package web_test

import (
	"testing"

	"sallyport/internal/cell/js/web"
)

func TestTemplateCovers(t *testing.T) {
	t.Parallel()
	const (
		api   = "GET POST https://api.example.org:443/v1/{kind}/pre-{id}.json"
		files = "GET http://127.0.0.1:8080/files/{path...}"
		root  = "GET http://h.example:80/"
		bare  = "GET https://h.example:8443"
	)
	for _, test := range []struct {
		about, method, url string
		want               bool
	}{
		{api, "GET", "https://api.example.org/v1/a/pre-x.json", true},
		{api, "POST", "HTTPS://API.example.org:443/v1/a/pre-x.json?q#f", true},
		{api, "PUT", "https://api.example.org/v1/a/pre-x.json", false},
		{api, "GET", "http://api.example.org/v1/a/pre-x.json", false},
		{api, "GET", "https://api.example.org:8443/v1/a/pre-x.json", false},
		{api, "GET", "https://api.example.org.evil/v1/a/pre-x.json", false},
		{api, "GET", "https://u:p@api.example.org/v1/a/pre-x.json", false},
		{api, "GET", "https://api.example.org/v1/a/pre-.json", false},
		{api, "GET", "https://api.example.org/v1//pre-x.json", false},
		{api, "GET", "https://api.example.org/v1/a/pre-x.json/", false},
		{api, "GET", "https://api.example.org/v1/a", false},
		{api, "GET", "https://api.example.org/v1/../v1/a/pre-x.json", true},
		{files, "GET", "http://127.0.0.1:8080/files/a/b", true},
		{files, "GET", "http://127.0.0.1:8080/files/", false},
		{files, "GET", "http://127.0.0.1:8080/files//a", false},
		{files, "GET", "http://127.0.0.1/files/a", false},
		{root, "GET", "http://h.example", true},
		{root, "GET", "http://h.example/a", false},
		{bare, "GET", "https://h.example:8443/", true},
		{"", "", "data:,x", false},
		{"", "GET", "http://h.example/", false},
	} {
		u, ok := web.Resolve(web.PartHref, test.url, "")
		if !ok {
			t.Fatalf("%q is no URL", test.url)
		}
		href, cuts := u.Serialise()
		if got := web.ParseTemplate(test.about).Covers(test.method, href, cuts); got != test.want {
			t.Errorf("%q covers %s %q: %v, want %v", test.about, test.method, test.url, got, test.want)
		}
	}
}

// FuzzTemplateCovers: no URL and no template makes it fail.
func FuzzTemplateCovers(f *testing.F) {
	f.Add("GET https://h.example/{a}/b{c}d/{e...}", "https://h.example/1/b2d/3")
	f.Add("GET {", "data:,x")
	f.Fuzz(func(t *testing.T, about, url string) {
		if u, ok := web.Resolve(web.PartHref, url, ""); ok {
			href, cuts := u.Serialise()
			web.ParseTemplate(about).Covers("GET", href, cuts)
		}
	})
}
