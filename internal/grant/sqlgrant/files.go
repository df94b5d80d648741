package sqlgrant

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"sallyport/internal/grant/sqlgrant/sealedfile"
	"sallyport/internal/grant/tally"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// FilesConfig says where SQLite databases are kept.
type FilesConfig struct {
	// Dir is the folder; it has one folder for each namespace.
	Dir string
	// Sealer returns what seals the databases of a namespace.
	Sealer func(ctx context.Context, ns ident.Namespace) (sealedfile.Sealer, error)
	// Space returns an error when the disk has no room for more; nil is never.
	Space func() error
	// Roots returns what keeps the roots of the databases of a namespace; without it, an older copy of a file is not noticed.
	Roots func(ctx context.Context, ns ident.Namespace) (Roots, error)
	// Ready is called before a database is opened, when nothing is held: it finds out what the namespace keeps. Admit returns an error when it may
	// not keep n bytes more; done is called when they are in Stored, or will not be. Without them nothing is asked.
	Ready  func(ctx context.Context, ns ident.Namespace) error
	Admit  func(ns ident.Namespace, n int64) (done func(), err error)
	Logger *slog.Logger
}

// pageCost is what a page takes on the disk, in bytes: sealed, and with its part of the head of its batch.
const pageCost = sealedfile.PageSize + 64

// Files keeps the SQLite databases of all namespaces. Each is open once, however many grants use it. It is safe for
// concurrent use. Only one process may use a folder.
type Files struct {
	cfg FilesConfig
	vfs string // what SQLite knows the sealed files by

	stored tally.Tally // what databases take on the disk, open or not

	mu      sync.Mutex // held while a database is opened or closed
	opened  map[string]*lite
	handles map[string]*sealedDB // what the next Open of the vfs returns
}

// made counts the Files of this process, whose names at SQLite differ.
var made atomic.Int64

// NewFiles returns the databases of a folder. Close ends them.
func NewFiles(cfg FilesConfig) (*Files, error) {
	if cfg.Dir == "" || cfg.Sealer == nil {
		return nil, errors.New("files of SQLite need a folder and a sealer")
	}
	if cfg.Space == nil {
		cfg.Space = func() error { return nil }
	}
	if cfg.Ready == nil {
		cfg.Ready = func(context.Context, ident.Namespace) error { return nil }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(ident.Namespace, int64) (func(), error) { return func() {}, nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Files{cfg: cfg, vfs: fmt.Sprintf("sealed%d", made.Add(1)), opened: map[string]*lite{}, handles: map[string]*sealedDB{}}
	vfs.Register(f.vfs, sealedVFS{f})
	return f, nil
}

// Close closes the databases that are open. No door uses them any more.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for name, l := range f.opened {
		errs = append(errs, l.end())
		delete(f.opened, name)
	}
	vfs.Unregister(f.vfs)
	return errors.Join(errs...)
}

// open returns a database for one door, and makes its tables.
func (f *Files) open(ctx context.Context, ns ident.Namespace, g *manifest.SQLGrant) (database, error) {
	if err := f.cfg.Ready(ctx, ns); err != nil {
		return nil, err
	}
	name := string(ns) + "/" + g.SQLite // neither has a slash
	l, err := f.take(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	if err := l.setUp(ctx, g); err != nil {
		return nil, errors.Join(err, f.release(l))
	}
	return &share{lite: l, files: f}, nil
}

// there returns a database when there is one, and else nil.
func (f *Files) there(ctx context.Context, ns ident.Namespace, name string) (*lite, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened[name] == nil {
		if _, err := os.Stat(f.path(name)); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return nil, err
		}
	}
	return f.takeLocked(ctx, ns, name)
}

// sealedSuffix is what the name of a file has behind that of its database.
const sealedSuffix = ".sealed"

// path returns the file of a database.
func (f *Files) path(name string) string {
	return filepath.Join(f.cfg.Dir, filepath.FromSlash(name)+sealedSuffix)
}

func (f *Files) take(ctx context.Context, ns ident.Namespace, name string) (*lite, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.takeLocked(ctx, ns, name)
}

func (f *Files) takeLocked(ctx context.Context, ns ident.Namespace, name string) (*lite, error) {
	if l := f.opened[name]; l != nil {
		l.doors++
		return l, nil
	}
	sealer, err := f.cfg.Sealer(ctx, ns)
	if err != nil {
		return nil, err
	}
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of database %s: %w", name, err)
	}
	sealed, a, err := f.openSealed(ctx, ns, name, path, sealer)
	if err != nil {
		return nil, unreadable(name, err)
	}
	db := &sealedDB{files: f, ns: ns, name: name, file: sealed, anchor: a}
	db.count()
	f.handles[name] = db
	defer delete(f.handles, name)
	l, err := openLite(name, f.vfs, db, f.cfg.Space)
	if err != nil {
		return nil, unreadable(name, errors.Join(db.refused, sealed.Damage(), err, sealed.Close(), a.end(sealed.Root())))
	}
	l.anchor = a
	l.doors = 1
	f.opened[name] = l
	return l, nil
}

