package manifest_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/filter"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

const webshop = `
#:schema ./app.schema.json
name = "webshop"

[event_types."order.created"]
schema = "schemas/order.created.json"

[event_types."order.priced"]

[functions.price]
source  = "price.ts"
memory  = "32 MiB"
timeout = "1m30s"
limits  = { cpu = "2s", output = "2MiB", log = "0B", events = 5, host_calls = 1_000 }
grants.out = { publish = ["order.priced", "order.refused"] }

[functions.reserve]
source = "./reserve"

[subscriptions.new-orders]
function = "price"
filter   = { type = "order.created", source = "/shop/*", subject = "*-eu" }
when     = "event.data.total > 0"
retry    = { attempts = 0x0a, backoff = "250ms", max_age = "7d" }

[subscriptions]
all = { function = "reserve", filter.type = "*" }
`

func pattern(t *testing.T, s string) filter.Pattern {
	t.Helper()
	p, err := filter.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseApp(t *testing.T) {
	t.Parallel()
	got, err := manifest.ParseApp("app.toml", []byte(webshop))
	if err != nil {
		t.Fatal(show(t, err))
	}
	want := &manifest.App{
		Name: "webshop",
		EventTypes: map[ident.EventType]manifest.EventType{
			"order.created": {Schema: "schemas/order.created.json"}, "order.priced": {},
		},
		Functions: map[ident.FunctionName]manifest.Function{
			"price": {
				Source: "price.ts", Memory: 32 << 20, Timeout: 90 * time.Second,
				Limits: manifest.Limits{CPU: 2 * time.Second, Output: 2 << 20, Log: 0, Events: 5, HostCalls: 1000},
				Grants: map[string]manifest.Grant{"out": {Publish: []ident.EventType{"order.priced", "order.refused"}}},
			},
			"reserve": {
				Source: "./reserve", Memory: manifest.DefaultMemory, Timeout: manifest.DefaultTimeout, Limits: manifest.DefaultLimits(),
				Grants: map[string]manifest.Grant{},
			},
		},
		Subscriptions: map[ident.SubscriptionName]manifest.Subscription{
			"new-orders": {
				Function: "price",
				Filter:   filter.Filter{Type: pattern(t, "order.created"), Source: pattern(t, "/shop/*"), Subject: pattern(t, "*-eu")},
				When:     "event.data.total > 0",
				Retry:    manifest.Retry{Attempts: 10, Backoff: 250 * time.Millisecond, MaxBackoff: time.Minute, MaxAge: 7 * 24 * time.Hour},
			},
			"all": {Function: "reserve", Retry: manifest.DefaultRetry()},
		},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b filter.Pattern) bool { return a == b })); diff != "" {
		t.Errorf("ParseApp (-want +got):\n%s", diff)
	}
}

func TestParseAppKeepsBackoffsInOrder(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, retry        string
		backoff, maximally time.Duration
	}{
		{"defaults", `{}`, time.Second, time.Minute},
		{"a long first pause raises the longest", `{ backoff = "5m" }`, 5 * time.Minute, 5 * time.Minute},
		{"a short longest pause lowers the first", `{ max_backoff = "200ms" }`, 200 * time.Millisecond, 200 * time.Millisecond},
		{"equal", `{ backoff = "3s", max_backoff = "3s" }`, 3 * time.Second, 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "name = \"a\"\nfunctions.f.source = \"f.js\"\n[subscriptions.s]\nfunction = \"f\"\nfilter.type = \"*\"\nretry = " + tt.retry
			app, err := manifest.ParseApp("app.toml", []byte(text))
			if err != nil {
				t.Fatal(show(t, err))
			}
			r := app.Subscriptions["s"].Retry
			if r.Backoff != tt.backoff || r.MaxBackoff != tt.maximally {
				t.Errorf("retry %s = %v to %v, want %v to %v", tt.retry, r.Backoff, r.MaxBackoff, tt.backoff, tt.maximally)
			}
		})
	}
}

// The places of a condition's faults are those in the file; what is said there is the compiler's.
func TestParseAppPointsIntoConditions(t *testing.T) {
	t.Parallel()
	const before = "name = \"a\"\nfunctions.f.source = \"f.js\"\n[subscriptions.s]\nfunction = \"f\"\n"
	for _, tt := range []struct {
		name, when           string
		line, column, length int
	}{
		{"at its end", `when = "event.id =="`, 5, 20, 1},
		{"a word", `when = 'evnt.id == "a"'`, 5, 9, 4},
		{"after letters of two bytes", `when = "'ÄÖÜ' == unknown"`, 5, 18, 7},
		{"not true or false", `when = "1 + 1"`, 5, 9, 5},
		{"on its second line", "when = \"\"\"\nevent.id == 'a' &&\n  total > 0\"\"\"", 7, 3, 5},
		{"with escapes, as a whole", `when = "event.id == \"a\" && total > 0"`, 5, 8, 32},
		{"too long", `when = "` + strings.Repeat("(", filter.MaxWhenBytes+1) + `"`, 5, 8, filter.MaxWhenBytes + 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := problem.From(parseApp([]byte(before + tt.when)))
			if len(p.Faults) == 0 {
				t.Fatalf("ParseApp(%s) finds nothing", tt.when)
			}
			f := p.Faults[0]
			if f.Line != tt.line || f.Column != tt.column || f.Length != tt.length || f.Detail == "" {
				t.Errorf("ParseApp(%s) points at %d:%d+%d (%s), want %d:%d+%d",
					tt.when, f.Line, f.Column, f.Length, f.Detail, tt.line, tt.column, tt.length)
			}
		})
	}
}

