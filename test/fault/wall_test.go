package fault_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// walled has a function that is quick, and one that takes a while.
func walled() *api.Bundle {
	return &api.Bundle{
		Manifest: `
name = "walled"
[functions.quick]
source = "quick.js"
[functions.slow]
source = "slow.js"
timeout = "30s"
[subscriptions.quick]
function = "quick"
filter = { type = "wall.quick" }
[subscriptions.slow]
function = "slow"
filter = { type = "wall.slow" }
`,
		Modules: map[string]api.Module{
			"quick": {Kind: api.ModuleScript, Code: []byte(`export default (event, ctx) => { ctx.log("seen"); return { n: event.data.n } }`)},
			"slow":  {Kind: api.ModuleScript, Code: []byte(`export default async (event) => { await new Promise(done => setTimeout(done, 100)) }`)},
		},
	}
}

// workers returns the process ids of a server's workers.
func workers(t *testing.T, server int) []int {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, file := range list {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may hold anything; the state and the parent come after it.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(server) || fields[0] == "Z" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, pid)
	}
	return out
}

func oneWorker(t *testing.T, s *testkit.Server) int {
	t.Helper()
	pids := workers(t, s.PID())
	if len(pids) != 1 {
		t.Fatalf("the server has the workers %v, want one\n%s", pids, s.Output())
	}
	return pids[0]
}

// until polls a fact until it is true.
func until(t *testing.T, what string, fact func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for !fact() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}

func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(text, []byte(") Z "))
}

// TestWallsStand looks at a worker from outside while it serves events: what it may do, where it is,
// and what it has open. No key, no part of the data folder, and no socket but its own is among that.
func TestWallsStand(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	s := testkit.Start(t, testkit.Binary(t), data)
	s.Apply(t, walled())
	if a, err := s.Publish(t.Context(), "wall.quick", "stand", []byte(`{"n":1}`)); err != nil || a.Status != http.StatusAccepted {
		t.Fatalf("publish: %v %d", err, a.Status)
	}
	if e := s.Event(t, "stand", "20s"); e.State != api.StateDone {
		t.Fatalf("the event is %s, want done\n%s", e.State, s.Output())
	}
	pid := oneWorker(t, s)
	checkStatus(t, pid)
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid)); err != nil || strings.TrimSpace(string(text)) != "500" {
		t.Errorf("the worker's oom_score_adj is %q, %v; want 500", text, err)
	}
	checkNamespaces(t, pid)
	checkFiles(t, pid, data)
	checkMounts(t, pid)
	if strings.Contains(s.Output(), "gaps") {
		t.Errorf("the server says that walls are missing\n%s", s.Output())
	}
}

func checkStatus(t *testing.T, pid int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("the worker has no threads: %v", err)
	}
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for _, want := range []string{
			"Seccomp:\t2", "NoNewPrivs:\t1", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000",
			"CapEff:\t0000000000000000", "CapAmb:\t0000000000000000",
		} {
			if !strings.Contains(string(text), "\n"+want+"\n") {
				t.Errorf("%s does not say %q\n%s", file, want, text)
			}
		}
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for entry := range strings.SplitSeq(strings.TrimRight(string(env), "\x00"), "\x00") {
		switch name, _, _ := strings.Cut(entry, "="); name {
		case "GOMAXPROCS", "GOTRACEBACK", "TZ":
		default:
			t.Errorf("the worker's environment has %s", name)
		}
	}
}

func checkNamespaces(t *testing.T, pid int) {
	t.Helper()
	for _, ns := range []string{"user", "pid", "net", "ipc", "uts", "mnt"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if theirs == ours {
			t.Errorf("the worker shares the namespace %s", theirs)
		}
	}
}

func checkFiles(t *testing.T, pid int, data string) {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	pairs, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		if err != nil {
			continue // it was closed
		}
		switch {
		case strings.HasPrefix(target, "socket:"):
			// A connected Unix stream without a name: one end of a pair.
			inode := strings.Trim(target, "socket:[]")
			if !regexp.MustCompile(`(?m)^\S+ \S+ \S+ \S+ 0001 03 +` + inode + `$`).Match(pairs) {
				t.Errorf("the worker has the %s, which is no end of a pair", target)
			}
		case strings.HasPrefix(target, "pipe:"), strings.HasPrefix(target, "anon_inode:"), strings.HasPrefix(target, "/memfd:"):
		case kernelFile(t, pid, e.Name(), target):
		default:
			t.Errorf("the worker has %s open", target)
		}
		if strings.HasPrefix(target, data) {
			t.Errorf("the worker has %s of the data folder open", target)
		}
	}
}

