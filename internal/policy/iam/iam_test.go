package iam_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/policy/iam"
	"sallyport/internal/problem"
)

var update = flag.Bool("update", false, "write the golden files")

func options() iam.Options {
	return iam.Options{
		Namespace: "shop", Attached: &iam.Ref{Kind: "Group", ID: "web"},
		Principals: map[string]iam.Ref{
			"arn:aws:iam::1:user/ann": {Kind: "User", ID: "ann"}, "arn:aws:iam::1:user/bob": {Kind: "User", ID: "bob"},
			"lambda.amazonaws.com": {Kind: "Service", ID: "lambda"},
		},
	}
}

// TestGolden shows what each document becomes: the policies, who belongs to the role, what was refused, and what changed.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := iam.Import(filepath.Base(file), text, options())
		if err != nil {
			t.Fatal(err, problem.From(err).Faults)
		}
		var b strings.Builder
		b.Write(r.Text)
		for _, m := range r.Members {
			fmt.Fprintf(&b, "\n// member %s %s", m.Kind, m.ID)
		}
		for _, n := range r.Refused {
			fmt.Fprintf(&b, "\n// refused %s %s: %s", n.Sid, n.Pointer, n.Reason)
		}
		for _, n := range r.Warnings {
			fmt.Fprintf(&b, "\n// warning %s %s: %s", n.Sid, n.Pointer, n.Reason)
		}
		golden := strings.TrimSuffix(file, ".json") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), b.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", golden, d)
		}
	}
}

