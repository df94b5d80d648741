package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
)

func (a *app) policyReach() *cobra.Command {
	var server bool
	c := &cobra.Command{
		Use: "reach PRINCIPAL", Short: "List everything that a principal may do, and have functions do: its blast radius", Args: exactly(1, "a principal"),
		Long: `Reach lists what a principal may do to everything that the server knows of, and what the functions may do which it can have run: by
invoking them, by publishing what a subscription delivers to them, by deploying; and so on from function to function.`,
		Example: "  sallyport policy reach token:0123456789abcdef\n  sallyport policy reach function:default/price",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			out, err := c.Reach(ctx, server, args[0])
			if err != nil {
				return err
			}
			return a.showAccess(out, "things that "+clean(args[0])+" may do")
		}),
	}
	return onServer(c, &server)
}

func (a *app) policyUnused() *cobra.Command {
	var since, principal string
	var server bool
	c := &cobra.Command{
		Use: "unused", Short: "List policies, grants and actions that nothing needed", Args: noArguments(),
		Long: `Unused lists the policies that permitted nothing in a period, the event types that functions and tokens are granted by name and did
not publish, and the actions that principals may do and did to nothing.`,
		Example: "  sallyport policy unused --since 168h\n  sallyport policy unused --principal function:default/price",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Unused(ctx, server, since, principal)
			if err != nil {
				return err
			}
			if len(out.Policies)+len(out.Grants)+len(out.Actions) == 0 && a.output == formText {
				a.say("everything was needed since %s", stamp(out.Since))
				return nil
			}
			return a.show(out, func(w io.Writer) {
				for i := range out.Policies {
					fmt.Fprintf(w, "policy %s (%s) permitted nothing\n", clean(out.Policies[i].ID), clean(from(&out.Policies[i])))
				}
				for _, g := range out.Grants {
					fmt.Fprintf(w, "%s never used its grant to %s %s\n", clean(g.Principal), clean(g.Action), clean(g.Resource))
				}
				for _, x := range out.Actions {
					fmt.Fprintf(w, "%s may and did not: %s\n", clean(x.Principal), clean(strings.Join(x.Actions, ", ")))
				}
			})
		}),
	}
	sinceFlag(c, &since)
	c.Flags().StringVar(&principal, "principal", "", "only what is this `principal`'s")
	return onServer(c, &server)
}

// sinceFlag adds how far back is looked: by default as far as decisions are kept.
func sinceFlag(c *cobra.Command, since *string) {
	c.Flags().StringVar(since, "since", "720h", "since this `time` (RFC 3339) or so long ago")
}

func (a *app) policyWildcards() *cobra.Command {
	var server bool
	c := &cobra.Command{
		Use: "wildcards", Short: "List permits that leave a principal, an action or a resource open", Args: noArguments(),
		Example: "  sallyport policy wildcards\n  sallyport policy wildcards --on-server",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Wildcards(ctx, server)
			if err != nil {
				return err
			}
			return showList(a, out, out.Wildcards, table[api.Wildcard]{
				noun: "permits that leave something open", header: []string{"ID", "OPEN", "CONDITIONS", "FROM"},
				row: func(x *api.Wildcard) []string {
					conditions := "some"
					if x.Unconditional {
						conditions = "none"
					}
					return []string{x.Policy.ID, strings.Join(x.Open, ", "), conditions, from(&x.Policy)}
				},
				id: func(x *api.Wildcard) string { return x.Policy.ID },
			})
		}),
	}
	return onServer(c, &server)
}

func (a *app) policyPropose() *cobra.Command {
	var since string
	var server bool
	c := &cobra.Command{
		Use: "propose", Short: "Propose policies that permit what was needed, and no more", Args: noArguments(),
		Long: `Propose prints the policies of the namespace, or with --on-server of the server, tightened to what was asked and allowed in a period:
permits that nothing used are left out, the others name the actions, resources and principals that used them. It says on stderr what changes, and
how many recorded questions were decided again with the proposal; when one would be denied, nothing is proposed. Look at it, put it in
the place of the files in policies/, and apply it with --dry-run first.`,
		Example: "  sallyport policy propose > proposed.cedar\n  sallyport policy propose --since 168h --on-server",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Propose(ctx, server, since)
			if err != nil {
				return err
			}
			return a.showProposal(out, "no policies are left: nothing needed one")
		}),
	}
	sinceFlag(c, &since)
	return onServer(c, &server)
}

func (a *app) policyBoundary() *cobra.Command {
	var since string
	c := &cobra.Command{
		Use: "boundary PRINCIPAL", Short: "Propose forbids that keep a principal within what it does", Args: exactly(1, "a principal"),
		Long: `Boundary prints forbids, for the policies of the server, that keep a principal within what it was allowed and did in a period, whatever
permits it more: a role, which no policy can narrow otherwise. The proof is that of propose.`,
		Example: "  sallyport policy boundary token:0123456789abcdef > guard/ci.cedar",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			out, err := c.Boundary(ctx, args[0], since)
			if err != nil {
				return err
			}
			return a.showProposal(out, "there is nothing to forbid")
		}),
	}
	sinceFlag(c, &since)
	return c
}

// showProposal writes a proposal: the policies to stdout, what they are and the proof to stderr.
func (a *app) showProposal(p *api.PolicyProposal, none string) error {
	if a.output == formText {
		for _, id := range p.Dropped {
			a.say("dropped   %s: nothing needed it since %s", clean(id), stamp(p.Since))
		}
		for _, id := range p.Narrowed {
			a.say("narrowed  %s", clean(id))
		}
		if p.Text == "" {
			a.say("%s", none)
		}
		a.say("proof: of all questions that were allowed since %s, %d were decided again and are allowed, and %d are allowed under the same conditions as before", stamp(p.Since), p.Replayed, p.Assumed)
		if p.Skipped > 0 {
			a.say("%d others are not allowed any more, with the proposal or without", p.Skipped)
		}
	}
	return a.show(p, func(w io.Writer) {
		for line := range strings.Lines(p.Text) {
			fmt.Fprintln(w, clean(strings.TrimRight(line, "\n")))
		}
	})
}
