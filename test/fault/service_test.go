package fault_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// TestDeliveryAcrossKills is G2: events whose functions were running, waiting for a retry or not yet
// started when the server was killed all reach an end, and the balance is exact.
func TestDeliveryAcrossKills(t *testing.T) {
	t.Parallel()
	const (
		events = 300
		kills  = 3
	)
	binary, data := testkit.Binary(t), filepath.Join(t.TempDir(), "data")
	s := testkit.Start(t, binary, data)
	s.Apply(t, &api.Bundle{
		Manifest: `
name = "kills"
[functions.worker]
source = "worker.js"
[subscriptions.worker]
function = "worker"
filter = { type = "kills.event" }
retry = { attempts = 3, backoff = "300ms" }
`,
		Modules: map[string]api.Module{"worker": {Kind: api.ModuleScript, Code: []byte(
			`export default (event) => { if (event.data.n % 10 === 0) throw new Error("every tenth fails") }`)}},
	})
	for n := range events {
		if n%(events/kills) == events/kills-1 {
			s.Kill()
			s = testkit.Start(t, binary, data)
		}
		a, err := s.Publish(t.Context(), "kills.event", fmt.Sprint("kills-", n), fmt.Appendf(nil, `{"n":%d}`, n))
		if err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("publish %d: %v %s", n, err, a.Body)
		}
	}
	for n := range events {
		want := api.StateDone
		if n%10 == 0 {
			want = api.StateDead
		}
		if e := s.Event(t, fmt.Sprint("kills-", n), "20s"); e.State != want {
			t.Errorf("event %d is %s, want %s: %+v", n, e.State, want, e.Deliveries)
		}
	}
	if b := balance(t, s); b.Accepted != events || b.Dead != events/10 || b.Pending != 0 {
		t.Errorf("balance = %+v, want %d accepted, %d dead, 0 pending", b, events, events/10)
	}
}

// TestHungFunction is G5, and the isolation of neighbours: a function that never ends is stopped at
// its deadline, and another's events do not wait for it.
func TestHungFunction(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	s.Apply(t, &api.Bundle{
		Manifest: `
name = "hung"
[functions.hung]
source  = "hung.js"
timeout = "500ms"
[functions.quick]
source = "quick.js"
[subscriptions.hung]
function = "hung"
filter = { type = "hung.event" }
retry = { attempts = 1 }
[subscriptions.quick]
function = "quick"
filter = { type = "quick.event" }
`,
		Modules: map[string]api.Module{
			"hung":  {Kind: api.ModuleScript, Code: []byte(`export default () => { for (;;) {} }`)},
			"quick": {Kind: api.ModuleScript, Code: []byte(`export default () => "ok"`)},
		},
	})
	const events = 20
	began := time.Now()
	for n := range events {
		for _, kind := range []string{"hung", "quick"} {
			if a, err := s.Publish(t.Context(), kind+".event", fmt.Sprint(kind, n), []byte(`{}`)); err != nil || a.Status != http.StatusAccepted {
				t.Fatalf("publish: %v %s", err, a.Body)
			}
		}
	}
	for n := range events {
		if e := s.Event(t, fmt.Sprint("quick", n), "20s"); e.State != api.StateDone {
			t.Errorf("quick event %d is %s, want done", n, e.State)
		}
	}
	quick := time.Since(began)
	for n := range events {
		e := s.Event(t, fmt.Sprint("hung", n), "30s")
		if e.State != api.StateDead || len(e.Deliveries) != 1 || len(e.Deliveries[0].Attempts) != 1 {
			t.Fatalf("hung event %d: %+v, want dead after one attempt", n, e)
		}
		if a := e.Deliveries[0].Attempts[0]; a.Code != "cell.timeout" {
			t.Errorf("hung event %d failed with %q, want cell.timeout", n, a.Code)
		}
	}
	if hung := time.Since(began); quick > hung/2 {
		t.Errorf("the quick events took %s of the hung ones' %s: they waited for them", quick, hung)
	}
}

// TestNoPlaintext is G6 on the wire: nothing but TLS 1.3 is spoken.
func TestNoPlaintext(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Ready.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 4096))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection was neither answered nor closed")
	}
	if strings.Contains(string(answer), " 200 ") {
		t.Errorf("plaintext was answered: %q", answer)
	}
}

// TestShutdown is the contract of SIGTERM: in-flight work is settled or returned, the process ends
// with status 0 and does not hang, and no acknowledged event is lost.
func TestShutdown(t *testing.T) {
	t.Parallel()
	binary, data := testkit.Binary(t), filepath.Join(t.TempDir(), "data")
	s := testkit.Start(t, binary, data)
	acks := &acknowledgements{at: map[string]time.Time{}}
	stop := publish(t.Context(), s, "term", acks)
	awaitAcknowledgements(t, acks, 100)
	took, err := s.Stop()
	stop()
	if err != nil {
		t.Errorf("exit: %v\n%s", err, s.Output())
	}
	if took > testkit.StopLimit {
		t.Errorf("shutdown took %s, want at most %s", took, testkit.StopLimit)
	}
	acked := acks.before(time.Now())
	s = testkit.Start(t, binary, data)
	if gone := missing(t, s, acked); len(gone) > 0 {
		t.Errorf("%d of %d acknowledged events are gone", len(gone), len(acked))
	}
}

func awaitAcknowledgements(t *testing.T, acks *acknowledgements, n int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for len(acks.before(time.Now().Add(time.Hour))) < n {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("too few events were acknowledged")
		}
	}
}

// TestOverload is G10: far more clients than the server can serve are answered, with 202 or with 429
// or 503 and Retry-After; nothing else, and what was acknowledged is there.
func TestOverload(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	const (
		clients = 128
		each    = 20
	)
	acks := &acknowledgements{at: map[string]time.Time{}}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := range each {
				id := fmt.Sprintf("over-%d-%d", c, n)
				a, err := s.Publish(t.Context(), "over.event", id, payload(id))
				switch {
				case err != nil:
					t.Errorf("publish: %v", err)
				case a.Status == http.StatusAccepted:
					acks.add(id)
				case a.Status != http.StatusTooManyRequests && a.Status != http.StatusServiceUnavailable:
					t.Errorf("status %d: %s", a.Status, a.Body)
				case a.Header.Get("Retry-After") == "":
					t.Errorf("refused without Retry-After: %s", a.Body)
				}
			}
		})
	}
	wg.Wait()
	if gone := missing(t, s, acks.before(time.Now())); len(gone) > 0 {
		t.Errorf("%d acknowledged events are gone", len(gone))
	}
}
