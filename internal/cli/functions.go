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

func (a *app) functionCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List functions", Args: noArguments(),
		Example: "  sallyport function list\n  sallyport function list --quiet",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Functions(ctx)
			if err != nil {
				return err
			}
			return showList(a, out, out.Functions, table[api.Function]{
				noun: "functions", header: []string{"NAME", "APP", "REVISION", "KIND", "MEMORY", "TIMEOUT", "DEPLOYED"},
				row: func(f *api.Function) []string {
					return []string{f.Name, f.App, fmt.Sprint(f.Revision), f.Kind, size(f.Memory), f.Timeout, stamp(f.Deployed)}
				},
				id: func(f *api.Function) string { return f.Name },
			})
		}),
	}
	get := &cobra.Command{
		Use: "get NAME", Short: "Show a function", Args: exactly(1, "the name of a function"),
		Example: "  sallyport function get price\n  sallyport function get price -o json", ValidArgsFunction: a.completeFunctions,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			f, err := c.Function(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(f, func(w io.Writer) {
				fields(w, "name", f.Name, "app", f.App, "revision", fmt.Sprint(f.Revision), "kind", f.Kind, "digest", f.Digest,
					"memory", size(f.Memory), "timeout", f.Timeout, "min instances", fmt.Sprint(f.MinInstances), "publishes", strings.Join(f.Publishes, ", "),
					"deployed", stamp(f.Deployed), "by", f.By, "approval", approvedText(f.Approval))
			})
		}),
	}
	return group("function", "Look at functions, and test them", list, get, a.statsCommand(), a.functionTest(), a.typesCommand())
}

func (a *app) subscriptionCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List subscriptions", Args: noArguments(),
		Example: "  sallyport subscription list\n  sallyport subscription list -o json",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Subscriptions(ctx)
			if err != nil {
				return err
			}
			return showList(a, out, out.Subscriptions, table[api.Subscription]{
				noun: "subscriptions", header: []string{"NAME", "FUNCTION", "TYPE", "PENDING", "DEAD", "STATE"},
				row: func(s *api.Subscription) []string {
					return []string{s.Name, s.Function, s.Filter.Type, fmt.Sprint(s.Pending), fmt.Sprint(s.Dead), pausedText(s.Paused)}
				},
				id: func(s *api.Subscription) string { return s.Name },
			})
		}),
	}
	return group("subscription", "Look at, pause and resume subscriptions", list,
		a.subscriptionVerb("get", "Show a subscription", (*client.Client).Subscription),
		a.subscriptionVerb("pause", "Hold back a subscription's deliveries", func(c *client.Client, ctx context.Context, name string) (*api.Subscription, error) {
			return c.SetPaused(ctx, name, true)
		}),
		a.subscriptionVerb("resume", "Let a paused subscription's deliveries go on", func(c *client.Client, ctx context.Context, name string) (*api.Subscription, error) {
			return c.SetPaused(ctx, name, false)
		}))
}

// subscriptionVerb returns a command that does something to one subscription and shows it.
func (a *app) subscriptionVerb(verb, short string, do func(*client.Client, context.Context, string) (*api.Subscription, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: exactly(1, "the name of a subscription"), ValidArgsFunction: a.completeSubscriptions,
		Example: fmt.Sprintf("  sallyport subscription %s new-orders\n  sallyport subscription %[1]s new-orders -o json", verb),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			s, err := do(c, ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(s, func(w io.Writer) {
				fields(w, "name", s.Name, "app", s.App, "function", s.Function, "type", s.Filter.Type, "source", s.Filter.Source,
					"subject", s.Filter.Subject, "when", s.When, "retry", fmt.Sprintf("%d attempts, backoff %s to %s, for %s",
						s.Retry.Attempts, s.Retry.Backoff, s.Retry.MaxBackoff, s.Retry.MaxAge),
					"state", pausedText(s.Paused), "pending", fmt.Sprint(s.Pending), "dead letters", fmt.Sprint(s.Dead))
			})
		}),
	}
}

func pausedText(paused bool) string {
	if paused {
		return "paused"
	}
	return "active"
}
