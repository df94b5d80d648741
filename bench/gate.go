package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/access/oidc"
	"sallyport/internal/ident"
	"sallyport/internal/issuer"
	"sallyport/internal/keyring"
	"sallyport/internal/outbound"
	"sallyport/internal/policy"
	"sallyport/internal/store"
)

const (
	gateDecisions = 200_000 // of each size of set: a fifth of a second, over many collections of garbage and turns of other processes
	gateRepeats   = 20      // of what is measured as a mean
	gatePolicies  = 1000
	gateLarge     = 10_000
	gateIssuer    = "https://bench.example.com"
	gateAudience  = "sallyport"
)

// measureGate is what deciding costs: one decision, one token, one analysis, in processor time of the thread that does it; then the accept
// path and dispatch with all of it on, against one permit; and how long a change of policies takes to be in force.
func measureGate(ctx context.Context, o options, r *report, stderr io.Writer) error {
	if err := gateCosts(ctx, r, o.dir); err != nil {
		return err
	}
	return gateServers(ctx, o, r, stderr)
}

// threadTime returns the processor time of this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0 // it is there on every Linux; without it, every figure is 0
	}
	return time.Duration(t.Nano())
}

// mean returns the processor time of one of n calls, the median of several turns.
func mean(n int, do func() error) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var turns []float64
	for range gateRepeats {
		began := threadTime()
		for range n {
			if err := do(); err != nil {
				return 0, err
			}
		}
		turns = append(turns, float64(threadTime()-began)/float64(n))
	}
	return time.Duration(median(turns)), nil
}

// each returns the processor time of each of n calls, without that of reading the clock.
func each(n int, do func(i int) error) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var clock []time.Duration
	for range 1000 {
		began := threadTime()
		clock = append(clock, threadTime()-began)
	}
	idle, _ := percentiles(clock)
	took := make([]time.Duration, n)
	for i := range n {
		began := threadTime()
		if err := do(i); err != nil {
			return nil, err
		}
		took[i] = max(0, threadTime()-began-idle)
	}
	return took, nil
}

// microseconds adds a line with a figure in microseconds.
func (r *report) microseconds(what string, took time.Duration, b bar, note string) {
	r.figure("(gate)", what, float64(took)/1e3, "µs", b, note)
}

// gatePolicyFiles are n policies of a namespace as they are when many teams write them, and what bench events need: a permit that looks at
// the event, and a forbid that looks at the address.
func gatePolicyFiles(ns ident.Namespace, n int) map[string]string {
	var b strings.Builder
	fmt.Fprintf(&b, "@id(\"sends\") permit (principal is Service, action == Action::\"publish\", resource == EventType::\"%s/bench.event\")\n"+
		"when { context.event.size < 100000 && principal has claims && principal.claims.issuer like \"https://*\" };\n"+
		"@id(\"net\") forbid (principal is Service, action == Action::\"publish\", resource)\nwhen { context has ip && context.ip.isInRange(ip(\"10.0.0.0/8\")) };\n", ns)
	actions := []policy.Action{policy.Publish, policy.Invoke, policy.ReadEvents, policy.Deploy, policy.ReadLogs}
	files := map[string]string{}
	for i := range n - 2 {
		switch action := actions[i%len(actions)]; action {
		case policy.Publish:
			fmt.Fprintf(&b, "@id(\"p%d\") permit (principal in Group::\"team-%d\", action == Action::\"publish\", resource == EventType::\"%s/order.%d\")\nwhen { context.event.size < %d };\n",
				i, i%97, ns, i, 1000+i)
		case policy.Invoke:
			fmt.Fprintf(&b, "@id(\"p%d\") permit (principal == Service::\"svc-%d\", action == Action::\"invoke\", resource == Function::\"%s/f-%d\");\n", i, i%331, ns, i)
		default:
			fmt.Fprintf(&b, "@id(\"p%d\") permit (principal == User::\"u-%d\", action == Action::%q, resource == Namespace::%q)\n"+
				"when { principal has claims && principal.claims.roles.contains(\"r%d\") };\n", i, i, action, ns, i)
		}
		if b.Len() > policy.MaxFileBytes-1000 || i == n-3 {
			files[fmt.Sprintf("policies/%03d.cedar", len(files))] = b.String()
			b.Reset()
		}
	}
	return files
}

