package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/deploy"
	"sallyport/internal/event"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

const shop = `name = "shop"

[event_types."order.created"]
schema = "order.json"

[event_types."order.priced"]

[functions.price]
source = "price.wasm"
memory = "8MiB"
timeout = "2s"

[functions.price.grants.out]
publish = ["order.priced"]

[subscriptions.orders]
function = "price"
filter = { type = "order.created" }
when = "event.data.total > 0"

[subscriptions.all]
function = "price"
filter = { type = "order.*" }
`

func TestApply(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := w.open(t)
	var changed []ident.Namespace
	d.OnChange(func(ns ident.Namespace) { changed = append(changed, ns) })
	want := []string{
		"shop 1", "create function price:", "create event type order.created:", "create event type order.priced:",
		"create subscription all:", "create subscription orders:",
	}
	if diff := cmp.Diff(want, apply(t, d, app(shop, 1))); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	f, err := d.State("default").Function("price")
	if err != nil {
		t.Fatal(err)
	}
	if f.Revision != 1 || f.Kind != cell.KindCommand || f.Digest != digestOf(1) || f.By != "token:t" ||
		f.Limits.Memory != 8<<20 || f.Limits.Timeout != 2*time.Second || !f.Publish("order.priced") || f.Publish("order.created") {
		t.Errorf("function is %+v", f)
	}
	if diff := cmp.Diff([]ident.Namespace{"default"}, changed); diff != "" {
		t.Errorf("told of (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"shop 1"}, apply(t, d, app(shop, 1))); diff != "" {
		t.Errorf("the same again (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(show(d, "default"), show(w.open(t), "default")); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	if _, err := d.State("default").Function("nothing"); problem.From(err).Code != "deploy.function_not_found" {
		t.Errorf("Function(unknown) = %v", err)
	}
}

// TestPlan says in words what each change of the app changes.
func TestPlan(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, from, to string
		variant        byte
		want           []string
	}{
		{name: "code", variant: 2, want: []string{"update function price: code"}},
		{name: "comment", from: `name = "shop"`, to: "# a shop\nname = \"shop\""},
		{name: "memory", from: "8MiB", to: "16MiB", want: []string{"update function price: memory 8MiB -> 16MiB"}},
		{name: "timeout", from: `"2s"`, to: `"3s"`, want: []string{"update function price: timeout 2s -> 3s"}},
		{name: "grant", from: `["order.priced"]`, to: `["order.created"]`, want: []string{
			"update function price: grant out changed",
		}},
		{name: "schema removed", from: `schema = "order.json"`, want: []string{"update event type order.created: schema removed"}},
		{name: "schema added", from: `[event_types."order.priced"]`, to: "[event_types.\"order.priced\"]\nschema = \"p.json\"", want: []string{
			"update event type order.priced: schema added",
		}},
		{name: "event type removed", from: `[event_types."order.priced"]`, want: []string{"delete event type order.priced:"}},
		{name: "filter", from: `"order.*"`, to: `"o*"`, want: []string{"update subscription all: type order.* -> o*"}},
		{name: "when", from: "> 0", to: "> 1", want: []string{"update subscription orders: when"}},
		{name: "subscription renamed", from: "[subscriptions.all]", to: "[subscriptions.every]", want: []string{
			"delete subscription all:", "create subscription every:",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newWorld().open(t)
			apply(t, d, app(shop, 1))
			before := show(d, "default")
			variant, want := max(tt.variant, 1), append([]string{"shop 2"}, tt.want...)
			if tt.want == nil {
				want[0] = "shop 1"
			}
			b := app(strings.Replace(shop, tt.from, tt.to, 1), variant)
			plan, err := d.Apply(t.Context(), "token:t", "default", b, true, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, words(plan)); diff != "" || plan.Applied {
				t.Errorf("dry run (-want +got), applied %t:\n%s", plan.Applied, diff)
			}
			if diff := cmp.Diff(before, show(d, "default")); diff != "" {
				t.Errorf("a dry run changed (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(want, apply(t, d, b)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRefused applies what cannot be applied, over an app that is active: nothing changes.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := w.open(t)
	apply(t, d, app(shop, 1))
	other := strings.NewReplacer("shop", "bank", "price", "rate", "order.", "loan.").Replace(shop)
	state, stored := d.State("default"), maps.Clone(w.apps)
	for _, tt := range []struct {
		name, code string
		bundle     func() *api.Bundle
	}{
		{"manifest", "manifest.", func() *api.Bundle { return app(`name = 1`, 1) }},
		{"unknown function", "manifest.", func() *api.Bundle {
			return app(strings.Replace(shop, `function = "price"`, `function = "prize"`, 1), 1)
		}},
		{"condition", "manifest.", func() *api.Bundle { return app(strings.Replace(shop, "> 0", ">", 1), 1) }},
		{"no module", "deploy.bundle_incomplete", func() *api.Bundle {
			b := app(shop, 1)
			clear(b.Modules)
			return b
		}},
		{"another module", "deploy.bundle_incomplete", func() *api.Bundle {
			b := app(shop, 1)
			b.Modules["prize"] = module(1)
			return b
		}},
		{"no schema", "deploy.bundle_incomplete", func() *api.Bundle {
			b := app(shop, 1)
			clear(b.Schemas)
			return b
		}},
		{"another schema", "deploy.bundle_incomplete", func() *api.Bundle {
			b := app(shop, 1)
			b.Schemas["loan.json"] = "{}"
			return b
		}},
		{"schema", "schema.", func() *api.Bundle {
			b := app(shop, 1)
			b.Schemas["order.json"] = `{"type":"thing"}`
			return b
		}},
		{"broken module", "cell.", func() *api.Bundle {
			b := app(shop, 1)
			b.Modules["price"] = api.Module{Kind: api.ModuleWasm, Code: []byte("\x00asm")}
			return b
		}},
		{"unknown kind", "cell.", func() *api.Bundle {
			b := app(shop, 2)
			b.Modules["price"] = api.Module{Kind: "jar", Code: module(2).Code}
			return b
		}},
		{"one broken module of two", "cell.", func() *api.Bundle {
			b := app(shop+"\n[functions.zero]\nsource = \"zero.wasm\"\n", 2)
			b.Modules["zero"] = api.Module{Kind: api.ModuleWasm}
			return b
		}},
		{"another app's event type", "deploy.name_taken", func() *api.Bundle { return app(strings.Replace(other, "loan.priced", "order.priced", 2), 1) }},
		{"another app's names", "deploy.name_taken", func() *api.Bundle { return app(strings.Replace(shop, "shop", "mall", 1), 1) }},
		{"too large", "deploy.app_too_large", func() *api.Bundle {
			b := app(`name = "large"`, 1)
			long := `{"description":"` + strings.Repeat("x", 200<<10) + `"}`
			for i := range 40 {
				b.Manifest += fmt.Sprintf("\n[event_types.\"t%d\"]\nschema = \"%d.json\"\n", i, i)
				b.Schemas[fmt.Sprintf("%d.json", i)] = long
			}
			return b
		}},
	} {
		for _, dry := range []bool{true, false} {
			_, err := d.Apply(t.Context(), "token:t", "default", tt.bundle(), dry, nil)
			if p := problem.From(err); !strings.HasPrefix(p.Code, tt.code) {
				t.Errorf("%s: Apply = %v (%v), want %s", tt.name, err, p.Unwrap(), tt.code)
			}
			if d.State("default") != state || !maps.EqualFunc(stored, w.apps, slices.Equal) {
				t.Fatalf("%s: a refused app changed something", tt.name)
			}
		}
	}
	if _, err := d.Apply(t.Context(), "token:t", "elsewhere", app(strings.Replace(shop, "shop", "mall", 1), 1), false, nil); err != nil {
		t.Errorf("the same names in another namespace: %v", err)
	}
}

// TestFaultsNameTheirFile has a fault in a schema: the answer says in which file it is.
func TestFaultsNameTheirFile(t *testing.T) {
	t.Parallel()
	b := app(shop, 1)
	b.Schemas["order.json"] = `{"type":`
	_, err := newWorld().open(t).Apply(t.Context(), "token:t", "default", b, false, nil)
	if p := problem.From(err); len(p.Faults) == 0 || p.Faults[0].File != "order.json" {
		t.Errorf("Apply = %v with faults %+v", err, p.Faults)
	}
}

// TestAllOrNothing has each write of an apply fail in turn, as in a crash there: what is active, and
// what is active after a restart, is all of the old app or all of the new one, and its code is there.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	first, second := app(shop, 1), app(strings.Replace(shop, "8MiB", "16MiB", 1)+"\n[functions.more]\nsource = \"more.wasm\"\n", 2)
	for failAt := 1; ; failAt++ {
		w := newWorld()
		d := w.open(t)
		apply(t, d, app(shop, 3)) // so that there is something stale
		apply(t, d, first)
		old := show(d, "default")
		w.failAt = w.writes + failAt
		_, err := d.Apply(t.Context(), "token:t", "default", second, false, nil)
		failed := w.writes >= w.failAt
		w.failAt = 0
		got, again := show(d, "default"), w.open(t)
		if err != nil && (!slices.Equal(got, old) || problem.From(err).Code != "deploy.unavailable") {
			t.Errorf("write %d failed with %v, and what is active changed", failAt, err)
		}
		if diff := cmp.Diff(got, show(again, "default")); diff != "" {
			t.Errorf("write %d failed; a restart changes (-before +after):\n%s", failAt, diff)
		}
		for name, f := range again.State("default").Functions {
			_, release, err := f.Acquire(t.Context())
			if err != nil {
				t.Errorf("write %d failed; %s has no code: %v", failAt, name, err)
				continue
			}
			release()
		}
		if !failed {
			if failAt < 4 {
				t.Errorf("an apply has only %d writes: the test looks in the wrong place", failAt-1)
			}
			return
		}
	}
}

// TestDoubtfulWrite has the store report a failure of a write that it made.
func TestDoubtfulWrite(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := w.open(t)
	w.lateFail = true
	apply(t, d, app(shop, 1))
	if _, err := d.SetPaused(t.Context(), "default", "all", true); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(show(d, "default"), show(w.open(t), "default")); diff != "" {
		t.Errorf("a restart changes (-before +after):\n%s", diff)
	}
}

// TestCanceledCaller goes away: what was not begun is not done.
func TestCanceledCaller(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := w.open(t)
	w.failEnd = errors.New("no event log")
	if _, err := d.Apply(t.Context(), "token:t", "default", app(shop, 1), false, nil); problem.From(err).Code != "deploy.unavailable" {
		t.Errorf("Apply = %v, want deploy.unavailable", err)
	}
	w.failEnd = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Apply(ctx, "token:t", "other", app(shop, 1), false, nil); err == nil {
		t.Error("Apply succeeded for a caller who is gone")
	}
	if w.namespaces["other"] || len(show(d, "default")) != 0 {
		t.Error("a failed Apply changed something")
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := w.open(t)
	apply(t, d, app(shop, 1))
	paused := func(d *deploy.Deployer) string {
		s := d.State("default").Subscriptions
		return fmt.Sprint(s["all"].Paused, s["orders"].Paused)
	}
	set := func(name ident.SubscriptionName, on bool, want string) {
		t.Helper()
		before := d.State("default")
		if s, err := d.SetPaused(t.Context(), "default", name, on); err != nil || s.Paused != on {
			t.Errorf("SetPaused(%s, %t) = %+v, %v", name, on, s, err)
		}
		apply(t, d, app(shop, byte(w.writes))) // survives a new revision
		if got, after := paused(d), paused(w.open(t)); got != want || after != want {
			t.Errorf("SetPaused(%s, %t): paused %s, after a restart %s, want %s", name, on, got, after, want)
		}
		if before == d.State("default") {
			t.Error("a State was changed")
		}
	}
	set("all", true, "true false")
	set("orders", true, "true true")
	set("all", true, "true true")
	set("all", false, "false true")
	w.failAt = 1
	if _, err := d.SetPaused(t.Context(), "default", "orders", false); problem.From(err).Code != "deploy.unavailable" || paused(d) != "false true" {
		t.Errorf("SetPaused without the store = %v, paused %s", err, paused(d))
	}
	for _, ns := range []ident.Namespace{"default", "nowhere"} {
		if _, err := d.SetPaused(t.Context(), ns, "nothing", true); problem.From(err).Code != "deploy.subscription_not_found" {
			t.Errorf("SetPaused(unknown) = %v", err)
		}
	}
}

// TestFrom has a subscription get events from where the log ended when it was made, and keep that
// place for as long as it exists.
func TestFrom(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := w.open(t)
	first, later := w.end, w.end+7<<ident.PositionIndexBits
	apply(t, d, app(shop, 1))
	w.end = later
	apply(t, d, app(shop, 2))
	from := func() ident.Position { return d.State("default").Subscriptions["all"].From }
	if from() != first {
		t.Errorf("after a new revision From = %s, want %s", from(), first)
	}
	apply(t, d, app(strings.Replace(shop, "[subscriptions.all]", "[subscriptions.every]", 1), 2))
	apply(t, d, app(shop, 2))
	if from() != later {
		t.Errorf("made again, From = %s, want %s", from(), later)
	}
	rec := func(pos ident.Position, data string) *event.Record {
		return &event.Record{Position: pos, Event: event.Event{Type: "order.created", Data: []byte(data), DataKind: event.DataJSON}}
	}
	for _, tt := range []struct {
		pos  ident.Position
		data string
		want string
	}{
		{first - 1, `{"total":1}`, ""},
		{first, `{"total":1}`, "orders nil"},
		{later, `{"total":1}`, "all nil, orders nil"},
		{later, `{"total":0}`, "all nil"},
		{later, `{}`, "all nil, orders filter.when_failed"}, // not lost: delivered to its retries, and a dead letter
	} {
		var got []string
		d.State("default").Match(rec(tt.pos, tt.data), func(s *deploy.Subscription, err error) {
			code := "nil"
			if err != nil {
				code = problem.From(err).Code
			}
			got = append(got, string(s.Name)+" "+code)
		})
		slices.Sort(got)
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("Match(%s, %s) = %q, want %q", tt.pos, tt.data, got, tt.want)
		}
	}
}

// TestModulesKept has the store keep the code of the active revision and the one before, no more,
// and whatever another app has too.
func TestModulesKept(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := w.open(t)
	want := func(variants ...byte) {
		t.Helper()
		var digests []string
		for _, v := range variants {
			digests = append(digests, digestOf(v))
		}
		slices.Sort(digests)
		if diff := cmp.Diff(digests, w.kept()); diff != "" {
			t.Errorf("blobs (-want +got):\n%s", diff)
		}
	}
	apply(t, d, app(shop, 1))
	apply(t, d, app(shop, 2))
	want(1, 2)
	apply(t, d, app(shop, 3))
	want(2, 3)
	apply(t, d, app(shop, 2)) // back to the one before
	want(2, 3)
	other := "name = \"other\"\n[functions.other]\nsource = \"other.wasm\"\n"
	if _, err := d.Apply(t.Context(), "token:t", "elsewhere", app(other, 2), false, nil); err != nil {
		t.Fatal(err)
	}
	d = w.open(t)
	apply(t, d, app(shop, 4))
	want(2, 4)
	apply(t, d, app(shop, 5))
	want(2, 4, 5)
	if diff := cmp.Diff([]ident.Namespace{"default", "elsewhere"}, d.Found()); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
}

// TestAcquire loads code when it is first needed, and keeps that of a replaced revision for as long as
// somebody runs it.
func TestAcquire(t *testing.T) {
	t.Parallel()
	w := newWorld()
	apply(t, w.open(t), app(shop, 1))
	w.failRead = errDisk
	d := w.open(t) // reads no code
	f := d.State("default").Functions["price"]
	if _, _, err := f.Acquire(t.Context()); !errors.Is(err, errDisk) {
		t.Errorf("Acquire without the store = %v", err)
	}
	w.failRead = nil
	fn, release, err := f.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	apply(t, d, app(shop, 2))
	invoke := func(fn deploy.Cell) {
		t.Helper()
		if _, _, err := fn.Invoke(t.Context(), cell.Input{Event: []byte("{}"), EventID: "e", Attempt: 1}); err != nil {
			t.Errorf("Invoke = %v", err)
		}
	}
	invoke(fn)
	release()
	// Whoever read the State before the change may come late.
	if fn, release, err = f.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	invoke(fn)
	release()
}

// TestScriptAfterRestart fails in a script that was read back from the store: its author sees the same
// file, through the same source map, as before.
func TestScriptAfterRestart(t *testing.T) {
	t.Parallel()
	w := newWorld()
	b := app(`name = "shop"
[functions.price]
source = "price.js"
`, 1)
	b.Modules["price"] = api.Module{
		Kind: api.ModuleScript, Code: []byte(`export default () => { throw new Error("no stock") }`),
		SourceMap: []byte(`{"version":3,"sources":["written.ts"],"names":[],"mappings":"AAEA"}`),
	}
	d := w.open(t)
	apply(t, d, b)
	fail := func(d *deploy.Deployer) string {
		fn, release, err := d.State("default").Functions["price"].Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		_, _, err = fn.Invoke(t.Context(), cell.Input{Event: []byte("{}"), EventID: "e", Attempt: 1})
		f, ok := cell.Failed(err)
		if !ok {
			t.Fatalf("Invoke = %v", err)
		}
		return f.Message + "\n" + f.Stack
	}
	before, after := fail(d), fail(w.open(t))
	if before != after || !strings.Contains(before, "written.ts:3") {
		t.Errorf("before a restart %q, after it %q", before, after)
	}
}

// TestRemoveNamespace: what only the namespace has goes, what another has too stays, and a removal that failed half-way is
// completed by the next.
func TestRemoveNamespace(t *testing.T) {
	t.Parallel()
	for failAt := 1; ; failAt++ {
		w := newWorld()
		d := w.open(t)
		apply(t, d, app(shop, 1))
		apply(t, d, app(shop, 2))
		if _, err := d.Apply(t.Context(), "token:t", "elsewhere", app(shop, 2), false, nil); err != nil {
			t.Fatal(err)
		}
		w.writes, w.failAt = 0, failAt
		err := d.RemoveNamespace(t.Context(), "default")
		w.failAt = 0
		if err != nil {
			d = w.open(t) // as after a crash
			if err := d.RemoveNamespace(t.Context(), "default"); err != nil {
				t.Fatalf("after a failure of write %d: %v", failAt, err)
			}
		}
		if diff := cmp.Diff([]string{digestOf(2)}, w.kept()); diff != "" {
			t.Errorf("failure of write %d: modules that are left (-want +got):\n%s", failAt, diff)
		}
		d = w.open(t)
		if diff := cmp.Diff([]ident.Namespace{"elsewhere"}, d.Found()); diff != "" {
			t.Errorf("failure of write %d: namespaces that are left (-want +got):\n%s", failAt, diff)
		}
		if len(d.State("default").Functions) != 0 || len(d.State("elsewhere").Functions) == 0 {
			t.Errorf("failure of write %d: the wrong functions are left", failAt)
		}
		if err == nil {
			if failAt < 3 {
				t.Errorf("a removal has only %d writes", failAt-1)
			}
			return
		}
	}
}

// TestHeld: what an app would have its namespace hold is asked about before anything is stored, without the app's own revision
// before.
func TestHeld(t *testing.T) {
	t.Parallel()
	w := newWorld()
	var asked []deploy.Held
	refuse := errors.New("too much")
	w.within = func(ns ident.Namespace, h deploy.Held) error {
		asked = append(asked, h)
		if ns == "full" {
			return refuse
		}
		return nil
	}
	d := w.open(t)
	other := "name = \"other\"\n[functions.other]\nsource = \"other.wasm\"\n"
	apply(t, d, app(shop, 1))
	apply(t, d, app(shop, 2))
	apply(t, d, app(other, 1))
	one := d.State("default").Held
	size := int64(len(module(1).Code))
	if last := asked[2]; asked[0] != asked[1] || last != one || last.Functions != asked[0].Functions+1 || last.ModuleBytes != asked[0].ModuleBytes+size ||
		last.Subscriptions != asked[0].Subscriptions {
		t.Errorf("asked about %+v, and holds %+v", asked, one)
	}
	if again := w.open(t).State("default").Held; again != one {
		t.Errorf("after a restart it holds %+v; want %+v", again, one)
	}
	before := len(w.kept())
	if _, err := d.Apply(t.Context(), "token:t", "full", app(shop, 3), false, nil); !errors.Is(err, refuse) {
		t.Errorf("Apply = %v, want the refusal", err)
	}
	if w.namespaces["full"] || len(w.kept()) != before {
		t.Error("an app that was refused left something")
	}
}

func TestMalformedStore(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{"no JSON": "{", "no manifest": "{}", "no function": `{"manifest":"name = 1"}`} {
		w := newWorld()
		w.apps["default/shop"] = []byte(value)
		if _, err := w.tryOpen(t); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestConcurrentUse has revisions come while others deliver; the race detector looks on.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := w.open(t)
	apply(t, d, app(shop, 0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			rec := &event.Record{Position: w.end, Event: event.Event{Type: "order.priced"}}
			for {
				select {
				case <-stop:
					return
				default:
				}
				d.State("default").Match(rec, func(s *deploy.Subscription, _ error) {
					fn, release, err := s.Function.Acquire(t.Context())
					if errors.Is(err, deploy.ErrReplaced) {
						return // two revisions came since the State was read
					}
					if err != nil {
						t.Error(err)
						return
					}
					defer release()
					if _, _, err := fn.Invoke(t.Context(), cell.Input{Event: []byte("{}"), EventID: "e", Attempt: 1}); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	for i := range 30 {
		apply(t, d, app(shop, byte(i)))
		if _, err := d.SetPaused(t.Context(), "default", "all", i%2 == 0); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// BenchmarkMatch is what each event costs: the state, the index, and the code of one function.
func BenchmarkMatch(b *testing.B) {
	d := newWorld().open(b)
	apply(b, d, app(shop, 1))
	rec := &event.Record{Position: 1 << 40, Event: event.Event{Type: "order.priced"}}
	b.ReportAllocs()
	for b.Loop() {
		d.State("default").Match(rec, func(s *deploy.Subscription, _ error) {
			_, release, err := s.Function.Acquire(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			release()
		})
	}
}
