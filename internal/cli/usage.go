package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
)

func (a *app) usageCommand() *cobra.Command {
	var o client.UsageOptions
	c := &cobra.Command{
		Use: "usage", Short: "Show what functions used in a period", Args: noArguments(),
		Long: `Usage shows what functions used in a period: how often they ran, for how long, on how much processor time and
memory, who published their events, and what their grants were used for. Hours (UTC) are counted whole, and uses of grants by whole days. A GB-second is 10^9 bytes held for a
second: the peak of each invocation times its time.`,
		Example: "  sallyport usage --since 24h\n  sallyport usage --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --by principal\n  sallyport usage -o json",
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			out, err := c.Usage(ctx, o)
			if err != nil {
				return err
			}
			return a.showUsage(out)
		}),
	}
	c.Flags().StringVar(&o.Since, "since", "24h", "from this `time` (RFC 3339) or so long ago")
	c.Flags().StringVar(&o.Until, "until", "", "to this `time` (RFC 3339) or so long ago (default: now)")
	c.Flags().StringVar(&o.By, "by", "function", "count apart by `these`: function, revision, principal")
	return c
}

// showUsage shows a statement.
func (a *app) showUsage(out *api.Usage) error {
	if len(out.Lines) == 0 && a.output == formText {
		a.say("no invocations since %s", stamp(out.Since))
		return nil
	}
	return showEach(a, out, out.Lines, func(w io.Writer) {
		rows := [][]string{{"FUNCTION", "REVISION", "PRINCIPAL", "INVOCATIONS", "FAILED", "DEAD", "COLD", "CPU", "GB-SECONDS", "PEAK", "IN", "OUT", "P50", "P99"}}
		for i := range out.Lines {
			rows = append(rows, usageRow(&out.Lines[i]))
		}
		total := usageRow(&out.Total)
		total[0] = "total"
		columns(w, append(rows, total))
		if len(out.Grants) > 0 {
			fmt.Fprintln(w)
			showGrantUsage(w, out.Grants)
		}
	})
}

// showGrantUsage shows what grants were used for.
func showGrantUsage(w io.Writer, list []api.GrantUsage) {
	rows := [][]string{{"FUNCTION", "GRANT", "KIND", "USES", "FAILED", "DENIED", "IN", "OUT", "P50", "P99", "LAST"}}
	for _, g := range list {
		rows = append(rows, []string{
			g.Function, g.Grant, g.Kind, fmt.Sprint(g.Uses), fmt.Sprint(g.Failed), fmt.Sprint(g.Denied), size(g.BytesIn), size(g.BytesOut), seconds(g.P50), seconds(g.P99), stamp(g.LastUsed),
		})
	}
	columns(w, rows)
}

func usageRow(l *api.UsageLine) []string {
	revision := ""
	if l.Revision > 0 {
		revision = fmt.Sprint(l.Revision)
	}
	return []string{
		l.Function, revision, l.Principal, fmt.Sprint(l.Invocations), fmt.Sprint(l.Failed), fmt.Sprint(l.Dead), fmt.Sprint(l.Cold),
		seconds(l.CPU), fmt.Sprintf("%.6f", l.GBSeconds), size(l.MemoryPeak), size(l.BytesIn), size(l.BytesOut), seconds(l.P50), seconds(l.P99),
	}
}

// seconds shows a number of seconds as a duration of three digits or so.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	const digits = 1000
	for unit := time.Second; unit > 1; unit /= digits {
		if d >= unit {
			return d.Round(unit / digits).String()
		}
	}
	return d.String()
}

// statsCommand shows one function.
func (a *app) statsCommand() *cobra.Command {
	var o client.UsageOptions
	c := &cobra.Command{
		Use: "stats NAME", Short: "Show how often a function ran, how long, and what it used", Args: exactly(1, "the name of a function"),
		Example: "  sallyport function stats price\n  sallyport function stats price --since 1h -o json", ValidArgsFunction: a.completeFunctions,
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if _, err := c.Function(ctx, args[0]); err != nil {
				return err
			}
			o.Function, o.By = args[0], "revision"
			out, err := c.Usage(ctx, o)
			if err != nil {
				return err
			}
			return a.show(out, func(w io.Writer) {
				t := out.Total
				fields(w, "function", args[0], "since", stamp(out.Since),
					"invocations", fmt.Sprintf("%d (%d done, %d failed and tried again, %d dead)", t.Invocations, t.Done, t.Failed, t.Dead),
					"instances", fmt.Sprintf("%d made (cold), %d times one that waited (warm)", t.Cold, t.Invocations-t.Cold),
					"time", fmt.Sprintf("half below %s, 95%% below %s, 99%% below %s", seconds(t.P50), seconds(t.P95), seconds(t.P99)),
					"processor", seconds(t.CPU), "memory", fmt.Sprintf("%s at most, %.6f GB-seconds", size(t.MemoryPeak), t.GBSeconds),
					"bytes", fmt.Sprintf("%s in, %s out", size(t.BytesIn), size(t.BytesOut)))
				for _, l := range out.Lines {
					fields(w, fmt.Sprintf("revision %d", l.Revision), fmt.Sprintf("%d invocations, %s processor time, half below %s", l.Invocations, seconds(l.CPU), seconds(l.P50)))
				}
				for _, g := range out.Grants {
					fields(w, fmt.Sprintf("grant %s (%s)", g.Grant, g.Kind), fmt.Sprintf("%d uses (%d failed, of which %d denied), half below %s, 99%% below %s, %s in, %s out",
						g.Uses, g.Failed, g.Denied, seconds(g.P50), seconds(g.P99), size(g.BytesIn), size(g.BytesOut)))
				}
			})
		}),
	}
	c.Flags().StringVar(&o.Since, "since", "24h", "from this `time` (RFC 3339) or so long ago")
	return c
}
