package sqlgrant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/internal/grant"
	"sallyport/internal/grant/sqlgrant/sqlvalue"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

const (
	// connectTimeout bounds the making of a connection, from the look-up of the name to the end of the log-in.
	connectTimeout = 5 * time.Second
	// idleTimeout closes a connection that nobody used for so long.
	idleTimeout = 5 * time.Minute
	// lifetime closes a connection after so long: a changed address or password is in use everywhere by then.
	lifetime = 15 * time.Minute
	// messageSlack is how much longer a message of the server may be than the answer to a function.
	messageSlack = 64 << 10
)

// server is a PostgreSQL server: a pool of connections for one grant.
type server struct {
	ns      grant.Opening
	dial    Dial
	timeout time.Duration

	mu   sync.Mutex
	pool *pgxpool.Pool

	// address hides the addresses of the connections that are open.
	address atomic.Pointer[redact.Set]
}

func (s *server) hidden() *redact.Set { return s.address.Load() }

func newServer(o grant.Opening, dial Dial) (*server, error) {
	return &server{ns: o, dial: dial, timeout: o.Grant.Limits.Timeout}, nil
}

// standIn is a text in the place of an address: beforeConnect sets all that it says, and what the environment may add.
const standIn = "host=localhost port=5432 user=nobody database=none sslmode=disable"

// conns returns the pool, which connects when a connection is wanted.
func (s *server) conns() (*pgxpool.Pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pool != nil {
		return s.pool, nil
	}
	cfg, err := pgxpool.ParseConfig(standIn)
	if err != nil {
		return nil, fmt.Errorf("configure the connections of grant %q: %w", s.ns.Name, err)
	}
	cfg.MaxConns = int32(s.ns.Grant.SQL.Connections)
	cfg.MinConns = 0
	cfg.MaxConnIdleTime, cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = idleTimeout, lifetime, lifetime/10
	cfg.PingTimeout = connectTimeout
	cfg.BeforeConnect = s.beforeConnect
	s.pool, err = pgxpool.NewWithConfig(context.Background(), cfg)
	return s.pool, err
}

// beforeConnect gives a new connection the address and the password that the secret holds now.
func (s *server) beforeConnect(ctx context.Context, c *pgx.ConnConfig) error {
	use := grant.Use{Caller: callerOf(ctx)}
	value, err := s.ns.Secrets.Value(ctx, s.ns.Namespace, s.ns.Grant.SQL.Secret, use)
	if err != nil {
		return err
	}
	s.address.Store(redact.New(value))
	to, err := parseAddress(string(value))
	if err != nil {
		return err
	}
	c.Host, c.Port, c.User, c.Password, c.Database = to.host, to.port, to.user, to.password, to.database
	c.Fallbacks, c.ValidateConnect, c.KerberosSrvName, c.KerberosSpn = nil, nil, "", ""
	c.SSLNegotiation, c.TLSConfig = "", nil
	if !to.plain {
		if c.TLSConfig, err = s.tls(ctx, to.host, use); err != nil {
			return err
		}
	}
	c.ConnectTimeout = connectTimeout
	// The name is looked up where the address is checked.
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	c.DialFunc = s.dialer(to.plain)
	c.MaxProtocolMessageBodyLen = int(s.ns.Grant.Limits.Reply) + messageSlack
	c.OnNotice, c.OnNotification = nil, nil
	c.StatementCacheCapacity, c.DescriptionCacheCapacity = 0, 0
	c.RuntimeParams = s.session()
	return nil
}

// session is what each session of the server begins with: forms of values that do not depend on the server's settings, no more
// time than a use of the grant has, and no right to change anything outside of a transaction that asks for it.
func (s *server) session() map[string]string {
	ms := strconv.FormatInt(max(s.timeout.Milliseconds(), 1), 10)
	return map[string]string{
		"application_name": "sallyport", "client_encoding": "UTF8", "DateStyle": "ISO, YMD", "IntervalStyle": "iso_8601", "TimeZone": "UTC",
		"bytea_output": "hex", "standard_conforming_strings": "on", "default_transaction_read_only": "on",
		"statement_timeout": ms, "idle_in_transaction_session_timeout": ms,
	}
}

