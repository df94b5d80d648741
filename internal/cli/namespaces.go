package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/manifest"
)

// isNewNamespace reports whether a namespace is not there yet, as far as the caller may know. The first app or token of an operator of the
// server makes it, and so does one with a misspelt name.
func isNewNamespace(ctx context.Context, c *client.Client, name string) bool {
	if name == "" {
		return false
	}
	_, err := c.DescribeNamespace(ctx, name)
	p, ok := errors.AsType[*client.Problem](err)
	return ok && p.Code == "server.namespace_not_found"
}

// tellNewNamespace says that a namespace was made by the way.
func (a *app) tellNewNamespace(name string) {
	a.say("there was no namespace %s: this made it. If the name was not meant: sallyport namespace delete %s", clean(name), clean(name))
}

func (a *app) namespaceCommand() *cobra.Command {
	return group("namespace", "Make, show, change and delete namespaces", a.namespaceCreate(), a.namespaceList(), a.namespaceGet(),
		a.namespaceUpdate(), a.namespaceDelete())
}

// quotaNames are the names of quotas, and what each bounds.
var quotaNames = []cobra.Completion{
	"events_per_second", "functions", "module_bytes", "pending_events", "stored_bytes", "subscriptions", "tokens",
}

const aboutQuotas = `A quota is NAME=VALUE, and 0 is none. events_per_second, pending_events and stored_bytes bound the events that come in: a
producer is told to come again, and nothing that was accepted is lost. stored_bytes counts what functions keep in blobs, kv and SQLite,
too, and refuses them more. functions, subscriptions, module_bytes and tokens bound what is there: one more is refused.`

// quotaFlag reads the quotas of a command line. Bytes may have a unit.
func quotaFlag(list []string) (map[string]int64, error) {
	out := map[string]int64{}
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if !ok || !slices.Contains(quotaNames, name) {
			return nil, usage("--quota %q: want NAME=VALUE, where NAME is one of %s", text, strings.Join(quotaNames, ", "))
		}
		if _, twice := out[name]; twice {
			return nil, usage("--quota %s is there more than once", name)
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil && strings.HasSuffix(name, "_bytes") {
			n, err = manifest.ParseSize(value)
		}
		if err != nil || n < 0 {
			return nil, usage("--quota %s: want a number%s, not %q", name, map[bool]string{true: " or a size such as 10MiB"}[strings.HasSuffix(name, "_bytes")], value)
		}
		out[name] = n
	}
	return out, nil
}

func (a *app) namespaceCreate() *cobra.Command {
	var req api.NamespaceRequest
	var quotas []string
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a namespace", Args: exactly(1, "the name of a namespace"),
		Long: `Make a namespace. Its owners administer it, and nothing else: they deploy, make tokens, write policies and read all that is in it.
With --policies none, roles permit nothing in it but for that of an operator, until policies of the namespace do. One that is there
exactly like this is no error, so a script can say it each time.

` + aboutQuotas,
		Example: `  sallyport namespace create shop --owner user:https://id.example.com#ann --quota events_per_second=500
  sallyport namespace create shop && sallyport token create --role operator --namespace shop --out shop.token`,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) (err error) {
			req.Name = args[0]
			if req.Quotas, err = quotaFlag(quotas); err != nil {
				return err
			}
			ns, err := c.CreateNamespace(ctx, req)
			if err != nil {
				return err
			}
			a.say("the namespace %s is there", clean(ns.Name))
			return a.showNamespace(ns)
		}),
	}
	flags := c.Flags()
	flags.StringArrayVar(&req.Owners, "owner", nil, "`id` of a principal that owns it: user:ISSUER#SUBJECT, service:ID or token:ID")
	flags.StringArrayVar(&quotas, "quota", nil, "a quota, `NAME=VALUE`")
	flags.StringVar(&req.Policies, "policies", "roles", "what its policies begin with: roles or none")
	flags.StringVar(&req.Approvals, "approvals", "none", aboutApprovals)
	completeNamespaceFlags(c)
	return c
}

const aboutApprovals = "whether somebody else has to approve what functions gain by an apply: gains or none"

