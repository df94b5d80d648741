package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/internal/event"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// Next returns the first batch after the given one, waiting for it when there is none yet. Batches
// that retention has removed are passed over. The records may share memory with other readers:
// they MUST NOT be changed.
func (l *Log) Next(ctx context.Context, after uint64) (*Batch, error) {
	for {
		b, ok, err := l.tail.wait(ctx, after)
		if err != nil {
			return nil, err
		}
		if ok {
			return &Batch{Seq: b.seq, Records: b.recs}, nil
		}
		batch, err := l.Batch(ctx, after+1)
		if !errors.Is(err, ErrTrimmed) {
			return batch, err
		}
		st, err := l.stream.State(ctx)
		if err != nil {
			return nil, l.explain(err)
		}
		if st.First <= after+1 {
			return nil, fmt.Errorf("%w: batch %d is missing, the log keeps %d to %d", errDamaged, after+1, st.First, st.Last)
		}
		after = st.First - 1
	}
}

// At returns the event at pos, or a NotFound problem.
func (l *Log) At(ctx context.Context, pos ident.Position) (event.Record, error) {
	frames, err := l.frames(ctx, pos.Batch())
	if errors.Is(err, ErrTrimmed) || err == nil && pos.Index() >= len(frames) {
		return event.Record{}, notFound(pos)
	}
	if err != nil {
		return event.Record{}, err
	}
	return l.open(pos, frames[pos.Index()])
}

func notFound(pos ident.Position) error {
	return problem.New(problem.NotFound, "eventlog.not_found", "there is no event at position %s", pos).
		WithHint("list events with `sallyport event list`; older ones may have been removed by retention")
}

func (l *Log) open(pos ident.Position, sealed []byte) (event.Record, error) {
	text, err := l.book.openFrame(nil, sealed)
	if err != nil {
		return event.Record{}, fmt.Errorf("event at position %s: %w", pos, err)
	}
	r, err := event.ParseRecord(text)
	if err != nil {
		return event.Record{}, fmt.Errorf("event at position %s: %w: %w", pos, errDamaged, err)
	}
	r.Position = pos
	return r, nil
}

// frames returns the sealed records of one batch.
func (l *Log) frames(ctx context.Context, seq uint64) ([][]byte, error) {
	payload, _, err := l.stream.Get(ctx, seq)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrTrimmed
	}
	if err != nil {
		return nil, l.explain(err)
	}
	frames, _, err := l.book.openBatch(seq, payload)
	return frames, err
}

// Batch returns one batch, or ErrTrimmed.
func (l *Log) Batch(ctx context.Context, seq uint64) (*Batch, error) {
	frames, err := l.frames(ctx, seq)
	if err != nil {
		return nil, err
	}
	b := &Batch{Seq: seq, Records: make([]event.Record, len(frames))}
	for i, f := range frames {
		if b.Records[i], err = l.open(ident.NewPosition(seq, i), f); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Limits of Find without a source. A publisher can make ids whose checksums agree, so the reads of
// one search are bounded; with the source the key is exact.
const (
	maxFound  = 100
	maxLooked = 1000
)

// Find returns the positions of the events with this id, newest first; an empty source is any.
func (l *Log) Find(ctx context.Context, source, id string) ([]ident.Position, error) {
	want, sum := l.keyOf(source, id), checksum(id)
	var found []ident.Position
	looked := 0
	err := l.index.newestFirst(ctx, func(e entry) (bool, error) {
		if source != "" && e.key != want || e.id != sum {
			return true, nil
		}
		if looked++; looked > maxLooked {
			return false, nil
		}
		r, err := l.At(ctx, e.position)
		if p, ok := errors.AsType[*problem.Error](err); ok && p.Kind == problem.NotFound {
			return true, nil // trimmed since
		}
		if err != nil {
			return false, err
		}
		if r.ID == id && (source == "" || r.Source == source) {
			found = append(found, e.position)
		}
		return len(found) < maxFound, nil
	})
	return found, err
}

// Query selects events. Zero fields select everything.
type Query struct {
	Type         ident.EventType
	Source       string
	Since, Until time.Time      // of acceptance; Since is included, Until is not
	Before       ident.Position // only events before this position: the cursor of the next page
	Limit        int            // of the answer, at least 1
}

// selects reports whether r is one of the events q asks for; the index has only narrowed it down.
func (q *Query) selects(r *event.Record) bool {
	return (q.Type == "" || r.Type == q.Type) && (q.Source == "" || r.Source == q.Source) &&
		!r.AcceptedAt.Before(q.Since) && (q.Until.IsZero() || r.AcceptedAt.Before(q.Until))
}

// List returns the newest events that q selects, newest first.
func (l *Log) List(ctx context.Context, q Query) ([]event.Record, error) {
	typ, source := checksum(string(q.Type)), checksum(q.Source)
	var out []event.Record
	var frames [][]byte // of the batch that the last event came from: neighbours are read once
	var seq uint64
	err := l.index.newestFirst(ctx, func(e entry) (bool, error) {
		at := time.UnixMilli(e.millis)
		switch {
		case q.Before != 0 && e.position >= q.Before,
			q.Type != "" && e.typ != typ,
			q.Source != "" && e.source != source,
			!q.Until.IsZero() && !at.Before(q.Until):
			return true, nil
		case !q.Since.IsZero() && at.Before(q.Since.Add(-clockSlack)):
			return false, nil
		}
		if seq != e.position.Batch() {
			var err error
			if frames, err = l.frames(ctx, e.position.Batch()); errors.Is(err, ErrTrimmed) {
				return false, nil // and so is everything before it
			} else if err != nil {
				return false, err
			}
			seq = e.position.Batch()
		}
		if e.position.Index() >= len(frames) {
			return false, fmt.Errorf("%w: the index names position %s", errDamaged, e.position)
		}
		r, err := l.open(e.position, frames[e.position.Index()])
		if err != nil {
			return false, err
		}
		if q.selects(&r) {
			out = append(out, r)
		}
		return len(out) < max(1, q.Limit), nil
	})
	return out, err
}

// clockSlack is how far acceptance times may run backwards between neighbours: they are taken
// before the group commit orders the events, and a clock may be set back.
const clockSlack = time.Minute
