// Package outbound opens connections to the world outside, and is the only package that does.
//
// What holds for each of them, whoever asks: the certificate is verified; the address that is dialled is checked, not the name
// that was resolved, so that a name which means one address now and another one later (DNS rebinding) gains nothing;
// loopback, private, link-local, metadata and other special addresses are refused unless they are asked for; nothing of the
// environment is used, no proxy; time and size of an answer are bounded.
//
// There are two kinds. A Client fetches what the server itself needs: https only, a redirect is an error, nothing is
// decompressed; one that is allowed private addresses still reaches no link-local address and no metadata service. A Route
// carries the requests of a grant: it reaches the special addresses that the grant names, and through the proxy that it names.
//
// Dialer opens connections for protocols of databases, with the same checks of addresses.
//
// Callers: access/oidc (keys of issuers), login (the command line), grant/httpgrant, grant/sqlgrant.
package outbound

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Limits of one exchange.
const (
	connectTimeout = 5 * time.Second
	// headerTimeout is how long an answer may take to begin.
	headerTimeout = 5 * time.Second
	// maxHeader bounds the headers of an answer, in bytes.
	maxHeader = 16 << 10
	// maxURL bounds a URL, in bytes.
	maxURL = 2 << 10
	// idleTimeout keeps a connection for what follows at once, such as keys after a discovery document.
	idleTimeout = 10 * time.Second
)

// Config says what a client may do.
type Config struct {
	// RootCAs are the CAs that servers must have their certificate from; nil are the system's.
	RootCAs *x509.CertPool
	// Private allows loopback and private addresses.
	Private bool
	// Timeout bounds one exchange, from the look-up of the name to the last byte.
	Timeout time.Duration
	// MaxBytes bounds the body of an answer.
	MaxBytes int64
}

// Validate reports every fault of c.
func (c *Config) Validate() error {
	var errs []error
	if c.Timeout <= 0 {
		errs = append(errs, errors.New("timeout must be positive"))
	}
	if c.MaxBytes <= 0 {
		errs = append(errs, errors.New("max bytes must be positive"))
	}
	return errors.Join(errs...)
}

// Client exchanges requests for bounded answers. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
}

// Answer is what a server answered, whole.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Errors that callers tell apart.
var (
	// ErrAddress is wrapped by the error of a connection to an address that is not allowed.
	ErrAddress = errors.New("address is not allowed")
	// ErrRedirect is wrapped by the error of an answer that is a redirect.
	ErrRedirect = errors.New("answered with a redirect")
	// ErrTooLarge is wrapped by the error of an answer that is too large.
	ErrTooLarge = errors.New("answer is too large")
)

// New returns a client.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure outbound client: %w", err)
	}
	dialer := &net.Dialer{Timeout: connectTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		return check(address, cfg.Private)
	}}
	return &Client{cfg: cfg, http: &http.Client{
		Transport: &http.Transport{
			DialContext:     dialer.DialContext,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs},
			// A certificate chain that takes long to send is the peer's fault.
			TLSHandshakeTimeout: connectTimeout, ResponseHeaderTimeout: headerTimeout, IdleConnTimeout: idleTimeout,
			MaxResponseHeaderBytes: maxHeader, MaxIdleConnsPerHost: 1, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return ErrRedirect },
	}}, nil
}

// Close closes the connections that are kept for the next request. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get fetches a URL.
func (c *Client) Get(ctx context.Context, target string) (*Answer, error) {
	return c.do(ctx, http.MethodGet, target, nil, nil)
}

// GetWith fetches a URL with further headers, such as a credential; their names MUST be in canonical form.
func (c *Client) GetWith(ctx context.Context, target string, header http.Header) (*Answer, error) {
	return c.do(ctx, http.MethodGet, target, nil, header)
}

// PostForm sends a form.
func (c *Client) PostForm(ctx context.Context, target string, form url.Values) (*Answer, error) {
	return c.do(ctx, http.MethodPost, target, form, nil)
}

// ParseURL parses a URL that a client may be sent to: https, with a host, without credentials and fragment.
func ParseURL(target string) (*url.URL, error) {
	if len(target) > maxURL {
		return nil, fmt.Errorf("the URL is longer than %d bytes", maxURL)
	}
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("want a URL of the form https://host/path")
	}
	return u, nil
}

func (c *Client) do(ctx context.Context, method, target string, form url.Values, header http.Header) (*Answer, error) {
	u, err := ParseURL(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader([]byte(form.Encode())))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "sallyport")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, inner(err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxBytes+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", u.Host, err)
	}
	if int64(len(body)) > c.cfg.MaxBytes {
		return nil, fmt.Errorf("%s: %w", u.Host, ErrTooLarge)
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

// inner takes the URL out of an error of net/http: its query may hold what is in no log.
func inner(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
