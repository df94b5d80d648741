package sqlgrant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant/sqlgrant/sealedfile"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// Roots keeps, outside of the folder of databases, what each of a namespace has come to; store.Bucket is one.
type Roots interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

const (
	// rootEvery is how often the root of a database that changes is kept. It bounds what can be cut off the end of a file unnoticed, and what
	// that costs: a write to the store each second, and none for a commit.
	rootEvery = time.Second
	// rootTime bounds one write of it.
	rootTime = 10 * time.Second
)

// kept is the form of a root in the store.
type kept struct {
	Change uint64    `json:"change"`
	Chain  []byte    `json:"chain"`
	At     time.Time `json:"at"`
}

func (k *kept) root() sealedfile.Root {
	r := sealedfile.Root{Seq: k.Change}
	copy(r.Chain[:], k.Chain)
	return r
}

// readRoot returns what is kept of a database; nil is nothing.
func readRoot(ctx context.Context, roots Roots, key string) (*kept, error) {
	text, err := roots.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what the database had come to: %w", err)
	}
	k := &kept{}
	if err := json.Unmarshal(text, k); err != nil {
		return nil, fmt.Errorf("read what the database had come to: %w", err)
	}
	return k, nil
}

// anchor keeps the root of one open database. A root is kept after its commit is on the disk and never before: so wherever the process is killed, the file
// has come to what is kept, or further.
type anchor struct {
	roots  Roots
	key    string
	log    *slog.Logger
	latest chan sealedfile.Root // holds the newest, when it is not kept yet
	stop   chan struct{}
	ended  sync.WaitGroup
}

// newAnchor returns an anchor that follows a database from now on. Its owner calls end.
func newAnchor(roots Roots, key string, log *slog.Logger) *anchor {
	a := &anchor{roots: roots, key: key, log: log, latest: make(chan sealedfile.Root, 1), stop: make(chan struct{})}
	a.ended.Go(a.run)
	return a
}

// note is told of each commit, by one goroutine at a time.
func (a *anchor) note(r sealedfile.Root) {
	if a == nil {
		return
	}
	for {
		select {
		case a.latest <- r:
			return
		default:
		}
		select {
		case <-a.latest:
		default:
		}
	}
}

func (a *anchor) run() {
	for {
		select {
		case <-a.stop:
			return
		case r := <-a.latest:
			if err := a.keep(r); err != nil {
				a.log.Warn("keep what a database has come to", "database", a.key, "error", err)
				select {
				case a.latest <- r: // once more, unless there is a newer one
				default:
				}
			}
		}
		pause := time.NewTimer(rootEvery)
		select {
		case <-a.stop:
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

func (a *anchor) keep(r sealedfile.Root) error {
	ctx, cancel := context.WithTimeout(context.Background(), rootTime)
	defer cancel()
	return putRoot(ctx, a.roots, a.key, r)
}

func putRoot(ctx context.Context, roots Roots, key string, r sealedfile.Root) error {
	text, err := json.Marshal(&kept{Change: r.Seq, Chain: r.Chain[:], At: time.Now().UTC().Truncate(time.Second)})
	if err == nil {
		err = roots.Put(ctx, key, text)
	}
	return err
}

// end ends the following, and keeps the last root, of a file that was closed, unless that is zero.
func (a *anchor) end(last sealedfile.Root) error {
	if a == nil {
		return nil
	}
	close(a.stop)
	a.ended.Wait()
	if last == (sealedfile.Root{}) {
		return nil
	}
	return a.keep(last)
}

// openSealed opens the file of a database as far as it had come, with what follows it; there is no anchor where nothing is kept. Files.mu is held.
func (f *Files) openSealed(ctx context.Context, ns ident.Namespace, name, path string, sealer sealedfile.Sealer) (*sealedfile.File, *anchor, error) {
	if f.cfg.Roots == nil {
		sealed, err := sealedfile.Open(path, name, sealer)
		return sealed, nil, err
	}
	roots, err := f.cfg.Roots(ctx, ns)
	if err != nil {
		return nil, nil, err
	}
	key := name[len(ns)+1:]
	known, err := readRoot(ctx, roots, key)
	if err != nil {
		return nil, nil, err
	}
	if known == nil { // of a new database, or of one from before roots were kept
		known = &kept{}
	}
	sealed, err := sealedfile.OpenAfter(path, name, sealer, known.root())
	if errors.Is(err, sealedfile.ErrRolledBack) {
		return nil, nil, rolledBack(ns, key, known, err)
	}
	if err != nil {
		return nil, nil, err
	}
	a := newAnchor(roots, key, f.cfg.Logger)
	a.note(sealed.Root())
	return sealed, a, nil
}

// rolledBack is a database whose file is not the one that was used last.
func rolledBack(ns ident.Namespace, key string, known *kept, cause error) error {
	return problem.New(problem.Internal, "grant.sql_rolled_back", "the file of the database %s/%s is an older copy, or is gone: change %d of it was recorded on %s, and the file has not come to that",
		ns, key, known.Change, known.At.Format(time.RFC3339)).
		WithHint("put the newer file back; if an older one was restored on purpose: sallyport database accept %s -n %s", key, ns).WithCause(cause)
}

// Accepted is what became of a database whose file was not the one that was used last.
type Accepted struct {
	// Gone says that there is no file: the next use makes an empty database.
	Gone bool
	// Known is the change that was recorded, and Found the one that the file has come to.
	Known, Found uint64
	// Recorded is when the former was recorded.
	Recorded time.Time
}

// Accept has a database go on with the file that there is, though it is an older one. What was newer than that is refused from then on.
func (f *Files) Accept(ctx context.Context, ns ident.Namespace, name string) (*Accepted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	full := string(ns) + "/" + name
	if f.cfg.Roots == nil {
		return nil, errors.New("no roots are kept")
	}
	roots, err := f.cfg.Roots(ctx, ns)
	if err != nil {
		return nil, err
	}
	known, err := readRoot(ctx, roots, name)
	if err != nil {
		return nil, err
	}
	if known == nil {
		return nil, problem.New(problem.NotFound, "grant.sql_no_database", "nothing is recorded of a database %q in namespace %q", name, ns).
			WithHint("a database is made when a function uses it first; the name is what follows sqlite: in the manifest")
	}
	inOrder := problem.New(problem.Conflict, "grant.sql_not_rolled_back", "the file of the database %s is the one that was used last, so there is nothing to accept", full)
	if f.opened[full] != nil {
		return nil, inOrder
	}
	out := &Accepted{Known: known.Change, Recorded: known.At}
	path := f.path(full)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		out.Gone = true
		return out, roots.Delete(ctx, name)
	}
	sealer, err := f.cfg.Sealer(ctx, ns)
	if err != nil {
		return nil, err
	}
	sealed, err := sealedfile.OpenAfter(path, full, sealer, known.root())
	if err == nil {
		return nil, errors.Join(inOrder, sealed.Close())
	}
	if errors.Is(err, sealedfile.ErrRolledBack) {
		sealed, err = sealedfile.Open(path, full, sealer)
	}
	if err != nil {
		return nil, unreadable(full, err)
	}
	out.Found = sealed.Root().Seq
	err = sealed.Outrun(known.root())
	// The file is on the disk before it is recorded: after a crash in between it is accepted already, since its numbers are higher.
	if err = errors.Join(err, sealed.Close()); err == nil {
		err = putRoot(ctx, roots, name, sealed.Root())
	}
	return out, err
}
