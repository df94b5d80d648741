package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/bundle"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/scaffold"
)

func (a *app) initCommand() *cobra.Command {
	language := string(scaffold.TypeScript)
	var all []string
	for _, l := range scaffold.Languages() {
		all = append(all, string(l))
	}
	known := strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
	c := &cobra.Command{
		Use: "init NAME", Short: "Make the folder of a new app", Args: exactly(1, "the name of the app, which becomes its folder"),
		Long: `Make the folder of a new app, with a function in it that can be tried at once. In Go, Rust or C the SDK is written beside it, and ./build makes the
WebAssembly module with the tools of the language, or says which are missing.`,
		Example:           "  sallyport init hello && cd hello && sallyport dev\n  sallyport init hello --language go && cd hello && ./build && sallyport dev\n  sallyport init apps/billing",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains(all, language) {
				return usage("there is no --language %s to begin with; want %s", clean(language), known)
			}
			files, err := scaffold.Write(args[0], scaffold.Language(language))
			if err != nil {
				return err
			}
			if err := showEach(a, files, files, func(w io.Writer) {
				for _, f := range files {
					fmt.Fprintln(w, clean(f))
				}
			}); err != nil {
				return err
			}
			build := ""
			if scaffold.Language(language).Built() {
				build = "./build && "
			}
			a.say("\nnext: cd %s && %ssallyport dev", clean(args[0]), build)
			return nil
		},
	}
	c.Flags().StringVar(&language, "language", language, "what its function is written in: "+known)
	return c
}

func (a *app) applyCommand() *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use: "apply [DIR]", Short: "Deploy the app in a folder",
		Long: `Deploy the app in DIR (default: this folder). Everything is checked first; on an error nothing is changed. The
databases of sql grants are asked whether they take each named statement, and run none: one that cannot be reached is a warning. In a namespace that demands
approval of what functions gain, an app with such a gain waits for it, and the exit code is 3.`,
		Example: "  sallyport apply --dry-run\n  sallyport apply ./webshop --namespace shop",
		Args:    atMostOne("one folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := folder(args)
			// The sources come before the server: their faults need no connection.
			b, err := loadApp(dir)
			if err != nil {
				return inFolder(err, dir)
			}
			return a.with(func(ctx context.Context, c *client.Client, _ []string) error {
				first := isNewNamespace(ctx, c, c.Namespace())
				plan, err := b.apply(ctx, c, dry)
				if err != nil {
					return inFolder(err, dir)
				}
				if err := a.show(plan, func(w io.Writer) { writePlan(w, plan) }); err != nil {
					return err
				}
				if first && plan.Applied {
					a.tellNewNamespace(c.Namespace())
				} else if first {
					a.say("there is no namespace %s yet: to apply this makes it", clean(c.Namespace()))
				}
				a.warnUnused(b)
				a.warnUnchecked(plan)
				if plan.Approval != nil {
					a.say("somebody else has to approve this: sallyport approval approve %s --namespace %s\nwho may: sallyport policy who-can approveGrants namespace:%s",
						clean(plan.Approval.ID), c.Namespace(), c.Namespace())
					return outcome(exitFound)
				}
				return nil
			})(cmd, args)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	return c
}

// loaded is an app as it is in a folder.
type loaded struct {
	*api.Bundle
	// Policies are those beside the manifest, when there is a folder for them.
	Policies    map[string]string
	HasPolicies bool
	app         *manifest.App
}

func loadApp(dir string) (*loaded, error) {
	b, m, err := bundle.Load(dir)
	if err != nil {
		return nil, err
	}
	out := &loaded{Bundle: b, app: m}
	out.Policies, out.HasPolicies, err = bundle.AppPolicies(dir)
	return out, err
}

// warnUnused says which grants could go: what a function may reach and does not need is of use to others alone.
func (a *app) warnUnused(b *loaded) {
	if a.quiet {
		return
	}
	idle := bundle.IdleGrants(b.Bundle, b.app)
	a.warnOf(idle.Unused, "take out of the manifest what is not used")
	a.warnOf(idle.Unnamed, "take it out of the manifest, unless the module makes up the name when it runs")
}

// warnOf says what to do, and shows the places in the manifest that it is about.
func (a *app) warnOf(faults []problem.Fault, what string) {
	if len(faults) == 0 {
		return
	}
	a.say("warning: %s", what)
	for _, f := range faults {
		place(a.env.Stderr, fieldError(f), "", "")
	}
}

