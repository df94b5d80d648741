package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readBytes is how much one request of a bulk read asks for. Two are in memory at a time.
	readBytes = 4 << 20
	// readMessages bounds the messages of one request.
	readMessages = 4096
)

// directRequest is a request of JetStream's direct get interface.
type directRequest struct {
	Seq       uint64   `json:"seq,omitzero"`
	LastFor   string   `json:"last_by_subj,omitzero"`
	MultiLast []string `json:"multi_last,omitempty"`
	Batch     int      `json:"batch,omitzero"`
	MaxBytes  int      `json:"max_bytes,omitzero"`
}

// message is a stored message.
type message struct {
	subject string
	seq     uint64
	stored  time.Time
	data    []byte
}

// The status values of JetStream's answers.
const (
	statusEnd      = "204"
	statusNotFound = "404"
)

func directSubject(stream string) string { return "$JS.API.DIRECT.GET." + stream }

// getOne asks for one message and returns it or ErrNotFound.
func (l *link) getOne(ctx context.Context, stream string, req directRequest) (message, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return message{}, fmt.Errorf("write a request: %w", err)
	}
	answer, err := l.conn.RequestWithContext(ctx, directSubject(stream), body)
	if err != nil {
		return message{}, wrap("read from", stream, err)
	}
	m, _, err := parseMessage(answer)
	return m, err
}

// parseMessage reads one answer. more is how many follow, when it was the end of a batch and seq 0.
func parseMessage(answer *nats.Msg) (m message, more uint64, err error) {
	switch status := answer.Header.Get("Status"); status {
	case "":
	case statusNotFound:
		return message{}, 0, ErrNotFound
	case statusEnd:
		more, err = strconv.ParseUint(answer.Header.Get("Nats-Num-Pending"), 10, 64)
		return message{}, more, wrap("read the end of", "a batch", err)
	default:
		return message{}, 0, fmt.Errorf("jetstream answers %s %s", status, answer.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(answer.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil || seq == 0 {
		return message{}, 0, errors.Join(errors.New("jetstream's answer has no sequence"), err)
	}
	stored, err := time.Parse(time.RFC3339Nano, answer.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return message{}, 0, fmt.Errorf("read the time of a message: %w", err)
	}
	return message{subject: answer.Header.Get(jetstream.SubjectHeader), seq: seq, stored: stored, data: answer.Data}, 0, nil
}

// getBatch asks for many messages, hands each to visit, and returns how many more there are.
func (l *link) getBatch(ctx context.Context, stream string, req directRequest, visit func(message) error) (more uint64, err error) {
	body, err := json.Marshal(req)
	if err != nil {
		return 0, fmt.Errorf("write a request: %w", err)
	}
	inbox := l.conn.NewRespInbox()
	sub, err := l.conn.SubscribeSync(inbox)
	if err != nil {
		return 0, wrap("read from", stream, err)
	}
	defer func() { err = errors.Join(err, unsubscribe(sub)) }()
	if err := sub.SetPendingLimits(-1, -1); err != nil { // req bounds them
		return 0, wrap("read from", stream, err)
	}
	if err := l.conn.PublishRequest(directSubject(stream), inbox, body); err != nil {
		return 0, wrap("read from", stream, err)
	}
	for {
		answer, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return 0, wrap("read from", stream, err)
		}
		m, more, err := parseMessage(answer)
		if errors.Is(err, ErrNotFound) {
			return 0, nil
		}
		if err != nil || m.seq == 0 {
			return more, err
		}
		if err := visit(m); err != nil {
			return 0, err
		}
	}
}

// unsubscribe ends sub; that its connection is closed is no fault.
func unsubscribe(sub *nats.Subscription) error {
	err := sub.Unsubscribe()
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}

// Read calls fn for each payload from sequence from on, in order, up to the end that the stream had
// when Read reached it. payload is fn's to keep. It ends with the first error of fn and returns it as
// it is. While fn works on one part, the next is fetched. It needs no free space.
func (s *Stream) Read(ctx context.Context, from uint64, fn func(seq uint64, stored time.Time, payload []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	parts := make(chan part)
	go s.fetch(ctx, max(from, 1), parts)
	defer func() {
		cancel()
		for range parts { //nolint:revive // fetch closes parts when it has ended
		}
	}()
	for p := range parts {
		if p.err != nil {
			return p.err
		}
		for _, m := range p.messages {
			if err := fn(m.seq, m.stored, m.data); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

// part is what one request fetched, or the error that ended fetching.
type part struct {
	messages []message
	err      error
}

// fetch sends the stream to parts and closes it at the end or when ctx is done.
func (s *Stream) fetch(ctx context.Context, next uint64, parts chan<- part) {
	defer close(parts)
	for more := uint64(1); more > 0; {
		var p part
		p.err = s.engine.read(ctx, func(ctx context.Context, l *link) (err error) {
			p.messages = p.messages[:0]
			req := directRequest{Seq: next, Batch: readMessages, MaxBytes: readBytes}
			more, err = l.getBatch(ctx, s.name, req, func(m message) error {
				p.messages = append(p.messages, m)
				return nil
			})
			return err
		})
		if len(p.messages) == 0 && p.err == nil {
			return
		}
		if len(p.messages) > 0 {
			next = p.messages[len(p.messages)-1].seq + 1
		}
		select {
		case parts <- p:
		case <-ctx.Done():
			return
		}
		if p.err != nil {
			return
		}
	}
}
