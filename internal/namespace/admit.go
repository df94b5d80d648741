package namespace

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// The names of the quotas.
const (
	Functions       = "functions"
	Subscriptions   = "subscriptions"
	ModuleBytes     = "module_bytes"
	Tokens          = "tokens"
	EventsPerSecond = "events_per_second"
	PendingEvents   = "pending_events"
	StoredBytes     = "stored_bytes"
)

// storageFull is the code of the problem that StoredBytes makes.
const storageFull = "namespace.storage_full"

// maxQuota keeps sums of quotas far from the end of an int64, and exact in JSON.
const maxQuota = 1 << 50

// QuotaNames returns the names of all quotas.
func QuotaNames() []string {
	return []string{EventsPerSecond, Functions, ModuleBytes, PendingEvents, StoredBytes, Subscriptions, Tokens}
}

// quotas returns had with the changes: 0 ends one.
func quotas(had, changes map[string]int64) map[string]int64 {
	out := map[string]int64{}
	maps.Copy(out, had)
	for name, n := range changes {
		if out[name] = n; n == 0 {
			delete(out, name)
		}
	}
	return out
}

// Quota is how much of something a namespace may have, and what it would have.
type Quota struct {
	Name string
	Want int64
}

// Allow returns a problem when the namespace would have more of something than it may.
func (r *Registry) Allow(ns ident.Namespace, list ...Quota) error {
	e := (*r.current.Load())[ns]
	if e == nil {
		return nil
	}
	for _, q := range list {
		if limit, ok := e.Quotas[q.Name]; ok && q.Want > limit {
			return problem.New(problem.Unprocessable, "namespace.quota_exceeded",
				"the namespace %q would have %d %s, and its quota is %d", ns, q.Want, words(q.Name), limit).
				WithHint("remove what is not needed, or have an operator raise it: %s", raise(ns, q.Name, q.Want))
		}
	}
	return nil
}

// raise returns the command that raises a quota.
func raise(ns ident.Namespace, name string, to int64) string {
	return fmt.Sprintf("sallyport namespace update %s --quota %s=%d", ns, name, to)
}

// words returns what a quota counts.
func words(name string) string {
	switch name {
	case ModuleBytes:
		return "bytes of modules"
	case Tokens:
		return "valid tokens"
	}
	return name
}

// Measure is what a namespace holds of events at a moment: how many are pending, and the bytes of all. Pending MUST NOT be lower than it is.
type Measure struct{ Pending, StoredBytes int64 }

// Kept is what knows the bytes that functions keep: in blobs, kv and databases.
type Kept interface {
	// MeasureKept finds out what a namespace keeps, unless that is known. It may read from the disk.
	MeasureKept(ctx context.Context, ns ident.Namespace) error
	// Kept returns it, at once. What was measured or is stored MUST be in it until it is deleted.
	Kept(ns ident.Namespace) int64
}

// Measured has the registry ask f for what a namespace holds. It is called once, before Admit.
func (r *Registry) Measured(f func(ident.Namespace) (Measure, error)) { r.measure = f }

// Keeps has the registry ask k for what functions keep. It is called once, before Admit and Keep; without it they keep nothing.
func (r *Registry) Keeps(k Kept) { r.kept = k }

const (
	// recordBytes is more than what an event takes in the event log beside its attributes and its data: its seal, its
	// place in the batch, and its part of what a batch of one takes.
	recordBytes = 1 << 10
	// chainBytes is that for an event of a function, which names those before it.
	chainBytes = 4 << 10
	// forEvents is the part of the quota of stored bytes that functions do not fill, and maxForEvents the most that it is: so the event by which a
	// function deletes something comes in however full the others have made it.
	forEvents, maxForEvents = 16, 1 << 20
	// remeasure is how long a measure that refuses is not taken again: each takes a question to the disk.
	remeasure = 200 * time.Millisecond
	// fullPause is when to come again to a namespace that is full: functions work on what is pending, and retention looks at
	// the event log each half minute.
	pendingPause = time.Second
	storedPause  = 30 * time.Second
)

