package grant_test

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// TestRunners: uses that share goroutines, one after the other and beside each other, get each its own answer; one that hangs ends with
// its Set, and then all goroutines do.
func TestRunners(t *testing.T) {
	t.Parallel()
	var runners grant.Runners
	s, d, _ := newSet(t, func(cfg *grant.Config, l *manifest.GrantLimits) {
		cfg.Runners = &runners
		cfg.Kinds[manifest.KindHTTP] = echo{cfg.Kinds[manifest.KindHTTP]}
		l.Rate, l.Concurrency = 1_000_000, 200
	})
	var all sync.WaitGroup
	for n := range 100 {
		all.Go(func() {
			for i := range 20 {
				body := strconv.Itoa(n*1000 + i)
				r, err := s.Use(t.Context(), grant.Call{Op: "echo", Request: []byte(`{}`), Body: []byte(body)}, "web")
				if err != nil || string(r.Body) != body {
					t.Errorf("Use = %s, %v; want %s", r.Body, err, body)
				}
			}
		})
	}
	all.Wait()
	for _, op := range []string{"panic", "fail"} { // neither takes a goroutine with it
		if _, err := s.Use(t.Context(), grant.Call{Op: op, Request: []byte(`{}`)}, "web"); err == nil {
			t.Errorf("Use(%s) = nil", op)
		}
	}
	all.Go(func() {
		_, err := s.Use(t.Context(), grant.Call{Op: "hang", Request: []byte(`{}`)}, "web")
		if p := problem.From(err); p.Code != "grant.closed" {
			t.Errorf("Use that the end of its Set met = %v, want grant.closed", err)
		}
	})
	<-d.begun
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	runners.Close()
	runners.Close()
}

// echo is a Kind whose doors answer "echo" with what they get.
type echo struct{ grant.Kind }

func (e echo) Open(ctx context.Context, o grant.Opening) (grant.Door, error) {
	d, err := e.Kind.Open(ctx, o)
	return echoDoor{d}, err
}

type echoDoor struct{ grant.Door }

func (d echoDoor) Do(ctx context.Context, call *grant.Call) (grant.Reply, error) {
	if call.Op == "echo" {
		return grant.Reply{Body: call.Body}, nil
	}
	return d.Door.Do(ctx, call)
}
