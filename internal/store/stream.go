package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// AnyLast as the expected last sequence makes Publish append after whatever is last.
const AnyLast = ^uint64(0)

// StreamConfig names a stream: letters, digits, hyphens and underscores.
type StreamConfig struct {
	Name string
}

// Stream is an append-only sequence of payloads, numbered from 1 without gaps. It is safe for
// concurrent use.
type Stream struct {
	engine  *Engine
	name    string
	subject string
}

// State is what a stream holds. Of an empty stream, First is Last+1.
type State struct {
	First, Last     uint64
	Bytes, Messages int64
}

// Stream opens a stream and makes it when it does not exist.
func (e *Engine) Stream(ctx context.Context, cfg StreamConfig) (*Stream, error) {
	if err := checkName(cfg.Name); err != nil {
		return nil, err
	}
	s := &Stream{engine: e, name: "log-" + cfg.Name, subject: "log." + cfg.Name}
	return s, e.openStream(ctx, jetstream.StreamConfig{Name: s.name, Subjects: []string{s.subject}})
}

func checkName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("name is %d bytes long, want 1 to %d", len(name), MaxName)
	}
	for i := range len(name) {
		if !plain(name[i]) {
			return fmt.Errorf("name %q has the character %q", name, name[i])
		}
	}
	return nil
}

// plain says whether c stands for itself in a NATS subject and in the name of a folder.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// openStream makes a JetStream stream when it does not exist.
func (e *Engine) openStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	cfg.Storage = jetstream.FileStorage
	cfg.AllowDirect = true
	cfg.MaxMsgSize = MaxPayload + headroom
	// We do not use JetStream's deduplication; this is the shortest window it accepts.
	cfg.Duplicates = 100 * time.Millisecond
	return e.do(ctx, func(ctx context.Context, l *link) error {
		_, err := l.js.Stream(ctx, cfg.Name)
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return wrap("open stream", cfg.Name, err)
		}
		if err := e.space(e.minFree / 2); err != nil {
			return err
		}
		_, err = l.js.CreateStream(ctx, cfg)
		return wrap("create stream", cfg.Name, err)
	})
}

func wrap(what, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}

// Publish appends payload, of at most MaxPayload bytes, and returns its sequence when it is synced to
// disk. It stores nothing and returns ErrConflict when the last sequence is not expectLast, and
// ErrStorageFull when free space is below the reserve. Within 800 ms it has an answer: after
// ErrStalled, payload may or may not be in the stream, and State tells.
func (s *Stream) Publish(ctx context.Context, payload []byte, expectLast uint64) (uint64, error) {
	if len(payload) > MaxPayload {
		return 0, fmt.Errorf("publish %d bytes to %s: %w", len(payload), s.name, ErrTooLarge)
	}
	if err := s.engine.space(s.engine.minFree); err != nil {
		return 0, err
	}
	msg := &nats.Msg{Subject: s.subject, Data: payload}
	if expectLast != AnyLast {
		msg.Header = nats.Header{jetstream.ExpectedLastSeqHeader: {strconv.FormatUint(expectLast, 10)}}
	}
	return s.engine.publish(ctx, msg, s.engine.patience)
}

// publish stores one message once: it is not repeated when the answer does not come.
func (e *Engine) publish(ctx context.Context, msg *nats.Msg, limit time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l, err := e.writable(ctx)
	if err != nil {
		return 0, err
	}
	answer, err := l.conn.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return 0, e.translate(err)
	}
	return parseAck(answer.Data)
}

// writable is await that waits for a frozen server to be replaced, too.
func (e *Engine) writable(ctx context.Context) (*link, error) {
	tick := time.NewTicker(spaceTick)
	defer tick.Stop()
	for {
		l, err := e.await(ctx)
		if err != nil {
			return nil, err
		}
		e.mu.Lock()
		frozen := e.frozen && e.link == l
		e.mu.Unlock()
		if !frozen {
			return l, nil
		}
		if err := e.space(e.minFree); err != nil {
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, stalled(context.Cause(ctx))
		}
	}
}

// JetStream's error codes that mean something to us.
const (
	codeWrongLastSequence   = 10071
	codeNoResources         = 10023
	codeStorageExceeded     = 10047
	codeMessageExceedsLimit = 10054
)

