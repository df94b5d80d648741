package client

import (
	"context"
	"net/url"
	"strconv"

	"sallyport/api"
)

// Perimeters lists those of the namespace, or of the server.
func (c *Client) Perimeters(ctx context.Context, server bool) (*api.PerimeterList, error) {
	return get[api.PerimeterList](ctx, c, nil, c.about(server, "perimeters"))
}

// Perimeter returns one of the namespace, or of the server.
func (c *Client) Perimeter(ctx context.Context, server bool, name string) (*api.Perimeter, error) {
	return get[api.Perimeter](ctx, c, nil, c.about(server, "perimeters", name))
}

// TestPerimeter returns what a perimeter denies, or in dry-run would: of what was asked since a time, a limit at most, and of what
// apps declare.
func (c *Client) TestPerimeter(ctx context.Context, server bool, name, since string, limit int) (*api.PerimeterTest, error) {
	q := url.Values{}
	set(q, "since", since)
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return get[api.PerimeterTest](ctx, c, q, c.about(server, "perimeters", name, "test"))
}
