package outbound

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Limits of a route.
const (
	// maxRouteHeader bounds the headers of an answer, in bytes.
	maxRouteHeader = 32 << 10
	// maxRouteIdle is how many connections are kept for the next request.
	maxRouteIdle = 64
	// routeIdleTimeout is how long one is kept.
	routeIdleTimeout = 60 * time.Second
)

// Errors of a route that callers tell apart, beside ErrAddress, ErrTooLarge and those of the context.
var (
	// ErrName is wrapped by the error of a name that has no address.
	ErrName = errors.New("the name cannot be resolved")
	// ErrConnect is wrapped by the error of a connection that was not made.
	ErrConnect = errors.New("cannot connect")
	// ErrCertificate is wrapped by the error of a TLS handshake that failed.
	ErrCertificate = errors.New("no trusted TLS connection")
	// ErrProxy is wrapped by the error of a proxy that did not let us through.
	ErrProxy = errors.New("the proxy refused")
	// ErrEncoding is wrapped by the error of an answer in an encoding that nobody asked for.
	ErrEncoding = errors.New("unknown content encoding")
	// ErrBroken is wrapped by the error of an answer that is no HTTP, or ends too early.
	ErrBroken = errors.New("broken answer")
	// ErrClosed is wrapped by the error of a route that was closed.
	ErrClosed = errors.New("the route is closed")
)

// Resolver finds the addresses of a name; net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// RouteConfig says how the requests to one target go out.
type RouteConfig struct {
	// RootCAs are the CAs that servers must have their certificate from; nil are the system's.
	RootCAs *x509.CertPool
	// Certificate, when set, is the certificate that this side shows.
	Certificate *tls.Certificate
	// Named are the addresses beside public ones that may be reached.
	Named []netip.Prefix
	// Plain allows requests without TLS; they reach named addresses only, and no public one.
	Plain bool
	// MaxBytes bounds the body of an answer, as it comes and after it was decompressed.
	MaxBytes int64
	// Proxy, when set, is what connections go through; nothing of the environment is used.
	Proxy *Proxy
	// Resolver is used for names; nil is the one of this machine.
	Resolver Resolver
}

// Proxy is an HTTP proxy that connections go through, by the method CONNECT. The proxy's own address is checked like
// any other. The target's name is resolved and checked here, and the proxy gets the address.
type Proxy struct {
	// URL is http://host:port or https://host:port.
	URL *url.URL
	// Resolves has the proxy resolve names instead. Then no address of a name is checked here: where the name leads is
	// the proxy's word.
	Resolves bool
}

// Validate reports every fault of c.
func (c *RouteConfig) Validate() error {
	var errs []error
	if c.MaxBytes <= 0 {
		errs = append(errs, errors.New("max bytes must be positive"))
	}
	if p := c.Proxy; p != nil && (p.URL == nil || p.URL.Scheme != "http" && p.URL.Scheme != "https" || p.URL.Hostname() == "" || p.URL.User != nil) {
		errs = append(errs, errors.New("the proxy must be http://host:port or https://host:port"))
	}
	return errors.Join(errs...)
}

// Route exchanges requests for bounded answers, and keeps connections for the next ones. It is safe for concurrent use.
type Route struct {
	cfg       RouteConfig
	transport *http.Transport

	mu     sync.Mutex
	closed bool
	conns  map[*routeConn]struct{}
}

// NewRoute returns a route. Close must be called when it is no longer needed.
func NewRoute(cfg RouteConfig) (*Route, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure route: %w", err)
	}
	if cfg.Resolver == nil {
		// The resolver of the C library cannot be interrupted; a name server that is slow would hold threads.
		cfg.Resolver = &net.Resolver{PreferGo: true}
	}
	r := &Route{cfg: cfg, conns: map[*routeConn]struct{}{}}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs}
	if cfg.Certificate != nil {
		tlsConfig.Certificates = []tls.Certificate{*cfg.Certificate}
	}
	r.transport = &http.Transport{
		DialContext: r.dial, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: connectTimeout,
		MaxResponseHeaderBytes: maxRouteHeader, MaxIdleConns: maxRouteIdle, MaxIdleConnsPerHost: maxRouteIdle, IdleConnTimeout: routeIdleTimeout,
		DisableCompression: true,
	}
	return r, nil
}

// Close closes all connections, those in use too; exchanges that run fail. It is idempotent.
func (r *Route) Close() {
	r.mu.Lock()
	r.closed = true
	open := make([]*routeConn, 0, len(r.conns))
	for c := range r.conns {
		open = append(open, c)
	}
	r.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	r.transport.CloseIdleConnections()
}

