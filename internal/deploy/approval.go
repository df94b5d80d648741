package deploy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// Limits of approvals.
const (
	// approvalLifetime is how long somebody has to decide: a week has a working day in it.
	approvalLifetime = 7 * 24 * time.Hour
	// maxPendingApprovals of a namespace keep the modules of an app each.
	maxPendingApprovals = 100
	// maxApproved and maxClosed are how many of a namespace stay that were approved, and that ended otherwise: the oldest go first.
	maxApproved, maxClosed = 500, 100
	// maxApproval bounds one in the store and in memory, in bytes.
	maxApproval = 256 << 10
	// maxReason bounds why somebody decided, in bytes.
	maxReason = 1000
	// approvalIDBytes are random.
	approvalIDBytes = 8
)

// Sender is who applied an app, with what Config.Authority returned then.
type Sender struct {
	ID        ident.PrincipalID
	Authority string
}

// approval is an app that waits for its approval, or what became of it. It is immutable: a change makes another.
type approval struct {
	api.Approval
	Authority string `json:"authority,omitempty"`
	// Bundle is the blob with what was applied; it is gone when nothing is pending any more.
	Bundle string `json:"bundle,omitempty"`

	dirty bool // the store does not know yet
}

// approvals are those of all namespaces. Changes are made with Deployer.mu held.
type approvals struct {
	mu sync.RWMutex
	by map[ident.Namespace]map[string]*approval
}

func (l *approvals) get(ns ident.Namespace, id string) *approval {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.by[ns][id]
}

// list returns those of a namespace, the newest first.
func (l *approvals) list(ns ident.Namespace) []*approval {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := slices.Collect(maps.Values(l.by[ns]))
	slices.SortFunc(out, func(a, b *approval) int { return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID)) })
	return out
}

func (l *approvals) set(ns ident.Namespace, a *approval) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[ns] == nil {
		l.by[ns] = map[string]*approval{}
	}
	l.by[ns][a.ID] = a
}

func (l *approvals) remove(ns ident.Namespace, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.by[ns], id)
}

// demands reports whether a second principal has to approve what functions of ns gain.
func (d *Deployer) demands(ns ident.Namespace) bool {
	return d.cfg.Approvals != nil && d.cfg.ApprovalDemanded != nil && d.cfg.ApprovalDemanded(ns)
}

// approvalDigest returns the digest of all that somebody approves. What is unused is no change, and differs from day to day.
func approvalDigest(ns ident.Namespace, a *api.Approval, bundle []byte) (string, error) {
	sum := sha256.Sum256(bundle)
	what := struct {
		Namespace ident.Namespace   `json:"namespace"`
		App       string            `json:"app"`
		Base      int               `json:"base"`
		Revision  int               `json:"revision"`
		By        string            `json:"by"`
		Changes   []api.Change      `json:"changes"`
		Grants    []api.GrantChange `json:"grants"`
		Bundle    string            `json:"bundle"`
	}{ns, a.App, a.Base, a.Revision, a.AppliedBy, a.Changes, nil, hex.EncodeToString(sum[:])}
	for _, g := range a.Grants {
		if g.Change != grantUnused {
			what.Grants = append(what.Grants, g)
		}
	}
	text, err := json.Marshal(&what, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("encode what is to be approved: %w", err)
	}
	return digest(text), nil
}

