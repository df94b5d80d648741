// Package meter counts what functions use: invocations, time, processor time, memory, bytes. It is what
// a statement for a period is made of.
//
// Counters are kept for each hour (UTC), function, revision and principal. Record is on the way of
// every event and takes one short lock; hours that changed are stored every few seconds and when the
// meter stops, so after a crash at most those few seconds are missing from a statement. What was
// accounted for is not changed by that: the event log is what is exact, and the meter is held to it by
// a test.
//
// It decides nothing and knows no prices. Callers: dispatch (Record), httpapi (Usage), server (Open).
package meter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/ident"
	"sallyport/internal/store"
)

// Bounds of what is kept.
const (
	// Retention is how long hours are kept.
	Retention = 400 * 24 * time.Hour
	// maxKeys bounds the counters of one hour. What comes beyond is counted under Other, so that sums
	// stay right whoever makes up names.
	maxKeys = 10_000
	// storeEvery is how often hours that changed are stored.
	storeEvery = 5 * time.Second
)

// Other stands for the functions and principals that had no room in an hour.
const Other = "(other)"

// Bucket is where hours are kept; store.Bucket is one.
type Bucket interface {
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]store.Entry, error)
}

// Key is what is counted apart in an hour.
type Key struct {
	Function  ident.FunctionName `json:"f"`
	Revision  int                `json:"r"`
	Principal ident.PrincipalID  `json:"p"`
}

// hour is the beginning of an hour, in Unix seconds.
type hour int64

func hourOf(t time.Time) hour { return hour(t.Truncate(time.Hour).Unix()) }

func (h hour) time() time.Time { return time.Unix(int64(h), 0).UTC() }

// key is sorted like the hours are.
func (h hour) key() string { return h.time().Format("2006-01-02T15") }

// row is the stored form of a counter.
type row struct {
	Key
	Counter
}

// Meter counts in one namespace. It is safe for concurrent use.
type Meter struct {
	bucket Bucket
	log    *slog.Logger

	mu      sync.Mutex
	hours   map[hour]map[Key]*Counter
	changed map[hour]bool

	stop    context.CancelFunc
	running sync.WaitGroup
	storing sync.Mutex // one store at a time
}

// Open returns the meter of what bucket holds, and has it store what changes until Close.
func Open(ctx context.Context, bucket Bucket, log *slog.Logger) (*Meter, error) {
	m := &Meter{bucket: bucket, log: log, hours: map[hour]map[Key]*Counter{}, changed: map[hour]bool{}}
	entries, err := bucket.List(ctx, "", "", 0)
	if err != nil {
		return nil, fmt.Errorf("list usage: %w", err)
	}
	for _, e := range entries {
		if err := m.restore(e); err != nil {
			return nil, fmt.Errorf("restore usage of %s: %w", e.Key, err)
		}
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	m.running.Go(func() { m.run(run) })
	return m, nil
}

func (m *Meter) restore(e store.Entry) error {
	at, err := time.Parse("2006-01-02T15", e.Key)
	if err != nil {
		return err
	}
	var rows []row
	if err := json.Unmarshal(e.Value, &rows); err != nil {
		return err
	}
	counters := make(map[Key]*Counter, len(rows))
	for i := range rows {
		counters[rows[i].Key] = &rows[i].Counter
	}
	m.hours[hourOf(at)] = counters
	return nil
}

// Record counts one invocation, at the moment it ended.
func (m *Meter) Record(k Key, at time.Time, inv Invocation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := hourOf(at)
	counters := m.hours[h]
	if counters == nil {
		counters = map[Key]*Counter{}
		m.hours[h] = counters
	}
	c := counters[k]
	if c == nil {
		if len(counters) >= maxKeys {
			k = Key{Function: Other, Principal: Other}
			c = counters[k]
		}
		if c == nil {
			c = &Counter{}
			counters[k] = c
		}
	}
	c.add(&inv)
	m.changed[h] = true
}

// run stores what changed.
func (m *Meter) run(ctx context.Context) {
	tick := time.NewTicker(storeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := m.Store(ctx); err != nil {
				m.log.Warn("usage not stored; it is tried again", "error", err)
			}
		}
	}
}

