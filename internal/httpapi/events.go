package httpapi

import (
	"context"
	"crypto/rand"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
)

// invocationType is the type of the event that a direct invocation is.
const invocationType ident.EventType = "sallyport.invocation"

// publish takes the events of one request. 202 means that they are on disk.
func (a *API) publish(c *call) error {
	if a.draining.Load() {
		return stopping()
	}
	b, err := a.body(c.r, a.cfg.Limits.BatchBytes)
	if err != nil {
		return err
	}
	defer b.release()
	evs, _, err := event.ParseHTTP(c.r.Header, b.bytes, a.cfg.Limits)
	if err != nil {
		return err
	}
	if trace := traceparent(c.r); trace != "" {
		for i := range evs {
			if _, has := evs[i].Extension("traceparent"); !has {
				evs[i].SetExtension("traceparent", trace)
			}
		}
	}
	receipts, err := a.deps.Intake.Accept(c.r.Context(), c.p, c.ns, evs, ingress.Options{})
	if err != nil {
		return err
	}
	c.Header()["Content-Type"] = isJSON
	b.bytes = appendReceipts(b.bytes[:0], receipts) // nobody needs the body any more
	send(c, http.StatusAccepted, b.bytes)
	return nil
}

// invoke runs one function on the body and waits for what it comes to.
func (a *API) invoke(c *call) error {
	if a.draining.Load() {
		return stopping()
	}
	fn, err := ident.ParseFunctionName(c.r.PathValue("name"))
	if err != nil {
		return badRequest("%v", err)
	}
	ctx, free, err := a.wait(c, maxInvocation)
	if err != nil {
		return err
	}
	defer free()
	receipt, err := a.acceptInvocation(c, fn)
	if err != nil {
		return err
	}
	c.Header().Set("Sallyport-Event-Id", receipt.ID)
	c.Header().Set("Sallyport-Position", strconv.FormatUint(receipt.Position, 10))
	space, err := a.space(c)
	if err != nil {
		return err
	}
	ctx, end := a.whileMay(ctx, func() error {
		return a.stillMay(c, policy.Invoke, policy.Resource{Kind: policy.KindFunction, Namespace: c.ns, Name: string(fn)})
	})
	state, reply, err := space.Dispatch.Await(ctx, ident.Position(receipt.Position))
	denied := end()
	switch {
	case denied != nil:
		return denied
	case err != nil && ended(c, err):
		return problem.New(problem.Timeout, "httpapi.still_pending", "the invocation was accepted, but has no outcome yet").
			WithHint("see `sallyport event get %s`", receipt.ID)
	case err != nil:
		return err
	case reply == nil && state == api.StateDead:
		return problem.New(problem.FunctionFailed, "httpapi.reply_lost", "the invocation failed, its reason is in the dead letter").
			WithHint("see `sallyport event get %s`", receipt.ID)
	case reply != nil && reply.Problem != nil:
		return reply.Problem
	case reply == nil || len(reply.Value) == 0:
		c.WriteHeader(http.StatusNoContent)
		return nil
	}
	c.Header()["Content-Type"] = isJSON
	send(c, http.StatusOK, reply.Value)
	return nil
}

// acceptInvocation stores the event that an invocation is.
func (a *API) acceptInvocation(c *call, fn ident.FunctionName) (*api.Receipt, error) {
	b, err := a.body(c.r, a.cfg.Limits.EventBytes)
	if err != nil {
		return nil, err
	}
	defer b.release()
	h := http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Id": {rand.Text()}, "Ce-Source": {"/invocations/" + string(fn)},
		"Ce-Type": {string(invocationType)}, "Content-Type": c.r.Header["Content-Type"],
	}
	whole := a.cfg.InvokeEvents && strings.HasPrefix(c.r.Header.Get("Content-Type"), "application/cloudevents+json")
	if whole {
		h = c.r.Header
	}
	evs, mode, err := event.ParseHTTP(h, b.bytes, a.cfg.Limits)
	if err != nil {
		return nil, err
	}
	if mode != event.ModeBinary && !(whole && mode == event.ModeStructured) {
		return nil, problem.New(problem.Unsupported, "event.unsupported_format", "an invocation takes data, not an event").
			WithHint("send the data alone with its own Content-Type; events go to /events")
	}
	if trace := traceparent(c.r); trace != "" {
		evs[0].SetExtension("traceparent", trace)
	}
	receipts, err := a.deps.Intake.Accept(c.r.Context(), c.p, c.ns, evs, ingress.Options{Target: fn})
	if err != nil {
		return nil, err
	}
	return &receipts[0], nil
}

