// Package server puts the parts together: it opens keys, store, event logs, deployer, dispatchers and
// the HTTP API, and runs them until it is told to stop. `sallyport server` and `sallyport dev` are the
// same program with other defaults.
//
// It decides nothing itself. What it owns is the order: what is opened before what, and closed after
// what, so that nothing that was accepted is lost.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/access"
	"sallyport/internal/deploy"
	"sallyport/internal/event"
	"sallyport/internal/grant"
	"sallyport/internal/grant/blobgrant"
	"sallyport/internal/grant/double"
	"sallyport/internal/grant/kvgrant"
	"sallyport/internal/grant/sqlgrant"
	"sallyport/internal/httpapi"
	"sallyport/internal/ident"
	"sallyport/internal/ingress"
	"sallyport/internal/issuer"
	"sallyport/internal/keyring"
	"sallyport/internal/manifest"
	"sallyport/internal/namespace"
	"sallyport/internal/policy"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
	"sallyport/internal/secret"
	"sallyport/internal/store"
	"sallyport/internal/telemetry"
)

// Names inside the data directory.
const (
	lockName  = "lock"
	rootName  = "root.key"
	tokenName = "operator.token"
	tlsName   = "tls"
	storeName = "store"
	indexName = "index"
	codeName  = "code"
	// scratchName is where code is for a moment while it is loaded.
	scratchName = "scratch"
)

// requestGrace is how long requests may take to end once the server stops. Dispatchers stop at the
// same time and take up to six seconds; both together stay under the ten that stopping may take.
const requestGrace = 4 * time.Second

// How a server runs, as status shows it.
const (
	ModeServer = "server"
	ModeDev    = "dev"
)

// Config says how a server runs.
type Config struct {
	Settings *manifest.Server
	Mode     string // ModeServer or ModeDev, as status shows it
	Version  string
	// Log gets the server's log.
	Log io.Writer
	// OnReady, when set, is told where the server is once it accepts events.
	OnReady func(api.Ready)
	// NewOperatorToken has the operator token that the server made replaced by a new one.
	NewOperatorToken bool
	// WorkerArgs have this program call Work. Without them functions run in this process, whatever the
	// settings say: it is for who runs a server in a program of another kind.
	WorkerArgs []string
	// Doubles, when set, stands in for what is behind the doors of grants. Only a server of ModeDev runs with it.
	Doubles *double.Stand
	// InvokeEvents lets an invocation be a whole event, of any type: a test gives its function the event it is written for.
	// Only a server of ModeDev runs with it.
	InvokeEvents bool
	// Moved, when set, is called when an event has come in or an attempt at a delivery has ended, after whoever asks is told of it. It MUST
	// NOT block.
	Moved func()
	// DebugSocket, when set, is a Unix socket that serves profiles to its owner.
	DebugSocket string
}

// server is a running server.
type server struct {
	cfg       Config
	dir       string
	log       *slog.Logger
	started   time.Time
	metrics   *telemetry.Metrics
	engine    *store.Engine
	keys      *keyring.Keyring
	databases *sqlgrant.Files
	kv        *kvgrant.Kind
	kvFound   struct { // the buckets that there were when they were first asked for
		sync.Mutex
		names map[ident.Namespace][]string
	}
	blobs     *blobgrant.Kind
	runners   grant.Runners
	cells     cells
	deployer  *deploy.Deployer
	guard     *access.Guard
	decisions *access.Decisions
	policies  *access.Policies
	who       *access.Identifier
	issuers   []access.Issuer
	issuer    *issuer.Issuer // for functions
	secrets   *secret.Store
	hidden    redact.Live // the secret values that were opened: the log has none of them
	touches   chan secret.Touch
	rotator   *secret.Rotator
	clientCAs clientCAs
	certs     atomic.Pointer[certificates] // once the server serves
	spaces    *spaces
	registry  *namespace.Registry
	closers   []func() error
}