// gate admits events to a namespace. What it believes to be there is never less than what is: what it admits counts from
// that moment, and only a measure takes something off.
type gate struct {
	mu     sync.Mutex
	rate   bucket
	at     time.Time // of the measure; zero before the first
	held   Measure   // what is believed to be there
	flying Measure   // admitted, and not known to be stored or refused
	// keeping is that for what functions keep. What they have stored is asked for each time, so that deleting makes room at once.
	keeping int64
}

// bucket is a token bucket that holds what one second allows. A request that is larger than that is admitted by a full
// bucket, and leaves a debt: in the long run the rate holds exactly.
type bucket struct {
	tokens float64
	at     time.Time // zero before the first use
}

// fill adds what time has brought.
func (b *bucket) fill(now time.Time, rate float64) {
	if b.at.IsZero() {
		b.tokens = rate
	} else {
		b.tokens = min(rate, b.tokens+now.Sub(b.at).Seconds()*rate)
	}
	b.at = now
}

// wait returns how long it takes until n may come.
func (b *bucket) wait(n, rate float64) time.Duration {
	missing := min(n, rate) - b.tokens
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / rate * float64(time.Second))
}

// Admit takes n events of together size bytes, attributes and data, on the quotas of ns, or returns a problem and takes
// none. A namespace that is closed takes none. The caller calls done when they are stored, or are known not to be.
func (r *Registry) Admit(ctx context.Context, ns ident.Namespace, n int, size int64) (done func(), err error) {
	e := (*r.current.Load())[ns]
	if e == nil {
		return func() {}, nil
	}
	if err := e.open(ns); err != nil {
		return nil, err
	}
	if !e.gated() {
		return func() {}, nil
	}
	if _, bounded := e.Quotas[StoredBytes]; bounded && r.kept != nil {
		if err := r.kept.MeasureKept(ctx, ns); err != nil {
			return nil, err
		}
	}
	more := Measure{Pending: int64(n), StoredBytes: size + int64(n)*recordBytes}
	g := e.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	rate, limited := e.Quotas[EventsPerSecond]
	if limited {
		g.rate.fill(now, float64(rate))
		if wait := g.rate.wait(float64(n), float64(rate)); wait > 0 {
			return nil, problem.New(problem.Exhausted, "namespace.rate_exceeded", "the namespace %q takes %d events per second", ns, rate).
				WithHint("send again after the time in Retry-After, or have an operator raise the quota: %s", raise(ns, EventsPerSecond, 2*rate)).
				WithRetryAfter(wait)
		}
	}
	if err := r.room(ns, e, more, now); err != nil {
		return nil, err
	}
	if limited {
		g.rate.tokens -= float64(n)
	}
	g.held.add(more, 1)
	g.flying.add(more, 1)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.flying.add(more, -1)
	}, nil
}

// Emitted counts events that a function of ns publishes. They are never refused for a quota: the event they follow from was
// accepted, and must not fail for it. So they come first, and producers get what is left.
func (r *Registry) Emitted(ns ident.Namespace, n int, size int64) {
	e := (*r.current.Load())[ns]
	if e == nil || !e.gated() {
		return
	}
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	if rate, ok := e.Quotas[EventsPerSecond]; ok {
		e.gate.rate.fill(time.Now(), float64(rate))
		e.gate.rate.tokens -= float64(n)
	}
	e.gate.held.add(Measure{Pending: int64(n), StoredBytes: size + int64(n)*chainBytes}, 1)
}

// Full reports whether a namespace stores as many bytes as it may, or more: by what its functions emit, which is counted and not refused.
func (r *Registry) Full(ns ident.Namespace) bool {
	e := (*r.current.Load())[ns]
	if e == nil || e.Quotas[StoredBytes] == 0 {
		return false
	}
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	err := r.room(ns, e, Measure{StoredBytes: recordBytes}, time.Now())
	return err != nil && problem.From(err).Code == storageFull // what cannot be measured holds up nobody
}

