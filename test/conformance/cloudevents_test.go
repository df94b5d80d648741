package conformance_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/testkit"
)

const events = "/v1/namespaces/default/events"

// TestCloudEvents sends events in each mode of the HTTP binding and reads them back.
func TestCloudEvents(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	trace := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, tc := range []struct {
		name, body string
		header     []string
		want       api.Event
	}{
		{"binary JSON", `{"a":1}`, []string{
			"ce-specversion", "1.0", "ce-id", "b1", "ce-source", "/s", "ce-type", "t.a", "ce-subject", "Euro%20%E2%82%AC", "ce-time", "2026-01-31T12:00:00.5+01:00",
			"ce-colour", "blue", "content-type", "application/json; charset=utf-8", "traceparent", trace,
		}, api.Event{
			ID: "b1", Source: "/s", Type: "t.a", Subject: "Euro €", DataContentType: "application/json; charset=utf-8",
			Extensions: map[string]string{"colour": "blue", "traceparent": trace}, Data: []byte(`{"a":1}`),
		}},
		{"binary bytes", "\x00\xff", []string{
			"ce-specversion", "1.0", "ce-id", "b2", "ce-source", "/s", "ce-type", "t.a", "content-type", "application/octet-stream",
		}, api.Event{ID: "b2", Source: "/s", Type: "t.a", DataContentType: "application/octet-stream", DataBase64: []byte("\x00\xff")}},
		{"binary without data", "", []string{"ce-specversion", "1.0", "ce-id", "b3", "ce-source", "/s", "ce-type", "t.a"}, api.Event{ID: "b3", Source: "/s", Type: "t.a"}},
		{"structured", `{"specversion":"1.0","id":"s1","source":"/s","type":"t.a","data":[1,2],"flag":true,"n":3,"none":null}`,
			[]string{"content-type", "application/cloudevents+json; charset=UTF-8"},
			api.Event{ID: "s1", Source: "/s", Type: "t.a", Extensions: map[string]string{"flag": "true", "n": "3"}, Data: []byte(`[1,2]`)}},
		{"structured base64", `{"specversion":"1.0","id":"s2","source":"/s","type":"t.a","datacontenttype":"image/png","data_base64":"AP8="}`,
			[]string{"content-type", "application/cloudevents+json"},
			api.Event{ID: "s2", Source: "/s", Type: "t.a", DataContentType: "image/png", DataBase64: []byte("\x00\xff")}},
	} {
		a := s.MustDo(t, http.MethodPost, events, []byte(tc.body), tc.header...)
		var r api.Receipts
		a.Decode(t, http.StatusAccepted, &r)
		if len(r.Receipts) != 1 || r.Receipts[0].ID != tc.want.ID || r.Receipts[0].Position == 0 {
			t.Errorf("%s: receipts %+v", tc.name, r)
		}
		var e api.Event
		s.MustDo(t, http.MethodGet, events+"/"+tc.want.ID+"?data=true", nil).Decode(t, http.StatusOK, &e)
		got := fmt.Sprint(e.ID, e.Source, e.Type, e.Subject, e.DataContentType, e.Extensions, string(e.Data), e.DataBase64)
		want := fmt.Sprint(tc.want.ID, tc.want.Source, tc.want.Type, tc.want.Subject, tc.want.DataContentType, tc.want.Extensions, string(tc.want.Data), tc.want.DataBase64)
		if got != want {
			t.Errorf("%s: read back %s\nwant %s", tc.name, got, want)
		}
	}
}

