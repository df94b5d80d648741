package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/event"
	"sallyport/internal/httpapi"
	"sallyport/internal/policy"
)

// TestRequestsAtOnce: past the limit a request is told to come again; health is answered all the same,
// and somebody without a token learns nothing of it.
func TestRequestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, httpapi.Config{Limits: event.DefaultLimits(), Requests: 2})
		w.hold = make(chan struct{})
		done := make(chan int)
		for range 2 {
			go func() { done <- w.do("POST", shop+"/events", oneEvent).Code }()
		}
		synctest.Wait()
		wantProblem(t, w.do("POST", shop+"/events", oneEvent), 429, "httpapi.overloaded")
		wantProblem(t, w.do("GET", "/v1/status", ""), 429, "httpapi.overloaded")
		wantProblem(t, w.do("GET", "/v1/status", "", as("x")...), 401, "access.unauthenticated")
		if rec := w.do("GET", "/healthz", ""); rec.Code != 200 {
			t.Errorf("healthz = %d", rec.Code)
		}
		if rec := w.do("GET", "/readyz", ""); rec.Code != 200 {
			t.Errorf("readyz = %d", rec.Code)
		}
		close(w.hold)
		if a, b := <-done, <-done; a != 202 || b != 202 {
			t.Errorf("held requests = %d, %d", a, b)
		}
		if w.Idle(); w.do("GET", "/v1/status", "").Code != 200 {
			t.Error("the server stays overloaded")
		}
	})
}

// TestWaitingAtOnce: those that wait do not take the place of others, and are bounded themselves.
func TestWaitingAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, httpapi.Config{Limits: event.DefaultLimits(), Requests: 2})
		publish(t, w, "e-1", "/s")
		done := make(chan int)
		for i := range httpapi.MaxWaiting {
			target := shop + "/events/e-1?wait=1m"
			if i%2 == 0 {
				target = shop + "/logs?follow=true"
			}
			go func() { done <- w.do("GET", target, "").Code }()
			synctest.Wait() // so that they begin one after the other
		}
		wantProblem(t, w.do("GET", shop+"/events/e-1?wait=1s", ""), 429, "httpapi.too_many_waiting")
		wantProblem(t, w.do("GET", shop+"/logs?follow=true", ""), 429, "httpapi.too_many_waiting")
		wantProblem(t, w.do("POST", shop+"/functions/price/invoke", "1"), 429, "httpapi.too_many_waiting")
		if rec := w.do("GET", shop+"/events/e-1", ""); rec.Code != 200 {
			t.Errorf("a request that does not wait = %d", rec.Code)
		}
		w.Drain()
		for range httpapi.MaxWaiting {
			if code := <-done; code != 200 {
				t.Fatalf("a waiting request ends with %d", code)
			}
		}
		if !w.Idle() {
			t.Error("something is still counted")
		}
	})
}

// TestApplyingAtOnce: apps are large, so few are read at the same time, and fewer of one namespace.
func TestApplyingAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.hold = make(chan struct{})
		done := make(chan int)
		full := func(namespace string) {
			t.Helper()
			synctest.Wait()
			r := httptest.NewRequest("POST", namespace+"/apps", untouched{t})
			r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
			wantProblem(t, w.serve(r), 429, "httpapi.overloaded")
		}
		begin := func(namespace string, n int) {
			for range n {
				go func() { done <- w.do("POST", namespace+"/apps", `{"manifest":"","modules":{}}`).Code }()
			}
		}
		const bank = "/v1/namespaces/bank"
		begin(shop, httpapi.MaxApplyingEach)
		full(shop)
		begin(bank, httpapi.MaxApplying-httpapi.MaxApplyingEach)
		full(bank)
		close(w.hold)
		for range httpapi.MaxApplying {
			if code := <-done; code != 200 {
				t.Errorf("apply = %d", code)
			}
		}
		if !w.Idle() {
			t.Error("something is still counted")
		}
	})
}

