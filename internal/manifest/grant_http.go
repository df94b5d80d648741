package manifest

import (
	"encoding/pem"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/manifest/urltemplate"
)

// HTTPGrant calls an HTTP service: what is dangerous about a request stands here, and a function supplies the rest.
type HTTPGrant struct {
	// URL is the template: scheme, host and port as they are, and a path in which {name} is a value of the function's.
	URL     string
	Methods []string
	// Query and Headers go with every request. AllowQuery and AllowHeaders name what a function may add; "*" in
	// AllowQuery is every name.
	Query, Headers           map[string]string
	AllowQuery, AllowHeaders []string
	Auth                     HTTPAuth
	// Redirects is how many redirects are followed, each of them to what the grant itself allows; 0 hands them to the function.
	Redirects int
	// Private are the addresses beside public ones that the name may lead to.
	Private []netip.Prefix
	// CA is where the server's certificate comes from: certificates in PEM, or a reference to a secret that has them; "" is the system's.
	CA string
	// Proxy is http://host:port or https://host:port, or "". ProxyResolves leaves the resolution of names to it.
	Proxy         string
	ProxyResolves bool
}

// HTTPAuth is the credential that is applied to a request outside of the sandbox: one of its kinds at most, and a client
// certificate beside it. A SecretText is a reference or, where no secret is needed, a plain text.
type HTTPAuth struct {
	Bearer string // a reference
	Basic  *HTTPBasic
	Header *HTTPNamed
	Query  *HTTPNamed
	HMAC   *HTTPSigned
	AWS    *HTTPAWS
	OAuth2 *HTTPOAuth2
	MTLS   *HTTPCertificate
}

// HTTPBasic is a user and a password. User may be a plain text.
type HTTPBasic struct{ User, Password string }

// HTTPNamed is a value in a header or in the query, after a fixed Prefix.
type HTTPNamed struct{ Name, Prefix, Value string }

// HTTPSigned is a signature by HMAC over a text made of the request.
type HTTPSigned struct {
	Key string // a reference
	// Header gets the text that Format makes; Signed makes the text that is signed.
	Header, Format, Signed string
	Algorithm, Encoding    string
}

// HTTPAWS is a signature of AWS's Version 4. AccessKey may be a plain text; Session may be empty.
type HTTPAWS struct{ AccessKey, SecretKey, Session, Region, Service string }

// HTTPOAuth2 is a token by the grant of client credentials. ClientID may be a plain text.
type HTTPOAuth2 struct {
	TokenURL, ClientID, ClientSecret string
	Scopes                           []string
	Audience                         string
	// ClientAuth says where client and secret go: OAuth2Basic or OAuth2Body.
	ClientAuth string
}

// HTTPCertificate is a certificate with its chain, and its key, in PEM.
type HTTPCertificate struct{ Certificate, Key string }

// Values of HTTPSigned and HTTPOAuth2.
const (
	HMACSHA256  = "sha256"
	HMACSHA512  = "sha512"
	HMACHex     = "hex"
	HMACBase64  = "base64"
	OAuth2Basic = "basic"
	OAuth2Body  = "body"
)

// DefaultSigned is what is signed when nothing else is said: the parts of the request, one a line.
const DefaultSigned = "sallyport-hmac-v1\n{method}\n{host}\n{path}\n{query}\n{timestamp}\n{body_sha256}"

// SecretPrefix begins a text that is a reference to a secret.
const SecretPrefix = "secret:"

// Limits of an http grant.
const (
	maxHTTPNames   = 50       // of a fixed query, of fixed headers, and of those that are allowed
	maxHTTPText    = 2048     // bytes of a fixed value
	maxRedirects   = 10       // that are followed
	maxPrivate     = 32       // ranges of addresses
	maxCA          = 64 << 10 // bytes of PEM
	maxOAuthScopes = 50
	// The widest private ranges are 10.0.0.0/8 and fc00::/7.
	widestIPv4, widestIPv6 = 8, 7
)

