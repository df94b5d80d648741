package httpapi

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/meter"
)

// Usage is the meter of a namespace; meter.Meter is one.
type Usage interface {
	Usage(q meter.Query) (lines []meter.Line, total meter.Counter)
}

// GrantUses is what functions used their grants for; meter.Uses is one.
type GrantUses interface {
	Between(since, until time.Time) map[meter.UseKey]meter.UseCounter
}

// usage answers with a statement of what functions used.
func (a *API) usage(c *call) error {
	q, err := usageQuery(c)
	if err != nil {
		return err
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	lines, total := space.Usage.Usage(q)
	out := api.Usage{Since: q.Since.Truncate(time.Hour).UTC(), Until: q.Until.UTC(), Lines: []api.UsageLine{}, Total: usageLine(meter.Line{Counter: total})}
	for _, l := range lines {
		out.Lines = append(out.Lines, usageLine(l))
	}
	out.Grants = grantUsage(space.Grants.Between(q.Since, q.Until), q.Function)
	return answer(c, http.StatusOK, &out)
}

// grantUsage returns what was counted of grants, of one function or of all, in order.
func grantUsage(counted map[meter.UseKey]meter.UseCounter, function ident.FunctionName) []api.GrantUsage {
	const median, nearlyAll = 0.50, 0.99
	out := []api.GrantUsage{}
	for k, c := range counted {
		if function != "" && k.Function != function {
			continue
		}
		out = append(out, api.GrantUsage{
			Function: string(k.Function), Grant: k.Grant, Kind: k.Kind, Uses: c.Uses, Failed: c.Failed, Denied: c.Denied, BytesIn: c.In, BytesOut: c.Out,
			P50: c.Quantile(median).Seconds(), P99: c.Quantile(nearlyAll).Seconds(), LastUsed: c.Last.UTC(),
		})
	}
	slices.SortFunc(out, func(a, b api.GrantUsage) int {
		return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.Grant, b.Grant), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

func usageQuery(c *call) (q meter.Query, err error) {
	if q.Since, q.Until, err = c.query.period(); err != nil {
		return q, err
	}
	q.By.Function = true
	if by := c.query["by"]; by != "" {
		if q.By, err = meter.ParseBy(by); err != nil {
			return q, badRequest("by: %v", err)
		}
	}
	if name := c.query["function"]; name != "" {
		if q.Function, err = ident.ParseFunctionName(name); err != nil {
			return q, badRequest("%v", err)
		}
	}
	return q, nil
}

func usageLine(l meter.Line) api.UsageLine {
	const median, most, nearlyAll = 0.50, 0.95, 0.99
	return api.UsageLine{
		Function: string(l.Function), Revision: l.Revision, Principal: string(l.Principal),
		Invocations: l.Invocations(), Done: l.Done, Failed: l.Failed, Dead: l.Dead, Cold: l.Cold,
		Wall: time.Duration(l.Wall).Seconds(), CPU: time.Duration(l.CPU).Seconds(), GBSeconds: l.GBSeconds,
		MemoryPeak: l.PeakMax, BytesIn: l.BytesIn, BytesOut: l.BytesOut,
		P50: l.Quantile(median).Seconds(), P95: l.Quantile(most).Seconds(), P99: l.Quantile(nearlyAll).Seconds(),
	}
}