// tls is the configuration of a connection to host. Its certificate is always verified.
func (s *server) tls(ctx context.Context, host string, use grant.Use) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	ref := s.ns.Grant.SQL.CA
	if ref == "" {
		return cfg, nil
	}
	pem, err := s.ns.Secrets.Value(ctx, s.ns.Namespace, ref, use)
	if err != nil {
		return nil, err
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, problem.New(problem.Invalid, "grant.sql_address", "the secret %q of grant %q holds no PEM certificate", ref, s.ns.Name)
	}
	return cfg, nil
}

// errPlain is why a connection that is not encrypted was not made.
var errPlain = errors.New("a connection without TLS leaves this machine")

// dialer opens connections; one without TLS is only opened to a loopback address.
func (s *server) dialer(plain bool) pgconn.DialFunc {
	dial := s.dial(s.ns.Grant.SQL.Private)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil || !plain {
			return conn, err
		}
		remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err != nil || !remote.Addr().Unmap().IsLoopback() {
			return nil, errors.Join(errPlain, conn.Close())
		}
		return conn, nil
	}
}

// Close closes the connections.
func (s *server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pool != nil {
		s.pool.Close()
	}
	return nil
}

// idle is the status of a connection that is in no transaction.
const idle = 'I'

// begin and commit are the statements around those of a transaction.
const (
	beginName, beginText   = "sallyport begin", "begin read write"
	readName, readText     = "sallyport read", "begin isolation level repeatable read read only"
	commitName, commitText = "sallyport commit", "commit"
)

// run runs statements on one connection: a single one that reads by itself, everything else in a transaction that is sent whole.
func (s *server) run(ctx context.Context, statements []statement, writes bool, out *answer) error {
	pool, err := s.conns()
	if err != nil {
		return err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return connectProblem(ctx, s.ns.Name, err)
	}
	defer conn.Release()
	prepared, err := prepare(ctx, conn.Conn(), statements)
	if err != nil {
		return s.failed(ctx, conn, "", false, err)
	}
	if len(statements) == 1 && !writes {
		name := statements[0].name
		return s.failed(ctx, conn, name, false, single(ctx, conn.Conn().PgConn(), prepared[0], out))
	}
	name, err := transaction(ctx, conn.Conn(), prepared, writes, out)
	return s.failed(ctx, conn, name, writes, err)
}

// failed makes a problem of an error, and leaves the connection in no transaction, or closed.
func (s *server) failed(ctx context.Context, conn *pgxpool.Conn, name string, writes bool, err error) error {
	if err == nil {
		return nil
	}
	pg := conn.Conn().PgConn()
	refusal, refused := errors.AsType[*pgconn.PgError](err)
	_, own := errors.AsType[*problem.Error](err)
	if refused && refusal.Code == changedPlan {
		closeNow(conn)
	} else if refused && !pg.IsClosed() && pg.TxStatus() != idle {
		// A violated constraint is an ordinary event, and a new connection is dear.
		if _, e := pg.Exec(ctx, "rollback").ReadAll(); e != nil {
			closeNow(conn)
		}
	} else if !refused && (!own || pg.IsBusy() || pg.TxStatus() != idle) {
		closeNow(conn) // what else the server has to say is not read
	}
	if own {
		return err
	}
	return queryProblem(ctx, name, writes, err)
}

// closeNow closes a connection without waiting for the server.
func closeNow(conn *pgxpool.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = conn.Conn().Close(ctx) // its error says that it was not closed politely
}

// prepared is a statement that a connection knows, with its parameters in the form that the server reads.
type prepared struct {
	statement
	server string // its name at the server
	fields []pgconn.FieldDescription
	keys   [][]byte
	values [][]byte
}

