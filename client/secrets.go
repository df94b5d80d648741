package client

import (
	"context"
	"net/http"
	"net/url"

	"sallyport/api"
)

// Secrets lists the secrets of the namespace, without their values.
func (c *Client) Secrets(ctx context.Context) (*api.SecretList, error) {
	return get[api.SecretList](ctx, c, nil, c.inNamespace("secrets"))
}

// Secret returns one secret, without its value.
func (c *Client) Secret(ctx context.Context, name string) (*api.Secret, error) {
	return get[api.Secret](ctx, c, nil, c.inNamespace("secrets", name))
}

// SecretOptions say how a value is set.
type SecretOptions struct {
	// Pending leaves what is in force as it is.
	Pending            bool
	Grace, Description string
}

// SetSecret makes value a new version of a secret, and the secret if there is none. The caller keeps value.
func (c *Client) SetSecret(ctx context.Context, name string, value []byte, o SecretOptions) (*api.Secret, error) {
	q := url.Values{}
	if o.Pending {
		q.Set("pending", "true")
	}
	set(q, "grace", o.Grace)
	set(q, "description", o.Description)
	return answer[api.Secret](ctx, c, request{
		method: http.MethodPost, path: c.inNamespace("secrets", name, "versions"), query: q, body: value,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
	})
}

// PlantCanary makes a canary with a decoy for its value.
func (c *Client) PlantCanary(ctx context.Context, name string, req api.SecretCanaryRequest) (*api.SecretCanary, error) {
	return post[api.SecretCanary](ctx, c, nil, c.inNamespace("secrets", name, "canary"), req)
}

// LinkSecret makes a secret whose value another store has.
func (c *Client) LinkSecret(ctx context.Context, name string, req api.SecretLinkRequest) (*api.Secret, error) {
	return post[api.Secret](ctx, c, nil, c.inNamespace("secrets", name, "link"), req)
}

// SecretVersions lists the versions of a secret, the newest first.
func (c *Client) SecretVersions(ctx context.Context, name string) (*api.SecretVersionList, error) {
	return get[api.SecretVersionList](ctx, c, nil, c.inNamespace("secrets", name, "versions"))
}

// SecretLog returns who used a secret, the newest first.
func (c *Client) SecretLog(ctx context.Context, name string) (*api.SecretUseList, error) {
	return get[api.SecretUseList](ctx, c, nil, c.inNamespace("secrets", name, "log"))
}

// PromoteSecret brings a version into force.
func (c *Client) PromoteSecret(ctx context.Context, name string, req api.SecretVersionRequest) (*api.Secret, error) {
	return post[api.Secret](ctx, c, nil, c.inNamespace("secrets", name, "promote"), req)
}

// DisableSecret keeps a version from being used.
func (c *Client) DisableSecret(ctx context.Context, name string, req api.SecretVersionRequest) (*api.Secret, error) {
	return post[api.Secret](ctx, c, nil, c.inNamespace("secrets", name, "disable"), req)
}

// DestroySecret destroys a version for good, or the secret with all of them.
func (c *Client) DestroySecret(ctx context.Context, name string, req api.SecretVersionRequest) error {
	_, err := post[api.SecretVersionList](ctx, c, nil, c.inNamespace("secrets", name, "destroy"), req) // what is left is shown by SecretVersions
	return err
}

// RotateSecret says how a secret is rotated, or has it rotated now.
func (c *Client) RotateSecret(ctx context.Context, name string, req api.SecretRotationRequest) (*api.Secret, error) {
	return post[api.Secret](ctx, c, nil, c.inNamespace("secrets", name, "rotate"), req)
}
