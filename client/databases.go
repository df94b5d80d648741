package client

import (
	"context"

	"sallyport/api"
)

// AcceptDatabase has an SQLite database of functions go on with a file that is older than what was recorded of it.
func (c *Client) AcceptDatabase(ctx context.Context, name string) (*api.DatabaseAccepted, error) {
	return post[api.DatabaseAccepted](ctx, c, nil, c.inNamespace("databases", name, "accept"), nil)
}
