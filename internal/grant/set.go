package grant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// Gate decides whether a grant may be used. Its error is a *problem.Error; any error is a refusal.
type Gate interface {
	MayUse(ctx context.Context, q *Question) error
}

// Question is a use that is to be decided about.
type Question struct {
	Caller *Caller
	// Kind and Op are of the grant that Caller names; Invokes is the function that a grant of kind invoke calls.
	Kind, Op string
	Invokes  ident.FunctionName
	// Targets are what the grant reaches, as manifest.Grant.Targets has them.
	Targets string
	// Grants are all that the function uses while it runs, by their names in order.
	Grants []string
	// Publishes are the types of its publish grants.
	Publishes []ident.EventType
}

// Used is what is told of each use that was asked for.
type Used struct {
	Caller   Caller
	Kind, Op string
	// Code is empty when the use was served, and else that of the problem that the guest got.
	Code string
	Took time.Duration
	// In and Out are the bytes of the request and of the reply, with their bodies.
	In, Out int64
	// Call and Reply are the use itself, and Err why it failed. They are valid during the call that tells of them, and hold data.
	Call  *Call
	Reply Reply
	Err   error
}

// Config says what Sets work with. Zero parts are not there: without a Gate, nothing may be used.
type Config struct {
	Kinds   Registry
	Gate    Gate
	Secrets Secrets
	// Used is told of each use; it is called by many goroutines and should be quick.
	Used func(Used)
	// Stand, when set, answers in place of what is behind the doors. No server has one.
	Stand Stand
	// Runners are the goroutines of uses; nil starts one for each.
	Runners *Runners
	Logger  *slog.Logger
}

