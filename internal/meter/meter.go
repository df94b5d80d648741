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
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

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

// Key is what is counted apart in an hour.
type Key struct {
	Function  ident.FunctionName `json:"f"`
	Revision  int                `json:"r"`
	Principal ident.PrincipalID  `json:"p"`
}

// Meter counts in one namespace. It is safe for concurrent use.
type Meter struct {
	hours *store.Sums[Key, Counter]
}

// Open returns the meter of what bucket holds, and has it store what changes until Close.
func Open(ctx context.Context, bucket store.SumsBucket, log *slog.Logger) (*Meter, error) {
	cfg := store.SumsConfig[Key]{What: "usage", Span: time.Hour, Every: storeEvery, Retention: Retention, MaxKeys: maxKeys, Other: Key{Function: Other, Principal: Other}}
	hours, err := store.OpenSums[Key, Counter](ctx, cfg, bucket, log)
	if err != nil {
		return nil, err
	}
	return &Meter{hours: hours}, nil
}

// Record counts one invocation, at the moment it ended.
func (m *Meter) Record(k Key, at time.Time, inv Invocation) {
	m.hours.Add(k, at, func(c *Counter) { c.add(&inv) })
}

// Store stores every hour that changed, and removes those that are too old.
func (m *Meter) Store(ctx context.Context) error { return m.hours.Store(ctx) }

// Close stores what changed. It is idempotent.
func (m *Meter) Close() error { return m.hours.Close() }

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
	sums := map[Key]*Counter{}
	m.hours.Each(q.Since, q.Until, func(_ time.Time, k Key, c *Counter) {
		if q.Function != "" && k.Function != q.Function {
			return
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
	})
	return sums
}
