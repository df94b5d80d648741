package httpgrant_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
)

// BenchmarkFetch compares a grant with a bare client of Go that sends the same to the same loopback server: a request with a
// credential and a body of 200 bytes, an answer of 1 KiB.
func BenchmarkFetch(b *testing.B) {
	answer := bytes.Repeat([]byte("0123456789abcdef"), 64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	b.Cleanup(s.Close)
	body := bytes.Repeat([]byte("x"), 200)
	b.Run("bare", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{}}
		b.Cleanup(client.CloseIdleConnections)
		b.ReportAllocs()
		for b.Loop() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL+"/v1/charges/ch_1", bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer sk_live_0123456789")
			req.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || len(got) != len(answer) {
				b.Fatal(len(got), err)
			}
			_ = resp.Body.Close()
		}
	})
	b.Run("grant", func(b *testing.B) {
		d := open(b, config{
			grant:   manifest.HTTPGrant{URL: s.URL + "/v1/charges/{id}", Private: loopback(), Auth: manifest.HTTPAuth{Bearer: "secret:k"}},
			secrets: &secrets{values: map[string]string{"k": "sk_live_0123456789"}},
		})
		call := &grant.Call{Op: "fetch", Request: []byte(`{"method":"POST","values":{"id":"ch_1"},"headers":{"content-type":"application/json"}}`), Body: body}
		b.ReportAllocs()
		// The seam gives every use a deadline.
		ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
		defer cancel()
		for b.Loop() {
			reply, err := d.Do(ctx, call)
			if err != nil || len(reply.Body) != len(answer) {
				b.Fatal(err)
			}
		}
	})
}
