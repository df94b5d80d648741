package namespace_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/namespace"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// memory is a Bucket that can be made to fail, before or after it has written.
type memory struct {
	mu         sync.Mutex
	values     map[string][]byte
	fail, late error
}

func newMemory() *memory { return &memory{values: map[string][]byte{}} }

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.values[key]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.values[key] = value
	return m.late
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return m.fail
}

func (m *memory) List(context.Context, string, string, int) ([]store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.Entry
	for k, v := range m.values {
		out = append(out, store.Entry{Key: k, Value: v})
	}
	return out, nil
}

func open(t testing.TB, m *memory, others ...ident.Namespace) *namespace.Registry {
	t.Helper()
	r, err := namespace.Open(context.Background(), m, others)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

func create(t testing.TB, r *namespace.Registry, req api.NamespaceRequest) {
	t.Helper()
	if created, err := r.Create(context.Background(), "token:op", &req); err != nil || !created {
		t.Fatalf("Create(%s) = %v, %v", req.Name, created, err)
	}
}

func TestCreateAndUpdate(t *testing.T) {
	t.Parallel()
	m := newMemory()
	r := open(t, m, "old")
	var told []policy.NamespaceFacts
	r.Changed(func(list []policy.NamespaceFacts) { told = list })
	create(t, r, api.NamespaceRequest{Name: "shop", Owners: []string{"user:b", "user:a", "user:b"}, Quotas: map[string]int64{"functions": 2, "tokens": 0}})
	again := api.NamespaceRequest{Name: "shop", Owners: []string{"user:a", "user:b"}, Quotas: map[string]int64{"functions": 2}}
	if created, err := r.Create(t.Context(), "token:x", &again); created || err != nil {
		t.Errorf("the same again = %v, %v", created, err)
	}
	again.Policies = "none"
	if _, err := r.Create(t.Context(), "token:x", &again); code(err) != "namespace.exists" {
		t.Errorf("something else = %v, want namespace.exists", err)
	}
	owners := []string{"service:c"}
	if err := r.Update(t.Context(), "shop", &api.NamespaceUpdate{Owners: &owners, Quotas: map[string]int64{"functions": 0, "tokens": 7}, Policies: "none"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Update(t.Context(), "nothere", &api.NamespaceUpdate{}); code(err) != "server.namespace_not_found" {
		t.Errorf("Update of none = %v", err)
	}
	if err := r.Update(t.Context(), "shop", &api.NamespaceUpdate{Approvals: "sometimes"}); code(err) != "namespace.invalid" {
		t.Errorf("approvals = sometimes: %v, want namespace.invalid", err)
	}
	if r.Approvals("shop") || r.Approvals("nothere") {
		t.Error("approvals are demanded, and nobody said so")
	}
	if err := r.Update(t.Context(), "shop", &api.NamespaceUpdate{Approvals: "gains"}); err != nil || !r.Approvals("shop") {
		t.Errorf("approvals are not demanded: %v", err)
	}
	want := &api.Namespace{
		Name: "shop", State: "active", Owners: owners, Policies: "none", Approvals: "gains", Quotas: map[string]int64{"tokens": 7}, CreatedBy: "token:op",
	}
	for _, r := range []*namespace.Registry{r, open(t, m, "old")} {
		got, err := r.Get("shop")
		if err != nil {
			t.Fatal(err)
		}
		got.Created = time.Time{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("namespace (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]ident.Namespace{"old", "shop"}, r.Names()); diff != "" {
			t.Errorf("Names (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff([]policy.NamespaceFacts{{Name: "old"}, {Name: "shop", Owners: []ident.PrincipalID{"service:c"}, NoRoles: true}}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	r := open(t, newMemory())
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprint("user:", i)
	}
	for name, req := range map[string]api.NamespaceRequest{
		"no name": {}, "name": {Name: "Shop"}, "owner": {Name: "a", Owners: []string{"ann"}}, "function": {Name: "a", Owners: []string{"function:a/f"}},
		"owners": {Name: "a", Owners: many}, "long owner": {Name: "a", Owners: []string{"user:" + strings.Repeat("x", 1000)}},
		"policies": {Name: "a", Policies: "all"}, "quota": {Name: "a", Quotas: map[string]int64{"cars": 1}},
		"negative": {Name: "a", Quotas: map[string]int64{"functions": -1}}, "huge": {Name: "a", Quotas: map[string]int64{"functions": 1 << 60}},
	} {
		if _, err := r.Create(t.Context(), "token:op", &req); code(err) != "namespace.invalid" || len(problem.From(err).Faults) != 1 {
			t.Errorf("%s: Create = %v", name, err)
		}
	}
	if len(r.Names()) > 0 {
		t.Errorf("namespaces %v", r.Names())
	}
	for i := range 1001 {
		if err := r.Ensure(t.Context(), ident.Namespace(fmt.Sprint("n", i))); code(err) != map[bool]string{true: "namespace.too_many"}[i == 1000] {
			t.Fatalf("namespace %d: %v", i, err)
		}
	}
}

// TestDoubtfulWrite: what the store has decides, whatever it says.
func TestDoubtfulWrite(t *testing.T) {
	t.Parallel()
	m := newMemory()
	r := open(t, m)
	m.fail = errors.New("disk is gone")
	if err := r.Ensure(t.Context(), "shop"); code(err) != "namespace.unavailable" || r.Exists("shop") {
		t.Errorf("a write that was not made: %v, exists %v", err, r.Exists("shop"))
	}
	m.fail, m.late = nil, errors.New("no answer")
	if err := r.Ensure(t.Context(), "shop"); err != nil || !r.Exists("shop") {
		t.Errorf("a write that was made: %v, exists %v", err, r.Exists("shop"))
	}
}

func TestDeletion(t *testing.T) {
	t.Parallel()
	m := newMemory()
	r := open(t, m, "default")
	create(t, r, api.NamespaceRequest{Name: "shop"})
	for ns, want := range map[ident.Namespace]string{"default": "namespace.built_in", "nothere": "server.namespace_not_found"} {
		if err := r.Close(ns); code(err) != want {
			t.Errorf("Close(%s) = %v, want %s", ns, err, want)
		}
	}
	closed := func() {
		t.Helper()
		if err := r.Open("shop"); code(err) != "namespace.closed" {
			t.Errorf("Open = %v", err)
		}
		if _, err := r.Admit(t.Context(), "shop", 1, 1); code(err) != "namespace.closed" {
			t.Errorf("Admit = %v", err)
		}
		if _, err := r.Create(t.Context(), "", &api.NamespaceRequest{Name: "shop"}); code(err) != "namespace.closed" {
			t.Errorf("Create = %v", err)
		}
		for what, err := range map[string]error{"Ensure": r.Ensure(t.Context(), "shop"), "Update": r.Update(t.Context(), "shop", &api.NamespaceUpdate{})} {
			if code(err) != "namespace.closed" {
				t.Errorf("%s = %v", what, err)
			}
		}
	}
	if err := r.Close("shop"); err != nil {
		t.Fatal(err)
	}
	if closed(); !r.Exists("shop") {
		t.Error("a namespace that is closed does not exist")
	}
	if r.Reopen("shop"); r.Open("shop") != nil {
		t.Error("a namespace that was reopened is closed")
	}
	if err := errors.Join(r.Close("shop"), r.Begin(t.Context(), "shop")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.Reopen("shop")
		closed()
		if r.Exists("shop") || slices.Contains(r.Names(), "shop") || !slices.Equal(r.Deleting(), []ident.Namespace{"shop"}) {
			t.Errorf("exists %v, names %v, deleting %v", r.Exists("shop"), r.Names(), r.Deleting())
		}
		r = open(t, m, "default", "shop") // a restart changes nothing of that, nor does what it finds of the namespace
	}
	if err := r.Forget(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if r = open(t, m, "default"); r.Exists("shop") || len(r.Deleting()) > 0 || r.Open("shop") != nil {
		t.Error("something is left of a namespace that was forgotten")
	}
}

func TestMalformedStore(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"{", `{}`, `{"state":"odd"}`} {
		if _, err := namespace.Open(t.Context(), &memory{values: map[string][]byte{"shop": []byte(value)}}, nil); err == nil {
			t.Errorf("%s was read", value)
		}
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	r := open(t, newMemory())
	create(t, r, api.NamespaceRequest{Name: "shop", Quotas: map[string]int64{"functions": 2}})
	for want, q := range map[string]namespace.Quota{
		"":                         {Name: namespace.Functions, Want: 2},
		"namespace.quota_exceeded": {Name: namespace.Functions, Want: 3},
	} {
		if err := r.Allow("shop", namespace.Quota{Name: namespace.Tokens, Want: 1000}, q); code(err) != want {
			t.Errorf("Allow(%+v) = %v, want %q", q, err, want)
		}
	}
	err := problem.From(r.Allow("shop", namespace.Quota{Name: namespace.Functions, Want: 3}))
	if err.Kind.Status() != 422 || !strings.Contains(err.Public, "quota is 2") || !strings.Contains(err.Hint, "sallyport namespace update shop --quota functions=3") {
		t.Errorf("problem %+v", err)
	}
}

// TestRate: in the long run exactly so many events come in, whatever their requests are like.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, newMemory())
		create(t, r, api.NamespaceRequest{Name: "shop", Quotas: map[string]int64{"events_per_second": 100}})
		began, admitted := time.Now(), 0
		for i := 0; time.Since(began) < time.Minute; i++ {
			n := []int{1, 30, 250, 100}[i%4]
			_, err := r.Admit(t.Context(), "shop", n, 0)
			if err == nil {
				admitted += n
				continue
			}
			p := problem.From(err)
			if p.Code != "namespace.rate_exceeded" || p.Kind.Status() != 429 || p.RetryAfter <= 0 || p.RetryAfter > 4*time.Second {
				t.Fatalf("Admit = %+v", p)
			}
			time.Sleep(p.RetryAfter + time.Microsecond)
			if _, err := r.Admit(t.Context(), "shop", n, 0); err != nil {
				t.Fatalf("after Retry-After: %v", err)
			}
			admitted += n
		}
		if most := 100*60 + 100 + 250; admitted > most || admitted < most-400 {
			t.Errorf("%d events were admitted in a minute, at most %d may be", admitted, most)
		}
		r.Emitted("shop", 1000, 0) // never refused, and producers wait for it
		if _, err := r.Admit(t.Context(), "shop", 1, 0); code(err) != "namespace.rate_exceeded" {
			t.Errorf("Admit in debt = %v", err)
		}
		time.Sleep(15 * time.Second)
		if _, err := r.Admit(t.Context(), "shop", 1, 0); err != nil {
			t.Errorf("Admit out of debt = %v", err)
		}
	})
}

// TestBacklog: many producers and a slow function never have more events pending than the quota, and all get in.
func TestBacklog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const quota, producers, each = 50, 20, 30
		r := open(t, newMemory())
		var mu sync.Mutex
		var held namespace.Measure
		most, size := int64(0), int64(0)
		r.Measured(func(ident.Namespace) (namespace.Measure, error) {
			mu.Lock()
			defer mu.Unlock()
			return held, nil
		})
		create(t, r, api.NamespaceRequest{Name: "shop", Quotas: map[string]int64{"pending_events": quota, "stored_bytes": 1 << 40}})
		ctx, cancel := context.WithCancel(t.Context())
		var running, function sync.WaitGroup
		function.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(3 * time.Millisecond)
				mu.Lock()
				held.Pending = max(0, held.Pending-2)
				mu.Unlock()
			}
		})
		for range producers {
			running.Go(func() {
				for i := 0; i < each; {
					done, err := r.Admit(t.Context(), "shop", 1+i%3, 100)
					if err != nil {
						if p := problem.From(err); p.Code != "namespace.backlog_full" || p.RetryAfter <= 0 {
							t.Errorf("Admit = %v", err)
							return
						}
						time.Sleep(problem.From(err).RetryAfter)
						continue
					}
					time.Sleep(time.Duration(i%5) * time.Millisecond) // the write
					mu.Lock()
					held.Pending += int64(1 + i%3)
					most = max(most, held.Pending)
					size++
					mu.Unlock()
					done()
					i++
				}
			})
		}
		running.Wait()
		cancel()
		function.Wait()
		if most > quota || most < quota/2 || size != producers*each {
			t.Errorf("%d events were pending at most, the quota is %d; %d requests came in, want %d", most, quota, size, producers*each)
		}
	})
}

func TestStoredBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, newMemory())
		held := namespace.Measure{StoredBytes: 9000}
		measured, fail := 0, error(nil)
		r.Measured(func(ident.Namespace) (namespace.Measure, error) { measured++; return held, fail })
		create(t, r, api.NamespaceRequest{Name: "shop"})
		if _, err := r.Admit(t.Context(), "shop", 1, 1<<40); err != nil || measured > 0 {
			t.Errorf("without a quota: %v, measured %d times", err, measured)
		}
		if err := r.Update(t.Context(), "shop", &api.NamespaceUpdate{Quotas: map[string]int64{"stored_bytes": 20000}}); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"", "", "namespace.storage_full", "namespace.storage_full"} {
			if _, err := r.Admit(t.Context(), "shop", 1, 4000); code(err) != want {
				t.Errorf("event %d: %v, want %q", i, err, want)
			}
		}
		if measured != 1 {
			t.Errorf("measured %d times within a moment", measured)
		}
		time.Sleep(time.Second)
		if _, err := r.Admit(t.Context(), "shop", 1, 4000); code(err) != "namespace.storage_full" {
			t.Errorf("what is admitted and not known to be stored was forgotten: %v", err)
		}
		time.Sleep(time.Second)
		fail = errors.New("disk is gone")
		if _, err := r.Admit(t.Context(), "shop", 1, 4000); !errors.Is(err, fail) {
			t.Errorf("Admit without a measure = %v", err)
		}
		if err := r.Update(t.Context(), "shop", &api.NamespaceUpdate{Quotas: map[string]int64{"stored_bytes": 0}}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Admit(t.Context(), "shop", 1, 1<<40); err != nil {
			t.Errorf("after the quota was ended: %v", err)
		}
	})
}

