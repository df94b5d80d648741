package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/bundle"
	"sallyport/internal/problem"
)

func (a *app) policyCommand() *cobra.Command {
	return group("policy", "See who may do what, why, and what a change of policies changes",
		a.policyList(), a.policyExplain(), a.policyWhoCan(), a.policyReach(), a.policyDecisions(), a.policyUnused(), a.policyWildcards(),
		a.policyPropose(), a.policyBoundary(), a.policyApply(),
		a.policySchema(), a.policyValidate(), a.policyTest(), a.policyImport())
}

// onServer adds the flag that asks about the server itself.
func onServer(c *cobra.Command, to *bool) *cobra.Command {
	c.Flags().BoolVar(to, "on-server", false, "about the server itself, not about what is in the namespace")
	return c
}

func (a *app) policyList() *cobra.Command {
	var server bool
	var text bool
	c := &cobra.Command{
		Use: "list [ID]", Short: "List the policies that are in force, or show one", Args: atMostOne("the id of a policy"),
		Example: "  sallyport policy list\n  sallyport policy list operator-all\n  sallyport policy list --text",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			list, err := c.Policies(ctx, server)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				list.Policies = slices.DeleteFunc(list.Policies, func(p api.Policy) bool { return p.ID != args[0] })
				if len(list.Policies) == 0 {
					return problem.New(problem.NotFound, "policy.not_found", "there is no policy %q", clean(args[0])).
						WithHint("list them with `sallyport policy list`")
				}
			}
			if a.output == formText && (text || len(args) == 1) {
				return a.show(list, func(w io.Writer) {
					for _, p := range list.Policies {
						fmt.Fprintf(w, "// %s\n%s\n\n", clean(from(&p)), p.Text)
					}
				})
			}
			return showList(a, list, list.Policies, table[api.Policy]{
				noun: "policies", header: []string{"ID", "EFFECT", "FROM"},
				row: func(p *api.Policy) []string { return []string{p.ID, p.Effect, from(p)} },
				id:  func(p *api.Policy) string { return p.ID },
			})
		}),
	}
	c.Flags().BoolVar(&text, "text", false, "show their texts")
	return onServer(c, &server)
}

