package deploy

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/filter"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/schema"
	"sallyport/internal/store"
)

// maxStored bounds an app in the store, in bytes: a value's limit less room for its seal and for the
// positions of its subscriptions, which are known last.
const maxStored = store.MaxPayload - 1<<20

// app is one applied app: its stored form, and what is made from it.
type app struct {
	name          ident.AppName
	stored        stored
	functions     map[ident.FunctionName]*Function
	eventTypes    map[ident.EventType]*EventType
	subscriptions map[ident.SubscriptionName]*Subscription
}

// stored is the form of an app in the store. Everything else is made from it.
type stored struct {
	Manifest  string                    `json:"manifest"`
	Revision  int                       `json:"revision"`
	Functions map[string]storedFunction `json:"functions"`
	Schemas   map[string]string         `json:"schemas"`
	// From holds where each subscription began; Paused the names of those that are paused.
	From   map[string]uint64 `json:"from"`
	Paused []string          `json:"paused,omitempty"`
	// Stale holds the blobs that the revision before had and this one has not.
	Stale []string `json:"stale,omitempty"`
	// Approved is the approval that made this revision active, or the last one before it that did.
	Approved *api.FunctionApproval `json:"approved,omitempty"`
}

type storedFunction struct {
	Module    api.ModuleKind `json:"module"`
	Kind      string         `json:"kind"`
	Blob      string         `json:"blob"`
	SourceMap string         `json:"source_map,omitempty"`
	// Size is of both, in bytes; 0 in what a server before there were quotas stored.
	Size     int64             `json:"size,omitempty"`
	Revision int               `json:"revision"`
	Deployed time.Time         `json:"deployed"`
	By       ident.PrincipalID `json:"by"`
	// Approval is of what the function gained last, when somebody had to approve that.
	Approval *api.FunctionApproval `json:"approval,omitempty"`
}

// blobs returns the digests of all blobs that s names.
func (s *stored) blobs() []string {
	var out []string
	for _, f := range s.Functions {
		out = append(out, f.Blob)
		if f.SourceMap != "" {
			out = append(out, f.SourceMap)
		}
	}
	return out
}

func (s *stored) encode() ([]byte, error) {
	text, err := json.Marshal(s, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode app: %w", err)
	}
	return text, nil
}

// checkSize sees that the app fits into the store.
func checkSize(a *app) error {
	text, err := a.stored.encode()
	if err != nil {
		return err
	}
	if len(text) > maxStored {
		return problem.New(problem.TooLarge, "deploy.app_too_large",
			"the manifest and the schemas of the app take %d bytes, at most %d are allowed", len(text), maxStored).
			WithHint("make it two apps")
	}
	return nil
}

// save stores the app. Whether the caller waits has no bearing on it: a write that was begun is
// brought to its end, so that what is active and what is stored do not differ.
func (d *Deployer) save(ctx context.Context, ns ident.Namespace, a *app) error {
	text, err := a.stored.encode()
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	key := string(ns) + "/" + string(a.name)
	err = d.cfg.Apps.Put(ctx, key, text)
	if err == nil {
		return nil
	}
	if !errors.Is(err, store.ErrStorageFull) {
		// The write may have been made all the same: what is there decides.
		if there, getErr := d.cfg.Apps.Get(ctx, key); getErr == nil && bytes.Equal(there, text) {
			return nil
		}
	}
	return fmt.Errorf("store app: %w", err)
}

// restore reads one stored app back.
func (d *Deployer) restore(e store.Entry) error {
	nsText, name, _ := strings.Cut(e.Key, "/")
	ns := ident.Namespace(nsText)
	if d.apps[ns] == nil {
		d.apps[ns] = map[ident.AppName]*app{}
	}
	if name == "" {
		return nil // the mark of the namespace itself
	}
	a := &app{name: ident.AppName(name)}
	if err := json.Unmarshal(e.Value, &a.stored); err != nil {
		return err
	}
	m, err := manifest.ParseApp(manifestFile, []byte(a.stored.Manifest))
	if err != nil {
		return err
	}
	if err := a.describe(m); err != nil {
		return err
	}
	for n, f := range a.functions {
		f.module = &moduleHandle{
			residents: d.residents, pinned: f.Limits.MinInstances > 0, doors: d.doors(ns, f),
			load: d.loader(f, a.stored.Functions[string(n)]),
		}
	}
	d.apps[ns][a.name] = a
	return nil
}

