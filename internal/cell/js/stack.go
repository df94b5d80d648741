package js

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"sallyport/internal/sourcemap"
)

// Frame is one line of a stack trace.
type Frame struct {
	Function string
	sourcemap.Place
}

// maxFrames bounds a stack trace; the first frames tell where it happened.
const maxFrames = 16

// frameForm is a line of a QuickJS stack trace: "at handle (price.js:12:5)" or "at price.js:3:1".
var frameForm = regexp.MustCompile(`^\s*at (?:(.*?) \()?([^()\n]*?):(\d{1,9})(?::(\d{1,9}))?\)?$`)

// textName is what the place of a fault in a JSON text is said to be in, where the host has it parsed, and builtInTextName where JSON.parse does.
const (
	textName        = "event"
	builtInTextName = "<input>"
)

// inText reports whether a line of a stack trace is a place in a JSON text, of which the author knows nothing, and in no file.
func inText(file, function string) bool {
	return function == "" && (file == textName || file == builtInTextName)
}

// Frames reads the stack trace of an error: its first frames, those of the prelude, of built-in
// functions and of texts that were parsed left out, each where the author wrote it. The map is that of the script with this name;
// a nil map leaves the frames in the script.
func Frames(stack, script string, m *sourcemap.Map) []Frame {
	var frames []Frame
	var places []sourcemap.Place // of those in the script
	var mapped []int             // which frames these are
	for line := range strings.Lines(stack) {
		part := frameForm.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if part == nil || part[2] == preludeName || inText(part[2], part[1]) {
			continue
		}
		place := sourcemap.Place{File: part[2], Column: 1}
		place.Line, _ = strconv.Atoi(part[3]) // at most nine digits
		if part[4] != "" {
			place.Column, _ = strconv.Atoi(part[4])
		}
		if place.File == script {
			places = append(places, place)
			mapped = append(mapped, len(frames))
		}
		frames = append(frames, Frame{Function: part[1], Place: place})
		if len(frames) == maxFrames {
			break
		}
	}
	if m == nil {
		return frames
	}
	m.Resolve(places)
	for i, frame := range mapped {
		frames[frame].Place = places[i]
	}
	return frames
}

// String returns the frame as a line of a stack trace.
func (f Frame) String() string {
	if f.Function == "" || f.Function == "<anonymous>" {
		return fmt.Sprintf("at %s:%d:%d", f.File, f.Line, f.Column)
	}
	return fmt.Sprintf("at %s (%s:%d:%d)", f.Function, f.File, f.Line, f.Column)
}
