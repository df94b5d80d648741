// Package httpapi is the HTTP API: routes, bodies in and out, problems. It decides nothing: it
// authenticates, asks the guard, and calls the package that does the work.
//
// What holds for every route but /healthz, /readyz and the two of the issuer under /.well-known/: a request without a valid token gets one and
// the same answer, whatever it asked for and however busy the server is; the guard is asked before
// anything is looked up, so a refusal does not depend on what exists; a body is read only after the
// token is known, only up to its bound, and within the memory that all bodies may take together; an
// error ends in a problem document (RFC 9457) whose internal cause is in the log alone.
//
// The routes are one table (routes.go): a route names the action the guard is asked for and the query
// parameters it takes, and everything else is refused. api/openapi.yaml describes the same routes; a
// test holds the two together.
//
// Caller: server.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/dispatch"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/funclog"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/manifest"
	"sallyport/internal/policy"
)

// Identifier says who asks; access.Identifier is one. Still is for a request that takes long: it returns an error once
// the caller's credential has ended.
type Identifier interface {
	Identify(r *http.Request) (*access.Principal, error)
	Still(r *http.Request) error
	Circumstances(r *http.Request) access.Circumstances
}

// Guard says whether they may, and keeps the tokens; access.Guard is one.
type Guard interface {
	Authorize(ctx context.Context, p *access.Principal, action policy.Action, res policy.Resource) error
	// Still is Authorize for what was allowed and goes on.
	Still(ctx context.Context, p *access.Principal, action policy.Action, res policy.Resource) error
	// Cross returns why a perimeter is in the way of what p may do in a namespace, for one event type of it.
	Cross(ctx context.Context, p *access.Principal, action policy.Action, res policy.Resource) error
	// MayGrant returns why p may not hand grants to a function.
	MayGrant(ctx context.Context, p *access.Principal, ns ident.Namespace, fn ident.FunctionName, grants map[string]manifest.Grant) error
	// MayApprove returns why p may not approve what sender applied, and Absent who that is, as far as they may still act.
	MayApprove(ctx context.Context, p *access.Principal, ns ident.Namespace, sender ident.PrincipalID) error
	Absent(ctx context.Context, id ident.PrincipalID, authority string) (context.Context, *access.Principal, error)
	// Set returns the policies that it decides by, and Principals those it knows.
	Set() *policy.Set
	Principals() []policy.Principal
	Tokens
}

// Tokens makes, lists and ends tokens.
type Tokens interface {
	Create(ctx context.Context, by ident.PrincipalID, req api.TokenRequest) (*api.NewToken, error)
	List() []api.Token
	Revoke(ctx context.Context, id string) error
	// NamespaceOf returns the namespace of a token, if there is one.
	NamespaceOf(id string) (ns ident.Namespace, ok bool)
}

// Decisions is the record of what the guard decided; access.Decisions is one.
type Decisions interface {
	List(q access.DecisionQuery) []access.Decided
}

// Intake accepts events; ingress.Intake is one. It asks the guard itself, for each event type. It MUST
// NOT use the events' data after it has returned: the data's memory is used again.
type Intake interface {
	Accept(ctx context.Context, p *access.Principal, ns ident.Namespace, evs []event.Event, opts ingress.Options) ([]api.Receipt, error)
}

// Deployer activates apps and knows what is active; deploy.Deployer is one.
type Deployer interface {
	Apply(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, bundle *api.Bundle, dryRun bool, may deploy.Consent) (*api.Plan, error)
	State(ns ident.Namespace) *deploy.State
	Approvals(ns ident.Namespace) []api.Approval
	Approval(ns ident.Namespace, id string) (*api.Approval, deploy.Sender, error)
	Approve(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, id string, req api.ApprovalRequest, may deploy.Consent) (*api.Approval, error)
	Reject(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, id, reason string) (*api.Approval, error)
	SetPaused(ctx context.Context, ns ident.Namespace, name ident.SubscriptionName, paused bool) (*deploy.Subscription, error)
}

