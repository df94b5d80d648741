package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
)

func (a *app) approvalCommand() *cobra.Command {
	return group("approval", "Look at what functions would gain, and approve or reject it", a.approvalList(), a.approvalGet(), a.approvalApprove(), a.approvalReject())
}

func (a *app) approvalList() *cobra.Command {
	var app string
	var pending bool
	c := &cobra.Command{
		Use: "list", Short: "List approvals, the newest first", Args: noArguments(),
		Example: "  sallyport approval list --pending\n  sallyport approval list --app shop -o json",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Approvals(ctx, app, pending)
			if err != nil {
				return err
			}
			return showList(a, out, out.Approvals, table[api.Approval]{
				noun: "approvals", header: []string{"ID", "APP", "STATE", "GAINS", "APPLIED BY", "DECIDED BY", "CREATED"},
				row: func(p *api.Approval) []string {
					return []string{p.ID, p.App, p.State, fmt.Sprint(gained(p.Grants)), p.AppliedBy, p.DecidedBy, stamp(p.Created)}
				},
				id: func(p *api.Approval) string { return p.ID },
			})
		}),
	}
	c.Flags().StringVar(&app, "app", "", "only those of this `app`")
	c.Flags().BoolVar(&pending, "pending", false, "only those that wait")
	return c
}

// gained counts the grants that are new or wider.
func gained(changes []api.GrantChange) (n int) {
	for _, c := range changes {
		if len(c.Gains) > 0 || c.Change == "new" {
			n++
		}
	}
	return n
}

func (a *app) approvalGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Show what waits for an approval, or what became of it", Args: exactly(1, "the id of an approval"),
		Example: "  sallyport approval get 0123456789abcdef", ValidArgsFunction: a.completeApprovals,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.Approval(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) { a.writeApproval(w, p) })
		}),
	}
}

func (a *app) writeApproval(w io.Writer, p *api.Approval) {
	if a.quiet {
		fmt.Fprintln(w, clean(p.ID))
		return
	}
	decided := ""
	if p.Decided != nil {
		decided = stamp(*p.Decided)
	}
	expires := ""
	if p.State == api.ApprovalPending {
		expires = stamp(p.Expires)
	}
	fields(w, "id", p.ID, "app", p.App, "state", p.State, "revision", fmt.Sprintf("%d, compared with %d", p.Revision, p.Base), "digest", p.Digest,
		"applied by", p.AppliedBy, "created", stamp(p.Created), "expires", expires, "decided by", p.DecidedBy, "decided", decided, "reason", p.Reason,
		"supersedes", p.Supersedes, "superseded by", p.SupersededBy)
	fmt.Fprintln(w)
	writeChanges(w, p.Changes)
	writeGrants(w, p.Grants)
}

func (a *app) approvalApprove() *cobra.Command {
	var req api.ApprovalRequest
	var yes bool
	c := &cobra.Command{
		Use: "approve ID", Short: "Approve what functions gain, which makes the app active", Args: exactly(1, "the id of an approval"),
		Long: `Approve what functions gain with an app that somebody else applied; it becomes active at once. You must be permitted approveGrants in the
namespace, and yourself what each grant permits. What functions gain is shown first, and exactly that is approved. With --digest, which
'approval get' shows, nothing is asked: what has another digest is not approved.`,
		Example:           "  sallyport approval get 0123456789abcdef\n  sallyport approval approve 0123456789abcdef --reason 'refunds need the payment service'",
		ValidArgsFunction: a.completeApprovals,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if req.Digest == "" {
				shown, err := c.Approval(ctx, args[0])
				if err != nil {
					return err
				}
				if !yes {
					a.writeApproval(a.env.Stderr, shown)
					if err := a.confirm("approve this?"); err != nil {
						return err
					}
				}
				req.Digest = shown.Digest
			}
			p, err := c.Approve(ctx, args[0], req)
			if err != nil {
				return err
			}
			a.say("app %s is active, revision %d", clean(p.App), p.Revision)
			return a.show(p, func(w io.Writer) { a.writeApproval(w, p) })
		}),
	}
	c.Flags().StringVar(&req.Digest, "digest", "", "approve only what has this `digest`")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for whoever looks at it later")
	return c
}

func (a *app) approvalReject() *cobra.Command {
	var req api.RejectionRequest
	c := &cobra.Command{
		Use: "reject ID", Short: "Reject what waits for an approval, or take back your own", Args: exactly(1, "the id of an approval"),
		Example:           "  sallyport approval reject 0123456789abcdef --reason 'the host is not ours'",
		ValidArgsFunction: a.completeApprovals,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.Reject(ctx, args[0], req)
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) { a.writeApproval(w, p) })
		}),
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for whoever looks at it later")
	return c
}

func (a *app) completeApprovals(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.names(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		list, err := c.Approvals(ctx, "", true)
		if err != nil {
			return nil, err
		}
		for _, p := range list.Approvals {
			out = append(out, cobra.CompletionWithDesc(p.ID, p.App))
		}
		return out, nil
	})
}

// approvedText says who approved what a function gained last.
func approvedText(p *api.FunctionApproval) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%s by %s, %s", p.ID, p.ApprovedBy, p.Approved.Format(time.RFC3339))
}
