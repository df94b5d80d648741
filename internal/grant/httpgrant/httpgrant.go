// Package httpgrant is the kind of grant that calls HTTP services. Scheme, host, port, methods, the shape of the path and the
// credential stand in the manifest; a function supplies values for the path, what it may add to the query and the headers,
// and a body.
//
// What holds: a function cannot have a request go to another host, port or path than the template allows, whatever it supplies
// and wherever a name leads or a redirect points; it cannot put a line break, a header of the host's or a second request
// into one; it never sees a credential, also not when the service sends it back; and every use ends in time, with an answer
// that is whole and bounded, or with a problem.
//
// Connections are internal/outbound's. Callers: server (the kind), the package grant (its doors).
package httpgrant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/manifest/urltemplate"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
)

// OpFetch is the one thing that an http grant does.
const OpFetch = "fetch"

// Kind opens doors to HTTP services. The zero Kind is ready.
type Kind struct {
	// Resolver is used for names; nil is the one of this machine.
	Resolver outbound.Resolver
	// Now is the clock of signatures and tokens; nil is the one of this machine.
	Now func() time.Time
}

// Open makes the door of an http grant. It connects to nothing.
func (k Kind) Open(_ context.Context, o grant.Opening) (grant.Door, error) {
	g := o.Grant.HTTP
	if g == nil {
		return nil, fmt.Errorf("grant %q is not of kind http", o.Name)
	}
	template, err := urltemplate.Parse(g.URL)
	if err != nil {
		return nil, fmt.Errorf("read the URL of grant %q: %w", o.Name, err)
	}
	d := &Door{
		name: o.Name, namespace: o.Namespace, secrets: o.Secrets, grant: g, template: template, origin: template.Origin(), authority: template.Authority(), limits: o.Grant.Limits,
		resolver: k.Resolver, now: k.Now, credential: newCredential(&g.Auth),
	}
	if d.now == nil {
		d.now = time.Now
	}
	for name := range g.Query {
		d.fixedQuery = append(d.fixedQuery, name)
	}
	slices.Sort(d.fixedQuery)
	if d.limits.Reply <= 0 || d.limits.Timeout <= 0 {
		return nil, fmt.Errorf("grant %q has no limits", o.Name)
	}
	return d, nil
}

// Door is one http grant of one function revision.
type Door struct {
	name      string
	namespace identNamespace
	secrets   grant.Secrets
	grant     *manifest.HTTPGrant
	template  *urltemplate.Template
	// origin and authority are those of the template.
	origin, authority string
	limits            manifest.GrantLimits
	resolver          outbound.Resolver
	now               func() time.Time
	credential        credential // nil when there is none
	fixedQuery        []string   // the names, in order
	tokens            tokens

	mu     sync.Mutex
	closed bool
	route  *route
	hidden hidden
}

// Do sends one request, and returns the answer as {status, headers, url} with its body.
func (d *Door) Do(ctx context.Context, call *grant.Call) (grant.Reply, error) {
	return d.do(ctx, call, nil)
}

// do is Do; with a rehearsal, answers come from there, and nothing is connected to.
func (d *Door) do(ctx context.Context, call *grant.Call, re *rehearsal) (grant.Reply, error) {
	if call.Op != OpFetch {
		return grant.Reply{}, invalid("an http grant has %q, and no %q", OpFetch, clip(call.Op))
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.limits.Timeout)
		defer cancel()
	}
	p, err := d.plan(call)
	if err != nil {
		return grant.Reply{}, err
	}
	ctx = outbound.WithPin(ctx)
	for redirects := 0; ; redirects++ {
		answer, used, err := d.send(ctx, call, p, re)
		if err != nil {
			return grant.Reply{}, err
		}
		if redirects >= d.grant.Redirects || !isRedirect(answer.Status) || answer.Header.Get("Location") == "" {
			return d.reply(p, answer, used)
		}
		if p, err = d.follow(p, answer); err != nil {
			return grant.Reply{}, err
		}
	}
}

// Close ends all connections. It is idempotent.
func (d *Door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.route != nil {
		d.route.retire()
		d.route = nil
	}
	return nil
}

// send sends a planned request with the credential as it is now. When the service refuses the credential and there is a newer
// one, it is sent once more: the secret may have been rotated between the two looks at it, or a token withdrawn.
func (d *Door) send(ctx context.Context, call *grant.Call, p *plan, re *rehearsal) (*outbound.Answer, *material, error) {
	m, err := d.material(ctx, call, "", re != nil)
	if err != nil {
		return nil, nil, err
	}
	if re != nil {
		return re.exchange(ctx, d, p, m)
	}
	answer, m, err := d.exchange(ctx, p, m)
	if err != nil || answer.Status != http.StatusUnauthorized || len(m.texts) == 0 {
		return answer, m, err
	}
	newer, err := d.material(ctx, call, m.token, false)
	if err != nil || newer.same(m) {
		newer.release()
		return answer, m, nil
	}
	return d.exchange(ctx, p, newer)
}

// exchange sends a request once. The material is released.
func (d *Door) exchange(ctx context.Context, p *plan, m *material) (*outbound.Answer, *material, error) {
	defer m.release()
	req, err := d.request(ctx, p, m)
	if err != nil {
		return nil, nil, err
	}
	answer, err := m.route.out.Exchange(req)
	if err != nil {
		return nil, nil, d.failure(err, m)
	}
	return answer, m, nil
}