var (
	// httpName is a header's name: a token of RFC 9110 without the characters that servers read as one another.
	httpName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,99}$`)
	// queryName is a name in a query that means itself when it is written.
	queryName = regexp.MustCompile(`^[A-Za-z0-9_.\[\]-]{1,100}$`)
	// signedPart is a placeholder of HTTPSigned.
	signedPart = regexp.MustCompile(`\{[a-z0-9_]*\}?`)
)

// httpMethods are those that a grant may have. CONNECT and TRACE are no requests for a resource.
func httpMethods() []string {
	return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
}

// ownHeaders are those that decide what a request is, where it goes, or who it is from: neither a manifest nor a function sets
// them as headers.
var ownHeaders = []string{
	"accept-encoding", "authorization", "connection", "content-length", "cookie", "cookie2", "date", "expect", "forwarded", "host", "http2-settings",
	"keep-alive", "max-forwards", "origin", "te", "trailer", "transfer-encoding", "upgrade", "via", "x-http-method", "x-http-method-override", "x-method-override",
	"x-original-url", "x-rewrite-url", "x-real-ip", "x-host", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip", "x-amz-security-token",
}

// OwnHeader reports whether a header is one that only the host sets. An underscore counts as a hyphen, because some servers
// read it so.
func OwnHeader(name string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	return slices.Contains(ownHeaders, name) || strings.HasPrefix(name, "proxy-") || strings.HasPrefix(name, "sec-") || strings.HasPrefix(name, "x-forwarded")
}

// IsSecret reports whether a text of a manifest is a reference to a secret, and returns what follows the prefix.
func IsSecret(text string) (ref string, ok bool) { return strings.CutPrefix(text, SecretPrefix) }

// httpGrant reads a grant of kind http.
func (t *table) httpGrant(g *Grant) {
	h := &HTTPGrant{Methods: []string{"GET"}}
	g.HTTP = h
	template := t.httpURL(h)
	t.someOf("methods", &h.Methods, httpMethods())
	t.truth("proxy_resolves", &h.ProxyResolves)
	t.integer("redirects", &h.Redirects, 0, maxRedirects)
	h.Query = t.fixedTexts("query", func(name string) string {
		if !queryName.MatchString(name) {
			return "want a name of letters, digits and any of _.[]-"
		}
		return ""
	})
	h.Headers = t.fixedTexts("headers", headerFault)
	h.AllowQuery = t.names("allow_query", func(name string) string {
		if name != "*" && !queryName.MatchString(name) {
			return `want a name of letters, digits and any of _.[]-, or "*" for all`
		}
		return ""
	})
	h.AllowHeaders = t.names("allow_headers", headerFault)
	h.Private = t.privateAddresses()
	h.CA = t.certificates()
	t.proxy(h)
	t.table("auth").httpAuth(&h.Auth)
	if template != nil && template.Scheme == "http" && len(h.Private) == 0 && !t.has("private") {
		t.fault(KindHTTP, `without TLS a grant reaches private addresses only, and has to name them: private = ["10.1.2.3/32"]; or write https://`)
	}
}

func (t *table) httpURL(h *HTTPGrant) *urltemplate.Template {
	if h.URL = t.text(KindHTTP); h.URL == "" {
		return nil
	}
	template, err := urltemplate.Parse(h.URL)
	if err != nil {
		t.fault(KindHTTP, "%s", clip(err.Error()))
		return nil
	}
	return template
}

func headerFault(name string) string {
	switch {
	case !httpName.MatchString(name):
		return "want a header's name of letters, digits and hyphens"
	case OwnHeader(name):
		return "this header is set by the server alone; a credential goes into the key auth"
	}
	return ""
}

// fixedTexts reads a table of texts with names of the user's.
func (t *table) fixedTexts(key string, fault func(name string) string) map[string]string {
	n := t.lookUp(key, kindTable, "a table of texts")
	if n == nil {
		return nil
	}
	if len(n.order) > maxHTTPNames {
		t.d.fault(n.key, "%d of them, at most %d are allowed", len(n.order), maxHTTPNames)
		return nil
	}
	out := map[string]string{}
	seen := map[string]bool{}
	for _, name := range n.order {
		v := n.members[name]
		switch f := fault(name); {
		case f != "":
			t.d.fault(v.key, "%s", f)
		case key == "headers" && seen[strings.ToLower(name)]:
			t.d.fault(v.key, "this header is there already")
		case v.kind != kindText:
			t.d.fault(v.value, "want a text in quotes, not %s", v.kind)
		case !printable(v.text):
			t.d.fault(v.value, "want at most %d printable ASCII characters", maxHTTPText)
		case strings.HasPrefix(v.text, SecretPrefix):
			t.d.fault(v.value, "a secret goes into the key auth: a function's log or a difference would show it here")
		}
		seen[strings.ToLower(name)] = true
		out[name] = v.text
	}
	return out
}

