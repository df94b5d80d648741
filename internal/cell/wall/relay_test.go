package wall_test

import (
	"bytes"
	"strings"
	"testing"

	"sallyport/internal/cell/wall"
	"sallyport/internal/redact"
	"sallyport/internal/telemetry"
)

// TestWorkerTalk: what a worker writes to stderr is in the log line by line, and nothing of a secret is, wherever in a line it stands.
func TestWorkerTalk(t *testing.T) {
	t.Parallel()
	const secret = "abcdefghijklmnopqrstuvwxyz0123456789"
	var hidden redact.Live
	hidden.Put("key", []byte(secret))
	for before := range 1100 {
		var out bytes.Buffer
		log, err := telemetry.Logger(&out, "text", "info", hidden.Cut)
		if err != nil {
			t.Fatal(err)
		}
		wall.Relay(strings.NewReader("panic: it fails\n"+strings.Repeat(".", before)+secret+strings.Repeat(".", 2000)+"\ngoroutine 1\n"), log)
		for _, line := range []string{`"panic: it fails"`, `"goroutine 1"`} {
			if !strings.Contains(out.String(), line) {
				t.Fatalf("%d: the line %s is missing:\n%s", before, line, out.String())
			}
		}
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Errorf("%d: %d lines were logged", before, n)
		}
		for i := 0; i+redact.MinLength <= len(secret); i++ {
			if strings.Contains(out.String(), secret[i:i+redact.MinLength]) {
				t.Fatalf("%d: a part of the secret is in the log:\n%s", before, out.String())
			}
		}
	}
}
