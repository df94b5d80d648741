package cell_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sallyport/internal/cell"
)

// TestFresh is guarantee G3: no byte written by one invocation can be read by another.
func TestFresh(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"module variable": `let kept = null; export default (e) => { const before = kept; kept = e.data; return before }`,
		"global":          `export default (e) => { const before = globalThis.kept ?? null; globalThis.kept = e.data; return before }`,
		"prototype":       `export default (e) => { const before = ({}).kept ?? null; Object.prototype.kept = e.data; return before }`,
		"array prototype": `export default (e) => { const before = [].kept ?? null; Array.prototype.kept = e.data; return before }`,
		"builtin":         `export default (e) => { const before = JSON.kept ?? null; JSON.kept = e.data; JSON.parse = () => e; Math.random = () => e; return before }`,
		"closure":         `const cache = new Map(); export default (e) => { const before = cache.get(1) ?? null; cache.set(1, e.data); return before }`,
		"symbol":          `export default (e) => { const k = Symbol.for("kept"); const before = globalThis[k] ?? null; globalThis[k] = e.data; return before }`,
		"context":         `export default (e, ctx) => { const before = ctx.Fail.kept ?? null; ctx.Fail.kept = e.data; ctx.publish.kept = e.data; return before }`,
		"timer":           `let kept = null; export default (e) => { setTimeout(() => { kept = e.data }, 0); Promise.resolve().then(() => { kept = e.data }); return kept }`,
		"thrown":          `let kept = null; export default (e) => { if (kept) return kept; kept = e.data; if (e.data === "fail") throw new Error("x"); return null }`,
		"regexp state":    `const r = /secret/g; export default (e) => { const before = r.lastIndex || null; r.test("secret"); return before }`,
		"uninitialised buffer": `export default (e) => {
			const found = new Uint8Array(1 << 20).some((b) => b !== 0)
			new Uint8Array(1 << 20).fill(0xee)
			return found ? "found" : null
		}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := loadScript(t, source)
			for _, data := range []string{`"secret"`, `"fail"`, `"secret"`, `"other"`} {
				result, _, err := invoke(t, f, data)
				if err == nil && string(result.Reply) != "null" {
					t.Fatalf("an invocation found %s of another", result.Reply)
				}
			}
		})
	}
	t.Run("reactor", func(t *testing.T) {
		t.Parallel()
		f := load(t, built(t, "reactor"), cell.DefaultLimits())
		for range 3 {
			if got := reply(t, f, `{"what":"remember","text":"secret"}`); got != `""` {
				t.Fatalf("an invocation found %s of another", got)
			}
		}
	})
}

// scanner is a module that fails with a trap when a byte of its memory, grown by growPages, is not
// zero as it starts, and otherwise fills all of it.
func scanner(growPages byte) []byte {
	const at, end = 0, 1
	return assembly{
		functions: []function{handler(2,
			opConst, growPages, opMemoryGrow, 0, opDrop,
			opMemorySize, 0, opConst, 16, opShl, opLocalSet, end,
			opLoop, blockVoid,
			opLocalGet, at, opLoad8, 0, 0, opIf, blockVoid, opUnreachable, opEnd,
			opLocalGet, at, opConst, 0xee, 0x7e /* -18, as a byte 0xee */, 0x3a, 0, 0,
			opLocalGet, at, opConst, 1, opAdd, opLocalSet, at,
			opLocalGet, at, opLocalGet, end, opNe, opBrIf, 0,
			opEnd,
			opConst, 0)},
		pages: 1,
	}.bytes()
}

// TestFreshMemory reads every byte that an instance has, with memories that are used again and
// others that are not, while other functions of the same limit run.
func TestFreshMemory(t *testing.T) {
	t.Parallel()
	limits := cell.DefaultLimits()
	limits.Memory = 8 << 20
	var functions []*cell.Function
	for _, pages := range []byte{0, 3, 40, 63} {
		functions = append(functions, load(t, wasm("scanner.wasm", scanner(pages)), limits))
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 10 {
				if _, _, err := functions[(worker+i)%len(functions)].Invoke(t.Context(), cell.Input{}); err != nil {
					t.Errorf("worker %d, invocation %d: memory is not fresh: %v", worker, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestFreshAmongFunctions runs many events of several functions at once; each must find its own.
func TestFreshAmongFunctions(t *testing.T) {
	t.Parallel()
	source := `let mine = null; export default async (e) => { mine ??= e.data; await null; globalThis.all = (globalThis.all ?? "") + mine; return globalThis.all }`
	functions := []*cell.Function{loadScript(t, source), loadScript(t, source+"\n"), load(t, wasm("echo.wasm", echo()), cell.DefaultLimits())}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 40 {
				f := functions[(worker+i)%len(functions)]
				want := fmt.Sprintf(`"%d-%d"`, worker, i)
				in := cell.Input{Event: event(want)}
				if f.Kind() == cell.KindReactor {
					in.Event = []byte(`{"reply":` + want + `}`)
				}
				result, _, err := f.Invoke(t.Context(), in)
				if err != nil || string(result.Reply) != want {
					t.Errorf("reply = %s, %v; want %s", result.Reply, err, want)
				}
			}
		})
	}
	wg.Wait()
}

// TestFreshRandom: the image of a script holds no state of its random numbers.
func TestFreshRandom(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `Math.random(); const id = crypto.randomUUID(); export default () => [Math.random(), crypto.randomUUID()].join()`)
	seen := map[string]bool{}
	for range 20 {
		for _, part := range strings.Split(reply(t, f, `1`), ",") {
			if seen[part] {
				t.Fatalf("%s came twice", part)
			}
			seen[part] = true
		}
	}
}

// TestInputIsNotChanged: the event is the caller's.
func TestInputIsNotChanged(t *testing.T) {
	t.Parallel()
	f := loadScript(t, `export default (e) => { e.data.push(1); e.id = 2 }`)
	in := event(`[0]`)
	before := bytes.Clone(in)
	if _, _, err := f.Invoke(t.Context(), cell.Input{Event: in}); err != nil || !bytes.Equal(before, in) {
		t.Errorf("event = %s, %v; want it as it was", in, err)
	}
}
