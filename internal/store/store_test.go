package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/keyring"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

func open(t testing.TB, dir string) *store.Engine {
	t.Helper()
	e, err := store.Open(context.Background(), store.Config{Dir: dir, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPatience(30 * time.Second) // the machine may be busy with other tests
	t.Cleanup(func() { closeEngine(t, e) })
	return e
}

func closeEngine(t testing.TB, e *store.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// logger shows what the engine says when the test is verbose or fails.
func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func openStream(t testing.TB, e *store.Engine, name string) *store.Stream {
	t.Helper()
	s, err := e.Stream(context.Background(), store.StreamConfig{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t testing.TB, s *store.Stream, payload []byte, expectLast uint64) uint64 {
	t.Helper()
	seq, err := s.Publish(context.Background(), payload, expectLast)
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	return seq
}

func state(t testing.TB, s *store.Stream) store.State {
	t.Helper()
	st, err := s.State(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func readAll(t testing.TB, s *store.Stream, from uint64) map[uint64]string {
	t.Helper()
	got := map[uint64]string{}
	last := uint64(0)
	err := s.Read(context.Background(), from, func(seq uint64, stored time.Time, payload []byte) error {
		if seq <= last || time.Since(stored) > time.Hour {
			t.Errorf("Read gave sequence %d of %s after %d", seq, stored, last)
		}
		last = seq
		got[seq] = string(payload)
		return nil
	})
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return got
}

func TestStream(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	s := openStream(t, e, "events-default")
	if diff := cmp.Diff(store.State{First: 1, Last: 0}, state(t, s)); diff != "" {
		t.Errorf("State of an empty stream (-want +got):\n%s", diff)
	}
	if got := readAll(t, s, 0); len(got) != 0 {
		t.Errorf("Read of an empty stream = %v", got)
	}
	for i := range uint64(5) {
		if got := publish(t, s, []byte(fmt.Sprint("payload ", i+1)), i); got != i+1 {
			t.Errorf("Publish = %d, want %d", got, i+1)
		}
	}
	for _, expected := range []uint64{0, 4, 6} {
		if _, err := s.Publish(t.Context(), []byte("x"), expected); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Publish expecting %d after 5 = %v, want ErrConflict", expected, err)
		}
	}
	publish(t, s, nil, store.AnyLast)
	check := func(s *store.Stream) {
		t.Helper()
		want := map[uint64]string{3: "payload 3", 4: "payload 4", 5: "payload 5", 6: ""}
		if diff := cmp.Diff(want, readAll(t, s, 3)); diff != "" {
			t.Errorf("Read (-want +got):\n%s", diff)
		}
		payload, _, err := s.Get(t.Context(), 4)
		if err != nil || string(payload) != "payload 4" {
			t.Errorf("Get(4) = %q, %v", payload, err)
		}
		for _, seq := range []uint64{0, 7} {
			if _, _, err := s.Get(t.Context(), seq); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Get(%d) = %v, want ErrNotFound", seq, err)
			}
		}
		if got := readAll(t, s, 7); len(got) != 0 {
			t.Errorf("Read beyond the end = %v", got)
		}
	}
	check(s)
	closeEngine(t, e)
	if _, err := s.Publish(t.Context(), nil, store.AnyLast); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Publish after Close = %v, want ErrClosed", err)
	}
	if err := e.Health(); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Health after Close = %v, want ErrClosed", err)
	}
	s = openStream(t, open(t, dir), "events-default")
	check(s)
	if got := state(t, s); got.First != 1 || got.Last != 6 || got.Messages != 6 {
		t.Errorf("State after a restart = %+v", got)
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	s := openStream(t, e, "s")
	for i := range uint64(10) {
		publish(t, s, bytes.Repeat([]byte("x"), 1000), i)
	}
	for _, tt := range []struct{ before, first, last, messages uint64 }{
		{0, 1, 10, 10}, {1, 1, 10, 10}, {4, 4, 10, 7}, {2, 4, 10, 7}, {11, 11, 10, 0}, {99, 11, 10, 0},
	} {
		if err := s.Trim(t.Context(), tt.before); err != nil {
			t.Fatal(err)
		}
		got := state(t, s)
		if got.First != tt.first || got.Last != tt.last || got.Messages != int64(tt.messages) {
			t.Errorf("after Trim(%d) State = %+v, want %+v", tt.before, got, tt)
		}
		if _, _, err := s.Get(t.Context(), tt.first-1); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get of a trimmed payload = %v, want ErrNotFound", err)
		}
	}
	closeEngine(t, e)
	s = openStream(t, open(t, dir), "s")
	if got := publish(t, s, nil, 10); got != 11 {
		t.Errorf("Publish after everything was trimmed = %d, want 11", got)
	}
	if got := readAll(t, s, 1); len(got) != 1 {
		t.Errorf("Read = %d payloads, want 1", len(got))
	}
}

func TestLargePayloads(t *testing.T) {
	t.Parallel()
	s := openStream(t, open(t, t.TempDir()), "s")
	large := bytes.Repeat([]byte("0123456789abcdef"), store.MaxPayload/16)
	publish(t, s, large, 0)
	publish(t, s, large[:5<<20], 1)
	if _, err := s.Publish(t.Context(), append(large, 'x'), 2); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Publish of more than MaxPayload = %v, want ErrTooLarge", err)
	}
	got := readAll(t, s, 1)
	if got[1] != string(large) || got[2] != string(large[:5<<20]) {
		t.Error("a large payload came back changed")
	}
}

func TestReadEndsWithTheFunctionsError(t *testing.T) {
	t.Parallel()
	s := openStream(t, open(t, t.TempDir()), "s")
	for i := range uint64(3) {
		publish(t, s, make([]byte, 3<<20), i)
	}
	stop, calls := errors.New("stop"), 0
	err := s.Read(t.Context(), 1, func(uint64, time.Time, []byte) error { calls++; return stop })
	if err != stop || calls != 1 { //nolint:errorlint // it is returned as it is
		t.Errorf("Read = %v after %d calls, want %v after 1", err, calls, stop)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = s.Read(ctx, 1, func(uint64, time.Time, []byte) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Read = %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	e := open(t, t.TempDir())
	for _, bad := range []string{"", "a.b", "a b", "a/b", "*", ">", "é", string(make([]byte, store.MaxName+1))} {
		if _, err := e.Stream(t.Context(), store.StreamConfig{Name: bad}); err == nil {
			t.Errorf("Stream(%q) was accepted", bad)
		}
	}
}

func TestOneEngineHasTheDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir)
	_, err := store.Open(t.Context(), store.Config{Dir: dir})
	if got := problem.From(err).Code; got != "store.in_use" {
		t.Errorf("second Open: problem %q, want store.in_use", got)
	}
	closeEngine(t, e)
	closeEngine(t, open(t, dir))
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(t.Context(), store.Config{Dir: file})
	if got := problem.From(err).Code; got != "store.unusable" {
		t.Errorf("Open of a file: problem %q, want store.unusable", got)
	}
	if _, err := store.Open(t.Context(), store.Config{MinFree: -1}); err == nil {
		t.Error("Open accepted a wrong configuration")
	}
}

func TestManyWriters(t *testing.T) {
	t.Parallel()
	e := open(t, t.TempDir())
	s := openStream(t, e, "s")
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		acked = map[uint64]string{}
	)
	for w := range 8 {
		group.Go(func() {
			for i := range 20 {
				payload := fmt.Sprint(w, " ", i)
				seq, err := s.Publish(context.Background(), []byte(payload), store.AnyLast)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[seq] = payload
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if diff := cmp.Diff(acked, readAll(t, s, 1)); diff != "" {
		t.Errorf("what was acknowledged is not what is there (-want +got):\n%s", diff)
	}
}

// TestKeyring holds that the engine keeps what a keyring needs, also across a restart.
func TestKeyring(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var sealed []byte
	for run := range 2 {
		e := open(t, filepath.Join(dir, "store"))
		root, err := keyring.OpenRoot(filepath.Join(dir, "root.key"))
		if err != nil {
			t.Fatal(err)
		}
		keys, err := keyring.New(t.Context(), root, e.WrappedKeys())
		if err != nil {
			t.Fatal(err)
		}
		s, err := keys.Sealer(t.Context(), "default", "events")
		if err != nil {
			t.Fatal(err)
		}
		if run == 0 {
			if sealed, err = s.Seal(nil, []byte("hello"), nil); err != nil {
				t.Fatal(err)
			}
		} else if got, err := s.Open(nil, sealed, nil); err != nil || string(got) != "hello" {
			t.Errorf("after a restart, Open = %q, %v", got, err)
		}
		closeEngine(t, e)
	}
	root, err := keyring.OpenRoot(filepath.Join(dir, "other.key"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = keyring.New(t.Context(), root, open(t, filepath.Join(dir, "store")).WrappedKeys())
	if got := problem.From(err).Code; got != "keyring.root_missing" {
		t.Errorf("with another root file: problem %q, want keyring.root_missing", got)
	}
}

func BenchmarkOpenEmpty(b *testing.B) {
	for b.Loop() {
		e, err := store.Open(context.Background(), store.Config{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := openStream(b, open(b, b.TempDir()), "s")
			payload, last := make([]byte, size), uint64(0)
			b.SetBytes(int64(size))
			for b.Loop() {
				last = publish(b, s, payload, last)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			e := open(b, b.TempDir())
			s := openStream(b, e, "s")
			total := 0
			for i := 0; total < 64<<20 && i < 5000; i++ {
				publish(b, s, make([]byte, size), uint64(i))
				total += size
			}
			b.SetBytes(int64(total))
			for b.Loop() {
				if err := s.Read(context.Background(), 1, func(uint64, time.Time, []byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := openStream(b, open(b, b.TempDir()), "s")
	publish(b, s, make([]byte, 1<<10), 0)
	for b.Loop() {
		if _, _, err := s.Get(context.Background(), 1); err != nil {
			b.Fatal(err)
		}
	}
}

// TestManyReaders asks for more than the embedded server may have waiting for one connection.
func TestManyReaders(t *testing.T) {
	t.Parallel()
	s := openStream(t, open(t, t.TempDir()), "s")
	large := bytes.Repeat([]byte("0123456789abcdef"), store.MaxPayload/16)
	for i := range uint64(3) {
		publish(t, s, large, i)
	}
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			payload, _, err := s.Get(context.Background(), 2)
			if err != nil || !bytes.Equal(payload, large) {
				t.Errorf("Get = %d bytes, %v", len(payload), err)
			}
			if got := readAll(t, s, 1); len(got) != 3 || got[3] != string(large) {
				t.Errorf("Read = %d payloads", len(got))
			}
		})
	}
	group.Wait()
}
