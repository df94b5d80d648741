package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
	"sallyport/internal/namespace"
	"sallyport/internal/problem"
)

// What a namespace keeps beside its event log: all of it is in these lists, because all of it goes when the namespace does.
const (
	linesJournal      = "lines"
	deliveriesJournal = "deliveries"
	dispatchBucket    = "dispatch"
	deadLettersBucket = "dead-letters"
	usageBucket       = "usage"
	grantUsesBucket   = "grant-uses"
	// databasesBucket has what the SQLite databases of functions have come to.
	databasesBucket = "databases"
)

func namespaceJournals() []string { return []string{linesJournal, deliveriesJournal} }

func namespaceBuckets() []string {
	return []string{dispatchBucket, deadLettersBucket, usageBucket, grantUsesBucket, secretsBucket, databasesBucket}
}

// openNamespaces opens the registry, has everything else know it, and completes the deletions that an end of the process
// interrupted.
func (s *server) openNamespaces(ctx context.Context) error {
	bucket, err := s.bucket(ctx, "", "namespaces")
	if err != nil {
		return err
	}
	if s.registry, err = namespace.Open(ctx, bucket, s.deployer.Found()); err != nil {
		return err
	}
	s.registry.Changed(s.policies.UseFacts)
	s.registry.Measured(s.measure)
	s.registry.Keeps(kept{s})
	s.policies.Within(s.registry.Open)
	s.guard.Within(func(ns ident.Namespace, valid int) error {
		if err := s.registry.Open(ns); err != nil {
			return err
		}
		return s.registry.Allow(ns, namespace.Quota{Name: namespace.Tokens, Want: int64(valid)})
	})
	for _, ns := range s.registry.Deleting() {
		if err := s.removeNamespace(ctx, ns); err != nil {
			// It stays closed, and is tried again by the next delete or start: no reason for the others to wait.
			s.log.Error("a namespace could not be deleted to the end", "namespace", string(ns), "error", err)
			continue
		}
		s.log.Warn("the deletion of a namespace was completed", "namespace", string(ns))
	}
	return s.registry.Ensure(ctx, ident.DefaultNamespace)
}

// Ensure makes a namespace unless it exists: it is deploy.Namespaces.
func (s *server) Ensure(ctx context.Context, ns ident.Namespace) error {
	return s.registry.Ensure(ctx, ns)
}

// approvalDemanded reports whether a second principal has to approve what functions of ns gain.
func (s *server) approvalDemanded(ns ident.Namespace) bool { return s.registry.Approvals(ns) }

// sender returns what is kept of whoever applies an app, with what waits for an approval.
func (s *server) sender(ctx context.Context) (string, error) {
	p := access.PrincipalOf(ctx)
	if p == nil {
		return "", errors.New("nobody is known to have applied the app")
	}
	return s.guard.Keep(ctx, p)
}

// mayHold returns a problem when the apps of a namespace may not hold so much.
func (s *server) mayHold(ns ident.Namespace, h deploy.Held) error {
	return s.registry.Allow(ns,
		namespace.Quota{Name: namespace.Functions, Want: int64(h.Functions)},
		namespace.Quota{Name: namespace.Subscriptions, Want: int64(h.Subscriptions)},
		namespace.Quota{Name: namespace.ModuleBytes, Want: h.ModuleBytes})
}

// kept is namespace.Kept: what functions keep in blobs, kv and databases.
type kept struct{ server *server }

// MeasureKept finds out what the process before left; of blobs that is known from the start.
func (k kept) MeasureKept(ctx context.Context, ns ident.Namespace) error {
	return errors.Join(k.server.kv.Measure(ctx, ns), k.server.databases.Measure(ctx, ns))
}

func (k kept) Kept(ns ident.Namespace) int64 {
	return k.server.blobs.Stored(ns) + k.server.kv.Stored(ns) + k.server.databases.Stored(ns)
}

// measure returns what a namespace holds of events.
func (s *server) measure(ns ident.Namespace) (namespace.Measure, error) {
	sp, err := s.spaces.get(ns)
	if err != nil {
		return namespace.Measure{}, err
	}
	// The balance first: events accepted between the two reads then count as pending.
	b := sp.Dispatch.Balance()
	st, err := sp.Log.Stats(context.Background())
	return namespace.Measure{Pending: int64(st.Accepted) - b.Done - b.Dead, StoredBytes: st.Bytes}, err
}

// use returns what of each quota a namespace uses, and what its stored bytes consist of.
func (s *server) use(ctx context.Context, ns ident.Namespace) (use, stored map[string]int64, err error) {
	m, err := s.measure(ns)
	if err != nil {
		return nil, nil, err
	}
	if err := (kept{s}).MeasureKept(ctx, ns); err != nil {
		return nil, nil, err
	}
	stored = map[string]int64{"events": m.StoredBytes, "blobs": s.blobs.Stored(ns), "kv": s.kv.Stored(ns), "sqlite": s.databases.Stored(ns)}
	total := int64(0)
	for _, n := range stored {
		total += n
	}
	h := s.deployer.State(ns).Held
	return map[string]int64{
		namespace.Functions: int64(h.Functions), namespace.Subscriptions: int64(h.Subscriptions), namespace.ModuleBytes: h.ModuleBytes,
		namespace.Tokens: int64(s.guard.Valid(ns)), namespace.PendingEvents: m.Pending, namespace.StoredBytes: total,
	}, stored, nil
}

// namespaces is httpapi.Namespaces: the registry, and what it takes to make and to delete a namespace whole.
type namespaces struct {
	*namespace.Registry
	server *server
	one    sync.Mutex // one deletion at a time
}