// Whatever a developer sends, the answer is bounded, and so is the time it takes.
func TestParseAppIsBounded(t *testing.T) {
	t.Parallel()
	many := func(n int, format string) string {
		var b strings.Builder
		b.WriteString("name = \"a\"\n")
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	var fullTables strings.Builder
	fullTables.WriteString("name = \"a\"\n")
	for table := range 24 {
		fmt.Fprintf(&fullTables, "[t%d]\n%s", table, strings.ReplaceAll(many(1900, "k%d = 1\n"), "name = \"a\"\n", ""))
	}
	for _, tt := range []struct{ name, text, want string }{
		{"size", "#" + strings.Repeat("x", manifest.MaxBytes), "bytes, at most"},
		{"keys and values", "name = \"a\"\nk = [" + strings.Repeat("1,", 100_000) + "]", "too many keys and values"},
		{"keys of a table", many(20_000, "k%d = 1\n"), "the table has too many keys"},
		{"keys of tables", fullTables.String(), "unknown key"},
		{"tables", many(1900, "[functions.f%d.grants.g]\n"), "1900 of them"},
		{"lists of tables", many(15_000, "[[functions.f.grants.g]]\nk = %d\n"), "the function has no source"},
		{"a long key", "a" + strings.Repeat(".a", 400_000) + " = 1", "too deep"},
		{"a long table name", "[a" + strings.Repeat(".a", 400_000) + "]", "too deep"},
		{"lists in lists", "a = " + strings.Repeat("[", 900_000), "deep"},
		{"tables in tables", "a = " + strings.Repeat("{a=", 300_000), "deep"},
		{"closed lists in lists", "a = " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "too deep"},
		{"functions", many(1001, "functions.f%d.source = \"f.js\"\n"), "1001 of them, at most 1000"},
		{"unknown keys", many(1900, "k%d = 1\n"), "unknown key"},
		{"unknown functions", many(1000, "functions.function-number-%d.source = \"f.js\"\n") +
			strings.ReplaceAll(many(1000, "subscriptions.s%d = { function = \"funktion-namber-x\", filter.type = \"*\" }\n"), "name = \"a\"\n", ""), "there is no function"},
		{"one long line", "name = \"a\", " + strings.Repeat("x", 500_000), "expected newline"},
		{"long name", "name = \"" + strings.Repeat("ä", 100_000) + "\"", "app name"},
		{"event types of a grant", "name = \"a\"\n[functions.f]\nsource = \"f.js\"\ngrants.out.publish = [" + strings.Repeat(`"a",`, 101) + "]", "101 of them"},
		{"path", "name = \"a\"\nfunctions.f.source = \"" + strings.Repeat("a", 1025) + "\"", "1025 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			p := problem.From(parseApp([]byte(tt.text)))
			if took := time.Since(began); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			if len(p.Faults) == 0 || len(p.Faults) > 50 || !strings.Contains(p.Faults[0].Detail, tt.want) {
				t.Fatalf("ParseApp finds %d faults, %v; want 1 to 50, the first with %q", len(p.Faults), p, tt.want)
			}
			size := len(p.Public)
			for _, f := range p.Faults {
				size += len(f.Source) + len(f.Detail)
			}
			if size > 100<<10 {
				t.Errorf("the answer is %d bytes", size)
			}
		})
	}
}

func TestParseAppCountsWhatItDoesNotShow(t *testing.T) {
	t.Parallel()
	text := "name = \"a\"\n" + strings.Repeat("x", 3) + " = 1\n"
	for i := range 59 {
		text += fmt.Sprintf("key-number-%d = 1\n", i)
	}
	p := problem.From(parseApp([]byte(text)))
	if want := "app.toml has 60 faults, of which these are 50"; p.Public != want || len(p.Faults) != 50 {
		t.Errorf("ParseApp = %q with %d faults, want %q with 50", p.Public, len(p.Faults), want)
	}
}