// TestRefusals sends what no server should take, and looks at status, code and place.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	structured := func(rest string) string {
		return `{"specversion":"1.0","id":"1","source":"/s","type":"t"` + rest + `}`
	}
	for _, tc := range []struct {
		name, contentType, body string
		status                  int
		code, pointer           string
	}{
		{"no event", "application/json", `{}`, 415, "event.unsupported_format", ""},
		{"XML format", "application/cloudevents+xml", `<e/>`, 415, "event.unsupported_format", ""},
		{"other charset", "application/cloudevents+json; charset=utf-16", structured(``), 415, "event.unsupported_format", ""},
		{"no JSON", "", `{`, 400, "event.json_malformed", ""},
		{"two values", "", structured(``) + structured(``), 400, "event.json_malformed", ""},
		{"no object", "", `[]`, 400, "event.invalid", ""},
		{"duplicate key", "", structured(`,"data":{"a":1,"b":{"c":1,"c":2}}`), 400, "event.json_duplicate_key", "/data/b/c"},
		{"duplicate attribute", "", structured(`,"id":"2"`), 400, "event.json_duplicate_key", "/id"},
		{"escaped duplicate", "", structured(`,"data":{"a":1,"\u0061":2}`), 400, "event.json_duplicate_key", "/data/a"},
		{"invalid UTF-8", "", structured(`,"data":"` + "\xff" + `"`), 400, "event.json_malformed", "/data"},
		{"too deep", "", structured(`,"data":` + strings.Repeat("[", 100) + strings.Repeat("]", 100)), 400, "event.json_limit", ""},
		{"too deep, unclosed", "", strings.Repeat("[", 100_000), 400, "", ""},
		{"no id", "", `{"specversion":"1.0","source":"/s","type":"t"}`, 400, "event.invalid", "/id"},
		{"empty source", "", `{"specversion":"1.0","id":"1","source":"","type":"t"}`, 400, "event.invalid", "/source"},
		{"old version", "", `{"specversion":"0.3","id":"1","source":"/s","type":"t"}`, 400, "event.invalid", "/specversion"},
		{"type with space", "", `{"specversion":"1.0","id":"1","source":"/s","type":"a b"}`, 400, "event.invalid", "/type"},
		{"bad time", "", structured(`,"time":"yesterday"`), 400, "event.invalid", "/time"},
		{"data twice", "", structured(`,"data":1,"data_base64":"AA=="`), 400, "event.invalid", "/data_base64"},
		{"bad base64", "", structured(`,"data_base64":"!"`), 400, "event.invalid", "/data_base64"},
		{"extension of the platform", "", structured(`,"hops":"0"`), 400, "event.reserved_extension", ""},
		{"extension with a capital", "", structured(`,"Colour":"x"`), 400, "event.invalid", ""},
		{"source of the platform", "", `{"specversion":"1.0","id":"1","source":"/namespaces/default/functions/f","type":"t"}`, 400, "ingress.reserved_source", ""},
		{"too large", "", structured(`,"data":"` + strings.Repeat("x", 2<<20) + `"`), 413, "", ""},
		{"far too large", "", structured(`,"data":"` + strings.Repeat("x", 9<<20) + `"`), 413, "", ""},
		{"empty batch", "application/cloudevents-batch+json", `[]`, 400, "event.invalid", ""},
		{"batch with a fault", "application/cloudevents-batch+json", `[` + structured(``) + `,{"specversion":"1.0"}]`, 400, "event.invalid", "/1/id"},
		{"batch too long", "application/cloudevents-batch+json", `[` + strings.Repeat(structured(``)+",", 1100) + structured(``) + `]`, 413, "event.too_many", ""},
	} {
		contentType := tc.contentType
		if contentType == "" {
			contentType = "application/cloudevents+json"
		}
		a := s.MustDo(t, http.MethodPost, events, []byte(tc.body), "Content-Type", contentType)
		p := a.Problem()
		if a.Status != tc.status || tc.code != "" && p.Code != tc.code {
			t.Errorf("%s: %d %s, want %d %s\n%s", tc.name, a.Status, p.Code, tc.status, tc.code, a.Body)
			continue
		}
		if tc.pointer != "" && (len(p.Errors) == 0 || p.Errors[0].Pointer != tc.pointer) {
			t.Errorf("%s: places %+v, want %s", tc.name, p.Errors, tc.pointer)
		}
		if p.Title == "" || p.Type == "" || p.Detail == "" {
			t.Errorf("%s: the problem is not whole: %s", tc.name, a.Body)
		}
	}
	var st api.Status
	s.MustDo(t, http.MethodGet, "/v1/status", nil).Decode(t, http.StatusOK, &st)
	if st.Namespaces[0].Accepted != 0 {
		t.Errorf("%d events were stored, want none", st.Namespaces[0].Accepted)
	}
}

// TestBatchIsAllOrNothing and answers duplicates with their first acceptance.
func TestBatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	s := testkit.Start(t, testkit.Binary(t), filepath.Join(t.TempDir(), "data"))
	s.Apply(t, &api.Bundle{
		Manifest: "name = \"app\"\n[event_types.\"t\"]\nschema = \"t.json\"\n",
		Schemas:  map[string]string{"t.json": `{"type":"object","properties":{"n":{"type":"integer"}}}`},
	})
	batch := func(data ...string) testkit.Answer {
		var list []string
		for i, d := range data {
			list = append(list, fmt.Sprintf(`{"specversion":"1.0","id":"e%d","source":"/s","type":"t","data":%s}`, i, d))
		}
		return s.MustDo(t, http.MethodPost, events, []byte("["+strings.Join(list, ",")+"]"), "Content-Type", "application/cloudevents-batch+json")
	}
	a := batch(`{"n":1}`, `{"n":"two"}`, `{"n":3}`)
	if p := a.Problem(); a.Status != 422 || p.Code != "event.schema_violation" || len(p.Errors) == 0 || p.Errors[0].Pointer != "/1/data/n" {
		t.Errorf("a batch with a violation: %d %s", a.Status, a.Body)
	}
	if a := s.MustDo(t, http.MethodGet, events+"/e0", nil); a.Status != http.StatusNotFound {
		t.Errorf("an event of a refused batch: %d, want 404", a.Status)
	}
	var first, again api.Receipts
	batch(`{"n":1}`, `{"n":2}`).Decode(t, http.StatusAccepted, &first)
	batch(`{"n":1}`, `{"n":2}`, `{"n":3}`).Decode(t, http.StatusAccepted, &again)
	for i, r := range again.Receipts {
		if dup := i < 2; r.Duplicate != dup || dup && r.Position != first.Receipts[i].Position {
			t.Errorf("event %d sent again: %+v, first %+v", i, r, first.Receipts)
		}
	}
	if a := batch(`{"n":9}`); a.Status != http.StatusConflict || a.Problem().Code != "eventlog.conflict" {
		t.Errorf("the same identity with other content: %d %s", a.Status, a.Body)
	}
}