// from says where a policy comes from.
func from(p *api.Policy) string {
	switch {
	case p.BuiltIn:
		return "built in"
	case p.Namespace == "":
		return fmt.Sprintf("the server, %s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

func (a *app) policyExplain() *cobra.Command {
	var q client.Question
	c := &cobra.Command{
		Use: "explain", Short: "Say how a question is decided, and by which policies", Args: noArguments(),
		Long: `Explain says whether a principal may do something to something, which policies determine that, and what the conditions of
each policy that is about it come to. Exit code 5 says that it is denied.`,
		Example: "  sallyport policy explain --principal token:0123456789abcdef --action publish --resource event_type:default/order.created\n" +
			"  sallyport policy explain --principal function:shop/price --action publish --resource event_type:shop/order.priced --size 2000",
		PreRunE: needQuestion(&q),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.ExplainDecision(ctx, q)
			if err != nil {
				return err
			}
			if err := a.show(out, func(w io.Writer) { writeExplanation(w, out) }); err != nil {
				return err
			}
			if !out.Allowed {
				return outcome(exitDenied)
			}
			return nil
		}),
	}
	questionFlags(c, &q)
	return c
}

// needQuestion holds a question to its three parts.
func needQuestion(q *client.Question) func(*cobra.Command, []string) error {
	return func(*cobra.Command, []string) error {
		if q.Principal == "" || q.Action == "" || q.Resource == "" {
			return usage("a question has --principal, --action and --resource")
		}
		return nil
	}
}

// questionFlags adds the flags of a question.
func questionFlags(c *cobra.Command, q *client.Question) {
	flags := c.Flags()
	flags.StringVar(&q.Principal, "principal", "", "who: user:ID, service:ID, token:ID or function:NAMESPACE/NAME")
	flags.StringVar(&q.Action, "action", "", "what, such as publish")
	flags.StringVar(&q.Resource, "resource", "", "to what: event_type:NAMESPACE/TYPE, function:NAMESPACE/NAME, secret:NAMESPACE/NAME, grant:NAMESPACE/FUNCTION/NAME, namespace:NAME or server")
	flags.StringVar(&q.Address, "address", "", "from this `address`; with --caused-by, so are --mtls and --at of the request that sent the event")
	flags.BoolVar(&q.MutualTLS, "mtls", false, "with a client certificate")
	flags.StringVar(&q.At, "at", "", "at this `time` (RFC 3339) or so long ago (default: now)")
	flags.StringVar(&q.Source, "source", "", "source of the event")
	flags.StringVar(&q.Subject, "subject", "", "subject of the event")
	flags.StringVar(&q.Size, "size", "", "bytes of the event's data")
	flags.StringVar(&q.CausedBy, "caused-by", "", "who sent the event because of which the function asks: token:ID, user:ID, service:ID or unknown")
	flags.StringVar(&q.Through, "through", "", "the functions between the two, as `NAMESPACE/NAME`,…")
	onServer(c, &q.Server)
}

func writeExplanation(w io.Writer, e *api.PolicyExplanation) {
	verdict := "may not"
	if e.Allowed {
		verdict = "may"
	}
	by := "no policy permits it"
	if e.Action == "deliver" {
		by = "no perimeter is in the way"
	}
	if len(e.Policies) > 0 {
		by = "by " + strings.Join(e.Policies, ", ")
	}
	fmt.Fprintf(w, "%s %s %s %s: %s\n", clean(e.Principal), verdict, clean(e.Action), clean(e.Resource), clean(by))
	if e.OnBehalf {
		fmt.Fprintln(w, "the function is permitted this for callers who may do it as well; the answer is about both")
	}
	if e.Approval != nil {
		fmt.Fprintf(w, "what the function gained last was approved: %s\n", clean(approvedText(e.Approval)))
	}
	if len(e.DryRun) > 0 {
		fmt.Fprintf(w, "in dry-run, and so without effect, denied by %s\n", clean(strings.Join(e.DryRun, ", ")))
	}
	for i := range e.Matched {
		m := &e.Matched[i]
		mark := " "
		if m.Determined {
			mark = "*"
		}
		holds := "does not apply"
		switch {
		case m.Error != "":
			holds = "fails: " + m.Error
		case m.Holds:
			holds = "applies"
		}
		fmt.Fprintf(w, "\n%s %s %s %s (%s)\n", mark, m.Policy.Effect, clean(m.Policy.ID), clean(holds), clean(from(&m.Policy)))
		for _, c := range m.Conditions {
			word, truth := "when", "no"
			if c.Unless {
				word = "unless"
			}
			if c.Holds {
				truth = "yes"
			}
			if c.Error != "" {
				truth = "error: " + c.Error
			}
			fmt.Fprintf(w, "    %s %s -> %s\n", word, clean(strings.Join(strings.Fields(c.Text), " ")), clean(truth))
		}
	}
	writeVerdicts(w, e.Perimeters)
}

func (a *app) policyWhoCan() *cobra.Command {
	var action, resource string
	var server bool
	c := &cobra.Command{
		Use: "who-can ACTION RESOURCE", Short: "List who may do something to something", Args: exactly(2, "an action and a resource"),
		Long: `Who-can lists the principals that may do ACTION to RESOURCE: those of all tokens and functions, and whoever asked for something
in the last 30 days. Where a policy looks at circumstances, such as an address, it says "perhaps".`,
		Example: "  sallyport policy who-can invoke function:default/price\n  sallyport policy who-can manageTokens server --on-server",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			action, resource = args[0], args[1]
			out, err := c.WhoCan(ctx, server, action, resource)
			if err != nil {
				return err
			}
			return a.showAccess(out, fmt.Sprintf("principals that may %s %s", clean(action), clean(resource)))
		}),
	}
	return onServer(c, &server)
}

func (a *app) showAccess(out *api.AccessList, noun string) error {
	return showList(a, out, out.Access, table[api.Access]{
		noun: noun, header: []string{"PRINCIPAL", "ACTION", "RESOURCE", "", "POLICIES", ""},
		row: func(x *api.Access) []string {
			sure := ""
			if len(x.Assumed) > 0 {
				sure = "perhaps"
			}
			way := ""
			if len(x.Via) > 0 {
				way = "by way of " + strings.Join(x.Via, " -> ")
			}
			return []string{x.Principal, x.Action, x.Resource, sure, strings.Join(x.Policies, ", "), way}
		},
		id: func(x *api.Access) string { return x.Principal + " " + x.Action + " " + x.Resource },
	})
}

