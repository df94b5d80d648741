package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
)

func (a *app) tokenCommand() *cobra.Command {
	return group("token", "Make, narrow, list and revoke tokens", a.tokenCreate(), a.tokenNarrow(), a.tokenList(), a.tokenRevoke())
}

func (a *app) tokenCreate() *cobra.Command {
	var req api.TokenRequest
	var file string
	roles := []cobra.Completion{"operator", "developer", "publisher", "reader"}
	c := &cobra.Command{
		Use: "create", Short: "Make a token", Args: noArguments(),
		Long: "Make a token. Its text is shown this once; with --out it goes to a file that only you can read.",
		Example: `  sallyport token create --role publisher --event-types order.created --out shop.token
  sallyport token create --role developer --namespace shop --expires-in 720h`,
		PreRunE: func(*cobra.Command, []string) error {
			if req.Role == "" {
				return usage("a token has a role: --role %s", strings.Join(roles, ", "))
			}
			return nil
		},
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if req.Namespace = a.conn.namespace; req.Role != "operator" {
				req.Namespace = a.namespace()
			}
			return a.createToken(ctx, c, req, file)
		}),
	}
	flags := c.Flags()
	flags.StringVar(&req.Role, "role", "", "operator, developer, publisher or reader")
	flags.StringSliceVar(&req.EventTypes, "event-types", nil, "publish only these types")
	flags.StringVar(&req.ExpiresIn, "expires-in", "", "lifetime, such as 720h (default 90 days)")
	flags.StringVar(&req.Description, "description", "", "what it is for")
	flags.StringVar(&file, "out", "", "write it to this new `file`, readable by you alone")
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return c
}

// createToken makes a token and hands it over. The file comes first: a token that nobody can be given
// is not made.
func (a *app) createToken(ctx context.Context, c *client.Client, req api.TokenRequest, file string) (err error) {
	if isNewNamespace(ctx, c, req.Namespace) {
		defer func() {
			if err == nil {
				a.tellNewNamespace(req.Namespace)
			}
		}()
	}
	if file == "" {
		tok, err := c.CreateToken(ctx, req)
		if err != nil {
			return err
		}
		a.say("token %s ends %s; its text is shown this once", tok.ID, stamp(tok.Expires))
		return a.show(tok, func(w io.Writer) { fmt.Fprintln(w, tok.Text) })
	}
	f, err := newTokenFile(file)
	if err != nil {
		return err
	}
	tok, err := c.CreateToken(ctx, req)
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(file))
	}
	_, err = f.WriteString(tok.Text + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the token, which is revoked now: %w", err), c.RevokeToken(ctx, tok.ID))
	}
	a.say("token %s written to %s; it ends %s", tok.ID, clean(file), stamp(tok.Expires))
	return a.show(tok.Token, func(w io.Writer) { fmt.Fprintln(w, tok.ID) })
}

func (a *app) tokenList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tokens", Args: noArguments(),
		Example: "  sallyport token list\n  sallyport token list -o ndjson | jq -r 'select(.role == \"operator\") | .id'",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Tokens(ctx)
			if err != nil {
				return err
			}
			now := time.Now()
			return showList(a, out, out.Tokens, table[api.Token]{
				noun: "tokens", header: []string{"ID", "ROLE", "NAMESPACE", "TYPES", "EXPIRES", "STATE", "DESCRIPTION"},
				row: func(t *api.Token) []string {
					ns := t.Namespace
					if ns == "" {
						ns = "(all)"
					}
					return []string{t.ID, t.Role, ns, strings.Join(t.EventTypes, ","), t.Expires.UTC().Format(time.DateOnly), tokenState(t, now), t.Description}
				},
				id: func(t *api.Token) string { return t.ID },
			})
		}),
	}
}

func tokenState(t *api.Token, now time.Time) string {
	switch {
	case t.Revoked != nil:
		return "revoked"
	case !now.Before(t.Expires):
		return "expired"
	}
	return "valid"
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a token at once", Args: exactly(1, "the id of a token"),
		Example: "  sallyport token revoke 8c4106adb4e88db9", ValidArgsFunction: a.completeTokens,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.RevokeToken(ctx, args[0]); err != nil {
				return err
			}
			a.say("token %s is revoked: the next request with it is refused", clean(args[0]))
			return nil
		}),
	}
}
