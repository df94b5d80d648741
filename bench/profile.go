package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

// profileDuring records a CPU profile of the server over its debug socket while the caller measures
// something else; the function returned waits for its end. Without -profile it does nothing.
func profileDuring(ctx context.Context, o options, s *sallyport, now bool) func() {
	if o.profile == "" || !now {
		return func() {}
	}
	done := make(chan error, 1)
	go func() { done <- profile(ctx, o, s) }()
	return func() {
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "bench: no profile:", err)
		}
	}
}

func profile(ctx context.Context, o options, s *sallyport) error {
	socket := filepath.Join(filepath.Dir(s.ready.TokenFile), "debug.sock")
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	url := fmt.Sprintf("http://debug/debug/pprof/profile?seconds=%d", max(1, int(o.duration.Seconds())))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // read to its end
	f, err := os.Create(o.profile)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, res.Body); err != nil {
		return err
	}
	return f.Close()
}
