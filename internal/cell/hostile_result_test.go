package cell_test

import (
	"runtime"
	"strings"
	"testing"

	"sallyport/internal/cell"
)

// allocated returns what the process allocates while do runs. Its callers are not parallel.
func allocated(do func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// TestResultBomb is not parallel: it measures memory.
func TestResultBomb(t *testing.T) {
	limits := cell.DefaultLimits()
	f := load(t, wasm("echo.wasm", echo()), limits)
	for name, tt := range map[string]struct{ result, want string }{
		"events":         {`{"events":[` + strings.Repeat("{},", 80_000) + `{}]}`, "80001 events"},
		"no events":      {`{"events":7}`, "array"},
		"cut off":        {`{"events":[` + strings.Repeat("{},", 80_000), "unexpected"},
		"nested":         {`{"reply":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, "depth"},
		"nested events":  {`{"events":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, ""},
		"deep after all": {`{"events":[` + strings.Repeat("{},", cell.MaxEvents) + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `]}`, "depth"},
		"duplicate":      {`{"reply":1,"reply":2}`, "duplicate"},
		"unknown event":  {`{"events":[{"type":"a.b","` + strings.Repeat("x", 100_000) + `":1}]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			used := allocated(func() { _, _, err = f.Invoke(t.Context(), cell.Input{Event: []byte(tt.result)}) })
			p := wantProblem(t, err, problemFailed, "cell.bad_result")
			wantText(t, p.Public, tt.want)
			if len(p.Public) > 1000 {
				t.Errorf("the message has %d bytes", len(p.Public))
			}
			if most := 4 << 20; used > most {
				t.Errorf("a result of %d bytes took %d bytes of memory; want at most %d", len(tt.result), used, most)
			}
		})
	}
}
