package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
)

func (a *app) eventCommand() *cobra.Command {
	return group("event", "Look at events", a.eventGet(), a.eventList())
}

func (a *app) eventGet() *cobra.Command {
	var source string
	var data, wait bool
	c := &cobra.Command{
		Use: "get ID", Short: "Show an event and its whole way", Args: exactly(1, "the id of an event"),
		Example:           "  sallyport event get o-1\n  sallyport event get o-1 --wait --data -o json",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			o := client.EventOptions{Source: source, Data: data}
			if wait {
				o.Wait = time.Minute
			}
			e, err := c.Event(ctx, args[0], o)
			if err != nil {
				return err
			}
			return a.show(e, func(w io.Writer) {
				writeWay(w, e)
				if data {
					writeData(w, e)
				}
			})
		}),
	}
	c.Flags().StringVar(&source, "source", "", "source, when events of several sources have the id")
	c.Flags().BoolVar(&data, "data", false, "show the data too")
	c.Flags().BoolVarP(&wait, "wait", "w", false, "wait up to a minute for the outcome")
	return c
}

// writeData prints the data of an event, which somebody else wrote.
func writeData(w io.Writer, e *api.Event) {
	switch {
	case len(e.Data) > 0:
		fmt.Fprintf(w, "  data: %s\n", clean(string(e.Data)))
	case len(e.DataBase64) > 0:
		fmt.Fprintf(w, "  data (base64): %s\n", base64.StdEncoding.EncodeToString(e.DataBase64))
	}
}

func (a *app) eventList() *cobra.Command {
	var o client.ListOptions
	c := &cobra.Command{
		Use: "list", Short: "List events, newest first", Args: noArguments(),
		Example: "  sallyport event list --state dead --since 1h\n  sallyport event list --type order.created -o ndjson",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Events(ctx, o)
			if err != nil {
				return err
			}
			if err := showList(a, out, out.Events, table[api.Event]{
				noun: "events", header: []string{"ID", "TYPE", "STATE", "ACCEPTED", "SIZE", "SOURCE"},
				row: func(e *api.Event) []string {
					return []string{e.ID, e.Type, string(e.State), stamp(e.AcceptedAt), size(int64(e.Size)), e.Source}
				},
				id: func(e *api.Event) string { return e.ID },
			}); err != nil {
				return err
			}
			a.more(out.Cursor)
			return nil
		}),
	}
	pageFlags(c, &o)
	flags := c.Flags()
	flags.StringVar(&o.Type, "type", "", "only events of this type")
	flags.StringVar(&o.Source, "source", "", "only events from this source")
	flags.StringVar(&o.State, "state", "", "only events that are pending, done or dead")
	flags.StringVar(&o.Since, "since", "", "only events accepted since `time`: 10m, or RFC 3339")
	flags.StringVar(&o.Until, "until", "", "only events accepted before `time`: 10m, or RFC 3339")
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions( // the flag is there
		[]cobra.Completion{string(api.StatePending), string(api.StateDone), string(api.StateDead)}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// pageFlags are the flags of a list that comes in pages.
func pageFlags(c *cobra.Command, o *client.ListOptions) {
	c.Flags().IntVar(&o.Limit, "limit", 20, "how many at most, up to 1000")
	c.Flags().StringVar(&o.Cursor, "cursor", "", "where the page before ended")
}
