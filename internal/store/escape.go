package store

import (
	"fmt"
	"strings"
)

// escape returns s as one token of a NATS subject: bytes that could mean something there, or be
// changed on the way, become "=" and two hex digits.
func escape(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		if plain(s[i]) {
			b.WriteByte(s[i])
		} else {
			b.WriteByte('=')
			b.WriteByte(hexDigits[s[i]>>4])
			b.WriteByte(hexDigits[s[i]&0xf])
		}
	}
	return b.String()
}

const hexDigits = "0123456789abcdef"

// unescape returns what escape was given. It accepts nothing that escape does not return.
func unescape(token string) (string, error) {
	var b strings.Builder
	b.Grow(len(token))
	for i := 0; i < len(token); i++ {
		if plain(token[i]) {
			b.WriteByte(token[i])
			continue
		}
		if token[i] != '=' || i+2 >= len(token) {
			return "", fmt.Errorf("token %q is not escaped", token)
		}
		high, low := strings.IndexByte(hexDigits, token[i+1]), strings.IndexByte(hexDigits, token[i+2])
		c := byte(high<<4 | low)
		if high < 0 || low < 0 || plain(c) {
			return "", fmt.Errorf("token %q is not escaped", token)
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), nil
}
