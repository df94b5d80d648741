package wall

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// expendable is the worker's oom_score_adj. It adds half of all memory to what the worker holds when the kernel
// looks for a process to end: the worker goes before the server, and before much else on the machine.
const expendable = "500"

// boundMemory has the kernel prefer the worker when memory runs out, and says how much memory it holds.
func (p *process) boundMemory(log *slog.Logger) {
	folder := "/proc/" + strconv.Itoa(p.pid)
	if err := os.WriteFile(folder+"/oom_score_adj", []byte(expendable), 0); err != nil {
		log.Warn("the kernel may end the server before a worker when memory runs out", "pid", p.pid, "error", err)
	}
	p.resident = func() (int64, error) {
		text, err := os.ReadFile(folder + "/statm")
		if err != nil {
			return 0, err
		}
		return residentOf(text)
	}
}

// residentOf reads the second number of a statm, which counts pages.
func residentOf(statm []byte) (int64, error) {
	numbers := bytes.Fields(statm)
	if len(numbers) < 2 {
		return 0, fmt.Errorf("statm has %d numbers, want 7", len(numbers))
	}
	pages, err := strconv.ParseInt(string(numbers[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the resident pages of statm: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// memoryShare is how much of the machine's memory a worker may hold that was given no bound.
const memoryShare = 0.75

// defaultMemory returns the bound of a worker's memory that was given none, 0 when the machine's is not known.
func defaultMemory() int64 {
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return 0
	}
	return int64(float64(s.Totalram) * float64(s.Unit) * memoryShare)
}
