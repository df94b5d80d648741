package cell_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"sallyport/internal/cell"
)

func BenchmarkParts(b *testing.B) {
	ctx := context.Background()
	direct, err := cell.New(ctx, cell.Default())
	if err != nil {
		b.Fatal(err)
	}
	const each = 1000
	for _, body := range []string{
		`1`, `await 1`, `await new Promise((r) => r(1))`, `JSON.stringify({key:"k"})`, `JSON.stringify({key:"k"}).toWellFormed()`, `JSON.parse('{"value":12,"version":1234567890123456}')`,
		`performance.now()`, `new Proxy({}, {})`, `ctx.grants`, `ctx.attempt`, `console.log`,
		`ctx.grants.store.call`,
		`ctx.grants.store.call("get", { key: "k" }).catch(0)`,
		`await ctx.grants.store.call("get", { key: "k" })`,
		`await ctx.grants.store.get("k")`,
	} {
		spec := cell.Spec{Name: "uses.js", Kind: "script", Grants: []cell.GrantSpec{{Name: "store", Kind: "kv", Request: 1 << 16, Reply: 1 << 16}}, Code: fmt.Appendf(nil,
			`export default async (event, ctx) => { for (let i = 0; i < %d; i++) %s; }`, each, body)}
		limits := cell.DefaultLimits()
		limits.Timeout = time.Minute
		if body == `ctx.grants.store.call("get", { key: "k" }).catch(0)` {
			continue
		}
		near, err := direct.Load(ctx, spec, limits)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(body, func(b *testing.B) {
			in := cell.Input{Event: []byte(`{}`), EventID: "1", Attempt: 1, Use: func(context.Context, cell.GrantUse) cell.GrantAnswer {
				return cell.GrantAnswer{JSON: []byte(`{"value":12,"version":1234567890123456}`)}
			}}
			var ru, ru2 unix.Rusage
			unix.Getrusage(0, &ru)
			for b.Loop() {
				if _, _, err := near.Invoke(ctx, in); err != nil {
					b.Fatal(err)
				}
			}
			unix.Getrusage(0, &ru2)
			b.ReportMetric(float64(ru2.Utime.Nano()+ru2.Stime.Nano()-ru.Utime.Nano()-ru.Stime.Nano())/float64(b.N)/each, "cpu-ns/one")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/each, "ns/one")
		})
	}
}
