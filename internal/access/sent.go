package access

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/policy"
)

// What goes with an event of the request that it came by is a note behind the name of what is kept of its sender:
//
//	[NAME];TRANSPORT MILLISECONDS[;ADDRESS]
//
// without the space: the transport is one letter, and the time since 1970 in base 36. An event that was accepted before there were
// notes has the name alone. The address is personal data. It is nowhere but in the event, sealed with it and erased with it: so it
// is not kept with the sender, whose record outlives the event.
const (
	sentSeparator = ";"
	sentBase      = 36
	// maxSentBytes bounds a note: a letter, 13 digits, an address of IPv6 and the separators take less.
	maxSentBytes = 80
)

// noteOf returns the note about the request that ctx is of.
func noteOf(ctx context.Context) string {
	c := contextOf(ctx)
	room := make([]byte, 0, maxSentBytes)
	room = append(room, sentSeparator[0], sentLetter(c.Transport))
	room = strconv.AppendInt(room, c.Now.UnixMilli(), sentBase)
	if ip := c.IP.Unmap().WithZone(""); ip.IsValid() {
		room = append(room, sentSeparator[0])
		room = ip.AppendTo(room)
	}
	return string(room)
}

func sentLetter(t policy.Transport) byte {
	switch t {
	case policy.TransportTLS:
		return 't'
	case policy.TransportMutualTLS:
		return 'm'
	case policy.TransportInternal:
		return 'i'
	case policy.TransportUnknown, policy.TransportPlaintext, policy.TransportUnkept:
	}
	return '?' // it reads as nothing known
}

// parseAuthority returns the name of what is kept of a sender, "" when its id says all, and how its event came. known is false
// when nobody knows that: of an older event, or of a note that is malformed.
func parseAuthority(authority string) (name string, sent policy.Sent, known bool) {
	name, note, found := strings.Cut(authority, sentSeparator)
	if found && len(note) <= maxSentBytes {
		if sent, ok := parseNote(note); ok {
			return name, sent, true
		}
	}
	return name, policy.Sent{Transport: policy.TransportUnkept}, false
}

func parseNote(note string) (sent policy.Sent, ok bool) {
	head, address, hasAddress := strings.Cut(note, sentSeparator)
	if head == "" {
		return sent, false
	}
	switch head[0] {
	case 't':
		sent.Transport = policy.TransportTLS
	case 'm':
		sent.Transport = policy.TransportMutualTLS
	case 'i':
		sent.Transport = policy.TransportInternal
	default:
		return sent, false
	}
	at, err := strconv.ParseInt(head[1:], sentBase, 64)
	if err != nil {
		return sent, false
	}
	sent.Now = time.UnixMilli(at)
	if !hasAddress {
		return sent, true
	}
	sent.IP, err = netip.ParseAddr(address)
	return sent, err == nil && sent.IP.Zone() == ""
}
