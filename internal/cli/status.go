package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/manifest"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the server and the balance of its namespaces", Args: noArguments(),
		Long: `Show the server, and for each namespace the balance of its events: accepted = done + dead + pending, at any moment. The
exit code is 6 when the server is not ready.`,
		Example: "  sallyport status\n  sallyport status -o json | jq .namespaces",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if err := a.show(s, func(w io.Writer) { writeStatus(w, s, time.Now()) }); err != nil {
				return err
			}
			if !s.Ready {
				return outcome(exitUnreachable)
			}
			return nil
		}),
	}
}

// cellLine says in a line where functions run.
func cellLine(s *api.CellStatus) string {
	if s.SecondWall == manifest.WallOff {
		return "functions run in the server's process"
	}
	var missing []string
	for _, w := range s.Walls {
		if !w.Stands {
			missing = append(missing, w.Name)
		}
	}
	line := fmt.Sprintf("functions run in process %d", s.Worker)
	if s.HeavyWorker != 0 {
		line += fmt.Sprintf(", heavy ones in %d", s.HeavyWorker)
	}
	if len(missing) > 0 {
		line += ", second wall without " + strings.Join(missing, ", ")
	} else {
		line += ", second wall whole"
	}
	if s.Lost > 0 {
		line += fmt.Sprintf(", %d workers lost", s.Lost)
	}
	return line
}

func writeStatus(w io.Writer, s *api.Status, now time.Time) {
	state := "ready"
	if !s.Ready {
		state = "not ready: " + s.Reason
	}
	fmt.Fprintf(w, "sallyport %s (%s), up %s, %s\n", clean(s.Version), clean(s.Mode), now.Sub(s.Started).Round(time.Second), clean(state))
	if s.DataDir != "" {
		fmt.Fprintf(w, "data in %s, %s free, %s in memory\n", clean(s.DataDir), size(s.DiskFree), size(s.Resident))
	}
	if s.Cells != nil {
		fmt.Fprintln(w, clean(cellLine(s.Cells)))
	}
	for _, is := range s.Issuers {
		fresh := "never fetched"
		if !is.Refreshed.IsZero() {
			fresh = fmt.Sprintf("%d keys, fetched %s ago", is.Keys, now.Sub(is.Refreshed).Round(time.Second))
		}
		fmt.Fprintf(w, "issuer %s: %s%s\n", clean(is.URL), fresh, failures(is.Failures, "fetches"))
	}
	for _, l := range s.RevocationLists {
		holds := "holds until " + stamp(l.NextUpdate)
		if now.After(l.NextUpdate) {
			holds = "ended at " + stamp(l.NextUpdate) + ", so none of its certificates is accepted"
		}
		fmt.Fprintf(w, "revocation list of %s: %d certificates, issued %s ago, %s%s\n", clean(l.Authority), l.Revoked, now.Sub(l.Issued).Round(time.Second), holds, failures(l.Failures, "reads"))
	}
	if len(s.Namespaces) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows := [][]string{{"NAMESPACE", "ACCEPTED", "= DONE", "+ DEAD", "+ PENDING", "STORED", "FUNCTIONS", "DEAD LETTERS"}}
	for _, n := range s.Namespaces {
		rows = append(rows, []string{
			n.Name, fmt.Sprintf("accepted %d", n.Accepted), fmt.Sprintf("= %d", n.Done), fmt.Sprintf("+ %d", n.Dead),
			fmt.Sprintf("+ %d", n.Pending), size(n.StoredBytes), fmt.Sprint(n.Functions), fmt.Sprint(n.DeadLetters),
		})
	}
	columns(w, rows)
	rows = [][]string{{"NAMESPACE", "QUOTA", "VALUE", "USE"}}
	for _, n := range s.Namespaces {
		for _, name := range slices.Sorted(maps.Keys(n.Quotas)) {
			rows = append(rows, []string{n.Name, name, quotaValue(n.Quotas, name), quotaValue(n.Use, name)})
			if name == storedBytes {
				for _, part := range storedRows(n.Stored) {
					rows = append(rows, append([]string{""}, part...))
				}
			}
		}
	}
	if len(rows) > 1 {
		fmt.Fprintln(w)
		columns(w, rows)
	}
}

// failures says how many there were, if any.
func failures(n int64, of string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d %s failed", n, of)
}
