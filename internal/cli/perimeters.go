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

func (a *app) perimeterCommand() *cobra.Command {
	return group("perimeter", "See which borders there are, what crosses them, and what one would deny",
		a.perimeterList(), a.perimeterGet(), a.perimeterTest(), a.perimeterExplain())
}

func (a *app) perimeterList() *cobra.Command {
	var server bool
	c := &cobra.Command{
		Use: "list", Short: "List the perimeters of the namespace, or those of the server", Args: noArguments(),
		Example: "  sallyport perimeter list\n  sallyport perimeter list --on-server",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.Perimeters(ctx, server)
			if err != nil {
				return err
			}
			return showList(a, list, list.Perimeters, table[api.Perimeter]{
				noun: "perimeters", header: []string{"NAME", "MODE", "EVENT TYPES", "FUNCTIONS", "OTHERS", "BRIDGES", "FROM"},
				row: func(p *api.Perimeter) []string {
					return []string{p.Name, p.Mode, strings.Join(p.EventTypes, ", "), strings.Join(p.Functions, ", "), strings.Join(otherMembers(p), ", "), fmt.Sprint(len(p.Bridges)), fmt.Sprintf("%s:%d", p.File, p.Line)}
				},
				id: func(p *api.Perimeter) string { return p.Name },
			})
		}),
	}
	return onServer(c, &server)
}

func (a *app) perimeterGet() *cobra.Command {
	var server bool
	c := &cobra.Command{
		Use: "get NAME", Short: "Show one perimeter: what is inside, its bridges, and what it demands", Args: exactly(1, "the name of a perimeter"),
		Example:           "  sallyport perimeter get cards",
		ValidArgsFunction: a.completePerimeters,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.Perimeter(ctx, server, args[0])
			if err != nil {
				return err
			}
			return a.show(p, func(w io.Writer) { writePerimeter(w, p) })
		}),
	}
	return onServer(c, &server)
}

// otherMembers are those that are neither event types nor functions, as bridges name them.
func otherMembers(p *api.Perimeter) (out []string) {
	for _, m := range []struct {
		word  string
		names []string
	}{{"secret", p.Secrets}, {"host", p.Hosts}, {"audience", p.Audiences}, {"kv", p.KV}, {"sqlite", p.SQLite}, {"blob", p.Blob}} {
		for _, name := range m.names {
			out = append(out, m.word+":"+name)
		}
	}
	return out
}

func writePerimeter(w io.Writer, p *api.Perimeter) {
	fields(w, "name", p.Name, "description", p.Description, "mode", p.Mode, "event types", strings.Join(p.EventTypes, ", "),
		"functions", strings.Join(p.Functions, ", "), "secrets", strings.Join(p.Secrets, ", "), "hosts", strings.Join(p.Hosts, ", "),
		"audiences", strings.Join(p.Audiences, ", "), "kv", strings.Join(p.KV, ", "), "sqlite", strings.Join(p.SQLite, ", "),
		"blob", strings.Join(p.Blob, ", "), "from", fmt.Sprintf("%s:%d", p.File, p.Line))
	for i := range p.Levels {
		l := &p.Levels[i]
		fmt.Fprintf(w, "\nwho comes in must meet the level %s\n", clean(l.Name))
		certificate := ""
		if l.MTLS {
			certificate = "of the client"
		}
		fields(w, "  address", strings.Join(l.IP, ", "), "  certificate", certificate, "  hours (UTC)", strings.Join(l.Hours, "; "),
			"  strength", strings.Join(l.Strength, ", "), "  methods", strings.Join(l.Methods, ", "))
	}
	for i := range p.Bridges {
		b := &p.Bridges[i]
		fmt.Fprintf(w, "\nbridge %s\n", clean(b.Name))
		fields(w, "  from", strings.Join(b.From, ", "), "  to", strings.Join(b.To, ", "), "  actions", strings.Join(b.Actions, ", "), "  when", b.When)
	}
}

func (a *app) perimeterTest() *cobra.Command {
	var since string
	var limit int
	var server bool
	c := &cobra.Command{
		Use: "test NAME", Short: "Show what a perimeter denies, or in dry-run would deny", Args: exactly(1, "the name of a perimeter"),
		Long: `Test shows what was asked in a period and a perimeter denied, or, in dry-run, would have denied; and the subscriptions and
grants of the apps that its border is in the way of, with the bridge that each would need. Exit code 3 says that there is something.
What a perimeter that is not applied yet would deny is shown by sallyport apply --dry-run.`,
		Example:           "  sallyport perimeter test cards\n  sallyport perimeter test cards --since 720h -o json",
		ValidArgsFunction: a.completePerimeters,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			out, err := c.TestPerimeter(ctx, server, args[0], since, limit)
			if err != nil {
				return err
			}
			if err := a.show(out, func(w io.Writer) { writePerimeterTest(w, out) }); err != nil {
				return err
			}
			if len(out.Asked)+len(out.Declared) > 0 {
				return outcome(exitFound)
			}
			return nil
		}),
	}
	c.Flags().StringVar(&since, "since", "720h", "since this `time` (RFC 3339) or so long ago")
	c.Flags().IntVar(&limit, "limit", 0, "at most so many questions (default 100)")
	return onServer(c, &server)
}

