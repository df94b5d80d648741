package fault_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// computing has a function that computes, for much longer than what makes a function heavy.
func computing() *api.Bundle {
	return &api.Bundle{
		Manifest: `
name = "computing"
[functions.computes]
source = "computes.js"
timeout = "60s"
[subscriptions.computes]
function = "computes"
filter = { type = "heavy.event" }
`,
		Modules: map[string]api.Module{"computes": {Kind: api.ModuleScript, Code: []byte(
			`export default () => { let s = 0; for (let i = 0; i < 3e5; i++) s = (s + i * 7) % 1000003; return s }`)}},
	}
}

func compute(t *testing.T, s *testkit.Server, id string) {
	t.Helper()
	if a, err := s.Publish(t.Context(), "heavy.event", id, []byte(`{}`)); err != nil || a.Status != http.StatusAccepted {
		t.Fatalf("publish: %v %d", err, a.Status)
	}
	if e := s.Event(t, id, "60s"); e.State != api.StateDone {
		t.Fatalf("the event is %s, want done\n%s", e.State, s.Output())
	}
}

func cellStatus(t *testing.T, s *testkit.Server) api.CellStatus {
	t.Helper()
	var status api.Status
	s.MustDo(t, http.MethodGet, "/v1/status", nil).Decode(t, http.StatusOK, &status)
	return *status.Cells
}

// nices returns the priorities of a process's threads.
func nices(t *testing.T, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("process %d has no threads: %v", pid, err)
	}
	var out []int
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		const nice = 16 // see proc_pid_stat(5); fields after the name
		n, err := strconv.Atoi(strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))[nice])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// groupNice returns the priority of a process's session, if the kernel has such a thing.
func groupNice(t *testing.T, pid int) (nice string, ok bool) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/autogroup", pid))
	if errors.Is(err, os.ErrNotExist) {
		return "", false
	}
	_, nice, found := strings.Cut(strings.TrimSpace(string(text)), " nice ")
	if err != nil || !found {
		t.Fatalf("the session of process %d is %q, %v", pid, text, err)
	}
	return nice, true
}

// TestHeavyWorker: a function that computes for long runs in another worker, which has every wall that the first
// has, and stands behind it in the kernel's scheduler with every thread. After a restart the server knows.
func TestHeavyWorker(t *testing.T) {
	t.Parallel()
	binary, data := testkit.Binary(t), filepath.Join(t.TempDir(), "data")
	s := testkit.Start(t, binary, data)
	s.Apply(t, computing())
	if c := cellStatus(t, s); c.HeavyWorker != 0 {
		t.Errorf("there is a worker of heavy functions, %d, before there are any", c.HeavyWorker)
	}
	for n := range 3 {
		compute(t, s, fmt.Sprint("first-", n))
	}
	c := cellStatus(t, s)
	if c.HeavyWorker == 0 || c.HeavyWorker == c.Worker {
		t.Fatalf("the worker of heavy functions is %d, that of others %d; want two\n%s", c.HeavyWorker, c.Worker, s.Output())
	}
	checkStatus(t, c.HeavyWorker)
	checkNamespaces(t, c.HeavyWorker)
	checkFiles(t, c.HeavyWorker, data)
	own := slices.Min(nices(t, s.PID())) // the threads that wait for workers stand behind as they do
	for pid, behind := range map[int]int{c.Worker: 0, c.HeavyWorker: 5} {
		for _, n := range nices(t, pid) {
			if want := min(own+behind, 19); n != want {
				t.Errorf("a thread of process %d has the priority %d, want %d", pid, n, want)
			}
		}
	}
	if nice, ok := groupNice(t, c.HeavyWorker); ok && nice != "5" {
		t.Errorf("the session of the worker of heavy functions has the priority %s, want 5", nice)
	}
	if _, err := s.Stop(); err != nil {
		t.Fatalf("stop: %v\n%s", err, s.Output())
	}
	s = testkit.Start(t, binary, data)
	compute(t, s, "second")
	if c := cellStatus(t, s); c.HeavyWorker == 0 {
		t.Error("after a restart, a heavy function ran in the worker of all")
	}
}