// loader returns what loads a stored function into memory.
func (d *Deployer) loader(fn *Function, f storedFunction) func(context.Context) (Cell, error) {
	return func(ctx context.Context) (Cell, error) {
		spec := cell.Spec{Name: fn.source, Kind: f.Module, Grants: grantSpecs(fn.Grants)}
		if err := d.fill(ctx, &spec, f); err != nil {
			return nil, err
		}
		return d.cfg.Engine.Load(ctx, spec, fn.Limits)
	}
}

// fill reads what a stored function is made of. The code of a module is left to whoever needs it, since its compiled
// form may be kept.
func (d *Deployer) fill(ctx context.Context, spec *cell.Spec, f storedFunction) (err error) {
	if f.Module == api.ModuleWasm && d.later(spec, f.Blob) {
		return nil
	}
	if spec.Code, err = d.cfg.Blobs.Get(ctx, f.Blob); err != nil {
		return err
	}
	if f.SourceMap != "" {
		spec.SourceMap, err = d.cfg.Blobs.Get(ctx, f.SourceMap)
	}
	return err
}

// later has the code of a module read from the store when it is needed. It reports whether it can be.
func (d *Deployer) later(spec *cell.Spec, blob string) bool {
	sum, err := hex.DecodeString(strings.TrimPrefix(blob, digestScheme))
	if err != nil || len(sum) != len(spec.Digest) {
		return false
	}
	copy(spec.Digest[:], sum)
	spec.Read = func(ctx context.Context) ([]byte, error) { return d.cfg.Blobs.Get(ctx, blob) }
	return true
}

// describe makes the functions, event types and subscriptions of the app from its stored form, of
// which m is the manifest. Functions have no module yet.
func (a *app) describe(m *manifest.App) error {
	a.functions = map[ident.FunctionName]*Function{}
	a.eventTypes = map[ident.EventType]*EventType{}
	a.subscriptions = map[ident.SubscriptionName]*Subscription{}
	for name, f := range m.Functions {
		sf := a.stored.Functions[string(name)]
		uses, reveals := manifest.Secrets(f.Grants)
		a.functions[name] = &Function{
			Name: name, App: a.name, Revision: sf.Revision, Kind: sf.Kind, Digest: sf.Blob,
			Limits: limitsOf(f), Publishes: publishes(f), Secrets: uses, Reveals: reveals, Grants: f.Grants, Deployed: sf.Deployed, By: sf.By, Approval: sf.Approval, source: f.Source,
		}
	}
	for typ, t := range m.EventTypes {
		et := &EventType{App: a.name}
		if t.Schema != "" {
			et.text = a.stored.Schemas[t.Schema]
			var err error
			if et.Schema, err = schema.Compile([]byte(et.text)); err != nil {
				return inFile(err, t.Schema)
			}
		}
		a.eventTypes[typ] = et
	}
	for name, s := range m.Subscriptions {
		sub := &Subscription{
			Name: name, App: a.name, Function: a.functions[s.Function], Filter: s.Filter, WhenText: s.When, Retry: s.Retry,
			From: ident.Position(a.stored.From[string(name)]), Paused: slices.Contains(a.stored.Paused, string(name)),
		}
		if s.When != "" {
			var err error
			if sub.When, err = filter.CompileWhen(s.When); err != nil {
				return inFile(err, manifestFile)
			}
		}
		a.subscriptions[name] = sub
	}
	return nil
}

// limitsOf returns the limits that the manifest gives a function.
func limitsOf(f manifest.Function) cell.Limits {
	return cell.Limits{
		Memory: f.Memory, Timeout: f.Timeout, CPU: f.Limits.CPU,
		Output: int(f.Limits.Output), LogBytes: int(f.Limits.Log), Events: f.Limits.Events, HostCalls: f.Limits.HostCalls,
		MinInstances: f.MinInstances,
	}
}

// publishes returns the event types that the function's grants name, each once, in order.
func publishes(f manifest.Function) []ident.EventType {
	var out []ident.EventType
	for _, g := range f.Grants {
		out = append(out, g.Publish...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
