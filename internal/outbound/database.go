package outbound

import (
	"context"
	"net"
	"syscall"
)

// DialFunc opens a connection to an address, a host and a port.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer returns what opens TCP connections for protocols that bring their own security, such as that of databases. The address
// that is dialled is checked as for every client; private allows loopback and private addresses.
func Dialer(private bool) DialFunc {
	dialer := &net.Dialer{Timeout: connectTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		return check(address, private)
	}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		switch network {
		case "tcp", "tcp4", "tcp6":
			return dialer.DialContext(ctx, network, address)
		}
		return nil, net.UnknownNetworkError(network)
	}
}
