package eventlog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport/internal/event"
	"sallyport/internal/store"
)

// plainCipher stands in for a sealer: it appends a checksum of text and additional data.
type plainCipher struct{}

func (plainCipher) Seal(dst, text, aad []byte) ([]byte, error) {
	dst = append(dst, text...)
	return append(dst, plainTag(text, aad)...), nil
}

func (plainCipher) Open(dst, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < tagSize {
		return nil, errDamaged
	}
	text := sealed[:len(sealed)-tagSize]
	if plainTag(text, aad) != string(sealed[len(text):]) {
		return nil, errDamaged
	}
	return append(dst, text...), nil
}

func plainTag(text, aad []byte) string {
	return fmt.Sprintf("%08x%08x", checksum(string(text)), checksum(string(aad)))
}

// TestStream is what a packer writes to.
type TestStream interface {
	Publish(ctx context.Context, payload []byte, expectLast uint64) (uint64, error)
	Get(ctx context.Context, seq uint64) ([]byte, time.Time, error)
	State(ctx context.Context) (store.State, error)
}

// TestPacker is a packer over a stream of the test's own.
type TestPacker struct {
	Committed []string // "seq:text"
	p         *packer
	wg        sync.WaitGroup
}

func NewTestPacker(s TestStream) *TestPacker {
	t := &TestPacker{p: newPacker(s, newCodebook("ns", "test", plainCipher{}), 0, 0, slog.New(slog.DiscardHandler))}
	t.p.committed = func(seq, _ uint64, reqs []*request) {
		for _, r := range reqs {
			t.Committed = append(t.Committed, fmt.Sprintf("%d:%s", seq, r.items[0].rec.Data))
		}
	}
	t.wg.Go(func() { t.p.run(context.Background()) })
	return t
}

func (t *TestPacker) Append(ctx context.Context, text string) error {
	r := t.p.request()
	if err := t.p.book.sealFrame(r, []byte(text)); err != nil {
		return err
	}
	r.items = append(r.items, item{rec: event.Record{Event: event.Event{Data: []byte(text)}}})
	return t.p.submit(ctx, r)
}

// Open returns the first text of a batch.
func (t *TestPacker) Open(seq uint64, batch []byte) (string, error) {
	frames, _, err := t.p.book.openBatch(seq, batch)
	if err != nil || len(frames) == 0 {
		return "", fmt.Errorf("%d frames: %w", len(frames), err)
	}
	text, err := t.p.book.openFrame(nil, frames[0])
	return string(text), err
}

func (t *TestPacker) Close() {
	t.p.close()
	t.wg.Wait()
}
