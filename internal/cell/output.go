package cell

import (
	"bytes"
	"strings"

	"sallyport/internal/problem"
)

// maxLineBytes is the longest log line; longer ones are cut into several, so that one line cannot
// fill a reader's screen or memory.
const maxLineBytes = 8 << 10

// output collects the result of an invocation up to its limit.
type output struct {
	inv   *invocation
	limit int
	bytes []byte
}

// Write implements io.Writer. Past the limit it ends the invocation.
func (o *output) Write(p []byte) (int, error) {
	if len(p) > o.limit-len(o.bytes) {
		fault := problem.New(problem.FunctionFailed, "cell.output_too_large", "the function's result is longer than its limit of %d bytes", o.limit)
		o.inv.abort(fault)
		return 0, fault
	}
	o.bytes = append(o.bytes, p...)
	return len(p), nil
}

// logLines hands log lines over until their total passes the limit.
type logLines struct {
	to   func(level, message string)
	left int
	full bool
	// bytes is how much was logged.
	bytes int
}

// lineCost is what a line counts for besides its bytes, so that empty lines are bounded too.
const lineCost = 16

// add logs one line, which it does not keep. The line is the guest's, so it may hold anything: it is
// made valid UTF-8 here, and cut to maxLineBytes.
func (l *logLines) add(level string, text []byte) {
	if l.to == nil || l.full {
		return
	}
	line := strings.ToValidUTF8(string(text[:min(len(text), maxLineBytes)]), "\uFFFD")
	if len(line) > maxLineBytes { // what took the place of malformed bytes is longer than they were
		line = strings.ToValidUTF8(line[:maxLineBytes], "")
	}
	if len(line)+lineCost > l.left {
		l.full = true
		l.to(LevelWarn, "the log limit of this invocation is reached: further lines are dropped")
		return
	}
	l.left -= len(line) + lineCost
	l.bytes += len(line)
	l.to(level, line)
}

// lineWriter cuts a stream into log lines.
type lineWriter struct {
	lines   *logLines
	level   string
	last    *string // where the last line is remembered, or nil
	partial []byte
}

// Write implements io.Writer. It never fails: what is too much is dropped by logLines.
func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		room := maxLineBytes - len(w.partial)
		switch {
		case len(part) > room:
			w.partial = append(w.partial, part[:room]...)
			p = p[room:]
			w.flush()
		case end >= 0:
			w.partial = append(w.partial, part...)
			p = p[end+1:]
			w.flush()
		default:
			w.partial = append(w.partial, part...)
			p = nil
		}
	}
	return n, nil
}

// flush logs what has come since the last line, unless that is nothing.
func (w *lineWriter) flush() {
	line := bytes.TrimRight(w.partial, "\r")
	w.partial = w.partial[:0]
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	if w.last != nil {
		*w.last = strings.ToValidUTF8(string(line), "\uFFFD")
	}
	w.lines.add(w.level, line)
}

// firstLine returns the first line of s, clipped.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return clip(line)
}

// clip keeps a guest's text from filling a message.
func clip(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
