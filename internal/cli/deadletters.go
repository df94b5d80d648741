package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport/api"
	"sallyport/client"
)

func (a *app) deadLetterCommand() *cobra.Command {
	return group("dead-letter", "Look at, redrive and discard dead letters", a.letterList(), a.letterGet(),
		a.lettersVerb(letterVerb{use: "redrive", short: "Deliver dead letters again", done: "redriven", do: (*client.Client).Redrive}),
		a.lettersVerb(letterVerb{use: "discard", short: "End dead letters for good", done: "discarded", do: (*client.Client).Discard, asks: true}))
}

func (a *app) letterList() *cobra.Command {
	var o client.ListOptions
	c := &cobra.Command{
		Use: "list", Short: "List dead letters", Args: noArguments(),
		Example: "  sallyport dead-letter list\n  sallyport dead-letter list --subscription new-orders -o ndjson",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.DeadLetters(ctx, o)
			if err != nil {
				return err
			}
			if err := showList(a, out, out.DeadLetters, table[api.DeadLetter]{
				noun: "dead letters", header: []string{"ID", "EVENT", "TYPE", "FUNCTION", "ATTEMPTS", "REASON", "LAST ERROR"},
				row: func(l *api.DeadLetter) []string {
					return []string{l.ID, l.EventID, l.Type, l.Function, fmt.Sprint(l.Attempts), l.Reason, l.LastError}
				},
				id: func(l *api.DeadLetter) string { return l.ID },
			}); err != nil {
				return err
			}
			a.more(out.Cursor)
			return nil
		}),
	}
	pageFlags(c, &o)
	c.Flags().StringVar(&o.Subscription, "subscription", "", "only those of this subscription")
	_ = c.RegisterFlagCompletionFunc("subscription", a.completeSubscriptions) // the flag is there
	return c
}

func (a *app) letterGet() *cobra.Command {
	var data bool
	c := &cobra.Command{
		Use: "get ID", Short: "Show a dead letter", Args: exactly(1, "the id of a dead letter"), ValidArgsFunction: a.completeLetters,
		Example: "  sallyport dead-letter get 10240.new-orders\n  sallyport dead-letter get 10240.new-orders --data -o json",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			l, err := c.DeadLetter(ctx, args[0], data)
			if err != nil {
				return err
			}
			return a.show(l, func(w io.Writer) {
				fields(w, "id", l.ID, "event", l.EventID, "source", l.Source, "type", l.Type, "subscription", l.Subscription,
					"function", l.Function, "reason", l.Reason, "attempts", fmt.Sprint(l.Attempts), "first error", l.FirstError,
					"last error", l.LastError, "first attempt", stamp(l.FirstAttempt), "dead since", stamp(l.DeadAt))
				if data && l.Event != nil {
					writeData(w, l.Event)
				}
			})
		}),
	}
	c.Flags().BoolVar(&data, "data", false, "show the event's data too")
	return c
}

// letterVerb is something that is done to a selection of dead letters.
type letterVerb struct {
	use, short, done string
	do               func(*client.Client, context.Context, api.DeadLetterSelection) (*api.DeadLetterResult, error)
	asks             bool // it cannot be undone
}

func (a *app) lettersVerb(v letterVerb) *cobra.Command {
	var sel api.DeadLetterSelection
	var yes bool
	c := &cobra.Command{
		Use: v.use + " [ID...]", Short: v.short, ValidArgsFunction: a.completeLetters,
		Example: fmt.Sprintf("  sallyport dead-letter %s 10240.new-orders\n  sallyport dead-letter %[1]s --subscription new-orders --dry-run", v.use),
		Args: func(_ *cobra.Command, args []string) error {
			given := 0
			for _, is := range []bool{len(args) > 0, sel.Subscription != "", sel.All} {
				if is {
					given++
				}
			}
			if given != 1 {
				return usage("name dead letters by id, or with --subscription, or --all")
			}
			return nil
		},
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			sel.IDs = args
			if v.asks && !yes && !sel.DryRun {
				if err := a.confirm(v.use + " these dead letters for good?"); err != nil {
					return err
				}
			}
			out, err := v.do(c, ctx, sel)
			if err != nil {
				return err
			}
			return a.showLetters(out, v.done)
		}),
	}
	c.Flags().StringVar(&sel.Subscription, "subscription", "", "all of this subscription")
	c.Flags().BoolVar(&sel.All, "all", false, "all of the namespace")
	c.Flags().BoolVar(&sel.DryRun, "dry-run", false, "only say which")
	if v.asks {
		c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	}
	_ = c.RegisterFlagCompletionFunc("subscription", a.completeSubscriptions) // the flag is there
	return c
}

func (a *app) showLetters(out *api.DeadLetterResult, done string) error {
	if err := showList(a, out, out.IDs, table[string]{
		noun: "dead letters", header: []string{"ID"},
		row: func(id *string) []string { return []string{*id} },
		id:  func(id *string) string { return *id },
	}); err != nil {
		return err
	}
	if out.DryRun {
		done = "would be " + done
	}
	if len(out.IDs) > 0 {
		a.say("%d %s", len(out.IDs), done)
	}
	return nil
}

// confirm asks a person. Where there is none, the answer has to come with the command.
func (a *app) confirm(question string) error {
	in, ok := a.env.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usage("there is no terminal to ask whether you mean it: add --yes")
	}
	fmt.Fprintf(a.env.Stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(io.LimitReader(in, 64)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	a.say("nothing was done")
	return outcome(exitFailed)
}
