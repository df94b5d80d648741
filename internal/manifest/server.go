package manifest

import (
	"net"
	"strconv"
	"time"

	"sallyport/internal/ident"
)

// Server is the content of a server.toml: every setting of a server, with defaults filled in.
type Server struct {
	Listen  string // host:port
	DataDir string
	TLS     TLS
	// ClientCAs are those whose certificates prove who a caller is.
	ClientCAs []ClientCA
	Issuers   []Issuer
	Rates     Rates
	// SecretStores are other stores that namespaces may read secrets from.
	SecretStores []SecretStore
	Keys         Keys
	Identity     Identity
	Log          Log
	Limits       ServerLimits
	Events       Events
	Storage      Storage
	Cells        Cells
	// ReadyFile, when set, gets the server's URL once it is ready.
	ReadyFile string
}

// TLS names the server's certificate; both empty makes the server issue its own.
type TLS struct{ CertFile, KeyFile string }

// Keys says where the root key is; empty is root.key in the data directory.
type Keys struct{ RootFile string }

// Identity is the server as an issuer of tokens for its functions. Issuer is its URL; "" is the one that it listens at.
type Identity struct{ Issuer string }

// Log says how the server logs.
type Log struct{ Format, Level string }

// ServerLimits bound what the server takes on.
type ServerLimits struct {
	EventBytes  int // one event
	BatchEvents int // one request
	BatchBytes  int // one request
	Requests    int // answered at the same time
	Workers     int // invocations at the same time; 0 is what the machine's processors suggest
}

// Events says how long accepted events are kept, and how long repetitions are recognised.
type Events struct {
	RetainAge       time.Duration // 0 is forever
	RetainBytes     int64         // 0 is without bound
	DuplicateWindow time.Duration
}

// Storage says what is left free on the disk.
type Storage struct{ MinFree int64 }

// Cells says where functions run: SecondWall is one of the words below.
type Cells struct {
	SecondWall string
	// Memory is how much memory loaded functions may take together, in bytes: compiled code and templates.
	Memory int64
	// WorkerMemory is how much memory a worker process may hold, in bytes, all of it counted; 0 is three quarters of
	// the machine's.
	WorkerMemory int64
}

// How functions are kept apart from the server, beside the sandbox they run in.
const (
	// WallOn runs them in worker processes behind every wall that the kernel has.
	WallOn = "on"
	// WallRequired is WallOn, and no server when a wall is missing.
	WallRequired = "required"
	// WallOff runs them in the server's own process.
	WallOff = "off"
)

// Limits of what a server may be told.
const (
	minRequest         = 1 << 10                    // bytes; smaller ones hold no event
	maxRequest         = 6 << 20                    // bytes; what one write of the event log takes, with its framing
	maxRequests        = 1 << 16                    // at the same time; more than a process has file descriptors for
	minCells           = 16 << 20                   // bytes; one large Go module takes 18 MiB
	minWorker          = 256 << 20                  // bytes; the runtime, QuickJS, and a few functions that run
	maxWorkers         = 1024                       // invocations at the same time; each may take its memory limit
	maxStored          = 1 << 50                    // bytes; no single disk has more
	maxRetainAge       = 100 * 366 * 24 * time.Hour // within the range of a Duration
	maxDuplicateWindow = 30 * 24 * time.Hour        // the identities of that long are kept in memory
)

// DefaultServer returns the settings of a server without a server.toml.
func DefaultServer() *Server {
	return &Server{
		Listen: "127.0.0.1:8600", DataDir: "sallyport-data",
		Log:     Log{Format: "text", Level: "info"},
		Limits:  ServerLimits{EventBytes: 1 << 20, BatchEvents: ident.MaxBatchEvents, BatchBytes: 4 << 20, Requests: 1024},
		Rates:   Rates{Failures: Rate{PerSecond: 10, Burst: 300}},
		Events:  Events{DuplicateWindow: 24 * time.Hour},
		Storage: Storage{MinFree: 64 << 20},
		Cells:   Cells{SecondWall: WallOn, Memory: 256 << 20},
	}
}

