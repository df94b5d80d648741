package httpapi

import (
	"net/http"
	"time"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/meter"
)

// Usage is the meter of a namespace; meter.Meter is one.
type Usage interface {
	Usage(q meter.Query) (lines []meter.Line, total meter.Counter)
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
	return answer(c, http.StatusOK, &out)
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
