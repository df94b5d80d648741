package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
)

// manifestFile is how messages name the manifest: bundles come from a folder with this file in it.
const manifestFile = "app.toml"

// Change is one change of an app, as Consent is asked about it.
type Change struct {
	api.Change
	// Grants are those of a function that is made or replaced, by name: who replaces its code uses them too.
	Grants map[string]manifest.Grant
	// Subscription is one that is made or changed.
	Subscription *manifest.Subscription
}

// Consent is asked about each change of an app before any of them is made; its error is that of Apply. A nil Consent takes all. A change
// without an action is none: it asks whether the grants of a function that stays may be used to look at what they reach.
type Consent func(change Change) error

// Apply makes bundle the app that its manifest names, on behalf of by, and returns what changed. It
// changes nothing when there is an error or dryRun is set. A namespace that does not exist is
// created. When somebody else has to approve what functions gain, nothing changes either, and the plan has what waits for that.
func (d *Deployer) Apply(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, bundle *api.Bundle, dryRun bool, may Consent) (*api.Plan, error) {
	plan, err := d.applyBundle(ctx, by, ns, bundle, dryRun, may)
	if err != nil && d.cfg.Hide != nil {
		err = d.cfg.Hide(ctx, ns, err) // it may show a line of what was sent
	}
	return plan, err
}

func (d *Deployer) applyBundle(ctx context.Context, by ident.PrincipalID, ns ident.Namespace, bundle *api.Bundle, dryRun bool, may Consent) (*api.Plan, error) {
	m, err := manifest.ParseApp(manifestFile, []byte(bundle.Manifest))
	if err != nil {
		return nil, err
	}
	if err := checkParts(m, bundle); err != nil {
		return nil, err
	}
	at := &attempt{by: by, ns: ns, manifest: m, bundle: bundle, dryRun: dryRun, may: may}
	for {
		plan, err := d.applyOnce(ctx, at)
		if !errors.Is(err, errOvertaken) {
			return plan, err
		}
	}
}

// errOvertaken says that the app became another one while its next revision was being prepared: it is to be prepared again.
var errOvertaken = errors.New("BUG: an app that was overtaken is to be prepared again")

// applyOnce is Apply, but fails with errOvertaken when it was.
func (d *Deployer) applyOnce(ctx context.Context, at *attempt) (*api.Plan, error) {
	revision, err := d.ahead(ctx, at)
	defer at.drop()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.revision(at.ns, at.manifest.Name) != revision {
		return nil, errOvertaken
	}
	return d.apply(ctx, at)
}

// ahead does what apply needs and others are not to wait for at d.mu: it loads the modules, which may take as long as the functions' timeouts before
// their first events, and asks databases, which may not answer. It returns the revision of the app for which that holds. The attempt's drop MUST be called.
func (d *Deployer) ahead(ctx context.Context, at *attempt) (revision int, err error) {
	d.mu.Lock()
	err = d.checkNames(at.ns, at.manifest)
	old := d.apps[at.ns][at.manifest.Name]
	d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if old != nil {
		revision = old.stored.Revision
	}
	at.ready = map[ident.FunctionName]*moduleHandle{}
	load := func(f *Function) (*moduleHandle, error) {
		m, err := d.load(ctx, at.ns, f, at.bundle.Modules[string(f.Name)])
		if err == nil {
			at.ready[f.Name] = m
		}
		return m, err
	}
	next, _, err := d.build(at, old, load)
	if err != nil {
		return 0, err
	}
	return revision, d.askAhead(ctx, at, old, next)
}

// drop gives up the modules that were not taken.
func (at *attempt) drop() {
	for _, m := range at.ready {
		m.retire()
	}
	at.ready = nil
}

// take returns a module that was loaded ahead, or loads it.
func (d *Deployer) take(ctx context.Context, at *attempt, f *Function) (*moduleHandle, error) {
	if m := at.ready[f.Name]; m != nil {
		delete(at.ready, f.Name)
		return m, nil
	}
	return d.load(ctx, at.ns, f, at.bundle.Modules[string(f.Name)])
}

