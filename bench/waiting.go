package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/api"
)

// waitingCalls is how many invocations wait at the same time.
const waitingCalls = 1000

// waitingScript replies with what its grant answers.
const waitingScript = `export default async (event, ctx) => (await ctx.grants.web.fetch({})).text()`

// holder is a service that answers when it is told to.
type holder struct {
	held    atomic.Int64
	all     chan struct{} // closed when all are there
	release chan struct{}
}

func (h *holder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.held.Add(1) == waitingCalls {
		close(h.all)
	}
	select {
	case <-h.release:
	case <-r.Context().Done():
	}
	_, _ = w.Write([]byte("done"))
}

// measureWaiting is what invocations cost that wait for a grant: what server and worker hold more for 1,000 of them, with the connections of those who called
// and to the service, and how much of a processor all of them take meanwhile.
func measureWaiting(ctx context.Context, s *sallyport, o options, r *report) error {
	h := &holder{all: make(chan struct{}), release: make(chan struct{})}
	web := httptest.NewServer(h)
	defer web.Close()
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	manifest := fmt.Sprintf("name = \"waiting\"\n[functions.waits]\nsource = \"f.js\"\ntimeout = \"5m\"\n[functions.waits.grants.web]\nhttp = %q\nmethods = [\"GET\"]\nprivate = [\"127.0.0.1\"]\n"+
		"limits = { timeout = \"4m\", concurrency = %d }\n", web.URL+"/", waitingCalls)
	if _, err := c.Apply(ctx, &api.Bundle{Manifest: manifest, Modules: map[string]api.Module{"waits": {Kind: api.ModuleScript, Code: []byte(waitingScript)}}}, false); err != nil {
		return err
	}
	idle, err := s.resident()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	failed := make(chan error, waitingCalls)
	for range waitingCalls {
		all.Go(func() {
			reply, err := c.Invoke(ctx, "waits", []byte(`{}`), "application/json")
			if err == nil && string(reply.Reply) != `"done"` {
				err = fmt.Errorf("a call that waited replied %s", reply.Reply)
			}
			failed <- err
		})
	}
	held, share, err := whileWaiting(ctx, s, o, h, failed)
	close(h.release)
	all.Wait()
	for range waitingCalls {
		if e := <-failed; e != nil && err == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	r.figure("(grants) 1,000 calls wait", "resident above idle", float64(held-idle)/(1<<20), "MiB", atMost(1024), "")
	r.figure("(grants) 1,000 calls wait", "of a processor meanwhile", 100*share, "%", bar{}, "")
	return nil
}

// whileWaiting returns what the server holds when all calls wait, and how much of a processor it takes.
func whileWaiting(ctx context.Context, s *sallyport, o options, h *holder, failed chan error) (held int64, share float64, err error) {
	select {
	case <-h.all:
	case e := <-failed: // none can have ended
		failed <- nil
		return 0, 0, fmt.Errorf("%d of %d calls wait, and one has ended: %w", h.held.Load(), waitingCalls, e)
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if held, err = s.resident(); err != nil {
		return 0, 0, err
	}
	before, err := s.cpu()
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(o.duration) // what is measured is that nothing is done in it
	after, err := s.cpu()
	return held, (after - before).Seconds() / o.duration.Seconds(), err
}
