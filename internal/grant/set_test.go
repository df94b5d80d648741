package grant_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// door is a Door of these tests, by what is to be done.
type door struct {
	begun  chan struct{}
	closed chan struct{}
}

func (d *door) Do(ctx context.Context, call *grant.Call) (grant.Reply, error) {
	switch call.Op {
	case "hang":
		d.begun <- struct{}{}
		<-ctx.Done()
		return grant.Reply{}, ctx.Err()
	case "panic":
		panic("the password is hunter2")
	case "fail":
		return grant.Reply{}, errors.New("dial tcp: the password is hunter2")
	case "large":
		return grant.Reply{Body: make([]byte, 2000)}, nil
	}
	return grant.Reply{JSON: []byte(`"` + string(call.Caller.Namespace) + "/" + string(call.Caller.Function) + "/" + call.Caller.Grant + `"`)}, nil
}

func (d *door) Close() error {
	close(d.closed)
	return nil
}

func (d *door) Open(context.Context, grant.Opening) (grant.Door, error) { return d, nil }

// gate allows everything but one operation.
type gate struct{}

func (gate) MayUse(_ context.Context, q *grant.Question) error {
	if q.Op == "denied" {
		return problem.New(problem.Denied, "access.denied", "no")
	}
	return nil
}

func newSet(t *testing.T, change func(*grant.Config, *manifest.GrantLimits)) (*grant.Set, *door, func() []grant.Used) {
	t.Helper()
	d := &door{begun: make(chan struct{}, 100), closed: make(chan struct{})}
	var mu sync.Mutex
	var used []grant.Used
	cfg := grant.Config{Kinds: grant.Registry{manifest.KindHTTP: d}, Gate: gate{}, Used: func(u grant.Used) {
		mu.Lock()
		defer mu.Unlock()
		used = append(used, u)
	}}
	limits := manifest.DefaultGrantLimits()
	limits.Request, limits.Reply = 1000, 1000
	if change != nil {
		change(&cfg, &limits)
	}
	s := grant.NewSet(cfg, "shop", "price", 3, map[string]manifest.Grant{
		"web": {HTTP: &manifest.HTTPGrant{}, Limits: limits}, "out": {Publish: nil}, "other": {KV: &manifest.KVGrant{}, Limits: limits},
	})
	return s, d, func() []grant.Used {
		mu.Lock()
		defer mu.Unlock()
		return used
	}
}

func TestUse(t *testing.T) {
	t.Parallel()
	forged := grant.Caller{Namespace: "bank", Function: "pay", Revision: 9, Grant: "vault"}
	for name, tc := range map[string]struct {
		grant, op, body string
		change          func(*grant.Config, *manifest.GrantLimits)
		want            string // the code, or the reply
	}{
		"served, as itself":      {grant: "web", op: "get", want: `"shop/price/web"`},
		"no such grant":          {grant: "vault", op: "get", want: "grant.not_granted"},
		"a publish grant":        {grant: "out", op: "get", want: "grant.not_granted"},
		"no name":                {op: "get", want: "grant.not_granted"},
		"denied":                 {grant: "web", op: "denied", want: "access.denied"},
		"a kind that is missing": {grant: "other", op: "get", want: "grant.kind_missing"},
		"a large request":        {grant: "web", op: "get", body: strings.Repeat("x", 1001), want: "grant.request_too_large"},
		"a large reply":          {grant: "web", op: "large", want: "grant.reply_too_large"},
		"an error of the door":   {grant: "web", op: "fail", want: "internal"},
		"a panic of the door":    {grant: "web", op: "panic", want: "internal"},
		"no gate":                {grant: "web", op: "get", change: func(c *grant.Config, _ *manifest.GrantLimits) { c.Gate = nil }, want: "grant.no_gate"},
		"too slow":               {grant: "web", op: "hang", change: func(_ *grant.Config, l *manifest.GrantLimits) { l.Timeout = time.Millisecond }, want: "grant.timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, used := newSet(t, tc.change)
			reply, err := s.Use(t.Context(), grant.Call{Caller: forged, Op: tc.op, Body: []byte(tc.body)}, tc.grant)
			got := string(reply.JSON)
			if err != nil {
				got = problem.From(err).Code
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("the function is told %q", err)
				}
			}
			if got != tc.want {
				t.Errorf("Use(%s, %s) = %s, %v; want %s", tc.grant, tc.op, reply.JSON, err, tc.want)
			}
			if list := used(); tc.want != "grant.not_granted" && (len(list) != 1 || list[0].Caller.Function != "price" || (err == nil) != (list[0].Code == "")) {
				t.Errorf("it was told %+v", list)
			}
		})
	}
}

