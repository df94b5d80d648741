package js_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"sallyport/internal/cell/js"
)

// reset puts the memory back to what it was, as the owner of an instance does between events.
func (e *engine) reset(image []byte) {
	memory := e.memory()
	copy(memory, image)
	clear(memory[len(image):])
}

// TestResume has one VM in one instance serve many events, of which some fail in every way there is: each
// gives what it gives in a new VM.
func TestResume(t *testing.T) {
	t.Parallel()
	const source = `let count = 0
		const ways = {
			value: () => ++count,
			promise: async () => { await null; return ++count },
			timer: () => new Promise((done) => setTimeout(() => done(++count), 1)),
			throws: () => { throw new Error("thrown " + ++count) },
			rejects: async () => { throw new Error("rejected " + ++count) },
			lost: () => { Promise.reject(new Error("lost " + ++count)); return 1 },
			many: () => { for (let i = 0; i < 200; i++) Promise.reject(i); return 1 },
			handled: async () => { const p = Promise.reject(1); await null; await p.catch(() => {}); return ++count },
			never: () => new Promise(() => { count++ }),
			timerThrows: () => new Promise(() => setTimeout(() => { throw new Error("in a timer " + ++count) }, 0)),
			grows: () => new Uint8Array(3 << 20).length + count++,
			logs: () => { console.log("line", ++count) },
		}
		export default (event) => ways[event.data]()`
	h := &host{}
	e := newEngine(t, h)
	state, err := e.vm.Boot(e.ctx, "f.js", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	image := bytes.Clone(e.memory())
	want := map[string]string{
		"value": `{"reply":1}`, "promise": `{"reply":1}`, "timer": `{"reply":1}`, "throws": "thrown 1", "rejects": "rejected 1", "lost": "lost 1", "many": "",
		"handled": `{"reply":1}`, "never": js.ErrNeverSettles.Error(), "timerThrows": "in a timer 1", "grows": `{"reply":3145728}`, "logs": `{}`,
	}
	for range 3 {
		for way, want := range want {
			h.result = nil
			e.vm.Resume(state)
			err := e.vm.Handle(e.ctx, []byte(`{"type":"t","data":"`+way+`"}`))
			got := string(h.result)
			if err != nil {
				got = err.Error()
			}
			if thrown, ok := errors.AsType[*js.Exception](err); ok {
				got = string(thrown.JSON)
				if !thrown.Rejection && (way == "lost" || way == "many") {
					t.Errorf("%s is no rejection", way)
				}
			}
			if !strings.Contains(got, want) {
				t.Errorf("%s = %s; want %s", way, got, want)
			}
			e.reset(image)
		}
	}
}

const (
	// small is a script that is little more than its handler.
	small = `export default async (event, ctx) => { ctx.log(event.data.id); return [{ type: "a.b", data: { ...event.data, at: Date.now() } }] }`
	// maxSmall is how many bytes of the memory such a script may change, so that ten thousand of them fit into
	// a small machine.
	maxSmall = 13 << 10
)

// difference returns how many bytes of memory are not as in image, in units of a processor's cache line.
func difference(image, memory []byte) int {
	const line = 64
	own := len(memory) - len(image)
	for at := 0; at < len(image); at += line {
		if !bytes.Equal(image[at:at+line], memory[at:at+line]) {
			own += line
		}
	}
	return own
}

// TestPrepareAndLoad: scripts that are loaded into copies of one prepared memory know nothing of each other.
func TestPrepareAndLoad(t *testing.T) {
	t.Parallel()
	h := &host{}
	e := newEngine(t, h)
	prepared, err := e.vm.Prepare(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	image := bytes.Clone(e.memory())
	if used := bytes.TrimLeft(image[:1<<20], "\x00"); len(used) > 0 {
		t.Errorf("%d bytes of the stack are in the image", len(used))
	}
	for _, name := range []string{"a", "b"} {
		e.reset(image)
		e.vm.Resume(prepared)
		if _, err := e.vm.Load(e.ctx, name+".js", []byte(small)); err != nil {
			t.Fatal(err)
		}
		if own := difference(image, e.memory()); own > maxSmall {
			t.Errorf("a small script changes %d bytes of the memory; want at most %d", own, maxSmall)
		}
		e.reset(image)
		e.vm.Resume(prepared)
		if _, err := e.vm.Load(e.ctx, name+".js", []byte(`globalThis.seen = (globalThis.seen ?? "") + "`+name+`"; export default () => seen`)); err != nil {
			t.Fatal(err)
		}
		if err := e.vm.Handle(e.ctx, []byte(`{"type":"t"}`)); err != nil || string(h.result) != `{"reply":"`+name+`"}` {
			t.Errorf("%s = %s, %v", name, h.result, err)
		}
	}
}

func TestEventThatIsNoJSON(t *testing.T) {
	t.Parallel()
	e := newEngine(t, &host{})
	if _, err := e.vm.Boot(e.ctx, "f.js", []byte(`export default () => 1`)); err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{"", "{", `{"a":1}x`, "\xff", strings.Repeat("[", 1e6)} {
		if _, ok := errors.AsType[*js.Exception](e.vm.Handle(e.ctx, []byte(event))); !ok {
			t.Errorf("%.20q is taken for an event", event)
		}
	}
}