// kernelFile reports whether what a worker has open is one of the files that the kernel makes up and a worker needs:
// its own page table, how many processors the Go runtime may use, nothing to read from. Their paths begin
// where they were mounted, which is nowhere any more.
func kernelFile(t *testing.T, pid int, fd, target string) bool {
	t.Helper()
	// The numbers are Linux's, from linux/magic.h, and written out so that the rest of these tests builds elsewhere.
	const proc, cgroup1, cgroup2 = 0x9fa0, 0x27e0eb, 0x63677270
	var s unix.Statfs_t
	if err := unix.Statfs(fmt.Sprintf("/proc/%d/fd/%s", pid, fd), &s); err != nil {
		t.Errorf("ask what file system %s is of: %v", target, err)
	}
	switch s.Type {
	case proc:
		return filepath.Base(target) == "pagemap"
	case cgroup1, cgroup2:
		return strings.HasPrefix(filepath.Base(target), "cpu.")
	}
	return filepath.Base(target) == "null"
}

// checkMounts finds that the worker has one mount, its root, and nothing in it but an empty folder.
func checkMounts(t *testing.T, pid int) {
	t.Helper()
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(mounts), "\n"); n != 1 || !strings.Contains(string(mounts), " - tmpfs ") {
		t.Errorf("the worker has the mounts\n%swant a root in memory alone", mounts)
	}
	var found []string
	err = filepath.WalkDir(fmt.Sprintf("/proc/%d/root/", pid), func(path string, _ fs.DirEntry, err error) error {
		found = append(found, path)
		return err
	})
	for i, path := range found {
		info, statErr := os.Stat(path)
		if i > 0 && !strings.Contains(path, "/root/code") || statErr != nil || !info.IsDir() {
			t.Errorf("in the worker's root is %s (%v), want empty folders for code alone", path, statErr)
		}
	}
	if err != nil || len(found) < 2 {
		t.Errorf("in the worker's root are %v (%v), want a folder for code", found, err)
	}
}

