package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// drainTime is how long a deletion waits for the requests that are in a namespace: longer than a client may take to send an
// event.
const drainTime = time.Minute

// listNamespaces answers with the namespaces that the caller may see; whoever may see none, nor the server, is refused.
func (a *API) listNamespaces(c *call) error {
	denied := a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ReadStatus, policy.OfServer())
	out := api.NamespaceList{Namespaces: []api.Namespace{}}
	for _, ns := range a.deps.Namespaces.List() {
		if a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ReadStatus, policy.OfNamespace(ident.Namespace(ns.Name))) != nil {
			continue
		}
		out.Namespaces = append(out.Namespaces, ns)
	}
	if denied != nil && len(out.Namespaces) == 0 {
		return denied
	}
	return answer(c, http.StatusOK, &out)
}

// getNamespace answers with one namespace and what it uses.
func (a *API) getNamespace(c *call) error { return a.showNamespace(c, http.StatusOK, c.ns) }

func (a *API) showNamespace(c *call, status int, ns ident.Namespace) error {
	out, err := a.deps.Namespaces.Get(ns)
	if err != nil {
		return err
	}
	if a.deps.Namespaces.Open(ns) == nil { // of one that is being deleted, nothing can be measured
		if out.Use, out.Stored, err = a.deps.Namespaces.Use(c.r.Context(), ns); err != nil {
			return err
		}
	}
	return answer(c, status, out)
}

// createNamespace makes a namespace: 201, or 200 when it is there as it is asked for.
func (a *API) createNamespace(c *call) error {
	var req api.NamespaceRequest
	if err := readJSON(c.r, maxSmallBody, &req); err != nil {
		return err
	}
	created, err := a.deps.Namespaces.Create(c.r.Context(), c.p.ID, &req)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return a.showNamespace(c, status, ident.Namespace(req.Name))
}

// updateNamespace changes a namespace. Owners say who owns it; what it may use, what roles are in it, and whether gains need
// approval, an operator of the server says.
func (a *API) updateNamespace(c *call) error {
	ctx := c.r.Context()
	if err := a.deps.Guard.Authorize(ctx, c.p, policy.ManageNamespaces, policy.OfNamespace(c.ns)); err != nil {
		return err
	}
	var req api.NamespaceUpdate
	if err := readJSON(c.r, maxSmallBody, &req); err != nil {
		return err
	}
	if req.Quotas != nil || req.Policies != "" || req.Approvals != "" {
		if err := a.deps.Guard.Authorize(ctx, c.p, policy.ManageNamespaces, policy.OfServer()); err != nil {
			return err
		}
	}
	if err := a.deps.Namespaces.Update(ctx, c.ns, &req); err != nil {
		return err
	}
	if req.Approvals != "" {
		a.deps.Logger.WarnContext(ctx, "who has to approve gains was set", "namespace", string(c.ns), "approvals", req.Approvals, "by", string(c.p.ID))
	}
	return a.showNamespace(c, http.StatusOK, c.ns)
}

// deleteNamespace deletes a namespace and everything in it.
func (a *API) deleteNamespace(c *call) error {
	if err := a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ManageNamespaces, policy.OfServer()); err != nil {
		return err
	}
	force, err := c.query.flag("force")
	if err != nil {
		return err
	}
	if a.draining.Load() {
		return stopping()
	}
	// A writer without deadlines has none to extend.
	_ = http.NewResponseController(c).SetWriteDeadline(time.Now().Add(2 * drainTime))
	defer a.waits.reopen(c.ns)
	out, err := a.deps.Namespaces.Delete(c.r.Context(), c.p.ID, c.ns, force, func(ctx context.Context) error { return a.drainNamespace(ctx, c.ns) })
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, out)
}

// drainNamespace ends the requests that wait in ns, and returns when none is in it.
func (a *API) drainNamespace(ctx context.Context, ns ident.Namespace) error {
	a.waits.close(ns)
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	err := a.inside.empty(ctx, ns)
	if errors.Is(err, context.DeadlineExceeded) {
		return problem.New(problem.Unavailable, "namespace.busy", "requests in the namespace %q do not end", ns).
			WithHint("nothing was deleted; do the same again").WithRetryAfter(retryPause)
	}
	return err
}

// managed returns the namespaces whose tokens the caller manages. It asks only about those that it can: of who belongs to a
// namespace, that one.
func (a *API) managed(c *call) map[ident.Namespace]bool {
	out := map[ident.Namespace]bool{}
	names := []ident.Namespace{c.p.Namespace}
	if c.p.Namespace == "" {
		names = a.deps.Namespaces.Names()
	}
	for _, ns := range names {
		if a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ManageTokens, policy.OfNamespace(ns)) == nil {
			out[ns] = true
		}
	}
	return out
}

// createToken makes a token, and its namespace if that is new.
func (a *API) createToken(c *call) error {
	ctx := c.r.Context()
	denied := a.deps.Guard.Authorize(ctx, c.p, policy.ManageTokens, policy.OfServer())
	if denied != nil && len(a.managed(c)) == 0 {
		return denied
	}
	var req api.TokenRequest
	if err := readJSON(c.r, maxSmallBody, &req); err != nil {
		return err
	}
	if denied != nil {
		ns, err := ident.ParseNamespace(req.Namespace)
		if err != nil {
			return denied
		}
		if err := a.deps.Guard.Authorize(ctx, c.p, policy.ManageTokens, policy.OfNamespace(ns)); err != nil {
			return err
		}
		if _, err := a.deps.Namespaces.Get(ns); err != nil { // it is for the server's operators to make one
			return err
		}
	}
	tok, err := a.deps.Guard.Create(ctx, c.p.ID, req)
	if err != nil {
		return err
	}
	if req.Namespace != "" {
		// After the token, which Create refuses if it is malformed: a typo makes no namespace.
		if err := a.deps.Namespaces.Ensure(ctx, ident.Namespace(req.Namespace)); err != nil {
			return errors.Join(err, a.deps.Guard.Revoke(context.WithoutCancel(ctx), tok.ID))
		}
	}
	return answer(c, http.StatusCreated, tok)
}

// listTokens answers with all tokens, or with those of the namespaces that the caller manages.
func (a *API) listTokens(c *call) error {
	denied := a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ManageTokens, policy.OfServer())
	if denied == nil {
		return answer(c, http.StatusOK, &api.TokenList{Tokens: a.deps.Guard.List()})
	}
	managed := a.managed(c)
	if len(managed) == 0 {
		return denied
	}
	out := api.TokenList{Tokens: []api.Token{}}
	for _, t := range a.deps.Guard.List() {
		if managed[ident.Namespace(t.Namespace)] {
			out.Tokens = append(out.Tokens, t)
		}
	}
	return answer(c, http.StatusOK, &out)
}

// revokeToken ends a token. One of a namespace that the caller does not manage is answered like one that does not exist.
func (a *API) revokeToken(c *call) error {
	id := c.r.PathValue("id")
	if denied := a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ManageTokens, policy.OfServer()); denied != nil {
		managed := a.managed(c)
		if len(managed) == 0 {
			return denied
		}
		if ns, ok := a.deps.Guard.NamespaceOf(id); !ok || !managed[ns] {
			id = "" // no token's
		}
	}
	if err := a.deps.Guard.Revoke(c.r.Context(), id); err != nil {
		return err
	}
	c.WriteHeader(http.StatusNoContent)
	return nil
}
