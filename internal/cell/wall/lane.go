package wall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/cell"
)

// A lane is a socket pair of its own that carries one invocation at a time: the event there, the log
// and the result back. On both sides one thread waits in the kernel, not in Go's poller, and does with
// what comes what there is to do. So no invocation is handed from one goroutine to another, and none wakes a scheduler for
// nothing, which costs more than what it is about. When all lanes are taken, invocations share the one
// socket that everything else goes through.
//
// With uses of grants it is otherwise: a guest that uses one sends frames so often that the server's thread, which waits between them,
// would have its place among those that run Go taken from it each time, and given back. So invocations with grants take lanes
// whose server's end is in Go's poller.

// polled reports whether the server's end of a lane is in Go's poller.
func polled(lane int) bool { return lane%2 == 1 }

// laneBuffer is read at once: most events and results fit.
const laneBuffer = 8 << 10

// lane is the server's end.
type lane struct {
	conn io.ReadWriteCloser
	in   reader
	out  []byte
	// writing is held by who writes: an event, or an answer to a use of a grant, which may come from several goroutines.
	writing sync.Mutex
	// asked are the uses of grants of the invocation, nil without; the end of the link ends them.
	asked atomic.Pointer[desk]
	// overdue is when the answer that is waited for is overdue, in Unix nanoseconds; 0 when none is.
	overdue atomic.Int64
	polled  bool
}

func newLane(conn io.ReadWriteCloser, polled bool) *lane {
	return &lane{conn: conn, in: newReader(conn, laneBuffer), polled: polled}
}

// lanes are free lanes, the last that was used last.
type lanes []*lane

// take returns a lane, or nil.
func (s *lanes) take() *lane {
	n := len(*s)
	if n == 0 {
		return nil
	}
	ln := (*s)[n-1]
	*s = (*s)[:n-1]
	return ln
}

// takeLane returns a free lane, the last that was used first, or nil: for an invocation with grants rather a polled one, for others
// rather not.
func (l *link) takeLane(granted bool) (*lane, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, 0
	}
	first, second := &l.free, &l.freePolled
	if granted {
		first, second = second, first
	}
	ln := first.take()
	if ln == nil {
		ln = second.take()
	}
	if ln == nil {
		return nil, 0
	}
	l.next++
	return ln, l.next
}

func (l *link) leaveLane(ln *lane) {
	ln.overdue.Store(0)
	ln.asked.Store(nil)
	if cap(ln.out) > keptBuffer {
		ln.out = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln.polled {
		l.freePolled = append(l.freePolled, ln)
	} else {
		l.free = append(l.free, ln)
	}
}

// alongLane has the worker handle one event that goes through a lane. After an error the lane is not
// used again: the link has failed.
func (l *link) alongLane(ctx context.Context, ln *lane, id uint64, f *Function, in cell.Input) (*frame, error) {
	ln.overdue.Store(time.Now().Add(f.limits.Timeout + l.grace).UnixNano())
	asked := newDesk(ctx, f, &in, func(number uint32, a cell.GrantAnswer) {
		_ = ln.write(encodeAnswer(nil, id, number, a)) // whoever waits for the result meets the error
	})
	defer asked.close()
	ln.asked.Store(asked)
	ln.out = encodeInvoke(ln.out[:0], id, f.id, in)
	if err := ln.write(ln.out); err != nil {
		return nil, l.lost(fmt.Errorf("write to the worker: %w", err))
	}
	stop := context.AfterFunc(ctx, func() { l.cancel(id) })
	defer stop()
	left := f.limits.LogBytes + lineRoom
	for {
		answer, err := ln.in.next(func(k kind, of uint64) (int, error) { return mostAlong(k, of, id, f.limits, asked) })
		if err == nil && (answer.kind == kindUse || answer.kind == kindWaits) {
			if err = asked.take(answer, true); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, l.lost(err)
		}
		if answer.kind != kindLog {
			l.leaveLane(ln)
			return &answer, nil
		}
		level, message, err := decodeLog(answer.body)
		if left -= len(message) + lineCost; err == nil && left < 0 {
			err = broken("an invocation logged more than its limit")
		}
		if err != nil {
			return nil, l.lost(err)
		}
		if in.Log != nil {
			in.Log(level, message)
		}
	}
}

// mostAlong says how long a frame on a lane may be, on which id is handled.
func mostAlong(k kind, of, id uint64, limits cell.Limits, asked *desk) (int, error) {
	if of != id {
		return 0, broken("a frame of kind %d is about %d on the lane of %d", k, of, id)
	}
	switch k {
	case kindLog:
		return 1 + maxLine, nil
	case kindDone:
		return doneBytes(limits), nil
	case kindFailed:
		return maxFailure, nil
	case kindUse, kindWaits:
		return asked.most(k)
	}
	return 0, broken("a frame of kind %d is on a lane", k)
}

func (ln *lane) write(frames []byte) error {
	ln.writing.Lock()
	defer ln.writing.Unlock()
	_, err := ln.conn.Write(frames)
	return err
}

// lost fails the link and says so.
func (l *link) lost(err error) error {
	l.fail(err)
	return &lostError{l.cause()}
}

// along is the worker's end of a lane: it handles one invocation after the other, until the server is gone.
func (w *worker) along(ctx context.Context, conn *os.File) {
	in, ready := newReader(conn, laneBuffer), readable(conn)
	var out []byte
	for {
		f, err := in.next(func(k kind, _ uint64) (int, error) {
			if k != kindInvoke && k != kindAnswer {
				return 0, broken("a frame of kind %d is on a lane", k)
			}
			return mostAsked(k, 0)
		})
		if errors.Is(err, errProtocol) {
			panic("BUG: the server broke the protocol: " + err.Error())
		}
		if err != nil {
			return
		}
		if f.kind == kindAnswer {
			continue // it came too late for its invocation
		}
		fn, input, err := w.asked(f)
		if err != nil {
			panic("BUG: the server broke the protocol: " + err.Error())
		}
		if fn.Granted() {
			input.Grants = &alongLane{asking: asking{id: f.id}, conn: conn, in: in, ready: ready}
		}
		input.Log = func(level, message string) {
			_, _ = conn.Write(encodeLog(nil, f.id, level, message)) // the result meets the same error
		}
		call, cancel := w.enter(ctx, f.id)
		result, usage, failure := fn.Invoke(call, input)
		w.leave(f.id, cancel)
		if failure != nil {
			out = encodeFailed(out[:0], f.id, usage, failure)
		} else {
			out = encodeDone(out[:0], f.id, usage, result)
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
		if cap(out) > keptBuffer {
			out = nil
		}
	}
}