func (a *app) policyApply() *cobra.Command {
	var server, dry bool
	var name string
	c := &cobra.Command{
		Use: "apply [FOLDER]", Short: "Apply the policies in a folder, after showing what they change", Args: atMostOne("one folder"),
		Long: "Apply makes the files FOLDER/*.cedar (default: policies) all policies of a name, in the namespace or with --on-server of the\n" +
			"whole server. `sallyport apply` does so for the policies of an app.",
		Example: "  sallyport policy apply --dry-run\n  sallyport policy apply ./guard --name company --on-server",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "policies"
			if len(args) == 1 {
				dir = args[0]
			}
			files, err := bundle.Policies(dir)
			if err != nil {
				return err
			}
			return a.with(func(ctx context.Context, c *client.Client, _ []string) error {
				plan, err := c.ApplyPolicies(ctx, server, name, files, dry)
				if err != nil {
					return inFolder(err, dir)
				}
				return a.show(plan, func(w io.Writer) { writePolicyPlan(w, plan) })
			})(cmd, args)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&dry, "dry-run", false, "only show what would change")
	flags.StringVar(&name, "name", "policies", "`name` that they are applied under: what was under it before is replaced")
	return onServer(c, &server)
}

// writePolicyPlan says what a change of policies changes.
func writePolicyPlan(w io.Writer, p *api.PolicyPlan) {
	for _, c := range []struct {
		sign string
		ids  []string
	}{{"+", p.Created}, {"~", p.Updated}, {"-", p.Deleted}} {
		for _, id := range c.ids {
			fmt.Fprintf(w, "%s policy        %s\n", c.sign, clean(id))
		}
	}
	writeCrossings(w, p.Crossings, p.CrossingsMore)
	word := map[bool]string{true: "may", false: "may not any more"}
	for _, d := range p.Access {
		perhaps := ""
		if len(d.Assumed) > 0 {
			perhaps = "perhaps "
		}
		fmt.Fprintf(w, "  %s %s%s %s %s (%s)\n", clean(d.Principal), perhaps, word[d.Allowed], clean(d.Action), clean(d.Resource), clean(strings.Join(d.Policies, ", ")))
	}
	if p.AccessMore {
		fmt.Fprintln(w, "  and others")
	}
	if len(p.Created)+len(p.Updated)+len(p.Deleted) == 0 {
		fmt.Fprintln(w, "the policies are up to date")
		return
	}
	for _, d := range p.Replay {
		verdict := "denied"
		if d.Allowed {
			verdict = "allowed"
		}
		fmt.Fprintf(w, "  of the last 30 days, %d times %s %s %s would have been %s (%s)\n", d.Count, clean(d.Principal), clean(d.Action), clean(d.Resource), verdict, clean(strings.Join(d.Policies, ", ")))
	}
	if len(p.Replay) == 0 {
		fmt.Fprintf(w, "  all %d requests of the last 30 days would have been decided as they were\n", p.Replayed)
	}
	if p.ReplayMore {
		fmt.Fprintln(w, "  and others")
	}
	if p.Applied {
		fmt.Fprintln(w, "the policies are in force")
	} else {
		fmt.Fprintln(w, "nothing was changed")
	}
}

func (a *app) policyDecisions() *cobra.Command {
	var o client.DecisionOptions
	c := &cobra.Command{
		Use: "decisions", Short: "Show what the gate decided in a period", Args: noArguments(),
		Long: `Decisions shows what the gate was asked in a period, each question once: who wanted to do what to what, whether it was
allowed, by which policies, and how often, counted by days (UTC). They are kept for 30 days.`,
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
	flags.IntVar(&o.Limit, "limit", 0, "at most so many (default 100)")
	return onServer(c, &o.Server)
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
	decision, policies := "deny", strings.Join(slices.Concat(d.Policies, d.Bridges), ", ")
	if d.Allowed {
		decision = "allow"
	}
	if len(d.DryRun) > 0 {
		decision += " (dry-run: deny)"
		policies = strings.Join(slices.Concat(d.Policies, d.Bridges, d.DryRun), ", ")
	}
	if policies == "" {
		policies = "(no policy permits it)"
	}
	return []string{stamp(d.Last), d.Principal, d.Action, d.Kind + " " + d.Resource, decision, policies, fmt.Sprint(d.Count)}
}
