package httpapi_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/event"
	"sallyport/internal/httpapi"
)

// FuzzRequest sends any request of an operator through the whole API. Nothing panics, nothing stays
// counted, and every refusal is a problem document.
func FuzzRequest(f *testing.F) {
	for _, r := range httpapi.Routes() {
		f.Add(r.Method, fill(r.Path, "shop"), "", "application/cloudevents+json", oneEvent)
	}
	f.Add("GET", "/v1/namespaces/shop/events", "limit=1&state=dead&cursor=1", "", "")
	f.Add("GET", "/v1/namespaces/shop/events/%2e%2e", "data=true", "", "")
	f.Add("POST", "/v1/namespaces/shop/events", "", "application/cloudevents-batch+json", "["+oneEvent+"]")
	w := newWorld(f)
	w.spaces["shop"].outcome = api.StateDone
	f.Fuzz(func(t *testing.T, method, path, query, contentType, body string) {
		target := "/" + strings.TrimPrefix(path, "/")
		if query != "" {
			target += "?" + query
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "http://x"+target, strings.NewReader(body))
		if err != nil || strings.Contains(query, "follow") || strings.Contains(query, "wait") {
			return
		}
		if strings.HasPrefix(path, "/v1/tokens/") && method == "DELETE" {
			return // it could end the operator's own
		}
		r.RequestURI = target
		r.Header.Set("Authorization", "Bearer "+w.tokens["operator"])
		r.Header["Content-Type"] = []string{contentType}
		rec := w.serve(r)
		if rec.Code >= 400 && !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/plain") {
			wantProblem(t, rec, rec.Code, decode[api.Problem](t, rec, rec.Code).Code)
		}
		if rec.Code == 500 || rec.Code >= 300 && rec.Code < 400 {
			t.Errorf("%s %s = %d %s\n%s", method, target, rec.Code, rec.Body, w.log)
		}
		if !w.Idle() {
			t.Error("something is still counted")
		}
	})
}

func TestParseQuery(t *testing.T) {
	t.Parallel()
	known := []string{"a", "b"}
	for _, tc := range []struct {
		raw  string
		want httpapi.Query
		err  string
	}{
		{"", nil, ""},
		{"a=1&b=%20x", httpapi.Query{"a": "1", "b": " x"}, ""},
		{"a=", httpapi.Query{"a": ""}, ""},
		{"a=1&a=1", nil, "the query parameter a is there more than once"},
		{"c=1", nil, `this path has no query parameter "c"; it has a, b`},
		{"A=1", nil, `this path has no query parameter "A"; it has a, b`},
		{"a=%zz", nil, "the query is malformed"},
		{"a=1;b=2", nil, "the query is malformed"},
		{strings.Repeat("a", httpapi.MaxQueryBytes+1), nil, "the query is longer than 8192 bytes"},
		{strings.Repeat("é", 100), nil, `this path has no query parameter "` + strings.Repeat("é", 40) + `…"; it has a, b`},
	} {
		got, err := httpapi.ParseQuery(tc.raw, known)
		if (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("ParseQuery(%.40q): %v, want %q", tc.raw, err, tc.err)
		}
		if diff := cmp.Diff(tc.want, got); err == nil && diff != "" {
			t.Errorf("ParseQuery(%q) differs (-want +got):\n%s", tc.raw, diff)
		}
	}
	if _, err := httpapi.ParseQuery("a=1", nil); err == nil || !strings.HasPrefix(err.Error(), "this path takes no query parameters") {
		t.Errorf("a path without parameters: %v", err)
	}
}

// FuzzReceipts holds the answer that is written by hand to the type it is one of.
func FuzzReceipts(f *testing.F) {
	f.Add("e-1", "/s", uint64(1024), true)
	f.Add("\"\\\n\u2028<>", "é", uint64(0), false)
	f.Fuzz(func(t *testing.T, id, source string, position uint64, duplicate bool) {
		id, source = strings.ToValidUTF8(id, "?"), strings.ToValidUTF8(source, "?")
		want := api.Receipts{Receipts: []api.Receipt{{ID: id, Source: source, Position: position, Duplicate: duplicate}, {ID: source, Source: id}}}
		var got api.Receipts
		text := httpapi.AppendReceipts(nil, want.Receipts)
		if err := json.Unmarshal(text, &got, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("receipts differ (-want +got):\n%s", diff)
		}
	})
}

// sink is the cheapest http.ResponseWriter there is.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

// SetWriteDeadline is there because the writers of net/http have it.
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkPublish is one event of 1 KiB in binary mode, without network and store.
func BenchmarkPublish(b *testing.B) {
	w := newWorldOf(b, httpapi.Config{Limits: event.DefaultLimits(), Requests: 8})
	w.instant = true
	body := []byte(`{"note":"` + strings.Repeat("leave it at the door, please. ", 33) + `"}`)
	r := httptest.NewRequest("POST", shop+"/events", nil)
	r.ContentLength = int64(len(body))
	for k, v := range map[string]string{
		"Authorization": "Bearer " + w.tokens["operator"], "Content-Type": "application/json",
		"Ce-Specversion": "1.0", "Ce-Type": "bench.event", "Ce-Source": "/bench", "Ce-Id": "run-1",
	} {
		r.Header.Set(k, v)
	}
	reader := strings.NewReader("")
	r.Body = io.NopCloser(reader)
	text := string(body)
	s := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(text)
		clear(s.header)
		w.ServeHTTP(s, r)
	}
	if s.status != 202 {
		b.Fatalf("status = %d", s.status)
	}
}
