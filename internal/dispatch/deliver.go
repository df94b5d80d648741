package dispatch

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/deploy"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

// try is one attempt, as the journal keeps it. Times are Unix nanoseconds.
type try struct {
	Number   int    `json:"n"`
	Started  int64  `json:"s"`
	Finished int64  `json:"f"`
	Revision int    `json:"r,omitempty"`
	Code     string `json:"c,omitempty"`
	Error    string `json:"e,omitempty"`
	Emitted  int    `json:"m,omitempty"` // events
}

// result is what an attempt came to.
type result struct {
	try   try
	reply jsontext.Value
	err   *problem.Error
	// canceled: the server is stopping; the attempt counts as not made.
	canceled bool
	// unread: the event could not be read, so there was no attempt.
	unread bool
	// use is what the invocation took, if there was one, and principal who published the event.
	use       *cell.Usage
	principal ident.PrincipalID
}

// deliver makes one attempt and settles what it came to. The budget is to look for what may start then.
func (d *Dispatcher) deliver(ctx context.Context, tk *ticket, del *delivery) {
	del.ticket = tk
	res, retry := d.run(ctx, del)
	del.ticket = nil
	failed := res.err != nil && !res.canceled && !res.unread
	again := failed && d.again(del, &res, retry)
	var letter error
	if failed && !again {
		// The letter is stored before the journal says that there is one, and nobody removes it in between.
		d.letters.RLock()
		defer d.letters.RUnlock()
		letter = d.storeLetter(ctx, del, &res)
	}
	defer d.moved() // when the lock is free
	d.mu.Lock()
	defer d.mu.Unlock()
	d.giveBack(tk, &res)
	switch {
	case res.canceled:
		d.enqueue(tk.turn.lane, del)
	case res.unread:
		d.log.Error("read an event; its delivery stays pending", "position", del.pos, "error", res.err.Unwrap())
		d.postpone(del)
	case res.err == nil:
		d.settle(del, &res, false)
	case letter != nil:
		d.log.Error("store dead letter; the delivery stays pending", "position", del.pos, "error", letter)
		d.postpone(del)
	case again:
		d.retryLater(del, &res, retry)
	default:
		d.settle(del, &res, true)
	}
	d.advance()
}

// giveBack tells the budget what an attempt took.
func (d *Dispatcher) giveBack(tk *ticket, res *result) {
	if res.use != nil {
		d.cfg.Budget.done(tk, res.use.CPU, time.Duration(res.try.Finished-res.try.Started), res.try.Emitted)
	} else {
		d.cfg.Budget.cancel(tk)
	}
}

// again reports whether another attempt is to be made after this one.
func (d *Dispatcher) again(del *delivery, res *result, retry manifest.Retry) bool {
	if del.final || del.made+1 >= retry.Attempts || isFinal(res.err) {
		return false
	}
	return time.Now().Add(d.pause(del, res, retry, 0)).Before(del.rec.AcceptedAt.Add(retry.MaxAge))
}

// isFinal reports whether another attempt could not succeed: the function said so, or what is wrong
// lies in the event, the app or the chain of events.
func isFinal(p *problem.Error) bool {
	if f, ok := cell.Failed(p); ok {
		return f.Final
	}
	switch p.Code {
	case "ingress.too_many_hops", "ingress.publish_not_granted", "access.denied_for_caller", "filter.when_failed", "event.schema_violation",
		"access.delivery_denied", "dispatch.subscription_removed", "dispatch.event_gone", "eventlog.append_too_large", "eventlog.too_many_events":
		return true
	}
	return false
}

// pause returns how long to wait before the next attempt: exponential, with jitter the part of it
// that random (0 to 1) says, and never less than the function asked for.
func (d *Dispatcher) pause(del *delivery, res *result, retry manifest.Retry, random float64) time.Duration {
	pause := retry.MaxBackoff
	if shift := del.made; shift < 32 {
		if p := retry.Backoff << shift; p > 0 && p < pause {
			pause = p
		}
	}
	pause = pause/2 + time.Duration(random*float64(pause/2))
	return max(pause, res.err.RetryAfter)
}

// retryLater parks the delivery until its next attempt. d.mu is held.
func (d *Dispatcher) retryLater(del *delivery, res *result, retry manifest.Retry) {
	pause := d.pause(del, res, retry, rand.Float64())
	del.note(res.try)
	del.next = time.Now().Add(pause).UnixNano()
	if del.batch != nil {
		d.park(del)
	} else {
		d.outbox.addPark(del)
	}
	d.wait(del)
	d.observe("retry", del, res)
}

