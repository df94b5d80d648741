package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// listApprovals answers with the approvals of a namespace, of all apps or of one.
func (a *API) listApprovals(c *call) error {
	pending, err := c.query.flag("pending")
	if err != nil {
		return err
	}
	out := api.ApprovalList{Approvals: a.deps.Deployer.Approvals(c.ns)}
	out.Approvals = slices.DeleteFunc(out.Approvals, func(one api.Approval) bool {
		return c.query["app"] != "" && one.App != c.query["app"] || pending && one.State != api.ApprovalPending
	})
	return answer(c, http.StatusOK, &out)
}

func (a *API) getApproval(c *call) error {
	out, _, err := a.deps.Deployer.Approval(c.ns, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, out)
}

// approve makes active what waits for it. Who approves is somebody else than who applied it, and may do everything that it lets functions do;
// and who applied it may still do so.
func (a *API) approve(c *call) error {
	var req api.ApprovalRequest
	if err := readJSON(c.r, maxSmallBody, &req); err != nil {
		return err
	}
	ctx, id := c.r.Context(), c.r.PathValue("id")
	_, sender, err := a.deps.Deployer.Approval(c.ns, id)
	if err != nil {
		return err
	}
	if err := a.deps.Guard.MayApprove(ctx, c.p, c.ns, sender.ID); err != nil {
		return err
	}
	if a.draining.Load() {
		return stopping()
	}
	giveBack, err := a.applying.take(c.ns)
	if err != nil {
		return err
	}
	defer giveBack()
	then, by, err := a.deps.Guard.Absent(ctx, sender.ID, sender.Authority)
	if err == nil && by != nil {
		err = a.deps.Guard.Authorize(then, by, policy.Deploy, policy.OfNamespace(c.ns))
	}
	if by == nil || problem.From(err).Kind == problem.Denied {
		return problem.New(problem.Conflict, "approval.sender_gone", "%s, who applied the app, may not do so any more", sender.ID).
			WithHint("have somebody apply it again who may").WithCause(err)
	}
	if err != nil {
		return err
	}
	out, err := a.deps.Deployer.Approve(access.WithPrincipal(ctx, c.p), c.p.ID, c.ns, id, req, func(change deploy.Change) error {
		if err := a.mayChange(then, by, c.ns, change); err != nil {
			return err
		}
		return a.mayChange(ctx, c.p, c.ns, change)
	})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, out)
}

// reject ends what waits for an approval. Who applied it may take it back.
func (a *API) reject(c *call) error {
	var req api.RejectionRequest
	if err := readJSON(c.r, maxSmallBody, &req); err != nil {
		return err
	}
	id := c.r.PathValue("id")
	_, sender, err := a.deps.Deployer.Approval(c.ns, id)
	if err != nil {
		return err
	}
	action := policy.ApproveGrants
	if sender.ID == c.p.ID {
		action = policy.Deploy
	}
	if err := a.deps.Guard.Authorize(c.r.Context(), c.p, action, policy.OfNamespace(c.ns)); err != nil {
		return err
	}
	out, err := a.deps.Deployer.Reject(c.r.Context(), c.p.ID, c.ns, id, req.Reason)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, out)
}

// approvalOf returns who approved what the function gained last that a question is about: one whose grant it is about, or one that
// asks. It looks into the namespace of the request alone, when that has one.
func (a *API) approvalOf(c *call, q *policy.Request) *api.FunctionApproval {
	ns, name := q.Resource.Namespace, ""
	switch {
	case q.Resource.Kind == policy.KindGrant:
		name, _, _ = strings.Cut(q.Resource.Name, "/")
	case q.Principal.Kind == policy.KindFunction:
		ns = q.Principal.Namespace
		name = strings.TrimPrefix(string(q.Principal.ID), "function:"+string(ns)+"/")
	}
	f := a.deps.Deployer.State(ns).Functions[ident.FunctionName(name)]
	if f == nil || c.ns != "" && ns != c.ns {
		return nil
	}
	return f.Approval
}
