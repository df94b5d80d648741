// Package testkit starts the real binary and talks to it as a user's program would: over TLS, with a
// token, through the public HTTP API. It is imported by tests only and may stop a test with t.Fatal.
package testkit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
)

const (
	// startLimit is how long a server may take to get ready before a test gives up on it.
	startLimit = 2 * time.Minute
	// StopLimit is how long it may take to end. Its own bound is ten seconds; a busy machine is not its fault.
	StopLimit = time.Minute
)

// Binary returns the sallyport binary to test: the one SALLYPORT names (as make sets it), else one
// built for this test.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("SALLYPORT"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "sallyport")
	build := exec.Command("go", "build", "-o", path, "sallyport/cmd/sallyport")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build sallyport: %v\n%s", err, out)
	}
	return path
}

// Server is a running sallyport process.
type Server struct {
	Ready  api.Ready
	Client *http.Client
	Token  string
	// Took is the time from exec to ready.
	Took time.Duration

	cmd    *exec.Cmd
	output *syncBuffer
	exited chan struct{}
	err    error
}

// Start starts `sallyport server` on dataDir and waits until it is ready. extra are more arguments.
// The server is killed when the test ends, if it still runs.
func Start(t testing.TB, binary, dataDir string, extra ...string) *Server {
	t.Helper()
	s, err := TryStart(t, binary, dataDir, extra...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TryStart is Start for a server that may not come up; the error holds what it printed.
func TryStart(t testing.TB, binary, dataDir string, extra ...string) (*Server, error) {
	t.Helper()
	return run(t, binary, []string{"server", "--data-dir", dataDir}, extra)
}

// StartDev starts `sallyport dev` for the app in a folder and waits until the app was applied. It is killed when the test ends, if it
// still runs.
func StartDev(t testing.TB, binary, app string, extra ...string) *Server {
	t.Helper()
	s, err := run(t, binary, []string{"dev", app}, extra)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run starts a command that listens, on a port that it chooses unless extra names one.
func run(t testing.TB, binary string, command, extra []string) (*Server, error) {
	t.Helper()
	readyFile := filepath.Join(t.TempDir(), "ready.json")
	args := slices.Concat(command, []string{"--listen", "127.0.0.1:0", "--ready-file", readyFile}, extra)
	s := &Server{cmd: exec.Command(binary, args...), output: &syncBuffer{}, exited: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sallyport: %w", err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() { s.Kill() })
	if err := s.awaitReady(readyFile); err != nil {
		return nil, err
	}
	s.Took = time.Since(began)
	return s, s.connect()
}

func (s *Server) awaitReady(readyFile string) error {
	limit := time.After(startLimit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		content, err := os.ReadFile(readyFile)
		if err == nil {
			return json.Unmarshal(content, &s.Ready)
		}
		select {
		case <-s.exited:
			return fmt.Errorf("sallyport ended before it was ready: %w\n%s", s.err, s.Output())
		case <-limit:
			return fmt.Errorf("sallyport is not ready after %s\n%s", startLimit, s.Output())
		case <-tick.C:
		}
	}
}

func (s *Server) connect() error {
	ca, err := os.ReadFile(s.Ready.CAFile)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(s.Ready.TokenFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s holds no certificate", s.Ready.CAFile)
	}
	s.Token = strings.TrimSpace(string(token))
	s.Client = &http.Client{
		Timeout:   time.Minute, // only keeps a test from hanging
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: 64},
	}
	return nil
}

// Output returns what the server has printed so far, both streams.
func (s *Server) Output() string { return s.output.String() }

// PID returns the process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Kill ends the server with SIGKILL, as a crash would, and waits until it is gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may be gone already, which is what is wanted
	<-s.exited
}

// Stop ends the server with SIGTERM and returns how it exited and how long it took.
func (s *Server) Stop() (time.Duration, error) {
	began := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	<-s.exited
	return time.Since(began), s.err
}

// Answer is an HTTP answer, fully read.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Problem decodes the body as a problem document; it is empty when the body is none.
func (a Answer) Problem() (p api.Problem) {
	if json.Unmarshal(a.Body, &p) != nil {
		return api.Problem{}
	}
	return p
}

// Decode decodes a JSON body into v and fails the test when the status is not want.
func (a Answer) Decode(t testing.TB, want int, v any) {
	t.Helper()
	if a.Status != want {
		t.Fatalf("status = %d, want %d\n%s", a.Status, want, a.Body)
	}
	if err := json.Unmarshal(a.Body, v); err != nil {
		t.Fatalf("decode the answer: %v\n%s", err, a.Body)
	}
}

// Do sends one request with the operator's token. header are pairs of names and values.
func (s *Server) Do(ctx context.Context, method, path string, body []byte, header ...string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.Ready.URL+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.Client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = res.Body.Close() }() // fully read below
	const most = 64 << 20
	got, err := io.ReadAll(io.LimitReader(res.Body, most))
	return Answer{Status: res.StatusCode, Header: res.Header, Body: got}, err
}

// MustDo is Do for a request that must get an answer.
func (s *Server) MustDo(t testing.TB, method, path string, body []byte, header ...string) Answer {
	t.Helper()
	a, err := s.Do(t.Context(), method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", method, path, err, s.Output())
	}
	return a
}

// Publish sends one event in binary mode and returns the answer.
func (s *Server) Publish(ctx context.Context, eventType, id string, data []byte) (Answer, error) {
	return s.Do(ctx, http.MethodPost, "/v1/namespaces/default/events", data,
		"Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Type", eventType, "Ce-Source", "/test", "Ce-Id", id)
}

// Apply deploys an app and fails the test when it is refused.
func (s *Server) Apply(t testing.TB, bundle *api.Bundle) api.Plan {
	t.Helper()
	body, err := json.Marshal(bundle)
	if err != nil {
		t.Fatal(err)
	}
	var plan api.Plan
	s.MustDo(t, http.MethodPost, "/v1/namespaces/default/apps", body, "Content-Type", "application/json").Decode(t, http.StatusOK, &plan)
	return plan
}

// Event returns one event's way; wait is how long to wait for its outcome, such as "10s".
func (s *Server) Event(t testing.TB, id, wait string) api.Event {
	t.Helper()
	var e api.Event
	s.MustDo(t, http.MethodGet, "/v1/namespaces/default/events/"+id+"?source=/test&wait="+wait, nil).Decode(t, http.StatusOK, &e)
	return e
}

// syncBuffer collects output that two goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *syncBuffer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *syncBuffer) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}
