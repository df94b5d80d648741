package telemetry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/telemetry"
)

const secret = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210_01234567"

func TestLogger(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		format, level, want string
	}{
		{"text", "info", "level=INFO msg=\"a b\" n=1\n"},
		{"json", "debug", `{"level":"INFO","msg":"a b","n":1}` + "\n"},
		{"json", "WARN", ""},
		{"xml", "info", "error"},
		{"text", "loud", "error"},
		{"", "", "error"},
	} {
		var b bytes.Buffer
		log, err := telemetry.Logger(&b, tt.format, tt.level, nil)
		if err != nil {
			if tt.want != "error" {
				t.Errorf("Logger(%q, %q) = %v", tt.format, tt.level, err)
			}
			continue
		}
		log.InfoContext(t.Context(), "a b", slog.Int("n", 1))
		got := regexp.MustCompile(`time=\S+ |"time":"[^"]*",`).ReplaceAllString(b.String(), "")
		if got != tt.want {
			t.Errorf("Logger(%q, %q) wrote %q, want %q", tt.format, tt.level, got, tt.want)
		}
	}
}

type named struct{}

func (named) String() string { return "Bearer sp_0123456789abcdef_" + secret }

type list []string

// TestLoggerRedacts logs a token and a hidden value in every way: none is written, and the id of the token stays.
func TestLoggerRedacts(t *testing.T) {
	t.Parallel()
	token := "sp_0123456789abcdef_" + secret
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log, err := telemetry.Logger(&b, format, "debug", func(s string) string { return strings.ReplaceAll(s, "hidden value", "[hidden]") })
		if err != nil {
			t.Fatal(err)
		}
		log.With(slog.String("early", token)).WithGroup("g").ErrorContext(t.Context(), "got "+token+" twice "+token,
			slog.String("text", "Bearer "+token),
			slog.Any("error", fmt.Errorf("dial: %w", errors.New(token))),
			slog.Any("named", named{}),
			slog.Any("list", list{"a", "hidden value"}),
			slog.Any("panic", fmt.Errorf("no route to %q", "hidden value")),
			slog.Group("deep", slog.String("x", token+" hidden value")))
		if strings.Contains(b.String(), secret[:16]) {
			t.Errorf("%s: a token was written:\n%s", format, b.String())
		}
		if strings.Contains(b.String(), "hidden value") || strings.Count(b.String(), "[hidden]") != 3 {
			t.Errorf("%s: a hidden value was written:\n%s", format, b.String())
		}
		if got := strings.Count(b.String(), "sp_0123456789abcdef_[redacted]"); got != 7 {
			t.Errorf("%s: %d tokens redacted, want 7:\n%s", format, got, b.String())
		}
	}
}

// scrape returns the lines of sallyport's own metrics.
func scrape(t *testing.T, m *telemetry.Metrics) []string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	body, err := io.ReadAll(rec.Body)
	if err != nil || rec.Code != 200 {
		t.Fatalf("GET /metrics = %d, %v: %s", rec.Code, err, body)
	}
	var out []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "sallyport_") && !strings.Contains(line, "_bucket{") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics("1.2.3")
	m.Committed("shop")(100, 4096, 2*time.Second)
	attempted := m.Attempted("shop")
	attempted("done", time.Second)
	attempted("retry", time.Second)
	attempted("made up", time.Second)
	m.Refused("access.denied")
	m.Sampled(func() telemetry.Sample {
		return telemetry.Sample{Ready: true, DiskFree: 7, LostWorkers: 3, Events: []telemetry.NamespaceSample{{Namespace: "shop", Done: 1, Dead: 2, Pending: 97}}}
	})
	want := []string{
		`sallyport_attempt_seconds_count 3`,
		`sallyport_attempt_seconds_sum 3`,
		`sallyport_attempts_total{namespace="shop",outcome="dead"} 0`,
		`sallyport_attempts_total{namespace="shop",outcome="done"} 1`,
		`sallyport_attempts_total{namespace="shop",outcome="other"} 1`,
		`sallyport_attempts_total{namespace="shop",outcome="retry"} 1`,
		`sallyport_build_info{version="1.2.3"} 1`,
		`sallyport_commit_bytes_total{namespace="shop"} 4096`,
		`sallyport_commit_events_count{namespace="shop"} 1`,
		`sallyport_commit_events_sum{namespace="shop"} 100`,
		`sallyport_commit_seconds_count{namespace="shop"} 1`,
		`sallyport_commit_seconds_sum{namespace="shop"} 2`,
		`sallyport_disk_free_bytes 7`,
		`sallyport_events_accepted_total{namespace="shop"} 100`,
		`sallyport_events{namespace="shop",state="dead"} 2`,
		`sallyport_events{namespace="shop",state="done"} 1`,
		`sallyport_events{namespace="shop",state="pending"} 97`,
		`sallyport_ready 1`,
		`sallyport_requests_refused_total{code="access.denied"} 1`,
		`sallyport_workers_lost_total 3`,
	}
	got := scrape(t, m)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// BenchmarkCommitted is what the metrics cost a group commit.
func BenchmarkCommitted(b *testing.B) {
	committed := telemetry.NewMetrics("").Committed("shop")
	b.ReportAllocs()
	for b.Loop() {
		committed(100, 4096, time.Millisecond)
	}
}

// BenchmarkAttempted is what the metrics cost an attempt.
func BenchmarkAttempted(b *testing.B) {
	attempted := telemetry.NewMetrics("").Attempted("shop")
	b.ReportAllocs()
	for b.Loop() {
		attempted("done", time.Millisecond)
	}
}

// TestCredentials: what is not known is not shown as a time long ago.
func TestCredentials(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics("v")
	at := time.Unix(1_700_000_000, 0)
	m.Checked(func() telemetry.Credentials {
		return telemetry.Credentials{
			Issuers:     []telemetry.CredentialSource{{Name: "https://a", Count: 2, Since: at, Failures: 1}, {Name: "https://b", Failures: 3}},
			Revocations: []telemetry.CredentialSource{{Name: "shop", Count: 4, Since: at, Until: at.Add(time.Second)}},
		}
	})
	var got []string
	for _, line := range scrape(t, m) {
		if strings.HasPrefix(line, "sallyport_issuer") || strings.HasPrefix(line, "sallyport_revocation") {
			got = append(got, strings.TrimPrefix(line, "sallyport_"))
		}
	}
	want := []string{
		`issuer_keys{issuer="https://a"} 2`, `issuer_keys{issuer="https://b"} 0`,
		`issuer_refresh_failures_total{issuer="https://a"} 1`, `issuer_refresh_failures_total{issuer="https://b"} 3`,
		`issuer_refreshed_timestamp_seconds{issuer="https://a"} 1.7e+09`,
		`revocation_entries{ca="shop"} 4`, `revocation_issued_timestamp_seconds{ca="shop"} 1.7e+09`,
		`revocation_next_update_timestamp_seconds{ca="shop"} 1.700000001e+09`, `revocation_read_failures_total{ca="shop"} 0`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}
