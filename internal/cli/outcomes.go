package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/client"
)

const (
	// outcomePause is how long dev waits at least before it asks again what became of events. It asks its own server, on the
	// same machine, for one short list, when that says that something has moved.
	outcomePause = 200 * time.Millisecond
	// maxOpen bounds the events that are asked for one by one; of the others the end is not told.
	maxOpen = 50
)

// tellOutcomes prints, for each event that comes in, what its handling came to. It looks when something has moved; after a
// fault, and until the namespace is there, it looks again and again.
func (s *session) tellOutcomes(ctx context.Context) {
	o := outcomes{client: s.client, out: s.app.env.Stdout, open: map[uint64]*api.Event{}}
	told := "" // one fault is told once
	for {
		err := o.poll(ctx)
		again := err != nil
		if ctx.Err() != nil {
			return
		}
		if p, ok := errors.AsType[*client.Problem](err); ok && p.Status == http.StatusNotFound {
			err = nil // the namespace is not there before the first apply
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			s.app.say("follow events: %v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(outcomePause):
		}
		if again {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.moved:
		}
	}
}

// outcomes knows which events were told, and how much of them.
type outcomes struct {
	client  *client.Client
	out     io.Writer
	started bool
	after   uint64                // events up to this position were there before, or are told
	open    map[uint64]*api.Event // by position: what was told of events without an outcome
}

// poll tells what is new since the last time.
func (o *outcomes) poll(ctx context.Context) error {
	list, err := o.client.Events(ctx, client.ListOptions{Limit: maxOpen})
	if err != nil {
		return err
	}
	if !o.started {
		// What was accepted in an earlier run is told only as far as it is still under way.
		o.started = true
		if len(list.Events) > 0 {
			o.after = list.Events[0].Position
		}
		for i := range list.Events {
			if e := &list.Events[i]; e.State == api.StatePending {
				o.open[e.Position] = e
			}
		}
	}
	if err := o.arrivals(list); err != nil {
		return err
	}
	for _, position := range slices.Sorted(maps.Keys(o.open)) {
		known := o.open[position]
		e, err := o.client.Event(ctx, known.ID, client.EventOptions{Source: known.Source})
		if err != nil {
			return err
		}
		if err := o.tell(known, e); err != nil {
			return err
		}
		if o.open[position] = e; e.State != api.StatePending {
			delete(o.open, position)
		}
	}
	return nil
}

// arrivals opens the events that came in since the last time.
func (o *outcomes) arrivals(list *api.EventList) error {
	skipped := len(list.Events) == maxOpen && list.Events[maxOpen-1].Position > o.after
	for i := range list.Events {
		e := &list.Events[i]
		if e.Position <= o.after {
			break
		}
		if len(o.open) == maxOpen {
			skipped = true
			break
		}
		o.open[e.Position] = e
	}
	if len(list.Events) > 0 {
		o.after = max(o.after, list.Events[0].Position)
	}
	if skipped {
		_, err := fmt.Fprintln(o.out, "… and more events than can be told one by one; see `sallyport event list`")
		return err
	}
	return nil
}

// tell prints what e has that known has not. known is what a list said, or the last answer.
func (o *outcomes) tell(known, e *api.Event) error {
	var text strings.Builder
	line := func(at time.Time, state, what string) {
		fmt.Fprintf(&text, "%s  %-5s  %s  %s  %s\n", clock(at), state, clean(e.Type), clean(e.ID), clean(what))
	}
	for i := range e.Deliveries {
		d := &e.Deliveries[i]
		for n := attemptsOf(known, d); n < len(d.Attempts); n++ {
			t := &d.Attempts[n]
			state, what := string(api.StateDone), fmt.Sprintf("%s in %s", route(d), t.Finished.Sub(t.Started).Round(100*time.Microsecond))
			if t.Code != "" {
				state, what = "retry", fmt.Sprintf("%s attempt %d failed: %s [%s]", route(d), t.Number, t.Error, t.Code)
			}
			if n == len(d.Attempts)-1 && d.State == api.StateDead {
				state = string(api.StateDead)
			}
			if len(t.Emitted) > 0 {
				what += fmt.Sprintf(", published %d", len(t.Emitted))
			}
			line(t.Finished, state, what)
		}
	}
	if len(e.Deliveries) == 0 && e.State == api.StateDone {
		line(e.AcceptedAt, string(e.State), "no subscription matched")
	}
	_, err := io.WriteString(o.out, text.String())
	return err
}

// attemptsOf returns how many attempts of a delivery are in what is known.
func attemptsOf(known *api.Event, d *api.Delivery) int {
	for i := range known.Deliveries {
		if k := &known.Deliveries[i]; k.Subscription == d.Subscription && k.Function == d.Function {
			return len(k.Attempts)
		}
	}
	return 0
}
