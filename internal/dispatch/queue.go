package dispatch

import (
	"container/heap"
	"context"
	"sync"

	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
)

// fifo is a queue of deliveries.
type fifo struct {
	items []*delivery
	head  int
}

func (q *fifo) push(d *delivery) { q.items = append(q.items, d) }

// pop returns the oldest delivery, or nil.
func (q *fifo) pop() *delivery {
	if q.head == len(q.items) {
		return nil
	}
	d := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	if q.head > 1024 && q.head*2 > len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return d
}

// retryHeap holds the deliveries that wait for their next attempt, the soonest first.
type retryHeap struct{ h retries }

func (r *retryHeap) push(d *delivery) { heap.Push(&r.h, d) }
func (r *retryHeap) pop() *delivery   { return heap.Pop(&r.h).(*delivery) }

func (r *retryHeap) peek() *delivery {
	if len(r.h) == 0 {
		return nil
	}
	return r.h[0]
}

type retries []*delivery

func (h retries) Len() int           { return len(h) }
func (h retries) Less(i, j int) bool { return h[i].next < h[j].next }
func (h retries) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *retries) Push(x any)        { *h = append(*h, x.(*delivery)) }

func (h *retries) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return d
}

// batchCache keeps the batches read last: neighbours in a backlog are mostly from the same batch.
type batchCache struct {
	log Log

	mu   sync.Mutex
	kept [8]*eventlog.Batch
	turn int
}

// record returns the event at pos. Its memory is shared and MUST NOT be changed.
func (c *batchCache) record(ctx context.Context, pos ident.Position) (*event.Record, error) {
	c.mu.Lock()
	for _, b := range c.kept {
		if b != nil && b.Seq == pos.Batch() {
			c.mu.Unlock()
			return at(b, pos)
		}
	}
	c.mu.Unlock()
	b, err := c.log.Batch(ctx, pos.Batch())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.kept[c.turn%len(c.kept)] = b
	c.turn++
	c.mu.Unlock()
	return at(b, pos)
}

func at(b *eventlog.Batch, pos ident.Position) (*event.Record, error) {
	if pos.Index() >= len(b.Records) {
		return nil, eventlog.ErrTrimmed
	}
	return &b.Records[pos.Index()], nil
}
