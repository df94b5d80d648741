package funclog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/funclog"
)

// journal keeps batches in memory; while it is held, appends wait.
type journal struct {
	hold sync.Mutex

	mu      sync.Mutex
	batches [][][]byte
}

func (j *journal) Append(_ context.Context, recs [][]byte) (uint64, error) {
	j.hold.Lock()
	defer j.hold.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.batches = append(j.batches, recs)
	return uint64(len(j.batches)), nil
}

func (j *journal) Read(_ context.Context, from uint64, fn func(uint64, [][]byte) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := from; i <= uint64(len(j.batches)); i++ {
		if err := fn(i, j.batches[i-1]); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return uint64(len(j.batches))
}

func (j *journal) First(context.Context) (uint64, int64, error) { return 1, 0, nil }
func (j *journal) Trim(context.Context, uint64) error           { return errors.New("not expected") }

func open(t *testing.T, j *journal) *funclog.Logs {
	l := funclog.Open(j, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func line(i int, function string) api.LogLine {
	return api.LogLine{Time: start.Add(time.Duration(i) * time.Second), Function: function, EventID: fmt.Sprint("e", i%3), Level: "info", Message: fmt.Sprint(i)}
}

func texts(t *testing.T, l *funclog.Logs, q funclog.Query) string {
	t.Helper()
	lines, err := l.Read(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, line := range lines {
		out = append(out, line.Message)
	}
	return strings.Join(out, " ")
}

// TestReadBack reads lines that are still waiting, that were written, and after a restart.
func TestReadBack(t *testing.T) {
	t.Parallel()
	j := &journal{}
	j.hold.Lock()
	l := open(t, j)
	for i := range 10 {
		l.Append(line(i, []string{"a", "b"}[i%2]))
	}
	check := func(when string, l *funclog.Logs) {
		t.Helper()
		for want, q := range map[string]funclog.Query{
			"7 8 9":     {Limit: 3},
			"5 7 9":     {Limit: 3, Function: "b"},
			"0 3 6 9":   {Limit: 99, EventID: "e0"},
			"8 9":       {Limit: 99, Since: start.Add(8 * time.Second)},
			"":          {Limit: 99, Function: "nobody"},
			"2 4 6 8":   {Limit: 4, Function: "a"},
			"1 3 5 7 9": {Limit: 5, Function: "b"},
		} {
			if got := texts(t, l, q); got != want {
				t.Errorf("%s: Read(%+v) = %q, want %q", when, q, got, want)
			}
		}
	}
	check("waiting", l)
	j.hold.Unlock()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	check("written", l)
	check("after a restart", open(t, j))
	l.Append(line(99, "a"))
	if got := texts(t, l, funclog.Query{Limit: 1}); got != "9" {
		t.Errorf("a line after Close was kept: %q", got)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	l := open(t, &journal{})
	lines, stop, ok := l.Follow()
	if !ok {
		t.Fatal("Follow refused the first follower")
	}
	l.Append(line(1, "a"))
	if got := <-lines; got.Message != "1" {
		t.Errorf("followed line %+v", got)
	}
	stop()
	l.Append(line(2, "a"))
	select {
	case got := <-lines:
		t.Errorf("a line after stop: %+v", got)
	default:
	}
	for range funclog.MaxFollowers {
		if _, _, ok := l.Follow(); !ok {
			t.Fatal("Follow refused before the limit")
		}
	}
	if _, _, ok := l.Follow(); ok {
		t.Error("Follow accepted more than MaxFollowers")
	}
}

// TestFlood appends more than can be written: memory and answers stay bounded.
func TestFlood(t *testing.T) {
	t.Parallel()
	j := &journal{}
	j.hold.Lock()
	l := open(t, j)
	for i := range 25_000 {
		l.Append(line(i, "a"))
	}
	j.hold.Unlock()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, j)
	l.Append(line(30_000, "a"))
	if got := texts(t, l, funclog.Query{Limit: 1}); got != "30000" {
		t.Errorf("the newest line is %q", got)
	}
	if n := len(strings.Fields(texts(t, l, funclog.Query{Limit: funclog.MaxRead}))); n != funclog.MaxRead {
		t.Errorf("Read = %d lines, want the bound of %d", n, funclog.MaxRead)
	}
}

// TestFloodIsTold: after lines were dropped, the next line that is kept says how many.
func TestFloodIsTold(t *testing.T) {
	t.Parallel()
	j := &journal{}
	j.hold.Lock()
	l := open(t, j)
	for i := range 20_005 {
		l.Append(line(i, "a"))
	}
	j.hold.Unlock()
	for { // until the flood is written and there is room again
		l.Append(line(50_000, "b"))
		if got := texts(t, l, funclog.Query{Function: "b", Limit: 2}); strings.Contains(got, "lines of this namespace were dropped") {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("nothing says that lines were dropped")
		}
	}
}

// slowFirst is a journal that is written to while a reader is in the middle of reading.
type slowFirst struct {
	*journal
	once sync.Once
	meet func()
}

func (j *slowFirst) First(ctx context.Context) (uint64, int64, error) {
	j.once.Do(j.meet)
	return j.journal.First(ctx)
}

// TestReadWhileWriting: a line that is written down while somebody reads is read, once.
func TestReadWhileWriting(t *testing.T) {
	t.Parallel()
	j := &slowFirst{journal: &journal{}}
	l := funclog.Open(j, slog.New(slog.DiscardHandler))
	j.meet = func() { // when it returns, the line is in the journal and nowhere else
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	l.Append(line(1, "price"))
	lines, err := l.Read(t.Context(), funclog.Query{Limit: 10})
	if err != nil || len(lines) != 1 {
		t.Errorf("Read = %v, %v; want the one line", lines, err)
	}
}

// said returns how many lines of the journal are of a function and begin so.
func said(t *testing.T, j *journal, function, begin string) (lines int) {
	t.Helper()
	err := j.Read(t.Context(), 1, func(_ uint64, recs [][]byte) error {
		size := 0
		for _, rec := range recs {
			size += len(rec)
			var l api.LogLine
			if err := json.Unmarshal(rec, &l); err != nil {
				return err
			}
			if l.Function == function && strings.HasPrefix(l.Message, begin) {
				lines++
			}
		}
		if size > 7<<20 { // what the event log's journal takes
			t.Errorf("a batch of %d bytes", size)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestFloodOfOne: a function that floods the log loses what is more than its share, is told so, and takes nothing from another. Its
// lines, as long as they get, fit into batches that the journal takes.
func TestFloodOfOne(t *testing.T) {
	t.Parallel()
	j := &journal{}
	l := open(t, j)
	at := func(second int, function, message string) {
		l.Append(api.LogLine{Time: start.Add(time.Duration(second) * time.Second), Function: function, Message: message})
	}
	long := strings.Repeat("x", 8<<10)
	const flood = 3000 // lines, together thrice what a function may write at once
	for range flood {
		at(0, "floods", long)
		at(0, "quiet", "quiet")
	}
	at(1, "floods", "after a second")
	at(2, "floods", "and another")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	const most = (8 << 20) / (8<<10 + 256)
	if got := said(t, j, "floods", "xxx"); got != most {
		t.Errorf("%d long lines were kept of %d, want %d", got, flood, most)
	}
	if got := said(t, j, "quiet", "quiet"); got != flood {
		t.Errorf("%d lines of another function were kept of %d", got, flood)
	}
	if got := said(t, j, "floods", fmt.Sprintf("%d lines of this function were dropped", flood-most)); got != 1 {
		t.Errorf("%d lines say how many were dropped, want 1", got)
	}
	if got := said(t, j, "floods", "a"); got != 2 {
		t.Errorf("%d lines were kept of two that came seconds later", got)
	}
}

// trimmed is a journal that is full, and notes what is removed.
type trimmed struct {
	*journal
	before chan uint64
}

func (j trimmed) First(context.Context) (uint64, int64, error) { return 1, 1 << 30, nil }

func (j trimmed) Trim(_ context.Context, before uint64) error {
	select {
	case j.before <- before:
	default:
	}
	return nil
}

// TestTrimmedByBytes: what is too much on the disk is removed after so many bytes, however few batches they are.
func TestTrimmedByBytes(t *testing.T) {
	t.Parallel()
	j := trimmed{&journal{}, make(chan uint64, 1)}
	l := funclog.Open(j, slog.New(slog.DiscardHandler))
	long := strings.Repeat("x", 8<<10)
	for n := range 2500 { // 20 MiB, of functions that are within their shares
		l.Append(api.LogLine{Time: start, Function: fmt.Sprint("f", n%5), Message: long})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case before := <-j.before:
		if before < 2 || before > j.Last() {
			t.Errorf("Trim(%d) of %d batches", before, j.Last())
		}
	default:
		t.Errorf("nothing was removed after %d batches", j.Last())
	}
}
