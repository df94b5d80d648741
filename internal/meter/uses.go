package meter

import (
	"context"
	"log/slog"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/store"
)

// UseKey is what is counted apart of the uses of grants in a day.
type UseKey struct {
	Function ident.FunctionName `json:"f"`
	Revision int                `json:"r"`
	Grant    string             `json:"g"`
	Kind     string             `json:"k"`
}

// Use is one use of a grant.
type Use struct {
	// Failed says that the function got a problem, and Denied that it was a refusal.
	Failed, Denied bool
	Took           time.Duration
	In, Out        int64 // bytes
}

// UseCounter sums uses of grants. Last is when the last one was, to the day in which it is counted. It is stored in one object with
// its UseKey, so no name is in both.
type UseCounter struct {
	Uses   int64     `json:"n"`
	Failed int64     `json:"e,omitzero"`
	Denied int64     `json:"d,omitzero"` // of Failed
	Took   int64     `json:"t"`          // nanoseconds
	In     int64     `json:"i"`
	Out    int64     `json:"o"`
	Last   time.Time `json:"l"`
	// Durations counts uses by how long they took, like those of a Counter.
	Durations [buckets]int64 `json:"h"`
}

// Quantile returns a duration that the given part of the uses, 0 to 1, did not exceed. It is exact to a factor of 2.
func (c *UseCounter) Quantile(part float64) time.Duration {
	return quantile(&c.Durations, c.Uses, part)
}

// Uses counts the uses of grants in one namespace, by days (UTC). It is safe for concurrent use.
type Uses struct {
	days *store.Sums[UseKey, UseCounter]
}

// OpenUses returns the uses that bucket holds, and has what changes stored until Close.
func OpenUses(ctx context.Context, bucket store.SumsBucket, log *slog.Logger) (*Uses, error) {
	cfg := store.SumsConfig[UseKey]{
		What: "uses of grants", Span: 24 * time.Hour, Every: storeEvery, Retention: Retention, MaxKeys: maxKeys, Other: UseKey{Function: Other},
	}
	days, err := store.OpenSums[UseKey, UseCounter](ctx, cfg, bucket, log)
	if err != nil {
		return nil, err
	}
	return &Uses{days: days}, nil
}

// Record counts one use, at the moment it ended.
func (u *Uses) Record(k UseKey, at time.Time, use Use) {
	u.days.Add(k, at, func(c *UseCounter) {
		c.Uses++
		if use.Failed {
			c.Failed++
		}
		if use.Denied {
			c.Denied++
		}
		c.Durations[class(use.Took)]++
		c.Took += int64(use.Took)
		c.In += use.In
		c.Out += use.Out
		c.Last = at.UTC()
	})
}

// Between returns what was counted on the days from since to until, whole days, by function and grant: revisions are taken together.
func (u *Uses) Between(since, until time.Time) map[UseKey]UseCounter {
	sums := map[UseKey]UseCounter{}
	u.days.Each(since, until, func(_ time.Time, k UseKey, c *UseCounter) {
		k.Revision = 0
		sum := sums[k]
		sum.Uses += c.Uses
		sum.Failed += c.Failed
		sum.Denied += c.Denied
		for i, n := range c.Durations {
			sum.Durations[i] += n
		}
		sum.Took += c.Took
		sum.In += c.In
		sum.Out += c.Out
		if c.Last.After(sum.Last) {
			sum.Last = c.Last
		}
		sums[k] = sum
	})
	return sums
}

// Last returns when a function used a grant last; zero when it is not known to have.
func (u *Uses) Last(function ident.FunctionName, grant string) (last time.Time) {
	u.days.Each(time.Time{}, time.Time{}, func(_ time.Time, k UseKey, c *UseCounter) {
		if k.Function == function && k.Grant == grant && c.Last.After(last) {
			last = c.Last
		}
	})
	return last
}

// Close stores what changed. It is idempotent.
func (u *Uses) Close() error { return u.days.Close() }
