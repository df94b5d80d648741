package redact_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sallyport/internal/redact"
)

func TestLive(t *testing.T) {
	t.Parallel()
	var nothing *redact.Live
	nothing.Put("a", []byte("value-of-nothing"))
	nothing.Drop("a")
	if got := nothing.Cut("value-of-nothing"); got != "value-of-nothing" {
		t.Errorf("nil: %q", got)
	}
	var l redact.Live
	wants := func(text, want string) {
		t.Helper()
		if got := l.Cut(text); got != want {
			t.Errorf("Cut(%q) = %q; want %q", text, got, want)
		}
	}
	wants("first-value second-value", "first-value second-value")
	l.Put("a", []byte("first-value"))
	wants("first-value second-value", "[redacted] second-value")
	wants("ends with first-va", "ends with [redacted]")
	l.Put("b", []byte("second-value"))
	wants("first-value second-value", "[redacted] [redacted]")
	l.Put("a", []byte("third-value"))
	wants("first-value third-value", "first-value [redacted]")
	l.Drop("a")
	wants("second-value third-value", "[redacted] third-value")
	if s := fmt.Sprintf("%v %#v %s", &l, &l, &l); strings.Contains(s, "second-value") {
		t.Errorf("it prints its values: %s", s)
	}
	// What came first goes when there is too much, but not what came last.
	l.SetMost(100)
	l.Put("c", bytes.Repeat([]byte("c"), 100))
	wants("second-value "+strings.Repeat("c", 100), "second-value [redacted]")
}

// TestLiveRace: values come and go while texts are read; one that stays is found in every text.
func TestLiveRace(t *testing.T) {
	t.Parallel()
	var l redact.Live
	l.Put("stays", []byte("the-value-that-stays"))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 50 {
				key := fmt.Sprint(i, n%3)
				l.Put(key, fmt.Appendf(nil, "a-value-%d-%d", i, n))
				if got := l.Cut("the-value-that-stays"); got != redact.Mask {
					t.Errorf("Cut() = %q", got)
				}
				l.Drop(key)
			}
		})
	}
	wg.Wait()
}
