// Package funclog keeps the function logs: the lines that functions write while they handle events.
//
// Lines are sealed and packed like events, because they may hold event data. They are written in the
// background: a line is on disk within moments, but an invocation never waits for it, and a crash may
// lose the last ones. When lines come faster than the disk takes them, or than one function may write, the excess is dropped and a
// line says how many were. They are not receipts: nothing is proved by them.
//
// Callers: dispatch (Append), httpapi (Read, Follow), server (Open, Close).
package funclog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
)

// Journal is where lines are kept; eventlog.Journal is one.
type Journal interface {
	Append(ctx context.Context, recs [][]byte) (seq uint64, err error)
	Read(ctx context.Context, from uint64, fn func(seq uint64, recs [][]byte) error) error
	Last() uint64
	First(ctx context.Context) (seq uint64, size int64, err error)
	Trim(ctx context.Context, before uint64) error
}

// Limits of the logs of one namespace.
const (
	maxWaiting   = 20_000 // lines not written yet; the excess is dropped
	maxAppend    = 1000   // lines of one write
	appendBytes  = 1 << 20
	writeEvery   = 50 * time.Millisecond
	retainBytes  = 256 << 20
	trimEvery    = retainBytes / 16 // bytes written until it is seen to that no more than those are kept
	trimBatches  = 1024             // or so many batches, of several runs
	MaxRead      = 10_000           // lines of one answer
	MaxFollowers = 100
	followBuffer = 1024 // lines a slow follower may be behind before it loses some
)

// Limits of the lines of one function: its flood is not to use up what all of a namespace have, on the disk and in the history.
const (
	lineCost   = 256     // bytes that a line counts beside its text
	lineRate   = 4 << 20 // bytes a second
	lineBurst  = 8 << 20 // bytes
	manyShares = 10_000  // from which on those that have all of theirs are forgotten
)

// share is what a function may write of at once.
type share struct {
	left    float64 // bytes
	at      time.Time
	dropped int
}

// take takes a line's cost off the share, and reports whether there was enough.
func (s *share) take(line *api.LogLine) bool {
	if passed := line.Time.Sub(s.at).Seconds(); passed > 0 { // lines of several workers are not quite in order
		s.left, s.at = min(lineBurst, s.left+passed*lineRate), line.Time
	}
	cost := float64(len(line.Message) + lineCost)
	if s.left < cost {
		s.dropped++
		return false
	}
	s.left -= cost
	return true
}

// Query selects lines. Zero fields select everything.
type Query struct {
	Function, EventID string
	Since             time.Time
	Limit             int // the newest so many
}

// Selects reports whether q selects the line; its limit is not looked at.
func (q *Query) Selects(l *api.LogLine) bool {
	return (q.Function == "" || q.Function == l.Function) && (q.EventID == "" || q.EventID == l.EventID) &&
		!l.Time.Before(q.Since)
}

// Logs are the function logs of one namespace. They are safe for concurrent use.
type Logs struct {
	journal Journal
	log     *slog.Logger

	mu        sync.Mutex
	waiting   []api.LogLine
	dropped   int
	shares    map[string]*share // by function
	followers map[chan api.LogLine]struct{}
	closed    bool
	more      chan struct{}
	written   sync.WaitGroup
	// stored is the last batch of the journal whose lines are not waiting any more: each line is in one of the two.
	stored uint64
}

// Open returns the logs kept in journal. Close them.
func Open(journal Journal, log *slog.Logger) *Logs {
	l := &Logs{journal: journal, log: log, shares: map[string]*share{}, followers: map[chan api.LogLine]struct{}{}, more: make(chan struct{}, 1), stored: journal.Last()}
	l.written.Go(l.write)
	return l
}

// Append adds a line. It does not block.
func (l *Logs) Append(line api.LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.waiting) >= maxWaiting {
		l.dropped++
		return
	}
	s := l.share(&line)
	if !s.take(&line) {
		return
	}
	if l.dropped > 0 {
		l.warn(&line, fmt.Sprintf("%d lines of this namespace were dropped: they came faster than they could be written", l.dropped))
		l.dropped = 0
	}
	if s.dropped > 0 {
		l.warn(&line, fmt.Sprintf("%d lines of this function were dropped: it wrote more than %d bytes a second", s.dropped, lineRate))
		s.dropped = 0
	}
	l.add(line)
}

// share returns the share of the function that wrote a line. l.mu is held.
func (l *Logs) share(line *api.LogLine) *share {
	s := l.shares[line.Function]
	if s == nil {
		if len(l.shares) >= manyShares {
			maps.DeleteFunc(l.shares, func(_ string, s *share) bool {
				return s.dropped == 0 && s.left+line.Time.Sub(s.at).Seconds()*lineRate >= lineBurst
			})
		}
		s = &share{left: lineBurst, at: line.Time}
		l.shares[line.Function] = s
	}
	return s
}

