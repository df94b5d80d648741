package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		query  string
		status int
		want   string
	}{
		{"", 200, `"function":"price","invocations":2`},
		{"?by=revision", 200, `"function":"price","revision":3`},
		{"?by=principal", 200, `"principal":"token:t"`},
		{"?by=function,principal", 200, `"function":"price","principal":"token:t"`},
		{"?since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z", 200, `"since":"2026-01-01T00:00:00Z","until":"2026-02-01T00:00:00Z"`},
		{"", 200, `"total":{"invocations":2,"done":1,"failed":0,"dead":1,"cold":1,"wall_seconds":3,"cpu_seconds":2,"gb_seconds":0.5,"memory_peak_bytes":1048576,"bytes_in":10,"bytes_out":20,"p50_seconds":0.001024`},
		{"?function=price", 200, `"grants":[{"function":"price","grant":"orders","kind":"sql","uses":3,"failed":2,"denied":1,"bytes_in":30,"bytes_out":60,"p50_seconds":0.001024,"p99_seconds":0.001024,"last_used":"1970-01-01T00:00:01Z"}]`},
		{"", 200, `"grants":[{"function":"confirm","grant":"payments","kind":"http","uses":1,`},
		{"?function=other", 200, `"grants":[]`},
		{"?by=day", 400, "none of function, revision and principal"},
		{"?since=yesterday", 400, "since must be a time"},
		{"?until=yesterday", 400, "until must be a time"},
		{"?since=1h&until=2h", 400, "until is before since"},
		{"?function=../x", 400, "function"},
	} {
		r := w.do(http.MethodGet, "/v1/namespaces/shop/usage"+tt.query, "")
		if r.Code != tt.status || !strings.Contains(r.Body.String(), tt.want) {
			t.Errorf("GET usage%s = %d %s; want %d with %s", tt.query, r.Code, r.Body, tt.status, tt.want)
		}
	}
}
