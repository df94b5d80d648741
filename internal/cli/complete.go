package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
)

const (
	// completeLimit is how long a shell waits for names from the server; then there are none.
	completeLimit = 300 * time.Millisecond
	// completeItems bounds the names that are offered.
	completeItems = 100
)

// names offers what list returns. A server that is not there is no error: the user is typing.
func (a *app) names(cmd *cobra.Command, list func(ctx context.Context, c *client.Client) ([]cobra.Completion, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completeLimit)
	defer cancel()
	c, err := a.connectNow()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	found, err := list(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for i := range found {
		found[i] = clean(found[i])
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeFunctions(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.names(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		list, err := c.Functions(ctx)
		if err != nil {
			return nil, err
		}
		for _, f := range list.Functions {
			out = append(out, f.Name)
		}
		return out, nil
	})
}

func (a *app) completeSubscriptions(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.names(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		list, err := c.Subscriptions(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range list.Subscriptions {
			out = append(out, s.Name)
		}
		return out, nil
	})
}

func (a *app) completeLetters(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.names(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		list, err := c.DeadLetters(ctx, client.ListOptions{Limit: completeItems})
		if err != nil {
			return nil, err
		}
		for _, l := range list.DeadLetters {
			out = append(out, l.ID)
		}
		return out, nil
	})
}

func (a *app) completeTokens(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.names(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		list, err := c.Tokens(ctx)
		if err != nil {
			return nil, err
		}
		for i := range list.Tokens {
			if t := &list.Tokens[i]; tokenState(t, time.Now()) == "valid" {
				out = append(out, t.ID)
			}
		}
		return out, nil
	})
}