// TestCompiledCodeIsKept: what a compiler process made is there after a restart, and is used; where a byte of it has
// changed it is not, and is made again.
func TestCompiledCodeIsKept(t *testing.T) {
	t.Parallel()
	var (
		data   = filepath.Join(t.TempDir(), "data")
		binary = testkit.Binary(t)
	)
	handle := func(id string) *testkit.Server {
		s := testkit.Start(t, binary, data)
		if id == "made" {
			s.Apply(t, walled())
		}
		if a, err := s.Publish(t.Context(), "wall.quick", id, []byte(`{"n":1}`)); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("publish: %v %d", err, a.Status)
		}
		if e := s.Event(t, id, "20s"); e.State != api.StateDone {
			t.Fatalf("the event is %s, want done\n%s", e.State, s.Output())
		}
		s.Kill()
		return s
	}
	first := handle("made")
	files, err := filepath.Glob(filepath.Join(data, "code", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("there is compiled code in %v (%v), want one file, for scripts", files, err)
	}
	code, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(files[0], long, long); err != nil {
		t.Fatal(err)
	}
	for id, s := range map[string]*testkit.Server{"made": first, "kept": handle("kept")} {
		if strings.Contains(s.Output(), "was compiled in the worker") {
			t.Errorf("%s: code was not used\n%s", id, s.Output())
		}
	}
	again, err := os.ReadFile(files[0])
	if err != nil || !bytes.Equal(again, code) {
		t.Errorf("the code was made again (%v)", err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.ModTime().Equal(long) {
		t.Errorf("the code was not used: %v", err)
	}
	code[len(code)/2] ^= 1
	if err := os.WriteFile(files[0], code, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := handle("changed"); !strings.Contains(s.Output(), "compiled code does not open") {
		t.Errorf("the server does not say that code was changed\n%s", s.Output())
	}
	if again, err := os.ReadFile(files[0]); err != nil || bytes.Equal(again, code) {
		t.Errorf("the code that was changed is still there (%v)", err)
	}
}

// TestWorkerHasNoKeys reads all memory of a worker that has served events, and looks for the root key
// and the operator's token.
func TestWorkerHasNoKeys(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	s := testkit.Start(t, testkit.Binary(t), data)
	s.Apply(t, walled())
	if a, err := s.Publish(t.Context(), "wall.quick", "keys", []byte(`{"n":1,"mark":"needle-0123456789"}`)); err != nil || a.Status != http.StatusAccepted {
		t.Fatalf("publish: %v %d", err, a.Status)
	}
	s.Event(t, "keys", "20s")
	text, err := os.ReadFile(filepath.Join(data, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	key, err := base64.StdEncoding.DecodeString(lines[len(lines)-1])
	const keyBytes = 32 // a check sum follows
	if err != nil || len(key) <= keyBytes {
		t.Fatalf("the root key file is not understood: %v", err)
	}
	key = key[:keyBytes]
	// The server has it, so that the search is one that finds something.
	if !inMemory(t, s.PID(), key) {
		t.Skip("the memory of another process cannot be read here")
	}
	worker := oneWorker(t, s)
	if !inMemory(t, worker, []byte("sallyport_handle")) {
		t.Fatal("the worker's memory cannot be read")
	}
	for name, secret := range map[string][]byte{"the root key": key, "the operator's token": []byte(s.Token)} {
		if inMemory(t, worker, secret) {
			t.Errorf("the worker has %s in its memory", name)
		}
	}
}

// inMemory reports whether a process has a text in its memory.
func inMemory(t *testing.T, pid int, needle []byte) bool {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return false
	}
	defer func() { _ = mem.Close() }() // it was only read
	buffer := make([]byte, 1<<20)
	for entry := range strings.Lines(string(maps)) {
		var first, last uint64
		var rights string
		if _, err := fmt.Sscanf(entry, "%x-%x %s", &first, &last, &rights); err != nil || rights[0] != 'r' {
			continue
		}
		const most = 256 << 20 // a reservation that holds little
		for at := first; at < last && at < first+most; at += uint64(len(buffer) - len(needle)) {
			n, err := mem.ReadAt(buffer[:min(uint64(len(buffer)), last-at)], int64(at))
			if bytes.Contains(buffer[:n], needle) {
				return true
			}
			if err != nil {
				break
			}
		}
	}
	return false
}

// TestWorkerKilled kills workers while events are handled. No accepted event is lost or given up, the
// balance holds, and the server goes on.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	s.Apply(t, walled())
	const kills = 5
	var ids []string
	for n := range kills {
		for i := range 20 {
			for _, eventType := range []string{"wall.quick", "wall.slow"} {
				id := fmt.Sprintf("%s-%d-%d", eventType, n, i)
				a, err := s.Publish(t.Context(), eventType, id, []byte(`{"n":1}`))
				if err != nil || a.Status != http.StatusAccepted {
					t.Fatalf("publish: %v %d", err, a.Status)
				}
				ids = append(ids, id)
			}
		}
		pid := 0
		until(t, "a worker", func() bool {
			if list := workers(t, s.PID()); len(list) > 0 {
				pid = list[0] // whichever: an attempt that is lost alone is followed by another
			}
			return pid != 0
		})
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
		until(t, "the end of the worker", func() bool { return gone(pid) })
		balance(t, s)
	}
	for _, id := range ids {
		until(t, "the event "+id, func() bool { return s.Event(t, id, "20s").State != api.StatePending })
		if e := s.Event(t, id, "0s"); e.State != api.StateDone {
			t.Errorf("%s is %s, want done", id, e.State)
		}
	}
	if n := balance(t, s); n.Done != int64(len(ids)) || n.Pending != 0 {
		t.Errorf("%d of %d events are done, %d pending", n.Done, len(ids), n.Pending)
	}
}

// TestWorkerEndsWithServer ends servers, in order and by force: no worker is left.
func TestWorkerEndsWithServer(t *testing.T) {
	t.Parallel()
	binary := testkit.Binary(t)
	for _, c := range []struct {
		name string
		end  func(t *testing.T, s *testkit.Server)
	}{
		{"SIGTERM", func(t *testing.T, s *testkit.Server) {
			if _, err := s.Stop(); err != nil {
				t.Errorf("exit: %v\n%s", err, s.Output())
			}
		}},
		{"SIGKILL", func(_ *testing.T, s *testkit.Server) { s.Kill() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := testkit.Start(t, binary, filepath.Join(t.TempDir(), "data"))
			pid := oneWorker(t, s)
			c.end(t, s)
			until(t, "the end of the worker", func() bool { return gone(pid) })
			if strings.Contains(s.Output(), "worker process was lost") {
				t.Errorf("the end of the worker is taken for a fault\n%s", s.Output())
			}
		})
	}
}
