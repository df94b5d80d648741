package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/store"
)

// Journal is a packed, sealed, durable sequence of small records of another package, with the same
// group commit and the same seals as the event log. Dispatch keeps the state of deliveries in one.
type Journal struct {
	stream *store.Stream
	book   codebook
	packer *packer

	stop    context.CancelFunc
	wg      sync.WaitGroup
	closing sync.Once

	mu   sync.Mutex
	last uint64
}

// OpenJournal opens the journal name of a namespace, creating it when it is new. Close it.
func OpenJournal(ctx context.Context, eng *store.Engine, keys *keyring.Keyring, ns ident.Namespace, name string, log *slog.Logger) (*Journal, error) {
	fail := func(err error) (*Journal, error) {
		return nil, fmt.Errorf("open journal %q of %q: %w", name, ns, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	sealer, err := keys.Sealer(ctx, ns, "journal-"+name)
	if err != nil {
		return fail(err)
	}
	stream, err := eng.Stream(ctx, store.StreamConfig{Name: name + "-" + string(ns)})
	if err != nil {
		return fail(err)
	}
	st, err := stream.State(ctx)
	if err != nil {
		return fail(err)
	}
	j := &Journal{stream: stream, book: newCodebook(string(ns), name, sealer), last: st.Last}
	j.packer = newPacker(stream, j.book, st.Last, 0, log)
	j.packer.committed = func(seq, _ uint64, _ []*request) {
		j.mu.Lock()
		j.last = seq
		j.mu.Unlock()
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	j.stop = stop
	j.wg.Go(func() { j.packer.run(run) })
	return j, nil
}

// Close writes what is waiting and releases the journal. It is idempotent.
func (j *Journal) Close() error {
	j.closing.Do(func() {
		j.packer.close()
		j.wg.Wait()
		j.stop()
	})
	return nil
}

// Append stores recs, all or none and in order, and returns after they are on disk, with the number
// of the batch they are in. When ctx ends first, the outcome is open.
func (j *Journal) Append(ctx context.Context, recs [][]byte) (seq uint64, err error) {
	size := 0
	for _, rec := range recs {
		size += len(rec) + binary.MaxVarintLen32
	}
	if size > maxAppendBytes {
		return 0, fmt.Errorf("append to journal: %d bytes, at most %d", size, maxAppendBytes)
	}
	text := make([]byte, 0, size)
	for _, rec := range recs {
		text = binary.AppendUvarint(text, uint64(len(rec)))
		text = append(text, rec...)
	}
	r := j.packer.request()
	if err := j.book.sealFrame(r, text); err != nil {
		return 0, fmt.Errorf("append to journal: %w", err)
	}
	if err := j.packer.submit(ctx, r); err != nil {
		return 0, explain(err)
	}
	seq = r.seq
	j.packer.release(r)
	return seq, nil
}

// Read calls fn for each batch from seq from on, oldest first, to the current end. recs is valid
// during the call only. A batch before the first one that is kept is passed over.
func (j *Journal) Read(ctx context.Context, from uint64, fn func(seq uint64, recs [][]byte) error) error {
	return j.stream.Read(ctx, from, func(seq uint64, _ time.Time, payload []byte) error {
		frames, _, err := j.book.openBatch(seq, payload)
		if err != nil {
			return err
		}
		var recs [][]byte
		for _, f := range frames {
			text, err := j.book.openFrame(nil, f)
			if err != nil {
				return fmt.Errorf("journal batch %d: %w", seq, err)
			}
			if recs, err = splitRecords(recs, text); err != nil {
				return fmt.Errorf("journal batch %d: %w", seq, err)
			}
		}
		return fn(seq, recs)
	})
}

// splitRecords appends to recs the records framed in text.
func splitRecords(recs [][]byte, text []byte) ([][]byte, error) {
	for len(text) > 0 {
		n, w := binary.Uvarint(text)
		if w <= 0 || n > uint64(len(text)-w) {
			return nil, errors.New("a record's length does not fit its frame")
		}
		recs = append(recs, text[w:w+int(n):w+int(n)])
		text = text[w+int(n):]
	}
	return recs, nil
}

// Last returns the number of the last batch, 0 when there was none.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// First returns the number of the first batch that is kept, and how many bytes are.
func (j *Journal) First(ctx context.Context) (seq uint64, size int64, err error) {
	st, err := j.stream.State(ctx)
	return st.First, st.Bytes, err
}

// Trim removes the batches before seq.
func (j *Journal) Trim(ctx context.Context, before uint64) error {
	return j.stream.Trim(ctx, before)
}

// Delete removes the event log and the named journals of a namespace, all of which MUST be closed. It may be called again
// after an error.
func Delete(ctx context.Context, eng *store.Engine, ns ident.Namespace, journals ...string) error {
	for _, name := range append([]string{"events"}, journals...) {
		if err := eng.DeleteStream(ctx, store.StreamConfig{Name: name + "-" + string(ns)}); err != nil {
			return fmt.Errorf("delete %s of namespace %q: %w", name, ns, err)
		}
	}
	return nil
}
