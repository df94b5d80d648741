package wall

import (
	"bufio"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// process is a worker process.
type process struct {
	conn  *os.File // our end of the socket pair
	lanes []*os.File
	pid   int
	// hurries is why it does not have the priority that it should.
	hurries error
	// kill ends it at once; exited is closed when it has ended, and how says how.
	kill   func()
	exited chan struct{}
	how    string
	// resident returns how much memory it holds, in bytes; nil when that is not known.
	resident func() (int64, error)
	talk     sync.WaitGroup // what it writes to stderr
}

// room is what a worker gets to work with.
type room struct {
	lanes int
	// processors is how many threads of it may run Go at the same time.
	processors int
	// yields is by how many steps of the kernel's priorities (see nice(2)) it stands behind the server.
	yields int
}

// Bounds of what a worker may say on stderr: a Go program that panics says a great deal.
const (
	maxTalkLine  = 1 << 10 // bytes of a line that are logged
	maxTalkLines = 200     // in number; the rest is read and dropped
)

// relay logs what a worker writes to stderr, line by line. The rest of a line that is too long is left out: the log takes a secret out of each line
// by itself, and the second half of one would be nothing that it knows.
func relay(from io.Reader, log *slog.Logger) {
	in := bufio.NewReaderSize(from, maxTalkLine)
	n, within := 0, false // within a line whose beginning was logged
	for {
		text, more, err := in.ReadLine()
		if err != nil {
			return
		}
		rest := within
		if within = more; rest {
			continue
		}
		if n++; n > maxTalkLines {
			continue
		}
		log.Warn("a worker wrote", "line", strings.ToValidUTF8(string(text), "\uFFFD"), "cut", more)
	}
}

// closeAll closes what holds nothing that could be lost.
func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