func completeNamespaceFlags(c *cobra.Command) {
	// The flags are there.
	_ = c.RegisterFlagCompletionFunc("quota", cobra.FixedCompletions(quotaNames, cobra.ShellCompDirectiveNoSpace))
	_ = c.RegisterFlagCompletionFunc("policies", cobra.FixedCompletions([]cobra.Completion{"roles", "none"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("approvals", cobra.FixedCompletions([]cobra.Completion{"gains", "none"}, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) showNamespace(ns *api.Namespace) error {
	return a.show(ns, func(w io.Writer) {
		if a.quiet {
			fmt.Fprintln(w, clean(ns.Name))
			return
		}
		state := ""
		if ns.State != "active" {
			state = ns.State
		}
		fields(w, "name", ns.Name, "state", state, "owners", strings.Join(ns.Owners, " "), "policies", ns.Policies, "approvals", ns.Approvals,
			"created", stamp(ns.Created), "created by", ns.CreatedBy)
		rows := [][]string{{"QUOTA", "VALUE", "USE"}}
		names := map[string]bool{}
		for _, m := range []map[string]int64{ns.Quotas, ns.Use} {
			for name := range m {
				names[name] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			rows = append(rows, []string{name, quotaValue(ns.Quotas, name), quotaValue(ns.Use, name)})
			if name == storedBytes {
				rows = append(rows, storedRows(ns.Stored)...)
			}
		}
		if len(rows) > 1 {
			fmt.Fprintln(w)
			columns(w, rows)
		}
	})
}

// storedBytes is the quota that consists of parts.
const storedBytes = "stored_bytes"

// storedParts are what it consists of.
var storedParts = []string{"events", "blobs", "kv", "sqlite"}

// storedRows returns the parts of the stored bytes, each under that quota.
func storedRows(stored map[string]int64) (rows [][]string) {
	for _, part := range storedParts {
		if _, ok := stored[part]; ok {
			rows = append(rows, []string{"  " + part, "", quotaValue(stored, part)})
		}
	}
	return rows
}

// quotaValue returns a quota, or its use, for people.
func quotaValue(m map[string]int64, name string) string {
	n, ok := m[name]
	switch {
	case !ok:
		return "-"
	case strings.HasSuffix(name, "_bytes"), slices.Contains(storedParts, name):
		return size(n)
	}
	return strconv.FormatInt(n, 10)
}

func (a *app) namespaceList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the namespaces that you may see", Args: noArguments(),
		Example: "  sallyport namespace list\n  sallyport namespace list -q",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Namespaces(ctx)
			if err != nil {
				return err
			}
			return showList(a, out, out.Namespaces, table[api.Namespace]{
				noun: "namespaces", header: []string{"NAME", "STATE", "POLICIES", "QUOTAS", "OWNERS"},
				row: func(n *api.Namespace) []string {
					var quotas []string
					for _, name := range slices.Sorted(maps.Keys(n.Quotas)) {
						quotas = append(quotas, name+"="+quotaValue(n.Quotas, name))
					}
					return []string{n.Name, n.State, n.Policies, strings.Join(quotas, " "), strings.Join(n.Owners, " ")}
				},
				id: func(n *api.Namespace) string { return n.Name },
			})
		}),
	}
}

func (a *app) namespaceGet() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show a namespace, its quotas and what it uses of them", Args: exactly(1, "the name of a namespace"),
		Example: "  sallyport namespace get shop", ValidArgsFunction: a.completeNamespaces,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			ns, err := c.DescribeNamespace(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showNamespace(ns)
		}),
	}
}

func (a *app) namespaceUpdate() *cobra.Command {
	var req api.NamespaceUpdate
	var owners, quotas []string
	var noOwners bool
	c := &cobra.Command{
		Use: "update NAME", Short: "Change the owners, quotas, policies or approvals of a namespace", Args: exactly(1, "the name of a namespace"),
		Long: `Change a namespace; what no flag names stays. The owners that are given replace those before. An owner may change the owners; quotas,
policies and approvals are for operators of the server.

` + aboutQuotas,
		Example:           "  sallyport namespace update shop --quota functions=20 --quota stored_bytes=1GiB\n  sallyport namespace update shop --owner user:https://id.example.com#bob",
		ValidArgsFunction: a.completeNamespaces,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) (err error) {
			if len(owners) > 0 || noOwners {
				list := append([]string{}, owners...)
				req.Owners = &list
			}
			if len(quotas) > 0 {
				if req.Quotas, err = quotaFlag(quotas); err != nil {
					return err
				}
			}
			switch {
			case len(owners) > 0 && noOwners:
				return usage("--owner and --no-owners say different things")
			case req.Owners == nil && req.Quotas == nil && req.Policies == "" && req.Approvals == "":
				return usage("say what to change: --owner, --no-owners, --quota, --policies or --approvals")
			}
			ns, err := c.UpdateNamespace(ctx, args[0], req)
			if err != nil {
				return err
			}
			return a.showNamespace(ns)
		}),
	}
	flags := c.Flags()
	flags.StringArrayVar(&owners, "owner", nil, "`id` of a principal that owns it")
	flags.BoolVar(&noOwners, "no-owners", false, "nobody owns it")
	flags.StringArrayVar(&quotas, "quota", nil, "a quota, `NAME=VALUE`")
	flags.StringVar(&req.Policies, "policies", "", "what its policies begin with: roles or none")
	flags.StringVar(&req.Approvals, "approvals", "", aboutApprovals)
	completeNamespaceFlags(c)
	return c
}

func (a *app) namespaceDelete() *cobra.Command {
	var force, missing bool
	c := &cobra.Command{
		Use: "delete NAME", Short: "Delete a namespace and everything in it", Args: exactly(1, "the name of a namespace"),
		Long: `Delete a namespace and everything in it, for good: events, functions, dead letters, logs, policies and tokens. Its keys are destroyed, so
what bytes of it the disk still has cannot be read. A namespace of the same name that is made later begins empty.

It is refused while events are pending. With --force they are given up; the answer says how many there were.`,
		Example: "  sallyport namespace delete shop", ValidArgsFunction: a.completeNamespaces,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			out, err := c.DeleteNamespace(ctx, args[0], force)
			if missing && isNotFound(err) {
				a.say("there is no namespace %s", clean(args[0]))
				return nil
			}
			if err != nil {
				return err
			}
			a.say("the namespace %s is gone, with the %d events it accepted", clean(out.Name), out.Accepted)
			return a.show(out, func(w io.Writer) {
				fmt.Fprintf(w, "accepted %d = done %d + dead %d + pending %d\n", out.Accepted, out.Done, out.Dead, out.Pending)
			})
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "give up the events that are pending")
	c.Flags().BoolVar(&missing, "missing-ok", false, "one that does not exist is no error")
	return c
}

func isNotFound(err error) bool {
	p, ok := errors.AsType[*client.Problem](err)
	return ok && p.Status == http.StatusNotFound && p.Code == "server.namespace_not_found"
}

func (a *app) completeNamespaces(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.names(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		list, err := c.Namespaces(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range list.Namespaces {
			out = append(out, n.Name)
		}
		return out, nil
	})
}
