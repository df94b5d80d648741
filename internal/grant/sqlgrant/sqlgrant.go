// Package sqlgrant opens grants of kind sql: named statements on a PostgreSQL server, or on an SQLite database that Sallyport
// keeps itself, sealed, for a namespace.
//
// A function gives the name of a statement and its parameters. What holds whatever it gives:
//
//   - The text that runs is the one of the manifest, prepared, one statement at a time; parameters travel beside it.
//   - A statement that only reads runs where nothing can be changed, by rule of the database.
//   - Several statements in one call run in one transaction, all or none. No transaction outlives its call.
//   - Rows and bytes of an answer, time and connections are bounded; the database is told the time as well.
//   - The address and the password of a server stay in this package. An error names no value of a row or parameter.
//
// Callers: grant, through its Registry; server, which makes the Kind and owns the Files.
package sqlgrant

import (
	"context"
	"errors"
	"sync"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

// Operations of a door.
const (
	OpQuery       = "query"
	OpTransaction = "transaction"
)

// Kind opens doors of kind sql.
type Kind struct {
	files *Files
	dial  Dial
}

// Dial returns a function that opens connections to servers; private says whether they may be at private addresses.
type Dial func(private bool) outbound.DialFunc

// New returns the Kind whose SQLite databases are in files.
func New(files *Files) *Kind { return &Kind{files: files, dial: outbound.Dialer} }

// Open makes a door. It connects when it is used.
func (k *Kind) Open(_ context.Context, o grant.Opening) (grant.Door, error) {
	if o.Grant.SQL == nil {
		return nil, problem.New(problem.Internal, "internal", "grant %q is of another kind", o.Name)
	}
	d := &door{queries: o.Grant.SQL.Queries, limit: limit{rows: o.Grant.SQL.MaxRows, bytes: int(o.Grant.Limits.Reply)}}
	if o.Grant.SQL.SQLite != "" {
		d.open = func(ctx context.Context) (database, error) { return k.files.open(ctx, o.Namespace, o.Grant.SQL) }
		return d, nil
	}
	if o.Secrets == nil {
		return nil, problem.New(problem.Unavailable, "grant.no_secrets", "grant %q needs a secret, and this server keeps none", o.Name)
	}
	server, err := newServer(o, k.dial)
	if err != nil {
		return nil, err
	}
	d.open = func(context.Context) (database, error) { return server, nil }
	return d, nil
}

// database runs statements: the one, or all in a transaction. Writes says whether it may change anything.
type database interface {
	run(ctx context.Context, statements []statement, writes bool, answer *answer) error
	// hidden is what must not be in an answer: the address with its password, which a server may repeat; nil is nothing.
	hidden() *redact.Set
	// rehearse returns why run would refuse the statements, as far as that can be told without running them.
	rehearse(ctx context.Context, statements []statement, caller grant.Caller) error
	Close() error
}

type door struct {
	queries map[string]manifest.SQLQuery
	limit   limit
	open    func(context.Context) (database, error)

	mu sync.Mutex // held while db is opened
	db database
}

// Do runs what a function asks for.
func (d *door) Do(ctx context.Context, call *grant.Call) (grant.Reply, error) {
	statements, single, err := parse(d.queries, call)
	if err != nil {
		return grant.Reply{}, err
	}
	db, err := d.opened(ctx)
	if err != nil {
		return grant.Reply{}, err
	}
	writes := false
	for _, s := range statements {
		writes = writes || s.query.Write
	}
	out := newAnswer(d.limit, single)
	if err := db.run(withCaller(ctx, call.Caller), statements, writes, out); err != nil {
		return grant.Reply{}, clean(db.hidden(), err)
	}
	return grant.Reply{JSON: db.hidden().JSON(out.finish())}, nil
}

func (d *door) opened(ctx context.Context) (database, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db != nil {
		return d.db, nil
	}
	db, err := d.open(ctx)
	if err == nil {
		d.db = db
	}
	return db, err
}

// Close ends the door's connections.
func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db == nil {
		return nil
	}
	db := d.db
	d.db = nil
	return db.Close()
}

// clean takes the address of the database out of a problem.
func clean(hidden *redact.Set, err error) error {
	p, ok := errors.AsType[*problem.Error](err)
	if hidden == nil || !ok {
		return err
	}
	c := *p
	c.Public, c.Hint = hidden.Cut(p.Public), hidden.Cut(p.Hint)
	if cause := p.Unwrap(); cause != nil {
		return c.WithCause(errors.New(hidden.Cut(cause.Error())))
	}
	return &c
}

type callerKey struct{}

func withCaller(ctx context.Context, c grant.Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns on whose behalf ctx is.
func callerOf(ctx context.Context) grant.Caller {
	c, _ := ctx.Value(callerKey{}).(grant.Caller)
	return c
}