// getEvent returns one event and its way.
func (a *API) getEvent(c *call) error {
	withData, err := a.withData(c)
	if err != nil {
		return err
	}
	wait, err := c.query.wait()
	if err != nil {
		return err
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	pos, err := find(c.r.Context(), space.Log, c.query["source"], c.r.PathValue("id"))
	if err != nil {
		return err
	}
	if wait > 0 {
		if err := a.await(c, space, pos, wait); err != nil {
			return err
		}
	}
	rec, err := space.Log.At(c.r.Context(), pos)
	if err != nil {
		return err
	}
	if err := a.cross(c, policy.ReadEvents, rec.Type); err != nil {
		return err
	}
	if withData {
		if err := a.cross(c, policy.ReadEventData, rec.Type); err != nil {
			return err
		}
	}
	out := describe(&rec, withData)
	if out.State, out.Deliveries, err = space.Dispatch.Way(c.r.Context(), pos); err != nil {
		return err
	}
	return answer(c, http.StatusOK, &out)
}

// cross returns why a perimeter keeps events of a type from the caller, who may read those of the namespace.
func (a *API) cross(c *call, action policy.Action, t ident.EventType) error {
	return a.deps.Guard.Cross(c.r.Context(), c.p, action, policy.Resource{Kind: policy.KindEventType, Namespace: c.ns, Name: string(t)})
}

// withData reports whether the caller asks for event data; it is an error if they may not.
func (a *API) withData(c *call) (bool, error) {
	asked, err := c.query.flag("data")
	if err != nil || !asked {
		return false, err
	}
	return true, a.deps.Guard.Authorize(c.r.Context(), c.p, policy.ReadEventData, policy.OfNamespace(c.ns))
}

// find returns the position of the newest event with this id, and this source if there are several.
func find(ctx context.Context, log Log, source, id string) (ident.Position, error) {
	found, err := log.Find(ctx, source, id)
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 0:
		return 0, problem.New(problem.NotFound, "eventlog.not_found", "there is no event with the id %q", clip(id)).
			WithHint("list events with `sallyport event list`; older ones may have been removed by retention")
	case 1:
		return found[0], nil
	}
	rec, err := log.At(ctx, found[0])
	if err != nil {
		return 0, err
	}
	for _, pos := range found[1:] {
		other, err := log.At(ctx, pos)
		if err != nil {
			return 0, err
		}
		if other.Source != rec.Source {
			return 0, problem.New(problem.Conflict, "httpapi.source_needed", "events of several sources have the id %q", clip(id)).
				WithHint("name the source too: --source %s", clip(rec.Source))
		}
	}
	return found[0], nil
}

// await waits for an event's outcome, but no longer than wait: then the answer says pending.
func (a *API) await(c *call, space *Space, pos ident.Position, wait time.Duration) error {
	ctx, free, err := a.wait(c, wait)
	if err != nil {
		return err
	}
	defer free()
	ctx, end := a.whileMay(ctx, func() error { return a.stillMay(c, c.route.action, c.target()) })
	_, _, err = space.Dispatch.Await(ctx, pos)
	if denied := end(); denied != nil {
		return denied
	}
	if err != nil && ended(c, err) {
		return nil
	}
	return err
}

