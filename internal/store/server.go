package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// serverName appears in nothing but JetStream's own log lines.
const serverName = "sallyport"

const (
	// headroom is what a message may be longer than its payload: headers of ours and of JetStream's.
	headroom = 64 << 10
	// maxMemoryStore bounds JetStream's memory store in bytes. Nothing is kept there; 0 would mean
	// three quarters of the machine's memory.
	maxMemoryStore = 1 << 20
	// maxFileStore is beyond any disk: the reserve of free space is what bounds the store. 0 would mean
	// a share of the space free at the start, not known again later.
	maxFileStore = 1 << 60
	// maxReads is how many reads are under way at a time, and maxPending what the embedded server may
	// hold for us in bytes: more than all of them can ask for, since beyond it drops the connection.
	maxReads   = 8
	maxPending = 2 * maxReads * (MaxPayload + readBytes)
	// connectLimit bounds the wait for the embedded server's first answer.
	connectLimit = 10 * time.Second
)

// link is one run of the embedded server with our connection to it. A restart makes a new one.
type link struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
}

// start starts the embedded server on dir and connects to it. onError is called whenever the server
// reports an error; it MUST return at once.
func start(dir string, log *slog.Logger, onError func()) (*link, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName:             serverName,
		DontListen:             true,
		NoSigs:                 true,
		NoLog:                  true,
		DisableJetStreamBanner: true,
		JetStream:              true,
		StoreDir:               dir,
		SyncAlways:             true,
		JetStreamMaxMemory:     maxMemoryStore,
		JetStreamMaxStore:      maxFileStore,
		MaxPayload:             MaxPayload + headroom,
		MaxPending:             maxPending,
	})
	if err != nil {
		return nil, fmt.Errorf("configure jetstream: %w", err)
	}
	bridge := &logBridge{log: log, onError: onError}
	srv.SetLoggerV2(bridge, false, false, false)
	srv.Start()
	if err := bridge.fatal(); err != nil {
		stop(srv)
		return nil, fmt.Errorf("start jetstream: %w", err)
	}
	conn, err := nats.Connect("", nats.InProcessServer(srv), nats.NoReconnect(), nats.Name(serverName), nats.Timeout(connectLimit))
	if err != nil {
		stop(srv)
		return nil, fmt.Errorf("connect to jetstream: %w", err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		stop(srv)
		return nil, fmt.Errorf("connect to jetstream: %w", err)
	}
	return &link{server: srv, conn: conn, js: js}, nil
}

func (l *link) stop() {
	l.conn.Close()
	stop(l.server)
}

func stop(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

// frozen says whether a write error made a stream, or all of JetStream, refuse writes for good. It
// waits for writes under way.
func (l *link) frozen() error {
	if l.conn.IsClosed() {
		return nats.ErrConnectionClosed
	}
	if health := l.server.Healthz(&server.HealthzOptions{}); health.Error != "" {
		return errors.New(health.Error)
	}
	return nil
}

// logBridge passes what the embedded server says on to slog. Its notices are not of interest; its
// errors are the causes of faults that the Engine handles, and so warnings.
type logBridge struct {
	log     *slog.Logger
	onError func()

	mu    sync.Mutex
	fault error
}

// Noticef drops a notice.
func (b *logBridge) Noticef(string, ...any) {}

// Debugf drops a debug line.
func (b *logBridge) Debugf(string, ...any) {}

// Tracef drops a trace line.
func (b *logBridge) Tracef(string, ...any) {}

// Warnf passes a warning on.
func (b *logBridge) Warnf(format string, v ...any) {
	b.log.LogAttrs(context.Background(), slog.LevelDebug, "jetstream warns", slog.String("text", fmt.Sprintf(format, v...)))
}

// Errorf passes an error on. It may be a write error, so it is worth a look.
func (b *logBridge) Errorf(format string, v ...any) {
	b.onError()
	b.log.LogAttrs(context.Background(), slog.LevelWarn, "jetstream reports an error", slog.String("text", fmt.Sprintf(format, v...)))
}

// Fatalf keeps the reason why the server could not start.
func (b *logBridge) Fatalf(format string, v ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = errors.Join(b.fault, fmt.Errorf(format, v...))
}

func (b *logBridge) fatal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fault
}
