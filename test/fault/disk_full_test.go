package fault_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/internal/testkit"
)

// TestDiskFull fills the disk under the server, twice: by its own traffic, and by a neighbour that
// takes everything at once. Publishers are refused within a second with the reason, reads go on,
// nothing acknowledged is lost, and service resumes within five seconds of space coming back,
// without a restart.
func TestDiskFull(t *testing.T) {
	binary := testkit.Binary(t)
	for _, c := range []struct {
		name string
		own  bool
	}{
		{name: "filled by own traffic", own: true},
		{name: "filled by a neighbour at once", own: false},
	} {
		t.Run(c.name, func(t *testing.T) {
			const mib = 128
			disk := testkit.NewDisk(t, mib)
			s := testkit.Start(t, binary, filepath.Join(disk.Path, "data"))
			filler := filepath.Join(disk.Path, "filler")
			acked := map[string]bool{}
			sequence := 0
			one := func() testkit.Answer {
				t.Helper()
				sequence++
				id := fmt.Sprint("full-", sequence)
				a, err := s.Publish(t.Context(), "fault.full", id, payload(id))
				if err != nil {
					t.Fatalf("publish: %v\n%s", err, s.Output())
				}
				if a.Status == http.StatusAccepted {
					acked[id] = true
				}
				return a
			}
			if a := one(); a.Status != http.StatusAccepted {
				t.Fatalf("on an empty disk: %d %s", a.Status, a.Body)
			}
			if c.own {
				leave := int64(48 << 20) // so that the test's own traffic fills it in a second or two
				fill(t, disk, filler, leave)
			} else {
				fill(t, disk, filler, 0)
			}
			refused, took := untilRefused(t, one)
			if refused.Status != http.StatusInsufficientStorage && refused.Status != http.StatusServiceUnavailable {
				t.Errorf("refused with %d, want 507 or 503\n%s", refused.Status, refused.Body)
			}
			if p := refused.Problem(); p.Code == "" || p.Detail == "" || refused.Header.Get("Retry-After") == "" {
				t.Errorf("the refusal does not say why or when to come again: %v %s", refused.Header, refused.Body)
			}
			if gone := missing(t, s, acked); len(gone) > 0 {
				t.Errorf("while full, %d of %d acknowledged events cannot be read", len(gone), len(acked))
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			resumed := untilAccepted(t, one)
			if gone := missing(t, s, acked); len(gone) > 0 {
				t.Errorf("%d of %d acknowledged events are gone", len(gone), len(acked))
			}
			s.Kill()
			s = testkit.Start(t, binary, filepath.Join(disk.Path, "data"))
			if gone := missing(t, s, acked); len(gone) > 0 {
				t.Errorf("after a restart, %d of %d acknowledged events are gone", len(gone), len(acked))
			}
			s.Kill() // before the disk is unmounted
			t.Logf("refused in %s with %d, resumed in %s, 0 of %d acknowledged events lost", took, refused.Status, resumed, len(acked))
		})
	}
}

// fill writes a file that leaves only so many bytes free.
func fill(t *testing.T, d *testkit.Disk, path string, leave int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		free, err := d.Free()
		if err != nil {
			t.Fatal(err)
		}
		if free <= leave {
			break
		}
		n := min(int64(len(block)), free-leave)
		if _, err := f.Write(block[:n]); err != nil {
			if leave > 0 {
				t.Fatal(err)
			}
			block = block[:len(block)/2] // ENOSPC: go on in smaller steps to the last block
		}
		if err := f.Sync(); err != nil && leave > 0 {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil && leave > 0 {
		t.Fatal(err)
	}
}

// untilRefused publishes until it is refused, and returns the refusal and how long that answer took.
func untilRefused(t *testing.T, one func() testkit.Answer) (testkit.Answer, time.Duration) {
	t.Helper()
	limit := time.Now().Add(90 * time.Second)
	for time.Now().Before(limit) {
		began := time.Now()
		if a := one(); a.Status != http.StatusAccepted {
			return a, time.Since(began)
		}
	}
	t.Fatal("the disk is full and nothing was refused")
	return testkit.Answer{}, 0
}

// untilAccepted publishes until it is accepted again, and returns how long that took.
func untilAccepted(t *testing.T, one func() testkit.Answer) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 2*time.Minute {
		if a := one(); a.Status == http.StatusAccepted {
			return time.Since(began)
		}
		<-tick.C
	}
	t.Fatal("space came back and service did not")
	return 0
}
