package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"sallyport/api"
	"sallyport/internal/funclog"
	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

// logs answers with lines of the function logs, one JSON document a line; with follow=true it goes
// on until the client leaves, its token ends, or the server drains.
func (a *API) logs(c *call) error {
	query, follow, err := lineQuery(c)
	if err != nil {
		return err
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	ctx := c.r.Context()
	var news <-chan api.LogLine
	if follow {
		waiting, free, err := a.wait(c, 0)
		if err != nil {
			return err
		}
		defer free()
		lines, stop, ok := space.Lines.Follow() // before the read, so that no line falls between
		if !ok {
			return tooManyWaiting()
		}
		defer stop()
		ctx, news = waiting, lines
	}
	past, err := space.Lines.Read(c.r.Context(), query)
	if err != nil {
		return err
	}
	c.Header().Set("Content-Type", "application/x-ndjson")
	c.WriteHeader(http.StatusOK)
	s := stream{c: c, out: http.NewResponseController(c), query: &query, inside: a.crossings(c, policy.ReadLogs, policy.KindFunction)}
	for i := range past {
		if s.inside.may(past[i].Function) && !s.write(&past[i]) {
			return nil
		}
	}
	if news != nil && s.flush() {
		a.follow(ctx, &s, past, news)
	}
	return nil
}

func lineQuery(c *call) (q funclog.Query, follow bool, err error) {
	q.Function, q.EventID = c.query["function"], c.query["event"]
	if q.Function != "" {
		if _, err := ident.ParseFunctionName(q.Function); err != nil {
			return q, false, badRequest("%v", err)
		}
	}
	if q.Limit, err = c.query.limit(); err != nil {
		return q, false, err
	}
	if q.Since, err = c.query.time("since"); err != nil {
		return q, false, err
	}
	follow, err = c.query.flag("follow")
	return q, follow, err
}

// followOverlap is how many lines can come both from the past and as news.
const followOverlap = 1024

// follow writes the lines that come, but not those of the past again.
func (a *API) follow(ctx context.Context, s *stream, past []api.LogLine, news <-chan api.LogLine) {
	seen := map[api.LogLine]bool{}
	for _, line := range past[max(0, len(past)-followOverlap):] {
		seen[line] = true
	}
	recheck := time.NewTicker(recheckEvery)
	defer recheck.Stop()
	var set *policy.Set
	for {
		select {
		case line, ok := <-news:
			if !ok {
				return
			}
			if seen[line] {
				delete(seen, line)
				continue
			}
			// Other policies hold from the next line on.
			if now := a.deps.Guard.Set(); now != set {
				if set = now; a.stillMay(s.c, s.c.route.action, s.c.target()) != nil {
					return
				}
			}
			if s.query.Selects(&line) && s.inside.may(line.Function) && (!s.write(&line) || !s.flush()) {
				return
			}
		case <-recheck.C:
			s.inside.set = nil // an hour may be over, or a claim
			if a.stillMay(s.c, s.c.route.action, s.c.target()) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// stillMay returns nil while the token of a call, which may be revoked or expire meanwhile, still lets it do what it does.
func (a *API) stillMay(c *call, action policy.Action, res policy.Resource) error {
	if err := a.deps.Identifier.Still(c.r); err != nil {
		return err
	}
	return a.deps.Guard.Still(c.r.Context(), c.p, action, res)
}

// whileMay returns a context for waiting: it ends with ctx, and when may returns an error. end MUST be called when the wait is
// over; it looks once more, and returns the error.
func (a *API) whileMay(ctx context.Context, may func() error) (_ context.Context, end func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		recheck := time.NewTicker(recheckEvery)
		defer recheck.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-recheck.C:
				if may() != nil {
					cancel()
					return
				}
			}
		}
	})
	return ctx, func() error {
		cancel()
		watch.Wait()
		return may()
	}
}

// stream writes lines. When it returns false the client is gone, and there is nobody to tell.
type stream struct {
	c     *call
	out   *http.ResponseController
	query *funclog.Query
	// inside says whose lines a perimeter keeps from the caller.
	inside *crossing
}

func (s *stream) write(line *api.LogLine) bool {
	text, err := encode(line)
	if err != nil {
		return false
	}
	hurry(s.c)
	_, err = s.c.Write(append(text, '\n'))
	return err == nil
}

func (s *stream) flush() bool { return s.out.Flush() == nil }