// Namespaces are those of the server.
type Namespaces interface {
	// Create makes a namespace. One that is there as it is asked for is no error: created is false then.
	Create(ctx context.Context, by ident.PrincipalID, req *api.NamespaceRequest) (created bool, err error)
	Update(ctx context.Context, ns ident.Namespace, req *api.NamespaceUpdate) error
	// Delete deletes a namespace; drain returns when no request is in it any more.
	Delete(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, force bool, drain func(context.Context) error) (*api.NamespaceDeleted, error)
	// Get returns a namespace, without what it uses, or a NotFound problem.
	Get(ns ident.Namespace) (*api.Namespace, error)
	// Names returns all that exist, in order; List also those being deleted.
	Names() []ident.Namespace
	List() []api.Namespace
	// Use returns what of each quota a namespace uses, and what its stored bytes consist of.
	Use(ctx context.Context, ns ident.Namespace) (use, stored map[string]int64, err error)
	// Ensure makes a namespace unless it exists.
	Ensure(ctx context.Context, ns ident.Namespace) error
	// Open returns nil when requests may use a namespace, or may make it.
	Open(ns ident.Namespace) error
}

// Log is the event log of a namespace; eventlog.Log is one.
type Log interface {
	At(ctx context.Context, pos ident.Position) (event.Record, error)
	Find(ctx context.Context, source, id string) ([]ident.Position, error)
	List(ctx context.Context, q eventlog.Query) ([]event.Record, error)
	Stats(ctx context.Context) (eventlog.Stats, error)
}

// Deliveries knows what became of the events of a namespace; dispatch.Dispatcher does.
type Deliveries interface {
	Await(ctx context.Context, pos ident.Position) (api.EventState, *dispatch.Reply, error)
	Way(ctx context.Context, pos ident.Position) (api.EventState, []api.Delivery, error)
	State(pos ident.Position) api.EventState
	Counts() map[ident.SubscriptionName]dispatch.Counts
	Balance() dispatch.Balance
	DeadLetters
}

// DeadLetters are those of a namespace.
type DeadLetters interface {
	DeadLetters(ctx context.Context, sub ident.SubscriptionName, cursor string, limit int) (list []api.DeadLetter, next string, err error)
	DeadLetter(ctx context.Context, id string) (*api.DeadLetter, *event.Record, error)
	Redrive(ctx context.Context, sel api.DeadLetterSelection) (*api.DeadLetterResult, error)
	Discard(ctx context.Context, sel api.DeadLetterSelection) (*api.DeadLetterResult, error)
}

// Lines are the function logs of a namespace; funclog.Logs are.
type Lines interface {
	Read(ctx context.Context, q funclog.Query) ([]api.LogLine, error)
	Follow() (lines <-chan api.LogLine, stop func(), ok bool)
}

// Space is what works in one namespace.
type Space struct {
	Log      Log
	Dispatch Deliveries
	Lines    Lines
	Usage    Usage
	Grants   GrantUses
}

// Config bounds what the API takes on.
type Config struct {
	Limits   event.Limits
	Requests int // answered at the same time; those that wait are counted apart
	// InvokeEvents lets an invocation be a whole event in structured mode. It is for tests of functions; no server has it.
	InvokeEvents bool
}

// Validate reports every fault of c.
func (c *Config) Validate() error {
	var errs []error
	if c.Requests < 1 {
		errs = append(errs, errors.New("requests must be at least 1"))
	}
	if c.Limits.EventBytes < 1 || c.Limits.BatchBytes < c.Limits.EventBytes {
		errs = append(errs, errors.New("an event must have at least 1 byte, and a batch no less than an event"))
	}
	return errors.Join(errs...)
}

