package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"syscall"
	"time"

	"sallyport/internal/problem"
)

const (
	// readTimeout bounds how long a client may take to send a request; a handler that takes large
	// bodies extends it. Headers have no shorter bound of their own: setting a second deadline for
	// each request took one part in 27 of the time of accepting an event.
	readTimeout = 20 * time.Second
	// idleTimeout is how long a connection is kept for the next request.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes bounds the headers; a CloudEvent in binary mode carries its attributes there.
	maxHeaderBytes = 64 << 10
	// maxStreams bounds concurrent requests on one HTTP/2 connection.
	maxStreams = 128
)

// listen opens the address; a busy or forbidden one is explained.
func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, problem.New(problem.Conflict, "server.address_in_use", "the address %s is in use by another program", address).
			WithHint("end that program, or choose a free port with --listen 127.0.0.1:0").WithCause(err)
	default:
		return nil, unusable(address, err)
	}
}

// checkAddress returns a problem when address is none to listen on.
func checkAddress(address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return unusable(address, err)
	}
	return nil
}

func unusable(address string, err error) error {
	return problem.New(problem.Invalid, "server.address_unusable", "cannot listen on %s: %s", address, reason(err)).
		WithHint("give --listen as HOST:PORT, such as 127.0.0.1:8600").WithCause(err)
}

// reason is the innermost cause of a network error, without the parts the sentence has already.
func reason(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// newHTTPServer returns the server of the API: TLS 1.3 only, every phase of a request bounded.
// There is no write timeout: following function logs and waiting for an outcome are long answers,
// which the handlers bound themselves.
func newHTTPServer(handler http.Handler, config *tls.Config, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:        handler,
		TLSConfig:      config,
		ReadTimeout:    readTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		// OPTIONS * gets the answer of every other request without a token.
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		// Handshake failures and the like are the peer's doing: worth a developer's look only.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serveDebug serves the Go profiler on a Unix socket that only its owner can open, until ctx ends.
// Profiles hold no event data, but they are nobody else's business: there is no TCP form of this.
func serveDebug(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old debug socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("open the debug socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("protect the debug socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	srv := &http.Server{Handler: mux, ReadTimeout: readTimeout}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // Serve reports it
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the debug socket: %w", err)
	}
	return nil
}
