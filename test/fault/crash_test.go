// Package fault_test breaks the real binary: it kills it, cuts its power, fills its disk, and then
// checks that nothing it acknowledged is gone.
package fault_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// defaultCycles is how often a fault is repeated; SALLYPORT_FAULT_CYCLES asks for more.
const defaultCycles = 25

func cycles(t *testing.T) int {
	t.Helper()
	text := os.Getenv("SALLYPORT_FAULT_CYCLES")
	if text == "" {
		return defaultCycles
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("SALLYPORT_FAULT_CYCLES = %q, want a positive number", text)
	}
	return n
}

// random returns a generator whose seed is printed, and can be set by SALLYPORT_FAULT_SEED.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SALLYPORT_FAULT_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SALLYPORT_FAULT_SEED: %v", err)
		}
	}
	t.Logf("seed %d (set SALLYPORT_FAULT_SEED to repeat)", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// acknowledgements collects the ids of events whose 202 was read in full, with its time.
type acknowledgements struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (a *acknowledgements) add(id string) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[id] = now
}

// before returns how many came before t, and drops the later ones: a machine whose power is gone
// cannot have sent them.
func (a *acknowledgements) before(t time.Time) map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := map[string]bool{}
	for id, at := range a.at {
		if at.Before(t) {
			ids[id] = true
		}
	}
	return ids
}

