package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"

	"sallyport/internal/ident"
)

// A snapshot is the dispatcher's state after a place in the journal, in parts, so that a start need
// not read the journal from its beginning. The head is written last and names its generation: a
// crash while one is written leaves the one before.
const (
	snapshotHead = "head"
	partItems    = 5000 // deliveries or dead letters of one part
)

type headText struct {
	Generation uint64           `json:"generation"`
	Parts      int              `json:"parts"`
	Journal    uint64           `json:"journal"`
	Chunk      uint64           `json:"chunk"`
	Floor      uint64           `json:"floor"`
	Done       int64            `json:"done"`
	Closed     int64            `json:"closed"`
	Gone       []ident.Position `json:"gone_events,omitempty"`
	Index      []indexMark      `json:"index"`
}

type partText struct {
	Parked  []parkedText `json:"parked,omitempty"`
	Dead    []parkedText `json:"dead,omitempty"`
	Settled []parkedText `json:"settled,omitempty"`
}

func partKey(generation uint64, n int) string { return fmt.Sprintf("part/%016x/%06d", generation, n) }

// snapshot stores the state. The journal's writer calls it, with nothing left to write: so the
// state is exactly what the journal tells. Counts of batches that the floor has not passed are left
// out, because those batches are read again.
func (d *Dispatcher) snapshot(ctx context.Context) error {
	d.mu.Lock()
	if d.outbox.size() > 0 {
		d.mu.Unlock()
		return nil // something was added meanwhile; the next time will do
	}
	head := headText{
		Generation: d.past.generation + 1, Journal: d.past.journal, Chunk: d.past.chunk,
		Floor: d.floor, Done: d.done, Closed: d.closed, Index: slices.Clone(d.index), Gone: slices.Collect(maps.Keys(d.gone)),
	}
	var parts []partText
	part := func(n int) *partText {
		if n%partItems == 0 {
			parts = append(parts, partText{})
		}
		return &parts[len(parts)-1]
	}
	n := 0
	for _, del := range d.parked {
		p := part(n)
		p.Parked = append(p.Parked, *describe(del))
		n++
	}
	for key := range d.dead {
		p := part(n)
		p.Dead = append(p.Dead, parkedText{Pos: key.pos, Sub: key.sub})
		n++
	}
	for key := range d.settledKeys() {
		p := part(n)
		p.Settled = append(p.Settled, parkedText{Pos: key.pos, Sub: key.sub})
		n++
	}
	d.entries = 0
	d.mu.Unlock()
	head.Parts = len(parts)
	for i := range parts {
		text, err := json.Marshal(&parts[i])
		if err != nil {
			return err
		}
		if err := d.cfg.Snapshots.Put(ctx, partKey(head.Generation, i), text); err != nil {
			return err
		}
	}
	text, err := json.Marshal(&head)
	if err != nil {
		return err
	}
	if err := d.cfg.Snapshots.Put(ctx, snapshotHead, text); err != nil {
		return err
	}
	d.mu.Lock()
	d.past.generation = head.Generation
	d.mu.Unlock()
	return d.dropOld(ctx, head.Generation)
}

// dropOld removes the parts of other generations.
func (d *Dispatcher) dropOld(ctx context.Context, generation uint64) error {
	entries, err := d.cfg.Snapshots.List(ctx, "part/", "", 0)
	if err != nil {
		return err
	}
	keep := fmt.Sprintf("part/%016x/", generation)
	for _, e := range entries {
		if len(e.Key) < len(keep) || e.Key[:len(keep)] != keep {
			if err := d.cfg.Snapshots.Delete(ctx, e.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// restore reads the snapshot and returns the place in the journal it was made after.
func (d *Dispatcher) restore(ctx context.Context) (journal uint64, err error) {
	text, err := d.cfg.Snapshots.Get(ctx, snapshotHead)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var head headText
	if err := json.Unmarshal(text, &head); err != nil {
		return 0, fmt.Errorf("snapshot of deliveries: %w", err)
	}
	d.floor, d.done, d.closed, d.index = max(1, head.Floor), head.Done, head.Closed, head.Index
	d.next = d.floor
	for _, pos := range head.Gone {
		d.gone[pos] = struct{}{}
	}
	d.past.generation, d.past.chunk, d.past.journal = head.Generation, head.Chunk, head.Journal
	for i := range head.Parts {
		if text, err = d.cfg.Snapshots.Get(ctx, partKey(head.Generation, i)); err != nil {
			return 0, fmt.Errorf("part %d of the snapshot of deliveries: %w", i, err)
		}
		var part partText
		if err := json.Unmarshal(text, &part); err != nil {
			return 0, fmt.Errorf("part %d of the snapshot of deliveries: %w", i, err)
		}
		d.adopt(&part)
	}
	return head.Journal, nil
}

func (d *Dispatcher) adopt(part *partText) {
	for i := range part.Parked {
		del := d.revive(&part.Parked[i])
		d.setParked(del)
		d.open[del.pos] = plus(d.open[del.pos], 1)
	}
	for _, t := range part.Dead {
		d.dead[deliveryKey{t.Pos, t.Sub}] = struct{}{}
		ev := plus(d.open[t.Pos], 0)
		ev.dead++
		d.open[t.Pos] = ev
	}
	for _, t := range part.Settled {
		d.setSettled(deliveryKey{t.Pos, t.Sub})
	}
}
