package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/internal/event"
	"sallyport/internal/ident"
	"sallyport/internal/store"
)

// recover brings the index to the end of the log and fills the duplicate window from it.
func (l *Log) recover(ctx context.Context) (store.State, error) {
	if err := os.MkdirAll(l.cfg.IndexDir, 0o700); err != nil {
		return store.State{}, err
	}
	st, err := l.stream.State(ctx)
	if err != nil {
		return st, err
	}
	l.index.rescan = l.scan
	if err := l.recoverTotal(ctx, st); err != nil {
		return st, err
	}
	if err := l.recoverIndex(ctx, st); err != nil {
		return st, err
	}
	return st, l.fillWindow(ctx)
}

// recoverTotal reads how many events were ever accepted from the last batch.
func (l *Log) recoverTotal(ctx context.Context, st store.State) error {
	if st.Last == 0 || st.Last < st.First {
		return nil
	}
	payload, _, err := l.stream.Get(ctx, st.Last)
	if err != nil {
		return err
	}
	_, l.counted, err = l.book.openBatch(st.Last, payload)
	return err
}

// recoverIndex adopts the index files that lie inside the log, in order and without overlap, and
// scans the log for every range that none covers.
func (l *Log) recoverIndex(ctx context.Context, st store.State) error {
	segs, err := l.segmentFiles()
	if err != nil {
		return err
	}
	next := max(st.First, 1)
	for _, s := range segs {
		if s.last < st.First || s.last > st.Last || s.first < next && len(l.index.segs) > 0 {
			if err := l.index.remove(s); err != nil {
				return err
			}
			continue
		}
		if s.first > next {
			if err := l.fillGap(ctx, segment{next, s.first - 1}); err != nil {
				return err
			}
		}
		l.index.segs = append(l.index.segs, s)
		next = s.last + 1
	}
	if next > st.Last {
		return nil
	}
	return l.scanInto(ctx, segment{next, st.Last}, func(entries []entry) error {
		l.index.open = append(l.index.open, entries...)
		if len(l.index.open) >= segmentEntries {
			return l.index.flush(^uint64(0) - 1)
		}
		return nil
	})
}

func (l *Log) segmentFiles() ([]segment, error) {
	files, err := os.ReadDir(l.cfg.IndexDir)
	if err != nil {
		return nil, err
	}
	var segs []segment
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".tmp") {
			if err := os.Remove(filepath.Join(l.cfg.IndexDir, f.Name())); err != nil {
				return nil, err
			}
		}
		if s, ok := parseSegment(f.Name()); ok {
			segs = append(segs, s)
		}
	}
	slices.SortFunc(segs, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	return segs, nil
}

// fillGap makes the segment of a range whose file is gone.
func (l *Log) fillGap(ctx context.Context, s segment) error {
	entries, err := l.scan(ctx, s)
	if err != nil || len(entries) == 0 {
		return err
	}
	if err := l.index.save(s, entries); err != nil {
		return err
	}
	l.index.segs = append(l.index.segs, s)
	return nil
}

// scan reads the entries of a range of batches from the log.
func (l *Log) scan(ctx context.Context, s segment) ([]entry, error) {
	var all []entry
	err := l.scanInto(ctx, s, func(entries []entry) error {
		all = append(all, entries...)
		return nil
	})
	return all, err
}

// scanInto calls add with the entries of each batch of s that the log still has.
func (l *Log) scanInto(ctx context.Context, s segment, add func([]entry) error) error {
	stop := errors.New("end of the range")
	var buf []byte
	err := l.stream.Read(ctx, s.first, func(seq uint64, _ time.Time, payload []byte) error {
		if seq > s.last {
			return stop
		}
		frames, _, err := l.book.openBatch(seq, payload)
		if err != nil {
			return err
		}
		entries := make([]entry, len(frames))
		for i, f := range frames {
			if buf, err = l.book.openFrame(buf[:0], f); err != nil {
				return fmt.Errorf("batch %d, event %d: %w", seq, i, err)
			}
			r, err := event.ParseRecord(buf)
			if err != nil {
				return fmt.Errorf("batch %d, event %d: %w: %w", seq, i, errDamaged, err)
			}
			entries[i] = l.describe(&r)
			entries[i].position = ident.NewPosition(seq, i)
		}
		return add(entries)
	})
	if errors.Is(err, stop) {
		return nil
	}
	return err
}

// fillWindow loads the duplicate window: the newest entries, as many and as old as it holds.
func (l *Log) fillWindow(ctx context.Context) error {
	since := time.Now().Add(-l.cfg.DuplicateWindow).UnixMilli()
	var recent []entry
	err := l.index.newestFirst(ctx, func(e entry) (bool, error) {
		recent = append(recent, e)
		return e.millis >= since && len(recent) < l.cfg.DuplicateEntries, nil
	})
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(recent) {
		l.dups.put(e.key, known{position: e.position, digest: e.digest}, time.UnixMilli(e.millis))
	}
	return nil
}
