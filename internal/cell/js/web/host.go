package web

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// maxDomain bounds, in bytes, a domain that is not plain ASCII. The longest that names a host has 253.
const maxDomain = 4 << 10

// forbiddenInHost are the characters no host may have; a domain may have no control and no percent sign
// either.
const forbiddenInHost = "\x00\t\n\r #/:<>?@[\\]^|"

// parseHost is the host parser of the URL Standard. It returns the host in ASCII.
func parseHost(text string, special bool) (host string, ok bool) {
	if strings.HasPrefix(text, "[") {
		return parseIPv6(text)
	}
	if !special {
		if strings.ContainsAny(text, forbiddenInHost) {
			return "", false
		}
		return encode(text, inNothing), true
	}
	domain, ok := toASCII(decode(text))
	if !ok || domain == "" || strings.ContainsFunc(domain, forbiddenInDomain) {
		return "", false
	}
	if endsInNumber(domain) {
		return parseIPv4(domain)
	}
	return domain, true
}

func forbiddenInDomain(r rune) bool {
	return r <= 0x1f || r >= 0x7f || r == '%' || strings.ContainsRune(forbiddenInHost, r)
}

// toASCII is "domain to ASCII", not strict.
func toASCII(domain string) (string, bool) {
	lower := strings.ToLower(domain)
	if isASCII(domain) && !strings.HasPrefix(lower, "xn--") && !strings.Contains(lower, ".xn--") {
		return lower, true
	}
	if len(domain) > maxDomain {
		return "", false
	}
	profile := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.CheckJoiners(true),
		idna.CheckHyphens(false), idna.StrictDomainName(false), idna.VerifyDNSLength(false))
	ascii, err := profile.ToASCII(domain)
	return ascii, err == nil
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// endsInNumber reports whether the last label is a number, so that the host has to be an IPv4 address.
func endsInNumber(domain string) bool {
	domain = strings.TrimSuffix(domain, ".")
	label := domain[strings.LastIndexByte(domain, '.')+1:]
	if label != "" && digits(label) == len(label) {
		return true
	}
	_, ok := parseIPv4Number(label)
	return ok
}

// parseIPv4 parses the parts of an address, of which the last fills all bytes that are left.
func parseIPv4(text string) (string, bool) {
	parts := strings.SplitN(strings.TrimSuffix(text, "."), ".", 5)
	if len(parts) > 4 {
		return "", false
	}
	var ip uint64
	for i, part := range parts {
		n, ok := parseIPv4Number(part)
		last := i == len(parts)-1
		if !ok || !last && n > 0xff || last && n >= 1<<(8*(4-i)) {
			return "", false
		}
		if last {
			ip |= n
		} else {
			ip |= n << (8 * (3 - i))
		}
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(ip))
	return netip.AddrFrom4(b).String(), true
}

// parseIPv4Number parses a decimal, octal (0…) or hexadecimal (0x…) number; "0x" is 0. One that is too
// large is the largest there is.
func parseIPv4Number(text string) (uint64, bool) {
	if text == "" {
		return 0, false
	}
	base := 10
	switch {
	case strings.HasPrefix(text, "0x"), strings.HasPrefix(text, "0X"):
		text, base = text[2:], 16
	case len(text) > 1 && text[0] == '0':
		text, base = text[1:], 8
	}
	if text == "" {
		return 0, true
	}
	for i := range len(text) {
		if _, err := strconv.ParseUint(text[i:i+1], base, 8); err != nil {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(text, base, 40)
	if err != nil {
		return 1<<40 - 1, true
	}
	return n, true
}

// parseIPv6 parses an address in brackets.
func parseIPv6(text string) (string, bool) {
	inner, closed := strings.CutSuffix(text[1:], "]")
	if !closed || strings.Contains(inner, "%") {
		return "", false
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || !ip.Is6() {
		return "", false
	}
	bytes := ip.As16()
	var pieces [8]uint16
	for i := range pieces {
		pieces[i] = binary.BigEndian.Uint16(bytes[2*i:])
	}
	return "[" + serialiseIPv6(pieces) + "]", true
}

// serialiseIPv6 leaves out the first of the longest runs of zeros that have at least two pieces.
func serialiseIPv6(pieces [8]uint16) string {
	from, to := -1, -1
	for i := 0; i < len(pieces); i++ {
		end := i
		for end < len(pieces) && pieces[end] == 0 {
			end++
		}
		if end-i >= 2 && end-i > to-from {
			from, to = i, end
		}
		i = max(i, end-1)
	}
	var b strings.Builder
	for i := 0; i < len(pieces); i++ {
		if i == from {
			b.WriteString("::")
			i = to - 1
			continue
		}
		if i > 0 && i != to {
			b.WriteByte(':')
		}
		b.WriteString(strconv.FormatUint(uint64(pieces[i]), 16))
	}
	return b.String()
}