// postpone has an attempt that could not be made, or not be settled, made a little later. d.mu is held.
func (d *Dispatcher) postpone(del *delivery) {
	del.next = time.Now().Add(time.Second).UnixNano()
	d.park(del)
	d.wait(del)
}

// wait puts a parked delivery among those that are due later.
func (d *Dispatcher) wait(del *delivery) {
	del.state, del.rec = waiting, nil
	d.retries.push(del)
	d.poke()
}

// note adds a try to the delivery's record: the first and the latest are kept.
func (del *delivery) note(t try) {
	del.made++
	if len(del.tries) >= keptTries {
		del.tries = append(del.tries[:1:1], del.tries[2:]...) // a copy: a snapshot may be reading the old one
	}
	del.tries = append(del.tries, t)
}

// settle ends a delivery: done, or dead with its letter stored. d.mu is held.
func (d *Dispatcher) settle(del *delivery, res *result, dead bool) {
	outcome := "done"
	if dead {
		outcome = "dead"
	}
	d.observe(outcome, del, res)
	if del.final {
		d.replies.add(del.pos, Reply{Value: res.reply, Problem: res.err})
	}
	bt := del.batch
	del.batch = nil // its batch must not park it any more
	plain := !dead && del.made == 0
	if bt != nil && plain {
		// Its batch will say so.
		bt.ways = append(bt.ways, way{index: del.pos.Index(), route: del.route, try: res.try})
		bt.left[del.pos.Index()]--
		bt.pending--
		d.conclude(del.pos)
		return
	}
	del.note(res.try)
	if bt != nil {
		bt.left[del.pos.Index()]--
		bt.pending--
		d.open[del.pos] = plus(d.open[del.pos], 1)
	}
	d.unpark(del.key())
	if dead {
		d.dead[del.key()] = struct{}{}
	}
	if del.pos.Batch() >= d.floor {
		d.setSettled(del.key()) // its batch may be read again
	}
	if plain {
		d.outbox.addSettled(del.pos, del.route, &res.try)
	} else {
		d.outbox.add(d.settleEntry(del, dead))
	}
	d.past.settled(del, dead)
	d.close(del.pos, dead)
}

func (d *Dispatcher) setSettled(key deliveryKey) {
	of := d.settled[key.pos.Batch()]
	if of == nil {
		of = map[deliveryKey]struct{}{}
		d.settled[key.pos.Batch()] = of
	}
	of[key] = struct{}{}
}

func (d *Dispatcher) settledKeys() iter.Seq[deliveryKey] {
	return func(yield func(deliveryKey) bool) {
		for _, of := range d.settled {
			for key := range of {
				if !yield(key) {
					return
				}
			}
		}
	}
}

func plus(ev *openEvent, pending int32) *openEvent {
	if ev == nil {
		ev = &openEvent{}
	}
	ev.pending += pending
	return ev
}

// close takes one pending delivery off an open event.
func (d *Dispatcher) close(pos ident.Position, dead bool) {
	ev := d.open[pos]
	ev.pending--
	if dead {
		ev.dead++
	}
	d.conclude(pos)
}

// conclude counts an event if nothing of it is pending any more. Events of batches that were not
// read yet are counted when they are. d.mu is held.
func (d *Dispatcher) conclude(pos ident.Position) {
	ev := d.open[pos]
	if ev != nil && ev.pending == 0 && ev.dead == 0 {
		delete(d.open, pos)
		ev = nil
	}
	bt := d.liveBatch(pos.Batch())
	_, gone := d.gone[pos]
	switch {
	case ev != nil && ev.pending > 0 || bt.leftOf(pos) > 0 || pos.Batch() >= d.next:
		return
	case ev != nil:
		// Dead letters count as long as they are there.
	case gone && pos.Batch() < d.floor:
		delete(d.gone, pos)
		d.closed++
	case gone:
		// Counted when the floor passes it: until then its batch may be read again.
	case bt != nil:
		bt.finished++
		d.ahead++
	default:
		d.done++
	}
	d.wake(pos)
}

