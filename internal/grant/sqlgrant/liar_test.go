package sqlgrant_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"sallyport/internal/grant"
	"sallyport/internal/problem"
)

// pgDouble is a server of PostgreSQL's protocol: it lets everybody in, says that each statement gives one column n of int4, and leaves what comes of
// running it to answer, after which it closes. It returns its address, and how many connections are open.
func pgDouble(t *testing.T, answer func(c net.Conn)) (address string, open *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	open = &atomic.Int64{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				defer open.Add(-1)
				defer func() { _ = conn.Close() }()
				servePG(conn, answer)
			}()
		}
	}()
	return fmt.Sprintf("postgres://u:p@%s/d?sslmode=disable", listener.Addr()), open
}

func servePG(conn net.Conn, answer func(c net.Conn)) {
	b := pgproto3.NewBackend(conn, conn)
	if first, err := b.ReceiveStartupMessage(); err != nil {
		return
	} else if _, ok := first.(*pgproto3.StartupMessage); !ok {
		return // such as a wish to cancel something
	}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(ready)
	described, run := 0, false
	for b.Flush() == nil {
		m, err := b.Receive()
		if err != nil {
			return
		}
		switch m.(type) {
		case *pgproto3.Parse:
			b.Send(&pgproto3.ParseComplete{})
			described++
		case *pgproto3.Describe:
			if described > 0 { // of a portal there is a describe, too
				described--
				b.Send(&pgproto3.ParameterDescription{})
				b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("n"), DataTypeOID: 23, DataTypeSize: 4, TypeModifier: -1}}})
			}
		case *pgproto3.Execute:
			run = true
		case *pgproto3.Sync:
			if run {
				answer(conn)
				return
			}
			b.Send(ready)
		}
	}
}

// Messages of the server.
const (
	bound    = "2\x00\x00\x00\x04"
	oneRow   = "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011"
	complete = "C\x00\x00\x00\x0dSELECT 1\x00"
	idle     = "Z\x00\x00\x00\x05I"
)

// TestPostgresLiesAboutResults: a server that lets the door in and then is silent, breaks off or lies is a problem in time; its connection is closed, and
// nothing is stuck.
func TestPostgresLiesAboutResults(t *testing.T) {
	t.Parallel()
	say := func(text string) func(net.Conn) { return func(c net.Conn) { _, _ = c.Write([]byte(text)) } }
	silent := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Write([]byte(text))
			for b := make([]byte, 1<<10); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		}
	}
	endless := func(first, more string) func(net.Conn) {
		return func(c net.Conn) {
			_, err := c.Write([]byte(first))
			for err == nil {
				_, err = c.Write([]byte(more))
			}
		}
	}
	for _, test := range []struct {
		name   string
		answer func(net.Conn)
		codes  []string
	}{
		{"says nothing", silent(""), []string{"grant.timeout"}},
		{"stops before the rows", silent(bound), []string{"grant.timeout"}},
		{"stops within a row", silent(bound + oneRow[:9]), []string{"grant.timeout"}},
		{"stops after the rows", silent(bound + oneRow + complete), []string{"grant.timeout"}},
		{"closes at once", say(""), []string{"grant.sql_lost"}},
		{"closes within a row", say(bound + oneRow[:9]), []string{"grant.sql_lost"}},
		{"closes after a row", say(bound + oneRow), []string{"grant.sql_lost"}},
		{"a message of 2 GiB", say(bound + "D\x7f\xff\xff\xff\x00\x01"), []string{"grant.sql_lost"}},
		{"a message of less than its length", say(bound + "D\x00\x00\x00\x01"), []string{"grant.sql_lost"}},
		{"a value longer than its message", say(bound + "D\x00\x00\x00\x0b\x00\x01\x00\x00\xff\xff1" + complete + idle), []string{"grant.sql_lost"}},
		{"a value of negative length", say(bound + "D\x00\x00\x00\x0b\x00\x01\x80\x00\x00\x001" + complete + idle), []string{"grant.sql_lost"}},
		{"more columns than it said", say(bound + "D\x00\x00\x00\x10\x00\x02\x00\x00\x00\x011\x00\x00\x00\x012" + complete + idle), []string{"grant.sql_lost"}},
		{"no columns", say(bound + "D\x00\x00\x00\x06\x00\x00" + complete + idle), []string{"grant.sql_lost"}},
		{"a message that there is not", say(bound + "~\x00\x00\x00\x04"), []string{"grant.sql_lost"}},
		{"rows without end", endless(bound, oneRow), []string{"grant.sql_too_many_rows"}},
		{"notices without end", endless(bound, "N\x00\x00\x00\x0dSNOTICE\x00\x00"), []string{"grant.timeout"}},
		{"errors without end", endless("", "E\x00\x00\x00\x17SERROR\x00C42P01\x00Mno\x00\x00"), []string{"grant.timeout", "grant.sql_failed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			address, open := pgDouble(t, test.answer)
			door := openDoor(t, nil, secrets{"dsn": address}, "sql = \"secret:dsn\"\nprivate = true\nqueries.one = \"select 1 as n\"")
			for range 2 { // what the first one left behind must not be in the way of the next
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				reply, err := door.Do(ctx, &grant.Call{Op: "query", Request: []byte(`{"query":"one"}`)})
				cancel()
				p, ok := errors.AsType[*problem.Error](err)
				if !ok || !oneOf(p.Code, test.codes) {
					t.Errorf("reply %s, error %v (%v); want one of %v", reply.JSON, err, errors.Unwrap(err), test.codes)
				}
			}
			// A connection that ended in the middle is closed by the library in the background, after at most 15 s.
			deadline := time.Now().Add(hang)
			for open.Load() > 0 {
				if time.Now().After(deadline) {
					t.Fatalf("%d connections stay open", open.Load())
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// TestPostgresValuesStayValues: a value that is not of the type that the server said is a text to the function, and never more members of its row.
func TestPostgresValuesStayValues(t *testing.T) {
	t.Parallel()
	address, _ := pgDouble(t, func(c net.Conn) {
		_, _ = c.Write([]byte(bound + "D\x00\x00\x00\x11\x00\x01\x00\x00\x00\x071,\"x\":2" + complete + idle))
	})
	door := openDoor(t, nil, secrets{"dsn": address}, "sql = \"secret:dsn\"\nprivate = true\nqueries.one = \"select 1 as n\"")
	got, err := query(t, door, "one", "")
	wantReply(t, got, err, `{"rows":[{"n":"1,\"x\":2"}],"changed":0}`)
}

func oneOf(code string, codes []string) bool {
	for _, c := range codes {
		if c == code {
			return true
		}
	}
	return false
}
