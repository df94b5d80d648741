package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// spanForm is that of the keys in the bucket, the beginning of a span: sorted like the spans are. What does not fit into
// one entry goes on in others, with a dot and a number after it.
const spanForm = "2006-01-02T15"

// sumsEntry is how long an entry becomes before another is begun, in bytes.
const sumsEntry = 1 << 20

// SumsBucket is where sums are kept; Bucket is one.
type SumsBucket interface {
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]Entry, error)
}

// SumsConfig says what is kept of Sums.
type SumsConfig[K comparable] struct {
	// What names what is summed, in messages.
	What string
	// Span is how long what is summed together may be apart: an hour or a day (UTC).
	Span time.Duration
	// Every is how often what changed is stored: all of its span.
	Every time.Duration
	// Retention is how long a span is kept.
	Retention time.Duration
	// MaxKeys bounds the sums of a span. What comes beyond goes to Other, so that totals stay right whoever
	// makes up names.
	MaxKeys int
	Other   K
	// Before, which may be nil, is called before sums are stored: it is the time to add what was kept back.
	Before func()
}

// Sums keeps sums of what happens, one for each span of time and key, in memory and in a bucket. Spans that
// changed are stored now and then, and by Close: after a crash what came since is missing. Key and
// sum are structs, stored as one JSON object. It is safe for concurrent use.
type Sums[K comparable, V any] struct {
	cfg    SumsConfig[K]
	bucket SumsBucket
	log    *slog.Logger

	mu      sync.Mutex
	spans   map[int64]map[K]*V // by their beginning, in Unix seconds
	changed map[int64]bool

	stop    context.CancelFunc
	running sync.WaitGroup
	storing sync.Mutex    // one store at a time
	entries map[int64]int // of a span in the bucket; guarded by storing
}

// sumRow is the stored form of a sum.
type sumRow[K comparable, V any] struct {
	Key K `json:",embed"`
	Sum V `json:",embed"`
}

func (h *Sums[K, V]) spanOf(t time.Time) int64 { return t.Truncate(h.cfg.Span).Unix() }

func spanTime(span int64) time.Time { return time.Unix(span, 0).UTC() }

// entryKey returns the key of the n-th entry of a span.
func entryKey(span int64, n int) string {
	key := spanTime(span).Format(spanForm)
	if n > 0 {
		key += "." + strconv.Itoa(n)
	}
	return key
}

