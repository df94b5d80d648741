// Package client is the Go client of Sallyport's HTTP API. The command line uses nothing else.
//
// A Client is safe for concurrent use. Every error the server answers is a *Problem; others are of the
// connection. It never sends a request again by itself: only the caller knows whether that is right,
// and for events it is, because the server recognises repetitions by source and id.
//
// It speaks TLS 1.3 only, follows no redirect (that would carry the token away), and imports no package
// of the server. Callers: cli, bench, and other programs.
package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
)

// Config says which server a client talks to, and as whom.
type Config struct {
	// Server is the URL, such as https://127.0.0.1:8600. Plain http is refused.
	Server string
	// CAFile is the CA that the server's certificate must come from; "" is the system's.
	CAFile string
	// Token is the credential; when it is empty, TokenFile is read.
	Token     string
	TokenFile string
	// CertFile and KeyFile, both or none, are the client certificate and its key in PEM, for servers that know its CA. A token
	// goes before it.
	CertFile, KeyFile string
	// Namespace is "default" when empty.
	Namespace string
}

// LogValue keeps the token out of logs.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.String("server", c.Server), slog.String("namespace", c.Namespace), slog.String("token", redacted))
}

// redacted is what a token looks like in a log.
const redacted = "[redacted]"

// Client talks to one server. Its zero value is not usable; make one with New.
type Client struct {
	base      string // the URL without a slash at its end
	token     string
	namespace string
	http      *http.Client
}

// LogValue keeps the token out of logs.
func (c *Client) LogValue() slog.Value {
	return slog.GroupValue(slog.String("server", c.base), slog.String("namespace", c.namespace), slog.String("token", redacted))
}

// Limits of what is read, in bytes.
const (
	// maxAnswer bounds the answers that are read whole: the largest is a page of events.
	maxAnswer = 256 << 20
	// maxProblem bounds a problem document; the server's have a few KiB.
	maxProblem = 1 << 20
	// maxFile bounds a token or CA file; a bundle of public CAs has a quarter of it.
	maxFile = 1 << 20
)

const (
	// connectTimeout bounds the connection, and then its handshake.
	connectTimeout = 10 * time.Second
	// idleTimeout is how long a connection is kept; the server keeps it longer.
	idleTimeout = 90 * time.Second
)

// Problem is an error that the server answered.
type Problem struct {
	api.Problem
	// RetryAfter is positive when the server says when to come again.
	RetryAfter time.Duration
	// EventID names the event of an invocation that failed.
	EventID string
}

// Error returns the sentence and the code.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	return text + " [" + p.Code + "]"
}

// New returns a client. It reads the files that cfg names, and does not connect yet.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.Server)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.User != nil {
		return nil, fmt.Errorf("the server's URL %q is not of the form https://host:port", cfg.Server)
	}
	token := cfg.Token
	if token == "" && cfg.TokenFile != "" {
		text, err := readFile(cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
		token = string(text)
	}
	token = strings.TrimSpace(token)
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		where := ""
		if cfg.Token == "" {
			where = " in " + cfg.TokenFile
		}
		return nil, fmt.Errorf("the token%s is malformed: it has spaces, line breaks or other characters that no token has", where)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS13}
	if cfg.CAFile != "" {
		pem, err := readFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA certificate: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" || cfg.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		tlsConfig.Certificates = []tls.Certificate{cert}
	}
	return &Client{
		base: strings.TrimSuffix(base.String(), "/"), token: token, namespace: cmp.Or(cfg.Namespace, "default"),
		http: &http.Client{
			Transport: &http.Transport{
				DialContext:     (&net.Dialer{Timeout: connectTimeout}).DialContext,
				TLSClientConfig: tlsConfig, TLSHandshakeTimeout: connectTimeout,
				MaxIdleConnsPerHost: 64, IdleConnTimeout: idleTimeout, Proxy: http.ProxyFromEnvironment,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the server answered with a redirect") },
		},
	}, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return text, nil
}

// Close closes the connections that are kept for the next request. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Namespace returns the namespace the client works in.
func (c *Client) Namespace() string { return c.namespace }

// request describes one call.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         []byte
}

func (c *Client) inNamespace(parts ...string) string {
	path := "/v1/namespaces/" + segment(c.namespace)
	for _, p := range parts {
		path += "/" + segment(p)
	}
	return path
}

// segment escapes one segment of a path. "." and ".." would be resolved away on the way.
func segment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// do sends a request and returns the answer if its status is below 300, else its problem.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("User-Agent", "sallyport-client")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer closeBody(resp)
	return nil, problemOf(resp)
}

// closeBody lets the connection be used again; there is nothing to do about a failure.
func closeBody(resp *http.Response) { _ = resp.Body.Close() }

func problemOf(resp *http.Response) error {
	p := &Problem{EventID: resp.Header.Get("Sallyport-Event-Id")}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err == nil {
		err = json.Unmarshal(text, &p.Problem)
	}
	if err != nil || p.Code == "" {
		return fmt.Errorf("the server answered %q, which is no answer of Sallyport", resp.Status)
	}
	p.Status = resp.StatusCode
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		p.RetryAfter = time.Duration(s) * time.Second
	}
	return p
}

// answer sends a request and reads the JSON that comes back.
func answer[T any](ctx context.Context, c *Client, r request) (*T, error) {
	resp, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer closeBody(resp)
	out := new(T)
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, maxAnswer), out); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	return out, nil
}

func get[T any](ctx context.Context, c *Client, query url.Values, path string) (*T, error) {
	return answer[T](ctx, c, request{method: http.MethodGet, path: path, query: query})
}

// post sends in as JSON; a nil in is an empty body.
func post[T any](ctx context.Context, c *Client, query url.Values, path string, in any) (*T, error) {
	return with[T](ctx, c, http.MethodPost, query, path, in)
}

// with sends in as JSON with a method that takes a body.
func with[T any](ctx context.Context, c *Client, method string, query url.Values, path string, in any) (*T, error) {
	r := request{method: method, path: path, query: query, header: http.Header{"Content-Type": {"application/json"}}}
	if in != nil {
		var err error
		if r.body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
	}
	return answer[T](ctx, c, r)
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}
