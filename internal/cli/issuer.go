package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
)

func (a *app) issuerCommand() *cobra.Command {
	return group("issuer", "See and change the keys that identity tokens of functions are signed with", a.issuerGet(), a.issuerRotate())
}

func (a *app) issuerGet() *cobra.Command {
	return &cobra.Command{
		Use: "get", Short: "Show the issuer and its keys", Args: noArguments(),
		Example: "  sallyport issuer get\n  sallyport issuer get -o json | jq -r '.keys[] | select(.state == \"signs\") | .id'",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Issuer(ctx)
			if err != nil {
				return err
			}
			return a.showIssuer(out)
		}),
	}
}

func (a *app) issuerRotate() *cobra.Command {
	var revoke, yes bool
	c := &cobra.Command{
		Use: "rotate", Short: "Make a new key, or end all old ones at once", Args: noArguments(),
		Long: `Rotate makes a new key now; without it, that happens every 30 days. The key is published at once and signs in a day, so that whoever keeps
the published keys knows it by then; the old one stays until nothing that it signed is valid.

With --revoke-old, for when a key is known to somebody else, the new key signs at once and the old ones are published no more: this server refuses what
they signed from now on, and so does everybody else who asks for the keys again. Others may keep them for an hour; tell them to fetch them.`,
		Example: "  sallyport issuer rotate\n  sallyport issuer rotate --revoke-old",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if revoke && !yes {
				if err := a.confirm("end all keys of the issuer, and every token that they signed?"); err != nil {
					return err
				}
			}
			out, err := c.RotateIssuer(ctx, revoke)
			if err != nil {
				return err
			}
			if revoke {
				a.say("%d revoked: what they signed is refused here from now on, and elsewhere once the keys are fetched again, which may take an hour", len(out.Revoked))
			}
			return a.showIssuer(out)
		}),
	}
	c.Flags().BoolVar(&revoke, "revoke-old", false, "end the old keys at once")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) showIssuer(i *api.Issuer) error {
	return a.show(i, func(w io.Writer) {
		fields(w, "url", i.URL)
		rows := [][]string{{"KEY", "STATE", "CREATED", "UNTIL"}}
		for n := range i.Keys {
			k := &i.Keys[n]
			until := ""
			if k.Until != nil {
				until = stamp(*k.Until)
			}
			rows = append(rows, []string{k.ID, k.State, stamp(k.Created), until})
		}
		columns(w, rows)
	})
}
