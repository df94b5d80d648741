package cell_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// pictures is what a grant of kind blob does, in memory, one object and one upload at a time.
type pictures struct {
	mu      sync.Mutex
	content []byte // nil is none
	version int
	upload  []byte
	ops     []string
}

func (p *pictures) use(_ context.Context, u cell.GrantUse) cell.GrantAnswer {
	p.mu.Lock()
	defer p.mu.Unlock()
	var r struct {
		Name, Upload   string
		Offset, Length int
		Version        *int
	}
	if err := json.Unmarshal(u.Request, &r, json.MatchCaseInsensitiveNames(true)); err != nil {
		return cell.FailedUse(err)
	}
	p.ops = append(p.ops, u.Op)
	switch u.Op {
	case "value":
		if u.Grant == "bytes" {
			return cell.GrantAnswer{JSON: []byte(`{"base64":"AP8=","version":1}`)}
		}
		return cell.GrantAnswer{JSON: []byte(`{"value":"hunter2","version":1}`)}
	case "put":
		p.content = slices.Clone(u.Body)
		p.version++
	case "open":
		p.upload = nil
		return cell.GrantAnswer{JSON: []byte(`{"upload":"u1"}`)}
	case "write":
		if r.Offset != len(p.upload) || r.Upload != "u1" || r.Offset > 100_000 {
			return cell.FailedUse(problem.New(problem.Conflict, "grant.blob_offset", "no"))
		}
		p.upload = append(p.upload, u.Body...)
		return cell.GrantAnswer{JSON: fmt.Appendf(nil, `{"size":%d}`, len(p.upload))}
	case "commit":
		p.content = p.upload
		p.version++
	case "abort":
		p.upload = nil
		return cell.GrantAnswer{}
	case "get":
		if p.content == nil {
			return cell.GrantAnswer{}
		}
		if r.Version != nil && *r.Version != p.version {
			return cell.FailedUse(problem.New(problem.Conflict, "grant.blob_changed", "no"))
		}
		body := p.content[r.Offset:min(r.Offset+r.Length, len(p.content))]
		return cell.GrantAnswer{JSON: fmt.Appendf(nil, `{"size":%d,"version":%d,"digest":"sha256:00"}`, len(p.content), p.version), Body: body}
	}
	return cell.GrantAnswer{JSON: fmt.Appendf(nil, `{"size":%d,"version":%d}`, len(p.content), p.version)}
}

