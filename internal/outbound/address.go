package outbound

import (
	"fmt"
	"net/netip"
)

// never are the addresses that no client reaches, beside link-local, multicast and unspecified ones: those
// that mean another address, metadata services outside the link-local range, and those that lead nowhere.
//
// Source: the IANA registries of special-purpose addresses (RFC 6890).
var never = prefixes(
	"0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128", // metadata services of clouds
	"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	"::/96", // IPv4 within IPv6, in the old way
)

// shared are private addresses that net/netip does not call so: those between a carrier and its customers.
var shared = prefixes("100.64.0.0/10")

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// check returns an error when a client may not dial address, an IP address with a port.
func check(address string, private bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q", ErrAddress, address)
	}
	if !Allowed(ap.Addr(), private) {
		return fmt.Errorf("%w: %s", ErrAddress, ap.Addr())
	}
	return nil
}

// Allowed reports whether a client may connect to ip; private says whether loopback and private addresses
// are among those that it may.
func Allowed(ip netip.Addr, private bool) bool {
	ip = ip.Unmap()
	if !ip.IsValid() || ip.Zone() != "" {
		return false
	}
	if ip.IsLoopback() {
		return private
	}
	if ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || within(ip, never) {
		return false
	}
	if ip.IsPrivate() || within(ip, shared) {
		return private
	}
	return ip.IsGlobalUnicast()
}

func within(ip netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}