// request makes the request of a plan, with the credential applied.
func (d *Door) request(ctx context.Context, p *plan, m *material) (*http.Request, error) {
	req := (&http.Request{
		Method: p.method, URL: &url.URL{Scheme: d.template.Scheme, Host: d.authority, Path: p.path, RawPath: p.rawPath, RawQuery: p.query},
		// Its values are replaced and never changed, so that they need no copy.
		Host: d.authority, Header: maps.Clone(p.headers), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	setBody(req, p.body)
	if d.credential == nil {
		return req, nil
	}
	once, err := d.credential.apply(&application{req: req, body: p.body, texts: m.texts, token: m.token, at: d.now()})
	if err != nil {
		return nil, problem.New(problem.Unprocessable, "fetch.credential_unusable", "the credential of grant %q cannot be used: %v", d.name, err).
			WithHint("look at what the manifest says of it under auth, and store the secret again if need be")
	}
	m.once = once
	return req, nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// follow plans the request that a redirect asks for. Where it leads must be what the grant itself allows: the template matches
// it, or it is refused; credentials go nowhere else.
func (d *Door) follow(p *plan, answer *outbound.Answer) (*plan, error) {
	refused := func(format string, args ...any) error {
		return problem.New(problem.Denied, "fetch.redirect_refused", "grant %q: the service redirects, and %s", d.name, fmt.Sprintf(format, args...)).
			WithHint("redirects lead only to what the grant's own URL makes; redirects = 0 hands them to the function")
	}
	base, err := url.Parse(p.url)
	if err != nil {
		return nil, refused("the URL it came from cannot be read")
	}
	target, err := base.Parse(answer.Header.Get("Location"))
	if err != nil || len(answer.Header.Values("Location")) > 1 {
		return nil, refused("where to cannot be read")
	}
	next := *p
	next.method = p.method
	if answer.Status == http.StatusSeeOther || p.method == http.MethodPost && answer.Status <= http.StatusFound {
		next.method, next.body = http.MethodGet, nil
		next.headers = p.headers.Clone()
		next.headers.Del("Content-Type")
	}
	if !slices.Contains(d.grant.Methods, next.method) {
		return nil, refused("asks for the method %s, which the grant has not", next.method)
	}
	values, query, err := d.template.Match(target.String())
	if err != nil {
		return nil, refused("not to what the grant allows")
	}
	pairs, err := splitQuery(query)
	if err != nil {
		return nil, refused("the query cannot be read")
	}
	if err := d.target(&next, values, pairs, true); err != nil {
		return nil, refused("the query has what the grant does not allow")
	}
	return &next, nil
}

// route is connections under one set of certificates, for as long as somebody uses it.
type route struct {
	out *outbound.Route
	// key is what it was made with: the texts of the CA, the certificate and its key.
	key []string

	mu      sync.Mutex
	users   int
	retired bool
}

func (r *route) enter() {
	r.mu.Lock()
	r.users++
	r.mu.Unlock()
}

func (r *route) leave() {
	r.mu.Lock()
	r.users--
	last := r.users == 0 && r.retired
	r.mu.Unlock()
	if last {
		r.out.Close()
	}
}

// retire closes the connections when the last use is over.
func (r *route) retire() {
	r.mu.Lock()
	r.retired = true
	last := r.users == 0
	r.mu.Unlock()
	if last {
		r.out.Close()
	}
}

// routeFor returns the route for these certificates, entered. When they changed, a new one is made: connections that
// stand under the old certificate serve nobody any more.
func (d *Door) routeFor(ca, cert, key string) (*route, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, outbound.ErrClosed
	}
	want := []string{ca, cert, key}
	if d.route == nil || !slices.Equal(d.route.key, want) {
		cfg, err := d.routeConfig(ca, cert, key)
		if err != nil {
			return nil, err
		}
		out, err := outbound.NewRoute(*cfg)
		if err != nil {
			return nil, err
		}
		if d.route != nil {
			d.route.retire()
		}
		d.route = &route{out: out, key: want}
	}
	d.route.enter()
	return d.route, nil
}

func (d *Door) routeConfig(ca, cert, key string) (*outbound.RouteConfig, error) {
	cfg := &outbound.RouteConfig{Named: d.grant.Private, Plain: d.template.Scheme == "http", MaxBytes: d.limits.Reply, Resolver: d.resolver}
	if ca != "" {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("the CA has no certificate in PEM")
		}
	}
	if cert != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			// The library's error says what is wrong with the form, and has nothing of the key.
			return nil, fmt.Errorf("the client certificate and its key do not go together: %w", err)
		}
		cfg.Certificate = &pair
	}
	if d.grant.Proxy != "" {
		u, err := url.Parse(d.grant.Proxy)
		if err != nil {
			return nil, fmt.Errorf("read the proxy's URL")
		}
		cfg.Proxy = &outbound.Proxy{URL: u, Resolves: d.grant.ProxyResolves}
	}
	return cfg, nil
}

// Covers reports whether the grant has this method, and its template makes this URL.
func (d *Door) Covers(method, target string) bool {
	_, _, err := d.template.Match(target)
	return err == nil && slices.Contains(d.grant.Methods, strings.ToUpper(method))
}