func writePerimeterTest(w io.Writer, t *api.PerimeterTest) {
	verb := "denied"
	if t.Mode == "dry-run" {
		verb = "would have denied"
	}
	if len(t.Asked) == 0 {
		fmt.Fprintf(w, "%s %s nothing that was asked since %s\n", clean(t.ID), verb, stamp(t.Since))
	} else {
		fmt.Fprintf(w, "%s %s, since %s:\n", clean(t.ID), verb, stamp(t.Since))
		rows := [][]string{{"LAST", "PRINCIPAL", "ACTION", "RESOURCE", "COUNT"}}
		for i := range t.Asked {
			d := &t.Asked[i]
			rows = append(rows, []string{stamp(d.Last), d.Principal, d.Action, d.Kind + " " + d.Resource, fmt.Sprint(d.Count)})
		}
		columns(w, rows)
	}
	if t.More {
		fmt.Fprintln(w, "and others; --limit shows more")
	}
	for i := range t.Declared {
		d := &t.Declared[i]
		fmt.Fprintf(w, "%s: %s %s %s has no bridge%s\n", clean(d.By), clean(d.From), clean(d.Action), clean(d.Resource), clean(neededBridge(d.Needed)))
	}
}

// writeCrossings says in a plan what perimeters will be in the way of.
func writeCrossings(w io.Writer, list []api.Crossing, more bool) {
	for i := range list {
		x := &list[i]
		verb := "denies"
		if x.Mode == "dry-run" {
			verb = "in dry-run would deny"
		}
		fmt.Fprintf(w, "! %s %s what %s is for: %s %s %s%s\n", clean(x.Perimeter), verb, clean(x.By), clean(x.From), clean(x.Action), clean(x.Resource),
			clean(neededBridge(x.Needed)))
	}
	if more {
		fmt.Fprintln(w, "! and others; sallyport perimeter test shows them")
	}
}

// neededBridge says which bridge would do.
func neededBridge(b *api.Bridge) string {
	if b == nil {
		return ""
	}
	return fmt.Sprintf("; one would be { from = %q, to = %q, actions = %q }", b.From, b.To, b.Actions)
}

func (a *app) perimeterExplain() *cobra.Command {
	q := client.Question{}
	c := &cobra.Command{
		Use: "explain", Short: "Say which borders something crosses, by which bridge, and what is lacking", Args: noArguments(),
		Long: `Explain says for each perimeter whose border a question crosses which bridges lead there, why each is taken or not, and which access
levels are met. A delivery is asked about with the event type as --principal and the action deliver. Exit code 5 says that a
perimeter denies it.`,
		Example: "  sallyport perimeter explain --principal event_type:default/card.received --action deliver --resource function:default/charge\n" +
			"  sallyport perimeter explain --principal user:ann --action readEvents --resource event_type:default/card.charged --address 192.0.2.1",
		PreRunE: needQuestion(&q),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.ExplainDecision(ctx, q)
			if err != nil {
				return err
			}
			if err := a.show(out, func(w io.Writer) {
				if len(out.Perimeters) == 0 {
					fmt.Fprintln(w, "it crosses no border")
				}
				writeVerdicts(w, out.Perimeters)
			}); err != nil {
				return err
			}
			for i := range out.Perimeters {
				if v := &out.Perimeters[i]; v.Denied && v.Mode != "dry-run" {
					return outcome(exitDenied)
				}
			}
			return nil
		}),
	}
	questionFlags(c, &q)
	return c
}

// writeVerdicts says what perimeters make of a question.
func writeVerdicts(w io.Writer, list []api.PerimeterVerdict) {
	word := map[bool]string{true: "yes", false: "no"}
	for i := range list {
		v := &list[i]
		verdict := "denies it"
		switch {
		case v.Denied && v.Mode == "dry-run":
			verdict = "would deny it, but is in dry-run"
		case !v.Denied:
			verdict = "lets it go by " + v.Bridge
		}
		fmt.Fprintf(w, "\n%s (%s, to %s): %s\n", clean(v.ID), clean(v.Direction), clean(v.To), clean(verdict))
		for _, b := range v.Bridges {
			text := fmt.Sprintf("%s: from here %s, for the action %s", b.ID, word[b.From], word[b.Action])
			if b.Condition != nil {
				text += fmt.Sprintf(", when %s -> %s", strings.Join(strings.Fields(b.Condition.Text), " "), word[b.Condition.Holds])
				if b.Condition.Error != "" {
					text += " (error: " + b.Condition.Error + ")"
				}
			}
			fmt.Fprintf(w, "    %s\n", clean(text))
		}
		for _, l := range v.Levels {
			text := "level " + l.Name + ": met"
			if !l.Holds {
				text = "level " + l.Name + ": lacks " + strings.Join(l.Lacks, ", ")
			}
			fmt.Fprintf(w, "    %s\n", clean(text))
		}
		if v.Needed != nil {
			fmt.Fprintf(w, "    no bridge is for this%s\n", clean(neededBridge(v.Needed)))
		}
	}
}

func (a *app) completePerimeters(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.names(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		list, err := c.Perimeters(ctx, false)
		if err != nil {
			return nil, err
		}
		for i := range list.Perimeters {
			out = append(out, list.Perimeters[i].Name)
		}
		return out, nil
	})
}
