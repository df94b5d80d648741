package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/cli/dotenv"
	"sallyport/internal/ident"
	"sallyport/internal/redact"
)

// maxSecretInput bounds what is read for a value; the server takes 64 KiB.
const maxSecretInput = 64<<10 + 2

func (a *app) secretCommand() *cobra.Command {
	return group("secret", "Set, rotate and look after secrets; no command shows a value", a.secretSet(), a.secretImport(), a.secretLink(), a.secretList(),
		a.secretGet(), a.secretVersions(), a.secretPromote(), a.secretDisable(), a.secretDestroy(), a.secretRotate(), a.secretLog())
}

func (a *app) secretSet() *cobra.Command {
	var o client.SecretOptions
	var file, like string
	var raw, canary bool
	c := &cobra.Command{
		Use: "set NAME", Short: "Set a secret, from a file or from stdin", Args: exactly(1, "the name of a secret, and never its value"),
		Long: `Set a secret: its new value is in force at once, and the one before can be used as NAME@previous for a time of grace.

The value comes from a file or from stdin, never from the command line, where others could see it. One line break at its end is no part of
it, unless --raw is given. With --canary the server makes a decoy instead and shows it once: whoever uses that secret is reported.`,
		Example: `  sallyport secret set stripe-key --file stripe.txt
  pass show stripe | sallyport secret set stripe-key
  sallyport secret set backup-admin --canary --like aws`,
		PreRunE: func(*cobra.Command, []string) error {
			switch {
			case canary && (file != "" || o.Pending || raw || o.Grace != ""):
				return usage("a canary has a decoy for its value, which the server makes: leave --file, --raw, --pending and --grace out")
			case like != "" && !canary:
				return usage("--like is for --canary")
			}
			return nil
		},
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if canary {
				return a.plantCanary(ctx, c, args[0], api.SecretCanaryRequest{Like: like, Description: o.Description})
			}
			value, err := a.readSecret(file, raw)
			if err != nil {
				return err
			}
			defer clear(value)
			s, err := c.SetSecret(ctx, args[0], value, o)
			if err != nil {
				return err
			}
			n := s.Current
			if o.Pending {
				n = s.Pending
			}
			a.say("secret %s has version %d, %d bytes; its value is not shown again", clean(s.Name), n, len(value))
			if len(value) < redact.MinLength {
				a.say("warning: a value under %d bytes is not taken out of what a function logs and answers", redact.MinLength)
			}
			return a.show(s, func(w io.Writer) { fmt.Fprintln(w, n) })
		}),
	}
	flags := c.Flags()
	flags.StringVar(&file, "file", "", "read the value from this `file`")
	flags.BoolVar(&raw, "raw", false, "keep a line break at the end of the value")
	flags.BoolVar(&o.Pending, "pending", false, "leave what is in force as it is; promote it later")
	flags.StringVar(&o.Grace, "grace", "", "how long the version before stays usable (default 24h)")
	flags.StringVar(&o.Description, "description", "", "what it is for")
	flags.BoolVar(&canary, "canary", false, "plant a decoy, and report whoever touches it")
	flags.StringVar(&like, "like", "", "what the decoy looks like: aws, github, password, postgres or stripe")
	return c
}

// readSecret reads a value from a file, from stdin, or from the terminal without showing it.
func (a *app) readSecret(file string, raw bool) (value []byte, err error) {
	in, ok := a.env.Stdin.(*os.File)
	switch {
	case file != "":
		value, err = readBounded(file, maxSecretInput)
	case ok && term.IsTerminal(int(in.Fd())):
		fmt.Fprint(a.env.Stderr, "value (not shown): ")
		value, err = term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.env.Stderr)
	default:
		value, err = readAll(a.env.Stdin, "stdin", maxSecretInput)
	}
	if err != nil || raw {
		return value, err
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r")), nil
}

func (a *app) plantCanary(ctx context.Context, c *client.Client, name string, req api.SecretCanaryRequest) error {
	out, err := c.PlantCanary(ctx, name, req)
	if err != nil {
		return err
	}
	a.say("canary %s is planted; its decoy opens nothing: put it where a thief would look", clean(out.Secret.Name))
	return a.show(out, func(w io.Writer) { fmt.Fprintln(w, clean(out.Decoy)) })
}

