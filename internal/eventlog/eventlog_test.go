package eventlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// env is an engine and a keyring in a folder, which can be closed and opened again.
type env struct {
	t    *testing.T
	dir  string
	eng  *store.Engine
	keys *keyring.Keyring
	cfg  eventlog.Config
}

func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{t: t, dir: t.TempDir(), cfg: eventlog.DefaultConfig()}
	e.cfg.IndexDir = filepath.Join(e.dir, "index")
	e.open()
	t.Cleanup(e.close)
	return e
}

func (e *env) open() {
	e.t.Helper()
	ctx := e.t.Context()
	eng, err := store.Open(ctx, store.Config{Dir: filepath.Join(e.dir, "store")})
	if err != nil {
		e.t.Fatal(err)
	}
	root, err := keyring.OpenRoot(filepath.Join(e.dir, "root.key"))
	if err != nil {
		e.t.Fatal(err)
	}
	keys, err := keyring.New(ctx, root, eng.WrappedKeys())
	if err != nil {
		e.t.Fatal(err)
	}
	e.eng, e.keys = eng, keys
}

func (e *env) close() {
	if err := e.eng.Close(); err != nil {
		e.t.Error(err)
	}
}

func (e *env) log() *eventlog.Log {
	e.t.Helper()
	l, err := eventlog.Open(e.t.Context(), e.eng, e.keys, "default", e.cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			e.t.Error(err)
		}
	})
	return l
}

// reopen closes everything, as a restart does.
func (e *env) reopen(l *eventlog.Log) *eventlog.Log {
	e.t.Helper()
	if err := l.Close(); err != nil {
		e.t.Fatal(err)
	}
	e.close()
	e.open()
	return e.log()
}

func record(id, data string) event.Record {
	return event.Record{
		Event: event.Event{
			ID: id, Source: "/shop", Type: "order.created", DataContentType: "application/json",
			Data: []byte(data), DataKind: event.DataJSON,
		},
		AcceptedAt: time.Now().UTC(), Principal: "token:test",
	}
}