// ParseServer reads the text of a server.toml; file names it in messages. The error is a problem
// with every fault in it.
func ParseServer(file string, text []byte) (*Server, error) {
	d, err := open(file, text)
	if err != nil {
		return nil, err
	}
	s := DefaultServer()
	root := d.table(d.root)
	root.textTo("data_dir", &s.DataDir)
	root.textTo("ready_file", &s.ReadyFile)
	root.table("listen").listen(s)
	root.table("tls").tls(&s.TLS, &s.ClientCAs)
	s.Issuers = root.issuers()
	s.SecretStores = root.secretStores()
	root.table("rates").rates(&s.Rates)
	keys := root.table("keys")
	keys.textTo("root_file", &s.Keys.RootFile)
	keys.done()
	root.table("identity").identity(&s.Identity)
	log := root.table("log")
	log.oneOf("format", &s.Log.Format, "text", "json")
	log.oneOf("level", &s.Log.Level, "debug", "info", "warn", "error")
	log.done()
	root.table("limits").limits(&s.Limits)
	root.table("events").events(&s.Events)
	storage := root.table("storage")
	storage.size("min_free", &s.Storage.MinFree, 1<<20, maxStored)
	storage.done()
	cells := root.table("cells")
	cells.size("memory", &s.Cells.Memory, minCells, maxStored)
	cells.size("worker_memory", &s.Cells.WorkerMemory, minWorker, maxStored)
	if s.Cells.WorkerMemory > 0 && s.Cells.WorkerMemory < s.Cells.Memory+minWorker {
		cells.fault("worker_memory", "want at least %s more than memory, which is %s: a worker takes that besides loaded functions",
			formatSize(minWorker), formatSize(s.Cells.Memory))
	}
	cells.oneOf("second_wall", &s.Cells.SecondWall, WallOn, WallRequired, WallOff)
	cells.done()
	root.done()
	if err := d.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// textTo reads a text into to, and leaves the default there when there is none.
func (t *table) textTo(key string, to *string) {
	if s := t.text(key); s != "" {
		*to = s
	}
}

func (t *table) listen(s *Server) {
	t.textTo("address", &s.Listen)
	_, port, err := net.SplitHostPort(s.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		t.fault("address", `want host:port, such as "127.0.0.1:8600"; port 0 takes a free one`)
	}
	t.done()
}

func (t *table) tls(to *TLS, cas *[]ClientCA) {
	t.textTo("cert_file", &to.CertFile)
	t.textTo("key_file", &to.KeyFile)
	if t.has("cert_file") != t.has("key_file") {
		t.d.fault(t.n.key, "cert_file and key_file come together; without both the server issues its own certificate")
	}
	*cas = t.clientCAs()
	t.done()
}

func (t *table) limits(l *ServerLimits) {
	for _, v := range []struct {
		key string
		to  *int
	}{{"event_bytes", &l.EventBytes}, {"batch_bytes", &l.BatchBytes}} {
		n := int64(*v.to)
		t.size(v.key, &n, minRequest, maxRequest)
		*v.to = int(n)
	}
	switch {
	case l.BatchBytes >= l.EventBytes:
	case t.has("batch_bytes"):
		t.fault("batch_bytes", "less than event_bytes, which is %s: a request holds one event at least", formatSize(int64(l.EventBytes)))
	default:
		l.BatchBytes = l.EventBytes
	}
	t.integer("batch_events", &l.BatchEvents, 1, ident.MaxBatchEvents)
	t.integer("requests", &l.Requests, 1, maxRequests)
	t.integer("workers", &l.Workers, 1, maxWorkers)
	t.done()
}

func (t *table) events(e *Events) {
	t.duration("retain_age", &e.RetainAge, time.Minute, maxRetainAge)
	t.size("retain_bytes", &e.RetainBytes, 1<<20, maxStored)
	t.duration("duplicate_window", &e.DuplicateWindow, time.Second, maxDuplicateWindow)
	t.done()
}
