package eventlog

import (
	"context"
	"errors"
	"sort"
	"time"

	"sallyport/internal/store"
)

// retainEvery is how often retention looks at the log.
const retainEvery = 30 * time.Second

// SetTrimFloor tells the log that deliveries of batches from batch on may not be settled yet:
// retention keeps them. Until the first call it keeps everything.
func (l *Log) SetTrimFloor(batch uint64) {
	l.mu.Lock()
	l.floor = max(l.floor, batch)
	l.mu.Unlock()
}

// retain writes full index segments and trims the log, until ctx ends.
func (l *Log) retain(ctx context.Context) {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.index.full:
			if err := l.index.flush(l.tail.end()); err != nil {
				// The index is derived: without this file the next start reads more of the log.
				l.log.Warn("write event index", "error", err)
			}
		case <-tick.C:
			if err := l.Trim(ctx); err != nil && !errors.Is(err, context.Canceled) {
				l.log.Warn("apply retention", "error", err)
			}
		}
	}
}

// Trim removes the batches that are past the retention's age or size, and settled. The background
// calls it; the last batch always stays, because it carries the count of all events.
func (l *Log) Trim(ctx context.Context) error {
	if l.cfg.RetainAge == 0 && l.cfg.RetainBytes == 0 {
		return nil
	}
	st, err := l.stream.State(ctx)
	if err != nil {
		return err
	}
	before, err := l.pastRetention(ctx, st)
	if err != nil {
		return err
	}
	l.mu.Lock()
	before = min(before, l.floor, st.Last)
	l.mu.Unlock()
	if before <= st.First {
		return nil
	}
	if err := l.stream.Trim(ctx, before); err != nil {
		return err
	}
	l.log.Info("retention removed batches", "from", st.First, "before", before)
	return l.index.trim(before)
}

// pastRetention returns the first batch that is inside the retention.
func (l *Log) pastRetention(ctx context.Context, st store.State) (uint64, error) {
	before := st.First
	if excess := st.Bytes - l.cfg.RetainBytes; l.cfg.RetainBytes > 0 && excess > 0 && st.Messages > 0 {
		// Batches differ in size; the next look removes what this estimate leaves.
		before += uint64(excess/max(1, st.Bytes/st.Messages)) + 1
	}
	if l.cfg.RetainAge == 0 {
		return before, nil
	}
	cutoff := time.Now().Add(-l.cfg.RetainAge)
	var failed error
	n := sort.Search(int(st.Last-before), func(i int) bool {
		if failed != nil {
			return true
		}
		_, at, err := l.stream.Get(ctx, before+uint64(i))
		if errors.Is(err, store.ErrNotFound) {
			return false
		}
		failed = err
		return err != nil || !at.Before(cutoff)
	})
	return before + uint64(n), failed
}