// warnUnchecked says of which grants it is not known whether their statements are in order.
func (a *app) warnUnchecked(plan *api.Plan) {
	for _, u := range plan.Unchecked {
		a.say("warning: the statements of grant %s of function %s were not checked: %s [%s]", clean(u.Grant), clean(u.Function), clean(u.Detail), clean(u.Code))
		if u.Hint != "" {
			a.say("  hint: %s", clean(u.Hint))
		}
	}
	if len(plan.Unchecked) > 0 {
		a.say("check them again: sallyport apply --dry-run")
	}
}

// apply applies the app and its policies: both are checked before either is changed. Policies that do not change need
// nobody who may change them.
func (l *loaded) apply(ctx context.Context, c *client.Client, dry bool) (*api.Plan, error) {
	if !l.HasPolicies {
		return c.Apply(ctx, l.Bundle, dry)
	}
	policies, err := c.ApplyPolicies(ctx, false, string(l.app.Name), l.Policies, true)
	if err != nil {
		return nil, err
	}
	plan, err := c.Apply(ctx, l.Bundle, true)
	if err == nil && !dry {
		if len(policies.Created)+len(policies.Updated)+len(policies.Deleted) > 0 {
			if policies, err = c.ApplyPolicies(ctx, false, string(l.app.Name), l.Policies, false); err != nil {
				return nil, err
			}
		}
		plan, err = c.Apply(ctx, l.Bundle, false)
	}
	if err != nil {
		return nil, err
	}
	plan.Policies = policies
	return plan, nil
}

func folder(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

func writePlan(w io.Writer, p *api.Plan) {
	writeChanges(w, p.Changes)
	writeGrants(w, p.Grants)
	writeCrossings(w, p.Crossings, false)
	if p.Policies != nil && len(p.Policies.Created)+len(p.Policies.Updated)+len(p.Policies.Deleted) > 0 {
		writePolicyPlan(w, p.Policies)
	}
	if p.Supersedes != "" {
		fmt.Fprintf(w, "the approval %s is superseded by this, and cannot be given any more\n", clean(p.Supersedes))
	}
	switch {
	case p.Approval != nil:
		fmt.Fprintf(w, "app %s waits for approval %s until %s, to become revision %d; nothing was changed\n", clean(p.App), clean(p.Approval.ID),
			stamp(p.Approval.Expires), p.Revision)
	case p.NeedsApproval:
		fmt.Fprintf(w, "app %s would become revision %d once somebody else approves what functions gain; nothing was changed\n", clean(p.App), p.Revision)
	case len(p.Changes) == 0:
		fmt.Fprintf(w, "app %s is up to date, revision %d\n", clean(p.App), p.Revision)
	case p.Applied:
		fmt.Fprintf(w, "app %s is active, revision %d\n", clean(p.App), p.Revision)
	default:
		fmt.Fprintf(w, "app %s would become revision %d; nothing was changed\n", clean(p.App), p.Revision)
	}
}

func writeChanges(w io.Writer, changes []api.Change) {
	sign := map[api.ChangeAction]string{api.ActionCreate: "+", api.ActionUpdate: "~", api.ActionDelete: "-"}
	var rows [][]string
	for _, c := range changes {
		rows = append(rows, []string{sign[c.Action] + " " + c.Kind, c.Name, c.Detail})
	}
	columns(w, rows)
}

// writeGrants writes what functions gain and lose. What reveals a secret is said loudest.
func writeGrants(w io.Writer, changes []api.GrantChange) {
	sign := map[string]string{"new": "+", "gone": "-", "unused": "?"}
	function := ""
	for _, c := range changes {
		if c.Function != function {
			function = c.Function
			fmt.Fprintf(w, "grants of %s\n", clean(function))
		}
		said := clean(c.Change)
		if c.UnusedDays > 0 {
			said = fmt.Sprintf("not used for %d days", c.UnusedDays)
		}
		fmt.Fprintf(w, "  %s %s (%s) %s\n", cmp.Or(sign[c.Change], "~"), clean(c.Grant), clean(c.Kind), said)
		for _, gain := range c.Gains {
			fmt.Fprintf(w, "      + %s\n", clean(gain))
		}
		for _, loss := range c.Loses {
			fmt.Fprintf(w, "      - %s\n", clean(loss))
		}
		if c.RevealsSecret {
			fmt.Fprintf(w, "      !!! the function GETS THE VALUE of this secret\n")
		}
	}
}
