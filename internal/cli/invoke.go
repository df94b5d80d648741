package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"sallyport/client"
)

// invocation is what invoke answers in JSON.
type invocation struct {
	EventID string         `json:"event_id"`
	Reply   jsontext.Value `json:"reply,omitempty"`
}

func (a *app) invokeCommand() *cobra.Command {
	var data, contentType string
	c := &cobra.Command{
		Use: "invoke FUNCTION", Short: "Run a function on data and print its reply", Args: exactly(1, "the name of a function"),
		Long: "Run a function on data and print its reply. The call is an event like any other: it is stored, and `event get` shows it.",
		Example: `  sallyport invoke price --data '{"items":[]}'
  sallyport invoke price --data @order.json`,
		ValidArgsFunction: a.completeFunctions,
	}
	flags := c.Flags()
	flags.StringVar(&data, "data", "null", "data: JSON, @file, or - for stdin")
	flags.StringVar(&contentType, "content-type", "application/json", "`type` of the data")
	c.RunE = a.with(func(ctx context.Context, c *client.Client, args []string) error {
		body, err := a.input(data)
		if err != nil {
			return err
		}
		out, err := c.Invoke(ctx, args[0], body, contentType)
		if err != nil {
			return err
		}
		if a.output == formText {
			a.say("event %s", clean(out.EventID))
		}
		return a.show(invocation{EventID: out.EventID, Reply: out.Reply}, func(w io.Writer) {
			if len(out.Reply) > 0 {
				fmt.Fprintf(w, "%s\n", out.Reply)
			}
		})
	})
	return c
}
