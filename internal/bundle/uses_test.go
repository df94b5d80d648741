package bundle

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// described is what was found, as "name" or "name!" when a member of it is always taken as if it were there, and "…" when there may be more.
func (u *grantUses) described() string {
	if u == nil {
		return "nothing can be said"
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(u.names)) {
		if use := u.names[name]; use.needed > 0 && use.needed == use.times {
			name += "!"
		}
		out = append(out, name)
	}
	if u.open {
		out = append(out, "…")
	}
	if u.fetches {
		out = append(out, "fetch")
	}
	return strings.Join(out, " ")
}

func TestUsesOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ script, want string }{
		{`export default async function (event, ctx) { return ctx.grants.tax.invoke({}); }`, "tax!"},
		{`export default (event, ctx) => ctx.grants.tax.invoke(event.data)`, "tax!"},
		{`var f = async (event, ctx) => { await ctx.grants.a.get("x"); await ctx.grants.b.get("y"); }; export { f as default };`, "a! b!"},
		{`var f = (event, ctx) => ctx.grants.a.get(); var g = f; export { g as default };`, "a!"},
		{`function f(event, ctx) { return () => { const c = 1; return ctx.grants.a.get(c); }; } export { f as default };`, "a!"},
		{`export default (event, ctx) => ctx.grants["a"].get()`, "a"},
		{`export default (event, { grants }) => grants.a.get()`, "a!"},
		{`export default (event, { grants: g }) => g.a.get()`, "a!"},
		{`export default (event, { grants: { a, b: c } }) => a.get(c)`, "a b"},
		{`export default (event, ctx) => { const { grants, log } = ctx; log("x"); return grants.a.get(); }`, "a!"},
		{`export default (event, ctx) => { const { a, b: { get } } = ctx.grants; return a.get() + get(); }`, "a b"},
		{`export default (event, ctx) => { const g = ctx.grants; return g.a.get(); }`, "a!"},
		{`export default (event, ctx) => { ctx.log("x"); return ctx.publish("t", {}); }`, ""},
		{`export default (event) => event.data`, ""},
		{`export default (event, ctx) => { const ctx2 = { grants: { z: 1 } }; return ctx2.grants.z.y + ctx.grants.a.get(); }`, "a!"},
		{`export default (event, ctx) => { { let ctx = other; ctx.grants.z.y(); } return ctx.grants.a.get(); }`, "a!"},
		{`export default (event, ctx) => ((ctx) => ctx.grants.z.get())({}) + ctx.grants.a.get()`, "a!"},
		// Looked at before it is used.
		{`export default (event, ctx) => ctx.grants.a && ctx.grants.a.get()`, "a"},
		{`export default (event, ctx) => ctx.grants.a?.get()`, "a"},
		{`export default (event, ctx) => { if ("a" in ctx.grants) return ctx.grants.a.get(); }`, "a! …"},
		{`export default (event, ctx) => { const a = ctx.grants.a; return a ? a.get() : 0; }`, "a"},
		// Where it goes is not seen.
		{`export default (event, ctx) => help(ctx)`, "…"},
		{`export default (event, ctx) => help(ctx.grants)`, "…"},
		{`export default (event, ctx) => help({ ctx })`, "…"},
		{`export default (event, ctx) => help({ ...ctx.grants })`, "…"},
		{`export default (event, ctx) => ctx.grants[event.data.name].get()`, "…"},
		{`export default (event, ctx) => ctx["grants"].a.get()`, "…"},
		{`export default (event, ctx) => { const { a, ...rest } = ctx.grants; return rest; }`, "a …"},
		{`export default (event, { ...all }) => all.grants.a.get()`, "…"},
		{`export default (...all) => all[1].grants.a.get()`, "…"},
		{`export default function (event) { return arguments[1].grants.a.get(); }`, "…"},
		{`export default (event, ctx) => { ctx = { grants: {} }; return ctx.grants.a.get(); }`, "a! …"},
		{`export default (event, ctx) => eval("ctx.grants.a.get()")`, "…"},
		{`export default (event, ctx) => { let c; c = ctx; return c.grants.a; }`, "…"},
		// fetch finds a grant by itself.
		{`export default async () => (await fetch("https://example.org")).status`, "fetch"},
		{`export default () => globalThis["fet" + "ch"]("https://example.org")`, "fetch"},
		// No function is seen to be the handler.
		{`export default make()`, "nothing can be said"},
		{`var f = make((event, ctx) => ctx.grants.a.get()); export { f as default };`, "nothing can be said"},
		{`var f = (e, ctx) => ctx.grants.a.get(); f = wrap(f); export { f as default };`, "nothing can be said"},
		{`export default {`, "nothing can be said"},
		{``, "nothing can be said"},
	} {
		if got := usesOf([]byte(tc.script)).described(); got != tc.want {
			t.Errorf("usesOf(%s) = %q, want %q", tc.script, got, tc.want)
		}
	}
}

// FuzzUsesOf: whatever a script is, it is looked at without a panic, and its bytes stay as they were.
func FuzzUsesOf(f *testing.F) {
	f.Add(`export default (event, { grants: { a, ...b } }) => a?.["x"].get(ctx)`)
	f.Add("var f=(e,c)=>{const{grants:g}=c;return g.a.b`${c}`};export{f as default}")
	f.Fuzz(func(t *testing.T, script string) {
		code := []byte(script)
		usesOf(code).described()
		if string(code) != script {
			t.Error("the script was changed")
		}
	})
}
