package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/store"
)

// entries is a bucket in memory.
type entries map[string][]byte

func (e entries) Put(_ context.Context, key string, value []byte) error {
	e[key] = slices.Clone(value)
	return nil
}

func (e entries) Delete(_ context.Context, key string) error {
	delete(e, key)
	return nil
}

func (e entries) List(context.Context, string, string, int) ([]store.Entry, error) {
	var out []store.Entry
	for _, k := range slices.Sorted(maps.Keys(e)) {
		out = append(out, store.Entry{Key: k, Value: e[k]})
	}
	return out, nil
}

type who struct {
	Name string `json:"n"`
}

type howMany struct {
	Count int `json:"c"`
}

func openSums(t *testing.T, e entries, most int) *store.Sums[who, howMany] {
	t.Helper()
	cfg := store.SumsConfig[who]{
		What: "tests", Span: 24 * time.Hour, Every: time.Hour, Retention: 48 * time.Hour, MaxKeys: most, Other: who{"(other)"},
	}
	s, err := store.OpenSums[who, howMany](t.Context(), cfg, e, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// count returns how many keys there are, and the sum of all.
func count(s *store.Sums[who, howMany]) (keys, total int) {
	s.Each(time.Time{}, time.Time{}, func(_ time.Time, _ who, sum *howMany) {
		keys++
		total += sum.Count
	})
	return keys, total
}

// TestSums: what does not fit into one entry goes into several, is read back from them, and they are removed with the
// span; what is beyond the bound is counted together.
func TestSums(t *testing.T) {
	t.Parallel()
	e, now := entries{}, time.Now()
	s := openSums(t, e, 40)
	for n := range 60 {
		name := who{fmt.Sprint(n, strings.Repeat("x", 100_000))}
		for range 2 {
			s.Add(name, now, func(sum *howMany) { sum.Count++ })
		}
	}
	s.Add(who{"old"}, now.Add(-72*time.Hour), func(sum *howMany) { sum.Count++ })
	if err := s.Store(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(e) < 4 {
		t.Errorf("%d entries, want several", len(e))
	}
	for name, s := range map[string]*store.Sums[who, howMany]{"as it was counted": s, "as it was read back": openSums(t, e, 40)} {
		if keys, total := count(s); keys != 41 || total != 120 {
			t.Errorf("%s: %d keys and %d in all, want 41 and 120", name, keys, total)
		}
	}
	for key := range e {
		if !strings.HasPrefix(key, now.UTC().Format("2006-01-02")+"T00") {
			t.Errorf("the entry %s is left of what is too old", key)
		}
	}
	for _, bad := range []string{"today", "2026-11-28T00.x"} {
		cfg := store.SumsConfig[who]{What: "tests", Span: time.Hour, Every: time.Hour}
		if _, err := store.OpenSums[who, howMany](t.Context(), cfg, entries{bad: []byte("[]")}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("Open with the key %q = nil", bad)
		}
	}
}
