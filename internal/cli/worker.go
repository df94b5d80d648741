package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"sallyport/internal/server"
)

// workerCommand is what a server starts its worker processes with. Nobody else needs it.
const workerCommand = "cell-worker"

func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use: workerCommand + " LANES", Short: "Run functions for the server that started this process", Args: exactly(1, "the number of lanes"), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			lanes, err := strconv.Atoi(args[0])
			if err != nil {
				return usage("LANES is %q, want a number", clean(args[0]))
			}
			// Signals are for the server: a worker ends when its server does.
			return server.Work(context.WithoutCancel(cmd.Context()), lanes)
		},
	}
}