// Run runs a server until ctx ends, then stops it in order: no more events are taken, those under way
// are settled or left for the next start, everything is closed. It takes at most ten seconds.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg.Mode != ModeDev && (cfg.Doubles != nil || cfg.InvokeEvents) {
		return errors.New("BUG: a server runs with doubles of grants")
	}
	s := &server{cfg: cfg, dir: cfg.Settings.DataDir, started: time.Now().UTC(), metrics: telemetry.NewMetrics(cfg.Version)}
	if s.log, err = telemetry.Logger(cfg.Log, cfg.Settings.Log.Format, cfg.Settings.Log.Level, s.hidden.Cut); err != nil {
		return fmt.Errorf("configure log: %w", err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := checkAddress(cfg.Settings.Listen); err != nil {
		return err // before anything is made in the data directory
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	return s.serve(ctx)
}

// later has f called when the server closes, before what was registered earlier.
func (s *server) later(f func() error) { s.closers = append(s.closers, f) }

func (s *server) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// open opens everything below the HTTP API.
func (s *server) open(ctx context.Context) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return problem.New(problem.Unavailable, "server.data_dir", "the data directory %s cannot be made: %v", s.dir, err).
			WithHint("choose another with --data-dir")
	}
	unlock, err := lockDir(filepath.Join(s.dir, lockName))
	if err != nil {
		return err
	}
	s.later(unlock)
	rootFile := s.cfg.Settings.Keys.RootFile
	if rootFile == "" {
		rootFile = filepath.Join(s.dir, rootName)
	}
	root, err := keyring.OpenRoot(rootFile)
	if err != nil {
		return err
	}
	s.engine, err = store.Open(ctx, store.Config{Dir: filepath.Join(s.dir, storeName), MinFree: s.cfg.Settings.Storage.MinFree, Logger: s.log})
	if err != nil {
		return err
	}
	s.later(s.engine.Close)
	if s.keys, err = keyring.New(ctx, root, s.engine.WrappedKeys()); err != nil {
		return err
	}
	s.kv = kvgrant.New(kvgrant.Config{Open: s.kvBucket, Names: s.kvNames, Ready: kept{s}.MeasureKept, Admit: s.keep})
	if err := s.openDatabases(); err != nil {
		return err
	}
	if err := s.openBlobs(); err != nil {
		return err
	}
	if err := s.openCells(ctx); err != nil {
		return fmt.Errorf("start the sandbox engine: %w", err)
	}
	if err := s.openAccess(ctx); err != nil {
		return err
	}
	if err := s.openIssuer(ctx); err != nil {
		return err
	}
	return s.openSpaces(ctx)
}

