package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// hourForm is that of the keys in the bucket: sorted like the hours are.
const hourForm = "2006-01-02T15"

// storeEvery is how often hours that changed are stored.
const storeEvery = 5 * time.Second

// HoursBucket is where hours are kept; Bucket is one.
type HoursBucket interface {
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]Entry, error)
}

// HoursConfig says what is kept of Hours.
type HoursConfig[K comparable] struct {
	// What names what is summed, in messages.
	What string
	// Retention is how long an hour is kept.
	Retention time.Duration
	// MaxKeys bounds the sums of an hour. What comes beyond goes to Other, so that totals stay right whoever
	// makes up names.
	MaxKeys int
	Other   K
	// Before, which may be nil, is called before hours are stored: it is the time to add what was kept back.
	Before func()
}

// Hours keeps sums of what happens, one for each hour (UTC) and key, in memory and in a bucket. Hours that
// changed are stored every few seconds and by Close: after a crash those few seconds are missing. Key and
// sum are structs, stored as one JSON object. It is safe for concurrent use.
type Hours[K comparable, V any] struct {
	cfg    HoursConfig[K]
	bucket HoursBucket
	log    *slog.Logger

	mu      sync.Mutex
	hours   map[int64]map[K]*V // by their beginning, in Unix seconds
	changed map[int64]bool

	stop    context.CancelFunc
	running sync.WaitGroup
	storing sync.Mutex // one store at a time
}

// hourRow is the stored form of a sum.
type hourRow[K comparable, V any] struct {
	Key K `json:",embed"`
	Sum V `json:",embed"`
}

func hourOf(t time.Time) int64 { return t.Truncate(time.Hour).Unix() }

func hourTime(h int64) time.Time { return time.Unix(h, 0).UTC() }

// OpenHours returns the hours in bucket, and has what changes stored until Close.
func OpenHours[K comparable, V any](ctx context.Context, cfg HoursConfig[K], bucket HoursBucket, log *slog.Logger) (*Hours[K, V], error) {
	h := &Hours[K, V]{cfg: cfg, bucket: bucket, log: log, hours: map[int64]map[K]*V{}, changed: map[int64]bool{}}
	entries, err := bucket.List(ctx, "", "", 0)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", cfg.What, err)
	}
	for _, e := range entries {
		if err := h.restore(e); err != nil {
			return nil, fmt.Errorf("restore %s of %s: %w", cfg.What, e.Key, err)
		}
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop = stop
	h.running.Go(func() { h.run(run) })
	return h, nil
}

func (h *Hours[K, V]) restore(e Entry) error {
	at, err := time.Parse(hourForm, e.Key)
	if err != nil {
		return err
	}
	var rows []hourRow[K, V]
	if err := json.Unmarshal(e.Value, &rows); err != nil {
		return err
	}
	sums := make(map[K]*V, len(rows))
	for i := range rows {
		sums[rows[i].Key] = &rows[i].Sum
	}
	h.hours[hourOf(at)] = sums
	return nil
}

// Add has add change the sum of a key in the hour of at; it gets the zero V the first time.
func (h *Hours[K, V]) Add(k K, at time.Time, add func(sum *V)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hour := hourOf(at)
	sums := h.hours[hour]
	if sums == nil {
		sums = map[K]*V{}
		h.hours[hour] = sums
	}
	sum := sums[k]
	if sum == nil && len(sums) >= h.cfg.MaxKeys {
		k = h.cfg.Other
		sum = sums[k]
	}
	if sum == nil {
		sum = new(V)
		sums[k] = sum
	}
	add(sum)
	h.changed[hour] = true
}

// Each calls do with every sum of the hours that begin at since or later, or contain it, and begin before until,
// which may be zero. do MUST NOT change the sum, keep it, or call h.
func (h *Hours[K, V]) Each(since, until time.Time, do func(hour time.Time, k K, sum *V)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for hour, sums := range h.hours {
		at := hourTime(hour)
		if !at.Add(time.Hour).After(since) || !until.IsZero() && !at.Before(until) {
			continue
		}
		for k, sum := range sums {
			do(at, k, sum)
		}
	}
}

// run stores what changed.
func (h *Hours[K, V]) run(ctx context.Context) {
	tick := time.NewTicker(storeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := h.Store(ctx); err != nil {
				h.log.Warn("hours not stored; it is tried again", "what", h.cfg.What, "error", err)
			}
		}
	}
}

// Store stores every hour that changed, and removes those that are too old.
func (h *Hours[K, V]) Store(ctx context.Context) error {
	h.storing.Lock()
	defer h.storing.Unlock()
	if h.cfg.Before != nil {
		h.cfg.Before()
	}
	var errs []error
	for hour, rows := range h.take() {
		text, err := json.Marshal(rows)
		if err == nil {
			err = h.bucket.Put(ctx, hourTime(hour).Format(hourForm), text)
		}
		if err != nil {
			h.mu.Lock()
			h.changed[hour] = true
			h.mu.Unlock()
			errs = append(errs, err)
		}
	}
	for _, hour := range h.expired(time.Now()) {
		errs = append(errs, h.bucket.Delete(ctx, hourTime(hour).Format(hourForm)))
	}
	return errors.Join(errs...)
}

// take returns a copy of the hours that changed, and forgets that they did. What a sum refers to is not
// copied: add MUST replace it, not change it.
func (h *Hours[K, V]) take() map[int64][]hourRow[K, V] {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[int64][]hourRow[K, V]{}
	for hour := range h.changed {
		for k, sum := range h.hours[hour] {
			out[hour] = append(out[hour], hourRow[K, V]{k, *sum})
		}
	}
	clear(h.changed)
	return out
}

// expired takes the hours that are too old out of memory.
func (h *Hours[K, V]) expired(now time.Time) []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	oldest := hourOf(now.Add(-h.cfg.Retention))
	var out []int64
	for hour := range h.hours {
		if hour < oldest {
			delete(h.hours, hour)
			delete(h.changed, hour)
			out = append(out, hour)
		}
	}
	return out
}

// Close stores what changed. It is idempotent.
func (h *Hours[K, V]) Close() error {
	h.stop()
	h.running.Wait()
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.Store(ctx)
}
