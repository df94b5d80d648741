package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sallyport/internal/store"
	"sallyport/internal/testkit"
)

const (
	// hung is when an answer that is still awaited counts as one that never comes. How soon it comes
	// is decided by the disk, which another process may keep busy; the tests log it.
	hung = time.Minute
)

// fill writes a file that takes all space but leave.
func fill(t *testing.T, disk *testkit.Disk, leave int64) (remove func()) {
	t.Helper()
	return fillFile(t, disk, "filler", leave)
}

// fillMore takes what is left.
func fillMore(t *testing.T, disk *testkit.Disk, name string) (remove func()) {
	t.Helper()
	return fillFile(t, disk, name, 0)
}

func fillFile(t *testing.T, disk *testkit.Disk, name string, leave int64) (remove func()) {
	t.Helper()
	path := filepath.Join(disk.Path, name)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		free, err := disk.Free()
		if err != nil {
			t.Fatal(err)
		}
		if free <= leave {
			break
		}
		if _, err := file.Write(block[:min(int64(len(block)), free-leave)]); err != nil {
			block = block[:len(block)/2]
		}
		_ = file.Sync() // it may fail: that is what this is for
	}
	_ = file.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func openOn(t *testing.T, disk *testkit.Disk, minFree int64) *store.Engine {
	t.Helper()
	e, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(disk.Path, "store"), MinFree: minFree, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func sameAsAcked(t *testing.T, when string, s *store.Stream, acked map[uint64][]byte) {
	t.Helper()
	found := 0
	err := s.Read(t.Context(), 1, func(seq uint64, _ time.Time, payload []byte) error {
		if want, ok := acked[seq]; ok {
			found++
			if !bytes.Equal(want, payload) {
				t.Errorf("%s: payload %d changed", when, seq)
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: Read = %v", when, err)
	}
	if found != len(acked) {
		t.Errorf("%s: %d of %d acknowledged payloads are there", when, found, len(acked))
	}
}

// untilResumed publishes until it works again.
func untilResumed(t *testing.T, s *store.Stream) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < hung {
		if _, err := s.Publish(t.Context(), []byte("again"), store.AnyLast); err == nil {
			return time.Since(began)
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("space came back and publishing did not")
	return 0
}

// TestReserve takes the space away down to less than the reserve: appends are refused at once, and
// everything else works.
func TestReserve(t *testing.T) {
	t.Parallel()
	const minFree = 16 << 20
	disk := testkit.NewDisk(t, 96)
	e := openOn(t, disk, minFree)
	defer closeEngine(t, e)
	s := openStream(t, e, "s")
	bucket := openBucket(t, e, "b")
	acked := map[uint64][]byte{}
	for i := range uint64(20) {
		payload := bytes.Repeat([]byte{byte(i)}, 100<<10)
		acked[publish(t, s, payload, i)] = payload
	}
	put(t, bucket, "a", "1")
	remove := fill(t, disk, minFree-1<<20)
	began := time.Now()
	_, err := s.Publish(t.Context(), []byte("x"), store.AnyLast)
	if took := time.Since(began); !errors.Is(err, store.ErrStorageFull) || took > hung {
		t.Errorf("Publish = %v after %s, want ErrStorageFull within %s", err, took, hung)
	}
	if err := e.Health(); !errors.Is(err, store.ErrStorageFull) {
		t.Errorf("Health = %v, want ErrStorageFull", err)
	}
	sameAsAcked(t, "below the reserve", s, acked)
	put(t, bucket, "a", "2")
	if err := bucket.Delete(t.Context(), "a"); err != nil {
		t.Errorf("Delete = %v", err)
	}
	if err := e.WrappedKeys().Put(t.Context(), "k", []byte("v")); err != nil {
		t.Errorf("Put of a wrapped key = %v", err)
	}
	if err := s.Trim(t.Context(), 11); err != nil {
		t.Errorf("Trim = %v", err)
	}
	for seq := range uint64(11) {
		delete(acked, seq)
	}
	remove()
	if took := untilResumed(t, s); took > hung {
		t.Errorf("resumed after %s, want at most %s", took, hung)
	}
	sameAsAcked(t, "with space", s, acked)
	if err := e.Health(); err != nil {
		t.Errorf("Health = %v", err)
	}
}

// TestNoSpace makes writes fail with ENOSPC in the middle, which no check beforehand can rule out.
// JetStream then refuses writes for good; the engine has to bring it back.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	disk := testkit.NewDisk(t, 64)
	e := openOn(t, disk, 1)
	s, other := openStream(t, e, "s"), openStream(t, e, "other")
	bucket := openBucket(t, e, "b")
	put(t, bucket, "a", "1")
	acked := map[uint64][]byte{}
	for round := range 3 {
		remove := fill(t, disk, 5<<20)
		var err error
		var took time.Duration
		for i := 0; err == nil; i++ {
			payload := bytes.Repeat([]byte(fmt.Sprintf("%8d", i)), 8<<10)
			began := time.Now()
			var seq uint64
			seq, err = s.Publish(t.Context(), payload, store.AnyLast)
			took = time.Since(began)
			if err == nil {
				acked[seq] = payload
			}
		}
		if !errors.Is(err, store.ErrStorageFull) && !errors.Is(err, store.ErrStalled) {
			t.Errorf("round %d: Publish = %v, want ErrStorageFull or ErrStalled", round, err)
		}
		if took > hung {
			t.Errorf("round %d: the answer took %s", round, took)
		}
		removeRest := fillMore(t, disk, fmt.Sprint("rest-", round))
		for range 5 {
			began := time.Now()
			if _, err := s.Publish(t.Context(), make([]byte, 64<<10), store.AnyLast); err == nil {
				t.Errorf("round %d: Publish on a full disk succeeded", round)
			}
			if took := time.Since(began); took > hung {
				t.Errorf("round %d: a later answer took %s", round, took)
			}
		}
		if err := e.Health(); !errors.Is(err, store.ErrStorageFull) {
			t.Errorf("round %d: Health = %v, want ErrStorageFull", round, err)
		}
		sameAsAcked(t, fmt.Sprintf("round %d, full", round), s, acked)
		if got, err := bucket.Get(t.Context(), "a"); err != nil || string(got) != "1" {
			t.Errorf("round %d: Get while full = %q, %v", round, got, err)
		}
		if round == 1 { // a restart of the process while there is no space
			closeEngine(t, e)
			e = openOn(t, disk, 1)
			s, other, bucket = openStream(t, e, "s"), openStream(t, e, "other"), openBucket(t, e, "b")
			sameAsAcked(t, "restarted while full", s, acked)
		}
		remove()
		removeRest()
		resumed := untilResumed(t, s)
		if resumed > hung {
			t.Errorf("round %d: resumed after %s", round, resumed)
		}
		t.Logf("round %d: refused in %s, resumed in %s, %d acknowledged", round, took, resumed, len(acked))
		sameAsAcked(t, fmt.Sprintf("round %d, with space", round), s, acked)
		publish(t, other, nil, store.AnyLast)
		put(t, bucket, "b", "2")
	}
	closeEngine(t, e)
	e = openOn(t, disk, 1)
	defer closeEngine(t, e)
	sameAsAcked(t, "after a restart", openStream(t, e, "s"), acked)
}

// TestReadsDuringRestart reads while the server behind the handles is being replaced.
func TestReadsDuringRestart(t *testing.T) {
	t.Parallel()
	e := open(t, t.TempDir())
	s := openStream(t, e, "s")
	for i := range uint64(50) {
		publish(t, s, make([]byte, 200<<10), i)
	}
	for range 10 {
		var restart sync.WaitGroup
		restart.Go(e.Restart)
		if got := len(readAll(t, s, 1)); got != 50 {
			t.Errorf("Read = %d payloads, want 50", got)
		}
		if _, _, err := s.Get(context.Background(), 7); err != nil {
			t.Errorf("Get = %v", err)
		}
		restart.Wait()
	}
	seen := 0
	err := s.Read(context.Background(), 1, func(seq uint64, _ time.Time, _ []byte) error {
		seen++
		if seq%10 == 0 {
			e.Restart()
		}
		return nil
	})
	if err != nil || seen != 50 {
		t.Errorf("Read over restarts = %d payloads, %v", seen, err)
	}
	publish(t, s, nil, 50)
}