// bucket opens a bucket of a namespace, or of the server. Those of namespaces are all in namespaceBuckets: what is not
// would stay when a namespace is deleted.
func (s *server) bucket(ctx context.Context, ns ident.Namespace, name string) (*store.Bucket, error) {
	if ns != "" && !slices.Contains(namespaceBuckets(), name) {
		return nil, fmt.Errorf("BUG: %q is not among the buckets of a namespace", name)
	}
	sealer, err := s.keys.Sealer(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	if ns != "" {
		name += "-" + string(ns)
	}
	return s.engine.Bucket(ctx, name, sealer)
}

// openAccess opens tokens and policies, and sees that there is an operator.
func (s *server) openAccess(ctx context.Context) error {
	bucket, err := s.bucket(ctx, "", "tokens")
	if err != nil {
		return err
	}
	tokens, err := access.NewTokens(ctx, bucket)
	if err != nil {
		return err
	}
	policies, err := policy.New()
	if err != nil {
		return fmt.Errorf("load policies: %w", err)
	}
	s.guard = access.NewGuard(tokens, policies)
	if bucket, err = s.bucket(ctx, "", "decisions"); err != nil {
		return err
	}
	if s.decisions, err = access.OpenDecisions(ctx, bucket, s.log); err != nil {
		return err
	}
	s.later(s.decisions.Close)
	if bucket, err = s.bucket(ctx, "", "policies"); err != nil {
		return err
	}
	if s.policies, err = access.OpenPolicies(ctx, bucket, s.guard); err != nil {
		return err
	}
	s.guard.RecordIn(s.decisions)
	if bucket, err = s.bucket(ctx, "", "callers"); err != nil {
		return err
	}
	callers, err := access.OpenCallers(ctx, bucket)
	if err != nil {
		return err
	}
	s.guard.KeepIn(callers)
	s.guard.OwnIssuer(func() string { return s.issuer.URL() })
	if s.who, err = s.newIdentifier(); err != nil {
		return err
	}
	if s.cfg.NewOperatorToken {
		if err := s.guard.Reissue(ctx, s.tokenFile()); err != nil {
			return err
		}
		s.log.Warn("operator token replaced; the one before is revoked", "file", s.tokenFile())
		return nil
	}
	made, err := s.guard.Bootstrap(ctx, s.tokenFile())
	if err != nil {
		return err
	}
	if made {
		s.log.Info("operator token written; keep it safe", "file", s.tokenFile())
	}
	return nil
}

func (s *server) tokenFile() string { return filepath.Join(s.dir, tokenName) }

// openSpaces opens the deployer and the spaces of all namespaces.
func (s *server) openSpaces(ctx context.Context) error {
	apps, err := s.bucket(ctx, "", "apps")
	if err != nil {
		return err
	}
	sealer, err := s.keys.Sealer(ctx, "", "modules")
	if err != nil {
		return err
	}
	blobs, err := s.engine.Blobs(ctx, "modules", sealer)
	if err != nil {
		return err
	}
	if err := s.openSecrets(); err != nil {
		return err
	}
	s.spaces = newSpaces(s)
	s.later(func() error { s.runners.Close(); return nil })
	s.later(func() error { // after the spaces: what a function waits for is abandoned with it
		if s.deployer == nil {
			return nil
		}
		return s.deployer.Close()
	})
	s.later(s.spaces.close)
	approvals, err := s.bucket(ctx, "", "approvals")
	if err != nil {
		return err
	}
	s.deployer, err = deploy.New(ctx, deploy.Config{
		Approvals: approvals, ApprovalDemanded: s.approvalDemanded, Authority: s.sender,
		Apps: apps, Blobs: blobs, Namespaces: s, Within: s.mayHold, Memory: s.cfg.Settings.Cells.Memory, Engine: s.cells.engine, End: s.spaces.end,
		Grants: s.grants(), LastUsed: s.spaces.lastUsed, Invoked: s.spaces.invoked, Logger: s.log, CheckSecrets: s.checkSecrets,
		CheckText: s.checkText, Hide: s.hide,
	})
	if err != nil {
		return err
	}
	s.deployer.OnChange(s.spaces.changed)
	if err := s.openNamespaces(ctx); err != nil {
		return err
	}
	s.spaces.intake = ingress.New(ingress.Config{
		Guard: s.guard, State: s.deployer.State,
		Log: func(ns ident.Namespace) (ingress.Log, error) {
			sp, err := s.spaces.get(ns)
			if err != nil {
				return nil, err
			}
			return sp.Log, nil
		},
		Quotas: s.registry,
	})
	s.rotator = secret.NewRotator(s.secrets, s.invokeRotation, s.registry.Names)
	for _, ns := range s.registry.Names() {
		if _, err := s.spaces.get(ns); err != nil {
			return err
		}
	}
	return nil
}

// serve opens the listener and answers until ctx ends. Functions are loaded meanwhile: their first events come as soon as
// somebody can send some.
func (s *server) serve(ctx context.Context) error {
	var background sync.WaitGroup
	defer background.Wait()
	work, stop := context.WithCancel(ctx)
	defer stop()
	background.Go(func() {
		s.deployer.Pin(work)
		s.deployer.Warm(work)
	})
	settings := s.cfg.Settings
	certs, err := newCertificates(filepath.Join(s.dir, tlsName), settings.TLS.CertFile, settings.TLS.KeyFile,
		certificateHosts(settings.Listen), time.Now())
	if err != nil {
		return err
	}
	s.certs.Store(certs)
	limits := event.DefaultLimits()
	limits.EventBytes, limits.BatchBytes, limits.BatchEvents = settings.Limits.EventBytes, settings.Limits.BatchBytes, settings.Limits.BatchEvents
	handler, err := httpapi.New(httpapi.Config{Limits: limits, Requests: settings.Limits.Requests, InvokeEvents: s.cfg.InvokeEvents}, httpapi.Deps{
		Identifier: s.who, Guard: s.guard, Decisions: s.decisions, Policies: s.policies, Intake: s.spaces.intake, Deployer: s.deployer, Secrets: s.secrets, Rotate: s.rotator.Wake, Space: s.spaces.open,
		Namespaces: s.namespaces(),
		Status:     s.status, Ready: s.ready, Metrics: s.metrics.Handler(), Published: s.issuer.Published, Issuer: ownIssuer{s}, Databases: databases{s}, Refused: s.metrics.Refused, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.metrics.Sampled(s.sample)
	s.metrics.Checked(s.credentialSample)
	listener, err := listen(ctx, settings.Listen)
	if err != nil {
		return err
	}
	if err := s.announceIssuer(listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	srv := newHTTPServer(handler, s.clientCAs.require(certs.tlsConfig()), s.log)
	failed := make(chan error, 1)
	background.Go(func() {
		if err := srv.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve HTTP: %w", err)
		}
	})
	background.Go(func() {
		if err := certs.run(work, s.log); err != nil {
			s.log.Error("watch certificates", "error", err)
		}
	})
	background.Go(func() { s.runIdentifier(work) })
	background.Go(func() { s.issuer.Run(work) })
	background.Go(func() { s.tellTouches(work) })
	background.Go(func() { s.rotator.Run(work) })
	if s.cfg.DebugSocket != "" {
		background.Go(func() {
			if err := serveDebug(work, s.cfg.DebugSocket); err != nil {
				s.log.Error("serve profiles", "error", err)
			}
		})
	}
	if err := s.announce(ctx, listener.Addr(), certs.caFile); err != nil {
		return errors.Join(err, srv.Close())
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stop()
	s.log.Info("stopping: no more events are taken")
	notifyOrLog(context.WithoutCancel(ctx), s.log, "STOPPING=1")
	handler.Drain()
	return errors.Join(err, s.shutDown(ctx, srv))
}

// shutDown lets requests end while the dispatchers settle what is under way.
func (s *server) shutDown(ctx context.Context, srv *http.Server) error {
	var settled sync.WaitGroup
	settled.Go(s.spaces.stop)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestGrace)
	defer cancel()
	err := srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close() // long polls and followers; they come again
	}
	settled.Wait()
	return err
}

// announce tells everybody who waits that the server is ready.
func (s *server) announce(ctx context.Context, addr net.Addr, caFile string) error {
	ready := api.Ready{URL: "https://" + addr.String(), CAFile: absolute(caFile), TokenFile: absolute(s.tokenFile())}
	s.log.Info("ready", "url", ready.URL, "ca_file", ready.CAFile, "token_file", ready.TokenFile,
		"took", time.Since(s.started).Round(time.Millisecond).String())
	if file := s.cfg.Settings.ReadyFile; file != "" {
		text, err := json.Marshal(&ready)
		if err != nil {
			return err
		}
		if err := writeFile(file, text); err != nil {
			return fmt.Errorf("write ready file: %w", err)
		}
		s.later(func() error { return removeIfThere(file) })
	}
	notifyOrLog(ctx, s.log, "READY=1")
	if s.cfg.OnReady != nil {
		s.cfg.OnReady(ready)
	}
	return nil
}

func notifyOrLog(ctx context.Context, log *slog.Logger, state string) {
	if err := notifySystemd(ctx, state); err != nil {
		log.Warn("notify systemd", "state", state, "error", err)
	}
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ready returns why the server takes no events, in a word that may be told to anybody.
func (s *server) ready() error {
	err := s.engine.Health()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrStorageFull):
		return errors.New("storage is full")
	}
	return errors.New("storage does not answer")
}

// status returns the server's own state.
func (s *server) status(ctx context.Context) api.Status {
	free, err := s.engine.Free()
	if err != nil {
		s.log.WarnContext(ctx, "read free space", "error", err)
	}
	issuers, lists := s.credentialStatus()
	return api.Status{
		Version: s.cfg.Version, Mode: s.cfg.Mode, Started: s.started, Issuers: issuers, RevocationLists: lists,
		DataDir: absolute(s.dir), DiskFree: free, Resident: resident(),
		Cells: s.cells.status(),
	}
}

// resident returns the memory the process holds, in bytes, 0 where the system does not tell.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// sample reads what the metrics show.
func (s *server) sample() telemetry.Sample {
	free, err := s.engine.Free()
	if err != nil {
		s.log.Warn("read free space", "error", err)
	}
	out := telemetry.Sample{Ready: s.ready() == nil, DiskFree: free, LostWorkers: s.cells.status().Lost}
	for _, sp := range s.spaces.all() {
		b := sp.Dispatch.Balance()
		accepted := int64(sp.Log.Accepted())
		one := telemetry.NamespaceSample{Namespace: string(sp.ns), Done: b.Done, Dead: b.Dead, Pending: accepted - b.Done - b.Dead}
		// Either is missing of a namespace that was deleted a moment ago, or when the disk does not answer.
		if ns, err := s.registry.Get(sp.ns); err == nil {
			one.Quotas = ns.Quotas
		}
		if one.Use, _, err = s.use(context.Background(), sp.ns); err != nil {
			s.log.Warn("read what a namespace uses", "namespace", string(sp.ns), "error", err)
		}
		out.Events = append(out.Events, one)
	}
	return out
}