// Store stores every hour that changed, and removes those that are too old.
func (m *Meter) Store(ctx context.Context) error {
	m.storing.Lock()
	defer m.storing.Unlock()
	var errs []error
	for h, rows := range m.take() {
		text, err := json.Marshal(rows)
		if err == nil {
			err = m.bucket.Put(ctx, h.key(), text)
		}
		if err != nil {
			m.mu.Lock()
			m.changed[h] = true
			m.mu.Unlock()
			errs = append(errs, err)
		}
	}
	for _, h := range m.expired(time.Now()) {
		errs = append(errs, m.bucket.Delete(ctx, h.key()))
	}
	return errors.Join(errs...)
}

// take returns a copy of the hours that changed, and forgets that they did.
func (m *Meter) take() map[hour][]row {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[hour][]row{}
	for h := range m.changed {
		for k, c := range m.hours[h] {
			out[h] = append(out[h], row{k, *c})
		}
	}
	clear(m.changed)
	return out
}

// expired takes the hours that are too old out of memory.
func (m *Meter) expired(now time.Time) []hour {
	m.mu.Lock()
	defer m.mu.Unlock()
	oldest := hourOf(now.Add(-Retention))
	var out []hour
	for h := range m.hours {
		if h < oldest {
			delete(m.hours, h)
			delete(m.changed, h)
			out = append(out, h)
		}
	}
	return out
}

// Close stores what changed. It is idempotent.
func (m *Meter) Close() error {
	m.stop()
	m.running.Wait()
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return m.Store(ctx)
}

// Query selects what a statement is of. Hours are taken whole: those that begin at Since or later, or
// contain it, and begin before Until.
type Query struct {
	Since, Until time.Time
	Function     ident.FunctionName // empty for all
	// By says what is counted apart; the zero value counts all together.
	By By
}

// By is what a statement counts apart.
type By struct{ Function, Revision, Principal bool }

// ParseBy parses a comma-separated list of function, revision and principal.
func ParseBy(s string) (By, error) {
	var b By
	for part := range strings.SplitSeq(s, ",") {
		switch part {
		case "function":
			b.Function = true
		case "revision":
			b.Function, b.Revision = true, true
		case "principal":
			b.Principal = true
		default:
			return By{}, fmt.Errorf("%q is none of function, revision and principal", clip(part))
		}
	}
	return b, nil
}

func clip(s string) string {
	const most = 40
	return s[:min(len(s), most)]
}

// Line is one line of a statement.
type Line struct {
	Key
	Counter
}

// Usage returns the lines of a statement, those that used most processor time first, and their sum.
func (m *Meter) Usage(q Query) (lines []Line, total Counter) {
	sums := m.sum(q)
	for k, c := range sums {
		lines = append(lines, Line{k, *c})
		total.merge(c)
	}
	slices.SortFunc(lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(b.CPU, a.CPU), cmp.Compare(a.Function, b.Function),
			cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Principal, b.Principal))
	})
	return lines, total
}

func (m *Meter) sum(q Query) map[Key]*Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	sums := map[Key]*Counter{}
	for _, h := range slices.Collect(maps.Keys(m.hours)) {
		if h.time().Add(time.Hour).After(q.Since) && (q.Until.IsZero() || h.time().Before(q.Until)) {
			addHour(sums, m.hours[h], q)
		}
	}
	return sums
}

func addHour(sums map[Key]*Counter, counters map[Key]*Counter, q Query) {
	for k, c := range counters {
		if q.Function != "" && k.Function != q.Function {
			continue
		}
		if !q.By.Function {
			k.Function = ""
		}
		if !q.By.Revision {
			k.Revision = 0
		}
		if !q.By.Principal {
			k.Principal = ""
		}
		if sums[k] == nil {
			sums[k] = &Counter{}
		}
		sums[k].merge(c)
	}
}