func gateSet(n int) (*policy.Set, error) {
	var files []policy.File
	for name, text := range gatePolicyFiles("shop", n) {
		files = append(files, policy.File{Name: name, Namespace: "shop", Text: []byte(text)})
	}
	return policy.New(files...)
}

// gateRequest returns one of many requests that policies of a set are about: they differ in who asks, about what, from where and how much.
func gateRequest(i int) policy.Request {
	return policy.Request{
		Principal: policy.Principal{
			Kind: policy.KindService, ID: ident.PrincipalID(fmt.Sprintf("service:svc-%d", i%331)), Groups: []string{fmt.Sprintf("team-%d", i%97), "staff"},
			Claims: &policy.Claims{Issuer: gateIssuer, Roles: []string{"ops"}},
		}.Prepare(),
		Action: policy.Publish, Resource: policy.Resource{Kind: policy.KindEventType, Namespace: "shop", Name: "bench.event"},
		Context: policy.Context{
			Transport: policy.TransportTLS, IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Now: time.Now(),
			Event: &policy.Event{Type: "bench.event", Source: "/bench", Size: int64(i)},
		},
	}
}

func gateCosts(ctx context.Context, r *report, dir string) error {
	if err := errors.Join(gateDecide(r, gatePolicies, 10), gateDecide(r, gateLarge, 20)); err != nil {
		return err
	}
	if err := gateWhoCan(r); err != nil {
		return err
	}
	return gateTokens(ctx, r, dir)
}

// gateDecide measures decisions that nobody remembers.
func gateDecide(r *report, n int, most float64) error {
	set, err := gateSet(n)
	if err != nil {
		return err
	}
	requests := make([]policy.Request, 1000)
	for i := range requests {
		requests[i] = gateRequest(i)
	}
	took, err := each(gateDecisions, func(i int) error {
		if !set.Decide(requests[i%len(requests)]).Allowed {
			return errors.New("a decision is a deny")
		}
		return nil
	})
	if err != nil {
		return err
	}
	p50, p99 := percentiles(took)
	r.microseconds(fmt.Sprintf("decision, %d policies, p50", n), p50, bar{}, "processor time")
	r.microseconds(fmt.Sprintf("decision, %d policies, p99", n), p99, atMost(most), "")
	return nil
}

func gateWhoCan(r *report) error {
	set, err := gateSet(gatePolicies)
	if err != nil {
		return err
	}
	people := make([]policy.Principal, 1000)
	for i := range people {
		people[i] = gateRequest(i).Principal
	}
	took, err := mean(1, func() error {
		if !set.WhoCan(policy.Publish, gateRequest(0).Resource, people, nil)[5].Allowed {
			return errors.New("who-can finds nobody")
		}
		return nil
	})
	if err == nil {
		r.figure("(gate)", "who-can, 1,000 principals × 1,000 policies", float64(took)/1e6, "ms", atMost(10), "")
	}
	return err
}

