package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// maxAddresses is how many addresses of a name are tried; a name may have any number of them.
const maxAddresses = 8

// pin remembers what names meant, so that they mean the same until a call is over.
type pin struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
}

type pinKey struct{}

// WithPin returns a context in which a name that was resolved once keeps its addresses: between two exchanges of one
// call, such as a redirect, it cannot come to mean something else.
func WithPin(ctx context.Context) context.Context {
	return context.WithValue(ctx, pinKey{}, &pin{})
}

// dial opens a connection to a target, host:port, for the transport.
func (r *Route) dial(ctx context.Context, _, target string) (net.Conn, error) {
	// The transport lets a connection become ready for the next request when the first one gave up on it.
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	host, portText, err := net.SplitHostPort(target)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%w: port %q", ErrAddress, portText)
	}
	conn, err := r.connect(ctx, host, uint16(port))
	if err != nil {
		return nil, err
	}
	return r.hold(conn)
}

func (r *Route) connect(ctx context.Context, host string, port uint16) (net.Conn, error) {
	// With a proxy that resolves, a literal address is checked all the same.
	_, literal := literalAddress(host)
	if p := r.cfg.Proxy; p != nil && p.Resolves && !literal {
		return r.throughProxy(ctx, net.JoinHostPort(host, strconv.Itoa(int(port))))
	}
	addrs, err := r.resolve(ctx, host, r.reachable)
	if err != nil {
		return nil, err
	}
	return r.first(ctx, addrs, func(ctx context.Context, a netip.Addr) (net.Conn, error) {
		target := netip.AddrPortFrom(a, port)
		if r.cfg.Proxy != nil {
			return r.throughProxy(ctx, target.String())
		}
		return dialAddress(ctx, target, r.reachable)
	})
}

// reachable reports whether this route may connect to ip.
func (r *Route) reachable(ip netip.Addr) bool {
	if r.cfg.Plain && Allowed(ip, false) {
		return false
	}
	return Reachable(ip, r.cfg.Named)
}

// reachableProxy is reachable for the proxy itself, which may be without TLS: what goes through it has its own.
func (r *Route) reachableProxy(ip netip.Addr) bool { return Reachable(ip, r.cfg.Named) }

// first tries addresses one after the other, and gives each a share of the time.
func (r *Route) first(ctx context.Context, addrs []netip.Addr, dial func(context.Context, netip.Addr) (net.Conn, error)) (net.Conn, error) {
	var first error
	for i, a := range addrs {
		deadline, ok := ctx.Deadline()
		if !ok {
			deadline = time.Now().Add(connectTimeout)
		}
		share := time.Until(deadline) / time.Duration(len(addrs)-i)
		one, cancel := context.WithTimeout(ctx, share)
		conn, err := dial(one, a)
		cancel()
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// dialAddress opens a connection to an address. It is checked again in the very call that connects.
func dialAddress(ctx context.Context, target netip.AddrPort, may func(netip.Addr) bool) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !may(ap.Addr()) {
			return fmt.Errorf("%w: %s", ErrAddress, address)
		}
		return nil
	}}
	conn, err := dialer.DialContext(ctx, "tcp", target.String())
	if err != nil && !errors.Is(err, ErrAddress) {
		err = fmt.Errorf("%w: %w", ErrConnect, err)
	}
	return conn, err
}

// literalAddress returns the address that a host is, when it is one and not a name.
func literalAddress(host string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(host)
	return a, err == nil
}

// resolve returns the addresses of a host that may be reached. When it has some, and none may be, the error is
// ErrAddress: such an answer is no accident, and the caller should learn why.
func (r *Route) resolve(ctx context.Context, host string, may func(netip.Addr) bool) ([]netip.Addr, error) {
	if a, ok := literalAddress(host); ok {
		if !may(a) {
			return nil, fmt.Errorf("%w: %s", ErrAddress, a)
		}
		return []netip.Addr{a}, nil
	}
	found, err := r.lookUp(ctx, host)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); may(a) && len(out) < maxAddresses {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %s means %s", ErrAddress, host, found[0])
	}
	return out, nil
}

// lookUp asks the resolver, or what the call has pinned.
func (r *Route) lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	p, _ := ctx.Value(pinKey{}).(*pin)
	if p != nil {
		p.mu.Lock()
		found := p.names[host]
		p.mu.Unlock()
		if found != nil {
			return found, nil
		}
	}
	found, err := r.cfg.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrName, host, err)
	}
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if first := p.names[host]; first != nil {
			return first, nil
		}
		if p.names == nil {
			p.names = map[string][]netip.Addr{}
		}
		p.names[host] = found
	}
	return found, nil
}

// throughProxy opens a tunnel to a target through the proxy.
func (r *Route) throughProxy(ctx context.Context, target string) (net.Conn, error) {
	conn, err := r.dialProxy(ctx, r.cfg.Proxy.URL)
	if err != nil {
		return nil, err
	}
	// A proxy that says nothing is not waited for longer than for a server.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	tunnel, err := connectThrough(conn, target)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return tunnel, nil
}

func (r *Route) dialProxy(ctx context.Context, proxy *url.URL) (net.Conn, error) {
	port, err := strconv.ParseUint(portOf(proxy), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%w: port of the proxy", ErrAddress)
	}
	addrs, err := r.resolve(ctx, proxy.Hostname(), r.reachableProxy)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	conn, err := r.first(ctx, addrs, func(ctx context.Context, a netip.Addr) (net.Conn, error) {
		return dialAddress(ctx, netip.AddrPortFrom(a, uint16(port)), r.reachableProxy)
	})
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if proxy.Scheme != "https" {
		return conn, nil
	}
	secure := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: r.cfg.RootCAs, ServerName: proxy.Hostname()})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("proxy: %w: %w", ErrCertificate, err), conn.Close())
	}
	return secure, nil
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// connectThrough asks a proxy for a tunnel. What the proxy sends behind its answer is the target's already.
func connectThrough(conn net.Conn, target string) (net.Conn, error) {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sallyport\r\n\r\n", target, target); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProxy, err)
	}
	in := bufio.NewReader(&headReader{conn: conn, left: maxRouteHeader})
	resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProxy, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s", ErrProxy, strconv.Itoa(resp.StatusCode))
	}
	if in.Buffered() == 0 {
		return conn, nil
	}
	rest, err := in.Peek(in.Buffered())
	return &tunnel{Conn: conn, rest: rest}, err
}

// headReader bounds what is read until the head of an answer ends.
type headReader struct {
	conn net.Conn
	left int
}

func (h *headReader) Read(p []byte) (int, error) {
	if h.left <= 0 {
		return 0, ErrTooLarge
	}
	n, err := h.conn.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err
}

// tunnel is a connection of which some bytes were read already.
type tunnel struct {
	net.Conn
	rest []byte
}

func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.rest) > 0 {
		n := copy(p, t.rest)
		t.rest = t.rest[n:]
		return n, nil
	}
	return t.Conn.Read(p)
}
