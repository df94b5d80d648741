package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// window is a span of a day, on some days of the week, in UTC.
type window struct {
	days     [7]bool // by time.Weekday
	from, to int     // in minutes; to is not in it
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // by time.Weekday

const minutesOfDay = 24 * 60

var errWindow = errors.New(`want hours in UTC, such as "mon-fri 07:00-19:00", "sat 10:00-12:00" or "06:00-24:00"`)

// parseWindow parses "DAYS HH:MM-HH:MM", or without DAYS for every day.
func parseWindow(s string) (window, error) {
	w := window{days: [7]bool{true, true, true, true, true, true, true}}
	days, hours, found := strings.Cut(s, " ")
	if !found {
		hours = days
	} else {
		var err error
		if w.days, err = parseDays(days); err != nil {
			return window{}, err
		}
	}
	from, to, found := strings.Cut(hours, "-")
	var ok1, ok2 bool
	w.from, ok1 = parseClock(from)
	w.to, ok2 = parseClock(to)
	switch {
	case !found || !ok1 || !ok2:
		return window{}, errWindow
	case w.from >= w.to:
		return window{}, errors.New("the end is not after the beginning; make two of it when it goes over midnight")
	}
	return w, nil
}

// parseDays parses "mon-fri" or "sat"; a week may be gone around its end, as in "sat-mon".
func parseDays(s string) (days [7]bool, err error) {
	first, last, found := strings.Cut(s, "-")
	if !found {
		last = first
	}
	from, to := slices.Index(dayNames, first), slices.Index(dayNames, last)
	for _, name := range []string{first, last} {
		if !slices.Contains(dayNames, name) {
			return days, fmt.Errorf("there is no day %q; want mon, tue, wed, thu, fri, sat or sun", clip(name))
		}
	}
	for i := from; ; i = (i + 1) % 7 {
		days[i] = true
		if i == to {
			return days, nil
		}
	}
}

// parseClock parses "HH:MM", 00:00 to 24:00, as minutes.
func parseClock(s string) (minutes int, ok bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for _, i := range []int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	hours, rest := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	minutes = hours*60 + rest
	return minutes, rest < 60 && minutes <= minutesOfDay
}

func (w *window) contains(t time.Time) bool {
	t = t.UTC()
	minute := t.Hour()*60 + t.Minute()
	return w.days[t.Weekday()] && minute >= w.from && minute < w.to
}

// parseRange parses a range of addresses, or one address. An IPv4 address in IPv6 clothes is refused: requests have it
// without them.
func parseRange(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		ip, alone := netip.ParseAddr(s)
		if alone != nil || ip.Zone() != "" {
			return netip.Prefix{}, errors.New(`not a range of addresses; want one such as "192.0.2.0/24" or "2001:db8::/32"`)
		}
		p = netip.PrefixFrom(ip, ip.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("an IPv4 address in the form of IPv6; write it as %q", p.Addr().Unmap())
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("the address has bits beyond its first %d; did you mean %q?", p.Bits(), p.Masked())
	}
	return p, nil
}

// lacks appends what a request lacks to meet the level, as the keys of the level. With loose, the context is taken to
// be as it must.
func (l *level) lacks(q *Request, loose bool, list []string) []string {
	if !loose {
		list = l.lacksInContext(&q.Context, list)
	}
	claims := q.Principal.Claims
	if claims == nil {
		claims = &Claims{}
	}
	if len(l.info.Strength) > 0 && (claims.Strength == "" || !slices.Contains(l.info.Strength, claims.Strength)) {
		list = append(list, "strength")
	}
	for _, method := range l.info.Methods {
		if !slices.Contains(claims.Methods, method) {
			return append(list, "methods")
		}
	}
	return list
}

func (l *level) lacksInContext(c *Context, list []string) []string {
	if len(l.ip) > 0 {
		ip := c.IP.Unmap().WithZone("")
		if !ip.IsValid() || !slices.ContainsFunc(l.ip, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			list = append(list, "ip")
		}
	}
	if l.info.MutualTLS && c.Transport != TransportMutualTLS {
		list = append(list, "mtls")
	}
	if len(l.hours) > 0 {
		if c.Now.IsZero() || !slices.ContainsFunc(l.hours, func(w window) bool { return w.contains(c.Now) }) {
			list = append(list, "hours")
		}
	}
	return list
}