// TestUseLimits: uses beyond the rate and the concurrency of a grant reach no door.
func TestUseLimits(t *testing.T) {
	t.Parallel()
	s, d, _ := newSet(t, func(_ *grant.Config, l *manifest.GrantLimits) { l.Concurrency = 2 })
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		all.Go(func() { _, _ = s.Use(ctx, grant.Call{Op: "hang"}, "web") })
	}
	<-d.begun
	<-d.begun
	if _, err := s.Use(t.Context(), grant.Call{Op: "get"}, "web"); problem.From(err).Code != "grant.concurrency" {
		t.Errorf("Use = %v, want grant.concurrency", err)
	}
	cancel()
	all.Wait()

	s, _, _ = newSet(t, func(_ *grant.Config, l *manifest.GrantLimits) { l.Rate = 3 })
	codes := map[string]int{}
	for range 10_000 { // more than any machine makes of them while the rate lets one more through each third of a second
		_, err := s.Use(t.Context(), grant.Call{Op: "get"}, "web")
		if err == nil {
			codes[""]++
			continue
		}
		p := problem.From(err)
		codes[p.Code]++
		if p.RetryAfter <= 0 {
			t.Fatalf("Use = %v, which does not say when to come again", err)
		}
	}
	if codes["grant.rate"] == 0 || codes[""] < 3 || len(codes) != 2 {
		t.Errorf("uses ended with %v", codes)
	}
}

// TestBytes: one invocation sends and receives no more than limits.bytes through a grant, however many uses it makes at the same time; another
// invocation begins anew, and so does another grant.
func TestBytes(t *testing.T) {
	t.Parallel()
	const limit, request, reply = 10_000, 10, 16 // "shop/price/web", in quotes
	s, _, used := newSet(t, func(c *grant.Config, l *manifest.GrantLimits) {
		c.Kinds[manifest.KindKV] = c.Kinds[manifest.KindHTTP]
		l.Rate, l.Concurrency, l.Bytes = 1<<20, 1<<10, limit
	})
	spent := s.Begin()
	var all sync.WaitGroup
	var received atomic.Int64
	for range 1000 {
		all.Go(func() {
			got, err := s.Use(t.Context(), grant.Call{Op: "get", Body: make([]byte, request), Spent: spent}, "web")
			if err == nil {
				received.Add(int64(len(got.JSON)))
			} else if p := problem.From(err); p.Code != "grant.bytes" || p.RetryAfter != 0 || !strings.Contains(p.Public, "10000 bytes") || !strings.Contains(p.Public, `"web"`) {
				t.Errorf("Use = %v, want grant.bytes with the limit and the grant", err)
			}
		})
	}
	all.Wait()
	// Requests that were made without a reply that fits take their bytes too, so fewer than limit/(request+reply) uses may be served.
	if n := received.Load() / reply; n == 0 || n > limit/(request+reply) {
		t.Errorf("%d uses were served of %d bytes", n, limit)
	}
	sent := int64(0)
	for _, u := range used() {
		if u.Code == "" {
			sent += u.In + u.Out
		}
	}
	if sent == 0 || sent > limit {
		t.Errorf("the meter was told of %d bytes, want at most %d", sent, limit)
	}
	for name, call := range map[string]grant.Call{"web": {Op: "get", Spent: s.Begin()}, "other": {Op: "get", Spent: spent}} {
		if _, err := s.Use(t.Context(), call, name); err != nil {
			t.Errorf("Use(%s) of another counter = %v", name, err)
		}
	}
	// A reply that does not fit is not handed over.
	one := s.Begin()
	if _, err := s.Use(t.Context(), grant.Call{Op: "get", Body: make([]byte, limit-reply+1), Spent: one}, "web"); err == nil {
		t.Error("a request over limits.request was made")
	}
	for range (limit - 1) / 1000 {
		_, _ = s.Use(t.Context(), grant.Call{Op: "fail", Body: make([]byte, 1000), Spent: one}, "web")
	}
	if reply, err := s.Use(t.Context(), grant.Call{Op: "get", Body: make([]byte, 990), Spent: one}, "web"); problem.From(err).Code != "grant.bytes" || reply.JSON != nil {
		t.Errorf("the last use = %s, %v; want grant.bytes and no reply", reply.JSON, err)
	}
}