// TestBodyBounds: a body that says how long it is, is refused before it is read; one that does not, as
// soon as it is too long.
func TestBodyBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tc := range []struct {
		target string
		limit  int64
	}{
		{shop + "/events", 4 << 20}, {shop + "/functions/price/invoke", 1 << 20}, {shop + "/apps", httpapi.MaxBundleBytes},
		{shop + "/dead-letters/redrive", httpapi.MaxSmallBody}, {"/v1/tokens", httpapi.MaxSmallBody},
	} {
		r := httptest.NewRequest("POST", tc.target, untouched{t})
		r.ContentLength = tc.limit + 1
		r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
		wantProblem(t, w.serve(r), 413, "httpapi.body_too_large")
		endless := &endless{}
		r = httptest.NewRequest("POST", tc.target, endless)
		r.ContentLength = -1
		r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
		wantProblem(t, w.serve(r), 413, "httpapi.body_too_large")
		if endless.read > tc.limit+1 {
			t.Errorf("%s: %d bytes were read, the limit is %d", tc.target, endless.read, tc.limit)
		}
	}
	r := httptest.NewRequest("POST", shop+"/events", io.MultiReader(strings.NewReader("{"), broken{}))
	r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
	wantProblem(t, w.serve(r), 400, "httpapi.body_unreadable")
	if !w.Idle() {
		t.Error("something is still counted")
	}
}

// endless is a body of spaces.
type endless struct{ read int64 }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	e.read += int64(len(b))
	return len(b), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// TestMemoryBound: bodies share a bound on memory; those that have not arrived take none.
func TestMemoryBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, httpapi.Config{Limits: event.DefaultLimits(), Requests: 1000})
		const each = 4 << 20
		var writers []*io.PipeWriter
		done := make(chan int)
		send := func(length int64) {
			in, out := io.Pipe()
			writers = append(writers, out)
			r := httptest.NewRequest("POST", shop+"/events", in)
			r.ContentLength = length
			r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
			go func() { done <- w.serve(r).Code }()
			synctest.Wait()
		}
		for range httpapi.MaxMemory/each - 1 {
			send(each)
		}
		for range 100 {
			send(-1) // their length is not known, and nothing has arrived
		}
		r := httptest.NewRequest("POST", shop+"/events", untouched{t})
		r.ContentLength = each
		r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
		wantProblem(t, w.serve(r), 429, "httpapi.overloaded")
		if rec := w.do("POST", shop+"/events", oneEvent); rec.Code != 202 {
			t.Errorf("a small event beside large ones = %d", rec.Code)
		}
		for _, out := range writers {
			_ = out.CloseWithError(io.ErrUnexpectedEOF)
			<-done
		}
		if !w.Idle() {
			t.Error("something is still counted")
		}
	})
}

// TestDrain: what would begin something is refused, and the rest is answered.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	publish(t, w, "e-1", "/s")
	w.Drain()
	w.Drain()
	for _, target := range []string{shop + "/events", shop + "/functions/price/invoke", shop + "/apps"} {
		rec := w.do("POST", target, oneEvent)
		if wantProblem(t, rec, 503, "httpapi.stopping"); rec.Header().Get("Connection") != "close" {
			t.Errorf("%s: header = %v", target, rec.Header())
		}
	}
	if rec := w.do("GET", shop+"/events/e-1?wait=1m", ""); rec.Code != 200 {
		t.Errorf("get = %d", rec.Code)
	}
	if rec := w.do("GET", "/readyz", ""); rec.Code != 503 || rec.Body.String() != "not ready: stopping\n" || rec.Header().Get("Retry-After") == "" {
		t.Errorf("readyz = %d %s", rec.Code, rec.Body)
	}
	if st := decode[api.Status](t, w.do("GET", "/v1/status", ""), 200); st.Ready || st.Reason != "stopping" {
		t.Errorf("status = %+v", st)
	}
	if rec := w.do("GET", "/healthz", ""); rec.Code != 200 {
		t.Errorf("healthz = %d", rec.Code)
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ready = errors.New("storage is full")
	if rec := w.do("GET", "/readyz", "", as("")...); rec.Code != 503 || rec.Body.String() != "not ready: storage is full\n" {
		t.Errorf("readyz = %d %s", rec.Code, rec.Body)
	}
	if st := decode[api.Status](t, w.do("GET", "/v1/status", ""), 200); st.Ready || st.Reason != "storage is full" {
		t.Errorf("status = %+v", st)
	}
}

// TestInterrupted: a request that ends before its outcome is known must not look like success.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hold, w.entered = make(chan struct{}), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "POST", shop+"/events", strings.NewReader(oneEvent))
	r.Header.Set("Content-Type", "application/cloudevents+json")
	r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
	go func() {
		<-w.entered
		cancel()
	}()
	wantProblem(t, w.serve(r), 503, "httpapi.interrupted")
	if w.log.Len() > 0 {
		t.Errorf("log = %s", w.log)
	}
}