func (a *app) secretImport() *cobra.Command {
	var prefix string
	var dry bool
	c := &cobra.Command{
		Use: "import FILE", Short: "Set the secrets of a .env file", Args: exactly(1, "a .env file, or - for stdin"),
		Long:    "Set a secret for each line NAME=value of a .env file: STRIPE_KEY becomes stripe-key. Values are not shown. Delete the file afterwards.",
		Example: "  sallyport secret import .env --dry-run\n  sallyport secret import .env --prefix shop",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			return a.importSecrets(ctx, c, args[0], prefix, dry)
		}),
	}
	c.Flags().StringVar(&prefix, "prefix", "", "begin the names with this and a hyphen")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say which")
	return c
}

func (a *app) importSecrets(ctx context.Context, c *client.Client, file, prefix string, dry bool) (err error) {
	var text []byte
	if file == "-" {
		text, err = readAll(a.env.Stdin, "stdin", dotenv.MaxBytes)
	} else {
		text, err = readBounded(file, dotenv.MaxBytes)
	}
	if err != nil {
		return err
	}
	defer clear(text)
	entries, err := dotenv.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	names := make([]string, len(entries))
	for i, e := range entries { // all of them before the first is set
		if names[i] = dotenv.SecretName(e.Name); prefix != "" {
			names[i] = prefix + "-" + names[i]
		}
		if _, err := ident.ParseSecretName(names[i]); err != nil {
			return fmt.Errorf("%s: line %d: %w", file, e.Line, err)
		}
		if len(e.Value) == 0 {
			return fmt.Errorf("%s: line %d: the value of %s is empty", file, e.Line, e.Name)
		}
		for j := range names[:i] {
			if names[j] == names[i] {
				return fmt.Errorf("%s: line %d: %s and %s would both be called %s", file, e.Line, entries[j].Name, e.Name, names[i])
			}
		}
	}
	var done []string
	for i, e := range entries {
		if !dry {
			if _, err := c.SetSecret(ctx, names[i], e.Value, client.SecretOptions{}); err != nil {
				return errors.Join(err, a.imported(done, false))
			}
			clear(e.Value)
		}
		done = append(done, names[i])
	}
	return a.imported(done, dry)
}

func (a *app) imported(names []string, dry bool) error {
	if err := showList(a, names, names, table[string]{
		noun: "secrets", header: []string{"NAME"}, row: func(n *string) []string { return []string{*n} }, id: func(n *string) string { return *n },
	}); err != nil {
		return err
	}
	if dry {
		a.say("%d would be set", len(names))
	} else {
		a.say("%d set", len(names))
	}
	return nil
}

func (a *app) secretLink() *cobra.Command {
	var description string
	c := &cobra.Command{
		Use: "link NAME REFERENCE", Short: "Name a secret that Vault or a Key Vault has", Args: exactly(2, "a name and a reference"),
		Long: `Name a secret whose value is in another store: a Vault or OpenBao (vault:MOUNT/PATH#FIELD) or an Azure Key Vault (keyvault:NAME). Functions use
it by its name like any other. The operator says in server.toml which store a namespace may read, and how far ([[secret_stores]]).`,
		Example: "  sallyport secret link stripe-key vault:kv/shop/stripe#key\n  sallyport secret link orders-dsn keyvault:orders-dsn",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			s, err := c.LinkSecret(ctx, args[0], api.SecretLinkRequest{Reference: args[1], Description: description})
			if err != nil {
				return err
			}
			a.say("secret %s is read from %s when it is used", clean(s.Name), clean(s.Reference))
			return a.show(s, func(w io.Writer) { fmt.Fprintln(w, clean(s.Name)) })
		}),
	}
	c.Flags().StringVar(&description, "description", "", "what it is for")
	return c
}

func (a *app) secretList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List secrets, without their values", Args: noArguments(),
		Example: "  sallyport secret list\n  sallyport secret list -o ndjson | jq -r 'select(.last_used == null) | .name'",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Secrets(ctx)
			if err != nil {
				return err
			}
			return showList(a, out, out.Secrets, table[api.Secret]{
				noun: "secrets", header: []string{"NAME", "VERSION", "USED BY", "LAST USED", "KIND", "DESCRIPTION"},
				row: func(s *api.Secret) []string {
					return []string{s.Name, number(s.Current), strings.Join(s.UsedBy, ","), at(s.LastUsed), secretKind(s), s.Description}
				},
				id: func(s *api.Secret) string { return s.Name },
			})
		}),
	}
}

func secretKind(s *api.Secret) string {
	switch {
	case s.Canary:
		return "canary"
	case s.Reference != "":
		return "link"
	case s.Rotation != nil && (s.Rotation.Every != "" || s.Rotation.Step != ""):
		return "rotated"
	}
	return "set"
}