func decide(t *testing.T, doc string, q policy.Request) (allowed bool, refused int) {
	t.Helper()
	r, err := iam.Import("doc.json", []byte(`{"Version":"2012-10-17","Statement":`+doc+`}`), options())
	if err != nil {
		t.Fatal(err, problem.From(err).Faults)
	}
	s, err := policy.New(policy.File{Name: "iam.cedar", Text: r.Text, Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	return s.Decide(q).Allowed, len(r.Refused)
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// request is one of a member of the group web, to invoke or, for a name with a dot, to publish.
func request(name string, change ...func(*policy.Request)) policy.Request {
	q := policy.Request{
		Principal: policy.Principal{Kind: policy.KindUser, ID: "user:ann", Groups: []string{"web"}},
		Action:    policy.Invoke, Resource: policy.Resource{Kind: policy.KindFunction, Namespace: "shop", Name: name},
		Context: policy.Context{Now: noon, Transport: policy.TransportTLS, IP: netip.MustParseAddr("10.1.1.1")},
	}
	if strings.Contains(name, ".") {
		q.Action, q.Resource.Kind = policy.Publish, policy.KindEventType
		q.Context.Event = &policy.Event{Type: name, Source: "/till/1"}
	}
	for _, c := range change {
		c(&q)
	}
	return q
}

func from(ip string) func(*policy.Request) {
	return func(q *policy.Request) {
		q.Context.IP = netip.Addr{}
		if ip != "" {
			q.Context.IP = netip.MustParseAddr(ip)
		}
	}
}

func claims(methods []string, age time.Duration, tags ...string) func(*policy.Request) {
	return func(q *policy.Request) {
		c := &policy.Claims{Methods: methods, Others: map[string][]string{}}
		if age >= 0 {
			c.Time = noon.Add(-age)
		}
		if len(tags) > 0 {
			c.Others["team"] = tags
		}
		q.Principal.Claims = c
	}
}

// TestMeaning: what the imported policies decide. Each document is an Allow of everything it names; "not" wraps it into
// a Deny beside an Allow of all.
func TestMeaning(t *testing.T) {
	t.Parallel()
	const invoke, put = `"lambda:InvokeFunction"`, `"events:PutEvents"`
	st := func(effect, action, resource, condition string) string {
		return fmt.Sprintf(`{"Effect":%q,"Action":[%s],"Resource":%s,"Condition":{%s}}`, effect, action, resource, condition)
	}
	allow := func(condition string) string { return st("Allow", invoke+","+put, `"*"`, condition) }
	deny := func(condition string) string {
		return "[" + st("Allow", invoke+","+put, `"*"`, "") + "," + st("Deny", invoke+","+put, `"*"`, condition) + "]"
	}
	const other = "192.0.2.1"
	mfa, pwd := []string{"pwd", "mfa"}, []string{"pwd"}
	for _, tc := range []struct {
		name string
		doc  string
		q    policy.Request
		want bool
	}{
		{"exact", st("Allow", invoke, `"arn:aws:lambda:r:a:function:price"`, ""), request("price"), true},
		{"exact, other", st("Allow", invoke, `"arn:aws:lambda:r:a:function:price"`, ""), request("prices"), false},
		{"wildcard", st("Allow", invoke, `"arn:aws:lambda:r:a:function:pr*e"`, ""), request("price"), true},
		{"wildcard, other", st("Allow", invoke, `"arn:aws:lambda:r:a:function:pr*e"`, ""), request("prices"), false},
		{"all functions", st("Allow", invoke, `"arn:aws:lambda:r:a:function:*"`, ""), request("price"), true},
		{"all of lambda is no event", st("Allow", `"*"`, `"arn:aws:lambda:r:a:*"`, ""), request("a.b"), false},
		{"all", st("Allow", `"*"`, `"*"`, ""), request("a.b"), true},
		{"case of actions", st("Allow", `"LAMBDA:invokefunction"`, `"*"`, ""), request("price"), true},
		{"deny of another", "[" + allow("") + "," + st("Deny", invoke, `"arn:aws:lambda:r:a:function:pay?"`, "") + "]", request("price"), true},
		{"deny with ?", "[" + allow("") + "," + st("Deny", invoke, `"arn:aws:lambda:r:a:function:pay?"`, "") + "]", request("paying"), false},
		{"deny of a version", "[" + allow("") + "," + st("Deny", invoke, `"arn:aws:lambda:r:a:function:price:3"`, "") + "]", request("price"), false},
		{"deny of anything", "[" + allow("") + "," + st("Deny", `"lambda:*"`, `"arn:aws:*"`, "") + "]", request("price"), false},
		{"not resource", `{"Effect":"Allow","Action":"lambda:InvokeFunction","NotResource":"arn:aws:lambda:r:a:function:pay*"}`, request("price"), true},
		{"not resource, named", `{"Effect":"Allow","Action":"lambda:InvokeFunction","NotResource":"arn:aws:lambda:r:a:function:pay*"}`, request("payout"), false},
		{"not action", `{"Effect":"Allow","NotAction":"events:*","Resource":"*"}`, request("price"), true},
		{"not action, named", `{"Effect":"Allow","NotAction":"events:*","Resource":"*"}`, request("a.b"), false},
		{"deny not action, named", "[" + allow("") + `,{"Effect":"Deny","NotAction":"lambda:InvokeFunction","Resource":"*"}]`, request("price"), true},
		{"deny not action", "[" + allow("") + `,{"Effect":"Deny","NotAction":"lambda:InvokeFunction","Resource":"*"}]`, request("a.b"), false},

		{"address", allow(`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`), request("price"), true},
		{"address, other", allow(`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`), request("price", from(other)), false},
		{"address, none", allow(`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`), request("price", from("")), false},
		{"not address", allow(`"NotIpAddress":{"aws:SourceIp":["10.0.0.0/8","172.16.0.0/12"]}`), request("price", from(other)), true},
		{"not address, in it", allow(`"NotIpAddress":{"aws:SourceIp":["172.16.0.0/12","10.0.0.0/8"]}`), request("price"), false},
		{"not address, none", allow(`"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}`), request("price", from("")), true},
		{"not address of any, none", allow(`"ForAnyValue:NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}`), request("price", from("")), false},
		{"address if there, none", allow(`"IpAddressIfExists":{"aws:SourceIp":"10.0.0.0/8"}`), request("price", from("")), true},
		{"address if there, other", allow(`"IpAddressIfExists":{"aws:SourceIp":"10.0.0.0/8"}`), request("price", from(other)), false},
		{"address of all, none", allow(`"ForAllValues:IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`), request("price", from("")), true},
		{"no address wanted", allow(`"Null":{"aws:SourceIp":"true"}`), request("price", from("")), true},
		{"no address wanted, one", allow(`"Null":{"aws:SourceIp":"true"}`), request("price"), false},
		{"an address wanted", allow(`"Null":{"aws:SourceIp":"false"}`), request("price"), true},
		{"the time is always there", allow(`"Null":{"aws:CurrentTime":"false"}`), request("price"), true},
		{"the time is never missing", allow(`"Null":{"aws:CurrentTime":"true"}`), request("price"), false},
		{"no values", allow(`"IpAddress":{"aws:SourceIp":[]}`), request("price"), false},
		{"none of no values", allow(`"NotIpAddress":{"aws:SourceIp":[]}`), request("price"), true},

		{"before", allow(`"DateLessThan":{"aws:CurrentTime":"2026-03-02T12:00:01Z"}`), request("price"), true},
		{"not before", allow(`"DateLessThan":{"aws:CurrentTime":"2026-03-02T12:00:00Z"}`), request("price"), false},
		{"at most", allow(`"DateLessThanEquals":{"aws:CurrentTime":"2026-03-02T13:00:00+01:00"}`), request("price"), true},
		{"after", allow(`"DateGreaterThan":{"aws:CurrentTime":"1772452799"}`), request("price"), true},
		{"at least", allow(`"DateGreaterThanEquals":{"aws:CurrentTime":"2026-03-02T12:00:01Z"}`), request("price"), false},
		{"at", allow(`"DateEquals":{"aws:CurrentTime":"2026-03-02T12:00:00Z"}`), request("price"), true},
		{"not at", allow(`"DateNotEquals":{"aws:CurrentTime":"2026-03-02T12:00:00Z"}`), request("price"), false},

		{"TLS", allow(`"Bool":{"aws:SecureTransport":"true"}`), request("price"), true},
		{"no TLS", allow(`"Bool":{"aws:SecureTransport":false}`), request("price"), false},
		{"two factors", allow(`"Bool":{"aws:MultiFactorAuthPresent":"true"}`), request("price", claims(mfa, 0)), true},
		{"one factor", allow(`"Bool":{"aws:MultiFactorAuthPresent":"true"}`), request("price", claims(pwd, 0)), false},
		{"no claims", allow(`"Bool":{"aws:MultiFactorAuthPresent":"true"}`), request("price"), false},
		{"deny unless two factors", deny(`"BoolIfExists":{"aws:MultiFactorAuthPresent":"false"}`), request("price"), false},
		{"deny unless two factors, two", deny(`"BoolIfExists":{"aws:MultiFactorAuthPresent":"false"}`), request("price", claims(mfa, 0)), true},
		{"fresh login", allow(`"NumericLessThan":{"aws:MultiFactorAuthAge":"3600"}`), request("price", claims(mfa, time.Minute)), true},
		{"old login", allow(`"NumericLessThan":{"aws:MultiFactorAuthAge":"3600"}`), request("price", claims(mfa, time.Hour)), false},
		{"login of unknown time", allow(`"NumericLessThan":{"aws:MultiFactorAuthAge":3600}`), request("price", claims(mfa, -1)), false},

		{"tag", allow(`"StringEquals":{"aws:PrincipalTag/team":["web","app"]}`), request("price", claims(nil, 0, "web")), true},
		{"tag, two", allow(`"StringEquals":{"aws:PrincipalTag/team":"web"}`), request("price", claims(nil, 0, "web", "app")), false},
		{"tag, none", allow(`"StringEquals":{"aws:PrincipalTag/team":"web"}`), request("price"), false},
		{"not tag", allow(`"StringNotEquals":{"aws:PrincipalTag/team":"web"}`), request("price", claims(nil, 0, "app")), true},
		{"not tag, two", allow(`"StringNotEquals":{"aws:PrincipalTag/team":"web"}`), request("price", claims(nil, 0, "web", "app")), false},
		{"not tag, none", allow(`"StringNotEquals":{"aws:PrincipalTag/team":"web"}`), request("price"), true},
		{"deny tag, two", deny(`"StringEquals":{"aws:PrincipalTag/team":"web"}`), request("price", claims(nil, 0, "web", "app")), false},
		{"deny tag, other", deny(`"StringEquals":{"aws:PrincipalTag/team":"web"}`), request("price", claims(nil, 0, "app")), true},
		{"deny not tag, two", deny(`"StringNotEquals":{"aws:PrincipalTag/team":"web"}`), request("price", claims(nil, 0, "web", "app")), false},

		{"type", allow(`"StringEquals":{"events:detail-type":["a.b","a.c"]}`), request("a.c"), true},
		{"type, other", allow(`"StringEquals":{"events:detail-type":["a.b","a.c"]}`), request("a.d"), false},
		{"type of an invocation", allow(`"StringEquals":{"events:detail-type":"a.b"}`), request("price"), false},
		{"not type of an invocation", allow(`"StringNotEquals":{"events:detail-type":"a.b"}`), request("price"), true},
		{"no type of an invocation", allow(`"Null":{"events:detail-type":"true"}`), request("price"), true},
		{"source", allow(`"StringLike":{"events:source":"/till/*"}`), request("a.b"), true},
		{"source, other", allow(`"StringLike":{"events:source":"/desk/*"}`), request("a.b"), false},
		{"not source", allow(`"StringNotLike":{"events:source":"/till/?"}`), request("a.b"), false},
		{"deny source", deny(`"StringLike":{"events:source":"/till/??"}`), request("a.b"), false},
		{"deny with an unknown key", deny(`"StringEquals":{"aws:SourceVpc":"vpc-1"}`), request("price"), false},
		{"deny in another case", deny(`"StringEqualsIgnoreCase":{"events:source":"x"}`), request("a.b"), false},
		{"deny not like ?", deny(`"StringNotLike":{"events:source":"/till/?"}`), request("a.b"), false},
		{"two conditions", allow(`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"Bool":{"aws:SecureTransport":"false"}`), request("price"), false},
	} {
		got, refused := decide(t, tc.doc, tc.q)
		// An Allow that can never apply is refused: it would be no policy at all.
		wantRefused := 0
		if tc.name == "the time is never missing" {
			wantRefused = 1
		}
		if got != tc.want || refused != wantRefused {
			t.Errorf("%s: allowed is %v with %d refused, want %v and %d", tc.name, got, refused, tc.want, wantRefused)
		}
	}
}

func TestPrincipals(t *testing.T) {
	t.Parallel()
	doc := `{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::1:user/ann"]},"Action":"lambda:InvokeFunction","Resource":"*"}`
	for id, want := range map[ident.PrincipalID]bool{"user:ann": true, "user:bob": false} {
		q := request("price")
		q.Principal.ID = id
		if got, _ := decide(t, doc, q); got != want {
			t.Errorf("%s may is %v, want %v", id, got, want)
		}
	}
	text := []byte(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"lambda:InvokeFunction","Resource":"*"}}`)
	o := options()
	o.AllowPublic = true
	if r, err := iam.Import("x", text, o); err != nil || len(r.Text) == 0 || len(r.Refused) > 0 {
		t.Errorf("Import of a public Allow that is meant = %+v, %v", r, err)
	}
	text = []byte(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"*"}}`)
	for _, attached := range []*iam.Ref{nil, {}, {Kind: "Function", ID: "shop/x"}, {Kind: "User"}} {
		o.Attached = attached
		if r, err := iam.Import("x", text, o); err != nil || len(r.Text) > 0 || len(r.Refused) != 1 {
			t.Errorf("Import attached to %v = %+v, %v, want it refused", attached, r, err)
		}
	}
	o = options()
	o.Prefix = "white space"
	if _, err := iam.Import("x", text, o); err == nil {
		t.Error("Import took a prefix that is no part of an id")
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, pointer string }{
		"empty":             {``, ""},
		"no object":         {`[]`, ""},
		"cut off":           {`{"Version":"2012-10-17","Statement":[`, "/Statement"},
		"version":           {`{"Version":"1","Statement":[]}`, "/Version"},
		"no statements":     {`{"Version":"2012-10-17"}`, "/Statement"},
		"two members":       {`{"Version":"2012-10-17","Version":"2012-10-17"}`, "/Version"},
		"unknown member":    {`{"Version":"2012-10-17","Statements":[]}`, "/Statements"},
		"unknown in a list": {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Actions":"x"}]}`, "/Statement/0/Actions"},
		"unknown in one":    {`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Actions":"x"}}`, "/Statement/Actions"},
		"effect":            {`{"Version":"2012-10-17","Statement":[{"Effect":"allow","Action":"x","Resource":"*"}]}`, "/Statement/0"},
		"no action":         {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*"}]}`, "/Statement/0"},
		"empty action":      {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[],"Resource":"*"}]}`, "/Statement/0"},
		"both actions":      {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a","NotAction":"b"}]}`, "/Statement/0"},
		"both resources":    {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a","Resource":"*","NotResource":"*"}]}`, "/Statement/0"},
		"both principals":   {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a","Principal":"*","NotPrincipal":"*"}]}`, "/Statement/0"},
		"principal":         {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a","Principal":"ann"}]}`, "/Statement/0/Principal"},
		"empty principal":   {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a","Principal":{}}]}`, "/Statement/0"},
		"object as a value": {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[{}]}]}`, "/Statement/0/Action"},
		"null as a value":   {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":null}]}`, "/Statement/0"},
		"something after":   {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a"}]} x`, ""},
		"too long":          {strings.Repeat(" ", iam.MaxBytes+1), ""},
		"long value":        {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"` + strings.Repeat("a", 5000) + `"}]}`, "/Statement/0/Action"},
		"many values":       {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["a"` + strings.Repeat(`,"a"`, 2000) + `]}]}`, "/Statement/0/Action"},
		"long sid":          {`{"Version":"2012-10-17","Statement":[{"Sid":"` + strings.Repeat("a", 5000) + `","Effect":"Allow","Action":"a"}]}`, "/Statement/0"},
		"not UTF-8":         {"{\"Version\":\"2012-10-17\xff\"}", "/Version"},
	} {
		_, err := iam.Import("x.json", []byte(tc.text), options())
		p := problem.From(err)
		if err == nil || p.Kind != problem.Invalid || len(p.Faults) != 1 || !strings.HasPrefix(p.Faults[0].Pointer, tc.pointer) || p.Faults[0].Detail == "" {
			t.Errorf("%s: %v %+v, want a fault at %q", name, err, p.Faults, tc.pointer)
		}
	}
}

// FuzzImport: whatever the JSON, Import ends, and what it returns is policies of the namespace that are valid; nothing that
// it permits is outside the statement's principals.
func FuzzImport(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := iam.Import("f.json", text, options())
		if err != nil {
			if problem.From(err).Kind != problem.Invalid {
				t.Fatalf("Import(%q) = %v", text, err)
			}
			return
		}
		s, err := policy.New(policy.File{Name: "f.cedar", Text: r.Text, Namespace: "shop"})
		if err != nil {
			t.Fatalf("Import(%q) made invalid policies: %v", text, err)
		}
		for _, name := range []string{"price", "a.b"} {
			q := request(name)
			q.Principal.ID, q.Principal.Groups = "user:stranger", nil
			if d := s.Decide(q); d.Allowed {
				t.Errorf("Import(%q) lets a stranger in by %v", text, d.Policies)
			}
		}
	})
}