// printable reports whether a text can stand in a header, and in a log.
func printable(s string) bool {
	return len(s) <= maxHTTPText && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func (t *table) names(key string, fault func(string) string) []string {
	var out []string
	for _, n := range t.texts(key, maxHTTPNames) {
		if f := fault(n.text); f != "" {
			t.d.fault(n.value, "%s", f)
		}
		out = append(out, n.text)
	}
	return out
}

// privateAddresses reads the addresses beside public ones.
func (t *table) privateAddresses() []netip.Prefix {
	var out []netip.Prefix
	for _, n := range t.texts("private", maxPrivate) {
		p, err := netip.ParsePrefix(n.text)
		if a, errAddr := netip.ParseAddr(n.text); err != nil && errAddr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil || p.Addr().Is4In6() || p != p.Masked():
			t.d.fault(n.value, `want an address or a range of addresses, such as "10.1.2.3" or "10.1.0.0/16"`)
			continue
		case p.Bits() < widestIPv6 || p.Addr().Is4() && p.Bits() < widestIPv4:
			t.d.fault(n.value, "the range is wider than any private one; name what the service has")
			continue
		}
		out = append(out, p)
	}
	return out
}

// certificates reads a reference to a secret, or certificates.
func (t *table) certificates() string {
	text := t.text("ca")
	if text == "" || t.isReference("ca", text) {
		return text
	}
	rest, found := []byte(text), 0
	for len(text) <= maxCA {
		block, more := pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			t.fault("ca", "want certificates, not %s; a key has no place in a manifest", clip(block.Type))
			return text
		}
		rest, found = more, found+1
	}
	if found == 0 || strings.TrimSpace(string(rest)) != "" {
		t.fault("ca", `want certificates in PEM, at most %s, or a secret that has them: "secret:ca"`, formatSize(maxCA))
	}
	return text
}

func (t *table) proxy(h *HTTPGrant) {
	if h.Proxy = t.text("proxy"); h.Proxy == "" {
		if h.ProxyResolves {
			t.fault("proxy_resolves", "there is no proxy")
		}
		return
	}
	u, err := url.Parse(h.Proxy)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		t.fault("proxy", "want a proxy of the form http://host:port or https://host:port")
		return
	}
	if _, err := urltemplate.Parse(h.Proxy); err != nil {
		t.fault("proxy", "%s", clip(err.Error()))
	}
}

// isReference reports whether a text is a reference to a secret; a malformed one is a fault.
func (t *table) isReference(key, text string) bool {
	_, ok := IsSecret(text)
	if _, err := ident.ParseSecretRef(text); ok && err != nil {
		t.fault(key, `want a secret's name, and perhaps its version, such as "secret:stripe-key" or "secret:stripe-key@3"`)
	}
	return ok
}

// reference reads a reference to a secret.
func (t *table) reference(key string) string {
	text := t.text(key)
	if text != "" && !t.isReference(key, text) {
		t.fault(key, `a manifest holds no secret; store it and name it here: "secret:stripe-key"`)
	}
	return text
}

// referenceOrText reads a reference, or a text that is no secret.
func (t *table) referenceOrText(key string) string {
	text := t.text(key)
	if text != "" && !t.isReference(key, text) && !printable(text) {
		t.fault(key, "want at most %d printable ASCII characters", maxHTTPText)
	}
	return text
}

// httpAuth reads the credential.
func (t *table) httpAuth(a *HTTPAuth) {
	defer t.done()
	readers := map[string]func(*table){
		"basic":  func(b *table) { a.Basic = b.httpBasic() },
		"header": func(b *table) { a.Header = b.httpNamed(headerFault) },
		"query":  func(b *table) { a.Query = b.httpNamed(nil) },
		"hmac":   func(b *table) { a.HMAC = b.httpSigned() },
		"aws":    func(b *table) { a.AWS = b.httpAWS() },
		"oauth2": func(b *table) { a.OAuth2 = b.httpOAuth2() },
		"mtls":   func(b *table) { a.MTLS = b.httpCertificate() },
	}
	a.Bearer = t.reference("bearer")
	kinds := 0
	for _, key := range slices.Sorted(maps.Keys(readers)) {
		if !t.has(key) {
			t.known = append(t.known, key)
			continue
		}
		if key != "mtls" {
			kinds++
		}
		inner := t.table(key)
		if t.n.members[key].kind == kindTable {
			readers[key](inner)
			inner.done()
		}
	}
	if t.has("bearer") {
		kinds++
	}
	if kinds > 1 {
		t.d.fault(t.n.key, "want one kind of credential, and mtls beside it at most")
	}
}

func (t *table) httpBasic() *HTTPBasic {
	t.need("user", "the credential has no user")
	t.need("password", `the credential has no password: password = "secret:name"`)
	return &HTTPBasic{User: t.referenceOrText("user"), Password: t.reference("password")}
}