// prepare makes statements known to the connection, once for each text, and encodes their parameters.
func prepare(ctx context.Context, conn *pgx.Conn, statements []statement) ([]prepared, error) {
	out := make([]prepared, len(statements))
	for i, st := range statements {
		described, err := conn.Prepare(ctx, "q "+st.name, st.query.Text)
		if err != nil {
			return nil, prepareProblem(ctx, st.name, err)
		}
		if len(described.ParamOIDs) != st.query.Params {
			return nil, problem.New(problem.Invalid, "grant.sql_statement", "the database sees %d parameters in statement %q, the manifest has %d",
				len(described.ParamOIDs), st.name, st.query.Params)
		}
		p := prepared{statement: st, server: described.Name, fields: described.Fields, values: make([][]byte, len(st.params))}
		names := make([]string, len(described.Fields))
		for j, f := range described.Fields {
			names[j] = f.Name
		}
		if p.keys, err = keys(st.name, names); err != nil {
			return nil, err
		}
		for j, v := range st.params {
			if p.values[j], err = sqlvalue.Encode(described.ParamOIDs[j], v); err != nil {
				return nil, parameterProblem(st.name, j+1, err)
			}
		}
		out[i] = p
	}
	return out, nil
}

// single runs a statement by itself. The session lets it read only.
func single(ctx context.Context, conn *pgconn.PgConn, p prepared, out *answer) error {
	reader := conn.ExecPrepared(ctx, p.server, p.values, nil, nil)
	return read(reader, p, out)
}

// transaction sends statements within a transaction, all at once, and reads their results. It returns the name of
// the statement that failed.
func transaction(ctx context.Context, conn *pgx.Conn, list []prepared, writes bool, out *answer) (string, error) {
	first, text := readName, readText
	if writes {
		first, text = beginName, beginText
	}
	for _, fixed := range [][2]string{{first, text}, {commitName, commitText}} {
		if _, err := conn.Prepare(ctx, fixed[0], fixed[1]); err != nil {
			return "", err
		}
	}
	pipe := conn.PgConn().StartPipeline(ctx)
	pipe.SendQueryPrepared(first, nil, nil, nil)
	for _, p := range list {
		pipe.SendQueryPrepared(p.server, p.values, nil, nil)
	}
	pipe.SendQueryPrepared(commitName, nil, nil, nil)
	if err := pipe.Sync(); err != nil {
		return "", err
	}
	name, err := results(pipe, list, out)
	if _, own := errors.AsType[*problem.Error](err); own {
		return name, err // closing would read all that the server has to say
	}
	return name, errors.Join(err, pipe.Close())
}

// results reads the results of begin, the statements and commit.
func results(pipe *pgconn.Pipeline, list []prepared, out *answer) (string, error) {
	if _, err := fixed(pipe); err != nil {
		return "", err
	}
	for _, p := range list {
		reader, err := next(pipe)
		if err == nil {
			err = read(reader, p, out)
		}
		if err != nil {
			return p.name, err
		}
	}
	tag, err := fixed(pipe)
	if err == nil && tag.String() != "COMMIT" {
		err = problem.New(problem.Unavailable, "grant.sql_failed", "the database did not commit the transaction")
	}
	return "", err
}

func next(pipe *pgconn.Pipeline) (*pgconn.ResultReader, error) {
	result, err := pipe.GetResults()
	if err != nil {
		return nil, err
	}
	reader, ok := result.(*pgconn.ResultReader)
	if !ok {
		return nil, fmt.Errorf("the server answered with %T in place of a result", result)
	}
	return reader, nil
}

// fixed reads the result of a statement without rows.
func fixed(pipe *pgconn.Pipeline) (pgconn.CommandTag, error) {
	reader, err := next(pipe)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	return reader.Close()
}

// read reads the rows of a statement into out.
func read(reader *pgconn.ResultReader, p prepared, out *answer) error {
	out.begin()
	for reader.NextRow() {
		if err := out.row(p.name); err != nil {
			return err
		}
		values := reader.Values()
		if len(values) != len(p.keys) {
			return fmt.Errorf("the server sent %d columns in place of %d", len(values), len(p.keys))
		}
		for i, value := range values {
			out.column(p.keys[i])
			var err error
			if out.json, err = sqlvalue.Decode(out.json, p.fields[i].DataTypeOID, value); err != nil {
				return fmt.Errorf("decode column %d: %w", i+1, err)
			}
		}
		out.endRow()
	}
	tag, err := reader.Close()
	changed := tag.RowsAffected()
	if tag.Select() {
		changed = 0
	}
	out.end(changed)
	return err
}

var _ database = (*server)(nil)
