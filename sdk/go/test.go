package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Outcome is what became of an event in Test.
type Outcome struct {
	Reply  json.RawMessage
	Events []Emitted
	// Log holds the lines in order, each with its level before it, such as "info reserving o-1".
	Log []string
	// Err is the failure, if there was one; Final is true when it rules out another attempt.
	Err   error
	Final bool
}

// testTimeout is the deadline a handler sees in Test.
const testTimeout = 10 * time.Second

// Test runs a handler with an event, given in the JSON format of CloudEvents, for tests of handlers
// outside a server.
func Test(h Handler, event []byte) Outcome {
	return test(h, event, &testHost{end: time.Now().Add(testTimeout)})
}

func test(h Handler, event []byte, host *testHost) Outcome {
	r := handle(h, host, event)
	if r.failure != nil {
		return Outcome{Log: host.lines, Err: errors.New(r.failure.Message), Final: r.failure.Retry != nil && !*r.failure.Retry}
	}
	return Outcome{Reply: r.reply, Events: r.events, Log: host.lines}
}

// testHost is the server of Test.
type testHost struct {
	end   time.Time
	lines []string
	// answer stands in for grants; nil has none. answers are those that were given.
	answer  func(GrantUse) (*Answer, error)
	answers []testAnswer
}

func (h *testHost) attempt() int        { return 1 }
func (h *testHost) deadline() time.Time { return h.end }

func (h *testHost) log(level int, line string) {
	levels := [...]string{levelDebug: "debug", levelInfo: "info", levelWarn: "warn", levelError: "error"}
	h.lines = append(h.lines, fmt.Sprint(levels[level], " ", line))
}