// unreadable is a database that does not open.
func unreadable(name string, err error) error {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	if errors.Is(err, sealedfile.ErrDamaged) {
		return problem.New(problem.Internal, "grant.sql_damaged", "the database %s is damaged", name).
			WithHint("restore the data directory from a backup, keys and databases together").WithCause(err)
	}
	return fmt.Errorf("open database %s: %w", name, err)
}

// release gives a database back; the last door closes it.
func (f *Files) release(l *lite) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened[l.name] != l {
		return nil // it was removed, and another may have its name
	}
	if l.doors--; l.doors > 0 {
		return nil
	}
	delete(f.opened, l.name)
	return l.end()
}

// Remove removes the databases of a namespace from the disk. Doors that still have one get no answer from it any more.
func (f *Files) Remove(ns ident.Namespace) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, l := range f.opened {
		if strings.HasPrefix(name, string(ns)+"/") {
			delete(f.opened, name)
			l.removed = true
			_ = l.end() // its keys are gone, so it cannot be closed well, and need not be
		}
	}
	if err := os.RemoveAll(filepath.Join(f.cfg.Dir, string(ns))); err != nil {
		return err
	}
	f.stored.Forget(ns)
	return nil
}

// Stored returns the bytes that the databases of a namespace take, as far as they were measured or opened. A file has more than its database while not
// much of it is outdated: at most as much again, and sealedfile.MinGarbage.
func (f *Files) Stored(ns ident.Namespace) int64 { return f.stored.Of(ns) }

