package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport/internal/eventlog"
	"sallyport/internal/store"
)

// shakyStream is a stream whose next write fails in a chosen way.
type shakyStream struct {
	stored [][]byte
	fail   string // "", "before": not written, "after": written, but the answer is lost
	blind  bool   // state cannot be asked
}

var errShaky = errors.New("no answer")

func (s *shakyStream) Publish(_ context.Context, payload []byte, expect uint64) (uint64, error) {
	if expect != uint64(len(s.stored)) {
		return 0, store.ErrConflict
	}
	if s.fail == "before" {
		return 0, errShaky
	}
	s.stored = append(s.stored, append([]byte(nil), payload...))
	if s.fail == "after" {
		return 0, errShaky
	}
	return uint64(len(s.stored)), nil
}

func (s *shakyStream) Get(_ context.Context, seq uint64) ([]byte, time.Time, error) {
	return s.stored[seq-1], time.Time{}, nil
}

func (s *shakyStream) State(context.Context) (store.State, error) {
	if s.blind {
		return store.State{}, errShaky
	}
	return store.State{First: 1, Last: uint64(len(s.stored))}, nil
}

// TestUnknownOutcome has writes fail before and after they reached the disk, with the stream able
// to say which and not: nothing is stored twice, and nothing that was stored is forgotten.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		fail      string
		blind     bool
		wantErr   bool
		committed string // batches that the log learned of, once all is well again
	}{
		{"before", false, true, "[1:next]"},
		{"before", true, true, "[1:next]"},
		{"after", false, false, "[1:first 2:next]"},
		{"after", true, true, "[1:first 2:next]"},
	} {
		t.Run(fmt.Sprintf("%s blind=%v", tc.fail, tc.blind), func(t *testing.T) {
			t.Parallel()
			s := &shakyStream{fail: tc.fail, blind: tc.blind}
			p := eventlog.NewTestPacker(s)
			defer p.Close()
			if err := p.Append(t.Context(), "first"); (err != nil) != tc.wantErr {
				t.Errorf("first append: %v; want an error %v", err, tc.wantErr)
			}
			if tc.blind {
				if err := p.Append(t.Context(), "meanwhile"); err == nil {
					t.Error("an append was accepted while the outcome of the one before was unknown")
				}
			}
			s.fail, s.blind = "", false
			if err := p.Append(t.Context(), "next"); err != nil {
				t.Errorf("append after recovery: %v", err)
			}
			if got := fmt.Sprint(p.Committed); got != tc.committed {
				t.Errorf("committed %s, want %s", got, tc.committed)
			}
			if len(s.stored) != len(p.Committed) {
				t.Errorf("%d batches stored, %d known", len(s.stored), len(p.Committed))
			}
		})
	}
}

// TestTamper changes a stored batch in every byte, and puts it at another place: it does not open.
func TestTamper(t *testing.T) {
	t.Parallel()
	s := &shakyStream{}
	p := eventlog.NewTestPacker(s)
	defer p.Close()
	for _, text := range []string{"one", "two"} {
		if err := p.Append(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := p.Open(1, s.stored[0]); err != nil || got != "one" {
		t.Fatalf("Open = %q, %v; want one", got, err)
	}
	if _, err := p.Open(1, s.stored[1]); err == nil {
		t.Error("a batch opens at the place of another")
	}
	for i := range s.stored[0] {
		bad := append([]byte(nil), s.stored[0]...)
		bad[i] ^= 1
		if got, err := p.Open(1, bad); err == nil {
			t.Errorf("with byte %d changed, the batch opens as %q", i, got)
		}
		if _, err := p.Open(1, s.stored[0][:i]); err == nil {
			t.Errorf("cut to %d bytes, the batch opens", i)
		}
	}
}

// TestRefusedTogether: an append that is refused leaves nothing behind in its batch. Whatever it shares
// with an append after it is that one's to store; else it would be acknowledged and stored nowhere.
func TestRefusedTogether(t *testing.T) {
	t.Parallel()
	type evs = []eventlog.TestEvent
	known := evs{{Key: 9, Content: 9}}
	for _, tc := range []struct {
		name    string
		appends []evs
		written int
		refused string
	}{
		{"one event twice", []evs{{{1, 1}}, {{1, 1}}}, 1, "[false false]"},
		{"other content", []evs{{{1, 1}}, {{1, 2}}}, 1, "[false true]"},
		{"conflict with the window", []evs{{{1, 1}, {9, 8}}, {{1, 1}}}, 1, "[true false]"},
		{"conflict in the append itself", []evs{{{1, 1}, {2, 2}, {2, 3}}, {{2, 2}, {1, 1}}}, 2, "[true false]"},
		{"conflict with the append before", []evs{{{2, 2}}, {{1, 1}, {2, 3}}, {{1, 1}, {2, 2}}}, 2, "[false true false]"},
	} {
		written, refused := eventlog.AdmitTogether(known, tc.appends...)
		if got := fmt.Sprint(refused); written != tc.written || got != tc.refused {
			t.Errorf("%s: %d events are written, refused %s; want %d, %s", tc.name, written, got, tc.written, tc.refused)
		}
	}
}

func FuzzOpenBatch(f *testing.F) {
	s := &shakyStream{}
	p := eventlog.NewTestPacker(s)
	f.Cleanup(p.Close)
	if err := p.Append(f.Context(), "one"); err != nil {
		f.Fatal(err)
	}
	f.Add(s.stored[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := p.Open(1, b); err == nil && string(b) != string(s.stored[0]) {
			t.Errorf("a made-up batch opens as %q", got)
		}
	})
}
