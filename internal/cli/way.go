package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/client"
)

const (
	// maxFollow bounds the events that one --wait follows: a function may cause events without end.
	maxFollow = 100
	// longPoll is how long one request waits; the server's limit is a minute.
	longPoll = 30 * time.Second
	// stateHidden stands for the state of an event that was caused and that the caller may not read. No server answers it.
	stateHidden api.EventState = "hidden"
)

// waiter follows events, and those that their handling causes, until each has an outcome.
type waiter struct {
	client *client.Client
	until  time.Time
	events []*api.Event // in the order of their causes
	more   bool         // there were more than maxFollow
}

// follow waits for an event and for those it causes.
func (w *waiter) follow(ctx context.Context, id, source string) error {
	if len(w.events) >= maxFollow {
		w.more = true
		return nil
	}
	e, err := w.outcome(ctx, id, source)
	if err != nil {
		return err
	}
	w.events = append(w.events, e)
	return w.followCaused(ctx, e)
}

// followCaused waits for the events that the handling of e caused. One that the caller may not read, such as one inside a
// perimeter, is named and not waited for: whose outcome was asked for is the caller's own.
func (w *waiter) followCaused(ctx context.Context, e *api.Event) error {
	for _, d := range e.Deliveries {
		for _, t := range d.Attempts {
			for _, next := range t.Emitted {
				if len(w.events) >= maxFollow {
					w.more = true
					return nil
				}
				caused, err := w.outcome(ctx, next, "")
				if p, ok := errors.AsType[*client.Problem](err); ok && p.Status == http.StatusForbidden {
					caused, err = &api.Event{ID: next, State: stateHidden}, nil
				}
				if err != nil {
					return err
				}
				w.events = append(w.events, caused)
				if err := w.followCaused(ctx, caused); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// outcome returns an event when it has an outcome, or when no time is left.
func (w *waiter) outcome(ctx context.Context, id, source string) (*api.Event, error) {
	for {
		// Without time left the state is asked for once, without waiting.
		left := min(longPoll, max(0, time.Until(w.until)))
		e, err := w.client.Event(ctx, id, client.EventOptions{Source: source, Wait: left})
		if err != nil || e.State != api.StatePending || left == 0 {
			return e, err
		}
	}
}

// state returns the worst of the outcomes: dead before pending before done.
func (w *waiter) state() api.EventState {
	worst := api.StateDone
	for _, e := range w.events {
		switch e.State {
		case api.StateDead:
			return api.StateDead
		case api.StatePending:
			worst = api.StatePending
		case api.StateDone:
		}
	}
	return worst
}

// pending returns the id of the first event without an outcome.
func (w *waiter) pending() string {
	for _, e := range w.events {
		if e.State == api.StatePending {
			return e.ID
		}
	}
	return ""
}

// writeWay prints an event and what became of it, with times.
func writeWay(w io.Writer, e *api.Event) {
	if e.State == stateHidden {
		fmt.Fprintf(w, "%s  not visible: you may not read it\n", clean(e.ID))
		return
	}
	fmt.Fprintf(w, "%s  %s  %s  at %d\n", clean(e.ID), clean(e.Type), e.State, e.Position)
	rows := [][]string{{"  " + clock(e.AcceptedAt), "accepted", fmt.Sprintf("on %s from %s by %s", e.AcceptedAt.UTC().Format(time.DateOnly), e.Source, e.Principal)}}
	if cause := e.Extensions["causationid"]; cause != "" {
		rows = append(rows, []string{"", "caused by", cause})
	}
	if b := e.Behind; b != nil {
		rows = append(rows, []string{"", "on behalf of", behindText(b)})
	}
	for i := range e.Deliveries {
		rows = append(rows, deliveryRows(&e.Deliveries[i])...)
	}
	if len(e.Deliveries) == 0 && e.State == api.StateDone {
		rows = append(rows, []string{"", "done", "no subscription matched"})
	}
	columns(w, rows)
}

// behindText says who is behind an event that a function emitted.
func behindText(b *api.Behind) string {
	out := cmp.Or(b.Principal, "somebody who is not known")
	for _, f := range b.Functions {
		out += fmt.Sprintf(", through %s (revision %d)", f.Name, f.Revision)
	}
	return out
}

// route names the way of a delivery.
func route(d *api.Delivery) string {
	if d.Subscription == "" {
		return d.Function
	}
	return d.Subscription + " -> " + d.Function
}

func deliveryRows(d *api.Delivery) [][]string {
	var rows [][]string
	for _, t := range d.Attempts {
		took := t.Finished.Sub(t.Started).Round(100 * time.Microsecond)
		rows = append(rows, []string{"  " + clock(t.Started), route(d), fmt.Sprintf("attempt %d took %s: %s", t.Number, took, attemptResult(&t))})
	}
	switch d.State {
	case api.StatePending:
		when := "waits for its turn"
		if d.NextAttempt != nil {
			when = "next attempt at " + clock(*d.NextAttempt)
		}
		rows = append(rows, []string{"", route(d), "pending, " + when})
	case api.StateDead:
		rows = append(rows, []string{"", route(d), "dead letter"})
	case api.StateDone:
	}
	return rows
}

func attemptResult(t *api.Attempt) string {
	result := "done"
	if t.Code != "" {
		result = "failed: " + t.Error + " [" + t.Code + "]"
	}
	if len(t.Emitted) > 0 {
		result += ", published " + strings.Join(t.Emitted, " ")
	}
	return result
}
