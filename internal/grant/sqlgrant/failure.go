package sqlgrant

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/internal/outbound"
	"sallyport/internal/problem"
)

// retryAfter is when a function may ask again after a failure that passes.
const retryAfter = time.Second

// connectProblem is why there is no connection to a server.
func connectProblem(ctx context.Context, grantName string, err error) error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	switch refusal, refused := errors.AsType[*pgconn.PgError](err); {
	case errors.Is(err, outbound.ErrAddress):
		return problem.New(problem.Denied, "grant.sql_address_refused", "the database of grant %q is at an address that is not allowed", grantName).
			WithHint("set private = true in the grant when the database is in a private network").WithCause(err)
	case errors.Is(err, errPlain):
		return problem.New(problem.Denied, "grant.sql_plain", "the database of grant %q is on another machine, and its address turns TLS off", grantName).
			WithHint("remove sslmode from the address; give the grant a ca when the certificate comes from a CA of your own").WithCause(err)
	case refused && strings.HasPrefix(refusal.Code, "28"):
		return problem.New(problem.Denied, "grant.sql_login", "the database of grant %q refuses its user or password", grantName).
			WithHint("set the secret with its address anew: `sallyport secret set`").WithCause(err)
	case ctx.Err() != nil:
		return timedOut(ctx, err)
	}
	return problem.New(problem.Unavailable, "grant.sql_unreachable", "the database of grant %q cannot be reached", grantName).
		WithHint("is it running, does its certificate name the host of the address, and is its CA a public one or that of the grant's ca?").WithRetryAfter(retryAfter).WithCause(err)
}

func timedOut(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return problem.New(problem.Unavailable, "grant.canceled", "the call was given up").WithCause(err)
	}
	return problem.New(problem.Timeout, "grant.timeout", "the database did not answer in time").
		WithHint("look for a slow statement, or raise limits.timeout of the grant").WithRetryAfter(retryAfter).WithCause(err)
}

// prepareProblem is why a server does not take a statement. What it says is about the manifest's text, not about values.
func prepareProblem(ctx context.Context, name string, err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !strings.HasPrefix(pg.Code, "42") {
		return queryProblem(ctx, name, false, err)
	}
	if pg.Code == "42501" {
		return queryProblem(ctx, name, false, err)
	}
	return problem.New(problem.Invalid, "grant.sql_statement", "the database does not take statement %q: %s", name, clip(pg.Message)).
		WithHint("correct it in the manifest, and apply it").WithCause(hidden(pg))
}

// changedPlan is the code of a prepared statement whose tables have changed: the connection must forget it.
const changedPlan = "0A000"

// classes are what the codes of PostgreSQL begin with, and what they mean to a function. The longest match counts.
var classes = []struct {
	prefix, code string
	kind         problem.Kind
	text         string
	retry        bool
}{
	{"23505", "grant.sql_exists", problem.Conflict, "there is such a row already", false},
	{"23", "grant.sql_constraint", problem.Conflict, "a rule of the database forbids it", false},
	{changedPlan, "grant.sql_conflict", problem.Conflict, "the tables have changed since it was prepared", true},
	{"22", "grant.sql_value", problem.Invalid, "a value is not one that the database takes there", false},
	{"25006", "grant.sql_read_only", problem.Denied, "the statement reads, and would change something", false},
	{"40", "grant.sql_conflict", problem.Conflict, "another transaction came between", true},
	{"42501", "grant.sql_privilege", problem.Denied, "the database's user may not do that", false},
	{"53", "grant.sql_exhausted", problem.Unavailable, "the database has no room or no connections left", true},
	{"55P03", "grant.sql_conflict", problem.Conflict, "a row is locked by another transaction", true},
	{"57014", "grant.timeout", problem.Timeout, "the statement took too long and was ended", true},
	{"57P", "grant.sql_unreachable", problem.Unavailable, "the database is shutting down or starting", true},
}

// queryProblem is why a statement failed; writes says that it may have taken effect when the server did not say.
func queryProblem(ctx context.Context, name string, writes bool, err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return lost(ctx, writes, err)
	}
	what := "the transaction"
	if name != "" {
		what = fmt.Sprintf("statement %q", name)
	}
	for _, c := range classes {
		if !strings.HasPrefix(pg.Code, c.prefix) {
			continue
		}
		p := problem.New(c.kind, c.code, "%s failed: %s%s", what, c.text, names(pg)).WithCause(hidden(pg))
		if c.retry {
			p = p.WithRetryAfter(retryAfter)
		}
		return p
	}
	return problem.New(problem.Invalid, "grant.sql_failed", "%s failed with SQLSTATE %s", what, pg.Code).WithCause(hidden(pg))
}

// names says which rule, table and column of the database an error is about. The server's sentence and its detail hold values of
// rows, so they are not passed on.
func names(pg *pgconn.PgError) string {
	var b strings.Builder
	for _, part := range [][2]string{{"constraint", pg.ConstraintName}, {"table", pg.TableName}, {"column", pg.ColumnName}} {
		if part[1] != "" {
			fmt.Fprintf(&b, ", %s %q", part[0], clip(part[1]))
		}
	}
	return b.String()
}

// hidden is what an operator's log may hold of a server's error: no values either.
func hidden(pg *pgconn.PgError) error {
	return fmt.Errorf("PostgreSQL answered SQLSTATE %s%s", pg.Code, names(pg))
}

// lost is a connection that ended before its answer.
func lost(ctx context.Context, writes bool, err error) error {
	if ctx.Err() != nil && !writes {
		return timedOut(ctx, err)
	}
	p := problem.New(problem.Unavailable, "grant.sql_lost", "the connection to the database ended before its answer")
	if writes {
		p = problem.New(problem.Unavailable, "grant.sql_unknown",
			"the connection to the database ended before its answer; whether the statements took effect is not known").
			WithHint("make the statement harmless to repeat, such as with on conflict do nothing")
	}
	return p.WithRetryAfter(retryAfter).WithCause(err)
}

func parameterProblem(name string, number int, err error) error {
	return problem.New(problem.Invalid, "grant.sql_parameter", "parameter $%d of statement %q: %v", number, name, err)
}
