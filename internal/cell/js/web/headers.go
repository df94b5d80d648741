package web

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of what ParseHeaders reads: more than a grant lets a function send.
const (
	maxHeaders     = 256
	maxHeaderBytes = 1 << 20
)

// Header is the name of a header in lower case, and its value.
type Header struct{ Name, Value string }

// HeaderName returns the name of a header in lower case. It reports false for what is no name, and for a value that no header has.
func HeaderName(name, value string) (string, bool) {
	if name == "" || strings.ContainsFunc(name, notToken) || strings.ContainsAny(value, "\x00\r\n") {
		return "", false
	}
	return strings.ToLower(name), true
}

func notToken(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// ParseHeaders reads count headers: of each its name and its value, and a line feed after both. It reports false when one of them is none: what has a
// line feed in itself makes more lines than there should be. It reports false too when there are more than maxHeaders, or they are long. The result is sorted, and has what is set several times once.
func ParseHeaders(text string, count int) ([]Header, bool) {
	if count < 0 || count > maxHeaders || len(text) > maxHeaderBytes || strings.Count(text, "\n") != 2*count || text != "" && !strings.HasSuffix(text, "\n") || !utf8.ValidString(text) {
		return nil, false
	}
	list := make([]Header, 0, count)
	for text != "" {
		name, rest, _ := strings.Cut(text, "\n")
		value, rest, _ := strings.Cut(rest, "\n")
		text = rest
		name, ok := HeaderName(name, value)
		if !ok {
			return nil, false
		}
		list = append(list, Header{name, strings.Trim(value, " \t")})
	}
	return combined(list), true
}

// combined sorts headers by their names, and joins the values of those that have the same.
func combined(list []Header) []Header {
	slices.SortStableFunc(list, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	out := list[:0]
	for i := 0; i < len(list); {
		j := i + 1
		for j < len(list) && list[j].Name == list[i].Name {
			j++
		}
		h := list[i]
		if j > i+1 {
			values := make([]string, 0, j-i)
			for _, same := range list[i:j] {
				values = append(values, same.Value)
			}
			h.Value = strings.Join(values, ", ")
		}
		out = append(out, h)
		i = j
	}
	return out
}
