package httpapi_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/dispatch"
	"sallyport/internal/event"
	"sallyport/internal/httpapi"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

const shop = "/v1/namespaces/shop"

// publish stores an event with this id and source.
func publish(t testing.TB, w *world, id, source string) ident.Position {
	t.Helper()
	body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":%q,"type":"order.created","data":{"n":1}}`, id, source)
	return ident.Position(decode[api.Receipts](t, w.do("POST", shop+"/events", body), 202).Receipts[0].Position)
}

func TestGetEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range []string{"e-1", "a/b c%2F?#", ".", "..", "ü"} {
		pos := publish(t, w, id, "/s")
		path := strings.ReplaceAll(url.PathEscape(id), ".", "%2E")
		got := decode[api.Event](t, w.do("GET", shop+"/events/"+path, ""), 200)
		if got.ID != id || got.Position != uint64(pos) || got.State != api.StatePending || len(got.Deliveries) != 1 || got.Data != nil {
			t.Errorf("event %q = %+v", id, got)
		}
	}
	wantProblem(t, w.do("GET", shop+"/events/none", ""), 404, "eventlog.not_found")
	wantProblem(t, w.do("GET", "/v1/namespaces/none/events/e-1", ""), 404, "server.namespace_not_found")
	for _, query := range []string{"wait=1", "wait=-1s", "wait=61s", "wait=1s&wait=1s", "data=1", "wiat=1s", "%zz", "a;b"} {
		wantProblem(t, w.do("GET", shop+"/events/e-1?"+query, ""), 400, "httpapi.bad_request")
	}
	// One id, two sources; the same source twice is the newest.
	first := publish(t, w, "same", "/one")
	newest := publish(t, w, "same", "/one")
	if got := decode[api.Event](t, w.do("GET", shop+"/events/same", ""), 200); got.Position != uint64(newest) {
		t.Errorf("position %d, want the newest %d, not %d", got.Position, newest, first)
	}
	publish(t, w, "same", "/two")
	wantProblem(t, w.do("GET", shop+"/events/same", ""), 409, "httpapi.source_needed")
	if got := decode[api.Event](t, w.do("GET", shop+"/events/same?source=/two", ""), 200); got.Source != "/two" {
		t.Errorf("source = %q", got.Source)
	}
}

// TestInternalError: the cause is in the log, under the reference that the answer has, and nowhere else.
func TestInternalError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.spaces["shop"].fail = errors.New("the disk smells of smoke")
	p := wantProblem(t, w.do("GET", shop+"/events/e-1", ""), 500, "internal")
	if p.Detail != "internal error" || p.Reference == "" || strings.Contains(fmt.Sprint(p), "smoke") {
		t.Errorf("answer = %+v", p)
	}
	if log := w.log.String(); !strings.Contains(log, "smoke") || !strings.Contains(log, p.Reference) {
		t.Errorf("log = %q", log)
	}
	w.log.Reset()
	w.fail = problem.New(problem.StorageFull, "store.full", "the disk is full").WithRetryAfter(1500 * time.Millisecond).WithCause(errors.New("smoke"))
	rec := w.do("POST", shop+"/events", oneEvent)
	if wantProblem(t, rec, 507, "store.full"); rec.Header().Get("Retry-After") != "2" || strings.Contains(rec.Body.String(), "smoke") {
		t.Errorf("answer = %v %s", rec.Header(), rec.Body)
	}
}

// TestWait: a long poll ends with the outcome, with its time, or when the server drains.
func TestWait(t *testing.T) {
	t.Parallel()
	get := func(w *world, query string) (*httptest.ResponseRecorder, chan struct{}) {
		rec, done := httptest.NewRecorder(), make(chan struct{})
		r := httptest.NewRequest("GET", shop+"/events/e-1?"+query, nil)
		r.Header.Set("Authorization", "Bearer "+w.tokens["operator"])
		go func() {
			defer close(done)
			w.ServeHTTP(rec, r)
		}()
		return rec, done
	}
	for _, tc := range []struct {
		name  string
		act   func(*world)
		took  time.Duration
		state api.EventState
	}{
		{"outcome", func(w *world) {
			time.Sleep(3 * time.Second)
			w.spaces["shop"].settle(1024, api.StateDead, nil)
		}, 3 * time.Second, api.StateDead},
		{"time is up", func(*world) {}, 10 * time.Second, api.StatePending},
		{"drain", func(w *world) {
			time.Sleep(4 * time.Second)
			w.Drain()
		}, 4 * time.Second, api.StatePending},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				publish(t, w, "e-1", "/s")
				began := time.Now()
				rec, done := get(w, "wait=10s")
				tc.act(w)
				<-done
				if took := time.Since(began); took != tc.took {
					t.Errorf("took %s, want %s", took, tc.took)
				}
				if got := decode[api.Event](t, rec, 200); got.State != tc.state {
					t.Errorf("state = %s, want %s", got.State, tc.state)
				}
				if !w.Idle() {
					t.Error("something is still counted")
				}
			})
		})
	}
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.spaces["shop"]
	invoke := func(name, body string, header ...string) *httptest.ResponseRecorder {
		return w.do("POST", shop+"/functions/"+name+"/invoke", body, header...)
	}
	var got accept
	w.accept = func(a accept) { got = a }
	s.outcome, s.reply = api.StateDone, &dispatch.Reply{Value: []byte(`{"total":3}`)}
	rec := invoke("price", `{"n":1}`, "Content-Type", "application/json", "traceparent", trace, "ce-id", "mine", "ce-colour", "blue")
	if rec.Code != 200 || rec.Body.String() != `{"total":3}` || rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("reply = %d %s", rec.Code, rec.Body)
	}
	e := got.events[0]
	if got.target != "price" || e.Type != "sallyport.invocation" || e.Source != "/invocations/price" || len(e.Extensions) != 1 || e.Extensions[0].Value != trace {
		t.Errorf("the intake got %+v", got)
	}
	if rec.Header().Get("Sallyport-Event-Id") != e.ID || rec.Header().Get("Sallyport-Position") != "1024" || len(e.ID) < 20 {
		t.Errorf("header = %v, want id %s", rec.Header(), e.ID)
	}
	s.reply = &dispatch.Reply{}
	if rec := invoke("price", ""); rec.Code != 204 || rec.Body.Len() != 0 || rec.Header().Get("Sallyport-Event-Id") == "" {
		t.Errorf("no reply = %d %s", rec.Code, rec.Body)
	}
	s.reply = &dispatch.Reply{Problem: problem.New(problem.FunctionFailed, "cell.function_failed", "out of paper")}
	rec = invoke("price", "")
	if wantProblem(t, rec, 502, "cell.function_failed"); rec.Header().Get("Sallyport-Event-Id") == "" {
		t.Error("a failure does not name its event")
	}
	s.outcome, s.reply = api.StateDead, nil
	wantProblem(t, invoke("price", ""), 502, "httpapi.reply_lost")
	wantProblem(t, invoke("none", ""), 404, "deploy.function_not_found")
	wantProblem(t, invoke("No", ""), 400, "httpapi.bad_request")
	wantProblem(t, invoke("price", "{", "Content-Type", "application/json"), 400, "event.json_malformed")
	wantProblem(t, invoke("price", oneEvent, "Content-Type", "application/cloudevents+json"), 415, "event.unsupported_format")
	wantProblem(t, invoke("price", strings.Repeat("x", 1<<20+1), "Content-Type", "text/plain"), 413, "httpapi.body_too_large")
	if !w.Idle() {
		t.Error("something is still counted")
	}
}

// TestInvokeStillPending: an invocation that is not waited for any longer is not called a failure.
func TestInvokeStillPending(t *testing.T) {
	t.Parallel()
	for _, drain := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			began := time.Now()
			if drain > 0 {
				time.AfterFunc(drain, w.Drain)
			}
			rec := w.do("POST", shop+"/functions/price/invoke", "1")
			p := wantProblem(t, rec, 504, "httpapi.still_pending")
			if id := rec.Header().Get("Sallyport-Event-Id"); id == "" || !strings.Contains(p.Hint, id) {
				t.Errorf("hint = %q, want it to name the event %s", p.Hint, id)
			}
			if took, want := time.Since(began), max(drain, 0); took != want && drain > 0 || drain == 0 && took != httpapi.MaxInvocation {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestListEvents walks through pages, whole and filtered by state.
func TestListEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const events = 25
	for i := range events {
		pos := publish(t, w, fmt.Sprint("e-", i), "/s")
		if i%5 == 0 {
			w.spaces["shop"].states[pos] = api.StateDead
		}
	}
	walk := func(query string) (ids []string) {
		cursor := ""
		for range events + 1 {
			page := decode[api.EventList](t, w.do("GET", shop+"/events?"+query+"&cursor="+cursor, ""), 200)
			for _, e := range page.Events {
				ids = append(ids, e.ID)
			}
			if cursor = page.Cursor; cursor == "" {
				return ids
			}
		}
		t.Fatalf("%s: the pages do not end", query)
		return nil
	}
	if got := walk("limit=7"); len(got) != events || got[0] != "e-24" || got[events-1] != "e-0" {
		t.Errorf("all = %v", got)
	}
	if got := strings.Join(walk("limit=2&state=dead"), " "); got != "e-20 e-15 e-10 e-5 e-0" {
		t.Errorf("dead = %v", got)
	}
	if got := walk("limit=5&state=done"); len(got) != 0 {
		t.Errorf("done = %v", got)
	}
	if got := walk("limit=5&type=order.other"); len(got) != 0 {
		t.Errorf("other type = %v", got)
	}
	first := decode[api.EventList](t, w.do("GET", shop+"/events?limit=2&state=dead", ""), 200)
	for _, query := range []string{
		"limit=0", "limit=1001", "limit=x", "state=odd", "since=yesterday", "until=x", "type=a%20b", "cursor=9", "cursor=x", "cursor=-1",
		"cursor=00000000000", "cursor=" + first.Cursor, "state=done&cursor=" + first.Cursor, "state=dead&cursor=1" + first.Cursor,
		"state=dead&source=/s&cursor=" + first.Cursor, "state=dead&cursor=0" + first.Cursor,
	} {
		wantProblem(t, w.do("GET", shop+"/events?"+query, ""), 400, "httpapi.bad_request")
	}
	wantProblem(t, w.do("GET", "/v1/namespaces/bank/events?limit=2&state=dead&cursor="+first.Cursor, ""), 400, "httpapi.bad_request")
}

// TestScanIsBounded: a page that finds nothing ends after so many events, with a cursor to go on.
func TestScanIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.spaces["shop"]
	for range httpapi.MaxScanned + 10 {
		s.add("p", []event.Event{{ID: "x", Source: "/s", Type: "t"}}, "")
	}
	got := decode[api.EventList](t, w.do("GET", shop+"/events?limit=1&state=dead", ""), 200)
	if len(got.Events) != 0 || got.Cursor == "" || s.lists > 50 {
		t.Errorf("found %d events and cursor %q in %d readings", len(got.Events), got.Cursor, s.lists)
	}
	got = decode[api.EventList](t, w.do("GET", shop+"/events?limit=1&state=dead&cursor="+got.Cursor, ""), 200)
	if len(got.Events) != 0 || got.Cursor != "" {
		t.Errorf("second page: %+v", got)
	}
}

func FuzzReadCursor(f *testing.F) {
	f.Add("shop", "state=dead", uint64(1024), "10240123456789")
	f.Fuzz(func(t *testing.T, ns, raw string, pos uint64, cursor string) {
		q, err := httpapi.ParseQuery(raw, []string{"type", "source", "state", "since", "until", "limit"})
		if err != nil {
			return
		}
		with := func(c string) httpapi.Query {
			out := httpapi.Query{"cursor": c}
			for k, v := range q {
				out[k] = v
			}
			return out
		}
		// Whatever is accepted is what would be made.
		if got, err := httpapi.ReadCursor(ident.Namespace(ns), with(cursor)); err == nil && got != 0 && httpapi.MakeCursor(ident.Namespace(ns), q, got) != cursor {
			t.Errorf("ReadCursor(%q) = %d", cursor, got)
		}
		made := httpapi.MakeCursor(ident.Namespace(ns), q, ident.Position(pos))
		got, err := httpapi.ReadCursor(ident.Namespace(ns), with(made))
		if pos > 0 && (err != nil || uint64(got) != pos) {
			t.Errorf("ReadCursor(%q) = %d, %v; want %d", made, got, err, pos)
		}
	})
}
