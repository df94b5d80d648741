package store_test

import (
	"strings"
	"testing"

	"sallyport/internal/store"
)

func FuzzEscape(f *testing.F) {
	for _, seed := range []string{"", "a", "a.b", "*", ">", " ", "=", "=41", "é", "\x00\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token := store.Escape(s)
		if strings.ContainsAny(token, ".*> \t\r\n$") {
			t.Errorf("Escape(%q) = %q is not one token", s, token)
		}
		if back, err := store.Unescape(token); err != nil || back != s {
			t.Errorf("Unescape(%q) = %q, %v; want %q", token, back, err, s)
		}
		if key, err := store.Unescape(s); err == nil && store.Escape(key) != s {
			t.Errorf("Unescape accepts %q, which Escape does not return", s)
		}
	})
}