func (s *server) namespaces() *namespaces { return &namespaces{Registry: s.registry, server: s} }

// Create makes a namespace and opens it.
func (n *namespaces) Create(ctx context.Context, by ident.PrincipalID, req *api.NamespaceRequest) (created bool, err error) {
	if created, err = n.Registry.Create(ctx, by, req); err != nil {
		return created, err
	}
	_, err = n.server.spaces.get(ident.Namespace(req.Name))
	return created, err
}

// Use returns what of each quota ns uses, and what its stored bytes consist of.
func (n *namespaces) Use(ctx context.Context, ns ident.Namespace) (use, stored map[string]int64, err error) {
	return n.server.use(ctx, ns)
}

// Delete deletes a namespace and everything in it, on behalf of by. drain returns when no request is in ns any more. Events that
// are pending keep it, unless force gives them up. From the moment that it is noted in the store, the deletion is brought to
// its end: by the next Delete or start, if not by this call.
func (n *namespaces) Delete(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, force bool, drain func(context.Context) error) (*api.NamespaceDeleted, error) {
	n.one.Lock()
	defer n.one.Unlock()
	if err := n.Close(ns); err != nil {
		return nil, err
	}
	defer n.Reopen(ns) // unless the deletion was noted
	if err := drain(ctx); err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	out := &api.NamespaceDeleted{Name: string(ns)}
	if n.Exists(ns) {
		var err error
		if out, err = n.begin(ctx, ns, force); err != nil {
			return nil, err
		}
	}
	if err := n.server.removeNamespace(ctx, ns); err != nil {
		return nil, problem.New(problem.Unavailable, "namespace.deletion_unfinished", "the namespace %q is being deleted, which has not ended", ns).
			WithHint("do the same again, or restart the server: either goes on with it").WithCause(err)
	}
	n.server.log.WarnContext(ctx, "namespace deleted", "namespace", string(ns), "by", string(by), "accepted", out.Accepted,
		"done", out.Done, "dead", out.Dead, "pending", out.Pending)
	return out, nil
}

// begin notes that ns is being deleted and returns its last balance.
func (n *namespaces) begin(ctx context.Context, ns ident.Namespace, force bool) (*api.NamespaceDeleted, error) {
	sp, err := n.server.spaces.get(ns)
	if err != nil {
		return nil, err
	}
	if out := sp.balance(); !force && out.Pending > 0 {
		return nil, problem.New(problem.Conflict, "namespace.pending_events", "the namespace %q has %d pending events", ns, out.Pending).
			WithHint("wait until they are done (`sallyport status`), or give them up with --force")
	}
	// Without a request and without a pending event, nothing can come in any more.
	if err := n.Begin(ctx, ns); err != nil {
		return nil, err
	}
	sp.stop()
	sp.running.Wait()
	return sp.balance(), nil
}

func (sp *space) balance() *api.NamespaceDeleted {
	b := sp.Dispatch.Balance()
	accepted := int64(sp.Log.Accepted())
	return &api.NamespaceDeleted{Name: string(sp.ns), Accepted: accepted, Done: b.Done, Dead: b.Dead, Pending: accepted - b.Done - b.Dead}
}

// removeNamespace removes everything of a namespace whose deletion was noted, its record last. Each step may be done again. What
// it holds is unreadable once its keys are destroyed, wherever bytes of it still are.
func (s *server) removeNamespace(ctx context.Context, ns ident.Namespace) error {
	for _, step := range []func() error{
		func() error { return s.spaces.take(ns) },
		func() error { return s.guard.RemoveNamespace(ctx, ns) },
		func() error { return s.policies.RemoveNamespace(ctx, ns) },
		func() error { return s.deployer.RemoveNamespace(ctx, ns) },
		func() error { s.secrets.Forget(ns); return nil },
		func() error { return s.keys.Destroy(ctx, ns) },
		func() error { return eventlog.Delete(ctx, s.engine, ns, namespaceJournals()...) },
		func() error { return s.databases.Remove(ns) }, // before the bucket that has what they have come to
		func() error { return s.clearBuckets(ctx, ns) },
		func() error { s.kv.Forget(ns); return nil },
		func() error { return s.blobs.Remove(ns) },
		func() error { return os.RemoveAll(filepath.Join(s.dir, indexName, string(ns))) },
		func() error { return s.decisions.RemoveNamespace(ctx, ns) },
		func() error { s.metrics.Forget(string(ns)); return nil },
		func() error { return s.registry.Forget(ctx, ns) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("delete namespace %q: %w", ns, err)
		}
	}
	return nil
}

// clearBuckets empties the buckets of a namespace. Nothing in them can be opened, and no key is made for it.
func (s *server) clearBuckets(ctx context.Context, ns ident.Namespace) error {
	var names []string
	for _, prefix := range []string{kvBucketName(ns, ""), blobBucketName(ns, "")} { // those of functions
		found, err := s.engine.BucketNames(ctx, prefix)
		if err != nil {
			return err
		}
		names = append(names, found...)
	}
	for _, name := range namespaceBuckets() {
		names = append(names, name+"-"+string(ns))
	}
	for _, name := range names {
		bucket, err := s.engine.Bucket(ctx, name, closedSealer{})
		if err == nil {
			err = bucket.Clear(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// closedSealer is that of a bucket of which nothing is read or written any more.
type closedSealer struct{}

var errClosedSealer = errors.New("the keys were destroyed")

func (closedSealer) Seal(dst, _, _ []byte) ([]byte, error) { return dst, errClosedSealer }
func (closedSealer) Open(dst, _, _ []byte) ([]byte, error) { return dst, errClosedSealer }