// publish sends events from four clients until ctx ends or the server is gone; half of the clients
// send one event a request, half send batches.
func publish(ctx context.Context, s *testkit.Server, prefix string, acked *acknowledgements) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	const clients = 4
	for c := range clients {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("%s-%d-%d", prefix, c, n)
				var err error
				if c%2 == 0 {
					err = publishOne(ctx, s, id, acked)
				} else {
					err = publishBatch(ctx, s, id, acked)
				}
				if err != nil {
					return // the server is gone: that is what the test does
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func publishOne(ctx context.Context, s *testkit.Server, id string, acked *acknowledgements) error {
	a, err := s.Publish(ctx, "fault.single", id, payload(id))
	if err == nil && a.Status == http.StatusAccepted {
		acked.add(id)
	}
	return err
}

func publishBatch(ctx context.Context, s *testkit.Server, id string, acked *acknowledgements) error {
	const size = 20
	body := []byte{'['}
	for i := range size {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"specversion":"1.0","type":"fault.batch","source":"/test","id":"%s.%d","data":%s}`, id, i, payload(id))
	}
	a, err := s.Do(ctx, http.MethodPost, "/v1/namespaces/default/events", append(body, ']'), "Content-Type", "application/cloudevents-batch+json")
	if err == nil && a.Status == http.StatusAccepted {
		for i := range size {
			acked.add(fmt.Sprintf("%s.%d", id, i))
		}
	}
	return err
}

// payload is 1 KiB of JSON.
func payload(id string) []byte {
	const size = 1024
	return fmt.Appendf(nil, `{"id":%q,"fill":%q}`, id, fmt.Sprintf("%0*d", size, 0))
}

// missing returns which of ids the server does not have, by listing what it has.
func missing(t *testing.T, s *testkit.Server, ids map[string]bool) []string {
	t.Helper()
	left := map[string]bool{}
	for id := range ids {
		left[id] = true
	}
	cursor := ""
	for len(left) > 0 {
		var page api.EventList
		s.MustDo(t, http.MethodGet, "/v1/namespaces/default/events?limit=1000&cursor="+cursor, nil).Decode(t, http.StatusOK, &page)
		for _, e := range page.Events {
			delete(left, e.ID)
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	var gone []string
	for id := range left {
		gone = append(gone, id)
	}
	return gone
}

// balance fails the test unless accepted = done + dead + pending.
func balance(t *testing.T, s *testkit.Server) api.NamespaceStatus {
	t.Helper()
	var status api.Status
	s.MustDo(t, http.MethodGet, "/v1/status", nil).Decode(t, http.StatusOK, &status)
	if len(status.Namespaces) == 0 {
		t.Fatal("status names no namespace")
	}
	n := status.Namespaces[0]
	if n.Accepted != n.Done+n.Dead+n.Pending {
		t.Errorf("accepted %d ≠ done %d + dead %d + pending %d", n.Accepted, n.Done, n.Dead, n.Pending)
	}
	return n
}

// TestKill9 is the first half of G1: SIGKILL at a random moment under load loses no acknowledged event.
func TestKill9(t *testing.T) {
	t.Parallel()
	var (
		binary = testkit.Binary(t)
		data   = filepath.Join(t.TempDir(), "data")
		r      = random(t)
		all    = map[string]bool{}
		acked  map[string]bool
	)
	for cycle := range cycles(t) {
		s := testkit.Start(t, binary, data)
		if gone := missing(t, s, acked); len(gone) > 0 {
			t.Fatalf("cycle %d: %d of %d acknowledged events are gone, such as %s", cycle, len(gone), len(acked), gone[0])
		}
		balance(t, s)
		acks := &acknowledgements{at: map[string]time.Time{}}
		stop := publish(t.Context(), s, fmt.Sprint("k", cycle), acks)
		awaitRandom(t, r, 50*time.Millisecond, 600*time.Millisecond)
		s.Kill()
		killed := time.Now()
		stop()
		acked = acks.before(killed.Add(time.Hour)) // bytes the kernel had were sent by a living server
		maps.Copy(all, acked)
	}
	s := testkit.Start(t, binary, data)
	if gone := missing(t, s, all); len(gone) > 0 {
		t.Fatalf("%d of %d acknowledged events are gone, such as %s", len(gone), len(all), gone[0])
	}
	if len(all) == 0 {
		t.Fatal("nothing was acknowledged in any cycle: the test proves nothing")
	}
	t.Logf("0 of %d acknowledged events lost in %d kills", len(all), cycles(t))
}

// awaitRandom lets a random time pass: the moment of the fault, which is what is being varied.
func awaitRandom(t *testing.T, r *rand.Rand, least, most time.Duration) {
	t.Helper()
	select {
	case <-time.After(least + time.Duration(r.Int64N(int64(most-least)))):
	case <-t.Context().Done():
	}
}

// TestPowerCut is the second half of G1: a power cut, which drops every page that was not synced,
// loses no acknowledged event.
func TestPowerCut(t *testing.T) {
	const mib = 600
	var (
		binary = testkit.Binary(t)
		disk   = testkit.NewDisk(t, mib)
		data   = filepath.Join(disk.Path, "data")
		r      = random(t)
		all    = map[string]bool{}
		acked  map[string]bool
		slow   time.Duration
	)
	for cycle := range cycles(t) {
		s := testkit.Start(t, binary, data)
		slow = max(slow, s.Took)
		if gone := missing(t, s, acked); len(gone) > 0 {
			t.Fatalf("cycle %d: %d of %d acknowledged events are gone, such as %s", cycle, len(gone), len(acked), gone[0])
		}
		balance(t, s)
		acks := &acknowledgements{at: map[string]time.Time{}}
		stop := publish(t.Context(), s, fmt.Sprint("p", cycle), acks)
		awaitRandom(t, r, 200*time.Millisecond, 900*time.Millisecond)
		cut := time.Now()
		if err := disk.CutPower(); err != nil {
			t.Fatal(err)
		}
		s.Kill()
		stop()
		if err := disk.Restore(); err != nil {
			t.Fatal(err)
		}
		acked = acks.before(cut)
		maps.Copy(all, acked)
	}
	s := testkit.Start(t, binary, data)
	if gone := missing(t, s, all); len(gone) > 0 {
		t.Fatalf("%d of %d acknowledged events are gone, such as %s", len(gone), len(all), gone[0])
	}
	s.Kill()
	if len(all) == 0 {
		t.Fatal("nothing was acknowledged in any cycle: the test proves nothing")
	}
	t.Logf("0 of %d acknowledged events lost in %d power cuts; slowest start %s", len(all), cycles(t), slow)
}
