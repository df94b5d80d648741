package httpapi

import (
	"context"
	"net/http"
	"time"

	"sallyport/api"
	"sallyport/internal/funclog"
	"sallyport/internal/ident"
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
	s := stream{c: c, out: http.NewResponseController(c), query: &query}
	for i := range past {
		if !s.write(&past[i]) {
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
			if s.query.Selects(&line) && (!s.write(&line) || !s.flush()) {
				return
			}
		case <-recheck.C:
			if !a.stillMay(s.c) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// stillMay reports whether the token of a call, which may be revoked or expire meanwhile, still lets
// it do what it does.
func (a *API) stillMay(c *call) bool {
	return a.deps.Identifier.Still(c.r) == nil && a.deps.Guard.Authorize(c.r.Context(), c.p, c.route.action, c.target()) == nil
}

// stream writes lines. When it returns false the client is gone, and there is nobody to tell.
type stream struct {
	c     *call
	out   *http.ResponseController
	query *funclog.Query
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