func (d *Dispatcher) observe(outcome string, del *delivery, res *result) {
	finished := time.Unix(0, res.try.Finished)
	if d.cfg.Attempted != nil {
		d.cfg.Attempted(outcome, finished.Sub(time.Unix(0, res.try.Started)))
	}
	if d.cfg.Used != nil && res.use != nil {
		d.cfg.Used(Use{
			Function: del.route.fn, Revision: res.try.Revision, Principal: res.principal,
			Outcome: outcome, At: finished, Usage: *res.use,
		})
	}
}

// run makes one attempt. It returns the retry rules that hold for the delivery.
func (d *Dispatcher) run(ctx context.Context, del *delivery) (res result, retry manifest.Retry) {
	started := time.Now()
	res.try = try{Number: del.made + 1, Started: started.UnixNano()}
	retry = manifest.DefaultRetry()
	err := d.fetch(ctx, del)
	res.unread = del.rec == nil
	if err == nil {
		retry, err = d.attemptTarget(ctx, del, &res)
	}
	res.try.Finished = time.Now().UnixNano()
	if err == nil {
		return res, retry
	}
	if ctx.Err() != nil {
		res.canceled = true
		return res, retry
	}
	res.err = problem.From(err)
	if res.err.Kind == problem.Internal && !res.unread {
		d.log.Error("attempt at a delivery", "position", del.pos, "function", string(del.route.fn), "error", err)
	}
	res.try.Code, res.try.Error = res.err.Code, clip(res.err.Public)
	return res, retry
}

// attemptTarget invokes the function that the delivery is for now. A revision that was replaced before it
// could be loaded has not been tried: the one that replaced it is.
func (d *Dispatcher) attemptTarget(ctx context.Context, del *delivery, res *result) (manifest.Retry, error) {
	for {
		fn, retry, err := d.target(del)
		if err != nil {
			return retry, err
		}
		res.try.Revision = fn.Revision
		if d.cfg.CanDeliver != nil && del.route.sub != "" {
			if err := d.cfg.CanDeliver(del.rec.Type, fn.Name); err != nil {
				return retry, err
			}
		}
		if err = d.invoke(ctx, fn, del, res); !errors.Is(err, deploy.ErrReplaced) {
			return retry, err
		}
	}
}

func clip(s string) string {
	if len(s) > maxErrorBytes {
		return s[:maxErrorBytes] + "…"
	}
	return s
}

// fetch reads the delivery's event when it is not in memory.
func (d *Dispatcher) fetch(ctx context.Context, del *delivery) error {
	if del.rec != nil {
		return nil
	}
	rec, err := d.batches.record(ctx, del.pos)
	if errors.Is(err, eventlog.ErrTrimmed) {
		// Retention keeps what is pending, so somebody removed it by other means.
		del.rec = &event.Record{Position: del.pos, AcceptedAt: time.Now()}
		return problem.New(problem.NotFound, "dispatch.event_gone", "the event is no longer in the event log")
	}
	del.rec = rec
	if err != nil {
		del.rec = nil
		return fmt.Errorf("read event at %s: %w", del.pos, err)
	}
	return nil
}

// target returns the function that the delivery is for now: a new revision, or another function,
// takes over what is pending.
func (d *Dispatcher) target(del *delivery) (*deploy.Function, manifest.Retry, error) {
	state := d.cfg.State()
	if del.route.sub == "" {
		fn, err := state.Function(del.route.fn)
		return fn, manifest.Retry{Attempts: 1}, err
	}
	sub := state.Subscriptions[del.route.sub]
	if sub == nil {
		return nil, manifest.Retry{}, problem.New(problem.NotFound, "dispatch.subscription_removed",
			"the subscription %s was removed while the delivery was pending", del.route.sub).
			WithHint("apply an app with this subscription and redrive, or discard the dead letter")
	}
	if del.failed != nil {
		// It may be that another condition holds now.
		if sub.When != nil {
			if ok, err := sub.When.Match(&del.rec.Event); err != nil || !ok {
				return nil, sub.Retry, del.failed
			}
		}
	}
	return sub.Function, sub.Retry, nil
}

