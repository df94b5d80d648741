package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"sallyport/api"
)

// CreateToken makes a token.
func (c *Client) CreateToken(ctx context.Context, req api.TokenRequest) (*api.NewToken, error) {
	return post[api.NewToken](ctx, c, nil, "/v1/tokens", req)
}

// Tokens lists all tokens.
func (c *Client) Tokens(ctx context.Context) (*api.TokenList, error) {
	return get[api.TokenList](ctx, c, nil, "/v1/tokens")
}

// RevokeToken ends a token.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	resp, err := c.do(ctx, request{method: http.MethodDelete, path: "/v1/tokens/" + segment(id)})
	if err != nil {
		return err
	}
	closeBody(resp)
	return nil
}

// Issuer returns the issuer of identity tokens for functions.
func (c *Client) Issuer(ctx context.Context) (*api.Issuer, error) {
	return get[api.Issuer](ctx, c, nil, "/v1/issuer")
}

// RotateIssuer makes a new key of the issuer; with revokeOld all others end at once, and what they signed with them.
func (c *Client) RotateIssuer(ctx context.Context, revokeOld bool) (*api.Issuer, error) {
	return post[api.Issuer](ctx, c, nil, "/v1/issuer/rotate", api.IssuerRotation{RevokeOld: revokeOld})
}

// DecisionOptions select decisions. Since and Until are times (RFC 3339) or durations before now.
type DecisionOptions struct {
	Since, Until, Principal string
	Denied                  bool
	Limit                   int
	// Server selects decisions about the server itself, not those about the namespace.
	Server bool
}

// Decisions returns what the gate decided in a period.
func (c *Client) Decisions(ctx context.Context, o DecisionOptions) (*api.DecisionList, error) {
	q := url.Values{}
	set(q, "since", o.Since)
	set(q, "until", o.Until)
	set(q, "principal", o.Principal)
	if o.Denied {
		q.Set("denied", "true")
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return get[api.DecisionList](ctx, c, q, c.about(o.Server, "decisions"))
}

// Status returns the state of the server and of the namespaces that the token may see.
func (c *Client) Status(ctx context.Context) (*api.Status, error) {
	return get[api.Status](ctx, c, nil, "/v1/status")
}

// Health returns the server's clock, to the second, or an error when it does not answer. It works with any
// token and without one.
func (c *Client) Health(ctx context.Context) (time.Time, error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/healthz"})
	if err != nil {
		return time.Time{}, err
	}
	defer closeBody(resp)
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("read the server's clock: %w", err)
	}
	return at, nil
}
