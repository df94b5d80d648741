package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/client"
)

func (a *app) databaseCommand() *cobra.Command {
	return group("database", "Look after the SQLite databases of functions", a.databaseAccept())
}

func (a *app) databaseAccept() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "accept NAME", Short: "Go on with an older file of a database", Args: exactly(1, "the name of a database"),
		Long: `Have a database go on with the file that is in the data directory, though what was recorded of it is newer, or the file is gone. The server
refuses such a database (grant.sql_rolled_back), because somebody may have put an older copy in its place. Use this when you restored it on purpose: changes that
were made after the copy are lost, and the newer file is refused from then on.`,
		Example: "  sallyport database accept orders --namespace shop", ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if !yes {
				if err := a.confirm("have the database " + clean(args[0]) + " go on with an older file, and lose what was changed since?"); err != nil {
					return err
				}
			}
			out, err := c.AcceptDatabase(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(out, func(w io.Writer) {
				if out.Gone {
					fmt.Fprintf(w, "database %s is gone, and begins anew; change %d was recorded on %s\n", clean(out.Name), out.Recorded, stamp(out.RecordedAt))
					return
				}
				fmt.Fprintf(w, "database %s goes on from change %d; change %d was recorded on %s\n", clean(out.Name), out.Found, out.Recorded, stamp(out.RecordedAt))
			})
		}),
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}
