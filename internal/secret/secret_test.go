package secret_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/secret"
)

func code(err error) string { return problem.From(err).Code }

func states(t testing.TB, w *world, name ident.SecretName) map[int]secret.State {
	t.Helper()
	s, err := w.Get(t.Context(), shop, name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]secret.State{}
	for _, v := range s.Versions {
		out[v.Number] = v.State
	}
	return out
}

// TestVersions walks through all that can become of versions, with a restart after each step.
func TestVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must := func(_ *secret.Secret, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	steps := []struct {
		name   string
		do     func()
		values map[string]string
		states map[int]secret.State
	}{
		{"set", func() { w.set(t, "key", "one") }, map[string]string{"key": "one", "secret:key": "one", "key@1": "one", "key@previous": "[secret.version_unavailable]"},
			map[int]secret.State{1: secret.Current}},
		{"set again", func() { w.set(t, "key", "two") }, map[string]string{"key": "two", "key@previous": "one", "key@1": "one", "key@pending": "[secret.version_unavailable]"},
			map[int]secret.State{1: secret.Previous, 2: secret.Current}},
		{"pending", func() { must(w.Set(ctx, shop, "key", []byte("three"), secret.Setting{Pending: true})) },
			map[string]string{"key": "two", "key@previous": "one", "key@pending": "three", "key@3": "three"},
			map[int]secret.State{1: secret.Previous, 2: secret.Current, 3: secret.Pending}},
		{"promote", func() { must(w.Promote(ctx, shop, "key", 3, time.Hour)) },
			map[string]string{"key": "three", "key@previous": "two", "key@pending": "[secret.version_unavailable]", "key@1": "[secret.version_unavailable]"},
			map[int]secret.State{1: secret.Disabled, 2: secret.Previous, 3: secret.Current}},
		{"back", func() { must(w.Promote(ctx, shop, "key", 1, time.Hour)) }, map[string]string{"key": "one", "key@previous": "three"},
			map[int]secret.State{1: secret.Current, 2: secret.Disabled, 3: secret.Previous}},
		{"disable", func() { must(w.Disable(ctx, shop, "key", 1)) }, map[string]string{"key": "[secret.version_unavailable]", "key@previous": "three"},
			map[int]secret.State{1: secret.Disabled, 2: secret.Disabled, 3: secret.Previous}},
		{"enable", func() { must(w.Promote(ctx, shop, "key", 1, time.Hour)) }, map[string]string{"key": "one"},
			map[int]secret.State{1: secret.Current, 2: secret.Disabled, 3: secret.Previous}},
		{"destroy", func() { must(w.Destroy(ctx, shop, "key", 3)) }, map[string]string{"key": "one", "key@previous": "[secret.version_unavailable]", "key@3": "[secret.version_unavailable]"},
			map[int]secret.State{1: secret.Current, 2: secret.Disabled, 3: secret.Destroyed}},
	}
	for _, step := range steps {
		step.do()
		for range 2 {
			for ref, want := range step.values {
				if got := w.value(t, ref); got != want {
					t.Errorf("%s: Value(%s) = %s, want %s", step.name, ref, got, want)
				}
			}
			if diff := cmp.Diff(step.states, states(t, w, "key")); diff != "" {
				t.Errorf("%s: states (-want +got):\n%s", step.name, diff)
			}
			w.start(t)
		}
	}
	if _, err := w.Promote(ctx, shop, "key", 3, 0); code(err) != "secret.version_unavailable" {
		t.Errorf("a destroyed version was promoted: %v", err)
	}
	if _, err := w.Value(ctx, "bank", "key", use); code(err) != "secret.not_found" {
		t.Errorf("another namespace has it: %v", err)
	}
	if s, err := w.Destroy(ctx, shop, "key", 0); err != nil || s != nil {
		t.Errorf("Destroy = %v, %v", s, err)
	}
	for key := range w.disk.values {
		if strings.Contains(key, "/key") {
			t.Errorf("%s is left", key)
		}
	}
}

