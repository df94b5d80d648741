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

func (a *app) policyCommand() *cobra.Command {
	return group("policy", "See what the gate decides, and why", a.policyDecisions())
}

func (a *app) policyDecisions() *cobra.Command {
	var o client.DecisionOptions
	c := &cobra.Command{
		Use: "decisions", Short: "Show what the gate decided in a period", Args: noArguments(),
		Long: `Decisions shows what the gate was asked in a period, each question once: who wanted to do what to what, whether it was
allowed, by which policies, and how often. Hours (UTC) are counted whole; they are kept for 30 days.`,
		Example: "  sallyport policy decisions --denied\n  sallyport policy decisions --since 168h --principal token:0123456789abcdef\n  sallyport policy decisions --on-server -o json",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Decisions(ctx, o)
			if err != nil {
				return err
			}
			return a.showDecisions(out)
		}),
	}
	flags := c.Flags()
	flags.StringVar(&o.Since, "since", "24h", "from this `time` (RFC 3339) or so long ago")
	flags.StringVar(&o.Until, "until", "", "to this `time` (RFC 3339) or so long ago (default: now)")
	flags.StringVar(&o.Principal, "principal", "", "only those of this `principal`")
	flags.BoolVar(&o.Denied, "denied", false, "only those that were denied")
	flags.BoolVar(&o.Server, "on-server", false, "those about the server itself, not about the namespace")
	flags.IntVar(&o.Limit, "limit", 0, "at most so many (default 100)")
	return c
}

func (a *app) showDecisions(out *api.DecisionList) error {
	if len(out.Decisions) == 0 && a.output == formText {
		a.say("no decisions since %s", stamp(out.Since))
		return nil
	}
	if out.More {
		a.say("there are others; --limit shows more")
	}
	return showEach(a, out, out.Decisions, func(w io.Writer) {
		rows := [][]string{{"LAST", "PRINCIPAL", "ACTION", "RESOURCE", "DECISION", "POLICIES", "COUNT"}}
		for i := range out.Decisions {
			rows = append(rows, decisionRow(&out.Decisions[i]))
		}
		columns(w, rows)
	})
}

func decisionRow(d *api.Decision) []string {
	decision, policies := "deny", strings.Join(d.Policies, ", ")
	if d.Allowed {
		decision = "allow"
	}
	if policies == "" {
		policies = "(no policy permits it)"
	}
	return []string{stamp(d.Last), d.Principal, d.Action, d.Kind + " " + d.Resource, decision, policies, fmt.Sprint(d.Count)}
}
