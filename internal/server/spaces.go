package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"sallyport/internal/deploy"
	"sallyport/internal/dispatch"
	"sallyport/internal/eventlog"
	"sallyport/internal/funclog"
	"sallyport/internal/httpapi"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/meter"
	"sallyport/internal/namespace"
)

// space is what works in one namespace: its event log, its dispatcher, its function logs.
type space struct {
	Log      *eventlog.Log
	Dispatch *dispatch.Dispatcher
	Lines    *funclog.Logs
	ns       ident.Namespace
	stop     context.CancelFunc
	running  sync.WaitGroup
	meter    *meter.Meter
	uses     *meter.Uses
	journal  *eventlog.Journal
	lines    *eventlog.Journal
}

// spaces opens the space of a namespace when it is first asked for.
type spaces struct {
	server *server
	intake *ingress.Intake
	budget *dispatch.Budget // of all namespaces together

	mu     sync.RWMutex
	byName map[ident.Namespace]*space
}

func newSpaces(s *server) *spaces {
	budget := dispatch.NewBudget(0)
	if s.cells.wall != nil {
		budget = dispatch.NewApartBudget(0)
	}
	return &spaces{server: s, budget: budget, byName: map[ident.Namespace]*space{}}
}

// open returns the space of ns as the API uses it.
func (x *spaces) open(ns ident.Namespace) (*httpapi.Space, error) {
	sp, err := x.get(ns)
	if err != nil {
		return nil, err
	}
	return &httpapi.Space{Log: sp.Log, Dispatch: sp.Dispatch, Lines: sp.Lines, Usage: sp.meter, Grants: sp.uses}, nil
}

// get returns the space of a namespace that exists.
func (x *spaces) get(ns ident.Namespace) (*space, error) {
	x.mu.RLock()
	sp := x.byName[ns]
	x.mu.RUnlock()
	if sp != nil {
		return sp, nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.server.registry.Exists(ns) { // asked under the lock that its deletion takes the space away under
		return nil, namespace.NotFound(ns)
	}
	if sp := x.byName[ns]; sp != nil {
		return sp, nil
	}
	// Not the request's context: the space outlives the request that was the first to need it.
	sp, err := x.start(context.Background(), ns)
	if err != nil {
		return nil, fmt.Errorf("open namespace %q: %w", ns, err)
	}
	x.byName[ns] = sp
	return sp, nil
}

// start opens and runs the parts of a namespace.
func (x *spaces) start(ctx context.Context, ns ident.Namespace) (sp *space, err error) {
	s := x.server
	sp = &space{ns: ns, stop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, sp.close())
		}
	}()
	cfg := eventlog.DefaultConfig()
	cfg.DuplicateWindow = s.cfg.Settings.Events.DuplicateWindow
	cfg.RetainAge, cfg.RetainBytes = s.cfg.Settings.Events.RetainAge, s.cfg.Settings.Events.RetainBytes
	cfg.IndexDir = filepath.Join(s.dir, indexName, string(ns))
	cfg.Logger, cfg.Committed = s.log, s.metrics.Committed(string(ns))
	if sp.Log, err = eventlog.Open(ctx, s.engine, s.keys, ns, cfg); err != nil {
		return sp, err
	}
	if sp.lines, err = eventlog.OpenJournal(ctx, s.engine, s.keys, ns, linesJournal, s.log); err != nil {
		return sp, err
	}
	sp.Lines = funclog.Open(sp.lines, s.log)
	if sp.journal, err = eventlog.OpenJournal(ctx, s.engine, s.keys, ns, deliveriesJournal, s.log); err != nil {
		return sp, err
	}
	snapshots, err := s.bucket(ctx, ns, dispatchBucket)
	if err != nil {
		return sp, err
	}
	letters, err := s.bucket(ctx, ns, deadLettersBucket)
	if err != nil {
		return sp, err
	}
	used, err := s.bucket(ctx, ns, usageBucket)
	if err != nil {
		return sp, err
	}
	if sp.meter, err = meter.Open(ctx, used, s.log); err != nil {
		return sp, err
	}
	grantUses, err := s.bucket(ctx, ns, grantUsesBucket)
	if err != nil {
		return sp, err
	}
	if sp.uses, err = meter.OpenUses(ctx, grantUses, s.log); err != nil {
		return sp, err
	}
	sp.Dispatch, err = dispatch.New(ctx, dispatch.Config{
		Namespace: ns, Log: sp.Log, Journal: sp.journal, Snapshots: snapshots, DeadLetters: letters,
		CanDeliver: func(t ident.EventType, f ident.FunctionName) error { return s.guard.CanDeliver(ns, t, f) },
		Full:       func() bool { return s.registry.Full(ns) },
		Emitter:    x.intake, Redactor: s.redactor(ns), Lines: sp.Lines, State: func() *deploy.State { return s.deployer.State(ns) },
		Workers: s.cfg.Settings.Limits.Workers, Budget: x.budget, Logger: s.log, Attempted: s.metrics.Attempted(string(ns)),
		Used: sp.used(s.metrics.Invoked(string(ns))), Past: sp.past(time.Now()), Moved: s.cfg.Moved,
	})
	if err != nil {
		return sp, err
	}
	run, stop := context.WithCancel(ctx)
	sp.stop = stop
	sp.running.Go(func() {
		if err := sp.Dispatch.Run(run); err != nil {
			s.log.Error("dispatcher ended", "namespace", string(ns), "error", err)
		}
	})
	return sp, nil
}