// warn adds a line of the server's own, before another.
func (l *Logs) warn(before *api.LogLine, message string) {
	l.add(api.LogLine{
		Time: before.Time, Function: before.Function, Revision: before.Revision, EventID: before.EventID, Attempt: before.Attempt, Level: "warn", Message: message,
	})
}

func (l *Logs) add(line api.LogLine) {
	l.waiting = append(l.waiting, line)
	for c := range l.followers {
		select {
		case c <- line:
		default: // the follower reads too slowly and misses this line
		}
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// Close writes what is waiting. Lines that come later are dropped. It is idempotent.
func (l *Logs) Close() error {
	l.mu.Lock()
	already := l.closed
	l.closed = true
	if !already {
		close(l.more)
		for c := range l.followers {
			close(c)
		}
		l.followers = map[chan api.LogLine]struct{}{}
	}
	l.mu.Unlock()
	l.written.Wait()
	return nil
}

// write appends waiting lines to the journal until Close.
func (l *Logs) write() {
	ctx := context.Background()
	unseen := 0 // bytes written since the last look at what is kept
	for open := true; open; {
		_, open = <-l.more
		if open {
			<-time.After(writeEvery) // company for the line
		}
		for {
			l.mu.Lock()
			n := atOnce(l.waiting)
			lines := l.waiting[:n:n]
			l.mu.Unlock()
			if n == 0 {
				break
			}
			written, err := l.store(ctx, lines)
			if err != nil {
				l.log.Warn("write function logs; lines are lost", "lines", n, "error", err)
			}
			if unseen += written; unseen >= trimEvery || l.journal.Last()%trimBatches == 0 {
				unseen = 0
				if err := l.trim(ctx); err != nil {
					l.log.Warn("remove old function logs; it is tried again", "error", err)
				}
			}
			l.mu.Lock()
			l.stored = l.journal.Last()
			if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
				l.waiting = nil
			}
			l.mu.Unlock()
		}
	}
}

// atOnce returns how many of the lines that wait are written at once: their batch is to be one that the journal takes.
func atOnce(waiting []api.LogLine) int {
	size := 0
	for n := range waiting {
		if size += len(waiting[n].Message); n == maxAppend || n > 0 && size > appendBytes {
			return n
		}
	}
	return len(waiting)
}

// store writes lines and returns how many bytes they are.
func (l *Logs) store(ctx context.Context, lines []api.LogLine) (size int, err error) {
	recs := make([][]byte, len(lines))
	for i := range lines {
		text, err := json.Marshal(&lines[i])
		if err != nil {
			return 0, err
		}
		recs[i] = text
		size += len(text)
	}
	_, err = l.journal.Append(ctx, recs)
	return size, err
}

// trim removes the oldest quarter of what is kept when that is too much.
func (l *Logs) trim(ctx context.Context) error {
	first, size, err := l.journal.First(ctx)
	if err != nil || size < retainBytes {
		return err
	}
	return l.journal.Trim(ctx, first+max(1, (l.journal.Last()-first)/4))
}

var errEnough = errors.New("enough")

// readStep is how many batches of the journal are read at once, from the newest backwards.
const readStep = 256

// Read returns the newest lines that q selects, oldest first.
func (l *Logs) Read(ctx context.Context, q Query) ([]api.LogLine, error) {
	limit := min(max(q.Limit, 1), MaxRead)
	var found []api.LogLine
	first, _, err := l.journal.First(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	end := l.stored
	for i := range l.waiting {
		if q.Selects(&l.waiting[i]) {
			found = append(found, l.waiting[i])
		}
	}
	l.mu.Unlock()
	for end >= first && end > 0 && len(found) < limit {
		from := max(first, end-min(end, readStep)+1)
		var part []api.LogLine
		older := false
		err := l.journal.Read(ctx, from, func(seq uint64, recs [][]byte) error {
			if seq > end {
				return errEnough
			}
			for _, rec := range recs {
				var line api.LogLine
				if err := json.Unmarshal(rec, &line); err != nil {
					return fmt.Errorf("function logs, batch %d: %w", seq, err)
				}
				if q.Selects(&line) {
					part = append(part, line)
				}
				older = older || line.Time.Before(q.Since)
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
		found = append(part, found...)
		if end = from - 1; older {
			break
		}
	}
	return found[max(0, len(found)-limit):], nil
}

// Follow returns a channel of the lines that come from now on; the channel is closed when the logs
// are. stop ends it. ok is false when there are MaxFollowers already.
func (l *Logs) Follow() (lines <-chan api.LogLine, stop func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.followers) >= MaxFollowers {
		return nil, nil, false
	}
	c := make(chan api.LogLine, followBuffer)
	l.followers[c] = struct{}{}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.followers, c)
	}, true
}
