package cell_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// Where forgers have their event: the name of a grant, after its length.
const forgedAt = 4096

var grantStart, grantWait, grantStatus, grantSize, grantRead, grantEnd = host("grant_start", 8, 1), imported{"sallyport", "grant_wait", []byte{i32, i64}, []byte{i32}},
	host("grant_status", 1, 1), host("grant_size", 2, 1), host("grant_read", 5, 1), host("grant_end", 1, 0)

// forger is a module that uses the grant whose name its event holds after 8 bytes: the length of the name, and "{}". Its exit code is the status of the use.
func forger() []byte {
	const length = 0
	return assembly{
		imports: []imported{host("event_size", 0, 1), host("event_read", 2, 1), grantStart, grantWait, grantStatus, wasi("proc_exit", "i")},
		functions: []function{handler(2, code(
			number(forgedAt), number(8192), opCall, 1, opDrop,
			number(forgedAt), opLoad, 2, 0, opLocalSet, length,
			number(forgedAt+8), opLocalGet, length, // the name
			number(forgedAt+4), number(1), // what is to be done: "{", which nobody looks at here
			number(forgedAt+4), number(2), // the request
			number(0), number(0), // no body
			opCall, 2, opLocalSet, 1,
			opLocalGet, 1, opConst64, 0x7f, opCall, 3, opDrop,
			opLocalGet, 1, opCall, 4, opCall, 5, number(0))...)},
		pages: 2,
	}.bytes()
}

func forgedEvent(name string) []byte {
	return append(append(binary.LittleEndian.AppendUint32(nil, uint32(len(name))), "{}  "...), name...)
}

// forgedNames are names of what the function has no grant of, and that look or begin like those that it has.
func forgedNames() []string {
	own := []string{"store", "api"}
	list := []string{"", "\x00", "*", ".", "..", "/", "audit", "default/audit/store", "grants.store", strings.Repeat("store", 1000), "\xff\xfe", "st\xc3"}
	for _, n := range own {
		list = append(list, n+"\x00", "\x00"+n, n+"\x00other", n+" ", " "+n, n+"\n", strings.ToUpper(n), n+"/", "/"+n, "./"+n, "../"+n, "x/../"+n, n+"/..", "shop/"+n, "default/"+n, "shop/pay/"+n,
			n+"@2", n+"@1", n+"#", n+"?", n+"%00", "%73tore", n+";", n+",other", n+"\u200b", "\u200b"+n, "\ufeff"+n, n+"\u0301", n[:len(n)-1], n+n)
	}
	// Letters that look like others: Cyrillic, Greek, full-width, a ligature, a dotless i.
	return append(list, "st\u043ere", "\u0455tore", "st\u03bfre", "\uff53tore", "\ufb06ore", "ap\u0131", "\u0430pi", "\u0430\u0440\u0456", "AP\u0130", "a\u0440i")
}

// TestForgedNames: a module that names what it has no grant of, in whatever spelling, is refused, and nobody outside the cell is asked; in this process
// and behind the second wall.
func TestForgedNames(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]func(*testing.T) loader{"here": func(t *testing.T) loader { return here(testEngine(t)) }, "walled": func(t *testing.T) loader { _, load := walled(t); return load }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := wasm("forger.wasm", forger())
			spec.Grants = granted
			f, err := in(t)(t.Context(), spec, limitsWith(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close(context.Background()) //nolint:errcheck // the engine is closed too
			var mu sync.Mutex
			var asked []string
			status := func(grant string) string {
				t.Helper()
				_, _, err := f.Invoke(t.Context(), cell.Input{Event: forgedEvent(grant), Use: func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, u.Grant)
					return echoUse(ctx, u)
				}})
				return problem.From(err).Public
			}
			if got := status("store"); !strings.Contains(got, "code 1") {
				t.Fatalf("the use of its own grant ends with %s: the test looks at nothing", got)
			}
			for _, forged := range forgedNames() {
				if got := status(forged); !strings.Contains(got, "code 2") {
					t.Errorf("the use of %.60q ends with %s; want it refused", forged, got)
				}
			}
			if len(asked) != 1 {
				t.Errorf("uses of %.200q came out of the cell", asked)
			}
		})
	}
}