// lately is how far back it is looked who is heavy, and who is to be loaded first.
const lately = 24 * time.Hour

// invoked returns how often the functions of a namespace were invoked lately.
func (x *spaces) invoked(ns ident.Namespace) map[ident.FunctionName]int64 {
	x.mu.RLock()
	sp := x.byName[ns]
	x.mu.RUnlock()
	if sp == nil {
		return nil
	}
	lines, _ := sp.meter.Usage(meter.Query{Since: time.Now().Add(-lately), By: meter.By{Function: true}})
	out := make(map[ident.FunctionName]int64, len(lines))
	for i := range lines {
		out[lines[i].Function] = int64(lines[i].Invocations())
	}
	return out
}

// past returns what the attempts of each function took lately, so that a restart does not forget who is heavy.
func (sp *space) past(now time.Time) map[ident.FunctionName]dispatch.Past {
	lines, _ := sp.meter.Usage(meter.Query{Since: now.Add(-lately), By: meter.By{Function: true}})
	out := make(map[ident.FunctionName]dispatch.Past, len(lines))
	for i := range lines {
		n := max(1, lines[i].Invocations())
		out[lines[i].Function] = dispatch.Past{CPU: time.Duration(lines[i].CPU / n), Wall: time.Duration(lines[i].Wall / n)}
	}
	return out
}

// used returns what is to be told of each invocation.
func (sp *space) used(invoked func(function, outcome string, cold bool, took time.Duration)) func(dispatch.Use) {
	outcomes := map[string]meter.Outcome{"done": meter.Done, "retry": meter.Failed, "dead": meter.Dead}
	return func(u dispatch.Use) {
		sp.meter.Record(meter.Key{Function: u.Function, Revision: u.Revision, Principal: u.Principal}, u.At, meter.Invocation{
			Outcome: outcomes[u.Outcome], Cold: u.Usage.Cold, Wall: u.Usage.Duration, CPU: u.Usage.CPU,
			MemoryPeak: u.Usage.MemoryPeak, BytesIn: u.Usage.BytesIn, BytesOut: u.Usage.BytesOut,
		})
		invoked(string(u.Function), u.Outcome, u.Usage.Cold, u.Usage.Duration)
	}
}

// close stops the space's parts, those that write before those that are written to.
func (sp *space) close() error {
	sp.stop()
	sp.running.Wait()
	var errs []error
	if sp.meter != nil {
		errs = append(errs, sp.meter.Close())
	}
	if sp.uses != nil {
		errs = append(errs, sp.uses.Close())
	}
	if sp.Lines != nil {
		errs = append(errs, sp.Lines.Close())
	}
	if sp.lines != nil {
		errs = append(errs, sp.lines.Close())
	}
	if sp.journal != nil {
		errs = append(errs, sp.journal.Close())
	}
	if sp.Log != nil {
		errs = append(errs, sp.Log.Close())
	}
	return errors.Join(errs...)
}

// all returns the spaces that are open.
func (x *spaces) all() []*space {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]*space, 0, len(x.byName))
	for _, sp := range x.byName {
		out = append(out, sp)
	}
	return out
}

// take closes the space of ns, if it is open, and takes it away: it is not opened again while ns does not exist.
func (x *spaces) take(ns ident.Namespace) error {
	x.mu.Lock()
	sp := x.byName[ns]
	delete(x.byName, ns)
	x.mu.Unlock()
	if sp == nil {
		return nil
	}
	return sp.close()
}

// end returns where the event log of ns ends.
func (x *spaces) end(_ context.Context, ns ident.Namespace) (ident.Position, error) {
	sp, err := x.get(ns)
	if err != nil {
		return 0, err
	}
	return sp.Log.End(), nil
}

// changed tells the dispatcher of ns that its apps have changed.
func (x *spaces) changed(ns ident.Namespace) {
	x.mu.RLock()
	sp := x.byName[ns]
	x.mu.RUnlock()
	if sp != nil {
		sp.Dispatch.Changed()
	}
}

// stop ends all dispatchers and waits for them.
func (x *spaces) stop() {
	all := x.all()
	for _, sp := range all {
		sp.stop()
	}
	for _, sp := range all {
		sp.running.Wait()
	}
}

func (x *spaces) close() error {
	var errs []error
	for _, sp := range x.all() {
		errs = append(errs, sp.close())
	}
	return errors.Join(errs...)
}
