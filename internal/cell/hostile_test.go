package cell_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// stage is where something hostile is stopped.
type stage int

const (
	atLoad   stage = iota
	atInvoke       // of every event
	nowhere        // it does no harm: every event succeeds, and finds nothing of the one before
	anywhere       // it loads, and what becomes of an event is left to it
)

// hostile is a module or script of the pack.
type hostile struct {
	name string
	spec cell.Spec
	at   stage
	// code is the wanted one; empty for any that blames the function or the module.
	code string
	text string // in the sentence of the failure
}

// minHostile is how many there must be.
const minHostile = 100

func pack() (all []hostile) {
	for _, family := range [][]hostile{
		malformed(), hostileImports(), hostileExports(), hostileMemories(), hostileStarts(), keepers(), hostileHandlers(),
		scriptBombs(), scriptTricks(), polluters(), hostileReplies(), hostileErrors(),
	} {
		all = append(all, family...)
	}
	return all
}

// TestHostile has the host meet everything in the pack: each is refused or stopped as it says, with
// a sentence of some lines, and the functions beside it answer as before.
func TestHostile(t *testing.T) {
	t.Parallel()
	e := ownEngine(t)
	meetAll(t, here(e))
	if e.Idle() != 0 {
		t.Errorf("%d instances wait, and every function is closed", e.Idle())
	}
}

// meetAll has everything in the pack loaded and invoked.
func meetAll(t *testing.T, load loader) {
	t.Helper()
	all := pack()
	if len(all) < minHostile {
		t.Fatalf("the pack has %d entries; want %d or more", len(all), minHostile)
	}
	beside := neighbours(t, load)
	names := map[string]bool{}
	t.Run("pack", func(t *testing.T) {
		for _, h := range all {
			if names[h.name] {
				t.Errorf("two entries are called %q", h.name)
			}
			names[h.name] = true
			t.Run(h.name, func(t *testing.T) {
				t.Parallel()
				h.meet(t, load)
				beside.check(t)
			})
		}
	})
	beside.check(t)
	beside.close(t)
	t.Logf("%d entries", len(all))
}

// ownEngine returns an engine of the test's own.
func ownEngine(t testing.TB) *cell.Engine {
	t.Helper()
	e, err := cell.New(t.Context(), cell.Default())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return e
}

// limits returns limits under which the wanted failure is the first.
func (h hostile) limits() cell.Limits {
	if h.code == "cell.timeout" || strings.HasPrefix(h.name, "bombs of memory/") {
		return limitsWith(short)
	}
	return limitsWith(soon)
}

// meet loads h, and has it handle events.
func (h hostile) meet(t *testing.T, load loader) {
	t.Helper()
	f, err := load(t.Context(), h.spec, h.limits())
	if h.at == atLoad {
		h.refused(t, err, problem.Unprocessable)
		return
	}
	if err != nil {
		t.Fatalf("Load = %v", err)
	}
	defer func() {
		if err := f.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	}()
	events := 3
	if h.code == "cell.timeout" {
		events = 1
	}
	first := ""
	for i := range events {
		result, _, err := invoke(t, f, fmt.Sprintf(`"event %d"`, i))
		switch {
		case err == nil && h.at == atInvoke:
			t.Fatalf("event %d: reply = %.200s; want a failure", i, result.Reply)
		case err != nil && h.at == nowhere:
			t.Fatalf("event %d: %v", i, err)
		case err != nil:
			h.refused(t, err, problem.FunctionFailed)
		case i == 0:
			first = string(result.Reply)
		case h.at == nowhere && string(result.Reply) != first:
			t.Errorf("event %d: reply = %.200s; the first was %.200s", i, result.Reply, first)
		}
	}
}

// maxSentence bounds what a guest can make the host say.
const maxSentence = 5 << 10

func (h hostile) refused(t *testing.T, err error, kind problem.Kind) {
	t.Helper()
	if err == nil {
		t.Fatalf("error = nil; want one of kind %d, code %q", kind, h.code)
	}
	p := problem.From(err)
	if p.Kind != kind || h.code != "" && p.Code != h.code {
		t.Fatalf("error = %v of kind %d; want kind %d, code %q", err, p.Kind, kind, h.code)
	}
	if !strings.HasPrefix(p.Code, "cell.") {
		t.Errorf("code = %q; want one of the cell", p.Code)
	}
	wantText(t, p.Public, h.text)
	if len(p.Public) > maxSentence {
		t.Errorf("the sentence has %d bytes", len(p.Public))
	}
	for _, sign := range []string{"runtime error", "BUG", "goroutine ", "dirty"} {
		if strings.Contains(p.Public, sign) {
			t.Errorf("sentence = %.300q; want no %q in it", p.Public, sign)
		}
	}
	wantNoPanic(t, err)
}

// wantNoPanic checks that it was not the host that failed: wazero catches the panics of host
// functions, and says so.
func wantNoPanic(t testing.TB, err error) {
	t.Helper()
	for _, line := range strings.Split(causes(err), "\n") {
		if strings.Contains(line, "runtime error") || strings.Contains(line, "recovered by wazero") && !strings.Contains(line, "wasm error") {
			t.Errorf("the host failed: %.500s", causes(err))
			return
		}
	}
}

// causes returns the text of err and of all that it wraps.
func causes(err error) string {
	text := err.Error()
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if cause := e.Unwrap(); cause != nil {
			text += "\n" + causes(cause)
		}
	case interface{ Unwrap() []error }:
		for _, cause := range e.Unwrap() {
			text += "\n" + causes(cause)
		}
	}
	return text
}

// beside are functions that have nothing to do with the hostile ones.
type beside struct{ script, echo, scanner loaded }

// neighbours returns functions that have served an event.
func neighbours(t testing.TB, load loader) *beside {
	t.Helper()
	b := &beside{}
	for _, it := range []struct {
		to   *loaded
		spec cell.Spec
	}{
		{&b.script, js(`let n = 0; export default async (e) => {
			const before = globalThis.kept ?? null
			globalThis.kept = e.data
			await null
			return { data: e.data, before, n: ++n, sum: [1, 2, 3].map((x) => x * 2).reduce((a, b) => a + b) }
		}`)},
		{&b.echo, wasm("echo.wasm", echo())},
		{&b.scanner, wasm("scanner.wasm", scanner(0))},
	} {
		f, err := load(t.Context(), it.spec, limitsWith(forever))
		if err != nil {
			t.Fatal(err)
		}
		*it.to = f
	}
	b.check(t)
	return b
}

// check has each of them answer an event.
func (b *beside) check(t testing.TB) {
	t.Helper()
	if got, want := reply(t, b.script, `"mine"`), `{"data":"mine","before":null,"n":1,"sum":12}`; got != want {
		t.Errorf("a script beside it replied %s; want %s", got, want)
	}
	if result, _, err := b.echo.Invoke(t.Context(), cell.Input{Event: []byte(`{"reply":"mine"}`)}); err != nil || string(result.Reply) != `"mine"` {
		t.Errorf("a module beside it replied %s, %v; want mine", result.Reply, err)
	}
	if _, _, err := b.scanner.Invoke(t.Context(), cell.Input{}); err != nil {
		t.Errorf("the memory of a module beside it is not fresh: %v", err)
	}
}

func (b *beside) close(t testing.TB) {
	t.Helper()
	for _, f := range []loaded{b.script, b.echo, b.scanner} {
		if err := f.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
}
