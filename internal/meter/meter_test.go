package meter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/meter"
	"sallyport/internal/store"
)

// memory is a Bucket that can be made to fail.
type memory struct {
	mu      sync.Mutex
	entries map[string][]byte
	fail    error
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.entries[key] = slices.Clone(value)
	return nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, key)
	return m.fail
}

func (m *memory) List(context.Context, string, string, int) ([]store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.Entry
	for k, v := range m.entries {
		out = append(out, store.Entry{Key: k, Value: v})
	}
	return out, m.fail
}

func open(t testing.TB, b *memory) *meter.Meter {
	t.Helper()
	m, err := meter.Open(t.Context(), b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func key(function string, revision int, principal string) meter.Key {
	return meter.Key{Function: ident.FunctionName(function), Revision: revision, Principal: ident.PrincipalID(principal)}
}

// now is in the hour that the tests are in, and noon three hours before.
var now = time.Now().UTC().Truncate(time.Hour).Add(30 * time.Minute)

func fill(m *meter.Meter) {
	one := meter.Invocation{Wall: 100 * time.Millisecond, CPU: 40 * time.Millisecond, MemoryPeak: 1e9, BytesIn: 10, BytesOut: 20}
	cold, failed, dead := one, one, one
	cold.Cold, failed.Outcome, dead.Outcome = true, meter.Failed, meter.Dead
	dead.MemoryPeak, dead.CPU = 2e9, time.Second
	m.Record(key("price", 1, "token:a"), now.Add(-3*time.Hour), cold)
	m.Record(key("price", 2, "token:a"), now, one)
	m.Record(key("price", 2, "token:b"), now, failed)
	m.Record(key("send", 2, "token:b"), now, dead)
}

// words shows a statement.
func words(m *meter.Meter, q meter.Query) []string {
	lines, total := m.Usage(q)
	show := func(l meter.Line) string {
		return fmt.Sprintf("%s/%d/%s: %d done %d failed %d dead %d cold, %dms, %dms, %.1f GBs, %g bytes, %d in, %d out", l.Function, l.Revision, l.Principal,
			l.Done, l.Failed, l.Dead, l.Cold, l.Wall/1e6, l.CPU/1e6, l.GBSeconds, float64(l.PeakMax), l.BytesIn, l.BytesOut)
	}
	var out []string
	for _, l := range lines {
		out = append(out, show(l))
	}
	return append(out, "total"+show(meter.Line{Counter: total}))
}

func TestUsage(t *testing.T) {
	t.Parallel()
	const (
		price = "price/0/: 2 done 1 failed 0 dead 1 cold, 300ms, 120ms, 0.3 GBs, 1e+09 bytes, 30 in, 60 out"
		send  = "send/0/: 0 done 0 failed 1 dead 0 cold, 100ms, 1000ms, 0.2 GBs, 2e+09 bytes, 10 in, 20 out"
		all   = "/0/: 2 done 1 failed 1 dead 1 cold, 400ms, 1120ms, 0.5 GBs, 2e+09 bytes, 40 in, 80 out"
	)
	day := now.Add(-24 * time.Hour)
	b := &memory{entries: map[string][]byte{}}
	m := open(t, b)
	fill(m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*meter.Meter{"as counted": m, "after a restart": open(t, b)} {
		for _, tt := range []struct {
			name string
			q    meter.Query
			want []string
		}{
			{"by function", meter.Query{Since: day, By: meter.By{Function: true}}, []string{send, price, "total" + all}},
			{"together", meter.Query{Since: day}, []string{all, "total" + all}},
			{"one function", meter.Query{Since: day, Function: "send"}, []string{strings.TrimPrefix(send, "send"), "total" + strings.TrimPrefix(send, "send")}},
			{"this hour", meter.Query{Since: now, Function: "price", By: meter.By{Function: true, Revision: true}}, []string{
				"price/2/: 1 done 1 failed 0 dead 0 cold, 200ms, 80ms, 0.2 GBs, 1e+09 bytes, 20 in, 40 out",
				"total/0/: 1 done 1 failed 0 dead 0 cold, 200ms, 80ms, 0.2 GBs, 1e+09 bytes, 20 in, 40 out"}},
			{"before this hour", meter.Query{Since: day, Until: now.Truncate(time.Hour), By: meter.By{Principal: true}}, []string{
				"/0/token:a: 1 done 0 failed 0 dead 1 cold, 100ms, 40ms, 0.1 GBs, 1e+09 bytes, 10 in, 20 out",
				"total/0/: 1 done 0 failed 0 dead 1 cold, 100ms, 40ms, 0.1 GBs, 1e+09 bytes, 10 in, 20 out"}},
			{"never", meter.Query{Since: now.Add(time.Hour)}, []string{"total/0/: 0 done 0 failed 0 dead 0 cold, 0ms, 0ms, 0.0 GBs, 0 bytes, 0 in, 0 out"}},
		} {
			if diff := cmp.Diff(tt.want, words(m, tt.q)); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, tt.name, diff)
			}
		}
	}
}

// TestBounded: names that somebody makes up take no room for ever, and nothing is lost from the sums.
func TestBounded(t *testing.T) {
	t.Parallel()
	m := open(t, &memory{entries: map[string][]byte{}})
	const names = 12_000
	for i := range names {
		m.Record(key("f", i, "token:t"), now, meter.Invocation{BytesIn: 1})
	}
	lines, total := m.Usage(meter.Query{Since: now, By: meter.By{Function: true, Revision: true, Principal: true}})
	if len(lines) > 10_001 || total.Invocations() != names || total.BytesIn != names {
		t.Errorf("%d lines, %d invocations of %d bytes; want at most 10,001, and %d of each", len(lines), total.Invocations(), total.BytesIn, names)
	}
	if !slices.ContainsFunc(lines, func(l meter.Line) bool { return l.Function == meter.Other && l.Invocations() == names-10_000 }) {
		t.Error("no line has those that had no room")
	}
}

// TestStore: an hour that could not be stored is stored later, and one that is too old is removed.
func TestStore(t *testing.T) {
	t.Parallel()
	b := &memory{entries: map[string][]byte{}, fail: errors.New("the disk is gone")}
	if _, err := meter.Open(t.Context(), b, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("Open without a store = nil")
	}
	b.fail = nil
	m := open(t, b)
	m.Record(key("f", 1, "p"), now, meter.Invocation{})
	m.Record(key("f", 1, "p"), now.Add(-meter.Retention-2*time.Hour), meter.Invocation{})
	b.fail = errors.New("the disk is gone")
	if err := m.Store(t.Context()); err == nil {
		t.Error("Store without a store = nil")
	}
	b.fail = nil
	if err := m.Store(t.Context()); err != nil || len(b.entries) != 1 {
		t.Errorf("Store = %v, %d hours are stored; want 1", err, len(b.entries))
	}
	for _, text := range []string{"{", `[{"d":"x"}]`} {
		if _, err := meter.Open(t.Context(), &memory{entries: map[string][]byte{"2026-11-28T06": []byte(text)}}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("Open of %s = nil", text)
		}
	}
	if _, err := meter.Open(t.Context(), &memory{entries: map[string][]byte{"today": []byte("[]")}}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("Open of a key that is no hour = nil")
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	m := open(t, &memory{entries: map[string][]byte{}})
	for range 90 {
		m.Record(key("f", 1, "p"), now, meter.Invocation{Wall: 100 * time.Microsecond})
	}
	for range 10 {
		m.Record(key("f", 1, "p"), now, meter.Invocation{Wall: time.Second})
	}
	m.Record(key("f", 1, "p"), now, meter.Invocation{Wall: -1})
	_, c := m.Usage(meter.Query{Since: now})
	for part, real := range map[float64]time.Duration{0.5: 100 * time.Microsecond, 0.89: 100 * time.Microsecond, 0.95: time.Second, 0.99: time.Second} {
		if got := c.Quantile(part); got < real || got > 2*real+real/2 {
			t.Errorf("Quantile(%g) = %s; want %s to twice that", part, got, real)
		}
	}
	long := meter.Counter{Done: 1}
	long.Durations[len(long.Durations)-1] = 1
	if got := long.Quantile(1); got < time.Hour/2 {
		t.Errorf("Quantile of the longest = %s", got)
	}
	if got := (&meter.Counter{}).Quantile(0.5); got != 0 {
		t.Errorf("Quantile of nothing = %s; want 0", got)
	}
	if math.IsNaN(c.GBSeconds) {
		t.Error("GBSeconds is no number")
	}
}

func TestParseBy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]meter.By{
		"function": {Function: true}, "revision": {Function: true, Revision: true},
		"principal,function": {Function: true, Principal: true},
	} {
		if got, err := meter.ParseBy(text); err != nil || got != want {
			t.Errorf("ParseBy(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "day", "function,", strings.Repeat("x", 100)} {
		if _, err := meter.ParseBy(text); err == nil || len(err.Error()) > 100 {
			t.Errorf("ParseBy(%.20q) = %v; want a short error", text, err)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	m := open(b, &memory{entries: map[string][]byte{}})
	k, inv := key("price", 1, "token:t"), meter.Invocation{Wall: time.Millisecond, MemoryPeak: 1 << 20}
	b.ReportAllocs()
	for b.Loop() {
		m.Record(k, now, inv)
	}
}
