package ident

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Limits of a host's name, in bytes, of RFC 1035.
const (
	maxHost  = 253
	maxLabel = 63
)

// ParseHost parses a host as it stands in a URL: a name, or an IP address in its usual spelling, IPv6 within brackets, which
// are not in what it returns. Other spellings of addresses (octal, hexadecimal, one number, fewer parts) are refused: they
// are there to be read differently by others.
func ParseHost(host string) (string, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if !ok || err != nil || !a.Is6() || a.Zone() != "" || a.String() != inner {
			return "", fmt.Errorf("%q is no IPv6 address in its shortest form", host)
		}
		if a.Is4In6() {
			return "", fmt.Errorf("%q is an IPv4 address; write %s", host, a.Unmap())
		}
		return inner, nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() && a.String() == host {
		return host, nil
	}
	if host == "" || len(host) > maxHost {
		return "", errors.New("the host is missing, or is too long")
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		bad := strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
		})
		if bad || label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("%q is no host; want a name in lower case, with no value in it and no dot at its end (other scripts as xn--…), or an IP address", host)
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return "", fmt.Errorf("%q is neither a name nor an IP address in its usual form", host)
	}
	return host, nil
}