// TestPanic: a bug ends its request, not the server, and the log has the place and no values.
func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.accept = func(accept) { panic("secret of a caller") }
	p := wantProblem(t, w.do("POST", shop+"/events", oneEvent), 500, "internal")
	if log := w.log.String(); !strings.Contains(log, "limits_test.go") || !strings.Contains(log, p.Reference) || strings.Contains(log, "secret") {
		t.Errorf("log = %s", log)
	}
	if !w.Idle() {
		t.Error("something is still counted")
	}
	w.accept = nil
	if rec := w.do("POST", shop+"/events", oneEvent); rec.Code != 202 {
		t.Errorf("after a panic: %d", rec.Code)
	}
}

// TestMethods: a path that exists names its methods, one that does not is none.
func TestMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.do("PUT", shop+"/events", "")
	if wantProblem(t, rec, 405, "httpapi.method_not_allowed"); rec.Header().Get("Allow") != "GET, POST" {
		t.Errorf("Allow = %q", rec.Header().Get("Allow"))
	}
	wantProblem(t, w.do("HEAD", "/v1/status", ""), 405, "httpapi.method_not_allowed")
	for _, target := range []string{"/", "/v1/nothing", "//v1/status", "/v1/status/", "/v1/../v1/status", shop + "/events/..", shop + "/nothing"} {
		wantProblem(t, w.do("GET", target, ""), 404, "httpapi.no_such_path")
	}
	wantProblem(t, w.do("GET", "/v1/status?"+strings.Repeat("a", httpapi.MaxQueryBytes+1), ""), 400, "httpapi.bad_request")
	wantProblem(t, w.do("GET", "/v1/status?verbose=true", ""), 400, "httpapi.bad_request")
}

// TestServer goes through net/http, over TLS with HTTP/1.1 and HTTP/2: the deadline of reading must not
// end a long answer, and a client that leaves must free what it held.
func TestServer(t *testing.T) {
	t.Parallel()
	const readTimeout = 2 * time.Second // a handshake on a busy machine takes a part of it
	for _, h2 := range []bool{false, true} {
		w := newWorld(t)
		pos := publish(t, w, "e-1", "/s")
		srv := httptest.NewUnstartedServer(w)
		srv.EnableHTTP2 = h2
		srv.Config.ReadTimeout = readTimeout
		srv.StartTLS()
		t.Cleanup(srv.Close)
		get := func(ctx context.Context, target string) (*http.Response, error) {
			r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+w.tokens[policy.Operator])
			return srv.Client().Do(r)
		}
		time.AfterFunc(readTimeout+time.Second, func() { w.spaces["shop"].settle(pos, api.StateDone, nil) })
		resp, err := get(t.Context(), shop+"/events/e-1?wait=10s")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), `"state":"done"`) || resp.ProtoMajor == 2 != h2 {
			t.Errorf("long poll over %s: %d %s %v", resp.Proto, resp.StatusCode, body, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		resp, err = get(ctx, shop+"/logs?follow=true")
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		_ = resp.Body.Close()
		// Post the shutdown: it returns when no request is being answered any more.
		stop, done := context.WithTimeout(t.Context(), time.Minute)
		if err := srv.Config.Shutdown(stop); err != nil {
			t.Errorf("a follower that left holds the server: %v", err)
		}
		done()
		if !w.Idle() {
			t.Error("something is still counted")
		}
	}
}

// TestEarlyAnswer: over a real connection, a request without a token is answered before its body is
// sent (Expect: 100-continue), and so is one whose body is too large.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	for _, tc := range []struct{ auth, length, want string }{
		{"Bearer x", "10", "HTTP/1.1 401"}, {"Bearer " + w.tokens[policy.Operator], "99999999", "HTTP/1.1 413"},
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(srv.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "POST "+shop+"/events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nAuthorization: "+tc.auth+
			"\r\nContent-Type: application/cloudevents+json\r\nContent-Length: "+tc.length+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(tc.want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != tc.want {
			t.Errorf("answer = %q, %v; want %q", got, err, tc.want)
		}
		_ = conn.Close()
	}
}
