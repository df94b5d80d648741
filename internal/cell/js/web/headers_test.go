package web_test

import (
	"slices"
	"strings"
	"testing"

	"sallyport/internal/cell/js/web"
)

func TestParseHeaders(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		count      int
		want       []web.Header
		ok         bool
	}{
		{"none", "", 0, nil, true},
		{"one", "Content-Type\n text/plain\t\n", 1, []web.Header{{"content-type", "text/plain"}}, true},
		{"empty value", "a\n\n", 1, []web.Header{{"a", ""}}, true},
		{"sorted and combined", "b\n1\na\n2\nB\n3\n", 3, []web.Header{{"a", "2"}, {"b", "1, 3"}}, true},
		{"injected", "a\nb\nx-evil\n1\n", 1, nil, false},
		{"injected half", "a\nb\nc\n", 1, nil, false},
		{"unfinished", "a\n\nb", 1, nil, false},
		{"fewer than said", "a\nb\n", 2, nil, false},
		{"negative", "", -1, nil, false},
		{"carriage return", "a\nb\r\n", 1, nil, false},
		{"zero", "a\nb\x00\n", 1, nil, false},
		{"no name", "\nb\n", 1, nil, false},
		{"no token", "a b\nc\n", 1, nil, false},
		{"no token of ASCII", "ä\nc\n", 1, nil, false},
		{"too many", strings.Repeat("a\nb\n", 257), 257, nil, false},
		{"too long", "a\n" + strings.Repeat("b", 1<<20) + "\n", 1, nil, false},
		{"no Unicode", "a\n\xed\xa0\x80\n", 1, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := web.ParseHeaders(test.text, test.count)
			if ok != test.ok || !slices.Equal(got, test.want) {
				t.Errorf("ParseHeaders(%q, %d) = %v, %v; want %v, %v", test.text, test.count, got, ok, test.want, test.ok)
			}
		})
	}
}

// FuzzParseHeaders: what is read has as many lines as were announced, and can be read again.
func FuzzParseHeaders(f *testing.F) {
	f.Add("a\nb\n", 1)
	f.Add("b\n1\na\n2\nB\n3\n", 3)
	f.Add("a\nb\nx: y\n", 1)
	f.Add("A\n\nA\n\n0\n\n", 3)
	f.Fuzz(func(t *testing.T, text string, count int) {
		list, ok := web.ParseHeaders(text, count)
		if !ok {
			return
		}
		again := ""
		for _, h := range list {
			if strings.ContainsAny(h.Name, "\n\r\x00: ") || strings.ContainsAny(h.Value, "\n\r\x00") || h.Name != strings.ToLower(h.Name) {
				t.Fatalf("ParseHeaders(%q, %d) has %q: %q", text, count, h.Name, h.Value)
			}
			again += h.Name + "\n" + h.Value + "\n"
		}
		for i := range list {
			list[i].Value = strings.Trim(list[i].Value, " \t") // the end of joined values, of which the last is empty
		}
		if read, ok := web.ParseHeaders(again, len(list)); len(list) > count || !ok || !slices.Equal(read, list) {
			t.Fatalf("ParseHeaders(%q, %d) = %v, and of that %v, %v", text, count, list, read, ok)
		}
	})
}