// Keep takes size bytes that a function of ns is about to store on the quota of stored bytes, or returns a problem and takes none. The caller calls
// done when they are in what Kept returns, or are known not to be stored. What the namespace keeps MUST have been measured.
func (r *Registry) Keep(ns ident.Namespace, size int64) (done func(), err error) {
	e := (*r.current.Load())[ns]
	if e == nil {
		return func() {}, nil
	}
	g := e.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if limit := e.Quotas[StoredBytes]; limit > 0 {
		reserve := min(limit/forEvents, maxForEvents)
		if err := r.room(ns, e, Measure{StoredBytes: size + reserve}, time.Now()); err != nil {
			if p := problem.From(err); p.Code == storageFull {
				// A function gets the sentence alone, so all is in it.
				return nil, problem.New(p.Kind, p.Code,
					"the quota stored_bytes of the namespace %q is %d, of which %d are for events alone, and has not the room for %d bytes more; delete something, or have an operator raise it: %s",
					ns, limit, reserve, size, raise(ns, StoredBytes, 2*limit)).WithRetryAfter(p.RetryAfter)
			}
			return nil, err
		}
	}
	g.keeping += size
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.keeping -= size
	}, nil
}

// forget has the next admission measure what is there.
func (g *gate) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at = time.Time{}
}

func (m *Measure) add(other Measure, sign int64) {
	m.Pending += sign * other.Pending
	m.StoredBytes += sign * other.StoredBytes
}

// gated reports whether events of the namespace are bounded.
func (e *entry) gated() bool {
	return e.Quotas[EventsPerSecond]+e.Quotas[PendingEvents]+e.Quotas[StoredBytes] > 0
}

// room returns a problem when there is no room for more. e.gate.mu is held.
func (r *Registry) room(ns ident.Namespace, e *entry, more Measure, now time.Time) error {
	err := r.full(ns, e, more)
	if err == nil && !e.gate.at.IsZero() || e.Quotas[PendingEvents]+e.Quotas[StoredBytes] == 0 {
		return err
	}
	g := e.gate
	if !g.at.IsZero() && now.Sub(g.at) < remeasure {
		return err
	}
	if r.measure == nil {
		return problem.New(problem.Internal, "internal", "BUG: nothing measures what namespaces hold")
	}
	there, failed := r.measure(ns)
	if failed != nil {
		return failed
	}
	g.at, g.held = now, there
	// What flies may be counted twice: it is in the measure once it is stored.
	g.held.add(g.flying, 1)
	return r.full(ns, e, more)
}

// full returns a problem when more would be too much.
func (r *Registry) full(ns ident.Namespace, e *entry, more Measure) error {
	if limit, ok := e.Quotas[PendingEvents]; ok && more.Pending > 0 && e.gate.held.Pending+more.Pending > limit {
		return problem.New(problem.Exhausted, "namespace.backlog_full",
			"the namespace %q may have %d pending events, and has not the room for %d more", ns, limit, more.Pending).
			WithHint("send again after the time in Retry-After; see `sallyport status`, or have an operator raise the quota: %s", raise(ns, PendingEvents, 2*limit)).
			WithRetryAfter(pendingPause)
	}
	limit, bounded := e.Quotas[StoredBytes]
	if !bounded {
		return nil
	}
	held := e.gate.held.StoredBytes + e.gate.keeping
	if r.kept != nil {
		held += r.kept.Kept(ns)
	}
	if held+more.StoredBytes > limit {
		return problem.New(problem.Exhausted, storageFull,
			"the namespace %q may store %d bytes, of events and of what its functions keep, and has not the room for %d more", ns, limit, more.StoredBytes).
			WithHint("retention ([events] in server.toml) makes room, and so do functions that delete; or have an operator raise the quota: %s", raise(ns, StoredBytes, 2*limit)).
			WithRetryAfter(storedPause)
	}
	return nil
}
