package manifest

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

// Limits of a file of policy tests.
const (
	maxPolicyTests = 1000 // in one file
	maxTestBy      = 100  // determining policies of one test
)

// ParsePolicyTests reads the text of a file of policy tests; file names it in messages. The error is a problem with
// every fault in it. The tests are in the order of the file:
//
//	[tests."ann publishes orders"]
//	principal = { id = "user:ann", groups = ["ops"] }   # or just "user:ann"
//	action    = "publish"
//	resource  = "event_type:shop/order.created"
//	context   = { transport = "tls", event = { size = 100 } }
//	expect    = "allow"
//	by        = ["shop/ops-publish"]
func ParsePolicyTests(file string, text []byte) ([]policy.Test, error) {
	d, err := open(file, text)
	if err != nil {
		return nil, err
	}
	root := d.table(d.root)
	var tests []policy.Test
	for name, t := range root.tables("tests", maxPolicyTests) {
		tests = append(tests, t.policyTest(name))
	}
	root.need("tests", "the file has no tests; add one, such as [tests.\"a stranger is denied\"]")
	root.done()
	if err := d.err(); err != nil {
		return nil, err
	}
	return tests, nil
}

func (t *table) policyTest(name string) policy.Test {
	test := policy.Test{Name: name, File: t.d.file, Line: t.d.mark(t.n.key).Line}
	q := &test.Request
	t.principal("principal", &q.Principal)
	t.need("principal", `the test has no principal; add one, such as principal = "user:ann"`)
	var action, expect string
	t.oneOf("action", &action, actionWords()...)
	q.Action = policy.Action(action)
	t.need("action", `the test has no action; add one, such as action = "publish"`)
	if s := t.text("resource"); s != "" {
		r, err := policy.ParseResource(s)
		if err != nil {
			t.fault("resource", "%v", err)
		}
		q.Resource = r
	}
	t.need("resource", `the test has no resource; add one, such as resource = "event_type:default/order.created"`)
	t.table("context").policyContext(q)
	t.oneOf("expect", &expect, "allow", "deny")
	t.need("expect", `the test expects nothing; add expect = "allow" or expect = "deny"`)
	test.Allow = expect == "allow"
	if t.has("by") {
		test.By = t.words("by", maxTestBy)
	}
	t.done()
	return test
}

func actionWords() []string {
	var words []string
	for _, a := range policy.Actions() {
		words = append(words, string(a))
	}
	return words
}

// words reads a list of texts; one that is there and empty is not nil.
func (t *table) words(key string, most int) []string {
	list := []string{}
	for _, n := range t.texts(key, most) {
		list = append(list, n.text)
	}
	return list
}

// principal reads a principal: its id, or a table with more of what access would know.
func (t *table) principal(key string, to *policy.Principal) {
	n := t.n.members[key]
	if n == nil || n.kind != kindTable {
		t.principalID(key, to)
		return
	}
	p := t.table(key)
	p.principalID("id", to)
	p.need("id", `the principal has no id; add one, such as id = "user:ann"`)
	var role, ns string
	p.oneOf("role", &role, "operator", "developer", "publisher", "reader")
	to.Role = policy.Role(role)
	if p.textTo("namespace", &ns); ns != "" {
		p.parsed("namespace", func() error { _, err := ident.ParseNamespace(ns); return err })
		to.Namespace = ident.Namespace(ns)
	}
	for _, s := range p.words("event_types", policy.MaxClaims) {
		to.EventTypes = append(to.EventTypes, ident.EventType(s))
	}
	to.Groups = p.words("groups", policy.MaxGroups)
	p.truth("attenuated", &to.Attenuated)
	p.textTo("revision", &to.Revision)
	if p.has("claims") {
		to.Claims = p.table("claims").claims()
	}
	p.done()
}

func (t *table) principalID(key string, to *policy.Principal) {
	if s := t.text(key); s != "" {
		t.parsed(key, func() (err error) { *to, err = policy.ParsePrincipal(s); return err })
	}
}

// parsed notes the error of parsing a value.
func (t *table) parsed(key string, parse func() error) {
	if err := parse(); err != nil {
		t.fault(key, "%v", err)
	}
}

func (t *table) claims() *policy.Claims {
	c := &policy.Claims{}
	t.textTo("issuer", &c.Issuer)
	t.textTo("tenant", &c.Tenant)
	t.textTo("strength", &c.Strength)
	c.Groups, c.Roles, c.Methods = t.words("groups", policy.MaxGroups), t.words("roles", policy.MaxGroups), t.words("methods", policy.MaxGroups)
	t.moment("time", &c.Time)
	if t.has("others") {
		others := t.table("others")
		c.Others = map[string][]string{}
		for _, name := range slices.Sorted(maps.Keys(others.n.members)) {
			c.Others[name] = others.words(name, policy.MaxClaims)
		}
		if n := len(c.Others); n > policy.MaxClaims {
			t.fault("others", "%d of them, at most %d are allowed", n, policy.MaxClaims)
		}
	}
	t.done()
	return c
}

// moment reads a time in quotes.
func (t *table) moment(key string, to *time.Time) {
	if s := t.textOf(key, `a time in quotes, such as "2026-03-02T12:00:00Z"`); s != "" {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.fault(key, `not a time; want one such as "2026-03-02T12:00:00Z"`)
		}
		*to = at
	}
}

func (t *table) policyContext(q *policy.Request) {
	c := &q.Context
	sent := t.sent()
	c.Now, c.Transport, c.IP = sent.Now, sent.Transport, sent.IP
	if t.has("event") {
		c.Event = t.table("event").policyEvent(q)
	}
	if t.has("cause") {
		c.Cause = t.table("cause").cause()
	}
	t.done()
}

// sent reads how and when a request came.
func (t *table) sent() (c policy.Sent) {
	t.moment("now", &c.Now)
	var transport string
	t.oneOf("transport", &transport, "plaintext", "tls", "mtls", "internal")
	c.Transport = map[string]policy.Transport{
		"plaintext": policy.TransportPlaintext, "tls": policy.TransportTLS, "mtls": policy.TransportMutualTLS, "internal": policy.TransportInternal,
	}[transport]
	if s := t.text("ip"); s != "" {
		at, err := netip.ParseAddr(s)
		if err != nil || strings.Contains(s, "%") {
			t.fault("ip", `not an address; want one such as "192.0.2.1"`)
		}
		c.IP = at
	}
	return c
}

// policyEvent reads what policies know of an event; its type is that of the resource unless it says another.
func (t *table) policyEvent(q *policy.Request) *policy.Event {
	e := &policy.Event{Type: q.Resource.Name}
	t.textTo("type", &e.Type)
	t.textTo("source", &e.Source)
	t.textTo("subject", &e.Subject)
	size := 0
	t.integer("size", &size, 0, maxStored)
	e.Size = int64(size)
	t.done()
	return e
}

func (t *table) cause() *policy.Cause {
	c := &policy.Cause{}
	if t.has("principal") {
		c.Principal = &policy.Principal{}
		t.principal("principal", c.Principal)
	}
	for _, s := range t.words("functions", policy.MaxChain) {
		t.parsed("functions", func() error {
			p, err := policy.ParsePrincipal("function:" + s)
			c.Functions = append(c.Functions, p.ID)
			return err
		})
	}
	if t.has("sent") {
		of := t.table("sent")
		sent := of.sent()
		of.done()
		c.Sent = &sent
	}
	t.done()
	return c
}