// Set is the doors of one function revision. It is safe for concurrent use.
type Set struct {
	cfg      Config
	ns       ident.Namespace
	function ident.FunctionName
	revision int
	doors    map[string]*gated
	names    []string // in order
	types    []ident.EventType

	stop    context.CancelFunc
	stopped <-chan struct{}
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// gated is one grant with what bounds its uses.
type gated struct {
	name    string
	grant   manifest.Grant
	targets string
	rate    rate
	index   int // in Spent
	// places has one entry for each use that is running.
	places chan struct{}

	mu   sync.Mutex
	door Door // nil until it is used
}

// NewSet returns the doors of a function revision; publish grants have none. A door is opened when it is first used.
func NewSet(cfg Config, ns ident.Namespace, function ident.FunctionName, revision int, grants map[string]manifest.Grant) *Set {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Set{cfg: cfg, ns: ns, function: function, revision: revision, doors: map[string]*gated{}, stop: stop, stopped: ctx.Done()}
	for name, g := range grants {
		if g.Kind() == manifest.KindPublish {
			s.types = append(s.types, g.Publish...)
			continue
		}
		s.doors[name] = &gated{
			name: name, grant: g, targets: g.Targets(), rate: rate{perSecond: g.Limits.Rate}, index: len(s.names), places: make(chan struct{}, g.Limits.Concurrency),
		}
		s.names = append(s.names, name)
	}
	slices.Sort(s.names)
	slices.Sort(s.types)
	s.types = slices.Compact(s.types)
	return s
}

// Begin returns what counts the bytes of one invocation.
func (s *Set) Begin() Spent { return make(Spent, len(s.names)) }

// Use makes one use of a grant on behalf of a caller, of whom Namespace, Function, Revision and Grant are set here: they are what the Set was made for,
// whatever is asked. The error is a *problem.Error. It returns soon after ctx is done.
func (s *Set) Use(ctx context.Context, call Call, name string) (Reply, error) {
	began := time.Now()
	call.Caller.Namespace, call.Caller.Function, call.Caller.Revision, call.Caller.Grant = s.ns, s.function, s.revision, name
	g := s.doors[name]
	if g == nil {
		return Reply{}, problem.New(problem.Denied, "grant.not_granted", "the function has no grant of this name that is used while it runs")
	}
	reply, err := s.use(ctx, g, &call)
	used := Used{
		Caller: call.Caller, Kind: g.grant.Kind(), Op: call.Op, Took: time.Since(began),
		In: int64(len(call.Request) + len(call.Body)), Out: int64(len(reply.JSON) + len(reply.Body)), Call: &call, Reply: reply,
	}
	if err != nil {
		err = s.explain(ctx, g, &call, err)
		used.Code, used.Err = problem.From(err).Code, err
	}
	if s.cfg.Used != nil {
		s.cfg.Used(used)
	}
	return reply, err
}

// use takes a use through everything that can refuse it, and then the door.
func (s *Set) use(ctx context.Context, g *gated, call *Call) (Reply, error) {
	l := g.grant.Limits
	if size := int64(len(call.Request) + len(call.Body)); size > l.Request {
		return Reply{}, problem.New(problem.TooLarge, "grant.request_too_large", "the request is %d bytes long, the grant %q takes %d", size, g.name, l.Request)
	}
	if s.cfg.Gate == nil {
		return Reply{}, problem.New(problem.Denied, "grant.no_gate", "nothing decides about grants here, so none is used")
	}
	q := Question{Caller: &call.Caller, Kind: g.grant.Kind(), Op: call.Op, Targets: g.targets, Grants: s.names, Publishes: s.types}
	if g.grant.Invoke != nil {
		q.Invokes = g.grant.Invoke.Function
	}
	if err := s.cfg.Gate.MayUse(ctx, &q); err != nil {
		return Reply{}, err
	}
	if wait := g.rate.take(time.Now()); wait > 0 {
		return Reply{}, problem.New(problem.Exhausted, "grant.rate", "the grant %q was used more than %d times in a second", g.name, l.Rate).WithRetryAfter(wait)
	}
	select {
	case g.places <- struct{}{}:
	default:
		return Reply{}, problem.New(problem.Exhausted, "grant.concurrency", "the grant %q is in use %d times at this moment, which is the most", g.name, l.Concurrency).
			WithRetryAfter(time.Second)
	}
	if !s.enter() {
		<-g.places
		return Reply{}, errClosed()
	}
	if err := call.Spent.take(g, int64(len(call.Request)+len(call.Body))); err != nil {
		<-g.places
		s.running.Done()
		return Reply{}, err
	}
	ctx, cancel := within(ctx, l.Timeout, g.grant.Kind())
	reply, err := s.pass(ctx, cancel, g, call)
	if err != nil {
		return Reply{}, err
	}
	if len(reply.JSON) == 0 {
		reply.JSON = []byte("null")
	}
	if !utf8.Valid(reply.JSON) {
		return Reply{}, fmt.Errorf("the door of the grant %q answered with what is no text", g.name)
	}
	if size := int64(len(reply.JSON) + len(reply.Body)); size > l.Reply {
		return Reply{}, problem.New(problem.TooLarge, "grant.reply_too_large", "the reply is %d bytes long, the grant %q takes %d", size, g.name, l.Reply)
	}
	if err := call.Spent.take(g, int64(len(reply.JSON)+len(reply.Body))); err != nil {
		return Reply{}, err
	}
	return reply, nil
}

// within bounds a use by the grant's timeout. A timer is dear beside a value that is read from memory, so there is none of its own where the invocation
// ends sooner anyway, and nothing else has to end the use.
func within(ctx context.Context, timeout time.Duration, kind string) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok && quick(kind) && time.Until(end) <= timeout {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// quick reports whether doors of the kind are over so soon, and so surely, that nobody has to be able to leave them.
func quick(kind string) bool { return kind == manifest.KindKV }

// pass goes through the door. When the time is over it returns, whether or not the door does: the place stays taken until that has returned.
func (s *Set) pass(ctx context.Context, cancel context.CancelFunc, g *gated, call *Call) (Reply, error) {
	if quick(g.grant.Kind()) {
		defer s.left(g, cancel)
		return s.do(ctx, g, call)
	}
	type outcome struct {
		reply Reply
		err   error
	}
	out := make(chan outcome, 1) // whoever waits for it may have left
	s.cfg.Runners.start(func() {
		reply, err := s.do(ctx, g, call)
		out <- outcome{reply, err}
		s.left(g, cancel) // afterwards: whoever waits must not find the context done first
	})
	select {
	case o := <-out:
		return o.reply, o.err
	case <-ctx.Done():
	case <-s.stopped:
		cancel()
		return Reply{}, errClosed()
	}
	select {
	case o := <-out: // both are so: the answer counts
		return o.reply, o.err
	default:
		return Reply{}, context.Cause(ctx)
	}
}

// left notes that a use came back from its door.
func (s *Set) left(g *gated, cancel context.CancelFunc) {
	cancel()
	<-g.places
	s.running.Done()
}

// do opens the door, if nobody has, and calls it. A panic of a door does not take the server with it.
func (s *Set) do(ctx context.Context, g *gated, call *Call) (reply Reply, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.cfg.Logger.ErrorContext(ctx, "panic in a grant", "function", string(s.function), "grant", g.name, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = problem.New(problem.Internal, "internal", "internal error")
		}
	}()
	door, err := s.open(ctx, g)
	if err != nil {
		return Reply{}, err
	}
	if s.cfg.Stand != nil && s.cfg.Stand.Takes(&call.Caller) {
		reply, carryOut, err := rehearse(ctx, door, call, s.cfg.Stand)
		if err != nil || !carryOut {
			return reply, err
		}
	}
	return door.Do(ctx, call)
}

func (s *Set) open(ctx context.Context, g *gated) (Door, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.door != nil {
		return g.door, nil
	}
	// Not bound to the use that is the first: the door is for all.
	door, err := s.cfg.Kinds.Open(context.WithoutCancel(ctx), Opening{
		Namespace: s.ns, Function: s.function, Revision: s.revision, Name: g.name, Grant: g.grant, Secrets: s.cfg.Secrets,
	})
	if err != nil {
		return nil, err
	}
	g.door = door
	return door, nil
}

func (s *Set) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

// explain makes of any error one that a guest may have.
func (s *Set) explain(ctx context.Context, g *gated, call *Call, err error) error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		if p.Kind == problem.Internal {
			s.cfg.Logger.ErrorContext(ctx, "use of a grant", "function", string(s.function), "grant", g.name, "op", call.Op, "error", p.Unwrap())
		}
		return p
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil: // not that of the invocation
		return problem.New(problem.Timeout, "grant.timeout", "the grant %q gave no answer within %s", g.name, g.grant.Limits.Timeout)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem.New(problem.Unavailable, "grant.canceled", "the use of the grant %q was abandoned: the invocation is over", g.name)
	}
	s.cfg.Logger.ErrorContext(ctx, "use of a grant", "function", string(s.function), "grant", g.name, "op", call.Op, "error", err)
	return problem.From(err)
}

func errClosed() error {
	return problem.New(problem.Unavailable, "grant.closed", "the revision of the function was replaced")
}

// Close ends the uses that are running, waits for their doors to return, and closes the doors. It is idempotent.
func (s *Set) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	s.stop()
	s.running.Wait()
	var errs []error
	for _, g := range s.doors {
		if g.door != nil {
			errs = append(errs, g.door.Close())
		}
	}
	return errors.Join(errs...)
}

// rate lets so many uses through in a second, and as many at once after a second without any.
type rate struct {
	perSecond int

	mu   sync.Mutex
	full time.Time // when there would be room for a second's worth at once
}

// take returns 0 when a use may be made now, or how long to wait.
func (r *rate) take(now time.Time) time.Duration {
	each := time.Second / time.Duration(max(r.perSecond, 1))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full.Before(now) {
		r.full = now
	}
	if over := r.full.Add(each).Sub(now) - time.Second; over > 0 {
		return over
	}
	r.full = r.full.Add(each)
	return 0
}
