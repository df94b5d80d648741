package wall_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/cell/wall"
	"sallyport/internal/testkit"
)

// TestLanesWaitInTheKernel: a worker's ends of its lanes are blocking, so that what comes wakes the thread that waits and no other.
func TestLanesWaitInTheKernel(t *testing.T) {
	t.Parallel()
	const lanes, first = 3, 4 // after the socket that all share
	e, err := wall.New(t.Context(), wall.Config{Program: testkit.Binary(t), Args: []string{"sallyport", "cell-worker"}, Lanes: lanes, Grace: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	mode := func(fd int) int64 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", e.State().PID, fd))
		if errors.Is(err, os.ErrPermission) {
			t.Skip("the descriptors of a worker, which is nobody, are root's to see")
		}
		found := regexp.MustCompile(`flags:\s*([0-7]+)`).FindSubmatch(text)
		if err != nil || found == nil {
			t.Fatalf("read how descriptor %d is open: %q, %v", fd, text, err)
		}
		flags, err := strconv.ParseInt(string(found[1]), 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		return flags
	}
	if mode(first-1)&unix.O_NONBLOCK == 0 {
		t.Error("the socket that all share is blocking: this test looks at the wrong descriptors")
	}
	for fd := first; fd < first+lanes; fd++ {
		if mode(fd)&unix.O_NONBLOCK != 0 {
			t.Errorf("the lane at descriptor %d is not blocking", fd)
		}
	}
}
