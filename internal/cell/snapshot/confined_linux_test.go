package snapshot_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sallyport/internal/cell/snapshot"
)

const confinedEnv = "SALLYPORT_TEST_CONFINED"

// TestConfined runs parts of itself in processes that have lost system calls.
func TestConfined(t *testing.T) {
	if part := os.Getenv(confinedEnv); part != "" {
		confined(t, part)
		return
	}
	t.Parallel()
	for _, part := range []string{"no userfaultfd", "no files after the start"} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestConfined$", "-test.v")
			cmd.Env = append(os.Environ(), confinedEnv+"="+part)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if strings.Contains(string(out), "NOT TESTED") {
				t.Skipf("%s", out)
			}
		})
	}
}

func confined(t *testing.T, part string) {
	if part == "no userfaultfd" {
		lose(t, unix.SYS_USERFAULTFD)
		a := open(t, snapshot.Best)
		if a.Method() != snapshot.CopyOnWrite || !errors.Is(a.Why(), syscall.EPERM) || !strings.Contains(fmt.Sprint(a.Why()), "userfaultfd") {
			t.Errorf("the method is %s because of %v; want copy-on-write because of userfaultfd", a.Method(), a.Why())
		}
		use(t, a)
		return
	}
	allocators := []*snapshot.Allocator{open(t, snapshot.CopyOnWrite), open(t, snapshot.Tracked)}
	lose(t, unix.SYS_USERFAULTFD, unix.SYS_OPENAT, unix.SYS_OPENAT2)
	if _, err := os.Open("/proc/self/pagemap"); !errors.Is(err, syscall.EPERM) {
		t.Fatalf("opening a file = %v; want that it is not permitted", err)
	}
	for _, a := range allocators {
		use(t, a)
	}
}

// use has a few memories filled and reset.
func use(t *testing.T, a *snapshot.Allocator) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(50, 50))
	for _, size := range []int{small, large, small} {
		want := content(rnd, size, .5)
		m := grown(t, a, size, size)
		fill(t, m, take(t, want, nil), want)
		for range 20 {
			reset(t, m, want, dirty(rnd, m.Bytes()))
		}
		m.Release()
	}
}

// lose makes these system calls fail with EPERM from now on, in all threads.
func lose(t *testing.T, calls ...uint32) {
	t.Helper()
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the call
	for i, call := range calls {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(calls) - i), K: call})
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // whose promise the second call gives to the other threads, with the filter
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Skipf("NOT TESTED: prctl(PR_SET_NO_NEW_PRIVS): %v", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		t.Skipf("NOT TESTED: seccomp: %v", errno)
	}
}