func mustAppend(t *testing.T, l *eventlog.Log, recs ...event.Record) []eventlog.Appended {
	t.Helper()
	got, err := l.Append(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAppendAndReadBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	l := e.log()
	recs := []event.Record{record("a", `{"n":1}`), record("b", `{"n":2}`)}
	recs[1].Extensions = []event.Attribute{{Name: "traceparent", Value: "00-x"}}
	got := mustAppend(t, l, recs...)
	check := func(l *eventlog.Log) {
		t.Helper()
		for i, want := range recs {
			r, err := l.At(t.Context(), got[i].Position)
			if err != nil {
				t.Fatal(err)
			}
			want.Position = got[i].Position
			if d := cmp.Diff(want, r); d != "" {
				t.Errorf("At(%s) (-want +got):\n%s", got[i].Position, d)
			}
			for _, source := range []string{"", "/shop"} {
				found, err := l.Find(t.Context(), source, want.ID)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff([]ident.Position{got[i].Position}, found); d != "" {
					t.Errorf("Find(%q, %q) (-want +got):\n%s", source, want.ID, d)
				}
			}
		}
		b, err := l.Next(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) != 2 || b.Records[1].ID != "b" || b.Records[1].Position != got[1].Position {
			t.Errorf("Next(0) = %+v", b)
		}
	}
	check(l)
	check(e.reopen(l))
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	l := e.log()
	first := mustAppend(t, l, record("a", `1`))[0]
	again := func(l *eventlog.Log) {
		t.Helper()
		got := mustAppend(t, l, record("b", `1`), record("a", `1`), record("b", `1`))
		if got[1] != (eventlog.Appended{Position: first.Position, Duplicate: true}) {
			t.Errorf("repeated event = %+v, want a duplicate of %s", got[1], first.Position)
		}
		if got[2].Position != got[0].Position || !got[2].Duplicate {
			t.Errorf("repeated in one append = %+v, want a duplicate of %+v", got[2], got[0])
		}
		_, err := l.Append(t.Context(), []event.Record{record("c", `1`), record("a", `2`)})
		if p := problem.From(err); p.Kind != problem.Conflict || p.Code != "eventlog.conflict" {
			t.Errorf("same identity, other content: %v, want eventlog.conflict", err)
		}
		if found, err := l.Find(t.Context(), "/shop", "c"); err != nil || len(found) != 0 {
			t.Errorf("a refused append stored its other event: %v, %v", found, err)
		}
	}
	again(l)
	l = e.reopen(l)
	again(l)
	st, err := l.Stats(t.Context())
	if err != nil || st.Accepted != 2 {
		t.Errorf("Stats() = %+v, %v; want 2 accepted", st, err)
	}
}

// TestConcurrentAppends has many producers append overlapping identities at once: each identity is
// stored once, and everyone learns the same position.
func TestConcurrentAppends(t *testing.T) {
	t.Parallel()
	l := newEnv(t).log()
	const producers, events = 16, 50
	var mu sync.Mutex
	at := map[string]ident.Position{}
	stored := 0
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := range events {
				id := fmt.Sprintf("e%d", (i+p)%(events))
				got, err := l.Append(context.Background(), []event.Record{record(id, `"x"`)})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if prior, ok := at[id]; ok && prior != got[0].Position {
					t.Errorf("%s is at %s and at %s", id, prior, got[0].Position)
				}
				at[id] = got[0].Position
				if !got[0].Duplicate {
					stored++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if stored != events || len(at) != events {
		t.Errorf("%d stored of %d identities, want %d", stored, len(at), events)
	}
}

func TestNextWaitsAndFollows(t *testing.T) {
	t.Parallel()
	l := newEnv(t).log()
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for after := uint64(0); ; {
			b, err := l.Next(ctx, after)
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			after = b.Seq
			for i := range b.Records {
				got <- b.Records[i].ID
			}
		}
	})
	for _, id := range []string{"a", "b", "c"} {
		mustAppend(t, l, record(id, `0`))
		if g := <-got; g != id {
			t.Fatalf("Next gave %q, want %q", g, id)
		}
	}
	cancel()
	wg.Wait()
}

func TestList(t *testing.T) {
	t.Parallel()
	l := newEnv(t).log()
	start := time.Now()
	for i := range 10 {
		r := record(fmt.Sprint(i), `0`)
		r.AcceptedAt = start.Add(time.Duration(i) * time.Second)
		if i%2 == 1 {
			r.Type = "order.paid"
		}
		mustAppend(t, l, r)
	}
	ids := func(q eventlog.Query) string {
		t.Helper()
		recs, err := l.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for i := range recs {
			out = append(out, recs[i].ID)
		}
		return strings.Join(out, " ")
	}
	all, err := l.List(t.Context(), eventlog.Query{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		q    eventlog.Query
		want string
	}{
		{"newest first", eventlog.Query{Limit: 3}, "9 8 7"},
		{"type", eventlog.Query{Limit: 3, Type: "order.paid"}, "9 7 5"},
		{"other source", eventlog.Query{Limit: 3, Source: "/other"}, ""},
		{"since", eventlog.Query{Limit: 99, Since: start.Add(7 * time.Second)}, "9 8 7"},
		{"until", eventlog.Query{Limit: 2, Until: start.Add(2 * time.Second)}, "1 0"},
		{"page", eventlog.Query{Limit: 2, Before: all[3].Position}, "5 4"},
	} {
		if got := ids(tc.q); got != tc.want {
			t.Errorf("%s: List = %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestIndexIsDerived damages and deletes index files: everything is found again.
func TestIndexIsDerived(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	l := e.log()
	var want []ident.Position
	for range 3 { // three segments, by three restarts
		a := mustAppend(t, l, record(fmt.Sprint("x", len(want)), `0`))
		want = append(want, a[0].Position)
		l = e.reopen(l)
	}
	files, err := filepath.Glob(filepath.Join(e.cfg.IndexDir, "*.idx"))
	if err != nil || len(files) != 3 {
		t.Fatalf("index files %v, %v; want 3", files, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.WriteFile(files[0], b, 0o600), os.Remove(files[1])); err != nil {
		t.Fatal(err)
	}
	l = e.log()
	for i, pos := range want {
		found, err := l.Find(t.Context(), "", fmt.Sprint("x", i))
		if err != nil || len(found) != 1 || found[0] != pos {
			t.Errorf("Find(x%d) = %v, %v; want %s", i, found, err, pos)
		}
	}
	if got := mustAppend(t, l, record("x0", `0`)); !got[0].Duplicate {
		t.Error("a damaged index file made the duplicate window forget an event")
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.cfg.RetainBytes = 1
	l := e.log()
	var at []ident.Position
	for i := range 6 {
		at = append(at, mustAppend(t, l, record(fmt.Sprint(i), `0`))[0].Position)
	}
	if err := l.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.At(t.Context(), at[0]); err != nil {
		t.Fatalf("retention removed a batch before dispatch said it is settled: %v", err)
	}
	l.SetTrimFloor(at[3].Batch())
	if err := l.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, pos := range at {
		_, err := l.At(t.Context(), pos)
		if gone := err != nil; gone != (i < 3) {
			t.Errorf("event %d: %v; want gone %v", i, err, i < 3)
		}
	}
	l = e.reopen(l) // the hot tail still had them
	if b, err := l.Next(t.Context(), 0); err != nil || b.Records[0].ID != "3" {
		t.Errorf("Next(0) after retention = %+v, %v; want event 3", b, err)
	}
	l.SetTrimFloor(1 << 40)
	if err := l.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	l = e.reopen(l)
	if st, err := l.Stats(t.Context()); err != nil || st.Accepted != 6 || st.First != st.Last {
		t.Errorf("Stats() = %+v, %v; want 6 accepted and one batch kept", st, err)
	}
}

// TestSealed plants a marker in every field that comes from outside and looks for it on the disk.
func TestSealed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	l := e.log()
	const marker = "PLANTED-MARKER"
	r := record(marker+"-id", `{"secret":"`+marker+`"}`)
	r.Source, r.Subject, r.Type = "/"+marker, marker, marker+".type"
	r.Extensions = []event.Attribute{{Name: "x", Value: marker}}
	mustAppend(t, l, r)
	j, err := eventlog.OpenJournal(t.Context(), e.eng, e.keys, "default", "deliveries", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), [][]byte{[]byte(marker)}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(e.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		files++
		if bytes.Contains(b, []byte(marker)) {
			t.Errorf("%s holds event data in clear", path)
		}
		return err
	})
	if err != nil || files < 3 {
		t.Fatalf("looked at %d files: %v", files, err)
	}
}

func TestJournal(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	open := func() *eventlog.Journal {
		j, err := eventlog.OpenJournal(t.Context(), e.eng, e.keys, "default", "deliveries", nil)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	for i := range 5 {
		seq, err := j.Append(t.Context(), [][]byte{fmt.Append(nil, "a", i), {}, fmt.Append(nil, "b", i)})
		if err != nil || seq != uint64(i+1) || j.Last() != seq {
			t.Fatalf("Append = %d, %v; Last() = %d; want %d", seq, err, j.Last(), i+1)
		}
	}
	if err := j.Trim(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	e.close()
	e.open()
	j = open()
	var got []string
	err := j.Read(t.Context(), 1, func(seq uint64, recs [][]byte) error {
		for _, r := range recs {
			got = append(got, fmt.Sprintf("%d:%s", seq, r))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"3:a2", "3:", "3:b2", "4:a3", "4:", "4:b3", "5:a4", "5:", "5:b4"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Read (-want +got):\n%s", d)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), [][]byte{nil}); err == nil {
		t.Error("append after Close succeeded")
	}
}