// Open returns how many connections are open.
func (r *Route) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// routeConn is a connection that the route knows of until it is closed.
type routeConn struct {
	net.Conn
	route *Route
}

func (c *routeConn) Close() error {
	c.route.mu.Lock()
	delete(c.route.conns, c)
	c.route.mu.Unlock()
	return c.Conn.Close()
}

// hold makes a connection one that Close closes.
func (r *Route) hold(c net.Conn) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.Join(ErrClosed, c.Close())
	}
	held := &routeConn{Conn: c, route: r}
	r.conns[held] = struct{}{}
	return held, nil
}

// Exchange sends a request and returns the answer, whole, with its body decompressed. It follows no redirect. The
// context MUST have a deadline: it is what ends an exchange with a server that is slow, silent or endless. The URL of
// the request is the caller's: what is checked here is where it leads.
func (r *Route) Exchange(req *http.Request) (*Answer, error) {
	if _, ok := req.Context().Deadline(); !ok {
		return nil, errors.New("exchange without a deadline")
	}
	if s := req.URL.Scheme; s != "https" && (s != "http" || !r.cfg.Plain) {
		return nil, fmt.Errorf("%w: scheme %q", ErrAddress, s)
	}
	if r.isClosed() {
		return nil, ErrClosed
	}
	// Go's transport adds a header of its own otherwise.
	if req.Header["User-Agent"] == nil {
		req.Header["User-Agent"] = userAgent
	}
	if req.Header["Accept-Encoding"] == nil {
		req.Header["Accept-Encoding"] = acceptEncoding
	}
	resp, err := r.transport.RoundTrip(req)
	if err != nil {
		return nil, classify(req.Context(), err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, errors.Join(fmt.Errorf("%w: it switches protocols", ErrBroken), resp.Body.Close())
	}
	body, err := r.read(resp)
	// Closing before the end of a body closes the connection: what is left on it belongs to nobody.
	_ = resp.Body.Close()
	if err != nil {
		return nil, classify(req.Context(), err)
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

var userAgent, acceptEncoding = []string{"sallyport"}, []string{"gzip"}

func (r *Route) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// read returns the body of an answer: within its bound as it comes, and within it when decompressed.
func (r *Route) read(resp *http.Response) ([]byte, error) {
	if resp.Request.Method == http.MethodHead {
		return nil, nil // its length is that of another answer
	}
	if resp.ContentLength > r.cfg.MaxBytes {
		return nil, ErrTooLarge
	}
	encodings := resp.Header["Content-Encoding"]
	if len(encodings) == 0 || len(encodings) == 1 && strings.EqualFold(encodings[0], "identity") {
		return bounded(resp.Body, resp.ContentLength, r.cfg.MaxBytes)
	}
	packed, err := bounded(resp.Body, resp.ContentLength, r.cfg.MaxBytes)
	if err != nil || len(packed) == 0 {
		return nil, err
	}
	if len(encodings) > 1 || !strings.EqualFold(encodings[0], "gzip") && !strings.EqualFold(encodings[0], "x-gzip") {
		return nil, ErrEncoding
	}
	unpack, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	body, err := bounded(unpack, -1, r.cfg.MaxBytes)
	if err != nil && !errors.Is(err, ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	return body, err
}

// bounded reads all of in, at most that much; size is what to expect, or negative.
func bounded(in io.Reader, size, most int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	if size > 0 {
		// The room is taken as it is filled: a length is no more than a word.
		if size <= 64<<10 {
			body := make([]byte, size)
			_, err := io.ReadFull(in, body)
			return body, err
		}
	}
	body, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(body)) > most {
		return nil, ErrTooLarge
	}
	return body, err
}

// classify names what went wrong, so that callers can tell; the text of the error says no more than that and where.
func classify(ctx context.Context, err error) error {
	err = inner(err)
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrAddress), errors.Is(err, ErrName), errors.Is(err, ErrConnect), errors.Is(err, ErrProxy), errors.Is(err, ErrTooLarge),
		errors.Is(err, ErrEncoding), errors.Is(err, ErrBroken), errors.Is(err, ErrClosed):
		return err
	case errors.As(err, &cert), errors.As(err, &record), errors.As(err, &alert), isHandshake(err):
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

// isHandshake reports whether err is of a TLS handshake that stopped; net/http has no type for it that it exports.
func isHandshake(err error) bool {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var timeout net.Error
	return errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &timeout) && timeout.Timeout()
}
