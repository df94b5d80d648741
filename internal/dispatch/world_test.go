package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/deploy"
	"sallyport/internal/dispatch"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

var errDisk = errors.New("disk is gone")

// plan is what a delivery comes to. It stands in the data of an event, by subscription.
type plan struct {
	Takes time.Duration `json:"takes,omitempty"`
	Fails int           `json:"fails,omitempty"` // so many attempts; -1 for every one
	Code  string        `json:"code,omitempty"`  // of the failure
	Final bool          `json:"final,omitempty"` // the function says that it is useless to try again
	Later time.Duration `json:"later,omitempty"` // the function asks for this pause
}

// world is all that outlives a dispatcher: the event log, the journal and the buckets, in memory.
// It is also the emitter: functions do nothing, and what came of them is decided in Emit.
type world struct {
	t        *testing.T
	deployer *deploy.Deployer

	mu       sync.Mutex
	batches  []*eventlog.Batch
	more     chan struct{}
	trimmed  uint64 // batches up to here are gone
	floor    uint64 // as the dispatcher said
	logErr   error  // of Batch
	reads    int    // calls of Batch
	journal  [][][]byte
	frozen   bool // nothing is written any more
	twice    bool // appends are made, and fail all the same, once
	appends  int
	buckets  map[string]map[string][]byte
	attempts map[string]int      // by position and subscription
	running  map[string]int      // by function
	most     map[string]int      // at once, by function
	outcomes map[string][]string // as Attempted said
	full     bool                // as Full says

	d    *dispatch.Dispatcher
	stop func()
}

func newWorld(t *testing.T, manifest string) *world {
	t.Helper()
	w := &world{
		t: t, more: make(chan struct{}), buckets: map[string]map[string][]byte{"apps": {}, "blobs": {}, "snapshots": {}, "letters": {}},
		attempts: map[string]int{}, running: map[string]int{}, most: map[string]int{}, outcomes: map[string][]string{},
	}
	cfg := cell.Default()
	cfg.CompileWorkers = 1
	engine, err := cell.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	w.deployer, err = deploy.New(t.Context(), deploy.Config{
		Apps: bucket{w, "apps"}, Blobs: blobs{bucket{w, "blobs"}}, Namespaces: anyNamespace{}, Engine: deploy.InProcess(engine), Memory: 1 << 30,
		End: func(context.Context, ident.Namespace) (ident.Position, error) { return 0, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.apply(manifest)
	return w
}

// doNothing is a WASI command that returns at once.
var doNothing = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type 0: func()
	"\x03\x02\x01\x00" + // function 0 is of type 0
	"\x05\x03\x01\x00\x01" + // memory 0 of one page
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" + // both exported
	"\x0a\x04\x01\x02\x00\x0b") // function 0 returns

// apply makes manifest the app; each line `[functions.NAME]` gets a function that does nothing.
func (w *world) apply(manifest string) {
	w.t.Helper()
	b := &api.Bundle{Manifest: manifest, Modules: map[string]api.Module{}}
	for line := range strings.Lines(manifest) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "[functions."); ok {
			b.Modules[strings.TrimSuffix(name, "]")] = api.Module{Kind: api.ModuleWasm, Code: doNothing}
		}
	}
	if _, err := w.deployer.Apply(w.t.Context(), "token:t", "default", b, false, nil); err != nil {
		w.t.Fatal(err)
	}
	if w.d != nil {
		w.d.Changed()
	}
}

// start opens a dispatcher on what there is and runs it.
func (w *world) start() *dispatch.Dispatcher {
	w.t.Helper()
	d, err := dispatch.New(w.t.Context(), w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	w.d = d
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
		w.d, w.stop = nil, func() {}
	}
	return d
}

func (w *world) config() dispatch.Config {
	return dispatch.Config{
		Namespace: "default", Log: eventLog{w}, Journal: journal{w}, Snapshots: bucket{w, "snapshots"},
		DeadLetters: bucket{w, "letters"}, Emitter: w, Lines: noLines{},
		State: func() *deploy.State { return w.deployer.State("default") }, Workers: 8,
		Full: func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.full
		},
		Attempted: func(outcome string, _ time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.outcomes[outcome] = append(w.outcomes[outcome], outcome)
		},
	}
}

// crash ends the dispatcher with nothing more written.
func (w *world) crash() {
	w.set(func() { w.frozen = true })
	w.stop()
	w.set(func() { w.frozen = false })
}

func (w *world) restart() *dispatch.Dispatcher {
	w.t.Helper()
	w.stop()
	return w.start()
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// accept appends one batch of events of type job.made, one for each text of data.
func (w *world) accept(data ...string) []ident.Position {
	var recs []event.Record
	for _, text := range data {
		recs = append(recs, event.Record{Event: event.Event{Type: "job.made", Data: []byte(text)}})
	}
	return w.append(recs...)
}

func (w *world) append(recs ...event.Record) []ident.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	seq := uint64(len(w.batches) + 1)
	var out []ident.Position
	for i := range recs {
		r := &recs[i]
		r.Position, r.AcceptedAt = ident.NewPosition(seq, i), time.Now().UTC()
		r.ID, r.Source = fmt.Sprint("e-", r.Position), "/test"
		r.DataKind, r.DataContentType, r.Principal = event.DataJSON, "application/json", "token:t"
		out = append(out, r.Position)
	}
	w.batches = append(w.batches, &eventlog.Batch{Seq: seq, Records: recs})
	close(w.more)
	w.more = make(chan struct{})
	return out
}

