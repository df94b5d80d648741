package httpapi

import (
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"sallyport/internal/access"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// route is one method of one path.
type route struct {
	method, path string
	// action is what the guard is asked for before the handler runs: in the namespace, when the path
	// has one, else on the server. A handler whose action is empty asks by itself, or has ingress ask.
	action policy.Action
	// query names the parameters that the route takes; any other is refused.
	query []string
	serve func(*API, *call) error
	// outside says that a request is not in the namespace of its path, but about it: it is answered while that is deleted.
	outside bool
}

// inNamespace begins the paths of what is in a namespace.
const inNamespace = "/v1/namespaces/{ns}"

// routes returns the table of all routes that need a token.
func routes() []route {
	const ns = inNamespace
	return []route{
		{method: "GET", path: "/v1/namespaces", serve: (*API).listNamespaces},
		{method: "POST", path: "/v1/namespaces", action: policy.ManageNamespaces, serve: (*API).createNamespace},
		{method: "GET", path: ns, action: policy.ReadStatus, serve: (*API).getNamespace, outside: true},
		{method: "PATCH", path: ns, serve: (*API).updateNamespace, outside: true},
		{method: "DELETE", path: ns, serve: (*API).deleteNamespace, query: []string{"force"}, outside: true},
		{method: "POST", path: ns + "/events", serve: (*API).publish},
		{method: "GET", path: ns + "/events", action: policy.ReadEvents, serve: (*API).listEvents,
			query: []string{"type", "source", "state", "since", "until", "limit", "cursor"}},
		{method: "GET", path: ns + "/events/{id}", action: policy.ReadEvents, serve: (*API).getEvent,
			query: []string{"source", "wait", "data"}},
		{method: "GET", path: ns + "/functions", action: policy.ReadFunctions, serve: (*API).listFunctions},
		{method: "GET", path: ns + "/functions/{name}", action: policy.ReadFunctions, serve: (*API).getFunction},
		{method: "POST", path: ns + "/functions/{name}/invoke", serve: (*API).invoke},
		{method: "GET", path: ns + "/usage", action: policy.ReadFunctions, serve: (*API).usage,
			query: []string{"since", "until", "by", "function"}},
		{method: "GET", path: ns + "/subscriptions", action: policy.ReadFunctions, serve: (*API).listSubscriptions},
		{method: "GET", path: ns + "/subscriptions/{name}", action: policy.ReadFunctions, serve: (*API).getSubscription},
		{method: "POST", path: ns + "/subscriptions/{name}/pause", action: policy.ManageSubscriptions, serve: (*API).pause},
		{method: "POST", path: ns + "/subscriptions/{name}/resume", action: policy.ManageSubscriptions, serve: (*API).resume},
		{method: "GET", path: ns + "/logs", action: policy.ReadLogs, serve: (*API).logs,
			query: []string{"function", "event", "since", "limit", "follow"}},
		{method: "GET", path: ns + "/dead-letters", action: policy.ReadDeadLetters, serve: (*API).listDeadLetters,
			query: []string{"subscription", "limit", "cursor"}},
		{method: "GET", path: ns + "/dead-letters/{id}", action: policy.ReadDeadLetters, serve: (*API).getDeadLetter,
			query: []string{"data"}},
		{method: "POST", path: ns + "/dead-letters/redrive", action: policy.ManageDeadLetters, serve: (*API).redrive},
		{method: "POST", path: ns + "/dead-letters/discard", action: policy.ManageDeadLetters, serve: (*API).discard},
		{method: "POST", path: ns + "/apps", action: policy.Deploy, serve: (*API).apply, query: []string{"dry_run"}},
		{method: "GET", path: ns + "/approvals", action: policy.ReadFunctions, serve: (*API).listApprovals, query: []string{"app", "pending"}},
		{method: "GET", path: ns + "/approvals/{id}", action: policy.ReadFunctions, serve: (*API).getApproval},
		{method: "POST", path: ns + "/approvals/{id}/approve", action: policy.ApproveGrants, serve: (*API).approve},
		{method: "POST", path: ns + "/approvals/{id}/reject", action: policy.ReadFunctions, serve: (*API).reject},
		{method: "GET", path: ns + "/policies", action: policy.ReadPolicies, serve: (*API).listPolicies},
		{method: "GET", path: "/v1/policies", action: policy.ReadPolicies, serve: (*API).listPolicies},
		{method: "POST", path: ns + "/policies/{app}", serve: (*API).applyPolicies, query: []string{"dry_run"}},
		{method: "POST", path: "/v1/policies/{app}", serve: (*API).applyPolicies, query: []string{"dry_run"}},
		{method: "GET", path: ns + "/access/explain", action: policy.ReadPolicies, serve: (*API).explainPolicy, query: questionParameters()},
		{method: "GET", path: "/v1/access/explain", action: policy.ReadPolicies, serve: (*API).explainPolicy, query: questionParameters()},
		{method: "GET", path: ns + "/access/who-can", action: policy.ReadPolicies, serve: (*API).whoCan, query: []string{"action", "resource"}},
		{method: "GET", path: "/v1/access/who-can", action: policy.ReadPolicies, serve: (*API).whoCan, query: []string{"action", "resource"}},
		{method: "GET", path: ns + "/access/reach", action: policy.ReadPolicies, serve: (*API).reach, query: []string{"principal"}},
		{method: "GET", path: "/v1/access/reach", action: policy.ReadPolicies, serve: (*API).reach, query: []string{"principal"}},
		{method: "GET", path: ns + "/access/unused", action: policy.ReadPolicies, serve: (*API).unused, query: []string{"since", "until", "principal"}},
		{method: "GET", path: "/v1/access/unused", action: policy.ReadPolicies, serve: (*API).unused, query: []string{"since", "until", "principal"}},
		{method: "GET", path: ns + "/access/wildcards", action: policy.ReadPolicies, serve: (*API).wildcards},
		{method: "GET", path: "/v1/access/wildcards", action: policy.ReadPolicies, serve: (*API).wildcards},
		{method: "GET", path: ns + "/access/proposal", action: policy.ReadPolicies, serve: (*API).propose, query: []string{"since", "until"}},
		{method: "GET", path: "/v1/access/proposal", action: policy.ReadPolicies, serve: (*API).propose, query: []string{"since", "until"}},
		{method: "GET", path: "/v1/access/boundary", action: policy.ReadPolicies, serve: (*API).boundary, query: []string{"principal", "since", "until"}},
		{method: "GET", path: ns + "/perimeters", action: policy.ReadPolicies, serve: (*API).listPerimeters},
		{method: "GET", path: "/v1/perimeters", action: policy.ReadPolicies, serve: (*API).listPerimeters},
		{method: "GET", path: ns + "/perimeters/{name}", action: policy.ReadPolicies, serve: (*API).getPerimeter},
		{method: "GET", path: "/v1/perimeters/{name}", action: policy.ReadPolicies, serve: (*API).getPerimeter},
		{method: "GET", path: ns + "/perimeters/{name}/test", action: policy.ReadPolicies, serve: (*API).testPerimeter, query: []string{"since", "until", "limit"}},
		{method: "GET", path: "/v1/perimeters/{name}/test", action: policy.ReadPolicies, serve: (*API).testPerimeter, query: []string{"since", "until", "limit"}},
		{method: "GET", path: ns + "/decisions", action: policy.ReadPolicies, serve: (*API).decisions,
			query: []string{"since", "until", "principal", "denied", "limit"}},
		{method: "GET", path: "/v1/decisions", action: policy.ReadPolicies, serve: (*API).decisions,
			query: []string{"since", "until", "principal", "denied", "limit"}},
		{method: "GET", path: ns + "/secrets", action: policy.ReadSecretMetadata, serve: (*API).listSecrets},
		{method: "GET", path: ns + "/secrets/{name}", serve: (*API).getSecret},
		{method: "GET", path: ns + "/secrets/{name}/versions", serve: (*API).secretVersions},
		{method: "POST", path: ns + "/secrets/{name}/versions", serve: (*API).setSecret, query: []string{"pending", "grace", "description"}},
		{method: "POST", path: ns + "/secrets/{name}/canary", serve: (*API).plantCanary},
		{method: "POST", path: ns + "/secrets/{name}/link", serve: (*API).linkSecret},
		{method: "POST", path: ns + "/secrets/{name}/promote", serve: (*API).promoteSecret},
		{method: "POST", path: ns + "/secrets/{name}/disable", serve: (*API).disableSecret},
		{method: "POST", path: ns + "/secrets/{name}/destroy", serve: (*API).destroySecret},
		{method: "POST", path: ns + "/secrets/{name}/rotate", serve: (*API).rotateSecret},
		{method: "GET", path: ns + "/secrets/{name}/log", serve: (*API).secretLog},
		{method: "POST", path: ns + "/databases/{name}/accept", action: policy.ManageNamespaces, serve: (*API).acceptDatabase},
		{method: "POST", path: "/v1/tokens", serve: (*API).createToken},
		{method: "GET", path: "/v1/tokens", serve: (*API).listTokens},
		{method: "DELETE", path: "/v1/tokens/{id}", serve: (*API).revokeToken},
		{method: "GET", path: "/v1/issuer", action: policy.ReadStatus, serve: (*API).getIssuer},
		{method: "POST", path: "/v1/issuer/rotate", action: policy.RotateIssuer, serve: (*API).rotateIssuer},
		{method: "GET", path: "/v1/status", serve: (*API).status},
		{method: "GET", path: "/metrics", action: policy.ReadMetrics, serve: (*API).metrics},
	}
}

func byPath(table []route) map[string]map[string]*route {
	out := map[string]map[string]*route{}
	for i := range table {
		r := &table[i]
		if out[r.path] == nil {
			out[r.path] = map[string]*route{}
		}
		out[r.path][r.method] = r
	}
	return out
}

func allowed(methods map[string]*route) string {
	return strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
}

// call is one authenticated request.
type call struct {
	http.ResponseWriter
	r     *http.Request
	p     *access.Principal
	route *route
	ns    ident.Namespace // of the path, if it has one
	query query
	wrote bool
}

// WriteHeader notes that the answer has begun.
func (c *call) WriteHeader(status int) {
	c.wrote = true
	c.ResponseWriter.WriteHeader(status)
}

// Write notes that the answer has begun.
func (c *call) Write(b []byte) (int, error) {
	c.wrote = true
	return c.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (c *call) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// target returns what the route's action is done to.
func (c *call) target() policy.Resource {
	if c.ns != "" {
		return policy.OfNamespace(c.ns)
	}
	return policy.OfServer()
}

// resource is one path with its methods; without any it is a path that does not exist.
type resource struct {
	api     *API
	methods map[string]*route
	allow   string
}

// ServeHTTP authenticates before it looks at anything else.
func (res *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := res.api
	p, err := a.deps.Identifier.Identify(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if a.active.Add(1) > int64(a.cfg.Requests) {
		a.active.Add(-1)
		a.fail(w, r, overloaded())
		return
	}
	defer a.active.Add(-1)
	r = r.WithContext(access.WithCircumstances(r.Context(), a.deps.Identifier.Circumstances(r)))
	c := &call{ResponseWriter: w, r: r, p: p}
	defer a.recovered(c)
	if err := res.serve(c); err != nil {
		a.fail(c, r, err)
	}
}

func (res *resource) serve(c *call) error {
	if res.methods == nil {
		return problem.New(problem.NotFound, "httpapi.no_such_path", "there is nothing at this path").
			WithHint("see the API in api/openapi.yaml, or use `sallyport help`")
	}
	if c.route = res.methods[c.r.Method]; c.route == nil {
		c.Header().Set("Allow", res.allow)
		return problem.New(problem.Unsupported, "httpapi.method_not_allowed", "this path does not take %s", clip(c.r.Method)).
			WithHint("it takes %s", res.allow)
	}
	var err error
	if c.query, err = parseQuery(c.r.URL.RawQuery, c.route.query); err != nil {
		return err
	}
	if strings.HasPrefix(c.route.path, inNamespace) {
		if c.ns, err = ident.ParseNamespace(c.r.PathValue("ns")); err != nil {
			return badRequest("%v", err)
		}
	}
	if c.route.action != "" {
		if err := res.api.deps.Guard.Authorize(c.r.Context(), c.p, c.route.action, c.target()); err != nil {
			return err
		}
	}
	if c.ns != "" && !c.route.outside {
		res.api.inside.enter(c.ns)
		defer res.api.inside.leave(c.ns)
		// After it was counted, so that whoever closed the namespace before waits for it, and not after.
		if c.route.action != "" {
			if err := res.api.deps.Namespaces.Open(c.ns); err != nil {
				return err
			}
		}
	}
	return c.route.serve(res.api, c)
}

// recovered ends a request whose handler panicked, which is a bug: the server goes on without it.
func (a *API) recovered(c *call) {
	v := recover()
	switch {
	case v == nil:
		return
	case v == http.ErrAbortHandler: //nolint:errorlint // net/http compares it so too
		panic(v)
	}
	// The value may hold what a caller sent; the stack does not.
	a.deps.Logger.ErrorContext(c.r.Context(), "handler panicked", "route", c.r.Pattern, "kind", panicKind(v), "stack", string(debug.Stack()))
	if c.wrote {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	a.fail(c, c.r, problem.New(problem.Internal, "internal", "internal error"))
}

// space returns what works in the namespace of the path.
func (a *API) space(c *call) (*Space, error) { return a.deps.Space(c.ns) }

// clean reports whether the mux takes a path as it is. It answers others with a redirect, or not at
// all: those with empty, "." or ".." segments, and the targets of CONNECT and OPTIONS *.
func clean(r *http.Request) bool {
	p := r.URL.RawPath
	if p == "" {
		p = r.URL.Path
	}
	if p == "" || p[0] != '/' || r.Method == http.MethodConnect {
		return false
	}
	for i := range len(p) {
		if p[i] != '/' {
			continue
		}
		rest := p[i+1:]
		if rest == "." || rest == ".." || strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "./") || strings.HasPrefix(rest, "../") {
			return false
		}
	}
	return true
}