// TestFull: what functions emit is taken all the same, and makes the namespace full until there is room, or no quota any more.
func TestFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, newMemory())
		var held int64
		r.Measured(func(ident.Namespace) (namespace.Measure, error) { return namespace.Measure{StoredBytes: held}, nil })
		create(t, r, api.NamespaceRequest{Name: "shop", Quotas: map[string]int64{"stored_bytes": 100_000}})
		want := func(when string, full bool) {
			t.Helper()
			if got := r.Full("shop"); got != full {
				t.Errorf("%s: Full() = %v", when, got)
			}
			_, err := r.Admit(t.Context(), "shop", 1, 0)
			if (code(err) == "namespace.storage_full") != full {
				t.Errorf("%s: Admit = %v", when, err)
			}
		}
		want("new", false)
		held = 200_000
		r.Emitted("shop", 10, 200_000)
		want("after an emission", true)
		time.Sleep(time.Second)
		want("a second later", true)
		held = 50_000
		time.Sleep(time.Second)
		want("with room", false)
		r.Emitted("shop", 10, 200_000)
		if err := r.Update(t.Context(), "shop", &api.NamespaceUpdate{Quotas: map[string]int64{"stored_bytes": 0}}); err != nil {
			t.Fatal(err)
		}
		want("without a quota", false)
		if r.Full("other") {
			t.Error("a namespace that is none is full")
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	for name, quotas := range map[string]map[string]int64{"none": nil, "all": {"events_per_second": 1 << 40, "pending_events": 1 << 40, "stored_bytes": 1 << 49}} {
		b.Run(name, func(b *testing.B) {
			r := open(b, newMemory())
			r.Measured(func(ident.Namespace) (namespace.Measure, error) { return namespace.Measure{}, nil })
			create(b, r, api.NamespaceRequest{Name: "shop", Quotas: quotas})
			for b.Loop() {
				done, err := r.Admit(b.Context(), "shop", 1, 100)
				if err != nil {
					b.Fatal(err)
				}
				done()
			}
		})
	}
}