func (t *table) httpNamed(fault func(string) string) *HTTPNamed {
	t.need("name", "the credential has no name of a header, or of a part of the query")
	t.need("value", `the credential has no value: value = "secret:name"`)
	v := &HTTPNamed{Name: t.text("name"), Value: t.reference("value")}
	if fault != nil {
		if f := fault(v.Name); v.Name != "" && f != "" {
			t.fault("name", "%s", f)
		}
		if v.Prefix = t.text("prefix"); !printable(v.Prefix) {
			t.fault("prefix", "want printable ASCII characters")
		}
	} else if v.Name != "" && !queryName.MatchString(v.Name) {
		t.fault("name", "want a name of letters, digits and any of _.[]-")
	}
	return v
}

// signedParts are what HTTPSigned.Signed and Format may hold.
func signedParts() []string {
	return []string{"{method}", "{host}", "{path}", "{query}", "{timestamp}", "{body}", "{body_sha256}"}
}

func (t *table) httpSigned() *HTTPSigned {
	t.need("key", `the signature has no key: key = "secret:name"`)
	s := &HTTPSigned{Header: "X-Signature", Format: "t={timestamp},v1={signature}", Signed: DefaultSigned, Algorithm: HMACSHA256, Encoding: HMACHex}
	s.Key = t.reference("key")
	t.textTo("header", &s.Header)
	if f := headerFault(s.Header); f != "" && s.Header != "Authorization" {
		t.fault("header", "%s", f)
	}
	t.oneOf("algorithm", &s.Algorithm, HMACSHA256, HMACSHA512)
	t.oneOf("encoding", &s.Encoding, HMACHex, HMACBase64)
	t.textTo("signed", &s.Signed)
	t.textTo("format", &s.Format)
	for _, part := range signedPart.FindAllString(s.Signed, -1) {
		if !slices.Contains(signedParts(), part) {
			t.fault("signed", "%q is none of %s", part, strings.Join(signedParts(), ", "))
		}
	}
	for _, part := range signedPart.FindAllString(s.Format, -1) {
		if part != "{timestamp}" && part != "{signature}" {
			t.fault("format", "%q is neither {timestamp} nor {signature}", part)
		}
	}
	if !strings.Contains(s.Format, "{signature}") || !printable(s.Format) {
		t.fault("format", "want printable ASCII characters with {signature} among them")
	}
	return s
}

func (t *table) httpAWS() *HTTPAWS {
	t.need("access_key", "the signature has no access_key, the id of the key")
	t.need("secret_key", `the signature has no secret_key: secret_key = "secret:name"`)
	t.need("region", "the signature has no region")
	t.need("service", "the signature has no service, such as s3 or dynamodb")
	a := &HTTPAWS{AccessKey: t.referenceOrText("access_key"), SecretKey: t.reference("secret_key"), Region: t.text("region"), Service: t.text("service")}
	if t.has("session_token") {
		a.Session = t.reference("session_token")
	} else {
		t.known = append(t.known, "session_token")
	}
	for key, text := range map[string]string{"region": a.Region, "service": a.Service} {
		if text != "" && !queryName.MatchString(text) {
			t.fault(key, "want letters, digits and hyphens")
		}
	}
	return a
}

func (t *table) httpOAuth2() *HTTPOAuth2 {
	t.need("token_url", "the credential has no token_url, where tokens are got")
	t.need("client_id", "the credential has no client_id")
	t.need("client_secret", `the credential has no client_secret: client_secret = "secret:name"`)
	o := &HTTPOAuth2{TokenURL: t.text("token_url"), ClientID: t.referenceOrText("client_id"), ClientSecret: t.reference("client_secret"), Audience: t.text("audience"), ClientAuth: OAuth2Basic}
	if o.TokenURL != "" {
		if tpl, err := urltemplate.Parse(o.TokenURL); err != nil || tpl.Scheme != "https" || len(tpl.Names) > 0 {
			t.fault("token_url", "want a URL of the form https://host/path, without values in it")
		}
	}
	t.oneOf("client_auth", &o.ClientAuth, OAuth2Basic, OAuth2Body)
	for _, n := range t.texts("scopes", maxOAuthScopes) {
		if n.text == "" || !printable(n.text) || strings.ContainsAny(n.text, ` "\`) {
			t.d.fault(n.value, "want a scope of printable characters without space")
		}
		o.Scopes = append(o.Scopes, n.text)
	}
	return o
}

func (t *table) httpCertificate() *HTTPCertificate {
	t.need("certificate", `the client has no certificate: certificate = "secret:name"`)
	t.need("key", `the client has no key: key = "secret:name"`)
	return &HTTPCertificate{Certificate: t.reference("certificate"), Key: t.reference("key")}
}
