package manifest

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/internal/ident"
)

// Issuer is an OpenID Connect issuer whose tokens are accepted.
type Issuer struct {
	URL string
	// Audiences are those a token may be for; one of them must be in it.
	Audiences  []string
	Algorithms []string
	// Types are the values of the header typ that are accepted; TypeAbsent is a token without one.
	Types []string
	// CAFile is the CA of the issuer's own server; "" is the system's.
	CAFile string
	// Private says that the issuer may be at a loopback or private address.
	Private bool
	// Principal is what its tokens stand for: PrincipalUser or PrincipalService.
	Principal string
	Skew      time.Duration
	// Claims are the names of the claims that are read; "a.b" is a member of an object.
	GroupsClaim, RolesClaim, TenantClaim string
	Map                                  []ClaimMapping
}

// Mapping is what somebody gets who was authenticated.
type Mapping struct {
	Role       string
	Namespace  ident.Namespace // "": the whole server
	EventTypes []ident.EventType
}

// ClaimMapping is a mapping for whose claim has a value.
type ClaimMapping struct {
	Claim, Value string
	Mapping
}

// ClientCA is a CA whose certificates prove who a caller is.
type ClientCA struct {
	Name string
	File string
	// CRLFile, when set, is its revocation list; a certificate that the list does not cover is refused.
	CRLFile string
	Map     []NameMapping
}

// NameMapping is a mapping for who has a name in its certificate: a SPIFFE id, whose end may be open, or a subject.
type NameMapping struct {
	SPIFFE, Subject string
	Mapping
}

// Rates bound what one address or one principal may ask; a zero Rate is no bound.
type Rates struct{ Failures, Address, Principal Rate }

// Rate is how many in a second on the whole, and how many at once.
type Rate struct{ PerSecond, Burst int }

// The kinds of principals.
const (
	PrincipalUser    = "user"
	PrincipalService = "service"
)

// TypeAbsent stands for a token whose header has no typ.
const TypeAbsent = "absent"

// The claims that a mapping may look at.
const (
	ClaimSubject = "sub"
	ClaimGroups  = "groups"
	ClaimRoles   = "roles"
	ClaimTenant  = "tenant"
)

// Limits of what is said about principals.
const (
	maxIssuers    = 32
	maxAudiences  = 16
	maxMappings   = 256
	maxClaimValue = 255 // bytes
	maxIssuerURL  = 200 // bytes; it is a part of the ids that are stored with each event
	maxSkew       = 5 * time.Minute
	maxMapTypes   = 100
	maxRate       = 1_000_000 // a second, or at once
)