func TestFaultAt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		text string
		key  []string
		want problem.Fault
	}{
		{
			"a value", webshop, []string{"functions", "price", "source"},
			problem.Fault{File: "app.toml", Line: 11, Column: 11, Length: 10, Source: `source  = "price.ts"`, Detail: "gone"},
		},
		{
			"the nearest table", webshop, []string{"functions", "price", "nothing", "here"},
			problem.Fault{File: "app.toml", Line: 10, Column: 12, Length: 5, Source: "[functions.price]", Detail: "gone"},
		},
		{"a text that does not parse", "name =", []string{"name"}, problem.Fault{File: "app.toml", Detail: "gone"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := manifest.FaultAt("app.toml", []byte(tt.text), "gone", tt.key...)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("FaultAt (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseApp(f *testing.F) {
	f.Add([]byte(webshop))
	seed(f, "app")
	f.Fuzz(func(t *testing.T, text []byte) { checkFaults(t, text, parseApp(text)) })
}

func FuzzParseServer(f *testing.F) {
	seed(f, "server")
	f.Fuzz(func(t *testing.T, text []byte) { checkFaults(t, text, parseServer(text)) })
}

func seed(f *testing.F, folder string) {
	f.Helper()
	entries, err := os.ReadDir("testdata/" + folder)
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".toml") {
			continue
		}
		text, err := os.ReadFile("testdata/" + folder + "/" + e.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
}

// checkFaults sees that every fault is a place in the text.
func checkFaults(t *testing.T, text []byte, err error) {
	t.Helper()
	if err == nil {
		return
	}
	p := problem.From(err)
	if p.Kind != problem.Invalid || len(p.Faults) == 0 {
		t.Fatalf("%v (%v) is no problem with faults", p, p.Unwrap())
	}
	lines := strings.Split(string(text), "\n")
	for i, f := range p.Faults {
		if f.Line < 1 || f.Line > len(lines) || f.Column < 1 || f.Length < 1 || f.Detail == "" {
			t.Fatalf("fault %+v is nowhere in %d lines", f, len(lines))
		}
		line := []rune(strings.TrimSuffix(lines[f.Line-1], "\r"))
		if f.Source != "" && !shows(f.Source, line) && strings.ToValidUTF8(f.Source, "") == f.Source {
			t.Fatalf("fault %+v shows another line than %q", f, string(line))
		}
		if end := f.Column - 1 + f.Length; end > len(line)+1 {
			t.Fatalf("fault %+v ends at %d of %d characters", f, end, len(line))
		}
		if i > 0 && (p.Faults[i-1].Line > f.Line || p.Faults[i-1].Line == f.Line && p.Faults[i-1].Column > f.Column) {
			t.Fatalf("faults are not in order: %+v", p.Faults)
		}
	}
}

// shows reports whether a line is shown as it is, but for characters that are hidden.
func shows(shown string, line []rune) bool {
	return slices.EqualFunc([]rune(shown), line, func(a, b rune) bool { return a == b || a == '*' })
}

// TestHTTPGrant reads every key of an http grant.
func TestHTTPGrant(t *testing.T) {
	t.Parallel()
	app, err := manifest.ParseApp("app.toml", []byte(`
name = "webshop"
[functions.price]
source = "price.ts"
[functions.price.grants.stripe]
http           = "https://api.example.org:8443/v1/charges/{id}"
methods        = ["POST", "GET"]
query          = { version = "2" }
headers        = { Accept = "application/json" }
allow_query    = ["limit"]
allow_headers  = ["Idempotency-Key"]
auth           = { bearer = "secret:stripe-key@3", mtls = { certificate = "secret:cert", key = "secret:cert-key" } }
redirects      = 2
private        = ["127.0.0.1", "10.1.0.0/16", "fd00::/8"]
ca             = "secret:corp-ca"
proxy          = "http://proxy.internal:3128"
proxy_resolves = true
limits         = { timeout = "3s", reply = "64KiB" }
[functions.price.grants.local]
http      = "http://127.0.0.1:8080/{path...}"
private   = ["127.0.0.1"]
auth.hmac = { key = "secret:k", header = "X-Hub-Signature-256", signed = "{body}", format = "sha256={signature}" }
`))
	if err != nil {
		t.Fatal(err)
	}
	limits := manifest.DefaultGrantLimits()
	limits.Timeout, limits.Reply = 3*time.Second, 64<<10
	want := map[string]manifest.Grant{
		"stripe": {Limits: limits, HTTP: &manifest.HTTPGrant{
			URL: "https://api.example.org:8443/v1/charges/{id}", Methods: []string{"POST", "GET"}, Query: map[string]string{"version": "2"}, Headers: map[string]string{"Accept": "application/json"},
			AllowQuery: []string{"limit"}, AllowHeaders: []string{"Idempotency-Key"}, Redirects: 2, CA: "secret:corp-ca", Proxy: "http://proxy.internal:3128", ProxyResolves: true,
			Auth:    manifest.HTTPAuth{Bearer: "secret:stripe-key@3", MTLS: &manifest.HTTPCertificate{Certificate: "secret:cert", Key: "secret:cert-key"}},
			Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")},
		}},
		"local": {Limits: manifest.DefaultGrantLimits(), HTTP: &manifest.HTTPGrant{
			URL: "http://127.0.0.1:8080/{path...}", Methods: []string{"GET"}, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
			Auth: manifest.HTTPAuth{HMAC: &manifest.HTTPSigned{Key: "secret:k", Header: "X-Hub-Signature-256", Signed: "{body}", Format: "sha256={signature}", Algorithm: "sha256", Encoding: "hex"}},
		}},
	}
	if diff := cmp.Diff(want, app.Functions["price"].Grants, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("grants (-want +got):\n%s", diff)
	}
}
