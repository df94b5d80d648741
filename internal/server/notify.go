package server

import (
	"context"
	"fmt"
	"net"
	"os"
)

// notifySystemd tells the service manager a state such as "READY=1", as sd_notify(3) does. Without
// NOTIFY_SOCKET (not started by systemd) it does nothing.
func notifySystemd(ctx context.Context, state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", path)
	if err != nil {
		return fmt.Errorf("reach the service manager: %w", err)
	}
	defer func() { _ = conn.Close() }() // a datagram socket: nothing is pending
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