// balance counts events, and sees that the three counts are those of all that were accepted.
func (w *world) balance() (done, dead, pending int64) {
	w.t.Helper()
	synctest.Wait()
	b := w.d.Balance()
	w.mu.Lock()
	batches := slices.Clone(w.batches)
	w.mu.Unlock()
	var accepted int64
	states := map[api.EventState]int64{}
	for _, bt := range batches {
		for i := range bt.Records {
			accepted++
			states[w.d.State(bt.Records[i].Position)]++
		}
	}
	pending = states[api.StatePending]
	if accepted != b.Done+b.Dead+pending {
		w.t.Errorf("Balance() = %+v; want it to sum up to %d with %d pending", b, accepted, pending)
	}
	return b.Done, b.Dead, pending
}

func (w *world) wantBalance(done, dead, pending int64) {
	w.t.Helper()
	gotDone, gotDead, gotPending := w.balance()
	if gotDone != done || gotDead != dead || gotPending != pending {
		w.t.Errorf("events: %d done, %d dead, %d pending; want %d, %d, %d", gotDone, gotDead, gotPending, done, dead, pending)
	}
}

// Emit implements dispatch.Emitter: it does what the event's data says of the delivery.
func (w *world) Emit(ctx context.Context, em ingress.Emission) ([]string, error) {
	plans := map[ident.SubscriptionName]plan{}
	if err := json.Unmarshal(em.Cause.Data, &plans); err != nil {
		return nil, err
	}
	p := plans[em.Delivery]
	key, fn := fmt.Sprint(em.Cause.Position, " ", em.Delivery), string(em.Function.Name)
	w.mu.Lock()
	w.attempts[key]++
	n := w.attempts[key]
	w.running[fn]++
	w.most[fn] = max(w.most[fn], w.running[fn])
	w.mu.Unlock()
	defer w.set(func() { w.running[fn]-- })
	if p.Takes > 0 {
		select {
		case <-time.After(p.Takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if p.Fails < 0 || n <= p.Fails {
		code := p.Code
		if code == "" {
			code = "cell.function_failed"
		}
		err := problem.New(problem.FunctionFailed, code, "failure %d", n).WithRetryAfter(p.Later)
		if p.Final {
			err = err.WithCause(&cell.Failure{Message: err.Public, Final: true})
		}
		return nil, err
	}
	return nil, nil
}

func (w *world) attemptsAt(pos ident.Position, sub string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.attempts[fmt.Sprint(pos, " ", sub)]
}

type eventLog struct{ *world }

func (w eventLog) Next(ctx context.Context, after uint64) (*eventlog.Batch, error) {
	for {
		w.mu.Lock()
		more := w.more
		if after = max(after, w.trimmed); after < uint64(len(w.batches)) {
			b := w.batches[after]
			w.mu.Unlock()
			return b, nil
		}
		w.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w eventLog) Batch(_ context.Context, seq uint64) (*eventlog.Batch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	switch {
	case w.logErr != nil:
		return nil, w.logErr
	case seq <= w.trimmed:
		return nil, eventlog.ErrTrimmed
	}
	return w.batches[seq-1], nil
}

func (w eventLog) SetTrimFloor(batch uint64) { w.set(func() { w.world.floor = batch }) }

type journal struct{ *world }

func (w journal) Append(_ context.Context, recs [][]byte) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen {
		return 0, errDisk
	}
	kept := make([][]byte, len(recs))
	for i := range recs {
		kept[i] = bytes.Clone(recs[i])
	}
	w.world.journal = append(w.world.journal, kept)
	w.appends++
	if w.twice {
		w.twice = false
		return 0, errDisk
	}
	return uint64(len(w.world.journal)), nil
}

func (w journal) Read(_ context.Context, from uint64, fn func(uint64, [][]byte) error) error {
	w.mu.Lock()
	all := slices.Clone(w.world.journal)
	w.mu.Unlock()
	for i := int(max(from, 1)) - 1; i < len(all); i++ {
		if err := fn(uint64(i+1), all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w journal) Trim(context.Context, uint64) error { return nil }

// anyNamespace has every namespace there is.
type anyNamespace struct{}

func (anyNamespace) Ensure(context.Context, ident.Namespace) error { return nil }

// bucket is a store.Bucket; frozen spares the deployer's.
type bucket struct {
	*world
	name string
}

func (w bucket) Get(_ context.Context, key string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v, ok := w.buckets[w.name][key]; ok {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (w bucket) Put(_ context.Context, key string, value []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen {
		return errDisk
	}
	w.buckets[w.name][key] = bytes.Clone(value)
	if w.name == "letters" {
		// Whoever waits to remove it gets a chance.
		w.mu.Unlock()
		for range 100 {
			runtime.Gosched()
		}
		w.mu.Lock()
	}
	return nil
}

func (w bucket) Create(ctx context.Context, key string, value []byte) error {
	return w.Put(ctx, key, value)
}

func (w bucket) Delete(_ context.Context, key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen {
		return errDisk
	}
	delete(w.buckets[w.name], key)
	return nil
}

func (w bucket) List(_ context.Context, prefix, after string, limit int) ([]store.Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []store.Entry
	for _, k := range slices.Sorted(maps.Keys(w.buckets[w.name])) {
		if strings.HasPrefix(k, prefix) && k > after && (limit == 0 || len(out) < limit) {
			out = append(out, store.Entry{Key: k, Value: w.buckets[w.name][k]})
		}
	}
	return out, nil
}

// blobs names content by its own text: modules are all the same here.
type blobs struct{ bucket }

func (b blobs) Put(ctx context.Context, content []byte) (string, error) { return "", nil }

func (b blobs) Get(context.Context, string) ([]byte, error) { return doNothing, nil }

func (b blobs) Delete(context.Context, string) error { return nil }

type noLines struct{}

func (noLines) Append(api.LogLine) {}