// algorithms are the signatures that may be accepted. They are asymmetric: with another one, whoever can
// check a token could make it.
func algorithms() []string {
	return []string{"EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}
}

func roles() []string { return []string{"operator", "developer", "publisher", "reader"} }

func (t *table) issuers() []Issuer {
	var out []Issuer
	for _, it := range t.each("issuers", maxIssuers) {
		is := it.issuer()
		if slices.ContainsFunc(out, func(o Issuer) bool { return o.URL == is.URL && is.URL != "" }) {
			it.fault("url", "this issuer is there already")
		}
		out = append(out, is)
	}
	return out
}

// isIssuer reports whether text is the URL of an issuer.
func isIssuer(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Hostname() != "" && u.User == nil && !strings.ContainsAny(text, "#?") && len(text) <= maxIssuerURL
}

func (t *table) identity(to *Identity) {
	to.Issuer = t.text("issuer")
	if s := to.Issuer; s != "" && (!isIssuer(s) || strings.HasSuffix(s, "/")) {
		t.fault("issuer", "want the URL by which others find this server, of the form https://host or https://host/path, without / at its end")
	}
	t.done()
}

func (t *table) issuer() Issuer {
	is := Issuer{
		Algorithms: []string{"EdDSA", "ES256", "PS256", "RS256"}, Types: []string{"JWT", "at+jwt"}, Principal: PrincipalUser,
		Skew: 30 * time.Second, GroupsClaim: ClaimGroups, RolesClaim: ClaimRoles, TenantClaim: ClaimTenant,
	}
	t.need("url", "the issuer has no url")
	t.need("audience", "the issuer has no audience: a token that was made for somebody else would be accepted")
	if is.URL = t.text("url"); is.URL != "" && !isIssuer(is.URL) {
		t.fault("url", "want the issuer's URL, exactly as it is in its tokens, of the form https://host/path")
	}
	for _, n := range t.texts("audience", maxAudiences) {
		if n.text == "" || len(n.text) > maxClaimValue {
			t.d.fault(n.value, "want an audience of 1 to %d bytes", maxClaimValue)
		}
		is.Audiences = append(is.Audiences, n.text)
	}
	if t.has("audience") && len(is.Audiences) == 0 {
		t.fault("audience", "name one audience at least")
	}
	t.someOf("algorithms", &is.Algorithms, algorithms())
	t.someOf("types", &is.Types, []string{"JWT", "at+jwt", TypeAbsent})
	t.textTo("ca_file", &is.CAFile)
	t.truth("private_network", &is.Private)
	t.oneOf("principal", &is.Principal, PrincipalUser, PrincipalService)
	t.duration("skew", &is.Skew, 0, maxSkew)
	claims := t.table("claims")
	claims.textTo("groups", &is.GroupsClaim)
	claims.textTo("roles", &is.RolesClaim)
	claims.textTo("tenant", &is.TenantClaim)
	claims.done()
	for _, m := range t.each("map", maxMappings) {
		is.Map = append(is.Map, m.claimMapping())
	}
	t.done()
	return is
}

func (t *table) claimMapping() ClaimMapping {
	var m ClaimMapping
	t.need("claim", "the mapping has no claim")
	t.need("value", "the mapping has no value")
	t.oneOf("claim", &m.Claim, ClaimSubject, ClaimGroups, ClaimRoles, ClaimTenant)
	if m.Value = t.text("value"); len(m.Value) > maxClaimValue {
		t.fault("value", "want at most %d bytes", maxClaimValue)
	}
	t.mapping(&m.Mapping)
	t.done()
	return m
}

// mapping reads what somebody gets.
func (t *table) mapping(m *Mapping) {
	t.need("role", "the mapping has no role: %s", strings.Join(roles(), ", "))
	t.oneOf("role", &m.Role, roles()...)
	if ns := t.text("namespace"); ns != "" {
		var err error
		if m.Namespace, err = ident.ParseNamespace(ns); err != nil {
			t.fault("namespace", "%v", err)
		}
	}
	for _, n := range t.texts("event_types", maxMapTypes) {
		et, err := ident.ParseEventType(n.text)
		if err != nil {
			t.d.fault(n.value, "%v", err)
		}
		m.EventTypes = append(m.EventTypes, et)
	}
	if t.has("event_types") && len(m.EventTypes) == 0 {
		t.fault("event_types", "empty, which would be every type; leave the key out for that")
	}
}

// someOf reads a list of the allowed texts into to; an empty one is a fault.
func (t *table) someOf(key string, to *[]string, allowed []string) {
	list := t.texts(key, len(allowed))
	if !t.has(key) {
		return
	}
	var out []string
	for _, n := range list {
		if !slices.Contains(allowed, n.text) {
			t.d.fault(n.value, "want one of %s", strings.Join(allowed, ", "))
			continue
		}
		out = append(out, n.text)
	}
	if len(list) == 0 {
		t.fault(key, "name one at least: %s", strings.Join(allowed, ", "))
	}
	*to = out
}

func (t *table) clientCAs() []ClientCA {
	var out []ClientCA
	for _, ct := range t.each("client_ca", maxIssuers) {
		var ca ClientCA
		ct.need("name", "the CA has no name, which is a part of its principals' ids")
		ct.need("file", "the CA has no file")
		if ca.Name = ct.text("name"); ca.Name != "" {
			if _, err := ident.ParseAppName(ca.Name); err != nil {
				ct.fault("name", "want lower-case letters, digits and inner hyphens, beginning with a letter, at most %d", ident.MaxNameLength)
			}
			if slices.ContainsFunc(out, func(o ClientCA) bool { return o.Name == ca.Name }) {
				ct.fault("name", "this CA is there already")
			}
		}
		ct.textTo("file", &ca.File)
		ct.textTo("crl_file", &ca.CRLFile)
		for _, m := range ct.each("map", maxMappings) {
			ca.Map = append(ca.Map, m.nameMapping())
		}
		ct.done()
		out = append(out, ca)
	}
	return out
}

func (t *table) nameMapping() NameMapping {
	var m NameMapping
	t.textTo("spiffe", &m.SPIFFE)
	t.textTo("subject", &m.Subject)
	switch {
	case t.has("spiffe") == t.has("subject"):
		t.d.fault(t.n.key, "the mapping needs spiffe or subject, and not both")
	case m.SPIFFE != "":
		exact := strings.TrimSuffix(m.SPIFFE, "*")
		domain, path, ok := strings.Cut(strings.TrimPrefix(exact, "spiffe://"), "/")
		if !strings.HasPrefix(exact, "spiffe://") || !ok || domain == "" || strings.Contains(path, "*") || exact != m.SPIFFE && !strings.HasSuffix(exact, "/") {
			t.fault("spiffe", `want an id such as "spiffe://example.org/shop/api", or its beginning, such as "spiffe://example.org/shop/*"`)
		}
	}
	t.mapping(&m.Mapping)
	t.done()
	return m
}

func (t *table) rates(r *Rates) {
	for _, v := range []struct {
		key string
		to  *Rate
	}{{"failures", &r.Failures}, {"address", &r.Address}, {"principal", &r.Principal}} {
		rt := t.table(v.key)
		if n := t.n.members[v.key]; n != nil && n.kind == kindTable {
			rt.need("rate", "the rate is missing: how many in a second")
			v.to.Burst = 0
		}
		rt.integer("rate", &v.to.PerSecond, 1, maxRate)
		rt.integer("burst", &v.to.Burst, 1, maxRate)
		if v.to.Burst == 0 {
			v.to.Burst = v.to.PerSecond
		}
		rt.done()
	}
	t.done()
}