// TestSetClose: what is under way ends, doors are closed once, and nothing is used after that.
func TestSetClose(t *testing.T) {
	t.Parallel()
	s, d, _ := newSet(t, nil)
	ended := make(chan error)
	go func() {
		_, err := s.Use(t.Context(), grant.Call{Op: "hang"}, "web")
		ended <- err
	}()
	<-d.begun
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	if err := <-ended; problem.From(err).Code != "grant.closed" && problem.From(err).Code != "grant.canceled" {
		t.Errorf("Use = %v, want grant.closed", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	<-d.closed
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Use(t.Context(), grant.Call{Op: "get"}, "web"); problem.From(err).Code != "grant.closed" {
		t.Errorf("Use = %v, want grant.closed", err)
	}
}

// TestRevisionsDoNotMix: while a revision is replaced, each use that is served is served by the doors of its own revision, whatever the call says of
// itself, and of the one that is closed none is served any more.
func TestRevisionsDoNotMix(t *testing.T) {
	t.Parallel()
	const revisions, uses = 20, 200
	for revision := 1; revision <= revisions; revision++ {
		kind := &revisionKind{t: t, revision: revision}
		s := grant.NewSet(grant.Config{Kinds: grant.Registry{manifest.KindKV: kind, manifest.KindHTTP: kind}, Gate: gate{}}, "shop", "price", revision, map[string]manifest.Grant{
			"store": {KV: &manifest.KVGrant{}, Limits: manifest.GrantLimits{Rate: 1 << 20, Concurrency: 1 << 10, Timeout: time.Minute, Request: 1000, Reply: 1000}},
			"web":   {HTTP: &manifest.HTTPGrant{}, Limits: manifest.GrantLimits{Rate: 1 << 20, Concurrency: 1 << 10, Timeout: time.Minute, Request: 1000, Reply: 1000}},
		})
		began := make(chan struct{}, uses)
		var all sync.WaitGroup
		for i := range uses {
			all.Go(func() {
				name := []string{"store", "web"}[i%2]
				forged := grant.Caller{Namespace: "bank", Function: "pay", Revision: revision - 1, Grant: "vault"}
				_, err := s.Use(t.Context(), grant.Call{Caller: forged, Op: "get"}, name)
				began <- struct{}{}
				if code := problem.From(err).Code; err != nil && code != "grant.closed" && code != "grant.canceled" {
					t.Errorf("Use = %v", err)
				}
			})
		}
		<-began // in the middle of them
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		kind.over.Store(true)
		if _, err := s.Use(t.Context(), grant.Call{Op: "get"}, "store"); problem.From(err).Code != "grant.closed" {
			t.Errorf("after it was replaced, revision %d answers %v", revision, err)
		}
		all.Wait()
		if kind.served.Load() == 0 {
			t.Errorf("no use of revision %d was served: the test tests nothing", revision)
		}
	}
}

// revisionKind opens doors that serve one revision, until it is over.
type revisionKind struct {
	t        *testing.T
	revision int
	served   atomic.Int64
	over     atomic.Bool
}

func (k *revisionKind) Open(_ context.Context, o grant.Opening) (grant.Door, error) {
	if o.Revision != k.revision {
		k.t.Errorf("a door of revision %d is opened for revision %d", k.revision, o.Revision)
	}
	return k, nil
}

func (k *revisionKind) Do(_ context.Context, call *grant.Call) (grant.Reply, error) {
	k.served.Add(1)
	c := call.Caller
	if k.over.Load() || c.Revision != k.revision || c.Namespace != "shop" || c.Function != "price" || c.Grant == "vault" {
		k.t.Errorf("the door of revision %d (over: %t) serves %+v", k.revision, k.over.Load(), c)
	}
	return grant.Reply{}, nil
}

func (k *revisionKind) Close() error { return nil }