// invoke runs the function and publishes what it returned. A panic of the host while it runs a guest
// is contained here: it must not take the server with it.
func (d *Dispatcher) invoke(ctx context.Context, fn *deploy.Function, del *delivery, res *result) (err error) {
	defer func() {
		if r := recover(); r != nil {
			d.log.Error("panic in an invocation", "function", string(fn.Name), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = problem.New(problem.Internal, "dispatch.panic", "the server failed while it ran the function")
		}
	}()
	run, release, err := fn.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	secrets, err := d.hiding(ctx, fn)
	if err != nil {
		return err
	}
	rec := del.rec
	out, use, err := run.Invoke(ctx, cell.Input{
		Event: event.AppendJSON(make([]byte, 0, len(rec.Data)+512), &rec.Event), EventID: rec.ID, Attempt: del.made + 1, Heavy: del.heavy,
		Log: func(level, message string) {
			d.cfg.Lines.Append(api.LogLine{
				Time: time.Now().UTC(), Function: string(fn.Name), Revision: fn.Revision, EventID: rec.ID,
				Attempt: del.made + 1, Level: level, Message: secrets.cut(message),
			})
		},
		Use:   d.uses(fn, del, secrets),
		Waits: d.waits(del.ticket),
	})
	res.use, res.principal = &use, rec.Principal
	if err != nil {
		return secrets.fromError(err)
	}
	out.Reply = secrets.json(out.Reply)
	for i := range out.Events {
		e := &out.Events[i]
		e.Subject, e.Data, e.DataBase64 = secrets.text(e.Subject), secrets.json(e.Data), secrets.bytes(e.DataBase64)
	}
	ids, err := d.cfg.Emitter.Emit(ctx, ingress.Emission{
		Namespace: d.cfg.Namespace, Function: fn, Delivery: del.route.sub, Cause: rec, Events: emitted(out.Events),
	})
	res.reply, res.try.Emitted = out.Reply, len(ids)
	if len(ids) > 0 {
		d.measureFull()
	}
	return err
}

// redactor returns what takes the secrets that the function has at this moment out of what it says.
func (d *Dispatcher) redactor(ctx context.Context, fn *deploy.Function) (*redact.Set, error) {
	set, err := d.cfg.Redactor(ctx, fn)
	if err != nil {
		return nil, fmt.Errorf("read the secrets of function %s: %w", fn.Name, err)
	}
	return set, nil
}

// uses returns what makes the uses of grants of an attempt: whose they are is said here, and not by the guest.
func (d *Dispatcher) uses(fn *deploy.Function, del *delivery, secrets *hiding) func(context.Context, cell.GrantUse) cell.GrantAnswer {
	doors := fn.Doors()
	if doors == nil {
		return nil
	}
	rec, attempt, spent := del.rec, del.made+1, doors.Begin()
	return func(ctx context.Context, u cell.GrantUse) cell.GrantAnswer {
		reply, err := doors.Use(ctx, grant.Call{Caller: grant.Caller{Event: rec, Attempt: attempt}, Op: u.Op, Request: u.Request, Body: u.Body, Spent: spent}, u.Grant)
		if failed := secrets.again(ctx); failed != nil {
			err = failed
		}
		if err == nil {
			return cell.GrantAnswer{JSON: reply.JSON, Body: reply.Body}
		}
		p := problem.From(err)
		text := "the use of the grant " + u.Grant + " failed: " + secrets.cut(clip(p.Public)) + " [" + p.Code + "]"
		if p.Hint != "" { // is for the developer, so the function does not get it
			text += "; " + secrets.cut(clip(p.Hint))
		}
		d.cfg.Lines.Append(api.LogLine{
			Time: time.Now().UTC(), Function: string(fn.Name), Revision: fn.Revision, EventID: rec.ID, Attempt: attempt,
			Level: cell.LevelDebug, Message: text,
		})
		return cell.FailedUse(p)
	}
}

// waits returns what is told when an attempt waits for its grants.
func (d *Dispatcher) waits(tk *ticket) func(bool) {
	if tk == nil {
		return nil
	}
	return func(waiting bool) { d.cfg.Budget.wait(tk, waiting) }
}

func emitted(list []cell.Emitted) []event.Event {
	out := make([]event.Event, len(list))
	for i, e := range list {
		out[i] = event.Event{Type: e.Type, Subject: e.Subject, DataContentType: e.DataContentType}
		switch {
		case len(e.Data) > 0:
			out[i].Data, out[i].DataKind = e.Data, event.DataJSON
			if e.DataContentType == "" {
				out[i].DataContentType = "application/json"
			}
		case len(e.DataBase64) > 0:
			out[i].Data, out[i].DataKind = e.DataBase64, event.DataBinary
		}
	}
	return out
}