// thief is a module that first looks for uses that it did not begin, and takes what it can of their answers; then it begins one, leaves it, and ends another that
// it reads afterwards. Its exit code is 1 for what it could take. A thief that begins with a use of its own has something to find.
func thief(first bool) []byte {
	const at, n = 0, 1
	taken := func(condition ...any) []byte {
		return code(code(condition...), opIf, blockVoid, number(1), opCall, 8, opEnd)
	}
	isThere := func(call int) []byte { return code(opCall, call, number(0), 0x4e /* i32.ge_s */) }
	look := func(use []byte) []byte {
		return code(taken(use, isThere(4)), taken(use, number(0), isThere(5)), taken(use, number(1), isThere(5)), taken(use, number(0), number(0), number(0), number(64), isThere(6)))
	}
	start := code(number(forgedAt+8), number(5), number(forgedAt+4), number(1), number(forgedAt+4), number(2), number(0), number(0), opCall, 2)
	var guesses, own []byte
	if first {
		own = code(start, opDrop)
	}
	for _, guess := range []int32{-1, -2, 1 << 30, -1 << 31, 1<<31 - 1} {
		guesses = append(guesses, look(number(guess))...)
	}
	return assembly{
		imports: []imported{host("event_size", 0, 1), host("event_read", 2, 1), grantStart, grantWait, grantStatus, grantSize, grantRead, grantEnd, wasi("proc_exit", "i")},
		functions: []function{handler(2, code(
			number(forgedAt), number(8192), opCall, 1, opDrop, own,
			opLoop, blockVoid, look(code(opLocalGet, at)), opLocalGet, at, number(1), opAdd, 0x22 /* local.tee */, at, number(300), opNe, opBrIf, 0, opEnd,
			guesses,
			taken(number(0), opConst64, 0, opCall, 3), // an answer to any use: there is none
			start, opLocalSet, n, opLocalGet, n, opConst64, 0x7f, opCall, 3, opDrop,
			opLocalGet, n, opCall, 7, look(code(opLocalGet, n)), // it is ended
			opLocalGet, n, opCall, 7, opLocalGet, n, opCall, 7,
			start, opDrop, start, opDrop, // left behind
			number(0))...)},
		pages: 2,
	}.bytes()
}

// TestHandlesEnd: what an event began and left, or ended, is not there for the next event in the same instance, nor is any number that is guessed; in this process and behind
// the second wall.
func TestHandlesEnd(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]func(*testing.T) loader{"here": func(t *testing.T) loader { return here(testEngine(t)) }, "walled": func(t *testing.T) loader { _, load := walled(t); return load }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			loader := in(t)
			with := func(first bool) loaded {
				spec := wasm("thief.wasm", thief(first))
				spec.Grants = granted
				f, err := loader(t.Context(), spec, limitsWith(time.Minute))
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			own := with(true)
			defer own.Close(context.Background()) //nolint:errcheck // the engine is closed too
			if _, _, err := own.Invoke(t.Context(), cell.Input{Event: forgedEvent("store"), Use: echoUse}); !strings.Contains(problem.From(err).Public, "code 1") {
				t.Fatalf("a thief that has something to find ends with %v: the test looks at nothing", err)
			}
			f := with(false)
			defer f.Close(context.Background()) //nolint:errcheck // the engine is closed too
			answer := bytes.Repeat([]byte("x"), 1000)
			for i := range 200 {
				late := make(chan struct{})
				uses := 0
				var mu sync.Mutex
				_, _, err := f.Invoke(t.Context(), cell.Input{Event: forgedEvent("store"), Use: func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
					mu.Lock()
					uses++
					first := uses == 1
					mu.Unlock()
					if !first { // it comes when the event is over, to nobody
						<-late
					}
					return cell.GrantAnswer{JSON: []byte(`"of another event"`), Body: answer}
				}})
				close(late)
				if err != nil {
					t.Fatalf("event %d: %v; it found what is not its own", i, err)
				}
				mu.Lock()
				if uses == 0 {
					t.Fatal("it used nothing: the test looks at nothing")
				}
				mu.Unlock()
			}
		})
	}
}
