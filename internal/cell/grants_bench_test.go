package cell_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
)

// atOnce are Grants that answer each use when it is begun: what is left of its time is the guest's, and the host functions'.
type atOnce struct {
	answers map[string]cell.GrantAnswer // by operation
	done    []atOnceAnswer
}

type atOnceAnswer struct {
	number uint32
	answer cell.GrantAnswer
}

func (a *atOnce) Start(number uint32, use cell.GrantUse) {
	a.done = append(a.done, atOnceAnswer{number, a.answers[use.Op]})
}

func (a *atOnce) Next(context.Context, time.Duration) (uint32, cell.GrantAnswer, bool) {
	if len(a.done) == 0 {
		return 0, cell.GrantAnswer{}, false
	}
	first := a.done[0]
	a.done = a.done[1:]
	return first.number, first.answer, true
}

// benchUses are what a script does with its grants.
var benchUses = []struct{ name, code string }{
	{"nothing", `await 0`},
	{"kv get", `await g.store.get("k")`},
	{"kv set", `await g.store.set("k", { total: 12, paid: true })`},
	{"http post", `await (await g.web.fetch({ method: "POST", values: { id: "ch_1" }, headers: { "content-type": "application/json" }, body })).text()`},
	{"fetch post", `await (await fetch("https://api.example.org/v1/charges/ch_1", { method: "POST", headers: { "content-type": "application/json" }, body })).text()`},
	{"fetch json", `await (await fetch("https://api.example.org/v1/charges/ch_1")).json()`},
	{"sql read", `await g.db.find("o-500")`},
	{"sql write", `await g.db.raise("o-500", 1)`},
}

// BenchmarkGrantUse is what a use of a grant takes from JavaScript when the service and the way to it take nothing.
func BenchmarkGrantUse(b *testing.B) {
	const uses = 2000
	engine := newEngine(b, nil)
	limits := cell.DefaultLimits()
	limits.Timeout = time.Minute
	answers := map[string]cell.GrantAnswer{
		"get": {JSON: []byte(`{"value":{"total":12,"paid":true},"version":7}`)},
		"set": {JSON: []byte(`{"version":7}`)},
		"fetch": {
			JSON: []byte(`{"status":200,"headers":[["content-type","application/json"],["date","Sat, 28 Nov 2026 18:43:53 GMT"]],"url":"https://api.example.org/v1/charges/ch_1"}`),
			Body: []byte(`{"id":"` + strings.Repeat("0123456789abcdef", 63) + `"}`),
		},
		"query": {JSON: []byte(`{"rows":[{"id":"o-500","total":17}],"changed":1}`)},
	}
	specs := []cell.GrantSpec{
		{Name: "store", Kind: "kv", Request: 1 << 20, Reply: 1 << 20}, {Name: "db", Kind: "sql", Request: 1 << 20, Reply: 1 << 20},
		{Name: "web", Kind: "http", About: "GET POST https://api.example.org:443/v1/charges/{id}", Request: 1 << 20, Reply: 1 << 20},
	}
	for _, use := range benchUses {
		b.Run(use.name, func(b *testing.B) {
			code := fmt.Sprintf(`export default async (event, ctx) => {
				const g = ctx.grants, n = event.data, body = "x".repeat(200), began = performance.now();
				for (let i = 0; i < n; i++) %s;
				return (performance.now() - began) * 1000 / n }`, use.code)
			fn, err := engine.Load(b.Context(), cell.Spec{Name: "fn.js", Kind: api.ModuleScript, Code: []byte(code), Grants: specs}, limits)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = fn.Close(context.Background()) }()
			least := 0.0
			for b.Loop() {
				result, _, err := fn.Invoke(b.Context(), cell.Input{Event: fmt.Appendf(nil, `{"data":%d}`, uses), Grants: &atOnce{answers: answers}})
				if err != nil {
					b.Fatal(err)
				}
				took, err := strconv.ParseFloat(string(result.Reply), 64)
				if err != nil {
					b.Fatal(err)
				}
				if least == 0 || took < least {
					least = took
				}
			}
			b.ReportMetric(least, "min-µs/use")
		})
	}
}
