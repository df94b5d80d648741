package outbound

import (
	"fmt"
	"net/netip"
	"slices"
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
	if ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || within(ip, never) || isatap(ip) {
		return false
	}
	if ip.IsPrivate() || within(ip, shared) {
		return private
	}
	// Of IPv6, the rest of what is handed out; what will be one day is refused until then.
	return ip.Is4() || within(ip, global)
}

// global are the IPv6 addresses that are handed out to hosts of the Internet.
var global = prefixes("2000::/3")

// metadata are the addresses at which clouds give credentials away to whoever asks. A route reaches one only when it is
// named alone: one within a named range is refused.
var metadata = addresses(
	"169.254.169.254", "169.254.169.253", "169.254.170.2", "169.254.170.23", "169.254.0.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
	"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fe80::a9fe:a9fe",
)

func addresses(texts ...string) []netip.Addr {
	out := make([]netip.Addr, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParseAddr(text)
	}
	return out
}

// unreachable are addresses that no naming opens: they name no one host.
var unreachable = prefixes("0.0.0.0/8", "255.255.255.255/32")

// Reachable reports whether a route that names these addresses beside the public ones may connect to ip. An address that
// stands for another one (IPv4 within IPv6) is reachable when it is named and the other one is reachable too.
func Reachable(ip netip.Addr, named []netip.Prefix) bool {
	ip = ip.Unmap()
	switch {
	case !ip.IsValid() || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() || within(ip, unreachable):
		return false
	case slices.Contains(metadata, ip):
		return slices.Contains(named, netip.PrefixFrom(ip, ip.BitLen()))
	case Allowed(ip, false):
		return true
	case !within(ip, named):
		return false
	}
	inner, translated := embedded(ip)
	return !translated || Reachable(inner, named)
}

// embedded returns the IPv4 address that an IPv6 one leads to by translation (NAT64) or a tunnel (6to4, Teredo, ISATAP,
// IPv4-compatible).
func embedded(ip netip.Addr) (netip.Addr, bool) {
	if !ip.Is6() {
		return netip.Addr{}, false
	}
	b := ip.As16()
	last := [4]byte(b[12:])
	switch {
	case within(ip, tunnelled6to4):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case within(ip, tunnelledTeredo):
		for i := range last {
			last[i] ^= 0xff
		}
		return netip.AddrFrom4(last), true
	case within(ip, translatedLast) || isatap(ip):
		return netip.AddrFrom4(last), true
	}
	return netip.Addr{}, false
}

var (
	tunnelled6to4   = prefixes("2002::/16")
	tunnelledTeredo = prefixes("2001::/32")
	translatedLast  = prefixes("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")
)

// isatap reports whether the interface identifier of an IPv6 address is one of ISATAP (RFC 5214), which ends in an IPv4 address.
func isatap(ip netip.Addr) bool {
	if !ip.Is6() {
		return false
	}
	b := ip.As16()
	return b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

func within(ip netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// CheckLiteral returns why a host that is an address would not be connected to by a Route of cfg; of a name it says nothing.
func (c *RouteConfig) CheckLiteral(host string) error {
	ip, ok := literalAddress(host)
	if ok && !(&Route{cfg: *c}).reachable(ip) {
		return fmt.Errorf("%w: %s", ErrAddress, ip)
	}
	return nil
}