// attempt is one apply of a bundle that was checked.
type attempt struct {
	by       ident.PrincipalID
	ns       ident.Namespace
	manifest *manifest.App
	bundle   *api.Bundle
	dryRun   bool
	may      Consent
	// ready are modules of the bundle that are loaded already.
	ready map[ident.FunctionName]*moduleHandle
	// asked is what databases said of the bundle's grants.
	asked map[grantName]grant.Checked
	// approved is who approved it, nil when nobody did.
	approved *api.FunctionApproval
}

// apply does what Apply says. d.mu is held.
func (d *Deployer) apply(ctx context.Context, at *attempt) (*api.Plan, error) {
	ns, m := at.ns, at.manifest
	if err := d.checkNames(ns, m); err != nil {
		return nil, err
	}
	old := d.apps[ns][m.Name]
	next, fresh, err := d.build(at, old, func(f *Function) (*moduleHandle, error) { return d.take(ctx, at, f) })
	active := false
	defer func() {
		for _, h := range fresh {
			if !active {
				h.retire()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	plan, same, err := d.plan(ctx, at, old, next)
	if err != nil {
		return nil, err
	}
	if err := checkGrants(at, plan, old, next); err != nil {
		return nil, err
	}
	waits, _ := d.pending(ns, plan.App)
	if same {
		plan.Revision, plan.Applied = old.stored.Revision, !at.dryRun
		if waits != nil && !at.dryRun {
			plan.Supersedes = d.close(ctx, ns, waits, api.ApprovalSuperseded, nil).ID
		}
		return plan, nil
	}
	switch {
	case at.dryRun:
		return plan, nil
	case plan.NeedsApproval:
		if plan.Approval, err = d.hold(ctx, at.by, ns, plan, old, at.bundle); err != nil {
			return nil, err
		}
		if waits != nil && waits.ID != plan.Approval.ID {
			plan.Supersedes = waits.ID
		}
		return plan, nil
	case at.approved != nil:
		if err := checkApproved(ns, at, plan, old); err != nil {
			return nil, err
		}
		next.stored.Approved = at.approved
	}
	next.gained(plan.Grants, at.approved)
	if err := d.activate(ctx, ns, at.bundle, old, next); err != nil {
		return nil, unavailable(err)
	}
	active, plan.Applied = true, true
	if at.approved == nil && waits != nil {
		plan.Supersedes = waits.ID
		d.settle(ctx, ns) // it is about another difference now
	}
	return plan, nil
}

// plan says what would change, and fails when it must not; same says that nothing would. d.mu is held.
func (d *Deployer) plan(ctx context.Context, at *attempt, old, next *app) (plan *api.Plan, same bool, err error) {
	plan = &api.Plan{App: string(next.name), Revision: next.stored.Revision, Changes: diff(old, next)}
	plan.Grants = append(permissions(old, next), d.unused(at.ns, old, next, time.Now())...)
	if len(plan.Changes) == 0 && old != nil && at.approved == nil {
		return plan, true, nil
	}
	if err := d.check(ctx, at, plan, old, next); err != nil {
		return nil, false, err
	}
	plan.NeedsApproval = at.approved == nil && gains(plan.Grants) && d.demands(at.ns)
	return plan, false, nil
}

// check returns why what was built must not become active.
func (d *Deployer) check(ctx context.Context, at *attempt, plan *api.Plan, old, next *app) error {
	if err := at.may.ask(plan, at.manifest); err != nil {
		return err
	}
	if err := d.checkSecrets(ctx, at.ns, old, next); err != nil {
		return err
	}
	if d.cfg.CheckText != nil { // what the manifest says is shown, approved and kept in clear
		if err := d.cfg.CheckText(ctx, at.ns, manifestFile, []byte(at.bundle.Manifest)); err != nil {
			return err
		}
	}
	if err := checkSize(next); err != nil {
		return err
	}
	if err := d.checkPinned(old, next); err != nil {
		return err
	}
	return d.checkHeld(ctx, at.ns, at.bundle, old, next)
}

// gained notes with the functions that gain something who approved it, nil for nobody.
func (a *app) gained(changes []api.GrantChange, approved *api.FunctionApproval) {
	for i, c := range changes {
		if f := a.functions[ident.FunctionName(c.Function)]; f != nil && gains(changes[i:i+1]) {
			sf := a.stored.Functions[c.Function]
			sf.Approval, f.Approval = approved, approved
			a.stored.Functions[c.Function] = sf
		}
	}
}

// ask asks about each change of a plan.
func (c Consent) ask(plan *api.Plan, m *manifest.App) error {
	if c == nil {
		return nil
	}
	for _, one := range plan.Changes {
		change := Change{Change: one}
		if one.Kind == kindFunction {
			change.Grants = m.Functions[ident.FunctionName(one.Name)].Grants
		}
		if sub, ok := m.Subscriptions[ident.SubscriptionName(one.Name)]; ok && one.Kind == kindSubscription {
			change.Subscription = &sub
		}
		if err := c(change); err != nil {
			return err
		}
	}
	return nil
}

// build makes the app of a bundle that was checked. fresh are the modules that it had loaded.
func (d *Deployer) build(at *attempt, old *app, load func(*Function) (*moduleHandle, error)) (next *app, fresh []*moduleHandle, err error) {
	m, bundle := at.manifest, at.bundle
	if old == nil {
		old = &app{}
	}
	next = &app{name: m.Name, stored: stored{
		Manifest: bundle.Manifest, Revision: old.stored.Revision + 1, Schemas: bundle.Schemas, Approved: old.stored.Approved,
		Functions: map[string]storedFunction{}, From: map[string]uint64{},
	}}
	now := time.Now().UTC()
	for name := range m.Functions {
		module := bundle.Modules[string(name)]
		sf := storedFunction{
			Module: module.Kind, Blob: digest(module.Code), Size: int64(len(module.Code) + len(module.SourceMap)), Revision: next.stored.Revision, Deployed: now, By: at.by,
		}
		if len(module.SourceMap) > 0 {
			sf.SourceMap = digest(module.SourceMap)
		}
		sf.Approval = old.stored.Functions[string(name)].Approval // of what it has already
		next.stored.Functions[string(name)] = sf
	}
	for name := range m.Subscriptions {
		if old.subscriptions[name] != nil {
			next.stored.From[string(name)] = old.stored.From[string(name)]
			if slices.Contains(old.stored.Paused, string(name)) {
				next.stored.Paused = append(next.stored.Paused, string(name))
			}
		}
	}
	if err := next.describe(m); err != nil {
		return nil, nil, err
	}
	// In order of name, so that of several faults the same is always reported.
	for _, name := range slices.Sorted(maps.Keys(next.functions)) {
		f := next.functions[name]
		if prior := old.functions[name]; prior != nil && sameFunction(prior, f) {
			f.Revision, f.Deployed, f.By, f.Kind, f.module = prior.Revision, prior.Deployed, prior.By, prior.Kind, prior.module
			next.stored.Functions[string(name)] = old.stored.Functions[string(name)]
			continue
		}
		if f.module, err = load(f); err != nil {
			return nil, fresh, err
		}
		fresh = append(fresh, f.module)
		f.Kind = f.module.fn.Kind()
		sf := next.stored.Functions[string(name)]
		sf.Kind = f.Kind
		next.stored.Functions[string(name)] = sf
	}
	return next, fresh, nil
}

// load validates and compiles a module.
func (d *Deployer) load(ctx context.Context, ns ident.Namespace, f *Function, module api.Module) (*moduleHandle, error) {
	spec := cell.Spec{Name: f.source, Kind: module.Kind, Code: module.Code, SourceMap: module.SourceMap, Grants: grantSpecs(f.Grants)}
	if module.Kind == api.ModuleWasm && len(module.Code) > 0 {
		d.later(&spec, digest(module.Code)) // it is stored soon, and need not be kept here
	}
	fn, err := d.cfg.Engine.Load(ctx, spec, f.Limits)
	if err != nil {
		return nil, err // it names the source
	}
	m := &moduleHandle{fn: fn, residents: d.residents, pinned: f.Limits.MinInstances > 0, doors: d.doors(ns, f)}
	m.used.Store(time.Now().UnixNano())
	d.residents.add(m, fn.Resident())
	return m, nil
}

// sameFunction reports whether two revisions run the same: then the old one stays.
func sameFunction(a, b *Function) bool {
	return a.Digest == b.Digest && a.Limits == b.Limits && slices.Equal(a.Publishes, b.Publishes) && sameGrants(a.Grants, b.Grants)
}

// digestScheme begins the name of a blob.
const digestScheme = "sha256:"

// digest returns the name that Blobs gives to content.
func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return digestScheme + hex.EncodeToString(sum[:])
}

// activate stores next and makes it active. The one write that decides is that of the app: before
// it, blobs are added that nothing names yet, and removed that nothing names any more.
func (d *Deployer) activate(ctx context.Context, ns ident.Namespace, bundle *api.Bundle, old, next *app) error {
	if err := d.ensure(ctx, ns); err != nil {
		return err
	}
	end, err := d.cfg.End(ctx, ns)
	if err != nil {
		return fmt.Errorf("find the end of the event log: %w", err)
	}
	for name, sub := range next.subscriptions {
		if _, ok := next.stored.From[string(name)]; !ok {
			next.stored.From[string(name)] = uint64(end)
		}
		sub.From = ident.Position(next.stored.From[string(name)])
	}
	if err := d.putBlobs(ctx, bundle, old, next); err != nil {
		return err
	}
	if old != nil {
		next.stored.Stale = d.removeStale(ctx, old, next)
	}
	if err := d.save(ctx, ns, next); err != nil {
		return err
	}
	for name, f := range next.functions {
		f.module.setLoad(d.loader(f, next.stored.Functions[string(name)]))
	}
	d.apps[ns][next.name] = next
	d.publish(ns)
	d.residents.trim(ctx)
	if old != nil {
		for name, f := range old.functions {
			if kept := next.functions[name]; kept == nil || kept.module != f.module {
				f.module.retire()
			}
		}
	}
	return nil
}

// putBlobs stores the modules of next that old does not have.
func (d *Deployer) putBlobs(ctx context.Context, bundle *api.Bundle, old, next *app) error {
	var there []string
	if old != nil {
		there = old.stored.blobs()
	}
	for name, f := range next.stored.Functions {
		for _, b := range []struct {
			digest  string
			content []byte
		}{{f.Blob, bundle.Modules[name].Code}, {f.SourceMap, bundle.Modules[name].SourceMap}} {
			if b.digest == "" || slices.Contains(there, b.digest) {
				continue
			}
			if _, err := d.cfg.Blobs.Put(ctx, b.content); err != nil {
				return fmt.Errorf("store module: %w", err)
			}
		}
	}
	return nil
}

// removeStale removes the blobs that were stale when old became active, and returns those that are
// when next does. A blob that is replaced stays for one revision longer, because a delivery may
// be about to load it.
func (d *Deployer) removeStale(ctx context.Context, old, next *app) []string {
	used := map[string]bool{}
	for _, apps := range d.apps {
		for _, a := range apps {
			for _, b := range a.stored.blobs() {
				used[b] = true
			}
		}
	}
	for _, b := range next.stored.blobs() {
		used[b] = true
	}
	var stale []string
	for _, b := range old.stored.Stale {
		if used[b] {
			continue
		}
		if err := d.cfg.Blobs.Delete(ctx, b); err != nil {
			d.cfg.Logger.WarnContext(ctx, "replaced module not removed; the next apply tries again",
				slog.String("digest", b), slog.Any("error", err))
			stale = append(stale, b)
		}
	}
	kept := next.stored.blobs()
	for _, b := range old.stored.blobs() {
		if !slices.Contains(kept, b) && !slices.Contains(stale, b) {
			stale = append(stale, b)
		}
	}
	return stale
}
