package client

import (
	"context"
	"net/url"

	"sallyport/api"
)

// DeadLetters lists dead letters, those of the newest events first.
func (c *Client) DeadLetters(ctx context.Context, o ListOptions) (*api.DeadLetterList, error) {
	return get[api.DeadLetterList](ctx, c, o.query(), c.inNamespace("dead-letters"))
}

// DeadLetter returns one dead letter with its event.
func (c *Client) DeadLetter(ctx context.Context, id string, data bool) (*api.DeadLetter, error) {
	q := url.Values{}
	if data {
		q.Set("data", "true")
	}
	return get[api.DeadLetter](ctx, c, q, c.inNamespace("dead-letters", id))
}

// Redrive makes dead letters pending deliveries again.
func (c *Client) Redrive(ctx context.Context, sel api.DeadLetterSelection) (*api.DeadLetterResult, error) {
	return post[api.DeadLetterResult](ctx, c, nil, c.inNamespace("dead-letters", "redrive"), sel)
}

// Discard ends dead letters for good.
func (c *Client) Discard(ctx context.Context, sel api.DeadLetterSelection) (*api.DeadLetterResult, error) {
	return post[api.DeadLetterResult](ctx, c, nil, c.inNamespace("dead-letters", "discard"), sel)
}