// proposal returns the approval that a plan would need, with the bundle as its digest is of it.
func proposal(ns ident.Namespace, by ident.PrincipalID, plan *api.Plan, old *app, bundle *api.Bundle) (*approval, []byte, error) {
	text, err := json.Marshal(bundle, json.Deterministic(true))
	if err != nil {
		return nil, nil, fmt.Errorf("encode bundle: %w", err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	a := &approval{Approval: api.Approval{
		App: plan.App, State: api.ApprovalPending, Revision: plan.Revision, Changes: plan.Changes, Grants: plan.Grants,
		AppliedBy: string(by), Created: now, Expires: now.Add(approvalLifetime),
	}}
	if old != nil {
		a.Base = old.stored.Revision
	}
	a.Digest, err = approvalDigest(ns, &a.Approval, text)
	return a, text, err
}

// hold keeps an app that needs an approval until it is decided about, in the place of one of the same app. d.mu is held.
func (d *Deployer) hold(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, plan *api.Plan, old *app, bundle *api.Bundle) (*api.Approval, error) {
	a, text, err := proposal(ns, by, plan, old, bundle)
	if err != nil {
		return nil, err
	}
	if size, err := json.Marshal(a); err != nil || len(size) > maxApproval {
		return nil, errors.Join(err, problem.New(problem.TooLarge, "approval.too_large",
			"what the functions gain takes %d bytes, at most %d can be approved at once", len(size), maxApproval).WithHint("apply the app in steps, or make it two apps"))
	}
	d.settle(ctx, ns)
	prior, pending := d.pending(ns, a.App)
	switch {
	case prior != nil && prior.Digest == a.Digest:
		return &prior.Approval, nil
	case prior != nil:
		a.Supersedes = prior.ID
	case pending >= maxPendingApprovals:
		return nil, problem.New(problem.Exhausted, "approval.too_many", "%d apps wait for their approval in this namespace, which is the most", pending).
			WithHint("see them with `sallyport approval list --pending`, and approve or reject some")
	}
	var id [approvalIDBytes]byte
	rand.Read(id[:])
	a.ID = hex.EncodeToString(id[:])
	if d.cfg.Authority != nil {
		if a.Authority, err = d.cfg.Authority(ctx); err != nil {
			return nil, err
		}
	}
	// The blob begins with the id, so that no two approvals share one.
	if a.Bundle, err = d.cfg.Blobs.Put(ctx, append([]byte(a.ID+"\n"), text...)); err != nil {
		return nil, unavailable(fmt.Errorf("store what waits for approval: %w", err))
	}
	if err := d.saveApproval(ctx, ns, a); err != nil {
		d.removeBundle(ctx, a)
		return nil, err
	}
	d.cfg.Logger.InfoContext(ctx, "an app waits for its approval", slog.String("namespace", string(ns)), slog.String("app", a.App),
		slog.String("approval", a.ID), slog.String("digest", a.Digest), slog.String("by", a.AppliedBy))
	if prior != nil {
		d.close(ctx, ns, prior, api.ApprovalSuperseded, func(c *approval) { c.SupersededBy = a.ID })
	}
	d.prune(ctx, ns)
	return &a.Approval, nil
}

// pending returns what waits for an approval of an app, nil when nothing does, and how many wait in the namespace.
func (d *Deployer) pending(ns ident.Namespace, app string) (a *approval, n int) {
	for _, other := range d.approvals.list(ns) {
		if other.State != api.ApprovalPending {
			continue
		}
		if n++; other.App == app {
			a = other
		}
	}
	return a, n
}

// saveApproval stores a, and then shows it. Whether the caller waits has no bearing on a write that was begun.
func (d *Deployer) saveApproval(ctx context.Context, ns ident.Namespace, a *approval) error {
	text, err := json.Marshal(a, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode approval: %w", err)
	}
	ctx, key := context.WithoutCancel(ctx), string(ns)+"/"+a.ID
	if err := d.cfg.Approvals.Put(ctx, key, text); err != nil {
		// The write may have been made all the same: what is there decides.
		if there, getErr := d.cfg.Approvals.Get(ctx, key); getErr != nil || !bytes.Equal(there, text) {
			return unavailable(fmt.Errorf("store approval: %w", err))
		}
	}
	d.approvals.set(ns, a)
	return nil
}

// close ends an approval that is pending. When the store does not take it, it is ended all the same, and stored by a later settle or
// found out again at the next start. d.mu is held.
func (d *Deployer) close(ctx context.Context, ns ident.Namespace, a *approval, state string, with func(*approval)) *approval {
	next := *a
	next.State, next.Bundle = state, ""
	if with != nil {
		with(&next)
	}
	if err := d.saveApproval(ctx, ns, &next); err != nil {
		d.cfg.Logger.WarnContext(ctx, "the end of an approval is not stored yet", slog.String("approval", a.ID), slog.Any("error", err))
		next.Bundle, next.dirty = a.Bundle, true
		d.approvals.set(ns, &next)
		return &next
	}
	d.removeBundle(ctx, a)
	return &next
}

// removeBundle removes what was applied. One that stays is only some bytes on the disk.
func (d *Deployer) removeBundle(ctx context.Context, a *approval) {
	if a.Bundle == "" {
		return
	}
	if err := d.cfg.Blobs.Delete(context.WithoutCancel(ctx), a.Bundle); err != nil && !errors.Is(err, store.ErrNotFound) {
		d.cfg.Logger.WarnContext(ctx, "what was not approved is not removed", slog.String("approval", a.ID), slog.Any("error", err))
	}
}

// current returns a with the state that it is in now: time and other changes of the app end one that is pending.
func (d *Deployer) current(ns ident.Namespace, a *approval, now time.Time) string {
	switch {
	case a.State != api.ApprovalPending:
		return a.State
	case !now.Before(a.Expires):
		return api.ApprovalExpired
	case d.revision(ns, ident.AppName(a.App)) != a.Base:
		return api.ApprovalStale
	}
	return a.State
}

// revision returns which revision of an app is active, 0 when none is.
func (d *Deployer) revision(ns ident.Namespace, name ident.AppName) int {
	return d.State(ns).revisions[name]
}

// settle ends what nobody can approve any more, and stores what could not be stored before. d.mu is held.
func (d *Deployer) settle(ctx context.Context, ns ident.Namespace) {
	for _, a := range d.approvals.list(ns) {
		if a.dirty {
			d.close(ctx, ns, a, a.State, func(c *approval) { c.dirty = false })
			continue
		}
		if state := d.current(ns, a, time.Now()); state != a.State {
			d.close(ctx, ns, a, state, nil)
		}
	}
}

// prune forgets the oldest that were decided, beyond so many. d.mu is held.
func (d *Deployer) prune(ctx context.Context, ns ident.Namespace) {
	approved, closed := 0, 0
	for _, a := range d.approvals.list(ns) {
		switch a.State {
		case api.ApprovalPending:
			continue
		case api.ApprovalApproved:
			if approved++; approved <= maxApproved {
				continue
			}
		default:
			if closed++; closed <= maxClosed {
				continue
			}
		}
		if err := d.cfg.Approvals.Delete(ctx, string(ns)+"/"+a.ID); err != nil {
			return // the next one tries again
		}
		d.approvals.remove(ns, a.ID)
	}
}

// Approvals returns those of a namespace, the newest first.
func (d *Deployer) Approvals(ns ident.Namespace) []api.Approval {
	out := []api.Approval{}
	now := time.Now()
	for _, a := range d.approvals.list(ns) {
		one := a.Approval
		one.State = d.current(ns, a, now)
		out = append(out, one)
	}
	return out
}

// Approval returns one, and who applied what it is about.
func (d *Deployer) Approval(ns ident.Namespace, id string) (*api.Approval, Sender, error) {
	a := d.approvals.get(ns, id)
	if a == nil {
		return nil, Sender{}, problem.New(problem.NotFound, "approval.not_found", "there is no approval %q", clip(id)).
			WithHint("list them with `sallyport approval list`")
	}
	out := a.Approval
	out.State = d.current(ns, a, time.Now())
	return &out, Sender{ident.PrincipalID(a.AppliedBy), a.Authority}, nil
}

// undecided returns an approval that can still be decided about. d.mu is held.
func (d *Deployer) undecided(ns ident.Namespace, id string) (*approval, error) {
	shown, _, err := d.Approval(ns, id)
	if err != nil {
		return nil, err
	}
	again := func(code, format string, args ...any) error {
		return problem.New(problem.Conflict, code, format, args...).WithHint("have the app applied again, and decide about what that shows")
	}
	switch shown.State {
	case api.ApprovalPending:
		return d.approvals.get(ns, id), nil
	case api.ApprovalExpired:
		return nil, again("approval.expired", "the approval %s expired at %s", id, shown.Expires.Format(time.RFC3339))
	case api.ApprovalStale:
		return nil, again("approval.stale", "the app %s has changed since: the approval %s is about a difference to revision %d", shown.App, id, shown.Base)
	case api.ApprovalSuperseded:
		if shown.SupersededBy == "" {
			return nil, again("approval.superseded", "the app %s was applied again since, without what the approval %s is about", shown.App, id)
		}
		return nil, problem.New(problem.Conflict, "approval.superseded", "the app %s was applied again since", shown.App).
			WithHint("see what waits now with `sallyport approval get %s`", shown.SupersededBy)
	}
	return nil, problem.New(problem.Conflict, "approval.decided", "the approval %s was %s by %s", id, shown.State, shown.DecidedBy).
		WithHint("see it with `sallyport approval get %s`", id)
}

func checkReason(reason string) error {
	if len(reason) > maxReason {
		return problem.New(problem.Invalid, "approval.reason_too_long", "the reason has %d bytes, at most %d are allowed", len(reason), maxReason)
	}
	return nil
}

// Approve makes active what waits for an approval, on behalf of by. digest MUST be that of the approval: it says what was seen.
// may is asked as by Apply, and MUST answer for who applied it and for who approves it. That by is another principal is for the
// caller to see to.
func (d *Deployer) Approve(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, id string, req api.ApprovalRequest, may Consent) (*api.Approval, error) {
	if err := checkReason(req.Reason); err != nil {
		return nil, err
	}
	for {
		out, err := d.approveOnce(ctx, by, ns, id, req, may)
		if !errors.Is(err, errOvertaken) {
			return out, err
		}
	}
}

// approveOnce is Approve, but fails with errOvertaken as applyOnce does.
func (d *Deployer) approveOnce(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, id string, req api.ApprovalRequest, may Consent) (*api.Approval, error) {
	d.mu.Lock()
	var bundle *api.Bundle
	a, err := d.waiting(ctx, ns, id, req.Digest)
	if err == nil {
		bundle, err = d.bundleOf(ctx, a) // which goes once somebody has decided
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	m, err := manifest.ParseApp(manifestFile, []byte(bundle.Manifest))
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	given := &api.FunctionApproval{ID: a.ID, Digest: a.Digest, AppliedBy: a.AppliedBy, ApprovedBy: string(by), Approved: now, Reason: req.Reason}
	at := &attempt{by: ident.PrincipalID(a.AppliedBy), ns: ns, manifest: m, bundle: bundle, may: may, approved: given}
	revision, err := d.ahead(ctx, at)
	defer at.drop()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if a, err = d.waiting(ctx, ns, id, req.Digest); err != nil {
		return nil, err // somebody was quicker
	}
	if d.revision(ns, m.Name) != revision {
		return nil, errOvertaken
	}
	plan, err := d.apply(ctx, at)
	if err != nil {
		return nil, err
	}
	d.cfg.Logger.InfoContext(ctx, "an app was approved and is active", slog.String("namespace", string(ns)), slog.String("app", a.App), slog.Int("revision", plan.Revision),
		slog.String("approval", a.ID), slog.String("digest", a.Digest), slog.String("applied_by", a.AppliedBy), slog.String("by", string(by)))
	closed := d.close(ctx, ns, a, api.ApprovalApproved, func(c *approval) { c.decidedLike(given) })
	d.prune(ctx, ns)
	return &closed.Approval, nil
}

// waiting returns what nobody has decided about yet, if digest is its own. d.mu is held.
func (d *Deployer) waiting(ctx context.Context, ns ident.Namespace, id, digest string) (*approval, error) {
	a, err := d.undecided(ns, id)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(digest), []byte(a.Digest)) != 1 {
		return nil, problem.New(problem.Conflict, "approval.other_digest", "the digest is not that of the approval %s", id).
			WithHint("see what waits, and its digest, with `sallyport approval get %s`", id)
	}
	// What approved the revision that is active now is noted there until the next approval: it must be in the store before.
	if d.settle(ctx, ns); slices.ContainsFunc(d.approvals.list(ns), func(o *approval) bool { return o.dirty }) {
		return nil, unavailable(errors.New("an approval before this one could not be stored"))
	}
	return a, nil
}

// decidedLike notes who approved it.
func (a *approval) decidedLike(given *api.FunctionApproval) {
	at := given.Approved
	a.DecidedBy, a.Decided, a.Reason = given.ApprovedBy, &at, given.Reason
}

// bundleOf reads what waits for an approval.
func (d *Deployer) bundleOf(ctx context.Context, a *approval) (*api.Bundle, error) {
	blob, err := d.cfg.Blobs.Get(ctx, a.Bundle)
	if err != nil {
		return nil, unavailable(fmt.Errorf("read what waits for approval: %w", err))
	}
	text, ok := bytes.CutPrefix(blob, []byte(a.ID+"\n"))
	if !ok {
		return nil, fmt.Errorf("the blob %s is not of the approval %s", a.Bundle, a.ID)
	}
	var bundle api.Bundle
	if err := json.Unmarshal(text, &bundle); err != nil {
		return nil, fmt.Errorf("decode what waits for approval: %w", err)
	}
	return &bundle, nil
}

// checkApproved sees that what is about to become active is what was approved, to the last byte.
func checkApproved(ns ident.Namespace, at *attempt, plan *api.Plan, old *app) error {
	now, _, err := proposal(ns, at.by, plan, old, at.bundle)
	if err != nil {
		return err
	}
	if now.Digest != at.approved.Digest {
		return problem.New(problem.Conflict, "approval.stale", "what the approval %s is about is not what would become active now", at.approved.ID).
			WithHint("have the app applied again, and decide about what that shows")
	}
	return nil
}

// Reject ends what waits for an approval, on behalf of by. What is active stays.
func (d *Deployer) Reject(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, id, reason string) (*api.Approval, error) {
	if err := checkReason(reason); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a, err := d.undecided(ns, id)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	next := *a
	next.State, next.Bundle, next.DecidedBy, next.Decided, next.Reason = api.ApprovalRejected, "", string(by), &now, reason
	if err := d.saveApproval(ctx, ns, &next); err != nil {
		return nil, err
	}
	d.removeBundle(ctx, a)
	d.cfg.Logger.InfoContext(ctx, "an app was rejected", slog.String("namespace", string(ns)), slog.String("app", a.App),
		slog.String("approval", a.ID), slog.String("digest", a.Digest), slog.String("by", string(by)))
	d.prune(ctx, ns)
	return &next.Approval, nil
}

// restoreApprovals reads all approvals, and brings to its end what a crash interrupted: one that made an app active is noted with the
// app, in the one write that did; and of two of one app, the later names the other.
func (d *Deployer) restoreApprovals(ctx context.Context) error {
	d.approvals.by = map[ident.Namespace]map[string]*approval{}
	if d.cfg.Approvals == nil {
		return nil
	}
	entries, err := d.cfg.Approvals.List(ctx, "", "", 0)
	if err != nil {
		return fmt.Errorf("list approvals: %w", err)
	}
	for _, e := range entries {
		ns, id, _ := strings.Cut(e.Key, "/")
		a := &approval{}
		if err := json.Unmarshal(e.Value, a); err != nil || a.ID != id {
			return errors.Join(fmt.Errorf("decode the approval %q", e.Key), err)
		}
		d.approvals.set(ident.Namespace(ns), a)
	}
	for ns := range d.approvals.by {
		list := d.approvals.list(ns)
		for _, a := range list {
			if a.State != api.ApprovalPending {
				continue
			}
			if active := d.apps[ns][ident.AppName(a.App)]; active != nil && active.stored.Approved != nil && active.stored.Approved.ID == a.ID {
				d.close(ctx, ns, a, api.ApprovalApproved, func(c *approval) { c.decidedLike(active.stored.Approved) })
				continue
			}
			if i := slices.IndexFunc(list, func(o *approval) bool { return o.Supersedes == a.ID }); i >= 0 {
				d.close(ctx, ns, a, api.ApprovalSuperseded, func(c *approval) { c.SupersededBy = list[i].ID })
			}
		}
		d.settle(ctx, ns)
	}
	return nil
}

// removeApprovals removes those of a namespace. d.mu is held.
func (d *Deployer) removeApprovals(ctx context.Context, ns ident.Namespace) error {
	for _, a := range d.approvals.list(ns) {
		d.removeBundle(ctx, a)
		if err := d.cfg.Approvals.Delete(ctx, string(ns)+"/"+a.ID); err != nil {
			return unavailable(err)
		}
		d.approvals.remove(ns, a.ID)
	}
	return nil
}
