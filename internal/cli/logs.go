package cli

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
)

func (a *app) logsCommand() *cobra.Command {
	var o client.LogOptions
	c := &cobra.Command{
		Use: "logs", Short: "Show what functions log", Args: noArguments(),
		Example: `  sallyport logs -f
  sallyport logs --function price --since 10m`,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.logs(ctx, c, o)
		}),
	}
	flags := c.Flags()
	flags.BoolVarP(&o.Follow, "follow", "f", false, "go on with lines as they come")
	flags.StringVar(&o.Function, "function", "", "only this function")
	flags.StringVar(&o.Event, "event", "", "only the handling of the event with this `id`")
	flags.StringVar(&o.Since, "since", "", "only lines since `time`: 10m, or RFC 3339")
	flags.IntVar(&o.Limit, "limit", 100, "how many past lines at most, up to 1000")
	_ = c.RegisterFlagCompletionFunc("function", a.completeFunctions) // the flag is there
	return c
}

func (a *app) logs(ctx context.Context, c *client.Client, o client.LogOptions) error {
	if a.output != formJSON {
		return c.Logs(ctx, o, a.writeLine)
	}
	if o.Follow {
		return usage("lines without end are not one JSON value; use -o ndjson with --follow")
	}
	lines := []api.LogLine{}
	if err := c.Logs(ctx, o, func(l *api.LogLine) error { lines = append(lines, *l); return nil }); err != nil {
		return err
	}
	return a.writeJSON(lines, jsontext.WithIndent("  "))
}

// writeLine prints one line at once: somebody is watching.
func (a *app) writeLine(l *api.LogLine) error {
	if a.output != formText {
		return a.writeJSON(l)
	}
	_, err := fmt.Fprintf(a.env.Stdout, "%s  %-5s  %s  %s\n", clock(l.Time), clean(l.Level), clean(l.Function), clean(l.Message))
	return err
}