// gateTokens measures tokens that are known, a JWT that is not, and a decision that is remembered.
func gateTokens(ctx context.Context, r *report, dir string) error {
	own, err := newOwnIssuer(ctx, dir, gateIssuer)
	if err != nil {
		return err
	}
	is, err := oidc.NewIssuer(oidc.Config{
		URL: gateIssuer, Audiences: []string{gateAudience}, Algorithms: []string{"RS256"}, Types: []string{"JWT"}, GroupsClaim: "groups", RolesClaim: "roles", TenantClaim: "tenant",
	}, own, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	text, _, err := own.Token(ctx, gateCaller, gateAudience)
	if err != nil {
		return err
	}
	all := oidc.Issuers{gateIssuer: is}
	took, err := mean(200, func() error { _, err := all.Verify(ctx, text); return err })
	if err != nil {
		return err
	}
	r.microseconds("JWT that is not known (RS256)", took, atMost(100), "")
	set, err := gateSet(gatePolicies)
	if err != nil {
		return err
	}
	tokens, err := access.NewTokens(ctx, &gateBucket{m: map[string][]byte{}})
	if err != nil {
		return err
	}
	guard := access.NewGuard(tokens, set)
	who := access.NewIdentifier(tokens, access.IdentifierConfig{
		Logger: slog.New(slog.DiscardHandler),
		Issuers: []access.Issuer{{
			Issuer: is, Service: true, Map: func(*access.Claims) (access.Mapping, bool) {
				return access.Mapping{Role: policy.Publisher, Namespace: "shop"}, true
			},
		}},
	})
	made, err := tokens.Create(ctx, "bench", api.TokenRequest{Role: string(policy.Publisher), Namespace: "shop"})
	if err != nil {
		return err
	}
	for _, c := range []struct{ name, text string }{{"token of the server, known", made.Text}, {"JWT, known", text}} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, gateIssuer, http.NoBody)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+c.text)
		req.RemoteAddr = "192.0.2.1:1234"
		took, err := mean(5000, func() error { _, err := who.Identify(req); return err })
		if err != nil {
			return err
		}
		r.microseconds(c.name, took, atMost(1), "")
		p, err := who.Identify(req)
		if err != nil {
			return err
		}
		about := policy.Resource{Kind: policy.KindFunction, Namespace: "shop", Name: "f"}
		if took, err = mean(5000, func() error { return guard.Authorize(ctx, p, policy.Invoke, about) }); err != nil {
			return err
		}
		r.microseconds("decision, remembered: "+c.name, took, atMost(0.5), "")
	}
	return nil
}

var gateCaller = issuer.Caller{Namespace: "bench", Function: "sender", Revision: 1}

// ownIssuer is an issuer of identity tokens, and what it publishes.
type ownIssuer struct{ *issuer.Issuer }

func newOwnIssuer(ctx context.Context, dir, url string) (*ownIssuer, error) {
	root, err := keyring.OpenRoot(filepath.Join(dir, "issuer.key"))
	if err != nil {
		return nil, err
	}
	keys, err := keyring.New(ctx, root, &gateBucket{m: map[string][]byte{}})
	if err != nil {
		return nil, err
	}
	sealer, err := keys.Sealer(ctx, "", "bench")
	if err != nil {
		return nil, err
	}
	is, err := issuer.Open(ctx, &gateBucket{m: map[string][]byte{}}, sealer, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return &ownIssuer{is}, is.Announce(url)
}

// Get is how what is published is fetched, without a network.
func (o *ownIssuer) Get(_ context.Context, url string) (*outbound.Answer, error) {
	text, ok := o.Published(strings.TrimPrefix(url, gateIssuer))
	if !ok {
		return &outbound.Answer{Status: http.StatusNotFound}, nil
	}
	return &outbound.Answer{Status: http.StatusOK, Body: text}, nil
}

// ServeHTTP is how it is fetched by a network.
func (o *ownIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, ok := o.Published(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(text) // who asked sees that it is cut off
}

// gateBucket keeps in memory what stores keep.
type gateBucket struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (b *gateBucket) Get(_ context.Context, key string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v, ok := b.m[key]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (b *gateBucket) Put(_ context.Context, key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m[key] = bytes.Clone(value)
	return nil
}

func (b *gateBucket) Delete(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.m, key)
	return nil
}

// Names and List find nothing: what is kept is read by its name.
func (b *gateBucket) Names(context.Context, string) ([]string, error) { return nil, nil }
func (b *gateBucket) List(context.Context, string, string, int) ([]store.Entry, error) {
	return nil, nil
}