// TestGraceEnds: the version before is usable for the time of grace, and not after.
func TestGraceEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(t, "key", "one")
	synctest.Test(t, func(t *testing.T) {
		w.start(t)
		defer w.Close() //nolint:errcheck // nothing is written
		if _, err := w.Set(t.Context(), shop, "key", []byte("two"), secret.Setting{Grace: time.Hour}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		if got := w.value(t, "key@previous"); got != "one" {
			t.Errorf("before the end: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := w.value(t, "key@previous"); got != "[secret.version_unavailable]" {
			t.Errorf("after the end: %s", got)
		}
		if got := w.value(t, "key"); got != "two" {
			t.Errorf("current: %s", got)
		}
	})
}

// TestNothingInClear: no value is in what is on the disk, nor in the log.
func TestNothingInClear(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 50 {
		w.set(t, ident.SecretName(fmt.Sprint("key-", i)), fmt.Sprint("hunter-", i))
		w.value(t, fmt.Sprint("key-", i))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for key, v := range w.disk.values {
		if strings.Contains(key, "/v/") && strings.Contains(string(v), "hunter") || strings.Contains(string(v), "hunter-") {
			t.Errorf("%s holds a value", key)
		}
	}
	if strings.Contains(w.log.String(), "hunter") {
		t.Errorf("the log holds a value: %s", w.log)
	}
}

// TestValuesAreBoundToTheirPlace exchanges the values, and then the keys, of two versions and of two secrets.
func TestValuesAreBoundToTheirPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(t, "a", "one")
	w.set(t, "a", "two")
	w.set(t, "b", "three")
	var values []string
	for key := range w.disk.values {
		if strings.HasPrefix(key, "bucket/shop/v/") {
			values = append(values, key)
		}
	}
	for _, x := range values {
		for _, y := range values {
			if x == y {
				continue
			}
			saved := w.disk.values[x]
			w.disk.values[x] = w.disk.values[y]
			w.start(t)
			for ref, want := range map[string]string{"a": "two", "a@1": "one", "b": "three"} {
				if got := w.value(t, ref); got != want && got != "[secret.version_unavailable]" {
					t.Errorf("Value(%s) = %s", ref, got)
				}
			}
			w.disk.values[x] = saved
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 200 {
		w.set(t, "key", fmt.Sprint("value-", i))
	}
	s, err := w.Get(t.Context(), shop, "key")
	if err != nil {
		t.Fatal(err)
	}
	live := 0
	for _, v := range s.Versions {
		if v.State != secret.Destroyed {
			live++
		}
	}
	if len(s.Versions) != 100 || live != 16 || s.Current != 200 {
		t.Errorf("%d versions, %d live, current %d", len(s.Versions), live, s.Current)
	}
	if got := w.value(t, "key@previous"); got != "value-198" {
		t.Errorf("previous = %s", got)
	}
	values := 0
	for key := range w.disk.values {
		if strings.HasPrefix(key, "bucket/shop/v/") || strings.HasPrefix(key, "keys/value/") {
			values++
		}
	}
	if values != 32 {
		t.Errorf("%d values and keys are stored, want 16 of each", values)
	}
	for name, value := range map[string][]byte{"empty": nil, "large": make([]byte, secret.MaxValue+1)} {
		if _, err := w.Set(t.Context(), shop, "x", value, secret.Setting{}); err == nil {
			t.Errorf("a value that is %s was taken", name)
		}
	}
}

// TestCrashes cuts every write of everything that changes a secret, before and after the write, and starts again: a secret is as it was
// before or as it should be after, it can be used, and nothing is left of what was not made.
func TestCrashes(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(w *world) error{
		"set": func(w *world) error {
			_, err := w.Set(t.Context(), shop, "key", []byte("three"), secret.Setting{})
			return err
		},
		"new": func(w *world) error {
			_, err := w.Set(t.Context(), shop, "new", []byte("new"), secret.Setting{})
			return err
		},
		"promote": func(w *world) error { _, err := w.Promote(t.Context(), shop, "key", 1, 0); return err },
		"destroy": func(w *world) error { _, err := w.Destroy(t.Context(), shop, "key", 1); return err },
		"remove":  func(w *world) error { _, err := w.Destroy(t.Context(), shop, "key", 0); return err },
	} {
		for _, after := range []bool{false, true} {
			for at := 1; ; at++ {
				w := newWorld(t)
				w.set(t, "key", "one")
				w.set(t, "key", "two")
				w.disk.crashAt, w.disk.after = w.disk.writes+at, after
				err := do(w)
				if err == nil {
					break // there are no more writes
				}
				w.disk.dead, w.disk.crashAt = false, 0
				w.start(t)
				got := w.value(t, "key") + " " + w.value(t, "key@1") + " " + w.value(t, "new")
				want := map[string][]string{
					"set": {"two one [secret.not_found]", "three [secret.version_unavailable] [secret.not_found]"}, "new": {"two one [secret.not_found]", "two one new"},
					"promote": {"two one [secret.not_found]", "one one [secret.not_found]"}, "destroy": {"two one [secret.not_found]", "two [secret.version_unavailable] [secret.not_found]"},
					"remove": {"two one [secret.not_found]", "[secret.not_found] [secret.not_found] [secret.not_found]"},
				}[name]
				if got != want[0] && got != want[1] {
					t.Errorf("%s, crash at write %d (made: %v): %s", name, at, after, got)
				}
				checkNothingLeft(t, w, fmt.Sprint(name, " at ", at))
			}
		}
	}
}

// checkNothingLeft sees that there is a value for each version that is not destroyed, and no other.
func checkNothingLeft(t *testing.T, w *world, when string) {
	t.Helper()
	list, err := w.List(t.Context(), shop)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, s := range list {
		for _, v := range s.Versions {
			if v.State != secret.Destroyed {
				want++
			}
		}
	}
	got := 0
	for key := range w.disk.values {
		if strings.HasPrefix(key, "bucket/shop/v/") {
			got++
		}
	}
	if got != want {
		t.Errorf("%s: %d values are stored for %d versions", when, got, want)
	}
}

func TestUses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(t, "key", "one")
	for range 3 {
		w.value(t, "key")
	}
	if _, _, err := w.Reveal(t.Context(), shop, "key", use); err != nil {
		t.Fatal(err)
	}
	w.deny = problem.New(problem.Denied, "access.denied", "no")
	if got := w.value(t, "key"); got != "[access.denied]" {
		t.Errorf("Value = %s", got)
	}
	w.deny = nil
	check := func() {
		t.Helper()
		list, err := w.Uses(t.Context(), shop, "key")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range list {
			got = append(got, fmt.Sprint(u.Kind, " ", u.Count, " ", u.Version, " ", u.Function, " ", u.EventID))
		}
		if diff := cmp.Diff([]string{"denied 1 0 price e-1", "revealed 1 1 price e-1", "applied 3 1 price e-1"}, got); diff != "" {
			t.Errorf("Uses (-want +got):\n%s", diff)
		}
	}
	check()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	check()
	for i := range 500 {
		u := use
		u.Caller.Revision = i
		if _, err := w.Value(t.Context(), shop, "key", u); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := w.Uses(t.Context(), shop, "key"); err != nil || len(list) != 200 {
		t.Errorf("%d uses, %v; want 200", len(list), err)
	}
}

func TestCanary(t *testing.T) {
	t.Parallel()
	for _, like := range secret.Decoys() {
		w := newWorld(t)
		w.set(t, "key", "one")
		decoy, s, err := w.Plant(t.Context(), shop, "bird", like, secret.Setting{By: "user:ann"})
		if err != nil || !s.Canary || len(decoy) < 16 {
			t.Fatalf("%s: Plant = %q, %+v, %v", like, decoy, s, err)
		}
		w.value(t, "key")
		if len(w.touches) != 0 {
			t.Errorf("touched: %+v", w.touches)
		}
		if got := w.value(t, "bird"); got != decoy {
			t.Errorf("%s: the canary is %q, want %q", like, got, decoy)
		}
		w.deny = errors.New("no")
		w.value(t, "bird")
		w.TouchedByHand(t.Context(), shop, "bird", "user:eve")
		w.TouchedByHand(t.Context(), shop, "key", "user:eve")
		if len(w.touches) != 3 || w.touches[0].Use.Caller.Function != "price" || !w.touches[1].Denied || w.touches[2].Principal != "user:eve" {
			t.Errorf("touched: %+v", w.touches)
		}
		if n := strings.Count(w.log.String(), "level=WARN msg=\"canary secret touched\""); n != 3 || strings.Contains(w.log.String(), decoy) {
			t.Errorf("the log has %d findings, or the decoy: %s", n, w.log)
		}
	}
}

func TestRedactor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refs := []ident.SecretRef{{Store: ident.StoreOwn, Name: "key"}, {Store: ident.StoreOwn, Name: "none"}}
	text := func() string {
		t.Helper()
		set, err := w.Redactor(t.Context(), shop, refs)
		if err != nil {
			t.Fatal(err)
		}
		return set.Text("hunter-one hunter-two hunter-three")
	}
	if set, err := w.Redactor(t.Context(), shop, nil); set != nil || err != nil {
		t.Errorf("Redactor of nothing = %v, %v", set, err)
	}
	set := func(value string) func() { return func() { w.set(t, "key", value) } }
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"nothing", func() {}, "hunter-one hunter-two hunter-three"},
		{"one", set("hunter-one"), "[redacted] hunter-two hunter-three"},
		{"two", set("hunter-two"), "[redacted] [redacted] hunter-three"},
		{"three, which ends the first", set("hunter-three"), "[redacted] [redacted] [redacted]"},
		{"a version disabled", func() {
			if _, err := w.Disable(t.Context(), shop, "key", 2); err != nil {
				t.Fatal(err)
			}
		}, "[redacted] [redacted] [redacted]"},
		{"a version destroyed", func() {
			if _, err := w.Destroy(t.Context(), shop, "key", 1); err != nil {
				t.Fatal(err)
			}
		}, "hunter-one [redacted] [redacted]"},
	} {
		step.do()
		if got := text(); got != step.want {
			t.Errorf("after %s: %q, want %q", step.what, got, step.want)
		}
	}
}

// TestHidden: a value that was opened for a function is hidden from the log of the server until it is destroyed, in whatever version it is.
func TestHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(t, "key", "hunter-one")
	wants := func(when, want string) {
		t.Helper()
		if got := w.hidden.Cut("panic: hunter-one, hunter-two"); got != want {
			t.Errorf("%s: %q; want %q", when, got, want)
		}
	}
	wants("before anybody opened it", "panic: hunter-one, hunter-two")
	w.value(t, "key")
	wants("opened", "panic: [redacted], hunter-two")
	w.set(t, "key", "hunter-two")
	w.value(t, "key")
	wants("replaced", "panic: [redacted], [redacted]")
	if _, err := w.Destroy(t.Context(), shop, "key", 1); err != nil {
		t.Fatal(err)
	}
	wants("the first destroyed", "panic: hunter-one, [redacted]")
	if _, err := w.Destroy(t.Context(), shop, "key", 0); err != nil {
		t.Fatal(err)
	}
	wants("all destroyed", "panic: hunter-one, hunter-two")
}