// ack is JetStream's answer to a stored message.
type ack struct {
	Sequence uint64    `json:"seq"`
	Error    *ackError `json:"error"`
}

type ackError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

func parseAck(text []byte) (uint64, error) {
	var a ack
	if err := json.Unmarshal(text, &a); err != nil {
		return 0, fmt.Errorf("read jetstream's answer: %w", err)
	}
	if a.Error == nil {
		return a.Sequence, nil
	}
	cause := fmt.Errorf("jetstream error %d: %s", a.Error.Code, a.Error.Description)
	switch a.Error.Code {
	case codeWrongLastSequence:
		return 0, fmt.Errorf("%w: %w", ErrConflict, cause)
	case codeNoResources, codeStorageExceeded:
		return 0, fmt.Errorf("%w: %w", ErrStorageFull, cause)
	case codeMessageExceedsLimit:
		return 0, fmt.Errorf("%w: %w", ErrTooLarge, cause)
	}
	return 0, stalled(cause)
}

// barrier returns when every message that was sent to subject before is stored or refused. What it
// sends is always refused, because it expects a last sequence that no stream reaches.
func (l *link) barrier(ctx context.Context, subject string) error {
	msg := &nats.Msg{Subject: subject, Header: nats.Header{jetstream.ExpectedLastSeqHeader: {strconv.FormatInt(math.MaxInt64, 10)}}}
	answer, err := l.conn.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return err
	}
	if _, err := parseAck(answer.Data); !errors.Is(err, ErrConflict) {
		return errors.Join(errors.New("jetstream stored a barrier"), err)
	}
	return nil
}

// Get returns the payload with that sequence and the time it was stored, or ErrNotFound.
func (s *Stream) Get(ctx context.Context, seq uint64) (payload []byte, stored time.Time, err error) {
	if seq == 0 {
		return nil, time.Time{}, ErrNotFound
	}
	err = s.engine.read(ctx, func(ctx context.Context, l *link) error {
		m, err := l.getOne(ctx, s.name, directRequest{Seq: seq})
		if err == nil {
			payload, stored = m.data, m.stored
		}
		return err
	})
	return payload, stored, err
}

// State returns what the stream holds, after every Publish that was begun before, also one that ended
// with ErrStalled: its payload is now in the stream for good, or never will be.
func (s *Stream) State(ctx context.Context) (st State, err error) {
	err = s.engine.do(ctx, func(ctx context.Context, l *link) error {
		if err := l.barrier(ctx, s.subject); err != nil {
			return wrap("ask for the state of", s.name, err)
		}
		stream, err := l.js.Stream(ctx, s.name)
		if err != nil {
			return wrap("ask for the state of", s.name, err)
		}
		held := stream.CachedInfo().State
		st = State{First: held.FirstSeq, Last: held.LastSeq, Bytes: int64(held.Bytes), Messages: int64(held.Msgs)}
		if st.Messages == 0 {
			st.First = st.Last + 1
		}
		return nil
	})
	return st, err
}

// Trim removes every payload with a sequence below before. The sequences are not used again. Removing
// is done file by file where it can: trimming often by little costs rewriting a file each time.
func (s *Stream) Trim(ctx context.Context, before uint64) error {
	st, err := s.State(ctx)
	if err != nil {
		return err
	}
	before = min(before, st.Last+1) // beyond it, JetStream would skip sequences
	if before <= st.First {
		return nil
	}
	return s.engine.do(ctx, func(ctx context.Context, l *link) error {
		stream, err := l.js.Stream(ctx, s.name)
		if err == nil {
			err = stream.Purge(ctx, jetstream.WithPurgeSequence(before))
		}
		return wrap("trim", s.name, err)
	})
}

// DeleteStream removes a stream and everything in it, on disk too. That it is not there is no error. No Stream of that
// name may be in use; one that is opened after begins anew at sequence 1.
func (e *Engine) DeleteStream(ctx context.Context, cfg StreamConfig) error {
	if err := checkName(cfg.Name); err != nil {
		return err
	}
	return e.do(ctx, func(ctx context.Context, l *link) error {
		name := "log-" + cfg.Name
		if err := l.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return wrap("delete stream", name, err)
		}
		return syncDir(filepath.Join(l.server.StoreDir(), "$G", "streams"))
	})
}
