package client

import (
	"context"
	"net/http"
	"net/url"

	"sallyport/api"
)

func namespacePath(name string) string { return "/v1/namespaces/" + segment(name) }

// CreateNamespace makes a namespace. One that is there as it is asked for is no error.
func (c *Client) CreateNamespace(ctx context.Context, req api.NamespaceRequest) (*api.Namespace, error) {
	return post[api.Namespace](ctx, c, nil, "/v1/namespaces", req)
}

// Namespaces lists the namespaces that the token may see.
func (c *Client) Namespaces(ctx context.Context) (*api.NamespaceList, error) {
	return get[api.NamespaceList](ctx, c, nil, "/v1/namespaces")
}

// DescribeNamespace returns one namespace and what it uses.
func (c *Client) DescribeNamespace(ctx context.Context, name string) (*api.Namespace, error) {
	return get[api.Namespace](ctx, c, nil, namespacePath(name))
}

// UpdateNamespace changes a namespace; what is absent from the request stays.
func (c *Client) UpdateNamespace(ctx context.Context, name string, req api.NamespaceUpdate) (*api.Namespace, error) {
	return with[api.Namespace](ctx, c, http.MethodPatch, nil, namespacePath(name), req)
}

// DeleteNamespace deletes a namespace and everything in it. With force, its pending events are given up.
func (c *Client) DeleteNamespace(ctx context.Context, name string, force bool) (*api.NamespaceDeleted, error) {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return answer[api.NamespaceDeleted](ctx, c, request{method: http.MethodDelete, path: namespacePath(name), query: q})
}