// number prints a number of a version; there is none that is 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func at(t *time.Time) string {
	if t == nil {
		return ""
	}
	return stamp(*t)
}

func (a *app) secretGet() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show a secret, without its value", Args: exactly(1, "the name of a secret"), ValidArgsFunction: a.completeSecrets,
		Example: "  sallyport secret get stripe-key",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			s, err := c.Secret(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showSecret(s)
		}),
	}
}

func (a *app) showSecret(s *api.Secret) error {
	return a.show(s, func(w io.Writer) {
		pairs := []string{
			"name", s.Name, "description", s.Description, "kind", secretKind(s), "reference", s.Reference, "current", number(s.Current),
			"previous", number(s.Previous), "until", at(s.PreviousUntil), "pending", number(s.Pending), "used by", strings.Join(s.UsedBy, ", "),
			"last used", at(s.LastUsed), "created", stamp(s.Created), "by", s.CreatedBy,
		}
		if r := s.Rotation; r != nil {
			pairs = append(pairs, "rotated by", r.Function, "every", r.Every, "next", at(r.Next), "grace", r.Grace, "step", r.Step, "began", at(r.Started),
				"ended", at(r.Ended), "failed", r.Error)
		}
		fields(w, pairs...)
	})
}

func (a *app) secretVersions() *cobra.Command {
	return &cobra.Command{
		Use: "versions NAME", Short: "List the versions of a secret", Args: exactly(1, "the name of a secret"), ValidArgsFunction: a.completeSecrets,
		Example: "  sallyport secret versions stripe-key",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			out, err := c.SecretVersions(ctx, args[0])
			if err != nil {
				return err
			}
			return showList(a, out, out.Versions, table[api.SecretVersion]{
				noun: "versions", header: []string{"VERSION", "STATE", "ORIGIN", "BYTES", "CREATED", "BY"},
				row: func(v *api.SecretVersion) []string {
					return []string{number(v.Version), v.State, v.Origin, strconv.Itoa(v.Size), stamp(v.Created), v.CreatedBy}
				},
				id: func(v *api.SecretVersion) string { return number(v.Version) },
			})
		}),
	}
}

// versionArgument reads the number of a version.
func versionArgument(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, usage("want the number of a version, as `sallyport secret versions` shows it, not %q", clean(text))
	}
	return n, nil
}

func (a *app) secretPromote() *cobra.Command {
	var grace string
	c := &cobra.Command{
		Use: "promote NAME VERSION", Short: "Bring a version into force", Args: exactly(2, "the name of a secret and a version"),
		Long:    "Bring a version into force: a pending one, or one from before. The one that was in force stays usable as NAME@previous for a time of grace.",
		Example: "  sallyport secret promote stripe-key 3 --grace 1h", ValidArgsFunction: a.completeSecrets,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			n, err := versionArgument(args[1])
			if err != nil {
				return err
			}
			s, err := c.PromoteSecret(ctx, args[0], api.SecretVersionRequest{Version: n, Grace: grace})
			if err != nil {
				return err
			}
			a.say("version %d of %s is in force", n, clean(s.Name))
			return a.showSecret(s)
		}),
	}
	c.Flags().StringVar(&grace, "grace", "", "how long the version before stays usable (default 24h)")
	return c
}

func (a *app) secretDisable() *cobra.Command {
	return &cobra.Command{
		Use: "disable NAME VERSION", Short: "Keep a version from being used", Args: exactly(2, "the name of a secret and a version"),
		Long:    "Keep a version from being used, until it is promoted. When it is the one in force, the secret cannot be used at all.",
		Example: "  sallyport secret disable stripe-key 2", ValidArgsFunction: a.completeSecrets,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			n, err := versionArgument(args[1])
			if err != nil {
				return err
			}
			s, err := c.DisableSecret(ctx, args[0], api.SecretVersionRequest{Version: n})
			if err != nil {
				return err
			}
			a.say("version %d of %s is disabled", n, clean(s.Name))
			return a.showSecret(s)
		}),
	}
}