// describe returns an event as the wire has it, without its state.
func describe(rec *event.Record, withData bool) api.Event {
	out := api.Event{
		ID: rec.ID, Source: rec.Source, Type: string(rec.Type), Subject: rec.Subject, DataContentType: rec.DataContentType,
		Size: len(rec.Data), Position: uint64(rec.Position), AcceptedAt: rec.AcceptedAt, Principal: string(rec.Principal),
	}
	if !rec.Time.IsZero() {
		out.Time = &rec.Time
	}
	out.Behind = behind(rec)
	if len(rec.Extensions) > 0 || rec.CauseID != "" {
		out.Extensions = map[string]string{}
		for _, x := range rec.Extensions {
			out.Extensions[x.Name] = x.Value
		}
		if rec.CauseID != "" {
			out.Extensions["causationid"] = rec.CauseID
		}
	}
	if withData && rec.DataKind == event.DataJSON {
		out.Data = rec.Data
	} else if withData {
		out.DataBase64 = rec.Data
	}
	return out
}

// behind returns who is behind an event that a function emitted, nil for one from outside.
func behind(rec *event.Record) *api.Behind {
	if rec.Hops == 0 {
		return nil
	}
	out := &api.Behind{Principal: string(rec.Behind.Principal)}
	for one := range strings.FieldsSeq(rec.Behind.Functions) {
		name, number, _ := strings.Cut(one, "@")
		revision, _ := strconv.Atoi(number) // the server wrote it
		out.Functions = append(out.Functions, api.FunctionRevision{Name: name, Revision: revision})
	}
	return out
}

// maxScanned bounds the events that one page looks at when it filters by state, and scanStep is how
// many it looks at together: the event log does not know states.
const (
	maxScanned = 20_000
	scanStep   = 500
)

// listEvents returns a page of events, newest first. A page filtered by state may be short, or empty,
// and yet have a cursor.
func (a *API) listEvents(c *call) error {
	q, limit, err := eventQuery(c)
	if err != nil {
		return err
	}
	want := api.EventState(c.query["state"])
	switch want {
	case "":
		q.Limit = limit + 1
	case api.StatePending, api.StateDone, api.StateDead:
		q.Limit = max(limit+1, scanStep)
	default:
		return badRequest("state must be pending, done or dead")
	}
	space, err := a.space(c)
	if err != nil {
		return err
	}
	out, inside := api.EventList{Events: []api.Event{}}, a.crossings(c, policy.ReadEvents, policy.KindEventType)
	for scanned := 0; ; {
		recs, err := space.Log.List(c.r.Context(), q)
		if err != nil {
			return err
		}
		for i := range recs {
			state := space.Dispatch.State(recs[i].Position)
			if want != "" && state != want || !inside.may(string(recs[i].Type)) {
				continue
			}
			if len(out.Events) == limit {
				out.Cursor = makeCursor(c.ns, c.query, ident.Position(out.Events[limit-1].Position))
				return answer(c, http.StatusOK, &out)
			}
			e := describe(&recs[i], false)
			e.State = state
			out.Events = append(out.Events, e)
		}
		if len(recs) < q.Limit {
			return answer(c, http.StatusOK, &out)
		}
		q.Before = recs[len(recs)-1].Position
		if scanned += len(recs); scanned >= maxScanned {
			out.Cursor = makeCursor(c.ns, c.query, q.Before)
			return answer(c, http.StatusOK, &out)
		}
	}
}

// eventQuery reads what a list of events is asked for.
func eventQuery(c *call) (q eventlog.Query, limit int, err error) {
	q.Source = c.query["source"]
	if text := c.query["type"]; text != "" {
		if q.Type, err = ident.ParseEventType(text); err != nil {
			return q, 0, badRequest("%v", err)
		}
	}
	if q.Since, err = c.query.time("since"); err != nil {
		return q, 0, err
	}
	if q.Until, err = c.query.time("until"); err != nil {
		return q, 0, err
	}
	if q.Before, err = readCursor(c.ns, c.query); err != nil {
		return q, 0, err
	}
	limit, err = c.query.limit()
	return q, limit, err
}