// kept is what functions keep, as a test says.
type kept struct {
	mu       sync.Mutex
	bytes    int64
	measured int
	err      error
}

func (k *kept) MeasureKept(context.Context, ident.Namespace) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.measured++
	return k.err
}

func (k *kept) Kept(ident.Namespace) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bytes
}

func (k *kept) add(n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bytes += n
}

// TestKeep: what functions keep and events share one quota, of which a part is for events; what is deleted makes room at once.
func TestKeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, newMemory())
		k := &kept{}
		r.Measured(func(ident.Namespace) (namespace.Measure, error) { return namespace.Measure{StoredBytes: 3 << 10}, nil })
		r.Keeps(k)
		create(t, r, api.NamespaceRequest{Name: "shop"})
		if done, err := r.Keep("shop", 1<<40); err != nil {
			t.Errorf("without a quota: %v", err)
		} else {
			done()
		}
		if err := r.Update(t.Context(), "shop", &api.NamespaceUpdate{Quotas: map[string]int64{"stored_bytes": 32 << 10}}); err != nil {
			t.Fatal(err)
		}
		done, err := r.Keep("shop", 17<<10)
		if err != nil {
			t.Fatal(err)
		}
		// It counts before it is stored, once when it is, and not at all when it never was.
		if _, err := r.Keep("shop", 10<<10+1); code(err) != "namespace.storage_full" {
			t.Errorf("Keep beside what is under way = %v", err)
		}
		k.add(17 << 10)
		done()
		done, err = r.Keep("shop", 10<<10)
		if err != nil {
			t.Fatal(err)
		}
		done()
		_, err = r.Keep("shop", 10<<10+1)
		p := problem.From(err)
		for _, part := range []string{"stored_bytes", "32768", "2048 are for events", "10241", "sallyport namespace update shop --quota stored_bytes=65536"} {
			if p.Code != "namespace.storage_full" || !strings.Contains(p.Public, part) {
				t.Errorf("Keep = %v; want %q", p.Public, part)
			}
		}
		k.add(10 << 10)
		if _, err := r.Keep("shop", 1); code(err) != "namespace.storage_full" {
			t.Errorf("Keep of a byte more = %v", err)
		}
		// The event that will have something deleted comes in.
		if _, err := r.Admit(t.Context(), "shop", 1, 1000); err != nil {
			t.Errorf("Admit = %v", err)
		}
		k.add(-20 << 10)
		if _, err := r.Keep("shop", 18<<10); err != nil {
			t.Errorf("Keep after a deletion = %v", err)
		}
		if k.measured == 0 {
			t.Error("an event was admitted without what functions keep being measured")
		}
		k.err = errors.New("disk is gone")
		if _, err := r.Admit(t.Context(), "shop", 1, 1); !errors.Is(err, k.err) {
			t.Errorf("Admit without a measure = %v", err)
		}
	})
}

// TestKeepOfMany: many that store at once do not exceed the quota together.
func TestKeepOfMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const quota = 100_000
		r := open(t, newMemory())
		k := &kept{}
		r.Measured(func(ident.Namespace) (namespace.Measure, error) { return namespace.Measure{}, nil })
		r.Keeps(k)
		create(t, r, api.NamespaceRequest{Name: "shop", Quotas: map[string]int64{"stored_bytes": quota}})
		var running sync.WaitGroup
		most := int64(0)
		for i := range 20 {
			running.Go(func() {
				for n := range 50 {
					done, err := r.Keep("shop", 1000)
					if err != nil {
						k.add(-500) // something is deleted
						time.Sleep(time.Millisecond)
						continue
					}
					time.Sleep(time.Duration((n+i)%5) * time.Millisecond) // the write
					k.add(1000)
					done()
					k.mu.Lock()
					most = max(most, k.bytes)
					k.mu.Unlock()
				}
			})
		}
		running.Wait()
		if most > quota || most < quota/2 {
			t.Errorf("%d bytes were kept at most, the quota is %d", most, quota)
		}
	})
}