func (a *app) secretDestroy() *cobra.Command {
	var yes, force bool
	c := &cobra.Command{
		Use: "destroy NAME [VERSION]", Short: "Destroy a version for good, or a secret with all of them",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usage("%s takes the name of a secret, and perhaps a version", cmd.CommandPath())
			}
			return nil
		},
		Long:    "Destroy a version for good: its key is overwritten on disk, and nothing reads the value any more. Copies of the data directory that were made before are out of reach.",
		Example: "  sallyport secret destroy stripe-key 2\n  sallyport secret destroy stripe-key --yes", ValidArgsFunction: a.completeSecrets,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			req, what := api.SecretVersionRequest{Force: force}, "the secret "+clean(args[0])+" with all its versions"
			if len(args) == 2 {
				n, err := versionArgument(args[1])
				if err != nil {
					return err
				}
				req.Version, what = n, fmt.Sprintf("version %d of %s", n, clean(args[0]))
			}
			if !yes {
				if err := a.confirm("destroy " + what + " for good?"); err != nil {
					return err
				}
			}
			if err := c.DestroySecret(ctx, args[0], req); err != nil {
				return err
			}
			a.say("%s is destroyed", what)
			return nil
		}),
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&force, "force", false, "even when deployed functions use it")
	return c
}

// rotationPoll is how often a rotation that is waited for is looked at.
const rotationPoll = 200 * time.Millisecond

func (a *app) secretRotate() *cobra.Command {
	var req api.SecretRotationRequest
	var wait bool
	c := &cobra.Command{
		Use: "rotate NAME", Short: "Rotate a secret now, or on a schedule", Args: exactly(1, "the name of a secret"), ValidArgsFunction: a.completeSecrets,
		Long: `Rotate a secret with a function of yours. The server makes a new value (or the function does, with --creates), which is pending; it calls the function with
the steps set, to have the outside accept the value, and test, to try it; then the value comes into force in one step, and the one before stays usable for
a time of grace. When the function fails, what was in force stays so. With --every this is done on a schedule, beginning one period from now.`,
		Example: `  sallyport secret rotate orders-dsn --function rotate-dsn --wait
  sallyport secret rotate orders-dsn --function rotate-dsn --every 720h --grace 1h
  sallyport secret rotate orders-dsn --off`,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			req.Now = req.Every == "" && !req.Off
			if wait && !req.Now {
				return usage("--wait is for a rotation now, without --every and --off")
			}
			s, err := c.RotateSecret(ctx, args[0], req)
			for ; err == nil && wait && s.Rotation.Step != ""; s, err = c.Secret(ctx, args[0]) {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(rotationPoll):
				}
			}
			if err != nil {
				return err
			}
			if err := a.showSecret(s); err != nil {
				return err
			}
			if wait && s.Rotation.Error != "" {
				a.say("the rotation failed; version %d stays in force", s.Current)
				return outcome(exitFailed)
			}
			return nil
		}),
	}
	flags := c.Flags()
	flags.StringVar(&req.Function, "function", "", "the function that makes the steps")
	flags.BoolVar(&req.Creates, "creates", false, `the function makes the value, and answers {"value": "…"} to the step create`)
	flags.StringVar(&req.Every, "every", "", "rotate it this often, such as 720h")
	flags.StringVar(&req.Grace, "grace", "", "how long the version before stays usable (default 24h)")
	flags.BoolVar(&req.Off, "off", false, "end the schedule")
	flags.BoolVar(&wait, "wait", false, "wait for the end of it")
	_ = c.RegisterFlagCompletionFunc("function", a.completeFunctions) // the flag is there
	return c
}

func (a *app) secretLog() *cobra.Command {
	return &cobra.Command{
		Use: "log NAME", Short: "Show who used a secret", Args: exactly(1, "the name of a secret"), ValidArgsFunction: a.completeSecrets,
		Long:    "Show who used a secret: the newest 200 lines, each for the equal uses of a minute. applied is by the server, outside the sandbox; revealed is to the function.",
		Example: "  sallyport secret log stripe-key",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			out, err := c.SecretLog(ctx, args[0])
			if err != nil {
				return err
			}
			return showList(a, out, out.Uses, table[api.SecretUse]{
				noun: "uses", header: []string{"LAST", "TIMES", "KIND", "VERSION", "FUNCTION", "REVISION", "GRANT", "EVENT"},
				row: func(u *api.SecretUse) []string {
					return []string{stamp(u.Last), strconv.FormatInt(u.Count, 10), u.Kind, number(u.Version), u.Function, number(u.Revision), u.Grant, u.EventID}
				},
				id: func(u *api.SecretUse) string { return u.EventID },
			})
		}),
	}
}

func (a *app) completeSecrets(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.names(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		list, err := c.Secrets(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range list.Secrets {
			out = append(out, s.Name)
		}
		return out, nil
	})
}