// Deps are what the API calls. All of them are needed, but for Refused and Rotate.
type Deps struct {
	Identifier Identifier
	Guard      Guard
	Decisions  Decisions
	Policies   Policies
	Intake     Intake
	Deployer   Deployer
	Secrets    Secrets
	// Rotate is called when a rotation of a secret was asked for.
	Rotate     func()
	Namespaces Namespaces
	// Space returns the space of a namespace, or a NotFound problem.
	Space func(ns ident.Namespace) (*Space, error)
	// Status returns the state of the server, without namespaces.
	Status func(ctx context.Context) api.Status
	// Ready returns nil, or in a word that anybody may read why the server is not ready.
	Ready   func() error
	Metrics http.Handler
	// Issuer is the server as an issuer.
	Issuer Issuer
	// Databases are those of functions.
	Databases Databases
	// Published returns what the server publishes as an issuer under a path, for everybody; nil is nothing.
	Published func(path string) ([]byte, bool)
	// Refused is told the code of each problem that is answered.
	Refused func(code string)
	Logger  *slog.Logger
}

// API answers requests. It is an http.Handler and safe for concurrent use.
type API struct {
	cfg      Config
	deps     Deps
	mux      *http.ServeMux
	nothing  *resource // any path that is none
	titles   map[string]string
	draining atomic.Bool
	active   atomic.Int64 // requests being answered, those that wait aside
	applying places
	memory   atomic.Int64 // of bodies, in bytes
	bodies   sync.Pool
	waits    waits
	inside   inside
}

// New returns the API.
func New(cfg Config, deps Deps) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure HTTP API: %w", err)
	}
	entries, err := api.Problems()
	if err != nil {
		return nil, err
	}
	a := &API{cfg: cfg, deps: deps, mux: http.NewServeMux(), titles: map[string]string{}}
	for _, e := range entries {
		a.titles[e.Code] = e.Title
	}
	a.bodies.New = func() any { return new([]byte) }
	a.waits.cancels, a.waits.closed = map[int]waiting{}, map[ident.Namespace]bool{}
	a.inside.requests = map[ident.Namespace]int{}
	a.nothing = &resource{api: a}
	for path, methods := range byPath(routes()) {
		a.mux.Handle(path, &resource{api: a, methods: methods, allow: allowed(methods)})
	}
	a.mux.Handle("/", a.nothing)
	return a, nil
}

// Drain has events, invocations and apps refused from now on. Requests that wait for an outcome are
// answered as if their time were up, and streams end; everything else is still answered.
func (a *API) Drain() {
	a.draining.Store(true)
	a.waits.end()
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Cache-Control"], h["X-Content-Type-Options"] = noStore, noSniff
	switch {
	case r.URL.Path == "/healthz" && r.Method == http.MethodGet:
		a.healthz(w)
	case r.URL.Path == "/readyz" && r.Method == http.MethodGet:
		a.readyz(w)
	case !clean(r):
		// The mux would answer these with a redirect, and that to anybody.
		a.nothing.ServeHTTP(w, r)
	default:
		if r.Method == http.MethodGet && a.published(w, r) {
			return
		}
		a.mux.ServeHTTP(w, r)
	}
}

// maxPublishedAge is how long anybody may keep what the server publishes as an issuer, in seconds.
const maxPublishedAge = 3600

// published answers what everybody may read who verifies tokens of functions: the issuer's discovery document and its public keys,
// which are made in advance. Anything else under that path is nothing.
func (a *API) published(w http.ResponseWriter, r *http.Request) bool {
	if a.deps.Published == nil || !strings.HasPrefix(r.URL.Path, "/.well-known/") || r.URL.RawQuery != "" {
		return false
	}
	text, ok := a.deps.Published(r.URL.Path)
	if !ok {
		return false
	}
	h := w.Header()
	h["Content-Type"] = isJSON
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(maxPublishedAge))
	send(w, http.StatusOK, text)
	return true
}

// Header values that every answer has; shared, because they are never changed.
var (
	noStore = []string{"no-store"}
	noSniff = []string{"nosniff"}
	isJSON  = []string{"application/json"}
)

func (a *API) healthz(w http.ResponseWriter) { plain(w, http.StatusOK, "ok\n") }

func (a *API) readyz(w http.ResponseWriter) {
	if err := a.notReady(); err != nil {
		w.Header().Set("Retry-After", "1")
		plain(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

var errStopping = errors.New("stopping")

// notReady returns why the server takes no events, or nil.
func (a *API) notReady() error {
	if a.draining.Load() {
		return errStopping
	}
	return a.deps.Ready()
}