// Measure finds out what Stored returns, unless that is known. The caller holds nothing that a use may wait for.
func (f *Files) Measure(ctx context.Context, ns ident.Namespace) error {
	return f.stored.Measure(ns, func() error {
		f.mu.Lock() // so none is opened meanwhile
		defer f.mu.Unlock()
		entries, err := os.ReadDir(filepath.Join(f.cfg.Dir, string(ns)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			base, ok := strings.CutSuffix(e.Name(), sealedSuffix)
			name := string(ns) + "/" + base
			if !ok || f.stored.Has(ns, name) {
				continue
			}
			if err := f.measure(ctx, ns, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// measure counts what a database that is not open takes. f.mu is held.
func (f *Files) measure(ctx context.Context, ns ident.Namespace, name string) error {
	sealer, err := f.cfg.Sealer(ctx, ns)
	if err != nil {
		return err
	}
	pages, err := sealedfile.Measure(f.path(name), name, sealer)
	bytes := pages * pageCost
	if err != nil {
		// What is damaged still takes its place, and must not keep others from theirs.
		stat, statErr := os.Stat(f.path(name))
		if statErr != nil {
			return errors.Join(err, statErr)
		}
		f.cfg.Logger.WarnContext(ctx, "a database could not be measured, so its file counts", "database", name, "error", err)
		bytes = stat.Size()
	}
	f.stored.Set(ns, name, bytes)
	return nil
}

// share is a door's part of a database.
type share struct {
	*lite
	files *Files
}

// Close gives the database back.
func (s *share) Close() error { return s.files.release(s.lite) }

// sealedVFS is how SQLite reaches the sealed files, and nothing else: no journal, no temporary file and no other database.
type sealedVFS struct{ files *Files }

// Open returns the file that take has prepared. Files.mu is held.
func (v sealedVFS) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	db := v.files.handles[name]
	if db == nil || flags&vfs.OPEN_MAIN_DB == 0 {
		return nil, 0, sqlite3.CANTOPEN
	}
	return db, flags, nil
}

// Delete finds nothing: there are no journals.
func (sealedVFS) Delete(string, bool) error { return sqlite3.IOERR_DELETE_NOENT }

// Access finds nothing: there are no journals.
func (sealedVFS) Access(string, vfs.AccessFlag) (bool, error) { return false, nil }

// FullPathname returns the name as it is.
func (sealedVFS) FullPathname(name string) (string, error) { return name, nil }

// sealedDB is a sealed file as SQLite sees it. One connection has it alone, so its locks are words.
type sealedDB struct {
	files  *Files
	ns     ident.Namespace
	name   string
	file   *sealedfile.File
	anchor *anchor

	// Who has the turn of the database may use these. frees says that what runs only deletes, so that it is not refused for what it may need meanwhile.
	// refused is why a commit was refused, which SQLite cannot say.
	frees   bool
	refused error
	// free is how many pages SQLite has no use for, and shrinks that they can be cut off.
	free    int64
	shrinks bool
}

// count says what the database takes on the disk.
func (d *sealedDB) count() { d.files.stored.Set(d.ns, d.name, d.file.Committed()*pageCost) }

const (
	// sparePages is how many pages without use a database keeps for its next rows: cutting them off costs a commit. So it keeps an eighth of its pages.
	sparePages = 32
	// cutPages is how many are cut off at a time, so that their journal fits in the memory of the connection, and maxCuts how often after one change:
	// 128 MiB, of which each was a commit. The next change goes on.
	cutPages, maxCuts = 2048, 16
)

// shrink cuts off pages that deletes have left without use. That it fails is no failure of the change, which is on the disk.
func (d *sealedDB) shrink(l *lite) {
	l.tending = true
	defer func() { l.tending = false }()
	for range maxCuts {
		before := d.free
		if !d.shrinks || d.free <= sparePages || d.free <= d.file.Committed()/8 {
			return
		}
		if err := l.conn.Exec(fmt.Sprintf("pragma incremental_vacuum(%d)", cutPages)); err != nil {
			if !errors.Is(err, sqlite3.INTERRUPT) { // for which the next change is tried again
				d.files.cfg.Logger.Warn("cut off the free pages of a database", "database", d.name, "error", err)
			}
			return
		}
		if d.free >= before {
			return
		}
	}
}

// The places of numbers in the first page of a database (https://www.sqlite.org/fileformat.html, section 1.3).
const (
	freePagesAt  = 36
	largestRoot  = 52 // not 0 when pages can be cut off
	headerLength = 100
)

// look takes from the first page what it says of free pages.
func (d *sealedDB) look(page int64, content []byte) {
	if page == 0 && len(content) >= headerLength {
		d.free = int64(binary.BigEndian.Uint32(content[freePagesAt:]))
		d.shrinks = binary.BigEndian.Uint32(content[largestRoot:]) != 0
	}
}

func (d *sealedDB) ReadAt(b []byte, offset int64) (int, error) {
	page, from := offset/sealedfile.PageSize, int(offset%sealedfile.PageSize)
	content, err := d.file.Read(page)
	if err != nil {
		return 0, ioError(err, sqlite3.IOERR_READ)
	}
	d.look(page, content)
	n := copy(b, content[from:])
	if n < len(b) {
		return n, io.EOF // SQLite does not read across pages
	}
	return n, nil
}

func (d *sealedDB) WriteAt(b []byte, offset int64) (int, error) {
	if offset%sealedfile.PageSize != 0 {
		return 0, sqlite3.IOERR_WRITE
	}
	if err := d.file.Write(offset/sealedfile.PageSize, b); err != nil {
		return 0, ioError(err, sqlite3.IOERR_WRITE)
	}
	d.look(offset/sealedfile.PageSize, b)
	return len(b), nil
}

// Truncate is called within a commit, and after one that has cut pages off: then it is one of its own, since no Sync follows.
func (d *sealedDB) Truncate(size int64) error {
	err := d.file.Truncate((size + sealedfile.PageSize - 1) / sealedfile.PageSize)
	if err == nil && !d.file.Pending() && d.file.Pages() < d.file.Committed() {
		err = d.commit()
	}
	return ioError(err, sqlite3.IOERR_TRUNCATE)
}

// Sync is SQLite's commit: its journal is in memory, so nothing is synced before that. It is where a database grows, and so where the namespace is
// asked. After a refusal SQLite puts back the pages that it has written, and syncs that.
func (d *sealedDB) Sync(vfs.SyncFlag) error {
	done := func() {}
	if more := d.file.Pages() - d.file.Committed(); more > 0 && !d.frees {
		var err error
		if done, err = d.files.cfg.Admit(d.ns, more*pageCost); err != nil {
			d.refused = err
			return vfs.SystemError(err, sqlite3.FULL)
		}
	}
	defer done()
	return ioError(d.commit(), sqlite3.IOERR_FSYNC)
}

// commit has what was written on the disk, and says so.
func (d *sealedDB) commit() error {
	if err := d.file.Commit(); err != nil {
		return err
	}
	d.count()
	d.anchor.note(d.file.Root())
	return nil
}

func (d *sealedDB) Size() (int64, error)                            { return d.file.Pages() * sealedfile.PageSize, nil }
func (d *sealedDB) Close() error                                    { return nil } // its owner closes it
func (d *sealedDB) Lock(vfs.LockLevel) error                        { return nil }
func (d *sealedDB) Unlock(vfs.LockLevel) error                      { return nil }
func (d *sealedDB) CheckReservedLock() (bool, error)                { return false, nil }
func (d *sealedDB) SectorSize() int                                 { return sealedfile.PageSize }
func (d *sealedDB) DeviceCharacteristics() vfs.DeviceCharacteristic { return 0 }

// ioError gives SQLite an error that it understands, with the cause for the log.
func ioError(err error, code sqlite3.ExtendedErrorCode) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return vfs.SystemError(err, code)
}
