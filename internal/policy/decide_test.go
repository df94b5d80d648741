package policy_test

import (
	"net/netip"
	"time"
)

// noon is when the requests of the tests are made.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }
