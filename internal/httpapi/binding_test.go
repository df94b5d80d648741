package httpapi_test

import (
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/event"
	"sallyport/internal/httpapi"
	"sallyport/internal/policy"
)

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// TestBinding sends events in every content mode of the CloudEvents HTTP binding, as its sections say,
// and looks at what the intake gets.
func TestBinding(t *testing.T) {
	t.Parallel()
	binary := func(more ...string) []string {
		return append([]string{"Content-Type", "", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "t"}, more...)
	}
	base := event.Event{ID: "1", Source: "/s", Type: "t"}
	with := func(f func(*event.Event)) []event.Event {
		e := base
		f(&e)
		return []event.Event{e}
	}
	structured := `{"specversion":"1.0","id":"1","source":"/s","type":"t"%s}`
	for _, tc := range []struct {
		name, body string
		header     []string
		want       []event.Event
	}{
		// 3.1: binary.
		{"binary without data", "", binary(), []event.Event{base}},
		{"binary JSON", `{"a": 1}`, binary("Content-Type", "application/json"), with(func(e *event.Event) {
			e.DataContentType, e.Data, e.DataKind = "application/json", []byte(`{"a": 1}`), event.DataJSON
		})},
		{"binary suffix JSON", `[]`, binary("Content-Type", "application/geo+json"), with(func(e *event.Event) {
			e.DataContentType, e.Data, e.DataKind = "application/geo+json", []byte(`[]`), event.DataJSON
		})},
		{"binary bytes", "\x00\xff", binary("Content-Type", "image/png"), with(func(e *event.Event) {
			e.DataContentType, e.Data, e.DataKind = "image/png", []byte("\x00\xff"), event.DataBinary
		})},
		{"binary attributes", "", binary("CE-Subject", "s%20%E2%82%AC", "Ce-Time", "2026-01-02T03:04:05Z", "ce-dataschema", "https://x/y", "ce-colour", "blue"), with(func(e *event.Event) {
			e.Subject, e.Time, e.DataSchema = "s €", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "https://x/y"
			e.SetExtension("colour", "blue")
		})},
		// 3.2: structured.
		{"structured", fmt.Sprintf(structured, `,"data":{"a":1},"flag":true,"n":3`), []string{"Content-Type", "application/cloudevents+json; charset=utf-8"}, with(func(e *event.Event) {
			e.Data, e.DataKind = []byte(`{"a":1}`), event.DataJSON
			e.Extensions = []event.Attribute{{Name: "flag", Value: "true", Kind: event.AttrBoolean}, {Name: "n", Value: "3", Kind: event.AttrInteger}}
		})},
		{"structured base64", fmt.Sprintf(structured, `,"data_base64":"`+base64.StdEncoding.EncodeToString([]byte{0, 255})+`"`), nil, with(func(e *event.Event) {
			e.Data, e.DataKind = []byte{0, 255}, event.DataBinary
		})},
		{"structured: ce- headers do not count", fmt.Sprintf(structured, ``), []string{"ce-id", "other", "ce-colour", "blue"}, []event.Event{base}},
		// 3.3: batch.
		{"batch", "[" + fmt.Sprintf(structured, ``) + "," + strings.Replace(fmt.Sprintf(structured, ``), `"1","s`, `"2","s`, 1) + "]", []string{"Content-Type", "application/cloudevents-batch+json"}, []event.Event{
			base, {ID: "2", Source: "/s", Type: "t"},
		}},
		// Trace context.
		{"traceparent", fmt.Sprintf(structured, ``), []string{"traceparent", trace}, with(func(e *event.Event) { e.SetExtension("traceparent", trace) })},
		{"traceparent of the event stays", fmt.Sprintf(structured, `,"traceparent":"mine"`), []string{"traceparent", trace}, with(func(e *event.Event) { e.SetExtension("traceparent", "mine") })},
		{"malformed traceparent", fmt.Sprintf(structured, ``), []string{"traceparent", trace + "x"}, []event.Event{base}},
		{"identity encoding", fmt.Sprintf(structured, ``), []string{"Content-Encoding", "identity"}, []event.Event{base}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var got []event.Event
			w.accept = func(a accept) {
				for _, e := range a.events {
					e.Data = append([]byte(nil), e.Data...) // it is gone when the request is over
					got = append(got, e)
				}
			}
			rec := w.do("POST", "/v1/namespaces/shop/events", tc.body, tc.header...)
			receipts := decode[api.Receipts](t, rec, 202)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("events differ (-want +got):\n%s", diff)
			}
			for i, e := range tc.want {
				want := api.Receipt{ID: e.ID, Source: e.Source, Position: uint64(i+1) << 10}
				if diff := cmp.Diff(want, receipts.Receipts[i]); diff != "" {
					t.Errorf("receipt differs (-want +got):\n%s", diff)
				}
			}
			if h := rec.Header(); h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Type") != "application/json" {
				t.Errorf("header = %v", h)
			}
			if !w.Idle() {
				t.Error("something is still counted")
			}
		})
	}
}

// TestRefusedPublish sends what is no event, or not one to take.
func TestRefusedPublish(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, target, body string
		header             []string
		status             int
		code               string
	}{
		{"no CloudEvent", "", `{}`, []string{"Content-Type", "application/json"}, 415, "event.unsupported_format"},
		{"XML", "", `<a/>`, []string{"Content-Type", "application/cloudevents+xml"}, 415, "event.unsupported_format"},
		{"compressed", "", "\x1f\x8b", []string{"Content-Encoding", "gzip"}, 415, "httpapi.encoded_body"},
		{"malformed", "", `{`, nil, 400, "event.json_malformed"},
		{"duplicate key", "", strings.Replace(oneEvent, `"id"`, `"id":"0","id"`, 1), nil, 400, "event.json_duplicate_key"},
		{"large", "", strings.Repeat(" ", 4<<20+1), nil, 413, "httpapi.body_too_large"},
		{"query", "?token=1", oneEvent, nil, 400, "httpapi.bad_request"},
		{"reader", "", oneEvent, nil, 403, "access.denied"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			header := tc.header
			if tc.name == "reader" {
				header = as(w.tokens[policy.Reader])
			}
			wantProblem(t, w.do("POST", "/v1/namespaces/shop/events"+tc.target, tc.body, header...), tc.status, tc.code)
			if n := len(w.spaces["shop"].records); n != 0 {
				t.Errorf("%d events were stored", n)
			}
			if len(w.refused) != 1 || w.refused[0] != tc.code {
				t.Errorf("counted refusals = %v", w.refused)
			}
			if !w.Idle() {
				t.Error("something is still counted")
			}
		})
	}
	w := newWorld(t)
	wantProblem(t, w.do("POST", "/v1/namespaces/none/events", oneEvent), 404, "server.namespace_not_found")
	wantProblem(t, w.do("POST", "/v1/namespaces/Shop/events", oneEvent), 400, "httpapi.bad_request")
}

// TestMemoryIsUsedAgain: concurrent requests do not see each other's bodies, though buffers are shared.
func TestMemoryIsUsedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.accept = func(a accept) {
		for _, e := range a.events {
			if want := strings.Repeat(e.ID, 100); string(e.Data) != `"`+want+`"` {
				t.Errorf("event %s has other data", e.ID)
			}
		}
	}
	done := make(chan struct{})
	for g := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 200 {
				id := fmt.Sprintf("%d-%d", g, i)
				body := strings.ReplaceAll(strings.Replace(oneEvent, `{"n":1}`, `"`+strings.Repeat(id, 100)+`"`, 1), "e-1", id)
				r := httptest.NewRequest("POST", "/v1/namespaces/shop/events", strings.NewReader(body))
				r.Header.Set("Content-Type", "application/cloudevents+json")
				r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
				if i%3 == 0 {
					r.ContentLength = -1
				}
				if rec := w.serve(r); rec.Code != 202 {
					t.Errorf("publish: %d %s", rec.Code, rec.Body)
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
	if !w.Idle() {
		t.Error("something is still counted")
	}
}

// TestTraceparent follows W3C Trace Context, 3.2.2.
func TestTraceparent(t *testing.T) {
	t.Parallel()
	for v, good := range map[string]bool{
		trace: true, "": false, trace[1:]: false, trace + "-00": false, strings.ToUpper(trace): false,
		"ff" + trace[2:]: false, "cc" + trace[2:]: true, strings.Replace(trace, "-", "_", 1): false,
		"00-" + strings.Repeat("0", 32) + trace[35:]: false, trace[:36] + strings.Repeat("0", 16) + trace[52:]: false,
		strings.Replace(trace, "4bf", "4bg", 1): false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Traceparent"] = []string{v}
		if got := httpapi.Traceparent(r); (got == v && v != "") != good {
			t.Errorf("traceparent(%q) = %q, want it taken: %v", v, got, good)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["Traceparent"] = []string{trace, trace}
	if got := httpapi.Traceparent(r); got != "" {
		t.Errorf("two headers: %q", got)
	}
}