// OpenSums returns the sums in bucket, and has what changes stored until Close.
func OpenSums[K comparable, V any](ctx context.Context, cfg SumsConfig[K], bucket SumsBucket, log *slog.Logger) (*Sums[K, V], error) {
	h := &Sums[K, V]{cfg: cfg, bucket: bucket, log: log, spans: map[int64]map[K]*V{}, changed: map[int64]bool{}, entries: map[int64]int{}}
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

func (h *Sums[K, V]) restore(e Entry) error {
	text, number, _ := strings.Cut(e.Key, ".")
	at, err := time.Parse(spanForm, text)
	if err != nil {
		return err
	}
	n := 0
	if number != "" {
		if n, err = strconv.Atoi(number); err != nil {
			return err
		}
	}
	var rows []sumRow[K, V]
	if err := json.Unmarshal(e.Value, &rows); err != nil {
		return err
	}
	span := h.spanOf(at)
	if h.spans[span] == nil {
		h.spans[span] = make(map[K]*V, len(rows))
	}
	for i := range rows {
		h.spans[span][rows[i].Key] = &rows[i].Sum
	}
	h.entries[span] = max(h.entries[span], n+1)
	return nil
}

// Add has add change the sum of a key in the span of at; it gets the zero V the first time.
func (h *Sums[K, V]) Add(k K, at time.Time, add func(sum *V)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	span := h.spanOf(at)
	sums := h.spans[span]
	if sums == nil {
		sums = map[K]*V{}
		h.spans[span] = sums
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
	h.changed[span] = true
}

// Remove forgets the sums of the keys that gone reports, in every span. They are gone from the bucket with the next
// Store.
func (h *Sums[K, V]) Remove(gone func(K) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for span, sums := range h.spans {
		for k := range sums {
			if gone(k) {
				delete(sums, k)
				h.changed[span] = true
			}
		}
	}
}

// Each calls do with every sum of the spans that begin at since or later, or contain it, and begin before until,
// which may be zero. do MUST NOT change the sum, keep it, or call h.
func (h *Sums[K, V]) Each(since, until time.Time, do func(span time.Time, k K, sum *V)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for span, sums := range h.spans {
		at := spanTime(span)
		if !at.Add(h.cfg.Span).After(since) || !until.IsZero() && !at.Before(until) {
			continue
		}
		for k, sum := range sums {
			do(at, k, sum)
		}
	}
}

// run stores what changed.
func (h *Sums[K, V]) run(ctx context.Context) {
	tick := time.NewTicker(h.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := h.Store(ctx); err != nil {
				h.log.Warn("sums not stored; it is tried again", "what", h.cfg.What, "error", err)
			}
		}
	}
}

// Store stores every span that changed, and removes those that are too old.
func (h *Sums[K, V]) Store(ctx context.Context) error {
	h.storing.Lock()
	defer h.storing.Unlock()
	if h.cfg.Before != nil {
		h.cfg.Before()
	}
	var errs []error
	for span, rows := range h.take() {
		if err := h.storeSpan(ctx, span, rows); err != nil {
			h.mu.Lock()
			h.changed[span] = true
			h.mu.Unlock()
			errs = append(errs, err)
		}
	}
	for _, span := range h.expired(time.Now()) {
		errs = append(errs, h.remove(ctx, span, 0))
	}
	return errors.Join(errs...)
}

// storeSpan stores the rows of a span, in as many entries as they need. storing is held.
func (h *Sums[K, V]) storeSpan(ctx context.Context, span int64, rows []sumRow[K, V]) error {
	entry, n := []byte{'['}, 0
	put := func() error {
		h.entries[span] = max(h.entries[span], n+1)
		err := h.bucket.Put(ctx, entryKey(span, n), append(entry, ']'))
		entry, n = []byte{'['}, n+1
		return err
	}
	for i := range rows {
		text, err := json.Marshal(&rows[i])
		if err != nil {
			return err
		}
		if len(entry) > 1 && len(entry)+len(text) > sumsEntry {
			if err := put(); err != nil {
				return err
			}
		}
		if len(entry) > 1 {
			entry = append(entry, ',')
		}
		entry = append(entry, text...)
	}
	return errors.Join(put(), h.remove(ctx, span, n))
}

// remove removes the entries of a span from the n-th on. storing is held.
func (h *Sums[K, V]) remove(ctx context.Context, span int64, n int) error {
	for ; h.entries[span] > n; h.entries[span]-- {
		if err := h.bucket.Delete(ctx, entryKey(span, h.entries[span]-1)); err != nil {
			return err
		}
	}
	if n == 0 {
		delete(h.entries, span)
	}
	return nil
}

// take returns a copy of the spans that changed, and forgets that they did. What a sum refers to is not
// copied: add MUST replace it, not change it.
func (h *Sums[K, V]) take() map[int64][]sumRow[K, V] {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[int64][]sumRow[K, V]{}
	for span := range h.changed {
		out[span] = []sumRow[K, V]{} // also when everything in it was removed
		for k, sum := range h.spans[span] {
			out[span] = append(out[span], sumRow[K, V]{k, *sum})
		}
	}
	clear(h.changed)
	return out
}

// expired takes the spans that are too old out of memory.
func (h *Sums[K, V]) expired(now time.Time) []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	oldest := h.spanOf(now.Add(-h.cfg.Retention))
	var out []int64
	for span := range h.spans {
		if span < oldest {
			delete(h.spans, span)
			delete(h.changed, span)
			out = append(out, span)
		}
	}
	return out
}

// Close stores what changed. It is idempotent.
func (h *Sums[K, V]) Close() error {
	h.stop()
	h.running.Wait()
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.Store(ctx)
}
