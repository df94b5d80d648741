package client

import (
	"context"
	"net/url"

	"sallyport/api"
)

// Apply deploys an app, or says what that would change.
func (c *Client) Apply(ctx context.Context, bundle *api.Bundle, dryRun bool) (*api.Plan, error) {
	q := url.Values{}
	if dryRun {
		q.Set("dry_run", "true")
	}
	return post[api.Plan](ctx, c, q, c.inNamespace("apps"), bundle)
}

// Functions lists the functions.
func (c *Client) Functions(ctx context.Context) (*api.FunctionList, error) {
	return get[api.FunctionList](ctx, c, nil, c.inNamespace("functions"))
}

// Function returns one function.
func (c *Client) Function(ctx context.Context, name string) (*api.Function, error) {
	return get[api.Function](ctx, c, nil, c.inNamespace("functions", name))
}

// UsageOptions select what a statement of usage is of. Since and Until are times (RFC 3339) or durations
// before now; By is a comma-separated list of function, revision and principal.
type UsageOptions struct{ Since, Until, By, Function string }

// Usage returns what functions used in a period.
func (c *Client) Usage(ctx context.Context, o UsageOptions) (*api.Usage, error) {
	q := url.Values{}
	set(q, "since", o.Since)
	set(q, "until", o.Until)
	set(q, "by", o.By)
	set(q, "function", o.Function)
	return get[api.Usage](ctx, c, q, c.inNamespace("usage"))
}

// Subscriptions lists the subscriptions.
func (c *Client) Subscriptions(ctx context.Context) (*api.SubscriptionList, error) {
	return get[api.SubscriptionList](ctx, c, nil, c.inNamespace("subscriptions"))
}

// Subscription returns one subscription.
func (c *Client) Subscription(ctx context.Context, name string) (*api.Subscription, error) {
	return get[api.Subscription](ctx, c, nil, c.inNamespace("subscriptions", name))
}

// SetPaused pauses or resumes a subscription.
func (c *Client) SetPaused(ctx context.Context, name string, paused bool) (*api.Subscription, error) {
	verb := "resume"
	if paused {
		verb = "pause"
	}
	return post[api.Subscription](ctx, c, nil, c.inNamespace("subscriptions", name, verb), nil)
}