// TestBlobFromScript: objects go through a script in parts that its grant takes.
func TestBlobFromScript(t *testing.T) {
	t.Parallel()
	const fill = `const fill = (n) => Uint8Array.from({ length: n }, (_, i) => i & 255); const same = (b, from, to) => b.length === to - from && b.every((v, i) => v === ((from + i) & 255));`
	tests := []struct{ name, handler, want, ops string }{
		{"bytes at once", `await g.put("x", fill(2048)); return same(await g.get("x"), 0, 2048)`, `true`, "put get"},
		{"a text", `await g.put("x", "grüße"); return new TextDecoder().decode(await g.get("x"))`, `"grüße"`, "put get"},
		{"nothing", `await g.put("x", ""); return (await g.get("x")).length`, `0`, "put get"},
		{"no object", `return [await g.get("x"), await g.stream("x")]`, `[null,null]`, "get get"},
		{"bytes in parts", `await g.put("x", fill(5000)); return same(await g.get("x"), 0, 5000)`, `true`, "open write write write commit get"},
		{"a buffer in parts", `await g.put("x", fill(4096).buffer); return same(await g.get("x"), 0, 4096)`, `true`, "open write write commit get"},
		{"of a generator", `await g.put("x", (async function* () { for (let i = 0; i < 40; i++) yield fill(256) })()); return same(await g.get("x"), 0, 10240)`, `true`,
			"open write write write write write commit get get"},
		{"of a list of texts", `await g.put("x", ["a", "b", new Uint8Array([99])]); return new TextDecoder().decode(await g.get("x"))`, `"abc"`, "open write commit get"},
		{"a part", `await g.put("x", fill(20000)); return [same(await g.get("x", { offset: 100, length: 50 }), 100, 150), same(await g.get("x", { offset: 9000 }), 9000, 20000), (await g.get("x", { length: 0 })).length]`,
			`[true,true,0]`, ""},
		{"a stream", `await g.put("x", fill(20000)); const s = await g.stream("x", { offset: 5 }); let at = 5; let ok = true; let n = 0; for await (const b of s) { ok &&= same(b, at, at + b.length); at += b.length; n++ } return [ok, at, n, s.size, s.version, s.digest]`,
			`[true,20000,4,20000,1,"sha256:00"]`, ""},
		{"a stream that is left", `await g.put("x", fill(20000)); for await (const b of await g.stream("x")) break; return true`, `true`, "open write write write write write write write write write write commit get"},
		{"replaced meanwhile", `await g.put("x", fill(20000)); try { for await (const b of await g.stream("x")) await g.put("x", "other") } catch (e) { return e.code }`, `"grant.blob_changed"`, ""},
		{"a source that fails", `try { await g.put("x", (async function* () { yield fill(3000); throw new Error("mine") })()) } catch (e) { return e.message }`, `"mine"`, "open write abort"},
		{"a source that is none", `try { await g.put("x", (async function* () { yield 7 })()) } catch (e) { return e.name }`, `"TypeError"`, "open abort"},
		{"a write that fails", `try { await g.put("x", fill(200_000)) } catch (e) { return e.code }`, `"grant.blob_offset"`, ""},
		{"a secret", `return [await ctx.grants.text.value(), [...await ctx.grants.bytes.value()]]`, `["hunter2",[0,255]]`, "value value"},
	}
	script := fill + "const cases = {"
	for _, test := range tests {
		script += fmt.Sprintf("%q: async (g, ctx) => { %s },\n", test.name, test.handler)
	}
	fn := loadBlobs(t, cell.DefaultLimits(), script+`};
	  export default async ({ data }, ctx) => ({ reply: await cases[data](ctx.grants.pictures, ctx) })`)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := &pictures{}
			result, _, err := fn.Invoke(t.Context(), cell.Input{Event: fmt.Appendf(nil, `{"data":%q}`, test.name), Use: p.use})
			if want := `{"reply":` + test.want + `}`; err != nil || string(result.Reply) != want {
				t.Errorf("Invoke() = %s, %v; want %s", result.Reply, err, want)
			}
			if ops := strings.Join(p.ops, " "); test.ops != "" && ops != test.ops {
				t.Errorf("it used %s; want %s", ops, test.ops)
			}
		})
	}
}

func loadBlobs(t *testing.T, limits cell.Limits, code string) *cell.Function {
	t.Helper()
	limits.Timeout = time.Minute
	return load(t, cell.Spec{Name: "fn.js", Kind: api.ModuleScript, Code: []byte(code), Grants: []cell.GrantSpec{
		{Name: "pictures", Kind: "blob", About: "4096 8192", Request: 4096, Reply: 8192},
		{Name: "store", Kind: "kv", Request: 1 << 20, Reply: 1 << 20},
		{Name: "text", Kind: "secret", Request: 1 << 10, Reply: 1 << 10}, {Name: "bytes", Kind: "secret", Request: 1 << 10, Reply: 1 << 10},
	}}, limits)
}

// TestAnswersAreFreed: a function may take more answers in one event than its memory would hold together.
func TestAnswersAreFreed(t *testing.T) {
	t.Parallel()
	limits := cell.DefaultLimits()
	limits.Memory = 32 << 20
	fn := loadBlobs(t, limits, `export default async (event, ctx) => {
	  let bytes = 0, text = 0;
	  for (let i = 0; i < 48; i++) {
	    const { value, body } = await ctx.grants.store.call("get");
	    bytes += body.length;
	    text += value.length;
	  }
	  return { bytes, text };
	}`)
	body, text := make([]byte, 500_000), fmt.Appendf(nil, "%q", bytes.Repeat([]byte("x"), 500_000))
	result, _, err := fn.Invoke(t.Context(), cell.Input{Event: []byte(`{}`), Use: func(context.Context, cell.GrantUse) cell.GrantAnswer {
		return cell.GrantAnswer{JSON: text, Body: body}
	}})
	if want := `{"bytes":24000000,"text":24000000}`; err != nil || string(result.Reply) != want {
		t.Errorf("Invoke() = %s, %v; want %s", result.Reply, err, want)
	}
}
