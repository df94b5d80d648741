package client

import (
	"context"
	"net/url"

	"sallyport/api"
)

// Approvals lists the approvals, of all apps when app is empty, and only those that can still be given when pending is set.
func (c *Client) Approvals(ctx context.Context, app string, pending bool) (*api.ApprovalList, error) {
	q := url.Values{}
	set(q, "app", app)
	if pending {
		q.Set("pending", "true")
	}
	return get[api.ApprovalList](ctx, c, q, c.inNamespace("approvals"))
}

// Approval returns one approval.
func (c *Client) Approval(ctx context.Context, id string) (*api.Approval, error) {
	return get[api.Approval](ctx, c, nil, c.inNamespace("approvals", id))
}

// Approve approves what was shown under a digest, which makes it active.
func (c *Client) Approve(ctx context.Context, id string, req api.ApprovalRequest) (*api.Approval, error) {
	return post[api.Approval](ctx, c, nil, c.inNamespace("approvals", id, "approve"), req)
}

// Reject ends what waits for an approval.
func (c *Client) Reject(ctx context.Context, id string, req api.RejectionRequest) (*api.Approval, error) {
	return post[api.Approval](ctx, c, nil, c.inNamespace("approvals", id, "reject"), req)
}
